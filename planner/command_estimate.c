/* ballast-plan estimate: what MoE layers take by a table of costs, beside what they were measured to take. */
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/table.h"
#include "costmodel/calibrate.h"
#include "costmodel/layer_calls.h"
#include "planner/commands.h"
#include "planner/policy_options.h"
#include <inttypes.h>
#include <math.h>
#include <string.h>

static struct {
  const char *trace, *plan, *steps, *layers, *table, *fit, *measured, *output, *dump;
  int64_t ranks, stride, source_rank, micro_batch, tokens;
  bool json;
} arg = {.stride = 1, .source_rank = -1, .micro_batch = -1};

/* How far estimates are from times, over `n` calls. */
typedef struct judgement {
  int32_t n;
  double error, r_squared, rms, worst; /* mean relative error; us */
} judgement;

typedef struct estimation {
  bl_placement placement;
  bl_measured_calls points; /* measured_us NULL: no --measured */
  int32_t left_out;         /* calls of --measured that the trace lacks */
  double *tokens;
  bl_layer_calls calls;
  bl_layer_table table;
  double *estimated, *hottest;                   /* [calls] us, tokens */
  judgement against_measured, against_reference; /* of the estimates as they are; the estimates in --measured */
  bl_calibration calibrations[BL_CALIBRATION_COUNT];
  bl_calibration_kind best;
} estimation;

static bl_status check_arguments(void) {
  if ((arg.ranks > 0) == (arg.plan != NULL)) return bl_fail(BL_EUSAGE, "--ranks and --plan: expected one of them");
  if ((arg.table != NULL) == (arg.fit != NULL)) return bl_fail(BL_EUSAGE, "--table and --fit: expected one of them");
  if (arg.fit && !arg.measured)
    return bl_fail(BL_EUSAGE, "--fit %s: expected --measured FILE with the times to fit", arg.fit);
  if (arg.output && !arg.fit) return bl_fail(BL_EUSAGE, "--output: expected --fit, which makes a table to write");
  return BL_OK;
}

static bl_status check_trace(const bl_trace_shape *shape) {
  if (arg.source_rank >= shape->ranks)
    return bl_fail(BL_EINPUT, "--source-rank %" PRId64 ": %s has ranks 0 to %d", arg.source_rank, arg.trace,
                   shape->ranks - 1);
  if (arg.micro_batch >= shape->micro_batches)
    return bl_fail(BL_EINPUT, "--micro-batch %" PRId64 ": %s has micro-batches 0 to %d", arg.micro_batch, arg.trace,
                   shape->micro_batches - 1);
  return BL_OK;
}

static bl_status load_placement(const bl_trace_shape *shape, bl_placement *out) {
  if (!arg.plan) {
    if (shape->experts < arg.ranks)
      return bl_fail(BL_EINPUT, "%s has %d experts, too few for %" PRId64 " ranks: expected at least one a rank",
                     arg.trace, shape->experts, arg.ranks);
    return bl_placement_create((int32_t)arg.ranks, shape->experts, shape->layers, 0, out);
  }
  bl_plan plan;
  BL_TRY(bl_plan_load(arg.plan, &plan));
  bl_status status = BL_OK;
  if (!plan.has_placement)
    status = bl_fail(BL_EINPUT, "%s: has no placement", arg.plan);
  else if (plan.placement.experts != shape->experts)
    status = bl_fail(BL_EINPUT, "%s places %d experts, but %s has %d", arg.plan, plan.placement.experts, arg.trace,
                     shape->experts);
  if (status == BL_OK) {
    *out = plan.placement;
    memset(&plan.placement, 0, sizeof plan.placement);
  }
  bl_plan_free(&plan);
  return status;
}

typedef struct wanted {
  int64_t first, last;
  int32_t *layers, n_layers; /* 0: all */
} wanted;

