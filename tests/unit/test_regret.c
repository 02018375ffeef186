/* Regret against all sequences of candidates, one by one. */
#include "base/rng.h"
#include "planner/place/copies.h"
#include "planner/regret.h"
#include "tests/check.h"
#include <string.h>

enum { EXPERTS = 6, RANKS = 3, STEPS = 4, SPREAD = 2, MOST = 2 * SPREAD + 1 };

static const int32_t SLOTS[RANKS] = {3, 3, 3};
static const double COPY = 0.05;

/* What the header promises, worked out anew: the candidates, and the cost of every sequence of them. */
typedef struct oracle {
  bl_hosts candidate[MOST];
  int32_t n;
  double counts[STEPS][EXPERTS], move_price, least;
  bl_shares *shares;
} oracle;

static void add(oracle *o, const bl_hosts *hosts) {
  for (int32_t i = 0; i < o->n; ++i)
    if (bl_hosts_hash(&o->candidate[i], 3) == bl_hosts_hash(hosts, 3)) return;
  CHECK_OK(bl_hosts_create(&o->candidate[o->n], EXPERTS, RANKS, SLOTS));
  CHECK_OK(bl_hosts_assign(&o->candidate[o->n++], hosts));
}

static double cost(oracle *o, const bl_hosts *before, const bl_hosts *hosts, int32_t step) {
  double sum = bl_shares_solve(o->shares, hosts, o->counts[step], NULL);
  for (int32_t s = 0; s < hosts->n_copy_slots; ++s) sum += hosts->copy_expert[s] >= 0 ? COPY : 0;
  for (int32_t e = 0; e < EXPERTS; ++e) sum += hosts->home[e] != before->home[e] ? o->move_price : 0;
  return sum;
}

static void try_all(oracle *o, const bl_hosts *before, int32_t step, double so_far) {
  if (step == STEPS) {
    if (so_far < o->least) o->least = so_far;
    return;
  }
  for (int32_t i = 0; i < o->n; ++i)
    try_all(o, &o->candidate[i], step + 1, so_far + cost(o, before, &o->candidate[i], step));
}

static void make_up(bl_rng *rng, oracle *o, bl_hosts *decided) {
  for (int32_t t = 0; t < STEPS; ++t) {
    int32_t home[EXPERTS] = {0, 0, 1, 1, 2, 2};
    for (int32_t e = 0; e < EXPERTS; ++e) o->counts[t][e] = (double)(1 + bl_rng_below(rng, e == t ? 90 : 30));
    const uint64_t a = bl_rng_below(rng, EXPERTS), b = bl_rng_below(rng, EXPERTS);
    const int32_t kept = home[a];
    home[a] = home[b];
    home[b] = kept;
    CHECK_OK(bl_hosts_create(&decided[t], EXPERTS, RANKS, SLOTS));
    CHECK_OK(bl_hosts_set_homes(&decided[t], home));
    decided[t].copy_expert[0] = (int32_t)bl_rng_below(rng, 2) ? home[4] == 0 ? -1 : 4 : -1;
  }
}

static void check_one(uint64_t seed, double move_price) {
  bl_rng rng;
  bl_regret *regret;
  bl_copies *search;
  bl_hosts decided[STEPS], found;
  oracle o = {.move_price = move_price, .least = 1e9};
  double own = 0;
  const bl_regret_options options = {.layers = 1,
                                     .experts = EXPERTS,
                                     .ranks = RANKS,
                                     .slots = SLOTS,
                                     .spread = SPREAD,
                                     .steps = STEPS,
                                     .copy_price = COPY,
                                     .move_price = move_price};
  bl_rng_seed(&rng, seed, 1);
  make_up(&rng, &o, decided);
  REQUIRE_OK(bl_regret_create(&options, &regret));
  REQUIRE_OK(bl_shares_create(EXPERTS, RANKS, RANKS, &o.shares));
  REQUIRE_OK(bl_copies_create(EXPERTS, RANKS, RANKS, &search));
  REQUIRE_OK(bl_hosts_create(&found, EXPERTS, RANKS, SLOTS));
  add(&o, &decided[0]);
  for (int32_t t = 0; t < STEPS; ++t) {
    CHECK_OK(bl_regret_play(regret, 0, &decided[t], o.counts[t]));
    own += cost(&o, &decided[t > 0 ? t - 1 : 0], &decided[t], t);
    if (t % (STEPS / SPREAD) != 0) continue; /* the evenly spread ones */
    bl_copies_options how;
    bl_copies_options_init(&how);
    how.copy_price = COPY;
    add(&o, &decided[t]);
    CHECK_OK(bl_hosts_assign(&found, &decided[t]));
    bl_copies_search(search, &found, o.counts[t], 1, NULL, &how);
    add(&o, &found);
  }
  for (int32_t t = 0; t < STEPS; ++t) bl_regret_look_back(regret, 0, o.counts[t]);
  try_all(&o, &o.candidate[0], 0, 0);
  const bl_regret_result result = bl_regret_sum_up(regret);
  CHECK_NEAR(result.decided, own / STEPS, 1e-12);
  CHECK_NEAR(result.best, o.least / STEPS, 1e-12);
  CHECK_NEAR(result.candidates, o.n, 0);
  for (int32_t i = 0; i < o.n; ++i) bl_hosts_free(&o.candidate[i]);
  for (int32_t t = 0; t < STEPS; ++t) bl_hosts_free(&decided[t]);
  bl_hosts_free(&found);
  bl_copies_free(search);
  bl_shares_free(o.shares);
  bl_regret_free(regret);
}

static void test_best_of_all_sequences(void) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    check_one(seed, 0);
    check_one(seed, 0.02);
    check_one(seed, 0.3);
  }
}

int main(void) {
  RUN(test_best_of_all_sequences);
  TEST_MAIN_END;
}
