/* ballast-plan search: the best layouts of a model on a cluster. */
#include "base/file.h"
#include "base/memory.h"
#include "planner/command_search_print.h"
#include "planner/commands.h"
#include "planner/search/imbalance.h"
#include "planner/search/search.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
  const char *model, *cluster, *profile, *trace, *output, *recompute, *zero, *dispatch, *overlap, *type, *gradients;
  int64_t ranks, ranks_per_node, batch, top, sequence, max_vp, max_micro_batch, copy_slots, shard, simulate, pieces;
  int64_t tp, cp, dp, pp, vp, etp, ep, micro_batch;
  double imbalance, memory_fraction;
  bool json;
} arg = {.top = 10,
         .max_vp = 12,
         .max_micro_batch = 16,
         .simulate = 200,
         .pieces = 1,
         .imbalance = 1,
         .memory_fraction = 0.9,
         .dispatch = "nodes",
         .overlap = "none",
         .gradients = "fp32",
         .recompute = "any",
         .zero = "any"};

typedef struct inputs {
  bl_model model;
  bl_cluster cluster;
  double *imbalance;
  bl_search_options options;
} inputs;

/* -- inputs -------------------------------------------------------------------------------------------------------- */

static bl_status load_imbalance(inputs *in) {
  const int32_t experts = in->model.experts;
  BL_TRY(bl_new(&in->imbalance, (size_t)experts + 1, sizeof *in->imbalance, "imbalances"));
  for (int32_t ep = 1; ep <= experts; ep++) in->imbalance[ep] = ep > 1 ? arg.imbalance : 1;
  if (!arg.trace) return BL_OK;
  bl_trace_reader *trace;
  BL_TRY(bl_trace_open(arg.trace, &trace));
  const int32_t traced = bl_trace_shape_of(trace)->experts;
  bl_status status = BL_OK;
  if (traced != experts)
    status = bl_fail(BL_EINPUT, "%s has %d experts, model %s has %d", arg.trace, traced, in->model.name, experts);
  else
    status = bl_search_imbalances(trace, (int32_t)arg.copy_slots, in->imbalance);
  bl_trace_close(trace);
  return status;
}

/* What a profile measured on one device in the cluster's place: large products and memory. */
static bl_status use_profile(bl_cluster *c) {
  bl_profile p;
  BL_TRY(bl_profile_load(arg.profile, &p));
  for (int32_t i = 0; i < c->n_node_groups; i++) {
    bl_device *d = &c->node_group[i].device;
    if (p.num_bytes != d->num_bytes)
      return bl_fail(BL_EINPUT, "%s: measured numbers of %d bytes, cluster %s computes with %d", arg.profile,
                     p.num_bytes, c->name, d->num_bytes);
    if (p.sgemm_gflops > d->tflops * 1e3)
      return bl_fail(BL_EINPUT, "%s: %.1f TFLOP/s measured on %s are more than the peak of %s, %.1f", arg.profile,
                     p.sgemm_gflops * 1e-3, p.device, d->name, d->tflops);
    d->efficiency = p.sgemm_gflops * 1e-3 / d->tflops;
    d->memory_gbps = p.triad_gbps;
    snprintf(d->efficiency_source, sizeof d->efficiency_source, "a large product on %.96s, %.120s", p.device,
             arg.profile);
  }
  return BL_OK;
}

