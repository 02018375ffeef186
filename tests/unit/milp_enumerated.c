/* Fewest copies, and copies and moves at a price, against full enumeration: the whole call, its combinatorial parts,
 * and GLPK alone. */
#include "planner/milp/expert_groups.h"
#include "planner/milp/fewest_copies.h"
#include "planner/milp/prove_with.h"
#include "planner/milp/rank_groups.h"
#include "tests/check.h"
#include "tests/unit/enumerate.h"

static int32_t draws(int32_t n) { return check_is_small() ? n / 10 : n; }

/* Hosts stand the enumeration's own check: right homes, slots and Hall's condition. */
static void check_hosts(const instance *x, const bl_hosts *hosts, double price) {
  double inside[16] = {0};
  int32_t held[4] = {0}, n = 0, moved = 0;
  int32_t mask[ENUMERATE_MAX];
  for (int32_t e = 0; e < hosts->experts; ++e) {
    mask[e] = 1 << hosts->home[e];
    ++held[hosts->home[e]];
    if (x->problem.home) CHECK_INT(hosts->home[e], x->home[e]);
    moved += x->problem.current && hosts->home[e] != x->home[e];
  }
  for (int32_t s = 0; s < hosts->n_copy_slots; ++s) {
    const int32_t e = hosts->copy_expert[s], r = hosts->copy_rank[s];
    if (e < 0) continue;
    CHECK(!(mask[e] >> r & 1));
    mask[e] |= 1 << r;
    ++held[r];
    ++n;
  }
  CHECK_NEAR(n + x->problem.move_price * moved, price, 1e-9);
  for (int32_t r = 0; r < hosts->ranks; ++r) CHECK(held[r] <= x->slots[r]);
  for (int32_t set = 1; set < 1 << hosts->ranks; ++set) {
    for (int32_t e = 0; e < hosts->experts; ++e)
      if ((mask[e] & ~set) == 0) inside[set] += x->load[e];
    double limit = 0;
    for (int32_t r = 0; r < hosts->ranks; ++r) limit += set >> r & 1 ? bl_fewest_cap(&x->problem, r) : 0;
    CHECK(inside[set] <= limit * (1 + 1e-9));
  }
}

typedef enum homes { FREE, GIVEN, MOVING } homes;

static void compare(homes how, bool unlike, int32_t n, int32_t most_experts) {
  static const char *const name[] = {"free", "given", "moving"};
  bl_rng rng;
  bl_rng_seed(&rng, 7, (uint64_t)how + 10 * unlike);
  int32_t solver_needed = 0;
  for (int32_t i = 0; i < draws(n); ++i) {
    instance x;
    const int32_t ranks = 1 + (int32_t)bl_rng_below(&rng, 3);
    const int32_t experts = ranks + (int32_t)bl_rng_below(&rng, (uint64_t)(most_experts - ranks + 1));
    instance_draw(&x, &rng, experts, ranks, how != FREE);
    if (unlike) instance_speeds(&x, &rng);
    if (how == MOVING) instance_moving(&x, &rng);
    const double truth = enumerate_least(&x.problem);
    const bl_prove_problem question = instance_question(&x, 20);
    bl_prove_result result;
    REQUIRE_OK(bl_prove_fewest_copies(&question, &result));
    CHECK_INT(result.status, truth == ENUMERATE_NONE ? BL_PROVE_INFEASIBLE : BL_PROVE_OPTIMAL);
    solver_needed += result.solver != BL_PROVE_SOLVER_NOT_NEEDED;
    if (truth != ENUMERATE_NONE) {
      CHECK_NEAR(result.price, truth, 1e-6);
      CHECK_NEAR(result.bound, truth, 1e-6);
      CHECK_NEAR(result.price, result.copies + x.problem.move_price * result.moves, 1e-9);
      CHECK(result.imbalance <= (1 + x.eps) * (1 + 1e-8));
      CHECK_NEAR(result.lp_imbalance, result.imbalance, 1e-9);
      if (result.copies >= 0) check_hosts(&x, &result.hosts, truth);
    } else {
      CHECK_INT(result.copies, -1);
    }
    bl_prove_result_free(&result);
  }
  printf("%s homes%s: %d instances, GLPK needed in %d\n", name[how], unlike ? ", unlike ranks" : "", draws(n),
         solver_needed);
}

static void test_given_homes(void) {
  if (!bl_prove_has_solver()) SKIP("built without GLPK");
  compare(GIVEN, false, 600, 7);
  compare(GIVEN, true, 300, 6);
}

static void test_free_homes(void) {
  if (!bl_prove_has_solver()) SKIP("built without GLPK");
  compare(FREE, false, 400, 6);
  compare(FREE, true, 150, 6);
}

static void test_moving_homes(void) {
  if (!bl_prove_has_solver()) SKIP("built without GLPK");
  compare(MOVING, false, 300, 6);
  compare(MOVING, true, 150, 5);
}

