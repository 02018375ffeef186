/* imbalance.h - how unevenly a recorded routing loads the ranks of an expert-parallel group, for each size of it. */
#ifndef BL_PLANNER_SEARCH_IMBALANCE_H
#define BL_PLANNER_SEARCH_IMBALANCE_H

#include "traces/trace.h"

/*! bl_search_imbalances() : imbalance[ep], for each ep that divides the experts, 1 elsewhere: homes as many on each
 * rank, longest first, and `copy_slots` copies a rank, chosen for the mean of the trace; then fresh shares on each of
 * up to 16 of its steps, evenly spaced: the mean of max/mean load over these steps and all layers. imbalance[experts +
 * 1].  @return : BL_OK, BL_EINPUT (damaged trace), BL_EMACHINE. */
bl_status bl_search_imbalances(bl_trace_reader *trace, int32_t copy_slots, double *imbalance);

#endif
