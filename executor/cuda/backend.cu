/* backend.cu - memory, streams, events and failures of the CUDA backend. */
#include "executor/cuda/device.cuh"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const size_t WORKSPACE_BYTES = (size_t)32 << 20; /* what cuBLAS' manual asks for on Hopper */

static bl_cuda_backend *self(bl_backend *be) { return reinterpret_cast<bl_cuda_backend *>(be); }

/* -- failures ------------------------------------------------------------------------------------------------------ */

void bl_cuda_fail_text(bl_cuda_backend *backend, const char *what, const char *text) {
  if (backend->failure[0]) return;
  snprintf(backend->failure, sizeof backend->failure, "%s on CUDA device %d: %s", what, backend->device, text);
}

void bl_cuda_fail(bl_cuda_backend *backend, const char *what, cudaError_t error) {
  if (error == cudaSuccess) return;
  cudaGetLastError(); /* else it would show up again at the next call */
  bl_cuda_fail_text(backend, what, cudaGetErrorString(error));
}

/* The current device belongs to a thread; ranks on several devices may share one. */
static cudaError_t use_device(int32_t device) {
  static thread_local int32_t current = -1;
  if (current == device) return cudaSuccess;
  const cudaError_t error = cudaSetDevice(device);
  if (error == cudaSuccess) current = device;
  return error;
}

bool bl_cuda_enter(bl_stream *s) {
  if (s->backend->failure[0]) return false;
  bl_cuda_fail(s->backend, "cudaSetDevice", use_device(s->backend->device));
  return !s->backend->failure[0];
}

/* -- memory -------------------------------------------------------------------------------------------------------- */

