/* time limit: 120 s
 * Simulated layouts: sums by hand, shortened steps against whole ones, bounds against simulations of many layouts. */
#include "base/rng.h"
#include "planner/search/block_bound.h"
#include "planner/search/survivor.h"
#include "tests/check.h"
#include "tests/unit/search_model.h"
#include <math.h>

/* Eight nodes, and a shared expert beside the others; `blocks`: layers of one block each, state-space ones among them.
 */
static void make_large_model(bool blocks) {
  make_model();
  model.shared_experts = 1, model.shared_width = 512;
  cluster.node_group[0].nodes = 8;
  if (blocks) add_state_space(&model);
}

static bl_search_options options(void) {
  return (bl_search_options){.model = &model,
                             .cluster = &cluster,
                             .ranks = 32,
                             .batch = 64,
                             .memory_bytes = 1e15,
                             .imbalance = imbalance,
                             .max_vp = 3,
                             .max_micro_batch = 4,
                             .top = 5};
}

/* Without replicas and pipeline nothing hides anything: the closed form, to rounding. */
static void check_one_position(void) {
  static bl_search_entry e;
  const bl_search_options o = options();
  for (int tp = 1; tp <= 2; tp++)
    for (int ep = 1; ep <= tp; ep++)
      for (int r = 0; r < BL_RECOMPUTE_COUNT; r++)
        for (int modules = 0; modules < 2; modules++) {
          const bl_grid g = {.tp = tp,
                             .cp = 1,
                             .dp = 1,
                             .pp = 1,
                             .vp = 1,
                             .etp = tp / ep,
                             .ep = ep,
                             .edp = 1,
                             .micro_batch = 2,
                             .micro_batches = 3,
                             .recompute = (bl_recompute)r};
          model.multi_token = modules;
          CHECK(bl_search_price(&o, &g, &e));
          CHECK_OK(bl_survivor_simulate(&o, true, &e));
          CHECK_NEAR(e.simulated.step_us, e.price.step_us, 1e-9 * e.price.step_us);
          for (int k = 0; k < BL_PRICE_COUNT; k++)
            if (k != BL_PRICE_RECOMPUTE && k != BL_PRICE_TENSOR && k != BL_PRICE_EXCHANGE)
              CHECK_NEAR(e.simulated.us[k], e.price.us[k], 1e-9 * e.price.step_us);
        }
}

/* What parts of a sequence exchange in one micro-batch more; reductions that run beside the last one take from both. */
static void check_context(void) {
  static bl_search_entry e;
  const bl_search_options o = options();
  double simulated[2], price[2];
  for (int n = 0; n < 2; n++) {
    const bl_grid g = {.tp = 1,
                       .cp = 2,
                       .dp = 1,
                       .pp = 1,
                       .vp = 1,
                       .etp = 1,
                       .ep = 2,
                       .edp = 1,
                       .micro_batch = 1,
                       .micro_batches = 3 + n};
    CHECK(bl_search_price(&o, &g, &e));
    CHECK_OK(bl_survivor_simulate(&o, true, &e));
    simulated[n] = e.simulated.us[BL_PRICE_CONTEXT], price[n] = e.price.us[BL_PRICE_CONTEXT];
  }
  CHECK(price[1] > price[0]);
  CHECK_NEAR(simulated[1] - simulated[0], price[1] - price[0], 1e-9 * price[1]);
}

static void test_one_position(void) {
  for (int blocks = 0; blocks < 2; blocks++) {
    make_large_model(blocks);
    check_one_position();
    check_context();
  }
}

