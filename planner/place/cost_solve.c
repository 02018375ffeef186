#include "planner/place/cost_solve.h"
#include "base/memory.h"
#include "planner/place/cost_change.h"
#include "planner/place/cost_polish.h"
#include "planner/place/cost_starts.h"
#include <float.h>
#include <string.h>

enum { BEST = 4 /* starting points that are searched from */, LEVELS = 12 };

struct bl_place_solver {
  bl_place_judge judge;
  bl_place_starts *starts;
  bl_place_changes *changes;
  bl_place_state best[BEST], now, trial; /* best: by price, ascending; n_best of them */
  int32_t n_best;
};

bl_status bl_place_solver_create(const bl_place_problem *problem, bl_place_solver **out) {
  bl_place_solver *s;
  *out = NULL;
  BL_TRY(bl_new(&s, 1, sizeof *s, "the search for a placement"));
  bl_status status = BL_OK;
  BL_TRY_GOTO(status, bl_place_judge_create(problem, &s->judge), fail);
  BL_TRY_GOTO(status, bl_place_starts_create(&s->judge, &s->starts), fail);
  BL_TRY_GOTO(status, bl_place_changes_create(&s->judge, &s->changes), fail);
  for (int i = 0; i < BEST; ++i) BL_TRY_GOTO(status, bl_place_state_create(&s->judge, &s->best[i]), fail);
  BL_TRY_GOTO(status, bl_place_state_create(&s->judge, &s->now), fail);
  BL_TRY_GOTO(status, bl_place_state_create(&s->judge, &s->trial), fail);
  *out = s;
  return BL_OK;
fail:
  bl_place_solver_free(s);
  return status;
}

void bl_place_solver_free(bl_place_solver *s) {
  if (!s) return;
  bl_place_changes_free(s->changes);
  bl_place_starts_free(s->starts);
  for (int i = 0; i < BEST; ++i) bl_place_state_free(&s->best[i]);
  bl_place_state_free(&s->now);
  bl_place_state_free(&s->trial);
  bl_place_judge_free(&s->judge);
  free(s);
}

static bool fits(const bl_place_judge *j, const bl_place_state *state) {
  for (int32_t r = 0; r < j->ranks; ++r)
    if (state->used[r] > j->problem.slots[r]) return false;
  return true;
}

/* `now` becomes one of the best if its price is. */
static void keep(bl_place_solver *s) {
  int32_t at = s->n_best;
  if (!fits(&s->judge, &s->now)) return;
  while (at > 0 && s->now.price.total_us < s->best[at - 1].price.total_us) --at;
  if (at == BEST) return;
  if (at > 0 && s->best[at - 1].price.total_us == s->now.price.total_us) return; /* most likely the same */
  if (s->n_best < BEST) ++s->n_best;
  const bl_place_state room = s->best[s->n_best - 1];
  for (int32_t i = s->n_best - 1; i > at; --i) s->best[i] = s->best[i - 1];
  s->best[at] = room;
  bl_place_state_assign(&s->judge, &s->best[at], &s->now);
}

/* Where a price takes so long that only a few starting points can be had. */
static bool is_large(const bl_place_judge *j) { return (double)j->ranks * (j->experts + j->ranks) > 50000; }

/* -- starting points ----------------------------------------------------------------------------------------------- */

/* Hot experts with a host in every node: what a node sends them stays there. From as many of them as the slots take
 * down to one. */
static bl_status start_spread(bl_place_solver *s, bool keep_homes, double level) {
  bl_place_judge *j = &s->judge;
  const bl_place_machine *m = j->problem.machine;
  const int32_t node = m->level[0].ranks, nodes = (j->ranks + node - 1) / node;
  if (nodes < 2) return BL_OK;
  int64_t spare = -(int64_t)j->experts;
  for (int32_t r = 0; r < j->ranks; ++r) spare += j->problem.slots[r];
  if (spare / (nodes - 1) > j->experts) spare = (int64_t)j->experts * (nodes - 1);
  for (int64_t count = spare / (nodes - 1); count >= 1; count /= is_large(j) ? 4 : 2)
    for (int receiving = 0; receiving < 2; ++receiving) {
      if (receiving && (keep_homes || is_large(j))) break; /* where homes stay it chooses next to nothing */
      bl_place_start_spread(s->starts, (int32_t)count, keep_homes, receiving, &s->now);
      bl_place_start_relieve(s->starts, level, &s->now);
      BL_TRY(bl_place_judge_solve(j, &s->now));
      keep(s);
    }
  return BL_OK;
}

