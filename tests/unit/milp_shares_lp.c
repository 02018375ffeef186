/* The flow that solves shares against the linear program: two methods that share nothing must agree. */
#include "base/rng.h"
#include "planner/milp/prove.h"
#include "planner/milp/shares_lp.h"
#include "tests/check.h"

/* Random homes (within the slots) and copies. */
static bl_status draw_hosts(bl_rng *rng, bl_hosts *hosts, int32_t experts, int32_t ranks) {
  int32_t slots[32], home[64], held[32] = {0};
  const int32_t even = (experts + ranks - 1) / ranks;
  for (int32_t r = 0; r < ranks; ++r) {
    slots[r] = even + (int32_t)bl_rng_below(rng, 4);
    if (slots[r] > experts) slots[r] = experts;
  }
  for (int32_t e = 0; e < experts; ++e) {
    home[e] = (int32_t)bl_rng_below(rng, (uint64_t)ranks);
    while (held[home[e]] == slots[home[e]]) home[e] = (home[e] + 1) % ranks;
    ++held[home[e]];
  }
  BL_TRY(bl_hosts_create(hosts, experts, ranks, slots));
  BL_TRY(bl_hosts_set_homes(hosts, home));
  bool on[64][32] = {{false}};
  for (int32_t e = 0; e < experts; ++e) on[e][home[e]] = true;
  for (int32_t s = 0; s < hosts->n_copy_slots; ++s) {
    const int32_t e = (int32_t)bl_rng_below(rng, (uint64_t)experts), r = hosts->copy_rank[s];
    if (on[e][r] || bl_rng_below(rng, 4) == 0) continue;
    on[e][r] = true;
    hosts->copy_expert[s] = e;
  }
  return BL_OK;
}

static void compare(bl_rng *rng, bool with_speed) {
  static const int32_t RANKS[] = {2, 3, 4, 8, 16};
  const int32_t ranks = RANKS[bl_rng_below(rng, 5)];
  const int32_t experts = ranks * (1 + (int32_t)bl_rng_below(rng, 4));
  double load[64], speed[32], direct, program;
  const double skew = 4 * bl_rng_unit(rng);
  for (int32_t e = 0; e < experts; ++e) load[e] = floor(1e5 * bl_det_pow(bl_rng_unit(rng), skew));
  load[0] += 1;
  for (int32_t r = 0; r < ranks; ++r) speed[r] = 0.5 + bl_rng_unit(rng);
  bl_hosts hosts = {.experts = 0};
  bl_shares *shares;
  REQUIRE_OK(draw_hosts(rng, &hosts, experts, ranks));
  REQUIRE_OK(bl_shares_create(experts, ranks, hosts.n_copy_slots, &shares));
  direct = bl_shares_solve(shares, &hosts, load, with_speed ? speed : NULL);
  REQUIRE_OK(bl_shares_lp(&hosts, load, with_speed ? speed : NULL, &program));
  CHECK_NEAR(direct, program, 1e-9 * program);
  bl_shares_free(shares);
  bl_hosts_free(&hosts);
}

static void test_flow_equals_program(void) {
  if (!bl_prove_has_solver()) SKIP("built without GLPK");
  bl_rng rng;
  bl_rng_seed(&rng, 11, 0);
  const int32_t n = check_is_small() ? 60 : 600;
  for (int32_t i = 0; i < n; ++i) compare(&rng, i % 3 == 0);
}

static void test_zero_load(void) {
  if (!bl_prove_has_solver()) SKIP("built without GLPK");
  const double load[4] = {0};
  const int32_t slots[2] = {3, 3};
  bl_hosts hosts;
  double imbalance = 0;
  REQUIRE_OK(bl_hosts_create(&hosts, 4, 2, slots));
  CHECK_OK(bl_shares_lp(&hosts, load, NULL, &imbalance));
  CHECK_NEAR(imbalance, 1.0, 0);
  bl_hosts_free(&hosts);
}

static void test_without_glpk(void) {
  if (bl_prove_has_solver()) SKIP("only for builds without GLPK");
  const double load[4] = {1, 2, 3, 4};
  const int32_t slots[2] = {3, 3};
  bl_hosts hosts;
  double imbalance;
  REQUIRE_OK(bl_hosts_create(&hosts, 4, 2, slots));
  CHECK_FAILS(bl_shares_lp(&hosts, load, NULL, &imbalance), BL_ENOTSUP, "GLPK");
  bl_hosts_free(&hosts);
}

int main(void) {
  RUN(test_flow_equals_program);
  RUN(test_zero_load);
  RUN(test_without_glpk);
  TEST_MAIN_END;
}
