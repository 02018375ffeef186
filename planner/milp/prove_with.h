/* prove_with.h - bl_prove_fewest_copies() with another solver, for tests of one that crashes, hangs or lies. */
#ifndef BL_PLANNER_MILP_PROVE_WITH_H
#define BL_PLANNER_MILP_PROVE_WITH_H

#include "planner/milp/child.h"
#include "planner/milp/prove.h"

/*! bl_prove_with() : `body` runs in the child in place of GLPK, with a bl_mip_task (fewest_copies.h) as its context and
 *  the messages described there; NULL = there is no solver. */
bl_status bl_prove_with(const bl_prove_problem *problem, bl_child_body *body, bl_prove_result *result);

#endif
