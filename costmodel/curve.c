/* curve.c - piecewise linear costs. */
#include "costmodel/curve.h"
#include <math.h>

double bl_curve_at(const bl_curve *curve, double x) {
  const int32_t n = curve->n;
  if (n == 1 || x <= curve->x[0]) return curve->us[0];
  int32_t i = 1;
  while (i < n - 1 && x > curve->x[i]) i++;
  double slope = (curve->us[i] - curve->us[i - 1]) / (curve->x[i] - curve->x[i - 1]);
  if (x > curve->x[n - 1] && slope < 0) slope = 0;
  return curve->us[i] + slope * (x - curve->x[i]);
}

bl_status bl_curve_add(bl_curve *curve, double x, double us) {
  if (curve->n == BL_CURVE_MAX_POINTS)
    return bl_fail(BL_EINPUT, "a cost curve: expected at most %d points", BL_CURVE_MAX_POINTS);
  if (!(x > 0) || !(us >= 0) || !isfinite(x) || !isfinite(us) || (curve->n > 0 && x <= curve->x[curve->n - 1]))
    return bl_fail(BL_EINPUT, "a cost curve: expected ascending positive amounts, found %g at %g us", x, us);
  curve->x[curve->n] = x;
  curve->us[curve->n++] = us;
  return BL_OK;
}

double bl_curve_held_out_error(const bl_curve *curve) {
  if (curve->n < 3) return 0;
  double sum = 0;
  for (int32_t i = 1; i < curve->n - 1; i++) {
    const double t = (curve->x[i] - curve->x[i - 1]) / (curve->x[i + 1] - curve->x[i - 1]);
    const double predicted = curve->us[i - 1] + t * (curve->us[i + 1] - curve->us[i - 1]);
    if (curve->us[i] > 0) sum += fabs(predicted - curve->us[i]) / curve->us[i];
  }
  return sum / (curve->n - 2);
}
