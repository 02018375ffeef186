/* The price of a placement by hand, trees of copies, the window rule with targets, memory. */
#include "base/rng.h"
#include "planner/place/cost_change.h"
#include "planner/place/cost_polish.h"
#include "planner/place/cost_solve.h"
#include "planner/place/levels.h"
#include "planner/place/machine.h"
#include "planner/place/relay.h"
#include "tests/check.h"

enum { E = 4, P = 4 };

/* Two nodes of two ranks. 1 GB/s = 1000 bytes a microsecond. */
static bl_place_machine small_machine(void) {
  return (bl_place_machine){.ranks = P,
                            .levels = 2,
                            .level = {{2, 1, 10, 3}, {4, 1, 1, 7}},
                            .token_us = 2,
                            .row_bytes = 1000,
                            .fill_bytes = 20000,
                            .reduce_bytes = 40000,
                            .state_bytes = 100000,
                            .exchanges = 4,
                            .micro_batches = 5,
                            .horizon = 10};
}

static bl_place_price price_of(const bl_place_machine *m, const bl_place_demand *d, const bl_placed *placed) {
  bl_place_cost *cost;
  bl_place_price price = {0};
  CHECK_OK(bl_place_cost_create(m, d->experts, &cost));
  CHECK_OK(bl_place_cost_price(cost, d, placed, &price));
  bl_place_cost_free(cost);
  return price;
}

/* Every number here is worked out by hand from the formulas of cost.h. */
static void test_price_by_hand(void) {
  static const double counts[P * E] = {10, 0, 0, 2, 0, 4, 0, 0, 6, 0, 8, 0, 0, 0, 0, 2};
  static const int32_t home[E] = {0, 1, 2, 3}, old[E] = {0, 1, 3, 2};
  static const bl_copy copies[] = {{0, 2, 0.5}, {0, 1, 0.25}};
  bl_place_machine m = small_machine();
  bl_place_demand d;
  REQUIRE_OK(bl_place_demand_create(E, P, counts, P, &d));
  bl_placed placed = {.home = home, .copies = copies, .n_copies = 2, .old_home = old};
  bl_place_price price = price_of(&m, &d, &placed);
  /* Expert 0: 16 tokens, 10 from rank 0 and 6 from rank 2; hosts 0: 4, 1: 4, 2: 8. Own rank: 4 at 0, 6 at 2; inside
   * node 0: 4 from rank 0 to 1; between nodes 2 from rank 0 to 2. Experts 1 and 2 stay on their ranks. Expert 3, on
   * rank 3: 2 stay, 2 come from rank 0 between nodes. */
  CHECK_NEAR(price.us[BL_PLACE_COMPUTE], 5 * 2 * 16.0, 1e-9); /* rank 2: 8 + 8 */
  CHECK_INT(price.slowest, 2);
  CHECK_NEAR(price.imbalance, 16.0 / 8, 1e-12);
  CHECK_NEAR(price.us[BL_PLACE_EXCHANGE], 5 * 4 * (4 * 1000 / 1000.0 + 7), 1e-9); /* rank 0 sends 2 + 2 out */
  CHECK(price.port[BL_PLACE_EXCHANGE].level == 2 && price.port[BL_PLACE_EXCHANGE].rank == 0 &&
        !price.port[BL_PLACE_EXCHANGE].in);
  CHECK_NEAR(price.us[BL_PLACE_FILL], 20000 / 1000.0 + 7, 1e-9); /* one over each port of rank 0 */
  CHECK_NEAR(price.us[BL_PLACE_REDUCE], 40000 / 1000.0 + 7, 1e-9);
  CHECK(price.port[BL_PLACE_FILL].level == 2 && price.depth == 1 && price.moved == 2);
  CHECK_NEAR(price.us[BL_PLACE_MOVE], (100000 / 10000.0 + 3) / 10,
             1e-9); /* experts 2 and 3 exchange places in node 1 */
  /* Filled one after the other: no port has more than one, the way is longer. */
  static const int32_t feeder[] = {0, 2};
  placed.feeder = feeder;
  price = price_of(&m, &d, &placed);
  CHECK_NEAR(price.us[BL_PLACE_FILL], 2 * 0 + 20000 / 1000.0 + 14, 1e-9);
  CHECK_INT(price.depth, 2);
  /* One card for two ranks: what both send adds up, over twice the rate. */
  m.level[1].sharing = 2;
  placed.feeder = NULL;
  price = price_of(&m, &d, &placed);
  CHECK_NEAR(price.us[BL_PLACE_EXCHANGE], 5 * 4 * (4 * 1000 / 2000.0 + 7), 1e-9);
  /* A slow rank. */
  static const double speed[P] = {1, 0.25, 2, 1};
  m.speed = speed;
  price = price_of(&m, &d, &placed);
  CHECK_NEAR(price.us[BL_PLACE_COMPUTE], 5 * 2 * (8 / 0.25), 1e-9); /* rank 1: 4 of expert 1, 4 of expert 0 */
  CHECK_INT(price.slowest, 1);
  bl_place_demand_free(&d);
}

