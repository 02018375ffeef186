/* The search for the least price on generated layers of many sizes: sound, the same every time, never dearer than what
 * it starts from, never below its bound. */
#include "base/rng.h"
#include "planner/place/cost_solve.h"
#include "planner/place/window.h"
#include "tests/check.h"

enum { MAX_E = 96, MAX_P = 24 };

typedef struct layer {
  int32_t experts, ranks, slots[MAX_P], old_home[MAX_E];
  double counts[MAX_P * MAX_E], speed[MAX_P];
  bl_place_machine machine;
  bl_place_demand demand;
  bl_place_problem problem;
} layer;

static bl_status draw(layer *x, bl_rng *rng, int turn) {
  static const int32_t shapes[][3] = {{32, 8, 8},  {32, 8, 4},  {24, 12, 4}, {96, 24, 8},
                                      {30, 10, 4}, {16, 16, 4}, {40, 7, 3}};
  const double skew = 2.5 * bl_rng_unit(rng);
  x->experts = shapes[turn % 7][0];
  x->ranks = shapes[turn % 7][1];
  const int32_t node = shapes[turn % 7][2], even = (x->experts + x->ranks - 1) / x->ranks;
  for (int32_t e = 0; e < x->experts; ++e) {
    const double popular = bl_det_exp(skew * bl_rng_normal(rng));
    for (int32_t r = 0; r < x->ranks; ++r)
      x->counts[r * x->experts + e] = floor(50 * popular * (bl_rng_unit(rng) + (r % 3 == e % 3 ? 1 : 0)));
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
                          .fill_bytes = 3e7 * bl_rng_unit(rng),
                          .reduce_bytes = 4e7 * bl_rng_unit(rng),
                          .state_bytes = 2e8 * bl_rng_unit(rng),
                          .exchanges = 4,
                          .micro_batches = 1 << bl_rng_below(rng, 8),
                          .horizon = 1 + (double)bl_rng_below(rng, 2000)};
  m->level[0] = (bl_place_level){node < x->ranks ? node : x->ranks, 1, 300, 4};
  m->level[1] = (bl_place_level){node * (turn % 2 ? 2 : 64), 1 + turn % 2, 40, 12};
  m->level[2] = (bl_place_level){node * 64, 1, 10, 30};
  m->levels = node >= x->ranks ? 1 : m->level[1].ranks >= x->ranks ? 2 : 3;
  if (turn % 3 == 2) m->speed = x->speed;
  x->problem = (bl_place_problem){.machine = m,
                                  .demand = &x->demand,
                                  .slots = x->slots,
                                  .old_home = x->old_home,
                                  .homes = (bl_place_homes)(turn % 3),
                                  .relay = turn % 4 == 3};
  return bl_place_demand_create(x->experts, x->ranks, x->counts, turn % 5 ? x->ranks : 0, &x->demand);
}

static void check_sound(const layer *x, const bl_place_solution *found) {
  int32_t used[MAX_P] = {0};
  double share[MAX_E] = {0};
  for (int32_t e = 0; e < x->experts; ++e) {
    CHECK(found->home[e] >= 0 && found->home[e] < x->ranks);
    if (x->problem.homes == BL_PLACE_HOMES_FIXED) CHECK(found->home[e] == x->old_home[e]);
    ++used[found->home[e]];
  }
  for (int32_t i = 0; i < found->n_copies; ++i) {
    const bl_copy c = found->copies[i];
    share[c.expert] += c.share;
    ++used[c.rank];
    CHECK(c.share > 0 && share[c.expert] <= 1 + 1e-9 && c.rank != found->home[c.expert]);
    CHECK(x->problem.relay || found->feeder[i] == found->home[c.expert]);
    for (int32_t k = 0; k < i; ++k) CHECK(found->copies[k].rank != c.rank || found->copies[k].expert != c.expert);
  }
  for (int32_t r = 0; r < x->ranks; ++r) CHECK(used[r] <= x->slots[r]);
}

/* The price of homes and copies as some simple rule leaves them. */
static double price_of(const layer *x, const int32_t *home, const bl_copy *copies, int32_t n) {
  bl_place_cost *cost;
  bl_place_price price;
  const bl_placed placed = {.home = home,
                            .copies = copies,
                            .n_copies = n,
                            .old_home = x->problem.homes == BL_PLACE_HOMES_COST ? x->old_home : NULL};
  CHECK_OK(bl_place_cost_create(&x->machine, x->experts, &cost));
  CHECK_OK(bl_place_cost_price(cost, &x->demand, &placed, &price));
  bl_place_cost_free(cost);
  return price.total_us;
}

