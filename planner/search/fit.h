/* fit.h - one efficiency a device, data type and release, fitted to measured steps and judged on steps not fitted.
 *
 *   { "version": 1, "steps": [
 *     { "name": "Grok-1 on 512", "release": "25.01", "model": "grok-1.json", "cluster": "h100-hgx.json",
 *       "type": "fp8", "ranks_per_node": 8, "batch": 1024, "step_us": 16690000, "fitted": true,
 *       "tp": 4, "cp": 2, "pp": 8, "vp": 8, "etp": 4, "ep": 8, "dp": 8, "micro_batch": 1,
 *       "zero": 1, "recompute": "selective", "dispatch": "choices", "overlap": "none",
 *       "gradient_bytes": 4, "shard": 0 } ] }
 *
 * Steps are predicted in closed form (price.h). Strict JSON. Paths are as on the command line. Left out: type = that of
 * num_bytes, ranks_per_node = the cluster's, cp = pp = vp = etp = ep = 1, zero and recompute = the fastest that fit,
 * dispatch = "nodes", overlap = "none", gradient_bytes = 4, shard = 0. Steps of one device, type and release are a
 * group; its efficiency makes the mean of log(predicted / measured) zero. Where a group says of any step whether it is
 * fitted, it is fitted to those that are and judged on the rest; else each step is judged by a fit to all others of its
 * group. */
#ifndef BL_PLANNER_SEARCH_FIT_H
#define BL_PLANNER_SEARCH_FIT_H

#include "planner/search/search.h"

typedef struct bl_measured_step {
  char name[96], release[32], type[16];
  bl_model model;
  bl_cluster cluster;
  bl_search_options options; /* model, cluster and imbalance point into this step */
  double *imbalance;
  double step_us;
  int32_t group;
  bool named_split, fitted; /* whether "fitted" is given; its value */
  bool judged;              /* predicted_us is of a fit without this step */
  double predicted_us;
} bl_measured_step;

typedef struct bl_fit_group {
  int32_t first, steps, judged;   /* first: a step of the group */
  double efficiency;              /* of all steps that may be fitted */
  double own_error, judged_error; /* mean |predicted / measured - 1|: of the steps fitted; of those judged */
} bl_fit_group;

typedef struct bl_fit {
  int32_t n_steps, n_groups;
  bl_measured_step **step; /* each by itself: options point into it */
  bl_fit_group *group;
} bl_fit;

/*! bl_fit_load() : reads measured steps.  memory_fraction: as in the search.  @return : BL_OK, BL_EINPUT (file, place,
 *  what was expected), BL_EMACHINE. The caller frees with bl_fit_free(). */
bl_status bl_fit_load(const char *path, double memory_fraction, bl_fit *out);
void bl_fit_free(bl_fit *fit);

/*! bl_fit_run() : fits and judges every group.  @return : BL_OK, or BL_EINPUT for a step whose layout does not fit or
 * fold, or which no efficiency up to 1 explains together with its group. */
bl_status bl_fit_run(bl_fit *fit);

#endif
