/* gemm.h - the matrix product of the CPU backend. */
#ifndef BL_EXECUTOR_CPU_GEMM_H
#define BL_EXECUTOR_CPU_GEMM_H

#include <stdbool.h>
#include <stdint.h>

/*! bl_gemm_init() : once per backend, before the first product. */
void bl_gemm_init(void);

/*! bl_gemm_kernel() : a name for what computes, static: "own, avx512", or OpenBLAS's name of the processor. */
const char *bl_gemm_kernel(void);

/* A row-major matrix operand: `stride` elements from row to row; `transposed` = use its transpose. */
typedef struct bl_matrix {
  const float *data;
  int32_t stride;
  bool transposed;
} bl_matrix;

/*! bl_gemm() : c[m][n] = scale * a b (+ c when `accumulate`), a is [m][k] and b is [k][n] after their transposition, k
 * is at least 1. In the calling thread alone. The bits depend on sizes and values, not on where the operands lie. */
void bl_gemm(float *c, int32_t c_stride, bl_matrix a, bl_matrix b, int32_t m, int32_t n, int32_t k, float scale,
             bool accumulate);

#endif
