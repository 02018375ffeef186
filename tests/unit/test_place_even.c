/* Replicas that share evenly: against EPLB's rule, against every packing of small layers, and for what is left undone.
 */
#include "base/rng.h"
#include "planner/baselines/eplb.h"
#include "planner/place/even.h"
#include "tests/check.h"

enum { MAX_E = 256, MAX_P = 64 };

typedef struct layer {
  int32_t experts, ranks, slots[MAX_P], replicas[MAX_P * MAX_E];
  double load[MAX_E], mean;
} layer;

/* kind 0, 1: Zipf with noise, 0.3 and 0.7; 2: log-normal; 3: a few hot experts; 4: whole numbers with ties and zeros.
 */
static void draw(layer *x, bl_rng *rng, int kind) {
  x->mean = 0;
  for (int32_t e = 0; e < x->experts; ++e) {
    const double noise = 0.9 + 0.2 * bl_rng_unit(rng);
    const double of_kind[] = {bl_det_pow(e + 1, -0.3) * noise, bl_det_pow(e + 1, -0.7) * noise,
                              bl_det_exp(0.8 * bl_rng_normal(rng)), (bl_rng_below(rng, 8) == 0 ? 4 : 1) * noise,
                              (double)bl_rng_below(rng, 5) + (e == 0)};
    x->load[e] = of_kind[kind];
    x->mean += x->load[e] / x->ranks;
  }
}

/* Largest rank load; counts what ranks hold in held[]. */
static double largest(const layer *x, const int32_t *replicas, int32_t *count, int32_t *held, double *sum) {
  double most = 0;
  for (int32_t r = 0; r < x->ranks; ++r) held[r] = 0, sum[r] = 0;
  for (int32_t e = 0; e < x->experts; ++e) {
    count[e] = 0;
    for (int32_t r = 0; r < x->ranks; ++r) count[e] += replicas[r * x->experts + e];
    for (int32_t r = 0; r < x->ranks; ++r) {
      sum[r] += x->load[e] * replicas[r * x->experts + e] / count[e];
      held[r] += replicas[r * x->experts + e];
    }
  }
  for (int32_t r = 0; r < x->ranks; ++r) most = fmax(most, sum[r]);
  return most;
}

/* The replicas of one rank, by weight. */
static int32_t weights_of(const layer *x, int32_t r, const int32_t *count, double *weight) {
  int32_t n = 0;
  for (int32_t e = 0; e < x->experts; ++e)
    for (int32_t c = 0; c < x->replicas[r * x->experts + e]; ++c) weight[n++] = x->load[e] / count[e];
  return n;
}

/* No exchange of one replica between the hottest rank and another brings both below it, nor one of two for two with the
 * two coldest. */
static void check_nothing_helps(const layer *x, const int32_t *count, const double *sum) {
  double p[MAX_E], q[MAX_E];
  int32_t hottest = 0;
  for (int32_t r = 1; r < x->ranks; ++r)
    if (sum[r] > sum[hottest]) hottest = r;
  const int32_t n = weights_of(x, hottest, count, p);
  bool helped = false;
  for (int32_t r = 0; r < x->ranks; ++r) {
    if (r == hottest) continue;
    const double gap = sum[hottest] - sum[r], least = 1e-9 * sum[hottest];
    int32_t colder = 0;
    for (int32_t other = 0; other < x->ranks; ++other) colder += sum[other] < sum[r];
    const int32_t m = weights_of(x, r, count, q);
    for (int32_t i = 0; i < n; ++i)
      for (int32_t j = 0; j < m; ++j) {
        helped = helped || (p[i] - q[j] > least && p[i] - q[j] < gap - least);
        for (int32_t k = i + 1; colder < 2 && k < n; ++k)
          for (int32_t l = j + 1; l < m; ++l) {
            const double d = p[i] + p[k] - q[j] - q[l];
            helped = helped || (d > least && d < gap - least);
          }
      }
  }
  CHECK(!helped);
}

/* As EPLB's in everything that is its contract, and never less even. Returns both excesses over the mean. */
static void compare(layer *x, double *ours, double *theirs) {
  static int32_t eplb[MAX_P * MAX_E];
  int32_t count[MAX_E], eplb_count[MAX_E], held[MAX_P];
  double sum[MAX_P];
  bl_bound bound;
  REQUIRE(bl_eplb_place(x->load, x->experts, x->ranks, x->slots, eplb) == BL_OK);
  REQUIRE(bl_even_place(x->load, x->experts, x->ranks, x->slots, x->replicas) == BL_OK);
  REQUIRE(bl_even_bound(x->load, x->experts, x->ranks, x->slots, &bound) == BL_OK);
  const double before = largest(x, eplb, eplb_count, held, sum), after = largest(x, x->replicas, count, held, sum);
  for (int32_t e = 0; e < x->experts; ++e) CHECK(count[e] >= 1);
  for (int32_t r = 0; r < x->ranks; ++r) CHECK_INT(held[r], x->slots[r]);
  CHECK(after <= before * (1 + 1e-12));
  CHECK(after >= bound.imbalance * x->mean * (1 - 1e-12));
  check_nothing_helps(x, count, sum);
  *ours = after / x->mean - 1;
  *theirs = before / x->mean - 1;
}