static void test_generated_layers(void) {
  static layer x;
  bl_rng rng;
  bl_rng_seed(&rng, 8, 2);
  double gaps = 0;
  const int turns = check_is_small() ? 21 : 84;
  for (int turn = 0; turn < turns; ++turn) {
    bl_place_solver *solver;
    bl_place_solution found, again;
    int32_t home[MAX_E];
    bl_copy copies[MAX_E * 3];
    REQUIRE_OK(draw(&x, &rng, turn));
    REQUIRE_OK(bl_place_solver_create(&x.problem, &solver));
    REQUIRE_OK(bl_place_solve(solver, &x.demand, x.old_home, 300, &found));
    check_sound(&x, &found);
    CHECK(found.bound.us <= found.price.total_us && found.bound.us > 0);
    gaps += found.price.total_us / found.bound.us - 1;
    bool fits = true;
    for (int32_t r = 0, k = (x.experts + x.ranks - 1) / x.ranks; r < x.ranks; ++r) fits = fits && x.slots[r] > k;
    CHECK(found.price.total_us <= price_of(&x, x.old_home, NULL, 0) * (1 + 1e-9));
    if (fits && x.problem.homes == BL_PLACE_HOMES_FREE) {
      bl_window *window;
      REQUIRE_OK(bl_window_create(x.experts, x.ranks, &window));
      const int32_t n = bl_window_place(window, x.demand.load, home, copies);
      CHECK(found.price.total_us <= price_of(&x, home, copies, n) * (1 + 1e-6));
      bl_window_free(window);
    }
    /* The same again, from the same solver and after another layer. */
    const double us = found.price.total_us;
    const int32_t n = found.n_copies;
    memcpy(home, found.home, (size_t)x.experts * sizeof *home);
    memcpy(copies, found.copies, (size_t)n * sizeof *copies);
    REQUIRE_OK(bl_place_solve(solver, &x.demand, x.old_home, 300, &again));
    CHECK(again.price.total_us == us && again.n_copies == n);
    CHECK(memcmp(home, again.home, (size_t)x.experts * sizeof *home) == 0);
    CHECK(memcmp(copies, again.copies, (size_t)n * sizeof *copies) == 0);
    bl_place_solver_free(solver);
    bl_place_demand_free(&x.demand);
  }
  printf("mean gap %.3f\n", gaps / turns);
}

static void test_bad_input(void) {
  static layer x;
  bl_rng rng;
  bl_rng_seed(&rng, 8, 2);
  bl_place_solver *solver;
  bl_place_solution found;
  bl_place_demand other;
  REQUIRE_OK(draw(&x, &rng, 1));
  REQUIRE_OK(bl_place_solver_create(&x.problem, &solver));
  REQUIRE_OK(bl_place_demand_create(x.experts - 1, x.ranks, x.counts, 0, &other));
  CHECK_FAILS(bl_place_solve(solver, &other, x.old_home, 0, &found), BL_EINPUT, "loads of 31 experts on 8 ranks");
  CHECK_FAILS(bl_place_solve(solver, &x.demand, NULL, 0, &found), BL_EINPUT, "need the homes that there are");
  bl_place_solver_free(solver);
  x.problem.homes = BL_PLACE_HOMES_FIXED;
  REQUIRE_OK(bl_place_solver_create(&x.problem, &solver));
  for (int32_t e = 0; e < x.experts; ++e) x.old_home[e] = 0;
  CHECK_FAILS(bl_place_solve(solver, &x.demand, x.old_home, 0, &found), BL_EINPUT, "do not fit into the slots");
  bl_place_solver_free(solver);
  x.slots[0] = 0;
  for (int32_t r = 1; r < x.ranks; ++r) x.slots[r] = 4;
  CHECK_FAILS(bl_place_solver_create(&x.problem, &solver), BL_EINPUT,
              "28 slots on 8 ranks cannot hold 32 experts: 4 are");
  x.slots[0] = 33;
  CHECK_FAILS(bl_place_solver_create(&x.problem, &solver), BL_EINPUT, "rank 0 has 33 slots");
  bl_place_demand_free(&other);
  bl_place_demand_free(&x.demand);
}

int main(void) {
  RUN(test_generated_layers);
  RUN(test_bad_input);
  TEST_MAIN_END;
}
