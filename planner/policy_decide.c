/* What each policy decides for one layer from the counts it may know. */
#include "base/memory.h"
#include "planner/baselines/eplb.h"
#include "planner/baselines/fastermoe.h"
#include "planner/baselines/smartmoe.h"
#include "planner/place/homes.h"
#include "planner/place/rehome.h"
#include "planner/policy_state.h"
#include <string.h>

bl_status bl_policy_set_hosts(bl_hosts *hosts, const int32_t *home, const bl_copy *copies, int32_t n) {
  BL_TRY(bl_hosts_set_homes(hosts, home));
  for (int32_t i = 0; i < n; ++i) {
    int32_t s = 0;
    while (s < hosts->n_copy_slots && (hosts->copy_rank[s] != copies[i].rank || hosts->copy_expert[s] >= 0)) ++s;
    if (s == hosts->n_copy_slots) return bl_fail(BL_EINPUT, "rank %d has no slot for a copy", copies[i].rank);
    hosts->copy_expert[s] = copies[i].expert;
  }
  return BL_OK;
}

static const double *newest(const bl_policy *p, int32_t layer) {
  return p->history.newest + (int64_t)layer * p->history.width;
}

/* Homes a rank may have where every rank has equally many, as far as slots allow. */
static void equal_homes(const bl_policy *p, int32_t *most) {
  const int32_t each = (p->experts + p->ranks - 1) / p->ranks;
  int64_t room = 0;
  for (int32_t r = 0; r < p->ranks; ++r) room += most[r] = p->slots[r] < each ? p->slots[r] : each;
  for (int32_t r = 0; room < p->experts && r < p->ranks; ++r) most[r] = p->slots[r];
}

static bl_status decide_smartmoe(bl_policy *p, int32_t l) {
  bl_hosts *hosts = &p->layer[l].hosts;
  int32_t *work;
  bool adopted;
  BL_TRY(bl_new(&work, (size_t)(p->experts + p->ranks), sizeof *work, "a decision"));
  int32_t *home = work + p->ranks;
  equal_homes(p, work);
  memcpy(home, hosts->home, (size_t)p->experts * sizeof *home);
  bl_status status = bl_smartmoe_place(newest(p, l), p->experts, p->ranks, work, p->config.ties, home, &adopted);
  if (status == BL_OK && adopted) status = bl_hosts_set_homes(hosts, home);
  free(work);
  return status;
}

/* Replicas become hosts: the home stays where it is still a host, else the lowest host; the others are copies. */
static bl_status take_replicas(bl_policy *p, bl_policy_layer *layer, const int32_t *replicas, int32_t *home,
                               bl_copy *copies) {
  bl_hosts *hosts = &layer->hosts;
  int32_t n = 0;
  for (int32_t e = 0; e < p->experts; ++e) {
    home[e] = hosts->home[e];
    if (replicas[(int64_t)home[e] * p->experts + e] > 0) continue;
    for (home[e] = 0; replicas[(int64_t)home[e] * p->experts + e] == 0;) ++home[e];
  }
  for (int32_t r = 0; r < p->ranks; ++r)
    for (int32_t e = 0; e < p->experts; ++e)
      if (replicas[(int64_t)r * p->experts + e] > 0 && home[e] != r) copies[n++] = (bl_copy){e, r, 0};
  BL_TRY(bl_policy_set_hosts(hosts, home, copies, n));
  for (int32_t s = 0; s < hosts->n_copy_slots; ++s) {
    const int32_t e = hosts->copy_expert[s];
    layer->fraction[s] = 0;
    if (e < 0) continue;
    int32_t all = 0;
    for (int32_t r = 0; r < p->ranks; ++r) all += replicas[(int64_t)r * p->experts + e];
    layer->fraction[s] = (double)replicas[(int64_t)hosts->copy_rank[s] * p->experts + e] / all;
  }
  return BL_OK;
}

