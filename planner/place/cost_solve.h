/* cost_solve.h - homes, copies, shares and feeders of a layer together, for the least microseconds of a step (cost.h).
 *
 * Starting points: what is there; homes that stay with copies down to a load a rank; and where homes may move, the
 * window rule on one level and on all (levels.h), and longest-first over pieces at several loads a rank, from the mean
 * to no copies at all: what a copy costs decides which of them is best. From each of the best, copies that are not
 * worth their price are given up, many at a time and then one by one; then a local search that tries changes at the
 * busiest rank and ports: a copy more, one fewer, one elsewhere or of another expert, two homes exchanged, one moved, a
 * home and its copy exchanging parts. Shares are the best for compute (hosts.h); with unequal speeds also those for
 * speeds cut at several heights, because fast ranks receive more. Results depend on the arguments alone. */
#ifndef BL_PLANNER_PLACE_COST_SOLVE_H
#define BL_PLANNER_PLACE_COST_SOLVE_H

#include "planner/place/cost_bound.h"

/* One layer's placement; owned by the solver until its next call. */
typedef struct bl_place_solution {
  const int32_t *home;   /* [experts] */
  const bl_copy *copies; /* [n_copies], by ascending rank, shares above 0 */
  const int32_t *feeder; /* [n_copies]: the rank that fills each; its home's without relays */
  int32_t n_copies;
  bl_place_price price;
  bl_place_bound bound;
  int32_t evaluations; /* placements priced */
} bl_place_solution;

typedef struct bl_place_solver bl_place_solver; /* workspace of one thread; machine, slots and sizes stay the same */

/*! bl_place_solver_create() : for problems that have this one's machine, slots, homes, relay and numbers of experts and
 *  ranks; all borrowed, demand and old homes change from call to call.  @return : BL_OK, BL_EINPUT (machine; slots that
 *  cannot hold all experts) or BL_EMACHINE. */
bl_status bl_place_solver_create(const bl_place_problem *problem, bl_place_solver **out);
void bl_place_solver_free(bl_place_solver *solver);

/*! bl_place_solve() : `budget` placements are priced at most in the local search; 0: a number that suits the size.
 *  Old homes must fit into the slots where homes are fixed. */
bl_status bl_place_solve(bl_place_solver *solver, const bl_place_demand *demand, const int32_t *old_home,
                         int32_t budget, bl_place_solution *out);

#endif
