/* Back-off: when layers are decided, and what wakes them, on counts whose every step is known. */
#include "planner/policy.h"
#include "tests/check.h"
#include <stdlib.h>

enum { MOST_EXPERTS = 8, MOST_STEPS = 64 };

typedef struct setting {
  int32_t experts, ranks;
  const int32_t *slots;
  void (*counts)(int64_t step, double *counts);
} setting;

static bl_policy *create(const setting *s, int64_t back_off) {
  bl_policy_options options;
  bl_policy_options_init(&options);
  options.back_off = back_off;
  const bl_policy_shape shape = {.layers = 1, .experts = s->experts, .ranks = s->ranks, .slots = s->slots};
  bl_policy *policy = NULL;
  CHECK_OK(bl_policy_create(&options, &shape, &policy));
  return policy;
}

/* Steps first..last; decided[step], and the imbalance of the last. */
static double play(bl_policy *policy, const setting *s, int64_t first, int64_t last, bool *decided) {
  bl_policy_outcome outcome = {0};
  double counts[MOST_EXPERTS];
  for (int64_t step = first; step <= last; ++step) {
    s->counts(step, counts);
    CHECK_OK(bl_policy_begin_step(policy, step));
    CHECK_OK(bl_policy_micro_batch(policy, 0, counts, NULL, &outcome));
    CHECK_OK(bl_policy_end_step(policy));
    decided[step] = bl_policy_report(policy, 0)->decided;
  }
  return outcome.imbalance;
}

static int32_t count(const bool *decided, int64_t first, int64_t last) {
  int32_t n = 0;
  for (int64_t step = first; step <= last; ++step) n += decided[step];
  return n;
}

/* Expert 0 is hot; from step 30 on expert 7 is instead. */
static void jump_at_30(int64_t step, double *counts) {
  for (int32_t e = 0; e < 8; ++e) counts[e] = 10;
  counts[step < 30 ? 0 : 7] = 70;
}

static const int32_t THREE_EACH[4] = {3, 3, 3, 3};
static const setting JUMP = {8, 4, THREE_EACH, jump_at_30};

static void test_waits_double_until_a_jump(void) {
  bool decided[MOST_STEPS] = {false};
  bl_policy *policy = create(&JUMP, 8);
  CHECK_NEAR(play(policy, &JUMP, 1, 29, decided), 1, 1e-6);
  for (int64_t step = 1; step <= 29; ++step) /* 1, 2, 4 and 8 steps after the first one that changes nothing */
    CHECK(decided[step] == (step == 2 || step == 3 || step == 5 || step == 9 || step == 17 || step == 25));
  CHECK_NEAR(play(policy, &JUMP, 30, 60, decided), 1, 1e-6);
  CHECK(!decided[30] && decided[31] && decided[32]); /* the next would have been step 33 */
  CHECK(count(decided, 40, 60) <= 5);
  bl_policy_free(policy);
  policy = create(&JUMP, 1);
  play(policy, &JUMP, 1, 29, decided);
  CHECK_INT(count(decided, 1, 29), 28);
  bl_policy_free(policy);
}

/* All experts everywhere: balanced whatever comes; one of them grows by a fiftieth a step. */
static void growing(int64_t step, double *counts) {
  for (int32_t e = 0; e < 4; ++e) counts[e] = 100;
  counts[0] += 2 * (double)step;
}

static const int32_t FOUR_EACH[2] = {4, 4};
static const setting GROWING = {4, 2, FOUR_EACH, growing};

static void test_drift_wakes(void) {
  bool decided[MOST_STEPS] = {false};
  bl_policy *policy = create(&GROWING, 16);
  CHECK_NEAR(play(policy, &GROWING, 1, 60, decided), 1, 1e-6);
  CHECK(count(decided, 11, 60) >= 20); /* as far as two errors of forecasts in every second step */
  CHECK(count(decided, 11, 60) <= 30);
  bl_policy_free(policy);
}

/* Two experts of rank 0 change places at every step, which is far for a forecast and nothing for the ranks; from step
 * 30 on rank 1 has more. */
