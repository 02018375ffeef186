/* spans.c - events around actions. */
#include "executor/spans.h"
#include "base/memory.h"
#include <stdlib.h>
#include <string.h>

bool bl_spans_aside(const bl_backend *be, bl_action_kind kind) {
  return !be->host_memory && kind == BL_ACTION_COPY_FILL;
}

bl_status bl_spans_create(bl_backend *be, const bl_step *program, bl_spans *out) {
  const int32_t n = program->n_actions;
  *out = (bl_spans){.be = be, .n = n};
  BL_TRY(bl_new(&out->event, 2 * (size_t)n + 1, sizeof *out->event, "measured times"));
  BL_TRY(bl_new(&out->from, (size_t)n, sizeof *out->from, "measured times"));
  BL_TRY(bl_new(&out->kept, (size_t)n, sizeof *out->kept, "measured times"));
  BL_TRY(bl_new(&out->span, (size_t)n, sizeof *out->span, "measured times"));
  for (int32_t i = 0; i <= n; i++) BL_TRY(be->event_create(be, &out->event[i]));
  for (int32_t i = 0; i < n; i++)
    if (bl_spans_aside(be, program->actions[i].kind)) BL_TRY(be->event_create(be, &out->event[n + 1 + i]));
  return BL_OK;
}

void bl_spans_free(bl_spans *spans) {
  for (int32_t i = 0; spans->event && i <= 2 * spans->n; i++)
    if (spans->event[i]) spans->be->event_destroy(spans->event[i]);
  free(spans->event);
  free(spans->from);
  free(spans->kept);
  free(spans->span);
  *spans = (bl_spans){0};
}

void bl_spans_start(bl_spans *spans, bl_stream *s) {
  for (int32_t i = 0; i < spans->n; i++) spans->from[i] = -1;
  spans->last = 0;
  spans->be->event_stamp(spans->event[0], s);
}

void bl_spans_begin(bl_spans *spans, int32_t number, bl_stream *s) {
  const int32_t own = spans->n + 1 + number;
  spans->from[number] = spans->event[own] ? own : spans->last;
  if (spans->event[own]) spans->be->event_stamp(spans->event[own], s);
}

void bl_spans_end(bl_spans *spans, int32_t number, bl_stream *s) {
  if (spans->from[number] <= spans->n) spans->last = number + 1;
  spans->be->event_stamp(spans->event[number + 1], s);
}

void bl_spans_keep(bl_spans *spans) { memcpy(spans->kept, spans->from, (size_t)spans->n * sizeof *spans->kept); }

void bl_spans_replay(bl_spans *spans) { memcpy(spans->from, spans->kept, (size_t)spans->n * sizeof *spans->from); }

void bl_spans_read(bl_spans *spans) {
  const bl_event *start = spans->event[0];
  for (int32_t i = 0; i < spans->n; i++) {
    bl_span *span = &spans->span[i];
    *span = (bl_span){0};
    if (spans->from[i] < 0) continue;
    span->start_us = span->ready_us = spans->be->event_us(start, spans->event[spans->from[i]]);
    span->end_us = spans->be->event_us(start, spans->event[i + 1]);
  }
}
