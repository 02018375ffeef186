/* command_simulate_report.c - simulated steps summed up, beside the run log's where there is one. */
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/table.h"
#include "costmodel/calibrate.h"
#include "planner/command_simulate.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t max_log_bytes = (uint64_t)1 << 30;

/* -- the run log --------------------------------------------------------------------------------------------------- */

static bl_simulated_step *find_step(bl_simulated_steps *r, int64_t iteration) {
  for (size_t i = 0; i < r->n; i++)
    if (r->steps[i].iteration == iteration) return &r->steps[i];
  return NULL;
}

static bl_status read_log_line(const char *path, const char *text, uint64_t size, bl_simulated_steps *r) {
  bl_json_doc *doc;
  bl_json root, phases;
  int64_t step = -1;
  bl_simulated_step *found = NULL;
  BL_TRY(bl_json_parse(path, text, size, &doc, &root));
  bl_status status = bl_json_int_or(root, "step", 0, INT64_MAX, &step);
  if (status == BL_OK && step >= 0 && (found = find_step(r, step)) != NULL)
    status = bl_json_number(root, "step_us", 1e-3, 1e15, &found->measured_us);
  if (status == BL_OK && found && bl_json_has(root, "phases")) {
    status = bl_json_object(root, "phases", &phases);
    for (int k = 0; k < BL_ACTION_COUNT && status == BL_OK; k++) {
      double us = 0;
      status = bl_json_number_or(phases, bl_action_names[k], 0, 1e15, &us);
      r->measured_phase_us[k] += us;
    }
  }
  bl_json_free(doc);
  return status;
}

bl_status bl_simulated_read_log(const char *path, bl_simulated_steps *r) {
  char *text;
  uint64_t size;
  BL_TRY(bl_file_read(path, max_log_bytes, &text, &size));
  bl_status status = BL_OK;
  for (char *line = text; status == BL_OK && line < text + size;) {
    char *end = memchr(line, '\n', (size_t)(text + size - line));
    if (!end) break; /* a line cut short */
    *end = '\0';
    status = read_log_line(path, line, (uint64_t)(end - line), r);
    line = end + 1;
  }
  free(text);
  BL_TRY(status);
  for (size_t i = 0; i < r->n; i++)
    if (!(r->steps[i].measured_us > 0))
      return bl_fail(BL_EINPUT, "%s: has no step %" PRId64 ", which the trace has", path, r->steps[i].iteration);
  return BL_OK;
}

/* -- summing up ---------------------------------------------------------------------------------------------------- */

typedef struct summary {
  double mean, median, longest, compute, wait, exposed, memory;
  double measured_median, error, scale, held_out;                       /* with a run log */
  double phase_us[BL_ACTION_COUNT], measured_phase_us[BL_ACTION_COUNT]; /* means over steps */
} summary;

