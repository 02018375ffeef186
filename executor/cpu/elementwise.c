/* elementwise.c - GELU, additions, conversions. */
#include "executor/cpu/cpu.h"
#include "executor/op_math.h"
#include <string.h>

void bl_cpu_gelu_fwd(bl_stream *s, bl_num *y, const bl_num *x, int64_t n) {
  (void)s;
  float *restrict to = y;
  const float *restrict from = x;
  for (int64_t i = 0; i < n; i++) to[i] = bl_geluf(from[i]);
}

/* dx may be dy, so neither is restrict; the compiler checks once that they are that or apart. */
void bl_cpu_gelu_bwd(bl_stream *s, bl_num *dx, const bl_num *dy, const bl_num *x, int64_t n) {
  (void)s;
  float *to = dx;
  const float *from = dy, *restrict at = x;
  for (int64_t i = 0; i < n; i++) to[i] = from[i] * bl_gelu_gradf(at[i]);
}

void bl_cpu_add_f32(bl_stream *s, float *y, const float *x, int64_t n) {
  (void)s;
  float *restrict to = y;
  const float *restrict from = x;
  for (int64_t i = 0; i < n; i++) to[i] += from[i];
}

void bl_cpu_add(bl_stream *s, bl_num *y, const bl_num *x, int64_t n) { bl_cpu_add_f32(s, y, x, n); }

void bl_cpu_from_f32(bl_stream *s, bl_num *y, const float *x, int64_t n) {
  (void)s;
  if (n > 0) memmove(y, x, sizeof(float) * (size_t)n);
}

void bl_cpu_to_f32(bl_stream *s, float *y, const bl_num *x, int64_t n) { bl_cpu_from_f32(s, y, x, n); }
