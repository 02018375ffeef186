/* cost_solve.h - homes, copies, shares and feeders of a layer together, for the least microseconds of a step (cost.h).
 *
 * Starting points: what is there, without copies, with copies down to several loads a rank, and with copies searched
 * for by balance (copies.h); the hottest experts with a host in every node; and where homes may move, the window rule
 * on one level and on all (levels.h), and longest-first over pieces at several loads a rank. What a copy costs decides
 * which of them is best. From each of the best, copies that are not worth their price are given up, many at a time and
 * then one by one; then a local search over single changes: a copy more, one fewer, one elsewhere or of another expert,
 * a home and its copy exchanging parts, two homes exchanged, one moved. The best goes on with what is left of the
 * budget, from blind changes where it has come to an end; at last shares are moved pair by pair. Shares on the way
 * start with every token at its nearest host, are levelled from there (flow.h), with unequal speeds for speeds cut at
 * several heights, because fast ranks receive more, and go back towards the nearest hosts as long as it pays. Results
 * depend on the arguments alone. */
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
