/* Bounds of a price by columns of experts: never above a price, whatever the weights and boxes; never above what
 * enumeration finds; far closer than the quick bound where traffic decides. A child without time or memory. */
#include "planner/milp/dual_sum.h"
#include "planner/milp/price_bound.h"
#include "planner/milp/prove.h"
#include "tests/unit/cost_oracle.h"

enum { MAX_E = 40, MAX_P = 24, MAX_FED = 6 };

typedef struct layer {
  int32_t experts, ranks, slots[MAX_P], old_home[MAX_E];
  double counts[MAX_P * MAX_E], speed[MAX_P];
  bl_place_machine machine;
  bl_place_demand demand;
  bl_place_problem problem;
} layer;

/* One to three levels, shared ports, ranks of different speed and slots, sources that are alike or not. */
static bl_status draw_layer(layer *x, bl_rng *rng, int turn) {
  static const int32_t shapes[][3] = {{32, 8, 8}, {32, 8, 4}, {24, 12, 4}, {40, 24, 4}, {30, 10, 4}, {16, 16, 2}};
  const double skew = 2 * bl_rng_unit(rng), mixed = 2 * bl_rng_unit(rng);
  *x = (layer){.experts = shapes[turn % 6][0], .ranks = shapes[turn % 6][1]};
  const int32_t node = shapes[turn % 6][2], even = (x->experts + x->ranks - 1) / x->ranks;
  for (int32_t e = 0; e < x->experts; ++e) {
    const double popular = bl_det_exp(skew * bl_rng_normal(rng));
    for (int32_t r = 0; r < x->ranks; ++r)
      x->counts[r * x->experts + e] = floor(100 * popular * bl_det_exp(mixed * bl_rng_normal(rng)));
    x->old_home[e] = e / even;
  }
  for (int32_t r = 0; r < x->ranks; ++r) {
    x->slots[r] = even + (int32_t)bl_rng_below(rng, 3);
    x->speed[r] = 0.6 + 0.2 * (double)bl_rng_below(rng, 4);
  }
  bl_place_machine *m = &x->machine;
  *m = (bl_place_machine){.ranks = x->ranks,
                          .token_us = bl_rng_unit(rng),
                          .row_bytes = 4096,
                          .fill_bytes = 3e6 * bl_rng_unit(rng),
                          .reduce_bytes = 4e6 * bl_rng_unit(rng),
                          .state_bytes = 2e8 * bl_rng_unit(rng),
                          .exchanges = 4,
                          .micro_batches = 1 << bl_rng_below(rng, 6),
                          .horizon = 1 + (double)bl_rng_below(rng, 2000)};
  m->level[0] = (bl_place_level){node < x->ranks ? node : x->ranks, 1, 100, 4};
  m->level[1] = (bl_place_level){node * (turn % 2 ? 2 : 64), 1 + turn % 2, 20, 12};
  m->level[2] = (bl_place_level){node * 64, 1, 10, 30};
  m->levels = node >= x->ranks ? 1 : m->level[1].ranks >= x->ranks ? 2 : 3;
  if (turn % 5 == 2) m->speed = x->speed;
  x->problem = (bl_place_problem){.machine = m,
                                  .demand = &x->demand,
                                  .slots = x->slots,
                                  .old_home = x->old_home,
                                  .homes = (bl_place_homes)(turn % 3),
                                  .relay = turn % 4 == 3};
  return bl_place_demand_create(x->experts, x->ranks, x->counts, turn % 7 ? x->ranks : 0, &x->demand);
}

/* Weights at random: few or many at once, slots free or dear. */
static void draw_weights(const bl_dual_layout *layout, double known_us, bl_rng *rng, double *weights) {
  for (int t = 0; t < BL_DUAL_TERMS; ++t) {
    double sum = 0;
    const double spread = 3 * bl_rng_unit(rng), whole = bl_rng_below(rng, 3) ? 1 : bl_rng_unit(rng);
    for (int32_t i = layout->first[t]; i < layout->first[t + 1]; ++i)
      sum += weights[i] = bl_det_exp(spread * bl_rng_normal(rng));
    for (int32_t i = layout->first[t]; i < layout->first[t + 1]; ++i) weights[i] *= whole / sum;
  }
  const double dear = bl_rng_below(rng, 3) ? 0.01 * known_us * bl_rng_unit(rng) : 0;
  for (int32_t i = layout->first[BL_DUAL_TERMS]; i < layout->size; ++i) weights[i] = dear * bl_rng_unit(rng);
}

