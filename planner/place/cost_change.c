#include "planner/place/cost_change.h"
#include "base/memory.h"
#include "base/rng.h"
#include <math.h>
#include <string.h>

enum { SMALL = 2048 /* experts * ranks */, MOST = 1024 /* changes listed */ };

typedef enum change_kind {
  ADD,      /* a copy of expert a on rank b */
  DROP,     /* the copy of expert a on rank r */
  SHIFT,    /* it goes to rank b */
  RETYPE,   /* it becomes one of expert b */
  PROMOTE,  /* it becomes the home, the home a copy */
  EXCHANGE, /* homes of experts a and b */
  MOVE      /* home of expert a to rank b */
} change_kind;

typedef struct change {
  change_kind kind;
  int32_t a, r, b;
  double promise;
} change;

struct bl_place_changes {
  bl_place_judge *judge;
  change *list;
  int32_t n;
  int32_t *heap, waiting; /* numbers in list[] of changes still to be tried, the most promising on top */
  bool *held;             /* [experts][ranks] */
  bool *busy;             /* [ranks] */
  double *load;           /* [ranks]: load / speed over its mean */
  bool all;               /* every change, not only those at busy ranks */
  double mean;
  bl_rng rng;
};

bl_status bl_place_changes_create(bl_place_judge *j, bl_place_changes **out) {
  bl_place_changes *c;
  const char *what = "the local search";
  bl_status status = BL_OK;
  *out = NULL;
  BL_TRY(bl_new(&c, 1, sizeof *c, what));
  c->judge = j;
  c->all = (int64_t)j->experts * j->ranks <= SMALL;
  BL_TRY_GOTO(status, bl_new(&c->list, MOST, sizeof *c->list, what), fail);
  BL_TRY_GOTO(status, bl_new(&c->heap, MOST, sizeof *c->heap, what), fail);
  BL_TRY_GOTO(status, bl_new(&c->held, (size_t)j->experts * (size_t)j->ranks, sizeof *c->held, what), fail);
  BL_TRY_GOTO(status, bl_new(&c->busy, (size_t)j->ranks, sizeof *c->busy, what), fail);
  BL_TRY_GOTO(status, bl_new(&c->load, (size_t)j->ranks, sizeof *c->load, what), fail);
  *out = c;
  return BL_OK;
fail:
  bl_place_changes_free(c);
  return status;
}

void bl_place_changes_free(bl_place_changes *c) {
  if (!c) return;
  free(c->list);
  free(c->heap);
  free(c->held);
  free(c->busy);
  free(c->load);
  free(c);
}

static bool *held(const bl_place_changes *c, int32_t expert, int32_t rank) {
  return &c->held[(int64_t)expert * c->judge->ranks + rank];
}

/* The ranks at which something is busiest, and who holds what. */
static void look(bl_place_changes *c, const bl_place_state *now) {
  const bl_place_judge *j = c->judge;
  const bl_place_machine *m = j->problem.machine;
  const double *load = j->problem.demand->load;
  double speeds = 0, sum = 0;
  memset(c->held, 0, (size_t)j->experts * (size_t)j->ranks * sizeof *c->held);
  memset(c->busy, 0, (size_t)j->ranks * sizeof *c->busy);
  memset(c->load, 0, (size_t)j->ranks * sizeof *c->load);
  for (int32_t e = 0; e < j->experts; ++e) {
    *held(c, e, now->home[e]) = true;
    c->load[now->home[e]] += load[e];
    sum += load[e];
  }
  for (int32_t i = 0; i < now->n; ++i) {
    const bl_copy *copy = &now->copies[i];
    *held(c, copy->expert, copy->rank) = true;
    c->load[copy->rank] += copy->share * load[copy->expert];
    c->load[now->home[copy->expert]] -= copy->share * load[copy->expert];
  }
  for (int32_t r = 0; r < j->ranks; ++r) speeds += m->speed ? m->speed[r] : 1;
  c->mean = sum > 0 ? sum / speeds : 1;
  for (int32_t r = 0; r < j->ranks; ++r) c->load[r] /= c->mean * (m->speed ? m->speed[r] : 1);
  c->busy[now->price.slowest] = true;
  for (int t = 0; t < BL_PLACE_TERM_COUNT; ++t) {
    const bl_place_port *port = &now->price.port[t];
    if (port->level == 0) continue;
    const int32_t end = port->rank + m->level[port->level - 1].sharing;
    for (int32_t r = port->rank; r < end && r < j->ranks; ++r) c->busy[r] = true;
  }
}

