/* command_simulate.h - what the parts of ballast-plan simulate share. Private to planner/command_simulate*.c. */
#ifndef BL_PLANNER_COMMAND_SIMULATE_H
#define BL_PLANNER_COMMAND_SIMULATE_H

#include "costmodel/cluster.h"
#include "costmodel/plan.h"
#include "costmodel/simulate.h"
#include "planner/policy_options.h"

/* The command line; NULL or false where an option is left out. */
typedef struct bl_simulate_arguments {
  bl_policy_options policy;
  const char *plan, *profile, *cluster, *model, *trace, *slots, *steps, *perfetto, *measured, *log;
  int64_t ranks, batch, micro_batches;
  bool json, ranks_given;
} bl_simulate_arguments;

enum { BL_SIMULATE_MAX_MICRO_BATCHES = 65536 };

/*! bl_layout_is_plain() : data and expert parallelism over the same ranks, all as the executor runs it. */
bool bl_layout_is_plain(const bl_layout *layout);

/*! bl_simulate_narrow() : uses of each node the ranks that the layout of the plan file `where` names, if it does.
 *  @return : BL_OK; BL_EINPUT where no node has so many. */
bl_status bl_simulate_narrow(bl_cluster *cluster, const bl_layout *layout, const char *where);

/*! bl_simulate_layout() : simulates the step programs of all pipeline positions of the plan's layout, one rank standing
 *  for all of its position, on routing that loads ranks as unevenly as the trace or the plan says, and prints step time
 *  and where it goes.
 *  @return : BL_OK; BL_EINPUT where plan, model, cluster and trace do not fit together; BL_EUSAGE; BL_EMACHINE. */
bl_status bl_simulate_layout(const bl_simulate_arguments *arguments, const bl_plan *plan);

/*! bl_simulate_steps() : simulates all ranks of a plain layout in each step of a trace, under the plan's placement or a
 *  policy, and prints what they take. plan: NULL, or that of --plan, whose layout it may take over.
 *  @return : as above. */
bl_status bl_simulate_steps(const bl_simulate_arguments *arguments, bl_plan *plan);

/* -- what bl_simulate_steps() found (command_simulate_report.c) ---------------------------------------------------- */

/* One forecast step, and what the run log says of it where there is one. */
typedef struct bl_simulated_step {
  int64_t iteration;
  double step_us, measured_us, wait_us, exposed_us, compute_us, memory_bytes;
} bl_simulated_step;

typedef struct bl_simulated_steps {
  bl_simulated_step *steps; /* owned */
  size_t n, room;
  double phase_us[BL_ACTION_COUNT], measured_phase_us[BL_ACTION_COUNT]; /* sums over steps */
} bl_simulated_steps;

/*! bl_simulated_read_log() : measured times of the steps from a run log.
 *  @return : BL_OK; BL_EINPUT where the log is damaged or lacks a step; BL_EMACHINE. */
bl_status bl_simulated_read_log(const char *path, bl_simulated_steps *found);

/*! bl_simulated_print() : means, memory and phases, as a table or as JSON, and where there is a log how far off. */
bl_status bl_simulated_print(const bl_simulated_steps *found, bool with_log, bool json);

#endif
