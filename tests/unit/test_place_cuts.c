/* Cuts kept from one placement against the optimum of others: never above it, and at it where they come from. */
#include "base/rng.h"
#include "planner/place/cuts.h"
#include "tests/check.h"
#include <float.h>

enum { MAX_E = 160, MAX_P = 80, MAX_S = 2 * MAX_P, MAX_N = 6 };

typedef struct layer {
  int32_t experts, ranks, n;
  bl_hosts hosts;
  bl_flow_graph graph;
  bl_flow_scratch scratch;
  double state[MAX_E + MAX_P + MAX_S];
  double load[MAX_N * MAX_E], speed[MAX_P], weight[MAX_N];
  bool with_speed;
} layer;

static bool hosted(const layer *x, int32_t expert, int32_t rank) {
  int32_t at = expert;
  do {
    if (x->graph.entry[at].rank == rank) return true;
    at = x->graph.entry[at].next_host;
  } while (at != expert);
  return false;
}

static void fill_at_random(bl_rng *rng, layer *x, int32_t slot) {
  const int32_t e = (int32_t)bl_rng_below(rng, (uint64_t)x->experts);
  if (!hosted(x, e, bl_flow_slot_rank(&x->graph, slot))) bl_flow_fill(&x->graph, slot, e);
}

/* Loads are scaled so that the mean of load / speed is 1, as in the search. */
static bl_status make(bl_rng *rng, layer *x) {
  int32_t slots[MAX_P];
  double speeds = 0;
  x->ranks = 1 + (int32_t)bl_rng_below(rng, bl_rng_below(rng, 3) ? 12 : MAX_P);
  x->experts = x->ranks + (int32_t)bl_rng_below(rng, (uint64_t)x->ranks + 1);
  x->n = 1 + (int32_t)bl_rng_below(rng, MAX_N);
  x->with_speed = bl_rng_below(rng, 2);
  for (int32_t r = 0; r < x->ranks; ++r) {
    slots[r] = (x->experts + x->ranks - 1) / x->ranks + (int32_t)bl_rng_below(rng, 2);
    if (slots[r] > x->experts) slots[r] = x->experts;
    speeds += x->speed[r] = x->with_speed ? 0.5 + bl_rng_unit(rng) : 1;
  }
  BL_TRY(bl_hosts_create(&x->hosts, x->experts, x->ranks, slots));
  BL_TRY(bl_flow_graph_create(&x->graph, x->experts, x->ranks, x->hosts.n_copy_slots));
  BL_TRY(bl_flow_scratch_create(&x->scratch, x->experts, x->ranks));
  bl_flow_graph_load(&x->graph, &x->hosts);
  for (int32_t s = 0; s < x->graph.slots; ++s) fill_at_random(rng, x, s);
  for (int32_t i = 0; i < x->n; ++i) {
    double *load = x->load + i * x->experts, sum = 0;
    for (int32_t e = 0; e < x->experts; ++e) sum += load[e] = bl_det_exp(1.5 * bl_rng_normal(rng));
    for (int32_t e = 0; e < x->experts; ++e) load[e] *= speeds / sum;
    x->weight[i] = 1.0 / x->n;
  }
  return BL_OK;
}

static void end(layer *x) {
  bl_flow_graph_free(&x->graph);
  bl_flow_scratch_free(&x->scratch);
  bl_hosts_free(&x->hosts);
}

static double optimum(layer *x, int32_t i) {
  const bl_flow_state state = bl_flow_state_at(x->state, x->experts, x->graph.slots);
  bl_flow_start(&x->graph, state, x->load + i * x->experts);
  return bl_flow_solve(&x->graph, &x->scratch, state, x->with_speed ? x->speed : NULL, 1, DBL_MAX, BL_SHARES_TINY);
}

/* Another content of one slot; the experts whose hosts that changes. */
static int32_t change(bl_rng *rng, layer *x, int32_t *expert) {
  const int32_t slot = (int32_t)bl_rng_below(rng, (uint64_t)x->graph.slots), old = bl_flow_slot_expert(&x->graph, slot);
  int32_t n = 0;
  if (old >= 0) {
    bl_flow_empty(&x->graph, slot);
    expert[n++] = old;
  }
  fill_at_random(rng, x, slot);
  const int32_t now = bl_flow_slot_expert(&x->graph, slot);
  if (now >= 0 && now != old) expert[n++] = now;
  return n;
}

