/* passes.h - rewrites of a step program: they permute the order in which a position issues its actions, or cut actions
 * into pieces, and keep every wait. What they return is as sound as what they got: bl_step_check() proves it for one
 * position, bl_steps_check() for all of them together. */
#ifndef BL_PLANNER_PASSES_PASSES_H
#define BL_PLANNER_PASSES_PASSES_H

#include "costmodel/step.h"

/*! bl_pass_pipeline() : the order of a pipeline position's blocks. One stage a position (vp = 1): 1F1B, that is
 *  pp - 1 - position forwards, then forward and backward in turn, then the backwards left (arXiv 2006.09503). Several:
 *  interleaved, groups of pp micro-batches through one stage after the other (arXiv 2104.04473, section 2.2), for which
 *  pp must divide the micro-batches. A step of one position stays as it is.
 *  `beside`: where stages interleave, one forward more goes first, so that each forward and backward that follow one
 *  another belong to different micro-batches; their actions are then issued in turn, a change after each exchange over
 *  ep, so that one computes while the other exchanges.
 *  @return : BL_OK, BL_EINPUT where pp does not divide, BL_EMACHINE. */
bl_status bl_pass_pipeline(bl_step *step, bool beside);

/*! bl_pass_reduce_early() : reductions of a layer's gradients are issued as soon as its last backward has been, where
 *  they run under the backward of the layers before it, instead of behind all of them. */
bl_status bl_pass_reduce_early(bl_step *step);

/*! bl_pass_pieces() : the rows of every MoE layer, forward and backward, in `pieces` parts: all parts are sent first,
 * then the experts work on one after the other, and each returns while they work on the next; weight gradients come
 * last, under the last exchange. For programs as built, before other passes; hides something where rows travel on links
 *  (bl_step_options.rows_beside, or nothing inline).  @return : BL_OK; BL_EMACHINE, `step` is then as it was. */
bl_status bl_pass_pieces(bl_step *step, int32_t pieces);

#endif
