/* command_search_print.c - what a search found, for people. */
#include "base/memory.h"
#include "base/table.h"
#include "planner/command_search.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *bl_grid_text(const bl_grid *g, char *text) {
  const struct {
    const char *name;
    int32_t value;
  } sizes[] = {{"tp", g->tp}, {"cp", g->cp},   {"dp", g->dp}, {"pp", g->pp},
               {"vp", g->vp}, {"etp", g->etp}, {"ep", g->ep}, {"micro-batch", g->micro_batch}};
  size_t n = 0;
  text[0] = '\0';
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    if (sizes[i].value > 0)
      n += (size_t)snprintf(text + n, BL_GRID_TEXT_MAX - n, "%s%s %d", n ? ", " : "", sizes[i].name, sizes[i].value);
  return text;
}

const bl_step_price *bl_search_predicted(const bl_search_entry *e) {
  return e->simulated.step_us > 0 ? &e->simulated : &e->price;
}

double bl_search_bound_us(const bl_search_result *r) { return r->simulated > 0 ? r->proved_us : r->bound_us; }

#include <string.h>

int32_t bl_search_next_device(const bl_cluster *c, int32_t i) {
  while (++i < c->n_node_groups) {
    int32_t same = 0;
    while (same < i && memcmp(&c->node_group[same].device, &c->node_group[i].device, sizeof(bl_device)) != 0) same++;
    if (same == i) break;
  }
  return i;
}

static bl_status print_layouts(const bl_search_result *r) {
  bl_table *table;
  BL_TRY(bl_table_create("#|tp|cp|dp|pp|vp|etp|ep|edp|zero|sequences|<recompute|pieces|step ms|closed form ms|GB",
                         &table));
  for (int32_t i = 0; i < r->n; i++) {
    const bl_search_entry *e = &r->entry[i];
    const bl_grid *g = &e->grid;
    const int32_t sizes[] = {i + 1, g->tp, g->cp, g->dp, g->pp, g->vp, g->etp, g->ep, g->edp, g->zero};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) bl_table_cell(table, "%d", sizes[k]);
    bl_table_cell(table, "%d x %d", g->micro_batches, g->micro_batch);
    bl_table_cell(table, "%s", bl_recompute_names[g->recompute]);
    bl_table_cell(table, "%d", g->pieces > 1 ? g->pieces : 1);
    bl_table_cell(table, "%.1f", bl_search_predicted(e)->step_us * 1e-3);
    bl_table_cell(table, "%.1f", e->price.step_us * 1e-3);
    bl_table_cell(table, "%.1f", e->memory.total * 1e-9);
  }
  bl_table_print(table, stdout);
  bl_table_free(table);
  printf("sequences: micro-batches of a step x sequences in each; step: %s; GB: on the fullest rank\n",
         r->simulated > 0 ? "simulated, action by action" : "in closed form");
  return BL_OK;
}

/* Kinds of time that some entry has. */
static bl_status print_times(const bl_search_result *r) {
  bl_table *table;
  char headings[256] = "#";
  size_t n = 1;
  bool shown[BL_PRICE_COUNT] = {false};
  for (int u = 0; u < BL_PRICE_COUNT; u++) {
    for (int32_t i = 0; i < r->n; i++)
      shown[u] |= bl_search_predicted(&r->entry[i])->us[u] >= 5e-4 * bl_search_predicted(&r->entry[i])->step_us;
    if (shown[u]) n += (size_t)snprintf(headings + n, sizeof headings - n, "|%s", bl_price_names[u]);
  }
  BL_TRY(bl_table_create(headings, &table));
  for (int32_t i = 0; i < r->n; i++) {
    const bl_step_price *p = bl_search_predicted(&r->entry[i]);
    bl_table_cell(table, "%d", i + 1);
    for (int u = 0; u < BL_PRICE_COUNT; u++)
      if (shown[u]) bl_table_cell(table, "%.1f", 100 * p->us[u] / p->step_us);
  }
  printf("\nwhere the step goes, percent of it, on the ranks that compute most:\n");
  bl_table_print(table, stdout);
  bl_table_free(table);
  for (int u = 0; u < BL_PRICE_COUNT; u++)
    if (shown[u]) printf("  %-10s %s\n", bl_price_names[u], bl_price_meanings[u]);
  return BL_OK;
}

static void print_bound(const bl_search_result *r) {
  const bl_search_entry *best = &r->entry[0];
  const double gap = 100 * (bl_search_predicted(best)->step_us / bl_search_bound_us(r) - 1);
  if (r->simulated == 0)
    printf("no step program is simulated; ");
  else if (r->open == 0)
    printf("%d layouts simulated; the bounds of all others are above the best: it is the fastest of the space\n",
           r->simulated);
  else
    printf("%d layouts simulated; %" PRId64 " more might be faster by their bounds (--simulate N)\n", r->simulated,
           r->open);
  printf("no layout that memory allows takes less than %.1f ms: the best is within %.2f %%; arithmetic alone %.1f ms\n",
         bl_search_bound_us(r) * 1e-3, gap > 0 ? gap : 0, r->roofline_us * 1e-3);
}

static void print_rate(const bl_device *c) {
  const bool narrow = c->matrix.tflops > 0;
  if (narrow)
    printf("products with weights in %s: %.3f of %.0f TFLOP/s (%s)\n", c->matrix.name, c->matrix.efficiency,
           c->matrix.tflops, c->matrix.source);
  printf("%s: %.3f of %.0f TFLOP/s (%s)\n", narrow ? "all else" : "compute", c->efficiency, c->tflops,
         c->efficiency_source);
}

static void print_rates(const bl_cluster *c) {
  const bool several = bl_search_next_device(c, 0) < c->n_node_groups;
  for (int32_t i = 0; i < c->n_node_groups; i = bl_search_next_device(c, i)) {
    if (several) printf("%s: ", c->node_group[i].device.name);
    print_rate(&c->node_group[i].device);
  }
}

static void print_best(const bl_search_report *report) {
  const bl_search_result *r = report->result;
  const bl_search_entry *best = &r->entry[0];
  char text[BL_GRID_TEXT_MAX];
  printf("\nlayers of the best one's stages:");
  for (int32_t s = 0; s < best->grid.pp * best->grid.vp; s++) printf(" %d", best->first[s + 1] - best->first[s]);
  printf("\nmemory of its fullest rank, GB:");
  for (int k = 0; k < BL_FOOTPRINT_COUNT; k++)
    if (best->memory.bytes[k] > 0)
      printf("%s %s %.1f", k ? "," : "", bl_footprint_names[k], best->memory.bytes[k] * 1e-9);
  printf("; it may fill %.1f\n", best->memory_share * report->options->memory_bytes * 1e-9);
  printf("expert imbalance: %.3f (%s)\n", best->imbalance, report->imbalance_source);
  print_rates(report->options->cluster);
  bl_plan_costs costs;
  bl_profiled_costs(report->options->cluster, report->options->model, &costs);
  bl_plan_costs_print(&costs);
  print_bound(r);
  printf("%" PRId64 " folds, %" PRId64 " layouts, %" PRId64 " priced; not priced:\n", r->folds, r->layouts, r->priced);
  for (int i = 0; i < BL_SEARCH_REASON_COUNT; i++)
    if (r->rejected[i] > 0)
      printf("%12" PRId64 "  %s: %s\n", r->rejected[i], bl_search_reasons[i], bl_grid_text(&r->example[i], text));
}

bl_status bl_search_print(const bl_search_report *report) {
  BL_TRY(print_layouts(report->result));
  BL_TRY(print_times(report->result));
  print_best(report);
  return BL_OK;
}
