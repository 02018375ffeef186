#include "planner/place/flow.h"
#include "base/memory.h"
#include <math.h>
#include <string.h>

bl_status bl_flow_graph_create(bl_flow_graph *graph, int32_t experts, int32_t ranks, int32_t max_slots) {
  memset(graph, 0, sizeof *graph);
  const size_t e = (size_t)experts, r = (size_t)ranks, s = (size_t)max_slots;
  int32_t *block;
  BL_TRY(bl_new(&block, 3 * e + 2 * r + 1 + 3 * s, sizeof *block, "the flow graph of a layer"));
  graph->experts = experts;
  graph->ranks = ranks;
  graph->home = block;
  graph->slot_first = graph->home + e;
  graph->shared_next = graph->slot_first + e;
  graph->shared_at = graph->shared_next + e;
  graph->rank_slots = graph->shared_at + r;
  graph->slot_rank = graph->rank_slots + r + 1;
  graph->slot_expert = graph->slot_rank + s;
  graph->slot_next = graph->slot_expert + s;
  return BL_OK;
}

void bl_flow_graph_free(bl_flow_graph *graph) {
  free(graph->home);
  memset(graph, 0, sizeof *graph);
}

bl_status bl_flow_scratch_create(bl_flow_scratch *scratch, int32_t experts, int32_t ranks) {
  memset(scratch, 0, sizeof *scratch);
  const size_t e = (size_t)experts, r = (size_t)ranks;
  int32_t *block;
  BL_TRY(bl_new(&block, e + 6 * r, sizeof *block, "the search of a layer's flow"));
  scratch->mark = block;
  scratch->queue = block + e;
  scratch->parent = scratch->queue + r;
  scratch->from = scratch->parent + r;
  scratch->to = scratch->from + r;
  scratch->root = scratch->to + r;
  scratch->closed = scratch->root + r;
  return BL_OK;
}

void bl_flow_scratch_free(bl_flow_scratch *scratch) {
  free(scratch->mark);
  memset(scratch, 0, sizeof *scratch);
}

int64_t bl_flow_state_size(int32_t experts, int32_t ranks, int32_t max_slots) {
  return (int64_t)experts + ranks + max_slots;
}

bl_flow_state bl_flow_state_at(double *block, int32_t experts, int32_t max_slots) {
  return (bl_flow_state){.tokens = block, .rank_load = block + experts + max_slots};
}

void bl_flow_graph_load(bl_flow_graph *graph, const bl_hosts *hosts) {
  graph->slots = hosts->n_copy_slots;
  for (int32_t e = 0; e < graph->experts; ++e) {
    graph->home[e] = hosts->home[e];
    graph->slot_first[e] = -1;
  }
  for (int32_t r = 0; r < graph->ranks; ++r) graph->shared_at[r] = -1;
  int32_t rank = 0;
  graph->rank_slots[0] = 0;
  for (int32_t s = 0; s < graph->slots; ++s) {
    while (rank < hosts->copy_rank[s]) graph->rank_slots[++rank] = s;
    graph->slot_rank[s] = hosts->copy_rank[s];
    graph->slot_expert[s] = -1;
    if (hosts->copy_expert[s] >= 0) bl_flow_fill(graph, s, hosts->copy_expert[s]);
  }
  while (rank < graph->ranks) graph->rank_slots[++rank] = graph->slots;
}

void bl_flow_fill(bl_flow_graph *graph, int32_t slot, int32_t expert) {
  if (graph->slot_first[expert] < 0) {
    const int32_t home = graph->home[expert];
    graph->shared_next[expert] = graph->shared_at[home];
    graph->shared_at[home] = expert;
  }
  graph->slot_expert[slot] = expert;
  graph->slot_next[slot] = graph->slot_first[expert];
  graph->slot_first[expert] = slot;
}

void bl_flow_empty(bl_flow_graph *graph, int32_t slot) {
  const int32_t expert = graph->slot_expert[slot];
  int32_t *link = &graph->slot_first[expert];
  while (*link != slot) link = &graph->slot_next[*link];
  *link = graph->slot_next[slot];
  graph->slot_expert[slot] = -1;
  if (graph->slot_first[expert] >= 0) return;
  link = &graph->shared_at[graph->home[expert]];
  while (*link != expert) link = &graph->shared_next[*link];
  *link = graph->shared_next[expert];
}

void bl_flow_return(const bl_flow_graph *graph, bl_flow_state state, int32_t slot) {
  const int32_t expert = graph->slot_expert[slot];
  const double amount = state.tokens[graph->experts + slot];
  state.tokens[graph->experts + slot] = 0;
  state.tokens[expert] += amount;
  state.rank_load[graph->slot_rank[slot]] -= amount;
  state.rank_load[graph->home[expert]] += amount;
}

