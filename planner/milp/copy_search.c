#include "planner/milp/copy_search.h"
#include "base/memory.h"
#include "base/rng.h"
#include <math.h>
#include <string.h>

/* Experts with less than this part of the mean rank load are not worth a copy. */
static const double WORTH_A_COPY = 1e-3;

typedef struct search {
  const bl_fewest *problem;
  const bl_copy_search_options *options;
  bl_shares *shares;
  bl_hosts hosts;
  bl_rng rng;
  int32_t *candidate; /* [experts] worth a copy */
  int32_t n_candidates;
  double *left, *rank_load; /* [experts] tokens at home, [ranks]; of the greedy start */
} search;

static double score(search *s) { return bl_shares_solve(s->shares, &s->hosts, s->problem->load, s->problem->speed); }

static bool is_host(const bl_hosts *hosts, int32_t expert, int32_t rank) {
  if (hosts->home[expert] == rank) return true;
  for (int32_t i = 0; i < hosts->n_copy_slots; ++i)
    if (hosts->copy_rank[i] == rank && hosts->copy_expert[i] == expert) return true;
  return false;
}

/* The largest expert at home on `from` that `to` does not host; -1 if none. */
static int32_t largest_to_share(const search *s, int32_t from, int32_t to) {
  int32_t best = -1;
  for (int32_t e = 0; e < s->problem->experts; ++e)
    if (s->hosts.home[e] == from && s->left[e] > 0 && (best < 0 || s->left[e] > s->left[best]) &&
        !is_host(&s->hosts, e, to))
      best = e;
  return best;
}

static double room_of(const search *s, int32_t r) { return bl_fewest_cap(s->problem, r) - s->rank_load[r]; }

/* The empty slot on the emptiest rank (within the group, if any there), -1 if none is below the limit. */
static int32_t emptiest_slot(const search *s, int32_t from) {
  const int32_t *group = s->options->group;
  int32_t best = -1;
  bool best_inside = false;
  for (int32_t i = 0; i < s->hosts.n_copy_slots; ++i) {
    const int32_t r = s->hosts.copy_rank[i];
    if (s->hosts.copy_expert[i] >= 0 || room_of(s, r) <= 0) continue;
    const bool inside = group[r] == group[from];
    const bool better = best < 0 || (inside && !best_inside) ||
                        (inside == best_inside && room_of(s, r) > room_of(s, s->hosts.copy_rank[best]));
    if (!better) continue;
    best = i;
    best_inside = inside;
  }
  return best;
}

/* From no copies: the fullest rank sends its largest expert to the emptiest rank, until all are within the limit or
 * nothing can be sent. */
static void greedy(search *s) {
  const bl_fewest *problem = s->problem;
  for (int32_t i = 0; i < s->hosts.n_copy_slots; ++i) s->hosts.copy_expert[i] = -1;
  memset(s->rank_load, 0, (size_t)problem->ranks * sizeof *s->rank_load);
  for (int32_t e = 0; e < problem->experts; ++e) {
    s->left[e] = problem->load[e];
    s->rank_load[problem->home[e]] += problem->load[e];
  }
  for (;;) {
    int32_t from = 0;
    for (int32_t r = 1; r < problem->ranks; ++r)
      if (room_of(s, r) < room_of(s, from)) from = r;
    const double excess = -room_of(s, from);
    const int32_t slot = emptiest_slot(s, from);
    if (excess <= 0 || slot < 0) return;
    const int32_t to = s->hosts.copy_rank[slot], expert = largest_to_share(s, from, to);
    if (expert < 0) return;
    const double tokens = fmin(fmin(excess, room_of(s, to)), s->left[expert]);
    s->hosts.copy_expert[slot] = expert;
    s->left[expert] -= tokens;
    s->rank_load[from] -= tokens;
    s->rank_load[to] += tokens;
  }
}

static int32_t random_slot(search *s, bool filled) {
  for (int32_t tries = 0; tries < 64 && s->hosts.n_copy_slots > 0; ++tries) {
    const int32_t i = (int32_t)bl_rng_below(&s->rng, (uint64_t)s->hosts.n_copy_slots);
    if ((s->hosts.copy_expert[i] >= 0) == filled) return i;
  }
  return -1;
}

static int32_t random_expert(search *s, int32_t rank) {
  for (int32_t tries = 0; tries < 64 && s->n_candidates > 0; ++tries) {
    const int32_t e = s->candidate[bl_rng_below(&s->rng, (uint64_t)s->n_candidates)];
    if (!is_host(&s->hosts, e, rank)) return e;
  }
  return -1;
}

/* Exactly `copies` copies, from whatever is there. */
static bool set_number(search *s, int32_t copies) {
  int32_t now = bl_fewest_copies_of(&s->hosts);
  for (int32_t tries = 0; now != copies && tries < 1000; ++tries) {
    const int32_t slot = random_slot(s, now > copies);
    if (slot < 0) continue;
    const int32_t expert = now > copies ? -1 : random_expert(s, s->hosts.copy_rank[slot]);
    if (now < copies && expert < 0) continue;
    s->hosts.copy_expert[slot] = expert;
    now += now > copies ? -1 : 1;
  }
  return now == copies;
}

/* A change of one or two slots that keeps the number of copies. */
typedef struct change {
  int32_t slot[2], before[2];
} change;

