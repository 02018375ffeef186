/* block_bound.h - what a pipeline's simulation takes at least: from what its compute streams must do, in blocks.
 *
 * A position s computes all its micro-batches' blocks, and besides stands still while
 * - its first block is on its way through the stages before it, and the last gradient on the way back;
 * - its first micro-batch is in the stages behind it: what it can do until the first backward is the forwards that its
 *   order (1F1B or interleaved, planner/passes) puts before it;
 * - likewise at the end, between its last forward and its last backward.
 * Links that carry weights, gradients and rows under compute are busy as long as their calls take, which may be longer.
 * Then every position squares its gradients, the norm waits for all, and all update. Compute and links
 * are not added up: so the bound holds whatever hides what, and is near where one hides all of the other. */
#ifndef BL_PLANNER_SEARCH_BLOCK_BOUND_H
#define BL_PLANNER_SEARCH_BLOCK_BOUND_H

#include "planner/search/price.h"

/* Of a compute stream, for one item and micro-batch; and of an item once a step. */
typedef struct bl_block_costs {
  double forward_us[BL_ITEM_COUNT], backward_us[BL_ITEM_COUNT];
  double again_us[BL_ITEM_COUNT]; /* of the backward: recomputation, which needs no gradient and may go ahead of it */
  double dense_link_us[BL_ITEM_COUNT], expert_link_us[BL_ITEM_COUNT], row_link_us[BL_ITEM_COUNT]; /* of links */
  double square_us[BL_ITEM_COUNT], update_us[BL_ITEM_COUNT];
  double send_us; /* to the nearer neighbour, one direction */
} bl_block_costs;

/*! bl_block_cost() : sums of a table's actions; beside: rows travel on links (bl_step_options.rows_beside). The head's
 *  item has the multi-token modules. */
void bl_block_cost(const bl_model *model, const bl_grid *grid, const bl_work *work, bool beside, bl_block_costs *out);

/*! bl_block_bound_any() : at most the simulated step of any division of the model's items, count[k] in all;
 *  costs[positions->kinds]. */
double bl_block_bound_any(const bl_grid *grid, const bl_positions *positions, const bl_block_costs *costs,
                          const int32_t *count);

/*! bl_block_bound() : at most the simulated step of the division first[pp * vp + 1]; beside: as bl_pass_pipeline(). */
double bl_block_bound(const bl_model *model, const bl_grid *grid, const bl_positions *positions,
                      const bl_block_costs *costs, const int32_t *first, bool beside);

#endif
