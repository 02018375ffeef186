/* A solver that crashes, hangs, lies or eats all memory must cost nothing but its own answer. */
#include "base/log.h"
#include "planner/milp/fewest_copies.h"
#include "planner/milp/prove_with.h"
#include "tests/check.h"
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#else
#define SANITIZED false
#endif

/* The mean is 9. The first rank's experts of 6 go to an empty rank, which can take 9 but a copy only 6, and to two
 * ranks that can take 3 each: bounds say 3 copies, the truth is 4, so the solver is asked. */
static const double LOAD[] = {6, 6, 6, 6, 0, 0, 0, 0, 1, 2, 1, 2, 3, 1, 1, 1};
static const int32_t SLOTS[] = {6, 6, 6, 6}, HOME[] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
enum { BOUND = 3, TRUTH = 4 };

static bl_prove_problem question(double seconds) {
  return (bl_prove_problem){
      .experts = 16, .ranks = 4, .load = LOAD, .slots = SLOTS, .home = HOME, .eps = 0.01, .seconds = seconds};
}

/* The answer when `body` is the solver; the placement of the search must be there whatever it does. */
static void ask(bl_child_body *body, double seconds, bl_prove_result *result) {
  const bl_prove_problem q = question(seconds);
  CHECK_OK(bl_prove_with(&q, body, result));
  CHECK_INT(result->copies, TRUTH);
  CHECK(result->imbalance <= 1.01 * (1 + 1e-8));
  CHECK_INT(result->hosts.experts, 16);
}

static void expect_gap(bl_child_body *body, double seconds, bl_prove_solver solver, const char *reason) {
  bl_prove_result result;
  ask(body, seconds, &result);
  CHECK_INT(result.status, BL_PROVE_GAP);
  CHECK_INT(result.solver, solver);
  CHECK_INT(result.bound, BOUND);
  CHECK_STRING(result.proof, "groups-of-ranks");
  CHECK(strstr(result.reason, reason) != NULL);
  if (!strstr(result.reason, reason)) printf("reason: %s\n", result.reason);
  bl_prove_result_free(&result);
}

/* -- the misbehaving ----------------------------------------------------------------------------------------------- */

static void aborts(bl_child_pipe *pipe, void *context) {
  (void)pipe, (void)context;
  abort();
}
static void exits(bl_child_pipe *pipe, void *context) {
  (void)pipe, (void)context;
  _exit(7);
}
static void hangs(bl_child_pipe *pipe, void *context) {
  (void)pipe, (void)context;
  for (;;) pause();
}
static void closes_and_hangs(bl_child_pipe *pipe, void *context) {
  (void)pipe, (void)context;
  for (int fd = 3; fd < 64; ++fd) close(fd);
  for (;;) pause();
}
static void sends_noise(bl_child_pipe *pipe, void *context) {
  (void)context;
  static const char noise[] = "GLPK Integer Optimizer, v5.0: 1024 rows, 2048 columns, 4096 non-zeros";
  bl_child_write_raw(pipe, noise, sizeof noise);
  for (;;) pause();
}
static void sends_half(bl_child_pipe *pipe, void *context) {
  (void)context;
  static const uint32_t half[] = {0x424c4350, BL_MIP_BOUND, 12};
  bl_child_write_raw(pipe, half, sizeof half);
}
static void claims_length(bl_child_pipe *pipe, void *context) {
  (void)context;
  static const uint32_t header[] = {0x424c4350, BL_MIP_PLACEMENT, 0xfffffff0u};
  bl_child_write_raw(pipe, header, sizeof header);
  for (;;) pause();
}
static void sends_unknown_kind(bl_child_pipe *pipe, void *context) {
  (void)context;
  bl_child_send(pipe, 77, "x", 1);
}
static void sends_short_placement(bl_child_pipe *pipe, void *context) {
  (void)context;
  bl_child_send(pipe, BL_MIP_PLACEMENT, "\1\1\1", 3);
}
static void sends_full_ranks(bl_child_pipe *pipe, void *context) { /* more hosts than slots */
  (void)context;
  uint8_t all[64];
  memset(all, 1, sizeof all);
  bl_child_send(pipe, BL_MIP_PLACEMENT, all, sizeof all);
}
static void sends_high_bound(bl_child_pipe *pipe, void *context) { /* a bound above a placement that exists */
  (void)context;
  const double bound = TRUTH + 1;
  bl_child_send(pipe, BL_MIP_BOUND, &bound, sizeof bound);
}
static void denies_placement(bl_child_pipe *pipe, void *context) { /* "infeasible", yet a placement is known */
  (void)context;
  const bl_mip_result result = {.verdict = BL_MIP_INFEASIBLE};
  bl_child_send(pipe, BL_MIP_RESULT, &result, sizeof result);
}
static void sends_nothing(bl_child_pipe *pipe, void *context) { (void)pipe, (void)context; }
static void says_memory(bl_child_pipe *pipe, void *context) {
  (void)context;
  bl_child_fail(pipe, true, "GLPK aborted: no memory available\n");
}

