/* cluster_profile.c - curves from data sheets. */
#include "costmodel/fabric.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* What a decision on the host takes, its counts brought to the host included. */
static const double host_decision_us = 20;

typedef struct maker {
  bl_pace pace; /* the slowest of the ranks */
  int32_t num_bytes;
  bl_profile *out;
  bl_status status;
} maker;

static void point(maker *m, bl_curve_kind kind, double x, double us) {
  if (m->status == BL_OK) m->status = bl_curve_add(&m->out->curves[kind], x, us);
}

static double bytes_us(const maker *m, double bytes) { return bytes / m->pace.memory_gbps * 1e-3; }

/* call_us plus, a unit, the longer of arithmetic and memory traffic. */
static void per_unit(maker *m, bl_curve_kind kind, double flop, double bytes) {
  const double far = 1e6, arithmetic = flop / m->pace.core_rate, memory = bytes_us(m, bytes);
  const double us = arithmetic > memory ? arithmetic : memory;
  point(m, kind, 1, m->pace.call_us + us);
  point(m, kind, far, m->pace.call_us + far * us);
}

/* Rows of one expert: reading its weights takes what it takes, however few rows. */
static void expert(maker *m, bl_curve_kind kind, double flop, double weight_bytes) {
  const double row_us = flop / m->pace.core_rate, least_us = bytes_us(m, weight_bytes);
  const double bend = least_us / row_us;
  point(m, kind, 1, least_us > row_us ? least_us : row_us);
  if (bend > 1) point(m, kind, bend, least_us);
  point(m, kind, bend + 1e6, least_us + 1e6 * row_us);
}

static void message(maker *m, bl_curve_kind kind, double latency_us, double bytes_factor, double gbps) {
  const double far = 1e9, us = bytes_factor / gbps * 1e-3;
  point(m, kind, 1, latency_us + us);
  point(m, kind, far, latency_us + far * us);
}

/* Convolution, scan with its states in fp32, one a chunk, and gated norm read and write what they need and make. */
static void state_space_curves(maker *m, const bl_model *model) {
  const double num = m->num_bytes, inner = (double)model->state_heads * model->state_head_width;
  const double both = 2.0 * model->state_groups * model->state_width;
  const double states = 2 * 4 * inner * model->state_width / model->state_chunk;
  const double bytes = num * (5.0 * model->hidden + 7 * inner + 3 * both) + states;
  const double flop = 2 * (double)(bl_model_part_macs(model, BL_PART_STATE_SPACE) + bl_model_scan_macs(model));
  per_unit(m, BL_CURVE_STATE_SPACE_FWD, flop, bytes);
  per_unit(m, BL_CURVE_STATE_SPACE_BWD, 2 * flop, 2 * bytes);
}

static void dense_curves(maker *m, const bl_model *model) {
  const double num = m->num_bytes, H = model->hidden;
  const double attention = 2 * (double)(bl_model_part_macs(model, BL_PART_ATTENTION) + bl_model_core_macs(model));
  const double ffn = 2 * (double)bl_model_part_macs(model, BL_PART_FFN);
  const double gate = 2 * (double)bl_model_part_macs(model, BL_PART_GATE),
               shared = 2 * (double)bl_model_part_macs(model, BL_PART_SHARED);
  const double logits = 2.0 * model->vocabulary * H, rows = num * H;
  per_unit(m, BL_CURVE_EMBED_FWD, 0, 2 * rows);
  per_unit(m, BL_CURVE_EMBED_BWD, 0, 3 * rows);
  per_unit(m, BL_CURVE_ATTENTION_FWD, attention, 12 * rows);
  per_unit(m, BL_CURVE_ATTENTION_BWD, 2 * attention, 24 * rows);
  if (model->state_heads > 0) state_space_curves(m, model);
  per_unit(m, BL_CURVE_FFN_FWD, ffn, 6 * rows);
  per_unit(m, BL_CURVE_FFN_BWD, 2 * ffn, 12 * rows);
  per_unit(m, BL_CURVE_GATE_FWD, gate, 3 * rows);
  per_unit(m, BL_CURVE_GATE_BWD, 2 * gate, 6 * rows);
  per_unit(m, BL_CURVE_SHARED_FWD, shared, 4 * rows);
  per_unit(m, BL_CURVE_SHARED_BWD, 2 * shared, 8 * rows);
  per_unit(m, BL_CURVE_SCATTER, 0, 2 * rows);
  per_unit(m, BL_CURVE_GATHER, 0, 3 * rows);
  per_unit(m, BL_CURVE_GATHER_BWD, 0, 4 * rows);
  per_unit(m, BL_CURVE_SCATTER_BWD, 0, 3 * rows);
  per_unit(m, BL_CURVE_HEAD, 3 * logits, 8 * rows + 3 * num * model->vocabulary);
}

