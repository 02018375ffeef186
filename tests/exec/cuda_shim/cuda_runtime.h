/* cuda_runtime.h - a stand-in for CUDA's header of that name: runs the backend's kernels on the processor.
 *
 * Work of a stream runs when somebody waits for it, and no sooner. Blocks run one after the other; the threads of a block are fibers that change places at barriers and warp operations
 * only. Device memory is malloc's. With the address sanitizer every access of every kernel is checked; with threads
 * started in another order (shim_reversed) a missing barrier shows as a wrong result. A barrier that not all threads
 * reach ends the program. */
#ifndef BL_TESTS_CUDA_SHIM_RUNTIME_H
#define BL_TESTS_CUDA_SHIM_RUNTIME_H

#include <atomic>
#include <functional>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

extern bool shim_reversed; /* threads of a block take their turns from the last to the first */

/* What has been asked for since the program began; BL_SHIM_COUNTS=FILE writes them at its end. A sync is a wait of the
 * host for the device; what a replay of a graph does counts as the one replay. */
#define SHIM_COUNTERS(X) X(launches) X(products) X(mallocs) X(syncs) X(copies) X(graphs) X(replays)
struct shim_counters {
#define X(name) std::atomic<long> name;
  SHIM_COUNTERS(X)
#undef X
};
extern shim_counters shim_counts;

/* -- barriers and warp operations ------------------------------------------------------------------------------------
 */

void __syncthreads(void);
int __syncthreads_or(int value);
enum { SHIM_BALLOT = 1000, SHIM_MMA, SHIM_LOAD_MATRICES }; /* numbers of warp operations: up to 31 the steps of exchanges */
/* What all lanes of the warp do together: `all` is called once when each has come, with what each brought. */
void shim_collective(int operation, void *mine, void (*all)(void *const lanes[32]));
uint64_t shim_exchange(uint64_t value, int from_lane, int operation); /* the value of another lane of the warp */
unsigned __ballot_sync(unsigned mask, int value);
static inline int __popc(unsigned x) { return __builtin_popcount(x); }

template <typename T> T __shfl_xor_sync(unsigned, T value, int step) {
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  bits = shim_exchange(bits, (int)(threadIdx.x % 32) ^ step, step);
  memcpy(&value, &bits, sizeof value);
  return value;
}

template <typename T> T __shfl_sync(unsigned, T value, int from) {
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  bits = shim_exchange(bits, from, 100);
  memcpy(&value, &bits, sizeof value);
  return value;
}

template <typename T> T __shfl_up_sync(unsigned, T value, unsigned step) { /* the first lanes keep their own */
  const int lane = (int)(threadIdx.x % 32);
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  bits = shim_exchange(bits, lane >= (int)step ? lane - (int)step : lane, 200 + (int)step);
  memcpy(&value, &bits, sizeof value);
  return value;
}

template <typename T> T atomicAdd(T *at, T value) { /* threads change places nowhere near */
  const T before = *at;
  *at = before + value;
  return before;
}

/* As executor/cuda/mma.cuh says of the functions that call these. Copies run at their wait, or where threads are
 * reversed at once: both extremes of what a device may do. */
char *shim_shared(void); /* new for every block and full of NaN */
void shim_mma(float *c, const uint32_t *a, uint32_t b0, uint32_t b1);
void shim_load_matrices(uint32_t *to, const void *row, bool transposed);
void shim_copy_ahead(void *shared, const void *global, int bytes);
void shim_copies_wait(void);

/* -- the runtime
 * -------------------------------------------------------------------------------------------------------- */

enum cudaError_t {
  cudaSuccess,
  cudaErrorInvalidConfiguration,
  cudaErrorInvalidValue,
  cudaErrorMemoryAllocation,
  cudaErrorInsufficientDriver,
  cudaErrorNoDevice,
  cudaErrorNotReady,
  cudaErrorStreamCaptureUnsupported,
  cudaErrorStreamCaptureUnjoined,
  cudaErrorStreamCaptureIsolation
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDefault };
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2, cudaEventRecordExternal = 1 };
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal };
typedef struct shim_stream *cudaStream_t;
typedef struct shim_event *cudaEvent_t;
typedef struct shim_executable *cudaGraph_t, *cudaGraphExec_t;
struct cudaDeviceProp {
  char name[16];
  int major, minor;
  struct {
    char bytes[16];
  } uuid; /* one for each of the SHIM_DEVICES (1) devices */
  size_t sharedMemPerBlockOptin;
};
struct cudaFuncAttributes {
  int unused;
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

const char *cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError(void);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaRuntimeGetVersion(int *version);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *about, int device);
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, const void *function);
cudaError_t cudaFuncSetAttribute(const void *function, cudaFuncAttribute attribute, int value);
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total);
cudaError_t cudaMalloc(void **out, size_t bytes);
cudaError_t cudaFree(void *pointer);
cudaError_t cudaMallocHost(void **out, size_t bytes);
cudaError_t cudaFreeHost(void *pointer);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void *at, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaEventCreate(cudaEvent_t *out);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to);

cudaError_t shim_launch(const cudaLaunchConfig_t *config, const std::function<void()> &thread);

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph);
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream);

/* What another library does on a stream: called when its turn has come, and again until it says that it is done. */
void shim_stream_work(cudaStream_t stream, std::function<bool()> work);

/* Whether what is issued to the stream now becomes part of a graph. */
bool shim_stream_captured(cudaStream_t stream);

/* Does what can be done of a stream's work.  @return : whether that was all. Any thread. */
bool shim_stream_progress(cudaStream_t stream);

template <typename... P, typename... A>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config, void (*kernel)(P...), A... args) {
  return shim_launch(config, [=] { kernel(args...); });
}

#endif
