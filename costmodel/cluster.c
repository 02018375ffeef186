/* cluster.c - cluster files, and curves from data sheets. */
#include "costmodel/cluster.h"
#include "base/file.h"
#include "base/json.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* What a decision on the host takes, its counts brought to the host included. */
static const double host_decision_us = 20;

static bl_status read_text(bl_json object, const char *key, char *out, size_t size) {
  const char *text;
  BL_TRY(bl_json_string(object, key, &text));
  if (strlen(text) >= size) return bl_json_fail(object, "%s: expected at most %zu bytes", key, size - 1);
  memcpy(out, text, strlen(text) + 1);
  return BL_OK;
}

static bl_status read_link(bl_json links, const char *key, bl_link *out, bl_link_origin *origin) {
  bl_json object;
  origin->efficiency = 1;
  BL_TRY(bl_json_object(links, key, &object));
  BL_TRY(bl_json_keys(object, "gbps efficiency latency_us source"));
  BL_TRY(bl_json_number(object, "gbps", 1e-6, 1e9, &out->gbps));
  BL_TRY(bl_json_number_or(object, "efficiency", 1e-6, 1, &origin->efficiency));
  out->gbps *= origin->efficiency;
  BL_TRY(bl_json_number(object, "latency_us", 0, 1e9, &out->latency_us));
  return read_text(object, "source", origin->source, sizeof origin->source);
}

static bl_status read_types(bl_json object, bl_cluster *c) {
  bl_json list;
  int64_t n;
  if (!bl_json_has(object, "types")) return BL_OK;
  BL_TRY(bl_json_array(object, "types", 0, BL_CLUSTER_MAX_TYPES, &list, &n));
  for (bl_json item = bl_json_first(list); !bl_json_is_null(item); item = bl_json_next(item)) {
    bl_compute_type *type = &c->types[c->n_types++];
    int64_t num_bytes = 1;
    BL_TRY(bl_json_keys(item, "name tflops num_bytes efficiency source"));
    BL_TRY(bl_json_int_or(item, "num_bytes", 1, 4, &num_bytes));
    type->num_bytes = (int32_t)num_bytes;
    BL_TRY(read_text(item, "name", type->name, sizeof type->name));
    BL_TRY(bl_json_number(item, "tflops", 1e-6, 1e9, &type->tflops));
    BL_TRY(bl_json_number(item, "efficiency", 1e-6, 1, &type->efficiency));
    BL_TRY(read_text(item, "source", type->source, sizeof type->source));
  }
  return BL_OK;
}

static bl_status read_device(bl_json object, bl_cluster *c) {
  int64_t num_bytes;
  BL_TRY(bl_json_keys(object, "name tflops num_bytes memory_bytes memory_gbps efficiency efficiency_source call_us "
                              "spread types source"));
  BL_TRY(read_text(object, "name", c->device, sizeof c->device));
  BL_TRY(bl_json_number(object, "tflops", 1e-6, 1e9, &c->tflops));
  BL_TRY(bl_json_int(object, "num_bytes", 1, 4, &num_bytes));
  BL_TRY(bl_json_number(object, "memory_bytes", 1, 1e18, &c->memory_bytes));
  BL_TRY(bl_json_number(object, "memory_gbps", 1e-6, 1e9, &c->memory_gbps));
  BL_TRY(bl_json_number(object, "efficiency", 1e-6, 1, &c->efficiency));
  BL_TRY(bl_json_number(object, "call_us", 0, 1e6, &c->call_us));
  BL_TRY(bl_json_number_or(object, "spread", 0, 1, &c->spread));
  c->num_bytes = (int32_t)num_bytes;
  snprintf(c->efficiency_source, sizeof c->efficiency_source, "assumed");
  if (bl_json_has(object, "efficiency_source"))
    BL_TRY(read_text(object, "efficiency_source", c->efficiency_source, sizeof c->efficiency_source));
  BL_TRY(read_types(object, c));
  return read_text(object, "source", c->source, sizeof c->source);
}

static bl_status read_cluster(bl_json root, bl_cluster *c) {
  int64_t value;
  bl_json part;
  BL_TRY(bl_json_keys(root, "version name nodes ranks_per_node ranks_per_card device links"));
  BL_TRY(bl_json_int(root, "version", 1, 1, &value));
  BL_TRY(read_text(root, "name", c->name, sizeof c->name));
  BL_TRY(bl_json_int(root, "nodes", 1, 1 << 20, &value));
  c->nodes = (int32_t)value;
  BL_TRY(bl_json_int(root, "ranks_per_node", 1, 1024, &value));
  c->ranks_per_node = (int32_t)value;
  value = 1;
  BL_TRY(bl_json_int_or(root, "ranks_per_card", 1, c->ranks_per_node, &value));
  c->ranks_per_card = (int32_t)value;
  BL_TRY(bl_json_object(root, "device", &part));
  BL_TRY(read_device(part, c));
  BL_TRY(bl_json_object(root, "links", &part));
  BL_TRY(bl_json_keys(part, "intra inter"));
  BL_TRY(read_link(part, "intra", &c->intra, &c->intra_origin));
  return read_link(part, "inter", &c->inter, &c->inter_origin);
}

