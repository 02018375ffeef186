/* One move of the search for copy hosts: what it brings in every scenario, and making it.
 *
 * Nearly all moves tried are no good, so that is shown as cheaply as it can be: by what the move can bring at best, by
 * cuts that other moves ran into, then by flows that start from these bounds, those scenarios first that the move only
 * takes from. Only a move that passes all that has its flows solved from the state before it. */
#include "planner/place/copies_state.h"
#include <string.h>

/* By how much a bound of the score may be wrong for rounding, as cuts and flows add up in different orders. */
static const double ROUNDING = 1e-9;

/* A move under trial; the graph is as after it. */
typedef struct trial {
  bl_copies_move back;                                /* the move that undoes it */
  int32_t changed[2], n_changed;                      /* experts whose hosts differ */
  double least[BL_COPIES_MAX_SCENARIOS];              /* no scenario's level can fall below */
  double low[BL_CUTS_LANES(BL_COPIES_MAX_SCENARIOS)]; /* nor below this, which rises as more is known */
  bool solved[BL_COPIES_MAX_SCENARIOS]; /* the flow in `trial` is what the move leads to, low[] its level */
  double limit;                         /* of the mean level */
} trial;

static void set_slot(bl_flow_graph *g, int32_t slot, int32_t expert) {
  if (bl_flow_slot_expert(g, slot) >= 0) bl_flow_empty(g, slot);
  if (expert >= 0) bl_flow_fill(g, slot, expert);
}

static void apply(bl_copies *c, bl_copies_move m) {
  c->copies += (m.new_a >= 0) - (bl_flow_slot_expert(&c->graph, m.a) >= 0);
  if (m.b >= 0) c->copies += (m.new_b >= 0) - (bl_flow_slot_expert(&c->graph, m.b) >= 0);
  if (m.b >= 0) set_slot(&c->graph, m.b, -1);
  set_slot(&c->graph, m.a, m.new_a);
  if (m.b >= 0) set_slot(&c->graph, m.b, m.new_b);
}

bl_copies_move bl_copies_back(const bl_copies *c, bl_copies_move m) {
  return (bl_copies_move){m.a, bl_flow_slot_expert(&c->graph, m.a), m.b,
                          m.b >= 0 ? bl_flow_slot_expert(&c->graph, m.b) : -1};
}

/* The experts whose hosts a move changes: where it has two slots, these exchange what they hold. */
static int32_t changed_by(bl_copies_move m, bl_copies_move back, int32_t *expert) {
  int32_t n = 0;
  if (m.new_a >= 0) expert[n++] = m.new_a;
  if (back.new_a >= 0) expert[n++] = back.new_a;
  return n;
}

/* The tokens that scenario i's flow has in slots whose copies a move takes away. */
static double tokens_taken(const bl_copies *c, bl_copies_move back, int32_t i) {
  const double *tokens = bl_copies_state(c, c->now, i).tokens + c->experts;
  return (back.new_a >= 0 ? tokens[back.a] : 0) + (back.b >= 0 && back.new_b >= 0 ? tokens[back.b] : 0);
}

/* The tokens of copies that the move undone by `back` took away go home. */
static void give_back(const bl_copies *c, bl_flow_state state, bl_copies_move back) {
  if (back.new_a >= 0) bl_flow_return(&c->graph, state, back.a, back.new_a);
  if (back.b >= 0 && back.new_b >= 0) bl_flow_return(&c->graph, state, back.b, back.new_b);
}

/* What level a move can reach at best in scenario i: nothing but the experts it takes out of the closed set leave it.
 */
static double least_level(const bl_copies *c, bl_copies_move m, int32_t old_a, int32_t i) {
  double level = c->level[i];
  if (m.new_a >= 0 && (c->captive[m.new_a] & c->outside[bl_flow_slot_rank(&c->graph, m.a)]) >> i & 1)
    level -= c->load[(int64_t)i * c->experts + m.new_a] / c->closed_speed[i];
  if (m.b >= 0 && old_a >= 0 && (c->captive[old_a] & c->outside[bl_flow_slot_rank(&c->graph, m.b)]) >> i & 1)
    level -= c->load[(int64_t)i * c->experts + old_a] / c->closed_speed[i];
  return level > 1 ? level : 1;
}

