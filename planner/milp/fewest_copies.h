/* fewest_copies.h - the mixed-integer program of fewest copies and moves, solved by GLPK inside a child process.
 *
 * Binary y[e][r]: rank r hosts expert e; flow f[e][r] <= min(load, cap of r) y[e][r]; loads are met, ranks stay within
 * cap and slots. A copy is a host more than one an expert; a home has moved where its current rank is no host; minimise
 * copies + price * moves. Every expert has at least ceil(load / largest cap) hosts, every known bound is a row. Homes
 * that stay have no y: it is 1. Where homes are free and ranks alike, the i-th hottest expert has its first host among
 * ranks 0..i, which breaks the symmetry. */
#ifndef BL_PLANNER_MILP_FEWEST_COPIES_H
#define BL_PLANNER_MILP_FEWEST_COPIES_H

#include "planner/milp/child.h"
#include "planner/milp/fewest.h"

/* Messages of the body. */
enum {
  BL_MIP_PLACEMENT = 1, /* uint8_t hosts[experts * ranks]: a placement cheaper than any before */
  BL_MIP_BOUND,         /* double: a proved lower bound on the price */
  BL_MIP_RESULT         /* bl_mip_result */
};

typedef enum bl_mip_verdict {
  BL_MIP_OPTIMAL,    /* the last placement sent is optimal: glp_mip_status said GLP_OPT */
  BL_MIP_INFEASIBLE, /* GLP_NOFEAS */
  BL_MIP_STOPPED     /* anything else: bound and placement stand as sent */
} bl_mip_verdict;

typedef struct bl_mip_result {
  int32_t verdict;
  double price;         /* of an optimal solution */
  int32_t warm_started; /* GLPK took over the placement it was given */
  int64_t nodes;
} bl_mip_result;

typedef struct bl_mip_task {
  const bl_fewest *problem;
  double bound;          /* known lower bound on the price */
  const bl_hosts *start; /* a placement within the limit, or NULL */
  double seconds;
  int64_t memory_bytes; /* 0 = no limit */
  bool cold;            /* do not hand `start` to GLPK; for measuring what it is worth */
} bl_mip_task;

/*! bl_fewest_copies_body() : a bl_child_body; context is a bl_mip_task. Fails where built without GLPK. */
void bl_fewest_copies_body(bl_child_pipe *pipe, void *context);

#endif
