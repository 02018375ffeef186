/* memory.c - sizes and lifetimes of buffers. */
#include "costmodel/memory.h"
#include "base/memory.h"

/* Sums of rows that a rank computes in one (layer, micro-batch). */
static double rows_of(const bl_costs *costs, const bl_buffer *b, int32_t rank) {
  if (b->layer < 0 || b->micro_batch < 0 || !bl_model_layer_is_moe(costs->model, b->layer)) return 0;
  const int32_t experts = costs->traffic->experts;
  const uint32_t *rows = bl_traffic_expert_rows(costs->traffic, b->layer, b->micro_batch) +
                         (size_t)bl_costs_ep_position(costs, rank) * (size_t)experts;
  double sum = 0;
  for (int32_t e = 0; e < experts; e++) sum += rows[e];
  return sum;
}

static double copy_parameters(const bl_costs *costs, int32_t layer, int32_t rank) {
  const bl_traffic *t = costs->traffic;
  const int32_t position = bl_costs_ep_position(costs, rank), at = layer * t->ranks + position;
  if (!bl_model_layer_is_moe(costs->model, layer)) return 0;
  const int32_t room = costs->slots ? costs->slots[position] - t->homes[at] : t->copies_in[at];
  return (room > 0 ? room : 0) * (double)bl_model_part_parameters(costs->model, BL_PART_EXPERT);
}

static double attention_saved(const bl_model *m, double tokens, double num) {
  const double values = m->latent_attention ? m->value_width : m->head_width;
  const double qkv = m->latent_attention
                         ? m->heads * (2.0 * (m->head_width + m->rope_width) + m->value_width) + m->kv_rank + m->q_rank
                         : (m->heads + 2.0 * m->kv_heads) * m->head_width;
  return tokens * (num * (m->hidden + qkv + m->heads * values) + 4.0 * (m->heads + 2));
}

/* What the input projection of a state-space layer makes of a token. */
static double projected(const bl_model *m) {
  return 2.0 * m->state_heads * m->state_head_width + 2.0 * m->state_groups * m->state_width + m->state_heads;
}

/* norm1's output, projections, what the scan gives and its norm. */
static double state_space_saved(const bl_model *m, double tokens, double num) {
  const double inner = (double)m->state_heads * m->state_head_width;
  return tokens * (num * (m->hidden + projected(m) + 2 * inner) + 4.0 * 2);
}

/* Hidden numbers of a feed-forward that the backward needs: before and after the activation. */
static double hidden_saved(double width, bool gated) { return width * (gated ? 3 : 2); }

