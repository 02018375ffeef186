#include "planner/milp/dual_sum.h"
#include "base/memory.h"
#include <math.h>
#include <string.h>

struct bl_dual_sum {
  const bl_place_problem *p;
  const bl_place_machine *m;
  bl_dual_hosts *hosts;
  bl_dual_amounts price, used;
  double token_us; /* of a token of a rank of speed 1, in all micro-batches */
  double unit[BL_DUAL_TERMS]
             [BL_PLACE_MAX_LEVELS + 1]; /* microseconds of a token, copy or home over a port of a level */
  double latency_us;                    /* of the exchange, that no placement avoids */
  double known_us;
  int32_t ranks, levels;
  bl_dual_layout layout;
  bl_dual_box box;
  int32_t *at; /* [layout.size] */
  double *amount;
};

static int32_t ports_of(const bl_dual_sum *s, int32_t level) {
  const int32_t sharing = s->m->level[level - 1].sharing;
  return (s->ranks + sharing - 1) / sharing;
}

/* Amounts, or prices, of a term that passes ports. */
static double *const *of_ports(const bl_dual_amounts *a, int term, int way) {
  return term == BL_DUAL_EXCHANGE ? a->token[way] : term == BL_DUAL_COPIES ? a->copy[way] : a->move[way];
}

static bool has_ports(const bl_dual_sum *s, int term) { return s->layout.first[term + 1] > s->layout.first[term]; }

/* Of the exchange: traffic of a level cannot be avoided where a group of the level below sends to more experts than it
 * has slots for. What may be too little to count in a price (1e-12 of all tokens) does not count here. */
static double least_latency(const bl_dual_sum *s) {
  const bl_place_demand *d = s->p->demand;
  double sum = 0;
  for (int32_t e = 0; e < d->experts; ++e) sum += d->load[e];
  const double tiny = 1e-11 * sum * s->ranks;
  for (int32_t l = s->levels; l >= 1; --l) {
    const int32_t size = l > 1 ? s->m->level[l - 2].ranks : 1;
    for (int32_t begin = 0; begin < s->ranks; begin += size) {
      const int32_t end = begin + size < s->ranks ? begin + size : s->ranks;
      int64_t slots = 0, wanted = 0;
      for (int32_t r = begin; r < end; ++r) slots += s->p->slots[r];
      for (int32_t e = 0; e < d->experts; ++e) {
        double sent = d->source ? 0 : d->load[e] * (end - begin) / s->ranks;
        for (int32_t r = begin; r < end && d->source; ++r) sent += d->source[(int64_t)e * s->ranks + r];
        wanted += sent > tiny;
      }
      double least_us = INFINITY; /* traffic of a higher level may take its place */
      for (int32_t k = l; k <= s->levels; ++k) least_us = fmin(least_us, s->m->level[k - 1].latency_us);
      if (wanted > slots) return (double)s->m->micro_batches * s->m->exchanges * least_us;
    }
  }
  return 0;
}

static void measure(bl_dual_sum *s) {
  const bl_place_machine *m = s->m;
  int32_t ports = 0;
  s->token_us = m->micro_batches * m->token_us;
  for (int32_t l = 1; l <= m->levels; ++l) {
    const double byte_us = 1e-3 / (m->level[l - 1].gbps * m->level[l - 1].sharing);
    s->unit[BL_DUAL_EXCHANGE][l] = (double)m->micro_batches * m->exchanges * m->row_bytes * byte_us;
    s->unit[BL_DUAL_COPIES][l] = (m->fill_bytes + m->reduce_bytes) * byte_us;
    s->unit[BL_DUAL_MOVES][l] = m->state_bytes * byte_us / m->horizon;
    ports += 2 * ports_of(s, l);
  }
  int32_t *first = s->layout.first;
  first[BL_DUAL_EXCHANGE] = m->ranks;
  first[BL_DUAL_COPIES] = first[BL_DUAL_EXCHANGE] + ports;
  first[BL_DUAL_MOVES] = first[BL_DUAL_COPIES] + ports;
  first[BL_DUAL_TERMS] = first[BL_DUAL_MOVES] + (s->p->homes == BL_PLACE_HOMES_COST ? ports : 0);
  s->layout.size = first[BL_DUAL_TERMS] + m->ranks;
}

