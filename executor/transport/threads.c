/* threads.c - ranks are threads of one process.
 *
 * A send posts the address of its data; the receiver copies straight from it and then lets the sender go. Streams wait
 * for one another by events, the host for neither: the receiver's stream until the data is there, the sender's until it
 * is taken. One lock
 * guards all queues (messages are few and large), each rank sleeps on its own condition. Every wait has a deadline;
 * whoever runs into it aborts the world in the name of the rank that all wait for in the end. After an abort nothing
 * touches a queue again, and a sender stays only until a copy out of its buffer that has begun is done. */
#include "base/memory.h"
#include "executor/transport.h"
#include "executor/transport/patience.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { REASON_MAX = 256, DEFAULT_DEADLINE_S = 60 };

typedef enum post_state { POSTED, COPYING, TAKEN } post_state;

typedef struct post {
  const void *data; /* of a send */
  void *into;       /* of a receive */
  int64_t bytes;
  int32_t peer;
  bool is_send;
  bl_event *ready;  /* of a send: the data is there */
  bl_event *taken;  /* of a send, set by the receiver: the copy out of it is done */
  post_state state; /* of a send; guarded by the lock */
  struct post *next;
} post;

typedef struct queue {
  post *first, *last;
} queue;

/* What a rank shows the others in all_gather_host; its own memory. */
typedef struct shown {
  const char *data;
  int64_t bytes;
} shown;

struct bl_threads_world {
  int32_t size;
  double deadline_s;
  pthread_mutex_t lock;
  pthread_cond_t *wake; /* [size] */
  queue *queues;        /* [from][to]: sends not yet received */
  int64_t *arrivals;    /* [size]: barriers that the rank has come to */
  int32_t *waits_for;   /* [size]: the rank that this one waits for, -1 where it does not */
  bool *joined;         /* [size] */
  shown *board;         /* [size]: of all_gather_host */
  bool aborted;
  char reason[REASON_MAX + 32]; /* "rank N: " and the reason */
};

typedef struct threads_comm {
  bl_comm base;
  bl_threads_world *world;
  bool in_group;
  post *posts;
  size_t n_posts, posts_room;
  bool *blocked;    /* [size]: an earlier message of this peer is still to come */
  bl_event *ready;  /* all that this rank sends now has been computed */
  bl_event **taken; /* [size]: what the peer sent has been copied */
} threads_comm;

static threads_comm *self(bl_comm *comm) { return (threads_comm *)comm; }
static bl_status aborted_status(const bl_threads_world *w) { return bl_fail(BL_ECOMM, "%s", w->reason); }

static void wake_all(bl_threads_world *w) {
  for (int32_t r = 0; r < w->size; r++) pthread_cond_signal(&w->wake[r]);
}

static void abort_locked(bl_threads_world *w, int32_t rank, const char *reason) {
  if (w->aborted) return;
  snprintf(w->reason, sizeof w->reason, "rank %d: %s", rank, reason);
  w->aborted = true;
  wake_all(w);
}

static struct timespec deadline_from_now(double seconds) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  const int64_t ns = (int64_t)t.tv_nsec + (int64_t)(seconds * 1e9);
  t.tv_sec += (time_t)(ns / 1000000000);
  t.tv_nsec = (long)(ns % 1000000000);
  return t;
}

/* Sleeps until something may have changed; at the deadline aborts in the name of `missing`, or of whom that waits for.
 * Lock held. */
static void sleep_on(threads_comm *c, bl_patience *patience, int32_t missing, const char *what) {
  bl_threads_world *w = c->world;
  const struct timespec until = deadline_from_now(bl_patience_next_look(patience));
  w->waits_for[c->base.rank] = missing;
  pthread_cond_timedwait(&w->wake[c->base.rank], &w->lock, &until);
  const bool more = bl_patience_spend(patience);
  for (int32_t i = 0; i < w->size && w->waits_for[missing] >= 0; i++) missing = w->waits_for[missing];
  w->waits_for[c->base.rank] = -1;
  if (more) return;
  char reason[REASON_MAX];
  snprintf(reason, sizeof reason, "%s within %.3g s (rank %d waited)", what, w->deadline_s, c->base.rank);
  abort_locked(w, missing, reason);
}

/* -- messages --------------------------------------------------------------------------------------------------------
 */

