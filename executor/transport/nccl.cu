/* nccl.cu - sends and receives of device memory through NCCL. */
#include "executor/cuda/device.cuh"
#include <dlfcn.h>
#include <nccl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern "C" {
#include "base/memory.h"
#include "executor/transport/nccl.h"
#include "executor/transport/patience.h"
#include "executor/transport/processes.h"
}

#define BL_NCCL_FUNCTIONS(X) \
  X(ncclGetUniqueId)         \
  X(ncclCommInitRankConfig)  \
  X(ncclCommGetAsyncError)   \
  X(ncclCommFinalize)        \
  X(ncclCommDestroy)         \
  X(ncclCommAbort)           \
  X(ncclSend)                \
  X(ncclRecv)                \
  X(ncclGroupStart)          \
  X(ncclGroupEnd)            \
  X(ncclGetErrorString)

static const char LIBRARY[] = "libnccl.so.2";
static const int64_t SPIN_US = 200, NAP_US = 20; /* a wait first only gives way, then sleeps in turns */

struct nccl_functions {
#define X(name) decltype(&::name) name;
  BL_NCCL_FUNCTIONS(X)
#undef X
};

struct nccl_comm {
  bl_comm base;
  nccl_functions nccl;
  ncclComm_t comm; /* NULL: aborted, or not there yet */
  bl_comm *host;   /* NULL: one rank */
  bl_stream *exchange;
  cudaEvent_t ready; /* what a group sends has been computed */
  cudaEvent_t done;  /* and all of it has come and gone */
  double deadline_s;
  bool in_group;
  ncclComm_t aborted; /* NULL: none */
  pthread_t aborter;
  bool aborting; /* by that thread */
  char reason[320]; /* of the failure after which nothing works; "" = none */
};

static nccl_comm *self(bl_comm *comm) { return reinterpret_cast<nccl_comm *>(comm); }

