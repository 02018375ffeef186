/* ballast-plan simulate: what a step takes, on paper. */
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/table.h"
#include "costmodel/calibrate.h"
#include "costmodel/cluster.h"
#include "planner/command_simulate_layout.h"
#include "planner/commands.h"
#include "planner/forecast.h"
#include "planner/policy_options.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static struct {
  bl_policy_options policy;
  const char *plan, *profile, *cluster, *model, *trace, *slots, *steps, *perfetto, *measured, *log;
  int64_t ranks, batch, micro_batches;
  bool json, ranks_given;
} arg = {.ranks = 1, .batch = 8, .micro_batches = 1};

enum { MAX_MICRO_BATCHES = 65536 };
static const uint64_t max_log_bytes = (uint64_t)1 << 30;

/* One forecast step, and what the run log says of it where there is one. */
typedef struct row {
  int64_t iteration;
  double step_us, measured_us, wait_us, exposed_us, compute_us, memory_bytes;
} row;

typedef struct result {
  row *rows;
  size_t n, room;
  double phase_us[BL_ACTION_COUNT], measured_phase_us[BL_ACTION_COUNT]; /* means over steps */
  bool drawn;                                                           /* the timeline is written */
} result;

/* The first step, or with --measured the one that was measured, beside it. */
static bl_status draw(result *r, int64_t iteration, const bl_step *step, const bl_simulation *s) {
  bl_timeline both[] = {{"predicted", step, s->ranks, s->spans}, {"measured", step, s->ranks, NULL}};
  bl_span *spans = NULL;
  int64_t number = iteration;
  if (arg.measured) BL_TRY(bl_timeline_read(arg.measured, step, s->ranks, &number, &spans));
  both[1].spans = spans;
  bl_status status = BL_OK;
  if (!arg.measured || !arg.trace || number == iteration) {
    status = bl_timeline_write(arg.perfetto, number, both, arg.measured ? 2 : 1);
    r->drawn = true;
  }
  free(spans);
  return status;
}

static bl_status note_step(void *context, int64_t iteration, const bl_step *step, const bl_simulation *s) {
  result *r = context;
  if (arg.perfetto && !r->drawn) BL_TRY(draw(r, iteration, step, s));
  BL_TRY(bl_grow(&r->rows, &r->room, r->n + 1, sizeof *r->rows, "simulated steps"));
  r->rows[r->n++] = (row){.iteration = iteration,
                          .step_us = s->step_us,
                          .wait_us = s->wait_us,
                          .exposed_us = s->exposed_us,
                          .compute_us = s->compute_us,
                          .memory_bytes = s->memory_bytes};
  for (int k = 0; k < BL_ACTION_COUNT; k++) r->phase_us[k] += s->phase_us[k];
  return BL_OK;
}

/* -- the run log ------------------------------------------------------------------------------------------------------
 */

static row *find_row(result *r, int64_t iteration) {
  for (size_t i = 0; i < r->n; i++)
    if (r->rows[i].iteration == iteration) return &r->rows[i];
  return NULL;
}

