/* megatron_line.h - a line of Megatron-Core's router trace. Private to traces/. */
#ifndef BL_TRACES_MEGATRON_LINE_H
#define BL_TRACES_MEGATRON_LINE_H

#include "base/status.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* What is kept from one line to the next. */
typedef struct bl_megatron_line {
  int32_t experts;
  uint32_t *row; /* [experts]: token copies of the line read last; as it was after a line that is left out */
  char *text;
  size_t capacity;
} bl_megatron_line;

typedef struct bl_megatron_record {
  int64_t step, layer;
  bool left_out; /* of multi-token prediction */
} bl_megatron_record;

bl_status bl_megatron_line_create(bl_megatron_line *line, int32_t experts);
void bl_megatron_line_free(bl_megatron_line *line);

/*! bl_megatron_read_line() : the next line of `stream`, number `number` of the file `name`, which is rank `rank`'s.
 *  *more is false at the end of the file.  @return : BL_OK, BL_EINPUT (file, line, place), BL_EMACHINE. */
bl_status bl_megatron_read_line(bl_megatron_line *line, FILE *stream, const char *name, int64_t number, int32_t rank,
                                bl_megatron_record *out, bool *more);

#endif
