#include "planner/place/copies.h"
#include "base/memory.h"
#include "planner/place/copies_state.h"
#include <float.h>
#include <string.h>

/* A scenario counts as unbalanced only above 1 by this much. */
static const double SMALL = 1e-7;

void bl_copies_options_init(bl_copies_options *options) {
  *options = (bl_copies_options){.copy_price = 0, .candidate_load = 0.02, .budget = 200};
}

bl_status bl_copies_create(int32_t experts, int32_t ranks, int32_t max_copy_slots, bl_copies **out) {
  bl_copies *c;
  *out = NULL;
  BL_TRY(bl_new(&c, 1, sizeof *c, "the search for copy hosts"));
  c->experts = experts;
  c->ranks = ranks;
  c->max_slots = max_copy_slots;
  c->state_size = bl_flow_state_size(experts, ranks, max_copy_slots);
  const size_t states = (size_t)c->state_size * BL_COPIES_MAX_SCENARIOS;
  const char *what = "the search for copy hosts";
  bl_status status = BL_OK;
  BL_TRY_GOTO(status, bl_flow_graph_create(&c->graph, experts, ranks, max_copy_slots), fail);
  BL_TRY_GOTO(status, bl_flow_scratch_create(&c->scratch, experts, ranks), fail);
  BL_TRY_GOTO(status, bl_cuts_create(experts, ranks, BL_COPIES_MAX_SCENARIOS, &c->cuts), fail);
  BL_TRY_GOTO(status, bl_new(&c->load, (size_t)experts * BL_COPIES_MAX_SCENARIOS, sizeof(double), what), fail);
  BL_TRY_GOTO(status, bl_new(&c->now, states, sizeof(double), what), fail);
  BL_TRY_GOTO(status, bl_new(&c->trial, states, sizeof(double), what), fail);
  BL_TRY_GOTO(status, bl_new(&c->kept, states, sizeof(double), what), fail);
  BL_TRY_GOTO(status, bl_new(&c->closed, (size_t)ranks, sizeof(uint32_t), what), fail);
  BL_TRY_GOTO(status, bl_new(&c->outside, (size_t)ranks, sizeof(uint32_t), what), fail);
  BL_TRY_GOTO(status, bl_new(&c->captive, (size_t)experts, sizeof(uint32_t), what), fail);
  BL_TRY_GOTO(status, bl_new(&c->worth, (size_t)experts, sizeof(uint32_t), what), fail);
  BL_TRY_GOTO(status, bl_new(&c->worthy, (size_t)experts, sizeof *c->worthy, what), fail);
  BL_TRY_GOTO(status, bl_new(&c->worthy_load, (size_t)experts * BL_COPIES_MAX_SCENARIOS, sizeof(double), what), fail);
  BL_TRY_GOTO(status, bl_new(&c->promise, (size_t)experts, sizeof(double), what), fail);
  *out = c;
  return BL_OK;
fail:
  bl_copies_free(c);
  return status;
}

void bl_copies_free(bl_copies *c) {
  if (!c) return;
  bl_flow_graph_free(&c->graph);
  bl_flow_scratch_free(&c->scratch);
  bl_cuts_free(c->cuts);
  free(c->load);
  free(c->now);
  free(c->trial);
  free(c->kept);
  free(c->closed);
  free(c->outside);
  free(c->captive);
  free(c->worth);
  free(c->worthy);
  free(c->worthy_load);
  free(c->promise);
  free(c);
}

