/* Fresh shares against the maximum over all sets of ranks, and the quotas that execute them. */
#include "base/rng.h"
#include "planner/place/hosts.h"
#include "tests/check.h"

enum { MAX_E = 64, MAX_P = 16 };

/* Random homes are not needed: contiguous ones with random copies reach every shape of the flow. */
static void fill_at_random(bl_rng *rng, bl_hosts *hosts, bool all) {
  for (int32_t s = 0; s < hosts->n_copy_slots; ++s) {
    hosts->copy_expert[s] = -1;
    const int32_t e = (int32_t)bl_rng_below(rng, (uint64_t)hosts->experts);
    bool here = hosts->home[e] == hosts->copy_rank[s] || (!all && bl_rng_below(rng, 4) == 0);
    for (int32_t t = 0; t < s; ++t)
      here = here || (hosts->copy_rank[t] == hosts->copy_rank[s] && hosts->copy_expert[t] == e);
    if (!here) hosts->copy_expert[s] = e;
  }
}

static void random_load(bl_rng *rng, double *load, int32_t experts) {
  const uint64_t skew = bl_rng_below(rng, 4);
  for (int32_t e = 0; e < experts; ++e) {
    load[e] = (double)bl_rng_below(rng, 1000);
    for (uint64_t i = 0; i < skew; ++i) load[e] *= bl_rng_unit(rng);
    if (bl_rng_below(rng, 6) == 0) load[e] = 0;
  }
  load[bl_rng_below(rng, (uint64_t)experts)] += 1 + 3000 * bl_rng_unit(rng);
}

/* The largest over rank sets of (load that only they can host) / (their speed). */
static double hall(const bl_hosts *hosts, const double *load, const double *speed) {
  double best = 0;
  uint32_t mask[MAX_E];
  for (int32_t e = 0; e < hosts->experts; ++e) mask[e] = 1u << hosts->home[e];
  for (int32_t s = 0; s < hosts->n_copy_slots; ++s)
    if (hosts->copy_expert[s] >= 0) mask[hosts->copy_expert[s]] |= 1u << hosts->copy_rank[s];
  for (uint32_t set = 1; set < 1u << hosts->ranks; ++set) {
    double sum = 0, size = 0;
    for (int32_t e = 0; e < hosts->experts; ++e)
      if ((mask[e] & ~set) == 0) sum += load[e];
    for (int32_t r = 0; r < hosts->ranks; ++r)
      if (set >> r & 1) size += speed ? speed[r] : 1;
    if (sum / size > best) best = sum / size;
  }
  return best;
}

static void check_one(bl_rng *rng, int32_t experts, int32_t ranks, const int32_t *slots, bool with_speed) {
  bl_hosts hosts;
  bl_shares *shares;
  double load[MAX_E], speed[MAX_P], rank_load[MAX_P] = {0}, sum = 0, speeds = 0, max = 0;
  REQUIRE_OK(bl_hosts_create(&hosts, experts, ranks, slots));
  REQUIRE_OK(bl_shares_create(experts, ranks, hosts.n_copy_slots, &shares));
  fill_at_random(rng, &hosts, bl_rng_below(rng, 2));
  random_load(rng, load, experts);
  for (int32_t r = 0; r < ranks; ++r) speeds += speed[r] = with_speed ? 0.5 + bl_rng_unit(rng) : 1;
  const double imbalance = bl_shares_solve(shares, &hosts, load, with_speed ? speed : NULL);
  bool conserved = true;
  for (int32_t e = 0; e < experts; ++e) {
    double tokens = bl_shares_home_tokens(shares, e);
    conserved = conserved && tokens >= 0;
    rank_load[hosts.home[e]] += tokens;
    for (int32_t s = 0; s < hosts.n_copy_slots; ++s)
      if (hosts.copy_expert[s] == e) {
        tokens += bl_shares_copy_tokens(shares, s);
        rank_load[hosts.copy_rank[s]] += bl_shares_copy_tokens(shares, s);
      }
    conserved = conserved && fabs(tokens - load[e]) <= 1e-12 * (1 + load[e]);
    sum += load[e];
  }
  for (int32_t r = 0; r < ranks; ++r)
    if (rank_load[r] / speed[r] > max) max = rank_load[r] / speed[r];
  CHECK(conserved);
  CHECK_NEAR(imbalance, hall(&hosts, load, with_speed ? speed : NULL) / (sum / speeds), 1e-9);
  CHECK_NEAR(imbalance, max / (sum / speeds), 1e-9);
  bl_shares_free(shares);
  bl_hosts_free(&hosts);
}

