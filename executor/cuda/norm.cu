/* norm.cu - LayerNorm, a block a row. */
#include "executor/cuda/columns.cuh"

namespace {

const float NORM_EPS = 1e-5f;

template <typename N, int V>
__global__ void forward_rows(N *y, float *mean, float *rstd, const N *x, const N *weight, const N *bias, int32_t H,
                             float eps) {
  const int64_t t = (int64_t)blockIdx.x;
  const int32_t begin = (int32_t)threadIdx.x * V, step = (int32_t)blockDim.x * V;
  const float over = 1.0f / (float)H;
  float v[V], sum = 0.0f, squares = 0.0f;
  for (int32_t i = begin; i < H; i += step) {
    bl_load_pack<V>(v, x + t * H + i);
    for (int k = 0; k < V; k++) sum += v[k];
  }
  const float m = bl_block_sum(sum) * over;
  for (int32_t i = begin; i < H; i += step) {
    bl_load_pack<V>(v, x + t * H + i);
    for (int k = 0; k < V; k++) squares += (v[k] - m) * (v[k] - m);
  }
  const float r = 1.0f / sqrtf(bl_block_sum(squares) * over + eps);
  for (int32_t i = begin; i < H; i += step) {
    float w[V], b[V];
    bl_load_pack<V>(v, x + t * H + i);
    bl_load_pack<V>(w, weight + i);
    bl_load_pack<V>(b, bias + i);
    for (int k = 0; k < V; k++) v[k] = (v[k] - m) * r * w[k] + b[k];
    bl_store_pack<V>(y + t * H + i, v);
  }
  if (threadIdx.x == 0) {
    mean[t] = m;
    rstd[t] = r;
  }
}

template <typename N>
void norm_fwd(bl_stream *s, bl_num *y, float *mean, float *rstd, const bl_num *x, const bl_num *weight,
              const bl_num *bias, int32_t T, int32_t H) {
  N *to = static_cast<N *>(y);
  const N *from = static_cast<const N *>(x), *w = static_cast<const N *>(weight), *b = static_cast<const N *>(bias);
  const bool wide = bl_all_wide(H, to, from, w, b);
  bl_launch(s, "norm_fwd", wide ? forward_rows<N, BL_WIDE> : forward_rows<N, 1>, {T, 1},
            bl_row_threads(H / (wide ? BL_WIDE : 1)), to, mean, rstd, from, w, b, H, NORM_EPS);
}

/* With n = (x - mean) rstd and g = dy weight:  dx += rstd (g - mean(g) - n mean(g n)). */
template <typename N, int V>
__global__ void backward_rows(N *dx, const N *dy, const N *x, const float *mean, const float *rstd, const N *weight,
                              int32_t H) {
  const int64_t t = (int64_t)blockIdx.x;
  const int32_t begin = (int32_t)threadIdx.x * V, step = (int32_t)blockDim.x * V;
  const float m = mean[t], r = rstd[t], over = 1.0f / (float)H;
  float d[V], v[V], w[V], sum_g = 0.0f, sum_gn = 0.0f;
  for (int32_t i = begin; i < H; i += step) {
    bl_load_pack<V>(d, dy + t * H + i);
    bl_load_pack<V>(v, x + t * H + i);
    bl_load_pack<V>(w, weight + i);
    for (int k = 0; k < V; k++) {
      const float g = d[k] * w[k];
      sum_g += g;
      sum_gn += g * ((v[k] - m) * r);
    }
  }
  const float mean_g = bl_block_sum(sum_g) * over, mean_gn = bl_block_sum(sum_gn) * over;
  for (int32_t i = begin; i < H; i += step) {
    float old[V];
    bl_load_pack<V>(d, dy + t * H + i);
    bl_load_pack<V>(v, x + t * H + i);
    bl_load_pack<V>(w, weight + i);
    bl_load_pack<V>(old, dx + t * H + i);
    for (int k = 0; k < V; k++) old[k] += r * (d[k] * w[k] - mean_g - (v[k] - m) * r * mean_gn);
    bl_store_pack<V>(dx + t * H + i, old);
  }
}

template <typename N> struct weight_term {
  const N *dy, *x;
  const float *mean, *rstd;
  int32_t H;
  template <int V> __device__ void at(float (&d)[V], int64_t t, int64_t i, int32_t) const {
    float v[V];
    bl_load_pack<V>(d, dy + t * H + i);
    bl_load_pack<V>(v, x + t * H + i);
    for (int k = 0; k < V; k++) d[k] *= (v[k] - mean[t]) * rstd[t];
  }
};

template <typename N>
void norm_bwd(bl_stream *s, bl_num *dx, float *grad_weight, float *grad_bias, const bl_num *dy, const bl_num *x,
              const float *mean, const float *rstd, const bl_num *weight, int32_t T, int32_t H) {
  N *to = static_cast<N *>(dx);
  const N *d = static_cast<const N *>(dy), *from = static_cast<const N *>(x), *w = static_cast<const N *>(weight);
  const bool wide = bl_all_wide(H, to, d, from, w);
  bl_launch(s, "norm_bwd", wide ? backward_rows<N, BL_WIDE> : backward_rows<N, 1>, {T, 1},
            bl_row_threads(H / (wide ? BL_WIDE : 1)), to, d, from, mean, rstd, w, H);
  bl_column_table of_weight = {}, of_bias = {};
  bl_column_add(&of_weight, 0, T, grad_weight);
  bl_column_add(&of_bias, 0, T, grad_bias);
  bl_column_sums(s, "norm_bwd", weight_term<N>{d, from, mean, rstd, H}, of_weight, H, bl_all_wide(H, d, from));
  bl_column_sums(s, "norm_bwd", bl_row_term<N>{d, H}, of_bias, H, bl_all_wide(H, d));
}

template <typename N> void fill(bl_ops *ops) {
  ops->norm_fwd = norm_fwd<N>;
  ops->norm_bwd = norm_bwd<N>;
}

} // namespace

void bl_cuda_norm_ops(bl_ops *ops, bool bf16) { bf16 ? fill<bl_bf16>(ops) : fill<float>(ops); }
