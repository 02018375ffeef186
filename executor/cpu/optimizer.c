/* optimizer.c - loss, norms and the AdamW update. */
#include "executor/cpu/cpu.h"
#include "executor/cpu/simd.h"
#include "executor/op_math.h"
#include <math.h>
#include <string.h>

void bl_cpu_cross_entropy(bl_stream *s, float *loss, bl_num *logits, const int32_t *target, int32_t T, int32_t V,
                          float scale) {
  (void)s;
  for (int32_t t = 0; t < T; t++) {
    float *row = (float *)logits + (int64_t)t * V;
    loss[t] = 0.0f;
    if (target[t] < 0) {
      memset(row, 0, sizeof(float) * (size_t)V);
      continue;
    }
    const float largest = bl_max(row, V), aim = row[target[t]] - largest;
    for (int32_t v = 0; v < V; v++) row[v] = bl_expf(row[v] - largest);
    const float sum = bl_sum(row, V), over = scale / sum;
    for (int32_t v = 0; v < V; v++) row[v] *= over;
    row[target[t]] -= scale;
    loss[t] = bl_logf(sum) - aim;
  }
}

/* Element i goes to lane i % 16, each lane in double and ascending, the lanes folded by halves. */
static double sum_of_squares(const float *x, int64_t n) {
  double lanes[BL_LANES] = {0};
  int64_t i = 0;
  for (; i + BL_LANES <= n; i += BL_LANES) {
    for (int l = 0; l < BL_LANES; l++) lanes[l] += (double)x[i + l] * (double)x[i + l];
  }
  for (int l = 0; i < n; i++, l++) lanes[l] += (double)x[i] * (double)x[i];
  for (int half = BL_LANES / 2; half > 0; half /= 2) {
    for (int l = 0; l < half; l++) lanes[l] += lanes[l + half];
  }
  return lanes[0];
}

void bl_cpu_sum_sq(bl_stream *s, const bl_square_part *parts, int32_t n) {
  (void)s;
  for (int32_t i = 0; i < n; i++) *parts[i].sum = sum_of_squares(parts[i].x, parts[i].n);
}

void bl_cpu_sum_f32(bl_stream *s, double *sum, const float *x, int64_t n) {
  (void)s;
  double total = 0.0;
  for (int64_t i = 0; i < n; i++) total += (double)x[i];
  *sum = total;
}

void bl_cpu_clip_norm(bl_stream *s, bl_adamw *hyper, const double *sum, const int32_t *order, int32_t n,
                      const double *flag, int32_t ranks, int64_t stride, double limit) {
  (void)s;
  double squares = 0.0;
  for (int32_t i = 0; i < n; i++) squares += sum[order[i]];
  const double norm = sqrt(squares);
  hyper->grad_scale = norm > limit ? (float)(limit / norm) : 1.0f;
  hyper->skip = 0;
  for (int32_t p = 0; p < ranks; p++) hyper->skip |= flag[p * stride] != 0.0;
}

static void update(const bl_adamw_part *p, const bl_adamw *hyper) {
  const bl_adamw a = *hyper;
  const int64_t n = p->n;
  const float rest1 = 1.0f - a.beta1, rest2 = 1.0f - a.beta2;
  const float over1 = 1.0f / a.bias_correction1, over2 = 1.0f / a.bias_correction2;
  const float decay = p->decay;
  float *restrict w = p->master, *restrict first = p->m, *restrict second = p->v;
  const float *restrict gradient = p->grad;
  for (int64_t i = 0; i < n; i++) {
    const float g = gradient[i] * a.grad_scale;
    first[i] = a.beta1 * first[i] + rest1 * g;
    second[i] = a.beta2 * second[i] + rest2 * (g * g);
    const float step = first[i] * over1 / (sqrtf(second[i] * over2) + a.eps);
    w[i] -= a.lr * (step + decay * w[i]);
  }
  if (p->weight != (void *)p->master && n > 0) memcpy(p->weight, p->master, sizeof(float) * (size_t)n);
}

void bl_cpu_adamw(bl_stream *s, const bl_adamw_part *parts, int32_t n, const bl_adamw *hyper) {
  (void)s;
  for (int32_t i = 0; i < n && !hyper->skip; i++) update(&parts[i], hyper);
}