static void test_contract(void) {
  static layer x;
  bl_rng rng;
  double ours, theirs;
  uint64_t hash = 0;
  bl_rng_seed(&rng, 31, 0);
  for (int i = 0; i < 200; ++i) {
    x.ranks = 1 + (int32_t)bl_rng_below(&rng, 9);
    x.experts = x.ranks + (int32_t)bl_rng_below(&rng, 40);
    int32_t total = 0;
    for (int32_t r = 0; r < x.ranks; ++r) {
      const uint64_t kind = bl_rng_below(&rng, 8); /* mostly alike */
      x.slots[r] = (x.experts + x.ranks - 1) / x.ranks + 1 + (kind == 0) - (kind == 1) - (kind == 2 && i % 3 == 0);
      total += x.slots[r];
    }
    if (total < x.experts) x.slots[0] += x.experts - total;
    draw(&x, &rng, i % 5);
    if (x.mean > 0) compare(&x, &ours, &theirs);
    if (x.mean > 0) hash = bl_hash_bytes(x.replicas, sizeof(int32_t) * (uint64_t)(x.ranks * x.experts), hash);
  }
  CHECK(hash == 0x2223847fecc298cf); /* the very replicas, so that another order of equal ones or of exchanges shows */
}

/* Where nothing is left to exchange, replicas lie where EPLB's rule puts them: of equal ranks the lower one is first,
 * and of equal loads the lower expert gets another replica. */
static void test_ties(void) {
  static const struct {
    int32_t experts, ranks, slots[4];
    double load[8];
  } level[] = {{8, 4, {2, 2, 2, 2}, {1, 1, 1, 1, 1, 1, 1, 1}}, {6, 2, {3, 3}, {2, 2, 1, 1, 1, 1}}};
  int32_t eplb[32], ours[32];
  for (int i = 0; i < 2; ++i) {
    REQUIRE_OK(bl_eplb_place(level[i].load, level[i].experts, level[i].ranks, level[i].slots, eplb));
    REQUIRE_OK(bl_even_place(level[i].load, level[i].experts, level[i].ranks, level[i].slots, ours));
    CHECK(memcmp(ours, eplb, sizeof *ours * (size_t)(level[i].experts * level[i].ranks)) == 0);
  }
  const double load[4] = {4, 4, 2, 2}; /* 6 and 6 with two replicas of expert 0, or of 1 */
  REQUIRE_OK(bl_even_place(load, 4, 2, (const int32_t[]){3, 2}, ours));
  CHECK_INT(ours[0] + ours[4], 2);
  CHECK_INT(ours[1] + ours[5], 1);
}

/* The smallest largest load over all ways to give experts replicas and to pack them. */
static double packings(layer *x, const double *weight, const int32_t *expert, int32_t at, int32_t n, double *sum,
                       int32_t *used, double best) {
  if (at == n) {
    double most = 0;
    for (int32_t r = 0; r < x->ranks; ++r) most = fmax(most, sum[r]);
    return fmin(most, best);
  }
  for (int32_t r = 0; r < x->ranks; ++r) {
    if (used[r] == x->slots[r] || sum[r] + weight[expert[at]] >= best) continue;
    ++used[r];
    sum[r] += weight[expert[at]];
    best = packings(x, weight, expert, at + 1, n, sum, used, best);
    --used[r];
    sum[r] -= weight[expert[at]];
  }
  return best;
}

static double counts(layer *x, int32_t e, int32_t left, int32_t *count, double best) {
  if (e < x->experts) {
    for (count[e] = 1; count[e] <= left - (x->experts - e - 1); ++count[e])
      if (e < x->experts - 1 || count[e] == left) best = counts(x, e + 1, left - count[e], count, best);
    return best;
  }
  double weight[MAX_E], sum[MAX_P] = {0};
  int32_t expert[MAX_E], used[MAX_P] = {0}, n = 0;
  for (int32_t i = 0; i < x->experts; ++i) {
    weight[i] = x->load[i] / count[i];
    for (int32_t c = 0; c < count[i]; ++c) expert[n++] = i;
  }
  return packings(x, weight, expert, 0, n, sum, used, best);
}