/* Without a solver bounds still hold and what is found is real. */
static void test_bounds_alone(void) {
  bl_rng rng;
  bl_rng_seed(&rng, 8, 0);
  int32_t met = 0, all = 0;
  for (int32_t i = 0; i < draws(600); ++i) {
    instance x;
    instance_draw(&x, &rng, 6, 3, i % 3 > 0);
    if (i % 5 == 0) instance_speeds(&x, &rng);
    if (i % 3 == 2) instance_moving(&x, &rng);
    const double truth = enumerate_least(&x.problem);
    const bl_prove_problem question = instance_question(&x, 20);
    bl_prove_result result;
    REQUIRE_OK(bl_prove_with(&question, NULL, &result));
    if (result.status == BL_PROVE_INFEASIBLE) CHECK_INT(truth, ENUMERATE_NONE);
    CHECK(result.bound <= truth + 1e-6);
    if (result.copies >= 0) {
      CHECK(result.price >= truth - 1e-6);
      check_hosts(&x, &result.hosts, result.price);
    }
    if (result.status == BL_PROVE_OPTIMAL) CHECK_NEAR(result.price, truth, 1e-6);
    if (result.status == BL_PROVE_GAP || result.status == BL_PROVE_UNKNOWN) {
      CHECK_INT(result.solver, BL_PROVE_SOLVER_ABSENT);
      CHECK(strstr(result.reason, "GLPK") != NULL);
    }
    met += result.status == BL_PROVE_OPTIMAL;
    all += truth != ENUMERATE_NONE;
    bl_prove_result_free(&result);
  }
  printf("bounds and search alone: %d of %d proved\n", met, all);
  CHECK(met >= all * 9 / 10);
}

/* With ranks alike the packing of groups is exact, not only a bound. */
static void test_expert_groups_exact(void) {
  bl_rng rng;
  bl_rng_seed(&rng, 9, 0);
  for (int32_t i = 0; i < draws(400); ++i) {
    instance x;
    instance_draw(&x, &rng, 6, 3, false);
    x.slots[1] = x.slots[2] = x.slots[0];
    const double truth = enumerate_least(&x.problem);
    const bl_expert_groups_options options = {.below = INT32_MAX, .budget = 1000000};
    bl_expert_groups groups;
    bl_hosts hosts = {.experts = 0};
    REQUIRE_OK(bl_expert_groups_solve(&x.problem, &options, &groups, &hosts));
    CHECK_INT(groups.infeasible, truth == ENUMERATE_NONE);
    CHECK_INT(groups.found, truth != ENUMERATE_NONE);
    if (groups.found) {
      CHECK_INT(groups.bound, truth);
      check_hosts(&x, &hosts, truth);
    }
    bl_hosts_free(&hosts);
  }
}

/* What GLPK says without any help: no bound, no start. */
typedef struct heard {
  bl_mip_result result;
  double bound;
  int32_t placements;
  bool nonsense;
} heard;

static bool listen(void *context, uint32_t kind, const void *payload, uint32_t bytes) {
  heard *h = context;
  if (kind == BL_MIP_BOUND) memcpy(&h->bound, payload, sizeof h->bound);
  if (kind == BL_MIP_PLACEMENT) ++h->placements;
  if (kind == BL_MIP_RESULT && bytes == sizeof h->result) memcpy(&h->result, payload, bytes);
  return true;
}

static void ask_glpk(const bl_mip_task *task, heard *h, bl_child_report *report) {
  const bl_child_limits limits = {.seconds = task->seconds + 5, .memory_bytes = 0, .max_message = 1 << 16};
  memset(h, 0, sizeof *h);
  h->result.verdict = -1;
  h->bound = -1;
  CHECK_OK(bl_child_run(&limits, bl_fewest_copies_body, (void *)(uintptr_t)task, listen, h, report));
}

static void test_glpk_alone(void) {
  if (!bl_prove_has_solver()) SKIP("built without GLPK");
  bl_rng rng;
  bl_rng_seed(&rng, 10, 0);
  for (int32_t i = 0; i < draws(200); ++i) {
    instance x;
    instance_draw(&x, &rng, 6, 3, i % 3 > 0);
    if (i % 5 == 0) instance_speeds(&x, &rng);
    if (i % 3 == 2) instance_moving(&x, &rng);
    const double truth = enumerate_least(&x.problem);
    const bl_mip_task task = {.problem = &x.problem, .seconds = 20};
    heard h;
    bl_child_report report;
    ask_glpk(&task, &h, &report);
    CHECK_INT(report.end, BL_CHILD_FINISHED);
    CHECK_INT(h.result.verdict, truth == ENUMERATE_NONE ? BL_MIP_INFEASIBLE : BL_MIP_OPTIMAL);
    if (truth == ENUMERATE_NONE) continue;
    CHECK_NEAR(h.result.price, truth, 1e-6);
    CHECK(h.bound <= truth + 1e-6);
    CHECK(h.placements >= 1);
    CHECK_INT(h.result.warm_started, 0);
  }
}

