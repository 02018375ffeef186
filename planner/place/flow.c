#include "planner/place/flow.h"
#include "base/memory.h"
#include <math.h>
#include <string.h>

bl_status bl_flow_graph_create(bl_flow_graph *graph, int32_t experts, int32_t ranks, int32_t max_slots) {
  static const char what[] = "the flow graph of a layer";
  memset(graph, 0, sizeof *graph);
  graph->experts = experts;
  graph->ranks = ranks;
  bl_status status = bl_new(&graph->entry, (size_t)experts + (size_t)max_slots, sizeof *graph->entry, what);
  if (status == BL_OK) status = bl_new(&graph->first_here, (size_t)ranks, sizeof *graph->first_here, what);
  if (status != BL_OK) bl_flow_graph_free(graph);
  return status;
}

void bl_flow_graph_free(bl_flow_graph *graph) {
  free(graph->entry);
  free(graph->first_here);
  memset(graph, 0, sizeof *graph);
}

bl_status bl_flow_scratch_create(bl_flow_scratch *scratch, int32_t experts, int32_t ranks) {
  static const char what[] = "the search of a layer's flow";
  memset(scratch, 0, sizeof *scratch);
  const size_t e = (size_t)experts, r = (size_t)ranks;
  bl_status status = BL_OK;
  BL_TRY_GOTO(status, bl_new(&scratch->wanted, r, sizeof *scratch->wanted, what), fail);
  BL_TRY_GOTO(status, bl_new(&scratch->root, r, sizeof *scratch->root, what), fail);
  BL_TRY_GOTO(status, bl_new(&scratch->visit, r, sizeof *scratch->visit, what), fail);
  BL_TRY_GOTO(status, bl_new(&scratch->queue, r, sizeof *scratch->queue, what), fail);
  BL_TRY_GOTO(status, bl_new(&scratch->closed, r, sizeof *scratch->closed, what), fail);
  BL_TRY_GOTO(status, bl_new(&scratch->mark, e, sizeof *scratch->mark, what), fail);
  return BL_OK;
fail:
  bl_flow_scratch_free(scratch);
  return status;
}

void bl_flow_scratch_free(bl_flow_scratch *scratch) {
  free(scratch->wanted);
  free(scratch->root);
  free(scratch->visit);
  free(scratch->queue);
  free(scratch->closed);
  free(scratch->mark);
  memset(scratch, 0, sizeof *scratch);
}

int64_t bl_flow_state_size(int32_t experts, int32_t ranks, int32_t max_slots) {
  return (int64_t)experts + ranks + max_slots;
}

bl_flow_state bl_flow_state_at(double *block, int32_t experts, int32_t max_slots) {
  return (bl_flow_state){.tokens = block, .rank_load = block + experts + max_slots};
}

/* Puts an entry into its rank's list: slots by number, then homes, the last to get copies first. */
static void link_here(bl_flow_graph *g, int32_t entry) {
  int32_t *link = &g->first_here[g->entry[entry].rank];
  while (*link >= g->experts && (entry < g->experts || *link < entry)) link = &g->entry[*link].next_here;
  g->entry[entry].next_here = *link;
  *link = entry;
}

static void unlink_here(bl_flow_graph *g, int32_t entry) {
  int32_t *link = &g->first_here[g->entry[entry].rank];
  while (*link != entry) link = &g->entry[*link].next_here;
  *link = g->entry[entry].next_here;
}

static void add_host(bl_flow_graph *g, int32_t slot, int32_t expert) {
  bl_flow_entry *home = &g->entry[expert], *copy = &g->entry[g->experts + slot];
  if (home->next_host == expert) link_here(g, expert);
  copy->expert = expert;
  copy->next_host = home->next_host;
  home->next_host = g->experts + slot;
}

void bl_flow_graph_load(bl_flow_graph *g, const bl_hosts *hosts) {
  g->slots = hosts->n_copy_slots;
  for (int32_t r = 0; r < g->ranks; ++r) g->first_here[r] = -1;
  for (int32_t e = 0; e < g->experts; ++e) g->entry[e] = (bl_flow_entry){hosts->home[e], e, e, -1};
  for (int32_t s = g->slots - 1; s >= 0; --s) { /* from the last: each goes to the front of its rank's list */
    const int32_t rank = hosts->copy_rank[s], entry = g->experts + s;
    g->entry[entry] = (bl_flow_entry){rank, -1, -1, g->first_here[rank]};
    if (hosts->copy_expert[s] >= 0) g->first_here[rank] = entry;
  }
  for (int32_t s = 0; s < g->slots; ++s)
    if (hosts->copy_expert[s] >= 0) add_host(g, s, hosts->copy_expert[s]);
}

void bl_flow_fill(bl_flow_graph *g, int32_t slot, int32_t expert) {
  link_here(g, g->experts + slot);
  add_host(g, slot, expert);
}

void bl_flow_empty(bl_flow_graph *g, int32_t slot) {
  const int32_t entry = g->experts + slot, expert = g->entry[entry].expert;
  int32_t before = expert;
  while (g->entry[before].next_host != entry) before = g->entry[before].next_host;
  g->entry[before].next_host = g->entry[entry].next_host;
  g->entry[entry].expert = -1;
  unlink_here(g, entry);
  if (g->entry[expert].next_host == expert) unlink_here(g, expert);
}