/* Scenarios to mean rank load 1; those without load are dropped. */
static void take_scenarios(bl_copies *c, const double *scenarios, int32_t n, const double *weight,
                           const double *speed) {
  double weights = 0, speeds = c->ranks;
  if (speed) {
    speeds = 0;
    for (int32_t r = 0; r < c->ranks; ++r) speeds += speed[r];
  }
  c->n = 0;
  c->speed = speed;
  for (int32_t i = 0; i < n && c->n < BL_COPIES_MAX_SCENARIOS; ++i) {
    const double *from = scenarios + (int64_t)i * c->experts;
    double sum = 0;
    for (int32_t e = 0; e < c->experts; ++e) sum += from[e];
    if (!(sum > 0)) continue;
    double *to = c->load + (int64_t)c->n * c->experts;
    for (int32_t e = 0; e < c->experts; ++e) to[e] = from[e] * (speeds / sum);
    c->weight[c->n++] = weight ? weight[i] : 1;
    weights += c->weight[c->n - 1];
  }
  for (int32_t i = 0; i < c->n; ++i) c->weight[i] /= weights;
}

/* On the graph as it is, into `now`; keeps its closed set. */
void bl_copies_solve(bl_copies *c, int32_t i) {
  const bl_flow_state state = bl_copies_state(c, c->now, i);
  c->level[i] = bl_flow_solve(&c->graph, &c->scratch, state, c->speed, 1.0, DBL_MAX, BL_SHARES_TINY);
  const uint32_t bit = (uint32_t)1 << i;
  for (int32_t r = 0; r < c->ranks; ++r) {
    c->closed[r] &= ~bit;
    c->outside[r] &= ~bit;
  }
  if (!(c->level[i] > 1 + SMALL)) return;
  for (int32_t r = 0; r < c->ranks; ++r) c->outside[r] |= bit;
  c->closed_speed[i] = 0;
  for (int32_t k = 0; k < c->scratch.n_closed; ++k) {
    const int32_t r = c->scratch.closed[k];
    c->closed[r] |= bit;
    c->outside[r] &= ~bit;
    c->closed_speed[i] += c->speed ? c->speed[r] : 1;
  }
}

double bl_copies_score(const bl_copies *c) {
  double sum = 0;
  for (int32_t i = 0; i < c->n; ++i) sum += c->weight[i] * c->level[i];
  return sum + c->price * c->copies;
}

/* Worst scenario first: it decides soonest that a move is no good. */
void bl_copies_sort(bl_copies *c) {
  for (int32_t i = 0; i < c->n; ++i) {
    int32_t k = i;
    for (; k > 0 && c->level[c->order[k - 1]] < c->level[i]; --k) c->order[k] = c->order[k - 1];
    c->order[k] = i;
  }
}

/* One pass over the moves that can help; stops at the first that does. */
static bool step(bl_copies *c, double *best, const bl_copies_options *options) {
  bl_copies_list(c, options->candidate_load, BL_COPIES_KEPT);
  const bl_copies_move *m;
  for (int32_t i = 0; c->tried < c->budget && (m = bl_copies_nth(c, i)); ++i)
    if (bl_copies_improves(c, *m, best)) return true;
  return false;
}

/* Where no single move helps: the most promising ones, each followed by a second. Stops at the first pair that does. */
static bool step_twice(bl_copies *c, double *best, const bl_copies_options *options) {
  enum { FIRST = 8, SECOND = 12 };
  const size_t size = (size_t)c->n * (size_t)c->state_size * sizeof *c->now;
  bl_copies_move first[FIRST];
  const bl_copies_move *m;
  int32_t n = 0;
  for (; n < FIRST && (m = bl_copies_nth(c, n)); ++n) first[n] = *m;
  for (int32_t i = 0; i < n && c->tried < c->budget; ++i) {
    const bl_copies_move back = bl_copies_back(c, first[i]);
    memcpy(c->kept, c->now, size);
    ++c->tried;
    bl_copies_make(c, first[i]);
    bl_copies_list(c, options->candidate_load, SECOND);
    for (int32_t k = 0; c->tried < c->budget && (m = bl_copies_nth(c, k)); ++k)
      if (bl_copies_improves(c, *m, best)) return true;
    bl_copies_unmake(c, back);
    memcpy(c->now, c->kept, size);
    for (int32_t k = 0; k < c->n; ++k) bl_copies_solve(c, k);
    bl_copies_sort(c);
  }
  return false;
}

