#include "planner/place/cost_starts.h"
#include "base/memory.h"
#include "planner/place/copies.h"
#include "planner/place/homes.h"
#include "planner/place/order.h"
#include <stdlib.h>
#include <string.h>

enum { MOST_RELABELLED = 128 /* groups: the assignment takes their number cubed */ };

typedef struct piece {
  double load;
  int32_t expert, number; /* of this expert: 0 becomes its home */
} piece;

struct bl_place_starts {
  const bl_place_judge *judge;
  bl_levels *levels;
  int32_t *homes; /* [ranks]: to take */
  int32_t *mark;  /* [ranks] */
  int32_t *rank_of, *needs;
  int32_t *feeds, *node_homes;    /* [ranks]: homes of spread experts, on a rank, in a node */
  int32_t *old_group, *new_group; /* [experts] */
  double *tokens;                 /* [experts]: still at home */
  double *load, *received;        /* [ranks]: tokens; of these from other nodes */
  double token_us, row_us;        /* of a token in compute; of one from another node in all its exchanges */
  piece *pieces;                  /* [experts + room] */
  bl_copies *search;              /* made when first asked for */
  bl_hosts hosts;                 /* likewise: what it works on */
  bool alike;                     /* speeds and slots of all ranks */
};

bl_status bl_place_starts_create(const bl_place_judge *j, bl_place_starts **out) {
  const char *what = "starts of a search";
  const size_t experts = (size_t)j->experts, ranks = (size_t)j->ranks;
  bl_place_starts *s;
  bl_status status = BL_OK;
  *out = NULL;
  BL_TRY(bl_new(&s, 1, sizeof *s, what));
  s->judge = j;
  BL_TRY_GOTO(status, bl_levels_create(j->experts, j->ranks, &s->levels), fail);
  BL_TRY_GOTO(status, bl_new(&s->homes, 6 * ranks + 2 * experts, sizeof *s->homes, what), fail);
  BL_TRY_GOTO(status, bl_new(&s->tokens, experts + 2 * ranks, sizeof *s->tokens, what), fail);
  BL_TRY_GOTO(status, bl_new(&s->pieces, experts + (size_t)j->room, sizeof *s->pieces, what), fail);
  s->mark = s->homes + ranks;
  s->rank_of = s->mark + ranks;
  s->needs = s->rank_of + ranks;
  s->feeds = s->needs + ranks;
  s->node_homes = s->feeds + ranks;
  s->old_group = s->node_homes + ranks;
  s->new_group = s->old_group + experts;
  s->load = s->tokens + experts;
  s->received = s->load + ranks;
  s->token_us = j->problem.machine->token_us;
  s->alike = j->problem.machine->speed == NULL;
  for (int32_t r = 1; r < j->ranks; ++r) s->alike = s->alike && j->problem.slots[r] == j->problem.slots[0];
  BL_TRY_GOTO(status, bl_levels_homes(j->experts, j->ranks, j->problem.slots, j->problem.machine->speed, s->homes),
              fail);
  *out = s;
  return BL_OK;
fail:
  bl_place_starts_free(s);
  return status;
}

void bl_place_starts_free(bl_place_starts *s) {
  if (!s) return;
  bl_levels_free(s->levels);
  bl_copies_free(s->search);
  bl_hosts_free(&s->hosts);
  free(s->homes);
  free(s->tokens);
  free(s->pieces);
  free(s);
}

static double speed_of(const bl_place_starts *s, int32_t rank) {
  const double *speed = s->judge->problem.machine->speed;
  return speed ? speed[rank] : 1;
}

static int32_t node_size(const bl_place_starts *s) { return s->judge->problem.machine->level[0].ranks; }

void bl_place_start_given(bl_place_starts *s, bl_place_state *state) {
  memcpy(state->home, s->judge->problem.old_home, (size_t)s->judge->experts * sizeof *state->home);
  state->n = 0;
  bl_place_state_count(s->judge, state);
}

/* -- relief -------------------------------------------------------------------------------------------------------- */

static void mark_hosts(bl_place_starts *s, const bl_place_state *state, int32_t expert) {
  for (int32_t r = 0; r < s->judge->ranks; ++r) s->mark[r] = 0;
  s->mark[state->home[expert]] = 1;
  for (int32_t i = 0; i < state->n; ++i)
    if (state->copies[i].expert == expert) s->mark[state->copies[i].rank] = 1;
}

