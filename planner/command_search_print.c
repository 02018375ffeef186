/* command_search_print.c - the output of ballast-plan search. */
#include "planner/command_search_print.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/table.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* What the search says of an entry: the simulation, where there is one. */
static const bl_step_price *predicted(const bl_search_entry *e) {
  return e->simulated.step_us > 0 ? &e->simulated : &e->price;
}

static void write_entry(bl_json_writer *w, const bl_search_entry *e) {
  bl_json_begin_object(w);
  write_grid(w, &e->grid);
  bl_json_key(w, "stage_layers");
  bl_json_begin_flat_array(w);
  for (int32_t s = 0; s < e->grid.pp * e->grid.vp; s++) bl_json_write_int(w, e->first[s + 1] - e->first[s]);
  bl_json_end_array(w);
  bl_json_put_number(w, "step_us", predicted(e)->step_us);
  if (e->simulated.step_us > 0) bl_json_put_number(w, "simulated_us", e->simulated.step_us);
  bl_json_put_number(w, "closed_form_us", e->price.step_us);
  bl_json_put_number(w, "bound_us", e->bound_us);
  bl_json_put_number(w, "imbalance", e->imbalance);
  bl_json_put_number(w, "memory_bytes", e->memory.total);
  bl_json_key(w, "time_us");
  bl_json_begin_object(w);
  for (int u = 0; u < BL_PRICE_COUNT; u++) bl_json_put_number(w, bl_price_names[u], predicted(e)->us[u]);
  bl_json_end_object(w);
  bl_json_key(w, "memory");
  bl_json_begin_object(w);
  for (int k = 0; k < BL_FOOTPRINT_COUNT; k++) bl_json_put_number(w, bl_footprint_names[k], e->memory.bytes[k]);
  bl_json_end_object(w);
  bl_json_end_object(w);
}

/* No layout takes less, simulated or, where nothing is, in closed form. */
static double bound_of(const bl_search_result *r) { return r->simulated > 0 ? r->proved_us : r->bound_us; }

/* Which efficiency the times follow from. */
static void write_rate(bl_json_writer *w, const bl_device *c) {
  const bool narrow = c->matrix.tflops > 0;
  bl_json_put_string(w, "type", c->matrix.name);
  bl_json_put_number(w, "efficiency", narrow ? c->matrix.efficiency : c->efficiency);
  bl_json_put_string(w, "efficiency_source", narrow ? c->matrix.source : c->efficiency_source);
}

/* The next node group after `i` (-1: the first) whose device no group before it has; the number of groups: none. */
static int32_t next_device(const bl_cluster *c, int32_t i) {
  while (++i < c->n_node_groups) {
    int32_t same = 0;
    while (same < i && memcmp(&c->node_group[same].device, &c->node_group[i].device, sizeof(bl_device)) != 0) same++;
    if (same == i) break;
  }
  return i;
}

