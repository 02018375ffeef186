/* checkpoint_manifest.c - manifest.json: written, read, and held against the files it lists. */
#include "executor/checkpoint_manifest.h"
#include "base/file.h"
#include "executor/checkpoint.h"
#include "executor/checkpoint_folder.h"
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_FILES = 65536 };

/* One file of the checkpoint, as the manifest lists it. */
static bl_status write_file(bl_json_writer *w, const char *dir, const char *name) {
  char path[PATH_MAX];
  uint32_t crc;
  struct stat info;
  BL_TRY(bl_checkpoint_path(path, dir, name));
  BL_TRY(bl_file_crc32(path, &crc));
  if (stat(path, &info)) return bl_fail_errno(BL_EMACHINE, "cannot read %s", path);
  bl_json_begin_flat_object(w);
  bl_json_put_string(w, "name", name);
  bl_json_put_int(w, "bytes", (int64_t)info.st_size);
  bl_json_put_int(w, "crc32", crc);
  bl_json_end_object(w);
  return BL_OK;
}

bl_status bl_manifest_write(const bl_rank *r, const char *dir, bl_json_writer *w) {
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
  bl_json_put_int(w, "schedule_steps", run->schedule_steps);
  bl_json_put_int(w, "warmup", run->warmup);
  bl_json_put_int(w, "data_crc32", run->corpus->crc);
  bl_json_put_string(w, "policy", run->policy.policy);
  bl_json_put_int(w, "plan_version", r->plan_version);
  bl_json_put_string(w, "placement_hash", hash);
  bl_json_key(w, "files");
  bl_json_begin_array(w);
  BL_TRY(write_file(w, dir, "model.json"));
  BL_TRY(write_file(w, dir, "policy.bin"));
  for (int32_t p = 0; p < run->ep; p++) {
    char name[64];
    snprintf(name, sizeof name, "rank-%d.safetensors", p);
    BL_TRY(write_file(w, dir, name));
  }
  bl_json_end_array(w);
  bl_json_end_object(w);
  bl_json_newline(w);
  return BL_OK;
}

bl_status bl_manifest_read(const char *dir, bl_manifest *m) {
  char path[PATH_MAX];
  bl_json root;
  int64_t version, n;
  *m = (bl_manifest){0};
  BL_TRY(bl_checkpoint_path(path, dir, "manifest.json"));
  BL_TRY(bl_json_load(path, &m->doc, &root));
  BL_TRY(bl_json_int(root, "version", 1, 1, &version));
  BL_TRY(bl_json_keys(
      root, "version step seed ranks ep batch micro_batches schedule_steps warmup data_crc32 policy plan_version "
            "placement_hash files"));
  BL_TRY(bl_json_int(root, "step", 0, INT64_MAX, &m->step));
  BL_TRY(bl_json_int(root, "seed", 0, INT64_MAX, &m->seed));
  BL_TRY(bl_json_int(root, "ranks", 1, MAX_FILES, &m->ranks));
  m->ep = m->ranks;
  BL_TRY(bl_json_int_or(root, "ep", 1, MAX_FILES, &m->ep));
  BL_TRY(bl_json_int(root, "batch", 1, INT32_MAX, &m->batch));
  BL_TRY(bl_json_int(root, "micro_batches", 1, INT32_MAX, &m->micro_batches));
  m->schedule_steps = m->warmup = m->data_crc32 = -1;
  BL_TRY(bl_json_int_or(root, "schedule_steps", 0, INT64_MAX, &m->schedule_steps));
  BL_TRY(bl_json_int_or(root, "warmup", 0, INT64_MAX, &m->warmup));
  BL_TRY(bl_json_int_or(root, "data_crc32", 0, UINT32_MAX, &m->data_crc32));
  BL_TRY(bl_json_int(root, "plan_version", 0, INT64_MAX, &m->plan_version));
  BL_TRY(bl_json_string(root, "policy", &m->policy));
  BL_TRY(bl_json_string(root, "placement_hash", &m->hash));
  return bl_json_array(root, "files", 1, MAX_FILES, &m->files, &n);
}

bl_status bl_checkpoint_read_settings(const char *dir, bl_checkpoint_settings *settings) {
  bl_manifest m;
  const bl_status status = bl_manifest_read(dir, &m);
  if (status == BL_OK)
    *settings = (bl_checkpoint_settings){.seed = (uint64_t)m.seed,
                                         .batch = (int32_t)m.batch,
                                         .micro_batches = (int32_t)m.micro_batches,
                                         .schedule_steps = m.schedule_steps,
                                         .warmup = m.warmup};
  bl_json_free(m.doc);
  return status;
}

/* Name of a listed file, without a way out of the folder. */
bl_status bl_manifest_item(bl_json item, const char **name, int64_t *bytes, int64_t *crc) {
  BL_TRY(bl_json_keys(item, "name bytes crc32"));
  BL_TRY(bl_json_string(item, "name", name));
  BL_TRY(bl_json_int(item, "bytes", 0, INT64_MAX, bytes));
  BL_TRY(bl_json_int(item, "crc32", 0, UINT32_MAX, crc));
  if (strchr(*name, '/') || !strcmp(*name, ".."))
    return bl_json_fail(item, "expected a plain file name, found %s", *name);
  return BL_OK;
}

/* Rank 0 checks the sizes and sums of all files, the others trust it. */
bl_status bl_manifest_check_files(const char *dir, const bl_manifest *m) {
  for (bl_json item = bl_json_first(m->files); !bl_json_is_null(item); item = bl_json_next(item)) {
    char path[PATH_MAX];
    const char *name;
    int64_t bytes, crc;
    uint32_t found;
    BL_TRY(bl_manifest_item(item, &name, &bytes, &crc));
    BL_TRY(bl_checkpoint_path(path, dir, name));
    BL_TRY(bl_file_crc32(path, &found));
    struct stat info;
    if (stat(path, &info)) return bl_fail_errno(BL_EINPUT, "cannot read %s", path);
    if (info.st_size != bytes || found != (uint32_t)crc)
      return bl_fail(BL_EINPUT, "%s: damaged: expected %lld bytes with CRC-32 %08llx, found %lld with %08x", path,
                     (long long)bytes, (unsigned long long)crc, (long long)info.st_size, found);
  }
  return BL_OK;
}
