/* A start: the hottest experts have a host in every node. */
#include "planner/place/cost_starts_state.h"
#include "planner/place/order.h"
#include <math.h>
#include <string.h>

static double sent_by_node(const bl_place_starts *s, int32_t expert, int32_t begin, int32_t end) {
  const bl_place_demand *d = s->judge->problem.demand;
  double sum = 0;
  if (!d->source) return d->load[expert] * (end - begin) / d->ranks;
  for (int32_t r = begin; r < end; ++r) sum += d->source[(int64_t)expert * d->ranks + r];
  return sum;
}

/* What a rank takes in compute and in receiving from other nodes: microseconds of a micro-batch. */
static double time_of(const bl_place_starts *s, int32_t rank) {
  return s->load[rank] / bl_starts_speed(s, rank) * s->token_us + s->received[rank] * s->row_us;
}

/* The rank of [begin, end) with a slot that takes least time, -1 if there is none. */
static int32_t least_busy(const bl_place_starts *s, const bl_place_state *state, int32_t begin, int32_t end) {
  int32_t best = -1;
  double least = 0;
  for (int32_t r = begin; r < end; ++r) {
    if (state->used[r] >= s->judge->problem.slots[r]) continue;
    const double now = time_of(s, r);
    if (best >= 0 && !(now < least)) continue;
    best = r;
    least = now;
  }
  return best;
}

/* `remote` of the load comes from other nodes. */
static void settle_home(bl_place_starts *s, bl_place_state *state, int32_t expert, int32_t rank, double load,
                        double remote) {
  state->home[expert] = rank;
  ++state->used[rank];
  s->load[rank] += load;
  s->received[rank] += remote;
}

/* Ranks of a node, the last of which may be smaller. */
static int32_t node_end(const bl_place_starts *s, int32_t n) {
  const int32_t end = (n + 1) * bl_starts_node_size(s);
  return end < s->judge->ranks ? end : s->judge->ranks;
}

/* The rank of a node, with a slot, that feeds fewest experts' copies so far; of these the one that takes least
 * time. */
static int32_t least_feeding(const bl_place_starts *s, const bl_place_state *state, int32_t n) {
  int32_t best = -1;
  for (int32_t r = n * bl_starts_node_size(s); r < node_end(s, n); ++r) {
    if (state->used[r] >= s->judge->problem.slots[r]) continue;
    if (best < 0 || s->feeds[r] < s->feeds[best] || (s->feeds[r] == s->feeds[best] && time_of(s, r) < time_of(s, best)))
      best = r;
  }
  return best;
}

/* The node that becomes home: that of the old one unless it has more than its part already, then the one with fewest.
 */
static int32_t choose_home_node(bl_place_starts *s, int32_t expert, int32_t nodes, int32_t most) {
  const int32_t *old_home = s->judge->problem.old_home;
  int32_t best = 0;
  for (int32_t n = 1; n < nodes; ++n)
    if (s->node_homes[n] < s->node_homes[best]) best = n;
  if (old_home && s->node_homes[old_home[expert] / bl_starts_node_size(s)] < most)
    best = old_home[expert] / bl_starts_node_size(s);
  ++s->node_homes[best];
  return best;
}

static void spread_expert(bl_place_starts *s, bl_place_state *state, int32_t expert, int32_t home_node, bool keep) {
  const int32_t node = bl_starts_node_size(s), nodes = (s->judge->ranks + node - 1) / node;
  const double load = s->judge->problem.demand->load[expert];
  const double own = sent_by_node(s, expert, home_node * node, node_end(s, home_node));
  if (keep) {
    s->load[state->home[expert]] -= load - own; /* it has been counted whole */
    s->received[state->home[expert]] -= load - own;
  } else {
    const int32_t rank = least_feeding(s, state, home_node);
    if (rank < 0) return;
    settle_home(s, state, expert, rank, own, 0);
    ++s->feeds[rank];
  }
  for (int32_t n = 0; n < nodes; ++n) {
    if (n == home_node) continue;
    const double sent = sent_by_node(s, expert, n * node, node_end(s, n));
    const int32_t rank = least_busy(s, state, n * node, node_end(s, n));
    if (rank < 0 || !(sent > 0)) { /* stays with the home */
      s->load[state->home[expert]] += sent;
      s->received[state->home[expert]] += sent;
      continue;
    }
    state->copies[state->n++] = (bl_copy){expert, rank, sent / load < 1 ? sent / load : 1};
    ++state->used[rank];
    s->load[rank] += sent;
  }
}

void bl_place_start_spread(bl_place_starts *s, int32_t count, bool keep, double receiving, bl_place_state *state) {
  const bl_place_judge *j = s->judge;
  const bl_place_machine *m = j->problem.machine;
  const double *load = j->problem.demand->load;
  const int32_t node = bl_starts_node_size(s), nodes = (j->ranks + node - 1) / node, *old_home = j->problem.old_home;
  if (m->levels > 1) s->row_us = receiving * m->exchanges * m->row_bytes * 1e-3 / m->level[1].gbps;
  int32_t *order = s->old_group; /* and what is behind it as workspace */
  bl_order_descending(load, j->experts, order, s->new_group);
  memset(s->load, 0, 2 * (size_t)j->ranks * sizeof *s->load); /* received[] lies behind */
  state->n = 0;
  if (keep) {
    memcpy(state->home, old_home, (size_t)j->experts * sizeof *state->home);
    for (int32_t e = 0; e < j->experts; ++e) {
      const int32_t n = old_home[e] / node;
      s->load[old_home[e]] += load[e];
      s->received[old_home[e]] += load[e] - sent_by_node(s, e, n * node, node_end(s, n));
    }
  } else {
    for (int32_t e = 0; e < j->experts; ++e) state->home[e] = -1;
  }
  memset(state->used, 0, (size_t)j->ranks * sizeof *state->used);
  for (int32_t e = 0; e < j->experts && keep; ++e) ++state->used[old_home[e]];
  memset(s->feeds, 0, (size_t)j->ranks * sizeof *s->feeds);
  memset(s->node_homes, 0, (size_t)j->ranks * sizeof *s->node_homes);
  for (int32_t i = 0; i < count && i < j->experts; ++i) {
    const int32_t e = order[i];
    const int32_t home_node = keep ? old_home[e] / node : choose_home_node(s, e, nodes, (count + nodes - 1) / nodes);
    spread_expert(s, state, e, home_node, keep);
  }
  double *time = s->coolness; /* of each rank, infinite where it has no slot */
  for (int32_t r = 0; r < j->ranks; ++r) time[r] = state->used[r] < j->problem.slots[r] ? time_of(s, r) : INFINITY;
  for (int32_t i = 0; i < j->experts; ++i) {
    const int32_t e = order[i];
    if (state->home[e] >= 0) continue;
    const int32_t rank = bl_order_least(time, j->ranks), n = rank / node;
    settle_home(s, state, e, rank, load[e], load[e] - sent_by_node(s, e, n * node, node_end(s, n)));
    time[rank] = state->used[rank] < j->problem.slots[rank] ? time_of(s, rank) : INFINITY;
  }
}