static int compare(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static bl_status sum_up(const bl_simulated_steps *r, bool with_log, summary *s) {
  double *predicted = NULL, *measured = NULL;
  const size_t n = r->n;
  const double d = (double)n;
  bl_status status = BL_OK;
  BL_TRY_GOTO(status, bl_new(&predicted, n, sizeof *predicted, "simulated steps"), done);
  BL_TRY_GOTO(status, bl_new(&measured, n, sizeof *measured, "simulated steps"), done);
  memset(s, 0, sizeof *s);
  for (size_t i = 0; i < n; i++) {
    const bl_simulated_step *w = &r->steps[i];
    predicted[i] = w->step_us;
    measured[i] = w->measured_us;
    s->mean += w->step_us / d;
    s->compute += w->compute_us / d;
    s->wait += w->wait_us / d;
    s->exposed += w->exposed_us / d;
    if (w->memory_bytes > s->memory) s->memory = w->memory_bytes;
  }
  if (with_log) {
    s->error = bl_mean_error(predicted, measured, (int32_t)n);
    BL_TRY_GOTO(status, bl_fit_scale(predicted, measured, (int32_t)n, &s->scale, &s->held_out), done);
  }
  qsort(predicted, n, sizeof *predicted, compare);
  qsort(measured, n, sizeof *measured, compare);
  s->median = predicted[n / 2];
  s->longest = predicted[n - 1];
  s->measured_median = measured[n / 2];
  for (int k = 0; k < BL_ACTION_COUNT; k++) {
    s->phase_us[k] = r->phase_us[k] / d;
    s->measured_phase_us[k] = r->measured_phase_us[k] / d;
  }
done:
  free(predicted);
  free(measured);
  return status;
}

static void print_json(const bl_simulated_steps *r, const summary *s, bool with_log) {
  bl_json_writer w;
  bl_json_writer_init(&w, stdout, true);
  bl_json_begin_object(&w);
  bl_json_put_number(&w, "steps", (double)r->n);
  bl_json_put_number(&w, "step_us_mean", s->mean);
  bl_json_put_number(&w, "step_us_median", s->median);
  bl_json_put_number(&w, "step_us_longest", s->longest);
  bl_json_put_number(&w, "compute_us", s->compute);
  bl_json_put_number(&w, "wait_us", s->wait);
  bl_json_put_number(&w, "exposed_us", s->exposed);
  bl_json_put_number(&w, "memory_bytes", s->memory);
  if (with_log) {
    bl_json_put_number(&w, "measured_us_median", s->measured_median);
    bl_json_put_number(&w, "error_mean", s->error);
    bl_json_put_number(&w, "scale", s->scale);
    bl_json_put_number(&w, "error_held_out", s->held_out);
  }
  bl_json_key(&w, "phases");
  bl_json_begin_object(&w);
  for (int k = 0; k < BL_ACTION_COUNT; k++)
    if (s->phase_us[k] > 0) bl_json_put_number(&w, bl_action_names[k], s->phase_us[k]);
  bl_json_end_object(&w);
  bl_json_key(&w, "iterations");
  bl_json_begin_array(&w);
  for (size_t i = 0; i < r->n; i++) {
    bl_json_begin_flat_object(&w);
    bl_json_put_number(&w, "iteration", (double)r->steps[i].iteration);
    bl_json_put_number(&w, "step_us", r->steps[i].step_us);
    if (with_log) bl_json_put_number(&w, "measured_us", r->steps[i].measured_us);
    bl_json_end_object(&w);
  }
  bl_json_end_array(&w);
  bl_json_end_object(&w);
  bl_json_newline(&w);
}

static bl_status print_tables(const bl_simulated_steps *r, const summary *s, bool with_log) {
  bl_table *table;
  BL_TRY(bl_table_create(with_log ? "<action|us a step|%|measured us|%" : "<action|us a step|%", &table));
  for (int k = 0; k < BL_ACTION_COUNT; k++) {
    if (s->phase_us[k] <= 0 && s->measured_phase_us[k] <= 0) continue;
    bl_table_cell(table, "%s", bl_action_names[k]);
    bl_table_cell(table, "%.0f", s->phase_us[k]);
    bl_table_cell(table, "%.1f", 100 * s->phase_us[k] / s->mean);
    if (!with_log) continue;
    bl_table_cell(table, "%.0f", s->measured_phase_us[k]);
    bl_table_cell(table, "%.1f", 100 * s->measured_phase_us[k] / s->measured_median);
  }
  bl_table_print(table, stdout);
  bl_table_free(table);
  printf("\n%zu step%s: mean %.0f us, median %.0f us, longest %.0f us\n", r->n, r->n == 1 ? "" : "s", s->mean,
         s->median, s->longest);
  printf("a rank computes %.0f us, waits for others %.0f us; communication exposed %.0f us\n", s->compute, s->wait,
         s->exposed);
  printf("memory peak of a rank: %.1f MB\n", s->memory * 1e-6);
  if (with_log) {
    printf("measured: median %.0f us; the median step is predicted %+.1f %% off, a single step %.1f %% on average\n",
           s->measured_median, 100 * (s->median / s->measured_median - 1), 100 * s->error);
    printf("best factor: %.3f, with which a step not fitted is %.1f %% off\n", s->scale, 100 * s->held_out);
  }
  return BL_OK;
}

bl_status bl_simulated_print(const bl_simulated_steps *found, bool with_log, bool json) {
  summary s;
  BL_TRY(sum_up(found, with_log, &s));
  if (!json) return print_tables(found, &s, with_log);
  print_json(found, &s, with_log);
  return BL_OK;
}