static bl_status start_given(bl_place_solver *s, const double *levels, int32_t n) {
  static const double copy_prices[] = {0, 0.01, 0.03};
  if (!s->judge.problem.old_home) return BL_OK;
  bl_place_start_given(s->starts, &s->now);
  if (!fits(&s->judge, &s->now)) return BL_OK;
  BL_TRY(bl_place_judge_solve(&s->judge, &s->now));
  keep(s);
  BL_TRY(start_spread(s, true, levels[0]));
  for (size_t i = 0; i < sizeof copy_prices / sizeof *copy_prices && !is_large(&s->judge); ++i) {
    bl_place_start_given(s->starts, &s->now);
    bl_place_start_relieve(s->starts, levels[0], &s->now);
    BL_TRY(bl_place_start_search(s->starts, copy_prices[i], &s->now));
    BL_TRY(bl_place_judge_solve(&s->judge, &s->now));
    keep(s);
  }
  for (int32_t i = 0; i < n; ++i) {
    bl_place_start_given(s->starts, &s->now);
    bl_place_start_relieve(s->starts, levels[i], &s->now);
    BL_TRY(bl_place_judge_solve(&s->judge, &s->now));
    keep(s);
  }
  return BL_OK;
}

static bl_status start_free(bl_place_solver *s, const double *levels, int32_t n) {
  const bool moves_cost = s->judge.problem.homes == BL_PLACE_HOMES_COST;
  for (int by_levels = 0; by_levels < 2; ++by_levels) {
    if (by_levels && s->judge.problem.machine->levels == 1) break;
    BL_TRY(bl_place_start_window(s->starts, by_levels, &s->now));
    if (moves_cost) BL_TRY(bl_place_start_relabel(s->starts, &s->now));
    BL_TRY(bl_place_judge_price(&s->judge, &s->now));
    keep(s);
    BL_TRY(bl_place_judge_solve(&s->judge, &s->now)); /* nearer hosts, and less for fast ranks, may be worth more */
    keep(s);
  }
  BL_TRY(start_spread(s, false, levels[0]));
  for (int32_t i = 0; i < n; ++i) {
    BL_TRY(bl_place_start_pieces(s->starts, levels[i], &s->now));
    if (moves_cost) BL_TRY(bl_place_start_relabel(s->starts, &s->now));
    BL_TRY(bl_place_judge_solve(&s->judge, &s->now));
    keep(s);
  }
  return BL_OK;
}

/* Loads a rank that starting points keep below: from the mean on, where the bound is cheapest, and without limit. */
static int32_t choose_levels(const bl_place_solver *s, const bl_place_bound *bound, double *levels) {
  static const double small[] = {1, 1.02, 1.05, 1.1, 1.2, 1.4, 1.7, 2.2, 3, 5}, large[] = {1};
  const bl_place_judge *j = &s->judge;
  const double *speed = j->problem.machine->speed;
  double sum = 0, speeds = 0;
  for (int32_t e = 0; e < j->experts; ++e) sum += j->problem.demand->load[e];
  for (int32_t r = 0; r < j->ranks; ++r) speeds += speed ? speed[r] : 1;
  int32_t n = 0;
  const size_t factors = is_large(j) ? sizeof large / sizeof *large : sizeof small / sizeof *small;
  for (size_t i = 0; i < factors; ++i) levels[n++] = sum / speeds * (is_large(j) ? large[i] : small[i]);
  levels[n++] = bound->level;
  if (!is_large(j)) levels[n++] = sum + 1;
  return n;
}

/* -- all together -------------------------------------------------------------------------------------------------- */

