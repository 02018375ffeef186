/* ballast-trace info: what a trace holds. */
#include "base/json.h"
#include "traces/command_input.h"
#include "traces/commands.h"
#include "traces/stats.h"
#include <inttypes.h>
#include <stdio.h>

static bl_command_input input;
static bool as_json;

static void print_info_json(const bl_trace_reader *reader, const bl_trace_summary *summary) {
  const bl_trace_shape *shape = bl_trace_shape_of(reader);
  const int32_t steps = bl_trace_steps(reader);
  const struct {
    const char *key;
    int64_t value;
  } numbers[] = {{"bytes", (int64_t)summary->file_bytes},
                 {"steps", steps},
                 {"first_iteration", bl_trace_iteration(reader, 0)},
                 {"last_iteration", bl_trace_iteration(reader, steps - 1)},
                 {"iteration_stride", summary->stride},
                 {"layers", shape->layers},
                 {"ranks", shape->ranks},
                 {"micro_batches", shape->micro_batches},
                 {"experts", shape->experts},
                 {"min_row_sum", (int64_t)summary->min_row},
                 {"max_row_sum", (int64_t)summary->max_row},
                 {"copies", (int64_t)summary->copies}};
  bl_json_writer w;
  bl_json_writer_init(&w, stdout, true);
  bl_json_begin_object(&w);
  bl_json_put_int(&w, "version", 1);
  bl_json_put_string(&w, "file", bl_trace_path(reader));
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    bl_json_put_int(&w, numbers[i].key, numbers[i].value);
  }
  bl_json_put_bool(&w, "live", shape->live);
  bl_json_put_bool(&w, "truncated", bl_trace_truncated(reader));
  bl_json_end_object(&w);
  bl_json_newline(&w);
}

static void print_info(const bl_trace_reader *reader, const bl_trace_summary *summary) {
  const bl_trace_shape *shape = bl_trace_shape_of(reader);
  const int32_t steps = bl_trace_steps(reader);
  printf("%s: %" PRId32 " x %" PRId32 " layers x %" PRId32 " ranks x %" PRId32 " micro-batches x %" PRId32 " experts\n",
         bl_trace_path(reader), steps, shape->layers, shape->ranks, shape->micro_batches, shape->experts);
  printf("iterations   %" PRId64 " to %" PRId64, bl_trace_iteration(reader, 0), bl_trace_iteration(reader, steps - 1));
  if (summary->stride > 0) printf(", every %" PRId64, summary->stride);
  printf("\nrow sums     ");
  if (summary->min_row == summary->max_row)
    printf("%" PRIu64 " (every row)\n", summary->min_row);
  else
    printf("%" PRIu64 " to %" PRIu64 "\n", summary->min_row, summary->max_row);
  printf("recorded     %s\n", shape->live ? "live: every micro-batch was scheduled by itself" : "as a histogram");
  printf("size         %.1f MB, %.3f bytes a count\n", (double)summary->file_bytes * 1e-6,
         (double)summary->file_bytes / ((double)bl_trace_step_size(shape) * steps));
  printf("index        %s\n", bl_trace_truncated(reader) ? "missing or damaged, rebuilt" : "sound");
}

static bl_status run(void *context) {
  (void)context;
  bl_trace_reader *reader = NULL;
  bl_trace_summary summary;
  BL_TRY(bl_command_input_open(&input, &reader));
  const bl_status status = bl_trace_summarise(reader, &summary);
  if (status == BL_OK && as_json) print_info_json(reader, &summary);
  if (status == BL_OK && !as_json) print_info(reader, &summary);
  bl_trace_close(reader);
  return status;
}

bl_command bl_command_info(void) {
  static const bl_option options[] = {
      BL_INPUT_PATH_ROW(input), {.name = "json", .type = BL_OPTION_FLAG, .target = &as_json, .help = "print JSON"}};
  return (bl_command){.name = "info",
                      .summary = "says what a trace holds, and reads all of it",
                      .example = "ballast-trace info smartmoe.blt",
                      .options = options,
                      .n_options = sizeof options / sizeof *options,
                      .run = run};
}
