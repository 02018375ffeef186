/* Columns of groups of ranks: against the exact partition where the ranks are few, and what they bring where they are
 * many. Copies group by group against Hall's condition in bl_shares_solve(). */
#include "base/rng.h"
#include "planner/milp/group_search.h"
#include "planner/milp/prove.h"
#include "planner/milp/rank_columns.h"
#include "planner/milp/rank_groups.h"
#include "tests/check.h"

enum { MAX_E = 256, MAX_P = 64 };

typedef struct layer {
  double load[MAX_E], speed[MAX_P];
  int32_t slots[MAX_P], home[MAX_E], group[MAX_P];
  bl_fewest problem;
} layer;

/* Contiguous homes, one spare slot; popularity Zipf in random order, or log-normal. */
static void draw(layer *x, bl_rng *rng, int32_t experts, int32_t ranks, double skew, bool unlike) {
  double sum = 0, speeds = 0;
  for (int32_t e = 0; e < experts; ++e) {
    x->load[e] =
        skew > 0 ? bl_det_pow(1 + (double)bl_rng_below(rng, (uint64_t)experts), -skew) : bl_det_exp(bl_rng_normal(rng));
    sum += x->load[e];
    x->home[e] = e / ((experts + ranks - 1) / ranks);
  }
  for (int32_t e = 0; e < experts; ++e) x->load[e] *= ranks / sum;
  for (int32_t r = 0; r < ranks; ++r) {
    x->slots[r] = (experts + ranks - 1) / ranks + 1;
    speeds += x->speed[r] = unlike ? 0.5 + bl_rng_unit(rng) : 1;
  }
  for (int32_t r = 0; r < ranks; ++r) x->speed[r] *= ranks / speeds;
  x->problem = (bl_fewest){.experts = experts,
                           .ranks = ranks,
                           .load = x->load,
                           .slots = x->slots,
                           .speed = unlike ? x->speed : NULL,
                           .home = x->home,
                           .cap = 1.02 + 0.1 * bl_rng_unit(rng)};
}

/* The least cost of groups that cover all ranks above the limit, trying all partitions; free slots do not count. */
static int32_t least_cost(const bl_rank_facts *facts, uint32_t left, int32_t ranks) {
  int32_t first = 0, best = 1000;
  while (first < ranks && !(left >> first & 1 && facts[first].excess > 0)) ++first;
  if (first == ranks) return 0;
  const uint32_t rest = left & ~(1u << first);
  for (uint32_t others = rest;; others = (others - 1) & rest) {
    double excess = 0;
    int32_t copies = 0;
    const uint32_t set = others | 1u << first;
    for (int32_t r = 0; r < ranks; ++r) {
      if (!(set >> r & 1)) continue;
      excess += facts[r].excess;
      copies += facts[r].excess > 0 ? facts[r].leaving : 0;
    }
    const int32_t joins = __builtin_popcount(set) - 1, cost = copies > joins ? copies : joins;
    if (excess <= 0 && cost < best) {
      const int32_t all = cost + least_cost(facts, left & ~set, ranks);
      if (all < best) best = all;
    }
    if (others == 0) break;
  }
  return best;
}

/* Groups that the search is given are real: within their limit together, all ranks above the limit in one. */
static void check_groups(const layer *x, const bl_rank_facts *facts) {
  double excess[MAX_P] = {0};
  for (int32_t r = 0; r < x->problem.ranks; ++r) {
    CHECK(x->group[r] >= 0 || facts[r].excess <= 0);
    if (x->group[r] >= 0) excess[x->group[r]] += facts[r].excess;
  }
  for (int32_t g = 0; g < MAX_P; ++g) CHECK(excess[g] <= 1e-9);
}

static void check_hosts(const layer *x, const bl_hosts *hosts, int32_t bound) {
  bl_shares *shares;
  REQUIRE(bl_shares_create(hosts->experts, hosts->ranks, hosts->n_copy_slots, &shares) == BL_OK);
  CHECK(bl_shares_solve(shares, hosts, x->load, x->problem.speed) <= x->problem.cap * (1 + 1e-9));
  bl_shares_free(shares);
  CHECK(memcmp(hosts->home, x->home, (size_t)hosts->experts * sizeof *x->home) == 0);
  CHECK(bl_fewest_copies_of(hosts) >= bound);
}

