/* open_backend.c - a backend by name. */
#include "executor/backend.h"
#include "executor/cuda/cuda.h"
#include <string.h>

bl_status bl_backend_check(const char *backend, const char *precision, const char *expert_gemm) {
  const bool cpu = !strcmp(backend, "cpu");
  if (cpu && !strcmp(precision, "bf16"))
    return bl_fail(BL_EUSAGE, "--precision bf16: the cpu backend computes in fp32 alone");
  if (cpu && strcmp(expert_gemm, "loop") != 0)
    return bl_fail(BL_EUSAGE, "--expert-gemm %s: the cpu backend has no streams; it takes loop alone", expert_gemm);
#ifndef BL_HAVE_CUDA
  if (!cpu) return bl_fail(BL_ENOTSUP, "this build has no %s backend", backend);
#endif
  return BL_OK;
}

bl_status bl_backend_open(const char *backend, const char *precision, int32_t device, bl_backend **out) {
  BL_TRY(bl_backend_check(backend, precision, "loop"));
#ifdef BL_HAVE_CUDA
  const bl_cuda_options cuda = {.device = device, .bf16 = strcmp(precision, "fp32") != 0};
  if (!strcmp(backend, "cuda")) return bl_backend_cuda_create(&cuda, out);
#endif
  (void)device;
  return bl_backend_cpu_create(out);
}

void bl_backend_expert_gemm(bl_backend *be, const char *expert_gemm) {
#ifdef BL_HAVE_CUDA
  const bl_cuda_grouping grouping = !strcmp(expert_gemm, "streams")   ? BL_CUDA_GROUPS_ON_STREAMS
                                    : !strcmp(expert_gemm, "grouped") ? BL_CUDA_GROUPS_AT_ONCE
                                                                      : BL_CUDA_GROUP_BY_GROUP;
  if (!strcmp(be->name, "cuda")) bl_backend_cuda_group(be, grouping);
#endif
  (void)be, (void)expert_gemm;
}
