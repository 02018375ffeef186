/* import_megatron.h - the router trace of Megatron-Core (--moe-routing-trace-path): a file router_trace_rank<R>.jsonl
 * for every rank, a line for every (step, micro-batch, layer), with the experts that each token took.
 *
 * Facts: megatron/core/transformer/moe/router_trace.py. A line has step, block ("decoder" or "mtp"), layer, rank,
 * num_tokens, topk, top_indices[num_tokens][topk], and keys that are of no use here. Several lines of one step and
 * layer are its micro-batches, in their order. Layers of multi-token prediction ("mtp") are left out.
 *
 * Ranks with the same layers are a pipeline stage. The ranks of the trace are those of one stage: the i-th of each
 * stage is rank i there, in the layers that it has. */
#ifndef BL_TRACES_IMPORT_MEGATRON_H
#define BL_TRACES_IMPORT_MEGATRON_H

#include "traces/trace.h"

typedef struct bl_megatron bl_megatron;

/*! bl_megatron_open() : lists `folder`, and reads the lowest rank's file for its steps and micro-batches, which the
 *  others must have too, and everyone's first step for its layers. `experts` of a layer: the files do not say.
 *  @return : BL_OK, BL_EINPUT (no folder, no such file, a line that is none of ours), BL_EMACHINE. */
bl_status bl_megatron_open(const char *folder, int32_t experts, bl_megatron **out);
void bl_megatron_close(bl_megatron *source); /* NULL is fine */

const bl_trace_shape *bl_megatron_shape_of(const bl_megatron *source);
int32_t bl_megatron_steps(const bl_megatron *source);
int64_t bl_megatron_iteration(const bl_megatron *source, int32_t index); /* strictly increasing */
int32_t bl_megatron_stages(const bl_megatron *source);
int32_t bl_megatron_files(const bl_megatron *source);                /* ranks of all stages */
int32_t bl_megatron_rank(const bl_megatron *source, int32_t index);  /* the number in the file's name */
int32_t bl_megatron_layer(const bl_megatron *source, int32_t index); /* the number in the files */
int64_t bl_megatron_left_out(const bl_megatron *source);             /* lines of multi-token prediction, one rank */

/*! bl_megatron_read() : the next step, all ranks, into counts[bl_trace_step_size()]; steps in their order, each once.
 *  @return : BL_OK, or BL_EINPUT with file, line and place. */
bl_status bl_megatron_read(bl_megatron *source, uint32_t *counts);

#endif
