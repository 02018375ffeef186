/* tensors.c - the tensors of each part of a model, and every count that follows from them. */
#include "costmodel/model.h"
#include <stdio.h>

typedef struct list {
  const bl_model *model;
  bl_tensor *tensors;
  int32_t n;
} list;

static void add(list *l, const char *suffix, int32_t rows, int32_t cols, bl_tensor_init init, bool decay) {
  l->tensors[l->n++] = (bl_tensor){.suffix = suffix, .rows = rows, .cols = cols, .init = init, .decay = decay};
}

static void add_norm(list *l, const char *weight, const char *bias, int32_t width) {
  add(l, weight, 1, width, BL_INIT_ONE, false);
  if (l->model->norm == BL_NORM_LAYER) add(l, bias, 1, width, BL_INIT_ZERO, false);
}

static void add_linear(list *l, const char *weight, const char *bias, int32_t out, int32_t in, bl_tensor_init init) {
  add(l, weight, out, in, init, true);
  if (bias && l->model->biases) add(l, bias, 1, out, BL_INIT_ZERO, false);
}

static void add_attention(list *l) {
  const bl_model *m = l->model;
  add_norm(l, "norm1.weight", "norm1.bias", m->hidden);
  if (!m->latent_attention) {
    add_linear(l, "attn.qkv.weight", "attn.qkv.bias", (m->heads + 2 * m->kv_heads) * m->head_width, m->hidden,
               BL_INIT_NORMAL);
    add_linear(l, "attn.out.weight", "attn.out.bias", m->hidden, m->heads * m->head_width, BL_INIT_NORMAL_OUT);
    return;
  }
  const int32_t q_out = m->heads * (m->head_width + m->rope_width);
  if (m->q_rank > 0) {
    add_linear(l, "attn.q_down.weight", NULL, m->q_rank, m->hidden, BL_INIT_NORMAL);
    add_norm(l, "attn.q_norm.weight", "attn.q_norm.bias", m->q_rank);
    add_linear(l, "attn.q_up.weight", NULL, q_out, m->q_rank, BL_INIT_NORMAL);
  } else
    add_linear(l, "attn.q.weight", NULL, q_out, m->hidden, BL_INIT_NORMAL);
  add_linear(l, "attn.kv_down.weight", NULL, m->kv_rank + m->rope_width, m->hidden, BL_INIT_NORMAL);
  add_norm(l, "attn.kv_norm.weight", "attn.kv_norm.bias", m->kv_rank);
  add_linear(l, "attn.kv_up.weight", NULL, m->heads * (m->head_width + m->value_width), m->kv_rank, BL_INIT_NORMAL);
  add_linear(l, "attn.out.weight", "attn.out.bias", m->hidden, m->heads * m->value_width, BL_INIT_NORMAL_OUT);
}

/* in makes gate, value, both projections of the state and a time step a head (arXiv 2405.21060, section 7). */
static void add_state_space(list *l) {
  const bl_model *m = l->model;
  const int32_t inner = m->state_heads * m->state_head_width, both = 2 * m->state_groups * m->state_width;
  add_norm(l, "norm1.weight", "norm1.bias", m->hidden);
  add_linear(l, "ssm.in.weight", NULL, 2 * inner + both + m->state_heads, m->hidden, BL_INIT_NORMAL);
  add(l, "ssm.convolution.weight", inner + both, m->state_convolution, BL_INIT_NORMAL, true);
  add(l, "ssm.convolution.bias", 1, inner + both, BL_INIT_ZERO, false);
  add(l, "ssm.decay", 1, m->state_heads, BL_INIT_ONE, false);
  add(l, "ssm.step", 1, m->state_heads, BL_INIT_ONE, false);
  add(l, "ssm.skip", 1, m->state_heads, BL_INIT_ONE, false);
  add(l, "ssm.norm.weight", 1, inner, BL_INIT_ONE, false);
  add_linear(l, "ssm.out.weight", NULL, m->hidden, inner, BL_INIT_NORMAL_OUT);
}

/* fc1 of a gated feed-forward holds gate and value, one behind the other. */
static void add_mlp(list *l, const char *const names[4], int32_t in, int32_t width, bool gated) {
  add_linear(l, names[0], names[1], gated ? 2 * width : width, in, BL_INIT_NORMAL);
  add_linear(l, names[2], names[3], in, width, BL_INIT_NORMAL_OUT);
}

