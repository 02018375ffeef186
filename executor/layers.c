/* layers.c - embedding, attention, dense feed-forward and head of the small model (DESIGN section 7). */
#include "executor/rank.h"

static void forget(bl_rank *r, bl_chunk *chunk) { bl_pool_give(r->pool, chunk); }

bl_status bl_do_embed_fwd(bl_rank *r, int32_t micro_batch) {
  const bl_model *m = r->run->model;
  bl_chunk *x = &bl_rank_saved(r, 0, micro_batch)->x;
  BL_TRY(bl_take_num(r, (int64_t)r->tokens * m->hidden, x));
  r->be->ops.embed_fwd(r->s, x->data, r->token_ids[micro_batch].data, r->token.weight, r->position.weight, r->tokens,
                       m->sequence, m->hidden);
  return BL_OK;
}

bl_status bl_do_embed_bwd(bl_rank *r, int32_t micro_batch) {
  const bl_model *m = r->run->model;
  r->be->ops.embed_bwd(r->s, r->token.grad, r->position.grad, r->token_ids[micro_batch].data, r->dx[micro_batch].data,
                       r->tokens, m->sequence, m->hidden);
  forget(r, &r->dx[micro_batch]);
  return BL_OK;
}

bl_status bl_do_attention_fwd(bl_rank *r, int32_t layer, int32_t micro_batch) {
  const bl_model *m = r->run->model;
  const bl_layer_weights *w = &r->layer[layer];
  bl_saved *a = bl_rank_saved(r, layer, micro_batch);
  const int32_t T = r->tokens, H = m->hidden, A = m->heads * m->head_width;
  BL_TRY(bl_take_num(r, (int64_t)T * H, &a->norm1));
  BL_TRY(bl_take_f32(r, T, &a->mean1));
  BL_TRY(bl_take_f32(r, T, &a->rstd1));
  BL_TRY(bl_take_num(r, (int64_t)T * 3 * A, &a->qkv));
  BL_TRY(bl_take_num(r, (int64_t)T * A, &a->attention));
  BL_TRY(bl_take_f32(r, (int64_t)m->heads * T, &a->lse));
  BL_TRY(bl_take_num(r, (int64_t)T * H, &a->mid));
  const bl_ops *op = &r->be->ops;
  op->norm_fwd(r->s, a->norm1.data, a->mean1.data, a->rstd1.data, a->x.data, w->norm1_weight.weight,
               w->norm1_bias.weight, T, H);
  op->linear_fwd(r->s, a->qkv.data, a->norm1.data, w->qkv_weight.weight, w->qkv_bias.weight, T, 3 * A, H, false);
  op->attention_fwd(r->s, a->attention.data, a->lse.data, a->qkv.data, r->run->sequences, m->sequence, m->heads,
                    m->head_width);
  r->be->copy(r->s, a->mid.data, a->x.data, (size_t)T * (size_t)H * r->be->num_bytes);
  op->linear_fwd(r->s, a->mid.data, a->attention.data, w->out_weight.weight, w->out_bias.weight, T, H, A, true);
  return BL_OK;
}

bl_status bl_do_attention_bwd(bl_rank *r, int32_t layer, int32_t micro_batch) {
  const bl_model *m = r->run->model;
  const bl_layer_weights *w = &r->layer[layer];
  bl_saved *a = bl_rank_saved(r, layer, micro_batch);
  const int32_t T = r->tokens, H = m->hidden, A = m->heads * m->head_width;
  bl_num *dx = r->dx[micro_batch].data;
  bl_chunk dattention = {0}, dqkv = {0}, dnorm1 = {0};
  BL_TRY(bl_take_num(r, (int64_t)T * A, &dattention));
  BL_TRY(bl_take_num(r, (int64_t)T * 3 * A, &dqkv));
  BL_TRY(bl_take_num(r, (int64_t)T * H, &dnorm1));
  const bl_ops *op = &r->be->ops;
  op->linear_dw(r->s, w->out_weight.grad, w->out_bias.grad, dx, a->attention.data, T, H, A);
  op->linear_dx(r->s, dattention.data, dx, w->out_weight.weight, T, H, A, false);
  op->attention_bwd(r->s, dqkv.data, dattention.data, a->qkv.data, a->attention.data, a->lse.data, r->run->sequences,
                    m->sequence, m->heads, m->head_width);
  op->linear_dw(r->s, w->qkv_weight.grad, w->qkv_bias.grad, dqkv.data, a->norm1.data, T, 3 * A, H);
  op->linear_dx(r->s, dnorm1.data, dqkv.data, w->qkv_weight.weight, T, 3 * A, H, false);
  op->norm_bwd(r->s, dx, w->norm1_weight.grad, w->norm1_bias.grad, dnorm1.data, a->x.data, a->mean1.data, a->rstd1.data,
               w->norm1_weight.weight, T, H);
  bl_chunk *done[] = {&dattention, &dqkv,     &dnorm1, &a->x,   &a->norm1,
                      &a->mean1,   &a->rstd1, &a->qkv, &a->lse, &a->attention};
  for (size_t i = 0; i < sizeof done / sizeof *done; i++) forget(r, done[i]);
  return BL_OK;
}

