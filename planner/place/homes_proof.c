#include "planner/place/homes_proof.h"
#include "base/memory.h"
#include "base/rng.h"
#include "planner/place/anneal.h"
#include "planner/place/bound.h"
#include "planner/place/homes.h"
#include "planner/place/order.h"
#include <math.h>
#include <string.h>

enum { MEMO = 1 << 17, MAX_ITEMS = 1024 /* depth of the recursion */ };

typedef enum verdict { NONE, FOUND, GAVE_UP } verdict;

typedef struct search {
  int32_t ranks, k, n;  /* n = ranks * k items, descending; those behind the experts weigh nothing */
  const int64_t *w;     /* [n] */
  int64_t target;       /* homes with a largest load of at most this are sought */
  int64_t nodes, limit; /* choices looked at, and where to give up */
  int32_t *left;        /* [ranks + 1][n]: items not placed when the given number of ranks is left, ascending index */
  int64_t *prefix;      /* [ranks + 1][n + 1]: sums of these */
  bool *taken;          /* [n] */
  int32_t *rank;        /* [n]: the result */
  uint64_t *memo;       /* [MEMO]: sets of items known not to fit the target; only where n <= 64 */
} search;

static verdict fill_ranks(search *s, int32_t ranks);

/* Largest load that `ranks` ranks cannot avoid for the items left: q of the (q-1)P+1 largest meet, the smallest fill.
 */
static bool hopeless(const search *s, int32_t ranks) {
  const int64_t *prefix = s->prefix + (int64_t)ranks * (s->n + 1);
  const int32_t m = ranks * s->k;
  for (int32_t q = 1; q <= s->k; ++q) {
    const int32_t last = (q - 1) * ranks;
    const int64_t filler = prefix[m] - prefix[m - (s->k - q)];
    if (prefix[last + 1] - prefix[last + 1 - q] + filler > s->target) return true;
  }
  return false;
}

