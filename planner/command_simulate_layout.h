/* command_simulate_layout.h - ballast-plan simulate for plans whose layout goes beyond dp = ep. */
#ifndef BL_PLANNER_COMMAND_SIMULATE_LAYOUT_H
#define BL_PLANNER_COMMAND_SIMULATE_LAYOUT_H

#include "costmodel/cluster.h"
#include "costmodel/model.h"
#include "costmodel/plan.h"

typedef struct bl_simulate_request {
  const bl_model *model;
  const bl_layout *layout;
  const bl_cluster *cluster;
  const char *where;    /* the plan's file, for messages */
  const char *trace;    /* routing, from which the experts' imbalance follows; NULL: even */
  const char *perfetto; /* timeline to write, or NULL */
  bool json;
} bl_simulate_request;

/*! bl_layout_is_plain() : data and expert parallelism over the same ranks, all as the executor runs it. */
bool bl_layout_is_plain(const bl_layout *layout);

/*! bl_simulate_layout() : simulates the step programs of all pipeline positions and prints step time and where it goes.
 *  @return : BL_OK; BL_EINPUT where layout, model, cluster and trace do not fit together; BL_ENOTSUP; BL_EMACHINE. */
bl_status bl_simulate_layout(const bl_simulate_request *request);

#endif
