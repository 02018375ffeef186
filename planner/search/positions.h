/* positions.h - the pipeline positions of a grid on a cluster, as prices see them: what devices, and how groups lie.
 *
 * Ranks are laid along the cluster's nodes in order (costmodel/group.h says which groups they form), so a position
 * holds a run of them. All of its ranks do the same work at the pace of the slowest, and all groups of a kind exchange
 * at once, so the worst of each number stands for all. */
#ifndef BL_PLANNER_SEARCH_POSITIONS_H
#define BL_PLANNER_SEARCH_POSITIONS_H

#include "costmodel/fabric.h"
#include "costmodel/footprint.h"

enum { BL_STAGES_MAX = 512, BL_POSITION_KINDS = 16 };

typedef struct bl_position_view {
  bl_pace pace;
  bl_reach tp, cp, ep, etp;
  bl_reach dense;           /* dp x cp: all replicas of the dense part */
  bl_reach shard, replicas; /* of these, those that share a state, and those that hold the same part of it */
  bl_reach experts;         /* ranks that share the state of the same experts */
  bl_link fill, reduce;     /* between a copy and its home */
  bl_link down, up;         /* to the next position (from the last to the first), and to the one before */
} bl_position_view;

/* Positions that are alike are of one kind. More than BL_POSITION_KINDS kinds are not told apart: the last one stands
 * for all further ones, each number the worst of theirs. */
typedef struct bl_positions {
  int32_t pp, kinds, num_bytes;
  const struct bl_profiled *measured; /* the cluster's */
  uint8_t kind[BL_STAGES_MAX];        /* of each position */
  int32_t count[BL_POSITION_KINDS];   /* of positions */
  bl_position_view view[BL_POSITION_KINDS];
  double memory_share[BL_POSITION_KINDS]; /* of the smallest device's memory in that of the cluster's first */
} bl_positions;

/*! bl_positions_of() : pp is at most BL_STAGES_MAX, and the cluster has as many ranks as the grid. */
void bl_positions_of(const bl_cluster *cluster, const bl_grid *grid, bl_positions *out);

/*! bl_positions_share() : of items, count[k] in all, that take us[kind][k] on a position of each kind: at most what the
 *  slowest position takes, however they are divided; *sum: at most what all positions take together. Where a kind takes
 *  at least r times as long as the fastest for every item, it does at most the r-th part in the same time. */
double bl_positions_share(const bl_positions *positions, const double (*us)[BL_ITEM_COUNT], const int32_t *count,
                          double *sum);

#endif