static void list(bl_place_changes *c, change_kind kind, int32_t a, int32_t r, int32_t b, double promise) {
  const double value = promise + 1e-3 * bl_rng_unit(&c->rng); /* ties in an order of their own each time */
  if (c->n < MOST) {
    c->list[c->n++] = (change){kind, a, r, b, value};
    return;
  }
  const int32_t at = (int32_t)bl_rng_below(&c->rng, MOST);
  if (c->list[at].promise < value) c->list[at] = (change){kind, a, r, b, value};
}

static void list_copies(bl_place_changes *c, const bl_place_state *now) {
  const bl_place_judge *j = c->judge;
  const double *load = j->problem.demand->load;
  const int32_t *slots = j->problem.slots;
  const double slow = c->load[now->price.slowest];
  for (int32_t i = 0; i < now->n; ++i) {
    const bl_copy *copy = &now->copies[i];
    const int32_t home = now->home[copy->expert];
    if (!c->all && !c->busy[copy->rank] && !c->busy[home]) continue;
    const double carries = copy->share * load[copy->expert] / c->mean;
    list(c, DROP, copy->expert, copy->rank, 0, 0.3 - carries);
    if (j->problem.homes != BL_PLACE_HOMES_FIXED) list(c, PROMOTE, copy->expert, copy->rank, 0, 0.2);
    for (int32_t r = 0; r < j->ranks; ++r)
      if (now->used[r] < slots[r] && !*held(c, copy->expert, r))
        list(c, SHIFT, copy->expert, copy->rank, r, 0.1 * (slow - c->load[r]));
    for (int32_t e = 0; e < j->experts; ++e)
      if (!*held(c, e, copy->rank) && load[e] > 0 && (c->all || c->busy[now->home[e]]))
        list(c, RETYPE, copy->expert, copy->rank, e, fmin(load[e] / c->mean, carries) - 0.1);
  }
  for (int32_t e = 0; e < j->experts; ++e) {
    if (!(load[e] > 0)) continue;
    bool at_busy = c->all;
    for (int32_t r = 0; r < j->ranks && !at_busy; ++r) at_busy = c->busy[r] && *held(c, e, r);
    if (!at_busy) continue;
    for (int32_t r = 0; r < j->ranks; ++r)
      if (now->used[r] < slots[r] && !*held(c, e, r))
        list(c, ADD, e, -1, r, fmin(load[e] / c->mean, slow - c->load[r]));
  }
}

static void list_homes(bl_place_changes *c, const bl_place_state *now) {
  const bl_place_judge *j = c->judge;
  const double *load = j->problem.demand->load;
  if (j->problem.homes == BL_PLACE_HOMES_FIXED) return;
  for (int32_t e = 0; e < j->experts; ++e) {
    const int32_t p = now->home[e];
    if (!c->all && !c->busy[p]) continue;
    for (int32_t f = c->all ? e + 1 : 0; f < j->experts; ++f) {
      const int32_t q = now->home[f];
      if (p == q || *held(c, e, q) || *held(c, f, p)) continue;
      const double shift = (load[e] - load[f]) / c->mean, wanted = (c->load[p] - c->load[q]) / 2;
      list(c, EXCHANGE, e, -1, f, 0.1 - fabs(shift - wanted));
    }
    for (int32_t r = 0; r < j->ranks; ++r)
      if (now->used[r] < j->problem.slots[r] && !*held(c, e, r))
        list(c, MOVE, e, -1, r, 0.1 - fabs(load[e] / c->mean - (c->load[p] - c->load[r]) / 2));
  }
}

static int32_t copy_at(const bl_place_state *state, int32_t expert, int32_t rank) {
  for (int32_t i = 0; i < state->n; ++i)
    if (state->copies[i].expert == expert && state->copies[i].rank == rank) return i;
  return -1;
}

