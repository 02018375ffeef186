/* group.h - which ranks talk to each other: the communicators that a layout folds the world into.
 *
 * World = tp x cp x dp x pp = etp x ep x edp x pp. The first factor varies fastest, stages (pp) slowest:
 *   rank = ((stage * dp + d) * cp + c) * tp + t = ((stage * edp + x) * ep + e) * etp + y. */
#ifndef BL_COSTMODEL_GROUP_H
#define BL_COSTMODEL_GROUP_H

#include "costmodel/plan.h"
#include <stdint.h>

/* name, text, what its ranks share */
#define BL_GROUP_LIST(X)                                                  \
  X(NONE, "none", "the action concerns this rank alone")                  \
  X(WORLD, "world", "all ranks")                                          \
  X(DP, "dp", "replicas of the dense part of one stage (cp included)")    \
  X(EP, "ep", "the ranks over which the experts of one stage are spread") \
  X(EDP, "edp", "replicas of the same experts")                           \
  X(TP, "tp", "parts of the same dense matrices")                         \
  X(CP, "cp", "parts of the same sequences")                              \
  X(ETP, "etp", "parts of the same experts")                              \
  X(PP, "pp", "stages of one pipeline")                                   \
  X(ENDS, "ends", "first and last stage of one pipeline")

typedef enum bl_group_kind {
#define X(name, text, what) BL_GROUP_##name,
  BL_GROUP_LIST(X)
#undef X
      BL_GROUP_COUNT
} bl_group_kind;

extern const char *const bl_group_names[BL_GROUP_COUNT];

int32_t bl_layout_world(const bl_layout *layout); /* ranks in all */

/*! bl_group_size() : ranks in one communicator of this kind; 1 for NONE. */
int32_t bl_group_size(const bl_layout *layout, bl_group_kind group);

/*! bl_group_has() : whether `rank` is in a communicator of this kind: of ENDS only the first and the last stage are. */
bool bl_group_has(const bl_layout *layout, bl_group_kind group, int32_t rank);

/*! bl_group_members() : the ranks of the communicator that `rank` belongs to, ascending, into members[group size].
 *  @return : the position of `rank` among them. */
int32_t bl_group_members(const bl_layout *layout, bl_group_kind group, int32_t rank, int32_t *members);

#endif
