/* attention.cu - causal softmax attention: which kernels run. */
#include "executor/cuda/attention.cuh"

namespace {

/* A warp a row of a head. */
template <typename N>
__global__ void backward_rows(bl_attention_row *row, const N *dout, const N *out, const float *lse, bl_attention a) {
  const int64_t T = (int64_t)a.sequences * a.seq;
  const int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / BL_WARP; /* head of a token, heads together */
  if (i >= T * a.heads) return;
  float sum = 0.0f;
  for (int32_t j = (int32_t)threadIdx.x % BL_WARP; j < a.width; j += BL_WARP)
    sum += bl_load(dout + i * a.width + j) * bl_load(out + i * a.width + j);
  sum = bl_warp_sum(sum);
  const int64_t at = i % a.heads * T + i / a.heads;
  if (threadIdx.x % BL_WARP == 0) row[at] = {lse[at], sum};
}

bool prepare(bl_attention *a, int32_t sequences, int32_t seq, int32_t heads, int32_t width) {
  *a = {sequences, seq, heads, width, 1.0f / sqrtf((float)width)};
  return sequences > 0 && seq > 0 && heads > 0 && width > 0;
}

void forward(bl_stream *s, float *out, float *lse, const float *qkv, const bl_attention &a) {
  bl_attention_plain_fwd(s, out, lse, qkv, a);
}

void forward(bl_stream *s, bl_bf16 *out, float *lse, const bl_bf16 *qkv, const bl_attention &a) {
  if (a.width > BL_FLASH_WIDTH) return bl_attention_plain_fwd(s, out, lse, qkv, a);
  bl_attention_flash_fwd(s, out, lse, qkv, a);
}

void backward(bl_stream *s, float *dqkv, const float *dout, const float *qkv, const bl_attention_row *row,
              const bl_attention &a) {
  bl_attention_plain_bwd(s, dqkv, dout, qkv, row, a);
}

void backward(bl_stream *s, bl_bf16 *dqkv, const bl_bf16 *dout, const bl_bf16 *qkv, const bl_attention_row *row,
              const bl_attention &a) {
  if (a.width > BL_FLASH_WIDTH) return bl_attention_plain_bwd(s, dqkv, dout, qkv, row, a);
  bl_attention_flash_bwd(s, dqkv, dout, qkv, row, a);
}

template <typename N>
void attention_fwd(bl_stream *s, bl_num *out, float *lse, const bl_num *qkv, int32_t sequences, int32_t seq,
                   int32_t heads, int32_t width) {
  bl_attention a;
  if (prepare(&a, sequences, seq, heads, width)) forward(s, static_cast<N *>(out), lse, static_cast<const N *>(qkv), a);
}

template <typename N>
void attention_bwd(bl_stream *s, bl_num *dqkv, const bl_num *dout, const bl_num *qkv, const bl_num *out,
                   const float *lse, int32_t sequences, int32_t seq, int32_t heads, int32_t width) {
  enum { THREADS = 256 };
  bl_attention a;
  if (!prepare(&a, sequences, seq, heads, width)) return;
  const int64_t rows = (int64_t)sequences * seq * heads;
  char *scratch = bl_cuda_scratch(s, "attention_bwd", (size_t)rows * sizeof(bl_attention_row));
  if (!scratch) return;
  bl_attention_row *row = reinterpret_cast<bl_attention_row *>(scratch);
  bl_launch(s, "attention_bwd", backward_rows<N>, {bl_ceil_div(rows, THREADS / BL_WARP), 1}, THREADS, row,
            static_cast<const N *>(dout), static_cast<const N *>(out), lse, a);
  backward(s, static_cast<N *>(dqkv), static_cast<const N *>(dout), static_cast<const N *>(qkv), row, a);
}

template <typename N> void fill(bl_ops *ops) {
  ops->attention_fwd = attention_fwd<N>;
  ops->attention_bwd = attention_bwd<N>;
}

} // namespace

void bl_cuda_attention_ops(bl_ops *ops, bool bf16) { bf16 ? fill<bl_bf16>(ops) : fill<float>(ops); }
