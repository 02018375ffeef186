#include "planner/search/block_bound.h"
#include "planner/search/stages.h"
#include <float.h>
#include <string.h>

static double larger(double a, double b) { return a > b ? a : b; }
static double smaller(double a, double b) { return a < b ? a : b; }

/* -- items --------------------------------------------------------------------------------------------------------- */

typedef struct adder {
  const bl_model *m;
  const bl_grid *g;
  bl_layer_kind kind;
  const double *us;
  bool beside;
  double stolen;
} adder;

static double pieces_of(const adder *k) { return larger(1, k->g->pieces); }

/* All-gather and reduce-scatter around a split product. */
static double pair(const adder *k) {
  return k->g->tp > 1 ? k->us[BL_ACTION_SEQUENCE_GATHER] + k->us[BL_ACTION_SEQUENCE_SCATTER] : 0;
}

/* One exchange of a layer's rows, as the compute stream feels it. */
static double exchange(const adder *k, bl_action_kind kind) {
  return pieces_of(k) * k->us[kind] * (k->beside ? k->stolen : 1);
}

static double etp_pair(const adder *k) {
  return k->g->etp > 1 ? pieces_of(k) * (k->us[BL_ACTION_ROWS_GATHER] + k->us[BL_ACTION_ROWS_SCATTER]) : 0;
}

static double mixer(const adder *k, bl_action_kind attention, bl_action_kind ring, bl_action_kind state_space) {
  const bool crossed = k->g->cp > 1;
  if (bl_layer_has_attention(k->kind)) return k->us[attention] + pair(k) + (crossed ? k->us[ring] : 0);
  if (k->kind != BL_LAYER_STATE_SPACE) return 0;
  return k->us[state_space] + pair(k) + (crossed ? k->us[BL_ACTION_HEADS_EXCHANGE] : 0);
}

static double mixer_fwd(const adder *k) {
  return mixer(k, BL_ACTION_ATTENTION_FWD, BL_ACTION_CONTEXT_RING, BL_ACTION_STATE_SPACE_FWD);
}

static double mixer_bwd(const adder *k) {
  return mixer(k, BL_ACTION_ATTENTION_BWD, BL_ACTION_CONTEXT_RING_BWD, BL_ACTION_STATE_SPACE_BWD);
}

static double rest_fwd(const adder *k) {
  if (bl_layer_has_ffn(k->kind)) return k->us[BL_ACTION_FFN_FWD] + pair(k);
  if (!bl_layer_has_experts(k->kind)) return 0;
  const double shared = k->m->shared_experts > 0 ? k->us[BL_ACTION_SHARED_FWD] + pair(k) : 0;
  return k->us[BL_ACTION_GATE_FWD] + k->us[BL_ACTION_SCATTER] + k->us[BL_ACTION_GATHER] + shared + etp_pair(k) +
         pieces_of(k) * k->us[BL_ACTION_EXPERT_FWD] + exchange(k, BL_ACTION_DISPATCH) + exchange(k, BL_ACTION_COMBINE);
}

static double rest_bwd(const adder *k) {
  if (bl_layer_has_ffn(k->kind)) return k->us[BL_ACTION_FFN_BWD] + pair(k);
  if (!bl_layer_has_experts(k->kind)) return 0;
  const double shared = k->m->shared_experts > 0 ? k->us[BL_ACTION_SHARED_BWD] + pair(k) : 0;
  return k->us[BL_ACTION_GATE_BWD] + k->us[BL_ACTION_SCATTER_BWD] + k->us[BL_ACTION_GATHER_BWD] + shared + etp_pair(k) +
         pieces_of(k) * (k->us[BL_ACTION_EXPERT_DX] + k->us[BL_ACTION_EXPERT_DW]) +
         exchange(k, BL_ACTION_DISPATCH_BWD) + exchange(k, BL_ACTION_COMBINE_BWD);
}

static double again(const adder *k) {
  const bl_recompute what = k->g->recompute;
  if (what == BL_RECOMPUTE_FULL) return mixer_fwd(k) + rest_fwd(k);
  if (what == BL_RECOMPUTE_FFN) return k->us[BL_ACTION_RECOMPUTE] + rest_fwd(k);
  return what == BL_RECOMPUTE_SELECTIVE ? k->us[BL_ACTION_RECOMPUTE] : 0;
}

