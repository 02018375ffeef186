#include "planner/milp/host_search.h"
#include "base/memory.h"
#include "base/rng.h"
#include <math.h>
#include <string.h>

typedef struct search {
  const bl_fewest *problem;
  bl_rng rng;
  bl_host *host, *best; /* [room]: hosts in any order */
  int32_t n, n_best, room;
  int32_t *position; /* [experts * ranks]: index in host[] + 1; 0 = no host */
  int32_t *held;     /* [ranks] */
  int32_t *count;    /* [experts] */
  bl_hosts scored;   /* the hosts as bl_shares_solve() takes them, without empty slots */
  int32_t *first;    /* [ranks + 1]: where copies of each rank go in `scored` */
  bl_shares *shares;
  double unit; /* the dearest of a copy and a move */
} search;

static int32_t *position_of(const search *s, int32_t e, int32_t r) {
  return &s->position[(int64_t)e * s->problem->ranks + r];
}

static bool stays(const search *s, int32_t e, int32_t r) { return s->problem->home && s->problem->home[e] == r; }

static void add(search *s, int32_t e, int32_t r) {
  s->host[s->n++] = (bl_host){.expert = e, .rank = r};
  *position_of(s, e, r) = s->n;
  ++s->held[r];
  ++s->count[e];
}

static void take_away(search *s, int32_t e, int32_t r) {
  const int32_t at = *position_of(s, e, r) - 1;
  const bl_host last = s->host[--s->n];
  s->host[at] = last;
  *position_of(s, last.expert, last.rank) = at + 1;
  *position_of(s, e, r) = 0;
  --s->held[r];
  --s->count[e];
}

/* A change takes away and adds at most two hosts; undone backwards. */
typedef struct change {
  bl_host away[2], added[2];
  int32_t n_away, n_added;
} change;

static void apply(search *s, const change *c) {
  for (int32_t i = 0; i < c->n_away; ++i) take_away(s, c->away[i].expert, c->away[i].rank);
  for (int32_t i = 0; i < c->n_added; ++i) add(s, c->added[i].expert, c->added[i].rank);
}

static void undo(search *s, const change *c) {
  for (int32_t i = 0; i < c->n_added; ++i) take_away(s, c->added[i].expert, c->added[i].rank);
  for (int32_t i = 0; i < c->n_away; ++i) add(s, c->away[i].expert, c->away[i].rank);
}

static int32_t below(search *s, int32_t n) { return (int32_t)bl_rng_below(&s->rng, (uint64_t)n); }

/* A random change that keeps slots, one host an expert and homes that stay; false where the draw allows none. */
static bool propose(search *s, change *c) {
  const bl_fewest *problem = s->problem;
  const bl_host a = s->host[below(s, s->n)];
  const int32_t r = below(s, problem->ranks), kind = below(s, 10);
  const bool fixed = stays(s, a.expert, a.rank), room = s->held[r] < problem->slots[r];
  memset(c, 0, sizeof *c);
  if (kind < 2) { /* a copy more, or a host elsewhere */
    if (*position_of(s, a.expert, r) || !room) return false;
    c->added[c->n_added++] = (bl_host){.expert = a.expert, .rank = r};
    if (kind == 1 && !fixed) c->away[c->n_away++] = a;
    return true;
  }
  if (fixed) return false;
  if (kind < 4) { /* a copy less */
    if (s->count[a.expert] < 2) return false;
    c->away[c->n_away++] = a;
    return true;
  }
  if (kind < 6) { /* another expert in its place */
    const int32_t e = below(s, problem->experts);
    if (s->count[a.expert] < 2 || *position_of(s, e, a.rank)) return false;
    c->away[c->n_away++] = a;
    c->added[c->n_added++] = (bl_host){.expert = e, .rank = a.rank};
    return true;
  }
  const bl_host b = s->host[below(s, s->n)]; /* two hosts exchange ranks */
  if (a.rank == b.rank || a.expert == b.expert || stays(s, b.expert, b.rank)) return false;
  if (*position_of(s, a.expert, b.rank) || *position_of(s, b.expert, a.rank)) return false;
  c->away[c->n_away++] = a;
  c->away[c->n_away++] = b;
  c->added[c->n_added++] = (bl_host){.expert = a.expert, .rank = b.rank};
  c->added[c->n_added++] = (bl_host){.expert = b.expert, .rank = a.rank};
  return true;
}

