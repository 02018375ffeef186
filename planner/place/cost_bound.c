#include "planner/place/cost_bound.h"
#include "base/memory.h"
#include "planner/place/bound.h"
#include "planner/place/order.h"
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct ports { /* microseconds of a copy (fill and reduction), or of a token, over one port of each kind */
  double one;          /* the cheapest */
  double inner, outer; /* by level 1, and by level 2 at once; outer 0: there is none */
  double latency_us;   /* the least of a level, there and back */
} ports;

typedef struct prover {
  const bl_place_problem *p;
  bool fixed;
  double token_us, mean, all_speeds, fastest;
  double alone;            /* the least load / speed without copies */
  const char *alone_proof; /* and why */
  double *load;            /* [experts], descending */
  double *top_speeds;      /* [ranks + 1]: sum of the n fastest */
  double *rank_sum;        /* [ranks]: load at home, where homes stay */
  int32_t *home_first;     /* [ranks + 1], */
  double *home_load;       /* [experts]: loads of each rank's homes, descending */
  bool copies_possible;
  ports copy;
} prover;

static ports copy_ports(const bl_place_machine *m) {
  const double bytes = m->fill_bytes + m->reduce_bytes;
  const double inner = bytes * 1e-3 / (m->level[0].gbps * m->level[0].sharing);
  const double outer = m->levels > 1 ? bytes * 1e-3 / (m->level[1].gbps * m->level[1].sharing) : 0;
  double latency_us = DBL_MAX;
  for (int32_t l = 0; l < m->levels; ++l) latency_us = fmin(latency_us, 2 * m->level[l].latency_us);
  return (ports){outer > 0 && outer < inner ? outer : inner, inner, outer, latency_us};
}

/* The busier port when n copies leave one rank, as well divided over its ports as can be. */
static double leave_us(const ports *u, int32_t n) {
  if (u->outer <= 0) return n * u->inner;
  const double split = n * u->outer / (u->inner + u->outer);
  const double low = floor(split), high = low + 1;
  return fmin(fmax(low * u->inner, (n - low) * u->outer), fmax(fmin(high, n) * u->inner, fmax(n - high, 0) * u->outer));
}

/* Gigabytes a second of all ports of a level. */
static double all_gbps(const bl_place_machine *m, int32_t level) {
  const bl_place_level *l = &m->level[level];
  return (double)((m->ranks + l->sharing - 1) / l->sharing) * l->sharing * l->gbps;
}

/* The mean port when n copies pass those of all ranks. */
static double spread_us(const bl_place_machine *m, double n) {
  const double gbps = all_gbps(m, 0) + (m->levels > 1 ? all_gbps(m, 1) : 0);
  return n * (m->fill_bytes + m->reduce_bytes) * 1e-3 / gbps;
}

/* -- compute and copies -------------------------------------------------------------------------------------------- */

