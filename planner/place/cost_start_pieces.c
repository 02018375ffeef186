/* A start: hot experts cut into pieces, and all packed anew. */
#include "planner/place/cost_starts_state.h"
#include "planner/place/order.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int longest_first(const void *a, const void *b) {
  const piece *x = a, *y = b;
  if (x->load != y->load) return x->load < y->load ? 1 : -1;
  if (x->expert != y->expert) return x->expert < y->expert ? -1 : 1;
  return x->number - y->number;
}

/* Experts cut so that no piece exceeds `level` of a mean rank; as many as there are slots. */
static int32_t cut_pieces(bl_place_starts *s, double level) {
  const bl_place_judge *j = s->judge;
  double speeds = 0;
  int64_t spare = -(int64_t)j->experts;
  for (int32_t r = 0; r < j->ranks; ++r) {
    speeds += bl_starts_speed(s, r);
    spare += j->problem.slots[r];
  }
  int32_t n = 0;
  for (int32_t e = 0; e < j->experts; ++e) {
    const double load = j->problem.demand->load[e], most = level * speeds / j->ranks * (1 + 1e-9);
    int32_t pieces = 1;
    while (pieces < j->ranks && spare > 0 && load / pieces > most) {
      ++pieces;
      --spare;
    }
    for (int32_t i = 0; i < pieces; ++i) s->pieces[n++] = (piece){load / pieces, e, i};
  }
  qsort(s->pieces, (size_t)n, sizeof *s->pieces, longest_first);
  return n;
}

/* The rank with a slot on which a piece ends least, -1 if none. `coolness` holds loads, infinite where the rank has no
 * slot or another piece of the expert; `fullness` is workspace. */
static int32_t least_loaded(bl_place_starts *s, double load) {
  const bl_place_judge *j = s->judge;
  const double *speed = j->problem.machine->speed, *now = s->coolness;
  double *then = s->fullness;
  if (speed)
    for (int32_t r = 0; r < j->ranks; ++r) then[r] = (now[r] + load) / speed[r];
  else
    for (int32_t r = 0; r < j->ranks; ++r) then[r] = now[r] + load;
  return bl_order_least(then, j->ranks);
}

bl_status bl_place_start_pieces(bl_place_starts *s, double level, bl_place_state *state) {
  const bl_place_judge *j = s->judge;
  const int32_t n = cut_pieces(s, level), node = bl_starts_node_size(s);
  memset(s->load, 0, (size_t)j->ranks * sizeof *s->load);
  memset(state->used, 0, (size_t)j->ranks * sizeof *state->used);
  for (int32_t r = 0; r < j->ranks; ++r) s->coolness[r] = j->problem.slots[r] > 0 ? 0 : INFINITY;
  state->n = 0;
  for (int32_t i = 0, hosts = 0; i < n; ++i) {
    const piece *p = &s->pieces[i];
    if (i > 0 && p->expert != p[-1].expert) /* pieces of one expert follow one another */
      for (; hosts > 0; --hosts) {
        const int32_t r = s->mark[hosts - 1];
        s->coolness[r] = state->used[r] < j->problem.slots[r] ? s->load[r] : INFINITY;
      }
    int32_t best = least_loaded(s, p->load), near = -1;
    if (best < 0) continue; /* a copy for which no rank is left; homes always find one */
    const int32_t begin = p->number > 0 ? state->home[p->expert] / node * node : 0;
    const int32_t end = p->number == 0 ? 0 : begin + node < j->ranks ? begin + node : j->ranks;
    double least = INFINITY;
    for (int32_t r = begin; r < end; ++r)
      if (s->fullness[r] < least) near = r, least = s->fullness[r];
    if (near >= 0 && least <= level * (1 + 1e-9)) best = near;
    if (p->number == 0)
      state->home[p->expert] = best;
    else
      state->copies[state->n++] = (bl_copy){p->expert, best, 1};
    s->mark[hosts++] = best;
    s->coolness[best] = INFINITY;
    s->load[best] += p->load;
    ++state->used[best];
  }
  return BL_OK;
}
