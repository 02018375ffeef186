#include "base/memory.h"
#include "planner/milp/dual_hosts_state.h"
#include <math.h>
#include <string.h>

bl_status bl_dual_amounts_create(const bl_place_machine *m, bl_dual_amounts *out) {
  const size_t ranks = (size_t)m->ranks;
  *out = (bl_dual_amounts){.size = ranks * (2 + 6 * (size_t)m->levels)};
  BL_TRY(bl_new(&out->compute, out->size, sizeof *out->compute, "prices"));
  double *at = out->slot = out->compute + ranks;
  for (int d = 0; d < 2; ++d)
    for (int32_t l = 1; l <= m->levels; ++l) {
      out->token[d][l] = at += ranks;
      out->copy[d][l] = at += ranks;
      out->move[d][l] = at += ranks;
    }
  return BL_OK;
}

void bl_dual_amounts_free(bl_dual_amounts *amounts) {
  free(amounts->compute);
  memset(amounts, 0, sizeof *amounts);
}

static int32_t size_of(const bl_dual_hosts *c, int32_t level) {
  if (level == 0) return 1;
  const int32_t size = c->machine->level[level - 1].ranks;
  return size < c->ranks ? size : c->ranks;
}

static int32_t groups_of(const bl_dual_hosts *c, int32_t level) {
  return (c->ranks + size_of(c, level) - 1) / size_of(c, level);
}

bl_status bl_dual_hosts_create(const bl_place_problem *p, bl_dual_hosts **out) {
  const char *what = "prices of experts";
  const size_t ranks = (size_t)p->machine->ranks, experts = (size_t)p->demand->experts;
  bl_dual_hosts *c;
  bl_status status = BL_OK;
  *out = NULL;
  BL_TRY(bl_new(&c, 1, sizeof *c, what));
  c->problem = p;
  c->machine = p->machine;
  c->ranks = p->machine->ranks;
  c->node = size_of(c, 1);
  c->nodes = groups_of(c, 1);
  for (int32_t r = 0; r < c->ranks; ++r) c->copies_room += p->slots[r];
  c->copies_room -= p->demand->experts;
  BL_TRY_GOTO(status, bl_new(&c->needed, experts + ranks, sizeof *c->needed, what), fail);
  BL_TRY_GOTO(status, bl_new(&c->even, (5 + 3 * BL_PLACE_MAX_LEVELS) * ranks, sizeof *c->even, what), fail);
  c->node_rank = c->needed + experts;
  double *at = c->even;
  c->gain = at += ranks;
  c->order = at += ranks;
  c->node_cost = at += ranks;
  c->node_in = at += ranks;
  for (int l = 1; l <= BL_PLACE_MAX_LEVELS; ++l) {
    c->sum[l] = at += ranks;
    c->inner[l] = at += ranks;
    c->outer[l] = at += ranks;
  }
  *out = c;
  return BL_OK;
fail:
  bl_dual_hosts_free(c);
  return status;
}

void bl_dual_hosts_free(bl_dual_hosts *c) {
  if (!c) return;
  free(c->needed);
  free(c->even);
  free(c);
}

/* -- caps ---------------------------------------------------------------------------------------------------------- */

static void look_at(bl_dual_hosts *c, int32_t expert) {
  const bl_place_demand *d = c->problem->demand;
  c->source = d->source ? d->source + (int64_t)expert * c->ranks : c->even;
  for (int32_t r = 0; r < c->ranks && !d->source; ++r) c->even[r] = d->load[expert] / c->ranks;
}

/* How many hosts an expert needs: of those that can take most, so many that they can take all. */
static int32_t hosts_needed(bl_dual_hosts *c, int32_t expert) {
  const double *speed = c->machine->speed, load = c->problem->demand->load[expert] * (1 - 1e-9);
  const double arriving = c->caps.arriving[1] + (c->machine->levels > 1 ? c->caps.arriving[2] : 0);
  double most = 0;
  look_at(c, expert);
  for (int32_t r = 0; r < c->ranks; ++r) {
    c->order[r] = fmin(c->caps.tokens * (speed ? speed[r] : 1), c->source[r] + arriving);
    most = fmax(most, c->order[r]);
  }
  if (most >= load) return 1;
  qsort(c->order, (size_t)c->ranks, sizeof *c->order, bl_dual_descending);
  int32_t n = 0;
  for (double left = load; left > 0; ++n) {
    if (n == c->ranks) return c->ranks + 1;
    left -= c->order[n];
  }
  return n;
}

