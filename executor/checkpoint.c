/* checkpoint.c - saving and loading the training state. */
#include "executor/checkpoint.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "executor/checkpoint_folder.h"
#include "executor/checkpoint_manifest.h"
#include "executor/safetensors.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

/* -- saving ----------------------------------------------------------------------------------------------------- */

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
  BL_TRY(bl_comm_wait(r->comm, r->s));
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
  BL_TRY(bl_checkpoint_path(path, dir, "model.json"));
  BL_TRY(bl_model_save(path, r->run->model));
  BL_TRY(bl_checkpoint_path(path, dir, "policy.bin"));
  BL_TRY(save_policy(r, path));
  BL_TRY(bl_checkpoint_path(path, dir, "manifest.json"));
  bl_output *output;
  BL_TRY(bl_output_open(path, &output));
  bl_json_writer w;
  bl_json_writer_init(&w, bl_output_stream(output), true);
  const bl_status status = bl_manifest_write(r, dir, &w);
  if (status == BL_OK) return bl_output_commit(output);
  bl_output_discard(output);
  return status;
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

bl_status bl_checkpoint_save(bl_rank *r, const char *dir) {
  char fresh[PATH_MAX], path[PATH_MAX], name[64];
  int64_t pid;
  BL_TRY(process_of_rank_0(r, &pid));
  BL_TRY(bl_checkpoint_fresh_path(dir, pid, fresh));
  bl_status status = BL_OK;
  if (r->rank == 0) status = bl_checkpoint_begin(fresh, r->run->ep);
  status = agree(r, status, "create the checkpoint's folder");
  if (status != BL_OK) return r->rank == 0 ? bl_checkpoint_end(fresh, dir, status) : status;
  bl_checkpoint_rank_file(name, r->rank);
  status = bl_checkpoint_path(path, fresh, name);
  if (status == BL_OK && saves(r)) status = save_tensors(r, path);
  status = agree(r, status, "save its tensors");
  if (r->rank == 0) {
    if (status == BL_OK) status = save_rest(r, fresh);
    status = bl_checkpoint_end(fresh, dir, status);
  }
  return agree(r, status, "complete the checkpoint");
}

/* -- loading ---------------------------------------------------------------------------------------------------- */

typedef struct loading {
  const char *dir;
  bl_safetensors_file **files;
  size_t n, room;
  float *host;
  size_t host_room;
} loading;

static bl_status open_files(loading *l, const bl_manifest *m) {
  for (bl_json item = bl_json_first(m->files); !bl_json_is_null(item); item = bl_json_next(item)) {
    char path[PATH_MAX];
    const char *name;
    int64_t bytes, crc;
    BL_TRY(bl_manifest_item(item, &name, &bytes, &crc));
    if (!strstr(name, ".safetensors")) continue;
    BL_TRY(bl_checkpoint_path(path, l->dir, name));
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
  return bl_comm_wait(r->comm, r->s);
}

static bl_status take_policy(bl_rank *r, const char *path, const void *bytes, uint64_t size) {
  char text[256];
  const bl_status status = bl_policy_load(r->policy, bytes, size);
  if (status == BL_OK) return BL_OK;
  snprintf(text, sizeof text, "%s", bl_error_text());
  return bl_fail(status, "%s: %s", path, text);
}

/* What a policy remembers is of use to the same policy alone: the same options, slots and ranks. */
static bl_status load_policy(bl_rank *r, const char *dir, const bl_manifest *m) {
  char path[PATH_MAX], *bytes = NULL;
  uint64_t size = 0;
  BL_TRY(bl_checkpoint_path(path, dir, "policy.bin"));
  BL_TRY(bl_file_read(path, (uint64_t)1 << 34, &bytes, &size));
  const bool other = bl_policy_saved_by_other(r->policy, bytes, size);
  const bl_status status = other ? BL_OK : take_policy(r, path, bytes, size);
  free(bytes);
  BL_TRY(status);
  if (other) {
    if (r->rank == 0)
      bl_log(
          1,
          "%s is of %lld ranks under policy %s, this run of %d under %s, or slots or options of it differ: the policy "
          "starts without memory",
          dir, (long long)m->ep, m->policy, r->run->ep, r->run->policy.policy);
    return BL_OK;
  }
  r->plan_version = m->plan_version;
  r->placement_hash = strtoull(m->hash, NULL, 16);
  return bl_rank_adopt_policy_homes(r);
}

static bl_status load_all(bl_rank *r, const char *dir, const bl_manifest *m) {
  loading l = {.dir = dir};
  bl_status status = BL_OK;
  if (r->rank == 0) status = bl_manifest_check_files(dir, m);
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

/* What a user may not have meant. */
static void say_other_text(const bl_rank *r, const char *dir, const bl_manifest *m) {
  if (r->rank == 0 && m->data_crc32 >= 0 && m->data_crc32 != r->run->corpus->crc)
    bl_log(1, "%s was trained on another text than --data names now: the run goes on with this one", dir);
}

bl_status bl_checkpoint_load(bl_rank *r, const char *dir) {
  bl_manifest m;
  bl_status status = bl_manifest_read(dir, &m);
  if (status == BL_OK) status = load_all(r, dir, &m);
  if (status == BL_OK) say_other_text(r, dir, &m);
  bl_json_free(m.doc);
  return status;
}
