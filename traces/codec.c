/* codec.c - packing and unpacking the pieces of a .blt file; no input or output here. */
#include "traces/codec.h"
#include "base/file.h"
#include <inttypes.h>
#include <string.h>

static const uint8_t header_magic[8] = {0x89, 'B', 'L', 'T', '\r', '\n', 0x1a, '\n'};
static const uint8_t trailer_magic[4] = {'B', 'E', 'N', 'D'};

static void put_u32(uint8_t *bytes, uint32_t value) {
  for (int i = 0; i < 4; i++) bytes[i] = (uint8_t)(value >> (8 * i));
}

static void put_u64(uint8_t *bytes, uint64_t value) {
  for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)(value >> (8 * i));
}

static uint32_t get_u32(const uint8_t *bytes) {
  uint32_t value = 0;
  for (int i = 0; i < 4; i++) value |= (uint32_t)bytes[i] << (8 * i);
  return value;
}

static uint64_t get_u64(const uint8_t *bytes) {
  uint64_t value = 0;
  for (int i = 0; i < 8; i++) value |= (uint64_t)bytes[i] << (8 * i);
  return value;
}

int64_t bl_trace_step_size(const bl_trace_shape *shape) {
  return (int64_t)shape->layers * shape->ranks * shape->micro_batches * shape->experts;
}

bl_status bl_trace_shape_check(const bl_trace_shape *shape, const char *name) {
  const struct {
    const char *what;
    int32_t value, max;
  } dimension[] = {{"layers", shape->layers, BL_TRACE_MAX_LAYERS},
                   {"ranks", shape->ranks, BL_TRACE_MAX_RANKS},
                   {"micro-batches", shape->micro_batches, BL_TRACE_MAX_MICRO_BATCHES},
                   {"experts", shape->experts, BL_TRACE_MAX_EXPERTS}};
  for (size_t i = 0; i < sizeof dimension / sizeof *dimension; i++)
    if (dimension[i].value < 1 || dimension[i].value > dimension[i].max)
      return bl_fail(BL_EINPUT, "%s: %" PRId32 " %s, expected 1 to %" PRId32, name, dimension[i].value,
                     dimension[i].what, dimension[i].max);
  if (bl_trace_step_size(shape) > BL_TRACE_MAX_STEP_SIZE)
    return bl_fail(BL_EINPUT, "%s: %" PRId64 " counts a step, expected at most %d", name, bl_trace_step_size(shape),
                   BL_TRACE_MAX_STEP_SIZE);
  return BL_OK;
}

void bl_blt_pack_header(const bl_trace_shape *shape, uint8_t bytes[BL_BLT_HEADER_BYTES]) {
  memset(bytes, 0, BL_BLT_HEADER_BYTES);
  memcpy(bytes, header_magic, sizeof header_magic);
  put_u32(bytes + 8, BL_BLT_VERSION);
  put_u32(bytes + 12, shape->live ? BL_BLT_FLAG_LIVE : 0);
  put_u32(bytes + 16, (uint32_t)shape->layers);
  put_u32(bytes + 20, (uint32_t)shape->ranks);
  put_u32(bytes + 24, (uint32_t)shape->micro_batches);
  put_u32(bytes + 28, (uint32_t)shape->experts);
  put_u32(bytes + 60, bl_crc32(0, bytes, 60));
}

bl_status bl_blt_unpack_header(const char *path, const uint8_t *bytes, uint64_t n, bl_trace_shape *shape) {
  if (n == 0) return bl_fail(BL_EINPUT, "%s: is empty, expected a .blt trace", path);
  const uint64_t compared = n < sizeof header_magic ? n : sizeof header_magic;
  if (memcmp(bytes, header_magic, compared) != 0)
    return bl_fail(BL_EINPUT, "%s: is not a .blt trace (its first bytes are those of another format)", path);
  if (n < BL_BLT_HEADER_BYTES)
    return bl_fail(BL_EINPUT, "%s: ends inside the header, expected at least %d bytes", path, BL_BLT_HEADER_BYTES);
  const uint32_t version = get_u32(bytes + 8);
  if (get_u32(bytes + 60) != bl_crc32(0, bytes, 60))
    return bl_fail(BL_EINPUT, "%s: the header is damaged (CRC-32 differs)", path);
  if (version != BL_BLT_VERSION)
    return bl_fail(BL_EINPUT, "%s: .blt version %" PRIu32 ", expected %d", path, version, BL_BLT_VERSION);
  const uint32_t flags = get_u32(bytes + 12);
  if ((flags & ~(uint32_t)BL_BLT_FLAG_LIVE) != 0)
    return bl_fail(BL_EINPUT, "%s: unknown flags 0x%" PRIx32 " in the header", path, flags);
  *shape = (bl_trace_shape){.layers = (int32_t)get_u32(bytes + 16),
                            .ranks = (int32_t)get_u32(bytes + 20),
                            .micro_batches = (int32_t)get_u32(bytes + 24),
                            .experts = (int32_t)get_u32(bytes + 28),
                            .live = (flags & BL_BLT_FLAG_LIVE) != 0};
  return bl_trace_shape_check(shape, path);
}

