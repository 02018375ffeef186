/* checkpoint.c - saving and loading the training state. */
#include "executor/checkpoint.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "executor/safetensors.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_FILES = 65536 };

static bl_status join(char path[PATH_MAX], const char *dir, const char *name) {
  if (snprintf(path, PATH_MAX, "%s/%s", dir, name) < PATH_MAX) return BL_OK;
  return bl_fail(BL_EINPUT, "%s: the path is too long", dir);
}

/* -- which tensors this rank saves, in the order of the file ------------------------------------------------------ */

/* The parts of the state: prefix and where it lies in a block. The plain name holds the master weight, from which a
 * narrower working weight is made again. */
enum { PARTS = 3, WEIGHT = 0 };
static const char *const prefixes[PARTS] = {"", "adam.m.", "adam.v."};
static float *part_of(const bl_state *state, int part) {
  float *const parts[PARTS] = {state->master, state->m, state->v};
  return parts[part];
}

typedef bl_status (*tensor_visitor)(bl_rank *r, const bl_state *state, int64_t offset, int part, const char *name,
                                    const bl_tensor *tensor, void *context);

/* One tensor with its moments. */
static bl_status visit_parts(bl_rank *r, const bl_state *state, int64_t offset, const char *name,
                             const bl_tensor *tensor, tensor_visitor visit, void *context) {
  for (int part = 0; part < PARTS; part++) {
    char full[128];
    snprintf(full, sizeof full, "%s%s", prefixes[part], name);
    BL_TRY(visit(r, state, offset, part, full, tensor, context));
  }
  return BL_OK;
}

/* Who saves: the first replica of everything. */
static bool saves(const bl_rank *r) { return r->rank < r->run->ep; }

/* All tensors whose state is held here: dense ones (`dense`), then experts at home. */
static bl_status visit_tensors(bl_rank *r, bool dense, tensor_visitor visit, void *context) {
  const bl_weights *w = &r->weights;
  for (int32_t i = 0; dense && i < w->n_dense; i++)
    BL_TRY(visit_parts(r, &w->dense_state, w->dense[i].offset, w->dense[i].name, &w->dense[i].tensor, visit, context));
  for (int32_t i = 0; i < w->moe_layers * w->experts; i++) {
    if (!w->expert[i].m) continue;
    for (int32_t t = 0; t < w->n_expert_tensors; t++) {
      char name[BL_TENSOR_NAME_MAX];
      bl_tensor_name(BL_PART_EXPERT, &w->expert_tensor[t].tensor, w->moe_layer[i / w->experts], i % w->experts, name);
      BL_TRY(
          visit_parts(r, &w->expert[i], w->expert_tensor[t].offset, name, &w->expert_tensor[t].tensor, visit, context));
    }
  }
  return BL_OK;
}

/* -- saving ----------------------------------------------------------------------------------------------------------
 */

typedef struct saving {
  bl_safetensor *tensors;
  size_t n, room;
  FILE *stream;
  float *host;
  size_t host_room;
} saving;

static bl_status list_tensor(bl_rank *r, const bl_state *state, int64_t offset, int part, const char *name,
                             const bl_tensor *tensor, void *context) {
  (void)r, (void)state, (void)offset, (void)part;
  saving *s = context;
  BL_TRY(bl_grow(&s->tensors, &s->room, s->n + 1, sizeof *s->tensors, "list of tensors"));
  bl_safetensor *t = &s->tensors[s->n++];
  *t = (bl_safetensor){.rows = tensor->rows, .cols = tensor->cols};
  snprintf(t->name, sizeof t->name, "%s", name);
  return BL_OK;
}

static bl_status write_tensor(bl_rank *r, const bl_state *state, int64_t offset, int part, const char *name,
                              const bl_tensor *tensor, void *context) {
  (void)name;
  saving *s = context;
  const size_t n = (size_t)tensor->rows * (size_t)tensor->cols;
  BL_TRY(bl_grow(&s->host, &s->host_room, n, sizeof *s->host, "a tensor"));
  r->be->to_host(r->s, s->host, part_of(state, part) + offset, n * sizeof *s->host);
  BL_TRY(r->be->stream_sync(r->s));
  fwrite(s->host, sizeof *s->host, n, s->stream); /* errors show at commit */
  return BL_OK;
}

