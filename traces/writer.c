/* writer.c - writes .blt files step by step, and takes up again what a stopped run left. */
#include "base/file.h"
#include "base/memory.h"
#include "traces/reader.h"
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct bl_trace_writer {
  char *path;
  bl_output *output;
  bl_trace_shape shape;
  uint64_t offset; /* bytes written so far */
  int64_t last_iteration;
  uint64_t steps;
  uint8_t *index; /* the payload of the index block to come */
  size_t index_capacity;
  uint8_t *raw, *stored; /* a step as varints, and deflated */
  size_t stored_capacity;
  z_stream deflater;
  bool deflater_ready;
};

static bl_status put(bl_trace_writer *writer, const void *bytes, uint64_t n) {
  BL_TRY(bl_output_write(writer->output, bytes, n));
  writer->offset += n;
  return BL_OK;
}

static bl_status put_block(bl_trace_writer *writer, const bl_block *block, const void *payload) {
  uint8_t bytes[BL_BLT_BLOCK_BYTES];
  bl_blt_pack_block(block, bytes);
  BL_TRY(put(writer, bytes, sizeof bytes));
  return put(writer, payload, block->stored);
}

/* Notes that a step block starts at the present offset. */
static bl_status note_step(bl_trace_writer *writer, int64_t iteration) {
  const size_t need = ((size_t)writer->steps + 1) * BL_BLT_INDEX_ENTRY_BYTES;
  BL_TRY(bl_grow(&writer->index, &writer->index_capacity, need, 1, "the index of a trace"));
  bl_blt_pack_index_entry(iteration, writer->offset, writer->index + need - BL_BLT_INDEX_ENTRY_BYTES);
  writer->last_iteration = iteration;
  writer->steps++;
  return BL_OK;
}

bl_status bl_trace_create(const char *path, const bl_trace_shape *shape, bl_trace_writer **out) {
  bl_trace_writer *writer = NULL;
  bl_status status;
  uint8_t header[BL_BLT_HEADER_BYTES];
  *out = NULL;
  BL_TRY(bl_trace_shape_check(shape, path));
  BL_TRY(bl_new(&writer, 1, sizeof *writer, "a trace writer"));
  writer->shape = *shape;
  writer->path = strdup(path);
  if (writer->path == NULL) {
    status = bl_fail(BL_EMACHINE, "out of memory: the name of a trace");
    goto fail;
  }
  const size_t raw_bytes = (size_t)bl_trace_step_size(shape) * BL_BLT_MAX_VARINT;
  BL_TRY_GOTO(status, bl_new(&writer->raw, raw_bytes, 1, "a step of a trace"), fail);
  BL_TRY_GOTO(status, bl_output_open(path, &writer->output), fail);
  bl_blt_pack_header(shape, header);
  BL_TRY_GOTO(status, put(writer, header, sizeof header), fail);
  *out = writer;
  return BL_OK;
fail:
  bl_trace_discard(writer);
  return status;
}

/* Deflates `n` bytes of writer->raw into writer->stored. */
static bl_status deflate_step(bl_trace_writer *writer, uint64_t n, uint32_t *stored) {
  z_stream *z = &writer->deflater;
  if (!writer->deflater_ready) {
    if (deflateInit2(z, 6, Z_DEFLATED, MAX_WBITS, 9, Z_RLE) != Z_OK) return bl_fail(BL_EMACHINE, "out of memory: zlib");
    writer->deflater_ready = true;
  } else if (deflateReset(z) != Z_OK) {
    return bl_fail(BL_EMACHINE, "zlib cannot be reset");
  }
  const uint64_t bound = deflateBound(z, n);
  BL_TRY(bl_grow(&writer->stored, &writer->stored_capacity, bound, 1, "a block of a trace"));
  z->next_in = writer->raw;
  z->avail_in = (uInt)n;
  z->next_out = writer->stored;
  z->avail_out = (uInt)bound;
  if (deflate(z, Z_FINISH) != Z_STREAM_END) return bl_fail(BL_EMACHINE, "zlib cannot deflate a step");
  *stored = (uint32_t)(bound - z->avail_out);
  return BL_OK;
}