static bool is_wanted(const wanted *w, int64_t step, int32_t layer) {
  bool found = w->n_layers == 0;
  for (int32_t i = 0; i < w->n_layers; i++) found = found || w->layers[i] == layer;
  return found && step >= w->first && step <= w->last;
}

static bool is_recorded(bl_trace_reader *reader, int64_t step, int32_t layer) {
  const int32_t index = bl_trace_find(reader, step);
  return layer < bl_trace_shape_of(reader)->layers && index < bl_trace_steps(reader) &&
         bl_trace_iteration(reader, index) == step;
}

/* The calls of --measured that are wanted and in the trace. */
static bl_status measured_points(bl_trace_reader *reader, const wanted *w, estimation *e) {
  bool *keep;
  const bl_call_grid grid = {.first = w->first == INT64_MIN ? bl_trace_iteration(reader, 0) : w->first,
                             .stride = arg.stride,
                             .layers = bl_trace_shape_of(reader)->layers};
  BL_TRY(bl_measured_load(arg.measured, &grid, &e->points));
  BL_TRY(bl_new(&keep, (size_t)e->points.n, sizeof *keep, "measured calls"));
  for (int32_t i = 0; i < e->points.n; i++) {
    if (!is_wanted(w, e->points.steps[i], e->points.layers[i])) continue;
    keep[i] = is_recorded(reader, e->points.steps[i], e->points.layers[i]);
    e->left_out += !keep[i];
  }
  bl_measured_keep(&e->points, keep);
  free(keep);
  if (e->points.n == 0) return bl_fail(BL_EINPUT, "none of the calls in %s is in %s", arg.measured, arg.trace);
  return BL_OK;
}

/* Without measurements: every wanted layer of the trace, every `stride` iterations. */
static bl_status traced_points(bl_trace_reader *reader, const wanted *w, estimation *e) {
  const bl_trace_shape *shape = bl_trace_shape_of(reader);
  const size_t most = (size_t)bl_trace_steps(reader) * (size_t)shape->layers;
  int64_t previous = 0;
  if (most > INT32_MAX)
    return bl_fail(BL_EINPUT, "%s: %zu calls are too many: expected fewer --steps", arg.trace, most);
  BL_TRY(bl_new(&e->points.steps, most, sizeof *e->points.steps, "calls"));
  BL_TRY(bl_new(&e->points.layers, most, sizeof *e->points.layers, "calls"));
  for (int32_t s = 0; s < bl_trace_steps(reader); s++) {
    const int64_t step = bl_trace_iteration(reader, s);
    const bool too_soon = e->points.n > 0 && (uint64_t)step - (uint64_t)previous < (uint64_t)arg.stride;
    if (too_soon || step < w->first) continue;
    previous = step;
    for (int32_t l = 0; l < shape->layers; l++) {
      if (!is_wanted(w, step, l)) continue;
      e->points.steps[e->points.n] = step;
      e->points.layers[e->points.n++] = l;
    }
  }
  if (e->points.n == 0) return bl_fail(BL_EINPUT, "%s has no such step or layer", arg.trace);
  return BL_OK;
}

static bl_status find_points(bl_trace_reader *reader, estimation *e) {
  wanted w = {.first = INT64_MIN, .last = INT64_MAX};
  bl_status status = BL_OK;
  if (arg.steps) BL_TRY(bl_parse_range(arg.steps, "--steps", &w.first, &w.last));
  if (arg.layers) status = bl_parse_layers(arg.layers, &w.layers, &w.n_layers);
  if (status == BL_OK) status = arg.measured ? measured_points(reader, &w, e) : traced_points(reader, &w, e);
  free(w.layers);
  return status;
}