double bl_buffer_bytes(const bl_costs *costs, const bl_buffer *b, int32_t rank) {
  const bl_model *m = costs->model;
  const double num = costs->profile->num_bytes, fp32 = 4, moments = 8, master = costs->profile->num_bytes == 4 ? 0 : 4;
  const double tokens = (double)bl_costs_tokens(costs), choices = tokens * m->top_k, rows = rows_of(costs, b, rank);
  const double H = m->hidden, W = bl_model_row_width(m), F = m->expert_width,
               shared = (double)m->shared_experts * m->shared_width;
  const double dense = (double)bl_costs_dense_parameters(costs, b->layer);
  const double home = (double)bl_costs_home_parameters(costs, b->layer, rank);
  const double counts = (double)m->experts * 4;
  switch (b->kind) {
  case BL_BUFFER_TOKENS:
    return 2 * tokens * 4;
  case BL_BUFFER_WEIGHT_EMBED:
  case BL_BUFFER_WEIGHT_DENSE:
  case BL_BUFFER_WHOLE_EMBED:
  case BL_BUFFER_WHOLE_DENSE:
    return dense * num;
  case BL_BUFFER_WEIGHT_HOME:
  case BL_BUFFER_WHOLE_HOME:
    return home * num;
  case BL_BUFFER_WEIGHT_COPY:
    return copy_parameters(costs, b->layer, rank) * num;
  case BL_BUFFER_STATE_EMBED:
  case BL_BUFFER_STATE_DENSE:
    return dense * (moments + master);
  case BL_BUFFER_STATE_HOME:
    return home * (moments + master);
  case BL_BUFFER_GRAD_EMBED:
  case BL_BUFFER_GRAD_DENSE:
    return dense * fp32;
  case BL_BUFFER_GRAD_HOME:
    return home * fp32;
  case BL_BUFFER_GRAD_COPY:
    return copy_parameters(costs, b->layer, rank) * fp32;
  case BL_BUFFER_X:
  case BL_BUFFER_MID:
  case BL_BUFFER_SHARED_OUT:
  case BL_BUFFER_DX:
  case BL_BUFFER_DMID:
  case BL_BUFFER_DNORM2:
  case BL_BUFFER_DSHARED:
    return tokens * H * num;
  case BL_BUFFER_ATTENTION_SAVED:
    return attention_saved(m, tokens, num);
  case BL_BUFFER_STATE_SPACE_SAVED:
    return state_space_saved(m, tokens, num);
  case BL_BUFFER_HEADS: /* in and out */
    return tokens * num * (projected(m) + (double)m->state_heads * m->state_head_width);
  case BL_BUFFER_FFN_SAVED:
    return tokens * (num * (H + hidden_saved(m->ffn_width, m->ffn_gated)) + 2 * fp32);
  case BL_BUFFER_NORM2:
    return tokens * (H * num + 2 * fp32);
  case BL_BUFFER_GATE:
    return tokens * m->experts * num + choices * 4 * fp32;
  case BL_BUFFER_SHARED_SAVED:
    return tokens * num * hidden_saved(shared, m->expert_gated);
  case BL_BUFFER_LOCAL_COUNTS:
    return counts;
  case BL_BUFFER_COUNTS:
  case BL_BUFFER_QUOTA:
    return counts * costs->layout->ep;
  case BL_BUFFER_SEND:
  case BL_BUFFER_BACK:
  case BL_BUFFER_DBACK:
  case BL_BUFFER_DSEND:
    return choices * W * num;
  case BL_BUFFER_RECEIVED:
  case BL_BUFFER_EXPERT_OUT:
  case BL_BUFFER_DEXPERT_OUT:
  case BL_BUFFER_DRECEIVED:
    return rows * W * num;
  case BL_BUFFER_EXPERT_SAVED:
    return rows * num * hidden_saved(F, m->expert_gated);
  case BL_BUFFER_DHIDDEN:
    return rows * F * num * (m->expert_gated ? 2 : 1);
  case BL_BUFFER_WHOLE:
  case BL_BUFFER_PARTIAL:
    return tokens * H * num;
  case BL_BUFFER_KEYS:
    return 2 * tokens * costs->layout->cp * m->kv_heads * m->head_width * num;
  case BL_BUFFER_ROWS:
  case BL_BUFFER_ROWS_PARTIAL:
  case BL_BUFFER_DROWS:
    return rows * costs->layout->etp * W * num;
  case BL_BUFFER_LOSS:
    return tokens * fp32;
  case BL_BUFFER_DGATE:
    return choices * fp32;
  case BL_BUFFER_HISTORY:
  case BL_BUFFER_HOSTS:
  case BL_BUFFER_SQUARES:
  case BL_BUFFER_GRAD_SCALE:
  case BL_BUFFER_COUNT:
    break;
  }
  return 0;
}

double bl_action_workspace_bytes(const bl_costs *costs, const bl_action *action) {
  if (action->kind != BL_ACTION_HEAD) return 0;
  return (double)bl_costs_tokens(costs) * costs->profile->num_bytes *
         ((double)costs->model->vocabulary + costs->model->hidden);
}

bl_status bl_memory_peak(const bl_costs *costs, const bl_step *step, int32_t rank, double *bytes) {
  int32_t *last = NULL;
  bool *live = NULL;
  bl_status status = BL_OK;
  const size_t n = (size_t)step->n_buffers;
  double now = 0, peak = 0;
  BL_TRY_GOTO(status, bl_new(&last, n, sizeof *last, "memory of a step"), done);
  BL_TRY_GOTO(status, bl_new(&live, n, sizeof *live, "memory of a step"), done);
  for (int32_t i = 0; i < step->n_actions; i++) {
    const bl_action *action = &step->actions[step->order[i]];
    for (int32_t u = 0; u < action->n_reads + action->n_writes; u++) last[step->uses[action->first_use + u]] = i;
  }
  for (size_t b = 0; b < n; b++)
    if (bl_buffer_kept[step->buffers[b].kind]) now += bl_buffer_bytes(costs, &step->buffers[b], rank);
  for (int32_t i = 0; i < step->n_actions; i++) {
    const bl_action *action = &step->actions[step->order[i]];
    const int32_t *uses = step->uses + action->first_use, n_uses = action->n_reads + action->n_writes;
    for (int32_t u = action->n_reads; u < n_uses; u++) {
      if (live[uses[u]] || bl_buffer_kept[step->buffers[uses[u]].kind]) continue;
      live[uses[u]] = true;
      now += bl_buffer_bytes(costs, &step->buffers[uses[u]], rank);
    }
    const double most = now + bl_action_workspace_bytes(costs, action);
    if (most > peak) peak = most;
    for (int32_t u = 0; u < n_uses; u++) {
      if (!live[uses[u]] || last[uses[u]] != i) continue;
      live[uses[u]] = false;
      now -= bl_buffer_bytes(costs, &step->buffers[uses[u]], rank);
    }
  }
  *bytes = peak;
done:
  free(last);
  free(live);
  return status;
}