/* How many ranks an expert of load w needs so that none takes longer than `level`. */
static int32_t hosts_needed(const prover *v, double w, double level) {
  int32_t low = 1, high = v->p->machine->ranks;
  while (low < high) {
    const int32_t middle = (low + high) / 2;
    if (v->top_speeds[middle] * level * (1 + 1e-12) >= w) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

/* The least that copies cost where no rank takes longer than `level`. */
static double copies_us(const prover *v, double level) {
  const bl_place_machine *m = v->p->machine;
  int32_t most = 0;
  double all = 0;
  for (int32_t e = 0; e < v->p->demand->experts && v->load[e] > v->fastest * level * (1 + 1e-12); ++e) {
    const int32_t copies = hosts_needed(v, v->load[e], level) - 1;
    all += copies;
    if (!v->p->relay && copies > most) most = copies;
  }
  for (int32_t r = 0; v->fixed && r < m->ranks; ++r) {
    double excess = v->rank_sum[r] - level * (m->speed ? m->speed[r] : 1) * (1 + 1e-12);
    int32_t leaving = 0;
    for (int32_t i = v->home_first[r]; i < v->home_first[r + 1] && excess > 0; ++i, ++leaving)
      excess -= v->home_load[i];
    if (leaving > most) most = leaving;
  }
  if (all < 1 && most == 0 && level >= v->alone * (1 - 1e-12)) return 0;
  const double port_us = fmax(v->copy.one, fmax(leave_us(&v->copy, most), spread_us(m, all)));
  return port_us + v->copy.latency_us;
}

static void try_level(const prover *v, double level, double lambda, double *best, double *at) {
  if (!(level >= v->mean)) return;
  if (!v->copies_possible && level < v->alone) return;
  const double us = v->token_us * level + lambda * copies_us(v, level);
  if (us < *best) {
    *best = us;
    *at = level;
  }
}

/* The price of copies changes only at these levels. */
static double compute_bound(const prover *v, double lambda, double *at) {
  const bl_place_machine *m = v->p->machine;
  double best = DBL_MAX;
  *at = v->mean;
  if (!(v->mean > 0)) return 0;
  try_level(v, v->mean, lambda, &best, at);
  try_level(v, fmax(v->alone, v->mean), lambda, &best, at);
  for (int32_t e = 0; e < v->p->demand->experts && v->load[e] > v->fastest * v->mean; ++e)
    for (int32_t n = 1; n <= m->ranks && v->load[e] / v->top_speeds[n] > v->mean; ++n)
      try_level(v, v->load[e] / v->top_speeds[n], lambda, &best, at);
  for (int32_t r = 0; v->fixed && r < m->ranks; ++r) {
    const double speed = m->speed ? m->speed[r] : 1;
    double left = v->rank_sum[r];
    for (int32_t i = v->home_first[r]; left > v->mean * speed; ++i) {
      try_level(v, left / speed, lambda, &best, at);
      if (i == v->home_first[r + 1]) break;
      left -= v->home_load[i];
    }
  }
  return best;
}

/* -- exchange and copies ------------------------------------------------------------------------------------------- */

/* What group [begin, end) sends to an expert. */
static double sent_by(const bl_place_demand *d, int32_t expert, int32_t begin, int32_t end) {
  if (!d->source) return d->load[expert] * (end - begin) / d->ranks;
  double sum = 0;
  for (int32_t r = begin; r < end; ++r) sum += d->source[(int64_t)expert * d->ranks + r];
  return sum;
}

/* The sum of the `room` largest of (value - cost) where that is positive; more where there are too many. */
static double best_gains(const double *value, int64_t n, double cost, int64_t room) {
  double low = 0, high = 0, best = DBL_MAX;
  for (int64_t i = 0; i < n; ++i) high = fmax(high, value[i] - cost);
  for (int round = 0; round < 16 && high > 0; ++round) {
    const double at = round == 0 ? 0 : (low + high) / 2;
    double sum = room > 0 ? (double)room * at : 0;
    int64_t above = 0;
    for (int64_t i = 0; i < n; ++i)
      if (value[i] - cost > at) {
        sum += value[i] - cost - at;
        ++above;
      }
    best = fmin(best, sum); /* true for whatever `at`: weak duality */
    if (above <= room) {
      if (at == 0) break;
      high = at;
    } else {
      low = at;
    }
  }
  return high > 0 ? best : 0;
}

/* Groups of `size` ranks; what leaves them passes ports of `gbps` in all. value[] has room for experts * groups. */
static double exchange_bound_of(const prover *v, int32_t size, double gbps, double lambda, double *value) {
  const bl_place_machine *m = v->p->machine;
  const bl_place_demand *d = v->p->demand;
  const double byte_us = 1e-3 / gbps;
  const double token_us = (double)m->micro_batches * m->exchanges * m->row_bytes * byte_us;
  const double copy_us = lambda * (m->fill_bytes + m->reduce_bytes) * byte_us;
  double leaving = 0;
  int64_t n = 0, room = -(int64_t)d->experts;
  for (int32_t e = 0; e < d->experts; ++e) {
    double most = 0, all = 0;
    const int64_t start = n;
    int64_t home = n;
    for (int32_t begin = 0; begin < m->ranks; begin += size) {
      const double sent = sent_by(d, e, begin, begin + size < m->ranks ? begin + size : m->ranks);
      all += sent;
      if (v->fixed ? v->p->old_home[e] / size == begin / size : n == start || sent > most) {
        most = sent;
        home = n;
      }
      value[n++] = sent * token_us;
    }
    value[home] = 0;
    leaving += all - most;
  }
  for (int32_t r = 0; r < m->ranks; ++r) room += v->p->slots[r];
  const double bound = leaving * token_us - best_gains(value, n, copy_us, room);
  return bound > 1e-9 * leaving * token_us ? bound : 0; /* else rounding */
}

static bl_status exchange_bound(const prover *v, double lambda, double *out) {
  const bl_place_machine *m = v->p->machine;
  double *value;
  *out = 0;
  BL_TRY(bl_new(&value, (size_t)v->p->demand->experts * (size_t)m->ranks, sizeof *value, "a bound"));
  const double gbps = all_gbps(m, 0) + (m->levels > 1 ? all_gbps(m, 1) : 0);
  *out = exchange_bound_of(v, 1, gbps, lambda, value);
  for (int32_t l = 1; l < m->levels; ++l) {
    const double us = exchange_bound_of(v, m->level[l - 1].ranks, all_gbps(m, l), lambda, value);
    if (us > *out) *out = us;
  }
  free(value);
  if (*out > 0) { /* something leaves, over whatever level */
    double latency_us = DBL_MAX;
    for (int32_t l = 0; l < m->levels; ++l) latency_us = fmin(latency_us, m->level[l].latency_us);
    if (lambda == 0) *out += (double)m->micro_batches * m->exchanges * latency_us;
  }
  return BL_OK;
}

/* -- all together -------------------------------------------------------------------------------------------------- */

static int descending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x < y) - (x > y);
}