static void test_against_rank_sets(void) {
  bl_rng rng;
  bl_rng_seed(&rng, 1, 1);
  const int rounds = check_is_small() ? 200 : 4000;
  for (int i = 0; i < rounds; ++i) {
    const int32_t ranks = 2 + (int32_t)bl_rng_below(&rng, i % 20 == 0 ? 11 : 7);
    const int32_t experts = ranks + (int32_t)bl_rng_below(&rng, (uint64_t)(MAX_E - ranks));
    int32_t slots[MAX_P];
    const int32_t homes = (experts + ranks - 1) / ranks;
    for (int32_t r = 0; r < ranks; ++r) {
      slots[r] = homes + (int32_t)bl_rng_below(&rng, 3);
      if (slots[r] > experts) slots[r] = experts;
    }
    check_one(&rng, experts, ranks, slots, i % 3 == 0);
  }
}

static void test_zero_load(void) {
  const int32_t slots[2] = {3, 3};
  const double load[4] = {0, 0, 0, 0};
  bl_hosts hosts;
  bl_shares *shares;
  REQUIRE_OK(bl_hosts_create(&hosts, 4, 2, slots));
  REQUIRE_OK(bl_shares_create(4, 2, hosts.n_copy_slots, &shares));
  CHECK(bl_shares_solve(shares, &hosts, load, NULL) == 1.0);
  CHECK(bl_shares_home_tokens(shares, 3) == 0);
  bl_shares_free(shares);
  bl_hosts_free(&hosts);
}

static void test_applied_shares(void) {
  const int32_t slots[2] = {3, 3};
  const double load[4] = {6, 1, 1, 0}, fraction[2] = {0, 0.5};
  bl_hosts hosts;
  bl_shares *shares;
  REQUIRE_OK(bl_hosts_create(&hosts, 4, 2, slots));
  REQUIRE_OK(bl_shares_create(4, 2, hosts.n_copy_slots, &shares));
  hosts.copy_expert[1] = 0;
  CHECK_NEAR(bl_shares_apply(shares, &hosts, load, fraction, NULL), 1.0, 1e-12);
  CHECK_NEAR(bl_shares_copy_tokens(shares, 1), 3, 1e-12);
  CHECK_NEAR(bl_shares_home_tokens(shares, 0), 3, 1e-12);
  bl_shares_free(shares);
  bl_hosts_free(&hosts);
}

static void test_refused_hosts(void) {
  bl_hosts hosts;
  const int32_t few[2] = {2, 1}, many[2] = {5, 2}, uneven[2] = {2, 3};
  CHECK_FAILS(bl_hosts_create(&hosts, 4, 0, few), BL_EINPUT, "0 ranks");
  CHECK_FAILS(bl_hosts_create(&hosts, 1, 2, few), BL_EINPUT, "1 experts on 2 ranks");
  CHECK_FAILS(bl_hosts_create(&hosts, 4, 2, few), BL_EINPUT, "3 slots");
  CHECK_FAILS(bl_hosts_create(&hosts, 4, 2, many), BL_EINPUT, "rank 0 has 5 slots");
  REQUIRE_OK(bl_hosts_create(&hosts, 4, 2, uneven));
  CHECK_INT(hosts.n_copy_slots, 1);
  CHECK_INT(hosts.copy_rank[0], 1);
  const int32_t full[4] = {0, 0, 0, 1}, moved[4] = {1, 1, 1, 0};
  CHECK_FAILS(bl_hosts_set_homes(&hosts, full), BL_EINPUT, "rank 0 is the home of 3");
  CHECK_OK(bl_hosts_set_homes(&hosts, moved));
  CHECK_INT(hosts.copy_rank[0], 0);
  bl_hosts_free(&hosts);
}

static void test_hash(void) {
  const int32_t slots[2] = {4, 4};
  bl_hosts a, b;
  REQUIRE_OK(bl_hosts_create(&a, 4, 2, slots));
  REQUIRE_OK(bl_hosts_create(&b, 4, 2, slots));
  a.copy_expert[0] = 2, a.copy_expert[1] = 3;
  b.copy_expert[0] = 3, b.copy_expert[1] = 2;
  CHECK(bl_hosts_hash(&a, 7) == bl_hosts_hash(&b, 7));
  CHECK(bl_hosts_hash(&a, 7) != bl_hosts_hash(&a, 8));
  b.copy_expert[1] = -1;
  CHECK(bl_hosts_hash(&a, 7) != bl_hosts_hash(&b, 7));
  bl_hosts_free(&a);
  bl_hosts_free(&b);
}

