/* proof.h - what one call of prove.h works on, and its half that needs no solver: bounds, and placements that meet
 * them.
 */
#ifndef BL_PLANNER_MILP_PROOF_H
#define BL_PLANNER_MILP_PROOF_H

#include "planner/milp/fewest.h"
#include "planner/milp/fewest_copies.h"
#include "planner/milp/prove.h"

#define BL_PRICE_ROUNDING 1e-6 /* prices this close are the same */

typedef struct bl_proof {
  const bl_prove_problem *given;
  bl_fewest problem; /* the same with loads and speeds scaled */
  double *load, *speed;
  int64_t memory_bytes; /* for a solver */
  bl_prove_result *result;
  bl_mip_result mip;
  bool has_mip;   /* the solver has sent its result */
  bool near_miss; /* a placement of the solver was within its tolerance but not within ours */
} bl_proof;

/*! bl_proof_offer() : takes `hosts` over into the result where they stand the check and cost less than what is there;
 *  empties them either way. *accepted: they stand the check. */
bl_status bl_proof_offer(bl_proof *proof, bl_hosts *hosts, bool *accepted);

/*! bl_proof_met() : whether nothing is left to prove or to find. */
bool bl_proof_met(const bl_prove_result *result);

/*! bl_proof_search() : bound and placements into the result by combinatorial arguments and searches. */
bl_status bl_proof_search(bl_proof *proof);

#endif
