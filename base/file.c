/* file.c - reading through zlib, which passes plain files through, and folders. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

bool bl_path_exists(const char *path) {
  struct stat info;
  return stat(path, &info) == 0;
}

bool bl_path_is_folder(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

bool bl_path_same_file(const char *a, const char *b) {
  struct stat x, y;
  return stat(a, &x) == 0 && stat(b, &y) == 0 && S_ISREG(x.st_mode) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static bl_status create_one_folder(const char *path) {
  if (mkdir(path, 0777) == 0 || (errno == EEXIST && bl_path_is_folder(path))) return BL_OK;
  const bl_status status = errno == ENOSPC || errno == EDQUOT || errno == EIO ? BL_EMACHINE : BL_EINPUT;
  return bl_fail_errno(status, "%s: cannot create the folder", path);
}

bl_status bl_folder_create(const char *path) {
  char *parent = strdup(path);
  if (!parent) return bl_fail(BL_EMACHINE, "out of memory: a path");
  bl_status status = BL_OK;
  for (char *p = parent + 1; *parent && *p && status == BL_OK; p++) {
    if (*p != '/') continue;
    *p = 0;
    status = create_one_folder(parent);
    *p = '/';
  }
  if (status == BL_OK) status = create_one_folder(path);
  free(parent);
  return status;
}

/* Opens for reading what is not a folder; *size is 0 for pipes and devices. */
static bl_status open_for_reading(const char *path, int *fd, uint64_t *size) {
  *fd = open(path, O_RDONLY | O_CLOEXEC);
  if (*fd < 0) return bl_fail_errno(BL_EINPUT, "%s: cannot open", path);
  struct stat info;
  bl_status status = BL_OK;
  if (fstat(*fd, &info) != 0) {
    status = bl_fail_errno(BL_EINPUT, "%s: cannot read", path);
  } else if (S_ISDIR(info.st_mode)) {
    status = bl_fail(BL_EINPUT, "%s: expected a file, found a folder", path);
  } else {
    *size = S_ISREG(info.st_mode) && info.st_size > 0 ? (uint64_t)info.st_size : 0;
  }
  if (status != BL_OK) close(*fd);
  return status;
}

static bl_status read_failure(gzFile file, const char *path) {
  int code = Z_OK;
  const int saved_errno = errno;
  const char *text = gzerror(file, &code);
  if (code == Z_ERRNO) {
    errno = saved_errno;
    return bl_fail_errno(BL_EINPUT, "%s: cannot read", path);
  }
  if (code == Z_MEM_ERROR) return bl_fail(BL_EMACHINE, "%s: out of memory while reading", path);
  if (code == Z_BUF_ERROR) return bl_fail(BL_EINPUT, "%s: the gzip data is cut short", path);
  const char *reason = strstr(text, ": "); /* behind zlib's own name of the file */
  return bl_fail(BL_EINPUT, "%s: the gzip data is damaged: %s", path, reason ? reason + 2 : text);
}

/* Reads to the end into a growing buffer that always keeps one byte more than max_bytes or the data, for the NUL. */
static bl_status read_all(gzFile file, const char *path, uint64_t max_bytes, uint64_t hint, char **bytes,
                          uint64_t *size) {
  static const uint64_t LEAST = (uint64_t)64 << 10, CHUNK = (uint64_t)1 << 30;
  uint64_t room = (hint < max_bytes ? hint : max_bytes) + 2; /* one to see what is too long, one for the NUL */
  if (room < LEAST) room = LEAST;
  uint64_t used = 0;
  char *buffer = malloc(room);
  if (!buffer) return bl_fail(BL_EMACHINE, "%s: out of memory: %llu bytes", path, (unsigned long long)room);
  for (;;) {
    const uint64_t free_bytes = room - 1 - used;
    const int n = gzread(file, buffer + used, (unsigned)(free_bytes < CHUNK ? free_bytes : CHUNK));
    int code = Z_OK;
    if (n < 0 || (n == 0 && (gzerror(file, &code), code != Z_OK))) {
      const bl_status status = read_failure(file, path);
      free(buffer);
      return status;
    }
    used += (uint64_t)n;
    if (used > max_bytes) {
      free(buffer);
      return bl_fail(BL_EINPUT, "%s: too long: expected at most %llu bytes", path, (unsigned long long)max_bytes);
    }
    if (n == 0) break;
    if (used < room - 1) continue;
    room *= 2;
    char *larger = realloc(buffer, room);
    if (!larger) {
      free(buffer);
      return bl_fail(BL_EMACHINE, "%s: out of memory: %llu bytes", path, (unsigned long long)room);
    }
    buffer = larger;
  }
  buffer[used] = 0;
  *bytes = buffer;
  *size = used;
  return BL_OK;
}

bl_status bl_file_read(const char *path, uint64_t max_bytes, char **bytes, uint64_t *size) {
  int fd;
  uint64_t hint;
  BL_TRY(open_for_reading(path, &fd, &hint));
  gzFile file = gzdopen(fd, "rb");
  if (!file) {
    close(fd);
    return bl_fail(BL_EMACHINE, "%s: out of memory while opening", path);
  }
  if (max_bytes > UINT64_MAX / 4) max_bytes = UINT64_MAX / 4;
  const bl_status status = read_all(file, path, max_bytes, hint, bytes, size);
  gzclose_r(file);
  return status;
}

uint32_t bl_crc32(uint32_t crc, const void *bytes, uint64_t n) { return (uint32_t)crc32_z(crc, bytes, n); }

bl_status bl_file_crc32(const char *path, uint32_t *crc) {
  int fd;
  uint64_t unused;
  BL_TRY(open_for_reading(path, &fd, &unused));
  unsigned char buffer[65536];
  uint32_t value = 0;
  ssize_t n;
  while ((n = read(fd, buffer, sizeof buffer)) > 0) value = bl_crc32(value, buffer, (uint64_t)n);
  bl_status status = BL_OK;
  if (n < 0) status = bl_fail_errno(BL_EINPUT, "%s: cannot read", path);
  close(fd);
  if (status == BL_OK) *crc = value;
  return status;
}
