/* grouped.cu - matrix products of experts, over groups of rows.
 *
 * Three ways to issue them (cuda.h), of which measurements on the device at hand decide: one product after another;
 * side by side on several streams, which fills a device where one product does not; all in one call of cuBLAS' grouped
 * interface. */
#include "executor/cuda/linear.cuh"

namespace {

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
  b->scale[i] = 1.0f;
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

/* All lanes, with their cuBLAS: a step that is captured later finds what it needs. False after a failure. */
bool open_lanes(bl_stream *s, const char *what) {
  for (int32_t i = 0; i < BL_CUDA_LANES; i++) {
    if (s->lane[i]) continue;
    if (s->backend->base.stream_create(&s->backend->base, &s->lane[i]) != BL_OK)
      bl_cuda_fail_text(s->backend, what, bl_error_text());
    if (s->backend->failure[0] || !bl_cuda_blas(s->lane[i], what)) return false;
  }
  return true;
}

/* So many other streams begin when the work before is done; -1 after a failure, which is kept. */
int32_t fork(bl_stream *s, const char *what, int32_t wanted) {
  const int32_t n = wanted < BL_CUDA_LANES ? wanted : BL_CUDA_LANES;
  if (!open_lanes(s, what)) return -1;
  bl_cuda_fail(s->backend, what, cudaEventRecord(s->joint, s->stream));
  for (int32_t i = 0; i < n; i++) bl_cuda_fail(s->backend, what, cudaStreamWaitEvent(s->lane[i]->stream, s->joint, 0));
  return n;
}

/* What comes after waits for the lanes. */
void join(bl_stream *s, const char *what, int32_t n) {
  for (int32_t i = 0; i < n; i++) {
    bl_cuda_fail(s->backend, what, cudaEventRecord(s->lane[i]->joint, s->lane[i]->stream));
    bl_cuda_fail(s->backend, what, cudaStreamWaitEvent(s->stream, s->lane[i]->joint, 0));
  }
}

/* The product of every group that has rows, one after another on the stream, or dealt to it and its lanes. */
template <typename Product>
void run_each(bl_stream *s, const char *what, const bl_group *groups, int32_t n, const Product &product) {
  int32_t full = 0, next = 0;
  for (int32_t g = 0; g < n; g++) full += groups[g].rows > 0;
  const bool side_by_side = s->backend->grouping == BL_CUDA_GROUPS_ON_STREAMS && full > 0 && bl_cuda_enter(s);
  const int32_t lanes = side_by_side ? fork(s, what, full - 1) : 0;
  for (int32_t g = 0; g < n && lanes >= 0; g++) {
    if (groups[g].rows <= 0) continue;
    bl_cuda_gemm(next == lanes ? s : s->lane[next], what, product(groups[g]));
    next = next == lanes ? 0 : next + 1;
  }
  join(s, what, lanes);
}

/* The grouped interface wants 16-byte aligned matrices. What it makes of its host arrays is not said to last as long as a
 * graph. */
template <typename Product>
void run_groups(bl_stream *s, const char *what, const bl_group *groups, int32_t n, int32_t N, int32_t K,
                const Product &product) {
  if (s->backend->grouping != BL_CUDA_GROUPS_AT_ONCE || s->backend->capturing || N % 8 != 0 || K % 8 != 0)
    return run_each(s, what, groups, n, product);
  batch waiting = {};
  for (const bl_group *g = groups; g < groups + n; g++) {
    if (g->rows <= 0) continue;
    add_product(&waiting, product(*g));
    if (waiting.n < AT_ONCE) continue;
    run_batch(s, what, &waiting);
    waiting.n = 0;
  }
  run_batch(s, what, &waiting);
}

template <typename N>
void forward(bl_stream *s, const char *what, N *to, const N *from, const bl_group *groups, int32_t n, int32_t width,
             int32_t K, bool onto_biases) {
  run_groups(s, what, groups, n, width, K, [=](const bl_group &g) {
    return bl_forward(to + (int64_t)g.first * width, from + (int64_t)g.first * K, g.weight, g.rows, width, K,
                      onto_biases && g.bias);
  });
}

template <typename N>
void grouped_fwd(bl_stream *s, bl_num *y, const bl_num *x, const bl_group *groups, int32_t n, int32_t width,
                 int32_t K) {
  N *to = static_cast<N *>(y);
  for (int32_t begin = 0; begin < n; begin += BL_ROW_GROUPS) {
    bl_row_groups table = {};
    for (int32_t g = begin; g < n && g < begin + BL_ROW_GROUPS; g++)
      if (groups[g].bias) bl_row_groups_add(&table, groups[g].first, groups[g].rows, groups[g].bias);
    bl_put_biases(s, "grouped_fwd", to, table, width, false);
  }
  forward(s, "grouped_fwd", to, static_cast<const N *>(x), groups, n, width, K, true);
}

template <typename N>
void grouped_dx(bl_stream *s, bl_num *dx, const bl_num *dy, const bl_group *groups, int32_t n, int32_t width,
                int32_t K) {
  N *to = static_cast<N *>(dx);
  const N *from = static_cast<const N *>(dy);
  run_groups(s, "grouped_dx", groups, n, width, K, [=](const bl_group &g) {
    return bl_backward_x(to + (int64_t)g.first * K, from + (int64_t)g.first * width, g.weight, g.rows, width, K, false);
  });
}

template <typename N>
void grouped_dw(bl_stream *s, const bl_num *dy, const bl_num *x, const bl_group *groups, int32_t n, int32_t width,
                int32_t K) {
  const N *rows = static_cast<const N *>(dy), *from = static_cast<const N *>(x);
  for (int32_t begin = 0; begin < n; begin += BL_COLUMN_GROUPS) {
    bl_column_table table = {};
    for (int32_t g = begin; g < n && g < begin + BL_COLUMN_GROUPS; g++)
      if (groups[g].grad_bias) bl_column_add(&table, groups[g].first, groups[g].rows, groups[g].grad_bias);
    bl_column_sums(s, "grouped_dw", bl_row_term<N>{rows, width}, table, width, bl_all_wide(width, rows));
  }
  run_each(s, "grouped_dw", groups, n, [=](const bl_group &g) {
    return bl_backward_w(g.grad_weight, rows + (int64_t)g.first * width, from + (int64_t)g.first * K, g.rows, width, K);
  });
}

template <typename N> void fill(bl_ops *ops) {
  ops->grouped_fwd = grouped_fwd<N>;
  ops->grouped_dx = grouped_dx<N>;
  ops->grouped_dw = grouped_dw<N>;
}

} // namespace

void bl_cuda_grouped_forward(bl_stream *s, const char *what, bl_num *y, const bl_num *x, const bl_group *groups,
                             int32_t n, int32_t N, int32_t K) {
  if (s->backend->bf16)
    forward(s, what, static_cast<bl_bf16 *>(y), static_cast<const bl_bf16 *>(x), groups, n, N, K, false);
  else
    forward(s, what, static_cast<float *>(y), static_cast<const float *>(x), groups, n, N, K, false);
}

void bl_cuda_grouped_ops(bl_ops *ops, bool bf16) { bf16 ? fill<bl_bf16>(ops) : fill<float>(ops); }
