#include "planner/search/price.h"
#include <math.h>
#include <string.h>

const char *const bl_price_names[BL_PRICE_COUNT] = {
#define X(name, text, what) text,
    BL_PRICE_LIST(X)
#undef X
};

static double larger(double a, double b) { return a > b ? a : b; }

/* -- exchanges ----------------------------------------------------------------------------------------------------- */

/* How many of a group's ranks, `stride` apart, share a node. */
static double ranks_in_node(const bl_cluster *c, double size, double stride) {
  const double fit = (double)(int64_t)(c->ranks_per_node / stride);
  return larger(1, fit < size ? fit : size);
}

/* All-gather or reduce-scatter of a buffer of `bytes` in a ring. */
static double ring_us(const bl_cluster *c, double bytes, double size, double stride) {
  const double local = ranks_in_node(c, size, stride);
  if (size <= 1) return 0;
  if (local >= size) return c->intra.latency_us + bytes * (size - 1) / size / c->intra.gbps * 1e-3;
  const double cards = c->inter.gbps * local, gbps = cards < c->intra.gbps ? cards : c->intra.gbps;
  return c->inter.latency_us + bytes * (size - 1) / size / gbps * 1e-3;
}

/* Of `nodes` nodes, how many a token's choices lie on. */
static double nodes_met(const bl_model *m, double nodes) {
  const double met = nodes * (1 - pow(1 - 1 / nodes, m->top_k));
  const double most = m->groups > 1 ? m->group_top_k * larger(1, nodes / m->groups) : nodes;
  return met < most ? met : most;
}

/* Every rank sends the rows of its tokens, `bytes` a choice, evenly over the ep ranks, itself included. */
static double exchange_us(const bl_model *m, const bl_cluster *c, const bl_grid *g, double bytes) {
  const double size = g->ep, local = ranks_in_node(c, size, g->etp), nodes = size / local;
  if (size <= 1) return 0;
  const double into = g->node_dispatch ? m->top_k * (local - 1) / local : m->top_k * (local - 1) / size;
  const double out = (g->node_dispatch ? nodes_met(m, nodes) : m->top_k) * (nodes - 1) / nodes;
  const double inside = bytes * into / c->intra.gbps, outside = bytes * out / c->inter.gbps;
  return (local < size ? c->inter.latency_us : c->intra.latency_us) + larger(inside, outside) * 1e-3;
}

static double send_us(const bl_cluster *c, double bytes, double stride) {
  const bl_link *link = stride < c->ranks_per_node ? &c->intra : &c->inter;
  return link->latency_us + bytes / link->gbps * 1e-3;
}

/* -- items --------------------------------------------------------------------------------------------------------- */

typedef struct item_maker {
  const bl_model *m;
  const bl_cluster *c;
  const bl_grid *g;
  double imbalance, num, tokens, part; /* part: tokens once tp has split the sequence */
} item_maker;

static double compute_us(const bl_cluster *c, double flop, double bytes) {
  return larger(flop / (c->tflops * c->efficiency) * 1e-6, bytes / c->memory_gbps * 1e-3) + c->call_us;
}

static double tiles(double rows, double width) { return (1 + 64 / rows) * (1 + 64 / width); }

/* Forward and backward of matrices of `weights` entries, plus `core` multiply-adds without weights, on `rows` rows;
 * `bytes` of other memory traffic forward. `width`: of a rank's narrower side.  Returns forward alone in *forward. */
static double matrices_us(const item_maker *k, double weights, double core, double rows, double width, double bytes,
                          double rows_a_matrix, double *forward) {
  const double flop = 2 * (weights * rows * tiles(rows_a_matrix, width) + core);
  *forward = compute_us(k->c, flop, weights * k->num + bytes);
  return *forward + compute_us(k->c, 2 * flop, weights * (k->num + 8) + 2 * bytes);
}

static void add_attention(const item_maker *k, bl_item_price *p, double *forward) {
  const bl_model *m = k->m;
  const double tp = k->g->tp, cp = k->g->cp;
  const double widths = m->latent_attention ? m->head_width + m->rope_width + m->value_width : 2.0 * m->head_width;
  const double core = m->heads * widths * m->sequence / (m->causal ? 2 : 1) * k->tokens / tp;
  const double weights = (double)bl_model_part_macs(m, BL_PART_ATTENTION) / tp;
  double f;
  p->us[BL_PRICE_DENSE] +=
      matrices_us(k, weights, core, k->tokens, m->hidden / tp, 12 * m->hidden * k->num * k->part, k->tokens, &f);
  *forward += f;
  if (cp <= 1) return;
  /* Keys and values of all others pass by, their gradients too on the way back. */
  const double kv = m->latent_attention ? m->heads * widths : 2.0 * m->kv_heads * m->head_width;
  const double travel = ring_us(k->c, k->tokens * cp * larger(kv / tp, 2.0 * m->head_width) * k->num, cp, tp);
  const double core_us = 2 * core / (k->c->tflops * k->c->efficiency) * 1e-6;
  p->us[BL_PRICE_CONTEXT] += larger(0, travel - core_us) + larger(0, 2 * travel - 2 * core_us);
}

