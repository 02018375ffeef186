/* export.c - CSV. printf would be most of the time, so numbers are written by hand. */
#include "traces/export.h"
#include "base/memory.h"
#include <inttypes.h>
#include <string.h>

enum { MAX_NUMBER = 20, LEADING_COLUMNS = 4 };

static char *put_number(char *at, uint64_t value) {
  char digits[MAX_NUMBER];
  int n = 0;
  do {
    digits[n++] = (char)('0' + value % 10);
    value /= 10;
  } while (value > 0);
  while (n > 0) *at++ = digits[--n];
  return at;
}

static bl_status write_heading(const bl_trace_shape *shape, bl_output *output) {
  BL_TRY(bl_output_printf(output, "step,layer,rank,micro_batch"));
  for (int32_t e = 0; e < shape->experts; e++) BL_TRY(bl_output_printf(output, ",e%" PRId32, e));
  return bl_output_printf(output, "\n");
}

static bl_status write_step(const bl_trace_shape *shape, int64_t iteration, const uint32_t *counts, char *line,
                            bl_output *output) {
  char step[MAX_NUMBER + 1];
  char *step_end = step;
  if (iteration < 0) *step_end++ = '-';
  step_end = put_number(step_end, iteration < 0 ? 0 - (uint64_t)iteration : (uint64_t)iteration);
  for (int32_t layer = 0; layer < shape->layers; layer++)
    for (int32_t rank = 0; rank < shape->ranks; rank++)
      for (int32_t micro_batch = 0; micro_batch < shape->micro_batches; micro_batch++) {
        const int32_t place[] = {layer, rank, micro_batch};
        char *at = line + (step_end - step);
        memcpy(line, step, (size_t)(step_end - step));
        for (int i = 0; i < 3; i++) {
          *at++ = ',';
          at = put_number(at, (uint64_t)place[i]);
        }
        for (int32_t e = 0; e < shape->experts; e++) {
          *at++ = ',';
          at = put_number(at, *counts++);
        }
        *at++ = '\n';
        BL_TRY(bl_output_write(output, line, (uint64_t)(at - line)));
      }
  return BL_OK;
}

bl_status bl_export_csv(bl_trace_reader *reader, int32_t first, int32_t last, bl_output *output) {
  const bl_trace_shape *shape = bl_trace_shape_of(reader);
  uint32_t *counts = NULL;
  char *line = NULL;
  bl_status status = BL_OK;
  const size_t columns = (size_t)shape->experts + LEADING_COLUMNS;
  BL_TRY_GOTO(status, bl_new(&counts, (size_t)bl_trace_step_size(shape), sizeof *counts, "a step of a trace"), end);
  BL_TRY_GOTO(status, bl_new(&line, columns, MAX_NUMBER + 2, "a line of CSV"), end);
  BL_TRY_GOTO(status, write_heading(shape, output), end);
  for (int32_t i = first; i <= last; i++) {
    BL_TRY_GOTO(status, bl_trace_read(reader, i, counts), end);
    BL_TRY_GOTO(status, write_step(shape, bl_trace_iteration(reader, i), counts, line, output), end);
  }
end:
  free(counts);
  free(line);
  return status;
}
