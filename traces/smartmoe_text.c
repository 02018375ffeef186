/* smartmoe_text.c - parses a SmartMoE trace file with a sentence for whatever is wrong in it. */
#include "traces/smartmoe_text.h"
#include "traces/trace.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct cursor {
  const char *at, *end;
  const char *name;
  int64_t line; /* from 1 */
  int32_t row, entry;
} cursor;

/* What stands at the cursor, for "found ...". */
static const char *found(const cursor *c, char text[16]) {
  if (c->at == c->end) return "the end of the file";
  if (*c->at == '\n') return "the end of the line";
  const unsigned char character = (unsigned char)*c->at;
  snprintf(text, 16, character >= 32 && character < 127 ? "'%c'" : "byte %u", character);
  return text;
}

static bl_status expected(const cursor *c, const char *what) {
  char text[16];
  return bl_fail(BL_EINPUT, "%s:%" PRId64 ": expected %s, found %s", c->name, c->line, what, found(c, text));
}

static bl_status bad_count(const cursor *c, const char *what) {
  return bl_fail(BL_EINPUT,
                 "%s:%" PRId64 ": row %" PRId32 ", entry %" PRId32 " is %s, expected a whole number from 0 to %d",
                 c->name, c->line, c->row, c->entry, what, BL_TEXT_MAX_COUNT);
}

static void skip_blanks(cursor *c) {
  while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\r')) c->at++;
}

static bl_status take(cursor *c, char character, const char *what) {
  skip_blanks(c);
  if (c->at == c->end || *c->at != character) return expected(c, what);
  c->at++;
  return BL_OK;
}

static bool is_digit(const cursor *c) { return c->at < c->end && *c->at >= '0' && *c->at <= '9'; }

static bl_status take_count(cursor *c, uint32_t *count) {
  uint64_t value = 0;
  skip_blanks(c);
  if (c->at < c->end && *c->at == '-') return bad_count(c, "negative");
  if (c->at < c->end && strchr("nNiI", *c->at) != NULL && *c->at != '\0') return bad_count(c, "NaN or infinite");
  if (!is_digit(c)) return expected(c, "a count");
  for (; is_digit(c); c->at++) {
    value = value * 10 + (uint64_t)(*c->at - '0');
    if (value > BL_TEXT_MAX_COUNT) return bad_count(c, "too large");
  }
  if (c->at < c->end && *c->at == '.') {
    c->at++;
    for (; is_digit(c); c->at++)
      if (*c->at != '0') return bad_count(c, "not whole");
  }
  if (c->at < c->end && (*c->at == 'e' || *c->at == 'E')) return bad_count(c, "written with an exponent");
  *count = (uint32_t)value;
  return BL_OK;
}

/* One row "[c, c, ...]"; *row_sum is that of the rows before, or -1. */
static bl_status take_row(cursor *c, int32_t experts, uint32_t *counts, int64_t *row_sum) {
  int64_t sum = 0;
  BL_TRY(take(c, '[', "'[' of a row"));
  for (c->entry = 0; c->entry < experts; c->entry++) {
    if (c->entry > 0) BL_TRY(take(c, ',', "',' and the count of the next expert"));
    BL_TRY(take_count(c, &counts[c->entry]));
    sum += counts[c->entry];
  }
  BL_TRY(take(c, ']', "']' behind the last expert of a row"));
  if (*row_sum >= 0 && sum != *row_sum)
    return bl_fail(BL_EINPUT,
                   "%s:%" PRId64 ": row %" PRId32 " sums to %" PRId64 ", expected %" PRId64 " as the rows before",
                   c->name, c->line, c->row, sum, *row_sum);
  *row_sum = sum;
  return BL_OK;
}

static bl_status take_layer(cursor *c, const bl_text_format *format, int32_t layer, uint32_t *counts,
                            int64_t *row_sum) {
  int64_t number = 0;
  skip_blanks(c);
  if (!is_digit(c)) return expected(c, "the number of a layer");
  for (; is_digit(c); c->at++)
    if (number <= BL_TRACE_MAX_LAYERS) number = number * 10 + (*c->at - '0');
  if (number != layer)
    return bl_fail(BL_EINPUT, "%s:%" PRId64 ": another layer than expected, which is %" PRId32, c->name, c->line,
                   layer);
  BL_TRY(take(c, ':', "':' behind the number of the layer"));
  BL_TRY(take(c, '[', "'[' of the layer"));
  for (c->row = 0; c->row < format->rows; c->row++) {
    if (c->row > 0) BL_TRY(take(c, ',', "',' and the row of the next micro-batch"));
    BL_TRY(take_row(c, format->experts, counts + (int64_t)c->row * format->experts, row_sum));
  }
  return take(c, ']', "']' behind the last row");
}

bl_status bl_text_parse_careful(const char *name, const char *text, uint64_t n, const bl_text_format *format,
                                uint32_t *counts, int64_t layer_stride) {
  cursor c = {.at = text, .end = text + n, .name = name, .line = 1};
  int64_t row_sum = -1;
  for (int32_t layer = 0; layer < format->layers; layer++) {
    if (c.at == c.end)
      return bl_fail(BL_EINPUT, "%s: ends after %" PRId32 " layers, expected %" PRId32, name, layer, format->layers);
    BL_TRY(take_layer(&c, format, layer, counts + layer * layer_stride, &row_sum));
    skip_blanks(&c);
    if (c.at == c.end) continue;
    BL_TRY(take(&c, '\n', "the end of the line"));
    c.line++;
  }
  for (; c.at < c.end; c.at++)
    if (strchr(" \t\r\n", *c.at) == NULL || *c.at == '\0')
      return bl_fail(BL_EINPUT, "%s:%" PRId64 ": text behind layer %" PRId32 ", expected %" PRId32 " layers", name,
                     c.line, format->layers - 1, format->layers);
  return BL_OK;
}

bl_status bl_text_parse(const char *name, const char *text, uint64_t n, const bl_text_format *format, uint32_t *counts,
                        int64_t layer_stride) {
  if (bl_text_parse_fast(text, n, format, counts, layer_stride)) return BL_OK;
  return bl_text_parse_careful(name, text, n, format, counts, layer_stride);
}

bl_status bl_text_measure(const char *name, const char *text, uint64_t n, bl_text_format *format) {
  int64_t layers = 0, opened = 0, closed = 0, commas = 0;
  const char *const end = text + n;
  if (n == 0) return bl_fail(BL_EINPUT, "%s: is empty, expected lines LAYER:[[counts], ...]", name);
  const char *at = text;
  for (; at < end && *at != '\n'; at++) {
    opened += *at == '[';
    closed += *at == ']';
    commas += *at == ',' && closed == 0; /* of the first row */
  }
  for (at = text; at != NULL && at < end; layers++) {
    at = memchr(at, '\n', (size_t)(end - at));
    if (at != NULL) at++;
  }
  if (opened < 2) return bl_fail(BL_EINPUT, "%s:1: expected LAYER:[[counts], ...]", name);
  if (layers > BL_TRACE_MAX_LAYERS || opened - 1 > BL_TRACE_MAX_MICRO_BATCHES || commas + 1 > BL_TRACE_MAX_EXPERTS)
    return bl_fail(BL_EINPUT, "%s: more than %d layers, %d micro-batches or %d experts", name, BL_TRACE_MAX_LAYERS,
                   BL_TRACE_MAX_MICRO_BATCHES, BL_TRACE_MAX_EXPERTS);
  format->layers = (int32_t)layers;
  format->rows = (int32_t)(opened - 1);
  format->experts = (int32_t)commas + 1;
  return BL_OK;
}