/* What keeps links busy in every micro-batch. */
static void add_links(const adder *k, bl_block_costs *out, int item) {
  const bool moe = bl_layer_has_experts(k->kind);
  const double *us = k->us;
  static const bl_action_kind rows[] = {BL_ACTION_DISPATCH, BL_ACTION_COMBINE, BL_ACTION_COMBINE_BWD,
                                        BL_ACTION_DISPATCH_BWD};
  if (k->g->zero == 3 && k->g->dp * k->g->cp > 1)
    out->dense_link_us[item] = 2 * us[BL_ACTION_WEIGHT_GATHER] + us[BL_ACTION_DENSE_REDUCE];
  if (k->g->zero == 3 && k->g->edp > 1 && moe)
    out->expert_link_us[item] = 2 * us[BL_ACTION_EXPERT_GATHER] + us[BL_ACTION_EXPERT_REDUCE];
  for (int i = 0; i < 4 && k->beside && moe; i++) out->row_link_us[item] += pieces_of(k) * us[rows[i]];
}

void bl_block_cost(const bl_model *m, const bl_grid *g, const bl_work *work, bool beside, bl_block_costs *out) {
  const bl_item module = m->experts > 0 ? BL_ITEM_MOE : BL_ITEM_DENSE;
  memset(out, 0, sizeof *out);
  for (int i = 0; i < BL_ITEM_COUNT; i++) {
    const adder k = {m, g, bl_item_kind((bl_item)i), work->us[i], beside, work->stolen};
    out->square_us[i] = k.us[BL_ACTION_SQUARE_GRADS];
    out->update_us[i] = k.us[BL_ACTION_OPTIMIZER];
    if (k.kind == BL_LAYER_COUNT) continue; /* embedding and head follow */
    add_links(&k, out, i);
    out->forward_us[i] = mixer_fwd(&k) + rest_fwd(&k);
    out->again_us[i] = again(&k);
    out->backward_us[i] = mixer_bwd(&k) + rest_bwd(&k) + out->again_us[i];
  }
  const double *us = work->us[BL_ITEM_EMBED], modules = m->multi_token;
  out->forward_us[BL_ITEM_EMBED] = us[BL_ACTION_EMBED_FWD] + (g->tp > 1 ? us[BL_ACTION_SEQUENCE_SCATTER] : 0);
  out->backward_us[BL_ITEM_EMBED] = us[BL_ACTION_EMBED_BWD] + (g->tp > 1 ? us[BL_ACTION_SEQUENCE_GATHER] : 0);
  const adder head = {m, g, BL_LAYER_COUNT, work->us[BL_ITEM_HEAD], beside, work->stolen};
  out->forward_us[BL_ITEM_HEAD] = modules * (head.us[BL_ACTION_MODULE_FWD] + out->forward_us[module]);
  out->backward_us[BL_ITEM_HEAD] = (1 + modules) * (head.us[BL_ACTION_HEAD] + pair(&head)) +
                                   modules * (head.us[BL_ACTION_MODULE_BWD] + out->backward_us[module]);
  out->square_us[BL_ITEM_HEAD] += modules * out->square_us[module];
  out->update_us[BL_ITEM_HEAD] += modules * out->update_us[module];
  if (g->pp == 1) { /* the embedding's row has both */
    out->square_us[BL_ITEM_HEAD] -= work->us[BL_ITEM_HEAD][BL_ACTION_SQUARE_GRADS];
    out->update_us[BL_ITEM_HEAD] -= work->us[BL_ITEM_HEAD][BL_ACTION_OPTIMIZER];
  }
  out->send_us = smaller(head.us[BL_ACTION_SEND_ACTIVATION], head.us[BL_ACTION_SEND_GRADIENT]);
}

static double weighted(const double *us, const int32_t *count) {
  double sum = 0;
  for (int k = 0; k < BL_ITEM_COUNT; k++) sum += count[k] * us[k];
  return sum;
}

/* The busiest of the links that are surely busy. */
static double links_us(const bl_block_costs *c, const int32_t *count) {
  return larger(larger(weighted(c->dense_link_us, count), weighted(c->expert_link_us, count)),
                weighted(c->row_link_us, count));
}

double bl_block_bound_any(const bl_grid *g, const bl_positions *p, const bl_block_costs *c, const int32_t *count) {
  double us[BL_POSITION_KINDS][BL_ITEM_COUNT], links = DBL_MAX, state = DBL_MAX, sum;
  for (int32_t k = 0; k < p->kinds; k++) {
    for (int i = 0; i < BL_ITEM_COUNT; i++) us[k][i] = c[k].forward_us[i] + c[k].backward_us[i];
    links = smaller(links, links_us(&c[k], count));
    state = smaller(state, weighted(c[k].square_us, count) + weighted(c[k].update_us, count));
  }
  const double slowest = bl_positions_share(p, (const double(*)[BL_ITEM_COUNT])us, count, &sum);
  return g->micro_batches * larger(slowest, links / g->pp) + state / g->pp;
}

/* -- a division ---------------------------------------------------------------------------------------------------- */