/* Takes the document, and frees it. */
static bl_status take_cluster(bl_json_doc *doc, bl_json root, bl_cluster *out) {
  memset(out, 0, sizeof *out);
  const bl_status status = read_cluster(root, out);
  bl_json_free(doc);
  return status;
}

bl_status bl_cluster_load(const char *path, bl_cluster *out) {
  bl_json_doc *doc;
  bl_json root;
  BL_TRY(bl_json_load(path, &doc, &root));
  return take_cluster(doc, root, out);
}

bl_status bl_cluster_parse(const char *name, const char *text, uint64_t size, bl_cluster *out) {
  bl_json_doc *doc;
  bl_json root;
  BL_TRY(bl_json_parse(name, text, size, &doc, &root));
  return take_cluster(doc, root, out);
}

bl_status bl_cluster_use_type(bl_cluster *c, const char *name) {
  char known[128] = "";
  memset(&c->matrix, 0, sizeof c->matrix);
  if (!name) return BL_OK;
  for (int32_t i = 0; i < c->n_types; i++) {
    const size_t used = strlen(known);
    if (strcmp(c->types[i].name, name) == 0) c->matrix = c->types[i];
    snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", c->types[i].name);
  }
  if (c->matrix.tflops > 0) return BL_OK;
  return bl_fail(BL_EINPUT, "cluster %s: expected one of its device.types (%s), found %s", c->name,
                 c->n_types ? known : "there are none", name);
}

double bl_cluster_rate(const bl_cluster *c) {
  return (c->matrix.tflops > 0 ? c->matrix.tflops * c->matrix.efficiency : c->tflops * c->efficiency) * 1e6;
}

double bl_cluster_slowest(const bl_cluster *c, double ranks) {
  if (ranks < 2) return 1;
  const double pi = 3.14159265358979323846, root = sqrt(2 * log(ranks));
  const double largest = root - (log(log(ranks)) + log(4 * pi)) / (2 * root);
  return 1 + c->spread * (largest > 0 ? largest : 0);
}

/* -- writing ------------------------------------------------------------------------------------------------------- */

static void write_link(bl_json_writer *w, const char *key, const bl_link *link, const bl_link_origin *origin) {
  bl_json_key(w, key);
  bl_json_begin_object(w);
  bl_json_put_number(w, "gbps", link->gbps / origin->efficiency);
  bl_json_put_number(w, "efficiency", origin->efficiency);
  bl_json_put_number(w, "latency_us", link->latency_us);
  bl_json_put_string(w, "source", origin->source);
  bl_json_end_object(w);
}

static void write_device(bl_json_writer *w, const bl_cluster *c) {
  bl_json_begin_object(w);
  bl_json_put_string(w, "name", c->device);
  bl_json_put_number(w, "tflops", c->tflops);
  bl_json_put_number(w, "num_bytes", c->num_bytes);
  bl_json_put_number(w, "memory_bytes", c->memory_bytes);
  bl_json_put_number(w, "memory_gbps", c->memory_gbps);
  bl_json_put_number(w, "efficiency", c->efficiency);
  bl_json_put_string(w, "efficiency_source", c->efficiency_source);
  bl_json_put_number(w, "call_us", c->call_us);
  bl_json_put_number(w, "spread", c->spread);
  bl_json_put_string(w, "source", c->source);
  bl_json_key(w, "types");
  bl_json_begin_array(w);
  for (int32_t i = 0; i < c->n_types; i++) {
    bl_json_begin_object(w);
    bl_json_put_string(w, "name", c->types[i].name);
    bl_json_put_number(w, "tflops", c->types[i].tflops);
    bl_json_put_number(w, "num_bytes", c->types[i].num_bytes);
    bl_json_put_number(w, "efficiency", c->types[i].efficiency);
    bl_json_put_string(w, "source", c->types[i].source);
    bl_json_end_object(w);
  }
  bl_json_end_array(w);
  bl_json_end_object(w);
}

bl_status bl_cluster_save(const char *path, const bl_cluster *c) {
  bl_output *output;
  bl_json_writer w;
  BL_TRY(bl_output_open(path, &output));
  bl_json_writer_init(&w, bl_output_stream(output), true);
  bl_json_begin_object(&w);
  bl_json_put_number(&w, "version", 1);
  bl_json_put_string(&w, "name", c->name);
  bl_json_put_number(&w, "nodes", c->nodes);
  bl_json_put_number(&w, "ranks_per_node", c->ranks_per_node);
  if (c->ranks_per_card > 1) bl_json_put_number(&w, "ranks_per_card", c->ranks_per_card);
  bl_json_key(&w, "device");
  write_device(&w, c);
  bl_json_key(&w, "links");
  bl_json_begin_object(&w);
  write_link(&w, "intra", &c->intra, &c->intra_origin);
  write_link(&w, "inter", &c->inter, &c->inter_origin);
  bl_json_end_object(&w);
  bl_json_end_object(&w);
  bl_json_newline(&w);
  return bl_output_commit(output);
}

