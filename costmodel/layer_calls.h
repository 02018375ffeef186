/* layer_calls.h - recorded calls of MoE layers: which call took how long, and the tokens of every expert in it. */
#ifndef BL_COSTMODEL_LAYER_CALLS_H
#define BL_COSTMODEL_LAYER_CALLS_H

#include "costmodel/estimate.h"
#include "costmodel/plan.h"
#include "traces/trace.h"

/* Measured calls, by iteration and layer as in a trace. */
typedef struct bl_measured_calls {
  int32_t n;
  int64_t *steps;
  int32_t *layers;
  double *measured_us;
  double *estimated_us; /* somebody else's estimate beside it; NULL where the file has none */
} bl_measured_calls;

/* Which call a value stands for in a file that does not say: all layers of iteration `first`, then all of
 * first + stride... */
typedef struct bl_call_grid {
  int64_t first, stride; /* stride >= 1 */
  int32_t layers;
} bl_call_grid;

/*! bl_measured_load() : reads either
 *   - CSV with the heading "step,layer,measured_ms" or "step,layer,measured_ms,estimated_ms", or
 *   - JSON {"real": [ms...], "est": [ms...]} ("est" may be absent), laid out on `grid`; a line with one number may
 *     precede it, which is left aside (the form of SmartMoE's perf_model logs).
 *  Times are > 0 and finite. The caller frees with bl_measured_free().
 *  @return : BL_OK, BL_EINPUT naming file and line or path, BL_EMACHINE. */
bl_status bl_measured_load(const char *path, const bl_call_grid *grid, bl_measured_calls *out);
void bl_measured_free(bl_measured_calls *measured);

/*! bl_measured_keep() : drops every call i with keep[i] false; the order stays. */
void bl_measured_keep(bl_measured_calls *measured, const bool *keep);

typedef struct bl_call_options {
  int32_t source_rank, micro_batch; /* whose counts stand for the call; -1: all, the mean over micro-batches */
  double tokens;                    /* counts are scaled to this many token copies in all; 0: as they are */
} bl_call_options;

/*! bl_layer_calls_read() : tokens of `n` calls under a placement, whose layers and experts are the trace's: a copy
 *  takes its share of its expert's tokens, the home the rest. The calls' steps and layers must be in the trace.
 *  out->tokens belongs to the caller, who frees it at *tokens.
 *  @return : BL_OK; BL_EINPUT where a step has no tokens or cannot be read; BL_EMACHINE. */
bl_status bl_layer_calls_read(bl_trace_reader *reader, const bl_placement *placement, const bl_call_options *options,
                              int32_t n, const int64_t *steps, const int32_t *layers, double **tokens,
                              bl_layer_calls *out);

#endif
