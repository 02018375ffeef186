/* Which moves of the search for copy hosts are worth a try, and in which order. */
#include "planner/place/copies_state.h"

/* -- the most promising ones ----------------------------------------------------------------------------------------
 */

static bool better(const bl_copies_candidate *x, const bl_copies_candidate *y) {
  return x->promise != y->promise ? x->promise > y->promise : x->number < y->number;
}

/* Every child comes after its parent: with `best_first` the best is on top, else the worst. */
static bool out_of_order(const bl_copies_candidate *parent, const bl_copies_candidate *child, bool best_first) {
  return best_first ? better(child, parent) : better(parent, child);
}

static void sift_down(bl_copies_candidate *heap, int32_t n, int32_t i, bool best_first) {
  const bl_copies_candidate moved = heap[i];
  for (int32_t child; (child = 2 * i + 1) < n; i = child) {
    if (child + 1 < n && out_of_order(&heap[child], &heap[child + 1], best_first)) ++child;
    if (!out_of_order(&moved, &heap[child], best_first)) break;
    heap[i] = heap[child];
  }
  heap[i] = moved;
}

/* While they are listed, the worst of the best so far is on top. */
static void consider(bl_copies *c, bl_copies_move m, double value) {
  const bl_copies_candidate one = {m, value, c->n_considered++};
  bl_copies_candidate *heap = c->candidate;
  if (c->n_candidates == c->most_candidates) {
    if (!better(&one, &heap[0])) return;
    heap[0] = one;
    sift_down(heap, c->n_candidates, 0, false);
    return;
  }
  int32_t i = c->n_candidates++;
  for (; i > 0 && out_of_order(&heap[(i - 1) / 2], &one, false); i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
  heap[i] = one;
}

/* The best of the rest is on top, and those taken off follow the rest, the last taken first. */
const bl_copies_move *bl_copies_nth(bl_copies *c, int32_t n) {
  const int32_t rest = c->n_candidates - n;
  if (rest <= 0) return NULL;
  if (n == c->n_taken) {
    const bl_copies_candidate best = c->candidate[0];
    c->candidate[0] = c->candidate[rest - 1];
    c->candidate[rest - 1] = best;
    sift_down(c->candidate, rest - 1, 0, true);
    ++c->n_taken;
  }
  return &c->candidate[rest - 1].move;
}

/* -- promises -------------------------------------------------------------------------------------------------------
 */

/* The scenarios in which all hosts of an expert lie in the closed set, and in which of them it is worth a copy. */
static void find_captives(bl_copies *c, double candidate_load) {
  for (int32_t e = 0; e < c->experts; ++e) {
    const bl_flow_entry *entry = c->graph.entry;
    uint32_t bits = c->closed[entry[e].rank];
    for (int32_t x = entry[e].next_host; x != e; x = entry[x].next_host) bits &= c->closed[entry[x].rank];
    c->captive[e] = bits;
    for (int32_t i = 0; i < c->n && bits >> i; ++i)
      if (c->load[(int64_t)i * c->experts + e] < candidate_load) bits &= ~((uint32_t)1 << i);
    c->worth[e] = bits;
  }
}

/* The experts worth a copy in some scenario, and their loads in those where they are; -1 elsewhere. */
static int32_t gather_worthy(bl_copies *c) {
  int32_t n = 0;
  for (int32_t e = 0; e < c->experts; ++e)
    if (c->worth[e]) c->worthy[n++] = e;
  for (int32_t i = 0; i < c->n; ++i) {
    const double *load = c->load + (int64_t)i * c->experts;
    double *worthy = c->worthy_load + (int64_t)i * c->experts;
    for (int32_t k = 0; k < n; ++k) worthy[k] = c->worth[c->worthy[k]] >> i & 1 ? load[c->worthy[k]] : -1;
  }
  return n;
}

/* What giving `slot` to each worthy expert may bring at most, summed over the scenarios that it can help: the expert's
 * load or the room of its new rank, less what the slot's old copy carries there. Only an order in which to try. */
static void promise(bl_copies *c, int32_t slot, int32_t n_worthy) {
  const int32_t rank = bl_flow_slot_rank(&c->graph, slot);
  const double speed = c->speed ? c->speed[rank] : 1;
  double *sum = c->promise;
  for (int32_t k = 0; k < n_worthy; ++k) sum[k] = 0;
  for (int32_t i = 0; i < c->n; ++i) {
    const bl_flow_state state = bl_copies_state(c, c->now, i);
    const double carried = state.tokens[c->experts + slot];
    if (c->outside[rank] >> i & 1) {
      const double *load = c->worthy_load + (int64_t)i * c->experts;
      const double room = c->level[i] * speed - state.rank_load[rank] + carried;
      for (int32_t k = 0; k < n_worthy; ++k) {
        const double gain = load[k] < room ? load[k] : room;
        sum[k] += load[k] < 0 ? 0 : gain;
      }
    }
    if (carried != 0)
      for (int32_t k = 0; k < n_worthy; ++k) sum[k] -= carried;
  }
}

void bl_copies_list(bl_copies *c, double candidate_load, int32_t most) {
  const bl_flow_graph *g = &c->graph;
  find_captives(c, candidate_load);
  const int32_t n_worthy = gather_worthy(c);
  c->most_candidates = most;
  c->n_candidates = c->n_considered = c->n_taken = 0;
  for (int32_t s = 0; s < g->slots; ++s) {
    const int32_t rank = bl_flow_slot_rank(g, s), old = bl_flow_slot_expert(g, s);
    if (c->outside[rank]) {
      promise(c, s, n_worthy);
      for (int32_t k = 0; k < n_worthy; ++k) {
        const int32_t e = c->worthy[k];
        const double value = c->promise[k];
        if (!(c->worth[e] & c->outside[rank]) || (c->n_candidates == most && value <= c->candidate[0].promise))
          continue;
        consider(c, (bl_copies_move){s, e, -1, -1}, value);
        for (int32_t x = g->entry[e].next_host; x != e; x = g->entry[x].next_host)
          if (old < 0 || !bl_copies_is_host(g, old, g->entry[x].rank))
            consider(c, (bl_copies_move){s, e, x - c->experts, old}, value);
      }
    }
    if (c->price > 0 && old >= 0) consider(c, (bl_copies_move){s, -1, -1, -1}, 0);
  }
  for (int32_t i = c->n_candidates / 2 - 1; i >= 0; --i) sift_down(c->candidate, c->n_candidates, i, true);
}
