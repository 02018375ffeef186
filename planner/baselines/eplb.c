#include "planner/baselines/eplb.h"
#include "base/memory.h"
#include "planner/place/order.h"
#include <string.h>

bl_status bl_eplb_place(const double *load, int32_t experts, int32_t ranks, const int32_t *slots, int32_t *replicas) {
  int64_t n = 0;
  for (int32_t r = 0; r < ranks; ++r) n += slots[r];
  if (n < experts)
    return bl_fail(BL_EINPUT, "%lld slots cannot hold a replica of each of %d experts", (long long)n, experts);
  const size_t total = (size_t)n;
  int32_t *expert;
  double *weight;
  BL_TRY(bl_new(&expert, 3 * total + (size_t)experts + (size_t)ranks, sizeof *expert, "the EPLB rule"));
  const bl_status status = bl_new(&weight, total + (size_t)ranks, sizeof *weight, "the EPLB rule");
  if (status != BL_OK) {
    free(expert);
    return status;
  }
  int32_t *order = expert + total, *scratch = order + total, *count = scratch + total, *used = count + experts;
  double *sum = weight + total;
  for (int32_t e = 0; e < experts; ++e) {
    expert[e] = e;
    count[e] = 1;
  }
  for (int32_t i = experts; i < n; ++i) {
    int32_t most = 0;
    for (int32_t e = 1; e < experts; ++e)
      if (load[e] / count[e] > load[most] / count[most]) most = e;
    expert[i] = most;
    ++count[most];
  }
  for (int32_t i = 0; i < n; ++i) weight[i] = load[expert[i]] / count[expert[i]];
  bl_order_descending(weight, (int32_t)n, order, scratch);
  memset(replicas, 0, (size_t)ranks * (size_t)experts * sizeof *replicas);
  for (int32_t i = 0; i < n; ++i) {
    int32_t best = -1;
    for (int32_t r = 0; r < ranks; ++r)
      if (used[r] < slots[r] && (best < 0 || sum[r] < sum[best])) best = r;
    ++used[best];
    sum[best] += weight[order[i]];
    ++replicas[(int64_t)best * experts + expert[order[i]]];
  }
  free(weight);
  free(expert);
  return BL_OK;
}
