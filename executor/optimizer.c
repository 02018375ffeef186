/* optimizer.c - the end of a step: dense gradients summed over ranks, gradient norm, clipping, AdamW.
 *
 * The norm adds one partial sum a tensor, in the order embedding and head, then layer by layer the dense tensors and
 * the experts' (expert, tensor): never in rank order, so it does not depend on where experts live; an expert that has
 * replicas counts once, by the first, since all hold the same sum. */
#include "executor/rank.h"
#include <math.h>

static const double BETA1 = 0.9, BETA2 = 0.95, EPSILON = 1e-8, DECAY = 0.1, CLIP = 1.0;

double bl_learning_rate(double peak, int64_t step, int64_t warmup, int64_t schedule_steps) {
  if (step <= warmup) return peak * (double)step / (double)warmup;
  if (step >= schedule_steps) return 0.1 * peak;
  const double done = (double)(step - warmup) / (double)(schedule_steps - warmup);
  return peak * (0.1 + 0.45 * (1 + cos(3.14159265358979323846 * done)));
}

/* Experts ascending, replicas added in their order. */
bl_status bl_do_expert_reduce(bl_rank *r, int32_t layer) {
  const bl_weights *w = &r->weights;
  for (int32_t e = 0; e < w->experts; e++) {
    const bl_state *state = bl_weights_expert(w, w->moe_index[layer], e);
    if (state->m) BL_TRY(bl_comm_all_reduce(r->edp_comm, r->s, state->grad, w->expert_size));
  }
  return BL_OK;
}

bl_status bl_do_dense_reduce(bl_rank *r, int32_t layer) {
  int32_t first, end;
  int64_t offset, n;
  bl_weights_range(&r->weights, layer, &first, &end, &offset, &n);
  return bl_comm_all_reduce(r->comm, r->s, r->weights.dense_state.grad + offset, n);
}

/* Position of an expert tensor's square among the sums. */
static int64_t expert_square(const bl_weights *w, int32_t moe, int32_t expert, int32_t tensor) {
  return w->n_dense + ((int64_t)moe * w->experts + expert) * w->n_expert_tensors + tensor;
}

bl_status bl_do_square_grads(bl_rank *r, int32_t layer) {
  const bl_weights *w = &r->weights;
  int32_t n = 0;
  for (int32_t i = w->layer_first[layer + 1]; i < w->layer_first[layer + 2]; i++)
    r->square_parts[n++] =
        (bl_square_part){r->device_sums + i, w->dense_state.grad + w->dense[i].offset, w->dense[i].n};
  const int32_t moe = layer < 0 ? -1 : w->moe_index[layer];
  for (int32_t e = 0; moe >= 0 && e < w->experts; e++) {
    const bl_state *state = bl_weights_expert(w, moe, e);
    for (int32_t t = 0; state->m && t < w->n_expert_tensors; t++)
      r->square_parts[n++] = (bl_square_part){r->device_sums + expert_square(w, moe, e, t),
                                              state->grad + w->expert_tensor[t].offset, w->expert_tensor[t].n};
  }
  r->be->ops.sum_sq(r->s, r->square_parts, n);
  return BL_OK;
}

void bl_rank_begin_update(bl_rank *r) {
  const bl_adamw hyper = {.lr = (float)bl_learning_rate(r->run->lr, r->step, r->run->warmup, r->run->schedule_steps),
                          .beta1 = (float)BETA1,
                          .beta2 = (float)BETA2,
                          .eps = (float)EPSILON,
                          .bias_correction1 = (float)(1 - pow(BETA1, (double)r->step)),
                          .bias_correction2 = (float)(1 - pow(BETA2, (double)r->step))};
  const bl_host_part part = {&hyper, sizeof hyper};
  const void *uploaded;
  r->be->upload(r->s, &part, 1, &uploaded);
  r->be->copy(r->s, r->hyper, uploaded, sizeof hyper);
  r->be->zero(r->s, r->device_sums + r->n_sums, BL_SUM_MARKS * sizeof(double));
}

void bl_rank_note_stop(bl_rank *r) {
  const double stop = r->stop_request && *r->stop_request ? 1 : 0;
  const bl_host_part part = {&stop, sizeof stop};
  const void *uploaded;
  r->be->upload(r->s, &part, 1, &uploaded);
  r->be->copy(r->s, r->device_sums + r->n_sums + BL_SUM_STOP, uploaded, sizeof stop);
}

/* Where the norm finds its terms among all ranks' sums, in its order. */
static int32_t list_squares(const bl_rank *r) {
  const bl_weights *w = &r->weights;
  const int64_t stride = r->n_sums + BL_SUM_MARKS;
  int32_t n = 0;
  for (int32_t layer = -1; layer < r->run->model->layers; layer++) {
    for (int32_t i = w->layer_first[layer + 1]; i < w->layer_first[layer + 2]; i++)
      r->square_order[n++] = (int32_t)(r->rank * stride + i);
    const int32_t moe = layer < 0 ? -1 : w->moe_index[layer];
    for (int32_t e = 0; moe >= 0 && e < w->experts; e++) {
      const uint8_t *hosted = bl_rank_hosted(r, moe, e);
      int32_t home = 0;
      while (home < r->run->ep - 1 && hosted[home] != BL_HOSTED_HOME) home++;
      for (int32_t t = 0; t < w->n_expert_tensors; t++)
        r->square_order[n++] = (int32_t)(home * stride + expert_square(w, moe, e, t));
    }
  }
  return n;
}

