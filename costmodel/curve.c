/* curve.c - piecewise linear costs, and their part of a file. */
#include "costmodel/curve.h"
#include <math.h>
#include <string.h>

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

bl_status bl_curve_read(bl_json object, const char *unit, bl_curve *out) {
  bl_json xs, times;
  const char *per;
  int64_t n, n_times;
  out->n = 0;
  BL_TRY(bl_json_keys(object, "per amounts times_us"));
  BL_TRY(bl_json_string(object, "per", &per));
  if (strcmp(per, unit) != 0) return bl_json_fail(object, "expected per \"%s\", found \"%s\"", unit, per);
  BL_TRY(bl_json_array(object, "amounts", 1, BL_CURVE_MAX_POINTS, &xs, &n));
  BL_TRY(bl_json_array(object, "times_us", n, n, &times, &n_times));
  bl_json x = bl_json_first(xs), t = bl_json_first(times);
  for (int64_t i = 0; i < n; i++, x = bl_json_next(x), t = bl_json_next(t)) {
    double amount, us;
    BL_TRY(bl_json_as_number(x, 1e-9, 1e18, &amount));
    BL_TRY(bl_json_as_number(t, 0, 1e15, &us));
    if (i > 0 && amount <= out->x[i - 1]) return bl_json_fail(x, "expected ascending amounts, found %g", amount);
    BL_TRY(bl_curve_add(out, amount, us));
  }
  return BL_OK;
}

static void write_numbers(bl_json_writer *w, const char *key, const double *values, int32_t n) {
  bl_json_key(w, key);
  bl_json_begin_flat_array(w);
  for (int32_t i = 0; i < n; i++) bl_json_write_number(w, values[i]);
  bl_json_end_array(w);
}

void bl_curve_write(bl_json_writer *w, const char *unit, const bl_curve *curve) {
  bl_json_begin_object(w);
  bl_json_put_string(w, "per", unit);
  write_numbers(w, "amounts", curve->x, curve->n);
  write_numbers(w, "times_us", curve->us, curve->n);
  bl_json_end_object(w);
}
