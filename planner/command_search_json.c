/* command_search_json.c - what a search found, for scripts. */
#include "base/json.h"
#include "planner/command_search.h"
#include <stdio.h>

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
               {"micro_batches", g->micro_batches},
               {"pieces", g->pieces > 1 ? g->pieces : 1}};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    bl_json_put_int(w, sizes[i].name, sizes[i].value);
  }
  bl_json_put_string(w, "recompute", bl_recompute_names[g->recompute]);
}

static void write_entry(bl_json_writer *w, const bl_search_entry *e) {
  bl_json_begin_object(w);
  write_grid(w, &e->grid);
  bl_json_key(w, "stage_layers");
  bl_json_begin_flat_array(w);
  for (int32_t s = 0; s < e->grid.pp * e->grid.vp; s++) bl_json_write_int(w, e->first[s + 1] - e->first[s]);
  bl_json_end_array(w);
  bl_json_put_number(w, "step_us", bl_search_predicted(e)->step_us);
  if (e->simulated.step_us > 0) bl_json_put_number(w, "simulated_us", e->simulated.step_us);
  bl_json_put_number(w, "closed_form_us", e->price.step_us);
  bl_json_put_number(w, "bound_us", e->bound_us);
  bl_json_put_number(w, "imbalance", e->imbalance);
  bl_json_put_number(w, "memory_bytes", e->memory.total);
  bl_json_key(w, "time_us");
  bl_json_begin_object(w);
  for (int u = 0; u < BL_PRICE_COUNT; u++) bl_json_put_number(w, bl_price_names[u], bl_search_predicted(e)->us[u]);
  bl_json_end_object(w);
  bl_json_key(w, "memory");
  bl_json_begin_object(w);
  for (int k = 0; k < BL_FOOTPRINT_COUNT; k++) bl_json_put_number(w, bl_footprint_names[k], e->memory.bytes[k]);
  bl_json_end_object(w);
  bl_json_end_object(w);
}

/* Which efficiency the times follow from. */
static void write_rate(bl_json_writer *w, const bl_device *c) {
  const bool narrow = c->matrix.tflops > 0;
  bl_json_put_string(w, "type", c->matrix.name);
  bl_json_put_number(w, "efficiency", narrow ? c->matrix.efficiency : c->efficiency);
  bl_json_put_string(w, "efficiency_source", narrow ? c->matrix.source : c->efficiency_source);
}

/* Of the first device; beside it, where there are several, of each. */
static void write_rates(bl_json_writer *w, const bl_cluster *c) {
  write_rate(w, &c->node_group[0].device);
  if (bl_search_next_device(c, 0) == c->n_node_groups) return;
  bl_json_key(w, "devices");
  bl_json_begin_array(w);
  for (int32_t i = 0; i < c->n_node_groups; i = bl_search_next_device(c, i)) {
    bl_json_begin_object(w);
    bl_json_put_string(w, "name", c->node_group[i].device.name);
    write_rate(w, &c->node_group[i].device);
    bl_json_end_object(w);
  }
  bl_json_end_array(w);
}

void bl_search_print_json(const bl_search_report *report) {
  const bl_search_result *r = report->result;
  bl_json_writer w;
  bl_json_writer_init(&w, stdout, true);
  bl_json_begin_object(&w);
  bl_json_put_number(&w, "ranks", report->options->ranks);
  write_rates(&w, report->options->cluster);
  bl_plan_costs costs;
  bl_profiled_costs(report->options->cluster, report->options->model, &costs);
  bl_plan_costs_write(&w, &costs);
  bl_json_put_number(&w, "batch", report->options->batch);
  bl_json_put_number(&w, "layouts", (double)r->layouts);
  bl_json_put_number(&w, "priced", (double)r->priced);
  bl_json_put_number(&w, "simulated", r->simulated);
  bl_json_put_number(&w, "open", (double)r->open);
  bl_json_put_number(&w, "bound_us", bl_search_bound_us(r));
  bl_json_put_number(&w, "roofline_us", r->roofline_us);
  bl_json_put_number(&w, "gap", bl_search_predicted(&r->entry[0])->step_us / bl_search_bound_us(r) - 1);
  bl_json_key(&w, "top");
  bl_json_begin_array(&w);
  for (int32_t i = 0; i < r->n; i++) write_entry(&w, &r->entry[i]);
  bl_json_end_array(&w);
  bl_json_key(&w, "pruned");
  bl_json_begin_array(&w);
  for (int i = 0; i < BL_SEARCH_REASON_COUNT; i++) {
    if (r->rejected[i] == 0) continue;
    bl_json_begin_object(&w);
    bl_json_put_number(&w, "count", (double)r->rejected[i]);
    bl_json_put_string(&w, "reason", bl_search_reasons[i]);
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
