#include "planner/command_place_prove.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/table.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

/* The plan with the homes as they are now. */
static bl_status read_now(bl_place_proofs *proofs, const bl_placement *wanted) {
  bl_plan *now = &proofs->now;
  BL_TRY(bl_plan_load(proofs->from, now));
  if (!now->has_placement) return bl_fail(BL_EINPUT, "%s: has no placement to start from", proofs->from);
  const bl_placement *have = &now->placement;
  if (have->experts != wanted->experts || have->ranks != wanted->ranks)
    return bl_fail(BL_EINPUT, "%s: places %d experts on %d ranks, expected %d on %d", proofs->from, have->experts,
                   have->ranks, wanted->experts, wanted->ranks);
  int32_t l = 0;
  while (l < have->layers && have->layer[l].layer == l) ++l;
  if (l < wanted->layers)
    return bl_fail(BL_EINPUT, "%s: places no layer %d, expected layers 0 to %d", proofs->from, l, wanted->layers - 1);
  return BL_OK;
}

bl_status bl_place_proofs_create(bl_place_proofs *proofs, const bl_placement *placement) {
  const int32_t layers = placement->layers;
  if (proofs->from) BL_TRY(read_now(proofs, placement));
  BL_TRY(bl_new(&proofs->layer, (size_t)layers, sizeof *proofs->layer, "proofs"));
  proofs->layers = layers;
  if (!bl_prove_has_solver())
    bl_warn("this program was built without GLPK (GLPK=0): --prove has its bounds and searches alone");
  return BL_OK;
}

void bl_place_proofs_free(bl_place_proofs *proofs) {
  for (int32_t l = 0; l < proofs->layers; ++l) bl_prove_result_free(&proofs->layer[l]);
  free(proofs->layer);
  proofs->layer = NULL;
  proofs->layers = 0;
  bl_plan_free(&proofs->now);
}

/* A move that costs more than all copies together: the fewest moves, and among these the fewest copies. */
static double dear(const bl_hosts *hosts) {
  int64_t copies = 1 - (int64_t)hosts->experts;
  for (int32_t r = 0; r < hosts->ranks; ++r) copies += hosts->slots[r];
  return (double)(copies > 1 ? copies : 1);
}

static void say(const bl_place_proofs *proofs, const bl_prove_problem *problem, const bl_prove_result *result,
                bl_plan_proof *out) {
  *out = (bl_plan_proof){.given = true,
                         .within = proofs->within,
                         .copies = result->copies,
                         .moves = result->moves,
                         .move_price = problem->move_price,
                         .price = result->copies < 0 ? 0 : result->price,
                         .bound = result->bound,
                         .seconds = result->seconds};
  snprintf(out->proof, sizeof out->proof, "%s", result->proof);
  snprintf(out->solver, sizeof out->solver, "%s", bl_prove_solver_name(result->solver));
  if (result->status == BL_PROVE_INFEASIBLE)
    snprintf(out->reason, sizeof out->reason, "proved: no placement in these slots is within it");
  else
    snprintf(out->reason, sizeof out->reason, "%s", result->reason);
}

bl_status bl_place_proofs_layer(bl_place_proofs *proofs, int32_t layer, const bl_hosts *hosts, const double *load,
                                bl_plan_proof *proved) {
  const bool moving = proofs->from != NULL;
  const bl_prove_problem problem = {.experts = hosts->experts,
                                    .ranks = hosts->ranks,
                                    .load = load,
                                    .slots = hosts->slots,
                                    .speed = proofs->speed,
                                    .home = proofs->free_homes || moving ? NULL : hosts->home,
                                    .current = moving ? proofs->now.placement.layer[layer].home : NULL,
                                    .move_price = !moving                  ? 0
                                                  : proofs->move_price < 0 ? dear(hosts)
                                                                           : proofs->move_price,
                                    .incumbent = hosts,
                                    .eps = proofs->within - 1,
                                    .seconds = proofs->seconds};
  double sum = 0;
  for (int32_t e = 0; e < hosts->experts; ++e) sum += load[e];
  if (!(sum > 0)) return bl_fail(BL_EINPUT, "layer %d has no load in these steps: nothing to prove", layer);
  bl_prove_result *result = &proofs->layer[layer];
  BL_TRY(bl_prove_fewest_copies(&problem, result));
  say(proofs, &problem, result, proved);
  if (result->lp_imbalance > 0 && fabs(result->lp_imbalance - result->imbalance) > 1e-6)
    bl_warn("layer %d: shares give an imbalance of %.9f, the linear program %.9f", layer, result->imbalance,
            result->lp_imbalance);
  return BL_OK;
}

