/* rank_groups.h - a lower bound on copies when homes are given.
 *
 * Draw a line from an expert's home to the rank of each of its copies: ranks fall into groups that balance themselves.
 * The homes of a group sum to at most the limit times its ranks; n ranks are joined by at least n - 1 copies; and every
 * rank sends out at least as many copies as its largest experts need to carry its excess. The bound is the cheapest
 * partition of the ranks into such groups, by dynamic programming over the set of ranks that are still to be grouped;
 * it is what settling debts with the fewest payments is, with slack. */
#ifndef BL_PLANNER_MILP_RANK_GROUPS_H
#define BL_PLANNER_MILP_RANK_GROUPS_H

#include "planner/milp/fewest.h"

typedef struct bl_rank_facts {
  double excess;   /* load of its homes above the limit; negative: what it can take */
  int32_t leaving; /* copies that must leave it */
  int32_t free;    /* copies that it can hold */
} bl_rank_facts;

/*! bl_rank_facts_gather() : *out[ranks] for problem->home; the caller frees it. */
bl_status bl_rank_facts_gather(const bl_fewest *problem, bl_rank_facts **out);

/* Above this number of ranks a weaker bound is used: the copies leaving, and the ranks needed to take the excess. */
enum { BL_RANK_GROUPS_MAX = 16 };

/*! bl_rank_groups_solve() : *bound for problem->home; *infeasible where no partition exists; group[ranks] numbers the
 *  groups of one cheapest partition (all 0 where the weaker bound was used). */
bl_status bl_rank_groups_solve(const bl_fewest *problem, int32_t *bound, bool *infeasible, int32_t *group);

#endif