/* Where an address stands or would stand in the sorted list. */
static size_t find(const bl_cuda_backend *cuda, uintptr_t at) {
  size_t low = 0, high = cuda->n_allocations;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (cuda->allocations[middle].at < at)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

static bl_status make_room(bl_cuda_backend *cuda) {
  if (cuda->n_allocations < cuda->allocations_room) return BL_OK;
  const size_t room = 2 * cuda->allocations_room + 64;
  void *larger = realloc(cuda->allocations, room * sizeof *cuda->allocations);
  if (!larger) return bl_fail(BL_EMACHINE, "out of memory: %zu bytes for a list of allocations", room);
  cuda->allocations = static_cast<bl_cuda_allocation *>(larger);
  cuda->allocations_room = room;
  return BL_OK;
}

static bl_status fail_alloc(const bl_cuda_backend *cuda, size_t bytes, cudaError_t error) {
  size_t free_bytes = 0, total = 0;
  cudaGetLastError();
  if (error != cudaErrorMemoryAllocation)
    return bl_fail(BL_EMACHINE, "%zu bytes on CUDA device %d: %s", bytes, cuda->device, cudaGetErrorString(error));
  if (cudaMemGetInfo(&free_bytes, &total) != cudaSuccess) cudaGetLastError();
  return bl_fail(BL_EMACHINE,
                 "out of memory: %zu bytes on CUDA device %d, where %zu of %zu are free and this rank holds %zu; more "
                 "--micro-batches or fewer --slots need less",
                 bytes, cuda->device, free_bytes, total, cuda->held);
}

/* New memory is cleared on a stream of its own, before anything else can see it. */
static bl_status take_memory(bl_cuda_backend *cuda, size_t bytes, void **out) {
  const size_t at_least_one = bytes ? bytes : 1;
  cudaError_t error = use_device(cuda->device);
  if (error == cudaSuccess) error = cudaMalloc(out, at_least_one);
  if (error != cudaSuccess) return fail_alloc(cuda, bytes, error);
  error = cudaMemsetAsync(*out, 0, at_least_one, cuda->service);
  if (error == cudaSuccess) error = cudaStreamSynchronize(cuda->service);
  if (error == cudaSuccess) return BL_OK;
  cudaFree(*out);
  return fail_alloc(cuda, bytes, error);
}

static bl_status cuda_alloc(bl_backend *be, size_t bytes, void *out_pointer) {
  bl_cuda_backend *cuda = self(be);
  void *data = NULL;
  if (bytes > SIZE_MAX / 2) return bl_fail(BL_EMACHINE, "out of memory: %zu bytes on a CUDA device", bytes);
  BL_TRY(make_room(cuda));
  BL_TRY(take_memory(cuda, bytes, &data));
  const size_t i = find(cuda, (uintptr_t)data);
  memmove(cuda->allocations + i + 1, cuda->allocations + i, (cuda->n_allocations - i) * sizeof *cuda->allocations);
  cuda->allocations[i] = {(uintptr_t)data, bytes};
  cuda->n_allocations++;
  cuda->held += bytes;
  if (cuda->held > cuda->peak) cuda->peak = cuda->held;
  memcpy(out_pointer, &data, sizeof data);
  return BL_OK;
}

/* cudaFree() waits for the device, so work that still uses the memory is safe. */
static void cuda_release(bl_backend *be, void *pointer) {
  bl_cuda_backend *cuda = self(be);
  if (!pointer) return;
  const size_t i = find(cuda, (uintptr_t)pointer);
  cuda->held -= cuda->allocations[i].bytes;
  cuda->n_allocations--;
  cuda->releases++;
  memmove(cuda->allocations + i, cuda->allocations + i + 1, (cuda->n_allocations - i) * sizeof *cuda->allocations);
  bl_cuda_fail(cuda, "cudaSetDevice", use_device(cuda->device));
  bl_cuda_fail(cuda, "cudaFree", cudaFree(pointer));
}

static size_t cuda_memory_peak(const bl_backend *be) { return reinterpret_cast<const bl_cuda_backend *>(be)->peak; }

static void copy_bytes(bl_stream *s, const char *what, void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
  if (!bytes || !bl_cuda_enter(s)) return;
  bl_cuda_fail(s->backend, what, cudaMemcpyAsync(to, from, bytes, kind, s->stream));
}

static void cuda_to_device(bl_stream *s, void *device, const void *host, size_t bytes) {
  copy_bytes(s, "to_device", device, host, bytes, cudaMemcpyHostToDevice);
}

static void cuda_to_host(bl_stream *s, void *host, const void *device, size_t bytes) {
  copy_bytes(s, "to_host", host, device, bytes, cudaMemcpyDeviceToHost);
}

/* Ranks may sit on different devices: the runtime finds out from the addresses. */
static void cuda_copy(bl_stream *s, void *to, const void *from, size_t bytes) {
  copy_bytes(s, "copy", to, from, bytes, cudaMemcpyDefault);
}

static void cuda_zero(bl_stream *s, void *device, size_t bytes) {
  if (!bytes || !bl_cuda_enter(s)) return;
  bl_cuda_fail(s->backend, "zero", cudaMemsetAsync(device, 0, bytes, s->stream));
}

/* -- scratch memory and host arrays of a stream ---------------------------------------------------------------------
 */

/* At least `bytes` at *buffer. Work under way may use the old buffer, so it is waited for. */
static bool grow(bl_stream *s, const char *what, char **buffer, size_t *room, size_t bytes) {
  if (!bl_cuda_enter(s)) return false;
  if (bytes <= *room) return true;
  bl_cuda_fail(s->backend, what, cudaStreamSynchronize(s->stream));
  cuda_release(&s->backend->base, *buffer);
  *buffer = NULL;
  *room = 0;
  const size_t wanted = bytes + bytes / 4;
  if (!s->backend->failure[0] && cuda_alloc(&s->backend->base, wanted, buffer) != BL_OK)
    bl_cuda_fail_text(s->backend, what, bl_error_text());
  if (s->backend->failure[0]) return false;
  *room = wanted;
  return true;
}

char *bl_cuda_scratch(bl_stream *s, const char *what, size_t bytes) {
  return grow(s, what, &s->scratch, &s->scratch_bytes, bytes ? bytes : 1) ? s->scratch : NULL;
}

/* A test without a device takes small ones, so that short runs go round and grow. */
#ifndef BL_CUDA_SEGMENT_BYTES
#define BL_CUDA_SEGMENT_BYTES (256 << 10)
#endif

/* Segments of at least `bytes`; the old ones may still be in use. */
static bool grow_ring(bl_stream *s, const char *what, size_t bytes) {
  bl_cuda_ring *ring = &s->ring;
  const size_t least = BL_CUDA_SEGMENT_BYTES, segment = bytes > least / 2 ? (2 * bytes + 255) / 256 * 256 : least;
  bl_cuda_fail(s->backend, what, cudaStreamSynchronize(s->stream));
  cuda_release(&s->backend->base, ring->device);
  bl_cuda_fail(s->backend, what, cudaFreeHost(ring->host));
  ring->host = ring->device = NULL;
  ring->segment_bytes = ring->used = 0;
  void *host = NULL;
  bl_cuda_fail(s->backend, what, cudaMallocHost(&host, segment * BL_CUDA_SEGMENTS));
  ring->host = static_cast<char *>(host);
  if (!s->backend->failure[0] && cuda_alloc(&s->backend->base, segment * BL_CUDA_SEGMENTS, &ring->device) != BL_OK)
    bl_cuda_fail_text(s->backend, what, bl_error_text());
  if (s->backend->failure[0]) return false;
  ring->segment_bytes = segment;
  return true;
}

/* Room for `bytes` in the segment that is being filled, or in the next. */
static bool make_ring_room(bl_stream *s, const char *what, size_t bytes) {
  bl_cuda_ring *ring = &s->ring;
  if (bytes > ring->segment_bytes) return grow_ring(s, what, bytes);
  if (ring->used + bytes <= ring->segment_bytes) return true;
  bl_cuda_fail(s->backend, what, cudaEventRecord(ring->taken[ring->now], s->stream));
  ring->now = (ring->now + 1) % BL_CUDA_SEGMENTS;
  ring->used = 0;
  bl_cuda_fail(s->backend, what, cudaEventSynchronize(ring->taken[ring->now])); /* no wait in the first round */
  return !s->backend->failure[0];
}

void *bl_cuda_upload(bl_stream *s, const char *what, const bl_host_part *parts, int32_t n) {
  if (s->backend->capturing) return bl_cuda_graph_upload(s->backend->capturing, parts, n);
  size_t bytes = 0;
  for (int32_t i = 0; i < n; i++) bytes += parts[i].bytes;
  bytes = bytes ? (bytes + 255) / 256 * 256 : 256;
  if (!bl_cuda_enter(s) || !make_ring_room(s, what, bytes)) return NULL;
  const size_t offset = (size_t)s->ring.now * s->ring.segment_bytes + s->ring.used;
  char *host = s->ring.host + offset, *at = host;
  for (int32_t i = 0; i < n; at += parts[i++].bytes)
    if (parts[i].bytes) memcpy(at, parts[i].data, parts[i].bytes);
  copy_bytes(s, what, s->ring.device + offset, host, (size_t)(at - host), cudaMemcpyHostToDevice);
  s->ring.used += bytes;
  return s->backend->failure[0] ? NULL : s->ring.device + offset;
}

static void cuda_upload(bl_stream *s, const bl_host_part *parts, int32_t n, const void **device) {
  const char *at = static_cast<const char *>(bl_cuda_upload(s, "upload", parts, n));
  for (int32_t i = 0; i < n; i++) {
    device[i] = at;
    if (at) at += parts[i].bytes;
  }
}

/* -- streams and events ----------------------------------------------------------------------------------------------
 */

static void cuda_stream_destroy(bl_stream *s) {
  if (!s) return;
  bl_cuda_backend *cuda = s->backend;
  const bl_cublas *blas = NULL;
  for (int i = 0; i < BL_CUDA_LANES; i++) cuda_stream_destroy(s->lane[i]);
  bl_cuda_fail(cuda, "cudaSetDevice", use_device(cuda->device));
  if (s->stream) bl_cuda_fail(cuda, "stream", cudaStreamSynchronize(s->stream));
  if (s->blas && bl_cublas_load(&blas) == BL_OK) blas->cublasDestroy_v2(s->blas);
  cuda_release(&cuda->base, s->workspace);
  cuda_release(&cuda->base, s->scratch);
  cuda_release(&cuda->base, s->ring.device);
  if (s->ring.host) bl_cuda_fail(cuda, "stream", cudaFreeHost(s->ring.host));
  for (int i = 0; i < BL_CUDA_SEGMENTS; i++)
    if (s->ring.taken[i]) bl_cuda_fail(cuda, "stream", cudaEventDestroy(s->ring.taken[i]));
  if (s->joint) bl_cuda_fail(cuda, "stream", cudaEventDestroy(s->joint));
  if (s->stream) bl_cuda_fail(cuda, "stream", cudaStreamDestroy(s->stream));
  free(s);
}

static bl_status check_cuda(const bl_cuda_backend *cuda, const char *what, cudaError_t error) {
  if (error == cudaSuccess) return BL_OK;
  cudaGetLastError();
  return bl_fail(BL_EMACHINE, "%s on CUDA device %d: %s", what, cuda->device, cudaGetErrorString(error));
}

static bl_status check_blas(const bl_cublas *blas, const char *what, cublasStatus_t status) {
  if (status == CUBLAS_STATUS_SUCCESS) return BL_OK;
  return bl_fail(BL_EMACHINE, "%s: %s", what, blas->cublasGetStatusString(status));
}

/* Sums of partial products stay in fp32, and plain fp32 products use no shorter type. */
static bl_status open_blas(bl_stream *s, const bl_cublas *blas) {
  BL_TRY(cuda_alloc(&s->backend->base, WORKSPACE_BYTES, &s->workspace));
  BL_TRY(check_blas(blas, "cublasCreate", blas->cublasCreate_v2(&s->blas)));
  BL_TRY(check_blas(blas, "cublasSetStream", blas->cublasSetStream_v2(s->blas, s->stream)));
  BL_TRY(check_blas(blas, "cublasSetWorkspace", blas->cublasSetWorkspace_v2(s->blas, s->workspace, WORKSPACE_BYTES)));
  const int mode = (int)CUBLAS_DEFAULT_MATH | (int)CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION;
  return check_blas(blas, "cublasSetMathMode", blas->cublasSetMathMode(s->blas, (cublasMath_t)mode));
}

const bl_cublas *bl_cuda_blas(bl_stream *s, const char *what) {
  const bl_cublas *blas = NULL;
  if (!bl_cuda_enter(s)) return NULL;
  bl_status status = bl_cublas_load(&blas);
  if (status == BL_OK && !s->blas) status = open_blas(s, blas);
  if (status == BL_OK) return blas;
  bl_cuda_fail_text(s->backend, what, bl_error_text());
  return NULL;
}

static bl_status open_stream(bl_stream *s) {
  BL_TRY(check_cuda(s->backend, "cudaSetDevice", use_device(s->backend->device)));
  BL_TRY(check_cuda(s->backend, "cudaStreamCreate", cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking)));
  for (int i = 0; i < BL_CUDA_SEGMENTS; i++) {
    cudaEvent_t *taken = &s->ring.taken[i];
    BL_TRY(check_cuda(s->backend, "cudaEventCreate", cudaEventCreateWithFlags(taken, cudaEventDisableTiming)));
  }
  return check_cuda(s->backend, "cudaEventCreate", cudaEventCreateWithFlags(&s->joint, cudaEventDisableTiming));
}