bl_status bl_dual_sum_create(const bl_place_problem *p, double price_us, bl_dual_sum **out) {
  const char *what = "a bound by prices";
  bl_dual_sum *s;
  bl_status status = BL_OK;
  *out = NULL;
  BL_TRY(bl_new(&s, 1, sizeof *s, what));
  s->p = p;
  s->m = p->machine;
  s->ranks = s->m->ranks;
  s->levels = s->m->levels;
  s->known_us = price_us;
  measure(s);
  s->latency_us = least_latency(s);
  BL_TRY_GOTO(status, bl_dual_amounts_create(s->m, &s->price), fail);
  BL_TRY_GOTO(status, bl_dual_amounts_create(s->m, &s->used), fail);
  BL_TRY_GOTO(status, bl_dual_hosts_create(p, &s->hosts), fail);
  BL_TRY_GOTO(status, bl_new(&s->at, (size_t)s->layout.size, sizeof *s->at, what), fail);
  BL_TRY_GOTO(status, bl_new(&s->amount, (size_t)s->layout.size, sizeof *s->amount, what), fail);
  *out = s;
  return BL_OK;
fail:
  bl_dual_sum_free(s);
  return status;
}

void bl_dual_sum_free(bl_dual_sum *s) {
  if (!s) return;
  bl_dual_hosts_free(s->hosts);
  bl_dual_amounts_free(&s->price);
  bl_dual_amounts_free(&s->used);
  free(s->at);
  free(s->amount);
  free(s);
}

const bl_dual_layout *bl_dual_sum_layout(const bl_dual_sum *s) { return &s->layout; }

/* -- boxes --------------------------------------------------------------------------------------------------------- */

bl_dual_box bl_dual_sum_all(const bl_dual_sum *s) {
  const double *speed = s->m->speed;
  double speeds = 0, sum = 0;
  for (int32_t r = 0; r < s->ranks; ++r) speeds += speed ? speed[r] : 1;
  for (int32_t e = 0; e < s->p->demand->experts; ++e) sum += s->p->demand->load[e];
  return (bl_dual_box){.low = {s->token_us * sum / speeds * (1 - 1e-9), 0}, .high = {INFINITY, INFINITY}};
}

bool bl_dual_sum_enter(bl_dual_sum *s, bl_dual_box *box) {
  const double ahead = s->known_us - s->latency_us;
  box->high[0] = fmin(box->high[0], ahead - box->low[1]);
  box->high[1] = fmin(box->high[1], ahead - box->low[0]);
  if (!(box->low[0] <= box->high[0] && box->low[1] <= box->high[1])) return false;
  const double copies_us = ahead - box->low[0] - box->low[1];
  bl_dual_caps caps = {.tokens = s->token_us > 0 ? box->high[0] / s->token_us : INFINITY};
  for (int32_t l = 1; l <= s->levels; ++l) {
    const double token = s->unit[BL_DUAL_EXCHANGE][l], copy = s->unit[BL_DUAL_COPIES][l];
    caps.arriving[l] = token > 0 ? box->high[1] / token : INFINITY;
    caps.copies[l] = copy > 0 ? copies_us / copy : INFINITY;
  }
  bl_dual_hosts_cap(s->hosts, &caps);
  s->box = *box;
  return true;
}

bool bl_dual_sum_allowed(const bl_dual_sum *s, int32_t expert, int32_t hosts) {
  return bl_dual_hosts_allowed(s->hosts, expert, hosts);
}

/* -- the sum ------------------------------------------------------------------------------------------------------- */

static void set_prices(bl_dual_sum *s, const double *weights) {
  for (int32_t r = 0; r < s->ranks; ++r) {
    s->price.compute[r] = weights[r] * s->token_us / (s->m->speed ? s->m->speed[r] : 1);
    s->price.slot[r] = weights[s->layout.first[BL_DUAL_TERMS] + r];
  }
  for (int t = BL_DUAL_EXCHANGE; t < BL_DUAL_TERMS; ++t) {
    if (!has_ports(s, t)) continue;
    const double *port = weights + s->layout.first[t];
    for (int32_t l = 1; l <= s->levels; ++l)
      for (int way = 0; way < 2; ++way, port += ports_of(s, l)) {
        double *const *price = of_ports(&s->price, t, way);
        for (int32_t r = 0; r < s->ranks; ++r)
          price[l][r] = port[r / s->m->level[l - 1].sharing] * s->unit[t][l] + (l == 3 ? price[2][r] : 0);
      }
  }
}

