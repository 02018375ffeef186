/* parts.cuh - many tensors in one launch: each is cut into runs of BL_RUN numbers, a block takes a run. */
#ifndef BL_EXECUTOR_CUDA_PARTS_CUH
#define BL_EXECUTOR_CUDA_PARTS_CUH

#include "executor/cuda/device.cuh"

enum { BL_RUN = 16384, BL_RUN_THREADS = 256 };

static inline int64_t bl_runs(int64_t n) { return bl_ceil_div(n, BL_RUN); }

/* On the device: the parts, and the runs in front of each, first[0] = 0 .. first[n] = all. */
template <typename Part> struct bl_part_table {
  const Part *part;
  const int64_t *first;
  int32_t n;
  int64_t runs; /* host: first[n] */
};

/* The part to which a run belongs: the last that begins at or before it and is not empty. */
static __device__ inline int32_t bl_part_of(const int64_t *first, int32_t n, int64_t run) {
  int32_t low = 0, high = n;
  while (low + 1 < high) {
    const int32_t middle = low + (high - low) / 2;
    if (first[middle] <= run)
      low = middle;
    else
      high = middle;
  }
  return low;
}

/*! bl_upload_parts() : the table on the device, until the stream's next upload.  @return : false after a failure, which
 *  is kept, and where there is nothing to do. */
template <typename Part>
static bool bl_upload_parts(bl_stream *s, const char *what, const Part *parts, int32_t n, bl_part_table<Part> *out) {
  if (n <= 0) return false;
  int64_t *first = static_cast<int64_t *>(malloc(((size_t)n + 1) * sizeof *first));
  if (!first) {
    bl_cuda_fail_text(s->backend, what, "out of memory for a list of tensors");
    return false;
  }
  first[0] = 0;
  for (int32_t i = 0; i < n; i++) first[i + 1] = first[i] + bl_runs(parts[i].n);
  const size_t bytes = (size_t)n * sizeof *parts;
  const bl_host_part both[] = {{parts, bytes}, {first, ((size_t)n + 1) * sizeof *first}};
  const char *table = static_cast<const char *>(bl_cuda_upload(s, what, both, 2));
  *out = {reinterpret_cast<const Part *>(table), reinterpret_cast<const int64_t *>(table + bytes), n, first[n]};
  free(first);
  return table != NULL;
}

#endif
