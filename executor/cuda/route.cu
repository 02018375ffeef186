/* route.cu - counting tokens of experts and finding the rows of the send buffer, without atomics: a block an expert
 * reads all choices and numbers its own in order. */
#include "executor/cuda/device.cuh"

namespace {

enum { THREADS = 1024 };

__global__ void count(uint32_t *counts, const int32_t *expert, int64_t n) {
  const int32_t e = (int32_t)blockIdx.x;
  uint32_t mine = 0;
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) mine += expert[i] == e;
  mine = bl_block_sum(mine);
  if (threadIdx.x == 0) counts[e] = mine;
}

void histogram(bl_stream *s, uint32_t *counts, const int32_t *expert, int64_t n, int32_t E) {
  bl_launch(s, "histogram", count, {E, 1}, THREADS, counts, expert, n);
}

/* How many threads before this one have `mine`; *all = how many in the block. */
__device__ int32_t rank_in_block(bool mine, int32_t *all) {
  __shared__ int32_t of_warp[THREADS / BL_WARP];
  const int32_t warp = (int32_t)threadIdx.x / BL_WARP, lane = (int32_t)threadIdx.x % BL_WARP;
  const unsigned mask = __ballot_sync(0xffffffffu, mine);
  if (lane == 0) of_warp[warp] = __popc(mask);
  __syncthreads();
  int32_t before = __popc(mask & ((1u << lane) - 1u)), total = 0;
  for (int32_t w = 0; w < THREADS / BL_WARP; w++) {
    if (w < warp) before += of_warp[w];
    total += of_warp[w];
  }
  __syncthreads(); /* `of_warp` serves the next call */
  *all = total;
  return before;
}

/* Row of an expert's copy number `number`: host entries h .. end take quota[h] each; -1 behind the last. */
__device__ int32_t row_of(int64_t number, int32_t h, int32_t end, const uint32_t *quota, const int32_t *dest_row) {
  for (; h < end; h++) {
    if (number < (int64_t)quota[h]) return dest_row[h] + (int32_t)number;
    number -= (int64_t)quota[h];
  }
  return -1;
}

/* Block e < E numbers the copies of expert e; block E marks the dropped ones. */
__global__ void number_copies(int32_t *row, const int32_t *expert, int64_t n, int32_t E, const int32_t *first,
                              const uint32_t *quota, const int32_t *dest_row) {
  const int32_t e = (int32_t)blockIdx.x;
  int64_t earlier = 0;
  for (int64_t base = 0; base < n; base += THREADS) {
    const int64_t i = base + threadIdx.x;
    const int32_t id = i < n ? expert[i] : E;
    if (e == E) {
      if (id < 0) row[i] = -1;
      continue;
    }
    int32_t all;
    const int32_t before = rank_in_block(id == e, &all);
    if (id == e) row[i] = row_of(earlier + before, first[e], first[e + 1], quota, dest_row);
    earlier += all;
  }
}

void route_rows(bl_stream *s, int32_t *row, const int32_t *expert, int64_t n, int32_t E, const int32_t *first,
                const uint32_t *quota, const int32_t *dest_row) {
  if (n <= 0) return;
  bl_launch(s, "route_rows", number_copies, {(int64_t)E + 1, 1}, THREADS, row, expert, n, E, first, quota, dest_row);
}

} // namespace

void bl_cuda_route_ops(bl_ops *ops) {
  ops->histogram = histogram;
  ops->route_rows = route_rows;
}
