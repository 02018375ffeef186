/* grid_cost.c - prices of a model's items under a grid: price.h says what is assumed. */
#include "planner/search/price.h"
#include "planner/search/profiled.h"
#include <math.h>
#include <string.h>

static double larger(double a, double b) { return a > b ? a : b; }
static double smaller(double a, double b) { return a < b ? a : b; }

/* -- exchanges ----------------------------------------------------------------------------------------------------- */

/* All-gather or reduce-scatter of a buffer of `bytes` in a ring: one latency a hop. */
static double ring_us(const bl_reach *r, double bytes) {
  if (r->size <= 1) return 0;
  const double latency_us = (r->racks - 1) * r->rack.latency_us + (r->nodes - r->racks) * r->inter.latency_us +
                            (r->size - r->nodes) * r->intra.latency_us;
  double gbps = r->intra.gbps;
  if (r->nodes > 1) gbps = smaller(gbps, r->inter.gbps * r->least);
  if (r->racks > 1) gbps = smaller(gbps, r->rack.gbps * r->least_in_rack);
  return latency_us + bytes * (r->size - 1) / r->size / gbps * 1e-3;
}

/* On how many of `places` the choices of a token lie, where these are even. */
static double places_met(double places, double choices) { return places * (1 - pow(1 - 1 / places, choices)); }

/* On how many nodes but its own the choices of a token lie, sent from the node with the fewest ranks of the group. */
static double others_met(const bl_model *m, const bl_reach *r) {
  const double others = r->nodes - 1, each = (r->size - r->least) / others / r->size;
  const double met = others * (1 - pow(1 - each, m->top_k));
  return m->groups > 1 ? smaller(met, m->group_top_k * larger(1, r->nodes / m->groups) * others / r->nodes) : met;
}

/* Every rank sends the rows of its tokens, `bytes` a choice, evenly over the ep ranks, itself included. */
static double exchange_us(const bl_model *m, const bl_reach *r, bool node_dispatch, double bytes) {
  if (r->size <= 1) return 0;
  const double into =
      node_dispatch ? places_met(r->size, m->top_k) * (r->most - 1) / r->most : m->top_k * (r->most - 1) / r->size;
  double us_per_byte = into / r->intra.gbps, latency_us = r->intra.latency_us;
  if (r->nodes > 1) {
    const double out = node_dispatch ? others_met(m, r) : m->top_k * (r->size - r->least) / r->size;
    us_per_byte = larger(us_per_byte, out / r->inter.gbps);
    latency_us = r->inter.latency_us;
  }
  if (r->racks > 1) { /* of the other nodes, those of other racks */
    const double beyond = 1 - r->least_in_rack / r->size, nodes = smaller(1, beyond * r->nodes / (r->nodes - 1));
    us_per_byte = larger(us_per_byte, (node_dispatch ? others_met(m, r) * nodes : m->top_k * beyond) / r->rack.gbps);
    latency_us = r->rack.latency_us;
  }
  return latency_us + us_per_byte * bytes * 1e-3;
}

static double send_us(const bl_link *link, double bytes) { return link->latency_us + bytes / link->gbps * 1e-3; }

/* -- compute ------------------------------------------------------------------------------------------------------- */

typedef struct item_maker {
  const bl_model *m;
  const bl_position_view *v;
  const bl_grid *g;
  const bl_profiled *measured;         /* or NULL */
  double imbalance, num, tokens, part; /* part: tokens once tp has split the sequence */
  double *us;                          /* [BL_ACTION_COUNT]: where actions of the item are noted, or NULL */
} item_maker;

/* Forward and backward of a kind of work. */
typedef struct passes {
  double forward, backward;
} passes;

static passes sum(passes a, passes b) { return (passes){a.forward + b.forward, a.backward + b.backward}; }
static double total(passes p) { return p.forward + p.backward; }

static void note(const item_maker *k, bl_action_kind kind, double us) {
  if (k->us) k->us[kind] = us;
}