/* Any weights give a bound of any placement that lies in the box. */
static void test_any_weights(void) {
  static layer x;
  bl_rng rng;
  bl_rng_seed(&rng, 71, 0);
  double closest = 0;
  for (int turn = 0; turn < (check_is_small() ? 18 : 90); ++turn) {
    bl_place_solver *solver;
    bl_place_solution found;
    bl_dual_sum *sum;
    REQUIRE_OK(draw_layer(&x, &rng, turn));
    REQUIRE_OK(bl_place_solver_create(&x.problem, &solver));
    REQUIRE_OK(bl_place_solve(solver, &x.demand, x.old_home, 1 + (int32_t)bl_rng_below(&rng, 200), &found));
    const double us = found.price.total_us, compute = found.price.us[BL_PLACE_COMPUTE],
                 exchange = found.price.us[BL_PLACE_EXCHANGE];
    REQUIRE_OK(bl_dual_sum_create(&x.problem, us * (1 + 1e-9), &sum));
    const bl_dual_layout *layout = bl_dual_sum_layout(sum);
    double *weights = calloc((size_t)layout->size, sizeof *weights);
    bl_dual_box box = bl_dual_sum_all(sum);
    CHECK(bl_dual_sum_enter(sum, &box));
    bl_dual_sum_start(sum, weights);
    for (int k = 0; k < 30; ++k) {
      if (k > 0) draw_weights(layout, us, &rng, weights);
      if (k > 10) { /* around the placement, wide or narrow; latency is not part of the box */
        const double part = k % 4 ? bl_rng_unit(&rng) : 0;
        box = (bl_dual_box){.low = {compute * (1 - part), exchange * (1 - part) - 20 * 30 * 4 * 32 - 1},
                            .high = {compute * (1 + part) * (1 + 1e-9), exchange * (1 + part) * (1 + 1e-9)}};
        if (box.low[1] < 0) box.low[1] = 0;
        CHECK(bl_dual_sum_enter(sum, &box));
      }
      const double bound = bl_dual_sum_find(sum, weights, NULL, NULL);
      if (bound > us * (1 + 1e-9)) printf("turn %d, weights %d: bound %.12g, price %.12g\n", turn, k, bound, us);
      CHECK(bound <= us * (1 + 1e-9));
      if (bound / us > closest) closest = bound / us;
    }
    free(weights);
    bl_dual_sum_free(sum);
    bl_place_solver_free(solver);
    bl_place_demand_free(&x.demand);
  }
  printf("the closest bound is %.4f of its price\n", closest);
  CHECK(closest > (check_is_small() ? 0.945 : 0.97)); /* fewer turns, fewer that are easy */
}

/* What it costs to feed all hosts of a set from the home, or, `relay`, from one another: one after the other is fed, by
 * the home or any that has been. */
static double feeding(const bl_place_machine *m, const bl_dual_amounts *price, uint32_t hosts, int32_t home,
                      bool relay) {
  double least[1 << MAX_FED];
  for (uint32_t set = 0; set <= hosts; ++set) least[set] = INFINITY;
  least[1u << home] = 0;
  for (uint32_t set = 0; set < hosts; ++set)
    for (int32_t r = 0; r < m->ranks && least[set] < INFINITY; ++r)
      for (int32_t from = 0; from < m->ranks && hosts >> r & ~set >> r & 1; ++from) {
        if (!(set >> from & 1) || (from != home && !relay)) continue;
        const int32_t level = bl_place_level_between(m, from, r);
        const double one = price->copy[BL_DUAL_OUT][level][from] + price->copy[BL_DUAL_IN][level][r];
        least[set | 1u << r] = fmin(least[set | 1u << r], least[set] + one);
      }
  return least[hosts];
}

/* What an expert's tokens, copies and slots cost on the hosts of a set with this home, every source going wherever it
 * is cheapest. */
