/* cost_change.h - the local search over single changes of a placement. Private to cost_*.c. */
#ifndef BL_PLANNER_PLACE_COST_CHANGE_H
#define BL_PLANNER_PLACE_COST_CHANGE_H

#include "planner/place/cost_state.h"

typedef struct bl_place_changes bl_place_changes; /* workspace; the judge is borrowed */

bl_status bl_place_changes_create(bl_place_judge *judge, bl_place_changes **out);
void bl_place_changes_free(bl_place_changes *changes);

/*! bl_place_changes_search() : improves `now`, of a price, by one change after another until none helps or *left prices
 *  have been asked for. Small layers: every change is tried; else those at the busiest rank and ports, the most
 *  promising first. trial: overwritten. */
bl_status bl_place_changes_search(bl_place_changes *changes, bl_place_state *now, bl_place_state *trial, int32_t *left);

/*! bl_place_changes_kick() : makes `count` changes drawn from those that could be tried, good or bad, and prices the
 *  result: where another search may start. `number` seeds the draw. */
bl_status bl_place_changes_kick(bl_place_changes *changes, bl_place_state *now, int32_t count, int32_t number);

#endif
