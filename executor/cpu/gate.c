/* gate.c - choice of experts and its gradients. */
#include "executor/cpu/cpu.h"
#include "executor/cpu/simd.h"
#include "executor/op_math.h"
#include <string.h>

/* p[0..n) = softmax of x[0..n). */
static void softmax(float *restrict p, const float *restrict x, int32_t n) {
  const float largest = bl_max(x, n);
  for (int32_t i = 0; i < n; i++) p[i] = bl_expf(x[i] - largest);
  const float over = 1.0f / bl_sum(p, n);
  for (int32_t i = 0; i < n; i++) p[i] *= over;
}

/* Insertion into a short sorted list; an equal logit stays behind, so ties go to the lower id. */
static void top_k_row(int32_t *restrict expert, float *restrict value, const float *logits, int32_t E, int32_t K) {
  int32_t held = 0;
  for (int32_t e = 0; e < E; e++) {
    if (held == K && !(logits[e] > value[K - 1])) continue;
    int32_t at = held < K ? held++ : K - 1;
    for (; at > 0 && logits[e] > value[at - 1]; at--) {
      value[at] = value[at - 1];
      expert[at] = expert[at - 1];
    }
    value[at] = logits[e];
    expert[at] = e;
  }
}

void bl_cpu_gate_top_k(bl_stream *s, int32_t *expert, float *weight, const bl_num *logits, int32_t T, int32_t E,
                       int32_t K) {
  (void)s;
  for (int32_t t = 0; t < T; t++) {
    float *w = weight + (int64_t)t * K;
    top_k_row(expert + (int64_t)t * K, w, (const float *)logits + (int64_t)t * E, E, K);
    const float largest = w[0];
    float sum = 0.0f;
    for (int32_t c = 0; c < K; c++) {
      w[c] = bl_expf(w[c] - largest);
      sum += w[c];
    }
    for (int32_t c = 0; c < K; c++) w[c] /= sum;
  }
}

void bl_cpu_gate_top_k_bwd(bl_stream *s, bl_num *dlogits, const float *dweight, const float *weight,
                           const int32_t *chosen, int32_t T, int32_t E, int32_t K) {
  (void)s;
  memset(dlogits, 0, sizeof(float) * (size_t)T * (size_t)E);
  for (int32_t t = 0; t < T; t++) {
    const float *w = weight + (int64_t)t * K, *dw = dweight + (int64_t)t * K;
    float *d = (float *)dlogits + (int64_t)t * E, inner = 0.0f;
    for (int32_t c = 0; c < K; c++) inner += w[c] * dw[c];
    for (int32_t c = 0; c < K; c++) d[chosen[(int64_t)t * K + c]] = w[c] * (dw[c] - inner);
  }
}

void bl_cpu_gate_switch(bl_stream *s, int32_t *expert, float *weight, const bl_num *logits, int32_t T, int32_t E) {
  float *p = bl_cpu_scratch(s, (size_t)E);
  if (!p) return;
  for (int32_t t = 0; t < T; t++) {
    const float *x = (const float *)logits + (int64_t)t * E;
    float largest;
    top_k_row(expert + t, &largest, x, E, 1);
    softmax(p, x, E);
    weight[t] = p[expert[t]];
  }
}

void bl_cpu_gate_switch_bwd(bl_stream *s, bl_num *dlogits, const float *dweight, const bl_num *logits,
                            const int32_t *chosen, int32_t T, int32_t E) {
  (void)s;
  for (int32_t t = 0; t < T; t++) {
    float *d = (float *)dlogits + (int64_t)t * E;
    softmax(d, (const float *)logits + (int64_t)t * E, E);
    const float through = d[chosen[t]] * dweight[t];
    for (int32_t e = 0; e < E; e++) d[e] *= -through;
    d[chosen[t]] += through;
  }
}

/* d loss / d logits of one token = coefficient E / seq * p_e (f_e - sum_j f_j p_j). */
static void balance_backward(float *d, const float *p, const float *fraction, int32_t seq, int32_t E, float factor) {
  for (int32_t t = 0; t < seq; t++, d += E, p += E) {
    const float inner = bl_dot(fraction, p, E);
    for (int32_t e = 0; e < E; e++) d[e] += factor * p[e] * (fraction[e] - inner);
  }
}

void bl_cpu_gate_balance(bl_stream *s, float *loss, bl_num *dlogits, const bl_num *logits, const int32_t *chosen,
                         int32_t sequences, int32_t seq, int32_t E, int32_t K, float coefficient, float scale) {
  float *p = bl_cpu_scratch(s, ((size_t)seq + 2) * (size_t)E);
  if (!p) return;
  float *fraction = p + (int64_t)seq * E, *mean = fraction + E;
  for (int32_t q = 0; q < sequences; q++) {
    const float *x = (const float *)logits + (int64_t)q * seq * E;
    const int32_t *first = chosen + (int64_t)q * seq * K;
    memset(fraction, 0, 2 * sizeof(float) * (size_t)E);
    for (int32_t t = 0; t < seq; t++) {
      softmax(p + (int64_t)t * E, x + (int64_t)t * E, E);
      for (int32_t e = 0; e < E; e++) mean[e] += p[(int64_t)t * E + e];
      fraction[first[(int64_t)t * K]] += 1.0f;
    }
    for (int32_t e = 0; e < E; e++) fraction[e] /= (float)seq;
    loss[q] = coefficient * (float)E * bl_dot(fraction, mean, E) / (float)seq;
    if (!dlogits) continue;
    balance_backward((float *)dlogits + (int64_t)q * seq * E, p, fraction, seq, E,
                     scale * coefficient * (float)E / (float)seq);
  }
}
