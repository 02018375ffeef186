/* same_run.c - compares, before a run of processes starts, what each of them was given. */
#include "executor/same_run.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/rng.h"
#include <limits.h>
#include <stdio.h>
#include <string.h>

enum { MAX_ITEMS = 40 };

/* Each part of a run by the words a person knows it by, and a hash of it. */
typedef struct identity {
  const char *name[MAX_ITEMS];
  uint64_t hash[MAX_ITEMS];
  int32_t n;
} identity;

static void add(identity *id, const char *name, uint64_t hash) {
  id->name[id->n] = name;
  id->hash[id->n++] = hash;
}

static void add_bytes(identity *id, const char *name, const void *bytes, size_t size) {
  add(id, name, bl_hash_bytes(bytes, bytes ? size : 0, size));
}

static void add_text(identity *id, const char *name, const char *text) {
  add_bytes(id, name, text, text ? strlen(text) : 0);
}

static void add_number(identity *id, const char *name, double value) { add_bytes(id, name, &value, sizeof value); }

static bl_status add_file(identity *id, const char *name, const char *path) {
  uint32_t crc = 0;
  if (path) BL_TRY(bl_file_crc32(path, &crc));
  add(id, name, crc);
  return BL_OK;
}

static bl_status add_checkpoint(identity *id, const char *dir) {
  char path[PATH_MAX] = "";
  if (dir && snprintf(path, sizeof path, "%s/manifest.json", dir) >= PATH_MAX)
    return bl_fail(BL_EINPUT, "%s: the path is too long", dir);
  return add_file(id, "the checkpoint to --resume", dir ? path : NULL);
}

static void add_policy(identity *id, const bl_policy_options *policy) {
  add_text(id, "--policy", policy->policy);
  add_number(id, "--lag", (double)policy->lag);
  add_text(id, "--shares", policy->shares);
  add_number(id, "--late-repair", policy->late_repair);
  add_text(id, "--homes", policy->homes);
  add_text(id, "--ties", policy->ties);
  add_number(id, "--copy-price", policy->copy_price);
  add_number(id, "--back-off", (double)policy->back_off);
}

static bl_status describe(const bl_setup *s, const bl_train_options *o, const bl_backend *backend, identity *id) {
  const bl_run *run = &s->run;
  BL_TRY(add_file(id, "the build of the program", "/proc/self/exe"));
  add_text(id, "what matrix products run on (--backend, processor)", backend->kernel);
  add_text(id, "--backend", o->backend);
  add_text(id, "--precision", o->precision);
  add_text(id, "--expert-gemm", o->expert_gemm);
  BL_TRY(add_file(id, "--model", o->model));
  add(id, "--data", run->corpus->crc);
  BL_TRY(add_file(id, "--plan", o->plan));
  add_bytes(id, "--slots", run->slots, (size_t)run->ep * sizeof *run->slots);
  add_number(id, "--ep", run->ep);
  add_number(id, "--batch", run->batch);
  add_number(id, "--micro-batches", run->micro_batches);
  add_number(id, "--seed", (double)run->seed);
  add_number(id, "--steps", (double)run->steps);
  add_number(id, "--schedule-steps", (double)run->schedule_steps);
  add_number(id, "--warmup", (double)run->warmup);
  add_number(id, "--lr", run->lr);
  add_number(id, "--gate", run->gate.kind);
  BL_TRY(add_file(id, "the trace of --gate", run->gate.trace_path));
  add_number(id, "--capacity-factor", run->gate.capacity_factor);
  add_number(id, "--balance-loss", run->gate.balance);
  add_policy(id, &run->policy);
  add_text(id, "--exchange", o->exchange);
  add_number(id, "--headroom", run->headroom);
  add_text(id, "--graph", o->graph);
  add_number(id, "--checkpoint", o->checkpoint != NULL);
  add_number(id, "--checkpoint-every", (double)o->checkpoint_every);
  add_number(id, "--perfetto", o->perfetto != NULL);
  return add_checkpoint(id, o->resume);
}

bl_status bl_expect_same_run(bl_comm *comm, const bl_setup *setup, const bl_train_options *options) {
  identity id = {0};
  uint64_t *all = NULL;
  bl_status status = describe(setup, options, comm->backend, &id);
  BL_KEEP_FIRST(status, bl_new(&all, (size_t)comm->size * MAX_ITEMS, sizeof *all, "agreement"));
  if (status != BL_OK) bl_comm_abort(comm, bl_error_text());
  BL_KEEP_FIRST(status, bl_comm_all_gather_host(comm, id.hash, sizeof id.hash, all));
  for (int32_t p = 1; p < comm->size && status == BL_OK; p++)
    for (int32_t i = 0; i < id.n && status == BL_OK; i++)
      if (all[p * MAX_ITEMS + i] != all[i])
        status = bl_fail(BL_EINPUT, "rank %d differs from rank 0 in %s", p, id.name[i]);
  free(all);
  return status;
}
