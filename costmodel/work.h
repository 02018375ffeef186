/* work.h - microseconds of each action on a rank under a layout, before anything is routed: what a search knows. Filled
 * from a cluster and measurements by planner/search, read by bl_simulate_pipeline(). */
#ifndef BL_COSTMODEL_WORK_H
#define BL_COSTMODEL_WORK_H

#include "costmodel/footprint.h"
#include "costmodel/step.h"

typedef struct bl_work {
  /* Of one call: a micro-batch's, a piece's where there are pieces, a step's for what is done once a step. Actions
   * without a layer are found under EMBED at the first position, under HEAD at the others. */
  double us[BL_ITEM_COUNT][BL_ACTION_COUNT];
  double stolen; /* of the time of a link's call, what it takes from the compute that it runs beside */
} bl_work;

/*! bl_work_row() : the item under which an action of a pipeline position is found. */
bl_item bl_work_row(const bl_model *model, const bl_step *step, const bl_action *action);

#endif
