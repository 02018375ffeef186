#include "planner/place/cost_state.h"
#include "base/memory.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double WORTH_LOOKING = 0.02; /* the part of the exchange in the price above which nearness is weighed */

bl_status bl_place_state_create(const bl_place_judge *j, bl_place_state *out) {
  const char *what = "a placement";
  const size_t experts = (size_t)j->experts, ranks = (size_t)j->ranks, room = (size_t)j->room;
  bl_status status = BL_OK;
  memset(out, 0, sizeof *out);
  BL_TRY_GOTO(status, bl_new(&out->home, experts + ranks, sizeof *out->home, what), fail);
  BL_TRY_GOTO(status, bl_new(&out->copies, room, sizeof *out->copies, what), fail);
  BL_TRY_GOTO(status, bl_new(&out->feeder, room, sizeof *out->feeder, what), fail);
  out->used = out->home + experts;
  return BL_OK;
fail:
  bl_place_state_free(out);
  return status;
}

void bl_place_state_free(bl_place_state *state) {
  free(state->home);
  free(state->copies);
  free(state->feeder);
  memset(state, 0, sizeof *state);
}

void bl_place_state_assign(const bl_place_judge *j, bl_place_state *to, const bl_place_state *from) {
  memcpy(to->home, from->home, (size_t)(j->experts + j->ranks) * sizeof *to->home); /* used[] lies behind */
  memcpy(to->copies, from->copies, (size_t)from->n * sizeof *to->copies);
  memcpy(to->feeder, from->feeder, (size_t)from->n * sizeof *to->feeder);
  to->n = from->n;
  to->price = from->price;
}

void bl_place_state_count(const bl_place_judge *j, bl_place_state *state) {
  memset(state->used, 0, (size_t)j->ranks * sizeof *state->used);
  for (int32_t e = 0; e < j->experts; ++e) ++state->used[state->home[e]];
  for (int32_t i = 0; i < state->n; ++i) ++state->used[state->copies[i].rank];
}

bool bl_place_holds(const bl_place_state *state, int32_t expert, int32_t rank) {
  if (state->home[expert] == rank) return true;
  for (int32_t i = 0; i < state->n; ++i)
    if (state->copies[i].rank == rank && state->copies[i].expert == expert) return true;
  return false;
}

/* -- the judge ----------------------------------------------------------------------------------------------------- */

/* Heights between the slowest and the fastest at which speeds may be cut. */
static void choose_heights(bl_place_judge *j) {
  const double *speed = j->problem.machine->speed;
  double low = 1, high = 1;
  for (int32_t r = 0; speed && r < j->ranks; ++r) {
    low = r == 0 || speed[r] < low ? speed[r] : low;
    high = r == 0 || speed[r] > high ? speed[r] : high;
  }
  j->heights[j->n_heights++] = high;
  if (high > low)
    for (int i = 1; i <= 3; ++i) j->heights[j->n_heights++] = high - (high - low) * i / 3;
}

