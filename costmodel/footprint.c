/* footprint.c - memory of a rank under a layout, item by item. */
#include "costmodel/footprint.h"
#include <string.h>

const char *const bl_recompute_names[BL_RECOMPUTE_COUNT] = {"none", "selective", "ffn", "full"};

const char *const bl_footprint_names[BL_FOOTPRINT_COUNT] = {
#define X(name, text, formula) text,
    BL_FOOTPRINT_LIST(X)
#undef X
};

const char *const bl_footprint_formulas[BL_FOOTPRINT_COUNT] = {
#define X(name, text, formula) formula,
    BL_FOOTPRINT_LIST(X)
#undef X
};

static double larger(double a, double b) { return a > b ? a : b; }

double bl_grid_tokens(const bl_model *model, const bl_grid *grid) {
  return (double)grid->micro_batch * model->sequence / grid->cp;
}

/* Numbers a token that a layer keeps: all of them, and those that selective recomputation drops. */
typedef struct kept {
  double all, dropped;
} kept;

static kept attention_kept(const bl_model *m, double num) {
  const double H = m->hidden, heads = m->heads;
  if (!m->latent_attention)
    return (kept){num * (2 * H + (heads + 2.0 * m->kv_heads) * m->head_width + heads * m->head_width) + 4 * heads,
                  num * H};
  const double up = heads * (2.0 * (m->head_width + m->rope_width) + m->value_width);
  const double latents = 2.0 * (m->q_rank + m->kv_rank) + m->rope_width;
  return (kept){num * (2 * H + up + latents + heads * m->value_width) + 4 * heads, num * (H + up)};
}

/* norm2's input and output, and inside a feed-forward of `width`: what fc1 makes, and what the activation makes. */
static kept ffn_kept(const bl_model *m, double width, bool gated, double num) {
  return (kept){num * (2.0 * m->hidden + (gated ? 3 : 2) * width), num * (m->hidden + width)};
}

static kept moe_kept(const bl_model *m, const bl_grid *grid, double num, double imbalance) {
  const double rows = m->top_k * imbalance, H = m->hidden, f = m->expert_width;
  kept k = ffn_kept(m, (double)m->shared_experts * m->shared_width, m->expert_gated, num);
  k.all += 4.0 * m->experts + num * m->top_k * H; /* scores; the experts' outputs, for the gradient of their weights */
  k.all += num * rows * (H * grid->etp + (m->expert_gated ? 3 : 2) * f);
  k.dropped += num * rows * f;
  return k;
}

/* One layer: parameters, what it keeps, what it needs while it runs. */
static bl_item_size layer_size(const bl_model *m, const bl_grid *grid, bool moe, double num, double imbalance) {
  const double tokens = bl_grid_tokens(m, grid), part = tokens / grid->tp, H = m->hidden;
  bl_item_size s = {0};
  kept attention = attention_kept(m, num), rest;
  s.dense_parameters = (double)bl_model_part_parameters(m, BL_PART_ATTENTION) / grid->tp;
  s.workspace_bytes = grid->tp > 1 ? 2 * num * tokens * H : 0; /* a gathered sequence, and its gradient */
  if (moe) {
    const int32_t homes = (m->experts + grid->ep - 1) / grid->ep;
    const double expert = (double)bl_model_part_parameters(m, BL_PART_EXPERT) / grid->etp;
    s.dense_parameters += (double)bl_model_part_parameters(m, BL_PART_SHARED) / grid->tp;
    s.dense_parameters += (double)bl_model_part_parameters(m, BL_PART_GATE);
    s.expert_parameters = homes * expert;
    s.copy_parameters = grid->copy_slots * expert;
    s.workspace_bytes += num * part * m->top_k * H * (1 + imbalance * grid->etp); /* sent and received rows */
    rest = moe_kept(m, grid, num, imbalance);
  } else {
    s.dense_parameters += (double)bl_model_part_parameters(m, BL_PART_FFN) / grid->tp;
    rest = ffn_kept(m, m->ffn_width, m->ffn_gated, num);
  }
  const double all = part * (attention.all + rest.all), dropped = part * (attention.dropped + rest.dropped);
  s.kept_bytes = all;
  if (grid->recompute == BL_RECOMPUTE_SELECTIVE) s.kept_bytes -= dropped, s.workspace_bytes += dropped;
  if (grid->recompute == BL_RECOMPUTE_FFN) {
    s.kept_bytes = part * (attention.all - attention.dropped + num * H);
    s.workspace_bytes += all - s.kept_bytes;
  }
  if (grid->recompute == BL_RECOMPUTE_FULL) s.kept_bytes = num * part * H, s.workspace_bytes += all;
  if (grid->zero == 3) s.workspace_bytes += 2 * num * (s.dense_parameters + s.expert_parameters);
  return s;
}