/* Three levels: what crosses racks also passes the cards below. */
static void test_three_levels(void) {
  static const double counts[P * 2] = {0, 8, 0, 0, 0, 0, 0, 0};
  static const int32_t home[2] = {0, 3};
  bl_place_machine m = small_machine();
  m.levels = 3;
  m.level[0] = (bl_place_level){1, 1, 100, 0};
  m.level[1] = (bl_place_level){2, 1, 1, 1};
  m.level[2] = (bl_place_level){4, 1, 4, 2};
  bl_place_demand d;
  REQUIRE_OK(bl_place_demand_create(2, P, counts, P, &d));
  const bl_placed placed = {.home = home};
  bl_place_price price = price_of(&m, &d, &placed);
  CHECK_NEAR(price.us[BL_PLACE_EXCHANGE], 5 * 4 * (8 * 1000 / 1000.0 + 2), 1e-9); /* the card is the slower one */
  CHECK_INT(price.port[BL_PLACE_EXCHANGE].level, 2);
  m.level[2].gbps = 0.5;
  price = price_of(&m, &d, &placed);
  CHECK_NEAR(price.us[BL_PLACE_EXCHANGE], 5 * 4 * (8 * 1000 / 500.0 + 2), 1e-9);
  CHECK_INT(price.port[BL_PLACE_EXCHANGE].level, 3);
  CHECK_INT(bl_place_level_between(&m, 0, 0), 0);
  CHECK_INT(bl_place_level_between(&m, 0, 1), 2);
  CHECK_INT(bl_place_level_between(&m, 1, 2), 3);
  bl_place_demand_free(&d);
}

/* Sources fold onto ranks and spread over them; all tokens stay. */
static void test_demand(void) {
  static const double counts[6] = {1, 2, 3, 4, 5, 6};
  bl_place_demand d;
  REQUIRE_OK(bl_place_demand_create(1, 3, counts, 6, &d));
  CHECK(d.source[0] == 3 && d.source[1] == 7 && d.source[2] == 11 && d.load[0] == 21 && d.sent[2] == 11);
  bl_place_demand_free(&d);
  REQUIRE_OK(bl_place_demand_create(1, 4, counts, 2, &d));
  CHECK(d.source[0] == 0.5 && d.source[1] == 0.5 && d.source[2] == 1 && d.source[3] == 1 && d.load[0] == 3);
  bl_place_demand_free(&d);
  REQUIRE_OK(bl_place_demand_create(1, 2, counts, 3, &d));
  CHECK_NEAR(d.source[0], 2, 1e-12);
  CHECK_NEAR(d.source[1], 4, 1e-12);
  bl_place_demand_free(&d);
}

