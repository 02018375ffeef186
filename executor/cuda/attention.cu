/* attention.cu - causal softmax attention: products by cuBLAS, softmax and its gradient by own kernels.
 *
 * Blocks of ROWS queries against the keys up to the block's end, for as many heads at once as the scratch memory
 * allows. Scores and their gradients are fp32; probabilities, as an operand of the next product, are of the compute
 * type. Gradients of keys and values are added up over the blocks in fp32 and converted once. */
#include "executor/cuda/device.cuh"
#include "executor/op_math.h"

/* A test without a device takes small ones, so that short sequences have several blocks and runs of heads. */
#ifndef BL_ATTENTION_ROWS
#define BL_ATTENTION_ROWS 1024
#define BL_ATTENTION_SCRATCH ((size_t)256 << 20)
#endif

namespace {

enum { ROWS = BL_ATTENTION_ROWS };
const size_t SCRATCH_BYTES = BL_ATTENTION_SCRATCH; /* wanted; one head of one block is taken whatever it needs */

size_t aligned(size_t bytes) { return (bytes + 255) / 256 * 256; }

/* What an operation works on now: heads [head, head + heads) of a sequence, queries [begin, end), keys [0, end). */
struct piece {
  int32_t sequence, head, heads, begin, end;
};

/* One block is a row of a head. score[heads][rows][end] -> p likewise, zero behind the query; lse as in ops.def. */
template <typename N>
__global__ void softmax_rows(N *p, float *lse, const float *score, piece now, int32_t sequences, int32_t seq) {
  const int32_t rows = now.end - now.begin, h = (int32_t)blockIdx.x / rows, i = now.begin + (int32_t)blockIdx.x % rows;
  const int32_t n = i + 1, me = (int32_t)threadIdx.x, step = (int32_t)blockDim.x;
  const float *from = score + (int64_t)blockIdx.x * now.end;
  N *to = p + (int64_t)blockIdx.x * now.end;
  float largest = -INFINITY, sum = 0.0f;
  for (int32_t j = me; j < n; j += step) largest = from[j] > largest ? from[j] : largest;
  largest = bl_block_max(largest);
  for (int32_t j = me; j < n; j += step) sum += bl_expf(from[j] - largest);
  sum = bl_block_sum(sum);
  const float over = 1.0f / sum;
  for (int32_t j = me; j < now.end; j += step) bl_store(to + j, j < n ? bl_expf(from[j] - largest) * over : 0.0f);
  if (me == 0) lse[((int64_t)(now.head + h) * sequences + now.sequence) * seq + i] = largest + bl_logf(sum);
}

/* p as above from the kept lse; ds = the gradient of the scores before scaling, p (dp - delta) scale. */
template <typename N>
__global__ void softmax_rows_backward(N *p, N *ds, const float *score, const float *dp, const N *dout, const N *out,
                                      const float *lse, piece now, int32_t sequences, int32_t seq, int32_t all_heads,
                                      int32_t width, float scale) {
  const int32_t rows = now.end - now.begin, h = (int32_t)blockIdx.x / rows, i = now.begin + (int32_t)blockIdx.x % rows;
  const int32_t n = i + 1, me = (int32_t)threadIdx.x, step = (int32_t)blockDim.x;
  const int64_t at = (int64_t)blockIdx.x * now.end;
  const int64_t row = (((int64_t)now.sequence * seq + i) * all_heads + now.head + h) * width;
  float dot = 0.0f;
  for (int32_t j = me; j < width; j += step) dot += bl_load(dout + row + j) * bl_load(out + row + j);
  const float delta = bl_block_sum(dot), kept = lse[((int64_t)(now.head + h) * sequences + now.sequence) * seq + i];
  for (int32_t j = me; j < now.end; j += step) {
    const float q = j < n ? bl_expf(score[at + j] - kept) : 0.0f;
    bl_store(p + at + j, q);
    bl_store(ds + at + j, j < n ? q * (dp[at + j] - delta) * scale : 0.0f);
  }
}

/* One block is a key of a head: sums[heads][seq][width] -> rows of the compute type, all_width apart. */
template <typename N>
__global__ void convert_rows(N *to, const float *sums, int32_t seq, int32_t width, int64_t all_width) {
  const int32_t h = (int32_t)blockIdx.x / seq, j = (int32_t)blockIdx.x % seq;
  for (int32_t i = (int32_t)threadIdx.x; i < width; i += (int32_t)blockDim.x)
    bl_store(to + j * all_width + h * width + i, sums[(int64_t)blockIdx.x * width + i]);
}

/* The sizes of a call, and its scratch. */
template <typename N> struct attention {
  bl_stream *s;
  const char *what;
  int32_t sequences, seq, all_heads, width, at_once; /* heads at once */
  int64_t H;
  float scale;
  float *score, *dp, *dk, *dv; /* [at_once][rows][end], twice; [at_once][seq][width], twice */
  N *p, *ds;                   /* [at_once][rows][end], twice */
};

template <typename N>
bool prepare(attention<N> *a, bl_stream *s, const char *what, int32_t sequences, int32_t seq, int32_t heads,
             int32_t width, bool backward) {
  *a = {};
  a->s = s;
  a->what = what;
  a->sequences = sequences;
  a->seq = seq;
  a->all_heads = heads;
  a->width = width;
  a->H = (int64_t)heads * width;
  a->scale = 1.0f / sqrtf((float)width);
  if (sequences <= 0 || seq <= 0 || a->H <= 0) return false;
  const size_t rows = seq < ROWS ? (size_t)seq : (size_t)ROWS, cells = rows * (size_t)seq;
  const size_t scores = aligned(cells * sizeof(float)), nums = aligned(cells * sizeof(N));
  const size_t keys = aligned((size_t)seq * (size_t)width * sizeof(float));
  const size_t a_head = backward ? 2 * (scores + nums + keys) : scores + nums;
  const size_t fit = SCRATCH_BYTES / a_head, n = fit < 1 ? 1 : fit < (size_t)heads ? fit : (size_t)heads;
  a->at_once = (int32_t)n;
  char *at = bl_cuda_scratch(s, what, n * a_head);
  if (!at) return false;
  a->score = reinterpret_cast<float *>(at);
  a->p = reinterpret_cast<N *>(at + n * scores);
  if (!backward) return true;
  at += n * (scores + nums);
  a->dp = reinterpret_cast<float *>(at);
  a->ds = reinterpret_cast<N *>(at + n * scores);
  a->dk = reinterpret_cast<float *>(at + n * (scores + nums));
  a->dv = reinterpret_cast<float *>(at + n * (scores + nums + keys));
  return true;
}

/* score = scale q k^T; q and k point to the piece's first head in the sequence's first row. */
template <typename N> void scores(const attention<N> &a, const piece &now, const N *q, const N *k) {
  const int32_t rows = now.end - now.begin, stride = (int32_t)(3 * a.H);
  bl_cuda_gemm(a.s, a.what,
               {a.score, q + now.begin * 3 * a.H, k, now.end, stride, stride, false, true, true, false, rows, now.end,
                a.width, a.scale, now.heads, (int64_t)rows * now.end, a.width, a.width});
}

template <typename N> int32_t row_threads(const attention<N> &a, const piece &now) {
  return bl_row_threads(now.end > a.width ? now.end : a.width);
}

template <typename N> void forward_piece(const attention<N> &a, const piece &now, N *out, float *lse, const N *q) {
  const int32_t rows = now.end - now.begin;
  const int64_t cells = (int64_t)rows * now.end;
  scores(a, now, q, q + a.H);
  bl_launch(a.s, a.what, softmax_rows<N>, {(int64_t)now.heads * rows, 1}, row_threads(a, now), a.p, lse, a.score, now,
            a.sequences, a.seq);
  bl_cuda_gemm(a.s, a.what,
               {out + now.begin * a.H, a.p, q + 2 * a.H, (int32_t)a.H, now.end, (int32_t)(3 * a.H), false, false, false,
                false, rows, a.width, now.end, 1.0f, now.heads, a.width, cells, a.width});
}

template <typename N>
void attention_fwd(bl_stream *s, bl_num *out, float *lse, const bl_num *qkv, int32_t sequences, int32_t seq,
                   int32_t heads, int32_t width) {
  attention<N> a;
  if (!prepare(&a, s, "attention_fwd", sequences, seq, heads, width, false)) return;
  for (int32_t b = 0; b < sequences; b++)
    for (int32_t h = 0; h < heads; h += a.at_once) {
      const int32_t n = heads - h < a.at_once ? heads - h : a.at_once;
      const int64_t first = (int64_t)b * seq * a.H;
      for (int32_t begin = 0; begin < seq; begin += ROWS)
        forward_piece(a, {b, h, n, begin, seq - begin < ROWS ? seq : begin + ROWS},
                      static_cast<N *>(out) + first + (int64_t)h * width, lse,
                      static_cast<const N *>(qkv) + 3 * first + (int64_t)h * width);
    }
}

/* dq of the piece's rows; its part of dk and dv, added to what later blocks left there. */
template <typename N>
void backward_piece(const attention<N> &a, const piece &now, N *dq, const N *dout, const N *q, const N *all_dout,
                    const N *all_out, const float *lse) {
  const int32_t rows = now.end - now.begin, H = (int32_t)a.H, H3 = 3 * H, end = now.end, w = a.width;
  const int64_t cells = (int64_t)rows * end, keys = (int64_t)a.seq * w;
  const bool add = end < a.seq;
  const N *k = q + a.H, *v = q + 2 * a.H, *own_q = q + now.begin * 3 * a.H, *own_dout = dout + now.begin * a.H;
  scores(a, now, q, k);
  bl_cuda_gemm(a.s, a.what,
               {a.dp, own_dout, v, end, H, H3, false, true, true, false, rows, end, w, 1.0f, now.heads, cells, w, w});
  bl_launch(a.s, a.what, softmax_rows_backward<N>, {(int64_t)now.heads * rows, 1}, row_threads(a, now), a.p, a.ds,
            a.score, a.dp, all_dout, all_out, lse, now, a.sequences, a.seq, a.all_heads, w, a.scale);
  bl_cuda_gemm(a.s, a.what,
               {dq + now.begin * 3 * a.H, a.ds, k, H3, end, H3, false, false, false, false, rows, w, end, 1.0f,
                now.heads, w, cells, w});
  bl_cuda_gemm(a.s, a.what,
               {a.dk, a.ds, own_q, w, end, H3, true, false, true, add, end, w, rows, 1.0f, now.heads, keys, cells, w});
  bl_cuda_gemm(a.s, a.what,
               {a.dv, a.p, own_dout, w, end, H, true, false, true, add, end, w, rows, 1.0f, now.heads, keys, cells, w});
}

/* Blocks in descending order: the last one reaches all keys and so overwrites dk and dv, the others add. */
template <typename N>
void attention_bwd(bl_stream *s, bl_num *dqkv, const bl_num *dout, const bl_num *qkv, const bl_num *out,
                   const float *lse, int32_t sequences, int32_t seq, int32_t heads, int32_t width) {
  attention<N> a;
  if (!prepare(&a, s, "attention_bwd", sequences, seq, heads, width, true)) return;
  const N *all_dout = static_cast<const N *>(dout), *all_out = static_cast<const N *>(out);
  for (int32_t b = 0; b < sequences; b++)
    for (int32_t h = 0; h < heads; h += a.at_once) {
      const int32_t n = heads - h < a.at_once ? heads - h : a.at_once;
      const int64_t first = (int64_t)b * seq * a.H, column = (int64_t)h * width;
      N *dq = static_cast<N *>(dqkv) + 3 * first + column;
      for (int32_t begin = (seq - 1) / ROWS * ROWS; begin >= 0; begin -= ROWS)
        backward_piece(a, {b, h, n, begin, seq - begin < ROWS ? seq : begin + ROWS}, dq, all_dout + first + column,
                       static_cast<const N *>(qkv) + 3 * first + column, all_dout, all_out, lse);
      const int64_t keys = (int64_t)n * seq;
      bl_launch(s, a.what, convert_rows<N>, {keys, 1}, bl_row_threads(width), dq + a.H, a.dk, seq, width, 3 * a.H);
      bl_launch(s, a.what, convert_rows<N>, {keys, 1}, bl_row_threads(width), dq + 2 * a.H, a.dv, seq, width, 3 * a.H);
    }
}

template <typename N> void fill(bl_ops *ops) {
  ops->attention_fwd = attention_fwd<N>;
  ops->attention_bwd = attention_bwd<N>;
}

} // namespace

void bl_cuda_attention_ops(bl_ops *ops, bool bf16) { bf16 ? fill<bl_bf16>(ops) : fill<float>(ops); }
