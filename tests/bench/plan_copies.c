/* Copy hosts on generated traces of several sizes and skews: time of a decision of the ballast policy, thread CPU time,
 * and the imbalance that its hosts, one record old, reach with fresh shares. 1, the mean, is the lower bound. */
#include "planner/policy.h"
#include "traces/generate.h"
#include <stdio.h>
#include <stdlib.h>

enum { LAYERS = 4, STEPS = 60, FIRST = 20, MAX_E = 256, MAX_P = 64, ROWS = 8 };

typedef struct outcome {
  double us[LAYERS * STEPS], imbalance[LAYERS * STEPS];
  int n;
} outcome;

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double mean(const double *values, int n) {
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += values[i];
  return sum / n;
}

static bl_status play(bl_generator *generator, const bl_trace_shape *shape, int32_t ranks, outcome *out) {
  static uint32_t counts[LAYERS * ROWS * MAX_E];
  static double load[LAYERS * MAX_E];
  bl_policy *policy;
  bl_policy_options options;
  int32_t slots[MAX_P];
  for (int32_t r = 0; r < ranks; ++r) slots[r] = shape->experts / ranks + 1;
  bl_policy_options_init(&options);
  BL_TRY(bl_policy_create(
      &options, &(bl_policy_shape){.layers = LAYERS, .experts = shape->experts, .ranks = ranks, .slots = slots},
      &policy));
  bl_policy_time_decisions(policy);
  out->n = 0;
  for (int64_t step = 0; step < STEPS; ++step) {
    bl_policy_outcome shared;
    BL_TRY(bl_generator_step(generator, counts));
    bl_trace_loads(shape, counts, -1, -1, load);
    BL_TRY(bl_policy_begin_step(policy, step));
    for (int32_t l = 0; l < LAYERS; ++l)
      BL_TRY(bl_policy_micro_batch(policy, l, load + (int64_t)l * shape->experts, NULL, &shared));
    BL_TRY(bl_policy_end_step(policy));
    for (int32_t l = 0; l < LAYERS && step >= FIRST; ++l) {
      out->us[out->n] = bl_policy_report(policy, l)->decide_us;
      out->imbalance[out->n++] = bl_policy_report(policy, l)->imbalance;
    }
  }
  bl_policy_free(policy);
  return BL_OK;
}

static bl_status time_copies(int32_t experts, int32_t ranks, double zipf, double top_share, double reach_us) {
  static outcome out;
  char name[96];
  bl_generator *generator;
  bl_generate_options options = {.shape = {.layers = LAYERS, .ranks = ROWS, .micro_batches = 1, .experts = experts},
                                 .tokens = 8192,
                                 .top_k = 8,
                                 .zipf = zipf,
                                 .top_share = top_share,
                                 .drift = 0.05,
                                 .jumps = 0.01,
                                 .bursts = 0.01,
                                 .seed = (uint64_t)experts};
  BL_TRY(bl_generator_create(&options, &generator));
  const bl_status status = play(generator, &options.shape, ranks, &out);
  bl_generator_free(generator);
  BL_TRY(status);
  snprintf(name, sizeof name, "copy hosts, %d experts on %d ranks, %s %g", experts, ranks,
           top_share > 0 ? "hottest expert" : "Zipf", top_share > 0 ? top_share : zipf);
  const double mean_us = mean(out.us, out.n), mean_imbalance = mean(out.imbalance, out.n);
  qsort(out.us, (size_t)out.n, sizeof *out.us, ascending);
  qsort(out.imbalance, (size_t)out.n, sizeof *out.imbalance, ascending);
  printf("{\"name\": \"%s\", \"value\": %.4g, \"unit\": \"us\", ", name, mean_us);
  if (reach_us > 0) printf("\"reach\": %g, ", reach_us);
  printf("\"better\": \"lower\", \"note\": \"mean; median %.4g, p99 %.4g\"}\n", out.us[out.n / 2],
         out.us[out.n * 99 / 100]);
  printf("{\"name\": \"%s: mean imbalance\", \"value\": %.6g, \"unit\": \"imbalance\", \"better\": \"lower\", "
         "\"note\": \"bound 1; median %.6g, p99 %.6g\"}\n",
         name, mean_imbalance, out.imbalance[out.n / 2], out.imbalance[out.n * 99 / 100]);
  fflush(stdout);
  return BL_OK;
}

int main(void) {
  static const double exponents[] = {0.3, 0.6, 1.0};
  bl_status status = BL_OK;
  for (size_t i = 0; i < 3 && status == BL_OK; ++i) status = time_copies(256, 64, exponents[i], 0, 5000);
  if (status == BL_OK) status = time_copies(256, 64, 0, 0.1, 5000);
  if (status == BL_OK) status = time_copies(128, 32, 0.6, 0, 0);
  if (status == BL_OK) status = time_copies(64, 16, 0.6, 0, 0);
  if (status != BL_OK) fprintf(stderr, "plan_copies: %s\n", bl_error_text());
  return bl_status_exit_code(status);
}