static double cost_on(const bl_place_machine *m, const bl_dual_amounts *price, const double *source, uint32_t hosts,
                      int32_t home, bool relay) {
  double cost = feeding(m, price, hosts, home, relay);
  for (int32_t r = 0; r < m->ranks; ++r)
    if (hosts >> r & 1) cost += price->slot[r];
  for (int32_t from = 0; from < m->ranks; ++from) {
    double least = INFINITY;
    for (int32_t r = 0; r < m->ranks; ++r) {
      if (!(hosts >> r & 1)) continue;
      const int32_t level = bl_place_level_between(m, from, r);
      double each = price->compute[r];
      if (level > 0) each += price->token[BL_DUAL_OUT][level][from] + price->token[BL_DUAL_IN][level][r];
      least = fmin(least, each);
    }
    cost += source[from] * least;
  }
  return cost;
}

/* One expert at random prices against every set of hosts: never dearer than the cheapest that is large enough, mostly
 * the same. How many are enough: counted. */
static void test_cheapest_hosts(void) {
  enum { RANKS = MAX_FED };
  bl_rng rng;
  bl_rng_seed(&rng, 74, 0);
  double ratio = 0;
  const int turns = check_is_small() ? 300 : 3000;
  for (int turn = 0; turn < turns; ++turn) {
    const int32_t ranks = 2 + turn % 5;
    bl_place_machine m = {.ranks = ranks, .levels = turn % 3 ? 2 : 1};
    m.level[0] = (bl_place_level){turn % 3 ? turn % 3 + 1 : ranks, 1, 1, 0};
    m.level[1] = (bl_place_level){6, 1, 1, 0};
    double counts[2 * RANKS];
    int32_t slots[RANKS] = {2, 2, 2, 2, 2, 2}, old_home[2] = {(int32_t)bl_rng_below(&rng, (uint64_t)ranks), 0};
    bl_place_demand d;
    bl_dual_hosts *hosts;
    bl_dual_amounts price, used;
    for (int32_t i = 0; i < 2 * ranks; ++i) counts[i] = 10 * bl_rng_unit(&rng) * bl_rng_unit(&rng);
    REQUIRE_OK(bl_place_demand_create(2, ranks, counts, ranks, &d));
    const bl_place_problem problem = {.machine = &m,
                                      .demand = &d,
                                      .slots = slots,
                                      .old_home = old_home,
                                      .homes = turn % 2 ? BL_PLACE_HOMES_FIXED : BL_PLACE_HOMES_FREE,
                                      .relay = turn % 7 < 3};
    REQUIRE_OK(bl_dual_hosts_create(&problem, &hosts));
    REQUIRE_OK(bl_dual_amounts_create(&m, &price));
    REQUIRE_OK(bl_dual_amounts_create(&m, &used));
    for (size_t i = 0; i < price.size; ++i) price.compute[i] = bl_rng_unit(&rng);
    const double dear = 12 * bl_rng_unit(&rng);
    for (int32_t r = 0; r < ranks; ++r) price.slot[r] *= dear;
    bl_dual_caps caps = {.tokens = d.load[0] * (turn % 5 ? 0.15 + bl_rng_unit(&rng) : 2),
                         .arriving = {0, INFINITY, INFINITY, INFINITY},
                         .copies = {0, INFINITY, INFINITY, INFINITY}};
    const int32_t needed = (int32_t)ceil(d.load[0] / caps.tokens - 1e-9);
    bl_dual_hosts_cap(hosts, &caps);
    bl_dual_hosts_price(hosts, &price);
    for (int32_t n = 1; n <= ranks; ++n) CHECK(bl_dual_hosts_allowed(hosts, 0, n) == (n >= needed));
    double least = INFINITY;
    for (uint32_t set = 1; set < 1u << ranks; ++set)
      for (int32_t home = 0; home < ranks && __builtin_popcount(set) >= needed; ++home)
        if (set >> home & 1 && (turn % 2 == 0 || home == old_home[0]))
          least = fmin(least, cost_on(&m, &price, d.source, set, home, problem.relay));
    const double found = bl_dual_hosts_cheapest(hosts, 0, &used);
    CHECK((needed <= ranks) == (found < INFINITY));
    CHECK(found <= least * (1 + 1e-9) || least == INFINITY);
    if (found > least * (1 + 1e-9)) printf("turn %d: %.9g, enumerated %.9g\n", turn, found, least);
    ratio += needed <= ranks ? found / least : 1;
    if (needed <= ranks) { /* all tokens are somewhere; what it uses costs what it says */
      double sum = 0, tokens = 0;
      for (size_t i = 0; i < price.size; ++i) sum += price.compute[i] * used.compute[i];
      for (int32_t r = 0; r < ranks; ++r) tokens += used.compute[r];
      CHECK_NEAR(tokens, d.load[0], 1e-9 * d.load[0]);
      if (turn % 2) CHECK(sum >= found * (1 - 1e-9)); /* where homes are free, what copies must be is that of another */
    }
    bl_dual_amounts_free(&price);
    bl_dual_amounts_free(&used);
    bl_dual_hosts_free(hosts);
    bl_place_demand_free(&d);
  }
  printf("the cheapest hosts are %.4f of those enumerated\n", ratio / turns);
  CHECK(ratio / turns > 0.85);
}

