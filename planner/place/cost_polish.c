#include "planner/place/cost_polish.h"

enum { HOME = -1 }; /* instead of a copy's number */

static int32_t rank_of(const bl_place_state *state, int32_t expert, int32_t copy) {
  return copy == HOME ? state->home[expert] : state->copies[copy].rank;
}

/* Whether a term of the price is decided at this rank. */
static bool is_busy(const bl_place_judge *j, const bl_place_state *state, int32_t rank) {
  const bl_place_port *port = &state->price.port[BL_PLACE_EXCHANGE];
  if (rank == state->price.slowest) return true;
  if (port->level == 0) return false;
  return rank >= port->rank && rank < port->rank + j->problem.machine->level[port->level - 1].sharing;
}

static double share_of(const bl_place_state *state, int32_t expert, int32_t copy) {
  if (copy != HOME) return state->copies[copy].share;
  double rest = 1;
  for (int32_t i = 0; i < state->n; ++i)
    if (state->copies[i].expert == expert) rest -= state->copies[i].share;
  return rest > 0 ? rest : 0;
}

/* Moves `part` of the expert from one host to another, again and again while it helps. A copy keeps a crumb, so that it
 * stays in the list. */
static bl_status move_share(bl_place_judge *j, bl_place_state *now, bl_place_state *trial, int32_t expert, int32_t from,
                            int32_t to, double part, int32_t *left, bool *helped) {
  const double crumb = from == HOME ? 0 : 1e-6;
  for (bool better = true; better && *left > 0;) {
    const double has = share_of(now, expert, from) - crumb, moved = part < has ? part : has;
    if (!(moved > 1e-6)) return BL_OK;
    bl_place_state_assign(j, trial, now);
    if (from != HOME) trial->copies[from].share -= moved;
    if (to != HOME) trial->copies[to].share += moved;
    BL_TRY(bl_place_judge_price(j, trial));
    --*left;
    better = trial->price.total_us < now->price.total_us * (1 - 1e-9);
    if (!better) return BL_OK;
    bl_place_state_assign(j, now, trial);
    *helped = true;
  }
  return BL_OK;
}

static bl_status polish_pair(bl_place_judge *j, bl_place_state *now, bl_place_state *trial, int32_t a, int32_t b,
                             double part, int32_t *left, bool *helped) {
  const int32_t expert = now->copies[a != HOME ? a : b].expert;
  if (!is_busy(j, now, rank_of(now, expert, a)) && !is_busy(j, now, rank_of(now, expert, b))) return BL_OK;
  BL_TRY(move_share(j, now, trial, expert, a, b, part, left, helped));
  return move_share(j, now, trial, expert, b, a, part, left, helped);
}

bl_status bl_place_polish(bl_place_judge *j, bl_place_state *now, bl_place_state *trial, int32_t *left) {
  for (double part = 0.25; part > 1e-3 && *left > 0;) {
    bool helped = false;
    for (int32_t a = 0; a<now->n && * left> 0; ++a) {
      BL_TRY(polish_pair(j, now, trial, a, HOME, part, left, &helped));
      for (int32_t b = a + 1; b<now->n && * left> 0; ++b)
        if (now->copies[b].expert == now->copies[a].expert)
          BL_TRY(polish_pair(j, now, trial, a, b, part, left, &helped));
    }
    if (!helped) part /= 3;
  }
  return BL_OK;
}