/* The rank that can take most of `expert`, -1 if none; *amount of tokens, at most `most`. */
static int32_t find_taker(bl_place_starts *s, const bl_place_state *state, int32_t hot, double level, double most,
                          double *amount) {
  int32_t best = -1, near = -1;
  double room = 0, near_room = 0;
  for (int32_t r = 0; r < s->judge->ranks; ++r) {
    const double below = level * speed_of(s, r) - s->load[r];
    if (s->mark[r] || state->used[r] >= s->judge->problem.slots[r] || !(below > 0)) continue;
    if (below > room) best = r, room = below;
    if (r / node_size(s) == hot / node_size(s) && below > near_room) near = r, near_room = below;
  }
  if (room > most) room = most;
  if (near_room > most) near_room = most;
  *amount = near_room >= room / 2 ? near_room : room;
  return near_room >= room / 2 ? near : best;
}

void bl_place_start_relieve(bl_place_starts *s, double level, bl_place_state *state) {
  const bl_place_judge *j = s->judge;
  int32_t *first = s->needs, *next = s->new_group; /* homes of each rank */
  for (int32_t r = 0; r < j->ranks; ++r) first[r] = -1;
  for (int32_t e = j->experts - 1; e >= 0; --e) {
    next[e] = first[state->home[e]];
    first[state->home[e]] = e;
  }
  memset(s->load, 0, (size_t)j->ranks * sizeof *s->load);
  for (int32_t e = 0; e < j->experts; ++e) {
    s->tokens[e] = j->problem.demand->load[e];
    s->load[state->home[e]] += s->tokens[e];
  }
  for (int32_t i = 0; i < state->n; ++i) {
    const bl_copy *copy = &state->copies[i];
    const double amount = copy->share * j->problem.demand->load[copy->expert];
    s->tokens[copy->expert] -= amount;
    s->load[state->home[copy->expert]] -= amount;
    s->load[copy->rank] += amount;
  }
  while (state->n < j->room) {
    int32_t hot = 0, expert = -1;
    for (int32_t r = 1; r < j->ranks; ++r)
      if (s->load[r] / speed_of(s, r) > s->load[hot] / speed_of(s, hot)) hot = r;
    const double surplus = s->load[hot] - level * speed_of(s, hot);
    if (!(surplus > 1e-9 * s->load[hot])) break;
    for (int32_t e = first[hot]; e >= 0; e = next[e])
      if (expert < 0 || s->tokens[e] > s->tokens[expert]) expert = e;
    if (expert < 0) break;
    mark_hosts(s, state, expert);
    double amount;
    const double most = surplus < s->tokens[expert] ? surplus : s->tokens[expert];
    const int32_t taker = find_taker(s, state, hot, level, most, &amount);
    if (taker < 0) break;
    state->copies[state->n++] = (bl_copy){expert, taker, 1};
    ++state->used[taker];
    s->tokens[expert] -= amount;
    s->load[hot] -= amount;
    s->load[taker] += amount;
  }
}

bl_status bl_place_start_search(bl_place_starts *s, double copy_price, bl_place_state *state) {
  const bl_place_judge *j = s->judge;
  bl_copies_options options;
  if (!s->search) {
    int32_t room = -j->experts;
    for (int32_t r = 0; r < j->ranks; ++r) room += j->problem.slots[r];
    BL_TRY(bl_hosts_create(&s->hosts, j->experts, j->ranks, j->problem.slots));
    BL_TRY(bl_copies_create(j->experts, j->ranks, room, &s->search));
  }
  BL_TRY(bl_hosts_set_homes(&s->hosts, state->home));
  for (int32_t i = 0; i < state->n; ++i)
    for (int32_t k = 0; k < s->hosts.n_copy_slots; ++k)
      if (s->hosts.copy_rank[k] == state->copies[i].rank && s->hosts.copy_expert[k] < 0) {
        s->hosts.copy_expert[k] = state->copies[i].expert;
        break;
      }
  bl_copies_options_init(&options);
  options.copy_price = copy_price;
  bl_copies_search(s->search, &s->hosts, j->problem.demand->load, 1, j->problem.machine->speed, &options);
  state->n = 0;
  for (int32_t k = 0; k < s->hosts.n_copy_slots; ++k)
    if (s->hosts.copy_expert[k] >= 0)
      state->copies[state->n++] = (bl_copy){s->hosts.copy_expert[k], s->hosts.copy_rank[k], 1};
  bl_place_state_count(j, state);
  return BL_OK;
}