static bl_status save_tensors(bl_rank *r, const char *path) {
  saving s = {0};
  bl_output *output = NULL;
  bl_status status;
  BL_TRY_GOTO(status, visit_tensors(r, r->rank == 0, list_tensor, &s), done);
  BL_TRY_GOTO(status, bl_output_open(path, &output), done);
  s.stream = bl_output_stream(output);
  BL_TRY_GOTO(status, bl_safetensors_header(s.stream, s.tensors, s.n), done);
  BL_TRY_GOTO(status, visit_tensors(r, r->rank == 0, write_tensor, &s), done);
  status = bl_output_commit(output);
  output = NULL;
done:
  bl_output_discard(output);
  free(s.tensors);
  free(s.host);
  return status;
}

/* One file of the checkpoint, as the manifest lists it. */
static bl_status manifest_file(bl_json_writer *w, const char *dir, const char *name) {
  char path[PATH_MAX];
  uint32_t crc;
  struct stat info;
  BL_TRY(join(path, dir, name));
  BL_TRY(bl_file_crc32(path, &crc));
  if (stat(path, &info)) return bl_fail_errno(BL_EMACHINE, "cannot read %s", path);
  bl_json_begin_flat_object(w);
  bl_json_put_string(w, "name", name);
  bl_json_put_int(w, "bytes", (int64_t)info.st_size);
  bl_json_put_int(w, "crc32", crc);
  bl_json_end_object(w);
  return BL_OK;
}

static bl_status write_manifest(const bl_rank *r, const char *dir, bl_json_writer *w) {
  const bl_run *run = r->run;
  char hash[17];
  snprintf(hash, sizeof hash, "%016llx", (unsigned long long)r->placement_hash);
  bl_json_begin_object(w);
  bl_json_put_int(w, "version", 1);
  bl_json_put_int(w, "step", r->step);
  bl_json_put_int(w, "seed", (int64_t)run->seed);
  bl_json_put_int(w, "ranks", run->ranks);
  bl_json_put_int(w, "ep", run->ep);
  bl_json_put_int(w, "batch", run->batch);
  bl_json_put_int(w, "micro_batches", run->micro_batches);
  bl_json_put_string(w, "policy", run->policy.policy);
  bl_json_put_int(w, "plan_version", r->plan_version);
  bl_json_put_string(w, "placement_hash", hash);
  bl_json_key(w, "files");
  bl_json_begin_array(w);
  BL_TRY(manifest_file(w, dir, "model.json"));
  BL_TRY(manifest_file(w, dir, "policy.bin"));
  for (int32_t p = 0; p < run->ep; p++) {
    char name[64];
    snprintf(name, sizeof name, "rank-%d.safetensors", p);
    BL_TRY(manifest_file(w, dir, name));
  }
  bl_json_end_array(w);
  bl_json_end_object(w);
  bl_json_newline(w);
  return BL_OK;
}

static bl_status save_policy(const bl_rank *r, const char *path) {
  void *bytes = NULL;
  uint64_t size = 0;
  bl_output *output = NULL;
  BL_TRY(bl_policy_save(r->policy, &bytes, &size));
  bl_status status = bl_output_open(path, &output);
  if (status == BL_OK) status = bl_output_write(output, bytes, size);
  if (status == BL_OK)
    status = bl_output_commit(output);
  else
    bl_output_discard(output);
  free(bytes);
  return status;
}

