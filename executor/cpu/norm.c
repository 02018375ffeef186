/* norm.c - token embedding and LayerNorm. */
#include "executor/cpu/cpu.h"
#include "executor/cpu/simd.h"
#include <math.h>

static const float NORM_EPS = 1e-5f;

void bl_cpu_embed_fwd(bl_stream *s, bl_num *x, const int32_t *token, const bl_num *table, const bl_num *position,
                      int32_t T, int32_t seq, int32_t H) {
  (void)s;
  for (int32_t t = 0; t < T; t++) {
    float *restrict to = (float *)x + (int64_t)t * H;
    const float *restrict word = (const float *)table + (int64_t)token[t] * H;
    const float *restrict place = (const float *)position + (int64_t)(t % seq) * H;
    for (int32_t i = 0; i < H; i++) to[i] = word[i] + place[i];
  }
}

void bl_cpu_embed_bwd(bl_stream *s, float *grad_table, float *grad_position, const int32_t *token, const bl_num *dx,
                      int32_t T, int32_t seq, int32_t H) {
  (void)s;
  for (int32_t t = 0; t < T; t++) {
    const float *restrict from = (const float *)dx + (int64_t)t * H;
    float *restrict word = grad_table + (int64_t)token[t] * H;
    float *restrict place = grad_position + (int64_t)(t % seq) * H;
    for (int32_t i = 0; i < H; i++) word[i] += from[i];
    for (int32_t i = 0; i < H; i++) place[i] += from[i];
  }
}

/* sum of (x[i] - mean)^2 */
static float sum_centred_sq(const float *x, float mean, int64_t n) {
  bl_lanes lanes = {0};
  int64_t i = 0;
  for (; i + BL_LANES <= n; i += BL_LANES) {
    const bl_lanes d = *(const bl_lanes_any *)(x + i) - mean;
    lanes += d * d;
  }
  for (int l = 0; i < n; i++, l++) lanes[l] += (x[i] - mean) * (x[i] - mean);
  return bl_fold(&lanes);
}

void bl_cpu_norm_fwd(bl_stream *s, bl_num *y, float *mean, float *rstd, const bl_num *x, const bl_num *weight,
                     const bl_num *bias, int32_t T, int32_t H) {
  (void)s;
  const float *restrict w = weight, *restrict b = bias;
  const float over = 1.0f / (float)H;
  for (int32_t t = 0; t < T; t++) {
    const float *from = (const float *)x + (int64_t)t * H;
    float *restrict to = (float *)y + (int64_t)t * H;
    const float m = bl_sum(from, H) * over;
    const float r = 1.0f / sqrtf(sum_centred_sq(from, m, H) * over + NORM_EPS);
    for (int32_t i = 0; i < H; i++) to[i] = (from[i] - m) * r * w[i] + b[i];
    mean[t] = m;
    rstd[t] = r;
  }
}

/* *g = sum of dy weight, *gn = sum of dy weight n, where n = (x - mean) rstd. */
static void sum_row_gradients(float *g, float *gn, const float *dy, const float *x, const float *weight, float mean,
                              float rstd, int32_t H) {
  bl_lanes lanes_g = {0}, lanes_gn = {0};
  int32_t i = 0;
  for (; i + BL_LANES <= H; i += BL_LANES) {
    const bl_lanes d = *(const bl_lanes_any *)(dy + i) * *(const bl_lanes_any *)(weight + i);
    lanes_g += d;
    lanes_gn += d * ((*(const bl_lanes_any *)(x + i) - mean) * rstd);
  }
  for (int l = 0; i < H; i++, l++) {
    const float d = dy[i] * weight[i];
    lanes_g[l] += d;
    lanes_gn[l] += d * ((x[i] - mean) * rstd);
  }
  *g = bl_fold(&lanes_g);
  *gn = bl_fold(&lanes_gn);
}

static void add_row_gradients(float *restrict dx, float *restrict grad_weight, float *restrict grad_bias,
                              const float *restrict dy, const float *restrict x, const float *restrict weight,
                              float mean, float rstd, float mean_g, float mean_gn, int32_t H) {
  for (int32_t i = 0; i < H; i++) {
    const float n = (x[i] - mean) * rstd;
    dx[i] += rstd * (dy[i] * weight[i] - mean_g - n * mean_gn);
    grad_weight[i] += dy[i] * n;
    grad_bias[i] += dy[i];
  }
}

/* With n = (x - mean) rstd and g = dy weight:  dx = rstd (g - mean(g) - n mean(g n)). */
void bl_cpu_norm_bwd(bl_stream *s, bl_num *dx, float *grad_weight, float *grad_bias, const bl_num *dy, const bl_num *x,
                     const float *mean, const float *rstd, const bl_num *weight, int32_t T, int32_t H) {
  (void)s;
  const float over = 1.0f / (float)H;
  for (int32_t t = 0; t < T; t++) {
    const int64_t at = (int64_t)t * H;
    const float *d = (const float *)dy + at, *from = (const float *)x + at;
    float g, gn;
    sum_row_gradients(&g, &gn, d, from, weight, mean[t], rstd[t], H);
    add_row_gradients((float *)dx + at, grad_weight, grad_bias, d, from, weight, mean[t], rstd[t], g * over, gn * over,
                      H);
  }
}
