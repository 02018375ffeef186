/* Bounds, window rule, homes and the search for copy hosts against brute force on small layers. */
#include "base/rng.h"
#include "planner/place/bound.h"
#include "planner/place/copies.h"
#include "planner/place/homes.h"
#include "planner/place/order.h"
#include "planner/place/window.h"
#include "tests/check.h"

static void random_load(bl_rng *rng, double *load, int32_t n) {
  const uint64_t skew = bl_rng_below(rng, 4);
  for (int32_t e = 0; e < n; ++e) {
    load[e] = 1 + bl_rng_unit(rng);
    for (uint64_t i = 0; i < skew; ++i) load[e] *= 3 * bl_rng_unit(rng);
    if (bl_rng_below(rng, 8) == 0) load[e] = 0;
  }
}

static double mean_of(const double *load, int32_t n, int32_t ranks) {
  double sum = 0;
  for (int32_t e = 0; e < n; ++e) sum += load[e];
  return sum / ranks;
}

static double worst_of(const double *load, const int32_t *home, int32_t n, int32_t ranks) {
  double sum[8] = {0}, worst = 0;
  for (int32_t e = 0; e < n; ++e) sum[home[e]] += load[e];
  for (int32_t r = 0; r < ranks; ++r)
    if (sum[r] > worst) worst = sum[r];
  return worst;
}

/* The least largest load over all homes with at most k on a rank. */
static double best_homes(const double *load, int32_t n, int32_t ranks, int32_t k) {
  int32_t home[8];
  double best = 1e300;
  int64_t all = 1;
  for (int32_t e = 0; e < n; ++e) all *= ranks;
  for (int64_t code = 0; code < all; ++code) {
    int32_t used[8] = {0};
    bool fits = true;
    int64_t c = code;
    for (int32_t e = 0; e < n; ++e, c /= ranks) fits = ++used[home[e] = (int32_t)(c % ranks)] <= k && fits;
    if (!fits) continue;
    const double worst = worst_of(load, home, n, ranks);
    if (worst < best) best = worst;
  }
  return best;
}

static void test_bound_never_exceeds_optimum(void) {
  bl_rng rng;
  bl_rng_seed(&rng, 3, 1);
  int tight = 0, rounds = check_is_small() ? 60 : 400;
  for (int i = 0; i < rounds; ++i) {
    const int32_t ranks = 2 + (int32_t)bl_rng_below(&rng, 2),
                  n = ranks + (int32_t)bl_rng_below(&rng, (uint64_t)(9 - ranks));
    const int32_t least = (n + ranks - 1) / ranks, k = least + (int32_t)bl_rng_below(&rng, 2);
    double load[8];
    random_load(&rng, load, n);
    const double mean = mean_of(load, n, ranks);
    if (!(mean > 0)) continue;
    bl_bound bound;
    REQUIRE_OK(bl_bound_homes(load, n, ranks, k, NULL, &bound));
    const double best = best_homes(load, n, ranks, k) / mean;
    CHECK(bound.imbalance <= best * (1 + 1e-12));
    CHECK(bound.imbalance >= 1);
    tight += bound.imbalance >= best * (1 - 1e-12);
  }
  CHECK(tight > rounds / 2);
}

static void test_bound_by_hand(void) {
  /* 6 experts, 3 ranks, 2 homes: pigeonhole: of 5,5,5,5 two meet (10); hottest + smallest is 9. */
  const double four[6] = {5, 5, 5, 5, 1, 0}, hot[6] = {9, 1, 1, 1, 2, 2};
  bl_bound bound;
  REQUIRE_OK(bl_bound_homes(four, 6, 3, 2, NULL, &bound));
  CHECK_NEAR(bound.imbalance, 10 / 7.0, 1e-12);
  CHECK_STRING(bound.proof, "pigeonhole");
  REQUIRE_OK(bl_bound_homes(hot, 6, 3, 2, NULL, &bound));
  CHECK_NEAR(bound.imbalance, 10 / (16 / 3.0), 1e-12);
  CHECK_STRING(bound.proof, "hottest-expert");
  REQUIRE_OK(bl_bound_homes(hot, 6, 3, 3, NULL, &bound)); /* a third slot: the hottest may be alone */
  CHECK_NEAR(bound.imbalance, 9 / (16 / 3.0), 1e-12);
  const double even[4] = {1, 1, 1, 1};
  REQUIRE_OK(bl_bound_homes(even, 4, 2, 2, NULL, &bound));
  CHECK_STRING(bound.proof, "mean-load");
  const double speed[2] = {3, 1}, two[2] = {6, 2};
  REQUIRE_OK(bl_bound_homes(two, 2, 2, 1, speed, &bound));
  CHECK_NEAR(bound.imbalance, 1, 1e-12);
}