static bl_status add_post(threads_comm *c, const post *p) {
  if (p->peer < 0 || p->peer >= c->base.size || p->bytes < 0)
    return bl_fail(BL_ECOMM, "a message of %lld bytes for rank %d of %d", (long long)p->bytes, p->peer, c->base.size);
  BL_TRY(bl_grow(&c->posts, &c->posts_room, c->n_posts + 1, sizeof *c->posts, "messages"));
  c->posts[c->n_posts++] = *p;
  return BL_OK;
}

static void publish_sends(threads_comm *c) {
  bl_threads_world *w = c->world;
  for (size_t i = 0; i < c->n_posts; i++) {
    post *p = &c->posts[i];
    if (!p->is_send) continue;
    queue *q = &w->queues[c->base.rank * w->size + p->peer];
    p->next = NULL;
    if (q->last)
      q->last->next = p;
    else
      q->first = p;
    q->last = p;
    pthread_cond_signal(&w->wake[p->peer]);
  }
}

/* Takes the message for a posted receive when it is there. Lock held, given up during the copy.
 * @return : false when the message is not there yet. */
static bool take(threads_comm *c, const post *receive, bl_stream *s) {
  bl_threads_world *w = c->world;
  queue *q = &w->queues[receive->peer * w->size + c->base.rank];
  post *message = q->first;
  if (!message) return false;
  q->first = message->next;
  if (!q->first) q->last = NULL;
  if (message->bytes != receive->bytes) {
    char reason[REASON_MAX];
    snprintf(reason, sizeof reason, "sent %lld bytes where rank %d expected %lld", (long long)message->bytes,
             c->base.rank, (long long)receive->bytes);
    abort_locked(w, receive->peer, reason);
    return true;
  }
  bl_status status = BL_OK;
  if (message->bytes > 0) {
    bl_backend *be = c->base.backend;
    message->state = COPYING;
    pthread_mutex_unlock(&w->lock);
    be->event_wait(s, message->ready);
    be->copy(s, receive->into, message->data, (size_t)message->bytes);
    be->event_record(c->taken[receive->peer], s);
    if (be->host_memory) status = be->stream_sync(s);
    pthread_mutex_lock(&w->lock);
  }
  message->taken = message->bytes > 0 ? c->taken[receive->peer] : NULL;
  message->state = TAKEN;
  pthread_cond_signal(&w->wake[receive->peer]);
  if (status != BL_OK) abort_locked(w, c->base.rank, bl_error_text());
  return true;
}

/* Takes what has come, from each peer in the order of posting. Lock held.
 * @return : whether anything was taken; *missing = a receive whose message has not come, NULL when all have. */
static bool receive_some(threads_comm *c, bl_stream *s, const post **missing) {
  bool took = false;
  *missing = NULL;
  memset(c->blocked, 0, (size_t)c->base.size * sizeof *c->blocked);
  for (size_t i = 0; i < c->n_posts && !c->world->aborted; i++) {
    post *p = &c->posts[i];
    if (p->is_send || p->state == TAKEN || c->blocked[p->peer]) continue;
    if (take(c, p, s)) {
      p->state = TAKEN;
      took = true;
    } else {
      c->blocked[p->peer] = true;
      if (!*missing) *missing = p;
    }
  }
  return took;
}

static void receive_all(threads_comm *c, bl_stream *s) {
  bl_patience patience = bl_patience_of(c->world->deadline_s);
  const post *missing;
  do {
    if (!receive_some(c, s, &missing) && missing && !c->world->aborted)
      sleep_on(c, &patience, missing->peer, "sent nothing");
  } while (missing && !c->world->aborted);
}

static void wait_until_taken(threads_comm *c, bl_stream *s) {
  bl_threads_world *w = c->world;
  bl_patience patience = bl_patience_of(w->deadline_s);
  for (size_t i = 0; i < c->n_posts; i++) {
    post *p = &c->posts[i];
    if (!p->is_send) continue;
    while (p->state == COPYING || (p->state == POSTED && !w->aborted)) {
      if (w->aborted)
        pthread_cond_wait(&w->wake[c->base.rank], &w->lock); /* a copy ends by itself */
      else
        sleep_on(c, &patience, p->peer, "did not receive a message");
    }
    if (p->taken) c->base.backend->event_wait(s, p->taken);
  }
}

