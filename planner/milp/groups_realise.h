/* groups_realise.h - homes and copies for groups of experts that were found to fit groups of ranks. */
#ifndef BL_PLANNER_MILP_GROUPS_REALISE_H
#define BL_PLANNER_MILP_GROUPS_REALISE_H

#include "planner/milp/fewest.h"

/*! bl_groups_realise() : the experts of group[experts] g go to ranks[g] ranks, numbered on from those of the group
 *  before, each with `slots` slots; a group of n ranks has at most n (slots - 1) + 1 experts. By the window rule each
 *  rank of a group gets the same load and the group n - 1 copies. hosts as for bl_fewest_hosts(). */
bl_status bl_groups_realise(const bl_fewest *problem, const int32_t *group, const int32_t *ranks, int32_t groups,
                            int32_t slots, bl_hosts *hosts);

#endif
