/* cublas.cuh - the functions of cuBLAS that the backend uses, found at run time, and the one product made of them.
 *
 * Linking cuBLAS would cost every start of a program that may train on the CPU alone 70 ms and 200 MB. */
#ifndef BL_EXECUTOR_CUDA_CUBLAS_CUH
#define BL_EXECUTOR_CUDA_CUBLAS_CUH

#include <cublas_v2.h>
#include <stdint.h>

extern "C" {
#include "base/status.h"
}

/* The _64 forms are no overloads in C++. */
#define BL_CUBLAS_FUNCTIONS(X)     \
  X(cublasCreate_v2)               \
  X(cublasDestroy_v2)              \
  X(cublasSetStream_v2)            \
  X(cublasSetWorkspace_v2)         \
  X(cublasSetMathMode)             \
  X(cublasGemmEx_64)               \
  X(cublasGemmGroupedBatchedEx_64) \
  X(cublasGetStatusString)

struct bl_cublas {
#define X(name) decltype(&::name) name;
  BL_CUBLAS_FUNCTIONS(X)
#undef X
};

/*! bl_cublas_load() : the functions, loaded once per process; any thread.  @return : BL_EMACHINE where the library or
 *  one of them is missing. */
bl_status bl_cublas_load(const bl_cublas **out);

/* c[m][n] = a b (+ c), a is [m][k] and b is [k][n] after their transposition; all row-major, strides in elements from
 * row to row. a, b of the compute type; c too, or fp32. */
struct bl_cuda_product {
  void *c;
  const void *a, *b;
  int32_t c_stride, a_stride, b_stride;
  bool a_transposed, b_transposed, c_is_f32, accumulate;
  int32_t m, n, k;
};

/*! bl_cuda_gemm() : issues the product; a failure is kept in the backend. Nothing to do where m or n is 0. */
void bl_cuda_gemm(struct bl_stream *s, const char *what, const bl_cuda_product &product);

#endif
