/* cuts.h - sets of ranks that have limited one placement, kept to bound others like it without solving a flow.
 *
 * The load of the experts whose hosts all lie in a set of ranks can go nowhere else, so (that load) / (speed of the
 * set) is a lower bound of the largest load / speed, for every scenario of loads alike. The closed sets in which flows
 * end (flow.h) are the tightest of these cuts. Placements that differ in the hosts of an expert or two mostly run into
 * the same ones. */
#ifndef BL_PLANNER_PLACE_CUTS_H
#define BL_PLANNER_PLACE_CUTS_H

#include "planner/place/flow.h"

/* Scenarios are handled in groups of 4: the room that n of them take. */
#define BL_CUTS_LANES(n) (((n) + 3) / 4 * 4)

typedef struct bl_cuts bl_cuts; /* workspace of one thread */

bl_status bl_cuts_create(int32_t experts, int32_t ranks, int32_t max_scenarios, bl_cuts **out);
void bl_cuts_free(bl_cuts *cuts); /* NULL is fine */

/*! bl_cuts_start() : forgets all sets; takes over the hosts of `graph`, load[n][experts] and the scenarios' weight[n]
 *  (copied), and speed[ranks] (borrowed, or NULL). */
void bl_cuts_start(bl_cuts *cuts, const bl_flow_graph *graph, const double *load, int32_t n, const double *weight,
                   const double *speed);

/*! bl_cuts_add() : one more set, of the hosts taken over; the oldest of too many goes. */
void bl_cuts_add(bl_cuts *cuts, const int32_t *rank, int32_t n);

/*! bl_cuts_take() : `graph` now, which differs from the one taken over in the hosts of expert[n] alone. */
void bl_cuts_take(bl_cuts *cuts, const bl_flow_graph *graph, const int32_t *expert, int32_t n);

/*! bl_cuts_bound() : raises level[] to what the sets say of `graph`, which differs from the one taken over in the
 *  hosts of expert[n] alone, n <= 2. Up to rounding these are lower bounds of what bl_flow_solve() returns. level[] has
 *  room for BL_CUTS_LANES(scenarios); ends early where their weighted sum exceeds the limit.
 *  @return : the weighted sum. */
double bl_cuts_bound(bl_cuts *cuts, const bl_flow_graph *graph, const int32_t *expert, int32_t n, double limit,
                     double *level);

#endif
