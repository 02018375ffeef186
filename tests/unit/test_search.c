/* Layout search: stages against all divisions, the pruned search against plain loops over all layouts. */
#include "planner/search/imbalance.h"
#include "planner/search/search.h"
#include "tests/check.h"
#include "tests/unit/search_model.h"
#include <float.h>
#include <math.h>
#include <unistd.h>

static bl_search_options options(int32_t ranks, int32_t batch, double memory_bytes) {
  return (bl_search_options){.model = &model,
                             .cluster = &cluster,
                             .ranks = ranks,
                             .batch = batch,
                             .memory_bytes = memory_bytes,
                             .imbalance = imbalance,
                             .max_vp = 3,
                             .max_micro_batch = 4,
                             .top = 5};
}

/* -- stages -------------------------------------------------------------------------------------------------------- */

typedef struct division {
  const bl_grid *grid;
  const bl_grid_costs *costs;
  double limit, best;
  int32_t first[16];
} division;

static void try_divisions(division *d, int32_t stage) {
  const int32_t stages = d->grid->pp * d->grid->vp;
  if (stage < stages) {
    for (int32_t at = d->first[stage - 1]; at <= model.layers; at++) d->first[stage] = at, try_divisions(d, stage + 1);
    return;
  }
  int32_t counts[16 * BL_ITEM_COUNT];
  bl_footprint f;
  double slowest = 0;
  d->first[stages] = model.layers;
  const bl_grid flat = {.pp = stages, .vp = 1};
  bl_stages_counts(&model, &flat, d->first, counts);
  for (int32_t s = 0; s < stages; s++)
    slowest = fmax(slowest, bl_device_us(&d->costs->at[0], counts + s * BL_ITEM_COUNT));
  if (d->grid->vp == 1) bl_stages_memory(d->grid, d->costs, counts, &f);
  if ((d->grid->vp > 1 || f.total <= d->limit) && slowest < d->best) d->best = slowest;
}

static void test_stages(void) {
  static const int32_t shapes[][2] = {{1, 1}, {2, 1}, {3, 1}, {4, 1}, {6, 1}, {2, 2}, {2, 3}};
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
    for (int32_t step = 0; step < 4; step++) {
      bl_grid g = {.tp = 1,
                   .cp = 1,
                   .dp = 2,
                   .pp = shapes[i][0],
                   .vp = shapes[i][1],
                   .etp = 1,
                   .ep = 2,
                   .edp = 1,
                   .zero = 1,
                   .micro_batch = 2,
                   .micro_batches = 12};
      bl_positions at;
      bl_grid_costs costs;
      int32_t first[16], counts[16 * BL_ITEM_COUNT];
      double slowest = 0;
      cost_on(&cluster, &model, &g, 1, &at, &costs);
      division d = {.grid = &g, .costs = &costs, .limit = (double[]){1e30, 3e9, 1.5e9, 1e9}[step], .best = DBL_MAX};
      try_divisions(&d, 1);
      const bool found = bl_stages_divide(&model, &g, &costs, d.limit, first);
      CHECK(found == (d.best < DBL_MAX));
      if (!found) continue;
      const bl_grid flat = {.pp = g.pp * g.vp, .vp = 1};
      bl_stages_counts(&model, &flat, first, counts);
      for (int32_t s = 0; s < flat.pp; s++)
        slowest = fmax(slowest, bl_device_us(&costs.at[0], counts + s * BL_ITEM_COUNT));
      CHECK_NEAR(slowest, d.best, 1e-9 * d.best);
    }
}

/* Thirteen equal layers on eight stages: two on the slowest, whatever the division, but not beside the embedding. None
 * has to go without, and those behind take less. */
