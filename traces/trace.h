/* trace.h - what the router did: count[step][layer][source rank][micro-batch][expert], in `.blt` files.
 *
 * Counts are token copies (a token routed to k experts counts k times). The file: header, one zlib block a step (delta
 * and varint coded, CRC-32 each), index at the end. A reader holds one step in memory, so a trace of any length can be
 * replayed; a file cut short is readable up to its last whole block (the reader says so in `truncated`). */
#ifndef BL_TRACES_TRACE_H
#define BL_TRACES_TRACE_H

#include "base/status.h"
#include <stdbool.h>
#include <stdint.h>

/* Limits that a header must keep; beyond them the file is refused as damaged. */
enum {
  BL_TRACE_MAX_LAYERS = 4096,
  BL_TRACE_MAX_RANKS = 65536,
  BL_TRACE_MAX_MICRO_BATCHES = 65536,
  BL_TRACE_MAX_EXPERTS = 65536,
  BL_TRACE_MAX_STEP_SIZE = 1 << 29 /* counts in one step: 2 GiB as uint32_t */
};

typedef struct bl_trace_shape {
  int32_t layers, ranks, micro_batches, experts;
  /* true: each micro-batch was scheduled by itself (recorded live), so a replay takes them one by one by default;
   * false: an imported or generated histogram, replayed on the sum of its micro-batches by default. */
  bool live;
} bl_trace_shape;

/*! bl_trace_step_size() : counts in one step = layers * ranks * micro_batches * experts. Index of a count:
 *  ((layer * ranks + rank) * micro_batches + micro_batch) * experts + expert. */
int64_t bl_trace_step_size(const bl_trace_shape *shape);

/*! bl_trace_shape_check() : every dimension is at least 1 and within the limits above; `name` stands in front of the
 *  sentence.  @return : BL_OK or BL_EINPUT. */
bl_status bl_trace_shape_check(const bl_trace_shape *shape, const char *name);

typedef struct bl_trace_reader bl_trace_reader;

/*! bl_trace_open() : opens and checks header and index (rebuilt by scanning where the file was cut short). A trace that
 *  opens has at least one step, and its first block shows that the counts of a step can be as many as the header says,
 *  so a caller may allocate bl_trace_step_size() counts. One thread a reader.
 *  @return : BL_OK, BL_EINPUT (no such file, not a trace, damaged header, no whole step), BL_EMACHINE. */
bl_status bl_trace_open(const char *path, bl_trace_reader **out);
void bl_trace_close(bl_trace_reader *reader); /* NULL is fine */

const bl_trace_shape *bl_trace_shape_of(const bl_trace_reader *reader);
int32_t bl_trace_steps(const bl_trace_reader *reader);
int64_t bl_trace_iteration(const bl_trace_reader *reader, int32_t index); /* iteration number; strictly increasing */
bool bl_trace_truncated(const bl_trace_reader *reader);
const char *bl_trace_path(const bl_trace_reader *reader);

/*! bl_trace_find() : index of the first step whose iteration is at least `iteration`; bl_trace_steps() when none is. */
int32_t bl_trace_find(const bl_trace_reader *reader, int64_t iteration);

/*! bl_trace_read() : decodes step `index` (0..steps-1) into counts[bl_trace_step_size()]. Sequential reads are fastest.
 *  @return : BL_OK, BL_EINPUT (damaged block, names file and iteration). */
bl_status bl_trace_read(bl_trace_reader *reader, int32_t index, uint32_t *counts);

/*! bl_trace_loads() : loads[layers][experts] = sums of a step over chosen ranks and micro-batches
 *  (source_rank / micro_batch -1 = all). Exact while sums stay below 2^53. */
void bl_trace_loads(const bl_trace_shape *shape, const uint32_t *counts, int32_t source_rank, int32_t micro_batch,
                    double *loads);

typedef struct bl_trace_writer bl_trace_writer;

/*! bl_trace_create() : starts a new file under a temporary name beside `path` (see base/file.h for "-" and devices).
 *  bl_trace_append() : adds a step; iterations must increase. Flushed, so that a crash leaves whole blocks.
 *  bl_trace_finish() : writes the index, renames to `path`, frees. On failure nothing is left.
 *  bl_trace_discard() : removes, frees (NULL is fine).
 *  bl_trace_continue() : reopens an existing trace of the same shape and drops steps after `last_iteration`, for a
 *  resumed run; finish() as above. Where a killed run left "<path>.tmp.<pid>" behind that holds more of these steps
 *  than `path`, that file takes the place of `path` first; so no other process may be writing `path`. */
bl_status bl_trace_create(const char *path, const bl_trace_shape *shape, bl_trace_writer **out);
bl_status bl_trace_continue(const char *path, const bl_trace_shape *shape, int64_t last_iteration,
                            bl_trace_writer **out);
bl_status bl_trace_append(bl_trace_writer *writer, int64_t iteration, const uint32_t *counts);
bl_status bl_trace_finish(bl_trace_writer *writer);
void bl_trace_discard(bl_trace_writer *writer);

#endif
