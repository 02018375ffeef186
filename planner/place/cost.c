#include "planner/place/cost.h"
#include "base/memory.h"
#include <math.h>
#include <string.h>

struct bl_place_cost {
  const bl_place_machine *machine;
  int32_t experts;
  double *load;                                                       /* [ranks] */
  double *out[BL_PLACE_MAX_LEVELS + 1], *in[BL_PLACE_MAX_LEVELS + 1]; /* [level][ranks]; level 0: stays */
  double *left_source, *left_host;                                    /* [ranks]: of the expert looked at */
  double *tokens;                 /* [ranks]: of each host of the expert looked at */
  int32_t *parent;                /* [ranks]: who feeds a copy there */
  int32_t *first, *listed, *host; /* [experts + 1], [copies]: copies by expert;
                                     [ranks]: hosts of the expert looked at */
  size_t room;                    /* of listed */
};

bl_status bl_place_machine_check(const bl_place_machine *m) {
  if (m->ranks < 1) return bl_fail(BL_EINPUT, "a placement on %d ranks: expected at least 1", m->ranks);
  if (m->levels < 1 || m->levels > BL_PLACE_MAX_LEVELS)
    return bl_fail(BL_EINPUT, "%d levels of links: expected 1 to %d", m->levels, BL_PLACE_MAX_LEVELS);
  for (int32_t l = 0; l < m->levels; ++l) {
    const bl_place_level *level = &m->level[l];
    const int32_t inner = l > 0 ? level[-1].ranks : 1;
    if (level->ranks < 1 || level->ranks % inner != 0)
      return bl_fail(BL_EINPUT, "level %d joins %d ranks: expected a multiple of the %d below it", l + 1, level->ranks,
                     inner);
    if (level->sharing < 1)
      return bl_fail(BL_EINPUT, "level %d: %d ranks share a port, expected at least 1", l + 1, level->sharing);
    if (!(level->gbps > 0) || !isfinite(level->gbps))
      return bl_fail(BL_EINPUT, "level %d: a link of %g gigabytes a second, expected more than 0", l + 1, level->gbps);
    if (!(level->latency_us >= 0) || !isfinite(level->latency_us))
      return bl_fail(BL_EINPUT, "level %d: a latency of %g us, expected 0 or more", l + 1, level->latency_us);
  }
  if (m->level[m->levels - 1].ranks < m->ranks)
    return bl_fail(BL_EINPUT, "the last level joins %d ranks, expected all %d", m->level[m->levels - 1].ranks,
                   m->ranks);
  for (int32_t r = 0; m->speed && r < m->ranks; ++r)
    if (!(m->speed[r] > 0) || !isfinite(m->speed[r]))
      return bl_fail(BL_EINPUT, "rank %d: a speed of %g, expected more than 0", r, m->speed[r]);
  const double sizes[] = {m->token_us, m->row_bytes, m->fill_bytes, m->reduce_bytes, m->state_bytes};
  const char *const names[] = {"token_us", "row_bytes", "fill_bytes", "reduce_bytes", "state_bytes"};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; ++i)
    if (!(sizes[i] >= 0) || !isfinite(sizes[i]))
      return bl_fail(BL_EINPUT, "%s is %g, expected 0 or more", names[i], sizes[i]);
  if (m->exchanges < 0 || m->micro_batches < 1 || !(m->horizon > 0))
    return bl_fail(BL_EINPUT,
                   "%d exchanges, %d micro-batches, a horizon of %g steps: expected 0, 1 and above 0 at least",
                   m->exchanges, m->micro_batches, m->horizon);
  return BL_OK;
}

int32_t bl_place_level_between(const bl_place_machine *m, int32_t a, int32_t b) {
  if (a == b) return 0;
  int32_t level = 1;
  while (level < m->levels && a / m->level[level - 1].ranks != b / m->level[level - 1].ranks) ++level;
  return level;
}

/* -- demand -------------------------------------------------------------------------------------------------------- */

