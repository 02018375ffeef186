/* A start: copies that relieve the hottest ranks. Two numbers a rank are kept up, so that the hottest rank and the one
 * with most room are found by a look at one array each. */
#include "planner/place/cost_starts_state.h"
#include "planner/place/order.h"
#include <math.h>
#include <string.h>

/* What is kept of a rank whose load or slots have changed: -load / speed, and minus the room below the level, infinite
 * where there is no slot. */
static void look_at(bl_place_starts *s, const bl_place_state *state, double level, int32_t r) {
  const double speed = bl_starts_speed(s, r);
  s->coolness[r] = -(s->load[r] / speed);
  s->fullness[r] = state->used[r] < s->judge->problem.slots[r] ? -(level * speed - s->load[r]) : INFINITY;
}

/* The rank that can take most of `expert`, -1 if none; *amount of tokens, at most `most`. Hosts of the expert are not
 * asked. */
static int32_t find_taker(bl_place_starts *s, const bl_place_state *state, int32_t expert, int32_t hot, double level,
                          double most, double *amount) {
  const int32_t node = bl_starts_node_size(s), begin = hot / node * node;
  const int32_t end = begin + node < s->judge->ranks ? begin + node : s->judge->ranks;
  s->fullness[state->home[expert]] = INFINITY;
  for (int32_t i = s->first_copy[expert]; i >= 0; i = s->next_copy[i]) s->fullness[state->copies[i].rank] = INFINITY;
  const int32_t best = bl_order_least(s->fullness, s->judge->ranks);
  int32_t near = -1;
  double room = best >= 0 && s->fullness[best] < 0 ? -s->fullness[best] : 0, near_room = 0;
  for (int32_t r = begin; r < end; ++r)
    if (-s->fullness[r] > near_room) near = r, near_room = -s->fullness[r];
  look_at(s, state, level, state->home[expert]);
  for (int32_t i = s->first_copy[expert]; i >= 0; i = s->next_copy[i]) look_at(s, state, level, state->copies[i].rank);
  if (!(room > 0)) return -1;
  if (room > most) room = most;
  if (near_room > most) near_room = most;
  *amount = near_room >= room / 2 ? near_room : room;
  return near_room >= room / 2 ? near : best;
}

static void list_copy(bl_place_starts *s, const bl_place_state *state, int32_t i) {
  const int32_t e = state->copies[i].expert;
  s->next_copy[i] = s->first_copy[e];
  s->first_copy[e] = i;
}

/* Homes of each rank and copies of each expert, tokens and loads. */
static void begin(bl_place_starts *s, const bl_place_state *state, double level) {
  const bl_place_judge *j = s->judge;
  int32_t *first = s->needs, *next = s->new_group;
  for (int32_t r = 0; r < j->ranks; ++r) first[r] = -1;
  for (int32_t e = j->experts - 1; e >= 0; --e) {
    next[e] = first[state->home[e]];
    first[state->home[e]] = e;
    s->first_copy[e] = -1;
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
    list_copy(s, state, i);
  }
  for (int32_t r = 0; r < j->ranks; ++r) look_at(s, state, level, r);
}

void bl_place_start_relieve(bl_place_starts *s, double level, bl_place_state *state) {
  const bl_place_judge *j = s->judge;
  const int32_t *first = s->needs, *next = s->new_group;
  begin(s, state, level);
  while (state->n < j->room) {
    const int32_t hot = bl_order_least(s->coolness, j->ranks);
    int32_t expert = -1;
    const double surplus = s->load[hot] - level * bl_starts_speed(s, hot);
    if (!(surplus > 1e-9 * s->load[hot])) break;
    for (int32_t e = first[hot]; e >= 0; e = next[e])
      if (expert < 0 || s->tokens[e] > s->tokens[expert]) expert = e;
    if (expert < 0) break;
    double amount;
    const double most = surplus < s->tokens[expert] ? surplus : s->tokens[expert];
    const int32_t taker = find_taker(s, state, expert, hot, level, most, &amount);
    if (taker < 0) break;
    state->copies[state->n] = (bl_copy){expert, taker, 1};
    list_copy(s, state, state->n++);
    ++state->used[taker];
    s->tokens[expert] -= amount;
    s->load[hot] -= amount;
    s->load[taker] += amount;
    look_at(s, state, level, hot);
    look_at(s, state, level, taker);
  }
}
