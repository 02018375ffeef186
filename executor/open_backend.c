/* open_backend.c - a backend by name. */
#include "executor/backend.h"
#include "executor/cuda/cuda.h"
#include <string.h>

bl_status bl_backend_check(const char *backend, const char *precision) {
  const bool cpu = !strcmp(backend, "cpu");
  if (cpu && !strcmp(precision, "bf16"))
    return bl_fail(BL_EUSAGE, "--precision bf16: the cpu backend computes in fp32 alone");
#ifndef BL_HAVE_CUDA
  if (!cpu) return bl_fail(BL_ENOTSUP, "this build has no %s backend", backend);
#endif
  return BL_OK;
}

bl_status bl_backend_open(const char *backend, const char *precision, int32_t device, bl_backend **out) {
  BL_TRY(bl_backend_check(backend, precision));
#ifdef BL_HAVE_CUDA
  const bl_cuda_options cuda = {.device = device, .bf16 = strcmp(precision, "fp32") != 0};
  if (!strcmp(backend, "cuda")) return bl_backend_cuda_create(&cuda, out);
#endif
  (void)device;
  return bl_backend_cpu_create(out);
}