static void test_first_least(void) {
  bl_rng rng;
  bl_rng_seed(&rng, 11, 1);
  double value[70];
  for (int i = 0; i < 2000; ++i) {
    const int32_t n = (int32_t)bl_rng_below(&rng, 70);
    int32_t first = -1;
    for (int32_t k = 0; k < n; ++k) {
      value[k] = bl_rng_below(&rng, 3) ? (double)bl_rng_below(&rng, 40) - 20 : INFINITY;
      if (value[k] < (first < 0 ? INFINITY : value[first])) first = k;
    }
    CHECK_INT(bl_order_least(value, n), first);
  }
}

static void check_window(const double *load, int32_t experts, int32_t ranks) {
  bl_window *window;
  bl_shares *shares;
  bl_hosts hosts;
  int32_t home[256], slots[64], used[64] = {0};
  bl_copy copies[64];
  const int32_t k = (experts + ranks - 1) / ranks;
  for (int32_t r = 0; r < ranks; ++r) slots[r] = k + 1 < experts ? k + 1 : experts;
  REQUIRE_OK(bl_window_create(experts, ranks, &window));
  REQUIRE_OK(bl_hosts_create(&hosts, experts, ranks, slots));
  REQUIRE_OK(bl_shares_create(experts, ranks, hosts.n_copy_slots, &shares));
  for (int32_t e = 0; e < experts; ++e) home[e] = -1;
  const int32_t n = bl_window_place(window, load, home, copies);
  CHECK(n <= ranks - 1);
  REQUIRE_OK(bl_hosts_set_homes(&hosts, home));
  bool good = true;
  for (int32_t i = 0; i < n; ++i) {
    good = good && home[copies[i].expert] != copies[i].rank && ++used[copies[i].rank] == 1 && copies[i].share > 0 &&
           copies[i].share <= 1;
    int32_t s = 0;
    while (s < hosts.n_copy_slots && hosts.copy_rank[s] != copies[i].rank) ++s;
    REQUIRE(s < hosts.n_copy_slots);
    hosts.copy_expert[s] = copies[i].expert;
  }
  CHECK(good);
  CHECK_NEAR(bl_shares_solve(shares, &hosts, load, NULL), 1.0, 1e-9);
  bl_shares_free(shares);
  bl_hosts_free(&hosts);
  bl_window_free(window);
}

static void test_window_is_perfect(void) {
  bl_rng rng;
  bl_rng_seed(&rng, 4, 1);
  double load[256];
  for (int i = 0; i < 500; ++i) {
    const int32_t ranks = 1 + (int32_t)bl_rng_below(&rng, 16);
    const int32_t experts = ranks + (int32_t)bl_rng_below(&rng, 60); /* dividing evenly or not */
    random_load(&rng, load, experts);
    if (mean_of(load, experts, ranks) > 0) check_window(load, experts, ranks);
  }
  random_load(&rng, load, 256);
  check_window(load, 256, 64);
  for (int32_t e = 0; e < 32; ++e) load[e] = 1;
  check_window(load, 32, 8);
  memset(load, 0, sizeof load);
  load[5] = 7;
  check_window(load, 32, 8);
}

static double solve(const bl_hosts *hosts, const double *load) {
  bl_shares *shares;
  if (bl_shares_create(hosts->experts, hosts->ranks, hosts->n_copy_slots, &shares) != BL_OK) return 0;
  const double imbalance = bl_shares_solve(shares, hosts, load, NULL);
  bl_shares_free(shares);
  return imbalance;
}

/* The best over all contents of the copy slots. */
static double best_copies(bl_hosts *hosts, const double *load) {
  double best = 1e300;
  int64_t all = 1;
  for (int32_t s = 0; s < hosts->n_copy_slots; ++s) all *= hosts->experts + 1;
  for (int64_t code = 0; code < all; ++code) {
    int64_t c = code;
    bool fits = true;
    for (int32_t s = 0; s < hosts->n_copy_slots; ++s, c /= hosts->experts + 1) {
      hosts->copy_expert[s] = (int32_t)(c % (hosts->experts + 1)) - 1;
      fits = fits && (hosts->copy_expert[s] < 0 || hosts->home[hosts->copy_expert[s]] != hosts->copy_rank[s]);
    }
    if (!fits) continue;
    const double now = solve(hosts, load);
    if (now < best) best = now;
  }
  return best;
}