static void apply(search *s, change *c, int32_t a, int32_t expert_a, int32_t b, int32_t expert_b) {
  *c = (change){.slot = {a, b}, .before = {s->hosts.copy_expert[a], s->hosts.copy_expert[b]}};
  s->hosts.copy_expert[a] = expert_a;
  s->hosts.copy_expert[b] = expert_b;
}

static void undo(search *s, const change *c) {
  s->hosts.copy_expert[c->slot[1]] = c->before[1];
  s->hosts.copy_expert[c->slot[0]] = c->before[0];
}

/* Another expert in a slot; a copy to an empty slot elsewhere, as it is or as another expert; two slots exchanged. */
static bool propose(search *s, change *c) {
  const int32_t a = random_slot(s, true);
  if (a < 0) return false;
  const int32_t expert = s->hosts.copy_expert[a];
  const uint64_t kind = bl_rng_below(&s->rng, 10);
  if (kind < 5) {
    const int32_t other = random_expert(s, s->hosts.copy_rank[a]);
    if (other < 0) return false;
    apply(s, c, a, other, a, other);
    c->before[1] = expert;
    return true;
  }
  if (kind < 8) {
    const int32_t b = random_slot(s, false);
    if (b < 0) return false;
    const int32_t moved = kind < 7 ? expert : random_expert(s, s->hosts.copy_rank[b]);
    if (moved < 0) return false;
    if (s->hosts.copy_rank[a] != s->hosts.copy_rank[b] && is_host(&s->hosts, moved, s->hosts.copy_rank[b]))
      return false;
    apply(s, c, a, -1, b, moved);
    return true;
  }
  const int32_t b = random_slot(s, true);
  if (b < 0 || s->hosts.copy_rank[a] == s->hosts.copy_rank[b]) return false;
  const int32_t other = s->hosts.copy_expert[b];
  if (is_host(&s->hosts, other, s->hosts.copy_rank[a]) || is_host(&s->hosts, expert, s->hosts.copy_rank[b]))
    return false;
  apply(s, c, a, other, b, expert);
  return true;
}

/* Simulated annealing on the imbalance; stops as soon as it is within the limit. */
static bool anneal(search *s) {
  const double first = 0.05, last = 0.0005, cap = s->problem->cap;
  double now = score(s);
  for (int64_t i = 0; i < s->options->budget && now > cap; ++i) {
    change c;
    if (!propose(s, &c)) continue;
    const double temperature = first * pow(last / first, (double)i / (double)s->options->budget);
    const double next = score(s);
    if (next <= now || bl_rng_unit(&s->rng) < exp((now - next) / temperature))
      now = next;
    else
      undo(s, &c);
  }
  return now <= cap;
}

static bl_status search_create(search *s, const bl_fewest *problem, const bl_copy_search_options *options) {
  memset(s, 0, sizeof *s);
  s->problem = problem;
  s->options = options;
  bl_rng_seed(&s->rng, 1, 0);
  BL_TRY(bl_fewest_hosts(problem, NULL, 0, &s->hosts));
  BL_TRY(bl_shares_create(problem->experts, problem->ranks, s->hosts.n_copy_slots, &s->shares));
  BL_TRY(bl_new(&s->candidate, (size_t)problem->experts, sizeof *s->candidate, "search for copies"));
  BL_TRY(bl_new(&s->left, (size_t)problem->experts, sizeof *s->left, "search for copies"));
  BL_TRY(bl_new(&s->rank_load, (size_t)problem->ranks, sizeof *s->rank_load, "search for copies"));
  for (int32_t e = 0; e < problem->experts; ++e)
    if (problem->load[e] > WORTH_A_COPY) s->candidate[s->n_candidates++] = e;
  return BL_OK;
}

static void search_free(search *s) {
  bl_hosts_free(&s->hosts);
  bl_shares_free(s->shares);
  free(s->candidate);
  free(s->left);
  free(s->rank_load);
}

bl_status bl_copy_search(const bl_fewest *problem, const bl_copy_search_options *options, bl_hosts *hosts,
                         bool *found) {
  search s;
  *found = false;
  bl_status status = search_create(&s, problem, options);
  for (int32_t copies = options->bound; status == BL_OK && !*found; ++copies) {
    if (copies >= options->below || copies > s.hosts.n_copy_slots) break;
    greedy(&s);
    if (!set_number(&s, copies) || !anneal(&s)) continue;
    *found = true;
    bl_hosts_free(hosts);
    *hosts = s.hosts;
    memset(&s.hosts, 0, sizeof s.hosts);
  }
  search_free(&s);
  return status;
}

bl_status bl_copy_search_reduce(const bl_fewest *problem, bl_hosts *hosts) {
  bl_shares *shares;
  BL_TRY(bl_shares_create(problem->experts, problem->ranks, hosts->n_copy_slots, &shares));
  for (;;) {
    int32_t best = -1;
    double least = problem->cap;
    for (int32_t i = 0; i < hosts->n_copy_slots; ++i) {
      const int32_t expert = hosts->copy_expert[i];
      if (expert < 0) continue;
      hosts->copy_expert[i] = -1;
      const double imbalance = bl_shares_solve(shares, hosts, problem->load, problem->speed);
      hosts->copy_expert[i] = expert;
      if (imbalance > least) continue;
      least = imbalance;
      best = i;
    }
    if (best < 0) break;
    hosts->copy_expert[best] = -1;
  }
  bl_shares_free(shares);
  return BL_OK;
}