static void note_passes(const item_maker *k, bl_action_kind forward, bl_action_kind backward, passes work) {
  note(k, forward, work.forward);
  note(k, backward, work.backward);
}

static double tiles(double rows, double width) { return (1 + 64 / rows) * (1 + 64 / width); }

/* `matrices` times `weights` entries, `width` their narrower side, on `rows` rows in all, at `rate`: one product
 * forward; backward one for the inputs' gradients, and one that adds to the weights' gradients behind its arithmetic.
 */
static passes products_at(const item_maker *k, double rate, double weights, double matrices, double rows,
                          double width) {
  const bl_pace *c = &k->v->pace;
  const double arithmetic = 2 * weights * rows * tiles(rows / matrices, width) / rate;
  const double once = larger(arithmetic, matrices * weights * k->num / c->memory_gbps * 1e-3);
  const double add = matrices * weights * 2 * bl_grid_gradient_bytes(k->g) / c->memory_gbps * 1e-3;
  return (passes){once + c->call_us, once + arithmetic + add + c->call_us};
}

static passes products(const item_maker *k, double weights, double matrices, double rows, double width) {
  return products_at(k, k->v->pace.matrix_rate, weights, matrices, rows, width);
}

/* Multiply-adds without weights; `again`: operations backward, of those forward. */
static passes core(const item_maker *k, double macs, double again) {
  const double forward = 2 * macs / k->v->pace.core_rate;
  return (passes){forward, again * forward};
}

static passes traffic(const item_maker *k, double forward_bytes, double backward_bytes) {
  const bl_pace *c = &k->v->pace;
  return (passes){forward_bytes / c->memory_gbps * 1e-3 + c->call_us,
                  backward_bytes / c->memory_gbps * 1e-3 + c->call_us};
}

/* Norm and residual of a block: read x, write its norm; read both, write the sum. Backward: read x and a gradient,
 * write one; read two, write the sum. */
static passes norm_and_residual(const item_maker *k) {
  const double row = k->m->hidden * k->num * k->part;
  return traffic(k, 5 * row, 6 * row);
}

/* Activation of `hidden` numbers: forward reads what fc1 made and writes; backward reads that and a gradient, writes
 * fc1's. */
static passes activation(const item_maker *k, double hidden, bool gated) {
  const double bytes = hidden * k->num;
  return gated ? traffic(k, 3 * bytes, 5 * bytes) : traffic(k, 2 * bytes, 3 * bytes);
}

/* As measured, `amount` of what the curves count, where it was. */
static passes measured(const item_maker *k, bl_curve_kind forward, bl_curve_kind backward, double amount, passes p) {
  return (passes){p.forward * bl_profiled_factor(k->measured, forward, amount),
                  p.backward * bl_profiled_factor(k->measured, backward, amount)};
}

/* -- layers -------------------------------------------------------------------------------------------------------- */

/* All-gather and reduce-scatter of a block that tp splits, one direction. */
static double tp_pair_us(const item_maker *k) { return 2 * ring_us(&k->v->tp, k->tokens * k->m->hidden * k->num); }

static double head_widths(const bl_model *m) {
  return m->latent_attention ? m->head_width + m->rope_width + m->value_width : 2.0 * m->head_width;
}

