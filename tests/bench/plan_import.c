/* plan_import.c - how fast a SmartMoE text trace is read: open, read, parse, row check, into memory, on one core with a
 * warm cache, against a reader that does the same with fscanf. Deflating and writing the .blt file, and reading it
 * back, are rows of their own. Needs the folder of the trace: SMARTMOE_TRACE, or ../shared/data unpacked to a temporary
 * one. */
#include "base/log.h"
#include "base/memory.h"
#include "base/status.h"
#include "traces/import_smartmoe.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { REPEATS = 7 };

static const char archive[] = "../shared/data/smartmoe_moe_trace_1-2491.tar.xz";

typedef struct bench {
  char root[64]; /* temporary folder; "" when none was made */
  char folder[4096];
  uint32_t *counts; /* of the whole trace, pages touched before */
  size_t n_counts;
  uint64_t text_bytes;
} bench;

static void row(const char *name, double value, const char *unit, const char *reach, const char *better,
                const char *note) {
  printf("{\"name\": \"%s\", \"value\": %.6g, \"unit\": \"%s\", \"reach\": %s, \"better\": \"%s\", \"note\": \"%s\"}\n",
         name, value, unit, reach, better, note);
}

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *values, int n) {
  qsort(values, (size_t)n, sizeof *values, by_value);
  return values[n / 2];
}

/* Opens the folder and reads every step.  @return : seconds, or -1. */
static double read_folder(bench *b) {
  bl_smartmoe *source = NULL;
  const int64_t start = bl_now_us();
  bl_status status = bl_smartmoe_open(b->folder, &source);
  for (int32_t i = 0; status == BL_OK && i < bl_smartmoe_steps(source); i++)
    status = bl_smartmoe_read(source, i, b->counts + i * bl_trace_step_size(bl_smartmoe_shape_of(source)));
  const double seconds = (double)(bl_now_us() - start) * 1e-6;
  if (status == BL_OK) b->text_bytes = bl_smartmoe_bytes(source);
  bl_smartmoe_close(source);
  return status == BL_OK ? seconds : -1;
}

/* One file with fscanf, as one would write it first; adds to *check what was read. */
static bool fscanf_file(const char *path, uint32_t *counts, const bl_trace_shape *shape, uint64_t *check) {
  FILE *stream = fopen(path, "r");
  bool good = stream != NULL;
  for (int32_t layer = 0; good && layer < shape->layers; layer++) {
    int number = -1;
    good = fscanf(stream, "%d:[", &number) == 1 && number == layer;
    for (int32_t micro = 0; good && micro < shape->micro_batches; micro++) {
      double sum = 0;
      good = fscanf(stream, " [") == 0;
      for (int32_t e = 0; good && e < shape->experts; e++) {
        double value = -1;
        good = fscanf(stream, "%lf,", &value) == 1 && value >= 0;
        sum += value;
        *check += (uint64_t)value;
        counts[(layer * shape->ranks * shape->micro_batches + micro) * shape->experts + e] = (uint32_t)value;
      }
      good = good && sum == 4096 && fscanf(stream, "],") == 0;
    }
    if (good && fscanf(stream, "]") != 0) good = false;
  }
  if (stream != NULL) fclose(stream);
  return good;
}

/* Every `stride`-th step with fscanf.  @return : seconds, or -1. */
static double fscanf_folder(const bench *b, const bl_smartmoe *source, int32_t stride, uint32_t *counts) {
  const bl_trace_shape *shape = bl_smartmoe_shape_of(source);
  uint64_t check = 0;
  const int64_t start = bl_now_us();
  for (int32_t i = 0; i < bl_smartmoe_steps(source); i += stride)
    for (int32_t rank = 0; rank < shape->ranks; rank++) {
      char path[5000];
      snprintf(path, sizeof path, "%s/table_iter%" PRId64 "_rank%" PRId32 ".log", b->folder,
               bl_smartmoe_iteration(source, i), bl_smartmoe_rank(source, rank));
      if (!fscanf_file(path, counts + i * bl_trace_step_size(shape) + rank * shape->micro_batches * shape->experts,
                       shape, &check))
        return -1;
    }
  return check > 0 ? (double)(bl_now_us() - start) * 1e-6 : -1;
}

static bl_status write_trace(const bench *b, const bl_smartmoe *source, const char *path) {
  bl_trace_writer *writer = NULL;
  const bl_trace_shape *shape = bl_smartmoe_shape_of(source);
  BL_TRY(bl_trace_create(path, shape, &writer));
  for (int32_t i = 0; i < bl_smartmoe_steps(source); i++) {
    const bl_status status =
        bl_trace_append(writer, bl_smartmoe_iteration(source, i), b->counts + i * bl_trace_step_size(shape));
    if (status != BL_OK) {
      bl_trace_discard(writer);
      return status;
    }
  }
  return bl_trace_finish(writer);
}

static bl_status read_trace(const char *path, uint32_t *step, double *loads, int64_t *loads_us) {
  bl_trace_reader *reader = NULL;
  BL_TRY(bl_trace_open(path, &reader));
  bl_status status = BL_OK;
  for (int32_t i = 0; status == BL_OK && i < bl_trace_steps(reader); i++) {
    status = bl_trace_read(reader, i, step);
    const int64_t start = bl_now_us();
    bl_trace_loads(bl_trace_shape_of(reader), step, -1, -1, loads);
    *loads_us += bl_now_us() - start;
  }
  bl_trace_close(reader);
  return status;
}