/* Every tree ends at the home, and none is dearer than from the home alone; a hot expert's is cheaper. */
static void test_relay(void) {
  enum { EXPERTS = 24, RANKS = 24 };
  bl_rng rng;
  bl_rng_seed(&rng, 3, 3);
  int32_t cheaper = 0;
  for (int turn = 0; turn < 60; ++turn) {
    bl_place_machine m = {.ranks = RANKS,
                          .levels = 2,
                          .level = {{4, 1, 100, 2}, {RANKS, 1 + turn % 2, 10, 8}},
                          .fill_bytes = turn % 5 == 0 ? 10 : 1e6,
                          .reduce_bytes = 2e6,
                          .micro_batches = 1,
                          .horizon = 1};
    int32_t home[EXPERTS], feeder[EXPERTS * 3 + RANKS], n = 0;
    bl_copy copies[EXPERTS * 3 + RANKS];
    double load[EXPERTS];
    for (int32_t e = 0; e < EXPERTS; ++e) {
      home[e] = (int32_t)bl_rng_below(&rng, RANKS);
      load[e] = 1;
      for (int32_t r = 0; r < RANKS; ++r)
        if (r != home[e] && bl_rng_below(&rng, 40) < (e == 0 ? 30 : 3) && n < EXPERTS * 3 + RANKS)
          copies[n++] = (bl_copy){e, r, 0.01};
    }
    bl_relay *relay;
    bl_place_demand d;
    REQUIRE_OK(bl_place_demand_create(EXPERTS, RANKS, load, 0, &d));
    REQUIRE_OK(bl_relay_create(&m, EXPERTS, &relay));
    REQUIRE_OK(bl_relay_choose(relay, home, copies, n, feeder));
    for (int32_t i = 0; i < n; ++i) {
      int32_t at = copies[i].rank, hops = 0;
      while (at != home[copies[i].expert] && ++hops <= n)
        for (int32_t k = 0; k < n; ++k)
          if (copies[k].expert == copies[i].expert && copies[k].rank == at) {
            at = feeder[k];
            break;
          }
      CHECK(hops <= n);
    }
    bl_placed placed = {.home = home, .copies = copies, .n_copies = n};
    const bl_place_price direct = price_of(&m, &d, &placed);
    placed.feeder = feeder;
    const bl_place_price fed = price_of(&m, &d, &placed);
    CHECK(fed.us[BL_PLACE_FILL] + fed.us[BL_PLACE_REDUCE] <=
          (direct.us[BL_PLACE_FILL] + direct.us[BL_PLACE_REDUCE]) * (1 + 1e-12));
    cheaper += fed.us[BL_PLACE_FILL] < 0.5 * direct.us[BL_PLACE_FILL];
    bl_relay_free(relay);
    bl_place_demand_free(&d);
  }
  CHECK(cheaper >= 30);
}

/* Loads of ranks after a placement, and whether slots and shares hold. */
static double worst_level(const double *load, int32_t experts, int32_t ranks, const int32_t *slots, const double *speed,
                          const int32_t *home, const bl_copy *copies, int32_t n, const int32_t *group) {
  double *sum = calloc((size_t)ranks, sizeof *sum), all = 0, speeds = 0, worst = 0;
  int32_t *used = calloc((size_t)ranks, sizeof *used), crossing = 0;
  for (int32_t e = 0; e < experts; ++e) {
    double rest = load[e];
    CHECK(home[e] >= 0 && home[e] < ranks);
    for (int32_t i = 0; i < n; ++i)
      if (copies[i].expert == e) {
        CHECK(copies[i].rank != home[e] && copies[i].share > 0);
        for (int32_t k = 0; k < i; ++k) CHECK(copies[k].expert != e || copies[k].rank != copies[i].rank);
        sum[copies[i].rank] += copies[i].share * load[e];
        rest -= copies[i].share * load[e];
        ++used[copies[i].rank];
        bool first = true; /* of its expert in its node */
        for (int32_t k = 0; k < i && group; ++k)
          first = first && (copies[k].expert != e || copies[k].rank / *group != copies[i].rank / *group);
        crossing += group && first && copies[i].rank / *group != home[e] / *group;
      }
    CHECK(rest >= -1e-9 * load[e]);
    sum[home[e]] += rest;
    ++used[home[e]];
    all += load[e];
  }
  for (int32_t r = 0; r < ranks; ++r) {
    CHECK(used[r] <= slots[r]);
    speeds += speed ? speed[r] : 1;
  }
  for (int32_t r = 0; r < ranks; ++r) worst = fmax(worst, sum[r] / (speed ? speed[r] : 1) / (all / speeds));
  if (group) CHECK(crossing <= ranks / *group - 1);
  free(sum);
  free(used);
  return worst;
}

