/* eplb.h - DeepSeek's expert-parallel load balancer in its global form: replicas for the most loaded, packed greedily.
 *
 * Source: the public rule of DeepSeek's EPLB. Generalised to ranks with different numbers of slots. */
#ifndef BL_PLANNER_BASELINES_EPLB_H
#define BL_PLANNER_BASELINES_EPLB_H

#include "base/status.h"
#include <stdint.h>

/*! bl_eplb_place() : every expert has one replica; each further slot goes to the expert with the largest load per
 *  replica (the lower id on a tie). Replicas, by descending load per replica (ties: the order in which they were made),
 *  go to the least loaded rank with a free slot (the lower rank on a tie). Replicas of one expert may meet on a rank.
 *  replicas[ranks][experts] counts them; slots[ranks], their sum at least `experts`. */
bl_status bl_eplb_place(const double *load, int32_t experts, int32_t ranks, const int32_t *slots, int32_t *replicas);

#endif
