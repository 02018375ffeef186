/* attention.c - causal softmax attention, head by head in blocks of query rows.
 *
 * A block of queries needs the keys up to its own end only, so blocks skip most of what the mask would remove. The
 * backward pass gets the probabilities back from the scores and the kept log-sum-exp. */
#include "executor/cpu/cpu.h"
#include "executor/cpu/gemm.h"
#include "executor/cpu/simd.h"
#include "executor/op_math.h"
#include <math.h>

enum { BLOCK = 32 };

/* One head of one sequence. */
typedef struct head {
  const float *q, *k, *v;
  int32_t stride; /* of q, k, v */
  int32_t seq, width;
  float scale;
} head;

static int32_t block_end(const head *h, int32_t begin) { return begin + BLOCK < h->seq ? begin + BLOCK : h->seq; }

/* score[i - begin][j] = scale * q_i k_j for rows begin..end and keys 0..end; row length is `end`. */
static void scores(float *score, const head *h, int32_t begin, int32_t end) {
  const bl_matrix q = {h->q + (int64_t)begin * h->stride, h->stride, false}, k = {h->k, h->stride, true};
  bl_gemm(score, end, q, k, end - begin, end, h->width, h->scale, false);
}

/* Keys behind the query get minus infinity, so the loops over a row need no mask and no odd ends: e^-inf is 0. */
static void mask(float *row, int32_t n, int32_t end) {
  for (int32_t j = n; j < end; j++) row[j] = -INFINITY;
}

/* row[0..n) = softmax of itself, row[n..end) = 0; returns the log-sum-exp. */
static float softmax_row(float *row, int32_t n, int32_t end) {
  mask(row, n, end);
  const float largest = bl_max(row, end);
  for (int32_t j = 0; j < end; j++) row[j] = bl_expf(row[j] - largest);
  const float sum = bl_sum(row, end), over = 1.0f / sum;
  for (int32_t j = 0; j < end; j++) row[j] *= over;
  return largest + bl_logf(sum);
}

static void head_forward(float *out, int32_t out_stride, float *lse, const head *h, float *score) {
  for (int32_t begin = 0; begin < h->seq; begin += BLOCK) {
    const int32_t end = block_end(h, begin);
    scores(score, h, begin, end);
    for (int32_t i = begin; i < end; i++) lse[i] = softmax_row(score + (int64_t)(i - begin) * end, i + 1, end);
    bl_gemm(out + (int64_t)begin * out_stride, out_stride, (bl_matrix){score, end, false},
            (bl_matrix){h->v, h->stride, false}, end - begin, h->width, end, 1.0f, false);
  }
}

void bl_cpu_attention_fwd(bl_stream *s, bl_num *out, float *lse, const bl_num *qkv, int32_t sequences, int32_t seq,
                          int32_t heads, int32_t width) {
  const int32_t H = heads * width;
  float *score = bl_cpu_scratch(s, (size_t)BLOCK * (size_t)seq);
  if (!score) return;
  for (int32_t b = 0; b < sequences; b++) {
    for (int32_t i = 0; i < heads; i++) {
      const float *q = (const float *)qkv + (int64_t)b * seq * 3 * H + i * width;
      const head h = {q, q + H, q + 2 * H, 3 * H, seq, width, 1.0f / sqrtf((float)width)};
      head_forward((float *)out + (int64_t)b * seq * H + i * width, H, lse + ((int64_t)i * sequences + b) * seq, &h,
                   score);
    }
  }
}

/* score[j] becomes the probability p_j, dp[j] the gradient of the scaled score, p_j (dp_j - delta) scale. */
static void softmax_row_backward(float *restrict score, float *restrict dp, float lse, float delta, float scale,
                                 int32_t n, int32_t end) {
  mask(score, n, end);
  for (int32_t j = 0; j < end; j++) {
    const float p = bl_expf(score[j] - lse);
    score[j] = p;
    dp[j] = p * (dp[j] - delta) * scale;
  }
}

/* Blocks in descending order: the last one reaches all keys and so overwrites dk and dv, the others add. */
static void head_backward(float *dq, const float *dout, const float *out, int32_t out_stride, const float *lse,
                          const head *h, float *score, float *dp) {
  const int32_t H = out_stride;
  float *dk = dq + H, *dv = dq + 2 * H;
  for (int32_t begin = (h->seq - 1) / BLOCK * BLOCK; begin >= 0; begin -= BLOCK) {
    const int32_t end = block_end(h, begin), rows = end - begin;
    const bool add = end < h->seq;
    const float *d = dout + (int64_t)begin * H, *o = out + (int64_t)begin * H;
    scores(score, h, begin, end);
    bl_gemm(dp, end, (bl_matrix){d, H, false}, (bl_matrix){h->v, h->stride, true}, rows, end, h->width, 1.0f, false);
    for (int32_t i = 0; i < rows; i++) {
      const float delta = bl_dot(d + (int64_t)i * H, o + (int64_t)i * H, h->width);
      softmax_row_backward(score + (int64_t)i * end, dp + (int64_t)i * end, lse[begin + i], delta, h->scale,
                           begin + i + 1, end);
    }
    bl_gemm(dq + (int64_t)begin * h->stride, h->stride, (bl_matrix){dp, end, false},
            (bl_matrix){h->k, h->stride, false}, rows, h->width, end, 1.0f, false);
    bl_gemm(dk, h->stride, (bl_matrix){dp, end, true}, (bl_matrix){h->q + (int64_t)begin * h->stride, h->stride, false},
            end, h->width, rows, 1.0f, add);
    bl_gemm(dv, h->stride, (bl_matrix){score, end, true}, (bl_matrix){d, H, false}, end, h->width, rows, 1.0f, add);
  }
}

void bl_cpu_attention_bwd(bl_stream *s, bl_num *dqkv, const bl_num *dout, const bl_num *qkv, const bl_num *out,
                          const float *lse, int32_t sequences, int32_t seq, int32_t heads, int32_t width) {
  const int32_t H = heads * width;
  float *score = bl_cpu_scratch(s, 2 * (size_t)BLOCK * (size_t)seq);
  if (!score) return;
  for (int32_t b = 0; b < sequences; b++) {
    for (int32_t i = 0; i < heads; i++) {
      const int64_t at = (int64_t)b * seq * H + i * width, at3 = (int64_t)b * seq * 3 * H + i * width;
      const float *q = (const float *)qkv + at3;
      const head h = {q, q + H, q + 2 * H, 3 * H, seq, width, 1.0f / sqrtf((float)width)};
      head_backward((float *)dqkv + at3, (const float *)dout + at, (const float *)out + at, H,
                    lse + ((int64_t)i * sequences + b) * seq, &h, score, score + (size_t)BLOCK * (size_t)seq);
    }
  }
}
