/* rows.cu - moving rows of tokens to the send buffer and back: a block a token or a copy. */
#include "executor/cuda/device.cuh"

namespace {

template <typename N, int V> __global__ void scatter(N *send, const N *x, const int32_t *row, int32_t K, int32_t H) {
  const int64_t t = (int64_t)blockIdx.x;
  for (int32_t i = (int32_t)threadIdx.x * V; i < H; i += (int32_t)blockDim.x * V) {
    float v[V];
    bl_load_pack<V>(v, x + t * H + i);
    for (int64_t c = t * K; c < (t + 1) * K; c++)
      if (row[c] >= 0) bl_store_pack<V>(send + (int64_t)row[c] * H + i, v);
  }
}

template <typename N>
void rows_scatter(bl_stream *s, bl_num *send, const bl_num *x, const int32_t *row, int32_t T, int32_t K, int32_t H) {
  N *to = static_cast<N *>(send);
  const N *from = static_cast<const N *>(x);
  const bool wide = bl_all_wide(H, to, from);
  bl_launch(s, "rows_scatter", wide ? scatter<N, BL_WIDE> : scatter<N, 1>, {T, 1},
            bl_row_threads(H / (wide ? BL_WIDE : 1)), to, from, row, K, H);
}

template <typename N, int V> __global__ void gather(N *y, const N *x, const int32_t *index, int32_t H) {
  const int64_t to = (int64_t)blockIdx.x * H, from = (int64_t)index[blockIdx.x] * H;
  for (int32_t i = (int32_t)threadIdx.x * V; i < H; i += (int32_t)blockDim.x * V) {
    float v[V] = {};
    if (from >= 0) bl_load_pack<V>(v, x + from + i);
    bl_store_pack<V>(y + to + i, v);
  }
}

template <typename N>
void rows_gather(bl_stream *s, bl_num *y, const bl_num *x, const int32_t *index, int32_t n, int32_t H) {
  N *to = static_cast<N *>(y);
  const N *from = static_cast<const N *>(x);
  if (n <= 0) return;
  const bool wide = bl_all_wide(H, to, from);
  bl_launch(s, "rows_gather", wide ? gather<N, BL_WIDE> : gather<N, 1>, {n, 1},
            bl_row_threads(H / (wide ? BL_WIDE : 1)), to, from, index, H);
}

template <typename N, int V>
__global__ void combine(N *y, const N *back, const float *weight, const int32_t *row, int32_t K, int32_t H) {
  const int64_t t = (int64_t)blockIdx.x;
  for (int32_t i = (int32_t)threadIdx.x * V; i < H; i += (int32_t)blockDim.x * V) {
    float sum[V], v[V];
    bl_load_pack<V>(sum, y + t * H + i);
    for (int64_t c = t * K; c < (t + 1) * K; c++) {
      if (row[c] < 0) continue;
      bl_load_pack<V>(v, back + (int64_t)row[c] * H + i);
      const float w = weight ? weight[c] : 1.0f;
      for (int k = 0; k < V; k++) sum[k] += w * v[k];
    }
    bl_store_pack<V>(y + t * H + i, sum);
  }
}

/* weight NULL: all 1 */
template <typename N>
void add_copies(bl_stream *s, const char *what, bl_num *y, const bl_num *back, const float *weight, const int32_t *row,
                int32_t T, int32_t K, int32_t H) {
  N *to = static_cast<N *>(y);
  const N *from = static_cast<const N *>(back);
  const bool wide = bl_all_wide(H, to, from);
  bl_launch(s, what, wide ? combine<N, BL_WIDE> : combine<N, 1>, {T, 1}, bl_row_threads(H / (wide ? BL_WIDE : 1)), to,
            from, weight, row, K, H);
}

template <typename N>
void combine_fwd(bl_stream *s, bl_num *y, const bl_num *back, const float *weight, const int32_t *row, int32_t T,
                 int32_t K, int32_t H) {
  add_copies<N>(s, "combine_fwd", y, back, weight, row, T, K, H);
}

template <typename N>
void rows_sum(bl_stream *s, bl_num *dx, const bl_num *dsend, const int32_t *row, int32_t T, int32_t K, int32_t H) {
  add_copies<N>(s, "rows_sum", dx, dsend, NULL, row, T, K, H);
}

/* A block a copy. */
template <typename N, int V>
__global__ void combine_backward(N *dback, float *dweight, const N *dy, const N *back, const float *weight,
                                 const int32_t *row, int32_t K, int32_t H) {
  const int64_t c = (int64_t)blockIdx.x, t = c / K;
  if (row[c] < 0) {
    if (threadIdx.x == 0) dweight[c] = 0.0f;
    return;
  }
  const int64_t at = (int64_t)row[c] * H;
  const float w = weight[c];
  float dot = 0.0f;
  for (int32_t i = (int32_t)threadIdx.x * V; i < H; i += (int32_t)blockDim.x * V) {
    float d[V], v[V];
    bl_load_pack<V>(d, dy + t * H + i);
    bl_load_pack<V>(v, back + at + i);
    for (int k = 0; k < V; k++) {
      dot += d[k] * v[k];
      d[k] *= w;
    }
    bl_store_pack<V>(dback + at + i, d);
  }
  dot = bl_block_sum(dot);
  if (threadIdx.x == 0) dweight[c] = dot;
}

template <typename N>
void combine_bwd(bl_stream *s, bl_num *dback, float *dweight, const bl_num *dy, const bl_num *back, const float *weight,
                 const int32_t *row, int32_t T, int32_t K, int32_t H) {
  N *to = static_cast<N *>(dback);
  const N *d = static_cast<const N *>(dy), *from = static_cast<const N *>(back);
  const bool wide = bl_all_wide(H, to, d, from);
  bl_launch(s, "combine_bwd", wide ? combine_backward<N, BL_WIDE> : combine_backward<N, 1>, {(int64_t)T * K, 1},
            bl_row_threads(H / (wide ? BL_WIDE : 1)), to, dweight, d, from, weight, row, K, H);
}

template <typename N> void fill(bl_ops *ops) {
  ops->rows_scatter = rows_scatter<N>;
  ops->rows_gather = rows_gather<N>;
  ops->combine_fwd = combine_fwd<N>;
  ops->combine_bwd = combine_bwd<N>;
  ops->rows_sum = rows_sum<N>;
}

} // namespace

void bl_cuda_rows_ops(bl_ops *ops, bool bf16) { bf16 ? fill<bl_bf16>(ops) : fill<float>(ops); }
