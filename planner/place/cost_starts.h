/* cost_starts.h - placements from which the search for the least price starts. Private to cost_*.c. */
#ifndef BL_PLANNER_PLACE_COST_STARTS_H
#define BL_PLANNER_PLACE_COST_STARTS_H

#include "planner/place/cost_state.h"
#include "planner/place/levels.h"

typedef struct bl_place_starts bl_place_starts; /* workspace; the judge is borrowed */

bl_status bl_place_starts_create(const bl_place_judge *judge, bl_place_starts **out);
void bl_place_starts_free(bl_place_starts *starts);

/* Each writes homes and copies (shares of copies where they follow from the rule, else 1) and counts them. */

/*! bl_place_start_given() : old homes, no copies. */
void bl_place_start_given(bl_place_starts *starts, bl_place_state *state);

/*! bl_place_start_relieve() : adds copies until no rank's load / speed exceeds `level`, as far as slots allow: the
 *  hottest rank's largest expert goes to the coldest rank with a slot, of the same node if it can take half as much.
 *  Copies that there are keep their shares at first. */
void bl_place_start_relieve(bl_place_starts *starts, double level, bl_place_state *state);

/*! bl_place_start_search() : homes stay; copies are searched for from those that there are, for balance alone, a copy
 *  costing `copy_price` of the balanced time (copies.h). */
bl_status bl_place_start_search(bl_place_starts *starts, double copy_price, bl_place_state *state);

/*! bl_place_start_window() : the window rule, on one level or on all of the machine. Shares are set. */
bl_status bl_place_start_window(bl_place_starts *starts, bool by_levels, bl_place_state *state);

/*! bl_place_start_pieces() : experts above level * mean speed are cut into as few equal pieces as are not; longest
 *  first, each piece goes to the least loaded rank with a slot, of its home's node if it stays below the level there.
 */
bl_status bl_place_start_pieces(bl_place_starts *starts, double level, bl_place_state *state);

/*! bl_place_start_spread() : the `count` hottest experts get a host in every node, each for what its node sends; the
 *  others one, longest first on the rank that takes least time to compute and to receive, the latter counted
 * `receiving` times. With `keep`, homes are the old ones and only copies are added. Shares are set. */
void bl_place_start_spread(bl_place_starts *starts, int32_t count, bool keep, double receiving, bl_place_state *state);

/*! bl_place_start_relabel() : renames ranks, where they are alike, so that few homes move: nodes, then ranks in them.
 */
bl_status bl_place_start_relabel(bl_place_starts *starts, bl_place_state *state);

#endif
