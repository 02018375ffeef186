/* device.cuh - inside of the CUDA backend: its stream, launching, and what kernels share.
 *
 * A kernel launch never fails to the caller: the first failure is kept in the backend, later operations are skipped and
 * stream_sync() reports it. Kernels use full warps only; every block has a multiple of 32 threads. */
#ifndef BL_EXECUTOR_CUDA_DEVICE_CUH
#define BL_EXECUTOR_CUDA_DEVICE_CUH

#include "executor/cuda/cublas.cuh"
#include "executor/cuda/cuda.h"
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stddef.h>
#include <stdint.h>

extern "C" {
#include "base/status.h"
}

typedef __nv_bfloat16 bl_bf16;

enum { BL_CUDA_SEGMENTS = 8, BL_CUDA_LANES = 3, BL_WARP = 32, BL_CUDA_TEXT_MAX = 320 };
enum { BL_SHARED_AT_FIRST = 48 << 10 }; /* bytes of shared memory that a kernel has without asking for more */

/* One allocation, for the account of memory; the list is sorted by address. */
struct bl_cuda_allocation {
  uintptr_t at;
  size_t bytes;
};

struct bl_cuda_backend {
  bl_backend base;
  int32_t device;
  bl_cuda_grouping grouping;
  bool bf16;
  char name[96];        /* of the device */
  size_t shared_bytes;  /* that a block may ask for on it */
  cudaStream_t service; /* clears new memory */
  bl_cuda_allocation *allocations;
  size_t n_allocations, allocations_room, held, peak;
  int64_t releases;          /* how often memory has been given back */
  bl_graph *capturing;       /* NULL: work is done, not captured */
  size_t graph_tables_bytes; /* what a graph needed for host arrays beyond its room; 0: none did */
  char failure[BL_CUDA_TEXT_MAX]; /* the first one; "" = none */
};

/* Through which host arrays go to the device: page-locked memory and its image there, in segments that are filled one
 * after the other. The host waits only where it is a whole round ahead of the device. */
struct bl_cuda_ring {
  char *host, *device;
  size_t segment_bytes, used; /* used: of the segment that is being filled */
  int32_t now;
  cudaEvent_t taken[BL_CUDA_SEGMENTS]; /* what was in the segment has been copied */
};

struct bl_stream {
  bl_cuda_backend *backend;
  cudaStream_t stream;
  cublasHandle_t blas;
  void *workspace; /* of cuBLAS: a stream with its own gives the same bits whatever other streams do */
  char *scratch;
  size_t scratch_bytes;
  bl_cuda_ring ring;
  bl_stream *lane[BL_CUDA_LANES]; /* owned; opened when products run side by side */
  cudaEvent_t joint;              /* where such lanes part from a stream or come back to it */
};

/*! bl_cuda_fail() : keeps the first failure of a backend: `what` says the operation. cudaSuccess is no failure. */
void bl_cuda_fail(bl_cuda_backend *backend, const char *what, cudaError_t error);
void bl_cuda_fail_text(bl_cuda_backend *backend, const char *what, const char *text);

/*! bl_cuda_enter() : makes the stream's device the calling thread's.  @return : false when the backend has failed. */
bool bl_cuda_enter(bl_stream *s);

/*! bl_cuda_scratch() : device memory, contents undefined, valid until the next call on this stream (work issued before
 *  may still use it: the stream keeps the order). NULL after a failure, which is kept. */
char *bl_cuda_scratch(bl_stream *s, const char *what, size_t bytes);

/*! bl_cuda_upload() : device copy of host arrays, one behind the other, valid until the next upload on this stream; the
 *  host arrays may change at once. NULL after a failure, which is kept. */
void *bl_cuda_upload(bl_stream *s, const char *what, const bl_host_part *parts, int32_t n);

/*! bl_cuda_graph_upload() : the same while work is captured; valid as long as the graph. */
void *bl_cuda_graph_upload(bl_graph *graph, const bl_host_part *parts, int32_t n);

/*! bl_cuda_blas() : cuBLAS with s->blas open, which the first product of a stream does (not every stream has any). NULL
 *  after a failure, which is kept. */
const bl_cublas *bl_cuda_blas(bl_stream *s, const char *what);

void bl_cuda_graph_functions(bl_backend *be);

/* Fill the table of operations, file by file. */
void bl_cuda_embed_ops(bl_ops *ops, bool bf16);
void bl_cuda_norm_ops(bl_ops *ops, bool bf16);
void bl_cuda_linear_ops(bl_ops *ops, bool bf16);
void bl_cuda_attention_ops(bl_ops *ops, bool bf16);
void bl_cuda_grouped_ops(bl_ops *ops, bool bf16);
void bl_cuda_gelu_ops(bl_ops *ops, bool bf16);
void bl_cuda_elementwise_ops(bl_ops *ops, bool bf16);
void bl_cuda_gate_ops(bl_ops *ops, bool bf16);
void bl_cuda_route_ops(bl_ops *ops);
void bl_cuda_plan_ops(bl_ops *ops);
void bl_cuda_rows_ops(bl_ops *ops, bool bf16);
void bl_cuda_loss_ops(bl_ops *ops, bool bf16);
void bl_cuda_optimizer_ops(bl_ops *ops, bool bf16);