/* The table fitted on points 0, 2, 4, ... */
static bl_status fit_table(estimation *e) {
  const size_t call = (size_t)e->calls.ranks * (size_t)e->calls.slots;
  const int32_t n = (e->calls.n + 1) / 2;
  const double *times = strcmp(arg.fit, "estimated") == 0 ? e->points.estimated_us : e->points.measured_us;
  double *tokens = NULL, *us = NULL;
  bl_status status;
  if (!times) return bl_fail(BL_EINPUT, "--fit estimated: %s has no estimates", arg.measured);
  BL_TRY_GOTO(status, bl_new(&tokens, (size_t)n * call, sizeof *tokens, "calls"), end);
  BL_TRY_GOTO(status, bl_new(&us, (size_t)n, sizeof *us, "calls"), end);
  for (int32_t i = 0; i < n; i++) {
    memcpy(tokens + (size_t)i * call, e->tokens + 2 * (size_t)i * call, call * sizeof *tokens);
    us[i] = times[2 * i];
  }
  const bl_layer_calls even = {.n = n, .ranks = e->calls.ranks, .slots = e->calls.slots, .tokens = tokens};
  status = bl_layer_table_fit(&even, us, &e->table);
end:
  free(us);
  free(tokens);
  return status;
}

static bool fitted_to(const char *what) { return arg.fit && strcmp(arg.fit, what) == 0; }

/* Against all calls, or those that the table has not been fitted to. */
static bl_status judge_estimates(const estimation *e, const double *truth, bool fitted, judgement *out) {
  const int32_t first = fitted, step = 1 + first, n = (e->calls.n - first + step - 1) / step;
  double *pairs;
  if (n < 1) return bl_fail(BL_EINPUT, "%s: expected at least 2 calls that are in %s", arg.measured, arg.trace);
  BL_TRY(bl_new(&pairs, 2 * (size_t)n, sizeof *pairs, "estimates"));
  *out = (judgement){.n = n};
  for (int32_t k = 0, i = first; k < n; k++, i += step) {
    const double off = fabs(e->estimated[i] - truth[i]);
    pairs[k] = e->estimated[i];
    pairs[n + k] = truth[i];
    out->rms += off * off / n;
    out->worst = fmax(out->worst, off);
  }
  out->rms = sqrt(out->rms);
  out->error = bl_mean_error(pairs, pairs + n, n);
  out->r_squared = bl_r_squared(pairs, pairs + n, n);
  free(pairs);
  return BL_OK;
}

static bl_status judge(estimation *e) {
  const bl_measured_calls *p = &e->points;
  if (!p->measured_us) return BL_OK;
  BL_TRY(judge_estimates(e, p->measured_us, fitted_to("measured"), &e->against_measured));
  if (p->estimated_us) BL_TRY(judge_estimates(e, p->estimated_us, fitted_to("estimated"), &e->against_reference));
  return bl_calibrate(e->estimated, e->hottest, p->measured_us, p->n, e->calibrations, &e->best);
}

static bl_status estimate(bl_trace_reader *reader, estimation *e) {
  const bl_trace_shape *shape = bl_trace_shape_of(reader);
  const bl_call_options options = {
      .source_rank = (int32_t)arg.source_rank, .micro_batch = (int32_t)arg.micro_batch, .tokens = (double)arg.tokens};
  BL_TRY(check_trace(shape));
  BL_TRY(load_placement(shape, &e->placement));
  if (arg.table) BL_TRY(bl_layer_table_load(arg.table, &e->table));
  BL_TRY(find_points(reader, e));
  BL_TRY(bl_layer_calls_read(reader, &e->placement, &options, e->points.n, e->points.steps, e->points.layers,
                             &e->tokens, &e->calls));
  if (arg.fit) BL_TRY(fit_table(e));
  BL_TRY(bl_new(&e->estimated, (size_t)e->calls.n, sizeof *e->estimated, "estimates"));
  BL_TRY(bl_new(&e->hottest, (size_t)e->calls.n, sizeof *e->hottest, "estimates"));
  for (int32_t i = 0; i < e->calls.n; i++) {
    e->estimated[i] = bl_layer_estimate(&e->table, &e->calls, i);
    e->hottest[i] = bl_layer_hottest(&e->calls, i);
  }
  return judge(e);
}