static void test_stages_even(void) {
  const bl_model before = model;
  const bl_grid g = {
      .tp = 1, .cp = 1, .dp = 2, .pp = 4, .vp = 2, .etp = 1, .ep = 2, .edp = 1, .zero = 1, .micro_batch = 2};
  bl_positions at;
  bl_grid_costs costs;
  int32_t first[9];
  model.layers = 13, model.moe_first_layer = 0, model.vocabulary = 8;
  cost_on(&cluster, &model, &g, 1, &at, &costs);
  REQUIRE(bl_stages_divide(&model, &g, &costs, 1e30, first));
  for (int32_t s = 0; s < 8; s++) CHECK_INT(first[s + 1] - first[s], s == 0 || s > 5 ? 1 : 2);
  model = before;
}

/* -- the search ---------------------------------------------------------------------------------------------------- */

typedef struct brute {
  bl_search_options o;
  double best[8]; /* ascending, of distinct folds */
  int64_t n, fit;
  bool bound_holds;
} brute;

static void note(brute *b, double us) {
  int i = 7;
  if (us >= b->best[i]) return;
  for (; i > 0 && b->best[i - 1] > us; i--) b->best[i] = b->best[i - 1];
  b->best[i] = us;
}

static void brute_variants(brute *b, bl_grid g) {
  static bl_search_entry e;
  double least = DBL_MAX;
  for (int z = 0; z <= 3; z++)
    for (int r = 0; r < BL_RECOMPUTE_COUNT; r++) {
      if (z == 2) continue;
      g.zero = z, g.recompute = (bl_recompute)r;
      b->n++;
      if (!bl_search_price(&b->o, &g, &e)) continue;
      b->fit++;
      if (!(e.bound_us <= e.price.step_us * (1 + 1e-12))) b->bound_holds = false;
      least = fmin(least, e.price.step_us);
    }
  if (least < DBL_MAX) note(b, least);
}

/* Every vector of sizes up to the number of ranks; what folds is what the plan's own check says. */
static void brute_force(brute *b) {
  const int32_t P = b->o.ranks;
  bl_layout l;
  for (int i = 0; i < 8; i++) b->best[i] = DBL_MAX;
  b->bound_holds = true;
  if (bl_layout_default(&l, 1, model.layers, 1, 1) != BL_OK) return;
  for (l.tp = 1; l.tp <= P; l.tp++)
    for (l.cp = 1; l.tp * l.cp <= P; l.cp++)
      for (l.dp = 1; l.tp * l.cp * l.dp <= P; l.dp++)
        for (l.pp = 1; l.tp * l.cp * l.dp * l.pp <= P; l.pp++)
          for (l.etp = 1; l.etp <= P; l.etp++)
            for (l.ep = 1; l.etp * l.ep <= P; l.ep++)
              for (l.edp = 1; l.etp * l.ep * l.edp <= P; l.edp++) {
                bl_layout one = l;
                one.dp *= one.pp, one.edp *= one.pp, one.pp = 1; /* the default's single stage */
                if (l.tp * l.cp * l.dp * l.pp != P || bl_layout_check(&one, model.layers, "") != BL_OK) continue;
                if (model.heads % l.tp || model.state_heads % l.tp || model.experts % l.ep ||
                    model.expert_width % l.etp || b->o.batch % l.dp || (l.cp > 1 && model.sequence % (2 * l.cp)) ||
                    l.pp > model.layers + 2)
                  continue;
                for (int32_t mb = 1; mb <= b->o.max_micro_batch; mb++)
                  for (int32_t vp = 1; vp <= (l.pp > 1 ? b->o.max_vp : 1); vp++) {
                    const int32_t sequences = b->o.batch / l.dp;
                    if (sequences % mb || l.pp * vp > model.layers + 2 || (vp > 1 && sequences / mb % l.pp)) continue;
                    brute_variants(b, (bl_grid){.tp = l.tp,
                                                .cp = l.cp,
                                                .dp = l.dp,
                                                .pp = l.pp,
                                                .vp = vp,
                                                .etp = l.etp,
                                                .ep = l.ep,
                                                .edp = l.edp,
                                                .micro_batch = mb,
                                                .micro_batches = sequences / mb,
                                                .overlap = b->o.overlap});
                  }
              }
  bl_layout_free(&l);
}

