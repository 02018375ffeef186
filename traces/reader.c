/* reader.c - reads .blt files: an index of whole blocks, and one step at a time. */
#include "traces/reader.h"
#include "base/file.h"
#include "base/memory.h"
#include "traces/codec.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct bl_trace_entry {
  int64_t iteration;
  uint64_t offset; /* of the block header */
} bl_trace_entry;

struct bl_trace_reader {
  char *path;
  int fd;
  uint64_t file_bytes;
  uint64_t data_end; /* first byte behind the last whole block */
  bl_trace_shape shape;
  bool truncated;
  bl_trace_entry *entries;
  size_t entry_capacity;
  int32_t steps;
  uint8_t *stored, *raw; /* a block as it lies in the file, and inflated */
  size_t stored_capacity, raw_capacity;
  z_stream inflater;
  bool inflater_ready;
};

/* Reads exactly n bytes at `offset`; callers have checked that the file holds them. */
static bl_status read_at(const bl_trace_reader *reader, uint64_t offset, void *bytes, uint64_t n) {
  uint8_t *to = bytes;
  while (n > 0) {
    const ssize_t got = pread(reader->fd, to, n, (off_t)offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return bl_fail_errno(BL_EINPUT, "%s: cannot read", reader->path);
    if (got == 0) return bl_fail(BL_EINPUT, "%s: became shorter while it was read", reader->path);
    to += got;
    offset += (uint64_t)got;
    n -= (uint64_t)got;
  }
  return BL_OK;
}

static bool fits(uint64_t offset, uint64_t n, uint64_t end) { return offset <= end && n <= end - offset; }

static bl_status add_entry(bl_trace_reader *reader, int64_t iteration, uint64_t offset) {
  BL_TRY(bl_grow(&reader->entries, &reader->entry_capacity, (size_t)reader->steps + 1, sizeof *reader->entries,
                 "the index of a trace"));
  reader->entries[reader->steps++] = (bl_trace_entry){iteration, offset};
  return BL_OK;
}

/* Reads the payload of `block`, whose header lies at `offset`, into reader->stored. *whole tells whether its CRC fits.
 */
static bl_status read_payload(bl_trace_reader *reader, uint64_t offset, const bl_block *block, bool *whole) {
  BL_TRY(bl_grow(&reader->stored, &reader->stored_capacity, block->stored, 1, "a block of a trace"));
  BL_TRY(read_at(reader, offset + BL_BLT_BLOCK_BYTES, reader->stored, block->stored));
  *whole = bl_crc32(0, reader->stored, block->stored) == block->crc;
  return BL_OK;
}

/* Takes the index at the end of the file when it is there and sound; *found stays false otherwise. */
static bl_status read_index(bl_trace_reader *reader, bool *found) {
  uint8_t bytes[BL_BLT_BLOCK_BYTES];
  uint64_t offset = 0;
  bl_block block;
  bool whole = false;
  if (reader->file_bytes < BL_BLT_HEADER_BYTES + BL_BLT_BLOCK_BYTES + BL_BLT_TRAILER_BYTES) return BL_OK;
  const uint64_t trailer = reader->file_bytes - BL_BLT_TRAILER_BYTES;
  BL_TRY(read_at(reader, trailer, bytes, BL_BLT_TRAILER_BYTES));
  if (!bl_blt_unpack_trailer(bytes, &offset) || offset < BL_BLT_HEADER_BYTES ||
      !fits(offset, BL_BLT_BLOCK_BYTES, trailer))
    return BL_OK;
  BL_TRY(read_at(reader, offset, bytes, sizeof bytes));
  if (!bl_blt_unpack_block(bytes, &block) || block.kind != BL_BLT_KIND_INDEX || block.raw != block.stored ||
      block.stored != trailer - offset - BL_BLT_BLOCK_BYTES || block.stored % BL_BLT_INDEX_ENTRY_BYTES != 0)
    return BL_OK;
  BL_TRY(read_payload(reader, offset, &block, &whole));
  if (!whole) return BL_OK;

  uint64_t lowest = BL_BLT_HEADER_BYTES;
  for (uint64_t at = 0; at < block.stored; at += BL_BLT_INDEX_ENTRY_BYTES) {
    bl_trace_entry entry;
    bl_blt_unpack_index_entry(reader->stored + at, &entry.iteration, &entry.offset);
    const bool ordered = reader->steps == 0 || entry.iteration > reader->entries[reader->steps - 1].iteration;
    if (!ordered || entry.offset < lowest || !fits(entry.offset, BL_BLT_BLOCK_BYTES, offset)) {
      reader->steps = 0;
      return BL_OK;
    }
    lowest = entry.offset + BL_BLT_BLOCK_BYTES;
    BL_TRY(add_entry(reader, entry.iteration, entry.offset));
  }
  reader->data_end = offset;
  *found = true;
  return BL_OK;
}

/* Rebuilds the index from the blocks, up to the last whole one. */
static bl_status scan_blocks(bl_trace_reader *reader) {
  uint64_t offset = BL_BLT_HEADER_BYTES;
  reader->truncated = true;
  reader->data_end = offset;
  while (fits(offset, BL_BLT_BLOCK_BYTES, reader->file_bytes)) {
    uint8_t bytes[BL_BLT_BLOCK_BYTES];
    bl_block block;
    bool whole = false;
    BL_TRY(read_at(reader, offset, bytes, sizeof bytes));
    if (!bl_blt_unpack_block(bytes, &block) || block.kind == BL_BLT_KIND_INDEX) break;
    const bool may_skip = bytes[0] >= 'a' && bytes[0] <= 'z';
    if (block.kind != BL_BLT_KIND_STEP && !may_skip)
      return bl_fail(BL_EINPUT, "%s: a block of kind \"%.4s\" at byte %" PRIu64 ", which this version does not know",
                     reader->path, (const char *)bytes, offset);
    if (!fits(offset + BL_BLT_BLOCK_BYTES, block.stored, reader->file_bytes)) break;
    BL_TRY(read_payload(reader, offset, &block, &whole));
    if (!whole) break;
    if (block.kind == BL_BLT_KIND_STEP) {
      if (reader->steps > 0 && block.iteration <= reader->entries[reader->steps - 1].iteration) break;
      BL_TRY(add_entry(reader, block.iteration, offset));
    }
    offset += BL_BLT_BLOCK_BYTES + block.stored;
    reader->data_end = offset;
  }
  return BL_OK;
}

/* The header of step `index`, checked against everything known about it. */
static bl_status step_block(const bl_trace_reader *reader, int32_t index, bl_block *block) {
  const bl_trace_entry *entry = &reader->entries[index];
  uint8_t bytes[BL_BLT_BLOCK_BYTES];
  BL_TRY(read_at(reader, entry->offset, bytes, sizeof bytes));
  if (!bl_blt_unpack_block(bytes, block) || block->kind != BL_BLT_KIND_STEP || block->iteration != entry->iteration ||
      !bl_blt_plausible(block, &reader->shape) ||
      !fits(entry->offset + BL_BLT_BLOCK_BYTES, block->stored, reader->data_end))
    return bl_fail(BL_EINPUT, "%s: iteration %" PRId64 ": the block at byte %" PRIu64 " is damaged (its header)",
                   reader->path, entry->iteration, entry->offset);
  return BL_OK;
}

static bl_status open_file(const char *path, bl_trace_reader *reader) {
  struct stat status;
  uint8_t bytes[BL_BLT_HEADER_BYTES];
  reader->path = strdup(path);
  if (reader->path == NULL) return bl_fail(BL_EMACHINE, "out of memory: the name of a trace");
  reader->fd = open(path, O_RDONLY | O_CLOEXEC);
  if (reader->fd < 0) return bl_fail_errno(BL_EINPUT, "%s: cannot open", path);
  if (fstat(reader->fd, &status) != 0) return bl_fail_errno(BL_EINPUT, "%s: cannot read", path);
  if (!S_ISREG(status.st_mode)) return bl_fail(BL_EINPUT, "%s: is not a regular file, expected a .blt trace", path);
  reader->file_bytes = (uint64_t)status.st_size;
  const uint64_t n = reader->file_bytes < sizeof bytes ? reader->file_bytes : sizeof bytes;
  BL_TRY(read_at(reader, 0, bytes, n));
  return bl_blt_unpack_header(path, bytes, n, &reader->shape);
}

bl_status bl_trace_open_any(const char *path, bl_trace_reader **out) {
  bl_trace_reader *reader = NULL;
  bl_status status;
  bool found = false;
  *out = NULL;
  BL_TRY(bl_new(&reader, 1, sizeof *reader, "a trace reader"));
  reader->fd = -1;
  BL_TRY_GOTO(status, open_file(path, reader), fail);
  BL_TRY_GOTO(status, read_index(reader, &found), fail);
  if (!found) BL_TRY_GOTO(status, scan_blocks(reader), fail);
  if (reader->steps > 0) {
    bl_block block;
    BL_TRY_GOTO(status, step_block(reader, 0, &block), fail);
  }
  *out = reader;
  return BL_OK;
fail:
  bl_trace_close(reader);
  return status;
}

bl_status bl_trace_open(const char *path, bl_trace_reader **out) {
  BL_TRY(bl_trace_open_any(path, out));
  if ((*out)->steps > 0) return BL_OK;
  const bl_status status =
      bl_fail(BL_EINPUT, "%s: holds no whole step%s", path, (*out)->truncated ? " (the file was cut short)" : "");
  bl_trace_close(*out);
  *out = NULL;
  return status;
}

void bl_trace_close(bl_trace_reader *reader) {
  if (reader == NULL) return;
  if (reader->fd >= 0) close(reader->fd);
  if (reader->inflater_ready) inflateEnd(&reader->inflater);
  free(reader->path);
  free(reader->entries);
  free(reader->stored);
  free(reader->raw);
  free(reader);
}

const bl_trace_shape *bl_trace_shape_of(const bl_trace_reader *reader) { return &reader->shape; }
int32_t bl_trace_steps(const bl_trace_reader *reader) { return reader->steps; }
int64_t bl_trace_iteration(const bl_trace_reader *reader, int32_t index) { return reader->entries[index].iteration; }
bool bl_trace_truncated(const bl_trace_reader *reader) { return reader->truncated; }
const char *bl_trace_path(const bl_trace_reader *reader) { return reader->path; }
uint64_t bl_trace_file_bytes(const bl_trace_reader *reader) { return reader->file_bytes; }

int32_t bl_trace_find(const bl_trace_reader *reader, int64_t iteration) {
  int32_t low = 0, high = reader->steps;
  while (low < high) {
    const int32_t middle = low + (high - low) / 2;
    if (reader->entries[middle].iteration < iteration)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

/* Inflates reader->stored into reader->raw.  @return : BL_EMACHINE without memory; *whole is false when damaged. */
static bl_status inflate_block(bl_trace_reader *reader, const bl_block *block, bool *whole) {
  z_stream *z = &reader->inflater;
  *whole = false;
  BL_TRY(bl_grow(&reader->raw, &reader->raw_capacity, block->raw, 1, "a step of a trace"));
  if (!reader->inflater_ready) {
    if (inflateInit(z) != Z_OK) return bl_fail(BL_EMACHINE, "out of memory: zlib");
    reader->inflater_ready = true;
  } else if (inflateReset(z) != Z_OK) {
    return bl_fail(BL_EMACHINE, "zlib cannot be reset");
  }
  z->next_in = reader->stored;
  z->avail_in = block->stored;
  z->next_out = reader->raw;
  z->avail_out = block->raw;
  const int result = inflate(z, Z_FINISH);
  if (result == Z_MEM_ERROR) return bl_fail(BL_EMACHINE, "out of memory: zlib");
  *whole = result == Z_STREAM_END && z->avail_in == 0 && z->avail_out == 0;
  return BL_OK;
}

bl_status bl_trace_read(bl_trace_reader *reader, int32_t index, uint32_t *counts) {
  bl_block block;
  bool whole = false;
  if (index < 0 || index >= reader->steps)
    return bl_fail(BL_EINPUT, "%s: step %" PRId32 " of %" PRId32, reader->path, index, reader->steps);
  BL_TRY(step_block(reader, index, &block));
  BL_TRY(read_payload(reader, reader->entries[index].offset, &block, &whole));
  if (whole) BL_TRY(inflate_block(reader, &block, &whole));
  if (!whole || !bl_blt_decode(&reader->shape, reader->raw, block.raw, counts))
    return bl_fail(BL_EINPUT, "%s: iteration %" PRId64 ": the block at byte %" PRIu64 " is damaged", reader->path,
                   block.iteration, reader->entries[index].offset);
  return BL_OK;
}

bl_status bl_trace_read_block(bl_trace_reader *reader, int32_t index, uint8_t header[BL_BLT_BLOCK_BYTES],
                              const uint8_t **payload, uint64_t *n) {
  bl_block block;
  bool whole = false;
  BL_TRY(step_block(reader, index, &block));
  BL_TRY(read_payload(reader, reader->entries[index].offset, &block, &whole));
  if (!whole)
    return bl_fail(BL_EINPUT, "%s: iteration %" PRId64 ": the block at byte %" PRIu64 " is damaged", reader->path,
                   block.iteration, reader->entries[index].offset);
  bl_blt_pack_block(&block, header);
  *payload = reader->stored;
  *n = block.stored;
  return BL_OK;
}

void bl_trace_loads(const bl_trace_shape *shape, const uint32_t *counts, int32_t source_rank, int32_t micro_batch,
                    double *loads) {
  const size_t experts = (size_t)shape->experts, micro_batches = (size_t)shape->micro_batches;
  const size_t rank_begin = source_rank < 0 ? 0 : (size_t)source_rank;
  const size_t rank_end = source_rank < 0 ? (size_t)shape->ranks : rank_begin + 1;
  const size_t micro_begin = micro_batch < 0 ? 0 : (size_t)micro_batch;
  const size_t micro_end = micro_batch < 0 ? micro_batches : micro_begin + 1;
  for (int32_t layer = 0; layer < shape->layers; layer++) {
    double *restrict sum = loads + (size_t)layer * experts;
    for (size_t e = 0; e < experts; e++) sum[e] = 0;
    for (size_t rank = rank_begin; rank < rank_end; rank++)
      for (size_t micro = micro_begin; micro < micro_end; micro++) {
        const size_t row = ((size_t)layer * (size_t)shape->ranks + rank) * micro_batches + micro;
        const uint32_t *restrict count = counts + row * experts;
        for (size_t e = 0; e < experts; e++) sum[e] += count[e];
      }
  }
}