bl_status bl_place_demand_create(int32_t experts, int32_t ranks, const double *counts, int32_t sources,
                                 bl_place_demand *out) {
  *out = (bl_place_demand){.experts = experts, .ranks = ranks};
  const size_t n = (size_t)experts * (size_t)ranks;
  BL_TRY(bl_new(&out->load, (size_t)experts, sizeof *out->load, "loads"));
  if (sources <= 0) {
    memcpy(out->load, counts, (size_t)experts * sizeof *counts);
    return BL_OK;
  }
  bl_status status = bl_new(&out->source, n, sizeof *out->source, "loads by source");
  if (status == BL_OK) status = bl_new(&out->sent, (size_t)ranks, sizeof *out->sent, "loads by source");
  if (status != BL_OK) {
    bl_place_demand_free(out);
    return status;
  }
  /* Sources and ranks divide the same line from 0 to 1; a rank sends of each source what they have in common. */
  for (int32_t s = 0; s < sources; ++s)
    for (int64_t r = (int64_t)s * ranks / sources; r < ranks && r * sources < (int64_t)(s + 1) * ranks; ++r) {
      const int64_t low = r * sources > (int64_t)s * ranks ? r * sources : (int64_t)s * ranks;
      const int64_t high = (r + 1) * sources < (int64_t)(s + 1) * ranks ? (r + 1) * sources : (int64_t)(s + 1) * ranks;
      const double part = (double)(high - low) / ranks;
      for (int32_t e = 0; e < experts; ++e)
        out->source[(int64_t)e * ranks + r] += counts[(int64_t)s * experts + e] * part;
    }
  for (int32_t e = 0; e < experts; ++e)
    for (int32_t r = 0; r < ranks; ++r) {
      out->load[e] += out->source[(int64_t)e * ranks + r];
      out->sent[r] += out->source[(int64_t)e * ranks + r];
    }
  return BL_OK;
}

void bl_place_demand_free(bl_place_demand *demand) {
  free(demand->load);
  free(demand->source);
  free(demand->sent);
  memset(demand, 0, sizeof *demand);
}

/* -- workspace ----------------------------------------------------------------------------------------------------- */

bl_status bl_place_cost_create(const bl_place_machine *machine, int32_t experts, bl_place_cost **out) {
  bl_place_cost *c;
  const char *what = "the price of a placement";
  *out = NULL;
  BL_TRY(bl_place_machine_check(machine));
  if (experts < 1) return bl_fail(BL_EINPUT, "a placement of %d experts: expected at least 1", experts);
  BL_TRY(bl_new(&c, 1, sizeof *c, what));
  c->machine = machine;
  c->experts = experts;
  const size_t ranks = (size_t)machine->ranks, levels = (size_t)machine->levels + 1;
  bl_status status = BL_OK;
  BL_TRY_GOTO(status, bl_new(&c->load, ranks * (4 + 2 * levels), sizeof *c->load, what), fail);
  BL_TRY_GOTO(status, bl_new(&c->first, (size_t)experts + 1 + 2 * ranks, sizeof *c->first, what), fail);
  c->left_source = c->load + ranks;
  c->left_host = c->left_source + ranks;
  c->tokens = c->left_host + ranks;
  for (size_t l = 0; l < levels; ++l) {
    c->out[l] = c->tokens + ranks * (1 + 2 * l);
    c->in[l] = c->out[l] + ranks;
  }
  c->host = c->first + experts + 1;
  c->parent = c->host + ranks;
  *out = c;
  return BL_OK;
fail:
  bl_place_cost_free(c);
  return status;
}

void bl_place_cost_free(bl_place_cost *cost) {
  if (!cost) return;
  free(cost->load);
  free(cost->first);
  free(cost->listed);
  free(cost);
}

const double *bl_place_cost_loads(const bl_place_cost *cost) { return cost->load; }

/* -- ports --------------------------------------------------------------------------------------------------------- */

