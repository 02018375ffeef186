/* gemm.cu - matrix products by cuBLAS, and those of a linear layer.
 *
 * cuBLAS gives one shape of product the same bits each time, as long as matrices lie equally aligned: widths that are
 * multiples of 8 see to that. */
#include "executor/cuda/linear.cuh"

/* cuBLAS counts columns first: its c is our c transposed, so c^T = b^T a^T is asked for and operands change places. */
void bl_cuda_gemm(bl_stream *s, const char *what, const bl_cuda_product &p) {
  if (p.m <= 0 || p.n <= 0) return;
  const bl_cublas *blas = bl_cuda_blas(s, what);
  if (!blas) return;
  const cudaDataType_t num = s->backend->bf16 ? CUDA_R_16BF : CUDA_R_32F, type = p.c_is_f32 ? CUDA_R_32F : num;
  const cublasOperation_t a_op = p.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
                          b_op = p.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
  const float scale = 1.0f, keep = p.accumulate ? 1.0f : 0.0f;
  const cublasStatus_t status =
      blas->cublasGemmEx_64(s->blas, b_op, a_op, p.n, p.m, p.k, &scale, p.b, num, p.b_stride, p.a, num, p.a_stride,
                            &keep, p.c, type, p.c_stride, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
  if (status != CUBLAS_STATUS_SUCCESS) bl_cuda_fail_text(s->backend, what, blas->cublasGetStatusString(status));
}

namespace {

template <typename N>
void linear_fwd(bl_stream *s, bl_num *y, const bl_num *x, const bl_num *weight, const bl_num *bias, int32_t T,
                int32_t width, int32_t K, bool accumulate) {
  bl_row_groups table = {};
  if (bias) bl_row_groups_add(&table, 0, T, bias);
  bl_put_biases(s, "linear_fwd", static_cast<N *>(y), table, width, accumulate);
  bl_cuda_gemm(s, "linear_fwd", bl_forward(y, x, weight, T, width, K, bias || accumulate));
}

void linear_dx(bl_stream *s, bl_num *dx, const bl_num *dy, const bl_num *weight, int32_t T, int32_t N, int32_t K,
               bool accumulate) {
  bl_cuda_gemm(s, "linear_dx", bl_backward_x(dx, dy, weight, T, N, K, accumulate));
}

template <typename N>
void linear_dw(bl_stream *s, float *grad_weight, float *grad_bias, const bl_num *dy, const bl_num *x, int32_t T,
               int32_t width, int32_t K) {
  if (T <= 0) return;
  bl_column_table table = {};
  const N *rows = static_cast<const N *>(dy);
  if (grad_bias) bl_column_add(&table, 0, T, grad_bias);
  bl_column_sums(s, "linear_dw", bl_row_term<N>{rows, width}, table, width, bl_all_wide(width, rows));
  bl_cuda_gemm(s, "linear_dw", bl_backward_w(grad_weight, dy, x, T, width, K));
}

template <typename N> void fill(bl_ops *ops) {
  ops->linear_fwd = linear_fwd<N>;
  ops->linear_dx = linear_dx;
  ops->linear_dw = linear_dw<N>;
}

} // namespace

void bl_cuda_linear_ops(bl_ops *ops, bool bf16) { bf16 ? fill<bl_bf16>(ops) : fill<float>(ops); }