static bool random_grid(bl_rng *rng, bl_grid *g) {
  *g = (bl_grid){.tp = 1 << bl_rng_below(rng, 2), .cp = 1 << bl_rng_below(rng, 2), .dp = 1 << bl_rng_below(rng, 3)};
  g->pp = 1 + (int32_t)bl_rng_below(rng, 4);
  g->vp = g->pp > 1 ? 1 + (int32_t)bl_rng_below(rng, 3) : 1;
  if (g->pp * g->vp > 8) return false;
  const int32_t ranks = g->tp * g->cp * g->dp;
  g->etp = 1 << bl_rng_below(rng, 2);
  g->ep = 1 << bl_rng_below(rng, 4);
  if (g->etp * g->ep > ranks) return false;
  g->edp = ranks / g->etp / g->ep;
  g->zero = (const int32_t[]){0, 1, 3}[bl_rng_below(rng, 3)];
  g->recompute = (bl_recompute)bl_rng_below(rng, BL_RECOMPUTE_COUNT);
  g->micro_batch = 1 + (int32_t)bl_rng_below(rng, 2);
  g->micro_batches = g->vp > 1 ? g->pp * (1 + (int32_t)bl_rng_below(rng, 20)) : 1 + (int32_t)bl_rng_below(rng, 70);
  g->overlap = bl_rng_below(rng, 2);
  g->copy_slots = (int32_t)bl_rng_below(rng, 2);
  g->pieces = 1 << bl_rng_below(rng, 3);
  return true;
}

static void print_grid(const bl_grid *g) {
  printf("tp %d cp %d dp %d pp %d vp %d etp %d ep %d zero %d recompute %d micro-batches %d overlap %d\n", g->tp, g->cp,
         g->dp, g->pp, g->vp, g->etp, g->ep, g->zero, (int)g->recompute, g->micro_batches, g->overlap);
}

static void block_costs(const bl_search_options *o, const bl_grid *g, double uneven, bl_positions *at,
                        bl_block_costs *costs) {
  bl_work work;
  bl_positions_of(o->cluster, g, at);
  for (int32_t k = 0; k < at->kinds; k++) {
    bl_grid_work(o->model, at, k, g, uneven, &work);
    bl_block_cost(o->model, g, &work, bl_grid_overlaps(g) || g->pieces > 1, &costs[k]);
  }
}

/* Shortened steps are the whole ones; no bound is above its simulation, and they are near. */
static void test_random_layouts(void) {
  static bl_search_entry e;
  const bl_search_options o = options();
  const int n = check_is_small() ? 30 : 400;
  int32_t count[BL_ITEM_COUNT];
  double worst = 0, tight = 0;
  bl_rng rng;
  bl_rng_seed(&rng, 11, 0);
  int done = 0, compared = 0;
  for (; done < n;) {
    bl_grid g;
    bl_positions at;
    bl_block_costs costs[BL_POSITION_KINDS];
    if (!random_grid(&rng, &g)) continue;
    done++;
    make_large_model(bl_rng_below(&rng, 2));
    model.multi_token = (int32_t)bl_rng_below(&rng, 2);
    bl_items_of_model(&model, count);
    CHECK(bl_search_price(&o, &g, &e));
    CHECK_OK(bl_survivor_simulate(&o, true, &e));
    const double whole = e.simulated.step_us;
    CHECK_OK(bl_survivor_simulate(&o, false, &e));
    const double off = fabs(e.simulated.step_us / whole - 1);
    double parts = 0;
    for (int k = 0; k < BL_PRICE_COUNT; k++) parts += e.simulated.us[k];
    CHECK_NEAR(parts, e.simulated.step_us, 1e-9 * parts);
    for (int k = 0; k < BL_PRICE_COUNT; k++) CHECK(e.simulated.us[k] >= -1e-9 * parts);
    if (off > worst) worst = off;
    if (off > 1e-4) printf("off %g: ", off), print_grid(&g);
    block_costs(&o, &g, e.imbalance, &at, costs);
    const double any = bl_block_bound_any(&g, &at, costs, count);
    const double bound = bl_block_bound(&model, &g, &at, costs, e.first, bl_grid_overlaps(&g));
    const double slack = 1 + 1e-12;
    if (!check_count(any <= bound * slack && bound <= whole * slack)) {
      print_grid(&g);
      printf("any %g bound %g simulated %g price %g\n", any, bound, whole, e.price.step_us);
    }
    if (g.dp == 1 && g.cp == 1 && g.zero == 0) tight += bound / whole, compared++;
  }
  printf("%d layouts: shortened steps at most %.2g off, bounds %.4f of what hides little\n", n, worst,
         tight / compared);
  CHECK(worst < 1e-3);
  CHECK(tight > 0.93 * compared);
}

