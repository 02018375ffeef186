/* columns.cuh - sums over the rows of groups, column by column, in an order that depends on the number of a group's
 * rows alone: rows in runs of CHUNK_ROWS, a run in eight interleaved parts, then the runs in order. */
#ifndef BL_EXECUTOR_CUDA_COLUMNS_CUH
#define BL_EXECUTOR_CUDA_COLUMNS_CUH

#include "executor/cuda/device.cuh"

enum { BL_COLUMN_GROUPS = 32, BL_CHUNK_ROWS = 256, BL_COLUMN_PARTS = 8 };

/* Group g: rows first[g] .. first[g] + rows[g], its runs are chunk[g] .. chunk[g + 1]; sums are added to target[g]. */
struct bl_column_table {
  int32_t n;
  int32_t first[BL_COLUMN_GROUPS], rows[BL_COLUMN_GROUPS], chunk[BL_COLUMN_GROUPS + 1];
  float *target[BL_COLUMN_GROUPS];
};

/* A group without rows is left out; one without a target has its terms computed and no sum. */
static inline void bl_column_add(bl_column_table *table, int32_t first, int32_t rows, float *target) {
  if (rows <= 0) return;
  const int32_t g = table->n++;
  if (g == 0) table->chunk[0] = 0;
  table->first[g] = first;
  table->rows[g] = rows;
  table->target[g] = target;
  table->chunk[g + 1] = table->chunk[g] + (int32_t)bl_ceil_div(rows, BL_CHUNK_ROWS);
}

/* partial[run][column]; block x is a run, block y 32 V columns. term.at<V>(v, row, column, group) gives V neighbours of
 * what is summed, each of them once. */
template <int V, typename Term>
__global__ void bl_column_runs(Term term, float *partial, bl_column_table table, int32_t N) {
  __shared__ float part[BL_COLUMN_PARTS][BL_WARP * V + 1];
  const int32_t run = (int32_t)blockIdx.x, lane = (int32_t)threadIdx.x % BL_WARP, y = (int32_t)threadIdx.x / BL_WARP;
  const int64_t column = ((int64_t)blockIdx.y * BL_WARP + lane) * V;
  int32_t g = 0;
  while (run >= table.chunk[g + 1]) g++;
  const int32_t begin = (run - table.chunk[g]) * BL_CHUNK_ROWS;
  const int32_t end = table.rows[g] - begin < BL_CHUNK_ROWS ? table.rows[g] : begin + BL_CHUNK_ROWS;
  float sum[V] = {}, v[V];
#pragma unroll 4
  for (int32_t row = begin + y; row < end && column < N; row += BL_COLUMN_PARTS) {
    term.template at<V>(v, (int64_t)table.first[g] + row, column, g);
    for (int k = 0; k < V; k++) sum[k] += v[k];
  }
  for (int k = 0; k < V; k++) part[y][lane * V + k] = sum[k];
  __syncthreads();
  if (y > 0 || column >= N) return;
  for (int k = 0; k < V; k++) {
    for (int32_t i = 1; i < BL_COLUMN_PARTS; i++) sum[k] += part[i][lane * V + k];
    partial[run * (int64_t)N + column + k] = sum[k];
  }
}

/* Block x is a group, block y 256 columns. */
static __global__ void bl_column_finish(const float *partial, bl_column_table table, int32_t N) {
  const int32_t g = (int32_t)blockIdx.x;
  const int64_t column = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
  if (column >= N || !table.target[g]) return;
  float sum = 0.0f;
  for (int32_t run = table.chunk[g]; run < table.chunk[g + 1]; run++) sum += partial[run * (int64_t)N + column];
  table.target[g][column] += sum;
}

/* The sum of rows themselves. */
template <typename N> struct bl_row_term {
  const N *x;
  int32_t width;
  template <int V> __device__ void at(float (&v)[V], int64_t row, int64_t column, int32_t) const {
    bl_load_pack<V>(v, x + row * width + column);
  }
};

/*! bl_column_sums() : target[g][column] += sum of the terms over the rows of group g. `wide`: the terms allow BL_WIDE
 * neighbours at once. Uses the stream's scratch. */
template <typename Term>
static void bl_column_sums(bl_stream *s, const char *what, const Term &term, const bl_column_table &table, int32_t N,
                           bool wide) {
  if (table.n == 0 || N <= 0) return;
  const int32_t runs = table.chunk[table.n];
  char *partial = bl_cuda_scratch(s, what, sizeof(float) * (size_t)runs * (size_t)N);
  if (!partial) return;
  float *sums = reinterpret_cast<float *>(partial);
  bl_launch(s, what, wide ? bl_column_runs<BL_WIDE, Term> : bl_column_runs<1, Term>,
            {runs, bl_ceil_div(N, BL_WARP * (wide ? BL_WIDE : 1))}, BL_WARP * BL_COLUMN_PARTS, term, sums, table, N);
  bl_launch(s, what, bl_column_finish, {table.n, bl_ceil_div(N, 256)}, 256, sums, table, N);
}

#endif
