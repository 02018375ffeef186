/* Prices of a layout on nodes that are not alike, by hand: the slowest device of a position, groups that lie across
 * nodes and racks, links between positions, memory of the smallest device. */
#include "planner/search/block_bound.h"
#include "planner/search/survivor.h"
#include "tests/check.h"
#include "tests/unit/search_model.h"
#include <float.h>

/* One node group a number: nodes of so many ranks. */
static void lay(const int32_t *nodes, const int32_t *ranks, int32_t n) {
  const bl_node_group even = cluster.node_group[0];
  for (int32_t i = 0; i < n; i++) {
    cluster.node_group[i] = even;
    cluster.node_group[i].nodes = nodes[i], cluster.node_group[i].ranks_per_node = ranks[i];
  }
  cluster.n_node_groups = n;
}

/* Twice as slow in arithmetic alone: expert products take twice as long, where bytes and calls cost nothing. */
static void test_slowest_device(void) {
  const bl_grid g = {
      .tp = 1, .cp = 1, .dp = 4, .pp = 2, .vp = 1, .etp = 1, .ep = 1, .edp = 4, .micro_batch = 4, .micro_batches = 8};
  bl_positions at;
  bl_grid_costs costs;
  make_model();
  cluster.node_group[0].device.memory_gbps = 1e12, cluster.node_group[0].device.call_us = 0;
  lay((const int32_t[]){1, 2}, (const int32_t[]){4, 2}, 2);
  cluster.node_group[1].device.tflops /= 2;
  cost_on(&cluster, &model, &g, 1, &at, &costs);
  CHECK_INT(at.kinds, 2);
  const double fast = costs.at[at.kind[0]].price[BL_ITEM_MOE].us[BL_PRICE_EXPERT];
  CHECK_NEAR(costs.at[at.kind[1]].price[BL_ITEM_MOE].us[BL_PRICE_EXPERT], 2 * fast, 1e-6 * fast);
  /* Half of a position slow: all of it is. */
  lay((const int32_t[]){3, 1}, (const int32_t[]){2, 2}, 2);
  cluster.node_group[1].device.tflops /= 2;
  cost_on(&cluster, &model, &g, 1, &at, &costs);
  CHECK_NEAR(costs.at[at.kind[1]].price[BL_ITEM_MOE].us[BL_PRICE_EXPERT], 2 * fast, 1e-6 * fast);
  CHECK_NEAR(costs.at[at.kind[0]].price[BL_ITEM_MOE].us[BL_PRICE_EXPERT], fast, 1e-6 * fast);
}

/* A ring of four over nodes of 3 and 5 ranks: one hop between nodes, over the one card of the rank that is alone. */
static void test_straddling_tensor(void) {
  const bl_grid g = {
      .tp = 4, .cp = 1, .dp = 2, .pp = 1, .vp = 1, .etp = 1, .ep = 1, .edp = 8, .micro_batch = 1, .micro_batches = 1};
  bl_positions at;
  bl_grid_costs costs;
  make_model();
  lay((const int32_t[]){2}, (const int32_t[]){4}, 1);
  cost_on(&cluster, &model, &g, 1, &at, &costs);
  const double bytes = 1024 * 1024 * 2.0, inside = 3 * 5 + bytes * 3 / 4 / 200 * 1e-3;
  /* Attention and feed-forward, forward and backward: all-gather and reduce-scatter each. */
  CHECK_NEAR(costs.at[0].price[BL_ITEM_DENSE].us[BL_PRICE_TENSOR], 8 * inside, 1e-6 * inside);
  lay((const int32_t[]){1, 1}, (const int32_t[]){3, 5}, 2);
  cost_on(&cluster, &model, &g, 1, &at, &costs);
  const double across = 12 + 2 * 5 + bytes * 3 / 4 / 20 * 1e-3;
  CHECK_NEAR(costs.at[0].price[BL_ITEM_DENSE].us[BL_PRICE_TENSOR], 8 * across, 1e-6 * across);
  /* Two and two: two cards. */
  lay((const int32_t[]){2, 1}, (const int32_t[]){2, 4}, 2);
  cost_on(&cluster, &model, &g, 1, &at, &costs);
  const double halves = 12 + 2 * 5 + bytes * 3 / 4 / 40 * 1e-3;
  CHECK_NEAR(costs.at[0].price[BL_ITEM_DENSE].us[BL_PRICE_TENSOR], 8 * halves, 1e-6 * halves);
}