static void message_curves(maker *m, const bl_cluster *c, int32_t ranks) {
  bl_reach all;
  bl_cluster_reach(c, 0, ranks, ranks, 1, &all);
  const double P = ranks;
  const bl_link *link = all.racks > 1 ? &all.rack : all.nodes > 1 ? &all.inter : &all.intra;
  /* An exchange sends an equal part to each rank: over all kinds of link at once, the slowest one counts. */
  double us_per_byte = (all.most - 1) / P / all.intra.gbps;
  if (all.nodes > 1) us_per_byte = fmax(us_per_byte, (P - all.least) / P / all.inter.gbps);
  if (all.racks > 1) us_per_byte = fmax(us_per_byte, (P - all.least_in_rack) / P / all.rack.gbps);
  message(m, BL_CURVE_EXCHANGE, link->latency_us, us_per_byte, 1);
  message(m, BL_CURVE_GATHER_HOST, 2 * link->latency_us, 1, link->gbps);
  message(m, BL_CURVE_TRANSFER, link->latency_us, 1, link->gbps);
  message(m, BL_CURVE_ACCUMULATE, link->latency_us, 1, link->gbps);
  message(m, BL_CURVE_ALL_REDUCE, 2 * link->latency_us, 2 * (P - 1) / P, link->gbps); /* a ring */
}

bl_status bl_cluster_profile(const bl_cluster *c, const bl_model *model, int32_t ranks, bl_profile *out) {
  const bl_device *device = &c->node_group[0].device;
  maker m = {.num_bytes = device->num_bytes, .out = out, .status = BL_OK};
  if (bl_cluster_ranks(c) < ranks)
    return bl_fail(BL_EINPUT, "cluster %s has %lld ranks, fewer than %d", c->name, (long long)bl_cluster_ranks(c),
                   ranks);
  bl_cluster_pace(c, 0, ranks, 1, &m.pace);
  memset(out, 0, sizeof *out);
  snprintf(out->backend, sizeof out->backend, "data sheet");
  snprintf(out->transport, sizeof out->transport, "data sheet");
  snprintf(out->device, sizeof out->device, "%s", device->name);
  out->ranks = ranks;
  out->overlap = true;
  out->num_bytes = m.num_bytes;
  out->sgemm_gflops = m.pace.core_rate * 1e-3;
  out->triad_gbps = m.pace.memory_gbps;
  bl_profile_shape_of(model, &out->shape);
  dense_curves(&m, model);
  if (model->experts > 0) {
    const double macs = (double)bl_model_part_macs(model, BL_PART_EXPERT), weights = macs * m.num_bytes;
    expert(&m, BL_CURVE_EXPERT_FWD, 2 * macs, weights);
    expert(&m, BL_CURVE_EXPERT_DX, 2 * macs, weights);
    expert(&m, BL_CURVE_EXPERT_DW, 2 * macs, 8 * macs); /* fp32 gradients are read and written */
  }
  per_unit(&m, BL_CURVE_ZERO_GRADS, 0, 4);
  per_unit(&m, BL_CURVE_SQUARE_GRADS, 0, 4);
  per_unit(&m, BL_CURVE_OPTIMIZER, 0, 28 + m.num_bytes);
  point(&m, BL_CURVE_CHOOSE_HOSTS, 1, host_decision_us);
  point(&m, BL_CURVE_SOLVE_SHARES, 1, host_decision_us);
  message_curves(&m, c, ranks);
  return m.status;
}