static passes add_attention(const item_maker *k, bl_item_price *p) {
  const bl_model *m = k->m;
  const double tp = k->g->tp, cp = k->g->cp;
  const double macs = m->heads * head_widths(m) * m->sequence / (m->causal ? 2 : 1) * k->tokens / tp;
  const double weights = (double)bl_model_part_macs(m, BL_PART_ATTENTION) / tp;
  const double turned = (m->heads + (m->latent_attention ? 1.0 : m->kv_heads)) *
                        (m->latent_attention ? m->rope_width : m->head_width) * k->num * k->tokens / tp;
  const passes inner = core(k, macs, 2.5);
  passes work = sum(products(k, weights, 1, k->tokens, m->hidden / tp), inner);
  work = sum(work, sum(norm_and_residual(k), traffic(k, 2 * turned, 2 * turned)));
  work = measured(k, BL_CURVE_ATTENTION_FWD, BL_CURVE_ATTENTION_BWD, k->tokens, work);
  note_passes(k, BL_ACTION_ATTENTION_FWD, BL_ACTION_ATTENTION_BWD, work);
  p->us[BL_PRICE_DENSE] += total(work);
  p->us[BL_PRICE_TENSOR] += 2 * tp_pair_us(k);
  if (cp > 1) { /* keys and values of all others pass by, their gradients too on the way back */
    const double kv = m->latent_attention ? m->heads * head_widths(m) : 2.0 * m->kv_heads * m->head_width;
    const double travel = ring_us(&k->v->cp, k->tokens * cp * larger(kv / tp, 2.0 * m->head_width) * k->num);
    const double under = smaller(travel, inner.forward), under_bwd = smaller(2 * travel, inner.backward);
    const passes ring = {travel - under + BL_PRICE_STOLEN * under,
                         2 * travel - under_bwd + BL_PRICE_STOLEN * under_bwd};
    note_passes(k, BL_ACTION_CONTEXT_RING, BL_ACTION_CONTEXT_RING_BWD, ring);
    p->us[BL_PRICE_CONTEXT] += total(ring);
  }
  return work;
}

static passes add_state_space(const item_maker *k, bl_item_price *p) {
  const bl_model *m = k->m;
  const double tp = k->g->tp, cp = k->g->cp, rows = k->num * k->tokens / tp;
  const double inner = (double)m->state_heads * m->state_head_width, both = 2.0 * m->state_groups * m->state_width;
  const double states = inner * m->state_width / m->state_chunk * 4 * k->tokens / tp; /* fp32, one a chunk */
  const double weights = (double)bl_model_part_macs(m, BL_PART_STATE_SPACE) / tp;
  passes work = sum(products(k, weights, 1, k->tokens, m->hidden / tp), norm_and_residual(k));
  work = sum(work, core(k, (double)bl_model_scan_macs(m) * k->tokens / tp, 2.5));
  /* Convolution, scan with its states, gated norm: each reads what it needs and writes what it makes. */
  const double once = rows * (2 * (inner + both) + (2 * inner + both) + 3 * inner) + 2 * states;
  work = sum(work, traffic(k, once, 2 * once));
  note_passes(k, BL_ACTION_STATE_SPACE_FWD, BL_ACTION_STATE_SPACE_BWD, work);
  p->us[BL_PRICE_DENSE] += total(work);
  p->us[BL_PRICE_TENSOR] += 2 * tp_pair_us(k);
  const double exchange = ring_us(&k->v->cp, rows * cp * (3 * inner + both + m->state_heads));
  note(k, BL_ACTION_HEADS_EXCHANGE, exchange);
  p->us[BL_PRICE_CONTEXT] += 2 * exchange;
  return work;
}

static passes add_ffn(const item_maker *k, bl_item_price *p) {
  const bl_model *m = k->m;
  const double width = (double)m->ffn_width / k->g->tp;
  passes work = products(k, (double)bl_model_part_macs(m, BL_PART_FFN) / k->g->tp, 1, k->tokens, width);
  work = sum(work, sum(norm_and_residual(k), activation(k, width * k->tokens, m->ffn_gated)));
  work = measured(k, BL_CURVE_FFN_FWD, BL_CURVE_FFN_BWD, k->tokens, work);
  note_passes(k, BL_ACTION_FFN_FWD, BL_ACTION_FFN_BWD, work);
  p->us[BL_PRICE_DENSE] += total(work);
  p->us[BL_PRICE_TENSOR] += 2 * tp_pair_us(k);
  return work;
}

static passes shared_experts(const item_maker *k) {
  const bl_model *m = k->m;
  const double width = (double)m->shared_experts * m->shared_width / k->g->tp;
  const passes work = products(k, (double)bl_model_part_macs(m, BL_PART_SHARED) / k->g->tp, 1, k->tokens, width);
  return sum(work, activation(k, width * k->tokens, m->expert_gated));
}

