/* attention_plain.cu - causal attention in fp32 arithmetic without matrix units: the checking mode, and heads wider
 * than the matrix units' kernels take.
 *
 * A block works on SIDE rows of a head (queries, or keys) and on SIDE columns of its result, and walks over tiles of
 * SIDE rows of the other kind; where a head has more columns, blocks compute the same scores for each part of them. A
 * thread has RUN x RUN numbers of a tile. */
#include "executor/cuda/attention.cuh"
#include "executor/op_math.h"

namespace {

enum { RUN = 4, ACROSS = 16, SIDE = RUN * ACROSS, THREADS = ACROSS * ACROSS, DEEP = 16 };

/* A head's rows of q, k, v or a gradient: the first row, numbers from row to row. */
template <typename N> struct matrix {
  const N *at;
  int64_t stride;
  int32_t rows, width;
  __device__ float operator()(int32_t row, int32_t column) const {
    return row < rows && column < width ? bl_load(at + row * stride + column) : 0.0f;
  }
};

struct memory {
  float a[DEEP][SIDE + 1], b[DEEP][SIDE + 1]; /* parts of the factors, columns first */
  float weight[SIDE][SIDE + 1], factor[SIDE][SIDE];
};

__device__ inline int32_t my_row(int32_t i) { return (int32_t)threadIdx.x / ACROSS * RUN + i; }
__device__ inline int32_t my_column(int32_t j) { return (int32_t)threadIdx.x % ACROSS + ACROSS * j; }

/* c = rows from `row` of a times rows from `column` of b, over all their columns. */
template <typename N>
__device__ inline void rows_by_rows(float (&c)[RUN][RUN], memory *m, const matrix<N> &a, int32_t row,
                                    const matrix<N> &b, int32_t column) {
  for (int i = 0; i < RUN; i++)
    for (int j = 0; j < RUN; j++) c[i][j] = 0.0f;
  for (int32_t begin = 0; begin < a.width; begin += DEEP) {
    __syncthreads(); /* nobody needs the parts before any more */
    for (int32_t i = (int32_t)threadIdx.x; i < SIDE * DEEP; i += THREADS) {
      m->a[i % DEEP][i / DEEP] = a(row + i / DEEP, begin + i % DEEP);
      m->b[i % DEEP][i / DEEP] = b(column + i / DEEP, begin + i % DEEP);
    }
    __syncthreads();
#pragma unroll
    for (int l = 0; l < DEEP; l++)
#pragma unroll
      for (int i = 0; i < RUN; i++)
#pragma unroll
        for (int j = 0; j < RUN; j++) c[i][j] += m->a[l][my_row(i)] * m->b[l][my_column(j)];
  }
}

/* c += weights times rows from `row` of b, columns from `column`. */
template <typename N>
__device__ inline void add_weighed(float (&c)[RUN][RUN], memory *m, const float (&weight)[RUN][RUN], const matrix<N> &b,
                                   int32_t row, int32_t column) {
  __syncthreads();
  for (int i = 0; i < RUN; i++)
    for (int j = 0; j < RUN; j++) m->weight[my_row(i)][my_column(j)] = weight[i][j];
  for (int32_t i = (int32_t)threadIdx.x; i < SIDE * SIDE; i += THREADS)
    m->factor[i / SIDE][i % SIDE] = b(row + i / SIDE, column + i % SIDE);
  __syncthreads();
  for (int l = 0; l < SIDE; l++)
#pragma unroll
    for (int i = 0; i < RUN; i++)
#pragma unroll
      for (int j = 0; j < RUN; j++) c[i][j] += m->weight[my_row(i)][l] * m->factor[l][my_column(j)];
}

template <typename N>
__device__ inline void store(N *to, int64_t stride, const float (&c)[RUN][RUN], int32_t row, int32_t column,
                             const bl_attention &a) {
  for (int i = 0; i < RUN; i++)
    for (int j = 0; j < RUN; j++)
      if (row + my_row(i) < a.seq && column + my_column(j) < a.width)
        bl_store(to + (row + my_row(i)) * stride + column + my_column(j), c[i][j]);
}

/* Of a row's numbers, which ACROSS neighbours have. */
__device__ inline float row_sum(float x) {
  for (int step = ACROSS / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

__device__ inline float row_max(float x) {
  for (int step = ACROSS / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}

/* Scores -> weights against the running maximum; out and sum are brought to it. */
__device__ inline void soften(float (&c)[RUN][RUN], float (&out)[RUN][RUN], float (&largest)[RUN], float (&sum)[RUN],
                              int32_t query, int32_t key, float scale) {
  for (int i = 0; i < RUN; i++) {
    float most = largest[i];
    for (int j = 0; j < RUN; j++) {
      c[i][j] = key + my_column(j) > query + my_row(i) ? -INFINITY : c[i][j] * scale;
      most = fmaxf(most, c[i][j]);
    }
    most = row_max(most);
    const float keep = bl_expf(largest[i] - most);
    float part = 0.0f;
    for (int j = 0; j < RUN; j++) {
      c[i][j] = bl_expf(c[i][j] - most);
      part += c[i][j];
      out[i][j] *= keep;
    }
    largest[i] = most;
    sum[i] = sum[i] * keep + row_sum(part);
  }
}

template <typename N>
__global__ void __launch_bounds__(THREADS) forward(N *out, float *lse, const N *qkv, bl_attention a, int32_t tiles) {
  __shared__ memory m;
  const bl_attention_place at = bl_attention_at(a, tiles);
  const int32_t query = at.tile * SIDE, column = (int32_t)blockIdx.y * SIDE;
  const int64_t stride = bl_qkv_stride(a);
  const matrix<N> q = {qkv + bl_qkv_start(a, at), stride, a.seq, a.width},
                  k = {q.at + stride / 3, stride, a.seq, a.width}, v = {k.at + stride / 3, stride, a.seq, a.width};
  float c[RUN][RUN], sums[RUN][RUN] = {}, largest[RUN], sum[RUN] = {};
  for (int i = 0; i < RUN; i++) largest[i] = -INFINITY;
  for (int32_t key = 0; key <= query; key += SIDE) {
    rows_by_rows(c, &m, q, query, k, key);
    soften(c, sums, largest, sum, query, key, a.scale);
    add_weighed(sums, &m, c, v, key, column);
  }
  lse += bl_lse_start(a, at);
  for (int i = 0; i < RUN; i++) {
    const int32_t row = query + my_row(i);
    for (int j = 0; j < RUN; j++) sums[i][j] *= 1.0f / sum[i];
    if (column == 0 && my_column(0) == 0 && row < a.seq) lse[row] = largest[i] + bl_logf(sum[i]);
  }
  store(out + bl_out_start(a, at), bl_out_stride(a), sums, query, column, a);
}

/* The weight of a key for a query. */
__device__ inline float weigh(float score, const bl_attention_row &kept, int32_t query, int32_t key,
                              const bl_attention &a) {
  return key > query || query >= a.seq ? 0.0f : bl_expf(score * a.scale - kept.lse);
}

template <typename N>
__global__ void __launch_bounds__(THREADS)
    backward_keys(N *dqkv, const N *dout, const N *qkv, const bl_attention_row *row, bl_attention a, int32_t tiles) {
  __shared__ memory m;
  const bl_attention_place at = bl_attention_at(a, tiles);
  const int32_t key = at.tile * SIDE, column = (int32_t)blockIdx.y * SIDE;
  const int64_t stride = bl_qkv_stride(a), start = bl_qkv_start(a, at);
  const matrix<N> q = {qkv + start, stride, a.seq, a.width}, k = {q.at + stride / 3, stride, a.seq, a.width},
                  v = {k.at + stride / 3, stride, a.seq, a.width},
                  d = {dout + bl_out_start(a, at), bl_out_stride(a), a.seq, a.width};
  float p[RUN][RUN], ds[RUN][RUN], dk[RUN][RUN] = {}, dv[RUN][RUN] = {};
  row += bl_lse_start(a, at);
  for (int32_t query = key; query < a.seq; query += SIDE) {
    rows_by_rows(p, &m, k, key, q, query);
    rows_by_rows(ds, &m, v, key, d, query);
    for (int j = 0; j < RUN; j++) {
      const int32_t from = query + my_column(j);
      const bl_attention_row kept = row[from < a.seq ? from : 0];
      for (int i = 0; i < RUN; i++) {
        p[i][j] = weigh(p[i][j], kept, from, key + my_row(i), a);
        ds[i][j] = p[i][j] * (ds[i][j] - kept.delta) * a.scale;
      }
    }
    add_weighed(dv, &m, p, d, query, column);
    add_weighed(dk, &m, ds, q, query, column);
  }
  store(dqkv + start + stride / 3, stride, dk, key, column, a);
  store(dqkv + start + stride / 3 * 2, stride, dv, key, column, a);
}

template <typename N>
__global__ void __launch_bounds__(THREADS)
    backward_queries(N *dqkv, const N *dout, const N *qkv, const bl_attention_row *row, bl_attention a, int32_t tiles) {
  __shared__ memory m;
  const bl_attention_place at = bl_attention_at(a, tiles);
  const int32_t query = at.tile * SIDE, column = (int32_t)blockIdx.y * SIDE;
  const int64_t stride = bl_qkv_stride(a), start = bl_qkv_start(a, at);
  const matrix<N> q = {qkv + start, stride, a.seq, a.width}, k = {q.at + stride / 3, stride, a.seq, a.width},
                  v = {k.at + stride / 3, stride, a.seq, a.width},
                  d = {dout + bl_out_start(a, at), bl_out_stride(a), a.seq, a.width};
  float p[RUN][RUN], ds[RUN][RUN], dq[RUN][RUN] = {};
  row += bl_lse_start(a, at);
  for (int32_t key = 0; key <= query; key += SIDE) {
    rows_by_rows(p, &m, q, query, k, key);
    rows_by_rows(ds, &m, d, query, v, key);
    for (int i = 0; i < RUN; i++) {
      const int32_t from = query + my_row(i);
      const bl_attention_row kept = row[from < a.seq ? from : 0];
      for (int j = 0; j < RUN; j++)
        ds[i][j] = weigh(p[i][j], kept, from, key + my_column(j), a) * (ds[i][j] - kept.delta) * a.scale;
    }
    add_weighed(dq, &m, ds, k, key, column);
  }
  store(dqkv + start, stride, dq, query, column, a);
}

bl_blocks blocks_of(const bl_attention &a) { return {bl_attention_blocks(a, SIDE, 0).x, bl_ceil_div(a.width, SIDE)}; }

} // namespace

template <typename N>
void bl_attention_plain_fwd(bl_stream *s, N *out, float *lse, const N *qkv, const bl_attention &a) {
  bl_launch(s, "attention_fwd", forward<N>, blocks_of(a), THREADS, out, lse, qkv, a, (int32_t)bl_ceil_div(a.seq, SIDE));
}

template <typename N>
void bl_attention_plain_bwd(bl_stream *s, N *dqkv, const N *dout, const N *qkv, const bl_attention_row *row,
                            const bl_attention &a) {
  const int32_t tiles = (int32_t)bl_ceil_div(a.seq, SIDE);
  bl_launch(s, "attention_bwd", backward_keys<N>, blocks_of(a), THREADS, dqkv, dout, qkv, row, a, tiles);
  bl_launch(s, "attention_bwd", backward_queries<N>, blocks_of(a), THREADS, dqkv, dout, qkv, row, a, tiles);
}

template void bl_attention_plain_fwd(bl_stream *, float *, float *, const float *, const bl_attention &);
template void bl_attention_plain_fwd(bl_stream *, bl_bf16 *, float *, const bl_bf16 *, const bl_attention &);
template void bl_attention_plain_bwd(bl_stream *, float *, const float *, const float *, const bl_attention_row *,
                                     const bl_attention &);
template void bl_attention_plain_bwd(bl_stream *, bl_bf16 *, const bl_bf16 *, const bl_bf16 *, const bl_attention_row *,
                                     const bl_attention &);
