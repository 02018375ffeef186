/* attention_forward.cu - causal attention in bf16 on matrix units, tile by tile, softmax by running maxima.
 *
 * A block has WARPS * 16 M queries of a head, a warp 16 M of them; it walks over the keys up to its last query in tiles
 * of KEYS, the next tile being copied while one is computed. */
#include "executor/cuda/attention.cuh"
#include "executor/op_math.h"

namespace {

enum { WARPS = 4, THREADS = WARPS * BL_WARP, KEYS = 64 };
const float LOG2_E = 1.44269504f;

template <int D, int M> constexpr size_t shared_bytes(void) { return bl_tile_bytes<D>(WARPS * 16 * M + 4 * KEYS); }

/* Of a tile's scores c, beginning at `key`: columns behind the rows' own, which begin at `query`, are -inf. */
template <int M> __device__ inline void mask(float (&c)[M][KEYS / 8][4], int32_t query, int32_t key) {
  const int32_t lane = (int32_t)threadIdx.x % BL_WARP;
#pragma unroll
  for (int i = 0; i < M; i++)
#pragma unroll
    for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
      for (int k = 0; k < 4; k++)
        if (key + 8 * j + lane % 4 * 2 + k % 2 > query + 16 * i + lane / 4 + k / 2 * 8) c[i][j][k] = -INFINITY;
}

/* Running maximum and sum of a row's scores; four lanes have a row, each the whole maximum and a part of the sum. */
struct running {
  float largest, sum;
};

/* Scores -> 2^(scaled score - scaled maximum); out is brought to the new maximum. */
template <int D, int M>
__device__ inline void soften(float (&c)[M][KEYS / 8][4], float (&out)[M][D / 8][4], running (&rows)[M][2],
                              float scale) {
#pragma unroll
  for (int i = 0; i < M; i++)
#pragma unroll
    for (int part = 0; part < 2; part++) {
      running *r = &rows[i][part];
      float largest = r->largest;
#pragma unroll
      for (int j = 0; j < KEYS / 8; j++) largest = fmaxf(largest, fmaxf(c[i][j][2 * part], c[i][j][2 * part + 1]));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
      const float shift = largest * scale, keep = bl_exp2(r->largest * scale - shift);
      float sum = r->sum * keep;
#pragma unroll
      for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
        for (int k = 2 * part; k < 2 * part + 2; k++) {
          c[i][j][k] = bl_exp2(c[i][j][k] * scale - shift);
          sum += c[i][j][k];
        }
#pragma unroll
      for (int j = 0; j < D / 8; j++)
#pragma unroll
        for (int k = 2 * part; k < 2 * part + 2; k++) out[i][j][k] *= keep;
      *r = {largest, sum};
    }
}

template <int D, int M>
__device__ inline void store(bl_bf16 *out, float *lse, const float (&sums)[M][D / 8][4], const running (&rows)[M][2],
                             int32_t query, const bl_attention &a, bool wide) {
  const int32_t lane = (int32_t)threadIdx.x % BL_WARP;
#pragma unroll
  for (int i = 0; i < M; i++)
#pragma unroll
    for (int part = 0; part < 2; part++) {
      const int32_t row = query + 16 * i + lane / 4 + 8 * part;
      float sum = rows[i][part].sum;
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      if (row >= a.seq) continue;
      const float over = 1.0f / sum;
      bl_tile_store_row<D>(out + row * bl_out_stride(a), sums[i], part, over, a.width, wide);
      if (lane % 4 == 0) lse[row] = rows[i][part].largest * a.scale + bl_logf(sum);
    }
}

/* Longest rows of tiles first. Narrow heads leave registers for three blocks of a multiprocessor. */
template <int D, int M>
__global__ void __launch_bounds__(THREADS, D <= 64 ? 3 : 1)
    forward(bl_bf16 *out, float *lse, const bl_bf16 *qkv, bl_attention a, int32_t tiles, bool wide) {
  constexpr int32_t QUERIES = WARPS * 16 * M, STAGE = KEYS * bl_tile_stride<D>();
  bl_attention_place at = bl_attention_at(a, tiles);
  at.tile = tiles - 1 - at.tile;
  const int32_t begin = at.tile * QUERIES, query = begin + (int32_t)threadIdx.x / BL_WARP * 16 * M;
  const int32_t end = begin + QUERIES < a.seq ? begin + QUERIES : a.seq, all = (int32_t)bl_ceil_div(end, KEYS);
  const int64_t stride = bl_qkv_stride(a);
  const bl_bf16 *q = qkv + bl_qkv_start(a, at), *k = q + stride / 3, *v = k + stride / 3;
  bl_bf16 *queries = reinterpret_cast<bl_bf16 *>(bl_shared()), *keys = queries + QUERIES * bl_tile_stride<D>();
  bl_bf16 *values = keys + 2 * STAGE;
  float sums[M][D / 8][4] = {};
  running rows[M][2];
#pragma unroll
  for (int i = 0; i < M; i++) rows[i][0] = rows[i][1] = {-INFINITY, 0.0f};

  bl_tile_load<D, QUERIES>(queries, q, begin, a.seq, stride, a.width, wide);
  bl_tile_load<D, KEYS>(keys, k, 0, a.seq, stride, a.width, wide);
  bl_tile_load<D, KEYS>(values, v, 0, a.seq, stride, a.width, wide);
  for (int32_t t = 0; t < all; t++) {
    const int32_t now = t % 2 * STAGE, next = STAGE - now, key = t * KEYS;
    bl_copies_wait();
    __syncthreads(); /* this tile is there, and nobody needs the other stage any more */
    if (t + 1 < all) {
      bl_tile_load<D, KEYS>(keys + next, k, key + KEYS, a.seq, stride, a.width, wide);
      bl_tile_load<D, KEYS>(values + next, v, key + KEYS, a.seq, stride, a.width, wide);
    }
    if (query >= a.seq || key > query + 16 * M - 1) continue; /* all of the warp's rows lie before this tile */
    float c[M][KEYS / 8][4];
    bl_rows_by_rows<D>(c, queries + (query - begin) * bl_tile_stride<D>(), keys + now);
    if (key + KEYS - 1 > query) mask(c, query, key);
    soften<D>(c, sums, rows, a.scale * LOG2_E);
    bl_add_by_columns<D>(sums, c, values + now);
  }
  store<D>(out + bl_out_start(a, at), lse + bl_lse_start(a, at), sums, rows, query, a, wide);
}

template <int D, int M> void launch(bl_stream *s, bl_bf16 *out, float *lse, const bl_bf16 *qkv, const bl_attention &a) {
  constexpr int32_t QUERIES = WARPS * 16 * M;
  if (shared_bytes<D, M>() > s->backend->shared_bytes) return bl_attention_plain_fwd(s, out, lse, qkv, a);
  bl_launch(s, "attention_fwd", forward<D, M>, bl_attention_blocks(a, QUERIES, shared_bytes<D, M>()), THREADS, out, lse,
            qkv, a, (int32_t)bl_ceil_div(a.seq, QUERIES), bl_tile_is_wide(a.width, qkv, out));
}

} // namespace

void bl_attention_flash_fwd(bl_stream *s, bl_bf16 *out, float *lse, const bl_bf16 *qkv, const bl_attention &a) {
  if (a.width <= 32) return launch<32, 2>(s, out, lse, qkv, a);
  if (a.width <= 64) return launch<64, 2>(s, out, lse, qkv, a);
  if (a.width <= 96) return launch<96, 2>(s, out, lse, qkv, a);
  launch<128, 2>(s, out, lse, qkv, a);
}
