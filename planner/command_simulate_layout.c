#include "planner/command_simulate_layout.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/table.h"
#include "planner/search/imbalance.h"
#include "planner/search/survivor.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool bl_layout_is_plain(const bl_layout *l) {
  return l->tp == 1 && l->cp == 1 && l->pp == 1 && l->vp == 1 && l->etp == 1 && l->edp == 1 && l->zero == 0 &&
         l->recompute == 0 && l->pieces == 1;
}

static bl_status imbalance_of(const bl_simulate_request *q, double *imbalance) {
  const int32_t experts = q->model->experts;
  bl_trace_reader *trace;
  double *all;
  *imbalance = 1;
  if (!q->trace || experts == 0) return BL_OK;
  BL_TRY(bl_trace_open(q->trace, &trace));
  const int32_t traced = bl_trace_shape_of(trace)->experts;
  bl_status status = bl_new(&all, (size_t)experts + 1, sizeof *all, "imbalances");
  if (status == BL_OK && traced != experts)
    status = bl_fail(BL_EINPUT, "%s has %d experts, model %s has %d", q->trace, traced, q->model->name, experts);
  if (status == BL_OK) status = bl_search_imbalances(trace, 0, all);
  if (status == BL_OK) *imbalance = all[q->layout->ep];
  bl_trace_close(trace);
  free(all);
  return status;
}

static bl_status check_fit(const bl_simulate_request *q) {
  const bl_layout *l = q->layout;
  const bl_model *m = q->model;
  const int64_t ranks = (int64_t)l->tp * l->cp * l->dp * l->pp,
                there = (int64_t)q->cluster->nodes * q->cluster->ranks_per_node;
  BL_TRY(bl_layout_check(l, m->layers, q->where));
  if (ranks > there)
    return bl_fail(BL_EINPUT, "%s: the layout has %lld ranks, cluster %s has %lld", q->where, (long long)ranks,
                   q->cluster->name, (long long)there);
  if (l->n_stages > BL_STAGES_MAX || m->layers > BL_STAGES_MAX_LAYERS)
    return bl_fail(BL_EINPUT, "%s: expected at most %d stages and %d layers, found %d and %d", q->where, BL_STAGES_MAX,
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
      return bl_fail(BL_EINPUT, "%s: layout.%s = %d does not divide the %d %s", q->where, rules[i].size,
                     rules[i].divisor, rules[i].value, rules[i].of);
  return BL_OK;
}

static void fill_entry(const bl_simulate_request *q, double imbalance, bl_search_entry *e) {
  const bl_layout *l = q->layout;
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
                      .recompute = (bl_recompute)l->recompute,
                      .input_bytes = q->cluster->matrix.num_bytes};
  e->imbalance = imbalance;
  memcpy(e->first, l->stage_first, ((size_t)l->n_stages + 1) * sizeof *e->first);
  bl_grid_cost(q->model, q->cluster, &e->grid, imbalance, &costs);
  bl_stages_counts(q->model, &e->grid, e->first, counts);
  bl_stages_memory(&e->grid, &costs, q->cluster->num_bytes, counts, &e->memory);
  bl_price_step(q->cluster, &e->grid, &costs, counts, &e->price);
}

/* A process for each pipeline position. */
static bl_status draw(const bl_simulate_request *q, const bl_search_options *o, const bl_search_entry *e) {
  bl_survivor s;
  bl_pipeline_simulation simulation = {0};
  bl_timeline *timelines = NULL;
  char(*names)[40] = NULL;
  BL_TRY(bl_survivor_build(o, e, e->grid.micro_batches, &s));
  bl_status status = bl_simulate_pipeline(s.step, o->model, &s.work, &simulation);
  if (status == BL_OK) status = bl_new(&timelines, (size_t)s.built, sizeof *timelines, "a timeline");
  if (status == BL_OK) status = bl_new(&names, (size_t)s.built, sizeof *names, "a timeline");
  for (int32_t i = 0; status == BL_OK && i < s.built; i++) {
    snprintf(names[i], sizeof names[i], "of pipeline position %d", i);
    timelines[i] = (bl_timeline){names[i], &s.step[i], 1, simulation.spans[i]};
  }
  if (status == BL_OK) status = bl_timeline_write(q->perfetto, 0, timelines, s.built);
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

static bl_status print_tables(const bl_search_entry *e) {
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
  printf("\nstep: %.1f ms simulated on the ranks that compute most, %.1f ms in closed form; expert imbalance %.3f\n",
         e->simulated.step_us * 1e-3, e->price.step_us * 1e-3, e->imbalance);
  printf("memory of the fullest rank: %.1f GB\n", e->memory.total * 1e-9);
  return BL_OK;
}

bl_status bl_simulate_layout(const bl_simulate_request *q) {
  bl_search_entry *e;
  const bl_search_options options = {.model = q->model,
                                     .cluster = q->cluster,
                                     .ranks = bl_layout_world(q->layout),
                                     .memory_bytes = q->cluster->memory_bytes};
  double imbalance;
  BL_TRY(check_fit(q));
  BL_TRY(imbalance_of(q, &imbalance));
  BL_TRY(bl_new(&e, 1, sizeof *e, "a layout"));
  fill_entry(q, imbalance, e);
  bl_status status = bl_survivor_simulate(&options, false, e);
  if (status == BL_OK && q->perfetto) status = draw(q, &options, e);
  if (status == BL_OK && q->json)
    print_json(e);
  else if (status == BL_OK)
    status = print_tables(e);
  free(e);
  return status;
}
