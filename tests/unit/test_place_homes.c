/* Homes alone: the proof against every placement of a few experts, and what annealing must keep; the even split. */
#include "base/rng.h"
#include "planner/baselines/eplb.h"
#include "planner/place/anneal.h"
#include "planner/place/even.h"
#include "planner/place/homes_proof.h"
#include "tests/check.h"

enum { MAX_E = 64 };

typedef struct enumeration {
  const double *load;
  int32_t experts, ranks, k, held[4];
  double sum[4], best;
} enumeration;

static void enumerate(enumeration *n, int32_t e) {
  if (e == n->experts) {
    double largest = 0;
    for (int32_t r = 0; r < n->ranks; ++r) largest = fmax(largest, n->sum[r]);
    n->best = fmin(n->best, largest);
    return;
  }
  for (int32_t r = 0; r < n->ranks; ++r) {
    if (n->held[r] == n->k) continue;
    ++n->held[r];
    n->sum[r] += n->load[e];
    enumerate(n, e + 1);
    --n->held[r];
    n->sum[r] -= n->load[e];
  }
}

static double largest_load(const double *load, const int32_t *home, int32_t experts, int32_t ranks) {
  double sum[64] = {0}, largest = 0;
  for (int32_t e = 0; e < experts; ++e) sum[home[e]] += load[e];
  for (int32_t r = 0; r < ranks; ++r) largest = fmax(largest, sum[r]);
  return largest;
}

/* Within a budget so small that the search gives up, the bound and the homes must still be true. */
static void check_against_enumeration(int64_t exchanges, int64_t choices, bool must_prove) {
  static const int32_t shapes[][2] = {{8, 2}, {8, 4}, {9, 3}, {7, 3}, {6, 4}, {5, 1}, {4, 4}, {8, 3}};
  for (uint64_t seed = 0; seed < 160; ++seed) {
    const int32_t experts = shapes[seed % 8][0], ranks = shapes[seed % 8][1], k = (experts + ranks - 1) / ranks;
    double load[MAX_E];
    int32_t home[MAX_E], held[4] = {0};
    bl_rng rng;
    bl_rng_seed(&rng, seed, 5);
    for (int32_t e = 0; e < experts; ++e) {
      load[e] = (double)bl_rng_below(&rng, seed % 3 == 0 ? 6 : 1000);
      home[e] = e / k;
    }
    enumeration n = {.load = load, .experts = experts, .ranks = ranks, .k = k, .best = INFINITY};
    enumerate(&n, 0);
    const bl_homes_budget budget = {exchanges, choices};
    bl_homes_proof proof;
    REQUIRE(bl_homes_prove(load, experts, ranks, &budget, home, &proof) == BL_OK);
    CHECK(proof.largest == largest_load(load, home, experts, ranks));
    CHECK(proof.bound <= n.best && n.best <= proof.largest);
    CHECK(proof.optimal == (proof.bound == proof.largest));
    if (must_prove) CHECK(proof.optimal);
    for (int32_t e = 0; e < experts; ++e) CHECK(home[e] >= 0 && home[e] < ranks && ++held[home[e]] <= k);
  }
}

static void test_enumeration(void) { check_against_enumeration(10000, 1000000, true); }
static void test_search_without_annealing(void) { check_against_enumeration(0, 1000000, true); }
static void test_small_budget(void) { check_against_enumeration(0, 3, false); }

static void make_mild(double *load, int32_t experts, uint64_t seed) {
  bl_rng rng;
  bl_rng_seed(&rng, seed, 9);
  for (int32_t e = 0; e < experts; ++e)
    load[e] = (double)(int64_t)(10000 * bl_det_pow(e + 1, -0.05) * (0.95 + 0.1 * bl_rng_unit(&rng)));
}

/* The bounds alone settle none of these: the depth-first search must. */
static void test_mild_load_is_proved(void) {
  for (uint64_t seed = 0; seed < 3; ++seed) {
    double load[MAX_E];
    int32_t home[MAX_E], again[MAX_E];
    bl_homes_proof proof, second;
    make_mild(load, 32, seed);
    for (int32_t e = 0; e < 32; ++e) again[e] = home[e] = e / 4;
    const double start = largest_load(load, home, 32, 8);
    REQUIRE(bl_homes_prove(load, 32, 8, &(bl_homes_budget){400000, 200000000}, home, &proof) == BL_OK);
    CHECK(proof.optimal && proof.largest < start);
    CHECK(strcmp(proof.proof, "depth-first") == 0 && proof.nodes > 0);
    REQUIRE(bl_homes_prove(load, 32, 8, &(bl_homes_budget){400000, 200000000}, again, &second) == BL_OK);
    CHECK(memcmp(home, again, 32 * sizeof *home) == 0 && proof.nodes == second.nodes);
  }
}

