/* cublas.cu - loads cuBLAS. */
#include "executor/cuda/cublas.cuh"
#include <dlfcn.h>
#include <mutex>
#include <string.h>

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
static const char LIBRARY[] = "libcublas.so." TEXT(CUBLAS_VER_MAJOR);

static bl_status load(bl_cublas *table) {
  void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
  if (!library) return bl_fail(BL_EMACHINE, "the CUDA backend needs %s: %s", LIBRARY, dlerror());
#define X(name)                                                                                                     \
  {                                                                                                                 \
    void *found = dlsym(library, #name);                                                                            \
    if (!found)                                                                                                     \
      return bl_fail(BL_EMACHINE, "the CUDA backend needs %s with the function %s; a newer cuBLAS has it", LIBRARY, \
                     #name);                                                                                        \
    memcpy(&table->name, &found, sizeof found);                                                                     \
  }
  BL_CUBLAS_FUNCTIONS(X)
#undef X
  return BL_OK;
}

bl_status bl_cublas_load(const bl_cublas **out) {
  static std::mutex lock;
  static bl_cublas table;
  static bool loaded;
  const std::lock_guard<std::mutex> guard(lock);
  if (!loaded) BL_TRY(load(&table));
  loaded = true;
  *out = &table;
  return BL_OK;
}
