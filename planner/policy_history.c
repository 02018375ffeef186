#include "base/memory.h"
#include "planner/policy_state.h"
#include <string.h>

/* Weight of the newest load in the average: 0.7 to 1 do about as well on the public trace. */
static const double NEWEST = 0.9;

static int64_t averages(const bl_history *h) { return h->lag > 1 ? h->lag : 1; }

bl_status bl_history_create(bl_history *h, int32_t layers, int32_t experts, int32_t ranks, int32_t lag, bool by_source,
                            bool forecasts) {
  *h = (bl_history){.layers = layers,
                    .experts = experts,
                    .ranks = ranks,
                    .lag = lag,
                    .width = by_source ? experts + ranks * experts : experts,
                    .by_source = by_source,
                    .forecasts = forecasts};
  const int64_t record = (int64_t)layers * h->width, loads = forecasts ? (int64_t)layers * experts : 0;
  h->block_size = record * (1 + lag) + loads * (averages(h) + BL_POLICY_ERRORS);
  BL_TRY(bl_new(&h->block, (size_t)h->block_size, sizeof *h->block, "the history of a policy"));
  h->newest = h->block;
  h->pending = h->newest + record;
  h->average = h->pending + record * lag;
  h->errors = h->average + loads * averages(h);
  return BL_OK;
}

void bl_history_free(bl_history *h) {
  free(h->block);
  memset(h, 0, sizeof *h);
}

/* The averages after `known` records lie at known mod their number; the one before the oldest is overwritten. */
static double *average_after(const bl_history *h, int64_t known, int32_t layer) {
  return h->average + ((known % averages(h)) * h->layers + layer) * h->experts;
}

static void learn_layer(bl_history *h, int32_t layer) {
  const double *counts = h->newest + (int64_t)layer * h->width;
  double sum = 0;
  for (int32_t e = 0; e < h->experts; ++e) sum += counts[e];
  /* The forecast for this record was the average `lag` records before it; learned before its place is reused. */
  const bool had_forecast = h->known >= averages(h);
  const double *forecast = average_after(h, h->known - averages(h) + 1, layer);
  const double *before = average_after(h, h->known, layer);
  double *error = h->errors + ((h->n_errors % BL_POLICY_ERRORS) * h->layers + layer) * h->experts;
  double *after = average_after(h, h->known + 1, layer);
  for (int32_t e = 0; e < h->experts; ++e) {
    const double old = before[e];
    const double load = sum > 0 ? counts[e] * (h->ranks / sum) : old;
    if (had_forecast) error[e] = load - forecast[e];
    after[e] = h->known > 0 ? NEWEST * load + (1 - NEWEST) * old : load;
  }
}

static void learn(bl_history *h) {
  if (h->forecasts) {
    for (int32_t l = 0; l < h->layers; ++l) learn_layer(h, l);
    if (h->known >= averages(h)) ++h->n_errors;
  }
  ++h->known;
}

void bl_history_push(bl_history *h, const double *record) {
  const int64_t size = (int64_t)h->layers * h->width;
  if (h->lag <= 1) {
    memcpy(h->newest, record, (size_t)size * sizeof *record);
    ++h->pushed;
    learn(h);
    return;
  }
  memcpy(h->pending + (h->pushed % h->lag) * size, record, (size_t)size * sizeof *record);
  ++h->pushed;
  if (h->pushed < h->lag) return;
  memcpy(h->newest, h->pending + (h->pushed % h->lag) * size, (size_t)size * sizeof *record);
  learn(h);
}

const double *bl_history_forecast(const bl_history *h, int32_t layer) { return average_after(h, h->known, layer); }

int32_t bl_history_scenarios(const bl_history *h, int32_t layer, double *scenarios, double *weights) {
  static const double MIRRORED_WEIGHT = 0.7;
  const double *forecast = bl_history_forecast(h, layer);
  const int32_t n = h->n_errors < BL_POLICY_ERRORS ? (int32_t)h->n_errors : BL_POLICY_ERRORS;
  const int32_t mirrored = n < BL_POLICY_MIRRORED ? n : BL_POLICY_MIRRORED;
  weights[0] = 1;
  if (n == 0) memcpy(scenarios, forecast, (size_t)h->experts * sizeof *scenarios);
  for (int32_t i = 0; i < n + mirrored; ++i) {
    const int64_t which = (h->n_errors - 1 - (i < n ? i : i - n)) % BL_POLICY_ERRORS;
    const double *error = h->errors + (which * h->layers + layer) * h->experts, sign = i < n ? 1 : -1;
    weights[i] = i < n ? 1 : MIRRORED_WEIGHT;
    for (int32_t e = 0; e < h->experts; ++e) {
      const double load = forecast[e] + sign * error[e];
      scenarios[(int64_t)i * h->experts + e] = load > 0 ? load : 0;
    }
  }
  return n > 0 ? n + mirrored : 1;
}
