/* survivor.c - step programs of a layout, priced action by action. */
#include "planner/search/survivor.h"
#include "base/memory.h"
#include "planner/passes/passes.h"
#include <math.h>
#include <string.h>

static bl_status price_positions(const bl_search_options *o, const bl_search_entry *e, bl_survivor *out) {
  const bl_grid *g = &e->grid;
  bl_positions positions;
  bl_positions_of(o->cluster, g, &positions);
  BL_TRY(bl_new(&out->work, (size_t)positions.kinds, sizeof *out->work, "prices of actions"));
  BL_TRY(bl_new(&out->work_at, (size_t)g->pp, sizeof *out->work_at, "prices of actions"));
  for (int32_t k = 0; k < positions.kinds; k++) bl_grid_work(o->model, &positions, k, g, e->imbalance, &out->work[k]);
  for (int32_t d = 0; d < g->pp; d++) out->work_at[d] = &out->work[positions.kind[d]];
  return BL_OK;
}

bl_status bl_survivor_build(const bl_search_options *o, const bl_search_entry *e, int32_t micro_batches,
                            bl_survivor *out) {
  const bl_grid *g = &e->grid;
  const bool beside = bl_grid_overlaps(g);
  const bl_step_options options = {.copies = g->copy_slots > 0 && o->model->experts > 0,
                                   .exchanges_inline = true,
                                   .rows_beside = beside || g->pieces > 1,
                                   .ranks_per_node = bl_cluster_narrowest_node(o->cluster)};
  bl_status status = BL_OK;
  memset(out, 0, sizeof *out);
  BL_TRY(bl_search_layout(o, e, &out->layout));
  out->layout.micro_batches = micro_batches;
  BL_TRY_GOTO(status, price_positions(o, e, out), failed);
  BL_TRY_GOTO(status, bl_new(&out->step, (size_t)g->pp, sizeof *out->step, "step programs"), failed);
  for (; out->built < g->pp; out->built++) {
    bl_step *step = &out->step[out->built];
    BL_TRY_GOTO(status, bl_step_build_unchecked(o->model, &out->layout, &options, out->built, step), failed);
    status = bl_pass_pieces(step, g->pieces);
    if (status == BL_OK) status = bl_pass_pipeline(step, beside);
    if (status == BL_OK) status = bl_pass_reduce_early(step);
    if (status != BL_OK) {
      bl_step_free(step);
      goto failed;
    }
  }
  return BL_OK;
failed:
  bl_survivor_free(out);
  return status;
}

void bl_survivor_free(bl_survivor *s) {
  for (int32_t i = 0; i < s->built; i++) bl_step_free(&s->step[i]);
  free(s->step);
  free(s->work);
  free(s->work_at);
  bl_layout_free(&s->layout);
  memset(s, 0, sizeof *s);
}

/* -- where the time goes ------------------------------------------------------------------------------------------- */

static bl_price_kind price_of(const bl_action *a) {
  switch (a->kind) {
  case BL_ACTION_EXPERT_FWD:
  case BL_ACTION_SCATTER:
  case BL_ACTION_GATHER:
  case BL_ACTION_ATTENTION_FWD:
  case BL_ACTION_STATE_SPACE_FWD:
  case BL_ACTION_FFN_FWD:
  case BL_ACTION_GATE_FWD:
  case BL_ACTION_SHARED_FWD:
  case BL_ACTION_DISPATCH:
  case BL_ACTION_COMBINE:
    if (a->part == BL_STEP_BACKWARD) return BL_PRICE_RECOMPUTE;
    break;
  case BL_ACTION_RECOMPUTE:
    return BL_PRICE_RECOMPUTE;
  default:
    break;
  }
  switch (a->kind) {
  case BL_ACTION_EXPERT_FWD:
  case BL_ACTION_EXPERT_DX:
  case BL_ACTION_EXPERT_DW:
  case BL_ACTION_SCATTER:
  case BL_ACTION_GATHER:
  case BL_ACTION_SCATTER_BWD:
  case BL_ACTION_GATHER_BWD:
    return BL_PRICE_EXPERT;
  case BL_ACTION_DISPATCH:
  case BL_ACTION_COMBINE:
  case BL_ACTION_DISPATCH_BWD:
  case BL_ACTION_COMBINE_BWD:
  case BL_ACTION_EXCHANGE_COUNTS:
  case BL_ACTION_SOLVE_SHARES:
    return BL_PRICE_EXCHANGE;
  case BL_ACTION_SEQUENCE_GATHER:
  case BL_ACTION_SEQUENCE_SCATTER:
  case BL_ACTION_ROWS_GATHER:
  case BL_ACTION_ROWS_SCATTER:
    return BL_PRICE_TENSOR;
  case BL_ACTION_CONTEXT_RING:
  case BL_ACTION_CONTEXT_RING_BWD:
  case BL_ACTION_HEADS_EXCHANGE:
    return BL_PRICE_CONTEXT;
  case BL_ACTION_RECV_ACTIVATION:
  case BL_ACTION_RECV_GRADIENT:
  case BL_ACTION_GRAD_NORM:
    return BL_PRICE_BUBBLE;
  case BL_ACTION_SEND_ACTIVATION:
  case BL_ACTION_SEND_GRADIENT:
    return BL_PRICE_SEND;
  case BL_ACTION_COPY_FILL:
  case BL_ACTION_COPY_REDUCE:
  case BL_ACTION_EXPERT_REDUCE:
  case BL_ACTION_DENSE_REDUCE:
  case BL_ACTION_TIED_REDUCE:
  case BL_ACTION_WEIGHT_GATHER:
  case BL_ACTION_EXPERT_GATHER:
    return BL_PRICE_REDUCE;
  case BL_ACTION_ZERO_GRADS:
  case BL_ACTION_SQUARE_GRADS:
  case BL_ACTION_OPTIMIZER:
    return BL_PRICE_OPTIMIZER;
  default:
    return BL_PRICE_DENSE;
  }
}

