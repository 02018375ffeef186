/* command_place_prove.h - `ballast-plan place --prove`: the fewest copies within an allowed imbalance, layer by layer;
 * with
 * --from, copies and moved homes under one price. */
#ifndef BL_PLANNER_COMMAND_PLACE_PROVE_H
#define BL_PLANNER_COMMAND_PLACE_PROVE_H

#include "base/json.h"
#include "costmodel/plan.h"
#include "planner/milp/prove.h"

typedef struct bl_place_proofs {
  double seconds, within; /* a layer; allowed imbalance */
  bool free_homes;
  const char *from;    /* a plan file: homes are there now; NULL: free or fixed */
  double move_price;   /* in copies; negative: more than all copies together, so that moves are fewest first */
  const double *speed; /* [ranks] or NULL; borrowed */
  bl_plan now;         /* what `from` says */
  int32_t layers;
  bl_prove_result *layer; /* [layers] */
} bl_place_proofs;

/*! bl_place_proofs_create() : nothing proved yet; reads `from`, which must place the same experts on the same ranks.
 *  Warns where this build has no solver. */
bl_status bl_place_proofs_create(bl_place_proofs *proofs, const bl_placement *placement);
void bl_place_proofs_free(bl_place_proofs *proofs);

/*! bl_place_proofs_layer() : the fewest copies for load[experts], starting from `hosts` (whose homes stay unless homes
 *  are free or move); the result is proofs->layer[layer]; *proved is what the plan says of it. */
bl_status bl_place_proofs_layer(bl_place_proofs *proofs, int32_t layer, const bl_hosts *hosts, const double *load,
                                bl_plan_proof *proved);

/*! bl_place_proofs_print() : a table and a sum line on stdout.  bl_place_proofs_json() : an object behind "prove". */
bl_status bl_place_proofs_print(const bl_place_proofs *proofs);
void bl_place_proofs_json(const bl_place_proofs *proofs, bl_json_writer *w);

#endif