/* Rows of eight ranks on nodes of 4, 2 and 2: a rank of a small node sends six eighths of its choices away. */
static void test_uneven_exchange(void) {
  bl_grid g = {
      .tp = 1, .cp = 1, .dp = 8, .pp = 1, .vp = 1, .etp = 1, .ep = 8, .edp = 1, .micro_batch = 4, .micro_batches = 1};
  bl_positions at;
  bl_grid_costs costs;
  make_model();
  cluster.node_group[0].links.inter = (bl_link){0.01, 0};
  lay((const int32_t[]){1, 2}, (const int32_t[]){4, 2}, 2);
  const double us = 4 * 1024 * 2.0 * 1024 / 0.01 * 1e-3;
  cost_on(&cluster, &model, &g, 1, &at, &costs);
  CHECK_NEAR(costs.at[0].price[BL_ITEM_MOE].us[BL_PRICE_EXCHANGE], 4 * us * 2 * 6 / 8, 1e-6 * us);
  /* Once a node: two others, as if they shared the other six ranks evenly. */
  g.node_dispatch = true;
  cost_on(&cluster, &model, &g, 1, &at, &costs);
  CHECK_NEAR(costs.at[0].price[BL_ITEM_MOE].us[BL_PRICE_EXCHANGE], 4 * us * 2 * (1 - 0.625 * 0.625), 1e-6 * us);
  /* The slower links of some nodes are those of all. */
  g.node_dispatch = false;
  cluster.node_group[1].links.inter.gbps = 0.005;
  cost_on(&cluster, &model, &g, 1, &at, &costs);
  CHECK_NEAR(costs.at[0].price[BL_ITEM_MOE].us[BL_PRICE_EXCHANGE], 2 * 4 * us * 2 * 6 / 8, 1e-6 * us);
}

/* Four nodes of two ranks in racks of two: half of the choices leave the rack, and a gradient ring's half. */
static void test_racks(void) {
  bl_grid g = {
      .tp = 1, .cp = 1, .dp = 8, .pp = 1, .vp = 1, .etp = 1, .ep = 8, .edp = 1, .micro_batch = 4, .micro_batches = 1};
  bl_positions at;
  bl_grid_costs costs;
  make_model();
  lay((const int32_t[]){4}, (const int32_t[]){2}, 1);
  cluster.racks = (bl_racks){.nodes = 2, .link = {0.01, 50}};
  const double us = 4 * 1024 * 2.0 * 1024 / 0.01 * 1e-3;
  cost_on(&cluster, &model, &g, 1, &at, &costs);
  CHECK_NEAR(costs.at[0].price[BL_ITEM_MOE].us[BL_PRICE_EXCHANGE], 4 * (us * 2 / 2 + 50), 1e-6 * us);
  /* A reduce-scatter over eight ranks, four uplink shares of a rack, seven eighths of it. */
  CHECK_NEAR(costs.at[0].dense_reduce_us, 4 * 7.0 / 8 / (4 * 0.01) * 1e-3, 1e-6);
  CHECK_NEAR(costs.at[0].fill_byte_us, 1e-3 / 0.01, 1e-9);
  /* Once to each node: three others, two of them beyond. */
  g.node_dispatch = true;
  cost_on(&cluster, &model, &g, 1, &at, &costs);
  const double met = 3 * (1 - 0.75 * 0.75);
  CHECK_NEAR(costs.at[0].price[BL_ITEM_MOE].us[BL_PRICE_EXCHANGE], 4 * (us * met * 2 / 3 + 50), 1e-6 * us);
  /* Within a rack they do not matter. */
  g.dp = g.ep = 4;
  cost_on(&cluster, &model, &g, 1, &at, &costs);
  CHECK(costs.at[0].price[BL_ITEM_MOE].us[BL_PRICE_EXCHANGE] < 0.01 * us);
}

