/* place.c - placements by a rule, from loads alone. */
#include "base/memory.h"
#include "planner/baselines/eplb.h"
#include "planner/library/placement.h"
#include "planner/place/even.h"
#include "planner/policy.h"
#include <string.h>

/* The rules that are policies, asked once with the loads known. */
static const struct {
  const char *name, *policy, *homes;
} policy_rules[] = {{"ballast", "ballast", "free"},
                    {"ballast-fixed", "ballast", "fixed"},
                    {"smartmoe", "smartmoe:1", "fixed"},
                    {"static", "static", "fixed"}};

/* Each rank has its slots; a rule here fills them all. */
typedef bl_status replica_rule(const double *load, int32_t experts, int32_t ranks, const int32_t *slots,
                               int32_t *replicas);

static bl_status place_by_replicas(ballast_placement *p, replica_rule *rule, const double *load) {
  const bl_library_shape *s = &p->shape;
  int32_t *replicas = NULL;
  bl_status status = BL_OK;
  if (s->speed || s->home)
    return bl_fail(BL_EINPUT, "\"even\" and \"eplb\" take no speeds and no homes to start from, expected NULL");
  BL_TRY(bl_new(&replicas, (size_t)s->ranks * (size_t)s->experts, sizeof *replicas, "replicas"));
  for (int32_t l = 0; l < s->layers && status == BL_OK; l++) {
    const double *mine = load + (int64_t)l * s->experts;
    status = rule(mine, s->experts, s->ranks, s->slots, replicas);
    if (status == BL_OK) status = bl_placement_from_replicas(s, replicas, &p->layer[l]);
    if (status == BL_OK) status = bl_placement_finish(p, l, mine, replicas);
  }
  free(replicas);
  return status;
}

/* The policy's hosts of one layer, for the loads that it was shown. */
static bl_status take_layer(ballast_placement *p, bl_policy *policy, int32_t layer, const double *load) {
  const bl_library_shape *s = &p->shape;
  BL_TRY(bl_hosts_create(&p->layer[layer].hosts, s->experts, s->ranks, s->slots));
  BL_TRY(bl_hosts_assign(&p->layer[layer].hosts, bl_policy_hosts(policy, layer)));
  return bl_placement_finish(p, layer, load, NULL);
}

static bl_status place_by_policy(ballast_placement *p, const char *name, const char *homes, const double *load) {
  const bl_library_shape *s = &p->shape;
  const bl_policy_shape shape = {.layers = s->layers,
                                 .experts = s->experts,
                                 .ranks = s->ranks,
                                 .slots = s->slots,
                                 .speed = s->speed,
                                 .home = s->home};
  bl_policy_options options;
  bl_policy *policy = NULL;
  bl_policy_options_init(&options);
  options.policy = name;
  options.homes = homes;
  options.lag = 0;
  BL_TRY(bl_policy_create(&options, &shape, &policy));
  bl_status status = bl_policy_preview(policy, load, NULL);
  if (status == BL_OK) status = bl_policy_begin_step(policy, 0);
  for (int32_t l = 0; l < s->layers && status == BL_OK; l++)
    status = take_layer(p, policy, l, load + (int64_t)l * s->experts);
  bl_policy_free(policy);
  return status;
}

static bl_status place(ballast_placement *p, const char *rule, const double *load) {
  for (size_t i = 0; i < sizeof policy_rules / sizeof *policy_rules; i++)
    if (strcmp(rule, policy_rules[i].name) == 0)
      return place_by_policy(p, policy_rules[i].policy, policy_rules[i].homes, load);
  if (strcmp(rule, "even") == 0) return place_by_replicas(p, bl_even_place, load);
  if (strcmp(rule, "eplb") == 0) return place_by_replicas(p, bl_eplb_place, load);
  return bl_fail(BL_EINPUT, "rule \"%s\": expected ballast, ballast-fixed, even, eplb, smartmoe or static", rule);
}

ballast_status ballast_place(ballast *handle, const ballast_shape *given, const char *rule, const double *load,
                             ballast_placement **out) {
  if (handle == NULL || out == NULL) return BALLAST_INVALID;
  bl_library_shape shape;
  ballast_placement *p = NULL;
  *out = NULL;
  bl_status status = rule ? bl_library_shape_take(given, &shape) : bl_fail(BL_EINPUT, "the rule is NULL");
  if (status != BL_OK) return bl_library_end(handle, status);
  status = bl_placement_new(handle, &shape, &p);
  if (status == BL_OK) status = bl_library_check_loads(load, p->shape.layers, p->shape.experts);
  if (status == BL_OK) status = place(p, rule, load);
  if (status == BL_OK)
    *out = p;
  else
    ballast_placement_free(p);
  return bl_library_end(handle, status);
}
