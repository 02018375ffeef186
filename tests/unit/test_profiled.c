/* A profile in the place of data sheets: measured times come out where model and device are the profile's; one kind of
 * work slowed changes exactly that kind's actions; where costs come from is said, in plans too. */
#include "costmodel/plan.h"
#include "planner/search/profiled.h"
#include "planner/search/search.h"
#include "tests/check.h"
#include "tests/unit/search_model.h"
#include <unistd.h>

static char path[64];
static bl_profile profile;
static bl_profiled profiled;

static double amount_of(int kind, int i) {
  const char *unit = bl_curve_units[kind];
  if (strcmp(unit, "parameters") == 0) return i ? 8e6 : 1e6;
  if (strcmp(unit, "bytes") == 0) return i ? 1e7 : 1e3;
  return i ? 4096 : 256;
}

/* Of the executor's model, on `ranks` ranks with links: every curve a constant and a slope of its own. */
static void make_profile(int32_t ranks) {
  bl_model_default(&model);
  memset(&profile, 0, sizeof profile);
  snprintf(profile.backend, sizeof profile.backend, "cpu");
  snprintf(profile.transport, sizeof profile.transport, "threads");
  snprintf(profile.device, sizeof profile.device, "here");
  profile.ranks = ranks, profile.num_bytes = 2, profile.sgemm_gflops = 120e3, profile.triad_gbps = 1200;
  bl_profile_shape_of(&model, &profile.shape);
  for (int k = 0; k < BL_CURVE_COUNT; k++)
    for (int i = 0; i < 2; i++)
      CHECK_OK(bl_curve_add(&profile.curves[k], amount_of(k, i), 3 + k + (0.01 + 1e-3 * k) * amount_of(k, i) * 1e-1));
}

static void make(int32_t ranks) {
  make_model();
  cluster.node_group[0].ranks_per_node = 8;
  make_profile(ranks);
}

static void load(void) {
  REQUIRE_OK(bl_profile_save(path, &profile));
  REQUIRE_OK(bl_profiled_load(path, &cluster, &profiled));
}

static void work_of(const bl_grid *g, bl_work *out) {
  bl_positions at;
  bl_positions_of(&cluster, g, &at);
  bl_grid_work(&model, &at, 0, g, 1, out);
}

static const bl_grid alone = {
    .tp = 1, .cp = 1, .dp = 1, .pp = 1, .vp = 1, .etp = 1, .ep = 1, .edp = 1, .micro_batch = 4, .micro_batches = 1};

/* Four sequences: as many tokens, choices and rows as between the measured amounts; at those exactly what was measured.
 */