void bl_dual_hosts_cap(bl_dual_hosts *c, const bl_dual_caps *caps) {
  c->caps = *caps;
  for (int32_t e = 0; e < c->problem->demand->experts; ++e) c->needed[e] = hosts_needed(c, e);
}

/* Whether a rank may host an expert alone. */
static bool suffices(const bl_dual_hosts *c, int32_t expert, int32_t rank) {
  const double *speed = c->machine->speed, load = c->problem->demand->load[expert];
  if (c->problem->slots[rank] == 0) return false;
  if (load * (1 - 1e-9) > c->caps.tokens * (speed ? speed[rank] : 1)) return false;
  double near = c->source[rank];
  for (int32_t l = 1; l <= c->machine->levels; ++l) {
    const double now = c->sum[l][rank / size_of(c, l)];
    const double arriving =
        l == 1 ? now - near : load - near; /* what crosses level 3 also passes the port of level 2 */
    if (arriving * (1 - 1e-9) > c->caps.arriving[l]) return false;
    near = now;
  }
  return true;
}

/* -- prices -------------------------------------------------------------------------------------------------------- */

void bl_dual_hosts_price(bl_dual_hosts *c, const bl_dual_amounts *price) {
  const int32_t far = c->machine->levels > 1 ? 2 : 1;
  c->price = price;
  c->far_in = INFINITY;
  c->least_slot = c->copy_least = INFINITY;
  for (int32_t l = 1; l <= far; ++l) {
    c->copy_out[l] = INFINITY;
    for (int32_t r = 0; r < c->ranks; ++r)
      if (price->copy[BL_DUAL_OUT][l][r] < c->copy_out[l])
        c->copy_out[l] = price->copy[BL_DUAL_OUT][l][r], c->copy_rank[l] = r;
  }
  for (int32_t n = 0; n < c->nodes; ++n) c->node_in[n] = INFINITY;
  for (int32_t r = 0; r < c->ranks; ++r) {
    if (c->problem->slots[r] == 0) continue;
    const double near = price->token[BL_DUAL_IN][1][r] + price->compute[r];
    const double from_far = price->token[BL_DUAL_IN][far][r] + price->compute[r];
    if (near < c->node_in[r / c->node]) c->node_in[r / c->node] = near, c->node_rank[r / c->node] = r;
    if (from_far < c->far_in) c->far_in = from_far, c->far_rank = r;
    c->least_slot = fmin(c->least_slot, price->slot[r]);
    for (int32_t l = 1; l <= far; ++l)
      c->copy_least = fmin(c->copy_least, price->slot[r] + price->copy[BL_DUAL_IN][l][r] + c->copy_out[l]);
  }
}

double bl_dual_move(const bl_dual_hosts *c, int32_t expert, int32_t home) {
  if (c->problem->homes != BL_PLACE_HOMES_COST) return 0;
  const int32_t old = c->problem->old_home[expert];
  if (old == home) return 0;
  const int32_t level = bl_place_level_between(c->machine, old, home);
  return c->price->move[BL_DUAL_OUT][level][old] + c->price->move[BL_DUAL_IN][level][home];
}

/* -- a home alone -------------------------------------------------------------------------------------------------- */

static void sum_sources(bl_dual_hosts *c) {
  for (int32_t l = 1; l <= c->machine->levels; ++l) {
    const int32_t small = size_of(c, l - 1), size = size_of(c, l), groups = groups_of(c, l - 1);
    const double *out = c->price->token[BL_DUAL_OUT][l], *below = l == 1 ? c->source : c->sum[l - 1];
    memset(c->sum[l], 0, (size_t)groups_of(c, l) * sizeof(double));
    memset(c->outer[l], 0, (size_t)groups_of(c, l) * sizeof(double));
    for (int32_t g = 0; g < groups; ++g) {
      const int32_t end = (g + 1) * small < c->ranks ? (g + 1) * small : c->ranks;
      double paid = 0;
      for (int32_t r = g * small; r < end; ++r) paid += c->source[r] * out[r];
      c->inner[l][g] = paid;
      c->outer[l][g * small / size] += paid;
      c->sum[l][g * small / size] += below[g];
    }
  }
}