static void test_copies_against_all(void) {
  bl_rng rng;
  bl_rng_seed(&rng, 5, 1);
  enum { E = 8, P = 4 };
  const int32_t slots[P] = {3, 3, 3, 3};
  bl_hosts hosts;
  bl_copies *search;
  bl_copies_options options;
  bl_copies_options_init(&options);
  REQUIRE_OK(bl_hosts_create(&hosts, E, P, slots));
  REQUIRE_OK(bl_copies_create(E, P, hosts.n_copy_slots, &search));
  int optimal = 0;
  const int rounds = check_is_small() ? 4 : 60;
  for (int i = 0; i < rounds; ++i) {
    double load[E];
    do random_load(&rng, load, E);
    while (!(mean_of(load, E, P) > 0));
    const double best = best_copies(&hosts, load);
    bl_copies_greedy(search, &hosts, load, NULL);
    const double greedy = solve(&hosts, load);
    const double found = bl_copies_search(search, &hosts, load, 1, NULL, &options);
    CHECK_NEAR(found, solve(&hosts, load), 1e-9);
    CHECK(found <= greedy + 1e-9);
    CHECK(found >= best - 1e-9);
    optimal += found <= best + 1e-6;
  }
  CHECK(optimal * 10 >= rounds * 9);
  bl_copies_free(search);
  bl_hosts_free(&hosts);
}

static void test_copies_are_legal(void) {
  bl_rng rng;
  bl_rng_seed(&rng, 6, 1);
  for (int i = 0; i < 200; ++i) {
    const int32_t ranks = 2 + (int32_t)bl_rng_below(&rng, 7), experts = 16 + (int32_t)bl_rng_below(&rng, 17);
    int32_t slots[16];
    double loads[4 * 32], speed[16];
    for (int32_t r = 0; r < ranks; ++r) {
      slots[r] = (experts + ranks - 1) / ranks + (int32_t)bl_rng_below(&rng, 4);
      speed[r] = 0.5 + bl_rng_unit(&rng);
    }
    for (int32_t s = 0; s < 4; ++s) random_load(&rng, loads + s * experts, experts);
    bl_hosts hosts;
    bl_copies *search;
    bl_copies_options options;
    bl_copies_options_init(&options);
    options.copy_price = i % 2 ? 0.02 : 0;
    REQUIRE_OK(bl_hosts_create(&hosts, experts, ranks, slots));
    REQUIRE_OK(bl_copies_create(experts, ranks, hosts.n_copy_slots, &search));
    for (int repeat = 0; repeat < 2; ++repeat)
      bl_copies_search(search, &hosts, loads, 4 - repeat, i % 3 ? speed : NULL, &options);
    bool good = true;
    for (int32_t s = 0; s < hosts.n_copy_slots; ++s) {
      const int32_t e = hosts.copy_expert[s];
      if (e < 0) continue;
      good = good && e < experts && hosts.home[e] != hosts.copy_rank[s];
      for (int32_t t = 0; t < s; ++t)
        good = good && !(hosts.copy_expert[t] == e && hosts.copy_rank[t] == hosts.copy_rank[s]);
    }
    CHECK(good);
    bl_copies_free(search);
    bl_hosts_free(&hosts);
  }
}

/* The hosts that the search finds, whatever it does to find them sooner: every move is judged by the optimum it leads
 * to and by the flows that a search without bounds would have. */
static void test_copies_stay_the_same(void) {
  enum { E = 96, P = 12, N = 8 };
  static double loads[N * E];
  int32_t slots[P];
  uint64_t hash = 0;
  double sum = 0;
  bl_rng rng;
  bl_hosts hosts;
  bl_copies *search;
  bl_copies_options options;
  bl_copies_options_init(&options);
  bl_rng_seed(&rng, 9, 1);
  for (int32_t r = 0; r < P; ++r) slots[r] = E / P + 1 + r % 3;
  REQUIRE_OK(bl_hosts_create(&hosts, E, P, slots));
  REQUIRE_OK(bl_copies_create(E, P, hosts.n_copy_slots, &search));
  for (int i = 0; i < 12; ++i) {
    for (int32_t e = 0; e < E; ++e) {
      const double popular = bl_det_exp(1.4 * bl_rng_normal(&rng));
      for (int32_t s = 0; s < N; ++s) loads[s * E + e] = popular * (0.5 + bl_rng_unit(&rng));
    }
    options.copy_price = i % 3 == 2 ? 0.01 : 0;
    sum += bl_copies_search(search, &hosts, loads, N, NULL, &options);
    hash = bl_hosts_hash(&hosts, hash);
  }
  CHECK(hash == 0x51dd436fb686fa08);
  CHECK_NEAR(sum / 12, 1.002130475, 1e-9);
  bl_copies_free(search);
  bl_hosts_free(&hosts);
}

