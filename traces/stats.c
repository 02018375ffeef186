/* stats.c - statistics of a trace in one pass; of earlier steps the loads within the longest lag are kept, and how far
 * they had moved. */
#include "traces/stats.h"
#include "base/memory.h"
#include "traces/concentration.h"
#include "traces/reader.h"
#include <inttypes.h>
#include <math.h>
#include <string.h>

typedef struct stats_work {
  bl_trace_shape shape;
  const bl_stats_options *options;
  int32_t steps;  /* that were chosen */
  int32_t kept;   /* steps whose shares are held */
  double *shares; /* [kept][layers][experts], a ring */
  double *loads;  /* [layers][experts] */
  double *sorted; /* [experts] */
  double *moved;  /* [lags][layers][steps]: total variation */
  uint32_t *counts;
} stats_work;

double bl_stats_imbalance(const double *loads, int32_t experts, int32_t ranks) {
  const int32_t each = (experts + ranks - 1) / ranks;
  double most = 0, total = 0;
  for (int32_t begin = 0; begin < experts; begin += each) {
    double load = 0;
    for (int32_t e = begin; e < experts && e < begin + each; e++) load += loads[e];
    if (load > most) most = load;
    total += load;
  }
  return total > 0 ? most * ranks / total : 1;
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Concentration of one layer's shares, added to *sum. */
static void add_concentration(const double *shares, double *sorted, int32_t experts, bl_load_stats *sum) {
  double entropy = 0, top4 = 0;
  int32_t idle = 0;
  memcpy(sorted, shares, (size_t)experts * sizeof *sorted);
  qsort(sorted, (size_t)experts, sizeof *sorted, ascending);
  for (int32_t i = 0; i < experts; i++) {
    if (sorted[i] > 0)
      entropy -= sorted[i] * log(sorted[i]);
    else
      idle++;
    if (i >= experts - 4) top4 += sorted[i];
  }
  sum->gini += bl_gini(sorted, experts);
  sum->herfindahl += bl_herfindahl(sorted, experts);
  sum->entropy += experts > 1 && idle < experts ? entropy / log(experts) : 1;
  sum->top_share += sorted[experts - 1];
  sum->top4_share += top4;
  sum->idle += (double)idle / experts;
}

static int32_t hottest(const double *shares, int32_t experts) {
  int32_t best = 0;
  for (int32_t e = 1; e < experts; e++)
    if (shares[e] > shares[best]) best = e;
  return best;
}

/* The shares of layer `layer` at the `step`-th chosen step. */
static double *shares_of(const stats_work *w, int32_t step, int32_t layer) {
  return w->shares + ((size_t)(step % w->kept) * (size_t)w->shape.layers + (size_t)layer) * (size_t)w->shape.experts;
}

/* How far layer `layer` had moved over the i-th lag, at every chosen step from that lag on. */
static double *moved_of(const stats_work *w, int32_t i, int32_t layer) {
  return w->moved + ((size_t)i * (size_t)w->shape.layers + (size_t)layer) * (size_t)w->steps;
}

static void add_drift(const stats_work *w, int32_t step, int32_t layer, bl_load_stats *sum) {
  const int32_t experts = w->shape.experts;
  const double *now = shares_of(w, step, layer);
  for (int32_t i = 0; i < w->options->n_lags; i++) {
    const int32_t lag = w->options->lags[i];
    if (step < lag) continue;
    const double *before = shares_of(w, step - lag, layer);
    const double distance = bl_total_variation(now, before, experts);
    moved_of(w, i, layer)[step - lag] = distance;
    sum->drift[i] += distance;
    sum->top_kept[i] += hottest(now, experts) == hottest(before, experts);
  }
}

/* Adds the imbalance of all layers of the step in w->counts, or of one micro-batch of it. */
static void add_imbalance(const stats_work *w, int32_t micro_batch, double weight, bl_load_stats *sums) {
  bl_trace_loads(&w->shape, w->counts, -1, micro_batch, w->loads);
  for (int32_t layer = 0; layer < w->shape.layers; layer++) {
    const double imbalance =
        bl_stats_imbalance(w->loads + (size_t)layer * (size_t)w->shape.experts, w->shape.experts, w->options->ranks);
    sums[layer].imbalance += weight * imbalance;
    if (imbalance > sums[layer].worst_imbalance) sums[layer].worst_imbalance = imbalance;
  }
}

static void add_step(const stats_work *w, int32_t step, bl_load_stats *sums) {
  const int32_t experts = w->shape.experts, micro_batches = w->shape.micro_batches;
  if (w->options->each_micro_batch)
    for (int32_t m = 0; m < micro_batches; m++) add_imbalance(w, m, 1.0 / micro_batches, sums);
  else
    add_imbalance(w, -1, 1, sums);
  bl_trace_loads(&w->shape, w->counts, -1, -1, w->loads);
  for (int32_t layer = 0; layer < w->shape.layers; layer++) {
    const double *loads = w->loads + (size_t)layer * (size_t)experts;
    double *shares = shares_of(w, step, layer), total = 0;
    for (int32_t e = 0; e < experts; e++) total += loads[e];
    for (int32_t e = 0; e < experts; e++) shares[e] = total > 0 ? loads[e] / total : 0;
    add_concentration(shares, w->sorted, experts, &sums[layer]);
    add_drift(w, step, layer, &sums[layer]);
  }
}

static void divide(const bl_stats_options *options, int32_t steps, bl_load_stats *sum) {
  double *const means[] = {&sum->imbalance, &sum->gini,       &sum->herfindahl, &sum->entropy,
                           &sum->top_share, &sum->top4_share, &sum->idle};
  for (size_t i = 0; i < sizeof means / sizeof *means; i++) *means[i] /= steps;
  for (int32_t i = 0; i < options->n_lags; i++) {
    const int32_t pairs = steps - options->lags[i];
    sum->drift[i] = pairs > 0 ? sum->drift[i] / pairs : NAN;
    sum->top_kept[i] = pairs > 0 ? sum->top_kept[i] / pairs : NAN;
  }
}

static void mean_of_layers(const bl_load_stats *layers, int32_t n, int32_t n_lags, bl_load_stats *all) {
  *all = (bl_load_stats){0};
  for (int32_t layer = 0; layer < n; layer++) {
    const bl_load_stats *one = &layers[layer];
    all->imbalance += one->imbalance / n;
    if (one->worst_imbalance > all->worst_imbalance) all->worst_imbalance = one->worst_imbalance;
    all->gini += one->gini / n;
    all->herfindahl += one->herfindahl / n;
    all->entropy += one->entropy / n;
    all->top_share += one->top_share / n;
    all->top4_share += one->top4_share / n;
    all->idle += one->idle / n;
    for (int32_t i = 0; i < n_lags; i++) {
      all->drift[i] += one->drift[i] / n;
      all->top_kept[i] += one->top_kept[i] / n;
    }
  }
}

/* The value at rank ceil(0.99 n) of values[n], which are put in order; NaN where there is none. */
static double percentile_99(double *values, size_t n) {
  qsort(values, n, sizeof *values, ascending);
  return n > 0 ? values[n - 1 - n / 100] : NAN;
}

/* Percentiles of the drift of every layer and of all. */
static void find_percentiles(const stats_work *w, bl_load_stats *layers, bl_load_stats *all) {
  const size_t n_layers = (size_t)w->shape.layers;
  for (int32_t i = 0; i < w->options->n_lags; i++) {
    const size_t pairs = w->steps > w->options->lags[i] ? (size_t)(w->steps - w->options->lags[i]) : 0;
    double *values = moved_of(w, i, 0);
    for (size_t layer = 0; layer < n_layers; layer++) {
      layers[layer].drift_p99[i] = percentile_99(moved_of(w, i, (int32_t)layer), pairs);
      memmove(values + layer * pairs, moved_of(w, i, (int32_t)layer), pairs * sizeof *values);
    }
    all->drift_p99[i] = percentile_99(values, n_layers * pairs);
  }
}

static bl_status prepare(bl_trace_reader *reader, const bl_stats_options *options, stats_work *w) {
  w->shape = *bl_trace_shape_of(reader);
  w->options = options;
  w->steps = options->last - options->first + 1;
  w->kept = 1;
  for (int32_t i = 0; i < options->n_lags; i++)
    if (options->lags[i] >= w->kept && options->lags[i] <= options->last - options->first)
      w->kept = options->lags[i] + 1;
  const size_t loads = (size_t)w->shape.layers * (size_t)w->shape.experts;
  BL_TRY(bl_new(&w->shares, (size_t)w->kept * loads, sizeof *w->shares, "the shares of earlier steps"));
  BL_TRY(bl_new(&w->moved, (size_t)options->n_lags * (size_t)w->shape.layers * (size_t)w->steps, sizeof *w->moved,
                "distances of steps"));
  BL_TRY(bl_new(&w->loads, loads, sizeof *w->loads, "the loads of a step"));
  BL_TRY(bl_new(&w->sorted, (size_t)w->shape.experts, sizeof *w->sorted, "the loads of a layer"));
  return bl_new(&w->counts, (size_t)bl_trace_step_size(&w->shape), sizeof *w->counts, "a step of a trace");
}

bl_status bl_stats_compute(bl_trace_reader *reader, const bl_stats_options *options, bl_load_stats *layer_stats,
                           bl_load_stats *all) {
  stats_work w = {0};
  bl_status status = BL_OK;
  const bl_trace_shape *shape = bl_trace_shape_of(reader);
  if (options->ranks < 1 || options->ranks > shape->experts)
    return bl_fail(BL_EINPUT, "%s: %" PRId32 " ranks for %" PRId32 " experts, expected 1 to %" PRId32,
                   bl_trace_path(reader), options->ranks, shape->experts, shape->experts);
  BL_TRY_GOTO(status, prepare(reader, options, &w), end);
  memset(layer_stats, 0, (size_t)shape->layers * sizeof *layer_stats);
  for (int32_t i = 0; i < w.steps; i++) {
    BL_TRY_GOTO(status, bl_trace_read(reader, options->first + i, w.counts), end);
    add_step(&w, i, layer_stats);
  }
  for (int32_t layer = 0; layer < shape->layers; layer++) divide(options, w.steps, &layer_stats[layer]);
  mean_of_layers(layer_stats, shape->layers, options->n_lags, all);
  find_percentiles(&w, layer_stats, all);
end:
  free(w.shares);
  free(w.loads);
  free(w.sorted);
  free(w.moved);
  free(w.counts);
  return status;
}

/* Iterations from step `index` - 1 to `index`, modulo 2^64: only whether they are alike matters. */
static uint64_t gap_before(const bl_trace_reader *reader, int32_t index) {
  return (uint64_t)bl_trace_iteration(reader, index) - (uint64_t)bl_trace_iteration(reader, index - 1);
}

bl_status bl_trace_summarise(bl_trace_reader *reader, bl_trace_summary *summary) {
  const bl_trace_shape *shape = bl_trace_shape_of(reader);
  const int64_t rows = bl_trace_step_size(shape) / shape->experts;
  const int32_t steps = bl_trace_steps(reader);
  uint32_t *counts = NULL;
  bl_status status = BL_OK;
  *summary = (bl_trace_summary){.min_row = UINT64_MAX, .file_bytes = bl_trace_file_bytes(reader)};
  bool even = steps > 1 && gap_before(reader, 1) <= INT64_MAX;
  BL_TRY(bl_new(&counts, (size_t)bl_trace_step_size(shape), sizeof *counts, "a step of a trace"));
  for (int32_t i = 0; i < steps; i++) {
    BL_TRY_GOTO(status, bl_trace_read(reader, i, counts), end);
    if (i > 0) even = even && gap_before(reader, i) == gap_before(reader, 1);
    for (int64_t row = 0; row < rows; row++) {
      uint64_t sum = 0;
      for (int32_t e = 0; e < shape->experts; e++) sum += counts[row * shape->experts + e];
      if (sum < summary->min_row) summary->min_row = sum;
      if (sum > summary->max_row) summary->max_row = sum;
      summary->copies += sum;
    }
  }
  if (even) summary->stride = (int64_t)gap_before(reader, 1);
end:
  free(counts);
  return status;
}