/* -- the oracle: every layout simulated --------------------------------------------------------------------------- */

typedef struct oracle {
  bl_search_options o;
  int32_t count[BL_ITEM_COUNT];
  bl_search_entry *e;
  double best_us;
  int64_t n, hopeful; /* layouts; those whose bound is below found_us */
  double found_us;
  int64_t may_fit,
      divided;    /* layouts that even spread would fit; of those, whose bound of any division is below warm_us */
  double warm_us; /* what the second stage starts from: the fastest of the closed form's best, simulated */
  bool bounds_hold, fine;
} oracle;

static void simulate_one(oracle *w, const bl_grid *g, const bl_grid_costs *costs) {
  bl_positions at;
  bl_block_costs blocks[BL_POSITION_KINDS];
  const bool fits = bl_search_price(&w->o, g, w->e);
  block_costs(&w->o, g, w->e->imbalance, &at, blocks);
  if (bl_search_may_fit(&w->o, g, costs)) {
    w->may_fit++;
    w->divided += bl_block_bound_any(g, &at, blocks, w->count) < w->warm_us;
  }
  if (!fits) return;
  if (bl_survivor_simulate(&w->o, true, w->e) != BL_OK) w->fine = false;
  const double us = w->e->simulated.step_us, slack = 1 + 1e-12;
  const double bound = bl_block_bound(w->o.model, g, &at, blocks, w->e->first, bl_grid_overlaps(g));
  if (!(bl_block_bound_any(g, &at, blocks, w->count) <= bound * slack && bound <= us * slack)) w->bounds_hold = false;
  w->n++;
  w->hopeful += bound < w->found_us;
  if (us < w->best_us) w->best_us = us;
}

static void simulate_it(void *context, const bl_grid *grid, const bl_grid_costs *costs) {
  oracle *w = context;
  bl_grid g = *grid;
  for (g.pieces = 1; g.pieces <= (g.ep > 1 ? w->o.pieces : 1); g.pieces *= 2) simulate_one(w, &g, costs);
}

/* The time that the second stage starts from. */
static double warm_us(bl_search_options o) {
  bl_search_result r;
  double us = 1e30;
  o.simulate = 0;
  if (bl_search(&o, &r) != BL_OK) return 0;
  for (int32_t k = 0; k < r.n; k++) {
    if (bl_survivor_simulate(&o, false, &r.entry[k]) != BL_OK) us = 0;
    us = fmin(us, r.entry[k].simulated.step_us);
  }
  bl_search_free(&r);
  return us;
}

/* Nodes of 4, 4 and 2 ranks, or of 3 ranks between others; the third group's devices are slow and small. */
static void make_uneven(const int32_t *ranks_per_node, int32_t racks) {
  const bl_node_group even = cluster.node_group[0];
  for (int32_t i = 0; i < 3; i++) {
    cluster.node_group[i] = even;
    cluster.node_group[i].nodes = 1, cluster.node_group[i].ranks_per_node = ranks_per_node[i];
  }
  cluster.n_node_groups = 3;
  bl_device *slow = &cluster.node_group[2].device;
  slow->tflops *= 0.6, slow->memory_gbps *= 0.8, slow->memory_bytes *= 0.75, slow->call_us *= 1.5;
  cluster.node_group[2].links.inter.gbps *= 0.5;
  if (racks > 0) cluster.racks = (bl_racks){.nodes = racks, .link = {5, 20}};
}

