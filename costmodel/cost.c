/* cost.c - amounts and curves of actions. */
#include "costmodel/cost.h"

/* The curve that prices each action; BL_CURVE_COUNT: none. */
static bl_curve_kind curve_of(bl_action_kind kind) {
  switch (kind) {
#define SAME(name)       \
  case BL_ACTION_##name: \
    return BL_CURVE_##name
    SAME(CHOOSE_HOSTS);
    SAME(ZERO_GRADS);
    SAME(EMBED_FWD);
    SAME(ATTENTION_FWD);
    SAME(STATE_SPACE_FWD);
    SAME(FFN_FWD);
    SAME(GATE_FWD);
    SAME(SHARED_FWD);
    SAME(SOLVE_SHARES);
    SAME(SCATTER);
    SAME(EXPERT_FWD);
    SAME(GATHER);
    SAME(HEAD);
    SAME(GATHER_BWD);
    SAME(SHARED_BWD);
    SAME(EXPERT_DX);
    SAME(EXPERT_DW);
    SAME(SCATTER_BWD);
    SAME(GATE_BWD);
    SAME(FFN_BWD);
    SAME(ATTENTION_BWD);
    SAME(STATE_SPACE_BWD);
    SAME(EMBED_BWD);
    SAME(SQUARE_GRADS);
    SAME(OPTIMIZER);
#undef SAME
  case BL_ACTION_EXCHANGE_COUNTS:
  case BL_ACTION_GRAD_NORM:
    return BL_CURVE_GATHER_HOST;
  case BL_ACTION_DISPATCH:
  case BL_ACTION_COMBINE:
  case BL_ACTION_COMBINE_BWD:
  case BL_ACTION_DISPATCH_BWD:
    return BL_CURVE_EXCHANGE;
  case BL_ACTION_MOVE_HOME:
  case BL_ACTION_COPY_FILL:
  case BL_ACTION_LATE_FILL:
    return BL_CURVE_TRANSFER;
  case BL_ACTION_COPY_REDUCE:
    return BL_CURVE_ACCUMULATE;
  case BL_ACTION_EXPERT_REDUCE:
  case BL_ACTION_DENSE_REDUCE:
    return BL_CURVE_ALL_REDUCE;
  case BL_ACTION_SEQUENCE_GATHER:
  case BL_ACTION_SEQUENCE_SCATTER:
  case BL_ACTION_CONTEXT_RING:
  case BL_ACTION_CONTEXT_RING_BWD:
  case BL_ACTION_HEADS_EXCHANGE:
  case BL_ACTION_ROWS_GATHER:
  case BL_ACTION_ROWS_SCATTER:
  case BL_ACTION_RECOMPUTE:
  case BL_ACTION_MODULE_FWD:
  case BL_ACTION_MODULE_BWD:
  case BL_ACTION_WEIGHT_GATHER:
  case BL_ACTION_EXPERT_GATHER:
  case BL_ACTION_TIED_REDUCE:
  case BL_ACTION_SEND_ACTIVATION:
  case BL_ACTION_RECV_ACTIVATION:
  case BL_ACTION_SEND_GRADIENT:
  case BL_ACTION_RECV_GRADIENT:
  case BL_ACTION_LOAD_EXPERT:
  case BL_ACTION_DROP_EXPERT:
  case BL_ACTION_COUNT:
    break;
  }
  return BL_CURVE_COUNT;
}

int64_t bl_costs_tokens(const bl_costs *costs) {
  return (int64_t)costs->layout->micro_batch * costs->model->sequence / costs->layout->cp;
}

int32_t bl_costs_ep_position(const bl_costs *costs, int32_t rank) {
  return rank / costs->layout->etp % costs->layout->ep;
}

