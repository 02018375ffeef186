/* gelu.cu - bias and GELU between two matrices of a feed-forward in one pass, and back with the bias' gradient. What is
 * kept for the backward is the product without its bias, so that the forward reads it once and writes GELU alone. */
#include "executor/cuda/linear.cuh"
#include "executor/op_math.h"

namespace {

template <typename N, int V> __device__ void load_biased(float (&v)[V], const N *x, const void *bias, int64_t column) {
  float b[V] = {};
  bl_load_pack<V>(v, x);
  if (bias) bl_load_pack<V>(b, static_cast<const N *>(bias) + column);
  for (int k = 0; k < V; k++) v[k] += b[k];
}

/* One block is a row. */
template <typename N, int V> __global__ void forward_rows(N *y, const N *hidden, bl_row_groups table, int32_t width) {
  const bl_group_row at = bl_group_row_at(table, (int64_t)blockIdx.x);
  for (int32_t i = (int32_t)threadIdx.x * V; i < width; i += (int32_t)blockDim.x * V) {
    float v[V];
    load_biased<N, V>(v, hidden + at.row * width + i, table.bias[at.group], i);
    for (int k = 0; k < V; k++) v[k] = bl_geluf(v[k]);
    bl_store_pack<V>(y + at.row * width + i, v);
  }
}

/* What is summed for the bias, and written on the way. dhidden may be dy: an element is read and written by one thread.
 */
template <typename N> struct backward_term {
  N *dhidden;
  const N *dy, *hidden;
  int32_t width;
  const void *bias[BL_COLUMN_GROUPS];
  template <int V> __device__ void at(float (&d)[V], int64_t row, int64_t column, int32_t group) const {
    const int64_t i = row * width + column;
    float v[V];
    load_biased<N, V>(v, hidden + i, bias[group], column);
    bl_load_pack<V>(d, dy + i);
    for (int k = 0; k < V; k++) d[k] *= bl_gelu_gradf(v[k]);
    bl_store_pack<V>(dhidden + i, d);
  }
};

template <typename N>
void grouped_gelu_fwd(bl_stream *s, bl_num *y, bl_num *hidden, const bl_num *x, const bl_group *groups, int32_t n,
                      int32_t width, int32_t K) {
  N *to = static_cast<N *>(y);
  const N *from = static_cast<const N *>(hidden);
  bl_cuda_grouped_forward(s, "grouped_gelu_fwd", hidden, x, groups, n, width, K);
  for (int32_t begin = 0; begin < n; begin += BL_ROW_GROUPS) {
    bl_row_groups table = {};
    for (int32_t g = begin; g < n && g < begin + BL_ROW_GROUPS; g++)
      bl_row_groups_add(&table, groups[g].first, groups[g].rows, groups[g].bias);
    const bool wide = bl_all_wide(width, to, from) && bl_biases_are_wide<N>(table);
    bl_launch(s, "grouped_gelu_fwd", wide ? forward_rows<N, BL_WIDE> : forward_rows<N, 1>, {table.start[table.n], 1},
              bl_row_threads(width / (wide ? BL_WIDE : 1)), to, from, table, width);
  }
}

template <typename N>
void grouped_gelu_bwd(bl_stream *s, bl_num *dhidden, const bl_num *dy, const bl_num *hidden, const bl_group *groups,
                      int32_t n, int32_t width) {
  backward_term<N> term = {
      static_cast<N *>(dhidden), static_cast<const N *>(dy), static_cast<const N *>(hidden), width, {}};
  const bool wide = bl_all_wide(width, term.dhidden, term.dy, term.hidden);
  for (int32_t begin = 0; begin < n; begin += BL_COLUMN_GROUPS) {
    bl_column_table table = {};
    bool all_wide = wide;
    for (int32_t g = begin; g < n && g < begin + BL_COLUMN_GROUPS; g++) {
      term.bias[table.n] = groups[g].bias; /* overwritten by the next where this one has no rows */
      all_wide = all_wide && bl_is_wide(static_cast<const N *>(groups[g].bias));
      bl_column_add(&table, groups[g].first, groups[g].rows, groups[g].grad_bias);
    }
    bl_column_sums(s, "grouped_gelu_bwd", term, table, width, all_wide);
  }
}

template <typename N> void fill(bl_ops *ops) {
  ops->grouped_gelu_fwd = grouped_gelu_fwd<N>;
  ops->grouped_gelu_bwd = grouped_gelu_bwd<N>;
}

} // namespace

void bl_cuda_gelu_ops(bl_ops *ops, bool bf16) { bf16 ? fill<bl_bf16>(ops) : fill<float>(ops); }