/* First of positions from..m-1 whose item weighs at most `most`. */
static int32_t first_fitting(const search *s, const int32_t *left, int32_t from, int32_t m, int64_t most) {
  int32_t low = from, high = m;
  while (low < high) {
    const int32_t middle = (low + high) / 2;
    if (s->w[left[middle]] <= most) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

/* Takes `more` further items for the rank that is being filled, from position `from` of those left; `low` and `high`
 * are what these may weigh together. */
static verdict fill_rank(search *s, int32_t ranks, int32_t from, int32_t more, int64_t low, int64_t high) {
  if (more == 0) return fill_ranks(s, ranks - 1);
  const int32_t m = ranks * s->k;
  const int32_t *left = s->left + (int64_t)ranks * s->n;
  const int64_t *prefix = s->prefix + (int64_t)ranks * (s->n + 1);
  const int64_t tail = prefix[m] - prefix[m - (more - 1)]; /* the least that the others weigh */
  const int32_t start = first_fitting(s, left, from, m, high - tail);
  for (int32_t i = start; i + more <= m; ++i) {
    if (prefix[i + more] - prefix[i] < low) break;
    const int32_t item = left[i];
    if (i > start && s->w[item] == s->w[left[i - 1]]) continue; /* as good as the one before, which failed */
    if (++s->nodes > s->limit) return GAVE_UP;
    s->taken[item] = true;
    s->rank[item] = ranks - 1;
    const verdict v = fill_rank(s, ranks, i + 1, more - 1, low - s->w[item], high - s->w[item]);
    if (v != NONE) return v;
    s->taken[item] = false;
  }
  return NONE;
}

static uint64_t *memo_of(const search *s, uint64_t set) { return &s->memo[bl_hash_u64(set, 0, 0, 0) % MEMO]; }

/* Fills `ranks` ranks with all items not taken. */
static verdict fill_ranks(search *s, int32_t ranks) {
  const int32_t m = ranks * s->k;
  int32_t *left = s->left + (int64_t)ranks * s->n;
  int64_t *prefix = s->prefix + (int64_t)ranks * (s->n + 1);
  uint64_t set = 0;
  for (int32_t i = 0, at = 0; at < m; ++i) {
    if (s->taken[i]) continue;
    set |= (uint64_t)1 << (i & 63);
    left[at] = i;
    prefix[at + 1] = prefix[at] + s->w[i];
    ++at;
  }
  const int64_t low = prefix[m] - (ranks - 1) * s->target;
  if (low > s->target || hopeless(s, ranks)) return NONE;
  if (ranks == 1) {
    for (int32_t i = 0; i < m; ++i) s->rank[left[i]] = 0;
    return FOUND;
  }
  const bool remember = s->n <= 64 && ranks > 2;
  if (remember && *memo_of(s, set) == set) return NONE;
  const int32_t first = left[0]; /* some rank holds it: this one */
  s->taken[first] = true;
  s->rank[first] = ranks - 1;
  const verdict v = fill_rank(s, ranks, 1, s->k - 1, low - s->w[first], s->target - s->w[first]);
  if (v != NONE) return v;
  s->taken[first] = false;
  if (remember) *memo_of(s, set) = set;
  return NONE;
}

static verdict try_target(search *s, int64_t target, int64_t nodes) {
  s->target = target;
  s->limit = s->nodes + nodes;
  memset(s->taken, 0, (size_t)s->n * sizeof *s->taken);
  memset(s->memo, 0, MEMO * sizeof *s->memo); /* no set is empty */
  return fill_ranks(s, s->ranks);
}

static int64_t largest_load(const search *s, const int32_t *rank, int64_t *sum) {
  int64_t largest = 0;
  memset(sum, 0, (size_t)s->ranks * sizeof *sum);
  for (int32_t i = 0; i < s->n; ++i) {
    const int64_t now = sum[rank[i]] += s->w[i];
    if (now > largest) largest = now;
  }
  return largest;
}

/* Targets from the bound upwards, in growing strides while they are refuted, half-way to the best known where the
 * search gave up; then again with more patience. best[n] has a largest load of *high. */
static bool close_gap(search *s, int64_t budget, int64_t *low, int64_t *high, int32_t *best, int64_t *sum) {
  bool raised = false;
  for (int64_t patience = budget / 256 + 1; *low < *high && s->nodes < budget; patience *= 4) {
    int64_t stride = 1;
    for (int64_t target = *low; target < *high && s->nodes < budget;) {
      const int64_t rest = budget - s->nodes;
      const verdict v = try_target(s, target, patience < rest ? patience : rest);
      if (v == FOUND) {
        *high = largest_load(s, s->rank, sum);
        memcpy(best, s->rank, (size_t)s->n * sizeof *best);
        stride = 1;
        target = *low;
        if (*low < *high) target = *low + (*high - *low) / 2;
      } else if (v == NONE) {
        raised = true;
        *low = target + 1;
        stride *= 2;
        target = *low + (stride < (*high - *low) / 2 ? stride : (*high - *low) / 2);
      } else {
        const int64_t up = (*high - target) / 2;
        target += up > 0 ? up : 1;
      }
    }
  }
  return raised;
}

/* One block of memory for the search; the pieces are named by the caller's struct. */
static bl_status create_search(search *s, bl_arena *arena) {
  const size_t n = (size_t)s->n, rows = (size_t)s->ranks + 1;
  BL_TRY(bl_arena_take(arena, &s->left, rows * n, sizeof *s->left));
  BL_TRY(bl_arena_take(arena, &s->prefix, rows * (n + 1), sizeof *s->prefix));
  BL_TRY(bl_arena_take(arena, &s->taken, n, sizeof *s->taken));
  BL_TRY(bl_arena_take(arena, &s->rank, n, sizeof *s->rank));
  return bl_arena_take(arena, &s->memo, MEMO, sizeof *s->memo);
}

/* Items of descending load; the start of the two, home[] and longest first, whose annealing ends lower. */
static bl_status find_start(const double *w, const int32_t *order, int32_t experts, search *s, double enough,
                            int64_t exchanges, bl_arena *arena, const int32_t *home, int32_t *best) {
  int32_t *most, *other, *held;
  double largest, other_largest;
  BL_TRY(bl_arena_take(arena, &most, (size_t)s->ranks, sizeof *most));
  BL_TRY(bl_arena_take(arena, &held, (size_t)s->ranks, sizeof *held));
  BL_TRY(bl_arena_take(arena, &other, (size_t)s->n, sizeof *other));
  for (int32_t r = 0; r < s->ranks; ++r) most[r] = s->k;
  for (int32_t i = 0; i < experts; ++i) {
    best[i] = home[order[i]];
    if (++held[best[i]] > s->k) return bl_fail(BL_EINPUT, "rank %d holds more than %d homes", best[i], s->k);
  }
  for (int32_t i = experts, r = 0; i < s->n; ++i) {
    while (held[r] == s->k) ++r;
    best[i] = r;
    ++held[r];
  }
  BL_TRY(bl_homes_longest_first(w, s->n, s->ranks, most, NULL, false, other));
  BL_TRY(bl_anneal_swaps(w, s->n, s->ranks, 1, enough, best, &largest));
  BL_TRY(bl_anneal_swaps(w, s->n, s->ranks, largest > enough ? exchanges : 1, enough, other, &other_largest));
  if (other_largest < largest) memcpy(best, other, (size_t)s->n * sizeof *best);
  return BL_OK;
}

static bl_status prove(const double *load, int32_t experts, int32_t ranks, const bl_homes_budget *budget,
                       bl_arena *arena, int32_t *home, bl_homes_proof *out) {
  search s = {.ranks = ranks, .k = (experts + ranks - 1) / ranks};
  s.n = s.k * ranks;
  int32_t *order, *best;
  int64_t *w, *sum, total = 0;
  double *real;
  BL_TRY(bl_arena_take(arena, &order, 2 * (size_t)experts, sizeof *order));
  BL_TRY(bl_arena_take(arena, &best, (size_t)s.n, sizeof *best));
  BL_TRY(bl_arena_take(arena, &w, (size_t)s.n, sizeof *w));
  BL_TRY(bl_arena_take(arena, &real, (size_t)s.n, sizeof *real));
  BL_TRY(bl_arena_take(arena, &sum, (size_t)ranks, sizeof *sum));
  bl_order_descending(load, experts, order, order + experts);
  for (int32_t i = 0; i < experts; ++i) {
    real[i] = load[order[i]];
    if (!(real[i] >= 0 && real[i] < 0x1p40 && real[i] == floor(real[i])))
      return bl_fail(BL_EINPUT, "the load of expert %d is %g: a proof takes whole tokens below 2^40", order[i],
                     load[order[i]]);
    total += w[i] = (int64_t)real[i];
  }
  s.w = w;
  BL_TRY(create_search(&s, arena));
  bl_bound bound;
  BL_TRY(bl_bound_homes(load, experts, ranks, s.k, NULL, &bound));
  /* The bound is a ratio: what it stands for is a whole number again, a hair of rounding aside. */
  const int64_t mean = (total + ranks - 1) / ranks;
  int64_t low = (int64_t)ceil(bound.imbalance * (double)total / ranks * (1 - 1e-14) - 1e-6);
  if (low < mean) low = mean;
  BL_TRY(find_start(real, order, experts, &s, (double)low, budget->exchanges, arena, home, best));
  int64_t high = largest_load(&s, best, sum);
  const bool raised = s.n <= MAX_ITEMS && close_gap(&s, budget->choices, &low, &high, best, sum);
  for (int32_t i = 0; i < experts; ++i) home[order[i]] = best[i];
  const char *proof = raised ? "depth-first" : bound.proof;
  *out = (bl_homes_proof){(double)high, (double)low, low >= high, proof, s.nodes};
  return BL_OK;
}

bl_status bl_homes_prove(const double *load, int32_t experts, int32_t ranks, const bl_homes_budget *budget,
                         int32_t *home, bl_homes_proof *out) {
  if (experts < 1 || ranks < 1) return bl_fail(BL_EINPUT, "homes need at least one expert and one rank");
  for (int32_t e = 0; e < experts; ++e)
    if (home[e] < 0 || home[e] >= ranks) return bl_fail(BL_EINPUT, "expert %d has no home", e);
  bl_arena *arena;
  BL_TRY(bl_arena_create(&arena));
  const bl_status status = prove(load, experts, ranks, budget, arena, home, out);
  bl_arena_free(arena);
  return status;
}