static void test_measured_times(void) {
  bl_work work;
  bl_grid g = alone;
  make(4);
  load();
  for (int32_t i = 0; i < 2; i++) {
    const double tokens = i ? 4096 : 256;
    g.micro_batch = (int32_t)(tokens / model.sequence);
    work_of(&g, &work);
    const double *moe = work.us[BL_ITEM_MOE];
    CHECK_NEAR(moe[BL_ACTION_ATTENTION_FWD], bl_curve_at(&profile.curves[BL_CURVE_ATTENTION_FWD], tokens), 1e-9);
    CHECK_NEAR(moe[BL_ACTION_ATTENTION_BWD], bl_curve_at(&profile.curves[BL_CURVE_ATTENTION_BWD], tokens), 1e-9);
    CHECK_NEAR(moe[BL_ACTION_GATE_BWD], bl_curve_at(&profile.curves[BL_CURVE_GATE_BWD], tokens), 1e-9);
    CHECK_NEAR(work.us[BL_ITEM_DENSE][BL_ACTION_FFN_FWD], bl_curve_at(&profile.curves[BL_CURVE_FFN_FWD], tokens), 1e-9);
    CHECK_NEAR(work.us[BL_ITEM_EMBED][BL_ACTION_EMBED_BWD], bl_curve_at(&profile.curves[BL_CURVE_EMBED_BWD], tokens),
               1e-9);
    CHECK_NEAR(work.us[BL_ITEM_HEAD][BL_ACTION_HEAD], bl_curve_at(&profile.curves[BL_CURVE_HEAD], tokens), 1e-9);
  }
  /* Two choices: half as many tokens. Eight experts of as many rows each: four times. */
  g.micro_batch = 4096 / 2 / model.sequence;
  work_of(&g, &work);
  CHECK_NEAR(work.us[BL_ITEM_MOE][BL_ACTION_GATHER], bl_curve_at(&profile.curves[BL_CURVE_GATHER], 4096), 1e-9);
  CHECK_NEAR(work.us[BL_ITEM_MOE][BL_ACTION_SCATTER_BWD], bl_curve_at(&profile.curves[BL_CURVE_SCATTER_BWD], 4096),
             1e-9);
  g.micro_batch = 256 * 4 / model.sequence;
  work_of(&g, &work);
  CHECK_NEAR(work.us[BL_ITEM_MOE][BL_ACTION_EXPERT_FWD], 8 * bl_curve_at(&profile.curves[BL_CURVE_EXPERT_FWD], 256),
             1e-9);
  CHECK_NEAR(work.us[BL_ITEM_MOE][BL_ACTION_EXPERT_DW], 8 * bl_curve_at(&profile.curves[BL_CURVE_EXPERT_DW], 256),
             1e-9);
  /* The optimizer at its rate for many parameters. */
  double update_us, square_us;
  bl_positions at;
  bl_grid_costs costs;
  cost_on(&cluster, &model, &g, 1, &at, &costs);
  bl_price_update(&g, 2, costs.at[0].update_byte_us, costs.at[0].square_byte_us, 8e6, 0, &update_us, &square_us);
  CHECK_NEAR(update_us, bl_curve_at(&profile.curves[BL_CURVE_OPTIMIZER], 8e6), 1e-6);
  CHECK_NEAR(square_us,
             bl_curve_at(&profile.curves[BL_CURVE_ZERO_GRADS], 8e6) +
                 bl_curve_at(&profile.curves[BL_CURVE_SQUARE_GRADS], 8e6),
             1e-6);
}

/* The actions that a kind of work is in; links carry latencies too, so these only grow. */
static bool is_of(int kind, int item, int action) {
  static const struct {
    int kind, action;
  } same[] = {{BL_CURVE_EMBED_FWD, BL_ACTION_EMBED_FWD},
              {BL_CURVE_EMBED_BWD, BL_ACTION_EMBED_BWD},
              {BL_CURVE_ATTENTION_FWD, BL_ACTION_ATTENTION_FWD},
              {BL_CURVE_ATTENTION_BWD, BL_ACTION_ATTENTION_BWD},
              {BL_CURVE_FFN_FWD, BL_ACTION_FFN_FWD},
              {BL_CURVE_FFN_BWD, BL_ACTION_FFN_BWD},
              {BL_CURVE_GATE_FWD, BL_ACTION_GATE_FWD},
              {BL_CURVE_GATE_BWD, BL_ACTION_GATE_BWD},
              {BL_CURVE_SCATTER, BL_ACTION_SCATTER},
              {BL_CURVE_GATHER, BL_ACTION_GATHER},
              {BL_CURVE_SCATTER_BWD, BL_ACTION_SCATTER_BWD},
              {BL_CURVE_GATHER_BWD, BL_ACTION_GATHER_BWD},
              {BL_CURVE_EXPERT_FWD, BL_ACTION_EXPERT_FWD},
              {BL_CURVE_EXPERT_DX, BL_ACTION_EXPERT_DX},
              {BL_CURVE_EXPERT_DW, BL_ACTION_EXPERT_DW},
              {BL_CURVE_HEAD, BL_ACTION_HEAD},
              {BL_CURVE_OPTIMIZER, BL_ACTION_OPTIMIZER},
              {BL_CURVE_EXCHANGE, BL_ACTION_DISPATCH},
              {BL_CURVE_EXCHANGE, BL_ACTION_COMBINE},
              {BL_CURVE_EXCHANGE, BL_ACTION_DISPATCH_BWD},
              {BL_CURVE_EXCHANGE, BL_ACTION_COMBINE_BWD},
              {BL_CURVE_TRANSFER, BL_ACTION_COPY_FILL},
              {BL_CURVE_ACCUMULATE, BL_ACTION_COPY_REDUCE},
              {BL_CURVE_ALL_REDUCE, BL_ACTION_DENSE_REDUCE},
              {BL_CURVE_ALL_REDUCE, BL_ACTION_EXPERT_REDUCE},
              {BL_CURVE_ALL_REDUCE, BL_ACTION_WEIGHT_GATHER},
              {BL_CURVE_ALL_REDUCE, BL_ACTION_EXPERT_GATHER},
              {BL_CURVE_ALL_REDUCE, BL_ACTION_SEQUENCE_GATHER},
              {BL_CURVE_ALL_REDUCE, BL_ACTION_SEQUENCE_SCATTER},
              {BL_CURVE_ALL_REDUCE, BL_ACTION_ROWS_GATHER},
              {BL_CURVE_ALL_REDUCE, BL_ACTION_ROWS_SCATTER}};
  (void)item;
  for (size_t i = 0; i < sizeof same / sizeof *same; i++)
    if (same[i].kind == kind && same[i].action == action) return true;
  return false;
}

