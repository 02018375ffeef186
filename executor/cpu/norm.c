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

/* With n = (x - mean) rstd and g = dy weight:  dx = rstd (g - mean(g) - n mean(g n)). */
void bl_cpu_norm_bwd(bl_stream *s, bl_num *dx, float *grad_weight, float *grad_bias, const bl_num *dy, const bl_num *x,
                     const float *mean, const float *rstd, const bl_num *weight, int32_t T, int32_t H) {
  const float *restrict w = weight;
  const float over = 1.0f / (float)H;
  float *restrict n = bl_cpu_scratch(s, 2 * (size_t)H);
  if (!n) return;
  float *restrict g = n + H;
  float *restrict gw = grad_weight, *restrict gb = grad_bias;
  for (int32_t t = 0; t < T; t++) {
    const float *restrict from = (const float *)x + (int64_t)t * H, *restrict d = (const float *)dy + (int64_t)t * H;
    float *restrict to = (float *)dx + (int64_t)t * H;
    const float m = mean[t], r = rstd[t];
    for (int32_t i = 0; i < H; i++) {
      n[i] = (from[i] - m) * r;
      g[i] = d[i] * w[i];
      gw[i] += d[i] * n[i];
      gb[i] += d[i];
    }
    const float mean_g = bl_sum(g, H) * over, mean_gn = bl_dot(g, n, H) * over;
    for (int32_t i = 0; i < H; i++) to[i] += r * (g[i] - mean_g - n[i] * mean_gn);
  }
}