static bl_status cuda_stream_create(bl_backend *be, bl_stream **out) {
  bl_stream *s = static_cast<bl_stream *>(calloc(1, sizeof *s));
  if (!s) return bl_fail(BL_EMACHINE, "out of memory: %zu bytes for a stream", sizeof *s);
  s->backend = self(be);
  const bl_status status = open_stream(s);
  if (status == BL_OK)
    *out = s;
  else
    cuda_stream_destroy(s);
  return status;
}

static bl_status cuda_stream_sync(bl_stream *s) {
  if (bl_cuda_enter(s)) bl_cuda_fail(s->backend, "stream_sync", cudaStreamSynchronize(s->stream));
  return s->backend->failure[0] ? bl_fail(BL_EMACHINE, "%s", s->backend->failure) : BL_OK;
}

struct bl_event {
  bl_cuda_backend *backend;
  cudaEvent_t event;
};

static bl_status cuda_event_create(bl_backend *be, bl_event **out) {
  bl_event *e = static_cast<bl_event *>(calloc(1, sizeof *e));
  if (!e) return bl_fail(BL_EMACHINE, "out of memory: %zu bytes for an event", sizeof *e);
  e->backend = self(be);
  bl_status status = check_cuda(e->backend, "cudaSetDevice", use_device(e->backend->device));
  if (status == BL_OK) status = check_cuda(e->backend, "cudaEventCreate", cudaEventCreate(&e->event));
  if (status == BL_OK)
    *out = e;
  else
    free(e);
  return status;
}