static void test_deaths(void) {
  expect_gap(aborts, 5, BL_PROVE_SOLVER_DIED, "signal 6");
  expect_gap(exits, 5, BL_PROVE_SOLVER_DIED, "exit code 7");
  expect_gap(closes_and_hangs, 5, BL_PROVE_SOLVER_DIED, "signal 9");
  expect_gap(says_memory, 5, BL_PROVE_SOLVER_MEMORY, "no memory available");
}

static void test_lies(void) {
  expect_gap(sends_noise, 5, BL_PROVE_SOLVER_DIED, "no message");
  expect_gap(claims_length, 5, BL_PROVE_SOLVER_DIED, "no message");
  expect_gap(sends_half, 5, BL_PROVE_SOLVER_DIED, "cannot be true"); /* the next header is read as the bound */
  expect_gap(sends_unknown_kind, 5, BL_PROVE_SOLVER_DIED, "cannot be true");
  expect_gap(sends_short_placement, 5, BL_PROVE_SOLVER_DIED, "cannot be true");
  expect_gap(sends_full_ranks, 5, BL_PROVE_SOLVER_DIED, "cannot be true");
  expect_gap(sends_high_bound, 5, BL_PROVE_SOLVER_DIED, "cannot be true");
  expect_gap(denies_placement, 5, BL_PROVE_SOLVER_DIED, "cannot be true");
  expect_gap(sends_nothing, 5, BL_PROVE_SOLVER_DIED, "without a result");
}

static void test_hang(void) {
  const int64_t start_us = bl_now_us();
  expect_gap(hangs, 0.5, BL_PROVE_SOLVER_TIME, "killed at the time limit");
  const double seconds = (double)(bl_now_us() - start_us) * 1e-6;
  CHECK(seconds > 0.5 && seconds < 3);
}

/* A bound that arrived before the crash stands. */
static void proves_then_crashes(bl_child_pipe *pipe, void *context) {
  (void)context;
  const double bound = TRUTH;
  bl_child_send(pipe, BL_MIP_BOUND, &bound, sizeof bound);
  abort();
}

static void test_messages_before_death_count(void) {
  bl_prove_result result;
  ask(proves_then_crashes, 5, &result);
  CHECK_INT(result.status, BL_PROVE_OPTIMAL);
  CHECK_INT(result.bound, TRUTH);
  CHECK(result.bound_by_glpk);
  CHECK_INT(result.solver, BL_PROVE_SOLVER_DIED);
  bl_prove_result_free(&result);
}

/* What the child sends as better is checked here: too few copies do not balance. */
static void sends_no_copies(bl_child_pipe *pipe, void *context) {
  (void)context;
  uint8_t homes[64] = {0};
  for (int e = 0; e < 16; ++e) homes[e * 4 + HOME[e]] = 1;
  bl_child_send(pipe, BL_MIP_PLACEMENT, homes, sizeof homes);
  const bl_mip_result result = {.verdict = BL_MIP_STOPPED};
  bl_child_send(pipe, BL_MIP_RESULT, &result, sizeof result);
}

