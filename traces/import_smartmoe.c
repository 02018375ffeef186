/* import_smartmoe.c - the folder of a SmartMoE trace: which files there are, and reading them one step at a time. */
#include "traces/import_smartmoe.h"
#include "base/memory.h"
#include "traces/smartmoe_text.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { FIRST_CAPACITY = 1 << 16, MAX_FILE_BYTES = 1 << 30 };

typedef struct bl_smartmoe_file {
  int64_t iteration;
  int32_t rank;
} bl_smartmoe_file;

struct bl_smartmoe {
  char *folder;
  DIR *listing;
  bl_smartmoe_file *files; /* by iteration, then rank */
  size_t n_files, file_capacity;
  int32_t steps;
  bl_trace_shape shape;
  bl_text_format format;
  char *buffer; /* padding, text, padding */
  size_t capacity;
  uint64_t bytes;
};

static const char name_format[] = "table_iter%" PRId64 "_rank%" PRId32 ".log";

/* Reads "<digits>" up to `max`.  @return : false when there is none or it is larger. */
static bool take_number(const char **at, int64_t max, int64_t *value) {
  const char *const begin = *at;
  for (*value = 0; **at >= '0' && **at <= '9'; ++*at) {
    if (*value > (max - (**at - '0')) / 10) return false;
    *value = *value * 10 + (**at - '0');
  }
  return *at > begin && (*begin != '0' || *at == begin + 1);
}

static bool take_word(const char **at, const char *word) {
  const size_t n = strlen(word);
  if (strncmp(*at, word, n) != 0) return false;
  *at += n;
  return true;
}

/* Notes the file when its name is one of ours. A name that nearly is one is an error: it would be left out silently. */
static bl_status note_file(bl_smartmoe *source, const char *name) {
  const size_t length = strlen(name);
  const char *at = name;
  int64_t iteration = 0, rank = 0;
  if (!take_word(&at, "table_iter") || length < 4 || strcmp(name + length - 4, ".log") != 0) return BL_OK;
  if (!take_number(&at, INT64_MAX - 1, &iteration) || !take_word(&at, "_rank") ||
      !take_number(&at, BL_TRACE_MAX_RANKS - 1, &rank) || strcmp(at, ".log") != 0)
    return bl_fail(BL_EINPUT, "%s/%s: expected a name like table_iter1_rank0.log, rank at most %d", source->folder,
                   name, BL_TRACE_MAX_RANKS - 1);
  BL_TRY(
      bl_grow(&source->files, &source->file_capacity, source->n_files + 1, sizeof *source->files, "a list of files"));
  source->files[source->n_files++] = (bl_smartmoe_file){iteration, (int32_t)rank};
  return BL_OK;
}

static int by_iteration_then_rank(const void *a, const void *b) {
  const bl_smartmoe_file *x = a, *y = b;
  if (x->iteration != y->iteration) return x->iteration < y->iteration ? -1 : 1;
  return (x->rank > y->rank) - (x->rank < y->rank);
}

static bl_status list_folder(bl_smartmoe *source) {
  source->listing = opendir(source->folder);
  if (source->listing == NULL) return bl_fail_errno(BL_EINPUT, "%s: cannot open the folder", source->folder);
  errno = 0;
  for (const struct dirent *entry = readdir(source->listing); entry != NULL; entry = readdir(source->listing)) {
    BL_TRY(note_file(source, entry->d_name));
    errno = 0;
  }
  if (errno != 0) return bl_fail_errno(BL_EINPUT, "%s: cannot list the folder", source->folder);
  if (source->n_files == 0) return bl_fail(BL_EINPUT, "%s: holds no file table_iter<I>_rank<R>.log", source->folder);
  qsort(source->files, source->n_files, sizeof *source->files, by_iteration_then_rank);
  return BL_OK;
}

/* All ranks that occur must occur in every iteration. */
static bl_status check_grid(bl_smartmoe *source) {
  bool occurs[BL_TRACE_MAX_RANKS] = {false};
  int32_t ranks = 0;
  for (size_t i = 0; i < source->n_files; i++) {
    ranks += !occurs[source->files[i].rank];
    occurs[source->files[i].rank] = true;
  }
  size_t i = 0;
  while (i < source->n_files) {
    const int64_t iteration = source->files[i].iteration;
    for (int32_t rank = 0; rank < BL_TRACE_MAX_RANKS; rank++) {
      if (!occurs[rank]) continue;
      const bool here = i < source->n_files && source->files[i].iteration == iteration && source->files[i].rank == rank;
      if (!here)
        return bl_fail(BL_EINPUT,
                       "%s/table_iter%" PRId64 "_rank%" PRId32 ".log is missing (rank %" PRId32
                       " is there for other iterations)",
                       source->folder, iteration, rank, rank);
      i++;
    }
    source->steps++;
  }
  source->shape.ranks = ranks;
  return BL_OK;
}