static void cuda_event_destroy(bl_event *e) {
  if (!e) return;
  bl_cuda_fail(e->backend, "cudaEventDestroy", cudaEventDestroy(e->event));
  free(e);
}

static void cuda_event_record(bl_event *e, bl_stream *s) {
  if (bl_cuda_enter(s)) bl_cuda_fail(s->backend, "event_record", cudaEventRecord(e->event, s->stream));
}

static void cuda_event_stamp(bl_event *e, bl_stream *s) {
  if (!s->backend->capturing) return cuda_event_record(e, s);
  if (!bl_cuda_enter(s)) return;
  bl_cuda_fail(s->backend, "event_stamp", cudaEventRecordWithFlags(e->event, s->stream, cudaEventRecordExternal));
}

static void cuda_event_wait(bl_stream *s, bl_event *e) {
  if (bl_cuda_enter(s)) bl_cuda_fail(s->backend, "event_wait", cudaStreamWaitEvent(s->stream, e->event, 0));
}

static double cuda_event_us(const bl_event *from, const bl_event *to) {
  float ms = 0;
  bl_cuda_fail(to->backend, "event_us", cudaEventElapsedTime(&ms, from->event, to->event));
  return 1e3 * (double)ms;
}

/* -- the backend ------------------------------------------------------------------------------------------------------
 */

