/* command_place_cost.h - `ballast-plan place` with a cluster or profile: placements by microseconds of a step. */
#ifndef BL_PLANNER_COMMAND_PLACE_COST_H
#define BL_PLANNER_COMMAND_PLACE_COST_H

#include "base/json.h"
#include "base/options.h"
#include "costmodel/plan.h"
#include "planner/place/cost_bound.h"
#include "traces/trace.h"

enum { BL_PLACE_COST_OPTION_ROWS = 10 };

typedef struct bl_place_cost_options {
  const char *cluster, *model, *profile, *relay, *rack;
  const char *from;      /* the plan in force, or NULL; not an option of this group */
  int64_t micro_batches; /* 0: as recorded */
  double horizon, memory_gb, tokens;
  double prove_seconds; /* a layer, for the bound; 0: what costs next to nothing; not an option of this group */
  bool any;             /* one of the options was given */
} bl_place_cost_options;

void bl_place_cost_options_init(bl_place_cost_options *options);

/*! bl_place_cost_option_rows() : a heading and the options, for the command's table. */
void bl_place_cost_option_rows(bl_place_cost_options *options, bl_option rows[BL_PLACE_COST_OPTION_ROWS]);

/*! bl_place_cost_asked() : whether placements are to be priced: a cluster or a profile was given. BL_EUSAGE where
 *  other options of the group, or homes "cost", stand alone. */
bl_status bl_place_cost_asked(const bl_place_cost_options *options, const char *homes, bool *asked);

/*! bl_place_cost_all() : fills every layer of plan->placement: homes, copies, feeders, price. `sum` is what was counted
 *  in `steps` steps, [layers][source ranks][experts]; slots are the placement's, speed[ranks] or NULL.  @return :
 * BL_OK, BL_EUSAGE, BL_EINPUT (files; what does not fit, by how much, and the nearest change that does) or BL_EMACHINE.
 */
bl_status bl_place_cost_all(const bl_place_cost_options *options, const char *homes, const double *speed,
                            const bl_trace_shape *shape, const double *sum, int32_t steps, bl_plan *plan);

/*! bl_place_cost_print(), bl_place_cost_json() : the priced layers as a table; as member "price" of an open object. */
bl_status bl_place_cost_print(const bl_plan *plan);
void bl_place_cost_json(const bl_plan *plan, bl_json_writer *w);

#endif