void bl_item_sizes(const bl_model *m, const bl_grid *grid, int32_t num_bytes, double imbalance, bl_item_size *sizes) {
  const double num = num_bytes, tokens = bl_grid_tokens(m, grid);
  memset(sizes, 0, BL_ITEM_COUNT * sizeof *sizes);
  sizes[BL_ITEM_EMBED].dense_parameters = (double)bl_model_part_parameters(m, BL_PART_EMBED) / grid->tp;
  sizes[BL_ITEM_DENSE] = layer_size(m, grid, false, num, imbalance);
  if (m->experts > 0) sizes[BL_ITEM_MOE] = layer_size(m, grid, true, num, imbalance);
  bl_item_size *head = &sizes[BL_ITEM_HEAD];
  const bl_item_size *extra = &sizes[m->experts > 0 ? BL_ITEM_MOE : BL_ITEM_DENSE];
  const double modules = m->multi_token;
  head->dense_parameters = (double)bl_model_part_parameters(m, BL_PART_HEAD) / grid->tp;
  if (m->tied_embedding && grid->pp > 1) head->dense_parameters += (double)m->vocabulary * m->hidden / grid->tp;
  head->dense_parameters +=
      modules * ((double)bl_model_part_parameters(m, BL_PART_MULTI_TOKEN) / grid->tp + extra->dense_parameters);
  head->expert_parameters = modules * extra->expert_parameters;
  head->copy_parameters = modules * extra->copy_parameters;
  head->kept_bytes = modules * extra->kept_bytes;
  /* Logits and, in fp32, their gradient; one prediction at a time. */
  const double logits = tokens * m->vocabulary / grid->tp * (num + 4);
  head->workspace_bytes = larger(logits, modules > 0 ? extra->workspace_bytes : 0);
}

double bl_grid_in_flight(const bl_grid *grid, int32_t position) {
  const double m = grid->micro_batches, behind = grid->pp - position;
  if (grid->vp == 1) return m < behind ? m : behind;
  const double stages = 2 * (behind - 1) + (grid->vp - 1.0) * grid->pp + 1;
  return (stages < m * grid->vp ? stages : m * grid->vp) / grid->vp;
}

void bl_footprint_of(const bl_item_size *sizes, const int32_t *count, const bl_grid *grid, int32_t num_bytes,
                     double in_flight, bl_footprint *out) {
  double dense = 0, expert = 0, copies = 0, kept_bytes = 0, workspace = 0;
  for (int k = 0; k < BL_ITEM_COUNT; k++) {
    dense += count[k] * sizes[k].dense_parameters;
    expert += count[k] * sizes[k].expert_parameters;
    copies += count[k] * sizes[k].copy_parameters;
    kept_bytes += count[k] * sizes[k].kept_bytes;
    if (count[k] > 0) workspace = larger(workspace, sizes[k].workspace_bytes);
  }
  const double whole = dense + expert;
  const double sharded = dense / ((double)grid->dp * grid->cp) + expert / grid->edp;
  const double state = grid->zero > 0 ? sharded : whole, model = grid->zero == 3 ? sharded : whole;
  out->bytes[BL_FOOTPRINT_WEIGHTS] = num_bytes * model;
  out->bytes[BL_FOOTPRINT_GRADIENTS] = 4 * model;
  out->bytes[BL_FOOTPRINT_MASTER] = num_bytes < 4 ? 4 * state : 0;
  out->bytes[BL_FOOTPRINT_MOMENTS] = 8 * state;
  out->bytes[BL_FOOTPRINT_COPIES] = (num_bytes + 4.0) * copies;
  out->bytes[BL_FOOTPRINT_ACTIVATIONS] = in_flight * kept_bytes;
  out->bytes[BL_FOOTPRINT_WORKSPACE] = workspace;
  out->total = 0;
  for (int k = 0; k < BL_FOOTPRINT_COUNT; k++) out->total += out->bytes[k];
}
