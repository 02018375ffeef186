/* cost_oracle.h - small layers at random, and the least price of each by enumeration: every home, every set of copies,
 * every feeder, shares on a grid; E <= 8, P <= 3. */
#ifndef BL_TESTS_COST_ORACLE_H
#define BL_TESTS_COST_ORACLE_H

#include "base/rng.h"
#include "planner/place/cost_solve.h"
#include "tests/check.h"

enum { ORACLE_E = 8, ORACLE_P = 3 };

typedef struct drawn {
  int32_t experts, ranks, slots[ORACLE_P], old_home[ORACLE_E];
  double counts[ORACLE_P * ORACLE_E], speed[ORACLE_P];
  bl_place_machine machine;
  bl_place_demand demand;
  bl_place_problem problem;
} drawn;

static inline bl_status draw(drawn *d, bl_rng *rng, int32_t experts, int32_t ranks, bl_place_homes homes) {
  const double skew = 3 * bl_rng_unit(rng);
  const int32_t even = (experts + ranks - 1) / ranks;
  *d = (drawn){.experts = experts, .ranks = ranks};
  for (int32_t e = 0; e < experts; ++e) {
    const double popular = bl_det_exp(skew * bl_rng_normal(rng));
    for (int32_t r = 0; r < ranks; ++r) d->counts[r * experts + e] = floor(100 * popular * (0.2 + bl_rng_unit(rng)));
  }
  for (int32_t r = 0; r < ranks; ++r) {
    d->slots[r] = even + (int32_t)bl_rng_below(rng, 3);
    if (d->slots[r] > experts) d->slots[r] = experts;
    d->speed[r] = 0.5 + bl_rng_unit(rng);
  }
  for (int32_t e = 0; e < experts; ++e) d->old_home[e] = e / even;
  bl_place_machine *m = &d->machine;
  m->ranks = ranks;
  m->levels = ranks == 3 && bl_rng_below(rng, 2) ? 2 : 1;
  m->level[0] = (bl_place_level){m->levels == 2 ? 2 : ranks, 1, 100 * (0.5 + bl_rng_unit(rng)), 2 * bl_rng_unit(rng)};
  m->level[1] = (bl_place_level){4, 1 + (int32_t)bl_rng_below(rng, 2), 30 * (0.5 + bl_rng_unit(rng)), 5};
  m->speed = bl_rng_below(rng, 2) ? d->speed : NULL;
  m->token_us = bl_rng_unit(rng);
  m->row_bytes = 8192 * bl_rng_unit(rng);
  m->fill_bytes = 4e6 * bl_rng_unit(rng) * bl_rng_unit(rng);
  m->reduce_bytes = 2 * m->fill_bytes;
  m->state_bytes = 7 * m->fill_bytes;
  m->exchanges = 4;
  m->micro_batches = 1 + (int32_t)bl_rng_below(rng, 4);
  m->horizon = 1 + (double)bl_rng_below(rng, 50);
  d->problem = (bl_place_problem){.machine = m,
                                  .demand = &d->demand,
                                  .slots = d->slots,
                                  .old_home = d->old_home,
                                  .homes = homes,
                                  .relay = bl_rng_below(rng, 2)};
  return bl_place_demand_create(experts, ranks, d->counts, bl_rng_below(rng, 3) ? ranks : 0, &d->demand);
}

typedef struct oracle {
  const drawn *d;
  bl_place_cost *cost;
  int32_t home[ORACLE_E], held[ORACLE_P], n, grid;
  bl_copy copies[ORACLE_E * ORACLE_P];
  int64_t tried;
  double best;
} oracle;

static inline void price_one(oracle *o, const int32_t *feeder) {
  const bl_placed placed = {.home = o->home,
                            .copies = o->copies,
                            .feeder = feeder,
                            .old_home = o->d->problem.homes == BL_PLACE_HOMES_COST ? o->d->old_home : NULL,
                            .n_copies = o->n};
  bl_place_price price;
  if (bl_place_cost_price(o->cost, &o->d->demand, &placed, &price) != BL_OK) return;
  ++o->tried;
  if (price.total_us < o->best) o->best = price.total_us;
}

/* With relays, two copies of an expert may also feed one another. */
static inline void price_feeders(oracle *o, int32_t i, int32_t *feeder) {
  if (i == o->n || !o->d->problem.relay) {
    price_one(o, o->d->problem.relay ? feeder : NULL);
    return;
  }
  const int32_t e = o->copies[i].expert;
  if (i + 1 == o->n || o->copies[i + 1].expert != e) { /* the copies of an expert follow one another: at most two */
    feeder[i] = o->home[e];
    price_feeders(o, i + 1, feeder);
    return;
  }
  for (int kind = 0; kind < 3; ++kind) {
    feeder[i] = kind == 1 ? o->copies[i + 1].rank : o->home[e];
    feeder[i + 1] = kind == 2 ? o->copies[i].rank : o->home[e];
    price_feeders(o, i + 2, feeder);
  }
}

static inline void enumerate(oracle *o, int32_t e) {
  const drawn *d = o->d;
  if (e == d->experts) {
    int32_t feeder[ORACLE_E * ORACLE_P];
    price_feeders(o, 0, feeder);
    return;
  }
  for (int32_t h = 0; h < d->ranks; ++h) {
    if (d->problem.homes == BL_PLACE_HOMES_FIXED && h != d->old_home[e]) continue;
    if (o->held[h] == d->slots[h]) continue;
    o->home[e] = h;
    ++o->held[h];
    int32_t other[2], k = 0;
    for (int32_t r = 0; r < d->ranks; ++r)
      if (r != h) other[k++] = r;
    for (int32_t a = 0; a <= o->grid; ++a)
      for (int32_t b = 0; a + b <= o->grid && (k > 1 || b == 0); ++b) {
        if (k == 0 && a > 0) continue;
        if (d->demand.load[e] <= 0 && a + b > 0) continue;
        const int32_t before = o->n;
        if (a > 0 && o->held[other[0]] >= d->slots[other[0]]) continue;
        if (b > 0 && o->held[other[1]] >= d->slots[other[1]]) continue;
        if (a > 0) o->copies[o->n++] = (bl_copy){e, other[0], (double)a / o->grid}, ++o->held[other[0]];
        if (b > 0) o->copies[o->n++] = (bl_copy){e, other[1], (double)b / o->grid}, ++o->held[other[1]];
        enumerate(o, e + 1);
        o->n = before;
        if (a > 0) --o->held[other[0]];
        if (b > 0) --o->held[other[1]];
      }
    --o->held[h];
  }
}

#endif
