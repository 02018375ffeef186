/* traffic.h - what routing makes each rank do in one step: rows an expert and rank, rows between ranks, and the experts
 * each rank holds. Filled from quotas (or evenly), read by the prices of cost.h.
 *
 * Ranks are positions in the expert-parallel group; replicas (edp) are taken to carry the same traffic. Layers that
 * have no experts keep zeros. */
#ifndef BL_COSTMODEL_TRAFFIC_H
#define BL_COSTMODEL_TRAFFIC_H

#include "base/status.h"
#include "costmodel/plan.h"
#include <stdint.h>

typedef struct bl_traffic {
  int32_t ranks, experts, layers, micro_batches;
  uint32_t *expert_rows;   /* [layer][micro-batch][rank][expert]: rows that the rank computes */
  uint32_t *exchange_rows; /* [layer][micro-batch][source][host]: rows sent forth (and back), own ones included */
  int32_t *homes;          /* [layer][rank]: experts at home */
  int32_t *copies_in;      /* [layer][rank]: copies that the rank holds */
  int32_t *copies_out;     /* [layer][rank]: copies elsewhere of experts at home here */
  int32_t *moves_in;       /* [layer][rank]: experts whose home this rank becomes before the step */
  int32_t *moves_out;      /* [layer][rank]: and ceases to be */
  int32_t *late_in;        /* [layer][micro-batch][rank]: copies that late repair fills on this rank */
  int32_t *late_out;       /* [layer][micro-batch][rank]: and from it, their home */
} bl_traffic;

bl_status bl_traffic_create(int32_t ranks, int32_t experts, int32_t layers, int32_t micro_batches, bl_traffic *out);
void bl_traffic_free(bl_traffic *traffic); /* a zeroed one is fine */

/*! bl_traffic_set_hosts() : homes and copies of a layer from its homes [experts] and copies. */
void bl_traffic_set_hosts(bl_traffic *traffic, int32_t layer, const int32_t *home, const bl_copy *copies, int32_t n);

/*! bl_traffic_set_moves() : homes that change before the step, from old to new homes [experts]. */
void bl_traffic_set_moves(bl_traffic *traffic, int32_t layer, const int32_t *old_home, const int32_t *new_home);

/*! bl_traffic_clear_late(), bl_traffic_add_late() : copies filled between the gate and the experts of one (layer,
 *  micro-batch): none; one more, from its home to a rank. */
void bl_traffic_clear_late(bl_traffic *traffic, int32_t layer, int32_t micro_batch);
void bl_traffic_add_late(bl_traffic *traffic, int32_t layer, int32_t micro_batch, int32_t home, int32_t rank);

/*! bl_traffic_set_quota() : rows of one (layer, micro-batch): the hosts of expert e are entries first[e] ..
 *  first[e + 1] of host_rank[]; quota[source * first[experts] + entry] rows go from source to that host. */
void bl_traffic_set_quota(bl_traffic *traffic, int32_t layer, int32_t micro_batch, const int32_t *first,
                          const int32_t *host_rank, const uint32_t *quota);

/* Rows of one (layer, micro-batch): [rank][experts], [source][host]. */
const uint32_t *bl_traffic_expert_rows(const bl_traffic *traffic, int32_t layer, int32_t micro_batch);
const uint32_t *bl_traffic_exchange_rows(const bl_traffic *traffic, int32_t layer, int32_t micro_batch);

#endif
