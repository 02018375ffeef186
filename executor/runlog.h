/* runlog.h - the run log: a header line, then one JSON object a step (DESIGN section 7).
 *
 * Lines are written whole and flushed, so that a killed run leaves every finished step. A write that fails takes the
 * broken line back. */
#ifndef BL_EXECUTOR_RUNLOG_H
#define BL_EXECUTOR_RUNLOG_H

#include "base/json.h"
#include "base/status.h"
#include "executor/rank.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* A file of JSON lines that is appended to. */
typedef struct bl_lines {
  const char *path; /* borrowed */
  FILE *stream;     /* NULL: not open */
  long whole;       /* file size up to the last whole line; -1 where the file cannot seek */
} bl_lines;

/*! bl_lines_open() : a new file ("-": standard output), or (keep_step >= 0) an existing one whose lines up to that
 * "step" stay and the rest is dropped; lines without "step" stay. The file is locked against a second writer.
 * `*continued` tells whether an old file was continued.
 *  @return : BL_OK, BL_EINPUT (cannot be created, is being written already, or not JSON lines), BL_EMACHINE. */
bl_status bl_lines_open(const char *path, int64_t keep_step, bl_lines *out, bool *continued);

/*! bl_lines_flush() : after each line or group of lines: they are in the file now. On failure the file is cut back to
 *  what was whole.  @return : BL_OK or BL_EMACHINE. */
bl_status bl_lines_flush(bl_lines *lines);
bl_status bl_lines_close(bl_lines *lines); /* not open is fine */

/* What the header line says besides the run's own numbers. */
typedef struct bl_runlog_header {
  int argc;
  char **argv;
  const char *data_path, *plan_path, *policy, *gate, *backend, *transport, *resume; /* NULL where absent */
  int64_t first_step;
} bl_runlog_header;

/*! bl_runlog_begin() : writes the header line. */
bl_status bl_runlog_begin(bl_lines *log, const bl_rank *r, const bl_runlog_header *header);

/*! bl_runlog_step() : writes the line of the step in r->result, which took step_us. */
bl_status bl_runlog_step(bl_lines *log, const bl_rank *r, int64_t step_us);

#endif
