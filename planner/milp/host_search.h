/* host_search.h - annealing over sets of hosts, for copies and moves under one price. */
#ifndef BL_PLANNER_MILP_HOST_SEARCH_H
#define BL_PLANNER_MILP_HOST_SEARCH_H

#include "planner/milp/fewest.h"

typedef struct bl_host_search_options {
  const bl_hosts *start; /* hosts to start from, within the slots; balanced or not */
  double below;          /* only placements cheaper than this are of interest */
  double bound;          /* none is cheaper than this: the search ends there */
  int64_t budget;        /* placements scored */
  uint64_t seed;
} bl_host_search_options;

/*! bl_host_search() : hosts are added, removed, moved and exchanged (those of problem->home stay); the energy is the
 *  price and a penalty for load above the limit. Deterministic. *found: `hosts` (as for bl_fewest_hosts()) holds the
 *  cheapest placement within the limit that the search came by. */
bl_status bl_host_search(const bl_fewest *problem, const bl_host_search_options *options, bl_hosts *hosts, bool *found);

#endif