/* Of experts, forward, gradients of inputs and of weights (`back` 0); of moving rows, scatter and gather, and on the
 * way back gather and scatter. */
typedef struct expert_work {
  double forward, back, first, second;
} expert_work;

static passes passes_of(expert_work w) { return (passes){w.forward + w.back, w.first + w.second}; }

static expert_work work_of_experts(const item_maker *k, double weights, double homes, double rows, double width) {
  const passes matrix = products(k, weights, homes, rows, width);
  const passes hidden = activation(k, width * rows, k->m->expert_gated);
  const double each = rows / homes;
  return (expert_work){(matrix.forward + hidden.forward) * bl_profiled_factor(k->measured, BL_CURVE_EXPERT_FWD, each),
                       0,
                       (matrix.forward + hidden.backward) * bl_profiled_factor(k->measured, BL_CURVE_EXPERT_DX, each),
                       (matrix.backward - matrix.forward) * bl_profiled_factor(k->measured, BL_CURVE_EXPERT_DW, each)};
}

static expert_work work_of_rows(const item_maker *k, double sent) {
  const passes moved = traffic(k, 5 * sent, 7 * sent);
  const double choices = k->part * k->m->top_k;
  return (expert_work){moved.forward * 2 / 5 * bl_profiled_factor(k->measured, BL_CURVE_SCATTER, choices),
                       moved.forward * 3 / 5 * bl_profiled_factor(k->measured, BL_CURVE_GATHER, choices),
                       moved.backward * 4 / 7 * bl_profiled_factor(k->measured, BL_CURVE_GATHER_BWD, choices),
                       moved.backward * 3 / 7 * bl_profiled_factor(k->measured, BL_CURVE_SCATTER_BWD, choices)};
}

/* What one of the pieces of a layer's rows takes, and what is done for all of them. */
static void note_experts(const item_maker *k, double weights, double homes, double rows, double width, double sent) {
  const bl_model *m = k->m;
  const double pieces = larger(1, k->g->pieces), part = rows / pieces, row_bytes = bl_model_row_width(m) * k->num;
  const expert_work e = work_of_experts(k, weights, homes, part, width), moved = work_of_rows(k, sent);
  note(k, BL_ACTION_EXPERT_FWD, e.forward);
  note(k, BL_ACTION_EXPERT_DX, e.first);
  note(k, BL_ACTION_EXPERT_DW, e.second);
  note(k, BL_ACTION_SCATTER, moved.forward);
  note(k, BL_ACTION_GATHER, moved.back);
  note(k, BL_ACTION_GATHER_BWD, moved.first);
  note(k, BL_ACTION_SCATTER_BWD, moved.second);
  static const bl_action_kind exchanges[] = {BL_ACTION_DISPATCH, BL_ACTION_COMBINE, BL_ACTION_COMBINE_BWD,
                                             BL_ACTION_DISPATCH_BWD};
  const double once = exchange_us(m, &k->v->ep, k->g->node_dispatch, k->part * row_bytes * k->imbalance / pieces);
  for (int i = 0; i < 4; i++) note(k, exchanges[i], once);
  note(k, BL_ACTION_ROWS_GATHER, ring_us(&k->v->etp, part * row_bytes));
  note(k, BL_ACTION_ROWS_SCATTER, ring_us(&k->v->etp, part * row_bytes));
}

