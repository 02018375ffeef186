#include "planner/place/rehome.h"
#include "base/memory.h"
#include <math.h>
#include <string.h>

void bl_rehome_options_init(bl_rehome_options *options) {
  bl_copies_options_init(&options->copies);
  options->copies.copy_price = 0.01;
  options->copies.budget = 60;
  options->margin = 0.0075;
  options->changes = 4;
  options->tries = 128;
  options->finalists = 8;
}

/* Expert a goes to rank `to` and expert b comes from there; or, where b is -1, a goes alone into copy slot `slot` of
 * that rank, and the copy that is there, if any, goes. */
typedef struct change {
  int32_t a, b, to, slot;
  double misfit;
  int32_t number;
} change;

/* What one call carries along. */
typedef struct rehome {
  const bl_hosts *hosts;
  bl_shares *shares;
  bl_copies *search;
  const double *speed;
  const bl_rehome_options *o;
  double *load;      /* [experts]: mean over scenarios, mean rank load 1 */
  double *rank_load; /* [ranks]: under the best shares of the mean */
  change *list;
  size_t n, room;
} rehome;

enum { BEST_OF_PAIR = 4 }; /* changes kept of each pair of ranks, so that one pair does not take all tries */

/* The copy slot of a rank that a home costs least in: an empty one, else the one that takes least; -1 where none is. */
static int32_t slot_of(const rehome *r, int32_t rank) {
  const bl_hosts *hosts = r->hosts;
  int32_t best = -1;
  for (int32_t s = 0; s < hosts->n_copy_slots; ++s) {
    if (hosts->copy_rank[s] != rank) continue;
    if (hosts->copy_expert[s] < 0) return s;
    if (best < 0 || bl_shares_copy_tokens(r->shares, s) < bl_shares_copy_tokens(r->shares, best)) best = s;
  }
  return best;
}

static bl_status add(rehome *r, change one) {
  BL_TRY(bl_grow(&r->list, &r->room, r->n + 1, sizeof *r->list, "changes of homes"));
  one.number = (int32_t)r->n;
  r->list[r->n++] = one;
  return BL_OK;
}

static int32_t keep_best(change *best, int32_t n, change one) {
  if (n == BEST_OF_PAIR && one.misfit >= best[n - 1].misfit) return n;
  int32_t k = n < BEST_OF_PAIR ? n++ : n - 1;
  for (; k > 0 && one.misfit < best[k - 1].misfit; --k) best[k] = best[k - 1];
  best[k] = one;
  return n;
}

/* Changes of ranks p and q that would carry about `flow` from p to q; `copied` is the expert copied, or -1. `slot` is
 * the slot that an expert which goes alone takes, or -1. */
static bl_status add_between(rehome *r, int32_t p, int32_t q, double flow, int32_t copied, int32_t slot) {
  const double dropped = slot >= 0 && copied < 0 ? bl_shares_copy_tokens(r->shares, slot) : 0;
  change best[BEST_OF_PAIR];
  int32_t n = 0;
  for (int32_t a = 0; a < r->hosts->experts; ++a) {
    if (r->hosts->home[a] != p) continue;
    if (slot >= 0) n = keep_best(best, n, (change){a, -1, q, slot, fabs(r->load[a] - dropped - flow), 0});
    for (int32_t b = 0; b < r->hosts->experts; ++b) {
      const double carried = r->load[a] - r->load[b];
      if (r->hosts->home[b] != q || (a != copied && carried <= 0)) continue;
      const double misfit = a == copied ? 0.5 * r->load[b] : fabs(carried - flow);
      n = keep_best(best, n, (change){a, b, q, -1, misfit, 0});
    }
  }
  for (int32_t k = 0; k < n; ++k) BL_TRY(add(r, best[k]));
  return BL_OK;
}

static bool is_empty(const rehome *r, int32_t slot) { return slot >= 0 && r->hosts->copy_expert[slot] < 0; }

/* Where a rank could take more but has no empty slot, its least expert makes room: it goes to the most loaded rank that
 * has a slot to give, to one with an empty slot if there is any. */