static void test_against_brute_force(void) {
  static const struct {
    int32_t ranks, batch;
    double memory_bytes;
    bool overlap, blocks;
  } cases[] = {{1, 8, 8e9, false, false},    {4, 16, 2e9, false, false}, {6, 24, 4e9, true, false},
               {8, 32, 0.7e9, false, true},  {12, 24, 1e9, true, true},  {16, 64, 0.6e9, false, false},
               {16, 64, 0.6e9, true, false}, {16, 64, 4e9, false, false}};
  const size_t n = check_is_small() ? 4 : sizeof cases / sizeof *cases;
  for (size_t i = 0; i < n; i++) {
    bl_search_result r;
    brute b = {.o = options(cases[i].ranks, cases[i].batch, cases[i].memory_bytes)};
    make_model();
    if (cases[i].blocks) add_state_space(&model);
    b.o.overlap = cases[i].overlap;
    brute_force(&b);
    REQUIRE_OK(bl_search(&b.o, &r));
    CHECK_INT(r.layouts, b.n);
    CHECK(b.bound_holds);
    CHECK_INT(r.rejected[BL_SEARCH_MEMORY_BOUND] + r.rejected[BL_SEARCH_TIME_BOUND] + r.priced, b.n);
    CHECK(r.priced < b.n); /* something is pruned */
    for (int32_t k = 0; k < r.n; k++) CHECK_NEAR(r.entry[k].price.step_us, b.best[k], 1e-9 * b.best[k]);
    CHECK(r.n == b.o.top || b.best[r.n] >= DBL_MAX);
    if (r.n > 0) {
      double parts = 0;
      for (int u = 0; u < BL_PRICE_COUNT; u++) parts += r.entry[0].price.us[u];
      CHECK_NEAR(parts, r.entry[0].price.step_us, 1e-9 * parts);
      CHECK(r.bound_us <= r.entry[0].price.step_us && r.roofline_us <= r.bound_us);
    }
    printf("%d ranks: %lld layouts, %lld fit, %lld priced\n", cases[i].ranks, (long long)b.n, (long long)b.fit,
           (long long)r.priced);
    bl_search_free(&r);
  }
  make_model();
}

static void test_too_little_memory(void) {
  bl_search_result r;
  static bl_search_entry least;
  bl_search_options o = options(8, 32, 0.05e9);
  REQUIRE_OK(bl_search(&o, &r));
  CHECK_INT(r.n, 0);
  CHECK_INT(r.rejected[BL_SEARCH_MEMORY_BOUND] + r.rejected[BL_SEARCH_MEMORY], r.layouts);
  bl_search_free(&r);
  REQUIRE_OK(bl_search_least_memory(&o, &least));
  CHECK(least.memory.total > o.memory_bytes);
  o.memory_bytes = least.memory.total * 1.0001;
  REQUIRE_OK(bl_search(&o, &r)); /* with as much as that, it fits */
  CHECK(r.n > 0);
  bl_search_free(&r);
  o.ranks = 17;
  CHECK_FAILS(bl_search(&o, &r), BL_EINPUT, "16 ranks, fewer than 17");
}