static void test_against_partitions(void) {
  if (!bl_prove_has_solver()) SKIP("built without GLPK");
  static layer x;
  bl_rng rng;
  bl_rng_seed(&rng, 41, 0);
  int32_t exact = 0, all = 0, searched = 0;
  for (int32_t i = 0; i < (check_is_small() ? 12 : 60); ++i) {
    bl_rank_facts *facts;
    int32_t bound = 0;
    bool found;
    bl_hosts hosts = {.experts = 0};
    const int32_t ranks = 4 + (int32_t)bl_rng_below(&rng, 6);
    draw(&x, &rng, ranks * 4, ranks, i % 3 == 0 ? 0 : 0.3 * (i % 4), i % 4 == 1);
    REQUIRE(bl_rank_facts_gather(&x.problem, &facts) == BL_OK);
    const int32_t least = least_cost(facts, (1u << ranks) - 1, ranks);
    REQUIRE(bl_rank_columns(&x.problem, 10, 0, &bound, &found, x.group) == BL_OK);
    if (least < 1000) {
      CHECK(bound <= least);
      exact += bound == least;
      ++all;
    }
    if (found) {
      check_groups(&x, facts);
      REQUIRE(bl_group_search(&x.problem, x.group, 20000, &hosts, &found) == BL_OK);
      if (found) check_hosts(&x, &hosts, bound);
      searched += found;
    }
    bl_hosts_free(&hosts);
    free(facts);
  }
  printf("columns meet the exact partition in %d of %d, groups were filled in %d\n", exact, all, searched);
  CHECK(exact >= all * 95 / 100);
  CHECK(searched >= all * 8 / 10);
}

/* Excess and room in whole units that match exactly, none of them whole on a grid: rounding must not lose a pair. */
static void test_exact_fits(void) {
  if (!bl_prove_has_solver()) SKIP("built without GLPK");
  static layer x;
  bl_rng rng;
  bl_rng_seed(&rng, 45, 0);
  for (int32_t i = 0; i < (check_is_small() ? 4 : 20); ++i) {
    enum { PAIRS = 5, RANKS = 2 * PAIRS };
    int32_t bound = 0;
    bool found;
    x.problem = (bl_fewest){.experts = RANKS,
                            .ranks = RANKS,
                            .load = x.load,
                            .slots = x.slots,
                            .home = x.home,
                            .cap = 1 + BL_FEWEST_TOLERANCE};
    for (int32_t r = 0; r < RANKS; r += 2) {
      const double unit = (double)(1 + bl_rng_below(&rng, 997)) / 1000;
      x.load[r] = 1 + unit;
      x.load[r + 1] = 1 - unit;
    }
    for (int32_t r = 0; r < RANKS; ++r) {
      x.home[r] = r;
      x.slots[r] = 2;
    }
    REQUIRE(bl_rank_columns(&x.problem, 10, 0, &bound, &found, x.group) == BL_OK);
    CHECK_INT(bound, PAIRS);
  }
}

/* Ranks that no others can help: the first holds `experts` alike that sum to 1 + excess, each of the next ones one
 * expert and room for an equal part of the excess, but for `missing` of it.  @return : the next rank. */
static int32_t add_ranks(layer *x, int32_t first, double excess, int32_t experts, int32_t receivers, double missing) {
  bl_fewest *p = &x->problem;
  for (int32_t i = 0; i < experts; ++i) {
    x->home[p->experts] = first;
    x->load[p->experts++] = (1 + excess) / experts;
  }
  for (int32_t r = first + 1; r <= first + receivers; ++r) {
    x->home[p->experts] = r;
    x->load[p->experts++] = 1 - (excess - missing) / receivers;
  }
  return first + receivers + 1;
}

static void start_ranks(layer *x) {
  x->problem = (bl_fewest){.load = x->load, .slots = x->slots, .home = x->home, .cap = 1 + BL_FEWEST_TOLERANCE};
  for (int32_t r = 0; r < MAX_P; ++r) x->slots[r] = MAX_E;
}