/* What rank 0 adds once all tensors are there. */
static bl_status save_rest(const bl_rank *r, const char *dir) {
  char path[PATH_MAX];
  BL_TRY(join(path, dir, "model.json"));
  BL_TRY(bl_model_save(path, r->run->model));
  BL_TRY(join(path, dir, "policy.bin"));
  BL_TRY(save_policy(r, path));
  BL_TRY(join(path, dir, "manifest.json"));
  bl_output *output;
  BL_TRY(bl_output_open(path, &output));
  bl_json_writer w;
  bl_json_writer_init(&w, bl_output_stream(output), true);
  const bl_status status = write_manifest(r, dir, &w);
  if (status == BL_OK) return bl_output_commit(output);
  bl_output_discard(output);
  return status;
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

/* All ranks learn whether any of them failed. The sentence stays with the rank that did. */
static bl_status agree(bl_rank *r, bl_status status, const char *what) {
  const int32_t mine = status;
  int32_t *all = NULL;
  BL_TRY(bl_new(&all, (size_t)r->run->ranks, sizeof *all, "agreement"));
  char text[512];
  snprintf(text, sizeof text, "%s", bl_error_text());
  const bl_status gathered = bl_comm_all_gather_host(r->comm, &mine, sizeof mine, all);
  int32_t failed = -1;
  for (int32_t p = r->run->ranks - 1; gathered == BL_OK && p >= 0; p--)
    if (all[p] != BL_OK) failed = p;
  free(all);
  if (status != BL_OK) return bl_fail(status, "%s", text);
  if (gathered != BL_OK) return gathered;
  return failed < 0 ? BL_OK : bl_fail(BL_ECOMM, "rank %d failed to %s", failed, what);
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

/* "rank-P.safetensors", without functions that a signal handler may not call. */
static void name_rank_file(char name[64], int32_t rank) {
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
      name_rank_file(name, p);
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
static bl_status path_of_fresh(const char *dir, int64_t pid, char fresh[PATH_MAX]) {
  char real[PATH_MAX];
  if (realpath(dir, real)) dir = real;
  size_t end = strlen(dir);
  while (end > 1 && dir[end - 1] == '/') end--;
  if (snprintf(fresh, PATH_MAX, "%.*s.tmp.%ld", (int)end, dir, (long)pid) < PATH_MAX) return BL_OK;
  return bl_fail(BL_EINPUT, "%s: the path is too long", dir);
}

bl_status bl_checkpoint_prepare(const char *dir) {
  char fresh[PATH_MAX];
  BL_TRY(path_of_fresh(dir, getpid(), fresh));
  BL_TRY(expect_replaceable(dir));
  BL_TRY(bl_folder_create(fresh));
  rmdir(fresh);
  return BL_OK;
}

/* Ranks may be processes: all write where that of rank 0 says. */
static bl_status process_of_rank_0(bl_rank *r, int64_t *pid) {
  const int64_t mine = getpid();
  int64_t *all = NULL;
  BL_TRY(bl_new(&all, (size_t)r->run->ranks, sizeof *all, "agreement"));
  const bl_status status = bl_comm_all_gather_host(r->comm, &mine, sizeof mine, all);
  *pid = all[0];
  free(all);
  return status;
}

static bl_status being_discarded(void) { return bl_fail(BL_EINTERRUPTED, "the process is about to end"); }

bl_status bl_checkpoint_save(bl_rank *r, const char *dir) {
  char fresh[PATH_MAX], path[PATH_MAX], name[64];
  int64_t pid;
  BL_TRY(process_of_rank_0(r, &pid));
  BL_TRY(path_of_fresh(dir, pid, fresh));
  bl_status status = BL_OK;
  if (r->rank == 0) {
    remove_folder(fresh);
    memcpy(writing.path, fresh, strlen(fresh) + 1);
    writing.ranks = r->run->ep;
    status = move_on(IDLE, WRITING) ? bl_folder_create(fresh) : being_discarded();
  }
  status = agree(r, status, "create the checkpoint's folder");
  if (status != BL_OK) {
    if (r->rank == 0) move_on(WRITING, IDLE);
    return status;
  }
  name_rank_file(name, r->rank);
  status = join(path, fresh, name);
  if (status == BL_OK && saves(r)) status = save_tensors(r, path);
  status = agree(r, status, "save its tensors");
  if (r->rank == 0) {
    if (status == BL_OK) status = save_rest(r, fresh);
    if (status == BL_OK) status = move_on(WRITING, PLACING) ? put_in_place(fresh, dir) : being_discarded();
    if (status != BL_OK) remove_folder(fresh);
    if (!move_on(PLACING, IDLE)) move_on(WRITING, IDLE);
  }
  return agree(r, status, "complete the checkpoint");
}

/* -- loading ---------------------------------------------------------------------------------------------------------
 */

typedef struct manifest {
  bl_json_doc *doc;
  int64_t step, seed, ranks, ep, batch, micro_batches, plan_version;
  const char *policy, *hash;
  bl_json files;
} manifest;

static bl_status read_manifest(const char *dir, manifest *m) {
  char path[PATH_MAX];
  bl_json root;
  int64_t version, n;
  *m = (manifest){0};
  BL_TRY(join(path, dir, "manifest.json"));
  BL_TRY(bl_json_load(path, &m->doc, &root));
  BL_TRY(bl_json_int(root, "version", 1, 1, &version));
  BL_TRY(bl_json_keys(root, "version step seed ranks ep batch micro_batches policy plan_version placement_hash files"));
  BL_TRY(bl_json_int(root, "step", 0, INT64_MAX, &m->step));
  BL_TRY(bl_json_int(root, "seed", 0, INT64_MAX, &m->seed));
  BL_TRY(bl_json_int(root, "ranks", 1, MAX_FILES, &m->ranks));
  m->ep = m->ranks;
  BL_TRY(bl_json_int_or(root, "ep", 1, MAX_FILES, &m->ep));
  BL_TRY(bl_json_int(root, "batch", 1, INT32_MAX, &m->batch));
  BL_TRY(bl_json_int(root, "micro_batches", 1, INT32_MAX, &m->micro_batches));
  BL_TRY(bl_json_int(root, "plan_version", 0, INT64_MAX, &m->plan_version));
  BL_TRY(bl_json_string(root, "policy", &m->policy));
  BL_TRY(bl_json_string(root, "placement_hash", &m->hash));
  return bl_json_array(root, "files", 1, MAX_FILES, &m->files, &n);
}

bl_status bl_checkpoint_read_settings(const char *dir, bl_checkpoint_settings *settings) {
  manifest m;
  const bl_status status = read_manifest(dir, &m);
  if (status == BL_OK)
    *settings = (bl_checkpoint_settings){
        .seed = (uint64_t)m.seed, .batch = (int32_t)m.batch, .micro_batches = (int32_t)m.micro_batches};
  bl_json_free(m.doc);
  return status;
}

/* Name of a listed file, without a way out of the folder. */
static bl_status listed_name(bl_json item, const char **name, int64_t *bytes, int64_t *crc) {
  BL_TRY(bl_json_keys(item, "name bytes crc32"));
  BL_TRY(bl_json_string(item, "name", name));
  BL_TRY(bl_json_int(item, "bytes", 0, INT64_MAX, bytes));
  BL_TRY(bl_json_int(item, "crc32", 0, UINT32_MAX, crc));
  if (strchr(*name, '/') || !strcmp(*name, ".."))
    return bl_json_fail(item, "expected a plain file name, found %s", *name);
  return BL_OK;
}

/* Rank 0 checks the sizes and sums of all files, the others trust it. */
static bl_status check_files(const char *dir, const manifest *m) {
  for (bl_json item = bl_json_first(m->files); !bl_json_is_null(item); item = bl_json_next(item)) {
    char path[PATH_MAX];
    const char *name;
    int64_t bytes, crc;
    uint32_t found;
    BL_TRY(listed_name(item, &name, &bytes, &crc));
    BL_TRY(join(path, dir, name));
    BL_TRY(bl_file_crc32(path, &found));
    struct stat info;
    if (stat(path, &info)) return bl_fail_errno(BL_EINPUT, "cannot read %s", path);
    if (info.st_size != bytes || found != (uint32_t)crc)
      return bl_fail(BL_EINPUT, "%s: damaged: expected %lld bytes with CRC-32 %08llx, found %lld with %08x", path,
                     (long long)bytes, (unsigned long long)crc, (long long)info.st_size, found);
  }
  return BL_OK;
}

typedef struct loading {
  const char *dir;
  bl_safetensors_file **files;
  size_t n, room;
  float *host;
  size_t host_room;
} loading;

static bl_status open_files(loading *l, const manifest *m) {
  for (bl_json item = bl_json_first(m->files); !bl_json_is_null(item); item = bl_json_next(item)) {
    char path[PATH_MAX];
    const char *name;
    int64_t bytes, crc;
    BL_TRY(listed_name(item, &name, &bytes, &crc));
    if (!strstr(name, ".safetensors")) continue;
    BL_TRY(join(path, l->dir, name));
    BL_TRY(bl_grow(&l->files, &l->room, l->n + 1, sizeof *l->files, "checkpoint files"));
    BL_TRY(bl_safetensors_open(path, &l->files[l->n]));
    l->n++;
  }
  return BL_OK;
}

static bl_status read_tensor(bl_rank *r, const bl_state *state, int64_t offset, int part, const char *name,
                             const bl_tensor *tensor, void *context) {
  loading *l = context;
  const size_t n = (size_t)tensor->rows * (size_t)tensor->cols;
  BL_TRY(bl_grow(&l->host, &l->host_room, n, sizeof *l->host, "a tensor"));
  size_t i = 0;
  while (i < l->n && !bl_safetensors_has(l->files[i], name)) i++;
  if (i == l->n) return bl_fail(BL_EINPUT, "%s: the checkpoint has no tensor %s", l->dir, name);
  BL_TRY(bl_safetensors_read(l->files[i], name, tensor->rows, tensor->cols, l->host));
  r->be->to_device(r->s, part_of(state, part) + offset, l->host, n * sizeof *l->host);
  if (part == WEIGHT && state->master != state->weight)
    r->be->ops.from_f32(r->s, bl_weights_at(&r->weights, state->weight, offset), state->master + offset, (int64_t)n);
  return r->be->stream_sync(r->s);
}

static bl_status take_policy(bl_rank *r, const char *path, const void *bytes, uint64_t size) {
  char text[256];
  const bl_status status = bl_policy_load(r->policy, bytes, size);
  if (status == BL_OK) return BL_OK;
  snprintf(text, sizeof text, "%s", bl_error_text());
  return bl_fail(status, "%s: %s", path, text);
}

/* What a policy remembers is of use to the same policy alone: the same options, slots and ranks. */
static bl_status load_policy(bl_rank *r, const char *dir, const manifest *m) {
  char path[PATH_MAX], *bytes = NULL;
  uint64_t size = 0;
  BL_TRY(join(path, dir, "policy.bin"));
  BL_TRY(bl_file_read(path, (uint64_t)1 << 34, &bytes, &size));
  const bool other = bl_policy_saved_by_other(r->policy, bytes, size);
  const bl_status status = other ? BL_OK : take_policy(r, path, bytes, size);
  free(bytes);
  BL_TRY(status);
  if (other) {
    if (r->rank == 0)
      bl_log(1,
             "%s is of %lld ranks under policy %s, or other slots or options of it: the policy starts without memory",
             dir, (long long)m->ep, m->policy);
    return BL_OK;
  }
  r->plan_version = m->plan_version;
  r->placement_hash = strtoull(m->hash, NULL, 16);
  return bl_rank_adopt_policy_homes(r);
}

static bl_status load_all(bl_rank *r, const char *dir, const manifest *m) {
  loading l = {.dir = dir};
  bl_status status = BL_OK;
  if (r->rank == 0) status = check_files(dir, m);
  status = agree(r, status, "check the checkpoint");
  if (status == BL_OK) status = load_policy(r, dir, m);
  if (status == BL_OK) status = open_files(&l, m);
  if (status == BL_OK) status = visit_tensors(r, true, read_tensor, &l);
  for (size_t i = 0; i < l.n; i++) bl_safetensors_close(l.files[i]);
  free(l.files);
  free(l.host);
  r->step = m->step;
  return status;
}

bl_status bl_checkpoint_load(bl_rank *r, const char *dir) {
  manifest m;
  bl_status status = read_manifest(dir, &m);
  if (status == BL_OK) status = load_all(r, dir, &m);
  bl_json_free(m.doc);
  return status;
}
