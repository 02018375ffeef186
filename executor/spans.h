/* spans.h - when the actions of a step ran, by events of the backend: recorded between actions, read when the step has
 * ended, so that measuring waits for nothing.
 *
 * On a device an event is reached when the stream comes to it: an action is charged from the end of the work before it
 * to the end of its own, waiting for the host or for other ranks included. On the CPU events are the wall clock. */
#ifndef BL_EXECUTOR_SPANS_H
#define BL_EXECUTOR_SPANS_H

#include "costmodel/simulate.h"
#include "executor/backend.h"
#include <stdbool.h>
#include <stdint.h>

typedef struct bl_spans {
  bl_backend *be;
  int32_t n;        /* actions */
  bl_event **event; /* [n + 1]: the step's start, then the end of each action */
  int32_t *from;    /* [n]: the event at which each action began; -1: it has not run in this step */
  int32_t last;     /* event: the end of the last action so far */
  bl_span *span;    /* [n]: microseconds since the step's start, of the step read last */
} bl_spans;

/*! bl_spans_create() : for programs of n actions. Free also after a failure. */
bl_status bl_spans_create(bl_backend *be, int32_t n, bl_spans *out);
void bl_spans_free(bl_spans *spans);

/*! bl_spans_start() : the step begins now on its stream. */
void bl_spans_start(bl_spans *spans, bl_stream *s);

/*! bl_spans_end() : what was issued to the step's stream since the last call was action `number`. */
void bl_spans_end(bl_spans *spans, int32_t number, bl_stream *s);

/*! bl_spans_read() : fills span[]; every event must have been reached (stream_sync). */
void bl_spans_read(bl_spans *spans);

#endif