double bl_copies_search(bl_copies *c, bl_hosts *hosts, const double *scenarios, int32_t n, const double *speed,
                        const bl_copies_options *options) {
  take_scenarios(c, scenarios, n, options->weight, speed);
  if (c->n == 0) return 1.0;
  bl_flow_graph_load(&c->graph, hosts);
  /* An earlier search may have had more scenarios: what it found must not lead this one. */
  memset(c->closed, 0, (size_t)c->ranks * sizeof *c->closed);
  memset(c->outside, 0, (size_t)c->ranks * sizeof *c->outside);
  c->price = options->copy_price;
  c->budget = options->budget;
  c->tried = c->copies = 0;
  for (int32_t s = 0; s < c->graph.slots; ++s) c->copies += bl_flow_slot_expert(&c->graph, s) >= 0;
  for (int32_t i = 0; i < c->n; ++i) {
    bl_flow_start(&c->graph, bl_copies_state(c, c->now, i), c->load + (int64_t)i * c->experts);
    bl_copies_solve(c, i);
  }
  bl_copies_sort(c);
  double best = bl_copies_score(c);
  const double target = 1 + BL_COPIES_LEAST_GAIN;
  if (best > target) bl_cuts_start(c->cuts, &c->graph, c->load, c->n, c->weight, c->speed);
  while (best > target && c->tried < c->budget && (step(c, &best, options) || step_twice(c, &best, options))) {
  }
  for (int32_t s = 0; s < c->graph.slots; ++s) hosts->copy_expert[s] = bl_flow_slot_expert(&c->graph, s);
  return best - c->price * c->copies;
}

void bl_copies_greedy(bl_copies *c, bl_hosts *hosts, const double *load, const double *speed) {
  for (int32_t s = 0; s < hosts->n_copy_slots; ++s) hosts->copy_expert[s] = -1;
  take_scenarios(c, load, 1, NULL, speed);
  if (c->n == 0) return;
  bl_flow_graph *g = &c->graph;
  bl_flow_graph_load(g, hosts);
  const bl_flow_state state = bl_copies_state(c, c->now, 0);
  bl_flow_start(g, state, c->load);
  for (int32_t round = 0; round < g->slots; ++round) {
    int32_t hot = 0, expert = -1, slot = -1;
    for (int32_t r = 1; r < c->ranks; ++r) {
      const double above = state.rank_load[r] - (speed ? speed[r] : 1),
                   most = state.rank_load[hot] - (speed ? speed[hot] : 1);
      if (above > most) hot = r;
    }
    const double surplus = state.rank_load[hot] - (speed ? speed[hot] : 1);
    if (!(surplus > SMALL)) break;
    for (int32_t e = 0; e < c->experts; ++e)
      if (bl_flow_home(g, e) == hot && (expert < 0 || state.tokens[e] > state.tokens[expert])) expert = e;
    double deficit = 0;
    for (int32_t s = 0; s < g->slots && expert >= 0; ++s) {
      const int32_t r = bl_flow_slot_rank(g, s);
      const double below = (speed ? speed[r] : 1) - state.rank_load[r];
      if (bl_flow_slot_expert(g, s) >= 0 || bl_copies_is_host(g, expert, r) || !(below > deficit)) continue;
      deficit = below;
      slot = s;
    }
    if (slot < 0) break;
    double amount = surplus < deficit ? surplus : deficit;
    if (state.tokens[expert] < amount) amount = state.tokens[expert];
    bl_flow_fill(g, slot, expert);
    state.tokens[expert] -= amount;
    state.rank_load[hot] -= amount;
    state.rank_load[bl_flow_slot_rank(g, slot)] += amount;
  }
  for (int32_t s = 0; s < g->slots; ++s) hosts->copy_expert[s] = bl_flow_slot_expert(g, s);
}
