/* loss.cu - cross-entropy and the sums that the host reads. */
#include "executor/cuda/device.cuh"
#include "executor/op_math.h"

namespace {

/* A block a row; logits become scale * d loss / d logits. */
template <typename N, int W>
__global__ void entropy_rows(float *loss, N *logits, const int32_t *target, int32_t V, float scale) {
  const int64_t t = (int64_t)blockIdx.x;
  const int32_t aim = target[t], begin = (int32_t)threadIdx.x * W, step = (int32_t)blockDim.x * W;
  N *row = logits + t * V;
  float v[W];
  if (aim < 0) {
    for (int k = 0; k < W; k++) v[k] = 0.0f;
    for (int32_t i = begin; i < V; i += step) bl_store_pack<W>(row + i, v);
    if (threadIdx.x == 0) loss[t] = 0.0f;
    return;
  }
  const float aimed = bl_load(row + aim); /* before a thread overwrites it, behind the barriers of the sums */
  float largest = -INFINITY, sum = 0.0f;
  for (int32_t i = begin; i < V; i += step) {
    bl_load_pack<W>(v, row + i);
    for (int k = 0; k < W; k++) largest = v[k] > largest ? v[k] : largest;
  }
  largest = bl_block_max(largest);
  for (int32_t i = begin; i < V; i += step) {
    bl_load_pack<W>(v, row + i);
    for (int k = 0; k < W; k++) sum += bl_expf(v[k] - largest);
  }
  sum = bl_block_sum(sum);
  const float over = scale / sum;
  for (int32_t i = begin; i < V; i += step) {
    bl_load_pack<W>(v, row + i);
    for (int k = 0; k < W; k++) v[k] = bl_expf(v[k] - largest) * over - (i + k == aim ? scale : 0.0f);
    bl_store_pack<W>(row + i, v);
  }
  if (threadIdx.x == 0) loss[t] = bl_logf(sum) - (aimed - largest);
}

template <typename N>
void cross_entropy(bl_stream *s, float *loss, bl_num *logits, const int32_t *target, int32_t T, int32_t V,
                   float scale) {
  N *rows = static_cast<N *>(logits);
  const bool wide = bl_all_wide(V, rows);
  bl_launch(s, "cross_entropy", wide ? entropy_rows<N, BL_WIDE> : entropy_rows<N, 1>, {T, 1},
            bl_row_threads(V / (wide ? BL_WIDE : 1)), loss, rows, target, V, scale);
}

enum { SUM_THREADS = 256, TILE = 1024 };

/* Strictly ascending: the block fetches, one thread adds. */
__global__ void sum_in_order(double *sum, const float *x, int64_t n) {
  __shared__ float tile[TILE];
  double total = 0.0;
  for (int64_t base = 0; base < n; base += TILE) {
    const int32_t count = n - base < TILE ? (int32_t)(n - base) : (int32_t)TILE;
    for (int32_t i = (int32_t)threadIdx.x; i < count; i += (int32_t)blockDim.x) tile[i] = x[base + i];
    __syncthreads();
    for (int32_t i = 0; i < count && threadIdx.x == 0; i++) total += (double)tile[i];
    __syncthreads(); /* the tile is filled again */
  }
  if (threadIdx.x == 0) *sum = total;
}

void sum_f32(bl_stream *s, double *sum, const float *x, int64_t n) {
  bl_launch(s, "sum_f32", sum_in_order, {1, 1}, SUM_THREADS, sum, x, n);
}

} // namespace

void bl_cuda_loss_ops(bl_ops *ops, bool bf16) {
  ops->cross_entropy = bf16 ? cross_entropy<bl_bf16> : cross_entropy<float>;
  ops->sum_f32 = sum_f32;
}
