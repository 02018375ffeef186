/* concentration.c - Gini coefficient, Herfindahl index, total variation; sums run from the first value to the last. */
#include "traces/concentration.h"
#include <math.h>

double bl_gini(const double *ascending, int32_t n) {
  double weighted = 0, total = 0;
  for (int32_t i = 0; i < n; i++) {
    weighted += (2.0 * (i + 1) - n - 1) * ascending[i];
    total += ascending[i];
  }
  return total > 0 ? weighted / (n * total) : 0;
}

double bl_herfindahl(const double *values, int32_t n) {
  double squares = 0, total = 0;
  for (int32_t i = 0; i < n; i++) {
    squares += values[i] * values[i];
    total += values[i];
  }
  return total > 0 ? squares / (total * total) : 1.0 / n;
}

double bl_total_variation(const double *a, const double *b, int32_t n) {
  double distance = 0;
  for (int32_t i = 0; i < n; i++) distance += fabs(a[i] - b[i]);
  return 0.5 * distance;
}