/* -- homes from scratch -------------------------------------------------------------------------------------------- */

bl_status bl_place_start_window(bl_place_starts *s, bool by_levels, bl_place_state *state) {
  const bl_place_judge *j = s->judge;
  const bl_place_machine *m = j->problem.machine;
  int32_t group[BL_PLACE_MAX_LEVELS], n_groups = 0;
  for (int32_t l = m->levels - 2; by_levels && l >= 0; --l) group[n_groups++] = m->level[l].ranks;
  state->n = bl_levels_place(s->levels, j->problem.demand->load, s->homes, j->problem.slots, m->speed, group, n_groups,
                             state->home, state->copies);
  bl_place_state_count(j, state);
  return BL_OK;
}

static int longest_first(const void *a, const void *b) {
  const piece *x = a, *y = b;
  if (x->load != y->load) return x->load < y->load ? 1 : -1;
  if (x->expert != y->expert) return x->expert < y->expert ? -1 : 1;
  return x->number - y->number;
}

/* Experts cut so that no piece exceeds `level` of a mean rank; as many as there are slots. */
static int32_t cut_pieces(bl_place_starts *s, double level) {
  const bl_place_judge *j = s->judge;
  double speeds = 0;
  int64_t spare = -(int64_t)j->experts;
  for (int32_t r = 0; r < j->ranks; ++r) {
    speeds += speed_of(s, r);
    spare += j->problem.slots[r];
  }
  int32_t n = 0;
  for (int32_t e = 0; e < j->experts; ++e) {
    const double load = j->problem.demand->load[e], most = level * speeds / j->ranks * (1 + 1e-9);
    int32_t pieces = 1;
    while (pieces < j->ranks && spare > 0 && load / pieces > most) {
      ++pieces;
      --spare;
    }
    for (int32_t i = 0; i < pieces; ++i) s->pieces[n++] = (piece){load / pieces, e, i};
  }
  qsort(s->pieces, (size_t)n, sizeof *s->pieces, longest_first);
  return n;
}

bl_status bl_place_start_pieces(bl_place_starts *s, double level, bl_place_state *state) {
  const bl_place_judge *j = s->judge;
  const int32_t n = cut_pieces(s, level), node = node_size(s);
  memset(s->load, 0, (size_t)j->ranks * sizeof *s->load);
  memset(state->used, 0, (size_t)j->ranks * sizeof *state->used);
  for (int32_t r = 0; r < j->ranks; ++r) s->mark[r] = -1;
  state->n = 0;
  for (int32_t i = 0; i < n; ++i) {
    const piece *p = &s->pieces[i];
    int32_t best = -1, near = -1;
    double least = 0, near_least = 0;
    for (int32_t r = 0; r < j->ranks; ++r) {
      if (state->used[r] >= j->problem.slots[r] || s->mark[r] == p->expert) continue;
      const double then = (s->load[r] + p->load) / speed_of(s, r);
      if (best < 0 || then < least) best = r, least = then;
      if (p->number > 0 && r / node == state->home[p->expert] / node && (near < 0 || then < near_least))
        near = r, near_least = then;
    }
    if (near >= 0 && near_least <= level * (1 + 1e-9)) best = near;
    if (best < 0) continue; /* a copy for which no rank is left; homes always find one */
    if (p->number == 0)
      state->home[p->expert] = best;
    else
      state->copies[state->n++] = (bl_copy){p->expert, best, 1};
    s->mark[best] = p->expert; /* pieces of one expert follow one another */
    s->load[best] += p->load;
    ++state->used[best];
  }
  return BL_OK;
}

/* -- a host in every node ------------------------------------------------------------------------------------------ */

static double sent_by_node(const bl_place_starts *s, int32_t expert, int32_t begin, int32_t end) {
  const bl_place_demand *d = s->judge->problem.demand;
  double sum = 0;
  if (!d->source) return d->load[expert] * (end - begin) / d->ranks;
  for (int32_t r = begin; r < end; ++r) sum += d->source[(int64_t)expert * d->ranks + r];
  return sum;
}

