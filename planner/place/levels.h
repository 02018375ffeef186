/* levels.h - homes and copies with targets, from scratch, level by level: racks, then nodes, then ranks.
 *
 * The window rule (window.h), generalised. Each rank has a target, its speed times the mean of load / speed, and takes
 * a given number of homes. At a level, group by group: items sorted by load, a window of as many consecutive items as
 * the group takes slides from the smallest to the largest; the last whose sum does not exceed the target is the
 * group's, and of the next larger item the piece that is missing. The group then divides among its parts what it got,
 * the piece being one item more, which the part that comes last, and needs no piece, holds. What is proved: where the
 * target of each group is to its homes as all load is to all homes (equal speeds and homes, or homes proportional to
 * speed), the average item is target / homes at every turn, so the smallest window does not exceed the target nor the
 * largest fall short of it: on one level every rank reaches its target exactly, with at most ranks - 1 copies and one
 * copy slot a rank. Otherwise a window may not exist; the nearest one is taken, and the result is as good as its price
 * says. Of several levels, at most nodes
 * - 1 pieces leave their home's node; a node may divide the one that it got over several ranks. */
#ifndef BL_PLANNER_PLACE_LEVELS_H
#define BL_PLANNER_PLACE_LEVELS_H

#include "base/status.h"
#include "costmodel/plan.h"
#include <stdint.h>

typedef struct bl_levels bl_levels; /* workspace of one thread */

bl_status bl_levels_create(int32_t experts, int32_t ranks, bl_levels **out);
void bl_levels_free(bl_levels *levels);

/*! bl_levels_homes() : how many homes each rank takes: in proportion to its speed (NULL: alike), by largest remainder,
 *  at most slots[r] - 1, or where that is too little for all experts slots[r].  homes[ranks].
 *  @return : BL_OK, or BL_EINPUT where the slots cannot hold all. */
bl_status bl_levels_homes(int32_t experts, int32_t ranks, const int32_t *slots, const double *speed, int32_t *homes);

/*! bl_levels_place() : group[n_groups] are the ranks of one group of each level above single ranks, outermost first
 *  (none: one level). home[experts]; copies[2 * ranks];
 *  none on a rank without a slot beyond its homes.
 *  @return : the number of copies. */
int32_t bl_levels_place(bl_levels *levels, const double *load, const int32_t *homes, const int32_t *slots,
                        const double *speed, const int32_t *group, int32_t n_groups, int32_t *home, bl_copy *copies);

#endif
