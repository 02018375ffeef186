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

static const bl_layer_kind item_kinds[BL_ITEM_COUNT] = {[BL_ITEM_EMBED] = BL_LAYER_COUNT,
                                                        [BL_ITEM_DENSE] = BL_LAYER_DENSE,
                                                        [BL_ITEM_MOE] = BL_LAYER_MOE,
                                                        [BL_ITEM_HEAD] = BL_LAYER_COUNT,
                                                        [BL_ITEM_STATE_SPACE] = BL_LAYER_STATE_SPACE,
                                                        [BL_ITEM_ATTENTION] = BL_LAYER_ATTENTION,
                                                        [BL_ITEM_FFN] = BL_LAYER_FFN,
                                                        [BL_ITEM_EXPERTS] = BL_LAYER_EXPERTS};

bl_layer_kind bl_item_kind(bl_item item) { return item_kinds[item]; }

bl_item bl_item_of_layer(const bl_model *model, int32_t layer) {
  const bl_layer_kind kind = bl_model_layer_kind(model, layer);
  int item = 0;
  while (item_kinds[item] != kind) item++;
  return (bl_item)item;
}

bool bl_item_occurs(const bl_model *model, bl_item item) {
  const bl_layer_kind kind = item_kinds[item];
  if (kind == BL_LAYER_COUNT) return true;
  if (kind == BL_LAYER_STATE_SPACE) return model->state_heads > 0;
  if (bl_layer_has_experts(kind) && model->experts == 0) return false;
  return kind == BL_LAYER_DENSE || kind == BL_LAYER_MOE || model->pattern[0] != '\0';
}

void bl_items_of_model(const bl_model *model, int32_t *count) {
  memset(count, 0, BL_ITEM_COUNT * sizeof *count);
  count[BL_ITEM_EMBED] = count[BL_ITEM_HEAD] = 1;
  for (int32_t l = 0; l < model->layers; l++) count[bl_item_of_layer(model, l)]++;
}

double bl_grid_tokens(const bl_model *model, const bl_grid *grid) {
  return (double)grid->micro_batch * model->sequence / grid->cp;
}

/* Bytes a token that a layer keeps: all of them, and those that selective recomputation drops. */
typedef struct kept {
  double all, dropped;
} kept;

/* Bytes of a number: in general, and of what only products with weights read. */
typedef struct widths {
  double num, input;
} widths;

/* norm1's input and output, queries, keys and values, and the core's output, which both the core and the projection
 * behind it read: a narrower type keeps it twice. */
static kept attention_kept(const bl_model *m, widths w) {
  const double H = m->hidden, heads = m->heads, again = w.input < w.num ? w.input : 0;
  if (!m->latent_attention) {
    const double out = heads * m->head_width;
    return (kept){w.num * (H + out + 2.0 * m->kv_heads * m->head_width) + w.input * H + (w.num + again) * out +
                      4 * heads,
                  w.input * H};
  }
  const double up = heads * (2.0 * (m->head_width + m->rope_width) + m->value_width);
  const double latents = 2.0 * (m->q_rank + m->kv_rank) + m->rope_width, out = heads * m->value_width;
  return (kept){w.num * (H + up + latents) + w.input * H + (w.num + again) * out + 4 * heads, w.input * H + w.num * up};
}

/* norm1's input and output, what the input projection makes, the scan's output and its norm's. */
static kept state_space_kept(const bl_model *m, widths w) {
  const double inner = (double)m->state_heads * m->state_head_width, H = m->hidden;
  const double made = 2 * inner + 2.0 * m->state_groups * m->state_width + m->state_heads;
  return (kept){w.num * (H + made + inner) + w.input * (H + inner), w.input * (H + inner)};
}

/* norm2's input and output, and inside a feed-forward of `width`: what fc1 makes, and what the activation makes. */
static kept ffn_kept(const bl_model *m, double width, bool gated, widths w) {
  const double dropped = w.input * (m->hidden + width);
  return (kept){w.num * (m->hidden + (gated ? 2 : 1) * width) + dropped, dropped};
}

/* The weights of the choices multiply the hidden numbers, so that the experts' outputs need not be kept. */
static kept moe_kept(const bl_model *m, const bl_grid *grid, widths w, double imbalance) {
  const double rows = m->top_k * imbalance, width = bl_model_row_width(m), f = m->expert_width;
  kept k = ffn_kept(m, (double)m->shared_experts * m->shared_width, m->expert_gated, w);
  k.all += 4.0 * m->experts + w.num * m->latent_width * 2.0; /* scores; what goes in and out of the latent vectors */
  k.all += rows * (w.input * (width * grid->etp + f) + w.num * (m->expert_gated ? 2 : 1) * f);
  k.dropped += w.input * rows * f;
  return k;
}

