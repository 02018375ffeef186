/* one_step.h - a trace of a single step, written at once to an open file: to hand loads to another program. */
#ifndef BL_TRACES_ONE_STEP_H
#define BL_TRACES_ONE_STEP_H

#include "traces/trace.h"

/*! bl_trace_write_step() : a whole .blt file of one step, iteration 0, to `fd` from its start.
 *  counts[bl_trace_step_size()].  @return : BL_OK, BL_EINPUT (shape), BL_EMACHINE. */
bl_status bl_trace_write_step(int fd, const bl_trace_shape *shape, const uint32_t *counts);

#endif