static double tp_pair_us(const item_maker *k) {
  return 2 * ring_us(k->c, k->tokens * k->m->hidden * k->num, k->g->tp, 1);
}

static void add_ffn(const item_maker *k, bl_item_price *p, double *forward) {
  double f;
  p->us[BL_PRICE_DENSE] +=
      matrices_us(k, (double)bl_model_part_macs(k->m, BL_PART_FFN) / k->g->tp, 0, k->tokens,
                  (double)k->m->ffn_width / k->g->tp, 6 * k->m->hidden * k->num * k->part, k->tokens, &f);
  p->us[BL_PRICE_TENSOR] += 2 * tp_pair_us(k);
  *forward += f;
}

static void add_moe(const item_maker *k, bl_item_price *p, double *forward, double *exchange) {
  const bl_model *m = k->m;
  const bl_grid *g = k->g;
  const double row_bytes = m->hidden * k->num, sent = k->part * m->top_k * row_bytes, etp = g->etp;
  double f;
  p->us[BL_PRICE_DENSE] += matrices_us(k, (double)bl_model_part_macs(m, BL_PART_GATE), 0, k->part, m->experts,
                                       3 * row_bytes * k->part, k->part, &f);
  *forward += f;
  if (m->shared_experts > 0) {
    const double width = (double)m->shared_experts * m->shared_width / g->tp;
    p->us[BL_PRICE_DENSE] += matrices_us(k, (double)bl_model_part_macs(m, BL_PART_SHARED) / g->tp, 0, k->tokens, width,
                                         4 * row_bytes * k->part, k->tokens, &f);
    p->us[BL_PRICE_TENSOR] += 2 * tp_pair_us(k);
    *forward += f;
  }
  /* Rows on the fullest rank; each meets one expert, whose matrices are read whole. */
  const double homes = (m->experts + g->ep - 1) / g->ep, rows = etp * k->part * m->top_k * k->imbalance;
  const double macs = (double)bl_model_part_macs(m, BL_PART_EXPERT) / etp, width = m->expert_width / etp;
  const double flop = 2 * macs * rows * tiles(rows / homes, width), bytes = 4 * row_bytes * rows;
  f = compute_us(k->c, flop, homes * macs * k->num + bytes) + compute_us(k->c, 0, 5 * sent);
  p->us[BL_PRICE_EXPERT] +=
      f + compute_us(k->c, 2 * flop, homes * macs * (k->num + 8) + 2 * bytes) + compute_us(k->c, 0, 7 * sent);
  *forward += f;
  const double once = exchange_us(m, k->c, g, k->part * row_bytes * k->imbalance);
  const double gather = ring_us(k->c, rows * row_bytes, etp, 1);
  p->us[BL_PRICE_EXCHANGE] += 4 * once;
  p->us[BL_PRICE_TENSOR] += 4 * gather;
  *exchange += 2 * once + 2 * gather + (m->shared_experts > 0 ? tp_pair_us(k) : 0);
}

/* Adds what recomputation repeats: `whole_us`, forward with its exchanges; `ffn_us`, that of the feed-forward alone. */
static void add_recompute(const item_maker *k, bl_item_price *p, bool moe, double whole_us, double ffn_us) {
  const bl_model *m = k->m;
  if (k->g->recompute == BL_RECOMPUTE_FULL) p->us[BL_PRICE_RECOMPUTE] += whole_us;
  if (k->g->recompute == BL_RECOMPUTE_FFN) p->us[BL_PRICE_RECOMPUTE] += ffn_us;
  if (k->g->recompute != BL_RECOMPUTE_SELECTIVE && k->g->recompute != BL_RECOMPUTE_FFN) return;
  const double hidden = moe ? m->top_k * k->imbalance * m->expert_width * (m->expert_gated ? 3 : 2)
                            : m->ffn_width * (m->ffn_gated ? 3.0 : 2.0);
  const bool ffn_too = k->g->recompute == BL_RECOMPUTE_SELECTIVE; /* else ffn_us has it */
  const double bytes = (ffn_too ? 4.0 * m->hidden + hidden : 2.0 * m->hidden) * k->num * k->part;
  double up = 0;
  if (m->latent_attention)
    up = (double)m->heads *
         ((double)(m->head_width + m->rope_width) * m->q_rank + (double)(m->head_width + m->value_width) * m->kv_rank);
  p->us[BL_PRICE_RECOMPUTE] += compute_us(k->c, 2 * up * k->tokens / k->g->tp, bytes);
}

