/* trace_files.h - files and small traces for the trace tests. */
#ifndef BL_TESTS_TRACE_FILES_H
#define BL_TESTS_TRACE_FILES_H

#include "base/file.h"
#include "base/rng.h"
#include "tests/check.h"
#include "traces/trace.h"
#include <dirent.h>
#include <unistd.h>

/* "<TMPDIR>/<program's own folder>/<name>"; eight names live at a time. */
static inline const char *temp_path(const char *name) {
  static char paths[8][512], folder[256];
  static int next;
  if (folder[0] == '\0') {
    const char *root = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/ballast_trace_test_XXXXXX", root != NULL ? root : "/tmp");
    if (mkdtemp(folder) == NULL) exit(1);
  }
  char *path = paths[next++ % 8];
  snprintf(path, sizeof paths[0], "%s/%s", folder, name);
  return path;
}

static inline void put_file(const char *path, const void *bytes, uint64_t n) {
  unlink(path); /* some file systems wait for the disk when a file is overwritten */
  FILE *stream = fopen(path, "wb");
  if (stream == NULL || fwrite(bytes, 1, n, stream) != n || fclose(stream) != 0) exit(1);
}

/* The raw bytes of a file; the caller frees. */
static inline uint8_t *get_file(const char *path, uint64_t *n) {
  FILE *stream = fopen(path, "rb");
  if (stream == NULL || fseek(stream, 0, SEEK_END) != 0) exit(1);
  *n = (uint64_t)ftell(stream);
  rewind(stream);
  uint8_t *bytes = malloc(*n + 1);
  if (bytes == NULL || fread(bytes, 1, *n, stream) != *n) exit(1);
  fclose(stream);
  return bytes;
}

/* Entries of the folder of the temporary files whose names start with `prefix`. */
static inline int count_files(const char *prefix) {
  DIR *listing = opendir(temp_path(""));
  int n = 0;
  for (const struct dirent *entry = readdir(listing); entry != NULL; entry = readdir(listing))
    n += strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
  closedir(listing);
  return n;
}

static inline void remove_temp_folder(void) {
  char command[600];
  snprintf(command, sizeof command, "rm -rf '%s'", temp_path(""));
  if (system(command) != 0) exit(1);
}

/* Counts of step `step` of the test traces: mostly small, now and then anything. */
static inline void fill_counts(const bl_trace_shape *shape, uint64_t step, uint32_t *counts) {
  bl_rng rng;
  bl_rng_seed(&rng, 7, step);
  for (int64_t i = 0; i < bl_trace_step_size(shape); i++) {
    const uint64_t kind = bl_rng_below(&rng, 16);
    counts[i] = kind == 0 ? (uint32_t)bl_rng_u64(&rng) : kind < 6 ? 0 : (uint32_t)bl_rng_below(&rng, 300);
    if (kind == 1) counts[i] = UINT32_MAX;
  }
}

/* Writes `steps` steps at iterations 1, 11, 21, ... */
static inline bl_status write_test_trace(const char *path, const bl_trace_shape *shape, int32_t steps) {
  bl_trace_writer *writer = NULL;
  BL_TRY(bl_trace_create(path, shape, &writer));
  uint32_t *counts = malloc((size_t)bl_trace_step_size(shape) * sizeof *counts);
  bl_status status = BL_OK;
  for (int32_t i = 0; i < steps && status == BL_OK; i++) {
    fill_counts(shape, (uint64_t)i, counts);
    status = bl_trace_append(writer, 1 + 10 * (int64_t)i, counts);
  }
  free(counts);
  if (status == BL_OK) return bl_trace_finish(writer);
  bl_trace_discard(writer);
  return status;
}

/* Whether step `index` of the reader is that of write_test_trace(). */
static inline bool step_is(bl_trace_reader *reader, int32_t index, uint64_t step) {
  const bl_trace_shape *shape = bl_trace_shape_of(reader);
  const size_t n = (size_t)bl_trace_step_size(shape);
  uint32_t *have = malloc(n * sizeof *have), *want = malloc(n * sizeof *want);
  fill_counts(shape, step, want);
  const bool same = bl_trace_read(reader, index, have) == BL_OK && memcmp(have, want, n * sizeof *have) == 0;
  free(have);
  free(want);
  return same;
}

#endif