static bl_prove_result prove(const double *load, int32_t experts, int32_t ranks, const int32_t *slots,
                             const int32_t *home) {
  const bl_prove_problem question = {
      .experts = experts, .ranks = ranks, .load = load, .slots = slots, .home = home, .seconds = 5};
  bl_prove_result result;
  CHECK_OK(bl_prove_fewest_copies(&question, &result));
  return result;
}

/* Bins equally full but with different places left are not the same bin. */
static void test_idle_experts(void) {
  const double load[] = {2, 1, 1, 0, 0, 0};
  const int32_t slots[] = {3, 3};
  bl_prove_result result = prove(load, 6, 2, slots, NULL);
  CHECK_INT(result.status, BL_PROVE_OPTIMAL);
  CHECK_INT(result.copies, 0);
  bl_prove_result_free(&result);
}

/* More ranks than the bound by partition takes: one rank has half of all load, every other must take a copy. */
static void test_many_ranks(void) {
  enum { N = 20 };
  double load[N];
  int32_t slots[N], home[N];
  for (int32_t e = 0; e < N; ++e) {
    load[e] = e == 7 ? N - 1 : 1;
    slots[e] = 2;
    home[e] = e;
  }
  bl_prove_result result = prove(load, N, N, slots, home);
  CHECK_INT(result.status, BL_PROVE_OPTIMAL);
  CHECK_INT(result.copies, N - 1);
  CHECK_STRING(result.proof, "groups-of-ranks");
  bl_prove_result_free(&result);
  for (int32_t r = 0; r < N; ++r) slots[r] = 1;
  result = prove(load, N, N, slots, home);
  CHECK_INT(result.status, BL_PROVE_INFEASIBLE);
  CHECK_INT(result.copies, -1);
  bl_prove_result_free(&result);
}

static void test_refused(void) {
  const double load[] = {1, 2}, negative[] = {1, -2}, nan[] = {1, NAN}, zero[] = {0, 0};
  const int32_t slots[] = {2, 2}, few[] = {-1, 2}, many[] = {3, 2}, outside[] = {0, 2};
  const bl_prove_problem good = {.experts = 2, .ranks = 2, .load = load, .slots = slots, .seconds = 1};
  bl_prove_result result;
  bl_prove_problem bad = good;
  bad.load = negative;
  CHECK_FAILS(bl_prove_fewest_copies(&bad, &result), BL_EINPUT, "expert 1");
  bad.load = nan;
  CHECK_FAILS(bl_prove_fewest_copies(&bad, &result), BL_EINPUT, "expert 1");
  bad.load = zero;
  CHECK_FAILS(bl_prove_fewest_copies(&bad, &result), BL_EINPUT, "more than 0");
  bad = good;
  bad.slots = few;
  CHECK_FAILS(bl_prove_fewest_copies(&bad, &result), BL_EINPUT, "rank 0");
  bad.slots = many;
  CHECK_FAILS(bl_prove_fewest_copies(&bad, &result), BL_EINPUT, "rank 0");
  bad = good;
  bad.home = outside;
  CHECK_FAILS(bl_prove_fewest_copies(&bad, &result), BL_EINPUT, "expert 1");
  bad = good;
  bad.eps = -0.1;
  CHECK_FAILS(bl_prove_fewest_copies(&bad, &result), BL_EINPUT, "excess");
  bad = good;
  bad.seconds = 0;
  CHECK_FAILS(bl_prove_fewest_copies(&bad, &result), BL_EINPUT, "seconds");
  bad = good;
  bad.ranks = 0;
  CHECK_FAILS(bl_prove_fewest_copies(&bad, &result), BL_EINPUT, "ranks");
  bl_prove_result_free(&result);
}

/* Homes given that do not fit into the slots are the caller's error. */
static void test_homes_beyond_slots(void) {
  const double load[] = {1, 1, 1, 1};
  const int32_t slots[] = {1, 4}, home[] = {0, 0, 1, 1};
  const bl_prove_problem question = {
      .experts = 4, .ranks = 2, .load = load, .slots = slots, .home = home, .seconds = 5};
  bl_prove_result result;
  CHECK_FAILS(bl_prove_fewest_copies(&question, &result), BL_EINPUT, "rank 0");
  bl_prove_result_free(&result);
}

int main(void) {
  RUN(test_idle_experts);
  RUN(test_many_ranks);
  RUN(test_refused);
  RUN(test_homes_beyond_slots);
  RUN(test_given_homes);
  RUN(test_free_homes);
  RUN(test_moving_homes);
  RUN(test_bounds_alone);
  RUN(test_expert_groups_exact);
  RUN(test_glpk_alone);
  TEST_MAIN_END;
}
