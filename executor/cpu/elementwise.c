/* elementwise.c - additions, conversions. */
#include "executor/cpu/cpu.h"
#include <string.h>

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
