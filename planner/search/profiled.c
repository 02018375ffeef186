#include "planner/search/profiled.h"
#include "base/memory.h"
#include "planner/search/price.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

double bl_profiled_factor(const bl_profiled *measured, bl_curve_kind kind, double amount) {
  if (!measured || measured->factor[kind].n == 0) return 1;
  const bl_curve *f = &measured->factor[kind];
  const double most = f->x[f->n - 1];
  return bl_curve_at(f, amount < most ? amount : most);
}

/* -- computing ----------------------------------------------------------------------------------------------------- */

/* The item of a model under which a kind of work is found, and its action; tokens for one of the curve's amounts. */
typedef struct priced {
  bl_curve_kind curve;
  bl_item item;
  bl_action_kind action;
  enum { TOKENS, CHOICES, ROWS } amount;
} priced;

static const priced computing[] = {{BL_CURVE_EMBED_FWD, BL_ITEM_EMBED, BL_ACTION_EMBED_FWD, TOKENS},
                                   {BL_CURVE_EMBED_BWD, BL_ITEM_EMBED, BL_ACTION_EMBED_BWD, TOKENS},
                                   {BL_CURVE_ATTENTION_FWD, BL_ITEM_MOE, BL_ACTION_ATTENTION_FWD, TOKENS},
                                   {BL_CURVE_ATTENTION_BWD, BL_ITEM_MOE, BL_ACTION_ATTENTION_BWD, TOKENS},
                                   {BL_CURVE_FFN_FWD, BL_ITEM_DENSE, BL_ACTION_FFN_FWD, TOKENS},
                                   {BL_CURVE_FFN_BWD, BL_ITEM_DENSE, BL_ACTION_FFN_BWD, TOKENS},
                                   {BL_CURVE_GATE_FWD, BL_ITEM_MOE, BL_ACTION_GATE_FWD, TOKENS},
                                   {BL_CURVE_GATE_BWD, BL_ITEM_MOE, BL_ACTION_GATE_BWD, TOKENS},
                                   {BL_CURVE_SCATTER, BL_ITEM_MOE, BL_ACTION_SCATTER, CHOICES},
                                   {BL_CURVE_EXPERT_FWD, BL_ITEM_MOE, BL_ACTION_EXPERT_FWD, ROWS},
                                   {BL_CURVE_GATHER, BL_ITEM_MOE, BL_ACTION_GATHER, CHOICES},
                                   {BL_CURVE_HEAD, BL_ITEM_HEAD, BL_ACTION_HEAD, TOKENS},
                                   {BL_CURVE_GATHER_BWD, BL_ITEM_MOE, BL_ACTION_GATHER_BWD, CHOICES},
                                   {BL_CURVE_EXPERT_DX, BL_ITEM_MOE, BL_ACTION_EXPERT_DX, ROWS},
                                   {BL_CURVE_EXPERT_DW, BL_ITEM_MOE, BL_ACTION_EXPERT_DW, ROWS},
                                   {BL_CURVE_SCATTER_BWD, BL_ITEM_MOE, BL_ACTION_SCATTER_BWD, CHOICES}};
enum { N_COMPUTING = sizeof computing / sizeof *computing };

/* What the profile says of its model: that of the executor, with these sizes. */
static void model_of(const bl_profile_shape *shape, bl_model *m) {
  bl_model_default(m);
  m->hidden = shape->hidden, m->vocabulary = shape->vocabulary, m->sequence = shape->sequence;
  m->heads = m->kv_heads = shape->heads, m->head_width = shape->hidden / shape->heads;
  m->experts = shape->experts, m->top_k = shape->top_k;
  m->expert_width = shape->expert_width, m->ffn_width = shape->ffn_width;
}

/* Work of layers with experts has no closed form without any; choices and rows have none without top_k. */
static bl_status check_counted(const char *path, const bl_profile *p, const priced *w) {
  const bool experts = w->item == BL_ITEM_MOE && p->shape.experts == 0,
             top_k = w->amount != TOKENS && p->shape.top_k == 0;
  const char *key = experts ? "experts" : "top_k";
  if ((!experts && !top_k) || p->curves[w->curve].n == 0) return BL_OK;
  return bl_fail(BL_EINPUT, "%s: model.%s: expected at least 1 beside the curve %s, found 0", path, key,
                 bl_curve_names[w->curve]);
}

static bl_status add_factors(const char *path, const bl_profile *p, const bl_positions *one, bl_profiled *out) {
  bl_model m;
  bl_work work;
  model_of(&p->shape, &m);
  for (int i = 0; i < N_COMPUTING; i++) {
    const priced *w = &computing[i];
    const bl_curve *curve = &p->curves[w->curve];
    BL_TRY(check_counted(path, p, w));
    const double choices = (double)m.top_k, rows = choices / m.experts; /* of a token; of an expert and token */
    for (int32_t k = 0; k < curve->n; k++) {
      const double amount = curve->x[k];
      const double tokens = w->amount == TOKENS ? amount : w->amount == CHOICES ? amount / choices : amount / rows;
      bl_grid_sheet(&m, one, tokens, &work);
      const double sheet_us = work.us[w->item][w->action] / (w->amount == ROWS ? m.experts : 1);
      if (!(sheet_us > 0) || !isfinite(curve->us[k] / sheet_us))
        return bl_fail(BL_EINPUT, "%s: curves.%s: its model and cluster take %g us for %g in closed form, found %g us",
                       path, bl_curve_names[w->curve], sheet_us, amount, curve->us[k]);
      BL_TRY(bl_curve_add(&out->factor[w->curve], amount, curve->us[k] / sheet_us));
    }
  }
  return BL_OK;
}