/* Positions of two ranks on nodes of 4 and 3 and 3: links inside a node, across, and around to the first. */
static void test_links_between_positions(void) {
  const bl_grid g = {
      .tp = 1, .cp = 1, .dp = 2, .pp = 5, .vp = 1, .etp = 1, .ep = 1, .edp = 2, .micro_batch = 1, .micro_batches = 5};
  static const double down[] = {200, 20, 20, 20, 20}, up[] = {20, 200, 20, 20, 20};
  bl_positions at;
  make_model();
  lay((const int32_t[]){1, 2}, (const int32_t[]){4, 3}, 2);
  bl_positions_of(&cluster, &g, &at);
  for (int32_t d = 0; d < 5; d++) {
    CHECK_NEAR(at.view[at.kind[d]].down.gbps, down[d], 0);
    CHECK_NEAR(at.view[at.kind[d]].up.gbps, up[d], 0);
  }
  CHECK(at.view[at.kind[3]].dense.nodes == 2 && at.view[at.kind[4]].dense.nodes == 1); /* ranks 6 and 7, 8 and 9 */
  cluster.racks = (bl_racks){.nodes = 2, .link = {5, 50}};
  bl_positions_of(&cluster, &g, &at);
  CHECK_NEAR(at.view[at.kind[2]].down.gbps, 5, 0); /* to rank 7 */
  CHECK_NEAR(at.view[at.kind[1]].down.gbps, 20, 0);
}

/* Two positions, the second half as fast: it gets about half as many layers; half as much memory, and fewer still. */
static void test_division(void) {
  const bl_grid g = {.tp = 1,
                     .cp = 1,
                     .dp = 4,
                     .pp = 2,
                     .vp = 1,
                     .etp = 1,
                     .ep = 4,
                     .edp = 1,
                     .zero = 1,
                     .micro_batch = 2,
                     .micro_batches = 8};
  static bl_search_entry e, alike;
  bl_search_options o = {.model = &model,
                         .cluster = &cluster,
                         .ranks = 8,
                         .batch = 64,
                         .memory_bytes = 1e12,
                         .imbalance = imbalance,
                         .max_vp = 1,
                         .max_micro_batch = 4,
                         .top = 1};
  make_model();
  model.layers = 12, model.moe_first_layer = 0, model.vocabulary = 256;
  lay((const int32_t[]){1, 1}, (const int32_t[]){4, 4}, 2);
  CHECK(bl_search_price(&o, &g, &alike));
  CHECK_INT(alike.first[1], 6);
  bl_device *slow = &cluster.node_group[1].device;
  slow->tflops /= 2, slow->memory_gbps /= 2, slow->call_us *= 2;
  CHECK(bl_search_price(&o, &g, &e));
  CHECK(e.first[1] == 8 || e.first[1] == 7); /* exchange is not twice as slow */
  CHECK(e.price.step_us > alike.price.step_us && e.price.step_us < 2 * alike.price.step_us);
  CHECK(e.bound_us <= e.price.step_us && e.bound_us > alike.bound_us);
  /* What six layers of the first position fill. */
  o.memory_bytes = alike.memory.total * 1.01;
  CHECK(bl_search_price(&o, &g, &alike));
  slow->tflops *= 2, slow->memory_gbps *= 2, slow->call_us /= 2;
  slow->memory_bytes /= 2;
  CHECK(!bl_search_price(&o, &g, &e)); /* half of it for the other six is too little */
  CHECK_NEAR(e.memory_share, 0.5, 0);
  o.memory_bytes *= 1.5;
  CHECK(bl_search_price(&o, &g, &e));
  CHECK(e.first[1] > 6);
}

/* Where links between some positions are slow and what crosses them is most of the step, and where positions differ in
 * speed, bounds stay below prices and simulations. */
