/* policy.c - decisions over time: planner/policy.h for callers of the library. */
#include "planner/policy.h"
#include "base/memory.h"
#include "planner/library/handle.h"
#include <limits.h>
#include <string.h>

struct ballast_policy {
  ballast *handle;
  bl_library_shape shape;
  bl_policy *policy;
  double *load; /* [experts] */
  int64_t step; /* the last one that began */
  bool in_step, ended;
};

void ballast_policy_options_init(ballast_policy_options *options) {
  bl_policy_options o;
  if (options == NULL) return;
  bl_policy_options_init(&o);
  *options = (ballast_policy_options){.bytes = sizeof *options,
                                      .rule = "ballast",
                                      .homes = o.homes,
                                      .lag = o.lag,
                                      .late_repair = o.late_repair,
                                      .copy_price = o.copy_price};
}

static bl_status create(const ballast_shape *shape, const ballast_policy_options *given,
                        const ballast_policy_extras *extras, ballast_policy *p) {
  ballast_policy_options o;
  ballast_policy_extras x = {.bytes = sizeof x};
  bl_policy_options options;
  ballast_policy_options_init(&o);
  BL_TRY(bl_library_options(given, &o, sizeof o, "the options of a policy"));
  if (extras) BL_TRY(bl_library_options(extras, &x, sizeof x, "the extras of a policy"));
  if (o.rule == NULL || o.homes == NULL) return bl_fail(BL_EINPUT, "the rule or the homes of a policy are NULL");
  if (o.lag < 1) return bl_fail(BL_EINPUT, "a lag of %lld steps: expected 1 or more", (long long)o.lag);
  if (strncmp(o.rule, "fastermoe", 9) == 0)
    return bl_fail(BL_EINPUT, "rule \"%s\": expected ballast, static, smartmoe:N or eplb:N", o.rule);
  BL_TRY(bl_library_shape_take(shape, &p->shape));
  bl_policy_options_init(&options);
  options.policy = o.rule;
  options.homes = o.homes;
  options.lag = o.lag;
  options.late_repair = o.late_repair;
  options.copy_price = o.copy_price;
  if (x.back_off != 0) options.back_off = x.back_off;
  const bl_policy_shape own = {.layers = p->shape.layers,
                               .experts = p->shape.experts,
                               .ranks = p->shape.ranks,
                               .slots = p->shape.slots,
                               .speed = p->shape.speed,
                               .home = p->shape.home};
  BL_TRY(bl_new(&p->load, (size_t)p->shape.experts, sizeof *p->load, "a policy"));
  return bl_policy_create(&options, &own, &p->policy);
}

ballast_status ballast_policy_create(ballast *handle, const ballast_shape *shape, const ballast_policy_options *options,
                                     ballast_policy **out) {
  return ballast_policy_create_with(handle, shape, options, NULL, out);
}

ballast_status ballast_policy_create_with(ballast *handle, const ballast_shape *shape,
                                          const ballast_policy_options *options, const ballast_policy_extras *extras,
                                          ballast_policy **out) {
  if (handle == NULL || out == NULL) return BALLAST_INVALID;
  ballast_policy *p = NULL;
  *out = NULL;
  bl_status status = bl_new(&p, 1, sizeof *p, "a policy");
  if (status != BL_OK) return bl_library_end(handle, status);
  p->handle = handle;
  p->step = INT64_MIN;
  status = create(shape, options, extras, p);
  if (status == BL_OK)
    *out = p;
  else
    ballast_policy_free(p);
  return bl_library_end(handle, status);
}

void ballast_policy_free(ballast_policy *p) {
  if (p == NULL) return;
  bl_policy_free(p->policy);
  bl_library_shape_free(&p->shape);
  free(p->load);
  free(p);
}

int32_t ballast_policy_slots(const ballast_policy *p) { return p ? p->shape.first[p->shape.ranks] : 0; }

static bl_status begin(ballast_policy *p, int64_t step) {
  if (p->in_step) return bl_fail(BL_EINPUT, "step %lld has not ended, expected its end first", (long long)p->step);
  if (step <= p->step)
    return bl_fail(BL_EINPUT, "step %lld after step %lld, expected a higher one", (long long)step, (long long)p->step);
  BL_TRY(bl_policy_begin_step(p->policy, step));
  p->step = step;
  p->in_step = true;
  p->ended = false;
  return BL_OK;
}

ballast_status ballast_policy_begin_step(ballast_policy *p, int64_t step) {
  return p ? bl_library_end(p->handle, begin(p, step)) : BALLAST_INVALID;
}

static bl_status check_layer(const ballast_policy *p, int32_t layer) {
  if (layer >= 0 && layer < p->shape.layers) return BL_OK;
  return bl_fail(BL_EINPUT, "layer %d: expected 0 to %d", layer, p->shape.layers - 1);
}

