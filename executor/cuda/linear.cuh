/* linear.cuh - what layers and experts share: their three products, and the rows of groups with a bias each. */
#ifndef BL_EXECUTOR_CUDA_LINEAR_CUH
#define BL_EXECUTOR_CUDA_LINEAR_CUH

#include "executor/cuda/columns.cuh"

/* y[T][N] (+)= x[T][K] weight[N][K]^T */
static inline bl_cuda_product bl_forward(void *y, const void *x, const void *weight, int32_t T, int32_t N, int32_t K,
                                         bool accumulate) {
  return {y, x, weight, N, K, K, false, true, false, accumulate, T, N, K};
}

/* dx[T][K] (+)= dy[T][N] weight[N][K] */
static inline bl_cuda_product bl_backward_x(void *dx, const void *dy, const void *weight, int32_t T, int32_t N,
                                            int32_t K, bool accumulate) {
  return {dx, dy, weight, K, N, K, false, false, false, accumulate, T, K, N};
}

/* grad[N][K] += dy[T][N]^T x[T][K] */
static inline bl_cuda_product bl_backward_w(float *grad, const void *dy, const void *x, int32_t T, int32_t N,
                                            int32_t K) {
  return {grad, dy, x, K, N, K, true, false, true, true, N, K, T};
}

enum { BL_ROW_GROUPS = 32 };

/* Group g has rows first[g] .. of a matrix; counted through all groups its rows are start[g] .. start[g + 1]. */
struct bl_row_groups {
  int32_t n;
  int32_t first[BL_ROW_GROUPS];
  int64_t start[BL_ROW_GROUPS + 1];
  const void *bias[BL_ROW_GROUPS]; /* or NULL */
};

static inline void bl_row_groups_add(bl_row_groups *table, int32_t first, int32_t rows, const void *bias) {
  if (rows <= 0) return;
  table->first[table->n] = first;
  table->bias[table->n] = bias;
  table->start[table->n + 1] = table->start[table->n] + rows;
  table->n++;
}

/* Group and row in the matrix of the i-th row. */
struct bl_group_row {
  int32_t group;
  int64_t row;
};

__device__ static inline bl_group_row bl_group_row_at(const bl_row_groups &table, int64_t i) {
  int32_t g = 0;
  while (i >= table.start[g + 1]) g++;
  return {g, table.first[g] + i - table.start[g]};
}

/*! bl_biases_are_wide() : whether all biases allow wide accesses. */
template <typename N> static bool bl_biases_are_wide(const bl_row_groups &table) {
  bool wide = true;
  for (int32_t g = 0; g < table.n; g++) wide = wide && bl_is_wide(static_cast<const N *>(table.bias[g]));
  return wide;
}

template <typename N, int V> __global__ void bl_bias_rows(N *y, bl_row_groups table, int32_t width, bool add) {
  const bl_group_row at = bl_group_row_at(table, (int64_t)blockIdx.x);
  N *row = y + at.row * width;
  const N *bias = static_cast<const N *>(table.bias[at.group]);
  for (int32_t i = (int32_t)threadIdx.x * V; i < width; i += (int32_t)blockDim.x * V) {
    float v[V], old[V];
    bl_load_pack<V>(v, bias + i);
    if (add) {
      bl_load_pack<V>(old, row + i);
      for (int k = 0; k < V; k++) v[k] += old[k];
    }
    bl_store_pack<V>(row + i, v);
  }
}

/*! bl_put_biases() : every row of the groups becomes its group's bias, or that is added; all groups have one. */
template <typename N>
static void bl_put_biases(bl_stream *s, const char *what, N *y, const bl_row_groups &table, int32_t width, bool add) {
  if (table.n == 0) return;
  const bool wide = bl_all_wide(width, y) && bl_biases_are_wide<N>(table);
  bl_launch(s, what, wide ? bl_bias_rows<N, BL_WIDE> : bl_bias_rows<N, 1>, {table.start[table.n], 1},
            bl_row_threads(width / (wide ? BL_WIDE : 1)), y, table, width, add);
}

/*! bl_cuda_grouped_forward() : y = x weight^T group by group, without biases, issued as the backend's option says. */
void bl_cuda_grouped_forward(bl_stream *s, const char *what, bl_num *y, const bl_num *x, const bl_group *groups,
                             int32_t n, int32_t N, int32_t K);

#endif