static void test_enumerated(void) {
  static layer x;
  bl_rng rng;
  double above = 0, eplb_above = 0;
  int32_t count[MAX_E], held[MAX_P], n = 0, optimal = 0;
  double sum[MAX_P];
  bl_rng_seed(&rng, 32, 0);
  for (int i = 0; i < 100; ++i) {
    double ours, theirs;
    bl_bound bound;
    x.ranks = 2 + (int32_t)bl_rng_below(&rng, 2);
    x.experts = 4 + (int32_t)bl_rng_below(&rng, 3);
    for (int32_t r = 0; r < x.ranks; ++r) x.slots[r] = (x.experts + x.ranks - 1) / x.ranks + 1 - (i % 4 == 0 && r == 0);
    int32_t total = 0;
    for (int32_t r = 0; r < x.ranks; ++r) total += x.slots[r];
    draw(&x, &rng, i % 5);
    if (x.mean == 0) continue;
    compare(&x, &ours, &theirs);
    const double best = counts(&x, 0, total, count, INFINITY), found = largest(&x, x.replicas, count, held, sum);
    CHECK(found >= best * (1 - 1e-12));
    CHECK_OK(bl_even_bound(x.load, x.experts, x.ranks, x.slots, &bound));
    CHECK(bound.imbalance * x.mean <= best * (1 + 1e-12));
    optimal += found <= best * (1 + 1e-9);
    above += found / best - 1;
    eplb_above += (1 + theirs) * x.mean / best - 1;
    ++n;
  }
  printf("small layers: %d of %d optimal, %.3f %% above on the mean (EPLB's rule: %.3f %%)\n", optimal, n,
         100 * above / n, 100 * eplb_above / n);
  CHECK(optimal >= 48 * n / 100);
  CHECK(above < eplb_above / 4);
}

/* The hottest replica is a bound where an expert has more load than its replicas may take. */
static void test_bound(void) {
  const double load[] = {10, 1, 1};
  const int32_t slots[] = {2, 2, 2};
  bl_bound bound;
  CHECK_OK(bl_even_bound(load, 3, 3, slots, &bound));
  CHECK_STRING(bound.proof, "mean-load"); /* 10 / 4 < 4 */
  CHECK_NEAR(bound.imbalance, 1, 1e-12);
  CHECK_OK(bl_even_bound(load, 3, 3, (const int32_t[]){2, 1, 1}, &bound));
  CHECK_STRING(bound.proof, "hottest-replica"); /* 10 / 2 > 4 */
  CHECK_NEAR(bound.imbalance, 5.0 / 4, 1e-12);
}

/* At the sizes it is for: how much of EPLB's excess is left, over layers that no other test or bench draws. */
static void excess_left(int32_t ranks, int kind, double most) {
  static layer x;
  enum { LAYERS = 30 };
  bl_rng rng;
  double ours = 0, theirs = 0;
  x.experts = 256;
  x.ranks = ranks;
  for (int32_t r = 0; r < ranks; ++r) x.slots[r] = 256 / ranks + 1;
  bl_rng_seed(&rng, 33, (uint64_t)(10 * ranks + kind));
  for (int i = 0; i < (check_is_small() ? 3 : LAYERS); ++i) {
    double a, b;
    draw(&x, &rng, kind);
    compare(&x, &a, &b);
    ours += a;
    theirs += b;
  }
  printf("256 experts on %d ranks, kind %d: excess %.6f, EPLB's is %.1f times as large\n", ranks, kind, ours / LAYERS,
         theirs / ours);
  CHECK(ours <= theirs / most);
}

static void test_much_closer_than_eplb(void) {
  static const double most[][2] = {{40, 40}, {14, 10}, {40, 20}};
  for (int kind = 0; kind < 3; ++kind) {
    excess_left(32, kind, most[kind][0]);
    excess_left(64, kind, most[kind][1]);
  }
}

static void test_too_few_slots(void) {
  const double load[] = {1, 2, 3};
  int32_t replicas[6];
  bl_bound bound;
  CHECK_FAILS(bl_even_place(load, 3, 2, (const int32_t[]){1, 1}, replicas), BL_EINPUT, "2 slots");
  CHECK_FAILS(bl_even_bound(load, 3, 2, (const int32_t[]){1, 1}, &bound), BL_EINPUT, "2 slots");
}

int main(void) {
  RUN(test_contract);
  RUN(test_ties);
  RUN(test_enumerated);
  RUN(test_bound);
  RUN(test_much_closer_than_eplb);
  RUN(test_too_few_slots);
  TEST_MAIN_END;
}
