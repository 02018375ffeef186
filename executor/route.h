/* route.h - where the rows of one (layer, micro-batch) go: from everybody's counts, hosts and shares to send and
 * receive sizes, destination rows and the order in which experts take their rows.
 *
 * Rows leave a rank ordered by (host rank, expert, position, choice) and arrive ordered by (source rank, expert,
 * position, choice); experts take them in the order (expert, source rank, position, choice), which is the same wherever
 * an expert lives. All arrays are host memory; one object serves many steps without allocating. */
#ifndef BL_EXECUTOR_ROUTE_H
#define BL_EXECUTOR_ROUTE_H

#include "base/status.h"
#include "executor/backend.h"
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
  int32_t expert_rows; /* rows in expert order: recv_total, or where only bounds are known, room for them */
  /* Groups of rows on this rank, experts ascending; only those with rows. */
  int32_t n_groups;
  int32_t *group_expert, *group_first, *group_rows; /* [experts] */
  bool in_order;                                    /* received order is already expert order: nothing to regroup */
  int32_t *by_expert; /* [recv_total]: row i in expert order is received row by_expert[i] */
  int32_t *by_source; /* [recv_total]: the inverse */
  int32_t *source_at; /* [ranks]: scratch */
  size_t host_rank_room, dest_row_room, quota_room, by_expert_room, by_source_room;
} bl_route;

bl_status bl_route_create(int32_t ranks, int32_t experts, int32_t rank, bl_route *out);
void bl_route_free(bl_route *route); /* a zeroed route is fine */

/*! bl_route_build() : counts[ranks][experts] token copies by source; `shares` solved on `hosts` for their sums.
 *  @return : BL_OK, or what bl_quota_build() returns. */
bl_status bl_route_build(bl_route *route, const bl_hosts *hosts, const bl_shares *shares, const uint32_t *counts);

/*! bl_route_lay_out() : the rest from entries, first, host_rank and quota, which the caller has filled in. */
bl_status bl_route_lay_out(bl_route *route);

/*! bl_route_make_room() : for as many host entries, where the caller fills them in. */
bl_status bl_route_make_room(bl_route *route, size_t entries);

/* A route's arrays on the device, until the stream's next upload. */
typedef struct bl_route_tables {
  const int32_t *first, *dest_row;
  const uint32_t *quota; /* of this rank */
} bl_route_tables;

bl_route_tables bl_route_upload(const bl_route *route, bl_backend *be, bl_stream *s);

/*! bl_route_imbalance() : max/mean of the tokens that ranks really process; 1 for none. */
double bl_route_imbalance(const bl_route *route);

#endif