static bl_status check_driver(int32_t device) {
  int devices = 0, driver = 0, runtime = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess && error != cudaErrorNoDevice) {
    cudaGetLastError();
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
      return bl_fail(BL_EMACHINE, "the CUDA backend needs an NVIDIA driver, and this machine has none");
    if (error == cudaErrorInsufficientDriver && cudaRuntimeGetVersion(&runtime) == cudaSuccess)
      return bl_fail(BL_EMACHINE, "this machine's NVIDIA driver is for CUDA %d.%d; this build needs %d.%d or newer",
                     driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    return bl_fail(BL_EMACHINE, "CUDA devices cannot be counted: %s", cudaGetErrorString(error));
  }
  if (devices == 0) return bl_fail(BL_EMACHINE, "this machine has an NVIDIA driver but no CUDA device");
  if (device < 0 || device >= devices)
    return bl_fail(BL_EMACHINE, "CUDA device %d: this machine has %d (from 0)", device, devices);
  return BL_OK;
}

static __global__ void code_for_this_device(void) {}

static bl_status check_device(bl_cuda_backend *cuda) {
  cudaDeviceProp about;
  cudaFuncAttributes attributes;
  BL_TRY(check_cuda(cuda, "cudaSetDevice", use_device(cuda->device)));
  BL_TRY(check_cuda(cuda, "cudaGetDeviceProperties", cudaGetDeviceProperties(&about, cuda->device)));
  snprintf(cuda->name, sizeof cuda->name, "%.95s", about.name);
  cuda->base.device = cuda->name;
  cuda->shared_bytes = about.sharedMemPerBlockOptin;
  if (cudaFuncGetAttributes(&attributes, reinterpret_cast<const void *>(code_for_this_device)) == cudaSuccess)
    return BL_OK;
  cudaGetLastError();
  return bl_fail(BL_EMACHINE, "this build has no code for CUDA device %d, %s; build with NVCC_ARCH=%d%d", cuda->device,
                 about.name, about.major, about.minor);
}