/* One expert on all ranks of two nodes, its copies fed node by node: the price of a placement that there is. */
static void test_relayed(void) {
  if (!bl_prove_has_solver()) SKIP("built without GLPK");
  for (int turn = 0; turn < 6; ++turn) {
    enum { MOST = 16 };
    const int32_t node = 2 << turn % 3, ranks = 2 * node;
    bl_place_machine m = {.ranks = ranks,
                          .levels = 2,
                          .level = {{node, 1, 400, 0}, {ranks, node, turn % 2 ? 50 : 10, 0}},
                          .token_us = 20,
                          .fill_bytes = 1e6,
                          .reduce_bytes = 2e6,
                          .exchanges = 4,
                          .micro_batches = 1,
                          .horizon = 1};
    double load[MOST];
    int32_t slots[MOST], home[MOST], feeder[MOST], n = 0;
    bl_copy copies[MOST];
    for (int32_t r = 0; r < ranks; ++r) load[r] = r > 0 ? 1 : 64 * ranks, slots[r] = 2, home[r] = r;
    for (int32_t r = 1; r < ranks; ++r) {
      feeder[n] = r > node ? node : 0;
      copies[n++] = (bl_copy){0, r, 1.0 / ranks};
    }
    const bl_placed placed = {.home = home, .copies = copies, .feeder = feeder, .n_copies = n};
    bl_place_demand demand;
    bl_place_cost *cost;
    bl_place_price price;
    bl_place_bound bound;
    char reason[160];
    REQUIRE_OK(bl_place_demand_create(ranks, ranks, load, 0, &demand));
    const bl_place_problem problem = {.machine = &m,
                                      .demand = &demand,
                                      .slots = slots,
                                      .old_home = home,
                                      .homes = turn < 3 ? BL_PLACE_HOMES_FIXED : BL_PLACE_HOMES_FREE,
                                      .relay = true};
    REQUIRE_OK(bl_place_cost_create(&m, ranks, &cost));
    REQUIRE_OK(bl_place_cost_price(cost, &demand, &placed, &price));
    REQUIRE_OK(bl_place_bound_find(&problem, &bound));
    REQUIRE_OK(bl_prove_price(&problem, 1.2 * price.total_us, 0.5, 0, &bound, reason));
    CHECK(bound.us <= price.total_us * (1 + 1e-9));
    bl_place_cost_free(cost);
    bl_place_demand_free(&demand);
  }
}

static void test_enumerated(void) {
  if (!bl_prove_has_solver()) SKIP("built without GLPK");
  static const int32_t shapes[][3] = {{2, 2, 20}, {4, 2, 8}, {6, 2, 3}, {3, 3, 4}, {4, 3, 3}, {3, 1, 1}, {3, 3, 6}};
  double before = 0, after = 0;
  const int turns = check_is_small() ? 12 : 42;
  for (int turn = 0; turn < turns; ++turn) {
    drawn d;
    bl_rng rng;
    bl_place_bound bound;
    char reason[160];
    const int32_t *shape = shapes[turn % 7];
    bl_rng_seed(&rng, (uint64_t)turn, 18);
    REQUIRE_OK(draw(&d, &rng, shape[0], shape[1], (bl_place_homes)(turn / 7 % 3)));
    oracle o = {.d = &d, .grid = shape[2], .best = INFINITY};
    REQUIRE_OK(bl_place_cost_create(&d.machine, shape[0], &o.cost));
    enumerate(&o, 0);
    REQUIRE_OK(bl_place_bound_find(&d.problem, &bound));
    before += 1 - bound.us / o.best;
    REQUIRE_OK(bl_prove_price(&d.problem, o.best, 0.15, 0, &bound, reason));
    CHECK(bound.us <= o.best);
    after += 1 - bound.us / o.best;
    bl_place_cost_free(o.cost);
    bl_place_demand_free(&d.demand);
  }
  printf("below the enumerated price by %.4f on average, the quick bound by %.4f\n", after / turns, before / turns);
  CHECK(after < 0.75 * before);
}

