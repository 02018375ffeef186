/* data.c - sequences of bytes chosen by a hash of (seed, step, index). */
#include "executor/data.h"
#include "base/file.h"
#include "base/rng.h"
#include <stdlib.h>
#include <unistd.h>

/* What can be in memory beside the model: a device or a small gzip file may never end. */
static uint64_t max_corpus_bytes(void) {
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  return pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page / 4 : (uint64_t)1 << 30;
}

bl_status bl_corpus_load(const char *path, int32_t sequence, bl_corpus *out) {
  *out = (bl_corpus){0};
  BL_TRY(bl_file_read(path, max_corpus_bytes(), &out->bytes, &out->size));
  if (out->size <= (uint64_t)sequence) {
    const uint64_t size = out->size;
    bl_corpus_free(out);
    return bl_fail(BL_EINPUT, "%s: expected at least %d bytes (one sequence and the byte behind it), found %llu", path,
                   sequence + 1, (unsigned long long)size);
  }
  out->crc = bl_crc32(0, out->bytes, out->size);
  return BL_OK;
}

void bl_corpus_free(bl_corpus *corpus) {
  free(corpus->bytes);
  *corpus = (bl_corpus){0};
}

void bl_corpus_sequence(const bl_corpus *corpus, uint64_t seed, int64_t step, int64_t index, int32_t sequence,
                        int32_t *token, int32_t *target) {
  const uint64_t starts = corpus->size - (uint64_t)sequence;
  const uint64_t at = bl_hash_u64(seed, (uint64_t)step, (uint64_t)index, BL_DATA_STREAM) % starts;
  const unsigned char *bytes = (const unsigned char *)corpus->bytes + at;
  for (int32_t t = 0; t < sequence; t++) {
    token[t] = bytes[t];
    target[t] = bytes[t + 1];
  }
}
