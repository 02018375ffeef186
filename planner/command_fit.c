/* ballast-plan fit: efficiencies of devices from measured steps. */
#include "base/json.h"
#include "base/table.h"
#include "planner/commands.h"
#include "planner/search/fit.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static struct {
  const char *steps, *output;
  double memory_fraction;
  bool json;
} arg = {.memory_fraction = 0.9};

static const char *type_of(const bl_measured_step *s) { return s->type[0] ? s->type : "-"; }

static double mean_error(const bl_fit *fit, int32_t *judged) {
  double sum = 0;
  *judged = 0;
  for (int32_t g = 0; g < fit->n_groups; g++) {
    sum += fit->group[g].judged * fit->group[g].judged_error;
    *judged += fit->group[g].judged;
  }
  return *judged > 0 ? sum / *judged : 0;
}

static bl_status print_tables(const bl_fit *fit) {
  bl_table *table;
  int32_t judged;
  const double mean = mean_error(fit, &judged);
  BL_TRY(bl_table_create("<step|<release|<type|measured ms|predicted ms|error %|<", &table));
  for (int32_t i = 0; i < fit->n_steps; i++) {
    const bl_measured_step *s = fit->step[i];
    bl_table_cell(table, "%s", s->name);
    bl_table_cell(table, "%s", s->release);
    bl_table_cell(table, "%s", type_of(s));
    bl_table_cell(table, "%.1f", s->step_us * 1e-3);
    bl_table_cell(table, "%.1f", s->predicted_us * 1e-3);
    bl_table_cell(table, "%+.1f", 100 * (s->predicted_us / s->step_us - 1));
    bl_table_cell(table, "%s", s->judged ? "not fitted" : "fitted");
  }
  bl_table_print(table, stdout);
  bl_table_free(table);
  printf("\n");
  BL_TRY(bl_table_create("<device|<type|<release|steps|efficiency|error of fit %|judged|error %", &table));
  for (int32_t g = 0; g < fit->n_groups; g++) {
    const bl_fit_group *group = &fit->group[g];
    const bl_measured_step *s = fit->step[group->first];
    bl_table_cell(table, "%s", s->cluster.node_group[0].device.name);
    bl_table_cell(table, "%s", type_of(s));
    bl_table_cell(table, "%s", s->release);
    bl_table_cell(table, "%d", group->steps);
    bl_table_cell(table, "%.4f", group->efficiency);
    bl_table_cell(table, "%.2f", 100 * group->own_error);
    bl_table_cell(table, "%d", group->judged);
    if (group->judged > 0)
      bl_table_cell(table, "%.2f", 100 * group->judged_error);
    else
      bl_table_cell(table, "-");
  }
  bl_table_print(table, stdout);
  bl_table_free(table);
  if (judged > 0) printf("\nmean error of %d steps, each by a fit without it: %.2f %%\n", judged, 100 * mean);
  return BL_OK;
}

static void write_group(bl_json_writer *w, const bl_fit *fit, int32_t g) {
  const bl_fit_group *group = &fit->group[g];
  const bl_measured_step *first = fit->step[group->first];
  bl_json_begin_object(w);
  bl_json_put_string(w, "device", first->cluster.node_group[0].device.name);
  bl_json_put_string(w, "type", first->type);
  bl_json_put_string(w, "release", first->release);
  bl_json_put_number(w, "efficiency", group->efficiency);
  bl_json_put_number(w, "fit_error", group->own_error);
  bl_json_put_number(w, "judged", group->judged);
  bl_json_put_number(w, "judged_error", group->judged_error);
  bl_json_key(w, "steps");
  bl_json_begin_array(w);
  for (int32_t i = 0; i < fit->n_steps; i++) {
    const bl_measured_step *s = fit->step[i];
    if (s->group != g) continue;
    bl_json_begin_object(w);
    bl_json_put_string(w, "name", s->name);
    bl_json_put_number(w, "measured_us", s->step_us);
    bl_json_put_number(w, "predicted_us", s->predicted_us);
    bl_json_put_bool(w, "judged", s->judged);
    bl_json_end_object(w);
  }
  bl_json_end_array(w);
  bl_json_end_object(w);
}

