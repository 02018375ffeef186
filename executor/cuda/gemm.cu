/* gemm.cu - matrix products of layers and of experts by cuBLAS; biases and column sums by own kernels.
 *
 * cuBLAS gives one shape of product the same bits each time, as long as matrices lie equally aligned: widths that are
 * multiples of 8 see to that. */
#include "executor/cuda/columns.cuh"

/* cuBLAS counts columns first: its c is our c transposed, so c^T = b^T a^T is asked for and operands change places. */
void bl_cuda_gemm(bl_stream *s, const char *what, const bl_cuda_product &p) {
  if (p.m <= 0 || p.n <= 0 || p.batch <= 0) return;
  const bl_cublas *blas = bl_cuda_blas(s, what);
  if (!blas) return;
  const cudaDataType_t num = s->backend->bf16 ? CUDA_R_16BF : CUDA_R_32F, type = p.c_is_f32 ? CUDA_R_32F : num;
  const cublasOperation_t a_op = p.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
                          b_op = p.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
  const float keep = p.accumulate ? 1.0f : 0.0f;
  cublasStatus_t status;
  if (p.batch == 1)
    status = blas->cublasGemmEx_64(s->blas, b_op, a_op, p.n, p.m, p.k, &p.scale, p.b, num, p.b_stride, p.a, num,
                                   p.a_stride, &keep, p.c, type, p.c_stride, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
  else
    status = blas->cublasGemmStridedBatchedEx_64(s->blas, b_op, a_op, p.n, p.m, p.k, &p.scale, p.b, num, p.b_stride,
                                                 p.b_step, p.a, num, p.a_stride, p.a_step, &keep, p.c, type, p.c_stride,
                                                 p.c_step, p.batch, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
  if (status != CUBLAS_STATUS_SUCCESS) bl_cuda_fail_text(s->backend, what, blas->cublasGetStatusString(status));
}

namespace {

/* -- biases ----------------------------------------------------------------------------------------------------------
 */

enum { BIAS_GROUPS = 32 };

/* Group g has rows first[g] .. of y; counted through all groups its rows are start[g] .. start[g + 1]. */
struct bias_table {
  int32_t n;
  int32_t first[BIAS_GROUPS];
  int64_t start[BIAS_GROUPS + 1];
  const void *bias[BIAS_GROUPS];
};

template <typename N, int V> __global__ void bias_rows(N *y, bias_table table, int32_t width, bool add) {
  const int64_t at = (int64_t)blockIdx.x;
  int32_t g = 0;
  while (at >= table.start[g + 1]) g++;
  N *row = y + (table.first[g] + at - table.start[g]) * width;
  const N *bias = static_cast<const N *>(table.bias[g]);
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

template <typename N>
void put_biases(bl_stream *s, const char *what, N *y, const bias_table &table, int32_t width, bool add) {
  if (table.n == 0) return;
  bool wide = bl_all_wide(width, y);
  for (int32_t g = 0; g < table.n; g++) wide = wide && bl_is_wide(static_cast<const N *>(table.bias[g]));
  bl_launch(s, what, wide ? bias_rows<N, BL_WIDE> : bias_rows<N, 1>, {table.start[table.n], 1},
            bl_row_threads(width / (wide ? BL_WIDE : 1)), y, table, width, add);
}

void add_bias(bias_table *table, int32_t first, int32_t rows, const void *bias) {
  if (!bias || rows <= 0) return;
  if (table->n == 0) table->start[0] = 0;
  table->first[table->n] = first;
  table->bias[table->n] = bias;
  table->start[table->n + 1] = table->start[table->n] + rows;
  table->n++;
}

template <typename N> struct row_value {
  const N *x;
  int32_t width;
  __device__ float operator()(int64_t row, int64_t column) const { return bl_load(x + row * width + column); }
};

/* -- the three products of a linear layer ----------------------------------------------------------------------------
 */

/* y[T][N] (+)= x[T][K] weight[N][K]^T */
bl_cuda_product forward(void *y, const void *x, const void *weight, int32_t T, int32_t N, int32_t K, bool accumulate) {
  return {y, x, weight, N, K, K, false, true, false, accumulate, T, N, K, 1.0f, 1, 0, 0, 0};
}

/* dx[T][K] (+)= dy[T][N] weight[N][K] */
bl_cuda_product backward_x(void *dx, const void *dy, const void *weight, int32_t T, int32_t N, int32_t K,
                           bool accumulate) {
  return {dx, dy, weight, K, N, K, false, false, false, accumulate, T, K, N, 1.0f, 1, 0, 0, 0};
}

/* grad[N][K] += dy[T][N]^T x[T][K] */
bl_cuda_product backward_w(float *grad, const void *dy, const void *x, int32_t T, int32_t N, int32_t K) {
  return {grad, dy, x, K, N, K, true, false, true, true, N, K, T, 1.0f, 1, 0, 0, 0};
}

template <typename N>
void linear_fwd(bl_stream *s, bl_num *y, const bl_num *x, const bl_num *weight, const bl_num *bias, int32_t T,
                int32_t width, int32_t K, bool accumulate) {
  bias_table table = {};
  add_bias(&table, 0, T, bias);
  put_biases(s, "linear_fwd", static_cast<N *>(y), table, width, accumulate);
  bl_cuda_gemm(s, "linear_fwd", forward(y, x, weight, T, width, K, bias || accumulate));
}

void linear_dx(bl_stream *s, bl_num *dx, const bl_num *dy, const bl_num *weight, int32_t T, int32_t N, int32_t K,
               bool accumulate) {
  bl_cuda_gemm(s, "linear_dx", backward_x(dx, dy, weight, T, N, K, accumulate));
}

template <typename N>
void linear_dw(bl_stream *s, float *grad_weight, float *grad_bias, const bl_num *dy, const bl_num *x, int32_t T,
               int32_t width, int32_t K) {
  if (T <= 0) return;
  bl_column_table table = {};
  bl_column_add(&table, 0, T, grad_bias);
  bl_column_sums(s, "linear_dw", row_value<N>{static_cast<const N *>(dy), width}, table, width);
  bl_cuda_gemm(s, "linear_dw", backward_w(grad_weight, dy, x, T, width, K));
}

/* -- groups
 * ------------------------------------------------------------------------------------------------------------ */

/* Up to AT_ONCE products of one shape but for their rows, as cuBLAS' grouped interface wants them: all host arrays but
 * the matrices' addresses. */
enum { AT_ONCE = 128 };

struct batch {
  int64_t n, m[AT_ONCE], rows[AT_ONCE], k[AT_ONCE], weight_stride[AT_ONCE], x_stride[AT_ONCE], y_stride[AT_ONCE];
  int64_t one[AT_ONCE];
  float scale[AT_ONCE], keep[AT_ONCE];
  cublasOperation_t weight_op[AT_ONCE], x_op[AT_ONCE];
  const void *address[3 * AT_ONCE]; /* weights, then x, then y, n each */
};

void add_product(batch *b, const bl_cuda_product &p) {
  const int64_t i = b->n++;
  b->m[i] = p.n;
  b->rows[i] = p.m;
  b->k[i] = p.k;
  b->weight_stride[i] = p.b_stride;
  b->x_stride[i] = p.a_stride;
  b->y_stride[i] = p.c_stride;
  b->one[i] = 1;
  b->scale[i] = p.scale;
  b->keep[i] = p.accumulate ? 1.0f : 0.0f;
  b->weight_op[i] = p.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
  b->x_op[i] = CUBLAS_OP_N;
  b->address[3 * i] = p.b;
  b->address[3 * i + 1] = p.a;
  b->address[3 * i + 2] = p.c;
}

void run_batch(bl_stream *s, const char *what, const batch *b) {
  if (b->n == 0) return;
  const bl_cublas *blas = bl_cuda_blas(s, what);
  if (!blas) return;
  const void *sorted[3 * AT_ONCE];
  for (int64_t i = 0; i < b->n; i++)
    for (int64_t k = 0; k < 3; k++) sorted[k * b->n + i] = b->address[3 * i + k];
  const bl_host_part part = {sorted, 3 * (size_t)b->n * sizeof *sorted};
  void *uploaded = bl_cuda_upload(s, what, &part, 1);
  if (!uploaded) return;
  void **weight = static_cast<void **>(uploaded), **x = weight + b->n, **y = x + b->n;
  const cudaDataType_t num = s->backend->bf16 ? CUDA_R_16BF : CUDA_R_32F;
  const cublasStatus_t status = blas->cublasGemmGroupedBatchedEx_64(
      s->blas, b->weight_op, b->x_op, b->m, b->rows, b->k, b->scale, weight, num, b->weight_stride, x, num, b->x_stride,
      b->keep, y, num, b->y_stride, b->n, b->one, CUBLAS_COMPUTE_32F);
  if (status != CUBLAS_STATUS_SUCCESS) bl_cuda_fail_text(s->backend, what, blas->cublasGetStatusString(status));
}

/* The product of every group that has rows. The grouped interface wants 16-byte aligned matrices. */
template <typename Product>
void run_groups(bl_stream *s, const char *what, const bl_group *groups, int32_t n, int32_t N, int32_t K,
                const Product &product) {
  const bool at_once = s->backend->grouping == BL_CUDA_GROUPS_AT_ONCE && N % 8 == 0 && K % 8 == 0;
  batch waiting = {};
  for (const bl_group *g = groups; g < groups + n; g++) {
    if (g->rows <= 0) continue;
    if (!at_once) bl_cuda_gemm(s, what, product(*g));
    if (at_once) add_product(&waiting, product(*g));
    if (waiting.n < AT_ONCE) continue;
    run_batch(s, what, &waiting);
    waiting.n = 0;
  }
  run_batch(s, what, &waiting);
}

template <typename N>
void grouped_fwd(bl_stream *s, bl_num *y, const bl_num *x, const bl_group *groups, int32_t n, int32_t width,
                 int32_t K) {
  N *to = static_cast<N *>(y);
  const N *from = static_cast<const N *>(x);
  for (int32_t begin = 0; begin < n; begin += BIAS_GROUPS) {
    bias_table table = {};
    for (int32_t g = begin; g < n && g < begin + BIAS_GROUPS; g++)
      add_bias(&table, groups[g].first, groups[g].rows, groups[g].bias);
    put_biases(s, "grouped_fwd", to, table, width, false);
  }
  run_groups(s, "grouped_fwd", groups, n, width, K, [=](const bl_group &g) {
    return forward(to + (int64_t)g.first * width, from + (int64_t)g.first * K, g.weight, g.rows, width, K,
                   g.bias != NULL);
  });
}

template <typename N>
void grouped_dx(bl_stream *s, bl_num *dx, const bl_num *dy, const bl_group *groups, int32_t n, int32_t width,
                int32_t K) {
  N *to = static_cast<N *>(dx);
  const N *from = static_cast<const N *>(dy);
  run_groups(s, "grouped_dx", groups, n, width, K, [=](const bl_group &g) {
    return backward_x(to + (int64_t)g.first * K, from + (int64_t)g.first * width, g.weight, g.rows, width, K, false);
  });
}

template <typename N>
void grouped_dw(bl_stream *s, const bl_num *dy, const bl_num *x, const bl_group *groups, int32_t n, int32_t width,
                int32_t K) {
  const N *rows = static_cast<const N *>(dy), *from = static_cast<const N *>(x);
  for (int32_t begin = 0; begin < n; begin += BL_COLUMN_GROUPS) {
    bl_column_table table = {};
    for (int32_t g = begin; g < n && g < begin + BL_COLUMN_GROUPS; g++)
      bl_column_add(&table, groups[g].first, groups[g].rows, groups[g].grad_bias);
    bl_column_sums(s, "grouped_dw", row_value<N>{rows, width}, table, width);
  }
  for (const bl_group *g = groups; g < groups + n; g++) {
    if (g->rows <= 0) continue;
    bl_cuda_gemm(
        s, "grouped_dw",
        backward_w(g->grad_weight, rows + (int64_t)g->first * width, from + (int64_t)g->first * K, g->rows, width, K));
  }
}

template <typename N> void fill(bl_ops *ops) {
  ops->linear_fwd = linear_fwd<N>;
  ops->linear_dx = linear_dx;
  ops->linear_dw = linear_dw<N>;
  ops->grouped_fwd = grouped_fwd<N>;
  ops->grouped_dx = grouped_dx<N>;
  ops->grouped_dw = grouped_dw<N>;
}

} // namespace

void bl_cuda_linear_ops(bl_ops *ops, bool bf16) { bf16 ? fill<bl_bf16>(ops) : fill<float>(ops); }
