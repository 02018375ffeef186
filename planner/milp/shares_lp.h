/* shares_lp.h - the best shares for fixed hosts as a linear program: an independent check of bl_shares_solve(). */
#ifndef BL_PLANNER_MILP_SHARES_LP_H
#define BL_PLANNER_MILP_SHARES_LP_H

#include "planner/place/hosts.h"

/*! bl_shares_lp() : minimises the largest rank load (divided by speed[rank] where speed is not NULL) over all ways to
 *  split every expert over its hosts, by GLPK's simplex in this process.
 *  *imbalance: the optimal max/mean, 1.0 for zero load.
 *  @return : BL_ENOTSUP where built without GLPK, BL_EMACHINE where GLPK does not reach an optimum. */
bl_status bl_shares_lp(const bl_hosts *hosts, const double *load, const double *speed, double *imbalance);

/*! bl_shares_lp_in_child() : the same in a child process with `seconds` to live: GLPK may abort.
 *  *imbalance is 0 where the child did not answer. */
bl_status bl_shares_lp_in_child(const bl_hosts *hosts, const double *load, const double *speed, double seconds,
                                double *imbalance);

#endif
