/* optimizer.cu - the AdamW update of many tensors, and their sums of squares. */
#include "executor/cuda/parts.cuh"
#include <stdlib.h>

namespace {

struct factors {
  bl_adamw a;
  float rest1, rest2, over1, over2;
};

template <typename N, int V> __device__ void update(const bl_adamw_part &p, const factors &f, int64_t i) {
  float w[V], first[V], second[V], g[V];
  bl_load_pack<V>(w, p.master + i);
  bl_load_pack<V>(first, p.m + i);
  bl_load_pack<V>(second, p.v + i);
  bl_load_pack<V>(g, p.grad + i);
  for (int k = 0; k < V; k++) {
    const float scaled = g[k] * f.a.grad_scale;
    first[k] = f.a.beta1 * first[k] + f.rest1 * scaled;
    second[k] = f.a.beta2 * second[k] + f.rest2 * (scaled * scaled);
    const float step = first[k] * f.over1 / (sqrtf(second[k] * f.over2) + f.a.eps);
    w[k] -= f.a.lr * (step + p.decay * w[k]);
  }
  bl_store_pack<V>(p.master + i, w);
  bl_store_pack<V>(p.m + i, first);
  bl_store_pack<V>(p.v + i, second);
  if (p.weight != static_cast<void *>(p.master)) bl_store_pack<V>(static_cast<N *>(p.weight) + i, w);
}

template <typename N> __device__ bool part_is_wide(const bl_adamw_part &p) {
  const uintptr_t floats = (uintptr_t)p.master | (uintptr_t)p.m | (uintptr_t)p.v | (uintptr_t)p.grad;
  return floats % (sizeof(float) * BL_WIDE) == 0 && (uintptr_t)p.weight % (sizeof(N) * BL_WIDE) == 0;
}

/* Block x is a run. */
template <typename N> __global__ void update_runs(bl_part_table<bl_adamw_part> table, const bl_adamw *hyper) {
  const bl_adamw a = *hyper;
  const factors f = {a, 1.0f - a.beta1, 1.0f - a.beta2, 1.0f / a.bias_correction1, 1.0f / a.bias_correction2};
  if (a.skip) return;
  const int64_t run = (int64_t)blockIdx.x;
  const int32_t number = bl_part_of(table.first, table.n, run);
  const bl_adamw_part p = table.part[number];
  const int64_t begin = (run - table.first[number]) * BL_RUN;
  const int64_t end = p.n - begin < BL_RUN ? p.n : begin + BL_RUN;
  int64_t i = begin + threadIdx.x * (int64_t)BL_WIDE;
  if (part_is_wide<N>(p)) {
    for (; i + BL_WIDE <= end; i += (int64_t)blockDim.x * BL_WIDE) update<N, BL_WIDE>(p, f, i);
    for (; i < end; i++) update<N, 1>(p, f, i); /* one thread at most has a rest */
    return;
  }
  for (i = begin + threadIdx.x; i < end; i += blockDim.x) update<N, 1>(p, f, i);
}

template <typename N> void adamw(bl_stream *s, const bl_adamw_part *parts, int32_t n, const bl_adamw *hyper) {
  bl_part_table<bl_adamw_part> table;
  if (!bl_upload_parts(s, "adamw", parts, n, &table)) return;
  bl_launch(s, "adamw", update_runs<N>, {table.runs, 1}, BL_RUN_THREADS, table, hyper);
}

/* Block x is a run: partial[run] = its sum, in double. */
__global__ void square_runs(double *partial, bl_part_table<bl_square_part> table) {
  const int64_t run = (int64_t)blockIdx.x;
  const int32_t number = bl_part_of(table.first, table.n, run);
  const bl_square_part p = table.part[number];
  const int64_t begin = (run - table.first[number]) * BL_RUN;
  const int64_t end = p.n - begin < BL_RUN ? p.n : begin + BL_RUN;
  double sum = 0.0;
  for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) sum += (double)p.x[i] * (double)p.x[i];
  sum = bl_block_sum(sum);
  if (threadIdx.x == 0) partial[run] = sum;
}

/* Block x is a part. */
__global__ void add_runs(const double *partial, bl_part_table<bl_square_part> table) {
  const int32_t number = (int32_t)blockIdx.x;
  double sum = 0.0;
  for (int64_t i = table.first[number] + threadIdx.x; i < table.first[number + 1]; i += blockDim.x) sum += partial[i];
  sum = bl_block_sum(sum);
  if (threadIdx.x == 0) *table.part[number].sum = sum;
}

void sum_sq(bl_stream *s, const bl_square_part *parts, int32_t n) {
  bl_part_table<bl_square_part> table;
  if (!bl_upload_parts(s, "sum_sq", parts, n, &table)) return;
  char *scratch = bl_cuda_scratch(s, "sum_sq", (size_t)table.runs * sizeof(double));
  if (!scratch) return;
  double *partial = reinterpret_cast<double *>(scratch);
  bl_launch(s, "sum_sq", square_runs, {table.runs, 1}, BL_RUN_THREADS, partial, table);
  bl_launch(s, "sum_sq", add_runs, {n, 1}, BL_RUN_THREADS, partial, table);
}

enum { CLIP_THREADS = 256 };

/* One block: threads fetch, the first adds, one after the other, so that the sum has the order asked for. */
__global__ void clip(bl_adamw *hyper, const double *sum, const int32_t *order, int32_t n, const double *flag,
                     int32_t ranks, int64_t stride, double limit) {
  __shared__ double fetched[CLIP_THREADS];
  double squares = 0.0;
  for (int32_t base = 0; base < n; base += CLIP_THREADS) {
    const int32_t i = base + (int32_t)threadIdx.x, here = n - base < CLIP_THREADS ? n - base : CLIP_THREADS;
    if (i < n) fetched[threadIdx.x] = sum[order[i]];
    __syncthreads();
    if (threadIdx.x == 0)
      for (int32_t k = 0; k < here; k++) squares += fetched[k];
    __syncthreads();
  }
  int32_t raised = 0;
  for (int32_t p = (int32_t)threadIdx.x; p < ranks; p += CLIP_THREADS) raised |= flag[p * stride] != 0.0;
  raised = __syncthreads_or(raised);
  if (threadIdx.x > 0) return;
  const double norm = sqrt(squares);
  hyper->grad_scale = norm > limit ? (float)(limit / norm) : 1.0f;
  hyper->skip = raised;
}

void clip_norm(bl_stream *s, bl_adamw *hyper, const double *sum, const int32_t *order, int32_t n, const double *flag,
               int32_t ranks, int64_t stride, double limit) {
  bl_launch(s, "clip_norm", clip, {1, 1}, CLIP_THREADS, hyper, sum, order, n, flag, ranks, stride, limit);
}

} // namespace

void bl_cuda_optimizer_ops(bl_ops *ops, bool bf16) {
  ops->adamw = bf16 ? adamw<bl_bf16> : adamw<float>;
  ops->sum_sq = sum_sq;
  ops->clip_norm = clip_norm;
}
