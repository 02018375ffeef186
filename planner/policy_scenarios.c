/* Loads that the next step may have, as a search for copy hosts looks at them. */
#include "planner/policy_state.h"
#include <string.h>

/* Scenarios as they are written. */
typedef struct writer {
  const bl_history *history;
  int32_t layer, n;
  double *scenarios, *weights;
} writer;

/* The errors of the forecasts for a layer, `age` steps before the newest. */
static const double *errors_of(const bl_history *h, int32_t layer, int32_t age) {
  return h->errors + (((h->n_errors - 1 - age) % BL_POLICY_ERRORS) * h->layers + layer) * h->experts;
}

static double *next(writer *w, double weight) {
  w->weights[w->n] = weight;
  return w->scenarios + (int64_t)w->n++ * w->history->experts;
}

static double at_least_0(double load) { return load > 0 ? load : 0; }

static void add_own(writer *w, int32_t age, double sign, double weight) {
  const double *forecast = bl_history_forecast(w->history, w->layer);
  const double *error = errors_of(w->history, w->layer, age);
  double *load = next(w, weight);
  for (int32_t e = 0; e < w->history->experts; ++e) load[e] = at_least_0(forecast[e] + sign * error[e]);
}

/* What befell another layer's n-th largest expert befalls this layer's n-th largest. */
static void add_other(writer *w, int32_t other, int32_t age) {
  const bl_history *h = w->history;
  const double *forecast = bl_history_forecast(h, w->layer), *error = errors_of(h, other, age);
  const int32_t *mine = h->order + (int64_t)w->layer * h->experts, *theirs = h->order + (int64_t)other * h->experts;
  double *load = next(w, 1);
  for (int32_t i = 0; i < h->experts; ++i) load[mine[i]] = at_least_0(forecast[mine[i]] + error[theirs[i]]);
}

/* Newest errors first; where there are more layers than wanted, evenly spread ones. */
static void add_others(writer *w, int32_t ages) {
  const int32_t others = w->history->layers - 1;
  int32_t wanted = BL_POLICY_OTHERS;
  for (int32_t age = 0; age < ages && others > 0 && wanted > 0; ++age) {
    const int32_t n = others < wanted ? others : wanted;
    for (int64_t i = 0; i < n; ++i) add_other(w, (int32_t)((w->layer + 1 + i * others / n) % w->history->layers), age);
    wanted -= n;
  }
}

/* An expert that rose by much against its size often rises on: the largest rises, each by itself. Where there are other
 * layers, their errors foretell it as well, and this adds time alone. */
static void add_risers(writer *w) {
  static const double WEIGHT = 0.2, LEAST_RISE = 0.05, LEAST_GROWTH = 0.2, GOES_ON = 3;
  const bl_history *h = w->history;
  const double *forecast = bl_history_forecast(h, w->layer), *error = errors_of(h, w->layer, 0);
  int32_t riser[BL_POLICY_RISERS], n = 0;
  for (int32_t e = 0; e < h->experts; ++e) {
    if (error[e] < LEAST_RISE || error[e] < LEAST_GROWTH * forecast[e]) continue;
    if (n == BL_POLICY_RISERS && error[e] <= error[riser[n - 1]]) continue;
    int32_t k = n < BL_POLICY_RISERS ? n++ : n - 1;
    for (; k > 0 && error[e] > error[riser[k - 1]]; --k) riser[k] = riser[k - 1];
    riser[k] = e;
  }
  for (int32_t i = 0; i < n; ++i) {
    double *load = next(w, WEIGHT);
    memcpy(load, forecast, (size_t)h->experts * sizeof *load);
    load[riser[i]] += GOES_ON * error[riser[i]];
  }
}

int32_t bl_history_scenarios(const bl_history *h, int32_t layer, double *scenarios, double *weights) {
  static const double MIRRORED_WEIGHT = 0.7;
  writer w = {.history = h, .layer = layer, .scenarios = scenarios, .weights = weights};
  const int32_t ages = h->n_errors < BL_POLICY_ERRORS ? (int32_t)h->n_errors : BL_POLICY_ERRORS;
  if (ages == 0) {
    memcpy(next(&w, 1), bl_history_forecast(h, layer), (size_t)h->experts * sizeof *scenarios);
    return w.n;
  }
  const bool alone = h->layers == 1;
  const int32_t own = alone ? BL_POLICY_ERRORS : BL_POLICY_OWN;
  for (int32_t age = 0; age < ages && age < own; ++age) add_own(&w, age, 1, 1);
  add_others(&w, ages);
  for (int32_t age = 0; age < ages && age < BL_POLICY_MIRRORED; ++age) add_own(&w, age, -1, MIRRORED_WEIGHT);
  if (alone) add_risers(&w);
  return w.n;
}
