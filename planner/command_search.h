/* command_search.h - what the parts of ballast-plan search share. Private to planner/command_search*.c. */
#ifndef BL_PLANNER_COMMAND_SEARCH_H
#define BL_PLANNER_COMMAND_SEARCH_H

#include "planner/search/profiled.h"
#include "planner/search/search.h"

/* The command line; NULL or 0 where an option is left out and has no default. */
typedef struct bl_search_arguments {
  const char *model, *cluster, *profile, *trace, *output, *recompute, *zero, *dispatch, *overlap, *type, *gradients;
  int64_t ranks, ranks_per_node, batch, top, sequence, max_vp, max_micro_batch, copy_slots, shard, simulate, pieces;
  int64_t tp, cp, dp, pp, vp, etp, ep, micro_batch;
  double imbalance, memory_fraction;
  bool json;
} bl_search_arguments;

/* What a search needs, and where what it rests on comes from. */
typedef struct bl_search_inputs {
  bl_model model;
  bl_cluster cluster;
  bl_profiled profiled; /* with a profile */
  double *imbalance;    /* [experts + 1] */
  char memory_source[BL_SOURCE_TEXT_MAX / 2], routing_source[BL_SOURCE_TEXT_MAX / 2];
  bl_search_options options; /* points at the three above */
} bl_search_inputs;

/*! bl_search_inputs_load() : reads what the command line names.  @return : BL_OK; BL_EINPUT, BL_EUSAGE naming what is
 *  wrong; BL_EMACHINE. The caller frees with bl_search_inputs_free(), also after a failure; `in` does not move. */
bl_status bl_search_inputs_load(const bl_search_arguments *arguments, bl_search_inputs *in);
void bl_search_inputs_free(bl_search_inputs *in);

/*! bl_search_save() : the best layout as a plan file, with what the search knows of it. */
bl_status bl_search_save(const bl_search_arguments *arguments, const bl_search_inputs *in,
                         const bl_search_result *result);

/* -- what was found, for people and for scripts; and why nothing was -------------------------------------------------
 */

typedef struct bl_search_report {
  const bl_search_options *options;
  const bl_search_result *result;
  const char *imbalance_source; /* where the experts' imbalance comes from */
  double memory_fraction;       /* of a device's memory */
} bl_search_report;

void bl_search_print_json(const bl_search_report *report);
bl_status bl_search_print(const bl_search_report *report);

/*! bl_search_explain_nothing() : @return : BL_EINPUT with the constraint that fails, by how much, and the nearest
 *  change that helps. */
bl_status bl_search_explain_nothing(const bl_search_report *report);

/*! bl_grid_text() : "tp 2, pp 8": the sizes that are not 0, into text[BL_GRID_TEXT_MAX], which it gives back. */
enum { BL_GRID_TEXT_MAX = 160 };
const char *bl_grid_text(const bl_grid *grid, char *text);

/*! bl_search_predicted() : what the search says of an entry: the simulation, where there is one. bl_search_bound_us() :
 *  no layout takes less, simulated or, where nothing is, in closed form. */
const bl_step_price *bl_search_predicted(const bl_search_entry *entry);
double bl_search_bound_us(const bl_search_result *result);

/*! bl_search_next_device() : the next node group after `i` (-1: the first) whose device no group before it has; the
 *  number of groups: none. */
int32_t bl_search_next_device(const bl_cluster *cluster, int32_t i);

#endif