static bl_status list_hosts(const ballast_policy *p, int32_t layer, int32_t *home, int32_t *phy2log) {
  BL_TRY(check_layer(p, layer));
  const bl_hosts *hosts = bl_policy_hosts(p->policy, layer);
  if (home) memcpy(home, hosts->home, (size_t)hosts->experts * sizeof *home);
  return phy2log ? bl_library_list(hosts, p->shape.first, NULL, NULL, phy2log, NULL) : BL_OK;
}

ballast_status ballast_policy_hosts(const ballast_policy *p, int32_t layer, int32_t *home, int32_t *phy2log) {
  return p ? bl_library_end(p->handle, list_hosts(p, layer, home, phy2log)) : BALLAST_INVALID;
}

static bl_status micro_batch(ballast_policy *p, int32_t layer, const uint32_t *counts, int32_t sources,
                             int32_t ranks_per_node, uint32_t *quota, bl_policy_outcome *outcome) {
  BL_TRY(check_layer(p, layer));
  if (!p->in_step) return bl_fail(BL_EINPUT, "a micro-batch outside of a step, expected its begin first");
  BL_TRY(bl_library_sum_counts(counts, sources, ranks_per_node, p->shape.experts, p->load));
  BL_TRY(bl_policy_micro_batch(p->policy, layer, p->load, NULL, outcome));
  if (quota == NULL) return BL_OK;
  return bl_library_quota(bl_policy_hosts(p->policy, layer), p->shape.first, outcome->shares, counts, sources,
                          ranks_per_node, quota);
}

ballast_status ballast_policy_micro_batch(ballast_policy *p, int32_t layer, const uint32_t *counts, int32_t sources,
                                          int32_t ranks_per_node, uint32_t *quota, double *imbalance,
                                          int32_t *repaired) {
  if (p == NULL) return BALLAST_INVALID;
  bl_policy_outcome outcome = {.imbalance = 1};
  const bl_status status = micro_batch(p, layer, counts, sources, ranks_per_node, quota, &outcome);
  if (status == BL_OK && imbalance) *imbalance = outcome.imbalance;
  if (status == BL_OK && repaired) *repaired = outcome.late;
  return bl_library_end(p->handle, status);
}

ballast_status ballast_policy_end_step(ballast_policy *p) {
  if (p == NULL) return BALLAST_INVALID;
  bl_status status = p->in_step ? bl_policy_end_step(p->policy) : bl_fail(BL_EINPUT, "no step has begun");
  if (status == BL_OK) {
    p->in_step = false;
    p->ended = true;
  }
  return bl_library_end(p->handle, status);
}

ballast_status ballast_policy_report_of(const ballast_policy *p, int32_t layer, ballast_policy_report *out) {
  if (p == NULL || out == NULL) return BALLAST_INVALID;
  bl_status status = check_layer(p, layer);
  if (status == BL_OK && !p->ended) status = bl_fail(BL_EINPUT, "no step has ended, expected its end first");
  if (status == BL_OK) {
    const bl_policy_layer_report *r = bl_policy_report(p->policy, layer);
    *out = (ballast_policy_report){.imbalance = r->imbalance,
                                   .copies = r->copies,
                                   .copies_used = r->copies_used,
                                   .moved = r->moved,
                                   .repaired = r->late};
  }
  return bl_library_end(p->handle, status);
}

static bl_status save(const ballast_policy *p, void *bytes, uint64_t capacity, uint64_t *size) {
  void *state = NULL;
  uint64_t n = 0;
  if (p->in_step) return bl_fail(BL_EINPUT, "step %lld has not ended, expected its end first", (long long)p->step);
  BL_TRY(bl_policy_save(p->policy, &state, &n));
  bl_status status = BL_OK;
  if (bytes && capacity < n)
    status = bl_fail(BL_EINPUT, "the state takes %llu bytes, expected room for them, found %llu", (unsigned long long)n,
                     (unsigned long long)capacity);
  else if (bytes)
    memcpy(bytes, state, n);
  free(state);
  *size = n;
  return status;
}

ballast_status ballast_policy_save(const ballast_policy *p, void *bytes, uint64_t capacity, uint64_t *size) {
  if (p == NULL || size == NULL) return BALLAST_INVALID;
  return bl_library_end(p->handle, save(p, bytes, capacity, size));
}

ballast_status ballast_policy_load(ballast_policy *p, const void *bytes, uint64_t size) {
  if (p == NULL) return BALLAST_INVALID;
  bl_status status = bytes ? BL_OK : bl_fail(BL_EINPUT, "the state is NULL");
  if (status == BL_OK && p->in_step) status = bl_fail(BL_EINPUT, "a state within a step, expected its end first");
  if (status == BL_OK) status = bl_policy_load(p->policy, bytes, size);
  if (status == BL_OK) {
    p->step = INT64_MIN;
    p->ended = false;
  }
  return bl_library_end(p->handle, status);
}