/* What a search decides follows from its arguments alone: a resumed run goes on with a fresh workspace. */
static void test_copies_forget_earlier_searches(void) {
  enum { E = 24, P = 6, MANY = 12 };
  double loads[MANY * E];
  int32_t slots[P];
  bl_rng rng;
  bl_copies_options options;
  bl_copies_options_init(&options);
  bl_rng_seed(&rng, 10, 1);
  for (int32_t r = 0; r < P; ++r) slots[r] = E / P + 1 + r % 2;
  for (int i = 0; i < (check_is_small() ? 40 : 200); ++i) {
    bl_hosts used, fresh;
    bl_copies *search, *other;
    options.copy_price = i % 3 == 2 ? 0.01 : 0;
    options.budget = i % 2 ? 200 : 20;
    REQUIRE_OK(bl_hosts_create(&used, E, P, slots));
    REQUIRE_OK(bl_hosts_create(&fresh, E, P, slots));
    REQUIRE_OK(bl_copies_create(E, P, used.n_copy_slots, &search));
    REQUIRE_OK(bl_copies_create(E, P, used.n_copy_slots, &other));
    for (int32_t s = 0; s < MANY; ++s) random_load(&rng, loads + s * E, E);
    bl_copies_search(search, &used, loads, MANY, NULL, &options);
    REQUIRE_OK(bl_hosts_assign(&fresh, &used));
    for (int32_t s = 0; s < MANY; ++s) random_load(&rng, loads + s * E, E);
    const int32_t few = 1 + i % 4;
    const double score = bl_copies_search(search, &used, loads, few, NULL, &options);
    CHECK(bl_copies_search(other, &fresh, loads, few, NULL, &options) == score);
    CHECK(memcmp(used.copy_expert, fresh.copy_expert, (size_t)used.n_copy_slots * sizeof *used.copy_expert) == 0);
    bl_copies_free(search);
    bl_copies_free(other);
    bl_hosts_free(&used);
    bl_hosts_free(&fresh);
  }
}

/* Where fixed homes cannot be balanced with one copy slot a rank: eight experts of half the mean on one of 4 ranks. */
static void test_bad_homes_need_more_slots(void) {
  enum { E = 32, P = 4 };
  double load[E] = {0};
  for (int32_t e = 0; e < 8; ++e) load[e] = 0.5;
  for (int32_t spare = 1; spare <= 2; ++spare) {
    const int32_t slots[P] = {8 + spare, 8 + spare, 8 + spare, 8 + spare};
    bl_hosts hosts;
    bl_copies *search;
    bl_copies_options options;
    bl_copies_options_init(&options);
    REQUIRE_OK(bl_hosts_create(&hosts, E, P, slots));
    REQUIRE_OK(bl_copies_create(E, P, hosts.n_copy_slots, &search));
    const double found = bl_copies_search(search, &hosts, load, 1, NULL, &options);
    CHECK_NEAR(found, spare == 1 ? 2.5 : 1.0, 1e-6);
    bl_copies_free(search);
    bl_hosts_free(&hosts);
  }
}

/* The most scenarios there may be, all alike: the copies of one of them. */
static void test_as_many_scenarios_as_fit(void) {
  enum { E = 8, P = 4 };
  const int32_t slots[P] = {3, 3, 3, 3};
  double load[BL_COPIES_MAX_SCENARIOS * E];
  int32_t found[2][P];
  for (int32_t i = 0; i < BL_COPIES_MAX_SCENARIOS * E; ++i) load[i] = i % E == 0 ? 100 : 10 + i % E;
  for (int many = 0; many < 2; ++many) {
    bl_hosts hosts;
    bl_copies *search;
    bl_copies_options options;
    bl_copies_options_init(&options);
    REQUIRE_OK(bl_hosts_create(&hosts, E, P, slots));
    REQUIRE_OK(bl_copies_create(E, P, hosts.n_copy_slots, &search));
    const int32_t n = many ? BL_COPIES_MAX_SCENARIOS : 1;
    CHECK_NEAR(bl_copies_search(search, &hosts, load, n, NULL, &options), 1, 1e-4);
    for (int32_t s = 0; s < P; ++s) found[many][s] = hosts.copy_expert[s];
    bl_copies_free(search);
    bl_hosts_free(&hosts);
  }
  for (int32_t s = 0; s < P; ++s) CHECK_INT(found[1][s], found[0][s]);
}