static bl_status add_room(rehome *r, int32_t rank) {
  const bl_hosts *hosts = r->hosts;
  int32_t to = -1, least = -1;
  if (is_empty(r, slot_of(r, rank))) return BL_OK;
  for (int32_t q = 0; q < hosts->ranks; ++q) {
    if (q == rank || slot_of(r, q) < 0) continue;
    const bool empty = is_empty(r, slot_of(r, q)), best_empty = to >= 0 && is_empty(r, slot_of(r, to));
    if (to < 0 || (empty == best_empty ? r->rank_load[q] > r->rank_load[to] : empty)) to = q;
  }
  for (int32_t e = 0; e < hosts->experts; ++e)
    if (hosts->home[e] == rank && (least < 0 || r->load[e] < r->load[least])) least = e;
  if (to < 0 || least < 0) return BL_OK;
  return add(r, (change){least, -1, to, slot_of(r, to), r->load[least], 0});
}

static int by_misfit(const void *a, const void *b) {
  const change *x = a, *y = b;
  if (x->misfit != y->misfit) return x->misfit > y->misfit ? 1 : -1;
  return x->number - y->number;
}

/* All changes worth a look, most promising first. */
static bl_status list_changes(rehome *r) {
  const bl_hosts *hosts = r->hosts;
  r->n = 0;
  memset(r->rank_load, 0, (size_t)hosts->ranks * sizeof *r->rank_load);
  for (int32_t e = 0; e < hosts->experts; ++e) r->rank_load[hosts->home[e]] += bl_shares_home_tokens(r->shares, e);
  for (int32_t s = 0; s < hosts->n_copy_slots; ++s) {
    const int32_t e = hosts->copy_expert[s], q = hosts->copy_rank[s];
    if (e < 0) continue;
    const double flow = bl_shares_copy_tokens(r->shares, s);
    r->rank_load[q] += flow;
    BL_TRY(add_between(r, hosts->home[e], q, flow, e, s));
  }
  int32_t most = 0, least = 0;
  for (int32_t q = 1; q < hosts->ranks; ++q) {
    if (r->rank_load[q] > r->rank_load[most]) most = q;
    if (r->rank_load[q] < r->rank_load[least]) least = q;
  }
  const int32_t slot = slot_of(r, least);
  const double highest = r->rank_load[most];
  for (int32_t q = 0; q < hosts->ranks; ++q) { /* what copies leave unbalanced */
    if (q != most) BL_TRY(add_between(r, most, q, 0.5 * (r->rank_load[most] - r->rank_load[q]), -1, slot_of(r, q)));
    if (r->rank_load[q] < highest - r->o->margin) BL_TRY(add_room(r, q));
    if (q != least && q != most)
      BL_TRY(add_between(r, q, least, 0.5 * (r->rank_load[q] - r->rank_load[least]), -1, slot));
  }
  qsort(r->list, r->n, sizeof *r->list, by_misfit);
  return BL_OK;
}

/* A copy on the new home is no longer one. */
static void drop_copy(bl_hosts *hosts, int32_t expert, int32_t rank) {
  for (int32_t s = 0; s < hosts->n_copy_slots; ++s)
    if (hosts->copy_rank[s] == rank && hosts->copy_expert[s] == expert) hosts->copy_expert[s] = -1;
}

/* Takes copy slot `slot` out and puts an empty one in for `rank`; slots stay in the order of ranks. */
static void move_slot(bl_hosts *hosts, int32_t slot, int32_t rank) {
  for (; slot + 1 < hosts->n_copy_slots && hosts->copy_rank[slot + 1] < rank; ++slot) {
    hosts->copy_rank[slot] = hosts->copy_rank[slot + 1];
    hosts->copy_expert[slot] = hosts->copy_expert[slot + 1];
  }
  for (; slot > 0 && hosts->copy_rank[slot - 1] > rank; --slot) {
    hosts->copy_rank[slot] = hosts->copy_rank[slot - 1];
    hosts->copy_expert[slot] = hosts->copy_expert[slot - 1];
  }
  hosts->copy_rank[slot] = rank;
  hosts->copy_expert[slot] = -1;
}

/* A copy of a where it goes leaves its own slot to it. */
static int32_t slot_taken(const bl_hosts *hosts, change x) {
  for (int32_t s = 0; s < hosts->n_copy_slots; ++s)
    if (hosts->copy_rank[s] == x.to && hosts->copy_expert[s] == x.a) return s;
  return x.slot;
}

static void apply(bl_hosts *hosts, change x) {
  const int32_t from = hosts->home[x.a];
  if (x.b < 0) {
    move_slot(hosts, slot_taken(hosts, x), from);
  } else {
    drop_copy(hosts, x.a, x.to);
    drop_copy(hosts, x.b, from);
    hosts->home[x.b] = from;
  }
  hosts->home[x.a] = x.to;
}

