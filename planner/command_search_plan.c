/* command_search_plan.c - the best layout of a search as a plan file. */
#include "base/memory.h"
#include "planner/command_search.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void compute_source(const bl_device *c, char *text) {
  const bool narrow = c->matrix.tflops > 0;
  int n = 0;
  if (narrow)
    n = snprintf(text, BL_SOURCE_TEXT_MAX, "products with weights reach %.3f of %.0f TFLOP/s in %s (%.250s); all else ",
                 c->matrix.efficiency, c->matrix.tflops, c->matrix.name, c->matrix.source);
  snprintf(text + n, BL_SOURCE_TEXT_MAX - (size_t)n, "%.3f of %.0f TFLOP/s (%.250s)", c->efficiency, c->tflops,
           c->efficiency_source);
}

static void link_source(const bl_link *link, const bl_link_origin *origin, char *text) {
  snprintf(text, BL_SOURCE_TEXT_MAX, "%.4g GB/s a direction, %.3g us (%.255s)", link->gbps, link->latency_us,
           origin->source);
}

static void measured_link_source(const bl_profiled *measured, char *text) {
  snprintf(text, BL_SOURCE_TEXT_MAX, "%.4g GB/s a direction, %.3g us in exchanges (measured, %.255s)",
           measured->exchange.gbps, measured->exchange.latency_us, measured->source);
}

/* Of the first kind of node; a cluster file of several kinds has the others'. */
static void fill_sources(const bl_search_inputs *in, const bl_search_entry *best, bl_plan_search *s) {
  const bl_node_group *g = &in->cluster.node_group[0];
  compute_source(&g->device, s->source[BL_SOURCE_COMPUTE]);
  snprintf(s->source[BL_SOURCE_MEMORY], BL_SOURCE_TEXT_MAX, "%.5g GB/s, a call %.3g us (%s)", g->device.memory_gbps,
           g->device.call_us, in->memory_source);
  if (in->profiled.exchange.gbps > 0)
    measured_link_source(&in->profiled, s->source[BL_SOURCE_INTRA]);
  else
    link_source(&g->links.intra, &g->links.intra_origin, s->source[BL_SOURCE_INTRA]);
  link_source(&g->links.inter, &g->links.inter_origin, s->source[BL_SOURCE_INTER]);
  if (in->cluster.n_node_groups > 1) {
    char *text = s->source[BL_SOURCE_COMPUTE];
    const size_t n = strlen(text);
    snprintf(text + n, BL_SOURCE_TEXT_MAX - n, "; first of %d groups of nodes", in->cluster.n_node_groups);
  }
  if (in->model.experts > 0)
    snprintf(s->source[BL_SOURCE_ROUTING], BL_SOURCE_TEXT_MAX, "the fullest rank gets %.3f x the mean tokens (%s)",
             best->imbalance, in->routing_source);
}

static void fill_search(const bl_search_inputs *in, const bl_search_result *r, bl_plan_search *s) {
  const bl_search_entry *best = &r->entry[0];
  snprintf(s->model, sizeof s->model, "%s", in->model.name);
  snprintf(s->cluster, sizeof s->cluster, "%s", in->cluster.name);
  snprintf(s->device, sizeof s->device, "%s", in->cluster.node_group[0].device.name);
  s->sequence = in->model.sequence, s->experts = in->model.experts;
  s->layouts = r->layouts, s->simulated = r->simulated, s->undecided = r->open;
  s->closed_form_us = best->price.step_us, s->bound_us = bl_search_bound_us(r), s->roofline_us = r->roofline_us;
  memcpy(s->time_us, bl_search_predicted(best)->us, sizeof s->time_us);
  for (int k = 0; k < BL_PRICE_COUNT; k++)
    if (s->time_us[k] < 0) s->time_us[k] = 0; /* rounding */
  memcpy(s->memory_bytes, best->memory.bytes, sizeof s->memory_bytes);
  s->memory_limit_bytes = in->options.memory_bytes * best->memory_share;
  bl_profiled_costs(&in->cluster, &in->model, &s->costs);
  fill_sources(in, best, s);
}

bl_status bl_search_save(const bl_search_arguments *arg, const bl_search_inputs *in, const bl_search_result *r) {
  const bl_search_entry *best = &r->entry[0];
  bl_plan plan = {.has_layout = true,
                  .has_predicted = true,
                  .predicted_step_us = bl_search_predicted(best)->step_us,
                  .predicted_imbalance = best->imbalance,
                  .predicted_memory_bytes = best->memory.total};
  BL_TRY(bl_search_layout(&in->options, best, &plan.layout));
  plan.layout.sequence = (int32_t)arg->sequence;
  plan.layout.ranks_per_node = (int32_t)arg->ranks_per_node;
  snprintf(plan.layout.type, sizeof plan.layout.type, "%s", in->cluster.node_group[0].device.matrix.name);
  bl_status status = bl_new(&plan.search, 1, sizeof *plan.search, "a plan");
  if (status == BL_OK) fill_search(in, r, plan.search);
  if (status == BL_OK) status = bl_layout_check(&plan.layout, in->model.layers, arg->output);
  if (status == BL_OK) status = bl_plan_save(arg->output, &plan);
  bl_plan_free(&plan);
  return status;
}
