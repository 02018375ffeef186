#include "planner/milp/dual_hosts_state.h"
#include <math.h>
#include <stdlib.h>

/* The level over which a copy on `rank` is fed most cheaply; `here`: in the node of the home. With relays any rank may
 * feed it. */
static int32_t fed_over(const bl_dual_hosts *c, int32_t rank, bool here) {
  const bl_dual_amounts *price = c->price;
  if (c->machine->levels == 1) return 1;
  if (!c->problem->relay) return here ? 1 : 2;
  return price->copy[BL_DUAL_IN][1][rank] + c->copy_out[1] < price->copy[BL_DUAL_IN][2][rank] + c->copy_out[2] ? 1 : 2;
}

/* What it costs more that a copy on `rank`, fed over `level` otherwise, is the one that comes from another node. */
static double entry_over(const bl_dual_hosts *c, int32_t rank, int32_t level) {
  const bl_dual_amounts *price = c->price;
  if (level == 2 || c->machine->levels == 1) return 0;
  return price->copy[BL_DUAL_IN][2][rank] + c->copy_out[2] - price->copy[BL_DUAL_IN][1][rank] - c->copy_out[1];
}

/* The cost of the tokens that node n sends, and of the copies there, at least one; gain[] of each rank of it. home: a
 * rank of the node that is no copy, or -1. */
static double with_copies(bl_dual_hosts *c, int32_t n, int32_t home, double sending, double bonus, int32_t *copies) {
  const bl_dual_amounts *price = c->price;
  double cost = 0, best = -INFINITY, entry = INFINITY; /* entry: the first copy comes from another node */
  *copies = 0;
  for (int32_t r = n * c->node; r < bl_dual_node_end(c, n); ++r) {
    const double each = bl_dual_away(c, r, c->node_in[n]), saved = c->source[r] * fmax(each - price->compute[r], 0);
    cost += c->source[r] * each;
    if (r == home) {
      cost -= saved;
      c->gain[r] = -INFINITY;
      continue;
    }
    const int32_t level = fed_over(c, r, home >= 0);
    const double sent = c->problem->relay ? c->copy_out[level] : sending;
    c->gain[r] = saved - (price->slot[r] + price->copy[BL_DUAL_IN][level][r] + sent);
    if (c->problem->slots[r] == 0) c->gain[r] = -INFINITY;
    if (c->problem->slots[r] > 0) entry = fmin(entry, entry_over(c, r, level));
    best = fmax(best, c->gain[r]);
    if (!(c->gain[r] + bonus > 0)) continue;
    cost -= c->gain[r] + bonus;
    ++*copies;
  }
  if (home < 0 && entry < INFINITY) cost += entry;
  if (*copies > 0) return cost;
  *copies = 1;
  return cost - best - bonus;
}

/* Of the node of the home, where no copy is in it. */
static double with_home(const bl_dual_hosts *c, int32_t home) {
  const double node_in = c->price->token[BL_DUAL_IN][1][home] + c->price->compute[home];
  const int32_t n = home / c->node;
  double cost = 0;
  for (int32_t r = n * c->node; r < bl_dual_node_end(c, n); ++r) {
    double each = bl_dual_away(c, r, node_in);
    if (r == home) each = fmin(each, c->price->compute[r]);
    cost += c->source[r] * each;
  }
  return cost;
}

/* Of a node without any host. */
static double with_none(const bl_dual_hosts *c, int32_t n) { return c->inner[2][n] + c->far_in * c->sum[1][n]; }

/* Without relays. */
static double sending_to_nodes(const bl_dual_hosts *c, int32_t home) {
  if (c->machine->levels == 1) return 0;
  return c->problem->homes == BL_PLACE_HOMES_FIXED ? c->price->copy[BL_DUAL_OUT][2][home] : c->copy_out[2];
}

static double sending_in_node(const bl_dual_hosts *c, int32_t home) { return c->price->copy[BL_DUAL_OUT][1][home]; }

/* The cheapest hosts with a home among `homes` ranks from `first` on. */
static bl_dual_spread cheapest_spread(bl_dual_hosts *c, int32_t expert, int32_t first, int32_t homes, double bonus) {
  const double sending = sending_to_nodes(c, first);
  bl_dual_spread best = {.home = first, .bonus = bonus, .cost = INFINITY};
  double all = 0;
  int32_t copies, all_copies = 0;
  for (int32_t n = 0; n < c->nodes && c->nodes > 1; ++n) {
    const double none = with_none(c, n), some = with_copies(c, n, -1, sending, bonus, &copies);
    all += c->node_cost[n] = fmin(none, some);
    c->order[n] = some < none ? copies : 0;
    all_copies += some < none ? copies : 0;
  }
  for (int32_t h = first; h < first + homes; ++h) {
    if (c->problem->slots[h] == 0) continue;
    const int32_t n = h / c->node;
    const double fixed = c->price->slot[h] + bl_dual_move(c, expert, h);
    const double others = c->nodes > 1 ? all - c->node_cost[n] : 0, none = with_home(c, h);
    double some = INFINITY;
    copies = 0;
    if (c->node > 1) some = with_copies(c, n, h, sending_in_node(c, h), bonus, &copies);
    const double cost = others + fmin(none, some) + fixed;
    if (!(cost < best.cost)) continue;
    best.cost = cost;
    best.home = h;
    best.copies = (c->nodes > 1 ? all_copies - (int32_t)c->order[n] : 0) + (some < none ? copies : 0);
  }
  return best;
}