static void test_order(void) {
  bl_rng rng;
  bl_rng_seed(&rng, 7, 1);
  double load[100];
  int32_t order[100], scratch[100];
  for (int32_t n = 1; n <= 100; ++n) {
    for (int32_t e = 0; e < n; ++e) load[e] = (double)bl_rng_below(&rng, 10);
    bool good = true;
    bl_order_descending(load, n, order, scratch);
    for (int32_t i = 1; i < n; ++i)
      good = good &&
             (load[order[i - 1]] > load[order[i]] || (load[order[i - 1]] == load[order[i]] && order[i - 1] < order[i]));
    bl_order_ascending(load, n, order, scratch);
    for (int32_t i = 1; i < n; ++i)
      good = good &&
             (load[order[i - 1]] < load[order[i]] || (load[order[i - 1]] == load[order[i]] && order[i - 1] < order[i]));
    CHECK(good);
  }
}

static void test_clipped_homes(void) {
  bl_rng rng;
  bl_rng_seed(&rng, 8, 1);
  for (int i = 0; i < 50; ++i) {
    double load[32];
    int32_t home[32], used[8] = {0};
    const int32_t most[8] = {4, 4, 5, 3, 4, 4, 4, 4};
    random_load(&rng, load, 32);
    REQUIRE_OK(bl_homes_longest_first(load, 32, 8, most, NULL, i % 2, home));
    bool fits = true;
    for (int32_t e = 0; e < 32; ++e) fits = ++used[home[e]] <= most[home[e]] && fits;
    CHECK(fits);
  }
  const int32_t few[2] = {1, 1};
  const double three[3] = {1, 1, 1};
  int32_t home[3];
  CHECK_FAILS(bl_homes_longest_first(three, 3, 2, few, NULL, true, home), BL_EINPUT, "no room");
}

/* All permutations of 4 ranks. */
static void test_relabel_keeps_most(void) {
  bl_rng rng;
  bl_rng_seed(&rng, 9, 1);
  const int32_t slots[4] = {9, 9, 9, 9}, needs[4] = {5, 5, 5, 5};
  for (int i = 0; i < 200; ++i) {
    int32_t old_home[16], new_home[16], rank_of[4], best = -1, kept = 0;
    for (int32_t e = 0; e < 16; ++e) {
      old_home[e] = (int32_t)bl_rng_below(&rng, 4);
      new_home[e] = (int32_t)bl_rng_below(&rng, 4);
    }
    REQUIRE_OK(bl_homes_relabel(old_home, new_home, 16, 4, needs, slots, rank_of));
    for (int32_t e = 0; e < 16; ++e) kept += rank_of[new_home[e]] == old_home[e];
    for (int32_t code = 0; code < 256; ++code) {
      const int32_t p[4] = {code & 3, code >> 2 & 3, code >> 4 & 3, code >> 6};
      if ((1 << p[0] | 1 << p[1] | 1 << p[2] | 1 << p[3]) != 15) continue;
      int32_t same = 0;
      for (int32_t e = 0; e < 16; ++e) same += p[new_home[e]] == old_home[e];
      if (same > best) best = same;
    }
    CHECK_INT(kept, best);
  }
  const int32_t tight[2] = {4, 9}, groups[2] = {6, 3}, old_home[4] = {0, 0, 1, 1}, new_home[4] = {0, 0, 1, 1};
  int32_t rank_of[2];
  REQUIRE_OK(bl_homes_relabel(old_home, new_home, 4, 2, groups, tight, rank_of));
  CHECK_INT(rank_of[0], 1); /* overlap would keep it, but only rank 1 has 6 slots */
}

int main(void) {
  RUN(test_bound_never_exceeds_optimum);
  RUN(test_bound_by_hand);
  RUN(test_first_least);
  RUN(test_window_is_perfect);
  RUN(test_copies_against_all);
  RUN(test_copies_are_legal);
  RUN(test_copies_stay_the_same);
  RUN(test_copies_forget_earlier_searches);
  RUN(test_bad_homes_need_more_slots);
  RUN(test_as_many_scenarios_as_fit);
  RUN(test_order);
  RUN(test_clipped_homes);
  RUN(test_relabel_keeps_most);
  TEST_MAIN_END;
}
