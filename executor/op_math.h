/* op_math.h - exp, log, sigmoid and GELU in single precision, the same bits everywhere.
 *
 * Additions, multiplications, divisions and bit moves in a fixed order, without branches, so that a compiler vectorises
 * a loop over them; plain C, also valid as a CUDA device function (BL_HD). Accuracy: about 1e-7 relative. */
#ifndef BL_EXECUTOR_OP_MATH_H
#define BL_EXECUTOR_OP_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define BL_HD __host__ __device__ static inline
#else
#define BL_HD static inline
#endif

BL_HD float bl_from_bits(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

BL_HD uint32_t bl_to_bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

/*! bl_expf() : e^x. 0 below -87.33 (no denormals), +inf above 88.37, NaN stays NaN.
 *  x = n ln 2 + r with |r| <= ln 2 / 2; the Taylor polynomial of degree 7 in r; times 2^n through the exponent bits. */
BL_HD float bl_expf(float x) {
  const float low = -87.33f, high = 88.37f;
  const float round = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer held in the low bits */
  float c = x < low ? low : x;
  c = c > high ? high : c;
  const float shifted = c * 1.44269504f + round;
  const uint32_t n = bl_to_bits(shifted) - bl_to_bits(round);
  const float whole = shifted - round;
  const float r = (c - whole * 0.693145752f) - whole * 1.42860677e-6f; /* ln 2 in two parts, the first one short */
  float p = 1.98412698e-4f;
  p = p * r + 1.38888889e-3f;
  p = p * r + 8.33333333e-3f;
  p = p * r + 4.16666667e-2f;
  p = p * r + 1.66666667e-1f;
  p = p * r + 0.5f;
  p = p * r * r + r + 1.0f;
  const float y = p * bl_from_bits((n + 127u) << 23);
  const float z = x < low ? 0.0f : y;
  return x > high ? INFINITY : z;
}

/*! bl_logf() : natural logarithm of a normal, positive x.
 *  x = 2^n m with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh((m - 1) / (m + 1)) by its series. */
BL_HD float bl_logf(float x) {
  const uint32_t half_root = 0x3f3504f3u; /* sqrt(1/2) */
  const uint32_t above = bl_to_bits(x) - half_root;
  const float n = (float)((int32_t)above >> 23);
  const float m = bl_from_bits((above & 0x007fffffu) + half_root);
  const float s = (m - 1.0f) / (m + 1.0f), s2 = s * s;
  float p = 2.0f / 9.0f;
  p = p * s2 + 2.0f / 7.0f;
  p = p * s2 + 2.0f / 5.0f;
  p = p * s2 + 2.0f / 3.0f;
  p = p * s2 * s + 2.0f * s;
  return n * 0.693145752f + (n * 1.42860677e-6f + p);
}

/*! bl_sigmoidf() : 1 / (1 + e^-x). */
BL_HD float bl_sigmoidf(float x) { return 1.0f / (1.0f + bl_expf(-x)); }

/* GELU in its tanh form: x / 2 (1 + tanh(u)), u = sqrt(2 / pi) (x + 0.044715 x^3). Since (1 + tanh u) / 2 is the
 * sigmoid of 2u, no tanh is needed and nothing cancels for negative x. */
#define BL_GELU_2C 1.59576912f /* 2 sqrt(2 / pi) */
#define BL_GELU_CUBE 0.044715f

BL_HD float bl_geluf(float x) { return x * bl_sigmoidf(BL_GELU_2C * (x + BL_GELU_CUBE * x * x * x)); }

/*! bl_gelu_gradf() : d gelu(x) / dx, recomputed from x. With e = exp(-2u) and s = 1 / (1 + e) the derivative of s is
 *  s (1 - s) = e s s, which has no difference that cancels. Beyond +-9 the result is 0 or 1 to the last bit. */
BL_HD float bl_gelu_gradf(float x) {
  const float a = x < -9.0f ? -9.0f : x;
  const float b = a > 9.0f ? 9.0f : a, b2 = b * b;
  const float e = bl_expf(-BL_GELU_2C * (b + BL_GELU_CUBE * b2 * b));
  const float s = 1.0f / (1.0f + e);
  return s + b * (e * s * s) * (BL_GELU_2C * (1.0f + 3.0f * BL_GELU_CUBE * b2));
}

#endif