static void cuda_destroy(bl_backend *be) {
  bl_cuda_backend *cuda = self(be);
  if (cuda->service && use_device(cuda->device) == cudaSuccess) cudaStreamDestroy(cuda->service);
  free(cuda->allocations);
  free(cuda);
}

static void fill_operations(bl_ops *ops, bool bf16) {
  bl_cuda_embed_ops(ops, bf16);
  bl_cuda_norm_ops(ops, bf16);
  bl_cuda_linear_ops(ops, bf16);
  bl_cuda_grouped_ops(ops, bf16);
  bl_cuda_gelu_ops(ops, bf16);
  bl_cuda_attention_ops(ops, bf16);
  bl_cuda_elementwise_ops(ops, bf16);
  bl_cuda_gate_ops(ops, bf16);
  bl_cuda_route_ops(ops);
  bl_cuda_plan_ops(ops);
  bl_cuda_rows_ops(ops, bf16);
  bl_cuda_loss_ops(ops, bf16);
  bl_cuda_optimizer_ops(ops, bf16);
}

static void fill_table(bl_backend *be, bool bf16) {
  be->name = "cuda";
  be->kernel = "cublas";
  be->num_bytes = bf16 ? sizeof(bl_bf16) : sizeof(float);
  be->host_memory = false;
  fill_operations(&be->ops, bf16);
  be->alloc = cuda_alloc;
  be->release = cuda_release;
  be->memory_peak = cuda_memory_peak;
  be->to_device = cuda_to_device;
  be->to_host = cuda_to_host;
  be->upload = cuda_upload;
  be->copy = cuda_copy;
  be->zero = cuda_zero;
  be->stream_create = cuda_stream_create;
  be->stream_destroy = cuda_stream_destroy;
  be->stream_sync = cuda_stream_sync;
  be->event_create = cuda_event_create;
  be->event_destroy = cuda_event_destroy;
  be->event_record = cuda_event_record;
  be->event_stamp = cuda_event_stamp;
  be->event_wait = cuda_event_wait;
  be->event_us = cuda_event_us;
  be->destroy = cuda_destroy;
  bl_cuda_graph_functions(be);
}

bl_status bl_backend_cuda_create(const bl_cuda_options *options, bl_backend **out) {
  const bl_cublas *blas;
  BL_TRY(check_driver(options->device));
  BL_TRY(bl_cublas_load(&blas));
  bl_cuda_backend *cuda = static_cast<bl_cuda_backend *>(calloc(1, sizeof *cuda));
  if (!cuda) return bl_fail(BL_EMACHINE, "out of memory: %zu bytes for the CUDA backend", sizeof *cuda);
  cuda->device = options->device;
  cuda->grouping = options->grouping;
  cuda->bf16 = options->bf16;
  fill_table(&cuda->base, options->bf16);
  bl_status status = check_device(cuda);
  if (status == BL_OK)
    status = check_cuda(cuda, "cudaStreamCreate", cudaStreamCreateWithFlags(&cuda->service, cudaStreamNonBlocking));
  if (status == BL_OK)
    *out = &cuda->base;
  else
    cuda_destroy(&cuda->base);
  return status;
}

void bl_backend_cuda_group(bl_backend *be, bl_cuda_grouping grouping) { self(be)->grouping = grouping; }