static void list_homes(prover *v) {
  const bl_place_demand *d = v->p->demand;
  const int32_t *home = v->p->old_home, ranks = d->ranks;
  for (int32_t e = 0; e < d->experts; ++e) ++v->home_first[home[e] + 1];
  for (int32_t r = 0; r < ranks; ++r) v->home_first[r + 1] += v->home_first[r];
  for (int32_t e = 0; e < d->experts; ++e) {
    const int32_t r = home[e];
    int32_t at = v->home_first[r + 1] - 1;
    while (v->home_load[at] > 0 && at > v->home_first[r]) --at; /* from the back; what is 0 is free or worth nothing */
    v->home_load[at] = d->load[e];
    v->rank_sum[r] += d->load[e];
  }
  v->alone = 0;
  v->alone_proof = "homes-given";
  for (int32_t r = 0; r < ranks; ++r) {
    qsort(v->home_load + v->home_first[r], (size_t)(v->home_first[r + 1] - v->home_first[r]), sizeof(double),
          descending);
    v->alone = fmax(v->alone, v->rank_sum[r] / (v->p->machine->speed ? v->p->machine->speed[r] : 1));
  }
}

static bl_status prepare(prover *v) {
  const bl_place_problem *p = v->p;
  const bl_place_machine *m = p->machine;
  const bl_place_demand *d = p->demand;
  double sum = 0;
  int32_t most = 0;
  int64_t room = 0;
  for (int32_t e = 0; e < d->experts; ++e) sum += v->load[e] = d->load[e];
  qsort(v->load, (size_t)d->experts, sizeof *v->load, descending);
  for (int32_t r = 0; r < m->ranks; ++r) {
    v->top_speeds[r + 1] = m->speed ? m->speed[r] : 1;
    room += p->slots[r];
    if (p->slots[r] > most) most = p->slots[r];
  }
  qsort(v->top_speeds + 1, (size_t)m->ranks, sizeof *v->top_speeds, descending);
  v->fastest = v->top_speeds[1];
  for (int32_t r = 0; r < m->ranks; ++r) v->top_speeds[r + 1] += v->top_speeds[r];
  v->token_us = m->micro_batches * m->token_us;
  v->all_speeds = v->top_speeds[m->ranks];
  v->mean = sum / v->all_speeds;
  v->copies_possible = room > d->experts && m->ranks > 1;
  v->copy = copy_ports(m);
  if (v->fixed) {
    list_homes(v);
    return BL_OK;
  }
  bl_bound homes;
  BL_TRY(bl_bound_homes(d->load, d->experts, m->ranks, most, m->speed, &homes));
  v->alone = homes.imbalance * v->mean;
  v->alone_proof = homes.proof;
  return BL_OK;
}

static bl_status find(const bl_place_problem *p, bool fixed, bl_place_bound *out) {
  static const double parts[] = {1, 0.75, 0.5, 0.25, 0};
  prover v = {.p = p, .fixed = fixed};
  const size_t experts = (size_t)p->demand->experts, ranks = (size_t)p->machine->ranks;
  BL_TRY(bl_new(&v.load, 2 * experts + 2 * ranks + 1, sizeof *v.load, "a bound"));
  bl_status status = bl_new(&v.home_first, ranks + 1, sizeof *v.home_first, "a bound");
  v.home_load = v.load + experts;
  v.top_speeds = v.home_load + experts;
  v.rank_sum = v.top_speeds + ranks + 1;
  if (status == BL_OK) status = prepare(&v);
  *out = (bl_place_bound){.us = -1};
  for (size_t i = 0; i < sizeof parts / sizeof *parts && status == BL_OK; ++i) {
    double at, exchange_us;
    const double compute_us = compute_bound(&v, parts[i], &at);
    status = exchange_bound(&v, 1 - parts[i], &exchange_us);
    if (status != BL_OK || !(compute_us + exchange_us > out->us)) continue;
    out->us = compute_us + exchange_us;
    out->level = at;
    const char *why = parts[i] * copies_us(&v, at) > 0 ? "copies-or-compute"
                      : at > v.mean                    ? v.alone_proof
                                                       : "mean-load";
    snprintf(out->proof, sizeof out->proof, "%s%s", why, exchange_us > 0 ? " + locality" : "");
  }
  free(v.load);
  free(v.home_first);
  return status;
}

bl_status bl_place_bound_find(const bl_place_problem *p, bl_place_bound *out) {
  const bl_place_machine *m = p->machine;
  bl_place_bound fixed;
  BL_TRY(find(p, p->homes == BL_PLACE_HOMES_FIXED, out));
  if (p->homes == BL_PLACE_HOMES_COST) {
    double latency_us = DBL_MAX, rate = 0;
    for (int32_t l = 0; l < m->levels; ++l) {
      latency_us = fmin(latency_us, m->level[l].latency_us);
      rate = fmax(rate, m->level[l].gbps * m->level[l].sharing * 1e3);
    }
    BL_TRY(find(p, true, &fixed));
    out->us += (m->state_bytes / rate + latency_us) / m->horizon;
    if (fixed.us < out->us) *out = fixed;
  }
  out->us *= 1 - 1e-9; /* no rounding of sums lifts it above a price */
  return BL_OK;
}
