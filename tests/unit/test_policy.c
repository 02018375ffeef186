/* Policies as a live run uses them: deterministic in threads, resumable, causal, repaired where needed. */
#include "base/rng.h"
#include "planner/policy.h"
#include "planner/policy_options.h"
#include "tests/check.h"
#include <pthread.h>
#include <stdio.h>

enum { LAYERS = 2, EXPERTS = 12, RANKS = 4, MICRO_BATCHES = 2 };
static const int32_t SLOTS[RANKS] = {4, 5, 4, 4};

/* Counts of (step, micro-batch, layer) as a function of these: drifting, with a jump now and then. */
static void counts_at(int64_t step, int32_t micro_batch, int32_t layer, double *counts) {
  bl_rng rng;
  bl_rng_seed(&rng, (uint64_t)(step / 5), (uint64_t)layer);
  double base[EXPERTS];
  for (int32_t e = 0; e < EXPERTS; ++e) base[e] = 400 * bl_rng_unit(&rng) * bl_rng_unit(&rng);
  base[bl_rng_below(&rng, EXPERTS)] += 900;
  bl_rng_seed(&rng, (uint64_t)(step * MICRO_BATCHES + micro_batch), (uint64_t)(layer + 100));
  for (int32_t e = 0; e < EXPERTS; ++e) counts[e] = (double)(int64_t)(base[e] * (0.9 + 0.2 * bl_rng_unit(&rng)));
}

static bl_policy *create(const char *name, const char *homes, int64_t lag, double late) {
  bl_policy_options options;
  bl_policy_options_init(&options);
  options.policy = name;
  options.homes = homes;
  options.lag = lag;
  options.late_repair = late;
  const bl_policy_shape shape = {.layers = LAYERS, .experts = EXPERTS, .ranks = RANKS, .slots = SLOTS};
  bl_policy *policy = NULL;
  CHECK_OK(bl_policy_create(&options, &shape, &policy));
  return policy;
}

/* Runs steps first..last; a hash over hosts, shares and outcomes. */
static uint64_t play(bl_policy *policy, int64_t first, int64_t last) {
  uint64_t hash = 0;
  double counts[EXPERTS];
  bl_policy_outcome outcome;
  for (int64_t step = first; step <= last; ++step) {
    CHECK_OK(bl_policy_begin_step(policy, step));
    for (int32_t m = 0; m < MICRO_BATCHES; ++m)
      for (int32_t l = 0; l < LAYERS; ++l) {
        counts_at(step, m, l, counts);
        CHECK_OK(bl_policy_micro_batch(policy, l, counts, NULL, &outcome));
        const bl_hosts *hosts = bl_policy_hosts(policy, l);
        hash = bl_hosts_hash(hosts, hash);
        for (int32_t s = 0; s < hosts->n_copy_slots; ++s) {
          const double tokens = bl_shares_copy_tokens(outcome.shares, s);
          hash = bl_hash_bytes(&tokens, sizeof tokens, hash);
        }
        hash = bl_hash_bytes(&outcome.imbalance, sizeof outcome.imbalance, hash);
      }
    CHECK_OK(bl_policy_end_step(policy));
  }
  return hash;
}

static const struct {
  const char *name, *homes;
  int64_t lag;
  double late;
} KINDS[] = {{"static", "fixed", 1, 0},    {"smartmoe:3", "fixed", 1, 0}, {"eplb:2", "fixed", 2, 0},
             {"fastermoe", "fixed", 1, 0}, {"ballast", "fixed", 1, 1.02}, {"ballast", "free", 1, 0},
             {"ballast", "cost", 1, 1.02}, {"ballast", "fixed", 3, 0},    {"ballast", "free", 2, 1.01}};
enum { N_KINDS = sizeof KINDS / sizeof *KINDS };

static void *play_in_thread(void *result) {
  uint64_t *hashes = result;
  for (int i = 0; i < N_KINDS; ++i) {
    bl_policy *policy = create(KINDS[i].name, KINDS[i].homes, KINDS[i].lag, KINDS[i].late);
    hashes[i] = play(policy, 1, 20);
    bl_policy_free(policy);
  }
  return NULL;
}

static void test_threads_agree(void) {
  pthread_t thread[4];
  uint64_t hashes[4][N_KINDS];
  for (int t = 0; t < 4; ++t) REQUIRE(pthread_create(&thread[t], NULL, play_in_thread, hashes[t]) == 0);
  for (int t = 0; t < 4; ++t) pthread_join(thread[t], NULL);
  for (int t = 1; t < 4; ++t)
    for (int i = 0; i < N_KINDS; ++i) CHECK(hashes[t][i] == hashes[0][i]);
  CHECK(hashes[0][4] != hashes[0][5]);
}

