/* EPLB's own contract, an even split over the same slots: how much closer to level than EPLB's rule.
 *
 * plan_even LOADS: for tests/bench/even.py. Every line of the file is RANKS SLOTS EXPERTS and as many loads; a JSON
 * line follows with both excesses over the mean and the microseconds of ours. */
#include "base/log.h"
#include "base/rng.h"
#include "planner/baselines/eplb.h"
#include "planner/place/even.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { MAX_E = 512, MAX_P = 512, LAYERS = 58, REPEATS = 5 };

static double now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

typedef struct layer {
  int32_t experts, ranks, slots[MAX_P];
  double load[MAX_E];
} layer;

typedef struct outcome {
  double theirs, ours, us; /* excess over the mean of EPLB's rule and of ours; time of ours, the median of repeats */
} outcome;

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* The largest rank load less the mean, over the mean. */
static double excess(const layer *x, const int32_t *replicas) {
  double largest = 0, total = 0, sum[MAX_P] = {0};
  for (int32_t e = 0; e < x->experts; ++e) {
    int32_t count = 0;
    for (int32_t r = 0; r < x->ranks; ++r) count += replicas[r * x->experts + e];
    for (int32_t r = 0; r < x->ranks; ++r) sum[r] += x->load[e] * replicas[r * x->experts + e] / count;
    total += x->load[e];
  }
  for (int32_t r = 0; r < x->ranks; ++r)
    if (sum[r] > largest) largest = sum[r];
  return largest * x->ranks / total - 1;
}

static bl_status measure(const layer *x, outcome *out) {
  static int32_t replicas[MAX_P * MAX_E];
  double us[REPEATS];
  BL_TRY(bl_eplb_place(x->load, x->experts, x->ranks, x->slots, replicas));
  out->theirs = excess(x, replicas);
  for (int i = 0; i < REPEATS; ++i) {
    const double start = now_us();
    BL_TRY(bl_even_place(x->load, x->experts, x->ranks, x->slots, replicas));
    us[i] = now_us() - start;
  }
  qsort(us, REPEATS, sizeof *us, ascending);
  out->us = us[REPEATS / 2];
  out->ours = excess(x, replicas);
  return BL_OK;
}

/* kind 0: Zipf of the exponent with a little noise; 1: log-normal of that deviation. Several seeds. */
static bl_status compare(int32_t ranks, int kind, double parameter) {
  static layer x;
  enum { SEEDS = 4 };
  double theirs = 0, ours = 0;
  x.experts = 256;
  x.ranks = ranks;
  for (int32_t r = 0; r < ranks; ++r) x.slots[r] = 256 / ranks + 1;
  for (uint64_t seed = 1; seed <= SEEDS; ++seed) {
    bl_rng rng;
    bl_rng_seed(&rng, seed, (uint64_t)(ranks + kind));
    for (int l = 0; l < LAYERS; ++l) {
      outcome out;
      for (int32_t e = 0; e < 256; ++e) {
        const double popular = kind == 0 ? bl_det_pow(e + 1, -parameter) * (0.95 + 0.1 * bl_rng_unit(&rng))
                                         : bl_det_exp(parameter * bl_rng_normal(&rng));
        x.load[e] = (double)(int64_t)(10000 * popular);
      }
      BL_TRY(measure(&x, &out));
      theirs += out.theirs;
      ours += out.ours;
    }
  }
  printf("{\"name\": \"even split, 256 experts on %d ranks, %s %g: EPLB's excess over ours\", \"value\": %.9g, "
         "\"unit\": \"x\", \"reach\": 5, \"better\": \"higher\", \"note\": \"%.6f against %.6f, %d layers\"}\n",
         ranks, kind == 0 ? "Zipf" : "log-normal", parameter, theirs / ours, theirs / (LAYERS * SEEDS),
         ours / (LAYERS * SEEDS), LAYERS * SEEDS);
  return BL_OK;
}

static bl_status of_file(const char *path) {
  static layer x;
  int32_t slots;
  bl_status status = BL_OK;
  FILE *file = fopen(path, "r");
  if (!file) return bl_fail_errno(BL_EINPUT, "%s: cannot be read", path);
  while (status == BL_OK && fscanf(file, "%d %d %d", &x.ranks, &slots, &x.experts) == 3) {
    outcome out;
    if (x.experts < 1 || x.experts > MAX_E || x.ranks < 1 || x.ranks > MAX_P)
      status = bl_fail(BL_EINPUT, "%s: %d experts on %d ranks: too many", path, x.experts, x.ranks);
    for (int32_t e = 0; e < x.experts && status == BL_OK; ++e)
      if (fscanf(file, "%lf", &x.load[e]) != 1) status = bl_fail(BL_EINPUT, "%s: a line is cut short", path);
    for (int32_t r = 0; r < x.ranks && status == BL_OK; ++r) x.slots[r] = slots;
    if (status == BL_OK) status = measure(&x, &out);
    if (status == BL_OK) printf("{\"theirs\": %.12g, \"ours\": %.12g, \"us\": %.6g}\n", out.theirs, out.ours, out.us);
  }
  fclose(file);
  return status;
}

static bl_status of_seeds(void) {
  static const double exponent[] = {0.3, 0.7, 1.1};
  for (int32_t ranks = 32; ranks <= 64; ranks *= 2) {
    for (int i = 0; i < 3; ++i) BL_TRY(compare(ranks, 0, exponent[i]));
    BL_TRY(compare(ranks, 1, 0.5));
  }
  return BL_OK;
}

int main(int argc, char **argv) {
  const bl_status status = argc > 1 ? of_file(argv[1]) : of_seeds();
  if (status != BL_OK) fprintf(stderr, "plan_even: %s\n", bl_error_text());
  return bl_status_exit_code(status);
}