/* Gate, shared experts, experts; *exchange: what crosses links in one direction. */
static passes add_moe(const item_maker *k, bl_item_price *p, double *exchange) {
  const bl_model *m = k->m;
  const bl_grid *g = k->g;
  const double row_bytes = bl_model_row_width(m) * k->num, etp = g->etp;
  passes dense = products(k, (double)bl_model_part_macs(m, BL_PART_GATE), 1, k->part, m->experts);
  /* Scores in fp32: written, read twice for choosing and for the balance, and once on the way back. */
  dense = sum(dense, sum(norm_and_residual(k), traffic(k, 12.0 * m->experts * k->part, 12.0 * m->experts * k->part)));
  dense = measured(k, BL_CURVE_GATE_FWD, BL_CURVE_GATE_BWD, k->part, dense);
  note_passes(k, BL_ACTION_GATE_FWD, BL_ACTION_GATE_BWD, dense);
  if (m->shared_experts > 0) {
    const passes shared = measured(k, BL_CURVE_SHARED_FWD, BL_CURVE_SHARED_BWD, k->tokens, shared_experts(k));
    note_passes(k, BL_ACTION_SHARED_FWD, BL_ACTION_SHARED_BWD, shared);
    dense = sum(dense, shared);
    p->us[BL_PRICE_TENSOR] += 2 * tp_pair_us(k);
  }
  /* Rows on the fullest rank; each meets one expert, whose matrices are read whole. */
  const int32_t homes = (m->experts + g->ep - 1) / g->ep;
  const double sent = k->part * m->top_k * row_bytes;
  const double rows = etp * k->part * m->top_k * k->imbalance, width = m->expert_width / etp;
  const double weights = (double)bl_model_part_macs(m, BL_PART_EXPERT) / etp;
  const passes work = sum(passes_of(work_of_experts(k, weights, homes, rows, width)), passes_of(work_of_rows(k, sent)));
  note_experts(k, weights, homes, rows, width, sent);
  p->us[BL_PRICE_DENSE] += total(dense);
  p->us[BL_PRICE_EXPERT] += total(work);
  const double once = exchange_us(m, &k->v->ep, g->node_dispatch, k->part * row_bytes * k->imbalance);
  const double gather = ring_us(&k->v->etp, rows * row_bytes);
  p->us[BL_PRICE_EXCHANGE] += 4 * once;
  p->us[BL_PRICE_TENSOR] += 4 * gather;
  *exchange = 2 * once + 2 * gather + (m->shared_experts > 0 ? tp_pair_us(k) : 0);
  return sum(dense, work);
}

/* Adds what recomputation repeats: `whole_us`, forward with its exchanges; `ffn_us`, that of the feed-forward alone. */
static void add_recompute(const item_maker *k, bl_item_price *p, bl_layer_kind kind, double whole_us, double ffn_us) {
  const bl_model *m = k->m;
  const bl_recompute recompute = k->g->recompute;
  if (recompute == BL_RECOMPUTE_FULL) p->us[BL_PRICE_RECOMPUTE] += whole_us;
  if (recompute == BL_RECOMPUTE_FFN) p->us[BL_PRICE_RECOMPUTE] += ffn_us;
  if (recompute != BL_RECOMPUTE_SELECTIVE && recompute != BL_RECOMPUTE_FFN) return;
  double bytes = kind == BL_LAYER_FFN || kind == BL_LAYER_EXPERTS ? 0 : 2.0 * m->hidden, up = 0;
  if (recompute == BL_RECOMPUTE_SELECTIVE) { /* else ffn_us has it */
    if (bl_layer_has_experts(kind))
      bytes += 2.0 * m->hidden + m->top_k * k->imbalance * m->expert_width * (m->expert_gated ? 3 : 2);
    if (bl_layer_has_ffn(kind)) bytes += 2.0 * m->hidden + m->ffn_width * (m->ffn_gated ? 3.0 : 2.0);
  }
  if (kind == BL_LAYER_STATE_SPACE) bytes += 3.0 * m->state_heads * m->state_head_width;
  if (m->latent_attention && bl_layer_has_attention(kind))
    up = (double)m->heads *
         ((double)(m->head_width + m->rope_width) * m->q_rank + (double)(m->head_width + m->value_width) * m->kv_rank);
  const double us = 2 * up * k->tokens / k->g->tp / k->v->pace.matrix_rate +
                    bytes * k->num * k->part / k->v->pace.memory_gbps * 1e-3 + k->v->pace.call_us;
  note(k, BL_ACTION_RECOMPUTE, us);
  p->us[BL_PRICE_RECOMPUTE] += us;
}

