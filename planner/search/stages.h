/* stages.h - layers of a model divided into the stages of a pipeline. */
#ifndef BL_PLANNER_SEARCH_STAGES_H
#define BL_PLANNER_SEARCH_STAGES_H

#include "planner/search/price.h"

enum { BL_STAGES_MAX_LAYERS = 512 };

/*! bl_stages_divide() : runs of layers for the pp x vp stages, the embedding with the first and the head with the last,
 *  so that the slowest stage is as fast as can be: dynamic programming over (stage, layers before), exact. Without
 *  interleaving (vp = 1) only divisions that fit `memory_bytes` (of the cluster's first device; smaller ones have their
 *  share) count, so the pipeline is the fastest of any that fits; with it a device's memory is that of several stages:
 *  the caller checks. A stage may be without layers; of divisions as fast, the last stages take what is nearest to the
 *  mean, so that interleaved rounds are as even as they can be.  first[pp * vp + 1].  @return : whether there is a division (false
 * too where memory for it cannot be had: half a megabyte at most). */
bool bl_stages_divide(const bl_model *model, const bl_grid *grid, const bl_grid_costs *costs, double memory_bytes,
                      int32_t *first);

/*! bl_stages_counts() : items of each pipeline position; stage s is at position s mod pp.
 *  counts[pp][BL_ITEM_COUNT]. */
void bl_stages_counts(const bl_model *model, const bl_grid *grid, const int32_t *first, int32_t *counts);

/*! bl_stages_memory() : the fullest position's memory: that of which the largest part of its devices' memory is full.
 *  @return : its position. */
int32_t bl_stages_memory(const bl_grid *grid, const bl_grid_costs *costs, const int32_t *counts, bl_footprint *out);

/*! bl_stages_memory_share() : what a position's devices have of memory, to that of the cluster's first. */
double bl_stages_memory_share(const bl_grid_costs *costs, int32_t position);

#endif