/* -- launching ---------------------------------------------------------------------------------------------------- */

__host__ __device__ static inline int64_t bl_ceil_div(int64_t n, int64_t by) { return (n + by - 1) / by; }

/* Blocks of a launch; x may be large, y goes to 65535. Shared memory beside what the kernel declares: bl_shared(). */
struct bl_blocks {
  int64_t x, y;
  size_t shared_bytes = 0;
};

/*! bl_launch() : kernel<<<blocks, threads>>>(args...) on the stream; no blocks is nothing to do. */
template <typename... P, typename... A>
static void bl_launch(bl_stream *s, const char *what, void (*kernel)(P...), bl_blocks blocks, int32_t threads,
                      A... args) {
  if (blocks.x <= 0 || blocks.y <= 0 || !bl_cuda_enter(s)) return;
  if (blocks.x > INT32_MAX || blocks.y > 65535) {
    bl_cuda_fail_text(s->backend, what, "more blocks than a launch can have");
    return;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3((unsigned)blocks.x, (unsigned)blocks.y, 1);
  config.blockDim = dim3((unsigned)threads, 1, 1);
  config.stream = s->stream;
  config.dynamicSmemBytes = blocks.shared_bytes;
  if (blocks.shared_bytes > BL_SHARED_AT_FIRST)
    bl_cuda_fail(s->backend, what,
                 cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),
                                      cudaFuncAttributeMaxDynamicSharedMemorySize, (int)blocks.shared_bytes));
  bl_cuda_fail(s->backend, what, cudaLaunchKernelEx(&config, kernel, static_cast<P>(args)...));
}

/* Threads for a row of n steps: whole warps, at most 256. */
static inline int32_t bl_row_threads(int64_t n) {
  return n >= 256 ? 256 : n <= BL_WARP ? BL_WARP : (int32_t)(bl_ceil_div(n, BL_WARP) * BL_WARP);
}

/* -- numbers ------------------------------------------------------------------------------------------------------ */

__device__ static inline float bl_load(const float *x) { return *x; }
__device__ static inline float bl_load(const bl_bf16 *x) { return __bfloat162float(*x); }
__device__ static inline void bl_store(float *y, float x) { *y = x; }
__device__ static inline void bl_store(bl_bf16 *y, float x) { *y = __float2bfloat16_rn(x); }

/* V elements in one access: a kernel's template argument V is BL_WIDE where rows and pointers allow it, else 1. */
enum { BL_WIDE = 4 };

template <typename T, int V> struct alignas(sizeof(T) * V) bl_pack { T v[V]; };

template <int V, typename T> __device__ static inline void bl_load_pack(float (&to)[V], const T *from) {
  const bl_pack<T, V> pack = *reinterpret_cast<const bl_pack<T, V> *>(from);
#pragma unroll
  for (int i = 0; i < V; i++) to[i] = bl_load(&pack.v[i]);
}

template <int V, typename T> __device__ static inline void bl_store_pack(T *to, const float (&from)[V]) {
  bl_pack<T, V> pack;
#pragma unroll
  for (int i = 0; i < V; i++) bl_store(&pack.v[i], from[i]);
  *reinterpret_cast<bl_pack<T, V> *>(to) = pack;
}

template <typename T> static bool bl_is_wide(const T *x) { return (uintptr_t)x % (sizeof(T) * BL_WIDE) == 0; }

/*! bl_all_wide() : whether rows of n elements and all these pointers allow wide accesses. */
template <typename... T> static bool bl_all_wide(int64_t n, const T *...pointers) {
  return n % BL_WIDE == 0 && (bl_is_wide(pointers) && ...);
}

/* -- sums and maxima of a warp or a block, the same bits in every thread and every run ------------------------------
 */

template <typename T> __device__ static inline T bl_warp_sum(T x) {
  for (int step = BL_WARP / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

__device__ static inline float bl_warp_max(float x) {
  for (int step = BL_WARP / 2; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(0xffffffffu, x, step);
    x = other > x ? other : x;
  }
  return x;
}

/*! bl_block_sum() : called by all threads of the block. */
template <typename T> __device__ static inline T bl_block_sum(T x) {
  __shared__ T part[BL_WARP];
  const int32_t warps = (int32_t)blockDim.x / BL_WARP;
  x = bl_warp_sum(x);
  if (threadIdx.x % BL_WARP == 0) part[threadIdx.x / BL_WARP] = x;
  __syncthreads();
  T total = part[0];
  for (int32_t i = 1; i < warps; i++) total += part[i];
  __syncthreads(); /* `part` serves the next sum */
  return total;
}

__device__ static inline float bl_block_max(float x) {
  __shared__ float part[BL_WARP];
  const int32_t warps = (int32_t)blockDim.x / BL_WARP;
  x = bl_warp_max(x);
  if (threadIdx.x % BL_WARP == 0) part[threadIdx.x / BL_WARP] = x;
  __syncthreads();
  float largest = part[0];
  for (int32_t i = 1; i < warps; i++) largest = part[i] > largest ? part[i] : largest;
  __syncthreads();
  return largest;
}

#endif