/* The current home where it is a host, else the lowest host; the others by rank. */
static double imbalance(search *s) {
  const bl_fewest *problem = s->problem;
  int32_t *home = s->scored.home, *first = s->first;
  for (int32_t e = 0; e < problem->experts; ++e) {
    const int32_t *kept = problem->home ? problem->home : problem->current;
    home[e] = kept && *position_of(s, e, kept[e]) ? kept[e] : -1;
  }
  for (int32_t i = 0; i < s->n; ++i)
    if (home[s->host[i].expert] < 0) home[s->host[i].expert] = s->host[i].rank;
  memset(first, 0, ((size_t)problem->ranks + 1) * sizeof *first);
  for (int32_t i = 0; i < s->n; ++i)
    if (home[s->host[i].expert] != s->host[i].rank) ++first[s->host[i].rank + 1];
  for (int32_t r = 0; r < problem->ranks; ++r) first[r + 1] += first[r];
  s->scored.n_copy_slots = first[problem->ranks];
  for (int32_t i = 0; i < s->n; ++i) {
    if (home[s->host[i].expert] == s->host[i].rank) continue;
    const int32_t at = first[s->host[i].rank]++;
    s->scored.copy_rank[at] = s->host[i].rank;
    s->scored.copy_expert[at] = s->host[i].expert;
  }
  return bl_shares_solve(s->shares, &s->scored, problem->load, problem->speed);
}

/* Copies and the price of moves. */
static double price(const search *s) {
  const bl_fewest *problem = s->problem;
  int32_t moves = 0;
  for (int32_t e = 0; problem->current && e < problem->experts; ++e)
    moves += *position_of(s, e, problem->current[e]) == 0;
  return s->n - problem->experts + (moves > 0 ? problem->move_price * moves : 0);
}

static void anneal(search *s, const bl_host_search_options *options, double *cheapest) {
  const double cap = s->problem->cap, penalty = 4 * s->problem->ranks * s->unit;
  const double first = 0.5 * s->unit, last = 0.03;
  double now = INFINITY, temperature = first;
  for (int64_t i = 0; i <= options->budget && *cheapest > options->bound + 1e-9; ++i) {
    change c = {.n_away = 0};
    if (i > 0 && !propose(s, &c)) continue;
    apply(s, &c);
    const double level = imbalance(s), cost = price(s), next = cost + penalty * fmax(0, level / cap - 1);
    if (level <= cap && cost < *cheapest - 1e-9) {
      *cheapest = cost;
      s->n_best = s->n;
      memcpy(s->best, s->host, (size_t)s->n * sizeof *s->best);
    }
    if (i % 64 == 0) temperature = first * pow(last / first, (double)i / (double)options->budget);
    if (next <= now || bl_rng_unit(&s->rng) < exp((now - next) / temperature))
      now = next;
    else
      undo(s, &c);
  }
}

static bl_status search_create(search *s, const bl_fewest *problem, const bl_host_search_options *options) {
  const size_t experts = (size_t)problem->experts, ranks = (size_t)problem->ranks;
  memset(s, 0, sizeof *s);
  s->problem = problem;
  s->unit = problem->current ? fmax(1, problem->move_price) : 1;
  bl_rng_seed(&s->rng, options->seed, 2);
  for (size_t r = 0; r < ranks; ++r) s->room += problem->slots[r];
  const size_t room = (size_t)s->room;
  s->scored.experts = problem->experts;
  s->scored.ranks = problem->ranks;
  BL_TRY(bl_new(&s->host, room, sizeof *s->host, "search for hosts"));
  BL_TRY(bl_new(&s->best, room, sizeof *s->best, "search for hosts"));
  BL_TRY(bl_new(&s->position, experts * ranks, sizeof *s->position, "search for hosts"));
  BL_TRY(bl_new(&s->held, ranks, sizeof *s->held, "search for hosts"));
  BL_TRY(bl_new(&s->count, experts, sizeof *s->count, "search for hosts"));
  BL_TRY(bl_new(&s->first, ranks + 1, sizeof *s->first, "search for hosts"));
  BL_TRY(bl_new(&s->scored.home, experts, sizeof *s->scored.home, "search for hosts"));
  BL_TRY(bl_new(&s->scored.copy_rank, room, sizeof *s->scored.copy_rank, "search for hosts"));
  BL_TRY(bl_new(&s->scored.copy_expert, room, sizeof *s->scored.copy_expert, "search for hosts"));
  BL_TRY(bl_shares_create(problem->experts, problem->ranks, s->room, &s->shares));
  for (int32_t e = 0; e < problem->experts; ++e) add(s, e, options->start->home[e]);
  for (int32_t i = 0; i < options->start->n_copy_slots; ++i)
    if (options->start->copy_expert[i] >= 0) add(s, options->start->copy_expert[i], options->start->copy_rank[i]);
  return BL_OK;
}

static void search_free(search *s) {
  free(s->host);
  free(s->best);
  free(s->position);
  free(s->held);
  free(s->count);
  free(s->first);
  bl_hosts_free(&s->scored);
  bl_shares_free(s->shares);
}

bl_status bl_host_search(const bl_fewest *problem, const bl_host_search_options *options, bl_hosts *hosts,
                         bool *found) {
  search s;
  double cheapest = options->below;
  *found = false;
  bl_status status = search_create(&s, problem, options);
  if (status == BL_OK) {
    anneal(&s, options, &cheapest);
    *found = s.n_best > 0;
    if (*found) status = bl_fewest_hosts(problem, s.best, s.n_best, hosts);
  }
  search_free(&s);
  return status;
}