/* The wait of an action that ended last. */
static const bl_action *latest(const bl_step *step, const bl_span *spans, const bl_action *a) {
  const int32_t *waits = step->waits + a->first_wait;
  int32_t last = -1;
  for (int32_t i = 0; i < a->n_waits; i++)
    if (last < 0 || spans[waits[i]].end_us > spans[last].end_us) last = waits[i];
  return last < 0 ? a : &step->actions[last];
}

/* A position's compute stream, second by second: busy with an action, or still for the one that the next waited for. */
static double split_up(const bl_step *step, const bl_span *spans, double step_us, double *us) {
  double at = 0, busy = 0;
  memset(us, 0, BL_PRICE_COUNT * sizeof *us);
  for (int32_t i = 0; i < step->n_actions; i++) {
    const bl_action *a = &step->actions[step->order[i]];
    const bl_span *span = &spans[step->order[i]];
    if (a->resource != BL_RESOURCE_COMPUTE) continue;
    if (span->start_us > at) us[price_of(latest(step, spans, a))] += span->start_us - at;
    us[price_of(a)] += span->end_us - span->start_us;
    busy += span->end_us - span->start_us;
    at = span->end_us;
  }
  us[BL_PRICE_BUBBLE] += step_us - at;
  return busy;
}

/* of: the position whose time is split up; -1 chooses that which computes most. */
static bl_status simulate(const bl_search_options *o, const bl_search_entry *e, int32_t micro_batches, int32_t *of,
                          bl_step_price *out) {
  bl_survivor s;
  bl_pipeline_simulation simulation = {0};
  double most = -1, us[BL_PRICE_COUNT];
  BL_TRY(bl_survivor_build(o, e, micro_batches, &s));
  const bl_status status = bl_simulate_pipeline(s.step, o->model, s.work_at, &simulation);
  const int32_t wanted = *of;
  out->step_us = simulation.step_us;
  for (int32_t i = 0; status == BL_OK && i < s.layout.pp; i++) {
    if (wanted >= 0 && i != wanted) continue;
    const double busy = split_up(&s.step[i], simulation.spans[i], simulation.step_us, us);
    if (busy <= most) continue;
    most = busy;
    *of = i;
    memcpy(out->us, us, sizeof us);
  }
  bl_pipeline_simulation_free(&simulation);
  bl_survivor_free(&s);
  return status;
}

/* The step from three shorter ones, each pp micro-batches longer than the one before; *steady: the last pp took as long
 * as the pp before. */
static bl_status extend(const bl_search_options *o, bl_search_entry *e, int32_t longest, bool *steady) {
  const bl_grid *g = &e->grid;
  const double rounds = (double)(g->micro_batches - longest) / g->pp;
  int32_t of = -1;
  bl_step_price before, first;
  BL_TRY(simulate(o, e, longest, &of, &e->simulated));
  BL_TRY(simulate(o, e, longest - g->pp, &of, &before));
  BL_TRY(simulate(o, e, longest - 2 * g->pp, &of, &first));
  const double round = e->simulated.step_us - before.step_us;
  *steady = fabs(round - (before.step_us - first.step_us)) <= 1e-6 * round;
  for (int k = 0; k < BL_PRICE_COUNT; k++) e->simulated.us[k] += rounds * (e->simulated.us[k] - before.us[k]);
  e->simulated.step_us += rounds * round;
  return BL_OK;
}

bl_status bl_survivor_simulate(const bl_search_options *o, bool exact, bl_search_entry *e) {
  enum { ROUNDS = 5, LEAST = 32 };
  const bl_grid *g = &e->grid;
  int32_t rounds = (LEAST + g->pp - 1) / g->pp, of = -1;
  bool steady = false;
  if (rounds < ROUNDS) rounds = ROUNDS;
  for (; !exact && !steady && g->micro_batches > rounds * g->pp; rounds *= 2) {
    /* As many micro-batches beyond whole rounds as the step has. */
    const int32_t longest = rounds * g->pp - g->pp + g->micro_batches % g->pp;
    BL_TRY(extend(o, e, longest, &steady));
  }
  return steady ? BL_OK : simulate(o, e, g->micro_batches, &of, &e->simulated);
}