static bl_status decide_eplb(bl_policy *p, int32_t l) {
  int32_t *replicas;
  bl_copy *copies;
  const size_t experts = (size_t)p->experts;
  BL_TRY(bl_new(&replicas, ((size_t)p->ranks + 1) * experts, sizeof *replicas, "a decision"));
  bl_status status = bl_new(&copies, (size_t)p->max_copies + experts, sizeof *copies, "a decision");
  if (status == BL_OK) {
    status = bl_eplb_place(newest(p, l), p->experts, p->ranks, p->slots, replicas);
    if (status == BL_OK)
      status = take_replicas(p, &p->layer[l], replicas, replicas + (size_t)p->ranks * experts, copies);
    free(copies);
  }
  free(replicas);
  return status;
}

static bl_status decide_fastermoe(bl_policy *p, int32_t l) {
  bl_hosts *hosts = &p->layer[l].hosts;
  const bl_fastermoe_model model = bl_fastermoe_model_default();
  bl_fastermoe_choice choice;
  int32_t *order;
  BL_TRY(bl_new(&order, (size_t)p->experts, sizeof *order, "a decision"));
  const bl_status status =
      bl_fastermoe_choose(&model, newest(p, l) + p->experts, p->experts, p->ranks, hosts->home, order, &choice);
  for (int32_t s = 0, rank = -1, next = 0; status == BL_OK && s < hosts->n_copy_slots; ++s) {
    if (hosts->copy_rank[s] != rank) {
      rank = hosts->copy_rank[s];
      next = 0;
    }
    while (next < choice.shadows && hosts->home[order[next]] == rank) ++next;
    hosts->copy_expert[s] = next < choice.shadows ? order[next++] : -1;
  }
  free(order);
  return status;
}

/* The loads that a search for copy hosts looks at, with their weights in `options`: with lag 0 the step's own. */
static const double *scenarios_of(bl_policy *p, int32_t l, int32_t *n, bl_copies_options *options) {
  *n = 1;
  if (p->config.lag == 0) return newest(p, l);
  *n = bl_history_scenarios(&p->history, l, p->scenarios, p->weights);
  options->weight = p->weights;
  return p->scenarios;
}

static void search_copies(bl_policy *p, int32_t l, bl_hosts *hosts) {
  enum { TRIES = 8, LEAST_TRIES = 64, MOST_TRIES = 128 }; /* for each copy slot, and in all */
  int32_t n;
  bl_copies_options options;
  bl_copies_options_init(&options);
  options.budget = p->max_copies < LEAST_TRIES / TRIES  ? LEAST_TRIES
                   : p->max_copies > MOST_TRIES / TRIES ? MOST_TRIES
                                                        : p->max_copies * TRIES;
  const double *scenarios = scenarios_of(p, l, &n, &options);
  if (p->config.homes == BL_HOMES_COST) options.copy_price = p->config.copy_price;
  bl_copies_search(p->copies, hosts, scenarios, n, p->speed, &options);
}

/* The window rule needs ceil(E/P) + 1 slots on every rank and equal speeds. */
static bool window_fits(const bl_policy *p) {
  const int32_t each = (p->experts + p->ranks - 1) / p->ranks;
  for (int32_t r = 0; r < p->ranks; ++r)
    if (p->slots[r] <= each && p->ranks > 1) return false;
  return p->speed == NULL;
}

/* Homes and copies from scratch, ranks renamed so that most homes stay. home[], rank_of[], needs[] are workspace. */
static bl_status place_window(bl_policy *p, const double *load, bl_hosts *hosts, int32_t *home, int32_t *rank_of,
                              int32_t *needs, bl_copy *copies) {
  const int32_t n = bl_window_place(p->window, load, home, copies);
  memset(needs, 0, (size_t)p->ranks * sizeof *needs);
  for (int32_t e = 0; e < p->experts; ++e) ++needs[home[e]];
  for (int32_t i = 0; i < n; ++i) ++needs[copies[i].rank];
  BL_TRY(bl_homes_relabel(hosts->home, home, p->experts, p->ranks, needs, p->slots, rank_of));
  for (int32_t e = 0; e < p->experts; ++e) home[e] = rank_of[home[e]];
  for (int32_t i = 0; i < n; ++i) copies[i].rank = rank_of[copies[i].rank];
  return bl_policy_set_hosts(hosts, home, copies, n);
}

