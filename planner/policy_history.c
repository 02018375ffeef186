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
  if (!forecasts) return BL_OK;
  BL_TRY(bl_new(&h->order, (size_t)loads, sizeof *h->order, "the history of a policy"));
  for (int64_t i = 0; i < loads; ++i) h->order[i] = (int32_t)(i % experts);
  return BL_OK;
}

void bl_history_free(bl_history *h) {
  free(h->block);
  free(h->order);
  memset(h, 0, sizeof *h);
}

/* The averages after `known` records lie at known mod their number; the one before the oldest is overwritten. */
static double *average_after(const bl_history *h, int64_t known, int32_t layer) {
  return h->average + ((known % averages(h)) * h->layers + layer) * h->experts;
}

/* By insertion: from one step to the next the order hardly changes. */
static void sort_layer(bl_history *h, int32_t layer) {
  const double *load = bl_history_forecast(h, layer);
  int32_t *order = h->order + (int64_t)layer * h->experts;
  for (int32_t i = 1; i < h->experts; ++i) {
    const int32_t e = order[i];
    int32_t k = i;
    for (; k > 0; --k) {
      const int32_t before = order[k - 1];
      if (load[before] > load[e] || (load[before] == load[e] && before < e)) break;
      order[k] = before;
    }
    order[k] = e;
  }
}

void bl_history_sort(bl_history *h) {
  for (int32_t l = 0; h->forecasts && l < h->layers; ++l) sort_layer(h, l);
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
  bl_history_sort(h);
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