double bl_flow_start(const bl_flow_graph *graph, bl_flow_state state, const double *load) {
  double sum = 0;
  for (int32_t r = 0; r < graph->ranks; ++r) state.rank_load[r] = 0;
  for (int32_t e = 0; e < graph->experts; ++e) {
    state.tokens[e] = load[e];
    state.rank_load[graph->home[e]] += load[e];
    sum += load[e];
  }
  for (int32_t s = 0; s < graph->slots; ++s) state.tokens[graph->experts + s] = 0;
  return sum;
}

/* What one search carries along. */
typedef struct search {
  const bl_flow_graph *graph;
  bl_flow_scratch *scratch;
  bl_flow_state state;
  const double *speed;
  double level, tiny;
  int32_t tail;
  bool pushed;
} search;

static inline double wanted(const search *s, int32_t rank) { return s->speed ? s->level * s->speed[rank] : s->level; }

/* Moves what the path from its root to `rank` allows. */
static void push_to(search *s, int32_t rank, double deficit) {
  const bl_flow_scratch *w = s->scratch;
  double *tokens = s->state.tokens, *load = s->state.rank_load;
  const int32_t root = w->root[rank];
  double amount = load[root] - wanted(s, root);
  if (deficit < amount) amount = deficit;
  for (int32_t r = rank; r != root; r = w->parent[r])
    if (tokens[w->from[r]] < amount) amount = tokens[w->from[r]];
  if (!(amount > s->tiny)) return;
  for (int32_t r = rank; r != root; r = w->parent[r]) {
    tokens[w->from[r]] -= amount;
    tokens[w->to[r]] += amount;
  }
  load[root] -= amount;
  load[rank] += amount;
  s->pushed = true;
}

static inline void reach(search *s, int32_t rank, int32_t parent, int32_t from, int32_t to) {
  bl_flow_scratch *w = s->scratch;
  if (w->root[rank] >= 0) return;
  w->root[rank] = w->root[parent];
  w->parent[rank] = parent;
  w->from[rank] = from;
  w->to[rank] = to;
  w->queue[s->tail++] = rank;
  const double deficit = wanted(s, rank) - s->state.rank_load[rank];
  if (deficit > s->tiny) push_to(s, rank, deficit);
}

/* All hosts of an expert become reachable as soon as tokens of it lie on one reachable rank, so once a search. */
static inline void expand(search *s, int32_t expert, int32_t rank, int32_t from) {
  const bl_flow_graph *g = s->graph;
  bl_flow_scratch *w = s->scratch;
  if (w->mark[expert] == w->epoch || !(s->state.tokens[from] > s->tiny)) return;
  w->mark[expert] = w->epoch;
  reach(s, g->home[expert], rank, from, expert);
  for (int32_t t = g->slot_first[expert]; t >= 0; t = g->slot_next[t])
    reach(s, g->slot_rank[t], rank, from, g->experts + t);
}

/* One breadth-first search from all ranks above the target, pushing on the way. Returns false where none is above. */
static bool sweep(search *s) {
  const bl_flow_graph *g = s->graph;
  bl_flow_scratch *w = s->scratch;
  s->tail = 0;
  s->pushed = false;
  for (int32_t r = 0; r < g->ranks; ++r) {
    const bool above = s->state.rank_load[r] > wanted(s, r) + s->tiny;
    w->root[r] = above ? r : -1;
    if (above) w->queue[s->tail++] = r;
  }
  if (s->tail == 0) return false;
  ++w->epoch;
  for (int32_t i = 0; i < s->tail; ++i) {
    const int32_t rank = w->queue[i];
    for (int32_t t = g->rank_slots[rank]; t < g->rank_slots[rank + 1]; ++t)
      if (g->slot_expert[t] >= 0) expand(s, g->slot_expert[t], rank, g->experts + t);
    for (int32_t e = g->shared_at[rank]; e >= 0; e = g->shared_next[e]) expand(s, e, rank, e);
  }
  return true;
}

double bl_flow_solve(const bl_flow_graph *graph, bl_flow_scratch *scratch, bl_flow_state state, const double *speed,
                     double level, double cutoff, double tiny) {
  search s = {.graph = graph, .scratch = scratch, .state = state, .speed = speed, .level = level, .tiny = tiny};
  scratch->n_closed = 0;
  if (scratch->epoch > INT32_MAX / 2) {
    memset(scratch->mark, 0, (size_t)graph->experts * sizeof *scratch->mark);
    scratch->epoch = 0;
  }
  while (sweep(&s)) {
    if (s.pushed) continue;
    double load = 0, size = 0;
    for (int32_t i = 0; i < s.tail; ++i) {
      load += state.rank_load[scratch->queue[i]];
      size += speed ? speed[scratch->queue[i]] : 1.0;
    }
    if (!(load / size > s.level)) break; /* only rounding keeps a rank above the target */
    s.level = load / size;
    scratch->n_closed = s.tail;
    memcpy(scratch->closed, scratch->queue, (size_t)s.tail * sizeof *scratch->closed);
    if (s.level > cutoff) break;
  }
  return s.level;
}