static void test_one_kind_slowed(void) {
  static bl_work before, after;
  const bl_grid g = {.tp = 2,
                     .cp = 1,
                     .dp = 4,
                     .pp = 1,
                     .vp = 1,
                     .etp = 2,
                     .ep = 2,
                     .edp = 2,
                     .zero = 1,
                     .micro_batch = 4,
                     .micro_batches = 2,
                     .copy_slots = 1};
  int changed = 0;
  for (int kind = 0; kind < BL_CURVE_COUNT; kind++) {
    if (kind == BL_CURVE_ZERO_GRADS || kind == BL_CURVE_SQUARE_GRADS) continue; /* one action of both: below */
    make(4);
    load();
    work_of(&g, &before);
    for (int i = 0; i < 2; i++) profile.curves[kind].us[i] *= 2;
    load();
    work_of(&g, &after);
    for (int item = 0; item < BL_ITEM_COUNT; item++)
      for (int a = 0; a < BL_ACTION_COUNT; a++) {
        const double us = before.us[item][a], factor = is_of(kind, item, a) ? 2 : 1;
        if (!check_count(fabs(after.us[item][a] - factor * us) <= 1e-9 * us))
          printf("%s x 2: %s of item %d from %g to %g\n", bl_curve_names[kind], bl_action_names[a], item, us,
                 after.us[item][a]);
        changed += us > 0 && factor > 1;
      }
  }
  CHECK(changed > 60);
  make(4);
  load();
  work_of(&g, &before);
  for (int i = 0; i < 2; i++)
    profile.curves[BL_CURVE_ZERO_GRADS].us[i] *= 2, profile.curves[BL_CURVE_SQUARE_GRADS].us[i] *= 2;
  load();
  work_of(&g, &after);
  const double *was = before.us[BL_ITEM_MOE], *is = after.us[BL_ITEM_MOE];
  CHECK_NEAR(is[BL_ACTION_SQUARE_GRADS], 2 * was[BL_ACTION_SQUARE_GRADS], 1e-9 * was[BL_ACTION_SQUARE_GRADS]);
  CHECK_NEAR(is[BL_ACTION_OPTIMIZER], was[BL_ACTION_OPTIMIZER], 0);
}

/* Other devices in proportion to what the closed form says of them; kinds that are not measured keep it; a group across
 * nodes keeps the links of the data sheet. */