static bl_status improve_from(bl_place_solver *s, int32_t i, int32_t *left) {
  bl_place_state_assign(&s->judge, &s->now, &s->best[i]);
  BL_TRY(bl_place_changes_search(s->changes, &s->now, &s->trial, left));
  if (fits(&s->judge, &s->now) && s->now.price.total_us < s->best[i].price.total_us)
    bl_place_state_assign(&s->judge, &s->best[i], &s->now);
  return BL_OK;
}

/* Where the search has come to an end, a few changes made blindly and the search from there, again and again. */
static bl_status kick(bl_place_solver *s, bl_place_state *best, int32_t *left) {
  for (int32_t number = 0; *left > 0; ++number) {
    bl_place_state_assign(&s->judge, &s->now, best);
    --*left;
    BL_TRY(bl_place_changes_kick(s->changes, &s->now, 2 + number % 3, number));
    BL_TRY(bl_place_changes_search(s->changes, &s->now, &s->trial, left));
    if (fits(&s->judge, &s->now) && s->now.price.total_us < best->price.total_us)
      bl_place_state_assign(&s->judge, best, &s->now);
  }
  return BL_OK;
}

/* Half of the budget for all of the best starts alike, the rest for the one that has come farthest; where there is
 * little, all for the first. */
static bl_status improve(bl_place_solver *s, int32_t budget) {
  int32_t at = 0, spent = 0;
  const int32_t tried = is_large(&s->judge) ? 0 : s->n_best;
  for (int32_t i = 0; i < tried; ++i) {
    const int32_t given = budget / (2 * tried);
    int32_t left = given;
    BL_TRY(improve_from(s, i, &left));
    spent += given - left;
    if (s->best[i].price.total_us < s->best[at].price.total_us) at = i;
  }
  int32_t polishing = budget / 8, left = budget - spent - polishing;
  BL_TRY(improve_from(s, at, &left));
  BL_TRY(kick(s, &s->best[at], &left));
  BL_TRY(bl_place_polish(&s->judge, &s->best[at], &s->trial, &polishing));
  const bl_place_state first = s->best[0];
  s->best[0] = s->best[at];
  s->best[at] = first;
  return BL_OK;
}

/* Some twenty milliseconds at most: a price takes about so many ranks and experts. */
static int32_t default_budget(const bl_place_judge *j) {
  const double size = (double)j->ranks * (j->experts + j->ranks), n = 5e6 / size;
  return n > 4000 ? 4000 : n < 8 ? 8 : (int32_t)n;
}

bl_status bl_place_solve(bl_place_solver *s, const bl_place_demand *demand, const int32_t *old_home, int32_t budget,
                         bl_place_solution *out) {
  bl_place_judge *j = &s->judge;
  double levels[LEVELS + 2];
  j->problem.demand = demand;
  j->problem.old_home = old_home;
  j->evaluations = 0;
  s->n_best = 0;
  memset(out, 0, sizeof *out);
  if (demand->experts != j->experts || demand->ranks != j->ranks)
    return bl_fail(BL_EINPUT, "loads of %d experts on %d ranks: expected %d on %d", demand->experts, demand->ranks,
                   j->experts, j->ranks);
  if (!old_home && j->problem.homes != BL_PLACE_HOMES_FREE)
    return bl_fail(BL_EINPUT, "homes that stay, or whose moves cost, need the homes that there are");
  BL_TRY(bl_place_bound_find(&j->problem, &out->bound));
  const int32_t n = choose_levels(s, &out->bound, levels);
  BL_TRY(start_given(s, levels, n));
  if (j->problem.homes != BL_PLACE_HOMES_FIXED) BL_TRY(start_free(s, levels, n));
  if (s->n_best == 0) return bl_fail(BL_EINPUT, "the homes that stay do not fit into the slots");
  BL_TRY(improve(s, budget > 0 ? budget : default_budget(j)));
  const bl_place_state *best = &s->best[0];
  out->home = best->home;
  out->copies = best->copies;
  out->feeder = best->feeder;
  out->n_copies = best->n;
  out->price = best->price;
  out->evaluations = j->evaluations;
  return BL_OK;
}
