/* checkpoint_folder.c - a checkpoint's folder: written beside its place, put there in one step, thrown away by a
 * signal. */
#include "executor/checkpoint_folder.h"
#include "base/file.h"
#include "base/log.h"
#include "executor/checkpoint.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bl_status bl_checkpoint_path(char path[PATH_MAX], const char *dir, const char *name) {
  if (snprintf(path, PATH_MAX, "%s/%s", dir, name) < PATH_MAX) return BL_OK;
  return bl_fail(BL_EINPUT, "%s: the path is too long", dir);
}

static bool starts_with(const char *text, const char *start) { return strncmp(text, start, strlen(start)) == 0; }

/* Removes a checkpoint's folder, unless somebody put other files there. */
static void remove_folder(const char *dir) {
  DIR *listing = opendir(dir);
  if (!listing) return;
  for (struct dirent *entry; (entry = readdir(listing)) != NULL;) {
    const char *name = entry->d_name;
    if (starts_with(name, "manifest.json") || starts_with(name, "model.json") || starts_with(name, "policy.bin") ||
        starts_with(name, "rank-"))
      unlinkat(dirfd(listing), name, 0);
  }
  closedir(listing);
  if (rmdir(dir) != 0) bl_warn("%s: stays, as it holds files that no checkpoint has", dir);
}

static void sync_folder(const char *dir) {
  const int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  fsync(fd);
  close(fd);
}

/* What stands at `dir` may only be nothing, an empty folder or a checkpoint. */
static bl_status expect_replaceable(const char *dir) {
  bl_checkpoint_settings settings;
  struct stat info;
  if (lstat(dir, &info) != 0 && errno == ENOENT) return BL_OK;
  DIR *listing = opendir(dir);
  if (!listing) return bl_fail_errno(BL_EINPUT, "%s: cannot hold a checkpoint", dir);
  int entries = -2; /* . and .. */
  while (readdir(listing)) entries++;
  closedir(listing);
  if (entries == 0 || bl_checkpoint_read_settings(dir, &settings) == BL_OK) return BL_OK;
  return bl_fail(BL_EINPUT, "%s: expected a checkpoint to replace or an empty folder, found other files", dir);
}

/* `fresh` becomes `dir`; what was there before is gone afterwards. In between one of the two is always whole. */
static bl_status put_in_place(const char *fresh, const char *dir) {
  char real[PATH_MAX]; /* a link stays one */
  if (realpath(dir, real)) dir = real;
  sync_folder(fresh);
  if (rename(fresh, dir) == 0) return BL_OK;
  if (errno != EEXIST && errno != ENOTEMPTY && errno != ENOTDIR)
    return bl_fail_errno(BL_EMACHINE, "cannot put the checkpoint at %s", dir);
  BL_TRY(expect_replaceable(dir));
  if (renameat2(AT_FDCWD, fresh, AT_FDCWD, dir, RENAME_EXCHANGE) != 0)
    return bl_fail_errno(BL_EMACHINE, "cannot replace the checkpoint at %s", dir);
  remove_folder(fresh);
  return BL_OK;
}

/* The folder that is being written, for a signal handler. Who wants to write it, put it in place or throw it away moves
 * the state on; the other sees that and leaves it alone. */
enum { IDLE, WRITING, PLACING, DISCARDED };
static struct {
  char path[PATH_MAX];
  int32_t ranks;
  atomic_int state;
} writing;

static bool move_on(int from, int to) { return atomic_compare_exchange_strong(&writing.state, &from, to); }

/* Without functions that a signal handler may not call. */
void bl_checkpoint_rank_file(char name[64], int32_t rank) {
  char digits[16];
  int n = 0;
  do digits[n++] = (char)('0' + rank % 10);
  while (rank /= 10);
  static const char front[] = "rank-", back[] = ".safetensors";
  memcpy(name, front, sizeof front - 1);
  char *at = name + sizeof front - 1;
  while (n > 0) *at++ = digits[--n];
  memcpy(at, back, sizeof back);
}

/* Other threads still create files, each at most a few: again until the folder is gone. */
static void discard_folder(void) {
  for (int attempt = 0; attempt < 1000; attempt++) {
    bl_output_discard_within(writing.path);
    const int folder = open(writing.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) continue; /* about to be created */
    for (int32_t p = 0; p < writing.ranks; p++) {
      char name[64];
      bl_checkpoint_rank_file(name, p);
      unlinkat(folder, name, 0);
    }
    unlinkat(folder, "model.json", 0);
    unlinkat(folder, "policy.bin", 0);
    unlinkat(folder, "manifest.json", 0);
    close(folder);
    if (rmdir(writing.path) == 0) return;
  }
}

bool bl_checkpoint_discard(void) {
  if (move_on(IDLE, DISCARDED)) return true;
  if (!move_on(WRITING, DISCARDED)) return false;
  discard_folder();
  return true;
}

/* The folder beside `dir`, or beside what it is a link to, in which process `pid` has a checkpoint written. */
bl_status bl_checkpoint_fresh_path(const char *dir, int64_t pid, char fresh[PATH_MAX]) {
  char real[PATH_MAX];
  if (realpath(dir, real)) dir = real;
  size_t end = strlen(dir);
  while (end > 1 && dir[end - 1] == '/') end--;
  if (snprintf(fresh, PATH_MAX, "%.*s.tmp.%ld", (int)end, dir, (long)pid) < PATH_MAX) return BL_OK;
  return bl_fail(BL_EINPUT, "%s: the path is too long", dir);
}

bl_status bl_checkpoint_prepare(const char *dir) {
  char fresh[PATH_MAX];
  BL_TRY(bl_checkpoint_fresh_path(dir, getpid(), fresh));
  BL_TRY(expect_replaceable(dir));
  BL_TRY(bl_folder_create(fresh));
  rmdir(fresh);
  return BL_OK;
}

static bl_status being_discarded(void) { return bl_fail(BL_EINTERRUPTED, "the process is about to end"); }

bl_status bl_checkpoint_begin(const char *fresh, int32_t ranks) {
  remove_folder(fresh);
  snprintf(writing.path, sizeof writing.path, "%s", fresh);
  writing.ranks = ranks;
  return move_on(IDLE, WRITING) ? bl_folder_create(fresh) : being_discarded();
}

bl_status bl_checkpoint_end(const char *fresh, const char *dir, bl_status status) {
  if (status == BL_OK) status = move_on(WRITING, PLACING) ? put_in_place(fresh, dir) : being_discarded();
  if (status != BL_OK) remove_folder(fresh);
  if (!move_on(PLACING, IDLE)) move_on(WRITING, IDLE);
  return status;
}