bl_status bl_do_grad_norm(bl_rank *r) {
  const int64_t stride = r->n_sums + BL_SUM_MARKS;
  if (!r->planned_now) bl_rank_note_stop(r);
  BL_TRY(bl_comm_all_gather(r->comm, r->s, r->device_sums, stride * (int64_t)sizeof(double), r->all_sums));
  const int32_t n = list_squares(r);
  const bl_host_part part = {r->square_order, (size_t)n * sizeof *r->square_order};
  const void *order;
  r->be->upload(r->s, &part, 1, &order);
  r->be->ops.clip_norm(r->s, r->hyper, r->all_sums, order, n, r->all_sums + r->n_sums + BL_SUM_OVERFLOW, r->run->ranks,
                       stride, CLIP);
  return BL_OK;
}

/* Sum of n consecutive sums of every rank, micro-batch by micro-batch, in the order of the sequences. */
static double sum_over_ranks(const bl_rank *r, int64_t first, int64_t n) {
  double sum = 0;
  for (int64_t i = first; i < first + n; i++)
    for (int32_t p = 0; p < r->run->ranks; p++) sum += bl_rank_sums(r, p)[i];
  return sum;
}

/* Where several groups share the work, none knows the loads of all ranks until they tell. */
static bl_status gather_imbalance(bl_rank *r) {
  const int32_t L = r->weights.moe_layers, M = r->run->micro_batches, R = r->run->ranks, n = L * M;
  BL_TRY(bl_comm_all_gather_host(r->comm, r->group_tokens, (int64_t)sizeof *r->group_tokens * n, r->all_tokens));
  for (int32_t i = 0; i < n; i++) {
    int64_t most = 0, sum = 0;
    for (int32_t p = 0; p < R; p++) {
      const int64_t tokens = r->all_tokens[(int64_t)p * n + i];
      sum += tokens;
      if (tokens > most) most = tokens;
    }
    r->result.layer[i / M].imbalance += (sum ? (double)most * R / (double)sum : 1) / M;
  }
  return BL_OK;
}

bl_status bl_rank_read_sums(bl_rank *r) {
  const bl_run *run = r->run;
  bl_step_result *result = &r->result;
  const int64_t M = run->micro_batches;
  if (r->group_tokens) BL_TRY(gather_imbalance(r));
  const int32_t n = list_squares(r);
  double squares = 0;
  for (int32_t i = 0; i < n; i++) squares += r->host_sums[r->square_order[i]];
  result->grad_norm = sqrt(squares);
  result->loss = sum_over_ranks(r, r->n_squares, M) / ((double)run->batch * run->model->sequence);
  result->balance_loss = sum_over_ranks(r, r->n_squares + M, M * r->weights.moe_layers) / (double)run->batch;
  result->stop = sum_over_ranks(r, r->n_sums + BL_SUM_STOP, 1) > 0;
  result->lr = bl_learning_rate(run->lr, r->step, run->warmup, run->schedule_steps);
  if (!isfinite(result->loss) || !isfinite(result->grad_norm))
    return bl_fail(BL_EINPUT,
                   "step %lld: the loss is %g and the gradient norm %g; a lower --lr or another seed may help",
                   (long long)r->step, result->loss, result->grad_norm);
  return BL_OK;
}

static bl_adamw_part part_of(const bl_rank *r, const bl_state *state, int64_t offset, int64_t n, bool decay) {
  return (bl_adamw_part){.weight = bl_weights_at(&r->weights, state->weight, offset),
                         .master = state->master + offset,
                         .m = state->m + offset,
                         .v = state->v + offset,
                         .grad = state->grad + offset,
                         .n = n,
                         .decay = decay ? (float)DECAY : 0.0f};
}

bl_status bl_do_optimizer(bl_rank *r, int32_t layer) {
  const bl_weights *w = &r->weights;
  int32_t n = 0;
  for (int32_t i = w->layer_first[layer + 1]; i < w->layer_first[layer + 2]; i++)
    r->adamw_parts[n++] = part_of(r, &w->dense_state, w->dense[i].offset, w->dense[i].n, w->dense[i].tensor.decay);
  const int32_t moe = layer < 0 ? -1 : w->moe_index[layer];
  for (int32_t e = 0; moe >= 0 && e < w->experts; e++) {
    const bl_state *state = bl_weights_expert(w, moe, e);
    for (int32_t t = 0; state->m && t < w->n_expert_tensors; t++)
      r->adamw_parts[n++] =
          part_of(r, state, w->expert_tensor[t].offset, w->expert_tensor[t].n, w->expert_tensor[t].tensor.decay);
  }
  r->be->ops.adamw(r->s, r->adamw_parts, n, r->hyper);
  return BL_OK;
}