/* Lower bounds of what the graph really brings in each scenario, their weighted sum, and how many of them are met. */
static int check_bounds(layer *x, bl_cuts *cuts, const int32_t *expert, int32_t n) {
  double low[BL_CUTS_LANES(MAX_N)], sum = 0;
  int met = 0;
  bool below = true;
  for (int32_t i = 0; i < BL_CUTS_LANES(MAX_N); ++i) low[i] = 1;
  const double weighted = bl_cuts_bound(cuts, &x->graph, expert, n, DBL_MAX, low);
  for (int32_t i = 0; i < x->n; ++i) {
    const double best = optimum(x, i);
    below = below && low[i] <= best * (1 + 1e-9);
    met += low[i] >= best * (1 - 1e-9);
    sum += x->weight[i] * low[i];
  }
  CHECK(below);
  CHECK_NEAR(weighted, sum, 1e-9 * sum);
  return met;
}

static void learn(layer *x, bl_cuts *cuts) {
  for (int32_t i = 0; i < x->n; ++i) {
    optimum(x, i);
    if (x->scratch.n_closed > 0) bl_cuts_add(cuts, x->scratch.closed, x->scratch.n_closed);
  }
}

static void check_layer(bl_rng *rng, layer *x, int64_t *met, int64_t *all) {
  bl_cuts *cuts;
  int32_t expert[2];
  REQUIRE_OK(bl_cuts_create(x->experts, x->ranks, MAX_N, &cuts));
  bl_cuts_start(cuts, &x->graph, x->load, x->n, x->weight, x->with_speed ? x->speed : NULL);
  learn(x, cuts);
  CHECK_INT(check_bounds(x, cuts, NULL, 0), x->n);
  for (int i = 0; i < 40 && x->graph.slots > 0; ++i) {
    int32_t n = change(rng, x, expert);
    *met += check_bounds(x, cuts, expert, n);
    *all += x->n;
    bl_cuts_take(cuts, &x->graph, expert, n);
    const int before = check_bounds(x, cuts, NULL, 0);
    learn(x, cuts); /* more sets than are kept, in the end */
    CHECK(check_bounds(x, cuts, NULL, 0) >= before);
  }
  CHECK_INT(check_bounds(x, cuts, NULL, 0), x->n);
  bl_cuts_free(cuts);
}

static void test_bounds(void) {
  bl_rng rng;
  static layer x;
  int64_t met = 0, all = 0;
  bl_rng_seed(&rng, 8, 1);
  for (int i = 0; i < (check_is_small() ? 20 : 150); ++i) {
    REQUIRE_OK(make(&rng, &x));
    check_layer(&rng, &x, &met, &all);
    end(&x);
  }
  CHECK(met * 10 > all * 7); /* most placements run into the cuts of their neighbours */
}

/* Two ranks, expert 0 at home on rank 0 with load 3 of 4: alone there, 3; with a copy on rank 1, 2. */
static void test_by_hand(void) {
  const int32_t slots[2] = {2, 2}, hot = 0, set[1] = {0};
  const double load[2] = {3, 1}, weight = 1;
  double low[BL_CUTS_LANES(1)] = {0};
  bl_hosts hosts;
  bl_flow_graph graph;
  bl_cuts *cuts;
  REQUIRE_OK(bl_hosts_create(&hosts, 2, 2, slots));
  REQUIRE_OK(bl_flow_graph_create(&graph, 2, 2, hosts.n_copy_slots));
  REQUIRE_OK(bl_cuts_create(2, 2, 1, &cuts));
  bl_flow_graph_load(&graph, &hosts);
  bl_cuts_start(cuts, &graph, load, 1, &weight, NULL);
  bl_cuts_add(cuts, set, 1);
  CHECK_NEAR(bl_cuts_bound(cuts, &graph, NULL, 0, DBL_MAX, low), 3, 0);
  bl_flow_fill(&graph, 1, 0);
  low[0] = 2;
  CHECK_NEAR(bl_cuts_bound(cuts, &graph, &hot, 1, DBL_MAX, low), 2, 0);
  bl_cuts_take(cuts, &graph, &hot, 1);
  bl_flow_empty(&graph, 1);
  CHECK_NEAR(bl_cuts_bound(cuts, &graph, &hot, 1, DBL_MAX, low), 3, 0);
  bl_cuts_free(cuts);
  bl_flow_graph_free(&graph);
  bl_hosts_free(&hosts);
}

int main(void) {
  RUN(test_by_hand);
  RUN(test_bounds);
  TEST_MAIN_END;
}
