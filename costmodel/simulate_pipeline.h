/* simulate_pipeline.h - the step programs of a pipeline's positions on paper, one rank standing for all of a position.
 *
 * What this reduction assumes: the ranks of a position run the same program and take the same time for each action,
 * that of the slowest; so their collectives start as soon as one of them can, and only what joins positions (sends, the
 * norm, a tied embedding) waits for others. Where routing is uneven, `work` has the rows of the fullest rank of an
 * expert-parallel group in every layer; all others wait for it in the next exchange. Sends need no waiting receiver. */
#ifndef BL_COSTMODEL_SIMULATE_PIPELINE_H
#define BL_COSTMODEL_SIMULATE_PIPELINE_H

#include "costmodel/simulate.h"
#include "costmodel/work.h"

typedef struct bl_pipeline_simulation {
  int32_t positions;
  bl_span **spans; /* [position][action] */
  double step_us;  /* when the last position ends */
} bl_pipeline_simulation;

/*! bl_simulate_pipeline() : one step of the programs step[0 .. pp), those of all positions, whose actions take what
 *  work[position] says.  The caller frees with bl_pipeline_simulation_free().  @return : BL_OK; BL_EINPUT where no
 * position can go on; BL_EMACHINE. */
bl_status bl_simulate_pipeline(const bl_step *step, const bl_model *model, const bl_work *const *work,
                               bl_pipeline_simulation *out);
void bl_pipeline_simulation_free(bl_pipeline_simulation *simulation); /* a zeroed one is fine */

#endif