static void clear_ports(bl_place_cost *c) {
  const size_t ranks = (size_t)c->machine->ranks;
  memset(c->out[0], 0, 2 * ranks * ((size_t)c->machine->levels + 1) * sizeof(double));
}

static void add_edge(bl_place_cost *c, int32_t from, int32_t to, double amount) {
  const int32_t level = bl_place_level_between(c->machine, from, to);
  c->out[level][from] += amount;
  c->in[level][to] += amount;
}

/* The busiest port, and microseconds per byte of one unit of amount; what crosses a higher level is added to those
 * between, from level 2 on, first. */
static double busiest(bl_place_cost *c, bl_place_port *port) {
  const bl_place_machine *m = c->machine;
  double most = 0;
  *port = (bl_place_port){0};
  for (int32_t l = m->levels; l >= 1; --l) {
    const bl_place_level *level = &m->level[l - 1];
    if (l >= 2 && l < m->levels)
      for (int32_t r = 0; r < m->ranks; ++r) {
        c->out[l][r] += c->out[l + 1][r];
        c->in[l][r] += c->in[l + 1][r];
      }
    const double unit = 1e-3 / (level->gbps * level->sharing);
    for (int32_t first = 0; first < m->ranks; first += level->sharing) {
      double out = 0, in = 0;
      for (int32_t r = first; r < first + level->sharing && r < m->ranks; ++r) {
        out += c->out[l][r];
        in += c->in[l][r];
      }
      const double more = out > in ? out : in;
      if (!(more * unit > most)) continue;
      most = more * unit;
      *port = (bl_place_port){l, first, in > out, more};
    }
  }
  return most;
}

/* -- exchange ------------------------------------------------------------------------------------------------------ */

/* Inside ranks [begin, end) sources hand over what the hosts there can still take, everyone in proportion. */
static void hand_over(bl_place_cost *c, int32_t level, int32_t begin, int32_t end) {
  double source = 0, host = 0;
  for (int32_t r = begin; r < end; ++r) {
    source += c->left_source[r];
    host += c->left_host[r];
  }
  const double moved = source < host ? source : host;
  if (!(moved > 0)) return;
  const double out = moved / source, in = moved / host;
  for (int32_t r = begin; r < end; ++r) {
    c->out[level][r] += out * c->left_source[r];
    c->in[level][r] += in * c->left_host[r];
    c->left_source[r] -= out * c->left_source[r];
    c->left_host[r] -= in * c->left_host[r];
  }
}

static void own_rank(bl_place_cost *c, int32_t rank) {
  double *source = &c->left_source[rank], *host = &c->left_host[rank];
  const double moved = *source < *host ? *source : *host;
  c->out[0][rank] += moved;
  *source -= moved;
  *host -= moved;
}

/* One expert's tokens on n hosts; loads of the ranks grow too. All levels but the last look only at groups with hosts:
 * what their sources have left, and all that comes from elsewhere, crosses the last one. */
static void exchange_expert(bl_place_cost *c, const bl_place_demand *d, int32_t expert, int32_t n) {
  const bl_place_machine *m = c->machine;
  const double each = d->load[expert] / m->ranks, *source = d->source ? d->source + (int64_t)expert * m->ranks : NULL;
  const int32_t widest = m->levels > 1 ? m->level[m->levels - 2].ranks : 1;
  for (int32_t i = 0; i < n; ++i) { /* of all sources that can meet these hosts below the last level */
    const int32_t begin = c->host[i] / widest * widest, end = begin + widest < m->ranks ? begin + widest : m->ranks;
    for (int32_t r = begin; r < end; ++r) {
      c->left_source[r] = source ? source[r] : each;
      c->left_host[r] = 0;
    }
  }
  for (int32_t i = 0; i < n; ++i) {
    c->left_host[c->host[i]] = c->tokens[i];
    c->load[c->host[i]] += c->tokens[i];
  }
  for (int32_t i = 0; i < n; ++i) own_rank(c, c->host[i]);
  for (int32_t l = 1; l < m->levels; ++l) {
    const int32_t size = m->level[l - 1].ranks;
    for (int32_t i = 0; i < n; ++i) { /* a second host of a group finds nothing left to hand over */
      const int32_t begin = c->host[i] / size * size, end = begin + size < m->ranks ? begin + size : m->ranks;
      hand_over(c, l, begin, end);
    }
  }
  for (int32_t i = 0; i < n; ++i) c->in[m->levels][c->host[i]] += c->left_host[c->host[i]];
}

