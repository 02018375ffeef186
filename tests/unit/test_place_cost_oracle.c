/* The price of a placement against enumeration: E <= 8, P <= 3, every home, every set of copies, shares on a grid. No
 * bound may lie above the least price found, and the solver's must not lie above it by more than the test allows. */
#include "tests/unit/cost_oracle.h"

/* How far the solver is above the grid's best, and the bound below it; both relative. */
static void compare(uint64_t seed, int32_t experts, int32_t ranks, int32_t grid, bl_place_homes homes, double *above,
                    double *gap) {
  drawn d;
  bl_rng rng;
  bl_place_solver *solver;
  bl_place_solution found;
  bl_rng_seed(&rng, seed, 17);
  REQUIRE_OK(draw(&d, &rng, experts, ranks, homes));
  oracle o = {.d = &d, .grid = grid, .best = INFINITY};
  REQUIRE_OK(bl_place_cost_create(&d.machine, experts, &o.cost));
  enumerate(&o, 0);
  REQUIRE_OK(bl_place_solver_create(&d.problem, &solver));
  REQUIRE_OK(bl_place_solve(solver, &d.demand, d.old_home, 0, &found));
  CHECK(o.tried > 0 && found.bound.us <= o.best && found.bound.us <= found.price.total_us);
  if (found.bound.us > o.best || found.bound.us > found.price.total_us)
    printf("seed %llu, %d experts on %d ranks: bound %.9g (%s), the grid's best %.9g, found %.9g\n",
           (unsigned long long)seed, experts, ranks, found.bound.us, found.bound.proof, o.best, found.price.total_us);
  CHECK(found.bound.us >= 0 && found.bound.proof[0]);
  *above = found.price.total_us / o.best - 1;
  *gap = found.price.total_us / found.bound.us - 1;
  /* Proved within the stated gap, whatever the grid missed. */
  CHECK(found.price.total_us <= o.best * (1 + *gap) * (1 + 1e-9));
  if (*above > 0.02) printf("seed %llu: %g above the grid, gap %g\n", (unsigned long long)seed, *above, *gap);
  bl_place_solver_free(solver);
  bl_place_cost_free(o.cost);
  bl_place_demand_free(&d.demand);
}

static void check_many(bl_place_homes homes, double allow_mean, double allow_worst) {
  static const struct {
    int32_t experts, ranks, grid;
  } shapes[] = {{2, 2, 20}, {4, 2, 8}, {6, 2, 3}, {8, 2, 2},  {3, 3, 4},
                {4, 3, 3},  {5, 3, 2}, {3, 1, 1}, {4, 2, 10}, {3, 3, 6}};
  enum { N = sizeof shapes / sizeof *shapes };
  const uint64_t seeds = check_is_small() ? 20 : 60;
  double sum = 0, worst = 0, gaps = 0;
  for (uint64_t seed = 0; seed < seeds; ++seed) {
    double above = 1, gap = 1;
    compare(seed, shapes[seed % N].experts, shapes[seed % N].ranks, shapes[seed % N].grid, homes, &above, &gap);
    sum += above > 0 ? above : 0;
    gaps += gap;
    if (above > worst) worst = above;
  }
  printf("homes %d: above the grid's best by %.4f on average, %.4f at worst; mean gap %.4f\n", (int)homes,
         sum / (double)seeds, worst, gaps / (double)seeds);
  CHECK(sum / (double)seeds <= allow_mean);
  CHECK(worst <= allow_worst);
}

static void test_free(void) { check_many(BL_PLACE_HOMES_FREE, 0.001, 0.02); }
static void test_cost(void) { check_many(BL_PLACE_HOMES_COST, 0.001, 0.02); }
static void test_fixed(void) { check_many(BL_PLACE_HOMES_FIXED, 0.001, 0.02); }

int main(void) {
  RUN(test_free);
  RUN(test_cost);
  RUN(test_fixed);
  TEST_MAIN_END;
}