static void test_window_with_targets(void) {
  static const int32_t shapes[][3] = {{8, 4, 2},    {32, 8, 4},  {64, 16, 4}, {60, 12, 3},
                                      {256, 64, 8}, {16, 16, 4}, {30, 8, 4}};
  bl_rng rng;
  bl_rng_seed(&rng, 9, 1);
  for (int turn = 0; turn < 140; ++turn) {
    const int32_t experts = shapes[turn % 7][0], ranks = shapes[turn % 7][1], group = shapes[turn % 7][2];
    double load[256], speed[64];
    int32_t slots[64], homes[64], home[256];
    bl_copy copies[512];
    bl_levels *levels;
    const bool fast = turn % 3 == 1 && experts % ranks == 0 && experts / ranks % 2 == 0;
    for (int32_t e = 0; e < experts; ++e) load[e] = bl_det_exp((turn % 5) * bl_rng_normal(&rng) * 0.7);
    /* Half the ranks three times as fast as the others, with three times their homes. */
    for (int32_t r = 0; r < ranks; ++r) {
      speed[r] = r % 2 ? 1.5 : 0.5;
      slots[r] = (experts + ranks - 1) / ranks * (fast ? 2 : 1) + 1;
    }
    REQUIRE_OK(bl_levels_create(experts, ranks, &levels));
    REQUIRE_OK(bl_levels_homes(experts, ranks, slots, fast ? speed : NULL, homes));
    int32_t n = bl_levels_place(levels, load, homes, slots, fast ? speed : NULL, NULL, 0, home, copies);
    CHECK(n < ranks);
    double level = worst_level(load, experts, ranks, slots, fast ? speed : NULL, home, copies, n, NULL);
    if (experts % ranks == 0) CHECK_NEAR(level, 1, 1e-9); /* homes in proportion to speeds: proved exact */
    n = bl_levels_place(levels, load, homes, slots, fast ? speed : NULL, &group, 1, home, copies);
    level = worst_level(load, experts, ranks, slots, fast ? speed : NULL, home, copies, n, fast ? NULL : &group);
    if (experts % ranks == 0) CHECK(level < 1.25);
    bl_levels_free(levels);
  }
  int32_t slots[3] = {1, 0, 2}, homes[3];
  CHECK_FAILS(bl_levels_homes(4, 3, slots, NULL, homes), BL_EINPUT, "1 are missing");
  CHECK_OK(bl_levels_homes(3, 3, slots, NULL, homes));
  CHECK(homes[0] == 1 && homes[1] == 0 && homes[2] == 2);
}

/* Ranks without a slot beyond their homes get no piece, on one level and on two. */
static void test_window_without_room(void) {
  enum { EXPERTS = 16, RANKS = 8 };
  bl_rng rng;
  bl_rng_seed(&rng, 21, 1);
  for (int turn = 0; turn < 40; ++turn) {
    double load[EXPERTS];
    int32_t slots[RANKS], homes[RANKS], home[EXPERTS];
    const int32_t group = 4;
    bl_copy copies[2 * RANKS];
    bl_levels *levels;
    for (int32_t e = 0; e < EXPERTS; ++e) load[e] = bl_det_exp(bl_rng_normal(&rng));
    int32_t room = 0;
    for (int32_t r = 0; r < RANKS; ++r) room += slots[r] = 1 + (int32_t)bl_rng_below(&rng, 3);
    for (int32_t r = 0; room < EXPERTS; r = (r + 1) % RANKS, ++room) ++slots[r];
    REQUIRE_OK(bl_levels_create(EXPERTS, RANKS, &levels));
    REQUIRE_OK(bl_levels_homes(EXPERTS, RANKS, slots, NULL, homes));
    int32_t n = bl_levels_place(levels, load, homes, slots, NULL, NULL, 0, home, copies);
    worst_level(load, EXPERTS, RANKS, slots, NULL, home, copies, n, NULL); /* checks the slots */
    n = bl_levels_place(levels, load, homes, slots, NULL, &group, 1, home, copies);
    worst_level(load, EXPERTS, RANKS, slots, NULL, home, copies, n, NULL);
    bl_levels_free(levels);
  }
}