static void price_layer(const item_maker *k, bool moe, bl_item_price *p) {
  double forward = 0, exchange = 0;
  add_attention(k, p, &forward);
  p->us[BL_PRICE_TENSOR] += 2 * tp_pair_us(k);
  const double attention_us = forward + tp_pair_us(k);
  if (moe)
    add_moe(k, p, &forward, &exchange);
  else
    add_ffn(k, p, &forward), exchange += tp_pair_us(k);
  const double ffn_us = forward + exchange + tp_pair_us(k) - attention_us;
  add_recompute(k, p, moe, attention_us + ffn_us, ffn_us);
}

static void price_head(const item_maker *k, const bl_item_price *layer, bl_item_price *p) {
  const bl_model *m = k->m;
  double f;
  const double logits = (double)m->vocabulary * m->hidden / k->g->tp, num = k->num;
  const double once = matrices_us(k, logits, 0, k->tokens, (double)m->vocabulary / k->g->tp,
                                  k->tokens * m->vocabulary / k->g->tp * (num + 4), k->tokens, &f);
  p->us[BL_PRICE_DENSE] = once * (1 + m->multi_token);
  p->us[BL_PRICE_TENSOR] = tp_pair_us(k) * (1 + m->multi_token);
  for (int32_t i = 0; i < m->multi_token; i++) {
    for (int u = 0; u < BL_PRICE_COUNT; u++) p->us[u] += layer->us[u];
    p->us[BL_PRICE_DENSE] += matrices_us(k, 2.0 * m->hidden * m->hidden / k->g->tp, 0, k->tokens, m->hidden / k->g->tp,
                                         6 * m->hidden * num * k->part, k->tokens, &f);
  }
}

void bl_grid_cost(const bl_model *m, const bl_cluster *c, const bl_grid *g, double imbalance, bl_grid_costs *out) {
  const double tokens = bl_grid_tokens(m, g);
  const item_maker k = {m, c, g, imbalance, c->num_bytes, tokens, tokens / g->tp};
  memset(out, 0, sizeof *out);
  bl_item_sizes(m, g, c->num_bytes, imbalance, out->size);
  bl_item_price *p = out->price;
  p[BL_ITEM_EMBED].us[BL_PRICE_DENSE] = 2 * compute_us(c, 0, 3 * m->hidden * k.num * k.part);
  p[BL_ITEM_EMBED].us[BL_PRICE_TENSOR] = tp_pair_us(&k);
  price_layer(&k, false, &p[BL_ITEM_DENSE]);
  if (m->experts > 0) price_layer(&k, true, &p[BL_ITEM_MOE]);
  price_head(&k, &p[m->experts > 0 ? BL_ITEM_MOE : BL_ITEM_DENSE], &p[BL_ITEM_HEAD]);
  for (int i = 0; i < BL_ITEM_COUNT; i++)
    for (int u = 0; u < BL_PRICE_COUNT; u++) p[i].total += p[i].us[u];
  const double per = 1e9; /* parameters: so many that latency does not show in the price of one */
  const double dense = (double)g->dp * g->cp, stride = (double)g->etp * g->ep;
  if (g->pp > 1) out->send_us = 2 * send_us(c, k.part * m->hidden * k.num, (double)g->tp * g->cp * g->dp);
  out->dense_gather_us = ring_us(c, k.num * per, dense, g->tp) / per;
  out->dense_reduce_us = ring_us(c, 4 * per, dense, g->tp) / per;
  out->expert_gather_us = ring_us(c, k.num * per, g->edp, stride) / per;
  const bl_link *link = ranks_in_node(c, g->ep, g->etp) < g->ep ? &c->inter : &c->intra;
  out->copy_byte_us = g->ep > 1 ? 1e-3 / link->gbps : 0;
  out->expert_reduce_us = ring_us(c, 4 * per, g->edp, stride) / per;
}

/* -- the step ------------------------------------------------------------------------------------------------------ */

double bl_device_us(const bl_grid_costs *costs, const int32_t *count) {
  double us = 0;
  for (int k = 0; k < BL_ITEM_COUNT; k++) us += count[k] * costs->price[k].total;
  return us;
}

static double exposed(double us, double hidden_under, double layers) {
  return larger(us - hidden_under, us / larger(1, layers));
}