static int32_t count_copies(const bl_hosts *hosts) {
  int32_t n = 0;
  for (int32_t s = 0; s < hosts->n_copy_slots; ++s) n += hosts->copy_expert[s] >= 0;
  return n;
}

static void mean_load(double *load, const double *scenarios, int32_t n, int32_t experts, int32_t ranks) {
  for (int32_t i = 0; i < n; ++i) {
    double sum = 0;
    for (int32_t e = 0; e < experts; ++e) sum += scenarios[(int64_t)i * experts + e];
    if (!(sum > 0)) continue;
    for (int32_t e = 0; e < experts; ++e) load[e] += scenarios[(int64_t)i * experts + e] * (ranks / sum) / n;
  }
}

/* Where a search for copies leads from these hosts, at its price. */
static double objective(const rehome *r, bl_hosts *hosts, const double *scenarios, int32_t n,
                        const bl_copies_options *options) {
  const double imbalance = bl_copies_search(r->search, hosts, scenarios, n, r->speed, options);
  return imbalance + options->copy_price * count_copies(hosts);
}

static double price_of(const rehome *r, change x) { return (x.b < 0 ? 1 : 2) * r->o->margin; }

/* The most promising changes are judged on the mean of the scenarios; those that do best come first. */
static bl_status judge_changes(rehome *r, bl_hosts *spare) {
  bl_copies_options options = r->o->copies;
  options.weight = NULL;
  if (r->n > (size_t)r->o->tries) r->n = (size_t)r->o->tries;
  for (size_t i = 0; i < r->n; ++i) {
    change *x = &r->list[i];
    BL_TRY(bl_hosts_assign(spare, r->hosts));
    apply(spare, *x);
    x->misfit = objective(r, spare, r->load, 1, &options) + price_of(r, *x);
  }
  qsort(r->list, r->n, sizeof *r->list, by_misfit);
  return BL_OK;
}

/* Makes the best of the changes, if it gains its price.  *now: the objective before and after.  *moved: homes moved. */
static bl_status make_change(rehome *r, bl_hosts *hosts, bl_hosts spare[2], const double *scenarios, int32_t n,
                             double *now, int32_t *moved) {
  double best = *now;
  *moved = 0;
  for (size_t i = 0; i < r->n && i < (size_t)r->o->finalists; ++i) {
    BL_TRY(bl_hosts_assign(&spare[0], hosts));
    apply(&spare[0], r->list[i]);
    const double value = objective(r, &spare[0], scenarios, n, &r->o->copies);
    if (!(value + price_of(r, r->list[i]) < best)) continue;
    best = value + price_of(r, r->list[i]);
    *now = value;
    *moved = r->list[i].b < 0 ? 1 : 2;
    BL_TRY(bl_hosts_assign(&spare[1], &spare[0]));
  }
  return *moved > 0 ? bl_hosts_assign(hosts, &spare[1]) : BL_OK;
}

bl_status bl_rehome(bl_copies *search, bl_shares *shares, bl_hosts *hosts, bl_hosts spare[2], const double *scenarios,
                    int32_t n, const double *speed, const bl_rehome_options *options, int32_t *moved) {
  rehome r = {.hosts = hosts, .shares = shares, .search = search, .speed = speed, .o = options};
  *moved = 0;
  BL_TRY(bl_new(&r.load, (size_t)(hosts->experts + hosts->ranks), sizeof *r.load, "changes of homes"));
  r.rank_load = r.load + hosts->experts;
  mean_load(r.load, scenarios, n, hosts->experts, hosts->ranks);
  bl_status status = BL_OK;
  double now = objective(&r, hosts, scenarios, n, &options->copies);
  for (int32_t made = 0; made < options->changes && now > 1 + options->margin; ++made) {
    int32_t homes;
    bl_shares_solve(shares, hosts, r.load, speed);
    BL_TRY_GOTO(status, list_changes(&r), done);
    BL_TRY_GOTO(status, judge_changes(&r, &spare[0]), done);
    BL_TRY_GOTO(status, make_change(&r, hosts, spare, scenarios, n, &now, &homes), done);
    if (homes == 0) break;
    *moved += homes;
  }
done:
  free(r.list);
  free(r.load);
  return status;
}
