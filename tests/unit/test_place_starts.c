/* Placements from which a search for the least price starts: each kind makes the same as one that asks every rank
 * anew for every copy, on ranks of unequal speed with unequal slots; and they are legal. */
#include "base/rng.h"
#include "planner/place/cost_solve.h"
#include "planner/place/cost_starts.h"
#include "tests/check.h"

enum { P = 48, E = 96, NODE = 8 };

typedef struct layer {
  int32_t slots[P], old_home[E];
  double counts[P * E], speed[P];
  bl_place_machine machine;
  bl_place_demand demand;
  bl_place_problem problem;
} layer;

static bl_status draw(layer *x, int turn) {
  bl_rng rng;
  bl_rng_seed(&rng, 12, (uint64_t)turn);
  for (int32_t e = 0; e < E; ++e) {
    const double popular = 100 * bl_det_exp(1.3 * bl_rng_normal(&rng));
    for (int32_t r = 0; r < P; ++r) x->counts[r * E + e] = (double)(int64_t)(popular * (0.7 + 0.6 * bl_rng_unit(&rng)));
    x->old_home[e] = e * P / E;
  }
  for (int32_t r = 0; r < P; ++r) {
    x->slots[r] = E / P + 1 + (int32_t)bl_rng_below(&rng, 3);
    x->speed[r] = 0.7 + 0.1 * (double)bl_rng_below(&rng, 4);
  }
  x->machine = (bl_place_machine){.ranks = P,
                                  .levels = 2,
                                  .level = {{NODE, 1, 300, 4}, {P, 1, 40, 12}},
                                  .token_us = 0.1,
                                  .row_bytes = 4096,
                                  .fill_bytes = 3e7,
                                  .reduce_bytes = 6e7,
                                  .state_bytes = 2e8,
                                  .exchanges = 4,
                                  .micro_batches = 4,
                                  .horizon = 1000};
  if (turn % 2) x->machine.speed = x->speed;
  x->problem = (bl_place_problem){.machine = &x->machine,
                                  .demand = &x->demand,
                                  .slots = x->slots,
                                  .old_home = x->old_home,
                                  .homes = BL_PLACE_HOMES_COST};
  return bl_place_demand_create(E, P, x->counts, P, &x->demand);
}

static bool is_legal(const layer *x, const bl_place_state *state) {
  int32_t used[P] = {0};
  bool legal = true;
  for (int32_t e = 0; e < E; ++e) {
    if (state->home[e] < 0 || state->home[e] >= P) return false;
    ++used[state->home[e]];
  }
  for (int32_t i = 0; i < state->n; ++i) {
    const bl_copy *a = &state->copies[i];
    ++used[a->rank];
    legal = legal && a->share > 0 && a->share <= 1 && a->rank != state->home[a->expert];
    for (int32_t k = 0; k < i; ++k)
      legal = legal && (a->rank != state->copies[k].rank || a->expert != state->copies[k].expert);
  }
  for (int32_t r = 0; r < P; ++r) legal = legal && used[r] <= x->slots[r] && used[r] == state->used[r];
  return legal;
}

static uint64_t note(const layer *x, const bl_place_state *state, uint64_t hash) {
  CHECK(is_legal(x, state));
  hash = bl_hash_bytes(state->home, E * sizeof *state->home, hash);
  for (int32_t i = 0; i < state->n; ++i)
    hash = bl_hash_u64(hash, (uint64_t)state->copies[i].expert, (uint64_t)state->copies[i].rank, 1);
  return hash;
}

static void test_starts(void) {
  static layer x;
  uint64_t relieved = 0, pieces = 0, spread = 0, solved = 0;
  double price = 0;
  for (int turn = 0; turn < 8; ++turn) {
    bl_place_judge judge;
    bl_place_starts *starts;
    bl_place_state state;
    double mean = 0;
    REQUIRE_OK(draw(&x, turn));
    REQUIRE_OK(bl_place_judge_create(&x.problem, &judge));
    REQUIRE_OK(bl_place_starts_create(&judge, &starts));
    REQUIRE_OK(bl_place_state_create(&judge, &state));
    for (int32_t e = 0; e < E; ++e) mean += x.demand.load[e] / P;
    bl_place_start_given(starts, &state);
    bl_place_start_relieve(starts, (1.1 + 0.1 * turn) * mean, &state);
    relieved = note(&x, &state, relieved);
    REQUIRE_OK(bl_place_judge_solve(&judge, &state));
    solved = note(&x, &state, solved);
    price += state.price.total_us;
    REQUIRE_OK(bl_place_start_pieces(starts, (1 + 0.2 * turn) * mean, &state));
    pieces = note(&x, &state, pieces);
    REQUIRE_OK(bl_place_judge_solve(&judge, &state));
    price += state.price.total_us;
    bl_place_start_spread(starts, 1 + turn, turn % 3 == 2, turn % 2, &state);
    spread = note(&x, &state, spread);
    bl_place_start_relieve(starts, (1.1 + 0.1 * turn) * mean, &state);
    relieved = note(&x, &state, relieved);
    REQUIRE_OK(bl_place_judge_solve(&judge, &state));
    price += state.price.total_us;
    bl_place_state_free(&state);
    bl_place_starts_free(starts);
    bl_place_judge_free(&judge);
    bl_place_demand_free(&x.demand);
  }
  CHECK(relieved == 0xdfe1b792177037b2);
  CHECK(pieces == 0x9b93a5776238b894);
  CHECK(spread == 0x4e31088c1ee5fe6b);
  CHECK(solved == 0x57297f4912d8a701);
  CHECK_NEAR(price, 1681251.895486, 1e-5);
}

/* With few prices to spend, which changes are tried first decides what is found. */
static void test_search_with_little(void) {
  static layer x;
  double price = 0;
  int evaluations = 0;
  for (int turn = 0; turn < 4; ++turn) {
    bl_place_solver *solver;
    bl_place_solution found;
    REQUIRE_OK(draw(&x, turn));
    REQUIRE_OK(bl_place_solver_create(&x.problem, &solver));
    REQUIRE_OK(bl_place_solve(solver, &x.demand, x.old_home, 60, &found));
    price += found.price.total_us;
    evaluations += found.evaluations;
    bl_place_solver_free(solver);
    bl_place_demand_free(&x.demand);
  }
  CHECK_INT(evaluations, 1362);
  CHECK_NEAR(price, 203596.110344, 1e-5);
}

int main(void) {
  RUN(test_starts);
  RUN(test_search_with_little);
  TEST_MAIN_END;
}