static int32_t count_proved(const bl_place_proofs *proofs) {
  int32_t n = 0;
  for (int32_t l = 0; l < proofs->layers; ++l)
    n += proofs->layer[l].status == BL_PROVE_OPTIMAL || proofs->layer[l].status == BL_PROVE_INFEASIBLE;
  return n;
}

static bl_status print_row(bl_table *table, int32_t l, const bl_prove_result *r, bool moving) {
  BL_TRY(bl_table_cell(table, "%d", l));
  BL_TRY(r->copies < 0 ? bl_table_cell(table, "none") : bl_table_cell(table, "%d", r->copies));
  if (moving) {
    BL_TRY(r->copies < 0 ? bl_table_cell(table, "none") : bl_table_cell(table, "%d", r->moves));
    BL_TRY(r->copies < 0 ? bl_table_cell(table, "-") : bl_table_cell(table, "%g", r->price));
  }
  BL_TRY(bl_table_cell(table, "%g", r->bound));
  BL_TRY(r->copies < 0 ? bl_table_cell(table, "-") : bl_table_cell(table, "%.6f", r->imbalance));
  BL_TRY(bl_table_cell(table, "%s", bl_prove_status_name(r->status)));
  BL_TRY(bl_table_cell(table, "%s", r->proof));
  BL_TRY(bl_table_cell(table, "%s", bl_prove_solver_name(r->solver)));
  return bl_table_cell(table, "%.3f", r->seconds);
}

bl_status bl_place_proofs_print(const bl_place_proofs *proofs) {
  bl_table *table;
  const bool moving = proofs->from != NULL;
  BL_TRY(bl_table_create(moving ? "layer|copies|moves|price|bound|imbalance|<status|<proof|<solver|seconds"
                                : "layer|copies|bound|imbalance|<status|<proof|<solver|seconds",
                         &table));
  bl_status status = BL_OK;
  for (int32_t l = 0; l < proofs->layers && status == BL_OK; ++l)
    status = print_row(table, l, &proofs->layer[l], moving);
  if (status == BL_OK) {
    if (!moving)
      printf("\nfewest copies with an imbalance of at most %g, homes %s:\n", proofs->within,
             proofs->free_homes ? "free" : "fixed");
    else if (proofs->move_price < 0)
      printf("\nfewest moves from %s, then fewest copies, with an imbalance of at most %g:\n", proofs->from,
             proofs->within);
    else
      printf("\ncopies and moves from %s, a move counting as %g copies, with an imbalance of at most %g:\n",
             proofs->from, proofs->move_price, proofs->within);
    bl_table_print(table, stdout);
    for (int32_t l = 0; l < proofs->layers; ++l)
      if (proofs->layer[l].reason[0]) printf("layer %d: %s\n", l, proofs->layer[l].reason);
    printf("\n%d of %d layers proved\n", count_proved(proofs), proofs->layers);
  }
  bl_table_free(table);
  return status;
}

static void json_layer(bl_json_writer *w, int32_t l, const bl_prove_result *r) {
  bl_json_begin_flat_object(w);
  bl_json_put_int(w, "layer", l);
  bl_json_put_string(w, "status", bl_prove_status_name(r->status));
  bl_json_key(w, "copies");
  if (r->copies < 0)
    bl_json_write_null(w);
  else
    bl_json_write_int(w, r->copies);
  bl_json_put_int(w, "moves", r->moves);
  bl_json_key(w, "price");
  if (r->copies < 0)
    bl_json_write_null(w);
  else
    bl_json_write_number(w, r->price);
  bl_json_put_number(w, "bound", r->bound);
  bl_json_key(w, "imbalance");
  if (r->copies < 0)
    bl_json_write_null(w);
  else
    bl_json_write_number(w, r->imbalance);
  bl_json_put_string(w, "proof", r->proof);
  bl_json_put_string(w, "solver", bl_prove_solver_name(r->solver));
  bl_json_put_int(w, "nodes", r->nodes);
  bl_json_put_number(w, "seconds", r->seconds);
  bl_json_put_string(w, "reason", r->reason);
  bl_json_end_object(w);
}

void bl_place_proofs_json(const bl_place_proofs *proofs, bl_json_writer *w) {
  bl_json_begin_object(w);
  bl_json_put_number(w, "within", proofs->within);
  bl_json_put_string(w, "homes", proofs->from ? "move" : proofs->free_homes ? "free" : "fixed");
  bl_json_put_int(w, "proved", count_proved(proofs));
  bl_json_key(w, "layers");
  bl_json_begin_array(w);
  for (int32_t l = 0; l < proofs->layers; ++l) json_layer(w, l, &proofs->layer[l]);
  bl_json_end_array(w);
  bl_json_end_object(w);
}
