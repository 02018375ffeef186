/* route.c - where the copies of tokens go, and moving rows there and back. */
#include "executor/cpu/cpu.h"
#include "executor/cpu/simd.h"
#include <string.h>

void bl_cpu_histogram(bl_stream *s, uint32_t *counts, const int32_t *expert, int64_t n, int32_t E) {
  (void)s;
  memset(counts, 0, sizeof *counts * (size_t)E);
  for (int64_t i = 0; i < n; i++) {
    if (expert[i] >= 0) counts[expert[i]]++;
  }
}

void bl_cpu_route_rows(bl_stream *s, int32_t *row, const int32_t *expert, int64_t n, int32_t E, const int32_t *first,
                       const uint32_t *quota, const int32_t *dest_row) {
  int32_t *entry = (int32_t *)bl_cpu_scratch(s, 2 * (size_t)E); /* the host entry that an expert fills now */
  if (!entry) return;
  uint32_t *taken = (uint32_t *)entry + E;
  for (int32_t e = 0; e < E; e++) {
    entry[e] = first[e];
    taken[e] = 0;
  }
  for (int64_t i = 0; i < n; i++) {
    const int32_t e = expert[i];
    row[i] = -1;
    if (e < 0) continue;
    while (entry[e] < first[e + 1] && taken[e] == quota[entry[e]]) {
      entry[e]++;
      taken[e] = 0;
    }
    if (entry[e] < first[e + 1]) row[i] = dest_row[entry[e]] + (int32_t)taken[e]++;
  }
}

void bl_cpu_rows_scatter(bl_stream *s, bl_num *send, const bl_num *x, const int32_t *row, int32_t T, int32_t K,
                         int32_t H) {
  (void)s;
  const size_t bytes = sizeof(float) * (size_t)H;
  for (int64_t t = 0; t < T; t++) {
    for (int64_t i = t * K; i < (t + 1) * K; i++) {
      if (row[i] >= 0) memcpy((float *)send + (int64_t)row[i] * H, (const float *)x + t * H, bytes);
    }
  }
}

void bl_cpu_rows_gather(bl_stream *s, bl_num *y, const bl_num *x, const int32_t *index, int32_t n, int32_t H) {
  (void)s;
  const size_t bytes = sizeof(float) * (size_t)H;
  for (int64_t i = 0; i < n; i++) {
    if (index[i] >= 0)
      memcpy((float *)y + i * H, (const float *)x + (int64_t)index[i] * H, bytes);
    else
      memset((float *)y + i * H, 0, bytes);
  }
}

void bl_cpu_combine_fwd(bl_stream *s, bl_num *y, const bl_num *back, const float *weight, const int32_t *row, int32_t T,
                        int32_t K, int32_t H) {
  (void)s;
  for (int64_t t = 0; t < T; t++) {
    float *restrict to = (float *)y + t * H;
    for (int64_t i = t * K; i < (t + 1) * K; i++) {
      if (row[i] < 0) continue;
      const float *restrict from = (const float *)back + (int64_t)row[i] * H;
      const float w = weight[i];
      for (int32_t j = 0; j < H; j++) to[j] += w * from[j];
    }
  }
}

void bl_cpu_combine_bwd(bl_stream *s, bl_num *dback, float *dweight, const bl_num *dy, const bl_num *back,
                        const float *weight, const int32_t *row, int32_t T, int32_t K, int32_t H) {
  (void)s;
  for (int64_t t = 0; t < T; t++) {
    const float *restrict d = (const float *)dy + t * H;
    for (int64_t i = t * K; i < (t + 1) * K; i++) {
      dweight[i] = 0.0f;
      if (row[i] < 0) continue;
      float *restrict to = (float *)dback + (int64_t)row[i] * H;
      const float w = weight[i];
      dweight[i] = bl_dot(d, (const float *)back + (int64_t)row[i] * H, H);
      for (int32_t j = 0; j < H; j++) to[j] = w * d[j];
    }
  }
}

void bl_cpu_rows_sum(bl_stream *s, bl_num *dx, const bl_num *dsend, const int32_t *row, int32_t T, int32_t K,
                     int32_t H) {
  (void)s;
  for (int64_t t = 0; t < T; t++) {
    float *restrict to = (float *)dx + t * H;
    for (int64_t i = t * K; i < (t + 1) * K; i++) {
      if (row[i] < 0) continue;
      const float *restrict from = (const float *)dsend + (int64_t)row[i] * H;
      for (int32_t j = 0; j < H; j++) to[j] += from[j];
    }
  }
}