/* What interleaving hides: all but the warm-up, less what it takes from compute. */
static void test_overlap(void) {
  bl_grid g = {
      .tp = 1, .cp = 1, .dp = 4, .pp = 4, .vp = 2, .etp = 1, .ep = 4, .edp = 1, .micro_batch = 2, .micro_batches = 16};
  bl_positions at;
  bl_grid_costs open, beside;
  cost_on(&cluster, &model, &g, 1, &at, &open);
  g.overlap = true;
  cost_on(&cluster, &model, &g, 1, &at, &beside);
  const double *before = open.at[0].price[BL_ITEM_MOE].us, *after = beside.at[0].price[BL_ITEM_MOE].us;
  const double us = before[BL_PRICE_EXCHANGE], alone = (3 + 4) / 32.0;
  REQUIRE(us > 0 && us < before[BL_PRICE_DENSE] + before[BL_PRICE_EXPERT]);
  CHECK_NEAR(after[BL_PRICE_EXCHANGE], us * (alone + (1 - alone) * 24 / 132), 1e-9 * us);
  g.vp = 1;
  cost_on(&cluster, &model, &g, 1, &at, &beside);
  CHECK_NEAR(beside.at[0].price[BL_ITEM_MOE].us[BL_PRICE_EXCHANGE], us, 1e-9 * us);
}

/* What a search reports is what its layout costs by itself, interleaved ones that hide exchanges too. */
static void test_entries_alone(void) {
  static bl_search_entry alone;
  bl_search_result r;
  bl_search_options o = options(16, 64, 4e9);
  int interleaved = 0;
  o.overlap = true, o.top = 12;
  o.fixed.pp = 2, o.fixed.ep = 4, o.fixed.tp = 1, o.fixed.micro_batch = 2;
  REQUIRE_OK(bl_search(&o, &r));
  for (int32_t i = 0; i < r.n; i++) {
    CHECK(bl_search_price(&o, &r.entry[i].grid, &alone));
    CHECK_NEAR(r.entry[i].price.step_us, alone.price.step_us, 1e-9 * alone.price.step_us);
    interleaved += bl_grid_overlaps(&r.entry[i].grid);
  }
  CHECK(interleaved > 1);
  bl_search_free(&r);
}

/* Rows that go once to each node spare the slower links, never more than the nodes spare. */
static void test_node_dispatch(void) {
  bl_grid g = {
      .tp = 1, .cp = 1, .dp = 8, .pp = 1, .vp = 1, .etp = 1, .ep = 8, .edp = 1, .micro_batch = 4, .micro_batches = 1};
  bl_positions at;
  bl_grid_costs flat, nodes;
  bl_cluster slow = cluster;
  slow.node_group[0].links.inter = (bl_link){0.01, 0};
  const double bytes = 4 * 1024 * 2.0 * 1024, us = bytes / 0.01 * 1e-3;
  cost_on(&slow, &model, &g, 1, &at, &flat);
  g.node_dispatch = true;
  cost_on(&slow, &model, &g, 1, &at, &nodes);
  /* Two choices on two nodes: each is off the own node half of the time; they lie on 2 (1 - 1/4) = 1.5 nodes, half of
   * them not the own. Four passes. */
  CHECK_NEAR(flat.at[0].price[BL_ITEM_MOE].us[BL_PRICE_EXCHANGE], 4 * us * 2 * 0.5, 1e-6 * us);
  CHECK_NEAR(nodes.at[0].price[BL_ITEM_MOE].us[BL_PRICE_EXCHANGE], 4 * us * 1.5 * 0.5, 1e-6 * us);
  /* Within a node: two choices on four ranks are 4 (1 - 9/16) = 1.75 ranks, three quarters of them others. */
  g.dp = g.ep = 4;
  slow.node_group[0].links.intra = (bl_link){0.01, 0};
  cost_on(&slow, &model, &g, 1, &at, &nodes);
  CHECK_NEAR(nodes.at[0].price[BL_ITEM_MOE].us[BL_PRICE_EXCHANGE], 4 * us * 1.75 * 0.75, 1e-6 * us);
}

