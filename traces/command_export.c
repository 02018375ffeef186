/* ballast-trace export: a .blt trace becomes another format. */
#include "base/file.h"
#include "traces/command_input.h"
#include "traces/commands.h"
#include "traces/export.h"

static bl_command_input input;
static struct { const char *output, *format; } arg = {.output = "-"};

static bl_status run(void *context) {
  (void)context;
  bl_trace_reader *reader = NULL;
  bl_output *output = NULL;
  int32_t first = 0, last = 0;
  const char *const inputs[] = {input.path};
  bl_status status;
  BL_TRY(bl_output_check(arg.output, inputs, 1));
  BL_TRY(bl_command_input_open(&input, &reader));
  BL_TRY_GOTO(status, bl_command_input_steps(&input, reader, &first, &last), end);
  BL_TRY_GOTO(status, bl_output_open(arg.output, &output), end);
  BL_TRY_GOTO(status, bl_export_csv(reader, first, last, output), end);
  status = bl_output_commit(output);
  output = NULL;
end:
  bl_output_discard(output);
  bl_trace_close(reader);
  return status;
}

bl_command bl_command_export(void) {
  static const bl_option options[] = {
      BL_INPUT_PATH_ROW(input),
      {.name = "to",
       .type = BL_OPTION_CHOICE,
       .target = &arg.format,
       .choices = "csv",
       .help = "csv: step,layer,rank,micro_batch,e0,...,eN, a line for every row of counts",
       .required = true},
      BL_INPUT_STEPS_ROW(input),
      {.name = "output|o",
       .type = BL_OPTION_STRING,
       .target = &arg.output,
       .metavar = "F",
       .help = "where the text goes"}};
  return (bl_command){.name = "export",
                      .summary = "turns a .blt trace into another format",
                      .example = "ballast-trace export smartmoe.blt --to csv --steps 1:101 -o smartmoe.csv",
                      .options = options,
                      .n_options = sizeof options / sizeof *options,
                      .run = run};
}
