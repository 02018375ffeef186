/* test_base_rng.c - streams and elementary functions: known answers, so that the bits never change, and accuracy. */
#include "base/rng.h"
#include "tests/check.h"

#include <stdint.h>

static uint64_t bits(double x) {
  uint64_t word;
  memcpy(&word, &x, sizeof word);
  return word;
}

/* First outputs of xoshiro256** from the state 1, 2, 3, 4, as its authors' code gives them. */
static void test_generator_is_xoshiro(void) {
  bl_rng rng = {{1, 2, 3, 4}};
  CHECK(bl_rng_u64(&rng) == 11520);
  CHECK(bl_rng_u64(&rng) == 0);
  CHECK(bl_rng_u64(&rng) == 1509978240);
  CHECK(bl_rng_u64(&rng) == 1215971899390074240u);
}

/* Traces and initial weights out in the world depend on these bits: they never change. */
static void test_known_answers(void) {
  bl_rng rng;
  bl_rng_seed(&rng, 42, 7);
  CHECK(bl_rng_u64(&rng) == 0xee9217c637c2b6afu);
  CHECK(bl_rng_u64(&rng) == 0xe2b139b518618b34u);
  bl_rng_seed(&rng, 0, 0);
  CHECK(bits(bl_rng_unit(&rng)) == bits(0x1.85dca6945bd5cp-3));
  CHECK(bl_rng_below(&rng, 1000) == 571);
  CHECK(bits(bl_rng_normal(&rng)) == bits(-0x1.e0a0d5d5702bdp+0));
  CHECK(bits(bl_rng_normal(&rng)) == bits(0x1.7a6e2d4b0f4e2p-4));
  CHECK(bl_hash_u64(1, 2, 3, 4) == 0xd55ccd4aeb3ccafbu);
  CHECK(bl_hash_u64(4, 3, 2, 1) == 0x47ec8a92768f8589u);
  CHECK(bl_hash_bytes("ballast on board", 16, 1) == 0x87f439c244f89644u);
  CHECK(bl_hash_bytes("ballast", 7, 0) == 0x27d2efcc10715706u);
  uint64_t all = 0;
  bl_rng_seed(&rng, 9, 9);
  for (int i = 0; i < 100000; i++) {
    const double x = bl_rng_unit(&rng);
    const double values[6] = {bl_det_exp(100 * x - 50), bl_det_log(x + 1e-9), bl_det_pow(x, 1.3),
                              bl_det_cos2pi(x),         bl_det_sin2pi(x),     bl_rng_normal(&rng)};
    all = bl_hash_bytes(values, sizeof values, all);
  }
  CHECK(all == 0xe116ff9b2decc119u);
}

static void test_special_values(void) {
  CHECK(bl_det_exp(0) == 1);
  CHECK(isinf(bl_det_exp(710)) && isinf(bl_det_exp(INFINITY)));
  CHECK(bl_det_exp(-746) == 0 && bl_det_exp(-INFINITY) == 0);
  CHECK(bl_det_exp(-740) > 0 && bl_det_exp(709.78) < INFINITY);
  CHECK(isnan(bl_det_exp(NAN)) && isnan(bl_det_log(NAN)) && isnan(bl_det_log(-1)));
  CHECK(bl_det_log(1) == 0);
  CHECK(isinf(bl_det_log(0)) && bl_det_log(0) < 0 && isinf(bl_det_log(INFINITY)));
  CHECK_NEAR(bl_det_log(0x1p-1074), -744.4400719213812, 1e-12);
  CHECK(bl_det_pow(0, 2) == 0 && bl_det_pow(0, 0) == 1 && bl_det_pow(5, 0) == 1 && bl_det_pow(1, 1e9) == 1);
  CHECK(isinf(bl_det_pow(0, -1)));
  CHECK(bl_det_cos2pi(0) == 1 && bl_det_cos2pi(0.5) == -1 && bl_det_cos2pi(0.25) == 0 && bl_det_cos2pi(0.75) == 0);
  CHECK(bl_det_sin2pi(0) == 0 && bl_det_sin2pi(0.25) == 1 && bl_det_sin2pi(0.5) == 0 && bl_det_sin2pi(0.75) == -1);
}

