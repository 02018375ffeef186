/* ballast-plan search: the best layouts of a model on a cluster. */
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/table.h"
#include "planner/commands.h"
#include "planner/search/imbalance.h"
#include "planner/search/search.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
  const char *model, *cluster, *trace, *output, *recompute, *zero, *dispatch, *overlap, *type, *gradients;
  int64_t ranks, ranks_per_node, batch, top, sequence, max_vp, max_micro_batch, copy_slots, shard;
  int64_t tp, cp, dp, pp, vp, etp, ep, micro_batch;
  double imbalance, memory_fraction;
  bool json;
} arg = {.top = 10,
         .max_vp = 12,
         .max_micro_batch = 16,
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

static bl_status load_inputs(inputs *in) {
  const char *const paths[] = {arg.model, arg.cluster, arg.trace};
  BL_TRY(bl_output_check(arg.output, paths, sizeof paths / sizeof *paths));
  BL_TRY(bl_model_load(arg.model, &in->model));
  if (arg.sequence > 0) in->model.sequence = (int32_t)arg.sequence;
  BL_TRY(bl_cluster_load(arg.cluster, &in->cluster));
  BL_TRY(bl_cluster_use_type(&in->cluster, arg.type));
  if (arg.ranks_per_node > in->cluster.ranks_per_node)
    return bl_fail(BL_EINPUT, "--ranks-per-node %" PRId64 ": a node of %s has %d", arg.ranks_per_node, in->cluster.name,
                   in->cluster.ranks_per_node);
  if (arg.ranks_per_node > 0) in->cluster.ranks_per_node = (int32_t)arg.ranks_per_node;
  BL_TRY(load_imbalance(in));
  in->options =
      (bl_search_options){.model = &in->model,
                          .cluster = &in->cluster,
                          .ranks = arg.ranks > 0 ? (int32_t)arg.ranks : in->cluster.nodes * in->cluster.ranks_per_node,
                          .batch = (int32_t)arg.batch,
                          .memory_bytes = in->cluster.memory_bytes * arg.memory_fraction,
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
                          .top = (int32_t)arg.top};
  in->options.zero_fixed = strcmp(arg.zero, "any") != 0;
  if (in->options.zero_fixed) in->options.fixed.zero = arg.zero[0] - '0';
  for (int r = 0; r < BL_RECOMPUTE_COUNT; r++)
    if (strcmp(arg.recompute, bl_recompute_names[r]) == 0) {
      in->options.recompute_fixed = true;
      in->options.fixed.recompute = (bl_recompute)r;
    }
  return BL_OK;
}

/* -- output -------------------------------------------------------------------------------------------------------- */

enum { GRID_TEXT = 160 };

/* "tp 2, pp 8": the sizes that are not 0. */
static const char *grid_text(const bl_grid *g, char *text) {
  const struct {
    const char *name;
    int32_t value;
  } sizes[] = {{"tp", g->tp}, {"cp", g->cp},   {"dp", g->dp}, {"pp", g->pp},
               {"vp", g->vp}, {"etp", g->etp}, {"ep", g->ep}, {"micro-batch", g->micro_batch}};
  size_t n = 0;
  text[0] = '\0';
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    if (sizes[i].value > 0)
      n += (size_t)snprintf(text + n, GRID_TEXT - n, "%s%s %d", n ? ", " : "", sizes[i].name, sizes[i].value);
  return text;
}

static void number(bl_json_writer *w, const char *key, double value) {
  bl_json_key(w, key);
  bl_json_write_number(w, value);
}

static void write_grid(bl_json_writer *w, const bl_grid *g) {
  const struct {
    const char *name;
    int32_t value;
  } sizes[] = {{"tp", g->tp},
               {"cp", g->cp},
               {"dp", g->dp},
               {"pp", g->pp},
               {"vp", g->vp},
               {"etp", g->etp},
               {"ep", g->ep},
               {"edp", g->edp},
               {"zero", g->zero},
               {"micro_batch", g->micro_batch},
               {"micro_batches", g->micro_batches}};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    bl_json_key(w, sizes[i].name);
    bl_json_write_int(w, sizes[i].value);
  }
  bl_json_key(w, "recompute");
  bl_json_write_string(w, bl_recompute_names[g->recompute]);
}

static void write_entry(bl_json_writer *w, const bl_search_entry *e) {
  bl_json_begin_object(w);
  write_grid(w, &e->grid);
  bl_json_key(w, "stage_layers");
  bl_json_begin_flat_array(w);
  for (int32_t s = 0; s < e->grid.pp * e->grid.vp; s++) bl_json_write_int(w, e->first[s + 1] - e->first[s]);
  bl_json_end_array(w);
  number(w, "step_us", e->price.step_us);
  number(w, "bound_us", e->bound_us);
  number(w, "imbalance", e->imbalance);
  number(w, "memory_bytes", e->memory.total);
  bl_json_key(w, "time_us");
  bl_json_begin_object(w);
  for (int u = 0; u < BL_PRICE_COUNT; u++) number(w, bl_price_names[u], e->price.us[u]);
  bl_json_end_object(w);
  bl_json_key(w, "memory");
  bl_json_begin_object(w);
  for (int k = 0; k < BL_FOOTPRINT_COUNT; k++) number(w, bl_footprint_names[k], e->memory.bytes[k]);
  bl_json_end_object(w);
  bl_json_end_object(w);
}

