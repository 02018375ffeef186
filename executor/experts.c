/* experts.c - rows to the experts, the experts themselves, and back; forward and backward. */
#include "executor/rank.h"

static void forget(bl_rank *r, bl_chunk *chunk) { bl_pool_give(r->pool, chunk); }

/* Rows for which a buffer of `rows` rows is taken. Where asking for memory stops the device, more than the most there
 * have been, and growing by half, so that the same sizes are asked for step after step. */
static int64_t room_for(const bl_rank *r, int32_t *room, int32_t rows, int64_t at_least) {
  if (r->be->host_memory) return rows;
  if (rows > *room) {
    int64_t most = rows + (int64_t)rows / (r->planned_now ? 8 : 4); /* planned rows have headroom already */
    if (most < at_least) most = at_least;
    if (most < *room + *room / 2) most = *room + *room / 2;
    *room = (int32_t)most;
  }
  return *room;
}

static int64_t choices_of_rank(const bl_rank *r) { return (int64_t)r->tokens * r->run->top_k; }

/* Of rows at the experts: balanced ones have room from the start. */
static int64_t received_room(const bl_rank *r, bl_saved *a) {
  const bl_route *route = &a->route;
  const int32_t rows = route->recv_total > route->expert_rows ? route->recv_total : route->expert_rows;
  return room_for(r, &a->received_room, rows, choices_of_rank(r) * 5 / 4);
}

/* Of rows at their source: as many as there are choices. */
static int64_t sent_room(const bl_rank *r, bl_saved *a) {
  return room_for(r, &a->sent_room, a->route.send_total, choices_of_rank(r));
}

bl_status bl_rank_take_order(bl_rank *r, bl_saved *a, bl_chunk *out) { return bl_take_i32(r, received_room(r, a), out); }

/* Rows from `from` (one behind the other by peer) to a new chunk `to`; `forwards` = from sources to hosts. Gives `from`
 * back. A single rank hands the chunk on. */
static bl_status exchange(bl_rank *r, bl_saved *a, bool forwards, bl_chunk *from, bl_chunk *to) {
  const bl_route *route = &a->route;
  if (r->run->ep == 1) {
    *to = *from;
    *from = (bl_chunk){0};
    return BL_OK;
  }
  const int64_t row_bytes = (int64_t)r->run->model->hidden * (int64_t)r->be->num_bytes;
  const int64_t *out = forwards ? route->send_rows : route->recv_rows;
  const int64_t *in = forwards ? route->recv_rows : route->send_rows;
  for (int32_t p = 0; p < r->run->ep; p++) {
    r->send_bytes[p] = out[p] * row_bytes;
    r->recv_bytes[p] = in[p] * row_bytes;
  }
  const int64_t rows = forwards ? received_room(r, a) : sent_room(r, a);
  BL_TRY(bl_pool_take(r->pool, (size_t)rows * (size_t)row_bytes, to));
  BL_TRY(bl_comm_all_to_all_v(r->ep_comm, r->s, from->data, r->send_bytes, to->data, r->recv_bytes));
  forget(r, from);
  return BL_OK;
}

/* Received order to expert order, or back; gives `from` back. */
static bl_status reorder(bl_rank *r, bl_saved *a, bool to_experts, bl_chunk *from, bl_chunk *to) {
  const bl_route *route = &a->route;
  if (route->in_order) {
    *to = *from;
    *from = (bl_chunk){0};
    return BL_OK;
  }
  const int32_t H = r->run->model->hidden, rows = to_experts ? route->expert_rows : route->recv_total;
  const void *index = to_experts ? a->by_expert.data : a->by_source.data;
  if (!index) {
    const bl_host_part part = {to_experts ? route->by_expert : route->by_source, (size_t)rows * sizeof(int32_t)};
    r->be->upload(r->s, &part, 1, &index);
  }
  BL_TRY(bl_take_num(r, received_room(r, a) * H, to));
  r->be->ops.rows_gather(r->s, to->data, from->data, index, rows, H);
  forget(r, from);
  return BL_OK;
}