static bl_status complete(threads_comm *c, bl_stream *s) {
  bl_threads_world *w = c->world;
  bl_backend *be = c->base.backend;
  const bl_status synced = be->host_memory ? be->stream_sync(s) : BL_OK; /* what is sent must have been computed */
  be->event_record(c->ready, s);
  pthread_mutex_lock(&w->lock);
  if (synced != BL_OK) abort_locked(w, c->base.rank, bl_error_text());
  if (!w->aborted) {
    publish_sends(c);
    receive_all(c, s);
    wait_until_taken(c, s);
  }
  const bl_status status = w->aborted ? aborted_status(w) : BL_OK;
  pthread_mutex_unlock(&w->lock);
  c->n_posts = 0;
  return status;
}

static bl_status threads_send(bl_comm *comm, bl_stream *s, const void *data, int64_t bytes, int32_t peer) {
  BL_TRY(add_post(self(comm),
                  &(post){.data = data, .bytes = bytes, .peer = peer, .is_send = true, .ready = self(comm)->ready}));
  return self(comm)->in_group ? BL_OK : complete(self(comm), s);
}

static bl_status threads_recv(bl_comm *comm, bl_stream *s, void *data, int64_t bytes, int32_t peer) {
  BL_TRY(add_post(self(comm), &(post){.into = data, .bytes = bytes, .peer = peer}));
  return self(comm)->in_group ? BL_OK : complete(self(comm), s);
}

static bl_status threads_group_begin(bl_comm *comm) {
  self(comm)->in_group = true;
  return BL_OK;
}

static bl_status threads_group_end(bl_comm *comm, bl_stream *s) {
  self(comm)->in_group = false;
  return complete(self(comm), s);
}

/* -- barrier and abort ------------------------------------------------------------------------------------------------
 */

/* The first rank that has not come to the `round`-th barrier, -1 when all have. */
static int32_t not_arrived(const bl_threads_world *w, int64_t round) {
  for (int32_t r = 0; r < w->size; r++)
    if (w->arrivals[r] < round) return r;
  return -1;
}

static bl_status threads_barrier(bl_comm *comm) {
  threads_comm *c = self(comm);
  bl_threads_world *w = c->world;
  bl_patience patience = bl_patience_of(w->deadline_s);
  pthread_mutex_lock(&w->lock);
  const int64_t round = ++w->arrivals[comm->rank];
  if (not_arrived(w, round) < 0) wake_all(w);
  while (!w->aborted) {
    const int32_t missing = not_arrived(w, round);
    if (missing < 0) break;
    sleep_on(c, &patience, missing, "did not come to a barrier");
  }
  const bl_status status = w->aborted ? aborted_status(w) : BL_OK;
  pthread_mutex_unlock(&w->lock);
  return status;
}

/* Nobody leaves before all have read; whoever finds the world aborted reads nothing, since others may have left. */
static bl_status threads_all_gather_host(bl_comm *comm, const void *data, int64_t bytes, void *all) {
  bl_threads_world *w = self(comm)->world;
  pthread_mutex_lock(&w->lock);
  w->board[comm->rank] = (shown){data, bytes};
  pthread_mutex_unlock(&w->lock);
  BL_TRY(threads_barrier(comm));
  pthread_mutex_lock(&w->lock);
  for (int32_t p = 0; p < w->size && !w->aborted; p++) {
    const shown *theirs = &w->board[p];
    if (theirs->bytes != bytes) {
      char reason[REASON_MAX];
      snprintf(reason, sizeof reason, "gathers %lld bytes where rank %d gathers %lld", (long long)theirs->bytes,
               comm->rank, (long long)bytes);
      abort_locked(w, p, reason);
    } else if (p != comm->rank && bytes > 0) {
      memcpy((char *)all + p * bytes, theirs->data, (size_t)bytes);
    }
  }
  pthread_mutex_unlock(&w->lock);
  return threads_barrier(comm);
}

static void threads_abort(bl_comm *comm, const char *reason) {
  bl_threads_world *w = self(comm)->world;
  pthread_mutex_lock(&w->lock);
  abort_locked(w, comm->rank, reason);
  pthread_mutex_unlock(&w->lock);
}