static bl_status read_log_line(const char *text, uint64_t size, result *r) {
  bl_json_doc *doc;
  bl_json root, phases;
  int64_t step = -1;
  row *found = NULL;
  BL_TRY(bl_json_parse(arg.log, text, size, &doc, &root));
  bl_status status = bl_json_int_or(root, "step", 0, INT64_MAX, &step);
  if (status == BL_OK && step >= 0 && (found = find_row(r, step)) != NULL)
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

static bl_status read_log(result *r) {
  char *text;
  uint64_t size;
  BL_TRY(bl_file_read(arg.log, max_log_bytes, &text, &size));
  bl_status status = BL_OK;
  for (char *line = text; status == BL_OK && line < text + size;) {
    char *end = memchr(line, '\n', (size_t)(text + size - line));
    if (!end) break; /* a line cut short */
    *end = '\0';
    status = read_log_line(line, (uint64_t)(end - line), r);
    line = end + 1;
  }
  free(text);
  BL_TRY(status);
  for (size_t i = 0; i < r->n; i++)
    if (!(r->rows[i].measured_us > 0))
      return bl_fail(BL_EINPUT, "%s: has no step %" PRId64 ", which the trace has", arg.log, r->rows[i].iteration);
  return BL_OK;
}

/* -- summing up
 * -------------------------------------------------------------------------------------------------------- */

typedef struct summary {
  double mean, median, longest, compute, wait, exposed, memory;
  double measured_median, error, scale, held_out; /* with a run log */
} summary;

static int compare(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static bl_status sum_up(result *r, summary *s) {
  double *predicted = NULL, *measured = NULL;
  const size_t n = r->n;
  const double d = (double)n;
  bl_status status = BL_OK;
  BL_TRY_GOTO(status, bl_new(&predicted, n, sizeof *predicted, "simulated steps"), done);
  BL_TRY_GOTO(status, bl_new(&measured, n, sizeof *measured, "simulated steps"), done);
  memset(s, 0, sizeof *s);
  for (size_t i = 0; i < n; i++) {
    const row *w = &r->rows[i];
    predicted[i] = w->step_us;
    measured[i] = w->measured_us;
    s->mean += w->step_us / d;
    s->compute += w->compute_us / d;
    s->wait += w->wait_us / d;
    s->exposed += w->exposed_us / d;
    if (w->memory_bytes > s->memory) s->memory = w->memory_bytes;
  }
  if (arg.log) {
    s->error = bl_mean_error(predicted, measured, (int32_t)n);
    BL_TRY_GOTO(status, bl_fit_scale(predicted, measured, (int32_t)n, &s->scale, &s->held_out), done);
  }
  qsort(predicted, n, sizeof *predicted, compare);
  qsort(measured, n, sizeof *measured, compare);
  s->median = predicted[n / 2];
  s->longest = predicted[n - 1];
  s->measured_median = measured[n / 2];
  for (int k = 0; k < BL_ACTION_COUNT; k++) {
    r->phase_us[k] /= d;
    r->measured_phase_us[k] /= d;
  }
done:
  free(predicted);
  free(measured);
  return status;
}

static void print_json(const result *r, const summary *s) {
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
  if (arg.log) {
    bl_json_put_number(&w, "measured_us_median", s->measured_median);
    bl_json_put_number(&w, "error_mean", s->error);
    bl_json_put_number(&w, "scale", s->scale);
    bl_json_put_number(&w, "error_held_out", s->held_out);
  }
  bl_json_key(&w, "phases");
  bl_json_begin_object(&w);
  for (int k = 0; k < BL_ACTION_COUNT; k++)
    if (r->phase_us[k] > 0) bl_json_put_number(&w, bl_action_names[k], r->phase_us[k]);
  bl_json_end_object(&w);
  bl_json_key(&w, "iterations");
  bl_json_begin_array(&w);
  for (size_t i = 0; i < r->n; i++) {
    bl_json_begin_flat_object(&w);
    bl_json_put_number(&w, "iteration", (double)r->rows[i].iteration);
    bl_json_put_number(&w, "step_us", r->rows[i].step_us);
    if (arg.log) bl_json_put_number(&w, "measured_us", r->rows[i].measured_us);
    bl_json_end_object(&w);
  }
  bl_json_end_array(&w);
  bl_json_end_object(&w);
  bl_json_newline(&w);
}

static bl_status print_tables(const result *r, const summary *s) {
  bl_table *table;
  BL_TRY(bl_table_create(arg.log ? "<action|us a step|%|measured us|%" : "<action|us a step|%", &table));
  for (int k = 0; k < BL_ACTION_COUNT; k++) {
    if (r->phase_us[k] <= 0 && r->measured_phase_us[k] <= 0) continue;
    bl_table_cell(table, "%s", bl_action_names[k]);
    bl_table_cell(table, "%.0f", r->phase_us[k]);
    bl_table_cell(table, "%.1f", 100 * r->phase_us[k] / s->mean);
    if (!arg.log) continue;
    bl_table_cell(table, "%.0f", r->measured_phase_us[k]);
    bl_table_cell(table, "%.1f", 100 * r->measured_phase_us[k] / s->measured_median);
  }
  bl_table_print(table, stdout);
  bl_table_free(table);
  printf("\n%zu steps: mean %.0f us, median %.0f us, longest %.0f us\n", r->n, s->mean, s->median, s->longest);
  printf("a rank computes %.0f us, waits for others %.0f us; communication exposed %.0f us\n", s->compute, s->wait,
         s->exposed);
  printf("memory peak of a rank: %.1f MB\n", s->memory * 1e-6);
  if (arg.log) {
    printf("measured: median %.0f us; the median step is predicted %+.1f %% off, a single step %.1f %% on average\n",
           s->measured_median, 100 * (s->median / s->measured_median - 1), 100 * s->error);
    printf("best factor: %.3f, with which a step not fitted is %.1f %% off\n", s->scale, 100 * s->held_out);
  }
  return BL_OK;
}

/* -- the command
 * ------------------------------------------------------------------------------------------------------- */

typedef struct inputs {
  bl_model model;
  bl_layout layout;
  bl_profile profile;
  bl_plan plan;
  bl_trace_reader *trace;
  int32_t *slots;
} inputs;

static bl_status make_layout(inputs *in) {
  const int32_t ranks = in->plan.has_placement ? in->plan.placement.ranks : (int32_t)arg.ranks;
  const int64_t parts = ranks * arg.micro_batches;
  if (in->plan.has_placement && arg.ranks_given && arg.ranks != ranks)
    return bl_fail(BL_EUSAGE, "--ranks %" PRId64 ": %s places experts on %d ranks", arg.ranks, arg.plan, ranks);
  if (in->plan.has_layout) {
    BL_TRY(bl_layout_check(&in->plan.layout, in->model.layers, arg.plan));
    if (in->plan.layout.micro_batches > MAX_MICRO_BATCHES)
      return bl_fail(BL_EINPUT, "%s: layout.micro_batches: expected at most %d, found %d", arg.plan, MAX_MICRO_BATCHES,
                     in->plan.layout.micro_batches);
    in->layout = in->plan.layout;
    in->plan.layout = (bl_layout){0};
    in->plan.has_layout = false;
    return BL_OK;
  }
  if (arg.batch % parts != 0)
    return bl_fail(BL_EUSAGE, "--batch %" PRId64 ": expected a multiple of %d ranks x %" PRId64 " micro-batches",
                   arg.batch, ranks, arg.micro_batches);
  return bl_layout_default(&in->layout, ranks, in->model.layers, (int32_t)(arg.batch / parts),
                           (int32_t)arg.micro_batches);
}

/* The profile, measured or derived from a cluster. */
static bl_status load_costs(inputs *in, int32_t *ranks_per_node) {
  bl_cluster cluster;
  if (!arg.profile == !arg.cluster) return bl_fail(BL_EUSAGE, "expected one of --profile and --cluster");
  if (arg.cluster) {
    BL_TRY(bl_cluster_load(arg.cluster, &cluster));
    *ranks_per_node = cluster.ranks_per_node;
    return bl_cluster_profile(&cluster, &in->model, bl_layout_world(&in->layout), &in->profile);
  }
  BL_TRY(bl_profile_load(arg.profile, &in->profile));
  if (in->profile.ranks == 1 && bl_layout_world(&in->layout) > 1)
    return bl_fail(BL_EINPUT,
                   "%s: measured on 1 rank, which exchanges nothing; expected one of ballast-profile --ranks %d",
                   arg.profile, bl_layout_world(&in->layout));
  return bl_profile_fits(&in->profile, &in->model, arg.profile);
}

static bl_status open_inputs(inputs *in, bl_forecast_options *o) {
  int32_t ranks_per_node = 0;
  if (!arg.plan && !arg.ranks_given) return bl_fail(BL_EUSAGE, "expected --plan, or --ranks with a policy");
  bl_policy_config config;
  BL_TRY(bl_policy_config_read(&arg.policy, &config)); /* also where a plan stands in its place */
  if (arg.log && !arg.trace) return bl_fail(BL_EUSAGE, "--log needs --trace: the routing of the same run");
  if (arg.measured && !arg.perfetto)
    return bl_fail(BL_EUSAGE, "--measured needs --perfetto: the timeline to draw it in");
  const char *const paths[] = {arg.plan, arg.profile, arg.cluster, arg.model, arg.trace, arg.log, arg.measured};
  BL_TRY(bl_output_check(arg.perfetto, paths, sizeof paths / sizeof *paths));
  bl_model_default(&in->model);
  if (arg.model) BL_TRY(bl_model_load(arg.model, &in->model));
  if (arg.plan) BL_TRY(bl_plan_load(arg.plan, &in->plan));
  BL_TRY(make_layout(in));
  BL_TRY(load_costs(in, &ranks_per_node));
  if (arg.trace) BL_TRY(bl_trace_open(arg.trace, &in->trace));
  BL_TRY(bl_new(&in->slots, (size_t)in->layout.ep, sizeof *in->slots, "--slots"));
  BL_TRY(bl_parse_slots(arg.slots, in->model.experts, in->layout.ep, in->slots));
  *o = (bl_forecast_options){.model = &in->model,
                             .layout = &in->layout,
                             .profile = &in->profile,
                             .ranks_per_node = ranks_per_node,
                             .policy = arg.policy,
                             .slots = in->slots,
                             .placement = in->plan.has_placement ? &in->plan.placement : NULL,
                             .plan_path = arg.plan,
                             .trace = in->trace,
                             .first = INT64_MIN,
                             .last = INT64_MAX};
  return arg.steps ? bl_parse_range(arg.steps, "--steps", &o->first, &o->last) : BL_OK;
}

static void close_inputs(inputs *in) {
  bl_trace_close(in->trace);
  bl_layout_free(&in->layout);
  bl_plan_free(&in->plan);
  free(in->slots);
}

/* A plan whose layout is not plain has a pipeline's programs; *done tells that this was one. */
static bl_status simulate_layout(bool *done) {
  inputs in = {0};
  bl_cluster cluster;
  *done = false;
  if (!arg.plan) return BL_OK;
  BL_TRY(bl_plan_load(arg.plan, &in.plan));
  bl_status status = BL_OK;
  if (in.plan.has_layout && !bl_layout_is_plain(&in.plan.layout)) {
    const char *const paths[] = {arg.plan, arg.cluster, arg.model, arg.trace};
    const bl_simulate_request request = {&in.model, &in.plan.layout, &cluster, arg.plan,
                                         arg.trace, arg.perfetto,    arg.json};
    *done = true;
    if (!arg.cluster || arg.profile || arg.log || arg.measured)
      status = bl_fail(BL_EUSAGE,
                       "%s: its layout goes beyond dp = ep, for which --cluster prices it, without "
                       "--profile, --log and --measured",
                       arg.plan);
    if (status == BL_OK) status = bl_output_check(arg.perfetto, paths, sizeof paths / sizeof *paths);
    bl_model_default(&in.model);
    if (status == BL_OK && arg.model) status = bl_model_load(arg.model, &in.model);
    if (status == BL_OK) status = bl_cluster_load(arg.cluster, &cluster);
    if (status == BL_OK) status = bl_simulate_layout(&request);
  }
  bl_plan_free(&in.plan);
  return status;
}

static bl_status run(void *context) {
  inputs in = {0};
  result r = {0};
  bool done;
  summary s;
  bl_forecast_options options;
  (void)context;
  BL_TRY(simulate_layout(&done));
  if (done) return BL_OK;
  bl_status status = open_inputs(&in, &options);
  if (status == BL_OK) status = bl_forecast(&options, note_step, &r);
  if (status == BL_OK && arg.perfetto && !r.drawn)
    status = bl_fail(BL_EINPUT, "%s: measured in a step that is not among those simulated", arg.measured);
  if (status == BL_OK && arg.log) status = read_log(&r);
  if (status == BL_OK) status = sum_up(&r, &s);
  if (status == BL_OK && arg.json)
    print_json(&r, &s);
  else if (status == BL_OK)
    status = print_tables(&r, &s);
  close_inputs(&in);
  free(r.rows);
  return status;
}

bl_command bl_command_simulate(void) {
  static const bl_option own[] = {
      {.name = "plan",
       .type = BL_OPTION_STRING,
       .target = &arg.plan,
       .metavar = "FILE",
       .help = "a plan whose homes and copies stay; without it a policy decides, as in replay"},
      {.name = "profile",
       .type = BL_OPTION_STRING,
       .target = &arg.profile,
       .metavar = "FILE",
       .help = "what each kind of work takes (ballast-profile)"},
      {.name = "cluster",
       .type = BL_OPTION_STRING,
       .target = &arg.cluster,
       .metavar = "FILE",
       .help = "devices and links of a cluster (JSON), for an estimate from data sheets"},
      {.name = "model",
       .type = BL_OPTION_STRING,
       .target = &arg.model,
       .metavar = "FILE",
       .help = "model file (JSON); without it the small model"},
      {.name = "trace",
       .type = BL_OPTION_STRING,
       .target = &arg.trace,
       .metavar = "FILE",
       .help = "routing of each step (.blt); without it every expert takes the same"},
      {.name = "steps",
       .type = BL_OPTION_STRING,
       .target = &arg.steps,
       .metavar = "A:B",
       .help = "only these iterations of the trace, inclusive"},
      {.name = "ranks",
       .type = BL_OPTION_INT,
       .target = &arg.ranks,
       .metavar = "P",
       .help = "ranks, where there is no plan",
       .min = 1,
       .max = 65536,
       .given = &arg.ranks_given},
      {.name = "slots",
       .type = BL_OPTION_STRING,
       .target = &arg.slots,
       .metavar = "S",
       .help = "experts that a rank can hold: a number or one a rank; default: one more than the homes"},
      {.name = "batch",
       .type = BL_OPTION_INT,
       .target = &arg.batch,
       .metavar = "N",
       .help = "sequences of a step, of all ranks and micro-batches",
       .min = 1,
       .max = 1e6},
      {.name = "micro-batches",
       .type = BL_OPTION_INT,
       .target = &arg.micro_batches,
       .metavar = "N",
       .help = "micro-batches of a step",
       .min = 1,
       .max = MAX_MICRO_BATCHES},
      {.name = "log",
       .type = BL_OPTION_STRING,
       .target = &arg.log,
       .metavar = "FILE",
       .help = "run log of the run that recorded the trace: predicted against measured"},
      {.name = "perfetto",
       .type = BL_OPTION_STRING,
       .target = &arg.perfetto,
       .metavar = "FILE",
       .help = "timeline of the first step, for ui.perfetto.dev"},
      {.name = "measured",
       .type = BL_OPTION_STRING,
       .target = &arg.measured,
       .metavar = "FILE",
       .help = "timeline that ballast-train --perfetto wrote, to be drawn beside the same step's prediction"},
      {.name = "json", .type = BL_OPTION_FLAG, .target = &arg.json, .help = "results as JSON"}};
  enum { OWN = sizeof own / sizeof *own };
  static bl_option options[OWN + BL_POLICY_OPTION_ROWS];
  memcpy(options, own, sizeof own);
  bl_policy_options_init(&arg.policy);
  bl_policy_option_rows(&arg.policy, options + OWN);
  return (bl_command){
      .name = "simulate",
      .summary = "predicts step time, exposed communication and memory",
      .description = "Prices the step program of the training run, action by action, for all ranks together, on the "
                     "routing of a trace and a profile of the machine. A plan of ballast-plan search may have any "
                     "layout: then one rank stands for all of its pipeline position.",
      .example =
          "ballast-plan simulate --ranks 2 --policy ballast --trace run.blt --profile profile.json --log run.jsonl",
      .options = options,
      .n_options = OWN + BL_POLICY_OPTION_ROWS,
      .run = run};
}
