#include "planner/place/cuts.h"
#include "base/memory.h"
#include <string.h>

enum {
  MOST_SETS = 64, /* kept; twice as many bound little more */
  WORD = 64,
  SETS_A_LOOK = 8 /* after so many sets, is the limit exceeded? */
};

struct bl_cuts {
  int32_t experts, ranks, words, n; /* words of a set of ranks; scenarios, padded with weight and load 0 */
  int32_t n_sets, newest;
  const double *speed;
  uint64_t *hosts;        /* [experts][words] */
  uint64_t *moved;        /* [2][words]: hosts of experts under a change */
  uint64_t *set;          /* [MOST_SETS][words] */
  double *captive;        /* [MOST_SETS][n]: load of the experts whose hosts lie in the set */
  double *load;           /* [experts][n] */
  double *weight;         /* [n] */
  double each[MOST_SETS]; /* 1 / speed of the set */
};

bl_status bl_cuts_create(int32_t experts, int32_t ranks, int32_t max_scenarios, bl_cuts **out) {
  static const char what[] = "cuts of a search for copy hosts";
  bl_cuts *c;
  *out = NULL;
  BL_TRY(bl_new(&c, 1, sizeof *c, what));
  c->experts = experts;
  c->ranks = ranks;
  c->words = (ranks + WORD - 1) / WORD;
  const size_t words = (size_t)c->words, n = (size_t)BL_CUTS_LANES(max_scenarios);
  bl_status status = BL_OK;
  BL_TRY_GOTO(status, bl_new(&c->hosts, (size_t)experts * words, sizeof *c->hosts, what), fail);
  BL_TRY_GOTO(status, bl_new(&c->moved, 2 * words, sizeof *c->moved, what), fail);
  BL_TRY_GOTO(status, bl_new(&c->set, MOST_SETS * words, sizeof *c->set, what), fail);
  BL_TRY_GOTO(status, bl_new(&c->captive, MOST_SETS * n, sizeof *c->captive, what), fail);
  BL_TRY_GOTO(status, bl_new(&c->load, (size_t)experts * n, sizeof *c->load, what), fail);
  BL_TRY_GOTO(status, bl_new(&c->weight, n, sizeof *c->weight, what), fail);
  *out = c;
  return BL_OK;
fail:
  bl_cuts_free(c);
  return status;
}

void bl_cuts_free(bl_cuts *c) {
  if (!c) return;
  free(c->hosts);
  free(c->moved);
  free(c->set);
  free(c->captive);
  free(c->load);
  free(c->weight);
  free(c);
}

static inline void put(uint64_t *set, int32_t rank) { set[rank / WORD] |= (uint64_t)1 << rank % WORD; }

static inline bool lies_in(const bl_cuts *c, const uint64_t *hosts, const uint64_t *set) {
  uint64_t outside = 0;
  for (int32_t w = 0; w < c->words; ++w) outside |= hosts[w] & ~set[w];
  return outside == 0;
}

static void find_hosts(const bl_cuts *c, const bl_flow_graph *g, int32_t expert, uint64_t *hosts) {
  memset(hosts, 0, (size_t)c->words * sizeof *hosts);
  int32_t x = expert;
  do {
    put(hosts, g->entry[x].rank);
    x = g->entry[x].next_host;
  } while (x != expert);
}

void bl_cuts_start(bl_cuts *c, const bl_flow_graph *graph, const double *load, int32_t n, const double *weight,
                   const double *speed) {
  c->n = BL_CUTS_LANES(n);
  c->n_sets = c->newest = 0;
  c->speed = speed;
  for (int32_t i = 0; i < c->n; ++i) c->weight[i] = i < n ? weight[i] : 0;
  for (int32_t e = 0; e < c->experts; ++e) {
    find_hosts(c, graph, e, c->hosts + (int64_t)e * c->words);
    for (int32_t i = 0; i < c->n; ++i) c->load[(int64_t)e * c->n + i] = i < n ? load[(int64_t)i * c->experts + e] : 0;
  }
}

