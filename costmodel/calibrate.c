/* calibrate.c - fits of predictions to measurements, judged on points that they have not seen. */
#include "costmodel/calibrate.h"
#include "base/memory.h"
#include "costmodel/nnls.h"
#include <math.h>
#include <string.h>

double bl_mean_error(const double *predicted, const double *measured, int32_t n) {
  double sum = 0;
  for (int32_t i = 0; i < n; i++) sum += fabs(predicted[i] - measured[i]) / measured[i];
  return sum / n;
}

bl_status bl_fit_scale(const double *predicted, const double *measured, int32_t n, double *scale, double *held_out) {
  double ratios = 0, squares = 0, error = 0; /* with r = predicted / measured: s = sum r / sum r^2 */
  if (n < 1) return bl_fail(BL_EINPUT, "a fit of %d points: expected at least 1", n);
  for (int32_t i = 0; i < n; i++) {
    const double r = predicted[i] / measured[i];
    if (!(predicted[i] > 0) || !(measured[i] > 0) || !isfinite(r) || !(r > 0))
      return bl_fail(BL_EINPUT, "a fit: expected positive times, found %g predicted and %g measured", predicted[i],
                     measured[i]);
    ratios += r;
    squares += r * r;
  }
  *scale = ratios / squares;
  for (int32_t i = 0; i < n; i++) {
    const double r = predicted[i] / measured[i];
    const double s = n > 1 ? (ratios - r) / (squares - r * r) : 1;
    error += fabs(s * r - 1);
  }
  *held_out = error / n;
  return BL_OK;
}

double bl_r_squared(const double *predicted, const double *measured, int32_t n) {
  double mean = 0, errors = 0, spread = 0;
  for (int32_t i = 0; i < n; i++) mean += measured[i];
  mean /= n;
  for (int32_t i = 0; i < n; i++) {
    errors += (measured[i] - predicted[i]) * (measured[i] - predicted[i]);
    spread += (measured[i] - mean) * (measured[i] - mean);
  }
  return spread > 0 ? 1 - errors / spread : NAN;
}

const char *const bl_calibration_names[BL_CALIBRATION_COUNT] = {
#define X(name, text) text,
    BL_CALIBRATION_LIST(X)
#undef X
};

double bl_calibrated(const bl_calibration *c, double estimated, double hottest) {
  return c->constant_us + c->per_estimate * estimated + c->per_token_us * hottest;
}

/* Points `first`, first + step, ... below `end`. */
typedef struct points {
  const double *estimated, *hottest, *measured;
  int32_t first, end, step;
  double *scratch; /* [4 x points] */
} points;

static bl_status fit_calibration(const points *p, bl_calibration_kind kind, bl_calibration *c) {
  double *rows = p->scratch, *y = p->scratch + 3 * (int64_t)((p->end - p->first + p->step - 1) / p->step), x[3];
  int32_t n = 0;
  for (int32_t i = p->first; i < p->end; i += p->step, n++) {
    rows[3 * n] = 1;
    rows[3 * n + 1] = kind == BL_CALIBRATION_LOAD ? 0 : p->estimated[i];
    rows[3 * n + 2] = kind == BL_CALIBRATION_LINE ? 0 : p->hottest[i];
    y[n] = p->measured[i];
  }
  BL_TRY(bl_nnls(rows, y, n, 3, x));
  c->constant_us = x[0];
  c->per_estimate = x[1];
  c->per_token_us = x[2];
  return BL_OK;
}

/* Mean error over the points, and R^2 where it is wanted. */
static double judge(const points *p, const bl_calibration *c, double *r_squared) {
  const int32_t n = (p->end - p->first + p->step - 1) / p->step;
  double *predicted = p->scratch, *measured = p->scratch + n;
  for (int32_t k = 0, i = p->first; k < n; k++, i += p->step) {
    predicted[k] = bl_calibrated(c, p->estimated[i], p->hottest[i]);
    measured[k] = p->measured[i];
  }
  if (r_squared) *r_squared = bl_r_squared(predicted, measured, n);
  return bl_mean_error(predicted, measured, n);
}

static bl_status calibrate(const points *all, bl_calibration_kind kind, bl_calibration *c) {
  points even = *all, odd = *all, half[2] = {*all, *all};
  bl_calibration part = {0};
  even.step = odd.step = half[0].step = half[1].step = 2;
  odd.first = 1;
  half[0].end = half[1].first = all->end / 4 * 2;
  memset(c, 0, sizeof *c);
  for (int h = 0; h < 2; h++) {
    BL_TRY(fit_calibration(&half[h], kind, &part));
    c->crossed_error += judge(&half[1 - h], &part, NULL) / 2;
  }
  BL_TRY(fit_calibration(&even, kind, c));
  c->fitted_error = judge(&even, c, NULL);
  c->held_out_error = judge(&odd, c, &c->held_out_r_squared);
  return BL_OK;
}

bl_status bl_calibrate(const double *estimated, const double *hottest, const double *measured, int32_t n,
                       bl_calibration out[BL_CALIBRATION_COUNT], bl_calibration_kind *best) {
  points all = {.estimated = estimated, .hottest = hottest, .measured = measured, .end = n, .step = 1};
  bl_status status = BL_OK;
  if (n < 8) return bl_fail(BL_EINPUT, "a calibration: expected at least 8 measured calls, found %d", n);
  BL_TRY(bl_new(&all.scratch, (size_t)n * 4, sizeof *all.scratch, "a calibration"));
  *best = BL_CALIBRATION_LINE;
  for (int k = 0; k < BL_CALIBRATION_COUNT && status == BL_OK; k++) {
    status = calibrate(&all, (bl_calibration_kind)k, &out[k]);
    if (status == BL_OK && out[k].crossed_error < out[*best].crossed_error) *best = (bl_calibration_kind)k;
  }
  free(all.scratch);
  return status;
}
