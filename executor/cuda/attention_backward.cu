/* attention_backward.cu - gradients of causal attention in bf16 on matrix units.
 *
 * Scores are computed again from the kept log-sum-exp, twice: once by blocks that have keys and walk over the queries
 * behind them (gradients of keys and values), once by blocks that have queries and walk over the keys before them
 * (gradients of queries). So every sum has one place and one order; adding the queries' gradients from the first kind
 * of blocks would save two of the seven products and need atomics. */
#include "executor/cuda/attention.cuh"

namespace {

enum { WARPS = 4, THREADS = WARPS * BL_WARP, ROWS = WARPS * 16, STEP = 64 };
const float LOG2_E = 1.44269504f;

template <int D> constexpr size_t shared_bytes(void) {
  return bl_tile_bytes<D>(2 * ROWS + 4 * STEP) + 2 * STEP * sizeof(bl_attention_row);
}

/* The shared memory of a block: two tiles of its own rows, two times two tiles that pass by, and for those that are
 * queries what is kept of each. */
template <int D> struct tiles {
  bl_bf16 *own[2], *passing[2];
  bl_attention_row *kept;
  static constexpr int32_t STAGE = STEP * bl_tile_stride<D>();
};

template <int D> __device__ inline tiles<D> place_tiles(void) {
  bl_bf16 *at = reinterpret_cast<bl_bf16 *>(bl_shared());
  tiles<D> t;
  t.own[0] = at;
  t.own[1] = at + ROWS * bl_tile_stride<D>();
  t.passing[0] = at + 2 * ROWS * bl_tile_stride<D>();
  t.passing[1] = t.passing[0] + 2 * tiles<D>::STAGE;
  t.kept = reinterpret_cast<bl_attention_row *>(t.passing[1] + 2 * tiles<D>::STAGE);
  return t;
}

/* Of the passing queries; a row that does not exist weighs nothing. */
__device__ inline void keep_rows(bl_attention_row *to, const bl_attention_row *from, int32_t first, int32_t seq) {
  const int32_t i = (int32_t)threadIdx.x;
  if (i < STEP) to[i] = first + i < seq ? from[first + i] : bl_attention_row{INFINITY, 0.0f};
}

/* c: scores of 16 keys (rows) and STEP queries -> their weights. */
__device__ inline void weigh_queries(float (&c)[1][STEP / 8][4], const bl_attention_row *kept, int32_t key,
                                     int32_t query, float scale) {
  const int32_t lane = (int32_t)threadIdx.x % BL_WARP;
#pragma unroll
  for (int j = 0; j < STEP / 8; j++)
#pragma unroll
    for (int k = 0; k < 4; k++) {
      const int32_t column = 8 * j + lane % 4 * 2 + k % 2, row = lane / 4 + k / 2 * 8;
      const float weight = bl_exp2(c[0][j][k] * scale - kept[column].lse * LOG2_E);
      c[0][j][k] = key + row > query + column ? 0.0f : weight;
    }
}

template <int D>
__global__ void __launch_bounds__(THREADS)
    backward_keys(bl_bf16 *dqkv, const bl_bf16 *dout, const bl_bf16 *qkv, const bl_attention_row *row, bl_attention a,
                  int32_t all, bool wide) {
  const bl_attention_place at = bl_attention_at(a, all);
  const int32_t begin = at.tile * ROWS, first = (int32_t)threadIdx.x / BL_WARP * 16, key = begin + first;
  const int64_t stride = bl_qkv_stride(a), start = bl_qkv_start(a, at);
  const bl_bf16 *q = qkv + start, *k = q + stride / 3, *v = k + stride / 3, *d = dout + bl_out_start(a, at);
  const tiles<D> t = place_tiles<D>();
  row += bl_lse_start(a, at);
  float dk[1][D / 8][4] = {}, dv[1][D / 8][4] = {};

  bl_tile_load<D, ROWS>(t.own[0], k, begin, a.seq, stride, a.width, wide);
  bl_tile_load<D, ROWS>(t.own[1], v, begin, a.seq, stride, a.width, wide);
  for (int32_t query = begin, stage = 0; query < a.seq + STEP; query += STEP, stage ^= 1) {
    bl_copies_wait();
    __syncthreads(); /* what was asked for is there, and nobody needs this stage any more */
    if (query < a.seq) {
      bl_tile_load<D, STEP>(t.passing[0] + stage * t.STAGE, q, query, a.seq, stride, a.width, wide);
      bl_tile_load<D, STEP>(t.passing[1] + stage * t.STAGE, d, query, a.seq, bl_out_stride(a), a.width, wide);
      keep_rows(t.kept + stage * STEP, row, query, a.seq);
    }
    if (query == begin || key >= a.seq) continue;
    const int32_t now = (stage ^ 1) * t.STAGE;
    const bl_attention_row *kept = t.kept + (stage ^ 1) * STEP;
    float p[1][STEP / 8][4], ds[1][STEP / 8][4];
    bl_rows_by_rows<D>(p, t.own[0] + first * bl_tile_stride<D>(), t.passing[0] + now);
    bl_rows_by_rows<D>(ds, t.own[1] + first * bl_tile_stride<D>(), t.passing[1] + now);
    weigh_queries(p, kept, key, query - STEP, a.scale * LOG2_E);
#pragma unroll
    for (int j = 0; j < STEP / 8; j++)
#pragma unroll
      for (int i = 0; i < 4; i++)
        ds[0][j][i] = p[0][j][i] * (ds[0][j][i] - kept[8 * j + threadIdx.x % 4 * 2 + i % 2].delta);
    bl_add_by_columns<D>(dv, p, t.passing[1] + now);
    bl_add_by_columns<D>(dk, ds, t.passing[0] + now);
  }
#pragma unroll
  for (int part = 0; part < 2; part++) {
    const int32_t to = key + (int32_t)threadIdx.x % BL_WARP / 4 + 8 * part;
    bl_bf16 *dkey = dqkv + start + to * stride + stride / 3;
    if (to >= a.seq) continue;
    bl_tile_store_row<D>(dkey, dk[0], part, a.scale, a.width, wide);
    bl_tile_store_row<D>(dkey + stride / 3, dv[0], part, 1.0f, a.width, wide);
  }
}

/* Longest rows of tiles first. */
template <int D>
__global__ void __launch_bounds__(THREADS)
    backward_queries(bl_bf16 *dqkv, const bl_bf16 *dout, const bl_bf16 *qkv, const bl_attention_row *row,
                     bl_attention a, int32_t all, bool wide) {
  bl_attention_place at = bl_attention_at(a, all);
  at.tile = all - 1 - at.tile;
  const int32_t lane = (int32_t)threadIdx.x % BL_WARP, first = (int32_t)threadIdx.x / BL_WARP * 16;
  const int32_t begin = at.tile * ROWS, query = begin + first, end = begin + ROWS < a.seq ? begin + ROWS : a.seq;
  const int64_t stride = bl_qkv_stride(a), start = bl_qkv_start(a, at);
  const bl_bf16 *q = qkv + start, *k = q + stride / 3, *v = k + stride / 3, *d = dout + bl_out_start(a, at);
  const tiles<D> t = place_tiles<D>();
  float dq[1][D / 8][4] = {};
  bl_attention_row mine[2];
#pragma unroll
  for (int part = 0; part < 2; part++) {
    const int32_t i = query + lane / 4 + 8 * part;
    mine[part] = i < a.seq ? row[bl_lse_start(a, at) + i] : bl_attention_row{INFINITY, 0.0f};
  }

  bl_tile_load<D, ROWS>(t.own[0], q, begin, a.seq, stride, a.width, wide);
  bl_tile_load<D, ROWS>(t.own[1], d, begin, a.seq, bl_out_stride(a), a.width, wide);
  for (int32_t key = 0, stage = 0; key < end + STEP; key += STEP, stage ^= 1) {
    bl_copies_wait();
    __syncthreads();
    if (key < end) {
      bl_tile_load<D, STEP>(t.passing[0] + stage * t.STAGE, k, key, a.seq, stride, a.width, wide);
      bl_tile_load<D, STEP>(t.passing[1] + stage * t.STAGE, v, key, a.seq, stride, a.width, wide);
    }
    if (key == 0 || query >= a.seq) continue;
    const int32_t now = (stage ^ 1) * t.STAGE, before = key - STEP;
    float p[1][STEP / 8][4], ds[1][STEP / 8][4];
    bl_rows_by_rows<D>(p, t.own[0] + first * bl_tile_stride<D>(), t.passing[0] + now);
    bl_rows_by_rows<D>(ds, t.own[1] + first * bl_tile_stride<D>(), t.passing[1] + now);
#pragma unroll
    for (int j = 0; j < STEP / 8; j++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const bl_attention_row kept = mine[i / 2];
        const float weight = bl_exp2(p[0][j][i] * (a.scale * LOG2_E) - kept.lse * LOG2_E);
        const bool sees = before + 8 * j + lane % 4 * 2 + i % 2 <= query + lane / 4 + i / 2 * 8;
        ds[0][j][i] = sees ? weight * (ds[0][j][i] - kept.delta) : 0.0f;
      }
    bl_add_by_columns<D>(dq, ds, t.passing[0] + now);
  }
#pragma unroll
  for (int part = 0; part < 2; part++) {
    const int32_t to = query + lane / 4 + 8 * part;
    if (to < a.seq) bl_tile_store_row<D>(dqkv + start + to * stride, dq[0], part, a.scale, a.width, wide);
  }
}

template <int D>
void launch(bl_stream *s, bl_bf16 *dqkv, const bl_bf16 *dout, const bl_bf16 *qkv, const bl_attention_row *row,
            const bl_attention &a) {
  if (shared_bytes<D>() > s->backend->shared_bytes) return bl_attention_plain_bwd(s, dqkv, dout, qkv, row, a);
  const bl_blocks blocks = bl_attention_blocks(a, ROWS, shared_bytes<D>());
  const int32_t all = (int32_t)bl_ceil_div(a.seq, ROWS);
  const bool wide = bl_tile_is_wide(a.width, dqkv, dout, qkv);
  bl_launch(s, "attention_bwd", backward_keys<D>, blocks, THREADS, dqkv, dout, qkv, row, a, all, wide);
  bl_launch(s, "attention_bwd", backward_queries<D>, blocks, THREADS, dqkv, dout, qkv, row, a, all, wide);
}

} // namespace

void bl_attention_flash_bwd(bl_stream *s, bl_bf16 *dqkv, const bl_bf16 *dout, const bl_bf16 *qkv,
                            const bl_attention_row *row, const bl_attention &a) {
  if (a.width <= 32) return launch<32>(s, dqkv, dout, qkv, row, a);
  if (a.width <= 64) return launch<64>(s, dqkv, dout, qkv, row, a);
  if (a.width <= 96) return launch<96>(s, dqkv, dout, qkv, row, a);
  launch<128>(s, dqkv, dout, qkv, row, a);
}