/* Exchanges beside other micro-batches' compute: the warm-up has none to pair with. */
static void hide_exchange(const item_maker *k, bl_item_price *p) {
  const bl_grid *g = k->g;
  if (!bl_grid_overlaps(g)) return;
  const double stages = (double)g->micro_batches * g->vp, warm_up = g->pp - 1 + (g->vp - 1.0) * g->pp;
  const double alone = smaller(1, warm_up / stages), us = p->us[BL_PRICE_EXCHANGE];
  const double work = p->us[BL_PRICE_DENSE] + p->us[BL_PRICE_EXPERT] + p->us[BL_PRICE_RECOMPUTE];
  const double hidden = smaller(us, work), beside = us - hidden + BL_PRICE_STOLEN * hidden;
  p->us[BL_PRICE_EXCHANGE] = alone * us + (1 - alone) * beside;
}

static void price_layer(const item_maker *k, bl_layer_kind kind, bl_item_price *p) {
  passes mixer = {0}, rest = {0};
  double mixer_us = 0, rest_us = 0, exchange = 0;
  if (bl_layer_has_attention(kind)) mixer = add_attention(k, p);
  if (kind == BL_LAYER_STATE_SPACE) mixer = add_state_space(k, p);
  if (mixer.forward > 0) mixer_us = mixer.forward + tp_pair_us(k);
  if (bl_layer_has_experts(kind)) rest = add_moe(k, p, &exchange);
  if (bl_layer_has_ffn(kind)) rest = add_ffn(k, p), exchange = tp_pair_us(k);
  if (rest.forward > 0) rest_us = rest.forward + exchange;
  add_recompute(k, p, kind, mixer_us + rest_us, rest_us);
  hide_exchange(k, p);
}

static void price_head(const item_maker *k, const bl_item_price *layer, bl_item_price *p) {
  const bl_model *m = k->m;
  const double words = (double)m->vocabulary / k->g->tp, logits = k->tokens * words;
  /* Logits are written, read and turned to fp32; there their maximum is read, subtracted (read and written), they are
   * exponentiated, summed up and divided. Backward scales that in fp32 and turns it back. */
  const double factor = bl_profiled_factor(k->measured, BL_CURVE_HEAD, k->tokens);
  const passes loss = traffic(k, logits * (2 * k->num + 36), logits * (k->num + 12));
  passes head = sum(products_at(k, k->v->pace.core_rate, words * m->hidden, 1, k->tokens, words), loss);
  head.forward *= factor, head.backward *= factor;
  p->us[BL_PRICE_DENSE] = total(head) * (1 + m->multi_token);
  p->us[BL_PRICE_TENSOR] = tp_pair_us(k) * (1 + m->multi_token);
  for (int32_t i = 0; i < m->multi_token; i++) {
    const double width = (double)m->hidden / k->g->tp;
    const passes project = products(k, 2 * m->hidden * width, 1, k->tokens, width);
    for (int u = 0; u < BL_PRICE_COUNT; u++) p->us[u] += layer->us[u];
    p->us[BL_PRICE_DENSE] += total(sum(project, norm_and_residual(k)));
    note_passes(k, BL_ACTION_MODULE_FWD, BL_ACTION_MODULE_BWD, sum(project, norm_and_residual(k)));
  }
  note(k, BL_ACTION_HEAD, total(head));
}

