#include "planner/place/bound.h"
#include "base/memory.h"
#include "planner/place/order.h"
#include <stdbool.h>

/* w[n]: descending, padded with zeros. The largest rank load that no placement of homes avoids. */
static double unavoidable(const double *w, int32_t n, int32_t ranks, int32_t k, bool fillers, const char **proof) {
  double filler = 0, worst = 0;
  if (fillers)
    for (int32_t i = 0; i < k - 1; ++i) filler += w[n - 1 - i];
  for (int32_t q = 1; q <= k; ++q) {
    const int32_t last = (q - 1) * ranks; /* the smallest of the (q-1)P+1 hottest; q of these meet on one rank */
    if (last >= n) break;
    double load = filler;
    for (int32_t i = 0; i < q; ++i) load += w[last - i];
    if (load > worst) {
      worst = load;
      *proof = q == 1 ? "hottest-expert" : "pigeonhole";
    }
    if (fillers && q < k) filler -= w[n - k + q];
  }
  return worst;
}

bl_status bl_bound_homes(const double *load, int32_t experts, int32_t ranks, int32_t homes_per_rank,
                         const double *speed, bl_bound *out) {
  *out = bl_bound_copies();
  if (experts < 1 || ranks < 1) return bl_fail(BL_EINPUT, "a bound needs at least one expert and one rank");
  const int32_t k = (experts + ranks - 1) / ranks, n = k * ranks;
  double *w, sum = 0, speeds = ranks, fastest = 1;
  int32_t *order;
  BL_TRY(bl_new(&w, (size_t)n, sizeof *w, "a bound"));
  const bl_status status = bl_new(&order, 2 * (size_t)experts, sizeof *order, "a bound");
  if (status != BL_OK) {
    free(w);
    return status;
  }
  bl_order_descending(load, experts, order, order + experts);
  for (int32_t i = 0; i < experts; ++i) sum += w[i] = load[order[i]];
  if (speed) {
    speeds = 0;
    for (int32_t r = 0; r < ranks; ++r) {
      speeds += speed[r];
      if (r == 0 || speed[r] > fastest) fastest = speed[r];
    }
  }
  const char *proof = out->proof;
  const double mean = sum / speeds;
  const double worst = unavoidable(w, n, ranks, k, homes_per_rank <= k, &proof) / fastest;
  if (mean > 0 && worst > mean) *out = (bl_bound){worst / mean, proof};
  free(w);
  free(order);
  return BL_OK;
}

bl_bound bl_bound_copies(void) { return (bl_bound){1.0, "mean-load"}; }
