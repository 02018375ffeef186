#include "planner/place/order.h"
#include <math.h>
#include <string.h>

enum { RUN = 16 };

/* Stable merge sort by sign * load. */
static void sort(const double *load, double sign, int32_t n, int32_t *order, int32_t *scratch) {
  for (int32_t start = 0; start < n; start += RUN) {
    const int32_t end = start + RUN < n ? start + RUN : n;
    for (int32_t i = start; i < end; ++i) {
      const double key = sign * load[i];
      int32_t k = i;
      for (; k > start && sign * load[order[k - 1]] > key; --k) order[k] = order[k - 1];
      order[k] = i;
    }
  }
  for (int32_t width = RUN; width < n; width *= 2) {
    for (int32_t start = 0; start < n; start += 2 * width) {
      const int32_t middle = start + width < n ? start + width : n;
      const int32_t end = start + 2 * width < n ? start + 2 * width : n;
      int32_t a = start, b = middle;
      for (int32_t i = start; i < end; ++i) {
        const int take_b = a >= middle || (b < end && sign * load[order[b]] < sign * load[order[a]]);
        scratch[i] = take_b ? order[b++] : order[a++];
      }
    }
    memcpy(order, scratch, (size_t)n * sizeof *order);
  }
}

void bl_order_ascending(const double *load, int32_t n, int32_t *order, int32_t *scratch) {
  sort(load, 1.0, n, order, scratch);
}

void bl_order_descending(const double *load, int32_t n, int32_t *order, int32_t *scratch) {
  sort(load, -1.0, n, order, scratch);
}

int32_t bl_order_least(const double *value, int32_t n) {
  enum { LANES = 16 };
  double lane[LANES], least = INFINITY;
  int32_t i = 0;
  for (int k = 0; k < LANES; ++k) lane[k] = INFINITY;
  for (; i + LANES <= n; i += LANES)
    for (int k = 0; k < LANES; ++k) lane[k] = value[i + k] < lane[k] ? value[i + k] : lane[k];
  for (; i < n; ++i) least = value[i] < least ? value[i] : least;
  for (int k = 0; k < LANES; ++k) least = lane[k] < least ? lane[k] : least;
  if (!(least < INFINITY)) return -1;
  for (i = 0; value[i] != least;) ++i;
  return i;
}
