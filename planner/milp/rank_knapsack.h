/* rank_knapsack.h - the most valuable ranks for every load on a grid, and for every sum of steps that they move. */
#ifndef BL_PLANNER_MILP_RANK_KNAPSACK_H
#define BL_PLANNER_MILP_RANK_KNAPSACK_H

#include "base/status.h"
#include <stdbool.h>
#include <stdint.h>

/* A knapsack table over so many states a grid point; `took` says for every item whether a state uses it. */
typedef struct bl_rank_knapsack {
  int32_t items, states, grid;
  int32_t *rank, *weight, *step; /* [items]: step: how far an item moves the state */
  double *value;                 /* [items] */
  double *best;                  /* [states][grid + 1] */
  uint8_t *took;                 /* [items][states][grid + 1] */
  double *copy;                  /* [grid + 1] */
} bl_rank_knapsack;

/*! bl_rank_knapsack_create() : room for `items`, whose members rank[], weight[], step[] and value[] the caller sets;
 *  steps are told apart up to `most`. Freed with bl_rank_knapsack_free(), also after a failure. */
bl_status bl_rank_knapsack_create(int32_t items, int32_t most, int32_t grid, bl_rank_knapsack *out);
void bl_rank_knapsack_free(bl_rank_knapsack *knapsack);

/*! bl_rank_knapsack_fill() : best[s][w], the largest value of items that weigh w or less (`at_least`: w or more) and
 *  whose steps sum to s; the last state takes all sums from it on. */
void bl_rank_knapsack_fill(bl_rank_knapsack *knapsack, bool at_least);

/*! bl_rank_knapsack_trace() : member[rank] becomes 1 for the ranks that make best[state][w]. */
void bl_rank_knapsack_trace(const bl_rank_knapsack *knapsack, int32_t state, int32_t w, uint8_t *member);

#endif
