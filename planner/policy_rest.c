/* Back-off: a layer whose decisions change nothing is decided less and less often, until its routing moves again. */
#include "planner/policy_state.h"
#include <math.h>
#include <string.h>

/* Hosts that balance the newest counts worse by this much than at any decision since they were chosen are due at once:
 * well below what a late repair is worth, well above what the search for copies leaves. */
static const double WORSE = 0.0005;
/* So are they when the forecast has left the loads that they were chosen for: by so many mean errors of forecasts. */
static const double FAR = 1.5;

/* What the hosts in force make of the newest counts that decisions may see. */
static double imbalance_now(bl_policy *p, int32_t l) {
  const double *counts = p->history.newest + (int64_t)l * p->history.width;
  return bl_shares_solve(p->shares, &p->layer[l].hosts, counts, p->speed);
}

static double distance(const double *a, const double *b, int32_t n) {
  double sum = 0;
  for (int32_t i = 0; i < n; ++i) sum += fabs(a[i] - b[i]);
  return sum;
}

/* The mean size of the layer's errors that the history keeps. */
static double usual_error(const bl_history *h, int32_t l) {
  const int64_t n = h->n_errors < BL_POLICY_ERRORS ? h->n_errors : BL_POLICY_ERRORS;
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double *error = h->errors + (i * h->layers + l) * h->experts;
    for (int32_t e = 0; e < h->experts; ++e) sum += fabs(error[e]);
  }
  return n > 0 ? sum / (double)n : 0;
}

bool bl_policy_rests(bl_policy *p, int32_t l) {
  bl_policy_rest *rest = &p->layer[l].rest;
  if (p->config.back_off <= 1 || rest->left == 0) return false;
  const bool far = distance(bl_history_forecast(&p->history, l), rest->forecast, p->experts) > FAR * rest->error;
  if (far || imbalance_now(p, l) > rest->imbalance + WORSE) {
    rest->wait = 1;
    return false;
  }
  --rest->left;
  return true;
}

void bl_policy_settle(bl_policy *p, int32_t l, bool changed) {
  bl_policy_rest *rest = &p->layer[l].rest;
  if (p->config.back_off <= 1) return;
  const double now = imbalance_now(p, l);
  /* Where a decision has nothing better to offer, the imbalance it looked at is none to wake up for again. */
  rest->imbalance = changed || now > rest->imbalance ? now : rest->imbalance;
  rest->wait = changed || rest->wait < 1 ? 1 : rest->wait * 2;
  if (rest->wait > p->config.back_off) rest->wait = p->config.back_off;
  rest->left = rest->wait - 1;
  rest->error = usual_error(&p->history, l);
  memcpy(rest->forecast, bl_history_forecast(&p->history, l), (size_t)p->experts * sizeof *rest->forecast);
}
