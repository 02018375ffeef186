/* test_ops_math.c - the elementary functions of op_math.h against libm in double. */
#include "executor/op_math.h"
#include "tests/check.h"

/* Steps evenly through [low, high]; the worst error of `got` relative to |want| + `absolute`. */
#define WORST(worst, low, high, got, want, absolute)                                               \
  do {                                                                                             \
    for (int i = 0; i <= 200000; i++) {                                                            \
      const float x = (float)((low) + ((high) - (low)) * i / 200000.0);                            \
      const double exact = (want), error = fabs((double)(got)-exact) / (fabs(exact) + (absolute)); \
      if (!(error <= (worst))) (worst) = error;                                                    \
    }                                                                                              \
  } while (0)

static void test_exp(void) {
  double worst = 0.0;
  WORST(worst, -87.3, 88.3, bl_expf(x), exp((double)x), 0.0);
  CHECK_NEAR(worst, 0.0, 2e-7);
  CHECK(bl_expf(0.0f) == 1.0f);
  CHECK(bl_expf(-88.0f) == 0.0f);
  CHECK(bl_expf(-INFINITY) == 0.0f);
  CHECK(bl_expf(89.0f) == INFINITY);
  CHECK(bl_expf(INFINITY) == INFINITY);
  CHECK(isnan(bl_expf(NAN)));
}

static void test_log(void) {
  double worst = 0.0;
  WORST(worst, 1e-3, 4.0, bl_logf(x), log((double)x), 1e-2);
  WORST(worst, 1.0, 1e6, bl_logf(x), log((double)x), 1e-2);
  CHECK_NEAR(worst, 0.0, 2e-7);
  CHECK(bl_logf(1.0f) == 0.0f);
  CHECK_NEAR(bl_logf(2e-38f), log((double)2e-38f), 1e-5);
  CHECK_NEAR(bl_logf(3e38f), log((double)3e38f), 1e-5);
}

static double gelu_u(double x) { return sqrt(2.0 / acos(-1.0)) * (x + 0.044715 * x * x * x); }

/* Written with exp, since 1 + tanh(u) cancels in double too. */
static double exact_gelu(double x) { return x / (1.0 + exp(-2.0 * gelu_u(x))); }

static double exact_gelu_grad(double x) {
  const double s = 1.0 / (1.0 + exp(-2.0 * gelu_u(x)));
  return s + x * s * (1.0 - s) * 2.0 * sqrt(2.0 / acos(-1.0)) * (1.0 + 3.0 * 0.044715 * x * x);
}

static void test_gelu(void) {
  double value = 0.0, gradient = 0.0;
  WORST(value, -12.0, 12.0, bl_geluf(x), exact_gelu((double)x), 1e-1);
  WORST(gradient, -12.0, 12.0, bl_gelu_gradf(x), exact_gelu_grad((double)x), 1.0);
  CHECK_NEAR(value, 0.0, 4e-7);
  CHECK_NEAR(gradient, 0.0, 4e-7);
  CHECK_NEAR(exact_gelu(0.7), 0.35 * (1.0 + tanh(gelu_u(0.7))), 1e-15);
  for (float x = 20.0f; x < 1e12f; x *= 10.0f) {
    CHECK(bl_geluf(x) == x && bl_geluf(-x) == 0.0f);
    CHECK_NEAR(bl_gelu_gradf(x), 1.0, 1e-7);
    CHECK_NEAR(bl_gelu_gradf(-x), 0.0, 1e-7);
  }
  CHECK(isnan(bl_geluf(NAN)) && isnan(bl_gelu_gradf(NAN)));
}

int main(void) {
  RUN(test_exp);
  RUN(test_log);
  RUN(test_gelu);
  TEST_MAIN_END;
}
