/* output.c - output files that appear whole or not at all. */
#include "base/file.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The temporary files of this process, in fixed places that a signal handler can walk: owner is 0 when free, -1 while
 * its path is written, otherwise the process that must remove it. */
enum { MAX_OUTPUTS = 64 };
static struct {
  atomic_int owner;
  char path[PATH_MAX];
} pending[MAX_OUTPUTS];

struct bl_output {
  FILE *stream;
  char *path, *target; /* as given; with symbolic links followed */
  int slot;            /* in `pending`; -1 when written directly */
};

static int reserve_slot(void) {
  for (int i = 0; i < MAX_OUTPUTS; i++) {
    int expected = 0;
    if (atomic_compare_exchange_strong(&pending[i].owner, &expected, -1)) return i;
  }
  return -1;
}

static bool is_disk_error(int error) {
  return error == ENOSPC || error == EDQUOT || error == EIO || error == EFBIG || error == EMFILE || error == ENFILE;
}

static bl_status cannot_create(const char *path) {
  return bl_fail_errno(is_disk_error(errno) ? BL_EMACHINE : BL_EINPUT, "%s: cannot create", path);
}

static bl_status write_failure(const bl_output *output) {
  return bl_fail_errno(BL_EMACHINE, "%s: writing failed", output->path);
}

static bl_status open_direct(bl_output *output) {
  const int fd = open(output->path, O_WRONLY | O_TRUNC | O_CLOEXEC);
  if (fd < 0) return cannot_create(output->path);
  output->stream = fdopen(fd, "wb");
  if (output->stream) return BL_OK;
  close(fd);
  return bl_fail(BL_EMACHINE, "out of memory: a stream");
}

/* One thread at a time: paths are compared with those of the other slots. */
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;

static bl_status open_temporary_alone(bl_output *output, mode_t mode, bool keep_mode) {
  const int slot = reserve_slot();
  if (slot < 0) return bl_fail(BL_EMACHINE, "%s: more than %d output files are open", output->path, MAX_OUTPUTS);
  char *path = pending[slot].path;
  const int n = snprintf(path, PATH_MAX, "%s.tmp.%ld", output->target, (long)getpid());
  if (n < 0 || n >= PATH_MAX) {
    pending[slot].owner = 0;
    return bl_fail(BL_EINPUT, "%s: the path is too long", output->path);
  }
  for (int i = 0; i < MAX_OUTPUTS; i++) {
    if (i == slot || pending[i].owner != getpid() || strcmp(pending[i].path, path) != 0) continue;
    pending[slot].owner = 0;
    return bl_fail(BL_EMACHINE, "%s: is being written already", output->path);
  }
  unlink(path); /* of a killed process that had the same number */
  const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (fd < 0) {
    pending[slot].owner = 0;
    return cannot_create(output->path);
  }
  output->slot = slot;
  pending[slot].owner = getpid();
  if (keep_mode && fchmod(fd, mode) != 0) errno = 0; /* another owner's file: the default permissions stay */
  output->stream = fdopen(fd, "wb");
  if (output->stream) return BL_OK;
  close(fd);
  return bl_fail(BL_EMACHINE, "out of memory: a stream");
}

static bl_status open_temporary(bl_output *output, mode_t mode, bool keep_mode) {
  pthread_mutex_lock(&opening);
  const bl_status status = open_temporary_alone(output, mode, keep_mode);
  pthread_mutex_unlock(&opening);
  return status;
}

static bl_status open_at_path(bl_output *output) {
  const char *path = output->path;
  if (!strcmp(path, "-")) {
    output->stream = stdout;
    return BL_OK;
  }
  if (!*path) return bl_fail(BL_EINPUT, "the output path is empty");
  if (!strncmp(path, "/dev/", 5)) return open_direct(output);
  struct stat info;
  const bool exists = stat(path, &info) == 0;
  if (exists && S_ISDIR(info.st_mode)) return bl_fail(BL_EINPUT, "%s: expected a file to write, found a folder", path);
  if (exists && access(path, W_OK) != 0) return bl_fail_errno(BL_EINPUT, "%s: cannot write", path);
  if (exists && !S_ISREG(info.st_mode)) return open_direct(output);
  output->target = exists ? realpath(path, NULL) : strdup(path);
  if (!output->target) return cannot_create(path);
  return open_temporary(output, exists ? info.st_mode & 07777 : 0666, exists);
}

bl_status bl_output_open(const char *path, bl_output **out) {
  bl_output *output = NULL;
  BL_TRY(bl_new(&output, 1, sizeof *output, "an output file"));
  output->slot = -1;
  output->path = strdup(path);
  const bl_status status = output->path ? open_at_path(output) : bl_fail(BL_EMACHINE, "out of memory: a path");
  if (status != BL_OK) {
    bl_output_discard(output);
    return status;
  }
  *out = output;
  return BL_OK;
}

bl_status bl_output_check(const char *path, const char *const inputs[], int n) {
  struct stat info;
  bl_output *output;
  if (!path || !strcmp(path, "-")) return BL_OK;
  for (int i = 0; i < n; i++) {
    if (inputs[i] && bl_path_same_file(path, inputs[i]))
      return bl_fail(BL_EUSAGE, "%s: expected another file to write than one that is read", path);
  }
  if (stat(path, &info) == 0 && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) return BL_OK; /* no trial there */
  BL_TRY(bl_output_open(path, &output));
  bl_output_discard(output);
  return BL_OK;
}

FILE *bl_output_stream(bl_output *output) { return output->stream; }

bl_status bl_output_write(bl_output *output, const void *bytes, uint64_t n) {
  return fwrite(bytes, 1, n, output->stream) == n ? BL_OK : write_failure(output);
}

bl_status bl_output_printf(bl_output *output, const char *format, ...) {
  va_list args;
  va_start(args, format);
  const int n = vfprintf(output->stream, format, args);
  va_end(args);
  return n >= 0 ? BL_OK : write_failure(output);
}

static bl_status finish(bl_output *output) {
  FILE *stream = output->stream;
  if (ferror(stream)) {
    if (fflush(stream) == 0 || errno == 0) errno = EIO; /* the failing write is long past */
    return write_failure(output);
  }
  if (fflush(stream) != 0) return write_failure(output);
  if (stream == stdout) return BL_OK;
  if (output->slot >= 0 && fsync(fileno(stream)) != 0) return write_failure(output);
  output->stream = NULL;
  if (fclose(stream) != 0) return write_failure(output);
  if (output->slot < 0) return BL_OK;
  if (rename(pending[output->slot].path, output->target) != 0) return write_failure(output);
  pending[output->slot].owner = 0;
  output->slot = -1;
  return BL_OK;
}

bl_status bl_output_commit(bl_output *output) {
  const bl_status status = finish(output);
  bl_output_discard(output);
  return status;
}

void bl_output_discard(bl_output *output) {
  if (!output) return;
  if (output->stream && output->stream != stdout) fclose(output->stream);
  if (output->slot >= 0) {
    unlink(pending[output->slot].path);
    pending[output->slot].owner = 0;
  }
  free(output->path);
  free(output->target);
  free(output);
}

void bl_output_discard_within(const char *folder) {
  const int self = getpid();
  const size_t n = strlen(folder);
  for (int i = 0; i < MAX_OUTPUTS; i++) {
    const char *path = pending[i].path;
    if (pending[i].owner == self && !strncmp(path, folder, n) && (n == 0 || path[n] == '/')) unlink(path);
  }
}

void bl_output_discard_all(void) { bl_output_discard_within(""); }
