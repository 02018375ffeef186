/* attention.cuh - what the kernels of attention share. No buffer anywhere grows with the square of the sequence: tiles
 * of scores live in registers, the backward computes them again from the kept log-sum-exp (Dao et al., arXiv 2205.14135
 * and 2307.08691). */
#ifndef BL_EXECUTOR_CUDA_ATTENTION_CUH
#define BL_EXECUTOR_CUDA_ATTENTION_CUH

#include "executor/cuda/mma.cuh"

struct bl_attention {
  int32_t sequences, seq, heads, width;
  float scale;
};

/* A block's place: tiles of a head one behind the other. */
struct bl_attention_place {
  int32_t tile, head, sequence;
};

__device__ static inline bl_attention_place bl_attention_at(const bl_attention &a, int32_t tiles) {
  const int32_t row = (int32_t)blockIdx.x / tiles;
  return {(int32_t)blockIdx.x % tiles, row % a.heads, row / a.heads};
}

/* Numbers from row to row of q, k or v, and of the result; a head's part of a sequence's first row; its first lse. */
__device__ static inline int64_t bl_qkv_stride(const bl_attention &a) { return 3 * (int64_t)a.heads * a.width; }
__device__ static inline int64_t bl_out_stride(const bl_attention &a) { return (int64_t)a.heads * a.width; }
__device__ static inline int64_t bl_out_start(const bl_attention &a, const bl_attention_place &at) {
  return (int64_t)at.sequence * a.seq * bl_out_stride(a) + (int64_t)at.head * a.width;
}
__device__ static inline int64_t bl_qkv_start(const bl_attention &a, const bl_attention_place &at) {
  return (int64_t)at.sequence * a.seq * bl_qkv_stride(a) + (int64_t)at.head * a.width;
}
__device__ static inline int64_t bl_lse_start(const bl_attention &a, const bl_attention_place &at) {
  return ((int64_t)at.head * a.sequences + at.sequence) * a.seq;
}

static inline bl_blocks bl_attention_blocks(const bl_attention &a, int32_t rows, size_t shared_bytes) {
  return {bl_ceil_div(a.seq, rows) * a.heads * a.sequences, 1, shared_bytes};
}

/* What the backward needs of each row of queries: [heads][sequences * seq]. */
struct bl_attention_row {
  float lse, delta; /* delta: sum of dout * out over the head's width */
};

/*! bl_attention_flash_fwd(), bl_attention_flash_bwd() : bf16 on matrix units, up to BL_FLASH_WIDTH numbers a head; as the
 *  plain ones where a block of the device cannot have the shared memory. */
enum { BL_FLASH_WIDTH = 128 };
void bl_attention_flash_fwd(bl_stream *s, bl_bf16 *out, float *lse, const bl_bf16 *qkv, const bl_attention &a);
void bl_attention_flash_bwd(bl_stream *s, bl_bf16 *dqkv, const bl_bf16 *dout, const bl_bf16 *qkv,
                            const bl_attention_row *row, const bl_attention &a);

/*! bl_attention_plain_fwd(), bl_attention_plain_bwd() : any type and width, sums in fp32. */
template <typename N>
void bl_attention_plain_fwd(bl_stream *s, N *out, float *lse, const N *qkv, const bl_attention &a);
template <typename N>
void bl_attention_plain_bwd(bl_stream *s, N *dqkv, const N *dout, const N *qkv, const bl_attention_row *row,
                            const bl_attention &a);

#endif
