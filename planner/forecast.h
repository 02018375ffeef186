/* forecast.h - a recorded trace through a policy (or a fixed placement) and the simulator: what every step would take.
 *
 * For each recorded step: the policy names hosts and solves shares, quotas become traffic, the step program is priced.
 * MoE layer i of the model takes the trace's layer i mod L; micro-batch m its micro-batch m mod M; source ranks fold
 * contiguously. A trace recorded live on as many ranks and micro-batches is taken as it is; any other is scaled, rank
 * by rank, to top_k counts a token (largest remainder, ties to the lower expert). */
#ifndef BL_PLANNER_FORECAST_H
#define BL_PLANNER_FORECAST_H

#include "costmodel/simulate.h"
#include "planner/policy.h"
#include "traces/trace.h"

typedef struct bl_forecast_options {
  const bl_model *model;
  const bl_layout *layout; /* dp = ep = ranks */
  const bl_profile *profile;
  int32_t ranks_per_node; /* 0: one node */
  bl_policy_options policy;
  const int32_t *slots;          /* [ranks] */
  const bl_placement *placement; /* fixed homes and copies instead of a policy, or NULL */
  const char *plan_path;         /* of the placement, for messages */
  bl_trace_reader *trace;        /* NULL: one step in which every expert takes the same */
  int64_t first, last;           /* iterations that are reported; those before are history all the same */
} bl_forecast_options;

/* Called for every step in range; what it gets is valid during the call. A failure ends the forecast. */
typedef bl_status (*bl_forecast_step)(void *context, int64_t iteration, const bl_step *step,
                                      const bl_simulation *simulation);

/*! bl_forecast() : @return : BL_OK; BL_EINPUT where trace, model, placement and profile do not fit together or no step
 *  is in range; what policy, simulator or `on_step` return. */
bl_status bl_forecast(const bl_forecast_options *options, bl_forecast_step on_step, void *context);

#endif