static void shifted_at_30(int64_t step, double *counts) {
  const double now[6] = {step % 2 ? 10 : 50, step % 2 ? 50 : 10, 20, 30, 30, 20};
  for (int32_t e = 0; e < 6; ++e) counts[e] = now[e];
  if (step < 30) return;
  counts[2] -= 5;
  counts[3] += 5;
}

static const int32_t ROOM_ON_0[2] = {4, 3};
static const setting SHIFTED = {6, 2, ROOM_ON_0, shifted_at_30};

static void test_imbalance_wakes(void) {
  bool decided[MOST_STEPS] = {false};
  bl_policy *policy = create(&SHIFTED, 32);
  CHECK_NEAR(play(policy, &SHIFTED, 1, 29, decided), 1, 1e-6);
  CHECK_INT(count(decided, 18, 29), 0);
  CHECK_NEAR(play(policy, &SHIFTED, 30, 31, decided), 1, 1e-6);
  CHECK(!decided[30] && decided[31]);
  bl_policy_free(policy);
}

/* No slots for copies, so nothing can change: rank 1 has more than rank 0, now a little more, now a little less; from
 * step 30 on a good deal more, which is not so far as one step's change on rank 0. */
static void uneven(int64_t step, double *counts) {
  const double now[4] = {step % 2 ? 10 : 50, step % 2 ? 50 : 10, 40, 40 + (double)(step % 3)};
  for (int32_t e = 0; e < 4; ++e) counts[e] = now[e];
  if (step >= 30) counts[2] += 8;
}

static const int32_t TWO_EACH[2] = {2, 2};
static const setting UNEVEN = {4, 2, TWO_EACH, uneven};

static void test_what_cannot_be_helped_wakes_once(void) {
  bool decided[MOST_STEPS] = {false};
  bl_policy *policy = create(&UNEVEN, 16);
  play(policy, &UNEVEN, 1, 60, decided);
  CHECK_INT(count(decided, 20, 29), 0);
  CHECK(!decided[30] && decided[31] && count(decided, 32, 35) >= 1); /* from short waits on again */
  CHECK_INT(count(decided, 49, 59), 0);
  bl_policy_free(policy);
}

static void test_a_resumed_rest_ends_alike(void) {
  bool whole[MOST_STEPS] = {false}, resumed[MOST_STEPS] = {false};
  bl_policy *policy = create(&JUMP, 8), *rest = create(&JUMP, 8), *other = create(&JUMP, 4);
  void *bytes;
  uint64_t size;
  play(policy, &JUMP, 1, 20, whole);
  REQUIRE_OK(bl_policy_save(policy, &bytes, &size));
  CHECK_FAILS(bl_policy_load(other, bytes, size), BL_EINPUT, "--back-off");
  CHECK_OK(bl_policy_load(rest, bytes, size));
  play(policy, &JUMP, 21, 60, whole);
  play(rest, &JUMP, 21, 60, resumed);
  for (int64_t step = 21; step <= 60; ++step) CHECK(whole[step] == resumed[step]);
  free(bytes);
  bl_policy_free(policy);
  bl_policy_free(rest);
  bl_policy_free(other);
}

static void test_refused(void) {
  const struct {
    const char *policy, *shares;
    int64_t back_off;
    const char *sentence;
  } cases[] = {{"eplb:5", "fresh", 8, "--back-off is for ballast alone"},
               {"ballast", "stale", 8, "--back-off needs --shares fresh"},
               {"ballast", "fresh", 0, "--back-off 0: expected 1 to"},
               {"ballast", "fresh", 5000, "--back-off 5000: expected 1 to"}};
  const bl_policy_shape shape = {.layers = 1, .experts = 8, .ranks = 4, .slots = THREE_EACH};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    bl_policy_options options;
    bl_policy *policy;
    bl_policy_options_init(&options);
    options.policy = cases[i].policy;
    options.shares = cases[i].shares;
    options.back_off = cases[i].back_off;
    CHECK_FAILS(bl_policy_create(&options, &shape, &policy), BL_EUSAGE, cases[i].sentence);
  }
}

int main(void) {
  RUN(test_waits_double_until_a_jump);
  RUN(test_drift_wakes);
  RUN(test_imbalance_wakes);
  RUN(test_what_cannot_be_helped_wakes_once);
  RUN(test_a_resumed_rest_ends_alike);
  RUN(test_refused);
  TEST_MAIN_END;
}