static bl_status bench_blt(const bench *b, const bl_smartmoe *source) {
  const bl_trace_shape *shape = bl_smartmoe_shape_of(source);
  char path[128];
  struct stat info;
  double write_s[REPEATS], read_s[REPEATS], loads_us[REPEATS];
  double *loads = NULL;
  uint32_t *step = NULL;
  BL_TRY(bl_new(&loads, (size_t)shape->layers * (size_t)shape->experts, sizeof *loads, "loads"));
  BL_TRY(bl_new(&step, (size_t)bl_trace_step_size(shape), sizeof *step, "a step"));
  snprintf(path, sizeof path, "/tmp/ballast_bench_%d.blt", (int)getpid());
  for (int i = 0; i < REPEATS; i++) {
    int64_t start = bl_now_us(), in_loads = 0;
    BL_TRY(write_trace(b, source, path));
    write_s[i] = (double)(bl_now_us() - start) * 1e-6;
    start = bl_now_us();
    BL_TRY(read_trace(path, step, loads, &in_loads));
    read_s[i] = (double)(bl_now_us() - start - in_loads) * 1e-6;
    loads_us[i] = (double)in_loads / bl_smartmoe_steps(source);
  }
  if (stat(path, &info) != 0) return bl_fail_errno(BL_EMACHINE, "%s", path);
  unlink(path);
  free(loads);
  free(step);
  row("trace import: deflate and write the .blt file", median(write_s, REPEATS), "s", "null", "lower", "");
  row("trace .blt: size", (double)info.st_size, "bytes", "null", "lower", "");
  row("trace .blt: read all steps in order", median(read_s, REPEATS), "s", "1", "lower", "");
  row("trace loads: sums of one step", median(loads_us, REPEATS), "us", "null", "lower", "24 x 16 x 4 x 32 counts");
  return BL_OK;
}

/* Finds or unpacks the folder.  @return : false when there is none. */
static bool find_folder(bench *b) {
  const char *given = getenv("SMARTMOE_TRACE");
  char command[4096];
  if (given != NULL) {
    snprintf(b->folder, sizeof b->folder, "%s", given);
    return true;
  }
  if (access(archive, R_OK) != 0) return false;
  snprintf(b->root, sizeof b->root, "/tmp/ballast_bench_XXXXXX");
  if (mkdtemp(b->root) == NULL) return false;
  snprintf(b->folder, sizeof b->folder, "%s/moe_trace", b->root);
  snprintf(command, sizeof command, "tar xJf %s -C %s", archive, b->root);
  return system(command) == 0;
}

static void remove_folder(const bench *b) {
  char command[128];
  if (b->root[0] == '\0') return;
  snprintf(command, sizeof command, "rm -rf %s", b->root);
  if (system(command) != 0) fprintf(stderr, "%s is left behind\n", b->root);
}

static bl_status run(bench *b) {
  enum { FSCANF_STRIDE = 5 };
  bl_smartmoe *source = NULL;
  double ours[REPEATS], theirs[REPEATS], ratio[REPEATS];
  char note[128];
  BL_TRY(bl_smartmoe_open(b->folder, &source));
  b->n_counts = (size_t)(bl_trace_step_size(bl_smartmoe_shape_of(source)) * bl_smartmoe_steps(source));
  BL_TRY(bl_new(&b->counts, b->n_counts, sizeof *b->counts, "the counts of a trace"));
  memset(b->counts, 1, b->n_counts * sizeof *b->counts);
  if (read_folder(b) < 0 || fscanf_folder(b, source, FSCANF_STRIDE, b->counts) < 0)
    return bl_fail(BL_EINPUT, "%s: %s", b->folder, bl_error_text());
  const int32_t steps = bl_smartmoe_steps(source), fscanf_steps = (steps + FSCANF_STRIDE - 1) / FSCANF_STRIDE;
  for (int i = 0; i < REPEATS; i++) {
    ours[i] = read_folder(b);
    theirs[i] = fscanf_folder(b, source, FSCANF_STRIDE, b->counts) * steps / fscanf_steps;
    ratio[i] = theirs[i] / ours[i];
  }
  const double seconds = median(ours, REPEATS); /* sorts */
  snprintf(note, sizeof note, "%.1f MB of text in %.1f ms; fscanf %.0f ms", (double)b->text_bytes * 1e-6, seconds * 1e3,
           median(theirs, REPEATS) * 1e3);
  row("trace import: open, read, parse, check, against fscanf", median(ratio, REPEATS), "x", "15", "higher", note);
  row("trace import: text read", (double)b->text_bytes / ours[0] * 1e-9, "GB/s", "1.5", "higher", "best run");
  const bl_status status = bench_blt(b, source);
  bl_smartmoe_close(source);
  free(b->counts);
  return status;
}

int main(void) {
  static bench b;
  bl_status status = BL_OK;
  if (find_folder(&b)) {
    status = run(&b);
    if (status != BL_OK) fprintf(stderr, "plan_import: %s\n", bl_error_text());
  } else {
    printf("{\"name\": \"trace import\", \"value\": null, \"unit\": \"x\", \"reach\": 15, \"note\": \"skipped: neither "
           "SMARTMOE_TRACE nor %s\"}\n",
           archive);
  }
  remove_folder(&b);
  return status == BL_OK ? 0 : 1;
}