static void print_json(const bl_fit *fit) {
  bl_json_writer w;
  int32_t judged;
  bl_json_writer_init(&w, stdout, true);
  bl_json_begin_object(&w);
  bl_json_put_number(&w, "judged_error", mean_error(fit, &judged));
  bl_json_put_number(&w, "judged", judged);
  bl_json_key(&w, "groups");
  bl_json_begin_array(&w);
  for (int32_t g = 0; g < fit->n_groups; g++) write_group(&w, fit, g);
  bl_json_end_array(&w);
  bl_json_end_object(&w);
  bl_json_newline(&w);
}

/* The cluster of the steps, which must be one, with what was fitted last for each type. */
static bl_status save_cluster(const bl_fit *fit) {
  bl_cluster c = fit->step[0]->cluster;
  bl_device *d = &c.node_group[0].device;
  for (int32_t g = 0; g < fit->n_groups; g++) {
    const bl_fit_group *group = &fit->group[g];
    const bl_measured_step *s = fit->step[group->first];
    char source[sizeof d->efficiency_source];
    if (strcmp(s->cluster.name, c.name) != 0)
      return bl_fail(BL_EINPUT, "%s has steps of two clusters, %s and %s: -o writes one", arg.steps, c.name,
                     s->cluster.name);
    snprintf(source, sizeof source, "ballast-plan fit: %d steps of release %s, such as %s; mean error %.1f %%",
             group->steps, s->release, s->name, 100 * (group->judged > 0 ? group->judged_error : group->own_error));
    if (!s->type[0]) {
      d->efficiency = group->efficiency;
      memcpy(d->efficiency_source, source, sizeof source);
    }
    for (int32_t t = 0; t < d->n_types; t++)
      if (s->type[0] && strcmp(d->types[t].name, s->type) == 0) {
        d->types[t].efficiency = group->efficiency;
        memcpy(d->types[t].source, source, sizeof source);
      }
  }
  return bl_cluster_save(arg.output, &c);
}

static bl_status run(void *context) {
  bl_fit fit;
  (void)context;
  BL_TRY(bl_fit_load(arg.steps, arg.memory_fraction, &fit));
  bl_status status = bl_fit_run(&fit);
  if (status == BL_OK && arg.output) status = save_cluster(&fit);
  if (status == BL_OK && arg.json)
    print_json(&fit);
  else if (status == BL_OK)
    status = print_tables(&fit);
  bl_fit_free(&fit);
  return status;
}

bl_command bl_command_fit(void) {
  static const bl_option options[] = {
      {.name = "steps",
       .type = BL_OPTION_STRING,
       .target = &arg.steps,
       .metavar = "FILE",
       .help = "measured steps (JSON; planner/search/fit.h describes it)",
       .required = true},
      {.name = "memory-fraction",
       .type = BL_OPTION_NUMBER,
       .target = &arg.memory_fraction,
       .metavar = "X",
       .help = "of a device's memory, as for search",
       .min = 0.01,
       .max = 1},
      {.name = "output|o",
       .type = BL_OPTION_STRING,
       .target = &arg.output,
       .metavar = "FILE",
       .help = "the steps' cluster with the efficiencies fitted and their source; of several releases the last"},
      {.name = "json", .type = BL_OPTION_FLAG, .target = &arg.json, .help = "results as JSON"}};
  return (bl_command){
      .name = "fit",
      .summary = "fits efficiencies of devices to measured steps",
      .description =
          "One efficiency for each device, data type and release, judged on steps that it was not fitted to: "
          "those that the file names, else each in turn.",
      .example = "ballast-plan fit --steps steps.json -o cluster.json",
      .options = options,
      .n_options = sizeof options / sizeof *options,
      .run = run};
}
