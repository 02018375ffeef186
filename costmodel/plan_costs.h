/* plan_costs.h - where the costs behind a search's figures come from: "costs" of what a plan knows of its search.
 *
 *   "costs": [ { "from": "measured", "source": "profile.json on ...", "works": ["attention_fwd", "expert_fwd"] },
 *              { "from": "data sheet", "source": "H100 SXM: ...", "works": ["exchange", "between_nodes"] } ]
 *
 * A kind of work is a curve of a profile (profile.h), or "between_nodes": all links there. */
#ifndef BL_COSTMODEL_PLAN_COSTS_H
#define BL_COSTMODEL_PLAN_COSTS_H

#include "base/json.h"
#include "costmodel/profile.h"

enum { BL_WORK_BETWEEN_NODES = BL_CURVE_COUNT, BL_WORK_KIND_COUNT, BL_PLAN_COSTS_SOURCE = 1024 };

typedef struct bl_plan_costs {
  uint64_t measured, assumed; /* bits of bl_curve_kind and BL_WORK_BETWEEN_NODES; both 0: not known */
  char measured_source[BL_PLAN_COSTS_SOURCE], assumed_source[BL_PLAN_COSTS_SOURCE];
} bl_plan_costs;

const char *bl_work_kind_name(int kind);

/*! bl_plan_costs_read() : the member "costs" of an object, where it has one. Kinds that are unknown, or named twice,
 * and other origins than these two are BL_EINPUT. */
bl_status bl_plan_costs_read(bl_json object, bl_plan_costs *out);
void bl_plan_costs_write(bl_json_writer *w, const bl_plan_costs *costs); /* the member, where there is something */

/*! bl_plan_costs_print() : a line for each origin, on stdout. */
void bl_plan_costs_print(const bl_plan_costs *costs);

#endif
