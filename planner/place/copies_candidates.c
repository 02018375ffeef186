/* Which moves of the search for copy hosts are worth a try, and in which order. */
#include "planner/place/copies_state.h"
#include <stdlib.h>

/* What a bl_copies_move may bring at most, summed over the scenarios it can help: the captive's load or the room of its
 * new rank, less what the slot's old copy carries there. Only an order in which to try. */
static double promise(const bl_copies *c, int32_t slot, int32_t expert) {
  const int32_t rank = c->graph.slot_rank[slot];
  const double speed = c->speed ? c->speed[rank] : 1;
  const uint32_t helped = c->worth[expert] & c->outside[rank];
  double sum = 0;
  for (int32_t i = 0; i < c->n; ++i) {
    const bl_flow_state state = bl_copies_state(c, c->now, i);
    const double carried = state.tokens[c->experts + slot];
    if (helped >> i & 1) {
      const double load = c->load[(int64_t)i * c->experts + expert];
      const double room = c->level[i] * speed - state.rank_load[rank] + carried;
      sum += load < room ? load : room;
    }
    sum -= carried;
  }
  return sum;
}

static int by_promise(const void *a, const void *b) {
  const bl_copies_candidate *x = a, *y = b;
  if (x->promise != y->promise) return x->promise < y->promise ? 1 : -1;
  return x->number - y->number;
}

/* The candidates are a heap with the least promising on top, so that only the best BL_COPIES_KEPT are ever sorted. */
static void sift_down(bl_copies_candidate *heap, int32_t n) {
  for (int32_t i = 0, child; (child = 2 * i + 1) < n; i = child) {
    if (child + 1 < n && by_promise(&heap[child + 1], &heap[child]) > 0) ++child;
    if (by_promise(&heap[i], &heap[child]) >= 0) return;
    const bl_copies_candidate kept = heap[i];
    heap[i] = heap[child];
    heap[child] = kept;
  }
}

static void consider(bl_copies *c, bl_copies_move m, double value) {
  const bl_copies_candidate one = {m, value, c->n_considered++};
  bl_copies_candidate *heap = c->candidate;
  if (c->n_candidates == BL_COPIES_KEPT) {
    if (by_promise(&one, &heap[0]) >= 0) return;
    heap[0] = one;
    sift_down(heap, BL_COPIES_KEPT);
    return;
  }
  int32_t i = c->n_candidates++;
  for (; i > 0 && by_promise(&one, &heap[(i - 1) / 2]) > 0; i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
  heap[i] = one;
}

/* All moves that can help, best promise first. */
void bl_copies_list(bl_copies *c) {
  const bl_flow_graph *g = &c->graph;
  c->n_candidates = c->n_considered = 0;
  for (int32_t s = 0; s < g->slots; ++s) {
    const int32_t rank = g->slot_rank[s], old = g->slot_expert[s];
    if (c->outside[rank])
      for (int32_t e = 0; e < c->experts; ++e)
        if (c->worth[e] & c->outside[rank]) {
          const double value = promise(c, s, e);
          consider(c, (bl_copies_move){s, e, -1, -1}, value);
          for (int32_t t = g->slot_first[e]; t >= 0; t = g->slot_next[t])
            if (old < 0 || !bl_copies_is_host(g, old, g->slot_rank[t]))
              consider(c, (bl_copies_move){s, e, t, old}, value);
        }
    if (c->price > 0 && old >= 0) consider(c, (bl_copies_move){s, -1, -1, -1}, 0);
  }
  qsort(c->candidate, (size_t)c->n_candidates, sizeof *c->candidate, by_promise);
}