/* Prices of all items; work: NULL, or where each action's is noted too. */
static void price_items(const bl_model *m, const bl_positions *positions, int32_t kind, const bl_grid *g,
                        double imbalance, double tokens, bl_position_costs *out, bl_work *work) {
  const bl_position_view *v = &positions->view[kind];
  item_maker k = {.m = m,
                  .v = v,
                  .g = g,
                  .measured = positions->measured,
                  .imbalance = imbalance,
                  .num = positions->num_bytes,
                  .tokens = tokens,
                  .part = tokens / g->tp};
  memset(out, 0, sizeof *out);
  bl_item_price *p = out->price;
  if (work) k.us = work->us[BL_ITEM_EMBED];
  const passes look_up = measured(&k, BL_CURVE_EMBED_FWD, BL_CURVE_EMBED_BWD, k.part,
                                  traffic(&k, 3 * m->hidden * k.num * k.part, 3 * m->hidden * k.num * k.part));
  note_passes(&k, BL_ACTION_EMBED_FWD, BL_ACTION_EMBED_BWD, look_up);
  p[BL_ITEM_EMBED].us[BL_PRICE_DENSE] = total(look_up);
  p[BL_ITEM_EMBED].us[BL_PRICE_TENSOR] = tp_pair_us(&k);
  for (int i = 0; i < BL_ITEM_COUNT; i++)
    if (bl_item_kind((bl_item)i) != BL_LAYER_COUNT && bl_item_occurs(m, (bl_item)i)) {
      if (work) k.us = work->us[i];
      price_layer(&k, bl_item_kind((bl_item)i), &p[i]);
    }
  if (work) k.us = work->us[BL_ITEM_HEAD];
  price_head(&k, &p[m->experts > 0 ? BL_ITEM_MOE : BL_ITEM_DENSE], &p[BL_ITEM_HEAD]);
  for (int i = 0; i < BL_ITEM_COUNT; i++)
    for (int u = 0; u < BL_PRICE_COUNT; u++) p[i].total += p[i].us[u];
  if (g->pp > 1) {
    out->down_us = send_us(&v->down, k.part * m->hidden * k.num);
    out->up_us = send_us(&v->up, k.part * m->hidden * k.num);
  }
  /* A parameter among so many that latency does not show. */
  const double gradient = bl_grid_gradient_bytes(g), per = 1e12;
  out->dense_gather_us = ring_us(&v->shard, k.num * per) / per;
  out->dense_reduce_us = ring_us(g->zero > 0 ? &v->shard : &v->dense, gradient * per) / per;
  out->expert_gather_us = ring_us(&v->experts, k.num * per) / per;
  out->expert_reduce_us = ring_us(&v->experts, gradient * per) / per;
  if (g->zero > 0 && v->replicas.size > 1) {
    out->replica_us = 2 * ring_us(&v->replicas, gradient * per / v->shard.size) / per;
    out->replica_layer_us = 2 * ring_us(&v->replicas, 0);
  }
  if (g->ep > 1) out->fill_byte_us = 1e-3 / v->fill.gbps, out->reduce_byte_us = 1e-3 / v->reduce.gbps;
  out->update_byte_us = 1e-3 / v->pace.memory_gbps * (k.measured ? k.measured->update : 1);
  out->square_byte_us = 1e-3 / v->pace.memory_gbps * (k.measured ? k.measured->square : 1);
}

void bl_grid_cost(const bl_model *m, const bl_positions *positions, const bl_grid *g, double imbalance,
                  bl_grid_costs *out) {
  out->positions = positions;
  bl_item_sizes(m, g, positions->num_bytes, imbalance, out->size);
  for (int32_t k = 0; k < positions->kinds; k++)
    price_items(m, positions, k, g, imbalance, bl_grid_tokens(m, g), &out->at[k], NULL);
}

void bl_grid_sheet(const bl_model *m, const bl_positions *positions, double tokens, bl_work *out) {
  const bl_grid alone = {.tp = 1, .cp = 1, .dp = 1, .pp = 1, .vp = 1, .etp = 1, .ep = 1, .edp = 1};
  bl_position_costs costs;
  memset(out, 0, sizeof *out);
  price_items(m, positions, 0, &alone, 1, tokens, &costs, out);
}

/* -- actions ------------------------------------------------------------------------------------------------------- */