/* Reads the file of (step, rank) behind the padding of source->buffer. `name` becomes "<folder>/<file>". */
static bl_status read_file(bl_smartmoe *source, size_t index, char *name, size_t name_size, uint64_t *size) {
  const bl_smartmoe_file *file = &source->files[index];
  char short_name[64];
  snprintf(short_name, sizeof short_name, name_format, file->iteration, file->rank);
  snprintf(name, name_size, "%s/%s", source->folder, short_name);
  const int fd = openat(dirfd(source->listing), short_name, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return bl_fail_errno(BL_EINPUT, "%s: cannot open", name);
  bl_status status = BL_OK;
  uint64_t n = 0;
  for (;;) {
    BL_TRY_GOTO(status, bl_grow(&source->buffer, &source->capacity, n + 1 + 2 * BL_TEXT_PADDING, 1, "a text file"),
                end);
    const ssize_t got = read(fd, source->buffer + BL_TEXT_PADDING + n, source->capacity - n - 2 * BL_TEXT_PADDING);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      status = bl_fail_errno(BL_EINPUT, "%s: cannot read", name);
      goto end;
    }
    if (got == 0) break;
    n += (uint64_t)got;
    if (n > MAX_FILE_BYTES) {
      status = bl_fail(BL_EINPUT, "%s: longer than %d bytes", name, MAX_FILE_BYTES);
      goto end;
    }
  }
  *size = n;
end:
  close(fd);
  return status;
}

/* The first file says what all must look like. */
static bl_status measure(bl_smartmoe *source) {
  char name[4096 + 64];
  uint64_t n = 0;
  BL_TRY(bl_grow(&source->buffer, &source->capacity, FIRST_CAPACITY, 1, "a text file"));
  memset(source->buffer, 0, source->capacity);
  BL_TRY(read_file(source, 0, name, sizeof name, &n));
  BL_TRY(bl_text_measure(name, source->buffer + BL_TEXT_PADDING, n, &source->format));
  source->shape.layers = source->format.layers;
  source->shape.micro_batches = source->format.rows;
  source->shape.experts = source->format.experts;
  BL_TRY(bl_trace_shape_check(&source->shape, source->folder));
  /* every count takes at least two characters: so what is allocated is bounded by what is there */
  const int64_t counts = (int64_t)source->format.layers * source->format.rows * source->format.experts;
  if (2 * (uint64_t)counts > n)
    return bl_fail(BL_EINPUT, "%s: %" PRId32 " lines, but fewer counts than %" PRId64 " (as the first line suggests)",
                   name, source->format.layers, counts);
  return bl_new(&source->format.dots, (size_t)counts + BL_TEXT_PADDING, sizeof *source->format.dots, "a text file");
}

bl_status bl_smartmoe_open(const char *folder, bl_smartmoe **out) {
  bl_smartmoe *source = NULL;
  bl_status status;
  *out = NULL;
  BL_TRY(bl_new(&source, 1, sizeof *source, "a trace folder"));
  source->folder = strdup(folder);
  if (source->folder == NULL) {
    status = bl_fail(BL_EMACHINE, "out of memory: the name of a folder");
    goto fail;
  }
  BL_TRY_GOTO(status, list_folder(source), fail);
  BL_TRY_GOTO(status, check_grid(source), fail);
  BL_TRY_GOTO(status, measure(source), fail);
  *out = source;
  return BL_OK;
fail:
  bl_smartmoe_close(source);
  return status;
}

void bl_smartmoe_close(bl_smartmoe *source) {
  if (source == NULL) return;
  if (source->listing != NULL) closedir(source->listing);
  free(source->folder);
  free(source->files);
  free(source->format.dots);
  free(source->buffer);
  free(source);
}

const bl_trace_shape *bl_smartmoe_shape_of(const bl_smartmoe *source) { return &source->shape; }
int32_t bl_smartmoe_steps(const bl_smartmoe *source) { return source->steps; }
uint64_t bl_smartmoe_bytes(const bl_smartmoe *source) { return source->bytes; }
int32_t bl_smartmoe_rank(const bl_smartmoe *source, int32_t index) { return source->files[index].rank; }

int64_t bl_smartmoe_iteration(const bl_smartmoe *source, int32_t index) {
  return source->files[(size_t)index * (size_t)source->shape.ranks].iteration;
}

bl_status bl_smartmoe_read(bl_smartmoe *source, int32_t index, uint32_t *counts) {
  const int64_t rank_stride = (int64_t)source->shape.micro_batches * source->shape.experts;
  for (int32_t rank = 0; rank < source->shape.ranks; rank++) {
    char name[4096 + 64];
    uint64_t n = 0;
    const size_t file = (size_t)index * (size_t)source->shape.ranks + (size_t)rank;
    BL_TRY(read_file(source, file, name, sizeof name, &n));
    BL_TRY(bl_text_parse(name, source->buffer + BL_TEXT_PADDING, n, &source->format, counts + rank * rank_stride,
                         rank_stride * source->shape.ranks));
    source->bytes += n;
  }
  return BL_OK;
}
