/* price_bound.h - a proved lower bound of a placement's price in microseconds, in a child process.
 *
 * One hot expert may spoil a bound by prices: half of it here and half of it there is no placement. So the placements
 * that could be cheaper than the one known are divided into boxes of compute and exchange times (dual_sum.h); the box
 * that proves least is halved, again and again, until time is up. The bound is the least of the boxes'. */
#ifndef BL_PLANNER_MILP_PRICE_BOUND_H
#define BL_PLANNER_MILP_PRICE_BOUND_H

#include "planner/place/cost_bound.h"

/*! bl_prove_price() : raises `bound` as far as is proved in `seconds` and `memory_bytes` (0: 1 GiB). price_us: of a
 *  placement that is known; a bound that reaches it says so. reason[160]: why there is a gap, "" where there is none.
 *  Without GLPK nothing changes but the reason.  @return : BL_OK whatever becomes of the child; BL_EINPUT, BL_EMACHINE.
 */
bl_status bl_prove_price(const bl_place_problem *problem, double price_us, double seconds, int64_t memory_bytes,
                         bl_place_bound *bound, char reason[160]);

#endif
