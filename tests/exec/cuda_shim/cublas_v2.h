/* cublas_v2.h - a stand-in for cuBLAS' header of that name: the products by plain loops. */
#ifndef BL_TESTS_CUDA_SHIM_CUBLAS_H
#define BL_TESTS_CUDA_SHIM_CUBLAS_H

#include <cuda_runtime.h>

enum cublasStatus_t { CUBLAS_STATUS_SUCCESS, CUBLAS_STATUS_INVALID_VALUE };
enum cublasOperation_t { CUBLAS_OP_N, CUBLAS_OP_T };
enum cudaDataType_t { CUDA_R_32F, CUDA_R_16BF };
enum cublasComputeType_t { CUBLAS_COMPUTE_32F };
enum cublasGemmAlgo_t { CUBLAS_GEMM_DEFAULT };
enum cublasMath_t { CUBLAS_DEFAULT_MATH = 0, CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION = 16 };
typedef struct shim_blas *cublasHandle_t;

cublasStatus_t cublasCreate_v2(cublasHandle_t *out);
cublasStatus_t cublasDestroy_v2(cublasHandle_t handle);
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream);
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void *workspace, size_t bytes);
cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode);
const char *cublasGetStatusString(cublasStatus_t status);

cublasStatus_t cublasGemmEx_64(cublasHandle_t handle, cublasOperation_t a_op, cublasOperation_t b_op, int64_t m,
                               int64_t n, int64_t k, const void *alpha, const void *a, cudaDataType_t a_type,
                               int64_t a_stride, const void *b, cudaDataType_t b_type, int64_t b_stride,
                               const void *beta, void *c, cudaDataType_t c_type, int64_t c_stride,
                               cublasComputeType_t compute, cublasGemmAlgo_t algorithm);
cublasStatus_t cublasGemmGroupedBatchedEx_64(cublasHandle_t handle, const cublasOperation_t a_op[],
                                             const cublasOperation_t b_op[], const int64_t m[], const int64_t n[],
                                             const int64_t k[], const void *alpha, const void *const a[],
                                             cudaDataType_t a_type, const int64_t a_stride[], const void *const b[],
                                             cudaDataType_t b_type, const int64_t b_stride[], const void *beta,
                                             void *const c[], cudaDataType_t c_type, const int64_t c_stride[],
                                             int64_t groups, const int64_t sizes[], cublasComputeType_t compute);

#endif
