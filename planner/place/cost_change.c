#include "planner/place/cost_change.h"
#include "base/memory.h"
#include "base/rng.h"
#include <math.h>
#include <string.h>

enum { SMALL = 2048 /* experts * ranks */, MOST = 1024 /* changes listed */ };

typedef enum change_kind {
  ADD,      /* expert a, rank b */
  DROP,     /* copy a */
  SHIFT,    /* copy a to rank b */
  RETYPE,   /* copy a becomes one of expert b */
  EXCHANGE, /* homes of experts a and b */
  MOVE,     /* home of expert a to rank b */
  PROMOTE   /* copy a becomes the home, the home a copy */
} change_kind;

typedef struct change {
  change_kind kind;
  int32_t a, b;
  double promise;
} change;

struct bl_place_changes {
  bl_place_judge *judge;
  change *list;
  int32_t n;
  bool *held;   /* [experts][ranks] */
  bool *busy;   /* [ranks] */
  double *load; /* [ranks]: load / speed over its mean */
  bool all;     /* every change, not only those at busy ranks */
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

static void list(bl_place_changes *c, change_kind kind, int32_t a, int32_t b, double promise) {
  const double value = promise + 1e-3 * bl_rng_unit(&c->rng); /* ties in an order of their own each time */
  if (c->n < MOST) {
    c->list[c->n++] = (change){kind, a, b, value};
    return;
  }
  const int32_t at = (int32_t)bl_rng_below(&c->rng, MOST);
  if (c->list[at].promise < value) c->list[at] = (change){kind, a, b, value};
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
    list(c, DROP, i, 0, 0.3 - carries);
    if (j->problem.homes != BL_PLACE_HOMES_FIXED) list(c, PROMOTE, i, 0, 0.2);
    for (int32_t r = 0; r < j->ranks; ++r)
      if (now->used[r] < slots[r] && !*held(c, copy->expert, r)) list(c, SHIFT, i, r, 0.1 * (slow - c->load[r]));
    for (int32_t e = 0; e < j->experts; ++e)
      if (!*held(c, e, copy->rank) && load[e] > 0 && (c->all || c->busy[now->home[e]]))
        list(c, RETYPE, i, e, fmin(load[e] / c->mean, carries) - 0.1);
  }
  for (int32_t e = 0; e < j->experts; ++e) {
    if (!(load[e] > 0)) continue;
    bool at_busy = c->all;
    for (int32_t r = 0; r < j->ranks && !at_busy; ++r) at_busy = c->busy[r] && *held(c, e, r);
    if (!at_busy) continue;
    for (int32_t r = 0; r < j->ranks; ++r)
      if (now->used[r] < slots[r] && !*held(c, e, r)) list(c, ADD, e, r, fmin(load[e] / c->mean, slow - c->load[r]));
  }
}

static void list_homes(bl_place_changes *c, const bl_place_state *now) {
  const bl_place_judge *j = c->judge;
  const double *load = j->problem.demand->load;
  if (j->problem.homes == BL_PLACE_HOMES_FIXED) return;
  for (int32_t e = 0; e < j->experts; ++e) {
    const int32_t p = now->home[e];
    for (int32_t f = 0; f < j->experts; ++f) {
      const int32_t q = now->home[f];
      if (p == q || (c->all ? f < e : !c->busy[p]) || *held(c, e, q) || *held(c, f, p)) continue;
      const double shift = (load[e] - load[f]) / c->mean, wanted = (c->load[p] - c->load[q]) / 2;
      list(c, EXCHANGE, e, f, 0.1 - fabs(shift - wanted));
    }
    if (!c->all && !c->busy[p]) continue;
    for (int32_t r = 0; r < j->ranks; ++r)
      if (now->used[r] < j->problem.slots[r] && !*held(c, e, r))
        list(c, MOVE, e, r, 0.1 - fabs(load[e] / c->mean - (c->load[p] - c->load[r]) / 2));
  }
}

static void apply(const change *x, bl_place_state *state) {
  bl_copy *copy =
      x->kind == DROP || x->kind == SHIFT || x->kind == RETYPE || x->kind == PROMOTE ? &state->copies[x->a] : NULL;
  int32_t home;
  switch (x->kind) {
  case ADD:
    state->copies[state->n++] = (bl_copy){x->a, x->b, 1};
    break;
  case DROP:
    *copy = state->copies[--state->n];
    break;
  case SHIFT:
    copy->rank = x->b;
    break;
  case RETYPE:
    copy->expert = x->b;
    break;
  case EXCHANGE:
    home = state->home[x->a];
    state->home[x->a] = state->home[x->b];
    state->home[x->b] = home;
    break;
  case MOVE:
    state->home[x->a] = x->b;
    break;
  case PROMOTE:
    home = state->home[copy->expert];
    state->home[copy->expert] = copy->rank;
    copy->rank = home;
    break;
  }
}

static int by_promise(const void *a, const void *b) {
  const change *x = a, *y = b;
  return (x->promise < y->promise) - (x->promise > y->promise);
}

bl_status bl_place_changes_search(bl_place_changes *c, bl_place_state *now, bl_place_state *trial, int32_t *left) {
  bl_rng_seed(&c->rng, 1, 1);
  for (bool found = true; found && *left > 0;) {
    found = false;
    look(c, now);
    c->n = 0;
    list_copies(c, now);
    list_homes(c, now);
    qsort(c->list, (size_t)c->n, sizeof *c->list, by_promise);
    for (int32_t i = 0; i<c->n && * left> 0 && !found; ++i, --*left) {
      bl_place_state_assign(c->judge, trial, now);
      apply(&c->list[i], trial);
      BL_TRY(bl_place_judge_solve(c->judge, trial));
      found = trial->price.total_us < now->price.total_us * (1 - 1e-9);
    }
    if (found) bl_place_state_assign(c->judge, now, trial);
  }
  return BL_OK;
}