/* A layer of one level, two ranks, as many slots as experts. */
static bl_place_problem two_ranks(bl_place_machine *m, bl_place_demand *d, const double *load, int32_t experts,
                                  int32_t *slots) {
  *m = (bl_place_machine){.ranks = 2,
                          .levels = 1,
                          .level = {{2, 1, 10, 1}},
                          .token_us = 100,
                          .fill_bytes = 1e6,
                          .reduce_bytes = 1e6,
                          .micro_batches = 10,
                          .horizon = 1};
  CHECK_OK(bl_place_demand_create(experts, 2, load, 0, d));
  slots[0] = slots[1] = experts;
  return (bl_place_problem){.machine = m, .demand = d, .slots = slots, .homes = BL_PLACE_HOMES_FREE};
}

/* All tokens at the copy: moved to the middle, share by share. */
static void test_polish(void) {
  static const double load[1] = {100};
  bl_place_machine m;
  bl_place_demand d;
  int32_t slots[2], left = 200;
  const bl_place_problem problem = two_ranks(&m, &d, load, 1, slots);
  bl_place_judge judge;
  bl_place_state now, trial;
  REQUIRE_OK(bl_place_judge_create(&problem, &judge));
  REQUIRE_OK(bl_place_state_create(&judge, &now));
  REQUIRE_OK(bl_place_state_create(&judge, &trial));
  now.copies[now.n++] = (bl_copy){0, 1, 1};
  bl_place_state_count(&judge, &now);
  REQUIRE_OK(bl_place_judge_price(&judge, &now));
  CHECK_NEAR(now.price.us[BL_PLACE_COMPUTE], 100000, 1e-6);
  REQUIRE_OK(bl_place_polish(&judge, &now, &trial, &left));
  CHECK_NEAR(now.copies[0].share, 0.5, 0.01);
  CHECK(left > 0 && now.price.us[BL_PLACE_COMPUTE] < 51000);
  bl_place_state_free(&now);
  bl_place_state_free(&trial);
  bl_place_judge_free(&judge);
  bl_place_demand_free(&d);
}

/* Rank 0 feeds two copies: with one home and its copy changed over each rank feeds one. No other change helps: all
 * slots are taken, and both copies are needed. */
static void test_home_and_copy_change_parts(void) {
  static const double load[2] = {150, 150};
  static const int32_t slots[3] = {2, 1, 1};
  const bl_place_machine m = {.ranks = 3,
                              .levels = 1,
                              .level = {{3, 1, 10, 1}},
                              .token_us = 1e6,
                              .fill_bytes = 1e6,
                              .micro_batches = 100,
                              .horizon = 1};
  bl_place_demand d;
  REQUIRE_OK(bl_place_demand_create(2, 3, load, 0, &d));
  const bl_place_problem problem = {.machine = &m, .demand = &d, .slots = slots, .homes = BL_PLACE_HOMES_FREE};
  bl_place_judge judge;
  bl_place_changes *changes;
  bl_place_state now, trial;
  int32_t left = 1000;
  REQUIRE_OK(bl_place_judge_create(&problem, &judge));
  REQUIRE_OK(bl_place_changes_create(&judge, &changes));
  REQUIRE_OK(bl_place_state_create(&judge, &now));
  REQUIRE_OK(bl_place_state_create(&judge, &trial));
  now.copies[now.n++] = (bl_copy){0, 1, 2.0 / 3};
  now.copies[now.n++] = (bl_copy){1, 2, 2.0 / 3};
  bl_place_state_count(&judge, &now);
  REQUIRE_OK(bl_place_judge_price(&judge, &now));
  CHECK_NEAR(now.price.us[BL_PLACE_FILL], 201, 1e-9);
  REQUIRE_OK(bl_place_changes_search(changes, &now, &trial, &left));
  CHECK_NEAR(now.price.imbalance, 1, 1e-9);
  CHECK_NEAR(now.price.us[BL_PLACE_FILL], 101, 1e-9);
  bl_place_changes_free(changes);
  bl_place_state_free(&now);
  bl_place_state_free(&trial);
  bl_place_judge_free(&judge);
  bl_place_demand_free(&d);
}