static void test_scaled(void) {
  static bl_work fast, slow, sheet, lacking;
  bl_grid g = alone;
  bl_positions at;
  make(4);
  cluster.n_node_groups = 2;
  cluster.node_group[0].nodes = 1;
  cluster.node_group[1] = cluster.node_group[0];
  cluster.node_group[1].device.tflops /= 2, cluster.node_group[1].device.memory_gbps /= 2;
  cluster.node_group[1].device.call_us *= 2, cluster.node_group[1].links.intra.gbps /= 4;
  load();
  g.dp = g.ep = 8, g.pp = 2, g.edp = 1;
  bl_positions_of(&cluster, &g, &at);
  bl_grid_work(&model, &at, at.kind[0], &g, 1, &fast);
  bl_grid_work(&model, &at, at.kind[1], &g, 1, &slow);
  for (int a = BL_ACTION_ATTENTION_FWD; a <= BL_ACTION_ATTENTION_FWD; a++)
    CHECK_NEAR(slow.us[BL_ITEM_MOE][a], 2 * fast.us[BL_ITEM_MOE][a], 1e-9 * fast.us[BL_ITEM_MOE][a]);
  CHECK_NEAR(slow.us[BL_ITEM_MOE][BL_ACTION_EXPERT_DW], 2 * fast.us[BL_ITEM_MOE][BL_ACTION_EXPERT_DW], 1e-6);
  CHECK_NEAR(at.view[at.kind[0]].ep.intra.gbps, 4 * at.view[at.kind[1]].ep.intra.gbps, 1e-9);
  CHECK_NEAR(at.view[at.kind[0]].down.gbps, 20, 0); /* between nodes */
  /* Without the curve: the closed form. */
  make(4);
  profile.curves[BL_CURVE_EXPERT_FWD].n = 0;
  load();
  work_of(&alone, &lacking);
  cluster.measured = NULL;
  work_of(&alone, &sheet);
  CHECK_NEAR(lacking.us[BL_ITEM_MOE][BL_ACTION_EXPERT_FWD], sheet.us[BL_ITEM_MOE][BL_ACTION_EXPERT_FWD], 0);
  CHECK(fabs(lacking.us[BL_ITEM_MOE][BL_ACTION_EXPERT_DX] - sheet.us[BL_ITEM_MOE][BL_ACTION_EXPERT_DX]) > 1e-3);
  /* Ranks on one device have no links. */
  make(4);
  profile.one_device = true;
  load();
  CHECK(profiled.exchange.gbps == 0 && profiled.all_reduce.gbps == 0);
  bl_positions_of(&cluster, &g, &at);
  CHECK_NEAR(at.view[0].ep.intra.gbps, 200, 0);
}

/* The search's bounds hold and its prices agree with simulations with measured costs too. */
static void test_search(void) {
  bl_search_result r;
  make(4);
  load();
  const bl_search_options o = {.model = &model,
                               .cluster = &cluster,
                               .ranks = 8,
                               .batch = 32,
                               .memory_bytes = 4e9,
                               .imbalance = imbalance,
                               .max_vp = 2,
                               .max_micro_batch = 2,
                               .top = 3,
                               .simulate = 1000};
  REQUIRE_OK(bl_search(&o, &r));
  REQUIRE(r.n > 0);
  CHECK_INT(r.open, 0);
  CHECK(r.bound_us <= r.entry[0].price.step_us && r.proved_us <= r.entry[0].simulated.step_us);
  bl_search_free(&r);
}

static void test_sentences(void) {
  make(4);
  profile.num_bytes = 4;
  REQUIRE_OK(bl_profile_save(path, &profile));
  CHECK_FAILS(bl_profiled_load(path, &cluster, &profiled), BL_EINPUT,
              "measured numbers of 4 bytes, cluster test computes with 2");
  make(4);
  profile.sgemm_gflops = 301e3;
  REQUIRE_OK(bl_profile_save(path, &profile));
  CHECK_FAILS(bl_profiled_load(path, &cluster, &profiled), BL_EINPUT, "more than the peak of made up, 300");
  CHECK_FAILS(bl_profiled_load("/tmp/there/is/none", &cluster, &profiled), BL_EINPUT, "none: cannot open");
}