/* Scenario i's flow after the move, from the state before it and a lower bound of its level. */
static double solve(bl_copies *c, const trial *t, int32_t i, double level, double cutoff) {
  const bl_flow_state state = bl_copies_state(c, c->trial, i);
  memcpy(state.tokens, bl_copies_state(c, c->now, i).tokens, (size_t)c->state_size * sizeof(double));
  give_back(c, state, t->back);
  return bl_flow_solve(&c->graph, &c->scratch, state, c->speed, level, cutoff, BL_SHARES_TINY);
}

/* Raises low[i] to its level; false where that is too much. *sum is the weighted sum of low[]. */
static bool settle(bl_copies *c, trial *t, int32_t i, double *sum) {
  const double limit = t->limit + ROUNDING, rest = *sum - c->weight[i] * t->low[i];
  t->solved[i] = t->low[i] == t->least[i];
  t->low[i] = solve(c, t, i, t->low[i], (limit - rest) / c->weight[i]);
  *sum = rest + c->weight[i] * t->low[i];
  if (*sum <= limit) return true;
  bl_cuts_add(c->cuts, c->scratch.closed, c->scratch.n_closed);
  return false;
}

/* Whether the mean level may reach the limit. */
static bool may_reach(bl_copies *c, trial *t) {
  memcpy(t->low, t->least, (size_t)c->n * sizeof *t->low);
  double sum = bl_cuts_bound(c->cuts, &c->graph, t->changed, t->n_changed, t->limit + ROUNDING, t->low);
  if (sum > t->limit + ROUNDING) return false;
  for (int helped = 0; helped < 2; ++helped)
    for (int32_t k = 0; k < c->n; ++k) {
      const int32_t i = c->order[k];
      const bool falls = t->low[i] < c->level[i] - ROUNDING;
      if (falls != helped || (!falls && tokens_taken(c, t->back, i) == 0)) continue;
      if (!settle(c, t, i, &sum)) return false;
    }
  return true;
}

/* Whether the mean level reaches the limit, all flows solved from the state before the move. */
static bool reaches(bl_copies *c, trial *t, double rest) {
  double sum = 0;
  for (int32_t k = 0; k < c->n; ++k) {
    const int32_t i = c->order[k];
    const double weight = c->weight[i];
    rest -= weight * t->least[i];
    if (!t->solved[i]) t->low[i] = solve(c, t, i, t->least[i], (t->limit - sum - rest) / weight);
    sum += weight * t->low[i];
    if (!(sum + rest <= t->limit)) return false;
  }
  return true;
}

bool bl_copies_improves(bl_copies *c, bl_copies_move m, double *best) {
  trial t = {.back = bl_copies_back(c, m)};
  double rest = 0; /* what the mean level can be at best */
  for (int32_t i = 0; i < c->n; ++i) rest += c->weight[i] * (t.least[i] = least_level(c, m, t.back.new_a, i));
  t.n_changed = changed_by(m, t.back, t.changed);
  apply(c, m);
  t.limit = *best - BL_COPIES_LEAST_GAIN - c->price * c->copies;
  const bool worth_a_try = rest <= t.limit;
  c->tried += worth_a_try;
  if (!worth_a_try || !may_reach(c, &t) || !reaches(c, &t, rest)) {
    apply(c, t.back);
    return false;
  }
  bl_cuts_take(c->cuts, &c->graph, t.changed, t.n_changed);
  double *swap = c->now;
  c->now = c->trial;
  c->trial = swap;
  for (int32_t i = 0; i < c->n; ++i) bl_copies_solve(c, i); /* already optimal: finds the closed sets */
  bl_copies_sort(c);
  *best = bl_copies_score(c);
  return true;
}

static void apply_for_good(bl_copies *c, bl_copies_move m) {
  int32_t changed[2];
  const int32_t n = changed_by(m, bl_copies_back(c, m), changed);
  apply(c, m);
  bl_cuts_take(c->cuts, &c->graph, changed, n);
}

void bl_copies_make(bl_copies *c, bl_copies_move m) {
  const bl_copies_move back = bl_copies_back(c, m);
  apply_for_good(c, m);
  for (int32_t i = 0; i < c->n; ++i) {
    give_back(c, bl_copies_state(c, c->now, i), back);
    bl_copies_solve(c, i);
  }
  bl_copies_sort(c);
}

void bl_copies_unmake(bl_copies *c, bl_copies_move back) { apply_for_good(c, back); }
