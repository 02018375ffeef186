/* replay.h - a recorded trace driven through a policy, step by step, as a live run would have been. */
#ifndef BL_PLANNER_REPLAY_H
#define BL_PLANNER_REPLAY_H

#include "costmodel/plan.h"
#include "planner/policy.h"
#include "traces/trace.h"

typedef struct bl_replay_options {
  bl_policy_options policy;
  int64_t first, last; /* iterations that are scored and dumped; those before them are history all the same */
  int32_t ranks;
  const int32_t *slots;  /* [ranks] */
  const int32_t *layers; /* [n_layers] of the trace, ascending; NULL = all */
  int32_t n_layers;
  int32_t source_rank, micro_batch; /* only these counts; -1 = all */
  bool each;                        /* micro-batches one by one; false: their sum */
  const bl_placement *start;        /* homes to start from, those of a plan; NULL: contiguous; borrowed */
  const char *start_path;           /* of that plan, for messages */
  int32_t regret;                   /* steps from which hindsight takes candidates (regret.h); 0: no regret */
  const char *dump;                 /* file for one JSON line a (step, layer), or NULL */
} bl_replay_options;

typedef struct bl_replay_result {
  int32_t steps, layers;
  int64_t first, last;        /* iterations scored */
  double mean, p99, worst;    /* imbalance over (step, layer) */
  int64_t worst_iteration;    /* where it was worst */
  int32_t worst_layer;        /* in the trace's numbers */
  double copies, copies_used; /* mean over (step, layer): slots filled; of these, those that took tokens */
  double decided;             /* share of (step, layer) with a decision before the step */
  double copies_changed;      /* mean over (step, layer): copies planned that were not on their rank before */
  int64_t fills, late_fills;  /* copies filled before their step, and late, in all */
  int64_t moves, changes;     /* homes moved; (step, layer) in which any moved */
  double moves_per_1000;      /* homes moved a layer per 1000 iterations */
  double late, late_copies;   /* share of (step, layer) that late repair changed; copies filled late, each */
  double decide_mean_us, decide_median_us, decide_p99_us; /* of a layer's decision, late repair included */
  double move_price, copy_price;                          /* of the costs below */
  double cost, least_cost; /* of a (step, layer) as decided, and of the best decisions in hindsight */
  double candidates;       /* of hindsight, a layer */
} bl_replay_result;

/*! bl_replay() : reads `reader` once, one step at a time.
 *  @return : BL_OK; BL_EINPUT for options that do not fit the trace; what reading, writing or the policy return. */
bl_status bl_replay(bl_trace_reader *reader, const bl_replay_options *options, bl_replay_result *result);

#endif