/* The time of the most parameters, an extra pass over them beside where there is one. */
static double at_most_us(const bl_curve *curve, double parameters) { return bl_curve_at(curve, parameters); }

static void add_update(const bl_profile *p, const bl_positions *one, bl_profiled *out) {
  const bl_curve *update = &p->curves[BL_CURVE_OPTIMIZER], *zero = &p->curves[BL_CURVE_ZERO_GRADS],
                 *square = &p->curves[BL_CURVE_SQUARE_GRADS];
  const bl_grid g = {.tp = 1, .cp = 1, .dp = 1, .pp = 1, .vp = 1, .etp = 1, .ep = 1, .edp = 1};
  const double byte_us = 1e-3 / one->view[0].pace.memory_gbps;
  double update_us, square_us;
  out->update = out->square = 1;
  out->update_known = update->n > 0, out->square_known = zero->n > 0 && square->n > 0;
  if (out->update_known) {
    const double most = update->x[update->n - 1];
    bl_price_update(&g, one->num_bytes, byte_us, byte_us, most, 0, &update_us, &square_us);
    out->update = at_most_us(update, most) / update_us;
  }
  if (out->square_known) {
    const double most = square->x[square->n - 1];
    bl_price_update(&g, one->num_bytes, byte_us, byte_us, most, 0, &update_us, &square_us);
    out->square = (at_most_us(zero, most) + at_most_us(square, most)) / square_us;
  }
}

/* -- links --------------------------------------------------------------------------------------------------------- */

/* A message of b bytes takes `latencies` times the latency and `part` of b over the link. */
static bl_link link_of(const bl_curve *curve, double part, double latencies) {
  if (curve->n < 2) return (bl_link){0, 0};
  const double far = curve->x[curve->n - 1], near = curve->x[curve->n - 2];
  const double slope = (bl_curve_at(curve, far) - bl_curve_at(curve, near)) / (far - near);
  const double us_per_byte = slope > 0 ? slope : bl_curve_at(curve, far) / far;
  const double latency_us = (curve->us[0] - us_per_byte * curve->x[0]) / latencies;
  return (bl_link){us_per_byte > 0 ? part / us_per_byte * 1e-3 : 0, latency_us > 0 ? latency_us : 0};
}

static void add_links(const bl_profile *p, bl_profiled *out) {
  const double P = p->ranks;
  if (p->one_device || p->ranks < 2) return;
  out->exchange = link_of(&p->curves[BL_CURVE_EXCHANGE], (P - 1) / P, 1);
  out->all_reduce = link_of(&p->curves[BL_CURVE_ALL_REDUCE], 2 * (P - 1) / P, 2 * (P - 1));
  out->transfer = link_of(&p->curves[BL_CURVE_TRANSFER], 1, 1);
  out->accumulate = link_of(&p->curves[BL_CURVE_ACCUMULATE], 1, 1);
}

/* -- the profile --------------------------------------------------------------------------------------------------- */

/* Large products and memory are the profile's, on other devices in proportion. */
static bl_status use_rates(const char *path, const bl_profile *p, bl_cluster *c) {
  const double efficiency = p->sgemm_gflops * 1e-3 / c->node_group[0].device.tflops;
  const double memory = p->triad_gbps / c->node_group[0].device.memory_gbps;
  for (int32_t i = 0; i < c->n_node_groups; i++) {
    bl_device *d = &c->node_group[i].device;
    if (p->num_bytes != d->num_bytes)
      return bl_fail(BL_EINPUT, "%s: measured numbers of %d bytes, cluster %s computes with %d", path, p->num_bytes,
                     c->name, d->num_bytes);
    if (efficiency > 1)
      return bl_fail(BL_EINPUT, "%s: %.1f TFLOP/s measured on %s are more than the peak of %s, %.1f", path,
                     p->sgemm_gflops * 1e-3, p->device, d->name, d->tflops);
    d->efficiency = efficiency;
    d->memory_gbps *= memory;
    snprintf(d->efficiency_source, sizeof d->efficiency_source, "a large product on %.96s, %.120s", p->device, path);
  }
  return BL_OK;
}