static void test_bounds(void) {
  static bl_search_entry e;
  static bl_block_costs blocks[BL_POSITION_KINDS];
  bl_search_options o = {.model = &model, .cluster = &cluster, .memory_bytes = 1e12, .imbalance = imbalance, .top = 1};
  bl_work work;
  bl_positions at;
  int32_t count[BL_ITEM_COUNT];
  for (int i = 0; i < 24; i++) {
    make_model();
    model.tied_embedding = false;
    /* Two positions in the first node, the others in nodes of their own; links between nodes from slow to hopeless. */
    lay((const int32_t[]){1, 2}, (const int32_t[]){4, 2}, 2);
    cluster.node_group[0].links.inter = cluster.node_group[1].links.inter = (bl_link){2.0 / (1 << (i % 4) * 2), 12};
    if (i % 2) cluster.node_group[1].device.tflops /= 3;
    const bl_grid g = {.tp = 1,
                       .cp = 1,
                       .dp = 2,
                       .pp = 4,
                       .vp = 1 + i / 12,
                       .etp = 1,
                       .ep = 2,
                       .edp = 1,
                       .zero = i % 3 == 2 ? 3 : i % 3,
                       .micro_batch = 1 + i % 2,
                       .micro_batches = i < 6 ? 1 : 4 << i % 3};
    o.ranks = 8, o.batch = 2 * g.micro_batch * g.micro_batches;
    bl_items_of_model(&model, count);
    CHECK(bl_search_price(&o, &g, &e));
    CHECK(e.bound_us <= e.price.step_us * (1 + 1e-12));
    REQUIRE_OK(bl_survivor_simulate(&o, true, &e));
    bl_positions_of(&cluster, &g, &at);
    CHECK(at.kinds > 1);
    for (int32_t k = 0; k < at.kinds; k++) {
      bl_grid_work(&model, &at, k, &g, e.imbalance, &work);
      bl_block_cost(&model, &g, &work, false, &blocks[k]);
    }
    const double any = bl_block_bound_any(&g, &at, blocks, count);
    const double bound = bl_block_bound(&model, &g, &at, blocks, e.first, false);
    CHECK(any <= bound * (1 + 1e-12) && bound <= e.simulated.step_us * (1 + 1e-12));
  }
}

/* What a position must do at least, were items free to go anywhere: with half as fast a second position two thirds of
 * the sum, not the half. */
static void test_share(void) {
  bl_positions p = {.pp = 3, .kinds = 2, .count = {2, 1}};
  const double us[BL_POSITION_KINDS][BL_ITEM_COUNT] = {{1, 2, 3, 1}, {2, 5, 6, 2}};
  const int32_t count[BL_ITEM_COUNT] = {1, 4, 4, 1};
  double sum;
  CHECK_NEAR(bl_positions_share(&p, us, count, &sum), 22 / 2.5, 1e-12);
  CHECK_NEAR(sum, 22, 1e-12);
  const int32_t one[BL_ITEM_COUNT] = {0, 0, 1, 0};
  CHECK_NEAR(bl_positions_share(&p, us, one, &sum), 3, 1e-12); /* an item is not divided */
}

/* Every position another kind: those beyond the last stand for the worst of them. */
static void test_many_kinds(void) {
  const bl_grid g = {
      .tp = 1, .cp = 1, .dp = 1, .pp = 20, .vp = 1, .etp = 1, .ep = 1, .edp = 1, .micro_batch = 1, .micro_batches = 20};
  bl_positions at;
  int32_t nodes[20], ranks[20];
  make_model();
  for (int32_t i = 0; i < 20; i++) nodes[i] = ranks[i] = 1;
  lay(nodes, ranks, 20);
  for (int32_t i = 0; i < 20; i++)
    cluster.node_group[i].device.tflops = 400 - i, cluster.node_group[i].device.memory_bytes = 1e9 + i;
  bl_positions_of(&cluster, &g, &at);
  CHECK_INT(at.kinds, BL_POSITION_KINDS);
  CHECK_INT(at.count[BL_POSITION_KINDS - 1], 5);
  CHECK_NEAR(at.view[0].pace.core_rate, 400 * 0.5e6, 1);
  CHECK_NEAR(at.view[BL_POSITION_KINDS - 1].pace.core_rate, 381 * 0.5e6, 1);
  CHECK_NEAR(at.view[BL_POSITION_KINDS - 1].pace.memory_bytes, 1e9 + 15, 0);
}

int main(void) {
  RUN(test_slowest_device);
  RUN(test_straddling_tensor);
  RUN(test_uneven_exchange);
  RUN(test_racks);
  RUN(test_links_between_positions);
  RUN(test_division);
  RUN(test_bounds);
  RUN(test_share);
  RUN(test_many_kinds);
  TEST_MAIN_END;
}
