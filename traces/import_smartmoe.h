/* import_smartmoe.h - the SmartMoE artifact's moe_trace folder: one text file for every (iteration, rank). */
#ifndef BL_TRACES_IMPORT_SMARTMOE_H
#define BL_TRACES_IMPORT_SMARTMOE_H

#include "traces/trace.h"

typedef struct bl_smartmoe bl_smartmoe;

/*! bl_smartmoe_open() : lists `folder` for files table_iter<I>_rank<R>.log; other names are ignored. Any iterations and
 *  any ranks may be there, but every rank for every iteration. The first file sets layers, micro-batches and experts.
 *  Ranks keep their order; where their numbers have gaps they are counted anew from 0.
 *  @return : BL_OK, BL_EINPUT (no folder, no such file, a combination missing, by name), BL_EMACHINE. */
bl_status bl_smartmoe_open(const char *folder, bl_smartmoe **out);
void bl_smartmoe_close(bl_smartmoe *source); /* NULL is fine */

const bl_trace_shape *bl_smartmoe_shape_of(const bl_smartmoe *source);
int32_t bl_smartmoe_steps(const bl_smartmoe *source);
int64_t bl_smartmoe_iteration(const bl_smartmoe *source, int32_t index); /* strictly increasing */
int32_t bl_smartmoe_rank(const bl_smartmoe *source, int32_t index);      /* the number in the file's name */
uint64_t bl_smartmoe_bytes(const bl_smartmoe *source);                   /* of text read by bl_smartmoe_read() so far */

/*! bl_smartmoe_read() : parses and checks all ranks of step `index` into counts[bl_trace_step_size()].
 *  @return : BL_OK or BL_EINPUT with file, line and place. */
bl_status bl_smartmoe_read(bl_smartmoe *source, int32_t index, uint32_t *counts);

#endif
