/* route.h - where the rows of one (layer, micro-batch) go: from everybody's counts, hosts and shares to send and
 * receive sizes, destination rows and the order in which experts take their rows.
 *
 * Rows leave a rank ordered by (host rank, expert, position, choice) and arrive ordered by (source rank, expert,
 * position, choice); experts take them in the order (expert, source rank, position, choice), which is the same wherever
 * an expert lives. All arrays are host memory; one object serves many steps without allocating. */
#ifndef BL_EXECUTOR_ROUTE_H
#define BL_EXECUTOR_ROUTE_H

#include "base/status.h"
#include "planner/place/hosts.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct bl_route {
  int32_t ranks, experts, rank;
  /* Host entries of expert e: first[e] .. first[e + 1] (bl_quota_build). */
  int32_t *first;     /* [experts + 1] */
  int32_t *host_rank; /* [entries] */
  uint32_t *quota;    /* [ranks][entries] */
  int32_t *dest_row;  /* [entries]: first row in this rank's send buffer */
  int32_t entries;
  int64_t *rank_tokens;           /* [ranks]: rows that each rank's experts take */
  int64_t *send_rows, *recv_rows; /* [ranks]: rows to and from each peer */
  int32_t send_total, recv_total;
  /* Groups of rows on this rank, experts ascending; only those with rows. */
  int32_t n_groups;
  int32_t *group_expert, *group_first, *group_rows; /* [experts] */
  bool in_order;                                    /* received order is already expert order: nothing to regroup */
  int32_t *by_expert; /* [recv_total]: row i in expert order is received row by_expert[i] */
  int32_t *by_source; /* [recv_total]: the inverse */
  size_t host_rank_room, dest_row_room, quota_room, by_expert_room, by_source_room;
} bl_route;

bl_status bl_route_create(int32_t ranks, int32_t experts, int32_t rank, bl_route *out);
void bl_route_free(bl_route *route); /* a zeroed route is fine */

/*! bl_route_build() : counts[ranks][experts] token copies by source; `shares` solved on `hosts` for their sums.
 *  @return : BL_OK, or what bl_quota_build() returns. */
bl_status bl_route_build(bl_route *route, const bl_hosts *hosts, const bl_shares *shares, const uint32_t *counts);

/*! bl_route_imbalance() : max/mean of the tokens that ranks really process; 1 for none. */
double bl_route_imbalance(const bl_route *route);

#endif
