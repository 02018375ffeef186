/* Placement by microseconds of a step: time a layer, one thread, and how far from the bound; made-up loads. Links and
 * expert as an H100 HGX cluster and DeepSeek-V3's shape have them. */
#include "base/rng.h"
#include "planner/place/cost_solve.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LAYERS = 11 };

/* Of this thread: other work on the machine does not count. */
static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void report(const char *name, const char *what, double *values, const char *unit, double reach) {
  qsort(values, LAYERS, sizeof *values, ascending);
  printf("{\"name\": \"%s: %s\", \"value\": %.6g, \"unit\": \"%s\", ", name, what, values[LAYERS / 2], unit);
  if (reach > 0) printf("\"reach\": %g, ", reach);
  printf("\"better\": \"lower\", \"note\": \"thread CPU time, median of %d layers, worst %.6g\"}\n", LAYERS, values[LAYERS - 1]);
}

static bl_status time_shape(const char *name, int32_t experts, int32_t ranks, int32_t node, bool fast, int32_t batches,
                            double reach_ms) {
  bl_place_machine m = {.ranks = ranks,
                        .levels = ranks > node ? 2 : 1,
                        .level = {{ranks > node ? node : ranks, 1, 450, 6}, {ranks, 1, 50, 15}},
                        .token_us = 6.0 * 3 * 7168 * 2048 / (989e6 * 0.6),
                        .row_bytes = 2 * 7168,
                        .fill_bytes = 2.0 * 3 * 7168 * 2048,
                        .reduce_bytes = 4.0 * 3 * 7168 * 2048,
                        .state_bytes = 14.0 * 3 * 7168 * 2048,
                        .exchanges = 4,
                        .micro_batches = batches,
                        .horizon = 1000};
  int32_t *slots, *home;
  double *speed, *counts, ms[LAYERS], gap[LAYERS], imbalance[LAYERS];
  bl_place_problem problem = {.machine = &m, .homes = BL_PLACE_HOMES_COST};
  bl_place_solver *solver = NULL;
  bl_place_solution found;
  bl_rng rng;
  slots = calloc((size_t)(ranks + experts), sizeof *slots);
  counts = calloc((size_t)ranks * (size_t)(experts + 1), sizeof *counts);
  if (!slots || !counts) return bl_fail(BL_EMACHINE, "out of memory");
  home = slots + ranks;
  speed = counts + (size_t)ranks * (size_t)experts;
  for (int32_t r = 0; r < ranks; ++r) {
    slots[r] = experts / ranks + 1;
    speed[r] = r % 4 == 3 ? 0.8 : 1;
  }
  if (fast) m.speed = speed;
  for (int32_t e = 0; e < experts; ++e) home[e] = e / (experts / ranks);
  problem.slots = slots;
  bl_rng_seed(&rng, 4, (uint64_t)(experts + ranks));
  for (int32_t i = 0; i < LAYERS; ++i) {
    bl_place_demand demand;
    for (int32_t e = 0; e < experts; ++e) {
      const double popular = 65536.0 / experts * bl_det_exp(0.9 * bl_rng_normal(&rng));
      for (int32_t r = 0; r < ranks; ++r) counts[(int64_t)r * experts + e] = popular * (0.7 + 0.6 * bl_rng_unit(&rng));
    }
    BL_TRY(bl_place_demand_create(experts, ranks, counts, ranks, &demand));
    problem.demand = &demand;
    problem.old_home = home;
    if (!solver) BL_TRY(bl_place_solver_create(&problem, &solver));
    const double start = now_ms();
    BL_TRY(bl_place_solve(solver, &demand, home, 0, &found));
    ms[i] = now_ms() - start;
    gap[i] = found.price.total_us / found.bound.us - 1;
    imbalance[i] = found.price.imbalance;
    fprintf(stderr,
            "%s: %d prices, %d copies, %d moved: %.0f us = compute %.0f, exchange %.0f, fill %.0f, reduce %.0f, move "
            "%.0f; %s\n",
            name, found.evaluations, found.n_copies, found.price.moved, found.price.total_us, found.price.us[0],
            found.price.us[1], found.price.us[2], found.price.us[3], found.price.us[4], found.bound.proof);
    bl_place_demand_free(&demand);
  }
  report(name, "time", ms, "ms", reach_ms);
  report(name, "gap to the bound", gap, "ratio - 1", 0);
  report(name, "imbalance", imbalance, "imbalance", 0);
  bl_place_solver_free(solver);
  free(slots);
  free(counts);
  return BL_OK;
}

int main(void) {
  bl_status status = time_shape("512 experts on 64 x 8 ranks", 512, 512, 8, false, 8, 20);
  if (status == BL_OK) status = time_shape("512 experts on 64 x 8 ranks, unequal speeds", 512, 512, 8, true, 8, 20);
  if (status == BL_OK) status = time_shape("256 experts on 8 x 8 ranks", 256, 64, 8, false, 8, 20);
  if (status == BL_OK) status = time_shape("32 experts on 8 ranks", 32, 8, 8, false, 4, 20);
  if (status != BL_OK) fprintf(stderr, "plan_cost: %s\n", bl_error_text());
  return bl_status_exit_code(status);
}