static void tell(bl_dual_sum *s, int32_t expert, bl_dual_use *use, void *context) {
  int32_t n = 0, hosts = 0;
  for (int32_t r = 0; r < s->ranks; ++r)
    if (s->used.compute[r] > 0) {
      s->at[n] = r;
      s->amount[n++] = s->used.compute[r] * s->token_us / (s->m->speed ? s->m->speed[r] : 1);
    }
  for (int t = BL_DUAL_EXCHANGE; t < BL_DUAL_TERMS; ++t) {
    int32_t port = s->layout.first[t];
    if (!has_ports(s, t)) continue;
    for (int32_t l = 1; l <= s->levels; ++l)
      for (int way = 0; way < 2; ++way) {
        double *const *used = of_ports(&s->used, t, way);
        const int32_t sharing = s->m->level[l - 1].sharing;
        for (int32_t begin = 0; begin < s->ranks; begin += sharing, ++port) {
          double sum = 0;
          for (int32_t r = begin; r < begin + sharing && r < s->ranks; ++r)
            sum += used[l][r] + (l == 2 && s->levels > 2 ? used[3][r] : 0);
          if (!(sum > 0)) continue;
          s->at[n] = port;
          s->amount[n++] = sum * s->unit[t][l];
        }
      }
  }
  for (int32_t r = 0; r < s->ranks; ++r)
    if (s->used.slot[r] > 0) {
      s->at[n] = s->layout.first[BL_DUAL_TERMS] + r;
      s->amount[n++] = s->used.slot[r];
      hosts += (int32_t)s->used.slot[r];
    }
  use(context, expert, hosts, s->at, s->amount, n);
}

double bl_dual_sum_find(bl_dual_sum *s, const double *weights, bl_dual_use *use, void *context) {
  double bound = s->latency_us;
  set_prices(s, weights);
  bl_dual_hosts_price(s->hosts, &s->price);
  memset(s->used.compute, 0, s->used.size * sizeof(double));
  for (int32_t e = 0; e < s->p->demand->experts; ++e) {
    bound += bl_dual_hosts_cheapest(s->hosts, e, &s->used);
    if (!use) continue;
    tell(s, e, use, context);
    memset(s->used.compute, 0, s->used.size * sizeof(double));
  }
  for (int t = 0; t < 2; ++t) {
    double rest = 1;
    for (int32_t i = s->layout.first[t]; i < s->layout.first[t + 1]; ++i) rest -= weights[i];
    bound += fmax(rest, 0) * s->box.low[t];
  }
  for (int32_t r = 0; r < s->ranks; ++r) bound -= s->price.slot[r] * s->p->slots[r];
  return bound;
}

/* -- where to start ------------------------------------------------------------------------------------------------ */

/* All ranks alike, and all ports of one level. */
static void alike(const bl_dual_sum *s, int32_t level, double *weights) {
  const double *speed = s->m->speed;
  double speeds = 0;
  memset(weights, 0, (size_t)s->layout.size * sizeof *weights);
  for (int32_t r = 0; r < s->ranks; ++r) speeds += speed ? speed[r] : 1;
  for (int32_t r = 0; r < s->ranks; ++r) weights[r] = (speed ? speed[r] : 1) / speeds;
  for (int t = BL_DUAL_EXCHANGE; t <= BL_DUAL_COPIES; ++t) {
    double *port = weights + s->layout.first[t];
    for (int32_t l = 1; l < level; ++l) port += 2 * ports_of(s, l);
    for (int32_t i = 0; i < 2 * ports_of(s, level); ++i) port[i] = 0.5 / ports_of(s, level);
  }
}

/* One price for all slots, between two of which one takes too many and the other too few. */
static double price_slots(bl_dual_sum *s, double *weights) {
  double low = s->known_us * 1e-9, high = s->known_us, slots = 0, best = -INFINITY, at = 0;
  double *slot = weights + s->layout.first[BL_DUAL_TERMS];
  for (int32_t r = 0; r < s->ranks; ++r) slots += s->p->slots[r];
  for (int i = 0; i < 20 && high > 1.02 * low; ++i) {
    const double middle = sqrt(low * high);
    double used = 0;
    for (int32_t r = 0; r < s->ranks; ++r) slot[r] = middle;
    const double bound = bl_dual_sum_find(s, weights, NULL, NULL);
    if (bound > best) best = bound, at = middle;
    for (int32_t r = 0; r < s->ranks; ++r) used += s->used.slot[r];
    if (used > slots)
      low = middle;
    else
      high = middle;
  }
  for (int32_t r = 0; r < s->ranks; ++r) slot[r] = at;
  return best;
}

void bl_dual_sum_start(bl_dual_sum *s, double *weights) {
  double best = -INFINITY;
  int32_t level = 1;
  for (int32_t l = 1; l <= s->levels && s->levels > 1; ++l) {
    alike(s, l, weights);
    const double bound = price_slots(s, weights);
    if (bound > best) best = bound, level = l;
  }
  alike(s, level, weights);
  price_slots(s, weights);
}
