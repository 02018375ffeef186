/* outputs.c - opening, continuing and closing run log, dump and recorded trace. */
#include "executor/outputs.h"
#include <sys/stat.h>
#include <unistd.h>

static bl_status open_trace(const bl_train_options *o, const bl_rank *r, bl_trace_writer **out) {
  const bl_run *run = r->run;
  const char *path = o->record_trace;
  const bl_trace_shape shape = {.layers = r->weights.moe_layers,
                                .ranks = run->ranks,
                                .micro_batches = run->micro_batches,
                                .experts = run->model->experts,
                                .live = true};
  if (o->resume) {
    const bl_status status = bl_trace_continue(path, &shape, r->step, out);
    struct stat info; /* an empty file holds no trace to go on with */
    const bool empty = stat(path, &info) != 0 || (S_ISREG(info.st_mode) && info.st_size == 0);
    if (status == BL_OK || !empty) return status;
  }
  return bl_trace_create(path, &shape, out);
}

bl_status bl_outputs_open(const bl_train_options *o, bl_rank *r, bl_outputs *out) {
  const int64_t keep = o->resume ? r->step : -1;
  out->checkpointed = o->checkpoint != NULL;
  if (o->record_trace) BL_TRY(open_trace(o, r, &out->trace));
  if (o->dump) {
    BL_TRY(bl_lines_open(o->dump, keep, &out->dump, &out->dump_continued));
    bl_policy_dump_to(r->policy, out->dump.stream);
  }
  if (!o->log) return BL_OK;
  BL_TRY(bl_lines_open(o->log, keep, &out->log, &out->log_continued));
  if (out->log_continued) return BL_OK;
  const bl_runlog_header header = {.argc = o->argc,
                                   .argv = o->argv,
                                   .data_path = o->data,
                                   .plan_path = o->plan,
                                   .gate = o->gate,
                                   .backend = o->backend,
                                   .transport = o->transport,
                                   .resume = o->resume,
                                   .first_step = r->step + 1};
  return bl_runlog_begin(&out->log, r, &header);
}

bl_status bl_outputs_step(bl_outputs *out, const bl_rank *r, int64_t step_us) {
  if (out->trace) BL_TRY(bl_trace_append(out->trace, r->step, r->counts));
  if (out->dump.stream) BL_TRY(bl_lines_flush(&out->dump));
  if (out->log.stream) BL_TRY(bl_runlog_step(&out->log, r, step_us));
  out->steps_written++;
  return BL_OK;
}

/* A device or pipe that was written to stays. */
static void remove_file(const char *path) {
  struct stat info;
  if (lstat(path, &info) == 0 && S_ISREG(info.st_mode)) unlink(path);
}

bl_status bl_outputs_close(bl_outputs *out, bool failed) {
  bl_status status = BL_OK;
  const bool log_open = out->log.stream != NULL, dump_open = out->dump.stream != NULL;
  BL_KEEP_FIRST(status, bl_lines_close(&out->log));
  BL_KEEP_FIRST(status, bl_lines_close(&out->dump));
  if (failed && out->steps_written == 0) {
    if (log_open && !out->log_continued) remove_file(out->log.path);
    if (dump_open && !out->dump_continued) remove_file(out->dump.path);
  }
  /* A run with a checkpoint to go on from keeps the routing of the steps it made, as it keeps log and dump. */
  if (failed && (out->steps_written == 0 || !out->checkpointed))
    bl_trace_discard(out->trace);
  else if (out->trace)
    BL_KEEP_FIRST(status, bl_trace_finish(out->trace));
  return status;
}
