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

typedef struct locality {
  double gbps;    /* of all ports that what leaves a group passes */
  double leaving; /* tokens that leave their group where every expert has one host */
  double *gain;   /* [n]: tokens that stay for each further host, the largest of them */
  int64_t n;
} locality;

typedef struct level_price {
  double level, copies_us;
} level_price;

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
  int64_t copies_room;     /* slots beyond one an expert; 0 with a single rank */
  ports copy;
  level_price *levels;
  size_t n_levels, levels_room;
  locality groups[BL_PLACE_MAX_LEVELS]; /* single ranks, and groups of each level but the last */
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

/* A load / speed that no rank is to exceed, and the least that copies cost then. */
static bl_status add_level(prover *v, double level) {
  if (!(level >= v->mean) || (v->copies_room == 0 && level < v->alone)) return BL_OK;
  BL_TRY(bl_grow(&v->levels, &v->levels_room, v->n_levels + 1, sizeof *v->levels, "a bound"));
  v->levels[v->n_levels++] = (level_price){level, copies_us(v, level)};
  return BL_OK;
}

/* The price of copies changes only at these levels. */
static bl_status list_levels(prover *v) {
  const bl_place_machine *m = v->p->machine;
  BL_TRY(add_level(v, v->mean));
  BL_TRY(add_level(v, fmax(v->alone, v->mean)));
  for (int32_t e = 0; e < v->p->demand->experts && v->load[e] > v->fastest * v->mean; ++e)
    for (int32_t n = 1; n <= m->ranks && v->load[e] / v->top_speeds[n] > v->mean; ++n)
      BL_TRY(add_level(v, v->load[e] / v->top_speeds[n]));
  for (int32_t r = 0; v->fixed && r < m->ranks; ++r) {
    const double speed = m->speed ? m->speed[r] : 1;
    double left = v->rank_sum[r];
    for (int32_t i = v->home_first[r]; left > v->mean * speed; ++i) {
      BL_TRY(add_level(v, left / speed));
      if (i == v->home_first[r + 1]) break;
      left -= v->home_load[i];
    }
  }
  return BL_OK;
}

/* The least of compute and the part lambda of the copies; at which level. */
static double compute_bound(const prover *v, double lambda, level_price *at) {
  double best = DBL_MAX;
  *at = (level_price){v->mean, 0};
  if (!(v->mean > 0)) return 0;
  for (size_t i = 0; i < v->n_levels; ++i) {
    const double us = v->token_us * v->levels[i].level + lambda * v->levels[i].copies_us;
    if (!(us < best)) continue;
    best = us;
    *at = v->levels[i];
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

/* Keeps the `room` largest values in a heap with the least on top. */
static void keep_value(double *heap, int64_t *n, int64_t room, double value) {
  int64_t at;
  if (*n < room) {
    for (at = (*n)++; at > 0 && heap[(at - 1) / 2] > value; at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
    heap[at] = value;
    return;
  }
  if (room == 0 || value <= heap[0]) return;
  int64_t child;
  for (at = 0; (child = 2 * at + 1) < room; at = child) {
    if (child + 1 < room && heap[child + 1] < heap[child]) ++child;
    if (heap[child] >= value) break;
    heap[at] = heap[child];
  }
  heap[at] = value;
}

/* Groups of `size` ranks: what leaves them when every expert has a host in one group only, the one that sends it most
 * or that of its home; and how much stays for each copy in another group, of as many as there are slots. */
static bl_status look_at_groups(const prover *v, int32_t size, double gbps, locality *out) {
  const bl_place_machine *m = v->p->machine;
  const bl_place_demand *d = v->p->demand;
  const int64_t groups = (m->ranks + size - 1) / size, others = d->experts * (groups - 1);
  const int64_t room = v->copies_room < others ? v->copies_room : others;
  *out = (locality){.gbps = gbps};
  BL_TRY(bl_new(&out->gain, (size_t)room, sizeof *out->gain, "a bound"));
  for (int32_t e = 0; e < d->experts; ++e) {
    double kept = -1;
    for (int32_t begin = 0; begin < m->ranks; begin += size) {
      double sent = sent_by(d, e, begin, begin + size < m->ranks ? begin + size : m->ranks);
      out->leaving += sent;
      const bool keeps = v->fixed ? v->p->old_home[e] / size == begin / size : sent > kept;
      if (keeps) { /* the largest so far: the one before it is a gain like any other */
        const double before = kept;
        kept = sent;
        sent = before;
      }
      if (sent > 0) keep_value(out->gain, &out->n, room, sent);
    }
    out->leaving -= kept;
  }
  return BL_OK;
}

/* What the exchange costs at least, and the part lambda of the copies that make it less. */
static double exchange_bound_of(const bl_place_machine *m, const locality *l, double lambda) {
  const double byte_us = 1e-3 / l->gbps;
  const double token_us = (double)m->micro_batches * m->exchanges * m->row_bytes * byte_us;
  const double copy_us = lambda * (m->fill_bytes + m->reduce_bytes) * byte_us;
  double bound = l->leaving * token_us;
  for (int64_t i = 0; i < l->n; ++i)
    if (l->gain[i] * token_us > copy_us) bound -= l->gain[i] * token_us - copy_us;
  return bound > 1e-9 * l->leaving * token_us ? bound : 0; /* else rounding */
}

static double exchange_bound(const prover *v, double lambda) {
  const bl_place_machine *m = v->p->machine;
  double bound = 0, latency_us = DBL_MAX;
  for (int32_t l = 0; l < m->levels; ++l) {
    bound = fmax(bound, exchange_bound_of(m, &v->groups[l], lambda));
    latency_us = fmin(latency_us, m->level[l].latency_us);
  }
  /* Something leaves, over whatever level, unless copies are what the bound is made of. */
  return bound > 0 && lambda == 0 ? bound + (double)m->micro_batches * m->exchanges * latency_us : bound;
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
  v->copies_room = m->ranks > 1 ? room - d->experts : 0;
  v->copy = copy_ports(m);
  BL_TRY(look_at_groups(v, 1, all_gbps(m, 0) + (m->levels > 1 ? all_gbps(m, 1) : 0), &v->groups[0]));
  for (int32_t l = 1; l < m->levels; ++l)
    BL_TRY(look_at_groups(v, m->level[l - 1].ranks, all_gbps(m, l), &v->groups[l]));
  if (v->fixed) {
    list_homes(v);
    return list_levels(v);
  }
  bl_bound homes;
  BL_TRY(bl_bound_homes(d->load, d->experts, m->ranks, most, m->speed, &homes));
  v->alone = homes.imbalance * v->mean;
  v->alone_proof = homes.proof;
  return list_levels(v);
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
    level_price at;
    const double compute_us = compute_bound(&v, parts[i], &at), exchange_us = exchange_bound(&v, 1 - parts[i]);
    if (!(compute_us + exchange_us > out->us)) continue;
    out->us = compute_us + exchange_us;
    out->level = at.level;
    const char *why = parts[i] * at.copies_us > 0 ? "copies-or-compute"
                      : at.level > v.mean         ? v.alone_proof
                                                  : "mean-load";
    snprintf(out->proof, sizeof out->proof, "%s%s", why, exchange_us > 0 ? " + locality" : "");
  }
  for (int32_t l = 0; l < BL_PLACE_MAX_LEVELS; ++l) free(v.groups[l].gain);
  free(v.levels);
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