static void test_resumed_run_is_the_same(void) {
  for (int i = 0; i < N_KINDS; ++i) {
    bl_policy *whole = create(KINDS[i].name, KINDS[i].homes, KINDS[i].lag, KINDS[i].late);
    bl_policy *part = create(KINDS[i].name, KINDS[i].homes, KINDS[i].lag, KINDS[i].late);
    bl_policy *rest = create(KINDS[i].name, KINDS[i].homes, KINDS[i].lag, KINDS[i].late);
    void *bytes;
    uint64_t size;
    play(whole, 1, 13);
    play(part, 1, 13);
    REQUIRE_OK(bl_policy_save(part, &bytes, &size));
    CHECK_OK(bl_policy_load(rest, bytes, size));
    CHECK(play(whole, 14, 26) == play(rest, 14, 26));
    free(bytes);
    bl_policy_free(whole);
    bl_policy_free(part);
    bl_policy_free(rest);
  }
}

static void test_damaged_state(void) {
  bl_policy *policy = create("ballast", "fixed", 1, 0), *other = create("ballast", "free", 1, 0);
  void *bytes;
  uint64_t size;
  play(policy, 1, 5);
  REQUIRE_OK(bl_policy_save(policy, &bytes, &size));
  CHECK_FAILS(bl_policy_load(other, bytes, size), BL_EINPUT, "the same --policy, --lag");
  CHECK_FAILS(bl_policy_load(policy, bytes, size - 1), BL_EINPUT, "damaged");
  CHECK_FAILS(bl_policy_load(policy, bytes, 3), BL_EINPUT, "cut short");
  ((unsigned char *)bytes)[size / 2] ^= 4;
  CHECK_FAILS(bl_policy_load(policy, bytes, size), BL_EINPUT, "damaged");
  ((unsigned char *)bytes)[0] ^= 4;
  CHECK_FAILS(bl_policy_load(policy, bytes, size), BL_EINPUT, "not the saved state");
  free(bytes);
  bl_policy_free(policy);
  bl_policy_free(other);
}

/* Bytes whose sum was made to fit: `size` of them from `at` on set to `value`. The policy is then as it was. */
static bool refused(bl_policy *policy, const void *bytes, uint64_t size, uint64_t at, uint64_t set, int value) {
  enum { HEADER = 32, SUM_AT = 24 };
  unsigned char *altered = malloc(size);
  uint64_t sum, again;
  void *after;
  memcpy(altered, bytes, size);
  memset(altered + at, value, set);
  memcpy(&sum, altered, sizeof(uint32_t));
  sum = bl_hash_bytes(altered + HEADER, size - HEADER, sum & UINT32_MAX);
  memcpy(altered + SUM_AT, &sum, sizeof sum);
  const bool failed = bl_policy_load(policy, altered, size) != BL_OK;
  CHECK_OK(bl_policy_save(policy, &after, &again));
  CHECK(again == size && memcmp(after, failed ? bytes : altered, size) == 0);
  if (!failed) CHECK_OK(bl_policy_load(policy, bytes, size));
  free(altered);
  free(after);
  return failed;
}

static void test_altered_state(void) {
  bl_policy *policy = create("ballast", "cost", 2, 1.02), *twin = create("ballast", "cost", 2, 1.02);
  void *bytes;
  uint64_t size, any = 0;
  play(policy, 1, 9);
  play(twin, 1, 9);
  REQUIRE_OK(bl_policy_save(policy, &bytes, &size));
  /* Behind the header: the last decision, whether there was one, three counts; at the end: the last look at homes, the
   * wait, what is left of it, two numbers and a forecast. */
  const uint64_t left = size - sizeof(double) * (EXPERTS + 3);
  CHECK(!refused(policy, bytes, size, 40, 1, 1));
  CHECK(refused(policy, bytes, size, 40, 1, 2));
  for (uint64_t i = 0; i < 3; ++i) CHECK(refused(policy, bytes, size, 41 + 8 * i, 8, 0xff));
  for (uint64_t i = 0; i < 3; ++i) CHECK(refused(policy, bytes, size, left - 8 * i, 8, 0xff));
  for (uint64_t i = 0; i < 3; ++i) CHECK(refused(policy, bytes, size, left - 8 * i, 1, 100));
  for (uint64_t at = 32; at + 4 <= size; ++at) any += refused(policy, bytes, size, at, 4, 0x7f);
  CHECK(any > 2 * LAYERS * EXPERTS); /* homes and copies at the least */
  CHECK(play(policy, 10, 20) == play(twin, 10, 20));
  free(bytes);
  bl_policy_free(policy);
  bl_policy_free(twin);
}

