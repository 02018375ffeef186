/* Homes alone under mild load: how many instances are proved optimal, and how long each takes. */
#include "base/log.h"
#include "base/rng.h"
#include "planner/place/homes_proof.h"
#include <stdio.h>
#include <time.h>

enum { MAX_E = 64, SEEDS = 3 };

static double now_s(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Zipf popularity with a little noise, as whole tokens of 262,144. */
static void make_load(bl_rng *rng, double exponent, int32_t experts, double *load) {
  double sum = 0;
  for (int32_t e = 0; e < experts; ++e) sum += load[e] = bl_det_pow(e + 1, -exponent) * (0.95 + 0.1 * bl_rng_unit(rng));
  for (int32_t e = 0; e < experts; ++e) load[e] = (double)(int64_t)(load[e] / sum * 262144);
}

static bl_status prove(int32_t experts, int32_t ranks, double reach) {
  static const double exponents[] = {0.05, 0.1, 0.2, 0.3, 0.5};
  const bl_homes_budget budget = {.exchanges = 400000, .choices = 500000000};
  double load[MAX_E], slowest = 0;
  int32_t home[MAX_E];
  int proved = 0, all = 0;
  for (int z = 0; z < 5; ++z)
    for (uint64_t seed = 1; seed <= SEEDS; ++seed, ++all) {
      bl_rng rng;
      bl_homes_proof proof;
      bl_rng_seed(&rng, seed, (uint64_t)experts);
      make_load(&rng, exponents[z], experts, load);
      for (int32_t e = 0; e < experts; ++e) home[e] = e / (experts / ranks);
      const double start = now_s();
      BL_TRY(bl_homes_prove(load, experts, ranks, &budget, home, &proof));
      const double s = now_s() - start;
      proved += proof.optimal && s <= 10;
      if (s > slowest) slowest = s;
    }
  printf("{\"name\": \"homes alone, %d experts on %d ranks, mild load: proved\", \"value\": %.9g, \"unit\": \"%%\", "
         "\"reach\": %.9g, \"better\": \"higher\"}\n",
         experts, ranks, 100.0 * proved / all, reach);
  printf("{\"name\": \"homes alone, %d experts on %d ranks, mild load: slowest\", \"value\": %.9g, \"unit\": \"s\", "
         "\"reach\": 10, \"better\": \"lower\"}\n",
         experts, ranks, slowest);
  return BL_OK;
}

int main(void) {
  bl_status status = prove(32, 8, 100);
  if (status == BL_OK) status = prove(64, 8, 90);
  if (status == BL_OK) status = prove(64, 16, 80);
  if (status != BL_OK) fprintf(stderr, "plan_homes: %s\n", bl_error_text());
  return bl_status_exit_code(status);
}
