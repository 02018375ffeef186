/* Ranks of a start renamed, so that few homes move. */
#include "planner/place/cost_starts_state.h"
#include "planner/place/homes.h"

enum { MOST_RELABELLED = 128 /* groups: the assignment takes their number cubed */ };

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
  const int32_t node = bl_starts_node_size(s), nodes = j->ranks / node;
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
