/* ballast-trace import: other formats become .blt traces. */
#include "base/log.h"
#include "base/memory.h"
#include "traces/command_input.h"
#include "traces/commands.h"
#include "traces/import_megatron.h"
#include "traces/import_smartmoe.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
  const char *input, *output, *format;
  int64_t experts;
} arg;

/* What a format is read by. */
typedef struct trace_source {
  void *source;
  const bl_trace_shape *shape;
  int32_t steps;
  bl_status (*read)(void *source, int32_t index, uint32_t *counts); /* index: 0, 1, ... */
  int64_t (*iteration)(const void *source, int32_t index);
} trace_source;

static bl_status copy_steps(const trace_source *from, bl_trace_writer *writer, uint32_t *counts) {
  bl_progress progress;
  bl_progress_start(&progress);
  bl_status status = BL_OK;
  for (int32_t i = 0; i < from->steps && status == BL_OK; i++) {
    status = from->read(from->source, i, counts);
    if (status == BL_OK) status = bl_trace_append(writer, from->iteration(from->source, i), counts);
    bl_progress_update(&progress, "%" PRId32 " of %" PRId32 " steps", i + 1, from->steps);
  }
  bl_progress_end(&progress);
  return status;
}

static bl_status copy_trace(const trace_source *from) {
  bl_trace_writer *writer = NULL;
  uint32_t *counts = NULL;
  bl_status status;
  BL_TRY_GOTO(status, bl_new(&counts, (size_t)bl_trace_step_size(from->shape), sizeof *counts, "a step of a trace"),
              end);
  BL_TRY_GOTO(status, bl_trace_create(arg.output, from->shape, &writer), end);
  BL_TRY_GOTO(status, copy_steps(from, writer, counts), end);
  bl_trace_writer *const complete = writer;
  writer = NULL;
  status = bl_trace_finish(complete);
end:
  bl_trace_discard(writer);
  free(counts);
  return status;
}

static void say(const trace_source *from, const char *text, int32_t files, int32_t first_rank, int32_t last_rank) {
  const bl_trace_shape *s = from->shape;
  bl_log(1,
         "%" PRId32 " steps x %" PRId32 " layers x %" PRId32 " ranks x %" PRId32 " micro-batches x %" PRId32
         " experts%s",
         from->steps, s->layers, s->ranks, s->micro_batches, s->experts, text);
  if (last_rank != files - 1)
    bl_log(1, "the ranks in the file names have gaps (%" PRId32 " to %" PRId32 "); they are counted 0 to %" PRId32,
           first_rank, last_rank, files - 1);
}

/* -- SmartMoE ------------------------------------------------------------------------------------------------------ */

static bl_status read_smartmoe(void *source, int32_t i, uint32_t *counts) {
  return bl_smartmoe_read(source, i, counts);
}
static int64_t smartmoe_iteration(const void *source, int32_t i) { return bl_smartmoe_iteration(source, i); }

static bl_status import_smartmoe(void) {
  bl_smartmoe *source = NULL;
  char text[64];
  BL_TRY(bl_smartmoe_open(arg.input, &source));
  const trace_source from = {source, bl_smartmoe_shape_of(source), bl_smartmoe_steps(source), read_smartmoe,
                             smartmoe_iteration};
  const bl_status status = copy_trace(&from);
  if (status == BL_OK) {
    snprintf(text, sizeof text, " from %.1f MB of text", (double)bl_smartmoe_bytes(source) * 1e-6);
    say(&from, text, from.shape->ranks, bl_smartmoe_rank(source, 0), bl_smartmoe_rank(source, from.shape->ranks - 1));
  }
  bl_smartmoe_close(source);
  return status;
}

/* -- Megatron-Core ------------------------------------------------------------------------------------------------- */

static bl_status read_megatron(void *source, int32_t i, uint32_t *counts) {
  (void)i; /* steps come in their order */
  return bl_megatron_read(source, counts);
}
static int64_t megatron_iteration(const void *source, int32_t i) { return bl_megatron_iteration(source, i); }

static bl_status import_megatron(void) {
  bl_megatron *source = NULL;
  if (arg.experts == 0)
    return bl_fail(BL_EUSAGE, "--from megatron needs --experts: its files do not say how many a layer has");
  BL_TRY(bl_megatron_open(arg.input, (int32_t)arg.experts, &source));
  const trace_source from = {source, bl_megatron_shape_of(source), bl_megatron_steps(source), read_megatron,
                             megatron_iteration};
  const bl_status status = copy_trace(&from);
  if (status == BL_OK) {
    const int32_t last = from.shape->layers - 1;
    const int32_t files = bl_megatron_files(source);
    say(&from, "", files, bl_megatron_rank(source, 0), bl_megatron_rank(source, files - 1));
    if (bl_megatron_stages(source) > 1)
      bl_log(1, "%" PRId32 " ranks in %" PRId32 " pipeline stages; the trace has the %" PRId32 " ranks of each", files,
             bl_megatron_stages(source), from.shape->ranks);
    if (bl_megatron_layer(source, last) != last)
      bl_log(1, "layers %" PRId32 " to %" PRId32 " of the model; in the trace they are 0 to %" PRId32,
             bl_megatron_layer(source, 0), bl_megatron_layer(source, last), last);
    if (bl_megatron_left_out(source) > 0)
      bl_log(1, "%" PRId64 " lines a rank are of multi-token prediction and left out", bl_megatron_left_out(source));
  }
  bl_megatron_close(source);
  return status;
}

static bl_status run(void *context) {
  (void)context;
  const bool megatron = strcmp(arg.format, "megatron") == 0;
  if (arg.experts > 0 && !megatron) return bl_fail(BL_EUSAGE, "--experts is for --from megatron alone");
  return megatron ? import_megatron() : import_smartmoe();
}

bl_command bl_command_import(void) {
  static const bl_option options[] = {
      {.type = BL_OPTION_STRING,
       .target = &arg.input,
       .metavar = "DIR",
       .help = "the folder to read",
       .required = true},
      {.name = "from",
       .type = BL_OPTION_CHOICE,
       .target = &arg.format,
       .choices = "smartmoe|megatron",
       .help = "what the folder holds; smartmoe: text files table_iter<I>_rank<R>.log; megatron: the router trace of "
               "Megatron-Core, router_trace_rank<R>.jsonl",
       .required = true},
      {.name = "experts",
       .type = BL_OPTION_INT,
       .target = &arg.experts,
       .metavar = "E",
       .help = "experts of a layer, for megatron: its files do not say",
       .min = 1,
       .max = BL_TRACE_MAX_EXPERTS},
      BL_OUTPUT_TRACE_ROW(arg.output)};
  return (bl_command){
      .name = "import",
      .summary = "turns another format into a .blt trace",
      .description =
          "Any iterations and ranks may be there, but every rank for every iteration. All rows of a smartmoe file "
          "must sum alike.",
      .example = "ballast-trace import --from smartmoe moe_trace/ -o smartmoe.blt",
      .options = options,
      .n_options = sizeof options / sizeof *options,
      .run = run};
}
