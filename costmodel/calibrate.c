/* calibrate.c - one factor by least squares of the relative error. */
#include "costmodel/calibrate.h"
#include <math.h>

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
