/* EPLB's own contract, an even split over the same slots: how much closer to level, and how long it takes. */
#include "base/log.h"
#include "base/rng.h"
#include "planner/baselines/eplb.h"
#include "planner/place/even.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { EXPERTS = 256, MAX_P = 64, LAYERS = 58 };

static double now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* The largest rank load less the mean, over the mean. */
static double excess(const double *load, int32_t ranks, const int32_t *replicas) {
  double largest = 0, total = 0, sum[MAX_P] = {0};
  for (int32_t e = 0; e < EXPERTS; ++e) {
    int32_t count = 0;
    for (int32_t r = 0; r < ranks; ++r) count += replicas[r * EXPERTS + e];
    for (int32_t r = 0; r < ranks; ++r) sum[r] += load[e] * replicas[r * EXPERTS + e] / count;
    total += load[e];
  }
  for (int32_t r = 0; r < ranks; ++r)
    if (sum[r] > largest) largest = sum[r];
  return largest * ranks / total - 1;
}

/* reach_us: a hundredth of what EPLB's public PyTorch code takes for a layer on one thread. */
static bl_status compare(int32_t ranks, double exponent, double reach_us) {
  static int32_t replicas[MAX_P * EXPERTS];
  int32_t slots[MAX_P];
  double load[EXPERTS], us[LAYERS], theirs = 0, ours = 0;
  for (int32_t r = 0; r < ranks; ++r) slots[r] = EXPERTS / ranks + 1;
  bl_rng rng;
  bl_rng_seed(&rng, 4, (uint64_t)ranks);
  for (int l = 0; l < LAYERS; ++l) {
    for (int32_t e = 0; e < EXPERTS; ++e)
      load[e] = (double)(int64_t)(10000 * bl_det_pow(e + 1, -exponent) * (0.95 + 0.1 * bl_rng_unit(&rng)));
    BL_TRY(bl_eplb_place(load, EXPERTS, ranks, slots, replicas));
    theirs += excess(load, ranks, replicas);
    const double start = now_us();
    BL_TRY(bl_even_place(load, EXPERTS, ranks, slots, replicas));
    us[l] = now_us() - start;
    ours += excess(load, ranks, replicas);
  }
  qsort(us, LAYERS, sizeof *us, ascending);
  printf("{\"name\": \"even split, 256 experts on %d ranks, Zipf %g: EPLB's excess over ours\", \"value\": %.9g, "
         "\"unit\": "
         "\"x\", \"reach\": 5, \"better\": \"higher\", \"note\": \"%.6f against %.6f\"}\n",
         ranks, exponent, theirs / ours, theirs / LAYERS, ours / LAYERS);
  printf("{\"name\": \"even split, 256 experts on %d ranks, Zipf %g: time\", \"value\": %.9g, \"unit\": \"us\", "
         "\"reach\": "
         "%.9g, \"better\": \"lower\"}\n",
         ranks, exponent, us[LAYERS / 2], reach_us);
  return BL_OK;
}

int main(void) {
  bl_status status = compare(32, 0.3, 100);
  if (status == BL_OK) status = compare(32, 0.7, 100);
  if (status == BL_OK) status = compare(64, 0.3, 170);
  if (status == BL_OK) status = compare(64, 0.7, 170);
  if (status != BL_OK) fprintf(stderr, "plan_even: %s\n", bl_error_text());
  return bl_status_exit_code(status);
}