static void test_unbalanced_placement_is_not_taken(void) {
  bl_prove_result result;
  ask(sends_no_copies, 5, &result);
  CHECK_INT(result.status, BL_PROVE_GAP);
  bl_prove_result_free(&result);
}

/* -- memory -------------------------------------------------------------------------------------------------------- */

static void eats_memory(bl_child_pipe *pipe, void *context) {
  (void)context;
  for (size_t mb = 1; mb < 4096; ++mb) {
    char *block = malloc(1 << 20);
    if (!block) bl_child_fail(pipe, true, "malloc returned NULL");
    memset(block, 1, 1 << 20);
  }
}

static void test_address_space_limit(void) {
  if (SANITIZED) SKIP("no limit on address space under sanitizers");
  bl_prove_problem q = question(5);
  q.memory_bytes = 64 << 20;
  bl_prove_result result;
  CHECK_OK(bl_prove_with(&q, eats_memory, &result));
  CHECK_INT(result.solver, BL_PROVE_SOLVER_MEMORY);
  CHECK_INT(result.status, BL_PROVE_GAP);
  bl_prove_result_free(&result);
}

static bool ignore(void *context, uint32_t kind, const void *payload, uint32_t bytes) {
  (void)context, (void)kind, (void)payload, (void)bytes;
  return true;
}

/* GLPK's own abort (of which its allocator running into the limit is one) is caught and named. */
static void abort_glpk(bl_child_report *report) {
  enum { EXPERTS = 128, RANKS = 16 };
  double load[EXPERTS];
  int32_t slots[RANKS];
  for (int e = 0; e < EXPERTS; ++e) load[e] = (double)RANKS / EXPERTS;
  for (int r = 0; r < RANKS; ++r) slots[r] = EXPERTS / RANKS + 1;
  const bl_fewest problem = {.experts = EXPERTS, .ranks = RANKS, .load = load, .slots = slots, .cap = 1.01};
  const bl_mip_task task = {.problem = &problem, .seconds = 5, .memory_bytes = 1 << 20};
  const bl_child_limits limits = {.seconds = 10, .max_message = 1 << 16};
  CHECK_OK(bl_child_run(&limits, bl_fewest_copies_body, (void *)(uintptr_t)&task, ignore, NULL, report));
}

static void test_glpk_memory_limit(void) {
  if (!bl_prove_has_solver()) SKIP("built without GLPK");
  bl_child_report report;
  abort_glpk(&report);
  CHECK_INT(report.end, BL_CHILD_MEMORY);
  CHECK(strstr(report.reason, "GLPK aborted") != NULL && strstr(report.reason, "memory") != NULL);
}

/* -- nothing is left behind ---------------------------------------------------------------------------------------- */

static int open_descriptors(void) {
  int n = 0;
  DIR *folder = opendir("/proc/self/fd");
  if (!folder) return -1;
  while (readdir(folder)) ++n;
  closedir(folder);
  return n;
}

static void test_nothing_stays(void) {
  const int before = open_descriptors();
  for (int i = 0; i < 20; ++i) expect_gap(i % 2 ? aborts : sends_noise, 5, BL_PROVE_SOLVER_DIED, "");
  CHECK_INT(open_descriptors(), before);
  CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
}

/* -- the solver itself --------------------------------------------------------------------------------------------- */

static void test_solver_proves(void) {
  if (!bl_prove_has_solver()) SKIP("built without GLPK");
  bl_prove_result result;
  ask(bl_fewest_copies_body, 20, &result);
  CHECK_INT(result.status, BL_PROVE_OPTIMAL);
  CHECK_INT(result.solver, BL_PROVE_SOLVER_FINISHED);
  CHECK_STRING(result.proof, "glpk-mip");
  CHECK_STRING(result.reason, "");
  bl_prove_result_free(&result);
}

/* Proves only what it is helped to: with the search's placement to start from and the bound that is known. */
static void proves_if_helped(bl_child_pipe *pipe, void *context) {
  const bl_mip_task *task = context;
  const bl_mip_result result = {.verdict = BL_MIP_OPTIMAL, .price = TRUTH};
  if (!task->start || bl_fewest_copies_of(task->start) != TRUTH || task->bound != BOUND) return;
  bl_child_send(pipe, BL_MIP_RESULT, &result, sizeof result);
}