/* Half as many ranks hold a state: twice as much of it each, and its replicas reduce each layer's gradients. */
static void test_shard(void) {
  bl_grid g = {.tp = 1, .cp = 1, .dp = 16, .pp = 1, .vp = 1, .etp = 1, .ep = 1, .edp = 16, .zero = 3, .micro_batch = 1};
  bl_positions at;
  bl_grid_costs all, half;
  bl_footprint whole, shared;
  int32_t count[BL_ITEM_COUNT];
  bl_items_of_model(&model, count);
  g.micro_batches = 1;
  cost_on(&cluster, &model, &g, 1, &at, &all);
  bl_footprint_of(all.size, count, &g, 2, 1, &whole);
  g.shard = 8;
  cost_on(&cluster, &model, &g, 1, &at, &half);
  bl_footprint_of(half.size, count, &g, 2, 1, &shared);
  CHECK_NEAR(shared.bytes[BL_FOOTPRINT_MOMENTS], 2 * whole.bytes[BL_FOOTPRINT_MOMENTS], 1);
  CHECK_NEAR(all.at[0].replica_us + all.at[0].replica_layer_us, 0, 0);
  /* Two halves of four bytes an eighth between two nodes: there and back, one hop each. */
  CHECK_NEAR(half.at[0].replica_us, 2 * 4.0 / 8 / 2 / 20 * 1e-3, 1e-10);
  CHECK_NEAR(half.at[0].replica_layer_us, 2 * 12, 1e-9);
  bl_step_price spread, replicated;
  bl_price_step(&g, &half, count, &replicated);
  half.at[0].replica_us = half.at[0].replica_layer_us = 0;
  bl_price_step(&g, &half, count, &spread);
  double parameters = 0;
  for (int k = 0; k < BL_ITEM_COUNT; k++)
    parameters += count[k] * (half.size[k].dense_parameters + half.size[k].expert_parameters);
  CHECK_NEAR(replicated.step_us - spread.step_us, parameters * 2 * 4.0 / 8 / 2 / 20 * 1e-3 + 6 * 24, 0.1);
  g.shard = 5; /* does not divide */
  CHECK_NEAR(bl_grid_shard(&g), 16, 0);
}

/* Gradients in two bytes: half the memory, half the traffic of their reduction. */
static void test_gradient_bytes(void) {
  bl_grid g = {.tp = 1, .cp = 1, .dp = 16, .pp = 1, .vp = 1, .etp = 1, .ep = 4, .edp = 4, .zero = 1, .micro_batch = 1};
  bl_positions at;
  bl_grid_costs four, two;
  bl_footprint f;
  const int32_t count[BL_ITEM_COUNT] = {1, 2, 4, 1};
  cost_on(&cluster, &model, &g, 1, &at, &four);
  bl_footprint_of(four.size, count, &g, 2, 1, &f);
  const double before = f.bytes[BL_FOOTPRINT_GRADIENTS];
  g.gradient_bytes = 2;
  cost_on(&cluster, &model, &g, 1, &at, &two);
  bl_footprint_of(two.size, count, &g, 2, 1, &f);
  CHECK_NEAR(f.bytes[BL_FOOTPRINT_GRADIENTS], before / 2, 1);
  CHECK_NEAR(two.at[0].dense_reduce_us, four.at[0].dense_reduce_us / 2, 1e-3 * four.at[0].dense_reduce_us);
  CHECK_NEAR(two.at[0].dense_gather_us, four.at[0].dense_gather_us, 0);
}

