/* Times of placement, CPU time of one thread: medians over many layers of made-up loads, and means where a goal is a
 * mean. */
#include "base/log.h"
#include "base/rng.h"
#include "planner/place/copies.h"
#include "planner/place/window.h"
#include "planner/policy.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_E = 256, LAYERS = 200, REPEAT = 20 /* in one timing */ };

static double now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void report(const char *name, double value, const char *unit, double reach) {
  printf("{\"name\": \"%s\", \"value\": %.9g, \"unit\": \"%s\", \"reach\": %.9g, \"better\": \"lower\"}\n", name, value,
         unit, reach);
}

/* Popularity as an unbalanced router has it: one expert takes a third, the rest falls off exponentially. */
static void make_load(bl_rng *rng, double *load, int32_t experts) {
  for (int32_t e = 0; e < experts; ++e) load[e] = 8192 * bl_det_exp(-6.0 * bl_rng_unit(rng)) * (0.5 + bl_rng_unit(rng));
  double sum = 0;
  for (int32_t e = 0; e < experts; ++e) sum += load[e];
  load[bl_rng_below(rng, (uint64_t)experts)] += 0.5 * sum;
}

static bl_status time_window(const char *name, int32_t experts, int32_t ranks, double reach) {
  bl_window *window;
  bl_shares *shares;
  bl_hosts hosts;
  bl_rng rng;
  int32_t home[MAX_E], slots[64];
  bl_copy copies[64];
  double load[MAX_E], us[LAYERS], worst = 1;
  for (int32_t r = 0; r < ranks; ++r) slots[r] = experts / ranks + 1;
  BL_TRY(bl_window_create(experts, ranks, &window));
  BL_TRY(bl_hosts_create(&hosts, experts, ranks, slots));
  BL_TRY(bl_shares_create(experts, ranks, hosts.n_copy_slots, &shares));
  bl_rng_seed(&rng, 1, (uint64_t)experts);
  for (int i = 0; i < LAYERS; ++i) {
    make_load(&rng, load, experts);
    const double start = now_us();
    int32_t n = 0;
    for (int k = 0; k < REPEAT; ++k) n = bl_window_place(window, load, home, copies);
    us[i] = (now_us() - start) / REPEAT;
    BL_TRY(bl_hosts_set_homes(&hosts, home));
    for (int32_t c = 0; c < n; ++c)
      for (int32_t s = 0; s < hosts.n_copy_slots; ++s)
        if (hosts.copy_rank[s] == copies[c].rank) hosts.copy_expert[s] = copies[c].expert;
    const double imbalance = bl_shares_solve(shares, &hosts, load, NULL);
    if (imbalance > worst) worst = imbalance;
  }
  qsort(us, LAYERS, sizeof *us, ascending);
  report(name, us[LAYERS / 2], "us", reach);
  char text[96];
  snprintf(text, sizeof text, "%s: worst imbalance", name);
  report(text, worst, "imbalance", 1.0000005);
  bl_shares_free(shares);
  bl_hosts_free(&hosts);
  bl_window_free(window);
  return BL_OK;
}

/* Shares on copies that a search found for other loads of the same layer, as in a run. */
static bl_status time_shares(const char *name, int32_t experts, int32_t ranks, double reach) {
  bl_shares *shares;
  bl_hosts hosts;
  bl_copies *search;
  bl_copies_options options;
  bl_rng rng;
  int32_t slots[64];
  double load[MAX_E], drifted[MAX_E], us[LAYERS], sink = 0;
  bl_copies_options_init(&options);
  for (int32_t r = 0; r < ranks; ++r) slots[r] = experts / ranks + 1;
  BL_TRY(bl_hosts_create(&hosts, experts, ranks, slots));
  BL_TRY(bl_shares_create(experts, ranks, hosts.n_copy_slots, &shares));
  BL_TRY(bl_copies_create(experts, ranks, hosts.n_copy_slots, &search));
  bl_rng_seed(&rng, 2, (uint64_t)ranks);
  for (int i = 0; i < LAYERS; ++i) {
    make_load(&rng, load, experts);
    bl_copies_greedy(search, &hosts, load, NULL);
    bl_copies_search(search, &hosts, load, 1, NULL, &options);
    for (int32_t e = 0; e < experts; ++e) drifted[e] = load[e] * (0.9 + 0.2 * bl_rng_unit(&rng));
    const double start = now_us();
    for (int k = 0; k < REPEAT; ++k) sink += bl_shares_solve(shares, &hosts, drifted, NULL);
    us[i] = (now_us() - start) / REPEAT;
  }
  qsort(us, LAYERS, sizeof *us, ascending);
  report(name, us[LAYERS / 2], "us", sink > 0 ? reach : 0);
  bl_copies_free(search);
  bl_shares_free(shares);
  bl_hosts_free(&hosts);
  return BL_OK;
}

