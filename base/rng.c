/* rng.c - xoshiro256** (Blackman and Vigna, 2018) and elementary functions from series in a fixed order.
 *
 * Only IEEE additions, multiplications, divisions, square roots and exact scalings are used, and the build forbids
 * contraction into fused operations: the bits are the same on every machine. */
#include "base/rng.h"

#include <math.h>
#include <string.h>

static const uint64_t GOLDEN = 0x9e3779b97f4a7c15u; /* 2^64 divided by the golden ratio */

/* The finaliser of splitmix64 (Steele, Lea and Flood, 2014). */
static uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

static uint64_t rotate(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

void bl_rng_seed(bl_rng *rng, uint64_t seed, uint64_t stream) {
  uint64_t x = mix(mix(seed + GOLDEN) ^ stream);
  for (int i = 0; i < 4; i++) rng->state[i] = mix(x += GOLDEN);
}

uint64_t bl_rng_u64(bl_rng *rng) {
  uint64_t *s = rng->state;
  const uint64_t result = rotate(s[1] * 5, 7) * 9, t = s[1] << 17;
  s[2] ^= s[0];
  s[3] ^= s[1];
  s[1] ^= s[2];
  s[0] ^= s[3];
  s[2] ^= t;
  s[3] = rotate(s[3], 45);
  return result;
}

double bl_rng_unit(bl_rng *rng) { return (double)(bl_rng_u64(rng) >> 11) * 0x1p-53; }

uint64_t bl_rng_below(bl_rng *rng, uint64_t n) {
  const uint64_t skip = (0 - n) % n; /* 2^64 mod n values are too many to be fair */
  uint64_t x;
  do x = bl_rng_u64(rng);
  while (x < skip);
  return x % n;
}

double bl_rng_normal(bl_rng *rng) {
  const double u = 1 - bl_rng_unit(rng); /* in (0, 1]: the logarithm is finite */
  const double v = bl_rng_unit(rng);
  return sqrt(-2 * bl_det_log(u)) * bl_det_cos2pi(v);
}

uint64_t bl_hash_u64(uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
  const uint64_t words[4] = {a, b, c, d};
  uint64_t h = 0;
  for (int i = 0; i < 4; i++) h = mix((h ^ words[i]) + GOLDEN);
  return h;
}

uint64_t bl_hash_bytes(const void *bytes, uint64_t n, uint64_t seed) {
  const unsigned char *p = bytes;
  uint64_t h = mix(seed ^ n);
  for (; n >= 8; p += 8, n -= 8) {
    uint64_t word;
    memcpy(&word, p, 8);
    h = mix((h ^ word) + GOLDEN);
  }
  uint64_t tail = 0;
  for (uint64_t i = 0; i < n; i++) tail |= (uint64_t)p[i] << (8 * i);
  return n ? mix((h ^ tail) + GOLDEN) : h;
}

/* ln 2 in two parts: the first has 32 significant bits, so k * LN2_HIGH is exact for every exponent k. */
static const double LN2_HIGH = 0x1.62e42feep-1, LN2_LOW = 0x1.a39ef35793c76p-33;

double bl_det_exp(double x) {
  if (isnan(x)) return x;
  if (x > 709.79) return INFINITY;
  if (x < -745.14) return 0;
  const double k = floor(x * 0x1.71547652b82fep0 + 0.5);
  const double high = x - k * LN2_HIGH, low = k * LN2_LOW;
  const double r = high - low; /* |r| <= ln(2)/2: 14 terms of the series reach the last bit */
  double sum = 0;
  for (int n = 14; n >= 2; n--) sum = (sum + 1) * r / n;
  /* exp(r) = 1 + r (1 + sum), the rounding of r kept apart */
  const double tail = (high - r) - low;
  return ldexp(1 + (r + (r * sum + tail)), (int)k);
}

double bl_det_log(double x) {
  if (isnan(x) || x < 0) return NAN;
  if (x == 0) return -INFINITY;
  if (isinf(x)) return x;
  int k;
  double m = frexp(x, &k);
  if (m < 0x1.6a09e667f3bcdp-1) {
    m *= 2;
    k--;
  }
  /* m = 1 + f in [sqrt(1/2), sqrt(2)); with s = f / (2 + f): log m = 2 (s + s^3/3 + s^5/5 + ...) and
   * 2 s = f - f^2/2 + s f^2/2, which keeps the leading term f exact. */
  const double f = m - 1, s = f / (2 + f), s2 = s * s, half = 0.5 * f * f;
  double sum = 0;
  for (int n = 25; n >= 3; n -= 2) sum = sum * s2 + 2.0 / n;
  sum *= s2;
  return k * LN2_HIGH + (f - (half - (s * (half + sum) + k * LN2_LOW)));
}

double bl_det_pow(double x, double y) {
  if (y == 0 || x == 1) return 1;
  if (x == 0) return y > 0 ? 0 : INFINITY;
  return bl_det_exp(y * bl_det_log(x));
}

static double sine(double a) { /* |a| <= pi/4 */
  double sum = 0;
  for (int n = 18; n >= 2; n -= 2) sum = -(1 + sum) * (a * a) / (n * (n + 1));
  return a + a * sum;
}

static double cosine(double a) { /* |a| <= pi/4 */
  double sum = 0;
  for (int n = 18; n >= 4; n -= 2) sum = (1 - sum) * (a * a) / (n * (n - 1));
  return 1 - (1 - sum) * (a * a) / 2;
}

/* cos(2 pi x + quarter * pi / 2): x less its nearest quarter is exact. */
static double cosine_of_turn(double x, int quarter) {
  x -= floor(x);
  const double k = floor(4 * x + 0.5);
  const double a = (x - k / 4) * 0x1.921fb54442d18p2;
  switch (((int)k + quarter) & 3) {
  case 0:
    return cosine(a);
  case 1:
    return -sine(a);
  case 2:
    return -cosine(a);
  default:
    return sine(a);
  }
}

double bl_det_cos2pi(double x) { return cosine_of_turn(x, 0); }
double bl_det_sin2pi(double x) { return cosine_of_turn(x, 3); }
