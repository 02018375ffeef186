/* command_search_inputs.c - what a search starts from: model, cluster, routing, the space. */
#include "base/file.h"
#include "base/memory.h"
#include "planner/command_search.h"
#include "planner/search/imbalance.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bl_status load_imbalance(const bl_search_arguments *arg, bl_search_inputs *in) {
  const int32_t experts = in->model.experts;
  BL_TRY(bl_new(&in->imbalance, (size_t)experts + 1, sizeof *in->imbalance, "imbalances"));
  for (int32_t ep = 1; ep <= experts; ep++) in->imbalance[ep] = ep > 1 ? arg->imbalance : 1;
  snprintf(in->routing_source, sizeof in->routing_source, "assumed, see --imbalance and --trace");
  if (!arg->trace) return BL_OK;
  snprintf(in->routing_source, sizeof in->routing_source, "from the trace %.400s", arg->trace);
  bl_trace_reader *trace;
  BL_TRY(bl_trace_open(arg->trace, &trace));
  const int32_t traced = bl_trace_shape_of(trace)->experts;
  bl_status status = BL_OK;
  if (traced != experts)
    status = bl_fail(BL_EINPUT, "%s has %d experts, model %s has %d", arg->trace, traced, in->model.name, experts);
  else
    status = bl_search_imbalances(trace, (int32_t)arg->copy_slots, in->imbalance);
  bl_trace_close(trace);
  return status;
}

/* What a profile measured in the place of data sheets. */
static bl_status use_profile(const bl_search_arguments *arg, bl_search_inputs *in) {
  BL_TRY(bl_profiled_load(arg->profile, &in->cluster, &in->profiled));
  snprintf(in->memory_source, sizeof in->memory_source, "measured, %.250s; the call: %.200s", in->profiled.source,
           in->cluster.node_group[0].device.source);
  return BL_OK;
}

bl_status bl_search_inputs_load(const bl_search_arguments *arg, bl_search_inputs *in) {
  const char *const paths[] = {arg->model, arg->cluster, arg->trace, arg->profile};
  BL_TRY(bl_output_check(arg->output, paths, sizeof paths / sizeof *paths));
  BL_TRY(bl_model_load(arg->model, &in->model));
  if (arg->sequence > 0) in->model.sequence = (int32_t)arg->sequence;
  BL_TRY(bl_cluster_load(arg->cluster, &in->cluster));
  BL_TRY(bl_cluster_use_type(&in->cluster, arg->type));
  snprintf(in->memory_source, sizeof in->memory_source, "%s", in->cluster.node_group[0].device.source);
  if (arg->profile) BL_TRY(use_profile(arg, in));
  if (arg->ranks_per_node > bl_cluster_widest_node(&in->cluster))
    return bl_fail(BL_EINPUT, "--ranks-per-node %" PRId64 ": a node of %s has %d", arg->ranks_per_node,
                   in->cluster.name, bl_cluster_widest_node(&in->cluster));
  if (arg->ranks_per_node > 0) bl_cluster_narrow(&in->cluster, (int32_t)arg->ranks_per_node);
  BL_TRY(load_imbalance(arg, in));
  in->options =
      (bl_search_options){.model = &in->model,
                          .cluster = &in->cluster,
                          .ranks = arg->ranks > 0 ? (int32_t)arg->ranks : (int32_t)bl_cluster_ranks(&in->cluster),
                          .batch = (int32_t)arg->batch,
                          .memory_bytes = in->cluster.node_group[0].device.memory_bytes * arg->memory_fraction,
                          .imbalance = in->imbalance,
                          .max_vp = (int32_t)arg->max_vp,
                          .max_micro_batch = (int32_t)arg->max_micro_batch,
                          .copy_slots = (int32_t)arg->copy_slots,
                          .node_dispatch = strcmp(arg->dispatch, "nodes") == 0,
                          .overlap = strcmp(arg->overlap, "exchange") == 0,
                          .shard = (int32_t)arg->shard,
                          .gradient_bytes = strcmp(arg->gradients, "bf16") == 0 ? 2 : 4,
                          .fixed = {.tp = (int32_t)arg->tp,
                                    .cp = (int32_t)arg->cp,
                                    .dp = (int32_t)arg->dp,
                                    .pp = (int32_t)arg->pp,
                                    .vp = (int32_t)arg->vp,
                                    .etp = (int32_t)arg->etp,
                                    .ep = (int32_t)arg->ep,
                                    .micro_batch = (int32_t)arg->micro_batch},
                          .top = (int32_t)arg->top,
                          .pieces = (int32_t)arg->pieces,
                          .simulate = (int32_t)arg->simulate};
  in->options.zero_fixed = strcmp(arg->zero, "any") != 0;
  if (in->options.zero_fixed) in->options.fixed.zero = arg->zero[0] - '0';
  for (int r = 0; r < BL_RECOMPUTE_COUNT; r++)
    if (strcmp(arg->recompute, bl_recompute_names[r]) == 0) {
      in->options.recompute_fixed = true;
      in->options.fixed.recompute = (bl_recompute)r;
    }
  return BL_OK;
}

void bl_search_inputs_free(bl_search_inputs *in) { free(in->imbalance); }
