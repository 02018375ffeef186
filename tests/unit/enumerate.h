/* enumerate.h - the least price of copies and moves by trying every set of hosts of every expert; for a handful of
 * experts and ranks.
 *
 * A set of hosts is within the limit if and only if for every set of ranks the experts that it alone hosts sum to no
 * more than the limits of its ranks together (Hall): no flow, no linear program. */
#ifndef BL_TESTS_ENUMERATE_H
#define BL_TESTS_ENUMERATE_H

#include "base/rng.h"
#include "planner/milp/fewest.h"
#include "planner/milp/prove.h"

enum { ENUMERATE_NONE = 1000, ENUMERATE_MAX = 16 };

typedef struct enumeration {
  const bl_fewest *problem;
  double inside[16]; /* per set of ranks: load that it alone hosts */
  int32_t held[4];   /* hosts on each rank */
  double best;
} enumeration;

static inline void enumerate_from(enumeration *n, int32_t e, double price) {
  const bl_fewest *problem = n->problem;
  const int32_t ranks = problem->ranks;
  if (price >= n->best) return;
  if (e == problem->experts) {
    for (int32_t set = 1; set < 1 << ranks; ++set) {
      double limit = 0;
      for (int32_t r = 0; r < ranks; ++r) limit += set >> r & 1 ? bl_fewest_cap(problem, r) : 0;
      if (n->inside[set] > limit) return;
    }
    n->best = price;
    return;
  }
  for (int32_t hosts = 1; hosts < 1 << ranks; ++hosts) {
    if (problem->home && !(hosts >> problem->home[e] & 1)) continue;
    bool fits = true;
    for (int32_t r = 0; r < ranks; ++r) fits = fits && (!(hosts >> r & 1) || n->held[r] < problem->slots[r]);
    if (!fits) continue;
    double before[16];
    memcpy(before, n->inside, sizeof before);
    for (int32_t r = 0; r < ranks; ++r) n->held[r] += hosts >> r & 1;
    for (int32_t set = 1; set < 1 << ranks; ++set)
      if ((hosts & ~set) == 0) n->inside[set] += problem->load[e];
    const bool moved = problem->current && !(hosts >> problem->current[e] & 1);
    enumerate_from(n, e + 1, price + __builtin_popcount((unsigned)hosts) - 1 + (moved ? problem->move_price : 0));
    memcpy(n->inside, before, sizeof before);
    for (int32_t r = 0; r < ranks; ++r) n->held[r] -= hosts >> r & 1;
  }
}

/* The least price, ENUMERATE_NONE where no placement is within the limit. */
static inline double enumerate_least(const bl_fewest *problem) {
  enumeration n = {.problem = problem, .best = ENUMERATE_NONE};
  enumerate_from(&n, 0, 0);
  return n.best;
}

/* A random small instance. */
typedef struct instance {
  double load[ENUMERATE_MAX]; /* sum = ranks */
  double speed[4];            /* mean 1 */
  int32_t slots[4], home[ENUMERATE_MAX];
  bl_fewest problem;
  double eps;
} instance;

/* Loads from even to one dominant expert, ties and zeros among them; slots alike or not; homes given (fitting into the
 * slots) or free. */
static inline void instance_draw(instance *x, bl_rng *rng, int32_t experts, int32_t ranks, bool given) {
  const double skew = 3 * bl_rng_unit(rng), sum_to = ranks;
  const bool whole = bl_rng_below(rng, 3) == 0;
  double sum = 0;
  for (int32_t e = 0; e < experts; ++e) {
    x->load[e] = whole ? (double)bl_rng_below(rng, 6) : bl_det_pow(bl_rng_unit(rng), skew * skew);
    sum += x->load[e];
  }
  if (sum == 0) sum = x->load[0] = 1;
  for (int32_t e = 0; e < experts; ++e) x->load[e] *= sum_to / sum;
  const int32_t even = (experts + ranks - 1) / ranks + (int32_t)bl_rng_below(rng, 3);
  const bool alike = bl_rng_below(rng, 4) > 0;
  for (int32_t r = 0; r < ranks; ++r) {
    x->slots[r] = even + (alike ? 0 : (int32_t)bl_rng_below(rng, 3) - 1);
    if (x->slots[r] > experts) x->slots[r] = experts;
    if (x->slots[r] < 1) x->slots[r] = 1;
  }
  int32_t held[4] = {0};
  for (int32_t e = 0; e < experts && given; ++e) {
    int32_t r = (int32_t)bl_rng_below(rng, (uint64_t)ranks);
    for (int32_t tries = 0; tries < ranks && held[r] == x->slots[r]; ++tries) r = (r + 1) % ranks;
    if (held[r] == x->slots[r]) ++x->slots[r];
    x->home[e] = r;
    ++held[r];
  }
  x->eps = bl_rng_below(rng, 4) == 0 ? 0 : 0.3 * bl_rng_unit(rng);
  x->problem = (bl_fewest){.experts = experts,
                           .ranks = ranks,
                           .load = x->load,
                           .slots = x->slots,
                           .home = given ? x->home : NULL,
                           .cap = (1 + x->eps) * (1 + BL_FEWEST_TOLERANCE)};
}

/* Makes ranks unlike in speed. */
static inline void instance_speeds(instance *x, bl_rng *rng) {
  double sum = 0;
  for (int32_t r = 0; r < x->problem.ranks; ++r) sum += x->speed[r] = 0.5 + bl_rng_unit(rng);
  for (int32_t r = 0; r < x->problem.ranks; ++r) x->speed[r] *= x->problem.ranks / sum;
  x->problem.speed = x->speed;
}

/* Given homes may now move, at a price from nothing to more than all copies together. */
static inline void instance_moving(instance *x, bl_rng *rng) {
  static const double price[] = {0, 0.4, 1, 3, 20};
  x->problem.current = x->home;
  x->problem.home = NULL;
  x->problem.move_price = price[bl_rng_below(rng, 5)];
}

/* The same as a question to bl_prove_fewest_copies(). */
static inline bl_prove_problem instance_question(const instance *x, double seconds) {
  return (bl_prove_problem){.experts = x->problem.experts,
                            .ranks = x->problem.ranks,
                            .load = x->load,
                            .slots = x->slots,
                            .speed = x->problem.speed,
                            .home = x->problem.home,
                            .current = x->problem.current,
                            .move_price = x->problem.move_price,
                            .eps = x->eps,
                            .seconds = seconds};
}

#endif
