/* anneal.h - items on ranks made more even by exchanging pairs of them: the strong start that a proof needs. */
#ifndef BL_PLANNER_PLACE_ANNEAL_H
#define BL_PLANNER_PLACE_ANNEAL_H

#include "base/status.h"
#include <stdint.h>

/*! bl_anneal_swaps() : simulated annealing on the sum of squared rank loads over exchanges of two items, so that every
 *  rank keeps its number of items; keeps the placement with the smallest largest load that it came by.
 *  load[items] >= 0; rank[items] is the start and the result, never worse than the start. Ends after `steps` exchanges
 *  have been weighed, or when the largest load is at most `enough`. The same arguments give the same result.
 *  @return : BL_OK or BL_EMACHINE; *largest is the largest rank load of the result. */
bl_status bl_anneal_swaps(const double *load, int32_t items, int32_t ranks, int64_t steps, double enough, int32_t *rank,
                          double *largest);

#endif