/* Where costs come from, of what the model has; and the same read back from a plan. */
static void test_origins(void) {
  static bl_plan_costs c, back;
  make(4);
  profile.curves[BL_CURVE_GATHER].n = 0;
  load();
  bl_profiled_costs(&cluster, &model, &c);
#define HAS(mask, kind) ((c.mask >> (kind)&1) == 1)
  CHECK(HAS(measured, BL_CURVE_EXPERT_FWD) && HAS(measured, BL_CURVE_EXCHANGE) && HAS(measured, BL_CURVE_OPTIMIZER));
  CHECK(HAS(assumed, BL_CURVE_GATHER) && HAS(assumed, BL_WORK_BETWEEN_NODES) && (c.measured & c.assumed) == 0);
  CHECK(!HAS(measured, BL_CURVE_FFN_FWD) && !HAS(assumed, BL_CURVE_FFN_FWD)); /* all layers have experts */
  CHECK(!HAS(assumed, BL_CURVE_SHARED_FWD) && !HAS(measured, BL_CURVE_CHOOSE_HOSTS));
  CHECK(strstr(c.measured_source, path) != NULL && strstr(c.measured_source, "here") != NULL);
  char text[256];
  bl_json_doc *doc;
  bl_json root;
  bl_json_writer w;
  FILE *f = fopen(path, "wb");
  REQUIRE(f != NULL);
  bl_json_writer_init(&w, f, true);
  bl_json_begin_object(&w);
  bl_plan_costs_write(&w, &c);
  bl_json_end_object(&w);
  fclose(f);
  REQUIRE_OK(bl_json_load(path, &doc, &root));
  CHECK_OK(bl_plan_costs_read(root, &back));
  bl_json_free(doc);
  CHECK(memcmp(&back, &c, sizeof c) == 0);
  static const struct {
    const char *costs, *expected;
  } bad[] = {
      {"[]", "costs: expected"},
      {"{}", "costs: expected"},
      {"[{\"from\":\"guess\",\"source\":\"\",\"works\":[\"head\"]}]",
       "costs[0]: from: expected \"measured\" or \"data sheet\", found \"guess\""},
      {"[{\"from\":\"measured\",\"source\":\"\",\"works\":[]}]", "costs[0].works: expected"},
      {"[{\"from\":\"measured\",\"source\":\"\",\"works\":[\"luck\"]}]",
       "costs[0].works[0]: expected a kind of work, such as embed_fwd or between_nodes, found \"luck\""},
      {"[{\"from\":\"measured\",\"source\":\"\",\"works\":[\"head\",\"head\"]}]",
       "costs[0].works[1]: expected each kind of work once, found head again"},
      {"[{\"from\":\"measured\",\"source\":\"\",\"works\":[\"head\"]},{\"from\":\"data sheet\",\"source\":\"\","
       "\"works\":[\"head\"]}]",
       "costs[1].works[0]: expected each kind"},
      {"[{\"from\":\"measured\",\"source\":\"\",\"works\":[\"head\"]},{\"from\":\"measured\",\"source\":\"\","
       "\"works\":[\"gather\"]}]",
       "costs[1]: from: expected each origin once"},
      {"[{\"from\":\"measured\",\"works\":[\"head\"]}]", "costs[0]: expected the key \"source\""},
      {"[{\"from\":\"measured\",\"source\":\"\",\"works\":[\"head\"],\"x\":1}]", "costs[0]: expected only the keys"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    snprintf(text, sizeof text, "{\"costs\":%s}", bad[i].costs);
    REQUIRE_OK(bl_json_parse("p", text, strlen(text), &doc, &root));
    CHECK_FAILS(bl_plan_costs_read(root, &c), BL_EINPUT, bad[i].expected);
    bl_json_free(doc);
  }
}

int main(void) {
  snprintf(path, sizeof path, "/tmp/ballast_test_profiled.%ld.json", (long)getpid());
  RUN(test_measured_times);
  RUN(test_one_kind_slowed);
  RUN(test_scaled);
  RUN(test_search);
  RUN(test_sentences);
  RUN(test_origins);
  unlink(path);
  TEST_MAIN_END;
}