/* Of the first device; beside it, where there are several, of each. */
static void write_rates(bl_json_writer *w, const bl_cluster *c) {
  write_rate(w, &c->node_group[0].device);
  if (next_device(c, 0) == c->n_node_groups) return;
  bl_json_key(w, "devices");
  bl_json_begin_array(w);
  for (int32_t i = 0; i < c->n_node_groups; i = next_device(c, i)) {
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
  bl_json_put_number(&w, "batch", report->options->batch);
  bl_json_put_number(&w, "layouts", (double)r->layouts);
  bl_json_put_number(&w, "priced", (double)r->priced);
  bl_json_put_number(&w, "simulated", r->simulated);
  bl_json_put_number(&w, "open", (double)r->open);
  bl_json_put_number(&w, "bound_us", bound_of(r));
  bl_json_put_number(&w, "roofline_us", r->roofline_us);
  bl_json_put_number(&w, "gap", predicted(&r->entry[0])->step_us / bound_of(r) - 1);
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
    bl_table_cell(table, "%.1f", predicted(e)->step_us * 1e-3);
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
      shown[u] |= predicted(&r->entry[i])->us[u] >= 5e-4 * predicted(&r->entry[i])->step_us;
    if (shown[u]) n += (size_t)snprintf(headings + n, sizeof headings - n, "|%s", bl_price_names[u]);
  }
  BL_TRY(bl_table_create(headings, &table));
  for (int32_t i = 0; i < r->n; i++) {
    const bl_step_price *p = predicted(&r->entry[i]);
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
  const double gap = 100 * (predicted(best)->step_us / bound_of(r) - 1);
  if (r->simulated == 0)
    printf("no step program is simulated; ");
  else if (r->open == 0)
    printf("%d layouts simulated; the bounds of all others are above the best: it is the fastest of the space\n",
           r->simulated);
  else
    printf("%d layouts simulated; %" PRId64 " more might be faster by their bounds (--simulate N)\n", r->simulated,
           r->open);
  printf("no layout that memory allows takes less than %.1f ms: the best is within %.2f %%; arithmetic alone %.1f ms\n",
         bound_of(r) * 1e-3, gap > 0 ? gap : 0, r->roofline_us * 1e-3);
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
  const bool several = next_device(c, 0) < c->n_node_groups;
  for (int32_t i = 0; i < c->n_node_groups; i = next_device(c, i)) {
    if (several) printf("%s: ", c->node_group[i].device.name);
    print_rate(&c->node_group[i].device);
  }
}

static void print_best(const bl_search_report *report) {
  const bl_search_result *r = report->result;
  const bl_search_entry *best = &r->entry[0];
  char text[GRID_TEXT];
  printf("\nlayers of the best one's stages:");
  for (int32_t s = 0; s < best->grid.pp * best->grid.vp; s++) printf(" %d", best->first[s + 1] - best->first[s]);
  printf("\nmemory of its fullest rank, GB:");
  for (int k = 0; k < BL_FOOTPRINT_COUNT; k++)
    if (best->memory.bytes[k] > 0)
      printf("%s %s %.1f", k ? "," : "", bl_footprint_names[k], best->memory.bytes[k] * 1e-9);
  printf("; it may fill %.1f\n", best->memory_share * report->options->memory_bytes * 1e-9);
  printf("expert imbalance: %.3f (%s)\n", best->imbalance, report->imbalance_source);
  print_rates(report->options->cluster);
  print_bound(r);
  printf("%" PRId64 " folds, %" PRId64 " layouts, %" PRId64 " priced; not priced:\n", r->folds, r->layouts, r->priced);
  for (int i = 0; i < BL_SEARCH_REASON_COUNT; i++)
    if (r->rejected[i] > 0)
      printf("%12" PRId64 "  %s: %s\n", r->rejected[i], bl_search_reasons[i], grid_text(&r->example[i], text));
}

bl_status bl_search_print(const bl_search_report *report) {
  BL_TRY(print_layouts(report->result));
  BL_TRY(print_times(report->result));
  print_best(report);
  return BL_OK;
}

/* -- nothing found ------------------------------------------------------------------------------------------------- */

/* The least multiple of the ranks, by doubling, on which something fits, `held` bytes being what the leanest layout
 * holds now; 0: none within the cluster. What a rank holds shrinks at most in proportion to their number. */
static bl_status more_ranks(const bl_search_report *report, double held, int32_t *ranks) {
  bl_search_options o = *report->options;
  bl_search_result r;
  const double wanted = o.ranks * held / o.memory_bytes;
  const int64_t most = bl_cluster_ranks(o.cluster);
  o.top = 1;
  o.simulate = 0;
  *ranks = 0;
  while (*ranks == 0 && 2 * (int64_t)o.ranks <= most) {
    o.ranks *= 2;
    if (o.cluster->n_node_groups == 1 && o.ranks < wanted) continue;
    BL_TRY(bl_search(&o, &r));
    if (r.n > 0) *ranks = o.ranks;
    bl_search_free(&r);
  }
  return BL_OK;
}

bl_status bl_search_explain_nothing(const bl_search_report *report) {
  const bl_search_options *o = report->options;
  char text[GRID_TEXT], more[64] = "";
  bl_search_entry *least;
  int32_t ranks, worst = 0;
  BL_TRY(bl_new(&least, 1, sizeof *least, "layouts"));
  bl_status status = bl_search_least_memory(o, least);
  if (status == BL_OK) status = more_ranks(report, least->memory.total / least->memory_share, &ranks);
  if (status == BL_OK) {
    const bl_footprint *f = &least->memory;
    const double may = o->memory_bytes * least->memory_share;
    for (int k = 1; k < BL_FOOTPRINT_COUNT; k++)
      if (f->bytes[k] > f->bytes[worst]) worst = k;
    if (ranks > 0) snprintf(more, sizeof more, ", or %d ranks", ranks);
    status = bl_fail(
        BL_EINPUT,
        "model %s does not fit %d ranks with a batch of %d: the leanest layout (%s, zero %d, recompute %s) "
        "fills %.1f GB of a rank, %.1f GB more than the %.1f GB it may, most of it %s (%.1f GB); nearest "
        "change: devices of %.0f GB%s",
        o->model->name, o->ranks, o->batch, grid_text(&least->grid, text), least->grid.zero,
        bl_recompute_names[least->grid.recompute], f->total * 1e-9, (f->total - may) * 1e-9, may * 1e-9,
        bl_footprint_names[worst], f->bytes[worst] * 1e-9, f->total / report->memory_fraction * 1e-9 + 0.5, more);
  }
  free(least);
  return status;
}