/* Experts that some ranks ask for much more than others. */
static void draw_local(layer *x, bl_rng *rng, int32_t node) {
  CHECK_OK(draw_layer(x, rng, 1));
  bl_place_demand_free(&x->demand);
  for (int32_t i = 0; i < x->ranks * x->experts; ++i) x->counts[i] = floor(1000 * bl_det_exp(2 * bl_rng_normal(rng)));
  x->machine.levels = node < x->ranks ? 2 : 1;
  x->machine.level[0] = (bl_place_level){node, 1, 450, 6};
  x->machine.level[1] = (bl_place_level){x->ranks, 1, 50, 15};
  x->machine.speed = NULL;
  x->machine.token_us = 0.1;
  x->machine.row_bytes = 14336;
  x->machine.micro_batches = 8;
  CHECK_OK(bl_place_demand_create(x->experts, x->ranks, x->counts, x->ranks, &x->demand));
}

static void test_closer(void) {
  if (!bl_prove_has_solver()) SKIP("built without GLPK");
  static layer x;
  bl_rng rng;
  bl_rng_seed(&rng, 72, 0);
  for (int turn = 0; turn < (check_is_small() ? 2 : 6); ++turn) {
    bl_place_solver *solver;
    bl_place_solution found;
    char reason[160];
    draw_local(&x, &rng, turn % 2 ? 8 : 4);
    x.problem.homes = turn % 4 < 2 ? BL_PLACE_HOMES_FREE : BL_PLACE_HOMES_FIXED;
    REQUIRE_OK(bl_place_solver_create(&x.problem, &solver));
    REQUIRE_OK(bl_place_solve(solver, &x.demand, x.old_home, 0, &found));
    const double before = found.price.total_us / found.bound.us - 1;
    REQUIRE_OK(bl_prove_price(&x.problem, found.price.total_us, 2, 0, &found.bound, reason));
    const double after = found.price.total_us / found.bound.us - 1;
    printf("32 experts on 8 ranks in nodes of %d: gap %.3f, by columns %.3f\n", turn % 2 ? 8 : 4, before, after);
    CHECK(after >= 0 && after < 0.7 * before);
    CHECK(strcmp(found.bound.proof, "columns-of-experts") == 0 && reason[0]);
    bl_place_solver_free(solver);
    bl_place_demand_free(&x.demand);
  }
}

/* Whatever happens to the child, the quick bound stands, with a reason. */
static void test_without_means(void) {
  static layer x;
  bl_rng rng;
  bl_place_bound quick, bound;
  char reason[160];
  bl_rng_seed(&rng, 73, 0);
  draw_local(&x, &rng, 4);
  REQUIRE_OK(bl_place_bound_find(&x.problem, &quick));
  bound = quick;
  REQUIRE_OK(bl_prove_price(&x.problem, 10 * quick.us, 1e-9, 0, &bound, reason));
  CHECK(bound.us >= quick.us && reason[0]);
  bound = quick;
  REQUIRE_OK(bl_prove_price(&x.problem, 10 * quick.us, 1, 4096, &bound, reason));
  CHECK(bound.us >= quick.us && reason[0]);
  CHECK_FAILS(bl_prove_price(&x.problem, 10 * quick.us, 0, 0, &bound, reason), BL_EINPUT, "0 seconds to prove");
  CHECK_FAILS(bl_prove_price(&x.problem, 10 * quick.us, NAN, 0, &bound, reason), BL_EINPUT, "nan seconds");
  bl_place_demand_free(&x.demand);
}

int main(void) {
  RUN(test_cheapest_hosts);
  RUN(test_any_weights);
  RUN(test_relayed);
  RUN(test_enumerated);
  RUN(test_closer);
  RUN(test_without_means);
  TEST_MAIN_END;
}