/* What leaves over the last level is what has not been handed over below it. */
static void finish_exchange(bl_place_cost *c, const bl_place_demand *d) {
  const bl_place_machine *m = c->machine;
  double all = 0;
  for (int32_t e = 0; e < d->experts && !d->sent; ++e) all += d->load[e];
  for (int32_t r = 0; r < m->ranks; ++r) {
    double rest = d->sent ? d->sent[r] : all / m->ranks;
    for (int32_t l = 0; l < m->levels; ++l) rest -= c->out[l][r];
    c->out[m->levels][r] = rest > 0 ? rest : 0;
  }
}

static double highest_latency(const bl_place_cost *c) {
  const bl_place_machine *m = c->machine;
  double tiny = 0;
  for (int32_t r = 0; r < m->ranks; ++r) tiny += 1e-12 * c->load[r];
  for (int32_t l = m->levels; l >= 1; --l)
    for (int32_t r = 0; r < m->ranks; ++r)
      if (c->in[l][r] > tiny) return m->level[l - 1].latency_us;
  return 0;
}

/* -- copies and moves ---------------------------------------------------------------------------------------------- */

/* Copies by expert, in the order given. */
static bl_status list_copies(bl_place_cost *c, const bl_placed *p) {
  BL_TRY(bl_grow(&c->listed, &c->room, (size_t)p->n_copies, sizeof *c->listed, "copies"));
  memset(c->first, 0, ((size_t)c->experts + 1) * sizeof *c->first);
  for (int32_t i = 0; i < p->n_copies; ++i) ++c->first[p->copies[i].expert + 1];
  for (int32_t e = 0; e < c->experts; ++e) c->first[e + 1] += c->first[e];
  for (int32_t i = p->n_copies - 1; i >= 0; --i) c->listed[--c->first[p->copies[i].expert + 1]] = i;
  memmove(c->first, c->first + 1, (size_t)c->experts * sizeof *c->first); /* the ends have become the beginnings */
  c->first[c->experts] = p->n_copies;
  return BL_OK;
}

static int32_t list_hosts(bl_place_cost *c, const bl_place_demand *d, const bl_placed *p, int32_t e) {
  double rest = d->load[e];
  int32_t n = 1;
  for (int32_t k = c->first[e]; k < c->first[e + 1]; ++k, ++n) {
    const bl_copy *copy = &p->copies[c->listed[k]];
    c->host[n] = copy->rank;
    c->tokens[n] = copy->share * d->load[e];
    rest -= c->tokens[n];
  }
  c->host[0] = p->home[e];
  c->tokens[0] = rest > 0 ? rest : 0;
  return n;
}

/* The edges over which one expert's copies are filled; the longest way's latency and hops. */
static void feed_expert(bl_place_cost *c, const bl_placed *p, int32_t e, double *latency_us, int32_t *depth) {
  const bl_place_machine *m = c->machine;
  const int32_t home = p->home[e], begin = c->first[e], end = c->first[e + 1];
  for (int32_t k = begin; k < end; ++k) {
    const int32_t i = c->listed[k];
    c->parent[p->copies[i].rank] = p->feeder ? p->feeder[i] : home;
  }
  for (int32_t k = begin; k < end; ++k) {
    double way_us = 0;
    int32_t hops = 0;
    for (int32_t r = p->copies[c->listed[k]].rank; r != home && hops < end - begin; r = c->parent[r], ++hops)
      way_us += m->level[bl_place_level_between(m, c->parent[r], r) - 1].latency_us;
    add_edge(c, c->parent[p->copies[c->listed[k]].rank], p->copies[c->listed[k]].rank, 1);
    if (way_us > *latency_us) *latency_us = way_us;
    if (hops > *depth) *depth = hops;
  }
}

