/* homes.h - where experts live: a home for each, chosen with copies in mind, and kept in place as far as possible. */
#ifndef BL_PLANNER_PLACE_HOMES_H
#define BL_PLANNER_PLACE_HOMES_H

#include "planner/place/hosts.h"

/*! bl_homes_longest_first() : longest first onto the least loaded rank (over its speed) with a free home; then swaps
 * that lower the sum of squares. With `clip`, loads count up to the mean rank load: copies will take what exceeds it.
 *  most_homes[ranks] bounds the homes of each rank (their sum is at least `experts`); home[experts] is written. */
bl_status bl_homes_longest_first(const double *load, int32_t experts, int32_t ranks, const int32_t *most_homes,
                                 const double *speed, bool clip, int32_t *home);

/*! bl_homes_relabel() : renames the ranks of a placement so that as few experts as possible leave their old home: an
 *  assignment problem on the overlaps, solved exactly (Kuhn-Munkres). rank_of[ranks]: new rank of each group.
 *  needs[ranks] is the number of slots that each group uses; a group only goes to a rank with as many (slots[ranks]).
 */
bl_status bl_homes_relabel(const int32_t *old_home, const int32_t *new_home, int32_t experts, int32_t ranks,
                           const int32_t *needs, const int32_t *slots, int32_t *rank_of);

#endif