bl_status bl_trace_append(bl_trace_writer *writer, int64_t iteration, const uint32_t *counts) {
  bl_block block = {.kind = BL_BLT_KIND_STEP, .iteration = iteration};
  if (writer->steps > 0 && iteration <= writer->last_iteration)
    return bl_fail(BL_EINPUT, "%s: iteration %" PRId64 " after %" PRId64 ", expected a higher one", writer->path,
                   iteration, writer->last_iteration);
  const uint64_t raw = bl_blt_encode(&writer->shape, counts, writer->raw);
  block.raw = (uint32_t)raw;
  BL_TRY(deflate_step(writer, raw, &block.stored));
  block.crc = bl_crc32(0, writer->stored, block.stored);
  BL_TRY(note_step(writer, iteration));
  BL_TRY(put_block(writer, &block, writer->stored));
  if (fflush(bl_output_stream(writer->output)) != 0)
    return bl_fail_errno(BL_EMACHINE, "%s: cannot write", writer->path);
  return BL_OK;
}

bl_status bl_trace_finish(bl_trace_writer *writer) {
  const uint64_t index_bytes = writer->steps * BL_BLT_INDEX_ENTRY_BYTES;
  const uint64_t index_offset = writer->offset;
  uint8_t trailer[BL_BLT_TRAILER_BYTES];
  bl_status status;
  if (index_bytes > UINT32_MAX) {
    status = bl_fail(BL_EINPUT, "%s: %" PRIu64 " steps are more than one trace holds", writer->path, writer->steps);
    goto end;
  }
  const bl_block block = {.kind = BL_BLT_KIND_INDEX,
                          .iteration = (int64_t)writer->steps,
                          .stored = (uint32_t)index_bytes,
                          .raw = (uint32_t)index_bytes,
                          .crc = bl_crc32(0, writer->index, index_bytes)};
  BL_TRY_GOTO(status, put_block(writer, &block, writer->index), end);
  bl_blt_pack_trailer(index_offset, trailer);
  BL_TRY_GOTO(status, put(writer, trailer, sizeof trailer), end);
  status = bl_output_commit(writer->output);
  writer->output = NULL;
end:
  bl_trace_discard(writer);
  return status;
}

void bl_trace_discard(bl_trace_writer *writer) {
  if (writer == NULL) return;
  bl_output_discard(writer->output);
  if (writer->deflater_ready) deflateEnd(&writer->deflater);
  free(writer->path);
  free(writer->index);
  free(writer->raw);
  free(writer->stored);
  free(writer);
}

static bool same_shape(const bl_trace_shape *a, const bl_trace_shape *b) {
  return a->layers == b->layers && a->ranks == b->ranks && a->micro_batches == b->micro_batches &&
         a->experts == b->experts && a->live == b->live;
}

/* Steps of the trace at `path` up to `last_iteration`; -1 when it is no trace of this shape. */
static int32_t kept_steps(const char *path, const bl_trace_shape *shape, int64_t last_iteration) {
  bl_trace_reader *reader = NULL;
  int32_t kept = -1;
  if (bl_trace_open_any(path, &reader) == BL_OK && same_shape(bl_trace_shape_of(reader), shape))
    kept = last_iteration == INT64_MAX ? bl_trace_steps(reader) : bl_trace_find(reader, last_iteration + 1);
  bl_trace_close(reader);
  return kept;
}

/* Of the files "<path>.tmp.<pid>", the one that holds the most of the wanted steps becomes `path`, if more than `path`.
 */