typedef struct division {
  const bl_grid *g;
  double send_us;
  /* Sums over the first stages: of forwards, of backwards, and of these from a gradient in to a gradient out. */
  double forward[BL_STAGES_MAX + 1], backward[BL_STAGES_MAX + 1], gradient[BL_STAGES_MAX + 1];
} division;

static double stage_us(const double *sums, int32_t stage) { return sums[stage + 1] - sums[stage]; }

/* The first (or, for backwards, the last) n blocks of a direction at a position, in its order. */
static double blocks_us(const division *d, const double *sums, int32_t position, int32_t n) {
  const bl_grid *g = d->g;
  const int32_t group = g->vp > 1 ? g->pp : 1, round = group * g->vp;
  double us = 0;
  for (int32_t c = 0; c < g->vp; c++) {
    /* Both orders are the same seen from their own ends: groups of micro-batches, chunk 0 first. */
    const int32_t rest = n % round - c * group, blocks = n / round * group + (rest < 0       ? 0
                                                                              : rest < group ? rest
                                                                                             : group);
    us += blocks * stage_us(sums, c * g->pp + position);
  }
  return us;
}

static double position_bound(const division *d, int32_t s, bool beside) {
  const bl_grid *g = d->g;
  const int32_t total = g->micro_batches * g->vp, stages = g->pp * g->vp, behind = g->pp - 1 - s;
  const int32_t last = (g->vp - 1) * g->pp + s; /* the position's last stage */
  int32_t warm_up = g->vp > 1 ? 2 * behind + (g->vp - 1) * g->pp + (beside ? 1 : 0) : behind;
  if (warm_up > total) warm_up = total;
  const int32_t ahead = warm_up + 1 < total ? warm_up + 1 : total; /* forwards before the first backward */
  double work = 0;
  for (int32_t c = 0; c < g->vp; c++)
    work += stage_us(d->forward, c * g->pp + s) + stage_us(d->backward, c * g->pp + s);
  const double way = d->forward[s] + d->gradient[s] + 2 * s * d->send_us;
  const double down = d->forward[stages], up = d->gradient[stages];
  const double hops = d->send_us * (stages - 1 - s + stages - 1 - last);
  const double to_first = down - d->forward[s] + up - d->gradient[last + 1] + hops;
  const double to_last = down - d->forward[last + 1] + up - d->gradient[s + 1] + hops;
  /* What a backward may do before its gradient is there. */
  const double early_first = stage_us(d->backward, last) - stage_us(d->gradient, last);
  const double early_last = stage_us(d->backward, s) - stage_us(d->gradient, s);
  const double start = larger(0, to_first - blocks_us(d, d->forward, s, ahead) - early_first);
  const double end = larger(0, to_last - (blocks_us(d, d->backward, s, ahead) - stage_us(d->backward, s)) - early_last);
  return way + g->micro_batches * work + (total > warm_up + 1 ? start + end : larger(start, end));
}

double bl_block_bound(const bl_model *model, const bl_grid *g, const bl_positions *p, const bl_block_costs *costs,
                      const int32_t *first, bool beside) {
  const int32_t stages = g->pp * g->vp;
  int32_t counts[BL_STAGES_MAX * BL_ITEM_COUNT];
  double longest = 0, update = 0;
  division d = {.g = g, .send_us = DBL_MAX};
  for (int32_t k = 0; k < p->kinds; k++) d.send_us = smaller(d.send_us, costs[k].send_us);
  const bl_grid flat = {.pp = stages, .vp = 1};
  bl_stages_counts(model, &flat, first, counts);
  for (int32_t s = 0; s < stages; s++) {
    const bl_block_costs *c = &costs[p->kind[s % g->pp]];
    d.forward[s + 1] = d.forward[s] + weighted(c->forward_us, counts + s * BL_ITEM_COUNT);
    const int32_t *count = counts + s * BL_ITEM_COUNT;
    const double all = weighted(c->backward_us, count);
    double again_us = 0; /* of its last layer; others' stand behind that one's backward */
    for (int k = 0; k < BL_ITEM_COUNT; k++)
      if (count[k] > 0) again_us = larger(again_us, c->again_us[k]);
    d.backward[s + 1] = d.backward[s] + all;
    d.gradient[s + 1] = d.gradient[s] + all - again_us;
  }
  bl_stages_counts(model, g, first, counts);
  for (int32_t s = 0; s < g->pp; s++) {
    const bl_block_costs *c = &costs[p->kind[s]];
    const int32_t *count = counts + s * BL_ITEM_COUNT;
    const double blocks = larger(position_bound(&d, s, beside), g->micro_batches * links_us(c, count));
    longest = larger(longest, blocks + weighted(c->square_us, count));
    update = larger(update, weighted(c->update_us, count));
  }
  return longest + update;
}