static void price_copies(bl_place_cost *c, const bl_placed *p, bl_place_price *out) {
  const bl_place_machine *m = c->machine;
  double latency_us = 0;
  if (p->n_copies == 0) return;
  clear_ports(c);
  for (int32_t e = 0; e < c->experts; ++e)
    if (c->first[e + 1] > c->first[e]) feed_expert(c, p, e, &latency_us, &out->depth);
  const double unit = busiest(c, &out->port[BL_PLACE_FILL]);
  out->port[BL_PLACE_REDUCE] = out->port[BL_PLACE_FILL];
  out->port[BL_PLACE_REDUCE].in = !out->port[BL_PLACE_FILL].in;
  out->us[BL_PLACE_FILL] = unit * m->fill_bytes + latency_us;
  out->us[BL_PLACE_REDUCE] = unit * m->reduce_bytes + latency_us;
}

static void price_moves(bl_place_cost *c, const bl_placed *p, bl_place_price *out) {
  const bl_place_machine *m = c->machine;
  double latency_us = 0;
  for (int32_t e = 0; p->old_home && e < c->experts; ++e) {
    if (p->old_home[e] == p->home[e]) continue;
    if (out->moved++ == 0) clear_ports(c);
    add_edge(c, p->old_home[e], p->home[e], 1);
    latency_us = fmax(latency_us, m->level[bl_place_level_between(m, p->old_home[e], p->home[e]) - 1].latency_us);
  }
  if (out->moved == 0) return;
  const double unit = busiest(c, &out->port[BL_PLACE_MOVE]);
  out->us[BL_PLACE_MOVE] = (unit * m->state_bytes + latency_us) / m->horizon;
}

/* -- the price ----------------------------------------------------------------------------------------------------- */

static void price_compute(const bl_place_cost *c, bl_place_price *out) {
  const bl_place_machine *m = c->machine;
  double sum = 0, speeds = 0, most = 0;
  for (int32_t r = 0; r < m->ranks; ++r) {
    const double speed = m->speed ? m->speed[r] : 1, now = c->load[r] / speed;
    sum += c->load[r];
    speeds += speed;
    if (now > most) {
      most = now;
      out->slowest = r;
    }
  }
  out->imbalance = sum > 0 ? most / (sum / speeds) : 1;
  out->us[BL_PLACE_COMPUTE] = m->micro_batches * m->token_us * most;
}

bl_status bl_place_cost_price(bl_place_cost *c, const bl_place_demand *demand, const bl_placed *placed,
                              bl_place_price *out) {
  const bl_place_machine *m = c->machine;
  memset(out, 0, sizeof *out);
  BL_TRY(list_copies(c, placed));
  memset(c->load, 0, (size_t)m->ranks * sizeof *c->load);
  clear_ports(c);
  for (int32_t e = 0; e < c->experts; ++e) {
    if (!(demand->load[e] > 0)) continue;
    exchange_expert(c, demand, e, list_hosts(c, demand, placed, e));
  }
  finish_exchange(c, demand);
  price_compute(c, out);
  const double latency_us = highest_latency(c), unit = busiest(c, &out->port[BL_PLACE_EXCHANGE]);
  out->us[BL_PLACE_EXCHANGE] = (double)m->micro_batches * m->exchanges * (unit * m->row_bytes + latency_us);
  price_copies(c, placed, out);
  price_moves(c, placed, out);
  for (int t = 0; t < BL_PLACE_TERM_COUNT; ++t) out->total_us += out->us[t];
  return BL_OK;
}