/* What a rank takes in compute and in receiving from other nodes: microseconds of a micro-batch. */
static double time_of(const bl_place_starts *s, int32_t rank) {
  return s->load[rank] / speed_of(s, rank) * s->token_us + s->received[rank] * s->row_us;
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
  const int32_t end = (n + 1) * node_size(s);
  return end < s->judge->ranks ? end : s->judge->ranks;
}

/* The rank of a node, with a slot, that feeds fewest experts' copies so far; of these the one that takes least
 * time. */
static int32_t least_feeding(const bl_place_starts *s, const bl_place_state *state, int32_t n) {
  int32_t best = -1;
  for (int32_t r = n * node_size(s); r < node_end(s, n); ++r) {
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
  if (old_home && s->node_homes[old_home[expert] / node_size(s)] < most) best = old_home[expert] / node_size(s);
  ++s->node_homes[best];
  return best;
}

static void spread_expert(bl_place_starts *s, bl_place_state *state, int32_t expert, int32_t home_node, bool keep) {
  const int32_t node = node_size(s), nodes = (s->judge->ranks + node - 1) / node;
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
  const int32_t node = node_size(s), nodes = (j->ranks + node - 1) / node, *old_home = j->problem.old_home;
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
  for (int32_t i = 0; i < j->experts; ++i) {
    const int32_t e = order[i];
    if (state->home[e] >= 0) continue;
    const int32_t rank = least_busy(s, state, 0, j->ranks), n = rank / node;
    settle_home(s, state, e, rank, load[e], load[e] - sent_by_node(s, e, n * node, node_end(s, n)));
  }
}

/* -- names of ranks ------------------------------------------------------------------------------------------------ */

/* Renames groups 0 .. groups - 1; n experts with old_group[], new_group[]. */
static bl_status rename_groups(bl_place_starts *s, int32_t n, int32_t groups) {
  for (int32_t g = 0; g < groups; ++g) s->needs[g] = 1;
  return bl_homes_relabel(s->old_group, s->new_group, n, groups, s->needs, s->needs, s->rank_of);
}

/* Ranks of node `node` exchange names; of all experts those count that live there before and after. */
static bl_status relabel_node(bl_place_starts *s, bl_place_state *state, int32_t begin, int32_t size) {
  const int32_t *old_home = s->judge->problem.old_home;
  int32_t n = 0;
  for (int32_t e = 0; e < s->judge->experts; ++e) {
    const int32_t then = state->home[e] - begin, before = old_home[e] - begin;
    if (then < 0 || then >= size || before < 0 || before >= size) continue;
    s->old_group[n] = before;
    s->new_group[n++] = then;
  }
  BL_TRY(rename_groups(s, n, size));
  for (int32_t e = 0; e < s->judge->experts; ++e)
    if (state->home[e] >= begin && state->home[e] < begin + size)
      state->home[e] = begin + s->rank_of[state->home[e] - begin];
  for (int32_t i = 0; i < state->n; ++i)
    if (state->copies[i].rank >= begin && state->copies[i].rank < begin + size)
      state->copies[i].rank = begin + s->rank_of[state->copies[i].rank - begin];
  return BL_OK;
}

bl_status bl_place_start_relabel(bl_place_starts *s, bl_place_state *state) {
  const bl_place_judge *j = s->judge;
  const int32_t node = node_size(s), nodes = j->ranks / node;
  if (!s->alike || j->problem.homes != BL_PLACE_HOMES_COST) return BL_OK;
  if (node < j->ranks && (j->ranks % node != 0 || nodes > MOST_RELABELLED)) return BL_OK;
  if (node > MOST_RELABELLED) return BL_OK;
  if (nodes > 1) {
    for (int32_t e = 0; e < j->experts; ++e) {
      s->old_group[e] = j->problem.old_home[e] / node;
      s->new_group[e] = state->home[e] / node;
    }
    BL_TRY(rename_groups(s, j->experts, nodes));
    for (int32_t e = 0; e < j->experts; ++e)
      state->home[e] = s->rank_of[state->home[e] / node] * node + state->home[e] % node;
    for (int32_t i = 0; i < state->n; ++i)
      state->copies[i].rank = s->rank_of[state->copies[i].rank / node] * node + state->copies[i].rank % node;
  }
  for (int32_t n = 0; n * node < j->ranks; ++n)
    BL_TRY(relabel_node(s, state, n * node, (n + 1) * node < j->ranks ? node : j->ranks - n * node));
  bl_place_state_count(j, state);
  return BL_OK;
}
