/* dual_hosts_state.h - what the cheapest hosts of an expert are found with. Private to dual_hosts.c, dual_copies.c.
 */
#ifndef BL_PLANNER_MILP_DUAL_HOSTS_STATE_H
#define BL_PLANNER_MILP_DUAL_HOSTS_STATE_H

#include "planner/milp/dual_hosts.h"

/* Hosts of an expert with at least one copy, as cheap as can be. */
typedef struct bl_dual_spread {
  int32_t home;
  double bonus; /* taken off the price of every copy, so that as many are taken as there must be */
  double cost;
  int32_t copies;
} bl_dual_spread;

struct bl_dual_hosts {
  const bl_place_problem *problem;
  const bl_place_machine *machine;
  const bl_dual_amounts *price;
  bl_dual_caps caps;
  int32_t ranks, node, nodes;
  int64_t copies_room;                    /* slots beyond one an expert */
  int32_t *needed;                        /* [experts]: hosts under the caps; more than ranks: none suffice */
  const double *source;                   /* [ranks]: of the expert looked at */
  double *even;                           /* [ranks]: its sources where they are alike */
  double *sum[BL_PLACE_MAX_LEVELS + 1];   /* [groups of level l]: tokens sent; level 0: single ranks, that is source */
  double *inner[BL_PLACE_MAX_LEVELS + 1]; /* [groups of level l - 1]: price of sending all of them over level l, */
  double *outer[BL_PLACE_MAX_LEVELS + 1]; /* [groups of level l]: summed */
  double *gain, *order;                   /* [ranks]: of a copy; workspace of a selection */
  double *node_cost;                      /* [nodes]: without a home there, where copies are somewhere */
  double *node_in;                        /* [nodes]: the least price of receiving and processing a token of the node */
  int32_t *node_rank;                     /* [nodes]: where */
  double far_in;                          /* likewise of a token from another node */
  int32_t far_rank;
  double least_slot, copy_out[BL_PLACE_MAX_LEVELS + 1], copy_least; /* least prices: a slot; sending a copy; a copy */
  int32_t copy_rank[BL_PLACE_MAX_LEVELS + 1];
};

/*! bl_dual_node_end() : behind the last rank of node n. */
static inline int32_t bl_dual_node_end(const bl_dual_hosts *c, int32_t n) {
  return (n + 1) * c->node < c->ranks ? (n + 1) * c->node : c->ranks;
}

static inline int bl_dual_descending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x < y) - (x > y);
}

double bl_dual_move(const bl_dual_hosts *costs, int32_t expert, int32_t home);
void bl_dual_use_home(const bl_dual_hosts *costs, int32_t expert, int32_t home, bl_dual_amounts *used);

/*! bl_dual_send() : the tokens that rank `from` has for the expert looked at, over `level` (0: none) to `to`. */
void bl_dual_send(const bl_dual_hosts *costs, int32_t from, int32_t level, int32_t to, bl_dual_amounts *used);

/*! bl_dual_away() : of a token of a rank without a host, where the hosts of its node take one for node_in. */
double bl_dual_away(const bl_dual_hosts *costs, int32_t rank, double node_in);

/*! bl_dual_spread_find() : a home among `homes` ranks from `first` on, and at least `copies` copies, 1 or more. */
bl_dual_spread bl_dual_spread_find(bl_dual_hosts *costs, int32_t expert, int32_t first, int32_t homes, int32_t copies);
void bl_dual_spread_use(bl_dual_hosts *costs, int32_t expert, const bl_dual_spread *spread, bl_dual_amounts *used);

#endif
