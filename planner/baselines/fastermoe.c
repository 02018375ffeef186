#include "planner/baselines/fastermoe.h"
#include "base/memory.h"
#include "planner/place/order.h"

bl_fastermoe_model bl_fastermoe_model_default(void) { return (bl_fastermoe_model){8e9, 112e12, 1536, 2}; }

bl_status bl_fastermoe_choose(const bl_fastermoe_model *model, const double *counts, int32_t experts, int32_t ranks,
                              const int32_t *home, int32_t *order, bl_fastermoe_choice *out) {
  const double bytes = 2, h = model->hidden;
  const double compute = 4 * model->alpha * h * h / model->flop_per_s; /* one token, forward */
  const double feature = h * bytes / model->network_bytes_per_s;
  const double weights = 4 * model->alpha * h * h * bytes / model->network_bytes_per_s * 4; /* broadcast and reduce */
  double *total;
  int32_t *scratch;
  BL_TRY(bl_new(&total, (size_t)experts, sizeof *total, "the FasterMoE rule"));
  const bl_status status = bl_new(&scratch, (size_t)experts, sizeof *scratch, "the FasterMoE rule");
  if (status != BL_OK) {
    free(total);
    return status;
  }
  for (int32_t r = 0; r < ranks; ++r)
    for (int32_t e = 0; e < experts; ++e) total[e] += counts[(int64_t)r * experts + e];
  bl_order_descending(total, experts, order, scratch);
  *out = (bl_fastermoe_choice){0};
  for (int32_t s = 0; s < experts; ++s) {
    const int32_t x = order[s];
    const double *at_home = counts + (int64_t)home[x] * experts;
    double here = total[x];
    for (int32_t j = 0; j < s; ++j) here += at_home[order[j]];
    const double latency = 3 * compute * here + 4 * feature * (total[x] - at_home[x]) + s * weights;
    if (s == 0) {
      out->base_s = out->latency_s = latency;
      continue;
    }
    if (latency >= out->base_s) break;
    if (latency < out->latency_s) {
      out->latency_s = latency;
      out->shadows = s;
    }
  }
  free(scratch);
  free(total);
  return BL_OK;
}
