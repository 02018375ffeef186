/* test_base_rng.c - streams and elementary functions: known answers, so that the bits never change, and accuracy. */
#include "base/rng.h"
#include "tests/check.h"

#include <stdint.h>

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
  RUN(test_accuracy);
  TEST_MAIN_END;
}