/* Reduction of gradients and gathering of weights, beyond what computing hides. */
static double reduce_us(const bl_cluster *cluster, const bl_grid *g, const bl_grid_costs *c, const int32_t *count) {
  const double layers = count[BL_ITEM_DENSE] + count[BL_ITEM_MOE], work = bl_device_us(c, count);
  double reduce = 0, gather = 0, copies = 0;
  for (int k = 0; k < BL_ITEM_COUNT; k++) {
    const bl_item_size *s = &c->size[k];
    reduce += count[k] * (s->dense_parameters * c->dense_reduce_us + s->expert_parameters * c->expert_reduce_us);
    copies += count[k] * s->copy_parameters * (cluster->num_bytes + 4) * c->copy_byte_us;
    gather += count[k] * (s->dense_parameters * c->dense_gather_us + s->expert_parameters * c->expert_gather_us);
  }
  if (g->zero == 3) return copies + g->micro_batches * exposed(2 * gather + reduce, work, layers);
  if (g->zero == 1) return exposed(reduce, work * 2 / 3, layers) + exposed(gather + copies, work / 3, layers);
  return exposed(2 * reduce + copies, work * 2 / 3, layers);
}

static double optimizer_us(const bl_cluster *cluster, const bl_grid *g, const bl_grid_costs *c, const int32_t *count) {
  double dense = 0, expert = 0;
  for (int k = 0; k < BL_ITEM_COUNT; k++) {
    dense += count[k] * c->size[k].dense_parameters;
    expert += count[k] * c->size[k].expert_parameters;
  }
  const double whole = dense + expert, share = dense / ((double)g->dp * g->cp) + expert / g->edp;
  /* Gradients zeroed and squared; master, moments and gradient read, all but the gradient and the weight written. */
  const double updated = g->zero > 0 ? share : whole, held = g->zero == 3 ? share : whole;
  return (updated * (28 + cluster->num_bytes) + held * 8) / cluster->memory_gbps * 1e-3;
}

/* Exposed sends of a micro-batch on a device. */
static double exposed_send_us(const bl_grid *g, const bl_grid_costs *c) { return g->vp == 1 ? c->send_us : 0; }

static double pipeline_us(const bl_grid *g, const bl_grid_costs *c, double slowest, double sum) {
  const double send = exposed_send_us(g, c), fill = g->vp > 1 ? (g->pp - 1) * c->send_us : 0;
  return g->micro_batches * (slowest + send) + (sum + (g->pp - 1) * send - slowest) / g->vp + fill;
}

void bl_price_step(const bl_cluster *cluster, const bl_grid *g, const bl_grid_costs *c, const int32_t *counts,
                   bl_step_price *out) {
  double sum = 0, slowest = 0, reduce = 0, optimizer = 0;
  int32_t pace = 0;
  memset(out, 0, sizeof *out);
  for (int32_t d = 0; d < g->pp; d++) {
    const int32_t *count = counts + (int64_t)d * BL_ITEM_COUNT;
    const double us = bl_device_us(c, count);
    sum += us;
    if (us > slowest) slowest = us, pace = d;
    reduce = larger(reduce, reduce_us(cluster, g, c, count));
    optimizer = larger(optimizer, optimizer_us(cluster, g, c, count));
  }
  const double pipeline = pipeline_us(g, c, slowest, sum);
  const int32_t *count = counts + (int64_t)pace * BL_ITEM_COUNT;
  double parts = 0;
  for (int u = 0; u < BL_PRICE_COUNT; u++) {
    for (int k = 0; k < BL_ITEM_COUNT; k++) out->us[u] += g->micro_batches * count[k] * c->price[k].us[u];
    parts += out->us[u];
  }
  out->us[BL_PRICE_SEND] = g->micro_batches * exposed_send_us(g, c);
  out->us[BL_PRICE_BUBBLE] = pipeline - parts - out->us[BL_PRICE_SEND];
  out->us[BL_PRICE_REDUCE] = reduce;
  out->us[BL_PRICE_OPTIMIZER] = optimizer;
  out->step_us = pipeline + reduce + optimizer;
}

double bl_price_bound(const bl_cluster *cluster, const bl_grid *g, const bl_grid_costs *c, const int32_t *count) {
  double dearest = 0;
  const double sum = bl_device_us(c, count), mean = sum / g->pp;
  for (int k = 0; k < BL_ITEM_COUNT; k++)
    if (count[k] > 0) dearest = larger(dearest, c->price[k].total);
  /* The slowest device takes at least the mean and at least the dearest item; the update is the mean's or more. */
  return pipeline_us(g, c, larger(mean, dearest), sum) + optimizer_us(cluster, g, c, count) / g->pp;
}