bl_status bl_do_ffn_fwd(bl_rank *r, int32_t layer, int32_t micro_batch) {
  const bl_model *m = r->run->model;
  const bl_layer_weights *w = &r->layer[layer];
  bl_saved *a = bl_rank_saved(r, layer, micro_batch), *next = bl_rank_saved(r, layer + 1, micro_batch);
  const int32_t T = r->tokens, H = m->hidden, F = m->ffn_width;
  BL_TRY(bl_take_num(r, (int64_t)T * H, &a->norm2));
  BL_TRY(bl_take_f32(r, T, &a->mean2));
  BL_TRY(bl_take_f32(r, T, &a->rstd2));
  BL_TRY(bl_take_num(r, (int64_t)T * F, &a->hidden));
  BL_TRY(bl_take_num(r, (int64_t)T * F, &a->active));
  BL_TRY(bl_take_num(r, (int64_t)T * H, &next->x));
  const bl_ops *op = &r->be->ops;
  op->norm_fwd(r->s, a->norm2.data, a->mean2.data, a->rstd2.data, a->mid.data, w->norm2_weight.weight,
               w->norm2_bias.weight, T, H);
  const bl_group fc1 = {.rows = T, .weight = w->fc1_weight.weight, .bias = w->fc1_bias.weight};
  op->grouped_gelu_fwd(r->s, a->active.data, a->hidden.data, a->norm2.data, &fc1, 1, F, H);
  r->be->copy(r->s, next->x.data, a->mid.data, (size_t)T * (size_t)H * r->be->num_bytes);
  op->linear_fwd(r->s, next->x.data, a->active.data, w->fc2_weight.weight, w->fc2_bias.weight, T, H, F, true);
  return BL_OK;
}

bl_status bl_do_ffn_bwd(bl_rank *r, int32_t layer, int32_t micro_batch) {
  const bl_model *m = r->run->model;
  const bl_layer_weights *w = &r->layer[layer];
  bl_saved *a = bl_rank_saved(r, layer, micro_batch);
  const int32_t T = r->tokens, H = m->hidden, F = m->ffn_width;
  bl_num *dx = r->dx[micro_batch].data;
  bl_chunk dhidden = {0}, dnorm2 = {0};
  BL_TRY(bl_take_num(r, (int64_t)T * F, &dhidden));
  BL_TRY(bl_take_num(r, (int64_t)T * H, &dnorm2));
  const bl_ops *op = &r->be->ops;
  op->linear_dw(r->s, w->fc2_weight.grad, w->fc2_bias.grad, dx, a->active.data, T, H, F);
  op->linear_dx(r->s, dhidden.data, dx, w->fc2_weight.weight, T, H, F, false);
  const bl_group fc1 = {.rows = T, .bias = w->fc1_bias.weight, .grad_bias = w->fc1_bias.grad};
  op->grouped_gelu_bwd(r->s, dhidden.data, dhidden.data, a->hidden.data, &fc1, 1, F);
  op->linear_dw(r->s, w->fc1_weight.grad, NULL, dhidden.data, a->norm2.data, T, F, H);
  op->linear_dx(r->s, dnorm2.data, dhidden.data, w->fc1_weight.weight, T, F, H, false);
  op->norm_bwd(r->s, dx, w->norm2_weight.grad, w->norm2_bias.grad, dnorm2.data, a->mid.data, a->mean2.data,
               a->rstd2.data, w->norm2_weight.weight, T, H);
  bl_chunk *done[] = {&dhidden, &dnorm2, &a->mid, &a->norm2, &a->mean2, &a->rstd2, &a->hidden, &a->active};
  for (size_t i = 0; i < sizeof done / sizeof *done; i++) forget(r, done[i]);
  return BL_OK;
}

/* Where the loss of a micro-batch goes among the device sums: behind the squares. */
static double *loss_sum(const bl_rank *r, int32_t micro_batch) { return r->device_sums + r->n_squares + micro_batch; }

bl_status bl_do_head(bl_rank *r, int32_t micro_batch) {
  const bl_model *m = r->run->model;
  const int32_t T = r->tokens, H = m->hidden, V = m->vocabulary;
  bl_chunk *x = &bl_rank_saved(r, m->layers, micro_batch)->x, *dx = &r->dx[micro_batch];
  bl_chunk norm = {0}, mean = {0}, rstd = {0}, logits = {0}, loss = {0};
  BL_TRY(bl_take_num(r, (int64_t)T * H, &norm));
  BL_TRY(bl_take_f32(r, T, &mean));
  BL_TRY(bl_take_f32(r, T, &rstd));
  BL_TRY(bl_take_num(r, (int64_t)T * V, &logits));
  BL_TRY(bl_take_f32(r, T, &loss));
  BL_TRY(bl_take_num(r, (int64_t)T * H, dx));
  const bl_ops *op = &r->be->ops;
  const float scale = 1.0f / ((float)r->run->batch * (float)m->sequence); /* mean over all tokens of the step */
  op->norm_fwd(r->s, norm.data, mean.data, rstd.data, x->data, r->norm_weight.weight, r->norm_bias.weight, T, H);
  op->linear_fwd(r->s, logits.data, norm.data, r->token.weight, NULL, T, V, H, false);
  op->cross_entropy(r->s, loss.data, logits.data, r->target_ids[micro_batch].data, T, V, scale);
  op->sum_f32(r->s, loss_sum(r, micro_batch), loss.data, T);
  op->linear_dw(r->s, r->token.grad, NULL, logits.data, norm.data, T, V, H);
  bl_chunk *dnorm = &norm; /* the normalised rows are not needed any more */
  op->linear_dx(r->s, dnorm->data, logits.data, r->token.weight, T, V, H, false);
  r->be->zero(r->s, dx->data, (size_t)T * (size_t)H * r->be->num_bytes);
  op->norm_bwd(r->s, dx->data, r->norm_weight.grad, r->norm_bias.grad, dnorm->data, x->data, mean.data, rstd.data,
               r->norm_weight.weight, T, H);
  bl_chunk *done[] = {&norm, &mean, &rstd, &logits, &loss, x};
  for (size_t i = 0; i < sizeof done / sizeof *done; i++) forget(r, done[i]);
  return BL_OK;
}