static bl_status load(nccl_functions *table) {
  void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
  if (!library) return bl_fail(BL_EMACHINE, "--transport nccl needs %s: %s", LIBRARY, dlerror());
#define X(name)                                                                                                      \
  {                                                                                                                  \
    void *found = dlsym(library, #name);                                                                             \
    if (!found)                                                                                                      \
      return bl_fail(BL_EMACHINE, "--transport nccl needs %s with the function %s; a newer NCCL has it", LIBRARY, #name); \
    memcpy(&table->name, &found, sizeof found);                                                                      \
  }
  BL_NCCL_FUNCTIONS(X)
#undef X
  return BL_OK;
}

/* -- failures ------------------------------------------------------------------------------------------------------ */

static void *abort_comm(void *argument) {
  nccl_comm *c = static_cast<nccl_comm *>(argument);
  cudaSetDevice(c->exchange->backend->device);
  c->nccl.ncclCommAbort(c->aborted);
  return NULL;
}

/* After this no call works; what NCCL has under way on the device ends. NCCL first tells its kernels to end, then waits
 * until no graph is left in which the communicator was captured. These are the rank's, who frees them only after this: so
 * the wait has a thread of its own, which nccl_destroy() joins. */
static void give_up(nccl_comm *c, const char *reason) {
  if (c->reason[0]) return;
  snprintf(c->reason, sizeof c->reason, "%s", reason);
  c->aborted = c->comm;
  c->comm = NULL;
  if (!c->aborted) return;
  c->aborting = pthread_create(&c->aborter, NULL, abort_comm, c) == 0;
  if (!c->aborting) abort_comm(c);
}

static bl_status failed(nccl_comm *c, const char *what, const char *text) {
  char reason[256];
  snprintf(reason, sizeof reason, "%.60s: %.180s", what, text);
  if (c->host) bl_comm_abort(c->host, reason);
  give_up(c, reason);
  return bl_fail(BL_ECOMM, "rank %d: %s", c->base.rank, reason);
}

static bl_status given_up(const nccl_comm *c) { return bl_fail(BL_ECOMM, "%s", c->reason); }

/* One turn of a wait that did not end yet. */
static bl_status pass_time(nccl_comm *c, const char *what, bl_patience *patience, int64_t started_us) {
  ncclResult_t state = ncclSuccess;
  if (c->host && bl_processes_look(patience->spent_s) != BL_OK) {
    give_up(c, bl_error_text());
    return given_up(c);
  }
  const ncclResult_t asked = c->nccl.ncclCommGetAsyncError(c->comm, &state);
  if (asked != ncclSuccess) state = asked;
  if (state != ncclSuccess && state != ncclInProgress) return failed(c, what, c->nccl.ncclGetErrorString(state));
  if (!bl_patience_spend(patience)) {
    char text[64];
    snprintf(text, sizeof text, "no end within %.3g s", c->deadline_s);
    return failed(c, what, text);
  }
  if (bl_now_us() - started_us > SPIN_US) usleep(NAP_US);
  return BL_OK;
}

/* NCCL answers "in progress" where it would have to wait for other ranks. */
static bl_status settle(nccl_comm *c, const char *what, ncclResult_t result) {
  bl_patience patience = bl_patience_of(c->deadline_s);
  const int64_t started_us = patience.last_us;
  while (result == ncclInProgress) {
    BL_TRY(pass_time(c, what, &patience, started_us));
    const ncclResult_t asked = c->nccl.ncclCommGetAsyncError(c->comm, &result);
    if (asked != ncclSuccess) result = asked;
  }
  return result == ncclSuccess ? BL_OK : failed(c, what, c->nccl.ncclGetErrorString(result));
}

/* -- messages ------------------------------------------------------------------------------------------------------ */

static bl_status nccl_group_begin(bl_comm *comm) {
  nccl_comm *c = self(comm);
  if (c->reason[0]) return given_up(c);
  c->in_group = true;
  return settle(c, "ncclGroupStart", c->nccl.ncclGroupStart());
}

/* Behind what `s` has computed, on the own stream; `s` waits for the end, the host does not. */
static bl_status nccl_group_end(bl_comm *comm, bl_stream *s) {
  nccl_comm *c = self(comm);
  c->in_group = false;
  if (c->reason[0]) return given_up(c);
  if (!bl_cuda_enter(s)) return failed(c, "exchange", s->backend->failure);
  bl_cuda_fail(s->backend, "exchange", cudaEventRecord(c->ready, s->stream));
  bl_cuda_fail(s->backend, "exchange", cudaStreamWaitEvent(c->exchange->stream, c->ready, 0));
  BL_TRY(settle(c, "exchange", c->nccl.ncclGroupEnd()));
  bl_cuda_fail(s->backend, "exchange", cudaEventRecord(c->done, c->exchange->stream));
  bl_cuda_fail(s->backend, "exchange", cudaStreamWaitEvent(s->stream, c->done, 0));
  return s->backend->failure[0] ? failed(c, "exchange", s->backend->failure) : BL_OK;
}

/* In small turns, in which it looks whether a rank is lost: NCCL itself would wait for ever. */
static bl_status nccl_wait(bl_comm *comm, bl_stream *s) {
  nccl_comm *c = self(comm);
  if (c->reason[0]) return given_up(c);
  if (!bl_cuda_enter(s)) return failed(c, "a step", s->backend->failure);
  bl_patience patience = bl_patience_of(c->deadline_s);
  const int64_t started_us = patience.last_us;
  cudaError_t state;
  while ((state = cudaStreamQuery(s->stream)) == cudaErrorNotReady)
    BL_TRY(pass_time(c, "exchange", &patience, started_us));
  bl_cuda_fail(s->backend, "exchange", state);
  return s->backend->failure[0] ? failed(c, "exchange", s->backend->failure) : BL_OK;
}

static bl_status check_message(const nccl_comm *c, int64_t bytes, int32_t peer) {
  if (c->reason[0]) return given_up(c);
  if (peer >= 0 && peer < c->base.size && bytes >= 0) return BL_OK;
  return bl_fail(BL_ECOMM, "a message of %lld bytes for rank %d of %d", (long long)bytes, peer, c->base.size);
}

static bl_status posted(nccl_comm *c, const char *what, ncclResult_t result) {
  if (result == ncclSuccess || result == ncclInProgress) return BL_OK;
  return failed(c, what, c->nccl.ncclGetErrorString(result));
}

static bl_status nccl_send(bl_comm *comm, bl_stream *s, const void *data, int64_t bytes, int32_t peer) {
  nccl_comm *c = self(comm);
  if (!c->in_group) {
    BL_TRY(nccl_group_begin(comm));
    BL_TRY(nccl_send(comm, s, data, bytes, peer));
    return nccl_group_end(comm, s);
  }
  BL_TRY(check_message(c, bytes, peer));
  return posted(c, "ncclSend", c->nccl.ncclSend(data, (size_t)bytes, ncclInt8, peer, c->comm, c->exchange->stream));
}

static bl_status nccl_recv(bl_comm *comm, bl_stream *s, void *data, int64_t bytes, int32_t peer) {
  nccl_comm *c = self(comm);
  if (!c->in_group) {
    BL_TRY(nccl_group_begin(comm));
    BL_TRY(nccl_recv(comm, s, data, bytes, peer));
    return nccl_group_end(comm, s);
  }
  BL_TRY(check_message(c, bytes, peer));
  return posted(c, "ncclRecv", c->nccl.ncclRecv(data, (size_t)bytes, ncclInt8, peer, c->comm, c->exchange->stream));
}

static bl_status nccl_barrier(bl_comm *comm) { return bl_comm_barrier(self(comm)->host); }

/* Control data does not go over the device. */
static bl_status nccl_all_gather_host(bl_comm *comm, const void *data, int64_t bytes, void *all) {
  nccl_comm *c = self(comm);
  const bl_status status = bl_comm_all_gather_host(c->host, data, bytes, all);
  if (status != BL_OK) give_up(c, bl_error_text());
  return status;
}

static void nccl_abort(bl_comm *comm, const char *reason) {
  nccl_comm *c = self(comm);
  if (c->host) bl_comm_abort(c->host, reason);
  give_up(c, reason);
}

static void nccl_destroy(bl_comm *comm) {
  nccl_comm *c = self(comm);
  if (c->comm && settle(c, "ncclCommFinalize", c->nccl.ncclCommFinalize(c->comm)) == BL_OK)
    c->nccl.ncclCommDestroy(c->comm);
  if (c->aborting) pthread_join(c->aborter, NULL);
  if (c->ready) cudaEventDestroy(c->ready);
  if (c->done) cudaEventDestroy(c->done);
  if (c->exchange) c->base.backend->stream_destroy(c->exchange);
  free(c);
}

static bl_comm_ops operations(void) {
  bl_comm_ops ops = {};
  ops.name = "nccl";
  ops.captured = true;
  ops.send = nccl_send;
  ops.recv = nccl_recv;
  ops.group_begin = nccl_group_begin;
  ops.group_end = nccl_group_end;
  ops.barrier = nccl_barrier;
  ops.abort = nccl_abort;
  ops.destroy = nccl_destroy;
  ops.all_gather_host = nccl_all_gather_host;
  ops.wait = nccl_wait;
  return ops;
}
static const bl_comm_ops nccl_ops = operations();

/* -- joining ------------------------------------------------------------------------------------------------------- */

int32_t bl_nccl_device(int32_t on_machine) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0) return on_machine % devices;
  cudaGetLastError();
  return 0; /* opening it says what is missing */
}

