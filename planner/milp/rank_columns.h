/* rank_columns.h - the bound of rank_groups.h for more ranks than its table holds, by column generation.
 *
 * Ranks above the limit must be covered by groups, ranks below it may be in one; a group of ranks whose excess is at
 * most 0 costs its ranks less one, or as many copies as must leave its ranks where that is more. The linear program
 * over all groups is solved with those that matter: prices of ranks come from GLPK, and two knapsacks over a grid of
 * load (excess rounded down, room up: more groups than there are) find the groups cheapest at these prices. The bound
 * is computed from the prices and the knapsacks alone, so it does not rest on GLPK's word.
 * Source: Gilmore and Gomory (1961) for the columns, Lagrangian bound as in Farley (1990). */
#ifndef BL_PLANNER_MILP_RANK_COLUMNS_H
#define BL_PLANNER_MILP_RANK_COLUMNS_H

#include "planner/milp/fewest.h"

/* Above this many ranks nothing is tried. */
enum { BL_RANK_COLUMNS_MAX = 256 };

/*! bl_rank_columns() : in a child process of `seconds` and `memory_bytes` at most. *bound is raised to what was proved
 *  for problem->home; *found: group[ranks] numbers groups that cost little (a hint), -1 for ranks in none. Nothing
 *  changes where the child fails, there are too many ranks, or GLPK is absent. */
bl_status bl_rank_columns(const bl_fewest *problem, double seconds, int64_t memory_bytes, int32_t *bound, bool *found,
                          int32_t *group);

#endif
