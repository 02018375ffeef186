/* command_input.h - what the commands that read a trace are told alike, and how they open it. */
#ifndef BL_TRACES_COMMAND_INPUT_H
#define BL_TRACES_COMMAND_INPUT_H

#include "base/options.h"
#include "traces/trace.h"

typedef struct bl_command_input {
  const char *path, *steps; /* steps: NULL for all */
} bl_command_input;

/* Rows of an option table with `input`, a bl_command_input, as target. */
#define BL_INPUT_PATH_ROW(input)                                                                         \
  {                                                                                                      \
    .type = BL_OPTION_STRING, .target = &(input).path, .metavar = "F", .help = "the .blt trace to read", \
    .required = true                                                                                     \
  }
#define BL_INPUT_STEPS_ROW(input)                                                          \
  {                                                                                        \
    .name = "steps", .type = BL_OPTION_STRING, .target = &(input).steps, .metavar = "A:B", \
    .help = "only iterations A to B, inclusive; by default all"                            \
  }
#define BL_OUTPUT_TRACE_ROW(path)                                                    \
  {                                                                                  \
    .name = "output|o", .type = BL_OPTION_STRING, .target = &(path), .metavar = "F", \
    .help = "the .blt trace to write", .required = true                              \
  }

/*! bl_command_input_open() : opens the trace and says on stderr when it was cut short. */
bl_status bl_command_input_open(const bl_command_input *input, bl_trace_reader **reader);

/*! bl_command_input_steps() : the steps chosen by --steps (iteration numbers, inclusive), as indices.
 *  @return : BL_OK, BL_EUSAGE (no range), BL_EINPUT (no step lies within it). */
bl_status bl_command_input_steps(const bl_command_input *input, const bl_trace_reader *reader, int32_t *first,
                                 int32_t *last);

#endif