static bl_status dump(const estimation *e) {
  bl_output *output;
  const bl_measured_calls *p = &e->points;
  BL_TRY(bl_output_open(arg.dump, &output));
  FILE *stream = bl_output_stream(output);
  fprintf(stream, "step,layer,hottest_tokens,estimated_ms%s\n", p->measured_us ? ",measured_ms,calibrated_ms" : "");
  for (int32_t i = 0; i < p->n; i++) {
    fprintf(stream, "%" PRId64 ",%d,%.9g,%.9g", p->steps[i], p->layers[i], e->hottest[i], e->estimated[i] / 1e3);
    if (p->measured_us)
      fprintf(stream, ",%.9g,%.9g", p->measured_us[i] / 1e3,
              bl_calibrated(&e->calibrations[e->best], e->estimated[i], e->hottest[i]) / 1e3);
    fprintf(stream, "\n");
  }
  return bl_output_commit(output);
}

static void summarise(const estimation *e, double *least, double *mean, double *most) {
  *least = *most = e->estimated[0];
  *mean = 0;
  for (int32_t i = 0; i < e->calls.n; i++) {
    *least = fmin(*least, e->estimated[i]);
    *most = fmax(*most, e->estimated[i]);
    *mean += e->estimated[i] / e->calls.n;
  }
}

static void put_calibration(bl_json_writer *w, const bl_calibration *c) {
  bl_json_begin_object(w);
  bl_json_put_number(w, "constant_ms", c->constant_us / 1e3);
  bl_json_put_number(w, "per_estimate", c->per_estimate);
  bl_json_put_number(w, "per_token_us", c->per_token_us);
  bl_json_put_number(w, "mape_fitted", c->fitted_error);
  bl_json_put_number(w, "mape_crossed", c->crossed_error);
  bl_json_put_number(w, "mape", c->held_out_error);
  bl_json_put_number(w, "r2", c->held_out_r_squared);
  bl_json_end_object(w);
}

/* mape_calibrated and r2_calibrated are of the line, as in the JSON of figure 11. */
static void put_judgement(bl_json_writer *w, const estimation *e) {
  bl_json_put_number(w, "mape", e->against_measured.error);
  bl_json_put_number(w, "r2", e->against_measured.r_squared);
  bl_json_put_number(w, "mape_calibrated", e->calibrations[BL_CALIBRATION_LINE].held_out_error);
  bl_json_put_number(w, "r2_calibrated", e->calibrations[BL_CALIBRATION_LINE].held_out_r_squared);
  bl_json_put_string(w, "best", bl_calibration_names[e->best]);
  bl_json_key(w, "calibrations");
  bl_json_begin_object(w);
  for (int k = 0; k < BL_CALIBRATION_COUNT; k++) {
    bl_json_key(w, bl_calibration_names[k]);
    put_calibration(w, &e->calibrations[k]);
  }
  bl_json_end_object(w);
  if (!e->points.estimated_us) return;
  bl_json_put_number(w, "reference_rms_ms", e->against_reference.rms / 1e3);
  bl_json_put_number(w, "reference_worst_ms", e->against_reference.worst / 1e3);
}

static void print_json(const estimation *e) {
  bl_json_writer w;
  double least, mean, most;
  summarise(e, &least, &mean, &most);
  bl_json_writer_init(&w, stdout, true);
  bl_json_begin_object(&w);
  bl_json_put_number(&w, "ranks", e->placement.ranks);
  bl_json_put_number(&w, "calls", e->calls.n);
  bl_json_put_number(&w, "left_out", e->left_out);
  bl_json_put_number(&w, "estimated_ms_min", least / 1e3);
  bl_json_put_number(&w, "estimated_ms_mean", mean / 1e3);
  bl_json_put_number(&w, "estimated_ms_max", most / 1e3);
  bl_json_put_number(&w, "constant_us", e->table.constant_us);
  bl_json_key(&w, "expert");
  bl_curve_write(&w, "tokens", &e->table.expert);
  if (e->points.measured_us) put_judgement(&w, e);
  bl_json_end_object(&w);
  bl_json_newline(&w);
}

