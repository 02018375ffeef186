/* memory.h - bytes of each buffer of a step program on a rank, and the most that live at once. */
#ifndef BL_COSTMODEL_MEMORY_H
#define BL_COSTMODEL_MEMORY_H

#include "costmodel/cost.h"

/*! bl_buffer_bytes() : what the buffer takes on `rank`. Transient parts of an action that no buffer holds (logits) are
 *  in bl_action_workspace_bytes(). */
double bl_buffer_bytes(const bl_costs *costs, const bl_buffer *buffer, int32_t rank);
double bl_action_workspace_bytes(const bl_costs *costs, const bl_action *action);

/*! bl_memory_peak() : the most bytes that live on `rank` at once when the program runs in issue order: kept buffers
 *  always, made ones from their first write to their last use. */
bl_status bl_memory_peak(const bl_costs *costs, const bl_step *step, int32_t rank, double *bytes);

#endif