/* Where the window rule does not fit: clipped longest-first homes, one slot a rank kept for copies where it can be,
 * then a search for copies. */
static bl_status place_clipped(bl_policy *p, const double *load, bl_hosts *hosts, int32_t *home, int32_t *most) {
  int64_t room = 0;
  for (int32_t r = 0; r < p->ranks; ++r) room += most[r] = p->slots[r] > 1 ? p->slots[r] - 1 : p->slots[r];
  for (int32_t r = 0; r < p->ranks && room < p->experts; ++r) {
    room += p->slots[r] - most[r];
    most[r] = p->slots[r];
  }
  BL_TRY(bl_homes_longest_first(load, p->experts, p->ranks, most, p->speed, p->max_copies > 0, home));
  if (memcmp(home, hosts->home, (size_t)p->experts * sizeof *home) != 0) BL_TRY(bl_hosts_set_homes(hosts, home));
  return BL_OK;
}

static bl_status decide_free(bl_policy *p, int32_t l) {
  bl_hosts *hosts = &p->layer[l].hosts;
  const double *load = p->config.lag == 0 ? newest(p, l) : bl_history_forecast(&p->history, l);
  int32_t *work;
  bl_copy *copies;
  double sum = 0;
  for (int32_t e = 0; e < p->experts; ++e) sum += load[e];
  if (!(sum > 0)) return BL_OK;
  BL_TRY(bl_new(&work, (size_t)(p->experts + 2 * p->ranks), sizeof *work, "a decision"));
  bl_status status = bl_new(&copies, (size_t)p->ranks, sizeof *copies, "a decision");
  if (status == BL_OK) {
    int32_t *rank_of = work + p->experts, *needs = rank_of + p->ranks;
    const bool window = window_fits(p);
    status = window ? place_window(p, load, hosts, work, rank_of, needs, copies)
                    : place_clipped(p, load, hosts, work, rank_of);
    if (status == BL_OK && p->max_copies > 0) search_copies(p, l, hosts);
    free(copies);
  }
  free(work);
  return status;
}

/* Shares that stay until the next decision: solved on the forecast. */
static void freeze_shares(bl_policy *p, int32_t l) {
  bl_policy_layer *layer = &p->layer[l];
  const double *load = p->config.lag == 0 ? newest(p, l) : bl_history_forecast(&p->history, l);
  bl_shares_solve(p->shares, &layer->hosts, load, p->speed);
  for (int32_t s = 0; s < layer->hosts.n_copy_slots; ++s) {
    const int32_t e = layer->hosts.copy_expert[s];
    layer->fraction[s] = e >= 0 && load[e] > 0 ? bl_shares_copy_tokens(p->shares, s) / load[e] : 0;
  }
}

/* Homes are looked at when the last steps were unbalanced though copies were chosen for them, and now and then in case
 * an exchange makes copies unnecessary. Counted in records, so that replay and run look alike. */
static bool time_to_look(const bl_policy *p, const bl_policy_layer *layer) {
  static const double UNBALANCED = 1.02;
  enum { LOOK_EVERY = 10, REST = 3 };
  double recent = 0;
  for (int32_t i = 0; i < BL_POLICY_TRIGGER; ++i) recent += layer->recent[i];
  const int64_t since = p->history.known - layer->last_look;
  if (p->config.copy_price > 0 && since >= LOOK_EVERY) return true;
  return since >= REST && recent / BL_POLICY_TRIGGER > UNBALANCED;
}