static void print_json(const inputs *in, const bl_search_result *r) {
  bl_json_writer w;
  bl_json_writer_init(&w, stdout, true);
  bl_json_begin_object(&w);
  number(&w, "ranks", in->options.ranks);
  number(&w, "batch", in->options.batch);
  bl_json_key(&w, "type");
  bl_json_write_string(&w, arg.type ? arg.type : "");
  number(&w, "efficiency", arg.type ? in->cluster.matrix.efficiency : in->cluster.efficiency);
  bl_json_key(&w, "efficiency_source");
  bl_json_write_string(&w, arg.type ? in->cluster.matrix.source : in->cluster.efficiency_source);
  number(&w, "layouts", (double)r->layouts);
  number(&w, "priced", (double)r->priced);
  number(&w, "bound_us", r->bound_us);
  number(&w, "roofline_us", r->roofline_us);
  number(&w, "gap", r->entry[0].price.step_us / r->bound_us - 1);
  bl_json_key(&w, "top");
  bl_json_begin_array(&w);
  for (int32_t i = 0; i < r->n; i++) write_entry(&w, &r->entry[i]);
  bl_json_end_array(&w);
  bl_json_key(&w, "pruned");
  bl_json_begin_array(&w);
  for (int i = 0; i < BL_SEARCH_REASON_COUNT; i++) {
    if (r->rejected[i] == 0) continue;
    bl_json_begin_object(&w);
    number(&w, "count", (double)r->rejected[i]);
    bl_json_key(&w, "reason");
    bl_json_write_string(&w, bl_search_reasons[i]);
    bl_json_key(&w, "example");
    bl_json_begin_object(&w);
    write_grid(&w, &r->example[i]);
    bl_json_end_object(&w);
    bl_json_end_object(&w);
  }
  bl_json_end_array(&w);
  bl_json_end_object(&w);
  bl_json_newline(&w);
}

static bl_status print_layouts(const bl_search_result *r) {
  bl_table *table;
  BL_TRY(bl_table_create("#|tp|cp|dp|pp|vp|etp|ep|edp|zero|sequences|<recompute|step ms|GB", &table));
  for (int32_t i = 0; i < r->n; i++) {
    const bl_grid *g = &r->entry[i].grid;
    const int32_t sizes[] = {i + 1, g->tp, g->cp, g->dp, g->pp, g->vp, g->etp, g->ep, g->edp, g->zero};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) bl_table_cell(table, "%d", sizes[k]);
    bl_table_cell(table, "%d x %d", g->micro_batches, g->micro_batch);
    bl_table_cell(table, "%s", bl_recompute_names[g->recompute]);
    bl_table_cell(table, "%.1f", r->entry[i].price.step_us * 1e-3);
    bl_table_cell(table, "%.1f", r->entry[i].memory.total * 1e-9);
  }
  bl_table_print(table, stdout);
  bl_table_free(table);
  return BL_OK;
}

static bl_status print_times(const bl_search_result *r) {
  bl_table *table;
  char headings[256] = "#";
  size_t n = 1;
  for (int u = 0; u < BL_PRICE_COUNT; u++)
    n += (size_t)snprintf(headings + n, sizeof headings - n, "|%s", bl_price_names[u]);
  BL_TRY(bl_table_create(headings, &table));
  for (int32_t i = 0; i < r->n; i++) {
    bl_table_cell(table, "%d", i + 1);
    for (int u = 0; u < BL_PRICE_COUNT; u++)
      bl_table_cell(table, "%.1f", 100 * r->entry[i].price.us[u] / r->entry[i].price.step_us);
  }
  printf("\npercent of the step:\n");
  bl_table_print(table, stdout);
  bl_table_free(table);
  return BL_OK;
}

/* Which efficiency the times follow from. */
static void print_rate(const inputs *in) {
  const bl_cluster *c = &in->cluster;
  if (arg.type)
    printf("products with weights in %s: %.3f of %.0f TFLOP/s (%s)\n", c->matrix.name, c->matrix.efficiency,
           c->matrix.tflops, c->matrix.source);
  printf("%s: %.3f of %.0f TFLOP/s (%s)\n", arg.type ? "all else" : "compute", c->efficiency, c->tflops,
         c->efficiency_source);
}