/* r->group[] for the matrix at `weight_tensor` of the experts' blocks, its bias behind it. */
static bl_status make_groups(bl_rank *r, int32_t layer, const bl_route *route, int32_t weight_tensor) {
  const bl_weights *w = &r->weights;
  const int64_t weight = w->expert_tensor[weight_tensor].offset, bias = w->expert_tensor[weight_tensor + 1].offset;
  for (int32_t g = 0; g < route->n_groups; g++) {
    const bl_state *state = bl_weights_expert(w, w->moe_index[layer], route->group_expert[g]);
    if (!state->weight)
      return bl_fail(BL_EMACHINE, "step %lld, layer %d: rank %d was sent rows of expert %d, which it does not hold",
                     (long long)r->step, layer, r->rank, route->group_expert[g]);
    r->group[g] = (bl_group){.first = route->group_first[g],
                             .rows = route->group_rows[g],
                             .weight = bl_weights_at(w, state->weight, weight),
                             .bias = bl_weights_at(w, state->weight, bias),
                             .grad_weight = state->grad + weight,
                             .grad_bias = state->grad + bias};
  }
  return BL_OK;
}

enum { FC1 = 0, FC2 = 2 }; /* positions in bl_model_tensors(EXPERT): fc1.weight, fc1.bias, fc2.weight, fc2.bias */

bl_status bl_do_scatter(bl_rank *r, int32_t layer, int32_t micro_batch) {
  bl_saved *a = bl_rank_saved(r, layer, micro_batch);
  const int32_t H = r->run->model->hidden;
  BL_TRY(bl_take_num(r, sent_room(r, a) * H, &a->send));
  r->be->ops.rows_scatter(r->s, a->send.data, a->norm2.data, a->row.data, r->tokens, r->run->top_k, H);
  return BL_OK;
}

bl_status bl_do_dispatch(bl_rank *r, int32_t layer, int32_t micro_batch) {
  bl_saved *a = bl_rank_saved(r, layer, micro_batch);
  return exchange(r, a, true, &a->send, &a->received);
}

bl_status bl_do_expert_fwd(bl_rank *r, int32_t layer, int32_t micro_batch) {
  bl_saved *a = bl_rank_saved(r, layer, micro_batch);
  const bl_route *route = &a->route;
  const int32_t H = r->run->model->hidden, F = r->run->model->expert_width;
  const int64_t room = received_room(r, a);
  bl_chunk out = {0};
  bl_rank_await_fills(r, r->weights.moe_index[layer]);
  BL_TRY(reorder(r, a, true, &a->received, &a->rows_in));
  BL_TRY(bl_take_num(r, room * F, &a->hidden));
  BL_TRY(bl_take_num(r, room * F, &a->active));
  BL_TRY(bl_take_num(r, room * H, &out));
  const bl_ops *op = &r->be->ops;
  BL_TRY(make_groups(r, layer, route, FC1));
  op->grouped_gelu_fwd(r->s, a->active.data, a->hidden.data, a->rows_in.data, r->group, route->n_groups, F, H);
  BL_TRY(make_groups(r, layer, route, FC2));
  op->grouped_fwd(r->s, out.data, a->active.data, r->group, route->n_groups, H, F);
  return reorder(r, a, false, &out, &a->rows_out);
}

bl_status bl_do_combine(bl_rank *r, int32_t layer, int32_t micro_batch) {
  bl_saved *a = bl_rank_saved(r, layer, micro_batch);
  return exchange(r, a, false, &a->rows_out, &a->back);
}

bl_status bl_do_gather(bl_rank *r, int32_t layer, int32_t micro_batch) {
  bl_saved *a = bl_rank_saved(r, layer, micro_batch);
  bl_chunk *x = &bl_rank_saved(r, layer + 1, micro_batch)->x;
  const int32_t T = r->tokens, H = r->run->model->hidden;
  BL_TRY(bl_take_num(r, (int64_t)T * H, x));
  r->be->copy(r->s, x->data, a->mid.data, (size_t)T * (size_t)H * r->be->num_bytes);
  r->be->ops.combine_fwd(r->s, x->data, a->back.data, a->weight.data, a->row.data, T, r->run->top_k, H);
  return BL_OK;
}

