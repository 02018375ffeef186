/* cost.h - the price of an action: its amount on a rank, looked up on the profile's curve. */
#ifndef BL_COSTMODEL_COST_H
#define BL_COSTMODEL_COST_H

#include "costmodel/profile.h"
#include "costmodel/step.h"
#include "costmodel/traffic.h"

/* What prices are computed from; all borrowed. */
typedef struct bl_costs {
  const bl_model *model;
  const bl_layout *layout;
  const bl_profile *profile;
  const bl_traffic *traffic;
  const int32_t *slots; /* [ep]: experts a rank has room for, or NULL: homes and copies of the traffic */
} bl_costs;

/*! bl_cost_of() : microseconds of `action` on `rank`, of the world. For a collective: what the rank's own amount would
 *  take; the call takes the most of its ranks.  @return : BL_OK, or BL_EINPUT naming the curve that is missing. */
bl_status bl_cost_of(const bl_costs *costs, const bl_action *action, int32_t rank, double *us);

/*! bl_costs_tokens() : tokens of one micro-batch on one rank. */
int64_t bl_costs_tokens(const bl_costs *costs);

/*! bl_costs_ep_position() : the rank's position in its expert-parallel group. */
int32_t bl_costs_ep_position(const bl_costs *costs, int32_t rank);

/*! bl_costs_dense_parameters(), bl_costs_home_parameters() : what the rank updates of a layer: the dense part (layer
 * -1: embedding and head) and its homes. */
int64_t bl_costs_dense_parameters(const bl_costs *costs, int32_t layer);
int64_t bl_costs_home_parameters(const bl_costs *costs, int32_t layer, int32_t rank);

#endif