static void test_annealing_never_worse(void) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    double load[MAX_E], largest;
    int32_t rank[MAX_E], held[8] = {0};
    make_mild(load, MAX_E, seed);
    for (int32_t e = 0; e < MAX_E; ++e) rank[e] = e % 8;
    const double before = largest_load(load, rank, MAX_E, 8);
    REQUIRE(bl_anneal_swaps(load, MAX_E, 8, (int64_t)seed * 1000, 0, rank, &largest) == BL_OK);
    CHECK(largest <= before && largest == largest_load(load, rank, MAX_E, 8));
    for (int32_t e = 0; e < MAX_E; ++e) ++held[rank[e]];
    for (int32_t r = 0; r < 8; ++r) CHECK(held[r] == MAX_E / 8);
  }
}

/* Largest rank load when every replica of an expert takes the same; counts what each rank holds. */
static double even_load(const double *load, const int32_t *replicas, int32_t experts, int32_t ranks, int32_t *held) {
  double sum[8] = {0}, largest = 0;
  for (int32_t r = 0; r < ranks; ++r) held[r] = 0;
  for (int32_t e = 0; e < experts; ++e) {
    int32_t count = 0;
    for (int32_t r = 0; r < ranks; ++r) count += replicas[r * experts + e];
    CHECK(count >= 1);
    for (int32_t r = 0; r < ranks; ++r) {
      sum[r] += load[e] * replicas[r * experts + e] / count;
      held[r] += replicas[r * experts + e];
    }
  }
  for (int32_t r = 0; r < ranks; ++r) largest = fmax(largest, sum[r]);
  return largest;
}

static void test_even_split_beats_eplb(void) {
  enum { EXPERTS = 32, RANKS = 8 };
  static const int32_t slots[RANKS] = {5, 5, 5, 5, 6, 4, 5, 5};
  double excess = 0, theirs = 0;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    double load[EXPERTS], mean = 0;
    int32_t replicas[RANKS * EXPERTS], held[RANKS];
    make_mild(load, EXPERTS, seed);
    for (int32_t e = 0; e < EXPERTS; ++e) mean += load[e] / RANKS;
    REQUIRE(bl_eplb_place(load, EXPERTS, RANKS, slots, replicas) == BL_OK);
    const double eplb = even_load(load, replicas, EXPERTS, RANKS, held);
    REQUIRE(bl_even_place(load, EXPERTS, RANKS, slots, replicas) == BL_OK);
    const double even = even_load(load, replicas, EXPERTS, RANKS, held);
    for (int32_t r = 0; r < RANKS; ++r) CHECK(held[r] == slots[r]);
    CHECK(even <= eplb * (1 + 1e-12));
    excess += even / mean - 1;
    theirs += eplb / mean - 1;
  }
  CHECK(excess < theirs / 3);
}

static void test_bad_input(void) {
  const bl_homes_budget few = {100, 100};
  int32_t home[4] = {0, 0, 1, 1};
  bl_homes_proof proof;
  CHECK(bl_homes_prove((double[]){1, 2.5, 3, 4}, 4, 2, &few, home, &proof) == BL_EINPUT);
  CHECK(bl_homes_prove((double[]){1, NAN, 3, 4}, 4, 2, &few, home, &proof) == BL_EINPUT);
  home[2] = 0;
  CHECK(bl_homes_prove((double[]){1, 2, 3, 4}, 4, 2, &few, home, &proof) == BL_EINPUT);
  home[2] = 2;
  CHECK(bl_homes_prove((double[]){1, 2, 3, 4}, 4, 2, &few, home, &proof) == BL_EINPUT);
  home[2] = 1;
  CHECK(bl_homes_prove((double[]){0, 0, 0, 0}, 4, 2, &few, home, &proof) == BL_OK && proof.optimal);
}

int main(void) {
  RUN(test_enumeration);
  RUN(test_search_without_annealing);
  RUN(test_small_budget);
  RUN(test_mild_load_is_proved);
  RUN(test_annealing_never_worse);
  RUN(test_even_split_beats_eplb);
  RUN(test_bad_input);
  TEST_MAIN_END;
}
