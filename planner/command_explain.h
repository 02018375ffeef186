/* command_explain.h - the parts of ballast-plan explain. Private to planner/command_explain*.c. */
#ifndef BL_PLANNER_COMMAND_EXPLAIN_H
#define BL_PLANNER_COMMAND_EXPLAIN_H

#include "costmodel/plan.h"

/*! bl_explain_layout() : a layout in words: what a step takes and why, what each rank does, what to change next, which
 *  figures are measured and which assumed; without "search" in the plan, only what the layout itself says. */
void bl_explain_layout(const bl_plan *plan);

/*! bl_explain_placement() : a placement in words.  layer: BL_EXPLAIN_WORST or the one whose ranks are shown, or
 *  BL_EXPLAIN_ALL.  @return : BL_OK, BL_EINPUT where the plan places no such layer, BL_EMACHINE. `where`: its file. */
enum { BL_EXPLAIN_WORST = -2, BL_EXPLAIN_ALL = -1 };
bl_status bl_explain_placement(const bl_plan *plan, int64_t layer, const char *where);

#endif
