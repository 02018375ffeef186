/* homes_proof.h - homes alone, no copies: the most even placement, and the proof that none is more even.
 *
 * Under skew the bounds of bound.h settle it; under mild load they do not, and a depth-first search does. */
#ifndef BL_PLANNER_PLACE_HOMES_PROOF_H
#define BL_PLANNER_PLACE_HOMES_PROOF_H

#include "base/status.h"
#include <stdbool.h>
#include <stdint.h>

typedef struct bl_homes_budget {
  int64_t exchanges, choices;
} bl_homes_budget;

typedef struct bl_homes_proof {
  double largest; /* the largest rank load of the homes found */
  double bound;   /* no placement of homes has a smaller one; = largest where optimal */
  bool optimal;
  const char *proof; /* of the bound: "mean-load", "hottest-expert", "pigeonhole", "depth-first"; a static string */
  int64_t nodes;     /* choices that the depth-first search looked at */
} bl_homes_proof;

/*! bl_homes_prove() : homes for load[experts] (whole tokens), at most ceil(experts / ranks) on a rank, whose largest
 *  rank load is least. Longest-first homes and those in home[] are annealed by swaps; then, for targets between the
 *  bound and the best known, a depth-first search fills rank after rank, each with the largest expert left and others
 *  such that its load lies in [rest - (ranks left - 1) * target, target]; it finds homes within the target or shows
 *  that there are none. Ends when the two meet or the budget is spent.
 *  budget: exchanges that annealing weighs, choices that the search looks at. No clock: the same arguments give the
 * same result. home[experts] : a valid start, and the result, never worse than it.
 *  @return : BL_OK; BL_EINPUT where a load is not a whole number below 2^40, or a rank of home[] holds too many. */
bl_status bl_homes_prove(const double *load, int32_t experts, int32_t ranks, const bl_homes_budget *budget,
                         int32_t *home, bl_homes_proof *out);

#endif
