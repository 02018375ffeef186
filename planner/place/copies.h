/* copies.h - which experts to copy where: a local search over copy hosts that looks at several forecasts at once.
 *
 * The score of a set of copy hosts is the mean, over the scenarios, of the optimal max/mean load that fresh shares
 * reach on them, plus `copy_price` for every copy placed. Where a scenario is not balanced, its closed set of ranks
 * (flow.h) says which moves can help at all: only a copy that takes an expert out of the set, whose hosts all lie
 * inside it, lets load escape. Every other move is skipped unseen; most of those tried are shown to be no good by the
 * cuts that others ran into (cuts.h), the rest by continuing the flow. Where no single move helps, the most promising
 * ones are tried each followed by a second. */
#ifndef BL_PLANNER_PLACE_COPIES_H
#define BL_PLANNER_PLACE_COPIES_H

#include "planner/place/hosts.h"

enum { BL_COPIES_MAX_SCENARIOS = 32 };

typedef struct bl_copies_options {
  const double *weight;  /* of each scenario, > 0; NULL = equal; borrowed */
  double copy_price;     /* added to the score for each copy placed; 0 = slots are free */
  double candidate_load; /* experts below this load (1 = mean rank load) in every scenario are not copied */
  int32_t budget;        /* tried moves at most; counts, so that results never depend on a clock */
} bl_copies_options;

void bl_copies_options_init(bl_copies_options *options);

typedef struct bl_copies bl_copies; /* workspace of one thread */

bl_status bl_copies_create(int32_t experts, int32_t ranks, int32_t max_copy_slots, bl_copies **out);
void bl_copies_free(bl_copies *copies);

/*! bl_copies_search() : improves hosts->copy_expert from what is in it (homes stay).
 *  scenarios[n][experts]: loads in any unit, each scenario normalised by itself; those without load are ignored.
 *  speed[ranks] or NULL. Deterministic.
 *  @return : the mean over scenarios of the optimal imbalance on the hosts found. */
double bl_copies_search(bl_copies *copies, bl_hosts *hosts, const double *scenarios, int32_t n, const double *speed,
                        const bl_copies_options *options);

/*! bl_copies_greedy() : replaces all copies: while the most loaded rank is above the mean, its largest expert goes as a
 *  copy to the least loaded rank that has a free slot and does not host it, with as many tokens as both can use. */
void bl_copies_greedy(bl_copies *copies, bl_hosts *hosts, const double *load, const double *speed);

#endif
