/* ballast-trace import: other formats become .blt traces. */
#include "base/log.h"
#include "base/memory.h"
#include "traces/command_input.h"
#include "traces/commands.h"
#include "traces/import_smartmoe.h"
#include <inttypes.h>

static struct { const char *input, *output, *format; } arg;

static bl_status copy_steps(bl_smartmoe *source, bl_trace_writer *writer, uint32_t *counts) {
  bl_progress progress;
  bl_progress_start(&progress);
  bl_status status = BL_OK;
  for (int32_t i = 0; i < bl_smartmoe_steps(source) && status == BL_OK; i++) {
    status = bl_smartmoe_read(source, i, counts);
    if (status == BL_OK) status = bl_trace_append(writer, bl_smartmoe_iteration(source, i), counts);
    bl_progress_update(&progress, "%" PRId32 " of %" PRId32 " steps", i + 1, bl_smartmoe_steps(source));
  }
  bl_progress_end(&progress);
  return status;
}

static bl_status run(void *context) {
  (void)context;
  bl_smartmoe *source = NULL;
  bl_trace_writer *writer = NULL;
  uint32_t *counts = NULL;
  bl_status status;
  BL_TRY(bl_smartmoe_open(arg.input, &source));
  const bl_trace_shape *shape = bl_smartmoe_shape_of(source);
  const size_t size = (size_t)bl_trace_step_size(shape);
  BL_TRY_GOTO(status, bl_new(&counts, size, sizeof *counts, "a step of a trace"), end);
  BL_TRY_GOTO(status, bl_trace_create(arg.output, shape, &writer), end);
  BL_TRY_GOTO(status, copy_steps(source, writer, counts), end);
  bl_trace_writer *const complete = writer;
  writer = NULL;
  BL_TRY_GOTO(status, bl_trace_finish(complete), end);
  bl_log(1,
         "%" PRId32 " steps x %" PRId32 " layers x %" PRId32 " ranks x %" PRId32 " micro-batches x %" PRId32
         " experts from %.1f MB of text",
         bl_smartmoe_steps(source), shape->layers, shape->ranks, shape->micro_batches, shape->experts,
         (double)bl_smartmoe_bytes(source) * 1e-6);
  if (bl_smartmoe_rank(source, shape->ranks - 1) != shape->ranks - 1)
    bl_log(1, "the ranks in the file names have gaps (%" PRId32 " to %" PRId32 "); in the trace they are 0 to %" PRId32,
           bl_smartmoe_rank(source, 0), bl_smartmoe_rank(source, shape->ranks - 1), shape->ranks - 1);
end:
  bl_trace_discard(writer);
  bl_smartmoe_close(source);
  free(counts);
  return status;
}

bl_command bl_command_import(void) {
  static const bl_option options[] = {{.type = BL_OPTION_STRING,
                                       .target = &arg.input,
                                       .metavar = "DIR",
                                       .help = "the folder to read",
                                       .required = true},
                                      {.name = "from",
                                       .type = BL_OPTION_CHOICE,
                                       .target = &arg.format,
                                       .choices = "smartmoe",
                                       .help = "what the folder holds; smartmoe: text files table_iter<I>_rank<R>.log",
                                       .required = true},
                                      BL_OUTPUT_TRACE_ROW(arg.output)};
  return (bl_command){
      .name = "import",
      .summary = "turns another format into a .blt trace",
      .description = "Any iterations and ranks may be there, but every rank for every iteration. All rows of a file "
                     "must sum alike.",
      .example = "ballast-trace import --from smartmoe moe_trace/ -o smartmoe.blt",
      .options = options,
      .n_options = sizeof options / sizeof *options,
      .run = run};
}
