#include "planner/search/price.h"
#include <float.h>
#include <string.h>

static double larger(double a, double b) { return a > b ? a : b; }
static double smaller(double a, double b) { return a < b ? a : b; }

/* -- the step ------------------------------------------------------------------------------------------------------ */

double bl_device_us(const bl_position_costs *costs, const int32_t *count) {
  double us = 0;
  for (int k = 0; k < BL_ITEM_COUNT; k++) us += count[k] * costs->price[k].total;
  return us;
}

/* What is left of an exchange under compute, and what it takes from the compute. */
static double exposed(double us, double hidden_under, double layers) {
  const double hidden = us < hidden_under ? us : hidden_under;
  return larger(us - hidden, us / larger(1, layers)) + BL_PRICE_STOLEN * hidden;
}

/* Reduction of gradients and gathering of weights, beyond what computing hides. */
static double reduce_us(const bl_grid *g, const bl_grid_costs *costs, const bl_position_costs *c,
                        const int32_t *count) {
  const double work = bl_device_us(c, count), fill_us = costs->positions->num_bytes * c->fill_byte_us,
               copied_us = fill_us + bl_grid_gradient_bytes(g) * c->reduce_byte_us;
  double reduce = 0, gather = 0, copies = 0, layers = 0;
  for (int k = 0; k < BL_ITEM_COUNT; k++)
    if (bl_item_kind((bl_item)k) != BL_LAYER_COUNT) layers += count[k];
  double replicas = layers * c->replica_layer_us;
  for (int k = 0; k < BL_ITEM_COUNT; k++) {
    const bl_item_size *s = &costs->size[k];
    reduce += count[k] * (s->dense_parameters * c->dense_reduce_us + s->expert_parameters * c->expert_reduce_us);
    replicas += count[k] * (s->dense_parameters + s->expert_parameters) * c->replica_us;
    copies += count[k] * s->copy_parameters * copied_us;
    gather += count[k] * (s->dense_parameters * c->dense_gather_us + s->expert_parameters * c->expert_gather_us);
  }
  if (g->zero == 3) return copies + replicas + g->micro_batches * exposed(2 * gather + reduce, work, layers);
  if (g->zero == 1)
    return replicas + exposed(reduce, work * 2 / 3, layers) + exposed(gather + copies, work / 3, layers);
  return exposed(2 * reduce + copies, work * 2 / 3, layers);
}

void bl_price_update(const bl_grid *g, int32_t num_bytes, double update_byte_us, double square_byte_us, double dense,
                     double expert, double *update_us, double *square_us) {
  const double whole = dense + expert, shard = bl_grid_shard(g);
  const double share = dense / shard + expert / (g->edp < shard ? g->edp : shard);
  /* Gradients zeroed and squared; master, moments and gradient read, all but the gradient and the weight written. */
  const double updated = g->zero > 0 ? share : whole, held = g->zero == 3 ? share : whole;
  const double gradient = bl_grid_gradient_bytes(g);
  *update_us = updated * (24 + gradient + num_bytes) * update_byte_us;
  *square_us = held * 2 * gradient * square_byte_us;
}

static double optimizer_us(const bl_grid *g, const bl_grid_costs *costs, double update_byte_us, double square_byte_us,
                           const int32_t *count) {
  double dense = 0, expert = 0, update, square;
  for (int k = 0; k < BL_ITEM_COUNT; k++) {
    dense += count[k] * costs->size[k].dense_parameters;
    expert += count[k] * costs->size[k].expert_parameters;
  }
  bl_price_update(g, costs->positions->num_bytes, update_byte_us, square_byte_us, dense, expert, &update, &square);
  return update + square;
}

/* There and back, over the slower of a position's links; an interleaved pipeline's last position sends to the first. */
static double round_us(const bl_grid *g, const bl_position_costs *c, int32_t position) {
  const bool down = g->vp > 1 || position + 1 < g->pp, up = g->vp > 1 || position > 0;
  return 2 * larger(down ? c->down_us : 0, up ? c->up_us : 0);
}

/* What the sends of a micro-batch take on a device: of each of an interleaved one's stages, under compute. */
static double exposed_send_us(const bl_grid *g, double round) {
  return g->vp == 1 ? round : BL_PRICE_STOLEN * g->vp * round;
}

/* Positions that take `sum` together, their sends included, the slowest of them `slowest`. */
static double pipeline_us(const bl_grid *g, double slowest, double sum, double fill) {
  return g->micro_batches * slowest + (sum - slowest) / g->vp + (g->vp > 1 ? fill : 0);
}

void bl_price_step(const bl_grid *g, const bl_grid_costs *costs, const int32_t *counts, bl_step_price *out) {
  double sum = 0, slowest = 0, reduce = 0, optimizer = 0, fill = 0;
  int32_t pace = 0;
  memset(out, 0, sizeof *out);
  for (int32_t d = 0; d < g->pp; d++) {
    const int32_t *count = counts + (int64_t)d * BL_ITEM_COUNT;
    const bl_position_costs *c = bl_costs_at(costs, d);
    const double us = bl_device_us(c, count) + exposed_send_us(g, round_us(g, c, d));
    sum += us;
    if (us > slowest) slowest = us, pace = d;
    if (d + 1 < g->pp) fill += 2 * c->down_us;
    reduce = larger(reduce, reduce_us(g, costs, c, count));
    optimizer = larger(optimizer, optimizer_us(g, costs, c->update_byte_us, c->square_byte_us, count));
  }
  const double pipeline = pipeline_us(g, slowest, sum, fill);
  const int32_t *count = counts + (int64_t)pace * BL_ITEM_COUNT;
  const bl_position_costs *c = bl_costs_at(costs, pace);
  double parts = 0;
  for (int u = 0; u < BL_PRICE_COUNT; u++) {
    for (int k = 0; k < BL_ITEM_COUNT; k++) out->us[u] += g->micro_batches * count[k] * c->price[k].us[u];
    parts += out->us[u];
  }
  out->us[BL_PRICE_SEND] = g->micro_batches * exposed_send_us(g, round_us(g, c, pace));
  out->us[BL_PRICE_BUBBLE] = pipeline - parts - out->us[BL_PRICE_SEND];
  out->us[BL_PRICE_REDUCE] = reduce;
  out->us[BL_PRICE_OPTIMIZER] = optimizer;
  out->step_us = pipeline + reduce + optimizer;
}

/* As if every position were of the kind that is best at each. */
double bl_price_bound(const bl_grid *g, const bl_grid_costs *costs, const int32_t *count) {
  const bl_positions *p = costs->positions;
  double us[BL_POSITION_KINDS][BL_ITEM_COUNT], sum, round = DBL_MAX, update_byte_us = DBL_MAX;
  double square_byte_us = DBL_MAX;
  for (int32_t k = 0; k < p->kinds; k++) {
    const bl_position_costs *c = &costs->at[k];
    for (int i = 0; i < BL_ITEM_COUNT; i++) us[k][i] = c->price[i].total;
    round = smaller(round, 2 * smaller(c->down_us, c->up_us));
    update_byte_us = smaller(update_byte_us, c->update_byte_us);
    square_byte_us = smaller(square_byte_us, c->square_byte_us);
  }
  /* The slowest device takes at least its share and at least the dearest item; the update is the mean's or more. */
  const double slowest = bl_positions_share(p, (const double(*)[BL_ITEM_COUNT])us, count, &sum);
  const double send = exposed_send_us(g, round);
  return pipeline_us(g, slowest + send, sum + g->pp * send, (g->pp - 1) * round) +
         optimizer_us(g, costs, update_byte_us, square_byte_us, count) / g->pp;
}
