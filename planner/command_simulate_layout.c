/* command_simulate_layout.c - a layout of any kind, as the search simulates it. */
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/table.h"
#include "planner/command_simulate.h"
#include "planner/search/imbalance.h"
#include "planner/search/profiled.h"
#include "planner/search/survivor.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A timeline holds all of a step: so many layers x micro-batches x pieces of it, each of some 10 to 20 actions. */
enum { MAX_DRAWN = 1 << 18 };

/* What is simulated; the plan's own choices replace those of the files. */
typedef struct subject {
  const bl_simulate_arguments *arg;
  const bl_plan *plan;
  const bl_layout *layout; /* of the plan */
  bl_model model;
  bl_cluster cluster;
  bl_profiled profiled; /* with --profile */
  double imbalance;
  const char *imbalance_source;
} subject;

static bl_status find_imbalance(subject *q) {
  const int32_t experts = q->model.experts;
  const bool predicted = q->plan->has_predicted && q->plan->predicted_imbalance > 1;
  bl_trace_reader *trace;
  double *all;
  q->imbalance = predicted && experts > 0 ? q->plan->predicted_imbalance : 1;
  q->imbalance_source = predicted ? "as the plan has it" : "even routing, as no --trace is given";
  if (!q->arg->trace || experts == 0) return BL_OK;
  q->imbalance_source = "from the trace";
  BL_TRY(bl_trace_open(q->arg->trace, &trace));
  const int32_t traced = bl_trace_shape_of(trace)->experts;
  bl_status status = bl_new(&all, (size_t)experts + 1, sizeof *all, "imbalances");
  if (status == BL_OK && traced != experts)
    status = bl_fail(BL_EINPUT, "%s has %d experts, model %s has %d", q->arg->trace, traced, q->model.name, experts);
  if (status == BL_OK) status = bl_search_imbalances(trace, q->layout->copy_slots, all);
  if (status == BL_OK) q->imbalance = all[q->layout->ep];
  bl_trace_close(trace);
  free(all);
  return status;
}

static bl_status check_fit(const subject *q) {
  const bl_layout *l = q->layout;
  const bl_model *m = &q->model;
  const char *where = q->arg->plan;
  const int64_t ranks = (int64_t)l->tp * l->cp * l->dp * l->pp, there = bl_cluster_ranks(&q->cluster);
  BL_TRY(bl_layout_check(l, m->layers, where));
  if (ranks > there)
    return bl_fail(BL_EINPUT, "%s: the layout has %lld ranks, cluster %s has %lld", where, (long long)ranks,
                   q->cluster.name, (long long)there);
  if (l->n_stages > BL_STAGES_MAX || m->layers > BL_STAGES_MAX_LAYERS)
    return bl_fail(BL_EINPUT, "%s: expected at most %d stages and %d layers, found %d and %d", where, BL_STAGES_MAX,
                   BL_STAGES_MAX_LAYERS, l->n_stages, m->layers);
  const struct {
    const char *size, *of;
    int32_t divisor, value;
  } rules[] = {{"tp", "attention heads", l->tp, m->heads},
               {"tp", "heads of state-space layers", l->tp, m->state_heads},
               {"ep", "experts", l->ep, m->experts > 0 ? m->experts : l->ep},
               {"etp", "experts' width", l->etp, m->experts > 0 ? m->expert_width : l->etp},
               {"pp", "micro-batches of an interleaved pipeline", l->vp > 1 ? l->pp : 1, l->micro_batches}};
  for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
    if (rules[i].value % rules[i].divisor != 0)
      return bl_fail(BL_EINPUT, "%s: layout.%s = %d does not divide the %d %s", where, rules[i].size, rules[i].divisor,
                     rules[i].value, rules[i].of);
  if (m->experts > 0 && l->copy_slots > m->experts)
    return bl_fail(BL_EINPUT, "%s: layout.copy_slots: expected at most the %d experts, found %d", where, m->experts,
                   l->copy_slots);
  const int64_t pieces = l->pieces > 1 ? l->pieces : 1;
  if (q->arg->perfetto && l->micro_batches > MAX_DRAWN / pieces / (m->layers + l->n_stages))
    return bl_fail(BL_EINPUT,
                   "%s: layout.micro_batches: expected at most %lld for a timeline of %d layers, found %d: simulate it "
                   "without --perfetto",
                   where, (long long)(MAX_DRAWN / pieces / (m->layers + l->n_stages)), m->layers, l->micro_batches);
  return BL_OK;
}

