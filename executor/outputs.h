/* outputs.h - what rank 0 writes while training: run log, dump of hosts, recorded trace. */
#ifndef BL_EXECUTOR_OUTPUTS_H
#define BL_EXECUTOR_OUTPUTS_H

#include "base/status.h"
#include "executor/rank.h"
#include "executor/runlog.h"
#include "executor/setup.h"
#include "traces/trace.h"
#include <stdbool.h>
#include <stdint.h>

typedef struct bl_outputs {
  bl_lines log, dump;
  bl_trace_writer *trace;
  bool log_continued, dump_continued, checkpointed;
  int64_t steps_written;
} bl_outputs;

/*! bl_outputs_open() : creates what the options name, or on --resume goes on behind step r->step. `out` is zeroed;
 *  close it also after a failure.  @return : what bl_lines_open() and the trace writer return. */
bl_status bl_outputs_open(const bl_train_options *options, bl_rank *r, bl_outputs *out);

/*! bl_outputs_step() : adds the step in r->result and r->counts, which took step_us. */
bl_status bl_outputs_step(bl_outputs *out, const bl_rank *r, int64_t step_us);

/*! bl_outputs_close() : completes the files; of a run that failed, takes back what says nothing. */
bl_status bl_outputs_close(bl_outputs *out, bool failed);

#endif