int64_t bl_costs_dense_parameters(const bl_costs *costs, int32_t layer) {
  const bl_model *m = costs->model;
  if (layer < 0) return bl_model_part_parameters(m, BL_PART_EMBED) + bl_model_part_parameters(m, BL_PART_HEAD);
  const bl_layer_kind kind = bl_model_layer_kind(m, layer);
  int64_t sum = 0;
  if (bl_layer_has_attention(kind)) sum += bl_model_part_parameters(m, BL_PART_ATTENTION);
  if (kind == BL_LAYER_STATE_SPACE) sum += bl_model_part_parameters(m, BL_PART_STATE_SPACE);
  if (bl_layer_has_ffn(kind)) sum += bl_model_part_parameters(m, BL_PART_FFN);
  if (bl_layer_has_experts(kind))
    sum += bl_model_part_parameters(m, BL_PART_GATE) + bl_model_part_parameters(m, BL_PART_SHARED);
  return sum;
}

/* Of counts [layer][rank], that of the rank. */
static int64_t held(const bl_costs *costs, const int32_t *counts, int32_t layer, int32_t rank) {
  if (layer < 0 || !bl_model_layer_is_moe(costs->model, layer)) return 0;
  return counts[layer * costs->traffic->ranks + bl_costs_ep_position(costs, rank)];
}

int64_t bl_costs_home_parameters(const bl_costs *costs, int32_t layer, int32_t rank) {
  return held(costs, costs->traffic->homes, layer, rank) * bl_model_part_parameters(costs->model, BL_PART_EXPERT);
}

/* All gradients of a rank, those of copies too. */
static int64_t all_gradients(const bl_costs *costs, int32_t rank) {
  const int64_t expert = bl_model_part_parameters(costs->model, BL_PART_EXPERT);
  int64_t sum = bl_costs_dense_parameters(costs, -1);
  for (int32_t l = 0; l < costs->model->layers; l++)
    sum += bl_costs_dense_parameters(costs, l) + bl_costs_home_parameters(costs, l, rank) +
           held(costs, costs->traffic->copies_in, l, rank) * expert;
  return sum;
}

/* The larger of what a rank sends and what it receives, own rows included. */
static int64_t exchanged_rows(const bl_costs *costs, const bl_action *action, int32_t position) {
  const int32_t ranks = costs->traffic->ranks;
  const uint32_t *rows = bl_traffic_exchange_rows(costs->traffic, action->layer, action->micro_batch);
  int64_t out = 0, in = 0;
  for (int32_t p = 0; p < ranks; p++) {
    out += rows[position * ranks + p];
    in += rows[p * ranks + position];
  }
  return out > in ? out : in;
}

/* The larger of the experts that leave and that reach a rank, in bytes. */
static double moved_bytes(const bl_costs *costs, int64_t leaving, int64_t coming, int32_t bytes) {
  const int64_t experts = leaving > coming ? leaving : coming;
  return (double)(experts * bl_model_part_parameters(costs->model, BL_PART_EXPERT) * bytes);
}

static double late_bytes(const bl_costs *costs, const bl_action *action, int32_t position) {
  const bl_traffic *t = costs->traffic;
  const int32_t at = (action->layer * t->micro_batches + action->micro_batch) * t->ranks + position;
  return moved_bytes(costs, t->late_out[at], t->late_in[at], costs->profile->num_bytes);
}