void bl_blt_pack_block(const bl_block *block, uint8_t bytes[BL_BLT_BLOCK_BYTES]) {
  put_u32(bytes, block->kind);
  put_u32(bytes + 4, 0);
  put_u64(bytes + 8, (uint64_t)block->iteration);
  put_u32(bytes + 16, block->stored);
  put_u32(bytes + 20, block->raw);
  put_u32(bytes + 24, block->crc);
  put_u32(bytes + 28, bl_crc32(0, bytes, 28));
}

bool bl_blt_unpack_block(const uint8_t bytes[BL_BLT_BLOCK_BYTES], bl_block *block) {
  *block = (bl_block){.kind = get_u32(bytes),
                      .iteration = (int64_t)get_u64(bytes + 8),
                      .stored = get_u32(bytes + 16),
                      .raw = get_u32(bytes + 20),
                      .crc = get_u32(bytes + 24)};
  return get_u32(bytes + 28) == bl_crc32(0, bytes, 28);
}

void bl_blt_pack_index_entry(int64_t iteration, uint64_t offset, uint8_t bytes[BL_BLT_INDEX_ENTRY_BYTES]) {
  put_u64(bytes, (uint64_t)iteration);
  put_u64(bytes + 8, offset);
}

void bl_blt_unpack_index_entry(const uint8_t bytes[BL_BLT_INDEX_ENTRY_BYTES], int64_t *iteration, uint64_t *offset) {
  *iteration = (int64_t)get_u64(bytes);
  *offset = get_u64(bytes + 8);
}

void bl_blt_pack_trailer(uint64_t index_offset, uint8_t bytes[BL_BLT_TRAILER_BYTES]) {
  put_u64(bytes, index_offset);
  put_u32(bytes + 8, bl_crc32(0, bytes, 8));
  memcpy(bytes + 12, trailer_magic, sizeof trailer_magic);
}

bool bl_blt_unpack_trailer(const uint8_t bytes[BL_BLT_TRAILER_BYTES], uint64_t *index_offset) {
  *index_offset = get_u64(bytes);
  return get_u32(bytes + 8) == bl_crc32(0, bytes, 8) && memcmp(bytes + 12, trailer_magic, sizeof trailer_magic) == 0;
}

bool bl_blt_plausible(const bl_block *block, const bl_trace_shape *shape) {
  const int64_t counts = bl_trace_step_size(shape);
  return block->raw >= counts && block->raw <= BL_BLT_MAX_VARINT * counts &&
         block->raw / BL_BLT_MAX_INFLATION <= block->stored;
}

static inline uint8_t *put_varint(uint8_t *at, int64_t difference) {
  uint64_t code = ((uint64_t)difference << 1) ^ (0 - (uint64_t)(difference < 0));
  while (code >= 128) {
    *at++ = (uint8_t)(code | 128);
    code >>= 7;
  }
  *at++ = (uint8_t)code;
  return at;
}

uint64_t bl_blt_encode(const bl_trace_shape *shape, const uint32_t *counts, uint8_t *raw) {
  const size_t experts = (size_t)shape->experts;
  const size_t rows = (size_t)shape->ranks * (size_t)shape->micro_batches;
  uint8_t *at = raw;
  for (int32_t layer = 0; layer < shape->layers; layer++, counts += rows * experts) {
    int64_t before = 0;
    for (size_t expert = 0; expert < experts; expert++) {
      const uint32_t *count = counts + expert;
      const int64_t first = *count;
      for (size_t row = 0; row < rows; row++, count += experts) {
        at = put_varint(at, (int64_t)*count - before);
        before = *count;
      }
      before = first;
    }
  }
  return (uint64_t)(at - raw);
}

/* Continues a varint whose first byte had its high bit set.  @return : NULL when it runs over `end` or is too long. */
static const uint8_t *get_long_varint(const uint8_t *at, const uint8_t *end, uint64_t *code) {
  for (unsigned shift = 7; shift < 7 * BL_BLT_MAX_VARINT; shift += 7) {
    if (at == end) return NULL;
    const uint8_t byte = *at++;
    *code |= (uint64_t)(byte & 127) << shift;
    if (byte < 128) return at;
  }
  return NULL;
}

bool bl_blt_decode(const bl_trace_shape *shape, const uint8_t *raw, uint64_t n, uint32_t *counts) {
  const size_t experts = (size_t)shape->experts;
  const size_t rows = (size_t)shape->ranks * (size_t)shape->micro_batches;
  const uint8_t *at = raw, *const end = raw + n;
  for (int32_t layer = 0; layer < shape->layers; layer++, counts += rows * experts) {
    int64_t before = 0;
    for (size_t expert = 0; expert < experts; expert++) {
      uint32_t *count = counts + expert;
      for (size_t row = 0; row < rows; row++, count += experts) {
        if (at == end) return false;
        uint64_t code = *at++;
        if (code >= 128) {
          code &= 127;
          at = get_long_varint(at, end, &code);
          if (at == NULL) return false;
        }
        before += (int64_t)(code >> 1) ^ -(int64_t)(code & 1);
        if (before < 0 || before > UINT32_MAX) return false;
        *count = (uint32_t)before;
      }
      before = counts[expert];
    }
  }
  return at == end;
}