/* What one copy more is worth, at best; of so many copies that there be `copies`. */
static double worth_of(bl_dual_hosts *c, int32_t home, int32_t copies) {
  const double sending = sending_to_nodes(c, home);
  int32_t count, n_order = 0;
  for (int32_t n = 0; n < c->nodes; ++n) {
    const bool here = home / c->node == n;
    if (bl_dual_node_end(c, n) - n * c->node == 1 && here) continue;
    const double none = here ? with_home(c, home) : with_none(c, n);
    const double some = with_copies(c, n, here ? home : -1, here ? sending_in_node(c, home) : sending, 0, &count);
    double base = some, *gain = c->order + n_order; /* base: without any copy's gain */
    int32_t n_gain = 0, first = 1;
    for (int32_t r = n * c->node; r < bl_dual_node_end(c, n); ++r) {
      if (c->gain[r] > 0) base += c->gain[r];
      if (c->gain[r] > -INFINITY) gain[n_gain++] = c->gain[r];
    }
    if (n_gain == 0) continue; /* no slots */
    qsort(gain, (size_t)n_gain, sizeof *gain, bl_dual_descending);
    if (!(gain[0] > 0)) base += gain[0];
    /* The first brings or costs what the node gets by any; where that costs, several come together or none does. */
    double sum = gain[0] + none - base;
    while (first < n_gain && gain[first] > sum / first) sum += gain[first++];
    for (int32_t k = 0; k < first; ++k) gain[k] = sum / first;
    n_order += n_gain;
  }
  if (n_order < copies) return -INFINITY;
  qsort(c->order, (size_t)n_order, sizeof *c->order, bl_dual_descending);
  return c->order[copies - 1];
}

static void use_node(bl_dual_hosts *c, const bl_dual_spread *s, int32_t n, bl_dual_amounts *used) {
  const bool here = s->home / c->node == n;
  const double sending = here ? sending_in_node(c, s->home) : sending_to_nodes(c, s->home);
  const double none = here ? with_home(c, s->home) : with_none(c, n);
  const bool known = !c->problem->relay && (here || c->problem->homes == BL_PLACE_HOMES_FIXED);
  int32_t copies, best = -1, near = here ? s->home : -1;
  double some = INFINITY;
  bool entered = here || c->machine->levels == 1; /* by the copy that comes from another node */
  if (bl_dual_node_end(c, n) - n * c->node > (here ? 1 : 0))
    some = with_copies(c, n, here ? s->home : -1, sending, s->bonus, &copies);
  if (some < none) {
    near = c->node_rank[n];
    for (int32_t r = n * c->node; r < bl_dual_node_end(c, n); ++r)
      if (best < 0 || c->gain[r] > c->gain[best]) best = r;
  }
  const double node_in = near >= 0 ? c->price->token[BL_DUAL_IN][1][near] + c->price->compute[near] : INFINITY;
  for (int32_t r = n * c->node; r < bl_dual_node_end(c, n); ++r) {
    const double each = bl_dual_away(c, r, node_in);
    const bool copy = some < none && r != s->home && (c->gain[r] + s->bonus > 0 || r == best);
    if (copy) {
      const int32_t level = entered ? fed_over(c, r, here) : 2, sender = known ? s->home : c->copy_rank[level];
      entered = true;
      used->slot[r] += 1;
      used->copy[BL_DUAL_IN][level][r] += 1;
      used->copy[BL_DUAL_OUT][level][sender] += 1;
    }
    if ((copy || r == s->home) && c->price->compute[r] <= each)
      bl_dual_send(c, r, 0, r, used);
    else if (each < c->price->token[BL_DUAL_OUT][1][r] + node_in)
      bl_dual_send(c, r, 2, c->far_rank, used);
    else
      bl_dual_send(c, r, 1, near, used);
  }
}

bl_dual_spread bl_dual_spread_find(bl_dual_hosts *c, int32_t expert, int32_t first, int32_t homes, int32_t copies) {
  bl_dual_spread s = cheapest_spread(c, expert, first, homes, 0);
  if (s.copies >= copies) return s;
  const double worth = worth_of(c, s.home, copies);
  if (worth == -INFINITY) return (bl_dual_spread){.home = s.home, .cost = INFINITY};
  /* A little more, so that the last copy that must be there is worth having. */
  s = cheapest_spread(c, expert, first, homes, worth < 0 ? -worth * (1 + 1e-9) : 0);
  s.cost += s.bonus * copies;
  return s;
}

void bl_dual_spread_use(bl_dual_hosts *c, int32_t expert, const bl_dual_spread *s, bl_dual_amounts *used) {
  bl_dual_use_home(c, expert, s->home, used);
  for (int32_t n = 0; n < c->nodes; ++n) use_node(c, s, n, used);
}