bl_status bl_place_judge_create(const bl_place_problem *problem, bl_place_judge *out) {
  const char *what = "the search for a placement";
  const bl_place_machine *m = problem->machine;
  memset(out, 0, sizeof *out);
  out->problem = *problem;
  out->experts = problem->demand->experts;
  out->ranks = m->ranks;
  int64_t room = -(int64_t)out->experts;
  for (int32_t r = 0; r < m->ranks; ++r) {
    if (problem->slots[r] < 0 || problem->slots[r] > out->experts)
      return bl_fail(BL_EINPUT, "rank %d has %d slots: expected 0 to %d, the number of experts", r, problem->slots[r],
                     out->experts);
    room += problem->slots[r];
  }
  if (room < 0)
    return bl_fail(BL_EINPUT, "%lld slots on %d ranks cannot hold %d experts: %lld are missing",
                   (long long)(room + out->experts), m->ranks, out->experts, (long long)-room);
  if (room > INT32_MAX - 2 * m->ranks) return bl_fail(BL_EINPUT, "%lld copy slots are too many", (long long)room);
  out->room = (int32_t)room + 2 * m->ranks; /* a starting point may have more before it is mended */
  bl_status status = BL_OK;
  BL_TRY_GOTO(status, bl_place_cost_create(m, out->experts, &out->cost), fail);
  if (problem->relay) BL_TRY_GOTO(status, bl_relay_create(m, out->experts, &out->relay), fail);
  BL_TRY_GOTO(status, bl_flow_graph_create(&out->graph, out->experts, m->ranks, out->room), fail);
  BL_TRY_GOTO(status, bl_flow_scratch_create(&out->scratch, out->experts, m->ranks), fail);
  const size_t states = (size_t)bl_flow_state_size(out->experts, m->ranks, out->room);
  BL_TRY_GOTO(status, bl_new(&out->flow_block, states, sizeof *out->flow_block, what), fail);
  out->flow = bl_flow_state_at(out->flow_block, out->experts, out->room);
  const size_t ranks = (size_t)m->ranks, copies = (size_t)out->room;
  BL_TRY_GOTO(status, bl_new(&out->cut, 2 * ranks + 3 * copies, sizeof *out->cut, what), fail);
  BL_TRY_GOTO(status, bl_new(&out->served, ranks, sizeof *out->served, what), fail);
  BL_TRY_GOTO(status, bl_new(&out->start, ranks + 1 + 3 * copies + (size_t)out->experts, sizeof *out->start, what),
              fail);
  BL_TRY_GOTO(status, bl_new(&out->sorted, copies, sizeof *out->sorted, what), fail);
  out->taken = out->cut + ranks;
  out->level_share = out->taken + ranks;
  out->last_share = out->level_share + copies;
  out->near_share = out->last_share + copies;
  out->next = out->start + ranks + 1;
  out->first = out->next + copies;
  out->hosts = (bl_hosts){.experts = out->experts, .ranks = m->ranks};
  out->hosts.copy_rank = out->first + out->experts;
  out->hosts.copy_expert = out->hosts.copy_rank + copies;
  BL_TRY_GOTO(status, bl_place_state_create(out, &out->kept), fail);
  choose_heights(out);
  return BL_OK;
fail:
  bl_place_judge_free(out);
  return status;
}

void bl_place_judge_free(bl_place_judge *j) {
  bl_place_state_free(&j->kept);
  bl_place_cost_free(j->cost);
  bl_relay_free(j->relay);
  bl_flow_graph_free(&j->graph);
  bl_flow_scratch_free(&j->scratch);
  free(j->flow_block);
  free(j->cut);
  free(j->start);
  free(j->served);
  free(j->sorted);
  memset(j, 0, sizeof *j);
}

bl_status bl_place_judge_price(bl_place_judge *j, bl_place_state *state) {
  const bl_place_problem *p = &j->problem;
  ++j->evaluations;
  if (j->relay) {
    BL_TRY(bl_relay_choose(j->relay, state->home, state->copies, state->n, state->feeder));
  } else {
    for (int32_t i = 0; i < state->n; ++i) state->feeder[i] = state->home[state->copies[i].expert];
  }
  const bl_placed placed = {.home = state->home,
                            .copies = state->copies,
                            .feeder = state->feeder,
                            .n_copies = state->n,
                            .old_home = p->homes == BL_PLACE_HOMES_COST ? p->old_home : NULL};
  return bl_place_cost_price(j->cost, p->demand, &placed, &state->price);
}

static void sort_by_rank(bl_place_judge *j, bl_place_state *state) {
  memset(j->start, 0, ((size_t)j->ranks + 1) * sizeof *j->start);
  for (int32_t i = 0; i < state->n; ++i) ++j->start[state->copies[i].rank + 1];
  for (int32_t r = 0; r < j->ranks; ++r) j->start[r + 1] += j->start[r];
  for (int32_t i = 0; i < state->n; ++i) j->sorted[j->start[state->copies[i].rank]++] = state->copies[i];
  memcpy(state->copies, j->sorted, (size_t)state->n * sizeof *state->copies);
}

/* Shares that are best for compute at the speeds given: every token lies with the nearest host at first, and no more
 * of them change hosts than must. */