/* A group costs the copies that must leave its ranks where these are more than its ranks less one, and else its ranks
 * less one: neither alone. Every sender takes the room of receivers of its own, to the last bit. */
static void test_cost_of_groups(void) {
  if (!bl_prove_has_solver()) SKIP("built without GLPK");
  static layer x;
  bl_rng rng;
  bl_rng_seed(&rng, 47, 0);
  for (int32_t i = 0; i < (check_is_small() ? 4 : 16); ++i) {
    int32_t bound = 0, ranks = 0, least = 0;
    bool found;
    start_ranks(&x);
    for (int32_t k = 0; k < 4; ++k) {
      const double excess = 0.4 + 0.5 * bl_rng_unit(&rng);
      const int32_t experts = i % 2 ? 1 : 2 + (int32_t)bl_rng_below(&rng, 5);
      const int32_t receivers = i % 2 ? 1 + (int32_t)bl_rng_below(&rng, 3) : 1;
      const int32_t leaving = (int32_t)ceil(excess * experts / (1 + excess) - 1e-9);
      least += leaving > receivers ? leaving : receivers;
      ranks = add_ranks(&x, ranks, excess, experts, receivers, 0);
    }
    x.problem.ranks = ranks;
    REQUIRE(bl_rank_columns(&x.problem, 10, 0, &bound, &found, x.group) == BL_OK);
    CHECK_INT(bound, least);
  }
}

/* Pairs that fit by the rounding of the grid alone, and a spare rank for what is missing: groups that are chosen from
 * hold their load all the same. */
static void test_overfull(void) {
  if (!bl_prove_has_solver()) SKIP("built without GLPK");
  static layer x;
  bl_rng rng;
  bl_rng_seed(&rng, 48, 0);
  int32_t chosen = 0;
  enum { TURNS = 8 };
  for (int32_t i = 0; i < TURNS; ++i) {
    int32_t bound = 0, ranks = 0;
    bool found;
    bl_rank_facts *facts;
    start_ranks(&x);
    for (int32_t k = 0; k < 4; ++k) ranks = add_ranks(&x, ranks, 0.4 + 0.5 * bl_rng_unit(&rng), 1, 1, 2e-5);
    for (int32_t k = 0; k < 4; ++k) ranks = add_ranks(&x, ranks, -0.1, 1, 0, 0);
    x.problem.ranks = ranks;
    REQUIRE(bl_rank_columns(&x.problem, 10, 0, &bound, &found, x.group) == BL_OK);
    CHECK(bound <= 8); /* two receivers for each */
    REQUIRE(bl_rank_facts_gather(&x.problem, &facts) == BL_OK);
    if (found) check_groups(&x, facts);
    chosen += found;
    free(facts);
  }
  CHECK(chosen >= TURNS - 1);
}

/* One rank above the limit that needs all others: more receivers than are counted one by one. */
static void test_more_than_counted(void) {
  if (!bl_prove_has_solver()) SKIP("built without GLPK");
  static layer x;
  enum { N = 60 };
  int32_t bound = 0;
  bool found;
  x.problem = (bl_fewest){
      .experts = N, .ranks = N, .load = x.load, .slots = x.slots, .home = x.home, .cap = 1 + BL_FEWEST_TOLERANCE};
  for (int32_t r = 0; r < N; ++r) {
    x.load[r] = r == 7 ? 1 + 0.5 * (N - 1) : 0.5;
    x.home[r] = r;
    x.slots[r] = 2;
  }
  REQUIRE(bl_rank_columns(&x.problem, 10, 0, &bound, &found, x.group) == BL_OK);
  CHECK(bound <= N - 1);
}

/* Stopped at any time, what has been said stands. */
static void test_cut_short(void) {
  if (!bl_prove_has_solver()) SKIP("built without GLPK");
  static layer x;
  bl_rng rng;
  bl_rng_seed(&rng, 46, 0);
  draw(&x, &rng, 256, 64, 0.7, false);
  bl_rank_facts *facts;
  REQUIRE(bl_rank_facts_gather(&x.problem, &facts) == BL_OK);
  int32_t before = 0;
  for (int32_t i = 0; i < 6; ++i) {
    int32_t bound = 0;
    bool found;
    REQUIRE(bl_rank_columns(&x.problem, 0.02 * (1 << i), 0, &bound, &found, x.group) == BL_OK);
    if (found) check_groups(&x, facts);
    before = bound > before ? bound : before;
  }
  CHECK(before > 0);
  free(facts);
}