static bl_status load_inputs(inputs *in) {
  const char *const paths[] = {arg.model, arg.cluster, arg.trace, arg.profile};
  BL_TRY(bl_output_check(arg.output, paths, sizeof paths / sizeof *paths));
  BL_TRY(bl_model_load(arg.model, &in->model));
  if (arg.sequence > 0) in->model.sequence = (int32_t)arg.sequence;
  BL_TRY(bl_cluster_load(arg.cluster, &in->cluster));
  BL_TRY(bl_cluster_use_type(&in->cluster, arg.type));
  if (arg.profile) BL_TRY(use_profile(&in->cluster));
  if (arg.ranks_per_node > bl_cluster_widest_node(&in->cluster))
    return bl_fail(BL_EINPUT, "--ranks-per-node %" PRId64 ": a node of %s has %d", arg.ranks_per_node, in->cluster.name,
                   bl_cluster_widest_node(&in->cluster));
  if (arg.ranks_per_node > 0) bl_cluster_narrow(&in->cluster, (int32_t)arg.ranks_per_node);
  BL_TRY(load_imbalance(in));
  in->options =
      (bl_search_options){.model = &in->model,
                          .cluster = &in->cluster,
                          .ranks = arg.ranks > 0 ? (int32_t)arg.ranks : (int32_t)bl_cluster_ranks(&in->cluster),
                          .batch = (int32_t)arg.batch,
                          .memory_bytes = in->cluster.node_group[0].device.memory_bytes * arg.memory_fraction,
                          .imbalance = in->imbalance,
                          .max_vp = (int32_t)arg.max_vp,
                          .max_micro_batch = (int32_t)arg.max_micro_batch,
                          .copy_slots = (int32_t)arg.copy_slots,
                          .node_dispatch = strcmp(arg.dispatch, "nodes") == 0,
                          .overlap = strcmp(arg.overlap, "exchange") == 0,
                          .shard = (int32_t)arg.shard,
                          .gradient_bytes = strcmp(arg.gradients, "bf16") == 0 ? 2 : 4,
                          .fixed = {.tp = (int32_t)arg.tp,
                                    .cp = (int32_t)arg.cp,
                                    .dp = (int32_t)arg.dp,
                                    .pp = (int32_t)arg.pp,
                                    .vp = (int32_t)arg.vp,
                                    .etp = (int32_t)arg.etp,
                                    .ep = (int32_t)arg.ep,
                                    .micro_batch = (int32_t)arg.micro_batch},
                          .top = (int32_t)arg.top,
                          .pieces = (int32_t)arg.pieces,
                          .simulate = (int32_t)arg.simulate};
  in->options.zero_fixed = strcmp(arg.zero, "any") != 0;
  if (in->options.zero_fixed) in->options.fixed.zero = arg.zero[0] - '0';
  for (int r = 0; r < BL_RECOMPUTE_COUNT; r++)
    if (strcmp(arg.recompute, bl_recompute_names[r]) == 0) {
      in->options.recompute_fixed = true;
      in->options.fixed.recompute = (bl_recompute)r;
    }
  return BL_OK;
}

/* -- the command --------------------------------------------------------------------------------------------------- */

static bl_status save_plan(const inputs *in, const bl_search_entry *best) {
  bl_plan plan = {.has_layout = true,
                  .has_predicted = true,
                  .predicted_step_us = best->simulated.step_us > 0 ? best->simulated.step_us : best->price.step_us,
                  .predicted_imbalance = best->imbalance,
                  .predicted_memory_bytes = best->memory.total};
  BL_TRY(bl_search_layout(&in->options, best, &plan.layout));
  plan.layout.sequence = (int32_t)arg.sequence;
  plan.layout.ranks_per_node = (int32_t)arg.ranks_per_node;
  snprintf(plan.layout.type, sizeof plan.layout.type, "%s", in->cluster.node_group[0].device.matrix.name);
  bl_status status = bl_layout_check(&plan.layout, in->model.layers, arg.output);
  if (status == BL_OK) status = bl_plan_save(arg.output, &plan);
  bl_plan_free(&plan);
  return status;
}