/* One block a layer, on a machine where bytes cost nothing, then on one where only bytes do. */
static void test_prices_by_hand(void) {
  bl_model m = model;
  bl_positions at;
  bl_grid_costs costs;
  bl_cluster c = cluster;
  const bl_grid g = {
      .tp = 1, .cp = 1, .dp = 1, .pp = 1, .vp = 1, .etp = 1, .ep = 1, .edp = 1, .micro_batch = 1, .micro_batches = 1};
  const double T = 1024, H = 1024, rate = 150e6;
  add_state_space(&m);
  c.node_group[0].device.call_us = 0, c.node_group[0].device.memory_gbps = 1e12;
  cost_on(&c, &m, &g, 1, &at, &costs);
  /* Three passes over the weights in tiles; the core forward, and 2.5 times that backward, over half of the sequence.
   */
  const double attention = 6 * T * 4 * H * H * (1 + 64 / T) * (1 + 64 / H) + 3.5 * 2 * T * (2 * H) * T / 2;
  CHECK_NEAR(costs.at[0].price[BL_ITEM_ATTENTION].total, attention / rate, 1e-6 * attention / rate);
  const double inner = 128, both = 64, weights = H * (2 * inner + both + 4) + 4 * (inner + both) + inner * H;
  const double scan = 64 * (32 + inner) + 2 * inner * 16;
  const double mixer = 6 * T * weights * (1 + 64 / T) * (1 + 64 / H) + 3.5 * 2 * T * scan;
  CHECK_NEAR(costs.at[0].price[BL_ITEM_STATE_SPACE].total, mixer / rate, 1e-6 * mixer / rate);
  /* Gate with both projections of 256, then two choices of 256 x 2048 and back on eight experts. */
  const double gate = 6 * T * (8 * H + 2 * 256 * H) * (1 + 64 / T) * (1 + 64 / 8.0);
  const double experts = 6 * 2 * T * (2 * 256 * 2048) * (1 + 64 / 256.0) * (1 + 64 / 2048.0);
  CHECK_NEAR(costs.at[0].price[BL_ITEM_EXPERTS].us[BL_PRICE_DENSE], gate / rate, 1e-6 * gate / rate);
  CHECK_NEAR(costs.at[0].price[BL_ITEM_EXPERTS].us[BL_PRICE_EXPERT], experts / rate, 1e-6 * experts / rate);
  c.node_group[0].device.memory_gbps = 1000, c.node_group[0].device.tflops = 1e9;
  cost_on(&c, &m, &g, 1, &at, &costs);
  /* Weights of two bytes read twice, fp32 gradients read and written; norm, residual and turned queries and keys. */
  const double bytes = 4 * H * H * (2 + 2 + 8) + T * 2 * (11 * H + 4 * (2 * H));
  CHECK_NEAR(costs.at[0].price[BL_ITEM_ATTENTION].total, bytes * 1e-6, 1e-3 * bytes * 1e-6);
  const double rows = 2 * T;
  const double moved = 8 * (2 * 256 * 2048) * (2 + 2 + 8) + rows * 2 * 2048 * 5 + rows * 2 * 256 * 12;
  CHECK_NEAR(costs.at[0].price[BL_ITEM_EXPERTS].us[BL_PRICE_EXPERT], moved * 1e-6, 1e-3 * moved * 1e-6);
}

/* Arithmetic hides that weights are read, but not that the sums of their gradients are: two of three products take the
 * longer of both, the third one's gradients come on top. */
static void test_products_by_hand(void) {
  bl_model m = model;
  bl_positions at;
  bl_grid_costs costs;
  bl_cluster c = cluster;
  bl_grid g = {.tp = 1, .cp = 1, .dp = 1, .pp = 1, .vp = 1, .etp = 1, .ep = 1, .edp = 1, .micro_batch = 1};
  const double T = 1024, H = 1024, weights = 4 * H * H;
  const double arithmetic = 2 * T * weights * (1 + 64 / T) * (1 + 64 / H) / 150e6;
  const double inner = 3.5 * 2 * T * 2 * H * T / 2 / 150e6;
  add_state_space(&m);
  c.node_group[0].device.call_us = 0;
  for (int slow = 0; slow < 2; slow++)
    for (int bytes = 2; bytes <= 4; bytes += 2) {
      const double gbps = c.node_group[0].device.memory_gbps = slow ? 40 : 1000;
      g.gradient_bytes = bytes;
      const double read = weights * 2 / gbps * 1e-3, add = weights * 2 * bytes / gbps * 1e-3;
      const double rest = T * 2 * (11 * H + 4 * (2 * H)) / gbps * 1e-3;
      CHECK((read > arithmetic) == (slow > 0) && add > 0.2 * arithmetic);
      cost_on(&c, &m, &g, 1, &at, &costs);
      const double us = 2 * fmax(arithmetic, read) + arithmetic + add + inner + rest;
      CHECK_NEAR(costs.at[0].price[BL_ITEM_ATTENTION].total, us, 1e-6 * us);
    }
}

