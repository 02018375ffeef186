/* export.h - traces in formats of others. */
#ifndef BL_TRACES_EXPORT_H
#define BL_TRACES_EXPORT_H

#include "base/file.h"
#include "traces/trace.h"

/*! bl_export_csv() : steps first..last (indices) as `step,layer,rank,micro_batch,e0,...`, all integers, a line for
 * every row of counts; step is the iteration number.  @return : BL_OK, BL_EINPUT (damaged trace), BL_EMACHINE. */
bl_status bl_export_csv(bl_trace_reader *reader, int32_t first, int32_t last, bl_output *output);

#endif