/* Hosts of a step never depend on counts younger than the lag. */
static void test_lag(void) {
  for (int64_t lag = 1; lag <= 4; ++lag) {
    bl_policy *policy = create("ballast", "free", lag, 0);
    double counts[EXPERTS] = {0};
    bl_policy_outcome outcome;
    const bl_hosts *hosts = bl_policy_hosts(policy, 0);
    for (int64_t step = 1; step <= 8; ++step) {
      CHECK_OK(bl_policy_begin_step(policy, step));
      bool copied = false;
      for (int32_t s = 0; s < hosts->n_copy_slots; ++s) copied = copied || hosts->copy_expert[s] == 0;
      CHECK(copied == (step > lag)); /* expert 0 is hot from the first step on */
      for (int32_t e = 0; e < EXPERTS; ++e) counts[e] = e == 0 ? 1000 : 10;
      for (int32_t l = 0; l < LAYERS; ++l) CHECK_OK(bl_policy_micro_batch(policy, l, counts, NULL, &outcome));
      CHECK_OK(bl_policy_end_step(policy));
    }
    bl_policy_free(policy);
  }
}

static void test_late_repair(void) {
  bl_policy *never = create("ballast", "fixed", 1, 0), *late = create("ballast", "fixed", 1, 1.02);
  double counts[EXPERTS];
  bl_policy_outcome a, b;
  int repaired = 0;
  for (int64_t step = 1; step <= 40; ++step) {
    CHECK_OK(bl_policy_begin_step(never, step));
    CHECK_OK(bl_policy_begin_step(late, step));
    for (int32_t m = 0; m < MICRO_BATCHES; ++m)
      for (int32_t l = 0; l < LAYERS; ++l) {
        counts_at(step, m, l, counts);
        const uint64_t before = bl_hosts_hash(bl_policy_hosts(late, l), 0);
        CHECK_OK(bl_policy_micro_batch(never, l, counts, NULL, &a));
        CHECK_OK(bl_policy_micro_batch(late, l, counts, NULL, &b));
        CHECK(b.late == (bl_hosts_hash(bl_policy_hosts(late, l), 0) != before));
        CHECK(b.imbalance >= 1 - 1e-9);
        repaired += b.late;
      }
    CHECK_OK(bl_policy_end_step(never));
    CHECK_OK(bl_policy_end_step(late));
    for (int32_t l = 0; l < LAYERS; ++l) {
      CHECK(bl_policy_report(late, l)->late == (bl_policy_report(late, l)->late_copies > 0));
      CHECK(!bl_policy_report(never, l)->late);
      CHECK_INT(bl_policy_report(late, l)->moved, 0);
    }
  }
  CHECK(repaired > 0);
  bl_policy_free(never);
  bl_policy_free(late);
}

/* Under `--homes cost` a late repair fills the copies that are worth their price, 0.01, and drops those that are not.
 */
static void test_late_repair_weighs_copies(void) {
  static const struct {
    const char *homes;
    double hot; /* expert 0, all others 100 */
    int32_t copies;
  } cases[] = {{"fixed", 103, 1}, {"cost", 103, 0}, {"cost", 110, 1}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    bl_policy *policy = create("ballast", cases[i].homes, 1, 1.005);
    double counts[EXPERTS];
    bl_policy_outcome outcome;
    for (int32_t e = 0; e < EXPERTS; ++e) counts[e] = e == 0 ? cases[i].hot : 100;
    CHECK_OK(bl_policy_begin_step(policy, 1));
    CHECK_OK(bl_policy_micro_batch(policy, 0, counts, NULL, &outcome));
    CHECK_INT(outcome.late, cases[i].copies > 0);
    CHECK_OK(bl_policy_end_step(policy));
    CHECK_INT(bl_policy_report(policy, 0)->late_copies >= 1, cases[i].copies);
    bl_policy_free(policy);
  }
}

static void test_free_homes_see_the_step(void) {
  bl_policy *policy = create("ballast", "free", 0, 0);
  double counts[LAYERS * EXPERTS];
  bl_policy_outcome outcome;
  for (int64_t step = 1; step <= 10; ++step) {
    for (int32_t l = 0; l < LAYERS; ++l) counts_at(step, 0, l, counts + l * EXPERTS);
    CHECK_OK(bl_policy_preview(policy, counts, NULL));
    CHECK_OK(bl_policy_begin_step(policy, step));
    for (int32_t l = 0; l < LAYERS; ++l) {
      CHECK_OK(bl_policy_micro_batch(policy, l, counts + l * EXPERTS, NULL, &outcome));
      CHECK_NEAR(outcome.imbalance, 1, 1e-9);
    }
    CHECK_OK(bl_policy_end_step(policy));
  }
  bl_policy_free(policy);
}

