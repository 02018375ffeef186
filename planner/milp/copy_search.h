/* copy_search.h - a search for placements with given homes and as few copies as a bound allows. */
#ifndef BL_PLANNER_MILP_COPY_SEARCH_H
#define BL_PLANNER_MILP_COPY_SEARCH_H

#include "planner/milp/fewest.h"

typedef struct bl_copy_search_options {
  int32_t bound;        /* no fewer copies are tried */
  int32_t below;        /* only placements with fewer copies than this are of interest */
  const int32_t *group; /* [ranks]: groups of ranks that may balance themselves (rank_groups.h); a hint */
  int64_t budget;       /* placements scored for each number of copies */
} bl_copy_search_options;

/*! bl_copy_search() : for bound, bound + 1, ... copies below options->below: a greedy start, then simulated annealing
 * on the imbalance under optimal shares until it is within the limit. Deterministic. *found: `hosts` (as for
 * bl_fewest_hosts()) holds the placement with the fewest copies found, else is untouched. */
bl_status bl_copy_search(const bl_fewest *problem, const bl_copy_search_options *options, bl_hosts *hosts, bool *found);

/*! bl_copy_search_reduce() : removes copies from `hosts` one at a time, each time the one that leaves the least
 *  imbalance, while the rest stays within the limit. hosts must be within it. Any homes. */
bl_status bl_copy_search_reduce(const bl_fewest *problem, bl_hosts *hosts);

#endif
