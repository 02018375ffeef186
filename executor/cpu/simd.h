/* simd.h - sums with a fixed order that still fill vector registers.
 *
 * A sum runs in 16 lanes: element i goes to lane i % 16, the lanes are then folded by halves. The result depends on the
 * values and their number alone, not on the machine's vector width or on alignment. Vector types are GCC's (also
 * clang's); narrower machines run them in pieces. */
#ifndef BL_EXECUTOR_CPU_SIMD_H
#define BL_EXECUTOR_CPU_SIMD_H

#include <stdint.h>
#include <string.h>

enum { BL_LANES = 16 };

typedef float bl_lanes __attribute__((vector_size(64)));
typedef float bl_lanes_any __attribute__((vector_size(64), aligned(4), may_alias)); /* at any float's address */

typedef float bl_lanes8 __attribute__((vector_size(32)));
typedef float bl_lanes4 __attribute__((vector_size(16)));

/* Lane i + lane i + 8, then + 4, 2, 1. */
static inline float bl_fold(const bl_lanes *lanes) {
  bl_lanes8 eight[2];
  bl_lanes4 four[2];
  memcpy(eight, lanes, sizeof eight);
  eight[0] += eight[1];
  memcpy(four, eight, sizeof four);
  four[0] += four[1];
  return (four[0][0] + four[0][2]) + (four[0][1] + four[0][3]);
}

/*! bl_sum() : sum of x[i]. */
static inline float bl_sum(const float *x, int64_t n) {
  bl_lanes lanes = {0};
  int64_t i = 0;
  for (; i + BL_LANES <= n; i += BL_LANES) lanes += *(const bl_lanes_any *)(x + i);
  for (int l = 0; i < n; i++, l++) lanes[l] += x[i];
  return bl_fold(&lanes);
}

/*! bl_dot() : sum of x[i] y[i]. */
static inline float bl_dot(const float *x, const float *y, int64_t n) {
  bl_lanes lanes = {0};
  int64_t i = 0;
  for (; i + BL_LANES <= n; i += BL_LANES) {
    lanes += *(const bl_lanes_any *)(x + i) * *(const bl_lanes_any *)(y + i);
  }
  for (int l = 0; i < n; i++, l++) lanes[l] += x[i] * y[i];
  return bl_fold(&lanes);
}

/*! bl_max() : the largest x[i], n >= 1. The order of a maximum does not matter, so 16 lanes serve only speed. */
static inline float bl_max(const float *x, int64_t n) {
  float lanes[BL_LANES];
  for (int l = 0; l < BL_LANES; l++) lanes[l] = l < n ? x[l] : x[0];
  int64_t i = 0;
  for (; i + BL_LANES <= n; i += BL_LANES) {
    for (int l = 0; l < BL_LANES; l++) lanes[l] = x[i + l] > lanes[l] ? x[i + l] : lanes[l];
  }
  for (; i < n; i++) lanes[0] = x[i] > lanes[0] ? x[i] : lanes[0];
  float largest = lanes[0];
  for (int l = 1; l < BL_LANES; l++) largest = lanes[l] > largest ? lanes[l] : largest;
  return largest;
}

#endif
