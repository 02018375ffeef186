/* child.h - work that may crash, hang or eat all memory, done in a child process that reports through a pipe.
 *
 * What the child sends is not trusted: every message has a header with a magic number, a kind and a length that is
 * checked against a limit before anything is read. Messages received before the child fails stay valid. */
#ifndef BL_PLANNER_MILP_CHILD_H
#define BL_PLANNER_MILP_CHILD_H

#include "base/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct bl_child_pipe bl_child_pipe; /* the child's end */

typedef struct bl_child_limits {
  double seconds;       /* the child is killed when they are over */
  int64_t memory_bytes; /* address space it may add to what the process has; 0 = no limit. Not under sanitizers. */
  uint32_t max_message; /* longest payload that is believed, bytes */
} bl_child_limits;

typedef enum bl_child_end {
  BL_CHILD_FINISHED, /* the body returned */
  BL_CHILD_TIME,     /* killed by the timer */
  BL_CHILD_MEMORY,   /* said that it ran out of memory (bl_child_out_of_memory) */
  BL_CHILD_DIED      /* crashed, exited, or sent nonsense */
} bl_child_end;

/* Runs in the child. Must not touch stdio; returns when done. */
typedef void bl_child_body(bl_child_pipe *pipe, void *context);

/* Runs in the parent for every message, whole. `false` = nonsense: the child is killed and counts as dead. */
typedef bool bl_child_sink(void *context, uint32_t kind, const void *payload, uint32_t bytes);

typedef struct bl_child_report {
  bl_child_end end;
  char reason[160]; /* one sentence where end is not FINISHED */
} bl_child_report;

/*! bl_child_run() : forks, runs `body` there, hands messages to `sink` here until the child ends or is killed. The
 * child is killed too when this process dies. No zombie and no descriptor stays.
 *  @return : BL_OK with the report, or BL_EMACHINE where no child could be started. */
bl_status bl_child_run(const bl_child_limits *limits, bl_child_body *body, void *body_context, bl_child_sink *sink,
                       void *sink_context, bl_child_report *report);

/*! bl_child_send() : in the child; ends it where the parent no longer listens. kind <= 0xffff is the caller's own. */
void bl_child_send(bl_child_pipe *pipe, uint32_t kind, const void *payload, uint32_t bytes);

/*! bl_child_fail() : in the child: ends it with a reason ("the solver aborted: ..."); out_of_memory decides the end. */
_Noreturn void bl_child_fail(bl_child_pipe *pipe, bool out_of_memory, const char *text);

/*! bl_child_write_raw() : bytes as they are, without a header; for tests of a child that sends nonsense. */
void bl_child_write_raw(bl_child_pipe *pipe, const void *bytes, size_t n);

#endif