/* Makes a change, unless the ones made since it was listed have left nothing to do it on. */
static bool apply(const bl_place_judge *j, const change *x, bl_place_state *state) {
  const int32_t *slots = j->problem.slots;
  int32_t *home = state->home;
  const int32_t at = x->r >= 0 ? copy_at(state, x->a, x->r) : -1, old = home[x->a];
  if (x->r >= 0 && at < 0) return false;
  switch (x->kind) {
  case ADD:
    if (state->used[x->b] >= slots[x->b] || bl_place_holds(state, x->a, x->b)) return false;
    state->copies[state->n++] = (bl_copy){x->a, x->b, 1};
    return true;
  case DROP:
    state->copies[at] = state->copies[--state->n];
    return true;
  case SHIFT:
    if (state->used[x->b] >= slots[x->b] || bl_place_holds(state, x->a, x->b)) return false;
    state->copies[at].rank = x->b;
    return true;
  case RETYPE:
    if (bl_place_holds(state, x->b, x->r)) return false;
    state->copies[at].expert = x->b;
    return true;
  case PROMOTE:
    state->copies[at].rank = old;
    home[x->a] = x->r;
    return true;
  case EXCHANGE:
    if (old == home[x->b] || bl_place_holds(state, x->a, home[x->b]) || bl_place_holds(state, x->b, old)) return false;
    home[x->a] = home[x->b];
    home[x->b] = old;
    return true;
  case MOVE:
    if (state->used[x->b] >= slots[x->b] || bl_place_holds(state, x->a, x->b)) return false;
    home[x->a] = x->b;
    return true;
  }
  return false;
}

/* Most promising first, of equal ones that listed first. */
static bool before(const bl_place_changes *c, int32_t x, int32_t y) {
  const double a = c->list[x].promise, b = c->list[y].promise;
  return a > b || (a == b && x < y);
}

static void sift_down(bl_place_changes *c, int32_t at) {
  int32_t *heap = c->heap;
  const int32_t moved = heap[at];
  for (int32_t child; (child = 2 * at + 1) < c->waiting; at = child) {
    if (child + 1 < c->waiting && before(c, heap[child + 1], heap[child])) ++child;
    if (!before(c, heap[child], moved)) break;
    heap[at] = heap[child];
  }
  heap[at] = moved;
}

/* A heap, since the budget seldom lets all be tried. */
static void sort_all(bl_place_changes *c) {
  c->waiting = c->n;
  for (int32_t i = 0; i < c->n; ++i) c->heap[i] = i;
  for (int32_t i = c->n / 2 - 1; i >= 0; --i) sift_down(c, i);
}

/* The next change of the list, best first. */
static const change *take_next(bl_place_changes *c) {
  const int32_t best = c->heap[0];
  c->heap[0] = c->heap[--c->waiting];
  if (c->waiting > 0) sift_down(c, 0);
  return &c->list[best];
}

static void list_all(bl_place_changes *c, const bl_place_state *now) {
  look(c, now);
  c->n = 0;
  list_copies(c, now);
  list_homes(c, now);
}

bl_status bl_place_changes_kick(bl_place_changes *c, bl_place_state *now, int32_t count, int32_t number) {
  bl_rng_seed(&c->rng, 2, (uint64_t)number);
  list_all(c, now);
  for (int32_t made = 0, tries = 0; c->n > 0 && made < count && tries < 8 * count; ++tries) {
    made += apply(c->judge, &c->list[bl_rng_below(&c->rng, (uint64_t)c->n)], now);
    bl_place_state_count(c->judge, now);
  }
  return bl_place_judge_solve(c->judge, now);
}

bl_status bl_place_changes_search(bl_place_changes *c, bl_place_state *now, bl_place_state *trial, int32_t *left) {
  bl_rng_seed(&c->rng, 1, 1);
  for (bool found = true; found && *left > 0;) { /* pass by pass; a pass goes on after what it has found */
    found = false;
    list_all(c, now);
    sort_all(c);
    while (c->waiting > 0 && *left > 0) {
      const change *x = take_next(c);
      bl_place_state_assign(c->judge, trial, now);
      if (!apply(c->judge, x, trial)) continue;
      BL_TRY(bl_place_judge_solve(c->judge, trial));
      --*left;
      if (!(trial->price.total_us < now->price.total_us * (1 - 1e-9))) continue;
      bl_place_state_assign(c->judge, now, trial);
      found = true;
    }
  }
  return BL_OK;
}