static void level_shares(bl_place_judge *j, const bl_copy *all, int32_t n, const double *speed, double *share) {
  const double *load = j->problem.demand->load;
  double speeds = 0;
  bl_flow_graph_load(&j->graph, &j->hosts);
  const double sum = bl_flow_start(&j->graph, j->flow, load);
  for (int32_t i = 0; i < n; ++i) {
    const int32_t e = all[i].expert;
    const double amount = fmin(j->near_share[i] * load[e], j->flow.tokens[e]);
    j->flow.tokens[j->experts + i] = amount;
    j->flow.tokens[e] -= amount;
    j->flow.rank_load[all[i].rank] += amount;
    j->flow.rank_load[j->hosts.home[e]] -= amount;
  }
  for (int32_t r = 0; r < j->ranks; ++r) speeds += speed ? speed[r] : 1;
  const double mean = sum / speeds;
  if (sum > 0) bl_flow_solve(&j->graph, &j->scratch, j->flow, speed, mean, DBL_MAX, mean * BL_SHARES_TINY);
  for (int32_t i = 0; i < n; ++i) {
    const double whole = load[all[i].expert];
    share[i] = whole > 0 ? j->flow.tokens[j->experts + i] / whole : 0;
  }
}

/* What the ranks of the group of `size` around `rank` still have to send is divided alike among the hosts there. */
static void serve_group(bl_place_judge *j, const double *source, double each, int32_t rank, int32_t size) {
  const int32_t begin = rank / size * size, end = begin + size < j->ranks ? begin + size : j->ranks;
  double sent = 0;
  int32_t hosts = 0;
  for (int32_t r = begin; r < end; ++r) {
    if (!j->served[r]) sent += source ? source[r] : each;
    hosts += j->taken[r] >= 0;
    j->served[r] = true;
  }
  for (int32_t r = begin; r < end && sent > 0; ++r)
    if (j->taken[r] >= 0) j->taken[r] += sent / hosts;
}

/* Every source goes to the nearest hosts of an expert: its home and the copies from first[expert] on. What has found
 * none in a group that it shares with one is divided alike among all. */
static void near_hosts(bl_place_judge *j, int32_t expert, int32_t home, const bl_copy *all) {
  const bl_place_machine *m = j->problem.machine;
  const bl_place_demand *d = j->problem.demand;
  const double *source = d->source ? d->source + (int64_t)expert * j->ranks : NULL, each = d->load[expert] / j->ranks;
  const int32_t *next = j->next, first = j->first[expert];
  double left = 0;
  int32_t hosts = 1;
  j->taken[home] = 0;
  for (int32_t i = first; i >= 0; i = next[i], ++hosts) j->taken[all[i].rank] = 0;
  for (int32_t l = 0; l < m->levels; ++l) {
    const int32_t size = l > 0 ? m->level[l - 1].ranks : 1;
    serve_group(j, source, each, home, size);
    for (int32_t i = first; i >= 0; i = next[i]) serve_group(j, source, each, all[i].rank, size);
  }
  for (int32_t r = 0; r < j->ranks; ++r) {
    const double sent = source ? source[r] : each;
    left += j->served[r] ? 0 : sent;
  }
  if (left > 0) {
    j->taken[home] += left / hosts;
    for (int32_t i = first; i >= 0; i = next[i]) j->taken[all[i].rank] += left / hosts;
  }
}

/* Nothing is served, and no rank a host any more. */
static void forget_hosts(bl_place_judge *j, int32_t expert, int32_t home, const bl_copy *all) {
  const bl_place_machine *m = j->problem.machine;
  const int32_t widest = m->levels > 1 ? m->level[m->levels - 2].ranks : 1;
  for (int32_t i = j->first[expert], rank = home;; rank = all[i].rank, i = j->next[i]) {
    const int32_t begin = rank / widest * widest, end = begin + widest < j->ranks ? begin + widest : j->ranks;
    for (int32_t r = begin; r < end; ++r) j->served[r] = false;
    j->taken[rank] = -1;
    if (i < 0) break;
  }
}

