/* cost_polish.h - shares of a found placement, moved between hosts as long as the price falls. Private to cost_*.c. */
#ifndef BL_PLANNER_PLACE_COST_POLISH_H
#define BL_PLANNER_PLACE_COST_POLISH_H

#include "planner/place/cost_state.h"

/*! bl_place_polish() : hosts stay; between two hosts of an expert, one of them at the busiest rank or port, parts of
 * its load change places, large ones first, until none helps or *left prices have been asked for. The price is convex
 * in the shares, but a step along one pair may not help where one along several would: the result is no proof. trial:
 *  overwritten. */
bl_status bl_place_polish(bl_place_judge *judge, bl_place_state *now, bl_place_state *trial, int32_t *left);

#endif