static bl_status print_calibrations(const estimation *e) {
  bl_table *table;
  bl_status status = BL_OK;
  BL_TRY(bl_table_create("<calibration|constant ms|per estimate|us a token|error fitted|crossed|held out|R2 held out|<",
                         &table));
  for (int k = 0; k < BL_CALIBRATION_COUNT; k++) {
    const bl_calibration *c = &e->calibrations[k];
    BL_TRY_GOTO(status, bl_table_cell(table, "%s", bl_calibration_names[k]), end);
    BL_TRY_GOTO(status, bl_table_cell(table, "%.3f", c->constant_us / 1e3), end);
    BL_TRY_GOTO(status, bl_table_cell(table, "%.4f", c->per_estimate), end);
    BL_TRY_GOTO(status, bl_table_cell(table, "%.4f", c->per_token_us), end);
    BL_TRY_GOTO(status, bl_table_cell(table, "%.2f %%", 100 * c->fitted_error), end);
    BL_TRY_GOTO(status, bl_table_cell(table, "%.2f %%", 100 * c->crossed_error), end);
    BL_TRY_GOTO(status, bl_table_cell(table, "%.2f %%", 100 * c->held_out_error), end);
    BL_TRY_GOTO(status, bl_table_cell(table, "%.4f", c->held_out_r_squared), end);
    BL_TRY_GOTO(status, bl_table_cell(table, "%s", k == (int)e->best ? "best" : ""), end);
  }
  bl_table_print(table, stdout);
end:
  bl_table_free(table);
  return status;
}

static bl_status print_text(const estimation *e) {
  double least, mean, most;
  summarise(e, &least, &mean, &most);
  printf("%d calls of a layer on %d ranks: estimated %.3f to %.3f ms, mean %.3f\n", e->calls.n, e->placement.ranks,
         least / 1e3, most / 1e3, mean / 1e3);
  if (!e->points.measured_us) return BL_OK;
  if (e->left_out > 0) printf("%d measured calls are not in the trace and left out\n", e->left_out);
  const judgement *m = &e->against_measured, *r = &e->against_reference;
  if (e->points.estimated_us)
    printf("from the estimates in %s, %d calls: rms %.4f ms, worst %.4f ms\n", arg.measured, r->n, r->rms / 1e3,
           r->worst / 1e3);
  printf("from the measured times, %d calls%s: mean error %.2f %%, R2 %.4f\n", m->n,
         fitted_to("measured") ? " held out" : "", 100 * m->error, m->r_squared);
  printf("\nCalibrated on every other call, held out the rest:\n");
  return print_calibrations(e);
}

static bl_status report(const estimation *e) {
  if (arg.dump) BL_TRY(dump(e));
  if (arg.output) BL_TRY(bl_layer_table_save(arg.output, &e->table));
  if (arg.json) {
    print_json(e);
    return BL_OK;
  }
  return print_text(e);
}

static bl_status run(void *context) {
  (void)context;
  bl_trace_reader *reader;
  estimation e = {0};
  BL_TRY(check_arguments());
  BL_TRY(bl_trace_open(arg.trace, &reader));
  if (bl_trace_truncated(reader))
    bl_warn("%s: has no sound index (cut short or damaged); read up to its last whole block", arg.trace);
  bl_status status = estimate(reader, &e);
  if (status == BL_OK) status = report(&e);
  bl_trace_close(reader);
  bl_placement_free(&e.placement);
  bl_measured_free(&e.points);
  free(e.tokens);
  free(e.estimated);
  free(e.hottest);
  return status;
}

