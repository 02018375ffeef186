/* cuda.h - the CUDA backend, for plain C.
 *
 * One backend is one rank's view of one device; several ranks may share a device. Two compute types: fp32 (the checking
 * mode: no tensor cores, results within rounding of the CPU backend) and bf16 with fp32 master weights. The programs
 * start without any CUDA library: cuBLAS is loaded when the first backend is created. */
#ifndef BL_EXECUTOR_CUDA_CUDA_H
#define BL_EXECUTOR_CUDA_CUDA_H

#include "executor/backend.h"
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How products over groups of rows are issued: one after another; side by side on a few streams; or in one call of
 * cuBLAS' grouped interface, whose choice of kernel may look at all groups (with the others a group's bits depend on
 * its own rows alone, as ops.def asks). That interface has no fp32 result of bf16 operands, so weight gradients go one
 * after another there. */
typedef enum bl_cuda_grouping {
  BL_CUDA_GROUP_BY_GROUP,
  BL_CUDA_GROUPS_ON_STREAMS,
  BL_CUDA_GROUPS_AT_ONCE
} bl_cuda_grouping;

typedef struct bl_cuda_options {
  int32_t device;
  bool bf16; /* compute type; else fp32 */
  bl_cuda_grouping grouping;
} bl_cuda_options;

/*! bl_backend_cuda_create() : a backend on a device. Free with its destroy.
 *  @return : BL_EMACHINE with a sentence that says what is missing: driver, device, code for this device, cuBLAS. */
bl_status bl_backend_cuda_create(const bl_cuda_options *options, bl_backend **out);

/*! bl_backend_cuda_group() : changes the grouping of a backend from bl_backend_cuda_create(). */
void bl_backend_cuda_group(bl_backend *be, bl_cuda_grouping grouping);

#ifdef __cplusplus
}
#endif

#endif