bl_status bl_do_gather_bwd(bl_rank *r, int32_t layer, int32_t micro_batch) {
  bl_saved *a = bl_rank_saved(r, layer, micro_batch);
  const int32_t T = r->tokens, K = r->run->top_k, H = r->run->model->hidden;
  BL_TRY(bl_take_num(r, sent_room(r, a) * H, &a->dback));
  BL_TRY(bl_take_f32(r, (int64_t)T * K, &a->dweight));
  r->be->ops.combine_bwd(r->s, a->dback.data, a->dweight.data, r->dx[micro_batch].data, a->back.data, a->weight.data,
                         a->row.data, T, K, H);
  forget(r, &a->back);
  return BL_OK;
}

bl_status bl_do_combine_bwd(bl_rank *r, int32_t layer, int32_t micro_batch) {
  bl_saved *a = bl_rank_saved(r, layer, micro_batch);
  return exchange(r, a, true, &a->dback, &a->received);
}

bl_status bl_do_expert_dx(bl_rank *r, int32_t layer, int32_t micro_batch) {
  bl_saved *a = bl_rank_saved(r, layer, micro_batch);
  const bl_route *route = &a->route;
  const int32_t H = r->run->model->hidden, F = r->run->model->expert_width;
  const int64_t room = received_room(r, a);
  bl_chunk drows = {0};
  BL_TRY(reorder(r, a, true, &a->received, &a->dout));
  BL_TRY(bl_take_num(r, room * F, &a->dhidden));
  BL_TRY(bl_take_num(r, room * H, &drows));
  const bl_ops *op = &r->be->ops;
  BL_TRY(make_groups(r, layer, route, FC2));
  op->grouped_dx(r->s, a->dhidden.data, a->dout.data, r->group, route->n_groups, H, F);
  BL_TRY(make_groups(r, layer, route, FC1));
  op->grouped_gelu_bwd(r->s, a->dhidden.data, a->dhidden.data, a->hidden.data, r->group, route->n_groups, F);
  op->grouped_dx(r->s, drows.data, a->dhidden.data, r->group, route->n_groups, F, H);
  forget(r, &a->hidden);
  return reorder(r, a, false, &drows, &a->drows);
}

bl_status bl_do_dispatch_bwd(bl_rank *r, int32_t layer, int32_t micro_batch) {
  bl_saved *a = bl_rank_saved(r, layer, micro_batch);
  return exchange(r, a, false, &a->drows, &a->dsend);
}

bl_status bl_do_expert_dw(bl_rank *r, int32_t layer, int32_t micro_batch) {
  bl_saved *a = bl_rank_saved(r, layer, micro_batch);
  const bl_route *route = &a->route;
  const int32_t H = r->run->model->hidden, F = r->run->model->expert_width;
  BL_TRY(make_groups(r, layer, route, FC2));
  r->be->ops.grouped_dw(r->s, a->dout.data, a->active.data, r->group, route->n_groups, H, F);
  BL_TRY(make_groups(r, layer, route, FC1));
  for (int32_t g = 0; g < route->n_groups; g++) r->group[g].grad_bias = NULL; /* grouped_gelu_bwd added to it */
  r->be->ops.grouped_dw(r->s, a->dhidden.data, a->rows_in.data, r->group, route->n_groups, F, H);
  bl_chunk *done[] = {&a->dout, &a->active, &a->dhidden, &a->rows_in};
  for (size_t i = 0; i < sizeof done / sizeof *done; i++) forget(r, done[i]);
  return BL_OK;
}

bl_status bl_do_scatter_bwd(bl_rank *r, int32_t layer, int32_t micro_batch) {
  bl_saved *a = bl_rank_saved(r, layer, micro_batch);
  const int32_t T = r->tokens, H = r->run->model->hidden;
  BL_TRY(bl_take_num(r, (int64_t)T * H, &a->dnorm2));
  r->be->zero(r->s, a->dnorm2.data, (size_t)T * (size_t)H * r->be->num_bytes);
  r->be->ops.rows_sum(r->s, a->dnorm2.data, a->dsend.data, a->row.data, T, r->run->top_k, H);
  forget(r, &a->dsend);
  return BL_OK;
}