static bl_status run(void *context) {
  inputs in = {0};
  bl_search_result r = {0};
  (void)context;
  bl_status status = load_inputs(&in);
  const bl_search_report report = {.options = &in.options,
                                   .result = &r,
                                   .imbalance_source =
                                       arg.trace ? "from the trace" : "assumed, see --imbalance and --trace",
                                   .memory_fraction = arg.memory_fraction};
  if (status == BL_OK) status = bl_search(&in.options, &r);
  if (status == BL_OK && r.n == 0) status = bl_search_explain_nothing(&report);
  if (status == BL_OK && arg.output) status = save_plan(&in, &r.entry[0]);
  if (status == BL_OK && arg.json) bl_search_print_json(&report);
  if (status == BL_OK && !arg.json) status = bl_search_print(&report);
  bl_search_free(&r);
  free(in.imbalance);
  return status;
}

#define FIXED(member, text) \
  { .name = #member, .type = BL_OPTION_INT, .target = &arg.member, .metavar = "N", .help = text, .min = 1, .max = 1e6 }

bl_command bl_command_search(void) {
  static const bl_option options[] = {
      {.name = "model",
       .type = BL_OPTION_STRING,
       .target = &arg.model,
       .metavar = "FILE",
       .help = "model file (JSON), such as costmodel/models/deepseek-v3.json",
       .required = true},
      {.name = "cluster",
       .type = BL_OPTION_STRING,
       .target = &arg.cluster,
       .metavar = "FILE",
       .help = "devices and links (JSON), such as costmodel/clusters/h100-hgx.json",
       .required = true},
      {.name = "profile",
       .type = BL_OPTION_STRING,
       .target = &arg.profile,
       .metavar = "FILE",
       .help = "a profile measured on one such device: its large products and memory instead of the cluster file's"},
      {.name = "batch",
       .type = BL_OPTION_INT,
       .target = &arg.batch,
       .metavar = "N",
       .help = "sequences of a step, of all ranks and micro-batches",
       .min = 1,
       .max = 1 << 24,
       .required = true},
      {.name = "ranks",
       .type = BL_OPTION_INT,
       .target = &arg.ranks,
       .metavar = "P",
       .help = "ranks to use; default: all of the cluster",
       .min = 1,
       .max = 1 << 20},
      {.name = "ranks-per-node",
       .type = BL_OPTION_INT,
       .target = &arg.ranks_per_node,
       .metavar = "N",
       .help = "ranks to use of each node; default: all",
       .min = 1,
       .max = 1024},
      {.name = "sequence",
       .type = BL_OPTION_INT,
       .target = &arg.sequence,
       .metavar = "N",
       .help = "tokens of a sequence; default: the model file's",
       .min = 1,
       .max = 1 << 24},
      {.name = "trace",
       .type = BL_OPTION_STRING,
       .target = &arg.trace,
       .metavar = "FILE",
       .help = "recorded routing (.blt), from which the experts' imbalance follows"},
      {.name = "imbalance",
       .type = BL_OPTION_NUMBER,
       .target = &arg.imbalance,
       .metavar = "X",
       .help = "max/mean tokens of the ranks of an expert-parallel group, where there is no trace",
       .min = 1,
       .max = 1000},
      {.name = "copy-slots",
       .type = BL_OPTION_INT,
       .target = &arg.copy_slots,
       .metavar = "N",
       .help = "experts that a rank can hold beyond its homes",
       .min = 0,
       .max = 64},
      {.name = "dispatch",
       .type = BL_OPTION_CHOICE,
       .target = &arg.dispatch,
       .choices = "choices|nodes",
       .help = "what an exchange sends: a row for each choice, or one for each node and rank that a token needs"},
      {.name = "overlap",
       .type = BL_OPTION_CHOICE,
       .target = &arg.overlap,
       .choices = "none|exchange",
       .help = "what interleaved pipelines run beside another micro-batch's compute"},
      {.name = "gradients",
       .type = BL_OPTION_CHOICE,
       .target = &arg.gradients,
       .choices = "fp32|bf16",
       .help = "what gradients are summed and reduced in"},
      {.name = "type",
       .type = BL_OPTION_STRING,
       .target = &arg.type,
       .metavar = "NAME",
       .help = "type of products with weights, one of the cluster's device.types, such as fp8"},
      {.name = "memory-fraction",
       .type = BL_OPTION_NUMBER,
       .target = &arg.memory_fraction,
       .metavar = "X",
       .help = "of a device's memory; the rest is left to libraries and fragmentation",
       .min = 0.01,
       .max = 1},
      {.name = "top",
       .type = BL_OPTION_INT,
       .target = &arg.top,
       .metavar = "K",
       .help = "layouts to show",
       .min = 1,
       .max = BL_SEARCH_MAX_TOP},
      {.name = "simulate",
       .type = BL_OPTION_INT,
       .target = &arg.simulate,
       .metavar = "N",
       .help = "layouts to simulate at most, beside those of the closed form's top; 0: none, closed forms only",
       .min = 0,
       .max = 1e6},
      {.name = "output|o",
       .type = BL_OPTION_STRING,
       .target = &arg.output,
       .metavar = "FILE",
       .help = "the best layout as a plan"},
      {.name = "json", .type = BL_OPTION_FLAG, .target = &arg.json, .help = "results as JSON"},
      {.type = BL_OPTION_HEADING, .help = "The space"},
      {.name = "max-pieces",
       .type = BL_OPTION_INT,
       .target = &arg.pieces,
       .metavar = "N",
       .help = "most pieces (1, 2, 4, ...) of a MoE layer's rows, whose exchange runs beside others' experts; "
               "simulated only",
       .min = 1,
       .max = 64},
      {.name = "max-vp",
       .type = BL_OPTION_INT,
       .target = &arg.max_vp,
       .metavar = "N",
       .help = "most stages of a rank (interleaving)",
       .min = 1,
       .max = 64},
      {.name = "max-micro-batch",
       .type = BL_OPTION_INT,
       .target = &arg.max_micro_batch,
       .metavar = "N",
       .help = "most sequences of a micro-batch",
       .min = 1,
       .max = 4096},
      FIXED(tp, "only this tensor parallelism"),
      FIXED(cp, "only this context parallelism"),
      FIXED(dp, "only this many replicas of the dense part"),
      FIXED(pp, "only this many pipeline positions"),
      FIXED(vp, "only this many stages a position"),
      FIXED(etp, "only this tensor parallelism of experts"),
      FIXED(ep, "only this expert parallelism"),
      {.name = "micro-batch",
       .type = BL_OPTION_INT,
       .target = &arg.micro_batch,
       .metavar = "N",
       .help = "only this many sequences in a micro-batch",
       .min = 1,
       .max = 4096},
      {.name = "zero",
       .type = BL_OPTION_CHOICE,
       .target = &arg.zero,
       .choices = "any|0|1|3",
       .help = "sharding of the optimizer's state, or of all"},
      {.name = "shard",
       .type = BL_OPTION_INT,
       .target = &arg.shard,
       .metavar = "N",
       .help = "zero spreads over groups of N ranks, with replicas between them; default: over all of dp x cp",
       .min = 1,
       .max = 1 << 20},
      {.name = "recompute",
       .type = BL_OPTION_CHOICE,
       .target = &arg.recompute,
       .choices = "any|none|selective|ffn|full",
       .help = "what backward computes again"}};
  return (bl_command){
      .name = "search",
      .summary = "finds the best layouts of a model on a cluster",
      .description =
          "Folds the ranks into both grids (tp x cp x dp x pp = etp x ep x edp x pp) in every way, prunes by "
          "memory and by lower bounds, divides layers over uneven stages exactly, prices what is left in closed "
          "form, and simulates the step programs of the layouts that may be the fastest.",
      .example = "ballast-plan search --model costmodel/models/deepseek-v3.json --cluster "
                 "costmodel/clusters/h100-hgx.json --ranks 1024 --batch 8192 -o plan.json",
      .options = options,
      .n_options = sizeof options / sizeof *options,
      .run = run};
}