static bl_status adopt_beside(const char *path, const bl_trace_shape *shape, int64_t last_iteration) {
  const char *slash = strrchr(path, '/');
  const char *name = slash == NULL ? path : slash + 1;
  const int folder_length = (int)(name - path);
  const size_t name_length = strlen(name);
  char folder[4096], candidate[4096], best[4096] = "";
  if (snprintf(folder, sizeof folder, "%.*s", folder_length, path) >= (int)sizeof folder)
    return bl_fail(BL_EINPUT, "%s: the name is too long", path);
  DIR *listing = opendir(folder_length == 0 ? "." : folder);
  if (listing == NULL) return bl_fail_errno(BL_EINPUT, "%s: cannot open its folder", path);
  int32_t most = kept_steps(path, shape, last_iteration);
  for (const struct dirent *entry = readdir(listing); entry != NULL; entry = readdir(listing)) {
    if (strncmp(entry->d_name, name, name_length) != 0 || strncmp(entry->d_name + name_length, ".tmp.", 5) != 0)
      continue;
    if (snprintf(candidate, sizeof candidate, "%s%s", folder, entry->d_name) >= (int)sizeof candidate) continue;
    const int32_t kept = kept_steps(candidate, shape, last_iteration);
    if (kept <= most) continue;
    most = kept;
    memcpy(best, candidate, sizeof best);
  }
  closedir(listing);
  bl_error_clear(); /* files that are no trace of ours were only tried */
  if (best[0] != '\0' && rename(best, path) != 0)
    return bl_fail_errno(BL_EMACHINE, "%s: cannot be renamed to %s", best, path);
  return BL_OK;
}

/* What a killed run left lies beside the file itself, which `path` may only link to; see base/file.h. */
static bl_status adopt_leftover(const char *path, const bl_trace_shape *shape, int64_t last_iteration) {
  char *file = realpath(path, NULL);
  const bl_status status = adopt_beside(file != NULL ? file : path, shape, last_iteration);
  free(file);
  return status;
}

static bl_status copy_steps(bl_trace_reader *reader, int64_t last_iteration, bl_trace_writer *writer) {
  for (int32_t i = 0; i < bl_trace_steps(reader) && bl_trace_iteration(reader, i) <= last_iteration; i++) {
    uint8_t header[BL_BLT_BLOCK_BYTES];
    const uint8_t *payload = NULL;
    uint64_t n = 0;
    BL_TRY(bl_trace_read_block(reader, i, header, &payload, &n));
    BL_TRY(note_step(writer, bl_trace_iteration(reader, i)));
    BL_TRY(put(writer, header, sizeof header));
    BL_TRY(put(writer, payload, n));
  }
  return BL_OK;
}

bl_status bl_trace_continue(const char *path, const bl_trace_shape *shape, int64_t last_iteration,
                            bl_trace_writer **out) {
  bl_trace_reader *reader = NULL;
  bl_status status;
  *out = NULL;
  BL_TRY(adopt_leftover(path, shape, last_iteration));
  BL_TRY(bl_trace_open_any(path, &reader));
  const bl_trace_shape *have = bl_trace_shape_of(reader);
  if (!same_shape(have, shape)) {
    status =
        bl_fail(BL_EINPUT,
                "%s: a trace of %" PRId32 " layers, %" PRId32 " ranks, %" PRId32 " micro-batches, %" PRId32
                " experts (%s), expected %" PRId32 ", %" PRId32 ", %" PRId32 ", %" PRId32 " (%s)",
                path, have->layers, have->ranks, have->micro_batches, have->experts, have->live ? "live" : "not live",
                shape->layers, shape->ranks, shape->micro_batches, shape->experts, shape->live ? "live" : "not live");
    goto end;
  }
  BL_TRY_GOTO(status, bl_trace_create(path, shape, out), end);
  status = copy_steps(reader, last_iteration, *out);
  if (status != BL_OK) {
    bl_trace_discard(*out);
    *out = NULL;
  }
end:
  bl_trace_close(reader);
  return status;
}
