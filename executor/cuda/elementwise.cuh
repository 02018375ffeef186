/* elementwise.cuh - a function of an index over 0..n, several indices an access where addresses allow. */
#ifndef BL_EXECUTOR_CUDA_ELEMENTWISE_CUH
#define BL_EXECUTOR_CUDA_ELEMENTWISE_CUH

#include "executor/cuda/device.cuh"

/* f.template at<V>(i) works on elements i .. i + V - 1, for every i in 0..n once. */
template <int V, typename F> __global__ void bl_map_kernel(F f, int64_t n) {
  const int64_t packs = n / V, threads = (int64_t)gridDim.x * blockDim.x;
  const int64_t me = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  for (int64_t i = me; i < packs; i += threads) f.template at<V>(i * V);
  if (me < n - packs * V) f.template at<1>(packs * V + me);
}

template <typename F> static void bl_map(bl_stream *s, const char *what, const F &f, int64_t n, bool wide) {
  enum { THREADS = 256, MAX_BLOCKS = 4096 };
  if (n <= 0) return;
  const int64_t wanted = bl_ceil_div(n, (wide ? BL_WIDE : 1) * THREADS);
  const bl_blocks blocks = {wanted < MAX_BLOCKS ? wanted : (int64_t)MAX_BLOCKS, 1};
  bl_launch(s, what, wide ? bl_map_kernel<BL_WIDE, F> : bl_map_kernel<1, F>, blocks, THREADS, f, n);
}

#endif
