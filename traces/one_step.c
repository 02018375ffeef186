/* one_step.c - header, one block, index and trailer in one buffer. */
#include "traces/one_step.h"
#include "base/file.h"
#include "base/memory.h"
#include "traces/codec.h"
#include <unistd.h>

static bl_status write_all(int fd, const uint8_t *bytes, uint64_t n) {
  for (uint64_t done = 0; done < n;) {
    const ssize_t written = pwrite(fd, bytes + done, n - done, (off_t)done);
    if (written <= 0) return bl_fail_errno(BL_EMACHINE, "a trace of one step cannot be written");
    done += (uint64_t)written;
  }
  return BL_OK;
}

/* Puts a block with its payload, which lies behind where its header goes already.  @return : the bytes of both. */
static uint64_t put_block(uint8_t *at, uint32_t kind, int64_t iteration, uint64_t stored, uint64_t raw) {
  const bl_block block = {.kind = kind,
                          .iteration = iteration,
                          .stored = (uint32_t)stored,
                          .raw = (uint32_t)raw,
                          .crc = bl_crc32(0, at + BL_BLT_BLOCK_BYTES, stored)};
  bl_blt_pack_block(&block, at);
  return BL_BLT_BLOCK_BYTES + stored;
}

bl_status bl_trace_write_step(int fd, const bl_trace_shape *shape, const uint32_t *counts) {
  uint8_t *raw = NULL, *file = NULL;
  bl_status status;
  BL_TRY(bl_trace_shape_check(shape, "a trace of one step"));
  BL_TRY_GOTO(status, bl_new(&raw, (size_t)bl_trace_step_size(shape) * BL_BLT_MAX_VARINT, 1, "a step of a trace"), end);
  const uint64_t raw_bytes = bl_blt_encode(shape, counts, raw);
  uLongf stored = compressBound((uLong)raw_bytes);
  const uint64_t others =
      BL_BLT_HEADER_BYTES + 2 * BL_BLT_BLOCK_BYTES + BL_BLT_INDEX_ENTRY_BYTES + BL_BLT_TRAILER_BYTES;
  BL_TRY_GOTO(status, bl_new(&file, others + stored, 1, "a trace of one step"), end);
  bl_blt_pack_header(shape, file);
  uint64_t size = BL_BLT_HEADER_BYTES;
  if (compress(file + size + BL_BLT_BLOCK_BYTES, &stored, raw, (uLong)raw_bytes) != Z_OK) {
    status = bl_fail(BL_EMACHINE, "out of memory: zlib");
    goto end;
  }
  size += put_block(file + size, BL_BLT_KIND_STEP, 0, stored, raw_bytes);
  const uint64_t index = size;
  bl_blt_pack_index_entry(0, BL_BLT_HEADER_BYTES, file + size + BL_BLT_BLOCK_BYTES);
  size += put_block(file + size, BL_BLT_KIND_INDEX, 1, BL_BLT_INDEX_ENTRY_BYTES, BL_BLT_INDEX_ENTRY_BYTES);
  bl_blt_pack_trailer(index, file + size);
  status = write_all(fd, file, size + BL_BLT_TRAILER_BYTES);
end:
  free(raw);
  free(file);
  return status;
}