/* One layer: parameters, what it keeps, what it needs while it runs. */
static bl_item_size layer_size(const bl_model *m, const bl_grid *grid, bl_layer_kind kind, double num,
                               double imbalance) {
  const double tokens = bl_grid_tokens(m, grid), part = tokens / grid->tp, H = m->hidden;
  const widths w = {num, grid->input_bytes > 0 ? grid->input_bytes : num};
  bl_item_size s = {0};
  kept mixer = {0}, rest = {0};
  s.workspace_bytes = grid->tp > 1 ? 2 * num * tokens * H : 0; /* a gathered sequence, and its gradient */
  if (bl_layer_has_attention(kind)) {
    s.dense_parameters = (double)bl_model_part_parameters(m, BL_PART_ATTENTION) / grid->tp;
    mixer = attention_kept(m, w);
  } else if (kind == BL_LAYER_STATE_SPACE) {
    s.dense_parameters = (double)bl_model_part_parameters(m, BL_PART_STATE_SPACE) / grid->tp;
    mixer = state_space_kept(m, w);
  }
  if (bl_layer_has_experts(kind)) {
    const int32_t homes = (m->experts + grid->ep - 1) / grid->ep;
    const double expert = (double)bl_model_part_parameters(m, BL_PART_EXPERT) / grid->etp;
    s.dense_parameters += (double)bl_model_part_parameters(m, BL_PART_SHARED) / grid->tp;
    s.dense_parameters += (double)bl_model_part_parameters(m, BL_PART_GATE);
    s.expert_parameters = homes * expert;
    s.copy_parameters = grid->copy_slots * expert;
    /* sent and received rows */
    s.workspace_bytes += num * part * m->top_k * bl_model_row_width(m) * (1 + imbalance * grid->etp);
    rest = moe_kept(m, grid, w, imbalance);
  } else if (bl_layer_has_ffn(kind)) {
    s.dense_parameters += (double)bl_model_part_parameters(m, BL_PART_FFN) / grid->tp;
    rest = ffn_kept(m, m->ffn_width, m->ffn_gated, w);
  }
  const double all = part * (mixer.all + rest.all), dropped = part * (mixer.dropped + rest.dropped);
  s.kept_bytes = all;
  if (grid->recompute == BL_RECOMPUTE_SELECTIVE) s.kept_bytes -= dropped, s.workspace_bytes += dropped;
  if (grid->recompute == BL_RECOMPUTE_FFN) {
    s.kept_bytes = part * (mixer.all - mixer.dropped + (rest.all > 0 ? num * H : 0));
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
  for (int i = 0; i < BL_ITEM_COUNT; i++)
    if (item_kinds[i] != BL_LAYER_COUNT && bl_item_occurs(m, (bl_item)i))
      sizes[i] = layer_size(m, grid, item_kinds[i], num, imbalance);
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

double bl_grid_gradient_bytes(const bl_grid *g) { return g->gradient_bytes > 0 ? g->gradient_bytes : 4; }

double bl_grid_shard(const bl_grid *g) {
  const int32_t all = g->dp * g->cp;
  return g->shard > 0 && all % g->shard == 0 ? g->shard : all;
}

bool bl_grid_overlaps(const bl_grid *g) {
  return g->overlap && g->ep > 1 && g->vp > 1 && g->recompute <= BL_RECOMPUTE_SELECTIVE;
}

double bl_grid_in_flight(const bl_grid *grid, int32_t position) {
  const double m = grid->micro_batches, behind = grid->pp - position;
  if (grid->vp == 1) return m < behind ? m : behind;
  const double stages = 2 * (behind - 1) + (grid->vp - 1.0) * grid->pp + 1 + bl_grid_overlaps(grid);
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
  const double shard = bl_grid_shard(grid);
  const double sharded = dense / shard + expert / (grid->edp < shard ? grid->edp : shard);
  const double state = grid->zero > 0 ? sharded : whole, model = grid->zero == 3 ? sharded : whole;
  out->bytes[BL_FOOTPRINT_WEIGHTS] = num_bytes * model;
  out->bytes[BL_FOOTPRINT_GRADIENTS] = bl_grid_gradient_bytes(grid) * model;
  out->bytes[BL_FOOTPRINT_MASTER] = num_bytes < 4 ? 4 * state : 0;
  out->bytes[BL_FOOTPRINT_MOMENTS] = 8 * state;
  out->bytes[BL_FOOTPRINT_COPIES] = (num_bytes + bl_grid_gradient_bytes(grid)) * copies;
  out->bytes[BL_FOOTPRINT_ACTIVATIONS] = in_flight * kept_bytes;
  out->bytes[BL_FOOTPRINT_WORKSPACE] = workspace;
  out->total = 0;
  for (int k = 0; k < BL_FOOTPRINT_COUNT; k++) out->total += out->bytes[k];
}
