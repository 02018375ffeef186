/* data.h - the training text: a file of bytes, and which of its sequences belong to which step. */
#ifndef BL_EXECUTOR_DATA_H
#define BL_EXECUTOR_DATA_H

#include "base/status.h"
#include <stdint.h>

/* One token a byte. Shared read-only by all ranks of a process. */
typedef struct bl_corpus {
  char *bytes;
  uint64_t size;
  uint32_t crc; /* CRC-32 of the (decompressed) bytes */
} bl_corpus;

/*! bl_corpus_load() : a plain or gzip-compressed file with at least sequence + 1 bytes.
 *  @return : BL_OK, BL_EINPUT (too short, unreadable) or BL_EMACHINE. */
bl_status bl_corpus_load(const char *path, int32_t sequence, bl_corpus *out);
void bl_corpus_free(bl_corpus *corpus);

/*! bl_corpus_sequence() : sequence `index` (0..batch-1) of `step` (from 1): tokens [sequence] and the byte behind each
 *  as its target. It starts at byte bl_hash_u64(seed, step, index, BL_DATA_STREAM) mod (size - sequence), whatever the
 *  number of ranks and micro-batches. */
void bl_corpus_sequence(const bl_corpus *corpus, uint64_t seed, int64_t step, int64_t index, int32_t sequence,
                        int32_t *token, int32_t *target);

enum { BL_DATA_STREAM = 0x64617461 }; /* "data" */

#endif
