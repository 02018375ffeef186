#include "planner/place/copies.h"
#include "base/memory.h"
#include "planner/place/copies_state.h"
#include <float.h>
#include <string.h>

/* A scenario counts as unbalanced only above 1 by this much. */
static const double SMALL = 1e-7;
/* A move must lower the score by this much: less is not worth filling another copy. */
static const double LEAST_GAIN = 1e-4;

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
  BL_TRY_GOTO(status, bl_new(&c->load, (size_t)experts * BL_COPIES_MAX_SCENARIOS, sizeof(double), what), fail);
  BL_TRY_GOTO(status, bl_new(&c->now, states, sizeof(double), what), fail);
  BL_TRY_GOTO(status, bl_new(&c->trial, states, sizeof(double), what), fail);
  BL_TRY_GOTO(status, bl_new(&c->kept, states, sizeof(double), what), fail);
  BL_TRY_GOTO(status, bl_new(&c->closed, (size_t)ranks, sizeof(uint32_t), what), fail);
  BL_TRY_GOTO(status, bl_new(&c->outside, (size_t)ranks, sizeof(uint32_t), what), fail);
  BL_TRY_GOTO(status, bl_new(&c->captive, (size_t)experts, sizeof(uint32_t), what), fail);
  BL_TRY_GOTO(status, bl_new(&c->worth, (size_t)experts, sizeof(uint32_t), what), fail);
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
  free(c->load);
  free(c->now);
  free(c->trial);
  free(c->kept);
  free(c->closed);
  free(c->outside);
  free(c->captive);
  free(c->worth);
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

