/* simulate.h - runs a step program on paper: all coupled ranks together, each action at its price.
 *
 * An action starts when its waits have ended and its resource is free, in issue order; a collective starts when all its
 * ranks can and takes what the slowest takes. Where the profile says that nothing overlaps, a rank has one resource. */
#ifndef BL_COSTMODEL_SIMULATE_H
#define BL_COSTMODEL_SIMULATE_H

#include "costmodel/cost.h"

/* When an action was ready, started (with all its ranks) and ended on a rank. */
typedef struct bl_span {
  double ready_us, start_us, end_us;
} bl_span;

typedef struct bl_simulation {
  int32_t ranks, n_actions;
  bl_span *spans;                   /* [rank][action] */
  double step_us;                   /* when the last rank ends */
  double phase_us[BL_ACTION_COUNT]; /* mean over ranks: time inside the action, waiting for other ranks included */
  double compute_us;                /* mean over ranks: the compute stream is busy */
  double wait_us;                   /* mean over ranks: inside collectives, before the last rank came */
  double exposed_us;   /* mean over ranks: in a collective (or waiting for its ranks) with the compute stream idle */
  double memory_bytes; /* peak of the rank with most */
} bl_simulation;

/*! bl_simulate() : one step of `step` on all ranks of the layout (one stage).  The caller frees with
 *  bl_simulation_free().  @return : BL_OK, BL_EINPUT where a price is unknown, BL_EMACHINE. */
bl_status bl_simulate(const bl_step *step, const bl_costs *costs, bl_simulation *out);
void bl_simulation_free(bl_simulation *simulation); /* a zeroed one is fine */

/* Times of one step, predicted or measured, that a timeline shows; everything is borrowed. */
typedef struct bl_timeline {
  const char *name; /* "predicted", "measured" */
  const bl_step *step;
  int32_t ranks;
  const bl_span *spans; /* [rank][action]; an action without duration is left out */
} bl_timeline;

/*! bl_timeline_write() : n timelines of step number `number` as Chrome trace JSON (Perfetto): a process for each rank
 *  of each, those of one rank side by side; a track a resource; waiting for other ranks is its own slice before a
 *  collective. `path` as in bl_output_open(). */
bl_status bl_timeline_write(const char *path, int64_t number, const bl_timeline *timelines, int32_t n);

/*! bl_timeline_read() : the times in a file that bl_timeline_write() made of one measured timeline of `step` on `ranks`
 *  ranks: spans[ranks][actions], freed by the caller, and the number of the step.
 *  @return : BL_OK; BL_EINPUT where the file is none, or of another program; BL_EMACHINE. */
bl_status bl_timeline_read(const char *path, const bl_step *step, int32_t ranks, int64_t *number, bl_span **spans);

#endif