static void fill_entry(const subject *q, bl_search_entry *e) {
  const bl_layout *l = q->layout;
  bl_positions positions;
  bl_grid_costs costs;
  int32_t counts[BL_STAGES_MAX * BL_ITEM_COUNT];
  e->grid = (bl_grid){.tp = l->tp,
                      .cp = l->cp,
                      .dp = l->dp,
                      .pp = l->pp,
                      .vp = l->vp,
                      .etp = l->etp,
                      .ep = l->ep,
                      .edp = l->edp,
                      .zero = l->zero,
                      .micro_batch = l->micro_batch,
                      .micro_batches = l->micro_batches,
                      .pieces = l->pieces,
                      .node_dispatch = l->node_dispatch,
                      .overlap = l->overlap,
                      .shard = l->shard,
                      .gradient_bytes = l->gradient_bytes,
                      .copy_slots = l->copy_slots,
                      .recompute = (bl_recompute)l->recompute,
                      .input_bytes = q->cluster.node_group[0].device.matrix.num_bytes};
  e->imbalance = q->imbalance;
  memcpy(e->first, l->stage_first, ((size_t)l->n_stages + 1) * sizeof *e->first);
  bl_positions_of(&q->cluster, &e->grid, &positions);
  bl_grid_cost(&q->model, &positions, &e->grid, q->imbalance, &costs);
  bl_stages_counts(&q->model, &e->grid, e->first, counts);
  bl_stages_memory(&e->grid, &costs, counts, &e->memory);
  bl_price_step(&e->grid, &costs, counts, &e->price);
}

/* A process for each pipeline position. */
static bl_status draw(const char *path, const bl_search_options *o, const bl_search_entry *e) {
  bl_survivor s;
  bl_pipeline_simulation simulation = {0};
  bl_timeline *timelines = NULL;
  char(*names)[40] = NULL;
  BL_TRY(bl_survivor_build(o, e, e->grid.micro_batches, &s));
  bl_status status = bl_simulate_pipeline(s.step, o->model, s.work_at, &simulation);
  if (status == BL_OK) status = bl_new(&timelines, (size_t)s.built, sizeof *timelines, "a timeline");
  if (status == BL_OK) status = bl_new(&names, (size_t)s.built, sizeof *names, "a timeline");
  for (int32_t i = 0; status == BL_OK && i < s.built; i++) {
    snprintf(names[i], sizeof names[i], "of pipeline position %d", i);
    timelines[i] = (bl_timeline){names[i], &s.step[i], 1, simulation.spans[i]};
  }
  if (status == BL_OK) status = bl_timeline_write(path, 0, timelines, s.built);
  free(timelines);
  free(names);
  bl_pipeline_simulation_free(&simulation);
  bl_survivor_free(&s);
  return status;
}

static void print_json(const bl_search_entry *e) {
  bl_json_writer w;
  bl_json_writer_init(&w, stdout, true);
  bl_json_begin_object(&w);
  bl_json_put_number(&w, "step_us", e->simulated.step_us);
  bl_json_put_number(&w, "closed_form_us", e->price.step_us);
  bl_json_put_number(&w, "imbalance", e->imbalance);
  bl_json_put_number(&w, "memory_bytes", e->memory.total);
  bl_json_key(&w, "time_us");
  bl_json_begin_object(&w);
  for (int u = 0; u < BL_PRICE_COUNT; u++) bl_json_put_number(&w, bl_price_names[u], e->simulated.us[u]);
  bl_json_end_object(&w);
  bl_json_end_object(&w);
  bl_json_newline(&w);
}