int32_t bl_model_tensors(const bl_model *m, bl_model_part part, bl_tensor *tensors) {
  static const char *const ffn[4] = {"ffn.fc1.weight", "ffn.fc1.bias", "ffn.fc2.weight", "ffn.fc2.bias"};
  static const char *const expert[4] = {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"};
  list l = {m, tensors, 0};
  switch (part) {
  case BL_PART_EMBED:
    add(&l, "embed.token", m->vocabulary, m->hidden, BL_INIT_NORMAL, true);
    if (m->position == BL_POSITION_LEARNED) add(&l, "embed.position", m->sequence, m->hidden, BL_INIT_NORMAL, true);
    break;
  case BL_PART_ATTENTION:
    add_attention(&l);
    break;
  case BL_PART_STATE_SPACE:
    if (m->state_heads > 0) add_state_space(&l);
    break;
  case BL_PART_FFN:
    add_norm(&l, "norm2.weight", "norm2.bias", m->hidden);
    add_mlp(&l, ffn, m->hidden, m->ffn_width, m->ffn_gated);
    break;
  case BL_PART_GATE:
    add_norm(&l, "norm2.weight", "norm2.bias", m->hidden);
    add(&l, "moe.gate.weight", m->experts, m->hidden, BL_INIT_NORMAL, true);
    if (m->score_bias) add(&l, "moe.gate.bias", 1, m->experts, BL_INIT_ZERO, false);
    if (m->latent_width > 0) {
      add_linear(&l, "moe.latent_in.weight", NULL, m->latent_width, m->hidden, BL_INIT_NORMAL);
      add_linear(&l, "moe.latent_out.weight", NULL, m->hidden, m->latent_width, BL_INIT_NORMAL_OUT);
    }
    break;
  case BL_PART_SHARED:
    if (m->shared_experts > 0) add_mlp(&l, expert, m->hidden, m->shared_experts * m->shared_width, m->expert_gated);
    break;
  case BL_PART_EXPERT:
    add_mlp(&l, expert, bl_model_row_width(m), m->expert_width, m->expert_gated);
    break;
  case BL_PART_HEAD:
    add_norm(&l, "norm.weight", "norm.bias", m->hidden);
    if (!m->tied_embedding) add(&l, "head.weight", m->vocabulary, m->hidden, BL_INIT_NORMAL, true);
    break;
  case BL_PART_MULTI_TOKEN:
    add_norm(&l, "embed_norm.weight", "embed_norm.bias", m->hidden);
    add_norm(&l, "hidden_norm.weight", "hidden_norm.bias", m->hidden);
    add_linear(&l, "project.weight", NULL, m->hidden, 2 * m->hidden, BL_INIT_NORMAL);
    add_norm(&l, "norm.weight", "norm.bias", m->hidden);
    break;
  case BL_PART_COUNT:
    break;
  }
  return l.n;
}

void bl_tensor_name(bl_model_part part, const bl_tensor *tensor, int32_t layer, int32_t expert, char *name) {
  char prefix[BL_TENSOR_NAME_MAX / 2] = "";
  switch (part) {
  case BL_PART_EMBED:
  case BL_PART_HEAD:
  case BL_PART_COUNT:
    break;
  case BL_PART_ATTENTION:
  case BL_PART_STATE_SPACE:
  case BL_PART_FFN:
  case BL_PART_GATE:
    snprintf(prefix, sizeof prefix, "layers.%d.", layer);
    break;
  case BL_PART_SHARED:
    snprintf(prefix, sizeof prefix, "layers.%d.moe.shared.", layer);
    break;
  case BL_PART_EXPERT:
    snprintf(prefix, sizeof prefix, "layers.%d.moe.experts.%d.", layer, expert);
    break;
  case BL_PART_MULTI_TOKEN:
    snprintf(prefix, sizeof prefix, "multi_token.%d.", layer);
    break;
  }
  snprintf(name, BL_TENSOR_NAME_MAX, "%s%s", prefix, tensor->suffix);
}

static int64_t size_of(const bl_tensor *tensor) { return (int64_t)tensor->rows * tensor->cols; }

int64_t bl_model_part_parameters(const bl_model *model, bl_model_part part) {
  bl_tensor tensors[BL_PART_MAX_TENSORS];
  const int32_t n = bl_model_tensors(model, part, tensors);
  int64_t sum = 0;
  for (int32_t i = 0; i < n; i++) sum += size_of(&tensors[i]);
  return sum;
}

int64_t bl_model_part_macs(const bl_model *model, bl_model_part part) {
  bl_tensor tensors[BL_PART_MAX_TENSORS];
  const int32_t n = bl_model_tensors(model, part, tensors);
  int64_t sum = 0;
  for (int32_t i = 0; i < n; i++)
    if (tensors[i].decay) sum += size_of(&tensors[i]);
  return sum;
}

int64_t bl_model_scan_macs(const bl_model *m) {
  const int64_t inner = (int64_t)m->state_heads * m->state_head_width;
  return m->state_chunk * ((int64_t)m->state_groups * m->state_width + inner) + 2 * inner * m->state_width;
}

int64_t bl_model_core_macs(const bl_model *m) {
  const int64_t widths = m->latent_attention ? m->head_width + m->rope_width + m->value_width : 2 * m->head_width;
  return m->heads * widths * m->sequence / (m->causal ? 2 : 1);
}

void bl_model_count(const bl_model *m, bl_model_counts *out) {
  int64_t layers[BL_LAYER_COUNT] = {0};
  for (int32_t l = 0; l < m->layers; l++) layers[bl_model_layer_kind(m, l)]++;
  layers[m->experts > 0 ? BL_LAYER_MOE : BL_LAYER_DENSE] += m->multi_token;
  const int64_t n_attention = layers[BL_LAYER_DENSE] + layers[BL_LAYER_MOE] + layers[BL_LAYER_ATTENTION];
  const int64_t n_moe = layers[BL_LAYER_MOE] + layers[BL_LAYER_EXPERTS], n_state = layers[BL_LAYER_STATE_SPACE];
  const int64_t n_ffn = layers[BL_LAYER_DENSE] + layers[BL_LAYER_FFN];
  const int64_t expert = m->experts > 0 ? bl_model_part_parameters(m, BL_PART_EXPERT) : 0;
  const int64_t gate = bl_model_part_parameters(m, BL_PART_GATE), shared = bl_model_part_parameters(m, BL_PART_SHARED);
  const int64_t logits = (int64_t)m->vocabulary * m->hidden;
  *out = (bl_model_counts){0};
  out->expert_parameters = n_moe * m->experts * expert;
  out->parameters = bl_model_part_parameters(m, BL_PART_EMBED) + bl_model_part_parameters(m, BL_PART_HEAD) +
                    n_attention * bl_model_part_parameters(m, BL_PART_ATTENTION) +
                    n_state * bl_model_part_parameters(m, BL_PART_STATE_SPACE) +
                    n_ffn * bl_model_part_parameters(m, BL_PART_FFN) + n_moe * (gate + shared) +
                    out->expert_parameters + m->multi_token * bl_model_part_parameters(m, BL_PART_MULTI_TOKEN);
  out->used_parameters = out->parameters - n_moe * (m->experts - m->top_k) * expert;
  const int64_t attention = bl_model_part_macs(m, BL_PART_ATTENTION);
  const int64_t beside_experts =
      m->experts > 0 ? bl_model_part_macs(m, BL_PART_GATE) + bl_model_part_macs(m, BL_PART_SHARED) : 0;
  out->layer_macs_dense = attention + beside_experts;
  out->layer_macs_expert = m->experts > 0 ? bl_model_part_macs(m, BL_PART_EXPERT) : 0;
  out->macs_dense = n_attention * attention + n_state * bl_model_part_macs(m, BL_PART_STATE_SPACE) +
                    n_ffn * bl_model_part_macs(m, BL_PART_FFN) + n_moe * beside_experts +
                    m->multi_token * bl_model_part_macs(m, BL_PART_MULTI_TOKEN) + (1 + m->multi_token) * logits;
  out->macs_used = out->macs_dense + n_moe * m->top_k * out->layer_macs_expert;
  out->macs_attention = n_attention * bl_model_core_macs(m) + n_state * bl_model_scan_macs(m);
}

double bl_model_training_flop(const bl_model *model, int64_t tokens, bool with_attention) {
  bl_model_counts counts;
  bl_model_count(model, &counts);
  return 6.0 * (double)tokens * ((double)counts.macs_used + (with_attention ? (double)counts.macs_attention : 0));
}