void bl_flow_return(const bl_flow_graph *g, bl_flow_state state, int32_t slot, int32_t expert) {
  const double amount = state.tokens[g->experts + slot];
  state.tokens[g->experts + slot] = 0;
  state.tokens[expert] += amount;
  state.rank_load[bl_flow_slot_rank(g, slot)] -= amount;
  state.rank_load[bl_flow_home(g, expert)] += amount;
}

double bl_flow_start(const bl_flow_graph *graph, bl_flow_state state, const double *load) {
  double sum = 0;
  for (int32_t r = 0; r < graph->ranks; ++r) state.rank_load[r] = 0;
  for (int32_t e = 0; e < graph->experts; ++e) {
    state.tokens[e] = load[e];
    state.rank_load[graph->entry[e].rank] += load[e];
    sum += load[e];
  }
  for (int32_t s = 0; s < graph->slots; ++s) state.tokens[graph->experts + s] = 0;
  return sum;
}

/* Moves what the path from its root to `rank` allows, at most `amount`.  @return : what was moved. */
static double push(const bl_flow_scratch *w, bl_flow_state state, int32_t rank, double amount, double tiny) {
  const bl_flow_visit *visit = w->visit;
  double *tokens = state.tokens;
  const int32_t root = w->root[rank];
  for (int32_t r = rank; r != root; r = visit[r].parent)
    if (tokens[visit[r].from] < amount) amount = tokens[visit[r].from];
  if (!(amount > tiny)) return 0;
  for (int32_t r = rank; r != root; r = visit[r].parent) {
    tokens[visit[r].from] -= amount;
    tokens[visit[r].to] += amount;
  }
  state.rank_load[root] -= amount;
  state.rank_load[rank] += amount;
  return amount;
}

/* What a sweep found. */
typedef struct swept {
  int32_t above;   /* ranks that it left above the target */
  int32_t reached; /* ranks in the queue */
  bool pushed;
} swept;

/* One breadth-first search from all ranks above the target, pushing on the way; ends as soon as none is above. */
static swept sweep(const bl_flow_graph *g, bl_flow_scratch *w, bl_flow_state state, const double *speed, double level,
                   double tiny) {
  const bl_flow_entry *entry = g->entry;
  const double *tokens = state.tokens, *load = state.rank_load;
  double *wanted = w->wanted;
  int32_t *root = w->root, *queue = w->queue, *mark = w->mark;
  const int32_t epoch = ++w->epoch;
  int32_t tail = 0;
  bool pushed = false;
  for (int32_t r = 0; r < g->ranks; ++r) {
    const double most = speed ? level * speed[r] : level;
    const bool above = load[r] > most + tiny;
    wanted[r] = most;
    root[r] = (above - 1) | r; /* r or -1, without a branch */
    queue[tail] = r;
    tail += above;
  }
  int32_t above = tail;
  for (int32_t i = 0; i < tail && above > 0; ++i) {
    const int32_t rank = queue[i], from_root = root[rank];
    for (int32_t x = g->first_here[rank]; x >= 0; x = entry[x].next_here) {
      /* All hosts of an expert are reached with the first of them that has tokens, so once a search. */
      const int32_t expert = entry[x].expert;
      if (mark[expert] == epoch || !(tokens[x] > tiny)) continue;
      mark[expert] = epoch;
      int32_t to = expert;
      do {
        const int32_t next = entry[to].rank;
        if (root[next] < 0) {
          root[next] = from_root;
          w->visit[next] = (bl_flow_visit){rank, x, to};
          queue[tail++] = next;
          const double deficit = wanted[next] - load[next], surplus = load[from_root] - wanted[from_root];
          if (deficit > tiny && push(w, state, next, deficit < surplus ? deficit : surplus, tiny) > 0) {
            above -= !(load[from_root] > wanted[from_root] + tiny);
            pushed = true;
          }
        }
        to = entry[to].next_host;
      } while (to != expert);
    }
  }
  return (swept){above, tail, pushed};
}

double bl_flow_solve(const bl_flow_graph *graph, bl_flow_scratch *scratch, bl_flow_state state, const double *speed,
                     double level, double cutoff, double tiny) {
  scratch->n_closed = 0;
  if (scratch->epoch > INT32_MAX / 2) {
    memset(scratch->mark, 0, (size_t)graph->experts * sizeof *scratch->mark);
    scratch->epoch = 0;
  }
  for (;;) {
    const swept s = sweep(graph, scratch, state, speed, level, tiny);
    if (s.above == 0) break;
    if (s.pushed) continue;
    double load = 0, size = 0;
    for (int32_t i = 0; i < s.reached; ++i) {
      load += state.rank_load[scratch->queue[i]];
      size += speed ? speed[scratch->queue[i]] : 1.0;
    }
    if (!(load / size > level)) break; /* only rounding keeps a rank above the target */
    level = load / size;
    scratch->n_closed = s.reached;
    memcpy(scratch->closed, scratch->queue, (size_t)s.reached * sizeof *scratch->closed);
    if (level > cutoff) break;
  }
  return level;
}