/* Solves one scenario from scratch on the graph as it is, into `now`; keeps its closed set. */
static void solve_now(bl_copies *c, int32_t i, bool fresh) {
  const bl_flow_state state = bl_copies_state(c, c->now, i);
  if (fresh) bl_flow_start(&c->graph, state, c->load + (int64_t)i * c->experts);
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

static double score_of(const bl_copies *c) {
  double sum = 0;
  for (int32_t i = 0; i < c->n; ++i) sum += c->weight[i] * c->level[i];
  return sum + c->price * c->copies;
}

/* Worst scenario first: it decides soonest that a move is no good. */
static void sort_scenarios(bl_copies *c) {
  for (int32_t i = 0; i < c->n; ++i) {
    int32_t k = i;
    for (; k > 0 && c->level[c->order[k - 1]] < c->level[i]; --k) c->order[k] = c->order[k - 1];
    c->order[k] = i;
  }
}

static void find_captives(bl_copies *c, double candidate_load) {
  for (int32_t e = 0; e < c->experts; ++e) {
    uint32_t bits = c->closed[c->graph.home[e]];
    for (int32_t s = c->graph.slot_first[e]; s >= 0; s = c->graph.slot_next[s])
      bits &= c->closed[c->graph.slot_rank[s]];
    c->captive[e] = bits;
    for (int32_t i = 0; bits >> i; ++i)
      if (c->load[(int64_t)i * c->experts + e] < candidate_load) bits &= ~((uint32_t)1 << i);
    c->worth[e] = bits;
  }
}

static void set_slot(bl_flow_graph *g, int32_t slot, int32_t expert) {
  if (g->slot_expert[slot] >= 0) bl_flow_empty(g, slot);
  if (expert >= 0) bl_flow_fill(g, slot, expert);
}

static void apply(bl_copies *c, bl_copies_move m) {
  const int32_t *held = c->graph.slot_expert;
  c->copies += (m.new_a >= 0) - (held[m.a] >= 0);
  if (m.b >= 0) c->copies += (m.new_b >= 0) - (held[m.b] >= 0);
  if (m.b >= 0) set_slot(&c->graph, m.b, -1);
  set_slot(&c->graph, m.a, m.new_a);
  if (m.b >= 0) set_slot(&c->graph, m.b, m.new_b);
}

static void give_back(const bl_copies *c, bl_flow_state state, int32_t slot, int32_t expert) {
  if (expert < 0) return;
  double *tokens = state.tokens, amount = tokens[c->experts + slot];
  tokens[c->experts + slot] = 0;
  tokens[expert] += amount;
  state.rank_load[c->graph.slot_rank[slot]] -= amount;
  state.rank_load[c->graph.home[expert]] += amount;
}

/* What level a move can reach at best in scenario i: nothing but the experts it takes out of the closed set leave it.
 */
static double least_level(const bl_copies *c, bl_copies_move m, int32_t old_a, int32_t i) {
  double level = c->level[i];
  if (m.new_a >= 0 && (c->captive[m.new_a] & c->outside[c->graph.slot_rank[m.a]]) >> i & 1)
    level -= c->load[(int64_t)i * c->experts + m.new_a] / c->closed_speed[i];
  if (m.b >= 0 && old_a >= 0 && (c->captive[old_a] & c->outside[c->graph.slot_rank[m.b]]) >> i & 1)
    level -= c->load[(int64_t)i * c->experts + old_a] / c->closed_speed[i];
  return level > 1 ? level : 1;
}

/* Tries a move. Accepted when the score falls below `best`; otherwise all is as before. */
static bool improves(bl_copies *c, bl_copies_move m, double *best) {
  const int32_t old_a = c->graph.slot_expert[m.a], old_b = m.b >= 0 ? c->graph.slot_expert[m.b] : -1;
  double least[BL_COPIES_MAX_SCENARIOS], rest = 0; /* of scenarios not yet solved */
  for (int32_t i = 0; i < c->n; ++i) rest += c->weight[i] * (least[i] = least_level(c, m, old_a, i));
  apply(c, m);
  const double limit = *best - LEAST_GAIN - c->price * c->copies;
  double sum = 0;
  bool good = rest <= limit;
  c->tried += good;
  for (int32_t k = 0; k < c->n && good; ++k) {
    const int32_t i = c->order[k];
    const bl_flow_state state = bl_copies_state(c, c->trial, i);
    memcpy(state.tokens, bl_copies_state(c, c->now, i).tokens, (size_t)c->state_size * sizeof(double));
    give_back(c, state, m.a, old_a);
    if (m.b >= 0) give_back(c, state, m.b, old_b);
    const double weight = c->weight[i];
    rest -= weight * least[i];
    sum += weight * bl_flow_solve(&c->graph, &c->scratch, state, c->speed, least[i], (limit - sum - rest) / weight,
                                  BL_SHARES_TINY);
    good = sum + rest <= limit;
  }
  if (!good) {
    apply(c, (bl_copies_move){m.a, old_a, m.b, old_b});
    return false;
  }
  double *swap = c->now;
  c->now = c->trial;
  c->trial = swap;
  for (int32_t i = 0; i < c->n; ++i) solve_now(c, i, false); /* already optimal: finds the closed sets */
  sort_scenarios(c);
  *best = score_of(c);
  return true;
}

/* One pass over the moves that can help; stops at the first that does. */
static bool step(bl_copies *c, double *best, const bl_copies_options *options) {
  find_captives(c, options->candidate_load);
  bl_copies_list(c);
  for (int32_t i = 0; i < c->n_candidates && c->tried < c->budget; ++i)
    if (improves(c, c->candidate[i].move, best)) return true;
  return false;
}

/* Makes a move whatever it brings. */
static void make(bl_copies *c, bl_copies_move m) {
  const int32_t old_a = c->graph.slot_expert[m.a], old_b = m.b >= 0 ? c->graph.slot_expert[m.b] : -1;
  apply(c, m);
  for (int32_t i = 0; i < c->n; ++i) {
    give_back(c, bl_copies_state(c, c->now, i), m.a, old_a);
    if (m.b >= 0) give_back(c, bl_copies_state(c, c->now, i), m.b, old_b);
    solve_now(c, i, false);
  }
  sort_scenarios(c);
}

/* Where no single move helps: the most promising ones, each followed by a second. Stops at the first pair that does. */
static bool step_twice(bl_copies *c, double *best, const bl_copies_options *options) {
  enum { FIRST = 8, SECOND = 12 };
  const size_t size = (size_t)c->n * (size_t)c->state_size * sizeof *c->now;
  bl_copies_move first[FIRST];
  const int32_t n = c->n_candidates < FIRST ? c->n_candidates : FIRST;
  for (int32_t i = 0; i < n; ++i) first[i] = c->candidate[i].move;
  for (int32_t i = 0; i < n && c->tried < c->budget; ++i) {
    const bl_copies_move m = first[i];
    const bl_copies_move back = {m.a, c->graph.slot_expert[m.a], m.b, m.b >= 0 ? c->graph.slot_expert[m.b] : -1};
    memcpy(c->kept, c->now, size);
    ++c->tried;
    make(c, m);
    find_captives(c, options->candidate_load);
    bl_copies_list(c);
    for (int32_t k = 0; k < c->n_candidates && k < SECOND && c->tried < c->budget; ++k)
      if (improves(c, c->candidate[k].move, best)) return true;
    apply(c, back);
    memcpy(c->now, c->kept, size);
    for (int32_t k = 0; k < c->n; ++k) solve_now(c, k, false);
    sort_scenarios(c);
  }
  return false;
}

double bl_copies_search(bl_copies *c, bl_hosts *hosts, const double *scenarios, int32_t n, const double *speed,
                        const bl_copies_options *options) {
  take_scenarios(c, scenarios, n, options->weight, speed);
  if (c->n == 0) return 1.0;
  bl_flow_graph_load(&c->graph, hosts);
  c->price = options->copy_price;
  c->budget = options->budget;
  c->tried = c->copies = 0;
  for (int32_t s = 0; s < c->graph.slots; ++s) c->copies += c->graph.slot_expert[s] >= 0;
  for (int32_t i = 0; i < c->n; ++i) solve_now(c, i, true);
  sort_scenarios(c);
  double best = score_of(c);
  const double target = 1 + LEAST_GAIN;
  while (best > target && c->tried < c->budget && (step(c, &best, options) || step_twice(c, &best, options))) {
  }
  for (int32_t s = 0; s < c->graph.slots; ++s) hosts->copy_expert[s] = c->graph.slot_expert[s];
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
      if (g->home[e] == hot && (expert < 0 || state.tokens[e] > state.tokens[expert])) expert = e;
    double deficit = 0;
    for (int32_t s = 0; s < g->slots && expert >= 0; ++s) {
      const int32_t r = g->slot_rank[s];
      const double below = (speed ? speed[r] : 1) - state.rank_load[r];
      if (g->slot_expert[s] >= 0 || bl_copies_is_host(g, expert, r) || !(below > deficit)) continue;
      deficit = below;
      slot = s;
    }
    if (slot < 0) break;
    double amount = surplus < deficit ? surplus : deficit;
    if (state.tokens[expert] < amount) amount = state.tokens[expert];
    bl_flow_fill(g, slot, expert);
    state.tokens[expert] -= amount;
    state.rank_load[hot] -= amount;
    state.rank_load[g->slot_rank[slot]] += amount;
  }
  for (int32_t s = 0; s < g->slots; ++s) hosts->copy_expert[s] = g->slot_expert[s];
}
