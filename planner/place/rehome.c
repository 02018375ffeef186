#include "planner/place/rehome.h"
#include "base/memory.h"
#include <math.h>
#include <string.h>

void bl_rehome_options_init(bl_rehome_options *options) {
  bl_copies_options_init(&options->copies);
  options->copies.copy_price = 0.01;
  options->copies.budget = 60;
  options->margin = 0.015;
  options->exchanges = 4;
  options->tries = 32;
}

typedef struct exchange {
  int32_t a, b; /* experts */
  double misfit;
  int32_t number;
} exchange;

/* What one call carries along. */
typedef struct rehome {
  const bl_hosts *hosts;
  double *load;      /* [experts]: mean over scenarios, mean rank load 1 */
  double *rank_load; /* [ranks]: under the best shares of the mean */
  exchange *list;
  size_t n, room;
} rehome;

enum { BEST_OF_PAIR = 4 }; /* exchanges kept of each pair of ranks, so that one pair does not take all tries */

/* Exchanges between ranks p and q that would carry about `flow` from p to q; `copied` is the expert copied, or -1. */
static bl_status add_between(rehome *r, int32_t p, int32_t q, double flow, int32_t copied) {
  exchange best[BEST_OF_PAIR];
  int32_t n = 0;
  for (int32_t a = 0; a < r->hosts->experts; ++a) {
    if (r->hosts->home[a] != p) continue;
    for (int32_t b = 0; b < r->hosts->experts; ++b) {
      const double carried = r->load[a] - r->load[b];
      if (r->hosts->home[b] != q || (a != copied && carried <= 0)) continue;
      const double misfit = a == copied ? 0.5 * r->load[b] : fabs(carried - flow);
      if (n == BEST_OF_PAIR && misfit >= best[n - 1].misfit) continue;
      int32_t k = n < BEST_OF_PAIR ? n++ : n - 1;
      for (; k > 0 && misfit < best[k - 1].misfit; --k) best[k] = best[k - 1];
      best[k] = (exchange){a, b, misfit, 0};
    }
  }
  BL_TRY(bl_grow(&r->list, &r->room, r->n + (size_t)n, sizeof *r->list, "exchanges of homes"));
  for (int32_t k = 0; k < n; ++k) {
    r->list[r->n] = best[k];
    r->list[r->n].number = (int32_t)r->n;
    ++r->n;
  }
  return BL_OK;
}

static int by_misfit(const void *a, const void *b) {
  const exchange *x = a, *y = b;
  if (x->misfit != y->misfit) return x->misfit > y->misfit ? 1 : -1;
  return x->number - y->number;
}

/* All exchanges worth a look, most promising first. */
static bl_status list_exchanges(rehome *r, const bl_shares *shares) {
  const bl_hosts *hosts = r->hosts;
  r->n = 0;
  memset(r->rank_load, 0, (size_t)hosts->ranks * sizeof *r->rank_load);
  for (int32_t e = 0; e < hosts->experts; ++e) r->rank_load[hosts->home[e]] += bl_shares_home_tokens(shares, e);
  for (int32_t s = 0; s < hosts->n_copy_slots; ++s) {
    const int32_t e = hosts->copy_expert[s], q = hosts->copy_rank[s];
    if (e < 0) continue;
    const double flow = bl_shares_copy_tokens(shares, s);
    r->rank_load[q] += flow;
    BL_TRY(add_between(r, hosts->home[e], q, flow, e));
  }
  int32_t most = 0, least = 0;
  for (int32_t q = 1; q < hosts->ranks; ++q) {
    if (r->rank_load[q] > r->rank_load[most]) most = q;
    if (r->rank_load[q] < r->rank_load[least]) least = q;
  }
  for (int32_t q = 0; q < hosts->ranks; ++q) { /* what copies leave unbalanced */
    if (q != most) BL_TRY(add_between(r, most, q, 0.5 * (r->rank_load[most] - r->rank_load[q]), -1));
    if (q != least && q != most) BL_TRY(add_between(r, q, least, 0.5 * (r->rank_load[q] - r->rank_load[least]), -1));
  }
  qsort(r->list, r->n, sizeof *r->list, by_misfit);
  return BL_OK;
}

/* Both keep their numbers of homes, so copy slots stay where they are; a copy on the new home is no longer one. */
static void apply(bl_hosts *hosts, exchange x) {
  const int32_t p = hosts->home[x.a], q = hosts->home[x.b];
  hosts->home[x.a] = q;
  hosts->home[x.b] = p;
  for (int32_t s = 0; s < hosts->n_copy_slots; ++s) {
    const int32_t e = hosts->copy_expert[s];
    if ((e == x.a && hosts->copy_rank[s] == q) || (e == x.b && hosts->copy_rank[s] == p)) hosts->copy_expert[s] = -1;
  }
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

static double objective(bl_copies *search, bl_hosts *hosts, const double *scenarios, int32_t n, const double *speed,
                        const bl_copies_options *options) {
  const double imbalance = bl_copies_search(search, hosts, scenarios, n, speed, options);
  return imbalance + options->copy_price * count_copies(hosts);
}

bl_status bl_rehome(bl_copies *search, bl_shares *shares, bl_hosts *hosts, bl_hosts spare[2], const double *scenarios,
                    int32_t n, const double *speed, const bl_rehome_options *options, int32_t *exchanged) {
  rehome r = {.hosts = hosts};
  *exchanged = 0;
  BL_TRY(bl_new(&r.load, (size_t)(hosts->experts + hosts->ranks), sizeof *r.load, "exchanges of homes"));
  r.rank_load = r.load + hosts->experts;
  mean_load(r.load, scenarios, n, hosts->experts, hosts->ranks);
  bl_status status = BL_OK;
  double now = objective(search, hosts, scenarios, n, speed, &options->copies);
  while (*exchanged < options->exchanges && now > 1 + options->margin) {
    bl_shares_solve(shares, hosts, r.load, speed);
    BL_TRY_GOTO(status, list_exchanges(&r, shares), done);
    double best = now - options->margin;
    bool found = false;
    for (size_t i = 0; i < r.n && i < (size_t)options->tries; ++i) {
      BL_TRY_GOTO(status, bl_hosts_assign(&spare[0], hosts), done);
      apply(&spare[0], r.list[i]);
      const double value = objective(search, &spare[0], scenarios, n, speed, &options->copies);
      if (!(value < best)) continue;
      best = value;
      found = true;
      BL_TRY_GOTO(status, bl_hosts_assign(&spare[1], &spare[0]), done);
    }
    if (!found) break;
    BL_TRY_GOTO(status, bl_hosts_assign(hosts, &spare[1]), done);
    now = best;
    ++*exchanged;
  }
done:
  free(r.list);
  free(r.load);
  return status;
}
