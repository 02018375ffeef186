#include "planner/baselines/smartmoe.h"
#include "base/memory.h"
#include "planner/place/order.h"
#include <string.h>

enum { SHORT_RUN = 16 };

static void exchange(int32_t *a, int32_t *b) {
  const int32_t kept = *a;
  *a = *b;
  *b = kept;
}

/* Splits lo..hi around the median of its first, middle and last value; returns the pivot's place. */
static int32_t split(const double *value, int32_t *order, int32_t lo, int32_t hi) {
  const int32_t middle = lo + (hi - lo) / 2;
  if (value[order[middle]] < value[order[lo]]) exchange(&order[middle], &order[lo]);
  if (value[order[hi]] < value[order[middle]]) exchange(&order[hi], &order[middle]);
  if (value[order[middle]] < value[order[lo]]) exchange(&order[middle], &order[lo]);
  const double pivot = value[order[middle]];
  int32_t left = lo, right = hi - 1;
  exchange(&order[middle], &order[right]);
  for (;;) {
    do ++left;
    while (value[order[left]] < pivot);
    do --right;
    while (pivot < value[order[right]]);
    if (left >= right) break;
    exchange(&order[left], &order[right]);
  }
  exchange(&order[left], &order[hi - 1]);
  return left;
}

static void insert(const double *value, int32_t *order, int32_t lo, int32_t hi) {
  for (int32_t i = lo + 1; i <= hi; ++i) {
    const int32_t moving = order[i];
    int32_t k = i;
    for (; k > lo && value[moving] < value[order[k - 1]]; --k) order[k] = order[k - 1];
    order[k] = moving;
  }
}

void bl_numpy_argsort(const double *value, int32_t n, int32_t *order) {
  int32_t stack[2 * 32], depth = 0, lo = 0, hi = n - 1;
  for (int32_t i = 0; i < n; ++i) order[i] = i;
  for (;;) {
    while (hi - lo >= SHORT_RUN) { /* the larger part waits, so the stack stays below log2(n) */
      const int32_t pivot = split(value, order, lo, hi);
      if (pivot - lo < hi - pivot) {
        stack[depth++] = pivot + 1;
        stack[depth++] = hi;
        hi = pivot - 1;
      } else {
        stack[depth++] = lo;
        stack[depth++] = pivot - 1;
        lo = pivot + 1;
      }
    }
    insert(value, order, lo, hi);
    if (depth == 0) return;
    hi = stack[--depth];
    lo = stack[--depth];
  }
}

static double largest(const double *sum, int32_t ranks) {
  double most = 0;
  for (int32_t r = 0; r < ranks; ++r)
    if (sum[r] > most) most = sum[r];
  return most;
}

bl_status bl_smartmoe_place(const double *load, int32_t experts, int32_t ranks, const int32_t *most_homes,
                            bl_smartmoe_ties ties, int32_t *home, bool *adopted) {
  int32_t *order;
  double *sum;
  *adopted = false;
  BL_TRY(bl_new(&order, 3 * (size_t)experts + (size_t)ranks, sizeof *order, "the SmartMoE rule"));
  bl_status status = BL_OK;
  BL_TRY_GOTO(status, bl_new(&sum, (size_t)ranks, sizeof *sum, "the SmartMoE rule"), done);
  int32_t *scratch = order + experts, *next = scratch + experts, *used = next + experts;
  for (int32_t e = 0; e < experts; ++e) sum[home[e]] += load[e];
  const double before = largest(sum, ranks);
  memset(sum, 0, (size_t)ranks * sizeof *sum);
  if (ties == BL_TIES_STABLE) {
    bl_order_descending(load, experts, order, scratch);
  } else {
    bl_numpy_argsort(load, experts, scratch);
    for (int32_t i = 0; i < experts; ++i) order[i] = scratch[experts - 1 - i];
  }
  for (int32_t i = 0; i < experts; ++i) {
    const int32_t e = order[i];
    int32_t best = -1;
    for (int32_t r = 0; r < ranks; ++r)
      if (used[r] < most_homes[r] && (best < 0 || sum[r] < sum[best])) best = r;
    if (best < 0) {
      status = bl_fail(BL_EINPUT, "%d ranks have no room for the homes of %d experts", ranks, experts);
      goto done_sum;
    }
    if (used[home[e]] < most_homes[home[e]] && sum[home[e]] == sum[best]) best = home[e];
    next[e] = best;
    sum[best] += load[e];
    ++used[best];
  }
  *adopted = before > largest(sum, ranks);
  if (*adopted) memcpy(home, next, (size_t)experts * sizeof *home);
done_sum:
  free(sum);
done:
  free(order);
  return status;
}