/* Shares by which every source goes to the nearest hosts of each expert; copies are sorted by rank, not by expert. */
static void near_shares(bl_place_judge *j, const bl_place_state *state, const bl_copy *all, int32_t n, double *share) {
  const bl_place_demand *d = j->problem.demand;
  int32_t *first = j->first, *next = j->next; /* copies of each expert */
  for (int32_t e = 0; e < j->experts; ++e) first[e] = -1;
  for (int32_t i = n - 1; i >= 0; --i) {
    next[i] = first[all[i].expert];
    first[all[i].expert] = i;
  }
  for (int32_t r = 0; r < j->ranks; ++r) {
    j->served[r] = false;
    j->taken[r] = -1;
  }
  for (int32_t e = 0; e < j->experts; ++e) {
    if (first[e] < 0) continue;
    near_hosts(j, e, state->home[e], all);
    for (int32_t i = first[e]; i >= 0; i = next[i]) share[i] = d->load[e] > 0 ? j->taken[all[i].rank] / d->load[e] : 0;
    forget_hosts(j, e, state->home[e], all);
  }
}

/* Into level_share; what was there is in last_share. */
static void level_at(bl_place_judge *j, const bl_copy *all, int32_t n, double height) {
  const double *speed = j->problem.machine->speed;
  double *last = j->level_share;
  j->level_share = j->last_share;
  j->last_share = last;
  for (int32_t r = 0; speed && r < j->ranks; ++r) j->cut[r] = fmin(speed[r], height);
  level_shares(j, all, n, speed ? j->cut : NULL, j->level_share);
}

/* The price with shares on the way from those that level to those that are nearest; copies that take nothing are
 * dropped. The best so far is kept.  @return : in *better whether this is it. */
static bl_status price_shares(bl_place_judge *j, bl_place_state *state, const bl_copy *all, int32_t n, double part,
                              bool *better) {
  state->n = 0;
  for (int32_t i = 0; i < n; ++i) {
    const double share = j->level_share[i] + part * (j->near_share[i] - j->level_share[i]);
    if (share > 1e-9) state->copies[state->n++] = (bl_copy){all[i].expert, all[i].rank, share < 1 ? share : 1};
  }
  BL_TRY(bl_place_judge_price(j, state));
  *better = state->price.total_us < j->kept.price.total_us;
  if (*better) bl_place_state_assign(j, &j->kept, state);
  return BL_OK;
}

bl_status bl_place_judge_solve(bl_place_judge *j, bl_place_state *state) {
  static const double parts[] = {0.25, 0.5, 0.75, 1};
  const int32_t n = state->n;
  bool better = true;
  sort_by_rank(j, state);
  const bl_copy *all = j->sorted; /* now the same as the state's, which shares and drops change */
  for (int32_t i = 0; i < n; ++i) {
    j->hosts.copy_rank[i] = all[i].rank;
    j->hosts.copy_expert[i] = all[i].expert;
  }
  j->hosts.home = state->home;
  j->hosts.n_copy_slots = n;
  j->kept.price.total_us = DBL_MAX;
  near_shares(j, state, all, n, j->near_share);
  /* From the fastest ranks taking all they can to none taking more than the slowest, as long as it pays. */
  for (int32_t h = 0; h < j->n_heights && better; ++h) {
    level_at(j, all, n, j->heights[h]);
    BL_TRY(price_shares(j, state, all, n, 0, &better));
    if (!better) { /* back to the height before */
      double *last = j->level_share;
      j->level_share = j->last_share;
      j->last_share = last;
    }
    if (n == 0) break;
  }
  /* The price is convex in the shares, so where a step towards the nearest hosts does not pay no longer one does. */
  const bool worth_looking = n > 0 && j->kept.price.us[BL_PLACE_EXCHANGE] >= WORTH_LOOKING * j->kept.price.total_us;
  for (size_t i = 0, last = sizeof parts / sizeof *parts; worth_looking && i < last; ++i) {
    BL_TRY(price_shares(j, state, all, n, parts[i], &better));
    if (!better) break;
  }
  bl_place_state_assign(j, state, &j->kept);
  bl_place_state_count(j, state);
  return BL_OK;
}
