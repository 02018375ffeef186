/* linear.c - matrix products of layers and of experts, and what lies between two of them. */
#include "executor/cpu/cpu.h"
#include "executor/cpu/gemm.h"
#include "executor/op_math.h"
#include <string.h>

static void add_rows(float *restrict y, const float *restrict bias, int32_t T, int32_t N) {
  for (int32_t t = 0; t < T; t++) {
    for (int32_t i = 0; i < N; i++) y[(int64_t)t * N + i] += bias[i];
  }
}

/* The bias goes in before the product, which then adds to it: one pass over y less. */
static void forward(float *y, const float *x, const float *weight, const float *bias, int32_t T, int32_t N, int32_t K,
                    bool accumulate) {
  if (bias && accumulate) add_rows(y, bias, T, N);
  if (bias && !accumulate) {
    for (int32_t t = 0; t < T; t++) memcpy(y + (int64_t)t * N, bias, sizeof(float) * (size_t)N);
  }
  bl_gemm(y, N, (bl_matrix){x, K, false}, (bl_matrix){weight, K, true}, T, N, K, 1.0f, bias || accumulate);
}

static void backward_x(float *dx, const float *dy, const float *weight, int32_t T, int32_t N, int32_t K,
                       bool accumulate) {
  bl_gemm(dx, K, (bl_matrix){dy, N, false}, (bl_matrix){weight, K, false}, T, K, N, 1.0f, accumulate);
}

static void add_column_sums(float *restrict sums, const float *restrict dy, int32_t T, int32_t N) {
  for (int32_t t = 0; t < T; t++) {
    for (int32_t i = 0; i < N; i++) sums[i] += dy[(int64_t)t * N + i];
  }
}

static void backward_w(float *grad_weight, float *restrict grad_bias, const float *restrict dy, const float *x,
                       int32_t T, int32_t N, int32_t K) {
  bl_gemm(grad_weight, K, (bl_matrix){dy, N, true}, (bl_matrix){x, K, false}, N, K, T, 1.0f, true);
  if (grad_bias) add_column_sums(grad_bias, dy, T, N);
}

void bl_cpu_linear_fwd(bl_stream *s, bl_num *y, const bl_num *x, const bl_num *weight, const bl_num *bias, int32_t T,
                       int32_t N, int32_t K, bool accumulate) {
  (void)s;
  forward(y, x, weight, bias, T, N, K, accumulate);
}

void bl_cpu_linear_dx(bl_stream *s, bl_num *dx, const bl_num *dy, const bl_num *weight, int32_t T, int32_t N, int32_t K,
                      bool accumulate) {
  (void)s;
  backward_x(dx, dy, weight, T, N, K, accumulate);
}

void bl_cpu_linear_dw(bl_stream *s, float *grad_weight, float *grad_bias, const bl_num *dy, const bl_num *x, int32_t T,
                      int32_t N, int32_t K) {
  (void)s;
  backward_w(grad_weight, grad_bias, dy, x, T, N, K);
}

void bl_cpu_grouped_fwd(bl_stream *s, bl_num *y, const bl_num *x, const bl_group *groups, int32_t n, int32_t N,
                        int32_t K) {
  (void)s;
  for (const bl_group *g = groups; g < groups + n; g++) {
    if (g->rows == 0) continue;
    forward((float *)y + (int64_t)g->first * N, (const float *)x + (int64_t)g->first * K, g->weight, g->bias, g->rows,
            N, K, false);
  }
}

void bl_cpu_grouped_dx(bl_stream *s, bl_num *dx, const bl_num *dy, const bl_group *groups, int32_t n, int32_t N,
                       int32_t K) {
  (void)s;
  for (const bl_group *g = groups; g < groups + n; g++) {
    if (g->rows == 0) continue;
    backward_x((float *)dx + (int64_t)g->first * K, (const float *)dy + (int64_t)g->first * N, g->weight, g->rows, N, K,
               false);
  }
}

void bl_cpu_grouped_dw(bl_stream *s, const bl_num *dy, const bl_num *x, const bl_group *groups, int32_t n, int32_t N,
                       int32_t K) {
  (void)s;
  for (const bl_group *g = groups; g < groups + n; g++) {
    if (g->rows == 0) continue;
    backward_w(g->grad_weight, g->grad_bias, (const float *)dy + (int64_t)g->first * N,
               (const float *)x + (int64_t)g->first * K, g->rows, N, K);
  }
}

static void gelu(float *restrict y, const float *restrict x, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = bl_geluf(x[i]);
}

/* dx may be dy, so neither is restrict; the compiler checks once that they are that or apart. */
static void gelu_gradient(float *dx, const float *dy, const float *restrict x, int64_t n) {
  for (int64_t i = 0; i < n; i++) dx[i] = dy[i] * bl_gelu_gradf(x[i]);
}

/* `hidden` has the bias. */
void bl_cpu_grouped_gelu_fwd(bl_stream *s, bl_num *y, bl_num *hidden, const bl_num *x, const bl_group *groups,
                             int32_t n, int32_t N, int32_t K) {
  bl_cpu_grouped_fwd(s, hidden, x, groups, n, N, K);
  for (const bl_group *g = groups; g < groups + n; g++) {
    const int64_t at = (int64_t)g->first * N;
    gelu((float *)y + at, (const float *)hidden + at, (int64_t)g->rows * N);
  }
}

void bl_cpu_grouped_gelu_bwd(bl_stream *s, bl_num *dhidden, const bl_num *dy, const bl_num *hidden,
                             const bl_group *groups, int32_t n, int32_t N) {
  (void)s;
  for (const bl_group *g = groups; g < groups + n; g++) {
    const int64_t at = (int64_t)g->first * N;
    gelu_gradient((float *)dhidden + at, (const float *)dy + at, (const float *)hidden + at, (int64_t)g->rows * N);
    if (g->grad_bias) add_column_sums(g->grad_bias, (const float *)dhidden + at, g->rows, N);
  }
}