/* -- curves -------------------------------------------------------------------------------------------------------- */

typedef struct maker {
  const bl_cluster *c;
  bl_profile *out;
  bl_status status;
} maker;

static void point(maker *m, bl_curve_kind kind, double x, double us) {
  if (m->status == BL_OK) m->status = bl_curve_add(&m->out->curves[kind], x, us);
}

static double bytes_us(const maker *m, double bytes) { return bytes / m->c->memory_gbps * 1e-3; }

/* call_us plus, a unit, the longer of arithmetic and memory traffic. */
static void per_unit(maker *m, bl_curve_kind kind, double flop, double bytes) {
  const double far = 1e6, arithmetic = flop / (m->c->tflops * m->c->efficiency) * 1e-6, memory = bytes_us(m, bytes);
  const double us = arithmetic > memory ? arithmetic : memory;
  point(m, kind, 1, m->c->call_us + us);
  point(m, kind, far, m->c->call_us + far * us);
}

/* Rows of one expert: reading its weights takes what it takes, however few rows. */
static void expert(maker *m, bl_curve_kind kind, double flop, double weight_bytes) {
  const double row_us = flop / (m->c->tflops * m->c->efficiency) * 1e-6, least_us = bytes_us(m, weight_bytes);
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
  const double num = m->c->num_bytes, inner = (double)model->state_heads * model->state_head_width;
  const double both = 2.0 * model->state_groups * model->state_width;
  const double states = 2 * 4 * inner * model->state_width / model->state_chunk;
  const double bytes = num * (5.0 * model->hidden + 7 * inner + 3 * both) + states;
  const double flop = 2 * (double)(bl_model_part_macs(model, BL_PART_STATE_SPACE) + bl_model_scan_macs(model));
  per_unit(m, BL_CURVE_STATE_SPACE_FWD, flop, bytes);
  per_unit(m, BL_CURVE_STATE_SPACE_BWD, 2 * flop, 2 * bytes);
}

static void dense_curves(maker *m, const bl_model *model) {
  const double num = m->c->num_bytes, H = model->hidden;
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

static void message_curves(maker *m, int32_t ranks) {
  const bl_cluster *c = m->c;
  const bool spans = ranks > c->ranks_per_node;
  const bl_link *link = spans ? &c->inter : &c->intra;
  const double P = ranks, off_node = spans ? (P - c->ranks_per_node) / P : 0;
  /* An exchange sends an equal part to each rank: over both kinds of link at once, the slower one counts. */
  const double inside = ((P - 1) / P - off_node) / c->intra.gbps, outside = off_node / c->inter.gbps;
  message(m, BL_CURVE_EXCHANGE, link->latency_us, inside > outside ? inside : outside, 1);
  message(m, BL_CURVE_GATHER_HOST, 2 * link->latency_us, 1, link->gbps);
  message(m, BL_CURVE_TRANSFER, link->latency_us, 1, link->gbps);
  message(m, BL_CURVE_ACCUMULATE, link->latency_us, 1, link->gbps);
  message(m, BL_CURVE_ALL_REDUCE, 2 * link->latency_us, 2 * (P - 1) / P, link->gbps); /* a ring */
}

bl_status bl_cluster_profile(const bl_cluster *c, const bl_model *model, int32_t ranks, bl_profile *out) {
  maker m = {c, out, BL_OK};
  if ((int64_t)c->nodes * c->ranks_per_node < ranks)
    return bl_fail(BL_EINPUT, "cluster %s has %lld ranks, fewer than %d", c->name,
                   (long long)c->nodes * c->ranks_per_node, ranks);
  memset(out, 0, sizeof *out);
  snprintf(out->backend, sizeof out->backend, "data sheet");
  snprintf(out->transport, sizeof out->transport, "data sheet");
  snprintf(out->device, sizeof out->device, "%s", c->device);
  out->ranks = ranks;
  out->overlap = true;
  out->num_bytes = c->num_bytes;
  out->sgemm_gflops = c->tflops * c->efficiency * 1e3;
  out->triad_gbps = c->memory_gbps;
  bl_profile_shape_of(model, &out->shape);
  dense_curves(&m, model);
  if (model->experts > 0) {
    const double macs = (double)bl_model_part_macs(model, BL_PART_EXPERT), weights = macs * c->num_bytes;
    expert(&m, BL_CURVE_EXPERT_FWD, 2 * macs, weights);
    expert(&m, BL_CURVE_EXPERT_DX, 2 * macs, weights);
    expert(&m, BL_CURVE_EXPERT_DW, 2 * macs, 8 * macs); /* fp32 gradients are read and written */
  }
  per_unit(&m, BL_CURVE_ZERO_GRADS, 0, 4);
  per_unit(&m, BL_CURVE_SQUARE_GRADS, 0, 4);
  per_unit(&m, BL_CURVE_OPTIMIZER, 0, 28 + c->num_bytes);
  point(&m, BL_CURVE_CHOOSE_HOSTS, 1, host_decision_us);
  point(&m, BL_CURVE_SOLVE_SHARES, 1, host_decision_us);
  message_curves(&m, ranks);
  return m.status;
}
