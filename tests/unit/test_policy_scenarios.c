/* The loads that a search for copy hosts looks at, worked out by hand. */
#include "planner/policy_state.h"
#include "tests/check.h"

enum { EXPERTS = 4, LAYERS = 2 };

/* Two records of two layers; a load is tokens x ranks / all tokens, so with 2 ranks and 200 tokens a hundredth. */
static const double FIRST[LAYERS * EXPERTS] = {100, 60, 40, 0, 10, 20, 70, 100};
static const double SECOND[LAYERS * EXPERTS] = {80, 60, 20, 40, 10, 30, 70, 90};

/* Forecast: 0.9 of the newest load + 0.1 of the one before; error: newest load minus the forecast before it. */
static double forecast(int32_t i) { return (0.9 * SECOND[i] + 0.1 * FIRST[i]) / 100; }
static double error(int32_t i) { return (SECOND[i] - FIRST[i]) / 100; }
static double at_least_0(double x) { return x > 0 ? x : 0; }

static void test_by_hand(void) {
  /* By falling forecast: layer 0 has 0.82 0.60 0.22 0.36, layer 1 has 0.10 0.29 0.70 0.91. */
  static const int32_t mine[EXPERTS] = {0, 1, 3, 2}, theirs[EXPERTS] = {3, 2, 1, 0};
  double scenarios[BL_POLICY_SCENARIOS * EXPERTS], weights[BL_POLICY_SCENARIOS];
  bl_history h;
  REQUIRE_OK(bl_history_create(&h, LAYERS, EXPERTS, 2, 1, false, true));
  bl_history_push(&h, FIRST);
  CHECK_INT(bl_history_scenarios(&h, 0, scenarios, weights), 1); /* no error yet: the forecast alone */
  CHECK_NEAR(scenarios[1], 0.6, 1e-12);
  bl_history_push(&h, SECOND);
  REQUIRE(bl_history_scenarios(&h, 0, scenarios, weights) == 3);
  for (int32_t e = 0; e < EXPERTS; ++e) {
    const double f = forecast(e);
    CHECK_NEAR(scenarios[0 * EXPERTS + e], at_least_0(f + error(e)), 1e-12);
    CHECK_NEAR(scenarios[1 * EXPERTS + mine[e]], at_least_0(forecast(mine[e]) + error(EXPERTS + theirs[e])), 1e-12);
    CHECK_NEAR(scenarios[2 * EXPERTS + e], at_least_0(f - error(e)), 1e-12);
  }
  CHECK_NEAR(weights[0], 1, 0);
  CHECK_NEAR(weights[1], 1, 0);
  CHECK(weights[2] < 1 && weights[2] > 0);
  bl_history_free(&h);
}

static void test_a_layer_alone(void) {
  double scenarios[BL_POLICY_SCENARIOS * EXPERTS], weights[BL_POLICY_SCENARIOS];
  bl_history h;
  REQUIRE_OK(bl_history_create(&h, 1, EXPERTS, 2, 1, false, true));
  bl_history_push(&h, FIRST);
  bl_history_push(&h, SECOND);
  REQUIRE(bl_history_scenarios(&h, 0, scenarios, weights) == 3);
  for (int32_t e = 0; e < EXPERTS; ++e) {
    const double f = forecast(e);
    CHECK_NEAR(scenarios[0 * EXPERTS + e], at_least_0(f + error(e)), 1e-12);
    CHECK_NEAR(scenarios[1 * EXPERTS + e], at_least_0(f - error(e)), 1e-12);
    CHECK_NEAR(scenarios[2 * EXPERTS + e], e == 3 ? f + 3 * error(e) : f, 1e-12); /* the one expert that rose */
  }
  CHECK(weights[0] > weights[1] && weights[1] > weights[2] && weights[2] > 0);
  bl_history_free(&h);
}

static void test_never_more_than_room(void) {
  enum { MANY = 40 };
  double record[MANY * EXPERTS], scenarios[BL_POLICY_SCENARIOS * EXPERTS], weights[BL_POLICY_SCENARIOS];
  for (int32_t layers = 1; layers <= MANY; layers += 13) {
    bl_history h;
    REQUIRE_OK(bl_history_create(&h, layers, EXPERTS, 2, 1, false, true));
    for (int32_t step = 0; step < 12; ++step) {
      for (int32_t i = 0; i < layers * EXPERTS; ++i) record[i] = (i * 7 + step * 13) % 31;
      bl_history_push(&h, record);
      const int32_t n = bl_history_scenarios(&h, layers - 1, scenarios, weights);
      CHECK(n >= 1 && n <= BL_POLICY_SCENARIOS);
    }
    bl_history_free(&h);
  }
}

int main(void) {
  RUN(test_by_hand);
  RUN(test_a_layer_alone);
  RUN(test_never_more_than_room);
  TEST_MAIN_END;
}