/* Rows sum to the source's counts, columns to rounded totals, and own tokens stay at home first. */
static void test_quota_sums(void) {
  bl_rng rng;
  bl_rng_seed(&rng, 2, 1);
  for (int round = 0; round < 300; ++round) {
    enum { E = 12, P = 4 };
    const int32_t slots[P] = {5, 4, 6, 4};
    bl_hosts hosts;
    bl_shares *shares;
    REQUIRE_OK(bl_hosts_create(&hosts, E, P, slots));
    REQUIRE_OK(bl_shares_create(E, P, hosts.n_copy_slots, &shares));
    fill_at_random(&rng, &hosts, true);
    uint32_t counts[P * E], quota[P * (E + 8)];
    double load[E] = {0};
    for (int32_t i = 0; i < P * E; ++i)
      load[i % E] += counts[i] = (uint32_t)bl_rng_below(&rng, 1 + bl_rng_below(&rng, 60));
    bl_shares_solve(shares, &hosts, load, NULL);
    int32_t first[E + 1], host_rank[E + 8];
    REQUIRE_OK(bl_quota_build(&hosts, shares, counts, P, round % 2 ? 2 : 0, first, host_rank, quota));
    const int32_t n = first[E];
    bool rows = true, columns = true, own = true;
    for (int32_t e = 0; e < E; ++e) {
      CHECK_INT(host_rank[first[e]], hosts.home[e]);
      for (int32_t s = 0; s < P; ++s) {
        uint32_t sum = 0;
        for (int32_t h = first[e]; h < first[e + 1]; ++h) sum += quota[s * n + h];
        rows = rows && sum == counts[s * E + e];
      }
      for (int32_t h = first[e]; h < first[e + 1]; ++h) {
        uint32_t total = 0;
        for (int32_t s = 0; s < P; ++s) total += quota[s * n + h];
        double tokens = bl_shares_home_tokens(shares, e);
        for (int32_t s = 0; s < hosts.n_copy_slots; ++s)
          if (h > first[e] && hosts.copy_expert[s] == e && hosts.copy_rank[s] == host_rank[h])
            tokens = bl_shares_copy_tokens(shares, s);
        columns = columns && fabs(total - tokens) < 1 + 1e-6;
        const uint32_t mine = counts[host_rank[h] * E + e];
        own = own && quota[host_rank[h] * n + h] == (mine < total ? mine : total);
      }
    }
    CHECK(rows);
    CHECK(columns);
    CHECK(own);
    bl_shares_free(shares);
    bl_hosts_free(&hosts);
  }
}

static void test_quota_by_hand(void) {
  /* One expert of 4 lives on rank 0 with copies on 1 and 3; 8 tokens in thirds: 2.67 each -> 3, 3, 2. */
  const int32_t slots[4] = {2, 2, 2, 2};
  bl_hosts hosts;
  bl_shares *shares;
  REQUIRE_OK(bl_hosts_create(&hosts, 4, 4, slots));
  REQUIRE_OK(bl_shares_create(4, 4, hosts.n_copy_slots, &shares));
  hosts.copy_expert[1] = hosts.copy_expert[3] = 0;
  const double load[4] = {8, 0, 0, 0}, fraction[4] = {0, 1 / 3.0, 0, 1 / 3.0};
  bl_shares_apply(shares, &hosts, load, fraction, NULL);
  const uint32_t counts[16] = {1, 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0}; /* 1, 1, 5, 1 tokens of expert 0 */
  int32_t first[5], host_rank[8];
  uint32_t quota[4 * 8];
  REQUIRE_OK(bl_quota_build(&hosts, shares, counts, 4, 2, first, host_rank, quota));
  CHECK_INT(first[1], 3);
  const uint32_t *source2 = quota + 2 * first[4];
  CHECK_INT(source2[2], 1); /* rank 3 is in its node, and has room for 1 beside rank 3's own token */
  CHECK_INT(source2[0], 2);
  CHECK_INT(source2[1], 2);
  bl_shares_free(shares);
  bl_hosts_free(&hosts);
}

int main(void) {
  RUN(test_against_rank_sets);
  RUN(test_zero_load);
  RUN(test_applied_shares);
  RUN(test_refused_hosts);
  RUN(test_hash);
  RUN(test_quota_sums);
  RUN(test_quota_by_hand);
  TEST_MAIN_END;
}