static void test_distributions(void) {
  bl_rng rng;
  bl_rng_seed(&rng, 3, 1);
  double sum = 0, squares = 0, fourth = 0;
  int counts[7] = {0}, out_of_range = 0;
  const int n = 200000;
  for (int i = 0; i < n; i++) {
    const double x = bl_rng_normal(&rng);
    sum += x;
    squares += x * x;
    fourth += x * x * x * x;
    const double u = bl_rng_unit(&rng);
    out_of_range += !(u >= 0 && u < 1);
    counts[bl_rng_below(&rng, 7)]++;
  }
  CHECK_NEAR(sum / n, 0, 0.01);
  CHECK_NEAR(squares / n, 1, 0.02);
  CHECK_NEAR(fourth / n, 3, 0.15);
  CHECK_INT(out_of_range, 0);
  for (int i = 0; i < 7; i++) CHECK_NEAR(counts[i], n / 7.0, 800);
  CHECK(bl_rng_below(&rng, 1) == 0);
  CHECK(bl_rng_below(&rng, UINT64_MAX) < UINT64_MAX);
}

static void test_streams_differ(void) {
  bl_rng a, b, c;
  bl_rng_seed(&a, 1, 0);
  bl_rng_seed(&b, 1, 1);
  bl_rng_seed(&c, 0, 1);
  int equal = 0;
  for (int i = 0; i < 1000; i++) {
    const uint64_t x = bl_rng_u64(&a), y = bl_rng_u64(&b), z = bl_rng_u64(&c);
    equal += x == y || y == z || x == z;
  }
  CHECK_INT(equal, 0);
  CHECK(bl_hash_bytes("a", 1, 0) != bl_hash_bytes("a\0", 2, 0));
  CHECK(bl_hash_bytes("", 0, 0) != bl_hash_bytes("\0\0\0\0\0\0\0\0", 8, 0));
}

static void test_accuracy(void) {
  bl_rng rng;
  bl_rng_seed(&rng, 1, 0);
  double worst_exp = 0, worst_log = 0, worst_pow = 0, worst_cos = 0, worst_sin = 0;
  for (int i = 0; i < 200000; i++) {
    const double x = 1400 * bl_rng_unit(&rng) - 700, u = bl_rng_unit(&rng);
    const double y = exp2(2000 * u - 1000), z = 0.5 + bl_rng_unit(&rng);
    worst_exp = fmax(worst_exp, fabs(bl_det_exp(x) / exp(x) - 1));
    worst_log = fmax(worst_log, fabs(bl_det_log(y) / log(y) - 1));
    worst_log = fmax(worst_log, fabs(bl_det_log(z) / log(z) - 1));
    worst_pow = fmax(worst_pow, fabs(bl_det_pow(z, 10 * u) / pow(z, 10 * u) - 1));
    worst_cos = fmax(worst_cos, fabs(bl_det_cos2pi(u) - cos(2 * 3.14159265358979323846 * u)));
    worst_sin = fmax(worst_sin, fabs(bl_det_sin2pi(u) - sin(2 * 3.14159265358979323846 * u)));
  }
  CHECK_NEAR(worst_exp, 0, 5e-16);
  CHECK_NEAR(worst_log, 0, 5e-16);
  CHECK_NEAR(worst_pow, 0, 3e-15);
  CHECK_NEAR(worst_cos, 0, 2e-15); /* libm's argument 2 pi u is itself rounded */
  CHECK_NEAR(worst_sin, 0, 2e-15);
}

int main(void) {
  RUN(test_generator_is_xoshiro);
  RUN(test_known_answers);
  RUN(test_special_values);
  RUN(test_distributions);
  RUN(test_streams_differ);
  RUN(test_accuracy);
  TEST_MAIN_END;
}