static bl_status take(const char *path, const bl_profile *p, bl_cluster *c, bl_cluster *plain, bl_profiled *out) {
  const bl_grid g = {.tp = 1, .cp = 1, .dp = 1, .pp = 1, .vp = 1, .etp = 1, .ep = 1, .edp = 1};
  bl_positions one;
  BL_TRY(use_rates(path, p, c));
  *plain = *c;
  BL_TRY(bl_cluster_use_type(plain, NULL));
  bl_positions_of(plain, &g, &one);
  snprintf(out->source, sizeof out->source, "%.256s on %s, a model of hidden %d, %d experts of %d", path, p->device,
           p->shape.hidden, p->shape.experts, p->shape.expert_width);
  out->sheet = c->node_group[0].links.intra;
  BL_TRY(add_factors(path, p, &one, out));
  add_update(p, &one, out);
  add_links(p, out);
  c->measured = out;
  return BL_OK;
}

bl_status bl_profiled_load(const char *path, bl_cluster *cluster, bl_profiled *out) {
  bl_profile *profile = NULL;
  bl_cluster *plain = NULL;
  bl_status status = BL_OK;
  memset(out, 0, sizeof *out);
  cluster->measured = NULL;
  BL_TRY_GOTO(status, bl_new(&profile, 1, sizeof *profile, "a profile"), done);
  BL_TRY_GOTO(status, bl_new(&plain, 1, sizeof *plain, "a cluster"), done);
  BL_TRY_GOTO(status, bl_profile_load(path, profile), done);
  status = take(path, profile, cluster, plain, out);
done:
  free(profile);
  free(plain);
  return status;
}

/* -- where costs come from ----------------------------------------------------------------------------------------- */

static bool occurs(const bl_model *m, const int32_t *count, int kind) {
  bool attention = false, ffn = false, experts = false;
  for (int i = 0; i < BL_ITEM_COUNT; i++) {
    const bl_layer_kind layer = bl_item_kind((bl_item)i);
    if (count[i] == 0 || layer == BL_LAYER_COUNT) continue;
    attention = attention || bl_layer_has_attention(layer);
    ffn = ffn || bl_layer_has_ffn(layer);
    experts = experts || bl_layer_has_experts(layer);
  }
  switch (kind) {
  case BL_CURVE_ATTENTION_FWD:
  case BL_CURVE_ATTENTION_BWD:
    return attention;
  case BL_CURVE_STATE_SPACE_FWD:
  case BL_CURVE_STATE_SPACE_BWD:
    return m->state_heads > 0;
  case BL_CURVE_FFN_FWD:
  case BL_CURVE_FFN_BWD:
    return ffn;
  case BL_CURVE_SHARED_FWD:
  case BL_CURVE_SHARED_BWD:
    return experts && m->shared_experts > 0;
  case BL_CURVE_GATE_FWD:
  case BL_CURVE_GATE_BWD:
  case BL_CURVE_SCATTER:
  case BL_CURVE_SCATTER_BWD:
  case BL_CURVE_GATHER:
  case BL_CURVE_GATHER_BWD:
  case BL_CURVE_EXPERT_FWD:
  case BL_CURVE_EXPERT_DX:
  case BL_CURVE_EXPERT_DW:
  case BL_CURVE_EXCHANGE:
  case BL_CURVE_TRANSFER:
  case BL_CURVE_ACCUMULATE:
    return experts;
  case BL_CURVE_CHOOSE_HOSTS: /* taken as hidden */
  case BL_CURVE_SOLVE_SHARES:
  case BL_CURVE_GATHER_HOST:
  case BL_CURVE_TO_DEVICE:
  case BL_CURVE_TO_HOST:
    return false;
  default:
    return true;
  }
}

static bool knows(const bl_profiled *m, int kind) {
  switch (kind) {
  case BL_WORK_BETWEEN_NODES:
    return false;
  case BL_CURVE_OPTIMIZER:
    return m->update_known;
  case BL_CURVE_ZERO_GRADS:
  case BL_CURVE_SQUARE_GRADS:
    return m->square_known;
  case BL_CURVE_EXCHANGE:
    return m->exchange.gbps > 0;
  case BL_CURVE_ALL_REDUCE:
    return m->all_reduce.gbps > 0;
  case BL_CURVE_TRANSFER:
    return m->transfer.gbps > 0;
  case BL_CURVE_ACCUMULATE:
    return m->accumulate.gbps > 0;
  default:
    return m->factor[kind].n > 0;
  }
}

void bl_profiled_costs(const bl_cluster *c, const bl_model *m, bl_plan_costs *out) {
  const bl_device *d = &c->node_group[0].device;
  int32_t count[BL_ITEM_COUNT];
  bl_items_of_model(m, count);
  memset(out, 0, sizeof *out);
  for (int k = 0; k < BL_WORK_KIND_COUNT; k++) {
    if (!occurs(m, count, k)) continue;
    *(c->measured && knows(c->measured, k) ? &out->measured : &out->assumed) |= (uint64_t)1 << k;
  }
  if (out->measured) snprintf(out->measured_source, sizeof out->measured_source, "%s", c->measured->source);
  snprintf(out->assumed_source, sizeof out->assumed_source, "%s: %s; products: %s", d->name, d->source,
           d->matrix.tflops > 0 ? d->matrix.source : d->efficiency_source);
}