/* What the curve is looked up at. 0: nothing to do, which costs nothing. */
static double amount_of(const bl_costs *costs, const bl_action *action, int32_t rank) {
  const bl_traffic *t = costs->traffic;
  const int32_t fp32 = 4, moments = 8, l = action->layer;
  const int32_t state = moments + fp32 + (costs->profile->num_bytes == fp32 ? 0 : costs->profile->num_bytes);
  switch (bl_action_amounts[action->kind]) {
  case BL_AMOUNT_TOKENS:
    return (double)bl_costs_tokens(costs);
  case BL_AMOUNT_CHOICES:
    return (double)(bl_costs_tokens(costs) * costs->model->top_k);
  case BL_AMOUNT_EXCHANGE_ROWS:
    return (double)exchanged_rows(costs, action, bl_costs_ep_position(costs, rank)) * bl_model_row_width(costs->model) *
           costs->profile->num_bytes;
  case BL_AMOUNT_COUNTS:
    return costs->model->experts * 4.0;
  case BL_AMOUNT_COPY_WEIGHTS:
    return moved_bytes(costs, held(costs, t->copies_out, l, rank), held(costs, t->copies_in, l, rank),
                       costs->profile->num_bytes);
  case BL_AMOUNT_COPY_GRADS:
    return moved_bytes(costs, held(costs, t->copies_out, l, rank), held(costs, t->copies_in, l, rank), fp32);
  case BL_AMOUNT_LATE_COPIES:
    return late_bytes(costs, action, bl_costs_ep_position(costs, rank));
  case BL_AMOUNT_MOVED_STATE:
    return moved_bytes(costs, held(costs, t->moves_out, l, rank), held(costs, t->moves_in, l, rank), state);
  case BL_AMOUNT_HOME_GRADS:
    return (double)bl_costs_home_parameters(costs, l, rank) * fp32;
  case BL_AMOUNT_DENSE_GRADS:
    return (double)bl_costs_dense_parameters(costs, l) * fp32;
  case BL_AMOUNT_PARAMETERS:
    if (action->kind == BL_ACTION_ZERO_GRADS) return (double)all_gradients(costs, rank);
    return (double)(bl_costs_dense_parameters(costs, l) + bl_costs_home_parameters(costs, l, rank));
  case BL_AMOUNT_NONE:
    if (action->kind == BL_ACTION_CHOOSE_HOSTS) return bl_model_moe_layers(costs->model);
    return 1;
  case BL_AMOUNT_EXPERT_ROWS:
  case BL_AMOUNT_GROUP_ROWS:
  case BL_AMOUNT_DENSE_WEIGHTS:
  case BL_AMOUNT_HOME_WEIGHTS:
  case BL_AMOUNT_ACTIVATIONS:
  case BL_AMOUNT_EXPERT_WEIGHTS:
  case BL_AMOUNT_COUNT:
    break;
  }
  return 0;
}

/* A call over the experts of a rank takes the sum of its experts' times; an expert without rows is skipped. */
static double experts_us(const bl_costs *costs, const bl_action *action, const bl_curve *curve, int32_t rank) {
  const int32_t experts = costs->traffic->experts;
  const uint32_t *rows = bl_traffic_expert_rows(costs->traffic, action->layer, action->micro_batch) +
                         (size_t)bl_costs_ep_position(costs, rank) * (size_t)experts;
  double sum = 0;
  for (int32_t e = 0; e < experts; e++)
    if (rows[e] > 0) sum += bl_curve_at(curve, (double)rows[e] / action->pieces);
  return sum;
}

bl_status bl_cost_of(const bl_costs *costs, const bl_action *action, int32_t rank, double *us) {
  const bl_curve_kind kind = curve_of(action->kind);
  if (kind == BL_CURVE_COUNT) return bl_fail(BL_ENOTSUP, "no price is known for %s", bl_action_names[action->kind]);
  const bl_curve *curve = &costs->profile->curves[kind];
  const bool by_expert = bl_action_amounts[action->kind] == BL_AMOUNT_EXPERT_ROWS;
  const double amount = by_expert ? 1 : amount_of(costs, action, rank) / action->pieces;
  *us = 0;
  /* A call of one rank is free, but for the exchange, which copies the rank's own rows. */
  const bool alone = action->group != BL_GROUP_NONE && bl_group_size(costs->layout, action->group) == 1;
  if (amount <= 0 || (alone && kind != BL_CURVE_EXCHANGE)) return BL_OK;
  if (curve->n == 0)
    return bl_fail(BL_EINPUT, "the profile has no curve %s, which prices %s", bl_curve_names[kind],
                   bl_action_names[action->kind]);
  *us = by_expert ? experts_us(costs, action, curve, rank) : bl_curve_at(curve, amount);
  return BL_OK;
}