/* What is done once a step (under zero 3 some of it in every micro-batch) for `dense` and `expert` parameters. */
static void note_state(int32_t num_bytes, const bl_grid *g, const bl_position_costs *costs, bool layer, double dense,
                       double expert, double *us) {
  const double passes_of_ring = g->zero == 0 ? 2 : 1; /* an all-reduce is a reduce-scatter and an all-gather */
  us[BL_ACTION_DENSE_REDUCE] = passes_of_ring * dense * costs->dense_reduce_us;
  us[BL_ACTION_EXPERT_REDUCE] = passes_of_ring * expert * costs->expert_reduce_us;
  us[BL_ACTION_WEIGHT_GATHER] = dense * costs->dense_gather_us;
  us[BL_ACTION_EXPERT_GATHER] = expert * costs->expert_gather_us;
  bl_price_update(g, num_bytes, costs->update_byte_us, costs->square_byte_us, dense, expert, &us[BL_ACTION_OPTIMIZER],
                  &us[BL_ACTION_SQUARE_GRADS]);
  /* Replicas of a sharded state add up their gradients once all are reduced: nothing hides it. */
  us[BL_ACTION_SQUARE_GRADS] += (dense + expert) * costs->replica_us + (layer ? costs->replica_layer_us : 0);
}

void bl_grid_work(const bl_model *m, const bl_positions *positions, int32_t kind, const bl_grid *g, double imbalance,
                  bl_work *out) {
  const bl_position_view *v = &positions->view[kind];
  const int32_t num_bytes = positions->num_bytes;
  bl_position_costs costs;
  bl_item_size size[BL_ITEM_COUNT];
  memset(out, 0, sizeof *out);
  bl_item_sizes(m, g, num_bytes, imbalance, size);
  price_items(m, positions, kind, g, imbalance, bl_grid_tokens(m, g), &costs, out);
  const bl_item module = m->experts > 0 ? BL_ITEM_MOE : BL_ITEM_DENSE;
  const double tokens = bl_grid_tokens(m, g), matrix = (double)m->vocabulary * m->hidden / g->tp;
  const double split = ring_us(&v->tp, tokens * m->hidden * num_bytes);
  const double head = size[BL_ITEM_HEAD].dense_parameters - m->multi_token * size[module].dense_parameters;
  for (int i = 0; i < BL_ITEM_COUNT; i++) {
    double *us = out->us[i];
    us[BL_ACTION_SEQUENCE_GATHER] = us[BL_ACTION_SEQUENCE_SCATTER] = split;
    us[BL_ACTION_SEND_ACTIVATION] = costs.down_us;
    us[BL_ACTION_SEND_GRADIENT] = costs.up_us;
    if (g->pp > 1) /* between the last position and the first */
      us[BL_ACTION_TIED_REDUCE] = send_us(i == BL_ITEM_EMBED ? &v->up : &v->down, bl_grid_gradient_bytes(g) * matrix);
    us[BL_ACTION_COPY_FILL] = size[i].copy_parameters * num_bytes * costs.fill_byte_us;
    us[BL_ACTION_COPY_REDUCE] = size[i].copy_parameters * bl_grid_gradient_bytes(g) * costs.reduce_byte_us;
    us[BL_ACTION_HEAD] = out->us[BL_ITEM_HEAD][BL_ACTION_HEAD];
    us[BL_ACTION_MODULE_FWD] = out->us[BL_ITEM_HEAD][BL_ACTION_MODULE_FWD];
    us[BL_ACTION_MODULE_BWD] = out->us[BL_ITEM_HEAD][BL_ACTION_MODULE_BWD];
    if (i != BL_ITEM_EMBED && i != BL_ITEM_HEAD)
      note_state(num_bytes, g, &costs, true, size[i].dense_parameters, size[i].expert_parameters, us);
  }
  note_state(num_bytes, g, &costs, false, size[BL_ITEM_EMBED].dense_parameters + (g->pp == 1 ? head : 0), 0,
             out->us[BL_ITEM_EMBED]);
  note_state(num_bytes, g, &costs, false, head, 0, out->us[BL_ITEM_HEAD]);
  out->stolen = BL_PRICE_STOLEN;
}