/* Where the table of sets of ranks is too large, counting alone is far off. */
static void test_many_ranks(void) {
  if (!bl_prove_has_solver()) SKIP("built without GLPK");
  static layer x;
  bl_rng rng;
  bl_rng_seed(&rng, 42, 0);
  int32_t counted = 0, proved = 0, filled = 0, above = 0, n = 0;
  for (int32_t i = 0; i < (check_is_small() ? 1 : 4); ++i) {
    bool infeasible, found;
    int32_t bound;
    bl_hosts hosts = {.experts = 0};
    draw(&x, &rng, 256, 32, 0.3 + 0.2 * i, i % 2);
    REQUIRE(bl_rank_groups_solve(&x.problem, &bound, &infeasible, x.group) == BL_OK);
    counted += bound;
    REQUIRE(bl_rank_columns(&x.problem, 20, 0, &bound, &found, x.group) == BL_OK);
    proved += bound;
    REQUIRE(found);
    REQUIRE(bl_group_search(&x.problem, x.group, 20000, &hosts, &found) == BL_OK);
    ++n;
    if (!found) continue; /* a group may need more copies than its slots hold */
    check_hosts(&x, &hosts, bound);
    above += bl_fewest_copies_of(&hosts) - bound;
    ++filled;
    bl_hosts_free(&hosts);
  }
  printf("256 experts on 32 ranks: counting proves %d copies, columns %d; %d of %d filled, with %d copies more\n",
         counted, proved, filled, n, above);
  CHECK(proved > counted);
  CHECK(filled >= n - 1 && above <= n);
}

/* The whole call takes them: more ranks than 16, proved optimal by columns. */
static void test_in_the_proof(void) {
  if (!bl_prove_has_solver()) SKIP("built without GLPK");
  static layer x;
  bl_rng rng;
  bl_rng_seed(&rng, 43, 0);
  int32_t optimal = 0, by_columns = 0;
  enum { N = 6 };
  for (int32_t i = 0; i < N; ++i) {
    bl_prove_result result;
    draw(&x, &rng, 80, 20, 0.4, false);
    const bl_prove_problem problem = {
        .experts = 80, .ranks = 20, .load = x.load, .slots = x.slots, .home = x.home, .eps = 0.05, .seconds = 4};
    REQUIRE(bl_prove_fewest_copies(&problem, &result) == BL_OK);
    optimal += result.status == BL_PROVE_OPTIMAL;
    by_columns += strcmp(result.proof, "columns-of-ranks") == 0;
    CHECK(result.price >= result.bound);
    bl_prove_result_free(&result);
  }
  printf("80 experts on 20 ranks: %d of %d proved, %d by columns\n", optimal, N, by_columns);
  CHECK(optimal >= N - 2);
  CHECK(by_columns > 0);
}

/* No time, too many ranks: nothing changes. */
static void test_nothing_to_say(void) {
  static layer x;
  bl_rng rng;
  bool found = true;
  int32_t bound = 3;
  bl_rng_seed(&rng, 44, 0);
  draw(&x, &rng, 64, 16, 1, false);
  CHECK_OK(bl_rank_columns(&x.problem, 0, 0, &bound, &found, x.group));
  CHECK(!found && bound == 3);
  x.problem.ranks = BL_RANK_COLUMNS_MAX + 1;
  CHECK_OK(bl_rank_columns(&x.problem, 1, 0, &bound, &found, x.group));
  CHECK(!found && bound == 3);
}

int main(void) {
  RUN(test_against_partitions);
  RUN(test_exact_fits);
  RUN(test_cost_of_groups);
  RUN(test_overfull);
  RUN(test_more_than_counted);
  RUN(test_cut_short);
  RUN(test_many_ranks);
  RUN(test_in_the_proof);
  RUN(test_nothing_to_say);
  TEST_MAIN_END;
}
