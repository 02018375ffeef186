#include "base/memory.h"
#include "planner/place/cost_starts_state.h"
#include <stdlib.h>
#include <string.h>

bl_status bl_place_starts_create(const bl_place_judge *j, bl_place_starts **out) {
  const char *what = "starts of a search";
  const size_t experts = (size_t)j->experts, ranks = (size_t)j->ranks, room = (size_t)j->room;
  bl_place_starts *s;
  bl_status status = BL_OK;
  *out = NULL;
  BL_TRY(bl_new(&s, 1, sizeof *s, what));
  s->judge = j;
  BL_TRY_GOTO(status, bl_levels_create(j->experts, j->ranks, &s->levels), fail);
  BL_TRY_GOTO(status, bl_new(&s->homes, 6 * ranks + 3 * experts + room, sizeof *s->homes, what), fail);
  BL_TRY_GOTO(status, bl_new(&s->tokens, experts + 4 * ranks, sizeof *s->tokens, what), fail);
  BL_TRY_GOTO(status, bl_new(&s->pieces, experts + room, sizeof *s->pieces, what), fail);
  s->mark = s->homes + ranks;
  s->rank_of = s->mark + ranks;
  s->needs = s->rank_of + ranks;
  s->feeds = s->needs + ranks;
  s->node_homes = s->feeds + ranks;
  s->old_group = s->node_homes + ranks;
  s->new_group = s->old_group + experts;
  s->first_copy = s->new_group + experts;
  s->next_copy = s->first_copy + experts;
  s->load = s->tokens + experts;
  s->received = s->load + ranks;
  s->coolness = s->received + ranks;
  s->fullness = s->coolness + ranks;
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

void bl_place_start_given(bl_place_starts *s, bl_place_state *state) {
  memcpy(state->home, s->judge->problem.old_home, (size_t)s->judge->experts * sizeof *state->home);
  state->n = 0;
  bl_place_state_count(s->judge, state);
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