static const bl_option options[] = {
    {.name = "trace",
     .type = BL_OPTION_STRING,
     .target = &arg.trace,
     .metavar = "F",
     .help = "the .blt trace whose counts are taken",
     .required = true},
    {.name = "ranks",
     .type = BL_OPTION_INT,
     .target = &arg.ranks,
     .metavar = "P",
     .help = "ranks that share the experts of a layer, in order; or --plan",
     .min = 1,
     .max = BL_TRACE_MAX_RANKS},
    {.name = "plan",
     .type = BL_OPTION_STRING,
     .target = &arg.plan,
     .metavar = "PLAN",
     .help = "take homes, copies and their shares from this plan"},
    {.type = BL_OPTION_HEADING, .help = "Calls"},
    {.name = "steps",
     .type = BL_OPTION_STRING,
     .target = &arg.steps,
     .metavar = "A:B",
     .help = "only iterations A to B, inclusive; where --measured does not name iterations, A is its first"},
    {.name = "stride",
     .type = BL_OPTION_INT,
     .target = &arg.stride,
     .metavar = "N",
     .help = "iterations from one call of a layer to its next, where --measured does not name them",
     .min = 1,
     .max = 1e15},
    {.name = "layers",
     .type = BL_OPTION_STRING,
     .target = &arg.layers,
     .metavar = "L,..",
     .help = "only these layers; by default all"},
    {.name = "source-rank",
     .type = BL_OPTION_INT,
     .target = &arg.source_rank,
     .metavar = "R",
     .help = "only counts of this source rank; -1 takes all",
     .min = -1,
     .max = BL_TRACE_MAX_RANKS},
    {.name = "micro-batch",
     .type = BL_OPTION_INT,
     .target = &arg.micro_batch,
     .metavar = "M",
     .help = "only counts of this micro-batch; -1 takes the mean of all",
     .min = -1,
     .max = BL_TRACE_MAX_MICRO_BATCHES},
    {.name = "tokens",
     .type = BL_OPTION_INT,
     .target = &arg.tokens,
     .metavar = "N",
     .help = "token copies in a call, over all ranks, that the counts are scaled to; 0 takes them as they are",
     .min = 0,
     .max = 1e12},
    {.type = BL_OPTION_HEADING, .help = "Costs and measurements"},
    {.name = "table",
     .type = BL_OPTION_STRING,
     .target = &arg.table,
     .metavar = "FILE",
     .help = "the costs, as --fit writes them; or --fit"},
    {.name = "measured",
     .type = BL_OPTION_STRING,
     .target = &arg.measured,
     .metavar = "FILE",
     .help = "measured times: CSV with the heading step,layer,measured_ms and perhaps estimated_ms, or JSON with lists "
             "real and perhaps est, all layers of an iteration after each other"},
    {.name = "fit",
     .type = BL_OPTION_CHOICE,
     .target = &arg.fit,
     .help = "fit the table to every other call in --measured: to its times or to the estimates beside them",
     .choices = "measured|estimated"},
    {.name = "output|o",
     .type = BL_OPTION_STRING,
     .target = &arg.output,
     .metavar = "FILE",
     .help = "write the fitted table"},
    {.name = "dump",
     .type = BL_OPTION_STRING,
     .target = &arg.dump,
     .metavar = "FILE",
     .help = "write a line of CSV for every call"},
    {.name = "json", .type = BL_OPTION_FLAG, .target = &arg.json, .help = "print the result as JSON"}};

bl_command bl_command_estimate(void) {
  return (bl_command){
      .name = "estimate",
      .summary = "estimates the time of MoE layers and compares it with measured times",
      .description = "The time of a layer is that of its slowest rank: a constant and a cost for each of its experts, "
                     "from a table over tokens. With measured times it says how far off the estimates are, fits three "
                     "calibrations to every other call and judges them on the rest.",
      .example = "ballast-plan estimate --trace t.blt --ranks 8 --measured times.csv --fit measured -o table.json",
      .options = options,
      .n_options = sizeof options / sizeof *options,
      .run = run};
}
