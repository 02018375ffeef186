/* seats.h - ranks of nodes that are not alike, seated for prices of placements: levels (cost.h) divide ranks evenly, so
 * every node has as many seats as the widest one has ranks, and those that a narrower node lacks stay empty: without
 * slots, sources or speed to speak of. */
#ifndef BL_PLANNER_PLACE_SEATS_H
#define BL_PLANNER_PLACE_SEATS_H

#include "costmodel/cluster.h"
#include "planner/place/cost.h"

/* Owns its arrays; where all nodes are alike seats are ranks. */
typedef struct bl_place_seats {
  int32_t ranks, seats;
  int32_t *seat;  /* [ranks] */
  int32_t *rank;  /* [seats]; of an empty one that of the last rank before it */
  int32_t *slots; /* [seats] */
  double *speed;  /* [seats]; NULL: all 1 */
  double *budget; /* [ranks]: bytes of a rank's device; NULL without a cluster */
} bl_place_seats;

/*! bl_place_seats_create() : on the first ranks of `cluster` (NULL: seats are ranks); slots[ranks]; speed[ranks], or
 *  NULL: those of the cluster's devices, to its first one. Freed with bl_place_seats_free(), a zeroed one too.
 *  @return : BL_OK, BL_EINPUT where the cluster has fewer ranks, BL_EMACHINE. */
bl_status bl_place_seats_create(const bl_cluster *cluster, int32_t ranks, const int32_t *slots, const double *speed,
                                bl_place_seats *out);
void bl_place_seats_free(bl_place_seats *seats);

/*! bl_place_seats_demand() : a demand of ranks becomes one of seats. */
bl_status bl_place_seats_demand(const bl_place_seats *seats, bl_place_demand *demand);

#endif