/* A narrower type speeds up layers, not the head. */
static void test_head_by_hand(void) {
  bl_positions at, other;
  bl_grid_costs wide, narrow;
  bl_cluster c = cluster;
  const bl_grid g = {.tp = 2, .cp = 1, .dp = 1, .pp = 1, .vp = 1, .etp = 1, .ep = 2, .edp = 1, .micro_batch = 2};
  c.node_group[0].device.call_us = 0;
  cost_on(&c, &model, &g, 1, &at, &wide);
  c.node_group[0].device.matrix = (bl_compute_type){.num_bytes = 1, .tflops = 600, .efficiency = 0.4};
  cost_on(&c, &model, &g, 1, &other, &narrow);
  CHECK(narrow.at[0].price[BL_ITEM_MOE].total < 0.9 * wide.at[0].price[BL_ITEM_MOE].total);
  CHECK_NEAR(narrow.at[0].price[BL_ITEM_HEAD].total, wide.at[0].price[BL_ITEM_HEAD].total, 0);
  const double T = 2048, H = 1024, words = 16000, logits = T * words;
  const double arithmetic = 2 * T * H * words * (1 + 64 / T) * (1 + 64 / words) / 150e6, add = H * words * 8 / 1500e3;
  /* Bytes of a logit: written, read, and turned to four (8); read, 4; read and written twice, 16; read, 4; and once
   * more, 8. Backward read and written (8), turned back (6). */
  const double us = 3 * arithmetic + add + logits * (40 + 14) / 1500e3;
  CHECK_NEAR(wide.at[0].price[BL_ITEM_HEAD].us[BL_PRICE_DENSE], us, 1e-6 * us);
}

/* Gradients reduced under the last backward, all but those of one layer, take processors from it. */
static void test_reduction_by_hand(void) {
  bl_grid g = {
      .tp = 1, .cp = 1, .dp = 16, .pp = 1, .vp = 1, .etp = 1, .ep = 1, .edp = 16, .micro_batch = 4, .micro_batches = 1};
  const int32_t count[BL_ITEM_COUNT] = {0, 4, 0, 0};
  bl_cluster fast = cluster;
  bl_positions at;
  bl_grid_costs costs;
  bl_step_price price;
  fast.node_group[0].links.inter = (bl_link){1000, 0}, fast.node_group[0].links.intra = (bl_link){1000, 0};
  cost_on(&fast, &model, &g, 1, &at, &costs);
  bl_price_step(&g, &costs, count, &price);
  const double us = 2 * 4 * 4 * costs.size[BL_ITEM_DENSE].dense_parameters * 15 / 16 * 1e-6;
  REQUIRE(us < bl_device_us(&costs.at[0], count) * 2 / 3);
  CHECK_NEAR(price.us[BL_PRICE_REDUCE], us / 4 + us * 24 / 132, 1e-6 * us);
  /* The same layers as blocks: eight, of which one is left over. */
  bl_model m = model;
  const int32_t blocks[BL_ITEM_COUNT] = {[BL_ITEM_ATTENTION] = 4, [BL_ITEM_FFN] = 4};
  add_state_space(&m);
  cost_on(&fast, &m, &g, 1, &at, &costs);
  bl_price_step(&g, &costs, blocks, &price);
  CHECK_NEAR(price.us[BL_PRICE_REDUCE], us / 8 + us * 24 / 132, 1e-6 * us);
}