static void print_best(const inputs *in, const bl_search_result *r) {
  const bl_search_entry *best = &r->entry[0];
  char text[GRID_TEXT];
  printf("\nlayers of the best one's stages:");
  for (int32_t s = 0; s < best->grid.pp * best->grid.vp; s++) printf(" %d", best->first[s + 1] - best->first[s]);
  printf("\nmemory of its fullest rank, GB:");
  for (int k = 0; k < BL_FOOTPRINT_COUNT; k++)
    if (best->memory.bytes[k] > 0)
      printf("%s %s %.1f", k ? "," : "", bl_footprint_names[k], best->memory.bytes[k] * 1e-9);
  printf("; it may fill %.1f\n", in->options.memory_bytes * 1e-9);
  printf("expert imbalance: %.3f (%s)\n", best->imbalance,
         arg.trace ? "from the trace" : "assumed, see --imbalance and --trace");
  print_rate(in);
  printf("no layout that memory allows takes less than %.1f ms: the best is within %.2f %%; arithmetic alone %.1f ms\n",
         r->bound_us * 1e-3, 100 * (best->price.step_us / r->bound_us - 1), r->roofline_us * 1e-3);
  printf("%" PRId64 " folds, %" PRId64 " layouts, %" PRId64 " priced; not priced:\n", r->folds, r->layouts, r->priced);
  for (int i = 0; i < BL_SEARCH_REASON_COUNT; i++)
    if (r->rejected[i] > 0)
      printf("%12" PRId64 "  %s: %s\n", r->rejected[i], bl_search_reasons[i], grid_text(&r->example[i], text));
}

/* -- nothing found ------------------------------------------------------------------------------------------------- */

/* The least multiple of the ranks, by doubling, on which something fits; 0 within the cluster. */
static bl_status more_ranks(const inputs *in, int32_t *ranks) {
  bl_search_options o = in->options;
  bl_search_entry *least;
  const int64_t most = (int64_t)in->cluster.nodes * in->cluster.ranks_per_node;
  BL_TRY(bl_new(&least, 1, sizeof *least, "layouts"));
  *ranks = 0;
  while (*ranks == 0 && 2 * (int64_t)o.ranks <= most) {
    o.ranks *= 2;
    if (bl_search_least_memory(&o, least) == BL_OK && least->memory.total <= o.memory_bytes) *ranks = o.ranks;
  }
  free(least);
  return BL_OK;
}

/* The constraint that fails, by how much, and the nearest change that helps. */
static bl_status explain_nothing(const inputs *in) {
  char text[GRID_TEXT], more[64] = "";
  bl_search_entry *least;
  int32_t ranks, worst = 0;
  BL_TRY(bl_new(&least, 1, sizeof *least, "layouts"));
  bl_status status = bl_search_least_memory(&in->options, least);
  if (status == BL_OK) status = more_ranks(in, &ranks);
  if (status == BL_OK) {
    const bl_footprint *f = &least->memory;
    for (int k = 1; k < BL_FOOTPRINT_COUNT; k++)
      if (f->bytes[k] > f->bytes[worst]) worst = k;
    if (ranks > 0) snprintf(more, sizeof more, ", or %d ranks", ranks);
    status =
        bl_fail(BL_EINPUT,
                "model %s does not fit %d ranks with a batch of %d: the leanest layout (%s, zero %d, recompute %s) "
                "fills %.1f GB of a rank, %.1f GB more than the %.1f GB it may, most of it %s (%.1f GB); nearest "
                "change: devices of %.0f GB%s",
                in->model.name, in->options.ranks, in->options.batch, grid_text(&least->grid, text), least->grid.zero,
                bl_recompute_names[least->grid.recompute], f->total * 1e-9,
                (f->total - in->options.memory_bytes) * 1e-9, in->options.memory_bytes * 1e-9,
                bl_footprint_names[worst], f->bytes[worst] * 1e-9, f->total / arg.memory_fraction * 1e-9 + 0.5, more);
  }
  free(least);
  return status;
}

/* -- the command --------------------------------------------------------------------------------------------------- */

static bl_status save_plan(const inputs *in, const bl_search_entry *best) {
  bl_plan plan = {.has_layout = true,
                  .has_predicted = true,
                  .predicted_step_us = best->price.step_us,
                  .predicted_imbalance = best->imbalance,
                  .predicted_memory_bytes = best->memory.total};
  BL_TRY(bl_search_layout(&in->options, best, &plan.layout));
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
  if (status == BL_OK) status = bl_search(&in.options, &r);
  if (status == BL_OK && r.n == 0) status = explain_nothing(&in);
  if (status == BL_OK && arg.output) status = save_plan(&in, &r.entry[0]);
  if (status == BL_OK && arg.json) {
    print_json(&in, &r);
  } else if (status == BL_OK) {
    status = print_layouts(&r);
    if (status == BL_OK) status = print_times(&r);
    if (status == BL_OK) print_best(&in, &r);
  }
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
      {.name = "output|o",
       .type = BL_OPTION_STRING,
       .target = &arg.output,
       .metavar = "FILE",
       .help = "the best layout as a plan"},
      {.name = "json", .type = BL_OPTION_FLAG, .target = &arg.json, .help = "results as JSON"},
      {.type = BL_OPTION_HEADING, .help = "The space"},
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
          "memory and by lower bounds, divides layers over uneven stages exactly, and prices what is left in "
          "closed form. The plan file has no place for recomputation: the table says it.",
      .example = "ballast-plan search --model costmodel/models/deepseek-v3.json --cluster "
                 "costmodel/clusters/h100-hgx.json --ranks 1024 --batch 8192 -o plan.json",
      .options = options,
      .n_options = sizeof options / sizeof *options,
      .run = run};
}
