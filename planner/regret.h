/* regret.h - how much better a replay's decisions could have been, in hindsight.
 *
 * A sequence of decisions gives a layer hosts for each step. A step costs
 *     imbalance of the step's counts on its hosts, with the best shares
 *   + copy_price x copies in slots
 *   + move_price x homes that differ from those of the step before.
 * Changing a copy's host costs nothing more. The best sequence is found by dynamic programming over a set of
 * candidates, any of which may be taken at any step: per layer, the hosts at the start and, at evenly spread steps,
 * those in force and those that the search for copies makes of them when shown that step's own counts. So the best is
 * the best over this set, and regret may be below 0 where the decisions themselves are not in it.
 *
 * Use: bl_regret_play() for every layer of every step in turn, then once more the same counts to bl_regret_look_back().
 */
#ifndef BL_PLANNER_REGRET_H
#define BL_PLANNER_REGRET_H

#include "planner/place/hosts.h"

typedef struct bl_regret bl_regret;

typedef struct bl_regret_options {
  int32_t layers, experts, ranks;
  const int32_t *slots; /* [ranks]; borrowed during create */
  int32_t spread;       /* steps whose hosts become candidates, >= 1 */
  int64_t steps;        /* that will be played, >= 1 */
  double copy_price, move_price;
} bl_regret_options;

bl_status bl_regret_create(const bl_regret_options *options, bl_regret **out);
void bl_regret_free(bl_regret *regret);

/*! bl_regret_play() : the hosts that were decided for this step of the layer, and its counts [experts]. */
bl_status bl_regret_play(bl_regret *regret, int32_t layer, const bl_hosts *decided, const double *counts);

/*! bl_regret_look_back() : the same counts again, in the same order, after all steps were played. */
void bl_regret_look_back(bl_regret *regret, int32_t layer, const double *counts);

typedef struct bl_regret_result {
  double decided, best; /* cost of a layer and step: as decided, and of the best sequences */
  double candidates;    /* different ones, mean over layers */
} bl_regret_result;

bl_regret_result bl_regret_sum_up(const bl_regret *regret);

#endif