/* Every rank needs a device of its own: NCCL's kernels of two ranks on one would wait for each other. */
static bl_status expect_own_device(bl_comm *host, int32_t device) {
  cudaDeviceProp about;
  char *all = NULL;
  if (cudaGetDeviceProperties(&about, device) != cudaSuccess) cudaGetLastError();
  const size_t bytes = sizeof about.uuid;
  BL_TRY(bl_new(&all, (size_t)host->size * bytes, 1, "devices"));
  bl_status status = bl_comm_all_gather_host(host, &about.uuid, (int64_t)bytes, all);
  for (int32_t p = 0; p < host->size; p++)
    for (int32_t q = 0; q < p && status == BL_OK; q++)
      if (memcmp(all + (size_t)p * bytes, all + (size_t)q * bytes, bytes) == 0)
        status = bl_fail(BL_EUSAGE,
                         "--transport nccl: ranks %d and %d share one CUDA device; expected one for each rank "
                         "(--transport threads has several ranks on one)",
                         q, p);
  free(all);
  return status;
}

/* Rank 0 makes the name by which ranks find each other; all of them call. */
static bl_status connect(nccl_comm *c) {
  const int32_t size = c->base.size;
  ncclUniqueId id = {};
  ncclUniqueId *all = NULL;
  bl_status status = BL_OK;
  if (c->base.rank == 0) {
    const ncclResult_t made = c->nccl.ncclGetUniqueId(&id);
    if (made != ncclSuccess) status = bl_fail(BL_EMACHINE, "NCCL cannot start: %s", c->nccl.ncclGetErrorString(made));
  }
  if (c->host) {
    BL_TRY(bl_processes_agree(c->host, status));
    BL_TRY(bl_new(&all, (size_t)size, sizeof *all, "addresses"));
    status = bl_comm_all_gather_host(c->host, &id, sizeof id, all);
    id = all[0];
    free(all);
  }
  BL_TRY(status);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  return settle(c, "NCCL's start", c->nccl.ncclCommInitRankConfig(&c->comm, size, id, c->base.rank, &config));
}