static bl_status print_tables(const subject *q, const bl_search_entry *e) {
  bl_table *table;
  BL_TRY(bl_table_create("<where the step goes|ms|%|<what it is", &table));
  for (int u = 0; u < BL_PRICE_COUNT; u++) {
    if (e->simulated.us[u] <= 0) continue;
    bl_table_cell(table, "%s", bl_price_names[u]);
    bl_table_cell(table, "%.1f", e->simulated.us[u] * 1e-3);
    bl_table_cell(table, "%.1f", 100 * e->simulated.us[u] / e->simulated.step_us);
    bl_table_cell(table, "%s", bl_price_meanings[u]);
  }
  bl_table_print(table, stdout);
  bl_table_free(table);
  printf(
      "\nstep: %.1f ms simulated on the ranks that compute most, %.1f ms in closed form; expert imbalance %.3f (%s)\n",
      e->simulated.step_us * 1e-3, e->price.step_us * 1e-3, e->imbalance, q->imbalance_source);
  printf("memory of the fullest rank: %.1f GB\n", e->memory.total * 1e-9);
  return BL_OK;
}

static bl_status simulate(const subject *q) {
  bl_search_entry *e;
  const bl_search_options options = {.model = &q->model,
                                     .cluster = &q->cluster,
                                     .ranks = bl_layout_world(q->layout),
                                     .memory_bytes = q->cluster.node_group[0].device.memory_bytes};
  BL_TRY(bl_new(&e, 1, sizeof *e, "a layout"));
  fill_entry(q, e);
  bl_status status = bl_survivor_simulate(&options, false, e);
  if (status == BL_OK && q->arg->perfetto) status = draw(q->arg->perfetto, &options, e);
  if (status == BL_OK && q->arg->json)
    print_json(e);
  else if (status == BL_OK)
    status = print_tables(q, e);
  free(e);
  return status;
}

bl_status bl_simulate_narrow(bl_cluster *cluster, const bl_layout *l, const char *where) {
  if (l->ranks_per_node > bl_cluster_widest_node(cluster))
    return bl_fail(BL_EINPUT, "%s: layout.ranks_per_node = %d, but a node of %s has %d", where, l->ranks_per_node,
                   cluster->name, bl_cluster_widest_node(cluster));
  if (l->ranks_per_node > 0) bl_cluster_narrow(cluster, l->ranks_per_node);
  return BL_OK;
}

/* Sequence, ranks of a node and compute type are the plan's where it names them. */
static bl_status load(subject *q) {
  const bl_simulate_arguments *arg = q->arg;
  const bl_layout *l = q->layout;
  const char *const paths[] = {arg->plan, arg->cluster, arg->model, arg->trace, arg->profile};
  if (!arg->cluster || arg->log || arg->measured)
    return bl_fail(BL_EUSAGE,
                   "%s: its layout goes beyond dp = ep, for which --cluster prices it (with --profile, as search), "
                   "without --log and --measured",
                   arg->plan);
  BL_TRY(bl_output_check(arg->perfetto, paths, sizeof paths / sizeof *paths));
  bl_model_default(&q->model);
  if (arg->model) BL_TRY(bl_model_load(arg->model, &q->model));
  if (l->sequence > 0) q->model.sequence = l->sequence;
  BL_TRY(bl_cluster_load(arg->cluster, &q->cluster));
  BL_TRY(bl_cluster_use_type(&q->cluster, l->type[0] ? l->type : NULL));
  if (arg->profile) BL_TRY(bl_profiled_load(arg->profile, &q->cluster, &q->profiled));
  BL_TRY(bl_simulate_narrow(&q->cluster, l, arg->plan));
  BL_TRY(check_fit(q));
  return find_imbalance(q); /* by ep, which now divides the experts */
}

bl_status bl_simulate_layout(const bl_simulate_arguments *arguments, const bl_plan *plan) {
  subject q = {.arg = arguments, .plan = plan, .layout = &plan->layout};
  BL_TRY(load(&q));
  return simulate(&q);
}