static void test_bad_machines(void) {
  bl_place_cost *cost;
  bl_place_machine m = small_machine();
  m.level[1].gbps = 0;
  CHECK_FAILS(bl_place_cost_create(&m, E, &cost), BL_EINPUT, "level 2: a link of 0 gigabytes a second");
  m = small_machine();
  m.level[1].ranks = 3;
  CHECK_FAILS(bl_place_cost_create(&m, E, &cost), BL_EINPUT, "expected a multiple of the 2");
  m = small_machine();
  m.level[1].ranks = 2;
  CHECK_FAILS(bl_place_cost_create(&m, E, &cost), BL_EINPUT, "expected all 4");
  m = small_machine();
  m.fill_bytes = -1;
  CHECK_FAILS(bl_place_cost_create(&m, E, &cost), BL_EINPUT, "fill_bytes is -1");
  static const double speed[P] = {1, 0, 1, 1};
  m = small_machine();
  m.speed = speed;
  CHECK_FAILS(bl_place_cost_create(&m, E, &cost), BL_EINPUT, "rank 1: a speed of 0");
}

static void test_memory(void) {
  const bl_place_memory memory = {
      .slot_bytes = 6e6, .state_bytes = 12e6, .row_bytes = 1000, .budget = (const double[]){1e9, 1e9}, .layers = 10};
  const int32_t slots[2] = {5, 9}, few[2] = {2, 1}, many[2] = {90, 1};
  /* Rank 0 of 8 experts on 2 ranks: 10 (5 x 6 MB + 4 x 12 MB) = 0.78 GB; rank 1: 10 (9 x 6 + 4 x 12) = 1.02 GB. */
  CHECK_NEAR(bl_place_memory_bytes(&memory, 5, 40, 2000), 0.782e9, 1);
  CHECK_FAILS(bl_place_memory_check(&memory, 8, 2, slots, 0), BL_EINPUT, "0.020 GB more than the 1.000 GB");
  CHECK_FAILS(bl_place_memory_check(&memory, 8, 2, slots, 0), BL_EINPUT, "memory of rank 1");
  CHECK_FAILS(bl_place_memory_check(&memory, 8, 2, slots, 0), BL_EINPUT, "8 slots fit");
  CHECK_FAILS(bl_place_memory_check(&memory, 8, 2, few, 0), BL_EINPUT, "5 experts fewer than the 8");
  CHECK_FAILS(bl_place_memory_check(&memory, 80, 2, many, 0), BL_EINPUT, "5 experts do: 16 ranks would hold all");
  CHECK_OK(bl_place_memory_check(&memory, 8, 2, (const int32_t[]){5, 8}, 1000));
  CHECK_FAILS(bl_place_memory_check(&memory, 8, 2, (const int32_t[]){5, 8}, 1e6), BL_EINPUT,
              "buffers for 1000000 tokens");
}

int main(void) {
  RUN(test_price_by_hand);
  RUN(test_three_levels);
  RUN(test_demand);
  RUN(test_relay);
  RUN(test_window_with_targets);
  RUN(test_window_without_room);
  RUN(test_polish);
  RUN(test_home_and_copy_change_parts);
  RUN(test_bad_machines);
  RUN(test_memory);
  TEST_MAIN_END;
}