static bl_status open_comm(nccl_comm *c, bl_backend *backend) {
  BL_TRY(bl_comm_init(&c->base, &nccl_ops, backend, c->host ? c->host->rank : 0, c->host ? c->host->size : 1));
  BL_TRY(backend->stream_create(backend, &c->exchange));
  if (!bl_cuda_enter(c->exchange)) return bl_fail(BL_EMACHINE, "%s", c->exchange->backend->failure);
  cudaError_t error = cudaEventCreateWithFlags(&c->ready, cudaEventDisableTiming);
  if (error == cudaSuccess) error = cudaEventCreateWithFlags(&c->done, cudaEventDisableTiming);
  if (error != cudaSuccess) return bl_fail(BL_EMACHINE, "cudaEventCreate: %s", cudaGetErrorString(error));
  return BL_OK;
}

bl_status bl_nccl_join(bl_backend *backend, bl_comm *host, double deadline_s, bl_comm **out) {
  nccl_comm *c = NULL;
  if (backend->host_memory) return bl_fail(BL_EUSAGE, "--transport nccl moves memory of CUDA devices alone");
  BL_TRY(bl_new(&c, 1, sizeof *c, "a rank"));
  c->host = host;
  c->deadline_s = deadline_s;
  bl_status status = open_comm(c, backend);
  if (status == BL_OK) status = load(&c->nccl);
  if (host) status = bl_processes_agree(host, status); /* else those that can go on would wait for those that cannot */
  if (host && status == BL_OK)
    status = bl_processes_agree(host, expect_own_device(host, c->exchange->backend->device));
  if (status == BL_OK) status = connect(c);
  if (status != BL_OK) {
    char text[320];
    snprintf(text, sizeof text, "%s", bl_error_text());
    give_up(c, text);
    bl_comm_free(&c->base);
    return bl_fail(status, "%s", text);
  }
  *out = &c->base;
  return BL_OK;
}
