/* expert_groups.h - fewest copies when homes are free, as a packing problem.
 *
 * Join an expert with its hosts: experts and ranks fall into groups. Load can be shifted around a cycle of hosts until
 * one of them has nothing left, so the least placement is a forest, and a group of n ranks with m experts has n + m - 1
 * hosts: n - 1 copies. Its load is at most n times the limit, and with S slots a rank m <= n (S - 1) + 1.
 * Conversely every such group can be realised by the window rule. So the fewest copies are the ranks less the largest
 * number of groups: bins of n ranks, n times the capacity, n (S - 1) + 1 places. A depth-first search decides for a
 * number of copies whether experts fit into bins, for every way to split the ranks into that many bins. */
#ifndef BL_PLANNER_MILP_EXPERT_GROUPS_H
#define BL_PLANNER_MILP_EXPERT_GROUPS_H

#include "planner/milp/fewest.h"

typedef struct bl_expert_groups {
  int32_t bound;   /* no placement has fewer copies */
  bool infeasible; /* no placement exists (or, with options->below, none of interest) */
  bool found;      /* `hosts` is set; optimal where its copies equal bound */
  int64_t visited; /* nodes of the search */
} bl_expert_groups;

typedef struct bl_expert_groups_options {
  int32_t bound;  /* known: no placement has fewer copies; 0 where nothing is known */
  int32_t below;  /* only placements with fewer copies than this are of interest */
  int64_t budget; /* nodes of the search; what is left is halved from one number of copies to the next */
} bl_expert_groups_options;

/*! bl_expert_groups_solve() : bound and placement for free homes. Where slots differ by rank, the bound gives
 *  every bin the roomiest ranks and the placement the smallest for all, so they may not meet; where speeds differ, the
 *  bound gives every bin the fastest ranks and nothing is found. When the budget is spent, only the
 *  most natural split of the ranks is still tried for each number of copies. hosts as for bl_fewest_hosts(). */
bl_status bl_expert_groups_solve(const bl_fewest *problem, const bl_expert_groups_options *options,
                                 bl_expert_groups *out, bl_hosts *hosts);

#endif