static bl_status decide_cost(bl_policy *p, int32_t l) {
  bl_policy_layer *layer = &p->layer[l];
  if (!time_to_look(p, layer)) {
    if (p->max_copies > 0) search_copies(p, l, &layer->hosts);
    return BL_OK;
  }
  int32_t n, moved;
  bl_rehome_options options;
  bl_rehome_options_init(&options);
  const double *scenarios = scenarios_of(p, l, &n, &options.copies);
  options.copies.copy_price = p->config.copy_price;
  layer->last_look = p->history.known;
  BL_TRY(bl_rehome(p->copies, p->shares, &layer->hosts, p->spare, scenarios, n, p->speed, &options, &moved));
  if (p->max_copies > 0) search_copies(p, l, &layer->hosts);
  return BL_OK;
}

static bl_status decide_ballast(bl_policy *p, int32_t l) {
  bl_hosts *hosts = &p->layer[l].hosts;
  if (p->config.homes == BL_HOMES_FREE) {
    BL_TRY(decide_free(p, l));
  } else if (p->config.homes == BL_HOMES_COST) {
    BL_TRY(decide_cost(p, l));
  } else if (p->max_copies > 0) {
    search_copies(p, l, hosts);
  }
  if (p->config.stale) freeze_shares(p, l);
  return BL_OK;
}

bl_status bl_policy_decide(bl_policy *p, int32_t l) {
  switch (p->config.kind) {
  case BL_POLICY_SMARTMOE:
    return decide_smartmoe(p, l);
  case BL_POLICY_EPLB:
    return decide_eplb(p, l);
  case BL_POLICY_FASTERMOE:
    return decide_fastermoe(p, l);
  case BL_POLICY_BALLAST:
    return decide_ballast(p, l);
  default:
    return BL_OK;
  }
}

/* Puts experts that stay on a rank back into the slots they had: a copy that stays is not filled again. */
static void keep_slots(const bl_hosts *before, bl_hosts *after) {
  for (int32_t s = 0; s < after->n_copy_slots; ++s) {
    const int32_t stays = before->copy_expert[s];
    if (stays < 0 || after->copy_expert[s] == stays) continue;
    for (int32_t t = 0; t < after->n_copy_slots; ++t) {
      if (after->copy_rank[t] != after->copy_rank[s] || after->copy_expert[t] != stays) continue;
      after->copy_expert[t] = after->copy_expert[s];
      after->copy_expert[s] = stays;
      break;
    }
  }
}

/* The imbalance that a search for copies reaches from these hosts on the step's own counts, and what its copies cost.
 */
static double search_now(bl_policy *p, bl_hosts *hosts, const double *counts) {
  bl_copies_options options;
  int32_t copies = 0;
  bl_copies_options_init(&options);
  if (p->config.homes == BL_HOMES_COST) options.copy_price = p->config.copy_price;
  const double reached = bl_copies_search(p->copies, hosts, counts, 1, p->speed, &options);
  for (int32_t s = 0; s < hosts->n_copy_slots; ++s) copies += hosts->copy_expert[s] >= 0;
  return reached + options.copy_price * copies;
}

double bl_policy_repair(bl_policy *p, int32_t l, const double *counts, double imbalance) {
  static const double WORTH_A_RESTART = 0.005;
  bl_policy_layer *layer = &p->layer[l];
  bl_hosts *hosts = &layer->hosts, *found = &p->spare[0], *other = &p->spare[1];
  if (p->max_copies == 0 || bl_hosts_assign(found, hosts) != BL_OK || bl_hosts_assign(other, hosts) != BL_OK)
    return imbalance;
  const double reached = search_now(p, found, counts);
  if (reached > 1 + WORTH_A_RESTART) {
    bl_copies_greedy(p->copies, other, counts, p->speed);
    if (search_now(p, other, counts) < reached - WORTH_A_RESTART) found = other;
  }
  keep_slots(hosts, found);
  for (int32_t s = 0; s < hosts->n_copy_slots; ++s) {
    if (found->copy_expert[s] == hosts->copy_expert[s]) continue;
    layer->taken[s] = 0; /* what the old copy took is no longer this slot's */
    layer->report.late_copies += found->copy_expert[s] >= 0;
    hosts->copy_expert[s] = found->copy_expert[s];
  }
  return bl_shares_solve(p->shares, hosts, counts, p->speed);
}
