/* fastermoe.h - FasterMoE's dynamic shadowing: the hottest experts are copied to all ranks for one step, where a simple
 * model of the step says that this pays.
 *
 * Source: He et al., PPoPP 2022; rule and constants as in the artifact of SmartMoE. */
#ifndef BL_PLANNER_BASELINES_FASTERMOE_H
#define BL_PLANNER_BASELINES_FASTERMOE_H

#include "base/status.h"
#include <stdint.h>

typedef struct bl_fastermoe_model {
  double network_bytes_per_s, flop_per_s, hidden, alpha; /* alpha: expert width / hidden */
} bl_fastermoe_model;

/*! bl_fastermoe_model_default() : 8 GB/s, 112 TFLOP/s, hidden 1536, alpha 2, 2 bytes a number. */
bl_fastermoe_model bl_fastermoe_model_default(void);

typedef struct bl_fastermoe_choice {
  int32_t shadows;          /* how many of the hottest experts to shadow: order[0..shadows-1] */
  double base_s, latency_s; /* predicted layer time without shadows, and with those chosen */
} bl_fastermoe_choice;

/*! bl_fastermoe_choose() : counts[ranks][experts] by source rank; home[experts].
 *  Hottest first, one more shadow at a time: the layer then takes
 *    3 comp (B_x + sum over shadowed j of C[home(x)][j]) + 4 feature (B_x - own_x) + shadows * model,
 *  with x the hottest expert left, B its tokens, own those already at its home; until that is no less than without
 *  shadows; the least one wins.  order[experts]: experts by descending tokens. */
bl_status bl_fastermoe_choose(const bl_fastermoe_model *model, const double *counts, int32_t experts, int32_t ranks,
                              const int32_t *home, int32_t *order, bl_fastermoe_choice *out);

#endif
