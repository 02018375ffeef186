/* command_input.c - opening the trace that a command reads. */
#include "traces/command_input.h"
#include "base/log.h"
#include <inttypes.h>

bl_status bl_command_input_open(const bl_command_input *input, bl_trace_reader **reader) {
  BL_TRY(bl_trace_open(input->path, reader));
  if (bl_trace_truncated(*reader))
    bl_warn("%s: has no sound index (cut short or damaged); read up to its last whole block, iteration %" PRId64,
            input->path, bl_trace_iteration(*reader, bl_trace_steps(*reader) - 1));
  return BL_OK;
}

bl_status bl_command_input_steps(const bl_command_input *input, const bl_trace_reader *reader, int32_t *first,
                                 int32_t *last) {
  int64_t low = INT64_MIN, high = INT64_MAX;
  const int32_t steps = bl_trace_steps(reader);
  if (input->steps != NULL) BL_TRY(bl_parse_range(input->steps, "--steps", &low, &high));
  *first = bl_trace_find(reader, low);
  *last = high == INT64_MAX ? steps - 1 : bl_trace_find(reader, high + 1) - 1;
  if (*first <= *last) return BL_OK;
  return bl_fail(BL_EINPUT, "%s: no step within --steps %s, the iterations are %" PRId64 " to %" PRId64,
                 bl_trace_path(reader), input->steps, bl_trace_iteration(reader, 0),
                 bl_trace_iteration(reader, steps - 1));
}
