/* spans.h - when the actions of a step ran, by events of the backend: recorded between actions, read when the step has
 * ended, so that measuring waits for nothing.
 *
 * On a device an event is reached when the stream comes to it: an action is charged from the end of the work before it
 * to the end of its own, waiting for the host or for other ranks included. An action on a stream beside the step's own
 * has events of its own. On the CPU events are the wall clock. */
#ifndef BL_EXECUTOR_SPANS_H
#define BL_EXECUTOR_SPANS_H

#include "costmodel/simulate.h"
#include "executor/backend.h"
#include <stdbool.h>
#include <stdint.h>

typedef struct bl_spans {
  bl_backend *be;
  int32_t n;        /* actions */
  bl_event **event; /* [2 n + 1]: the step's start, the end of each action, its beginning where it runs aside */
  int32_t *from;    /* [n]: the event at which each action began; -1: it has not run in this step */
  int32_t *kept;    /* [n]: `from` of a step whose actions a graph holds */
  int32_t last;     /* event: the end of the last action on the step's own stream */
  bl_span *span;    /* [n]: microseconds since the step's start, of the step read last */
} bl_spans;

/*! bl_spans_aside() : whether actions of a kind run on a stream beside the step's own. On the CPU nothing does: work is
 *  done where it is asked for. */
bool bl_spans_aside(const bl_backend *be, bl_action_kind kind);

/*! bl_spans_create() : for the actions of a program. Free also after a failure. */
bl_status bl_spans_create(bl_backend *be, const bl_step *program, bl_spans *out);
void bl_spans_free(bl_spans *spans);

/*! bl_spans_start() : the step begins now on its stream. */
void bl_spans_start(bl_spans *spans, bl_stream *s);

/*! bl_spans_begin(), bl_spans_end() : what is issued to the action's stream in between is action `number`; on the
 * step's own stream one action begins where the last one ended. */
void bl_spans_begin(bl_spans *spans, int32_t number, bl_stream *s);
void bl_spans_end(bl_spans *spans, int32_t number, bl_stream *s);

/*! bl_spans_keep(), bl_spans_replay() : the actions of the step under way are those of a graph; a step that launches the
 *  graph has the same actions. */
void bl_spans_keep(bl_spans *spans);
void bl_spans_replay(bl_spans *spans);

/*! bl_spans_read() : fills span[]; every event must have been reached (stream_sync). */
void bl_spans_read(bl_spans *spans);

#endif