/* Decisions of the ballast policy over 200 steps of 4 layers whose popularity drifts and jumps. */
static bl_status time_policy(const char *name, int32_t experts, int32_t ranks, double reach_mean, double reach_p99) {
  enum { STEPS = 200, POLICY_LAYERS = 4 };
  static double us[STEPS * POLICY_LAYERS], popularity[POLICY_LAYERS][MAX_E];
  bl_policy *policy;
  bl_policy_options options;
  bl_policy_outcome outcome;
  bl_rng rng;
  int32_t slots[64];
  double counts[MAX_E], mean = 0;
  int n = 0;
  for (int32_t r = 0; r < ranks; ++r) slots[r] = experts / ranks + 1;
  bl_policy_options_init(&options);
  const bl_policy_shape shape = {.layers = POLICY_LAYERS, .experts = experts, .ranks = ranks, .slots = slots};
  BL_TRY(bl_policy_create(&options, &shape, &policy));
  bl_policy_time_decisions(policy);
  bl_rng_seed(&rng, 3, (uint64_t)ranks);
  for (int32_t l = 0; l < POLICY_LAYERS; ++l) make_load(&rng, popularity[l], experts);
  for (int64_t step = 0; step < STEPS; ++step) {
    BL_TRY(bl_policy_begin_step(policy, step));
    for (int32_t l = 0; l < POLICY_LAYERS; ++l) {
      if (bl_rng_below(&rng, 200) == 0) make_load(&rng, popularity[l], experts);
      for (int32_t e = 0; e < experts; ++e) {
        popularity[l][e] *= 0.97 + 0.06 * bl_rng_unit(&rng);
        counts[e] = (double)(int64_t)popularity[l][e];
      }
      BL_TRY(bl_policy_micro_batch(policy, l, counts, NULL, &outcome));
    }
    BL_TRY(bl_policy_end_step(policy));
    for (int32_t l = 0; l < POLICY_LAYERS && step > 0; ++l) mean += us[n++] = bl_policy_report(policy, l)->decide_us;
  }
  qsort(us, (size_t)n, sizeof *us, ascending);
  char text[96];
  snprintf(text, sizeof text, "%s, mean", name);
  report(text, mean / n, "us", reach_mean);
  snprintf(text, sizeof text, "%s, p99", name);
  report(text, us[n * 99 / 100], "us", reach_p99);
  bl_policy_free(policy);
  return BL_OK;
}

static bl_status run(void) {
  BL_TRY(time_window("window rule, 32 experts on 8 ranks", 32, 8, 5));
  BL_TRY(time_window("window rule, 256 experts on 64 ranks", 256, 64, 150));
  BL_TRY(time_shares("shares, 32 experts on 8 ranks", 32, 8, 1));
  BL_TRY(time_shares("shares, 32 experts on 16 ranks", 32, 16, 2));
  BL_TRY(time_shares("shares, 256 experts on 64 ranks", 256, 64, 30));
  BL_TRY(time_policy("copy hosts, 32 experts on 8 ranks", 32, 8, 20, 300));
  return time_policy("copy hosts, 32 experts on 16 ranks", 32, 16, 200, 3000);
}

int main(void) {
  const bl_status status = run();
  if (status != BL_OK) fprintf(stderr, "plan_place: %s\n", bl_error_text());
  return bl_status_exit_code(status);
}