static void test_unequal_speeds(void) {
  const double speed[RANKS] = {1, 2, 1, 0.5};
  bl_policy_options options;
  bl_policy_options_init(&options);
  for (int free_homes = 0; free_homes < 2; ++free_homes) {
    options.homes = free_homes ? "free" : "fixed";
    options.lag = 0;
    const bl_policy_shape shape = {.layers = 1, .experts = EXPERTS, .ranks = RANKS, .slots = SLOTS, .speed = speed};
    bl_policy *policy;
    REQUIRE_OK(bl_policy_create(&options, &shape, &policy));
    double sum = 0, counts[EXPERTS];
    bl_policy_outcome outcome;
    for (int64_t step = 1; step <= 20; ++step) {
      counts_at(step, 0, 0, counts);
      CHECK_OK(bl_policy_preview(policy, counts, NULL));
      CHECK_OK(bl_policy_begin_step(policy, step));
      CHECK_OK(bl_policy_micro_batch(policy, 0, counts, NULL, &outcome));
      CHECK_OK(bl_policy_end_step(policy));
      sum += outcome.imbalance / 20;
    }
    CHECK(sum < (free_homes ? 1.05 : 1.3));
    bl_policy_free(policy);
  }
}

static void test_slots_text(void) {
  int32_t slots[3];
  CHECK_OK(bl_parse_slots(NULL, 8, 3, slots));
  CHECK_INT(slots[2], 4);
  CHECK_OK(bl_parse_slots("5", 8, 3, slots));
  CHECK_INT(slots[2], 5);
  CHECK_OK(bl_parse_slots("3,0,8", 8, 3, slots));
  CHECK_INT(slots[1], 0);
  CHECK_FAILS(bl_parse_slots("3,1,9", 8, 3, slots), BL_EUSAGE, "0 to 8");
  CHECK_FAILS(bl_parse_slots("3,1,2,4", 8, 3, slots), BL_EUSAGE, "one for each rank");
  CHECK_FAILS(bl_parse_slots("", 8, 3, slots), BL_EUSAGE, "--slots");
}

static void test_refused(void) {
  bl_policy_options options;
  bl_policy_options_init(&options);
  bl_policy *policy;
  bl_policy_shape shape = {.layers = 1, .experts = 4, .ranks = 8, .slots = SLOTS};
  CHECK_FAILS(bl_policy_create(&options, &shape, &policy), BL_EINPUT, "4 experts on 8 ranks");
  shape = (bl_policy_shape){.layers = 1, .experts = 40, .ranks = RANKS, .slots = SLOTS};
  CHECK_FAILS(bl_policy_create(&options, &shape, &policy), BL_EINPUT, "cannot hold 40 experts");
  shape.experts = EXPERTS;
  options.policy = "nothing";
  CHECK_FAILS(bl_policy_create(&options, &shape, &policy), BL_EUSAGE, "nothing");
  policy = create("ballast", "fixed", 1, 0);
  double counts[LAYERS * EXPERTS] = {0};
  bl_policy_outcome outcome;
  CHECK_FAILS(bl_policy_preview(policy, counts, NULL), BL_EUSAGE, "lag 0");
  CHECK_FAILS(bl_policy_micro_batch(policy, 0, counts, NULL, &outcome), BL_EUSAGE, "outside of a step");
  CHECK_FAILS(bl_policy_end_step(policy), BL_EUSAGE, "did not begin");
  CHECK_OK(bl_policy_begin_step(policy, 1)); /* a step without any tokens is fine */
  CHECK_OK(bl_policy_micro_batch(policy, 0, counts, NULL, &outcome));
  CHECK_NEAR(outcome.imbalance, 1, 0);
  CHECK_OK(bl_policy_end_step(policy));
  CHECK_OK(bl_policy_begin_step(policy, 2));
  CHECK_OK(bl_policy_end_step(policy));
  bl_policy_free(policy);
}

int main(void) {
  RUN(test_threads_agree);
  RUN(test_resumed_run_is_the_same);
  RUN(test_damaged_state);
  RUN(test_altered_state);
  RUN(test_lag);
  RUN(test_late_repair);
  RUN(test_late_repair_weighs_copies);
  RUN(test_free_homes_see_the_step);
  RUN(test_unequal_speeds);
  RUN(test_slots_text);
  RUN(test_refused);
  TEST_MAIN_END;
}