static void test_against_all(void) {
  static const int32_t even[3] = {0}, short_last[3] = {4, 4, 2}, short_middle[3] = {4, 3, 5}, mixed[3] = {4, 4, 4};
  static const struct {
    int32_t ranks, batch;
    double memory_bytes;
    bool overlap, blocks;
    int32_t pieces;
    const int32_t *nodes;
    int32_t racks;
  } cases[] = {{2, 8, 8e9, false, false, 1, even, 0},          {4, 16, 2e9, false, false, 4, even, 0},
               {4, 16, 1.2e9, false, true, 2, even, 0},        {10, 20, 2e9, false, false, 2, short_last, 0},
               {6, 24, 2e9, true, false, 1, even, 0},          {8, 16, 1e9, false, false, 2, even, 0},
               {12, 24, 2e9, true, false, 1, short_middle, 0}, {12, 12, 1.2e9, false, true, 1, mixed, 2},
               {8, 16, 0.8e9, true, true, 1, even, 0},         {8, 32, 0.8e9, true, false, 2, even, 0},
               {16, 16, 0.6e9, true, false, 1, even, 0}};
  const size_t n = check_is_small() ? 4 : sizeof cases / sizeof *cases;
  int64_t hopeful = 0, may_fit = 0;
  for (size_t i = 0; i < n; i++) {
    bl_search_result r;
    make_large_model(cases[i].blocks);
    if (cases[i].nodes[0] > 0) make_uneven(cases[i].nodes, cases[i].racks);
    oracle w = {.o = options(), .best_us = 1e30, .bounds_hold = true, .fine = true};
    w.o.ranks = cases[i].ranks, w.o.batch = cases[i].batch, w.o.memory_bytes = cases[i].memory_bytes;
    w.o.overlap = cases[i].overlap, w.o.pieces = cases[i].pieces, w.o.max_micro_batch = 2, w.o.simulate = 100000,
    w.o.top = 3;
    bl_items_of_model(&model, w.count);
    REQUIRE_OK(bl_search(&w.o, &r));
    w.found_us = r.n > 0 ? r.entry[0].simulated.step_us : 0;
    w.warm_us = warm_us(w.o);
    w.e = calloc(1, sizeof *w.e);
    REQUIRE(w.e != NULL);
    REQUIRE_OK(bl_search_visit(&w.o, simulate_it, &w));
    free(w.e);
    CHECK(w.bounds_hold && w.fine && w.n > 0);
    REQUIRE(r.n > 0);
    CHECK_NEAR(r.entry[0].simulated.step_us, w.best_us, 1e-9 * w.best_us);
    CHECK_INT(r.open, 0);
    CHECK_NEAR(r.proved_us, r.entry[0].simulated.step_us, 0);
    CHECK(r.simulated <= w.hopeful + w.o.top); /* the bounds spare the others */
    CHECK_INT(r.divided, w.divided);           /* from the start: no more is divided than the first best leaves */
    CHECK(r.divided <= r.hopeful && r.hopeful <= w.may_fit);
    hopeful += r.hopeful, may_fit += w.may_fit;
    for (int32_t k = 1; k < r.n; k++) CHECK(r.entry[k - 1].simulated.step_us <= r.entry[k].simulated.step_us);
    printf("%d ranks: %lld layouts fit, %d simulated, %lld below the best by their bounds\n", cases[i].ranks,
           (long long)w.n, r.simulated, (long long)w.hopeful);
    /* With few simulations what was proved may fall short, but never lies. */
    bl_search_free(&r);
    w.o.simulate = 1;
    REQUIRE_OK(bl_search(&w.o, &r));
    CHECK(r.proved_us <= w.best_us * (1 + 1e-12) && r.simulated <= 1 + w.o.top);
    CHECK(r.open > 0 || r.entry[0].simulated.step_us <= w.best_us * (1 + 1e-9));
    bl_search_free(&r);
  }
  make_large_model(false);
  printf("actions of %lld of %lld layouts priced\n", (long long)hopeful, (long long)may_fit);
  CHECK(3 * hopeful < 2 * may_fit); /* sums at hand spare many of them */
}

int main(void) {
  RUN(test_one_position);
  RUN(test_random_layouts);
  RUN(test_against_all);
  TEST_MAIN_END;
}
