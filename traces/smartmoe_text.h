/* smartmoe_text.h - the text of one file of the SmartMoE artifact's moe_trace: the routing of one rank in one
 * iteration. Private to traces/.
 *
 * A line a layer, in order: "LAYER:[[c, ...], [c, ...], ...]", a row a micro-batch, a count an expert, counts written
 * as Python floats ("177.0"). Every row of a file sums to the same number (tokens x top-k). */
#ifndef BL_TRACES_SMARTMOE_TEXT_H
#define BL_TRACES_SMARTMOE_TEXT_H

#include "base/status.h"
#include <stdbool.h>
#include <stdint.h>

enum {
  BL_TEXT_PADDING = 64,         /* bytes that must be readable (any content) before and behind a text */
  BL_TEXT_MAX_COUNT = INT32_MAX /* of one count */
};

/* What the lines of a file must look like, and room for the parser's notes on where numbers end. */
typedef struct bl_text_format {
  int32_t layers, rows, experts;
  uint32_t *dots; /* layers * rows * experts + 64 */
} bl_text_format;

/*! bl_text_measure() : layers, rows and experts as the first row, the first line and the number of lines suggest; the
 *  parser then holds the text to them.  @return : BL_OK or BL_EINPUT (not such a text). */
bl_status bl_text_measure(const char *name, const char *text, uint64_t n, bl_text_format *format);

/*! bl_text_parse() : checks everything and fills counts[layer * layer_stride + row * experts + expert].
 *  `name` stands for the file in errors.  @return : BL_OK or BL_EINPUT with file, line and place. */
bl_status bl_text_parse(const char *name, const char *text, uint64_t n, const bl_text_format *format, uint32_t *counts,
                        int64_t layer_stride);

/*! bl_text_parse_fast() : the same for texts written exactly as the artifact writes them, counts below 10000;
 *  about ten times faster.  @return : false for any other text, valid or not; counts are then undefined. */
bool bl_text_parse_fast(const char *text, uint64_t n, const bl_text_format *format, uint32_t *counts,
                        int64_t layer_stride);

/*! bl_text_parse_careful() : the same for any text, with the sentences. */
bl_status bl_text_parse_careful(const char *name, const char *text, uint64_t n, const bl_text_format *format,
                                uint32_t *counts, int64_t layer_stride);

#endif