static void test_solver_gets_start_and_bound(void) {
  bl_prove_result result;
  ask(proves_if_helped, 5, &result);
  CHECK_INT(result.status, BL_PROVE_OPTIMAL);
  bl_prove_result_free(&result);
}

static bool take_result(void *context, uint32_t kind, const void *payload, uint32_t bytes) {
  if (kind == BL_MIP_RESULT && bytes == sizeof(bl_mip_result)) memcpy(context, payload, bytes);
  return true;
}

/* GLPK takes the placement it is given over; cold it must search for one. */
static bl_mip_result solve_from(const bl_fewest *problem, const bl_hosts *start, bool cold) {
  const bl_mip_task task = {.problem = problem, .start = start, .seconds = 20, .cold = cold};
  const bl_child_limits limits = {.seconds = 25, .max_message = 1 << 16};
  bl_mip_result result = {.verdict = -1};
  bl_child_report report;
  CHECK_OK(bl_child_run(&limits, bl_fewest_copies_body, (void *)(uintptr_t)&task, take_result, &result, &report));
  CHECK_INT(report.end, BL_CHILD_FINISHED);
  return result;
}

static void test_warm_start(void) {
  if (!bl_prove_has_solver()) SKIP("built without GLPK");
  const double sum = 36;
  double load[16];
  for (int e = 0; e < 16; ++e) load[e] = LOAD[e] / sum * 4;
  bl_prove_result found;
  ask(NULL, 5, &found);
  const bl_fewest given = {.experts = 16, .ranks = 4, .load = load, .slots = SLOTS, .home = HOME, .cap = 1.01};
  bl_fewest free_homes = given;
  free_homes.home = NULL;
  bl_mip_result warm = solve_from(&given, &found.hosts, false), cold = solve_from(&given, &found.hosts, true);
  CHECK_INT(warm.warm_started, 1);
  CHECK_INT(cold.warm_started, 0);
  CHECK_INT(warm.price, TRUTH);
  CHECK_INT(cold.price, TRUTH);
  warm = solve_from(&free_homes, &found.hosts, false);
  CHECK_INT(warm.warm_started, 1);
  CHECK_INT(warm.verdict, BL_MIP_OPTIMAL);
  CHECK(warm.price <= TRUTH);
  bl_prove_result_free(&found);
}

static void prints(bl_child_pipe *pipe, void *context) {
  (void)pipe, (void)context;
  printf("Error detected in file env/alloc.c at line 72\n");
  fflush(stdout);
  if (!SANITIZED) fprintf(stderr, "and on stderr\n");
}

/* Nothing on stdout or stderr, also where GLPK aborts. */
static void test_solver_is_silent(void) {
  bl_child_report report;
  fflush(stdout);
  FILE *caught = tmpfile();
  REQUIRE(caught != NULL);
  const int out = dup(1), err = dup(2);
  dup2(fileno(caught), 1);
  dup2(fileno(caught), 2);
  expect_gap(prints, 5, BL_PROVE_SOLVER_DIED, "without a result");
  if (bl_prove_has_solver()) {
    test_solver_proves();
    abort_glpk(&report);
  }
  fflush(stdout);
  dup2(out, 1);
  dup2(err, 2);
  close(out);
  close(err);
  CHECK_INT(lseek(fileno(caught), 0, SEEK_END), 0);
  fclose(caught);
}

int main(void) {
  RUN(test_deaths);
  RUN(test_lies);
  RUN(test_hang);
  RUN(test_messages_before_death_count);
  RUN(test_unbalanced_placement_is_not_taken);
  RUN(test_address_space_limit);
  RUN(test_glpk_memory_limit);
  RUN(test_nothing_stays);
  RUN(test_solver_proves);
  RUN(test_solver_gets_start_and_bound);
  RUN(test_warm_start);
  RUN(test_solver_is_silent);
  TEST_MAIN_END;
}
