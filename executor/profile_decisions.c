/* profile_decisions.c - what choosing hosts and solving shares takes, on counts like those of training. */
#include "base/memory.h"
#include "executor/profile_calls.h"
#include "executor/route.h"
#include "planner/policy.h"
#include <stdlib.h>

/* A policy with copies on the counts of b->choice, and the routes that follow. */
typedef struct decisions {
  bl_policy *policy;
  bl_route route;
  int64_t iteration;
  double *loads;
  uint32_t *counts;
} decisions;

static int64_t routed_tokens(const bl_bench *b) { return (int64_t)BL_BENCH_SEQUENCES / 2 * b->model->sequence; }

bl_status bl_bench_decisions_create(bl_bench *b, const int32_t *choice) {
  decisions *d = NULL;
  int32_t *slots = NULL;
  bl_policy_options options;
  const int32_t E = b->model->experts, R = b->comm->size, layers = bl_model_moe_layers(b->model);
  BL_TRY(bl_new(&d, 1, sizeof *d, "a profile"));
  b->decisions = d;
  BL_TRY(bl_new(&d->loads, (size_t)E, sizeof *d->loads, "a profile"));
  BL_TRY(bl_new(&d->counts, (size_t)R * (size_t)E, sizeof *d->counts, "a profile"));
  BL_TRY(bl_route_create(R, E, b->comm->rank, &d->route));
  for (int64_t i = 0; i < routed_tokens(b) * b->model->top_k; i++)
    for (int32_t r = 0; r < R; r++) d->counts[r * E + choice[i]]++;
  for (int32_t e = 0; e < E; e++) d->loads[e] = (double)d->counts[e] * R;
  BL_TRY(bl_new(&slots, (size_t)R, sizeof *slots, "a profile"));
  for (int32_t r = 0; r < R; r++) slots[r] = R > 1 ? (E + R - 1) / R + 1 : E;
  bl_policy_options_init(&options);
  options.policy = "ballast";
  const bl_policy_shape shape = {.layers = layers, .experts = E, .ranks = R, .slots = slots};
  const bl_status status = bl_policy_create(&options, &shape, &d->policy);
  free(slots);
  return status == BL_OK ? bl_policy_begin_step(d->policy, d->iteration++) : status;
}

/* A decision of the policy for all layers, on counts that it has been given. */
bl_status bl_bench_choose_hosts(bl_bench *b, int64_t layers) {
  decisions *d = b->decisions;
  bl_policy_outcome outcome;
  for (int32_t l = 0; l < (int32_t)layers; l++) {
    const double kept = d->loads[l % b->model->experts]; /* loads change a little from step to step */
    d->loads[l % b->model->experts] += 3.0 * (double)(d->iteration % 7);
    BL_TRY(bl_policy_micro_batch(d->policy, l, d->loads, NULL, &outcome));
    d->loads[l % b->model->experts] = kept;
  }
  BL_TRY(bl_policy_end_step(d->policy));
  return bl_policy_begin_step(d->policy, d->iteration++);
}

bl_status bl_bench_solve_shares(bl_bench *b, int64_t calls) {
  decisions *d = b->decisions;
  const int64_t n = routed_tokens(b) * b->model->top_k;
  bl_policy_outcome outcome;
  (void)calls;
  BL_TRY(bl_policy_micro_batch(d->policy, 0, d->loads, NULL, &outcome));
  BL_TRY(bl_route_build(&d->route, bl_policy_hosts(d->policy, 0), outcome.shares, d->counts));
  const bl_route_tables tables = bl_route_upload(&d->route, b->be, b->s);
  b->be->ops.route_rows(b->s, (int32_t *)(void *)bl_bench_take(b, n), b->choice, n, b->model->experts, tables.first,
                        tables.quota, tables.dest_row);
  return BL_OK;
}

void bl_bench_release(bl_bench *b) {
  decisions *d = b->decisions;
  if (!d) return;
  bl_policy_free(d->policy);
  bl_route_free(&d->route);
  free(d->loads);
  free(d->counts);
  free(d);
}