static double alone_cost(const bl_dual_hosts *c, int32_t expert, int32_t home) {
  const bl_dual_amounts *price = c->price;
  double cost = c->problem->demand->load[expert] * price->compute[home] + price->slot[home];
  double near = c->source[home];
  for (int32_t l = 1; l <= c->machine->levels; ++l) {
    const int32_t group = home / size_of(c, l);
    cost += price->token[BL_DUAL_IN][l][home] * (c->sum[l][group] - near);
    cost += c->outer[l][group] - c->inner[l][home / size_of(c, l - 1)];
    near = c->sum[l][group];
  }
  return cost + bl_dual_move(c, expert, home);
}

void bl_dual_use_home(const bl_dual_hosts *c, int32_t expert, int32_t home, bl_dual_amounts *used) {
  used->slot[home] += 1;
  if (c->problem->homes != BL_PLACE_HOMES_COST || c->problem->old_home[expert] == home) return;
  const int32_t old = c->problem->old_home[expert], level = bl_place_level_between(c->machine, old, home);
  used->move[BL_DUAL_OUT][level][old] += 1;
  used->move[BL_DUAL_IN][level][home] += 1;
}

void bl_dual_send(const bl_dual_hosts *c, int32_t from, int32_t level, int32_t to, bl_dual_amounts *used) {
  used->compute[to] += c->source[from];
  if (level == 0) return;
  used->token[BL_DUAL_OUT][level][from] += c->source[from];
  used->token[BL_DUAL_IN][level][to] += c->source[from];
}

static void use_alone(const bl_dual_hosts *c, int32_t expert, int32_t home, bl_dual_amounts *used) {
  bl_dual_use_home(c, expert, home, used);
  for (int32_t r = 0; r < c->ranks; ++r) bl_dual_send(c, r, bl_place_level_between(c->machine, r, home), home, used);
}

/* -- all together -------------------------------------------------------------------------------------------------- */

double bl_dual_away(const bl_dual_hosts *c, int32_t rank, double node_in) {
  const double near = c->price->token[BL_DUAL_OUT][1][rank] + node_in;
  if (c->machine->levels == 1) return near;
  return fmin(near, c->price->token[BL_DUAL_OUT][2][rank] + c->far_in);
}

/* No copies, wherever they are, make the tokens cheaper than this. */
static double ideal_cost(const bl_dual_hosts *c) {
  double cost = c->least_slot + c->copy_least;
  for (int32_t r = 0; r < c->ranks; ++r)
    cost += c->source[r] * fmin(c->price->compute[r], bl_dual_away(c, r, c->node_in[r / c->node]));
  return cost;
}

/* Copies that the slots, and without relays the ports of the home, have room for. */
static bool has_room(const bl_dual_hosts *c, int32_t copies) {
  if (copies > c->copies_room || copies >= c->ranks) return false;
  return c->problem->relay || copies <= c->caps.copies[1] + (c->machine->levels > 1 ? c->caps.copies[2] : 0) + 1e-6;
}

double bl_dual_hosts_cheapest(bl_dual_hosts *c, int32_t expert, bl_dual_amounts *used) {
  const bool fixed = c->problem->homes == BL_PLACE_HOMES_FIXED;
  const int32_t first = fixed ? c->problem->old_home[expert] : 0, homes = fixed ? 1 : c->ranks;
  const int32_t needed = c->needed[expert] > 1 ? c->needed[expert] - 1 : 1;
  double least = INFINITY;
  int32_t home = first;
  look_at(c, expert);
  sum_sources(c);
  for (int32_t h = first; h < first + homes; ++h) {
    const double cost = alone_cost(c, expert, h);
    if (cost < least && suffices(c, expert, h)) least = cost, home = h;
  }
  if (has_room(c, needed) && ideal_cost(c) < least) {
    const bl_dual_spread spread = bl_dual_spread_find(c, expert, first, homes, needed);
    if (spread.cost < least) {
      bl_dual_spread_use(c, expert, &spread, used);
      return spread.cost;
    }
  }
  if (least < INFINITY) use_alone(c, expert, home, used);
  return least;
}

bool bl_dual_hosts_allowed(const bl_dual_hosts *c, int32_t expert, int32_t hosts) { return hosts >= c->needed[expert]; }
