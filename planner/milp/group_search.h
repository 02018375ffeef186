/* group_search.h - copies for given homes, group of ranks by group. */
#ifndef BL_PLANNER_MILP_GROUP_SEARCH_H
#define BL_PLANNER_MILP_GROUP_SEARCH_H

#include "planner/milp/fewest.h"

/*! bl_group_search() : ranks of the same group[ranks] balance among themselves, those of -1 stay as they are; each
 * group is searched by itself (copy_search.h) with `budget` placements scored for each number of copies, and one that
 * cannot be filled joins the next. *found: every group is within the limit, and `hosts` (as for bl_fewest_hosts()) is
 * the placement of all. */
bl_status bl_group_search(const bl_fewest *problem, const int32_t *group, int64_t budget, bl_hosts *hosts, bool *found);

#endif
