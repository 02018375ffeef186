/* even_slots.h - a layer's placement for stacks that split an expert's tokens evenly over its replicas and want every
 * slot filled: vLLM, SGLang, TensorRT-LLM, DeepSeek's EPLB. */
#ifndef BL_PLANNER_EVEN_SLOTS_H
#define BL_PLANNER_EVEN_SLOTS_H

#include "costmodel/plan.h"

/*! bl_even_slots() : the expert in each of a layer's slots, rank by rank, phy2log[sum of slots]: on every rank its
 *  experts by number, those with several replicas there side by side. Experts whose shares are just those of an even
 *  split get the fewest replicas that give them; slots left over go to replicas of experts that the rank has, one at a
 *  time, where the shares gain most by it (the lower rank, then number, on a tie); -1 on ranks without experts.
 *  *off: the largest difference that stays between a rank's part of an expert under the even split and the plan's.
 *  @return : BL_OK, or BL_EMACHINE. */
bl_status bl_even_slots(const bl_placement *placement, int32_t layer, int32_t *phy2log, double *off);

#endif