/* The slowest of many devices: with a spread of 2 %, compute takes 1 + 0.02 x the largest of so many normal deviates.
 */
static void test_spread(void) {
  bl_cluster uneven = cluster;
  bl_device *device = &uneven.node_group[0].device;
  device->spread = 0.02;
  CHECK_NEAR(bl_device_slowest(device, 1), 1, 0);
  CHECK_NEAR(bl_device_slowest(device, 128), 1 + 0.02 * 2.455, 1e-4);
  CHECK_NEAR(bl_device_slowest(device, 2048), 1 + 0.02 * 3.321, 1e-4);
  bl_positions at;
  bl_grid_costs even, slower;
  const bl_grid g = {.tp = 1, .cp = 1, .dp = 16, .pp = 1, .vp = 1, .etp = 1, .ep = 1, .edp = 16, .micro_batch = 64};
  cost_on(&cluster, &model, &g, 1, &at, &even);
  cost_on(&uneven, &model, &g, 1, &at, &slower);
  const double ratio =
      slower.at[0].price[BL_ITEM_MOE].us[BL_PRICE_EXPERT] / even.at[0].price[BL_ITEM_MOE].us[BL_PRICE_EXPERT];
  CHECK(ratio > 1.01 && ratio < bl_device_slowest(device, 16));
}

static void test_layout_of_entry(void) {
  bl_search_result r;
  bl_layout l;
  bl_search_options o = options(16, 64, 0.7e9);
  REQUIRE_OK(bl_search(&o, &r));
  REQUIRE(r.n > 0);
  REQUIRE_OK(bl_search_layout(&o, &r.entry[0], &l));
  CHECK_OK(bl_layout_check(&l, model.layers, "layout"));
  CHECK_INT(l.tp * l.cp * l.dp * l.pp, 16);
  bl_layout_free(&l);
  bl_search_free(&r);
}

static void test_imbalance_of_trace(void) {
  char path[64];
  const bl_trace_shape shape = {.layers = 1, .ranks = 1, .micro_batches = 1, .experts = 4};
  const uint32_t counts[] = {400, 200, 100, 100};
  double even[5], copied[5];
  bl_trace_writer *writer;
  bl_trace_reader *reader;
  snprintf(path, sizeof path, "/tmp/ballast_test_search.%ld.blt", (long)getpid());
  REQUIRE_OK(bl_trace_create(path, &shape, &writer));
  REQUIRE_OK(bl_trace_append(writer, 1, counts));
  REQUIRE_OK(bl_trace_append(writer, 2, counts));
  REQUIRE_OK(bl_trace_finish(writer));
  REQUIRE_OK(bl_trace_open(path, &reader));
  CHECK_OK(bl_search_imbalances(reader, 0, even));
  CHECK_OK(bl_search_imbalances(reader, 1, copied));
  bl_trace_close(reader);
  unlink(path);
  CHECK_NEAR(even[1], 1, 0);
  CHECK_NEAR(even[2], 1.25, 1e-9); /* 400 + 100 of 800 on one of two ranks */
  CHECK_NEAR(even[4], 2, 1e-9);
  CHECK_NEAR(copied[2], 1, 1e-9);
  CHECK(copied[4] < 1.5);
}

int main(void) {
  make_model();
  RUN(test_stages);
  RUN(test_stages_even);
  RUN(test_against_brute_force);
  RUN(test_too_little_memory);
  RUN(test_node_dispatch);
  RUN(test_overlap);
  RUN(test_entries_alone);
  RUN(test_prices_by_hand);
  RUN(test_products_by_hand);
  RUN(test_head_by_hand);
  RUN(test_reduction_by_hand);
  RUN(test_spread);
  RUN(test_shard);
  RUN(test_gradient_bytes);
  RUN(test_layout_of_entry);
  RUN(test_imbalance_of_trace);
  TEST_MAIN_END;
}
