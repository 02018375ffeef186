/* codec.h - the bytes of a .blt file: header, blocks, index, trailer. Private to traces/.
 *
 * All integers are little-endian.
 *   file header, 64 bytes : magic[8], u32 version, u32 flags (bit 0: live), i32 layers, ranks, micro_batches, experts,
 *                           28 zero bytes, u32 CRC-32 of the 60 bytes before
 *   block, 32 bytes + payload : kind[4], u32 zero, i64 iteration, u32 stored bytes, u32 raw bytes, u32 CRC-32 of the
 *                           payload, u32 CRC-32 of the 28 bytes before; then `stored` bytes of payload
 *     "STEP" : the counts of one iteration (raw = before deflate)
 *     "INDX" : i64 iteration, u64 offset of the block, for every STEP; its own `iteration` is the number of steps
 *     a kind that starts with a small letter may be skipped by who does not know it (a per-token block belongs to the
 *     STEP in front of it); any other unknown kind means a newer format
 *   trailer, 16 bytes : u64 offset of INDX, u32 CRC-32 of these 8 bytes, "BEND"
 *
 * Payload of STEP: zlib stream of varints. Counts go layer by layer, in a layer expert by expert, for an expert over
 * its rows (rank, micro-batch): rows of a layer are samples of one distribution, so each count is coded as the zigzag
 * difference to the row before (the first row: to the expert before). Matching brings nothing there but runs of zeros,
 * so deflate runs with Z_RLE: three times faster than with matches, and smaller. */
#ifndef BL_TRACES_CODEC_H
#define BL_TRACES_CODEC_H

#include "traces/trace.h"
#include <zlib.h>

enum {
  BL_BLT_VERSION = 1,
  BL_BLT_HEADER_BYTES = 64,
  BL_BLT_BLOCK_BYTES = 32,
  BL_BLT_INDEX_ENTRY_BYTES = 16,
  BL_BLT_TRAILER_BYTES = 16,
  BL_BLT_MAX_VARINT = 5,       /* the zigzag difference of two 32-bit counts has 33 bits */
  BL_BLT_MAX_INFLATION = 1032, /* deflate cannot expand by more */
  BL_BLT_FLAG_LIVE = 1
};

#define BL_BLT_KIND_STEP 0x50455453u  /* "STEP" */
#define BL_BLT_KIND_INDEX 0x58444e49u /* "INDX" */

typedef struct bl_block {
  uint32_t kind;
  int64_t iteration;
  uint32_t stored, raw, crc;
} bl_block;

void bl_blt_pack_header(const bl_trace_shape *shape, uint8_t bytes[BL_BLT_HEADER_BYTES]);

/*! bl_blt_unpack_header() : `path` names the file in errors.  @return : BL_OK or BL_EINPUT. */
bl_status bl_blt_unpack_header(const char *path, const uint8_t *bytes, uint64_t n, bl_trace_shape *shape);

void bl_blt_pack_block(const bl_block *block, uint8_t bytes[BL_BLT_BLOCK_BYTES]);
bool bl_blt_unpack_block(const uint8_t bytes[BL_BLT_BLOCK_BYTES], bl_block *block); /* false: damaged */

void bl_blt_pack_index_entry(int64_t iteration, uint64_t offset, uint8_t bytes[BL_BLT_INDEX_ENTRY_BYTES]);
void bl_blt_unpack_index_entry(const uint8_t bytes[BL_BLT_INDEX_ENTRY_BYTES], int64_t *iteration, uint64_t *offset);
void bl_blt_pack_trailer(uint64_t index_offset, uint8_t bytes[BL_BLT_TRAILER_BYTES]);
bool bl_blt_unpack_trailer(const uint8_t bytes[BL_BLT_TRAILER_BYTES], uint64_t *index_offset); /* false: none */

/*! bl_blt_plausible() : `block` can hold a step of `shape`: between 1 and 5 bytes a count, inflated by no more than
 *  deflate can. */
bool bl_blt_plausible(const bl_block *block, const bl_trace_shape *shape);

/*! bl_blt_encode() : counts as varints into raw[BL_BLT_MAX_VARINT * step size].  @return : bytes written. */
uint64_t bl_blt_encode(const bl_trace_shape *shape, const uint32_t *counts, uint8_t *raw);

/*! bl_blt_decode() : the inverse.  @return : false unless the `n` bytes are exactly the counts of one step. */
bool bl_blt_decode(const bl_trace_shape *shape, const uint8_t *raw, uint64_t n, uint32_t *counts);

#endif