void bl_cuts_add(bl_cuts *c, const int32_t *rank, int32_t n) {
  const int32_t at = c->n_sets < MOST_SETS ? c->n_sets++ : (c->newest + 1) % MOST_SETS;
  uint64_t *set = c->set + (int64_t)at * c->words;
  double *captive = c->captive + (int64_t)at * c->n, speed = 0;
  c->newest = at;
  memset(set, 0, (size_t)c->words * sizeof *set);
  memset(captive, 0, (size_t)c->n * sizeof *captive);
  for (int32_t i = 0; i < n; ++i) {
    put(set, rank[i]);
    speed += c->speed ? c->speed[rank[i]] : 1;
  }
  c->each[at] = 1 / speed;
  for (int32_t e = 0; e < c->experts; ++e) {
    const double *load = c->load + (int64_t)e * c->n;
    if (lies_in(c, c->hosts + (int64_t)e * c->words, set))
      for (int32_t i = 0; i < c->n; ++i) captive[i] += load[i];
  }
}

void bl_cuts_take(bl_cuts *c, const bl_flow_graph *graph, const int32_t *expert, int32_t n) {
  for (int32_t x = 0; x < n; ++x) {
    const double *load = c->load + (int64_t)expert[x] * c->n;
    uint64_t *hosts = c->hosts + (int64_t)expert[x] * c->words;
    find_hosts(c, graph, expert[x], c->moved);
    for (int32_t k = 0; k < c->n_sets; ++k) {
      const uint64_t *set = c->set + (int64_t)k * c->words;
      const double change = lies_in(c, c->moved, set) - lies_in(c, hosts, set);
      for (int32_t i = 0; i < c->n && change != 0; ++i) c->captive[(int64_t)k * c->n + i] += change * load[i];
    }
    memcpy(hosts, c->moved, (size_t)c->words * sizeof *hosts);
  }
}

/* Raises level[] to what set k says where the loads of two experts come to it (1), leave it (-1) or neither (0). */
static void raise(const bl_cuts *c, int32_t k, const double *load[2], const double change[2], double *level) {
  const double *captive = c->captive + (int64_t)k * c->n, each = c->each[k];
  for (int32_t i = 0; i < c->n; ++i) {
    const double bound = (captive[i] + change[0] * load[0][i] + change[1] * load[1][i]) * each;
    level[i] = bound > level[i] ? bound : level[i];
  }
}

static double weighted(const bl_cuts *c, const double *level) {
  double sum = 0;
  for (int32_t i = 0; i < c->n; ++i) sum += c->weight[i] * level[i];
  return sum;
}

double bl_cuts_bound(bl_cuts *c, const bl_flow_graph *graph, const int32_t *expert, int32_t n, double limit,
                     double *level) {
  const double *load[2] = {c->load, c->load};
  double change[MOST_SETS][2];
  int32_t rest[MOST_SETS], n_rest = 0; /* sets that only lose */
  for (int32_t x = 0; x < n; ++x) {
    load[x] = c->load + (int64_t)expert[x] * c->n;
    find_hosts(c, graph, expert[x], c->moved + x * c->words);
  }
  for (int32_t k = 0; k < c->n_sets; ++k) {
    const uint64_t *set = c->set + (int64_t)k * c->words;
    change[k][0] = change[k][1] = 0;
    for (int32_t x = 0; x < n; ++x)
      change[k][x] =
          lies_in(c, c->moved + x * c->words, set) - lies_in(c, c->hosts + (int64_t)expert[x] * c->words, set);
    if (change[k][0] > 0 || change[k][1] > 0)
      raise(c, k, load, change[k], level);
    else
      rest[n_rest++] = k;
  }
  double sum = weighted(c, level);
  for (int32_t i = 0; i < n_rest && sum <= limit;) {
    const int32_t end = i + SETS_A_LOOK < n_rest ? i + SETS_A_LOOK : n_rest;
    for (; i < end; ++i) raise(c, rest[i], load, change[rest[i]], level);
    sum = weighted(c, level);
  }
  return sum;
}