static void threads_destroy(bl_comm *comm) {
  threads_comm *c = self(comm);
  if (c->ready) comm->backend->event_destroy(c->ready);
  for (int32_t p = 0; c->taken && p < comm->size; p++)
    if (c->taken[p]) comm->backend->event_destroy(c->taken[p]);
  free(c->taken);
  free(self(comm)->blocked);
  free(self(comm)->posts);
  free(comm);
}

static const bl_comm_ops threads_ops = {.name = "threads",
                                        .send = threads_send,
                                        .recv = threads_recv,
                                        .group_begin = threads_group_begin,
                                        .group_end = threads_group_end,
                                        .barrier = threads_barrier,
                                        .all_gather_host = threads_all_gather_host,
                                        .abort = threads_abort,
                                        .destroy = threads_destroy};

/* -- the world --------------------------------------------------------------------------------------------------------
 */

bl_status bl_threads_world_create(int32_t size, double deadline_s, bl_threads_world **out) {
  bl_threads_world *w = NULL;
  bl_status status = BL_OK;
  const size_t n = size > 0 ? (size_t)size : 0;
  if (size < 1) return bl_fail(BL_EINPUT, "a world of %d ranks: expected at least 1", size);
  BL_TRY(bl_new(&w, 1, sizeof *w, "ranks"));
  w->deadline_s = deadline_s > 0 ? deadline_s : DEFAULT_DEADLINE_S;
  pthread_mutex_init(&w->lock, NULL);
  BL_TRY_GOTO(status, bl_new(&w->wake, n, sizeof *w->wake, "ranks"), failed);
  BL_TRY_GOTO(status, bl_new(&w->queues, n * n, sizeof *w->queues, "ranks"), failed);
  BL_TRY_GOTO(status, bl_new(&w->arrivals, n, sizeof *w->arrivals, "ranks"), failed);
  BL_TRY_GOTO(status, bl_new(&w->waits_for, n, sizeof *w->waits_for, "ranks"), failed);
  for (size_t r = 0; r < n; r++) w->waits_for[r] = -1;
  BL_TRY_GOTO(status, bl_new(&w->joined, n, sizeof *w->joined, "ranks"), failed);
  BL_TRY_GOTO(status, bl_new(&w->board, n, sizeof *w->board, "ranks"), failed);
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  for (; w->size < size; w->size++) pthread_cond_init(&w->wake[w->size], &attributes);
  pthread_condattr_destroy(&attributes);
  *out = w;
  return BL_OK;
failed:
  bl_threads_world_free(w);
  return status;
}

void bl_threads_world_free(bl_threads_world *w) {
  if (!w) return;
  for (int32_t r = 0; r < w->size; r++) pthread_cond_destroy(&w->wake[r]);
  pthread_mutex_destroy(&w->lock);
  free(w->wake);
  free(w->queues);
  free(w->arrivals);
  free(w->waits_for);
  free(w->joined);
  free(w->board);
  free(w);
}

static bl_status make_parts(threads_comm *c) {
  bl_backend *be = c->base.backend;
  const int32_t size = c->base.size;
  BL_TRY(bl_new(&c->blocked, (size_t)size, sizeof *c->blocked, "a rank"));
  BL_TRY(bl_new(&c->taken, (size_t)size, sizeof *c->taken, "a rank"));
  BL_TRY(be->event_create(be, &c->ready));
  for (int32_t p = 0; p < size; p++) BL_TRY(be->event_create(be, &c->taken[p]));
  return bl_comm_init(&c->base, &threads_ops, be, c->base.rank, size);
}

bl_status bl_threads_world_join(bl_threads_world *w, int32_t rank, bl_backend *backend, bl_comm **out) {
  threads_comm *c = NULL;
  if (rank < 0 || rank >= w->size) return bl_fail(BL_EINPUT, "rank %d joins a world of %d ranks", rank, w->size);
  pthread_mutex_lock(&w->lock);
  const bool twice = w->joined[rank];
  w->joined[rank] = true;
  pthread_mutex_unlock(&w->lock);
  if (twice) return bl_fail(BL_EINPUT, "rank %d joins twice", rank);
  BL_TRY(bl_new(&c, 1, sizeof *c, "a rank"));
  c->world = w;
  c->base = (bl_comm){.ops = &threads_ops, .backend = backend, .rank = rank, .size = w->size};
  bl_status status = make_parts(c);
  if (status == BL_OK)
    *out = &c->base;
  else
    bl_comm_free(&c->base);
  return status;
}
