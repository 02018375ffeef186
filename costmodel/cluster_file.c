/* cluster_file.c - cluster files. */
#include "base/file.h"
#include "base/json.h"
#include "costmodel/cluster.h"
#include <stdio.h>
#include <string.h>

static bl_status read_link(bl_json object, const char *keys, bl_link *out, bl_link_origin *origin) {
  origin->efficiency = 1;
  BL_TRY(bl_json_keys(object, keys));
  BL_TRY(bl_json_number(object, "gbps", 1e-6, 1e9, &out->gbps));
  BL_TRY(bl_json_number_or(object, "efficiency", 1e-6, 1, &origin->efficiency));
  out->gbps *= origin->efficiency;
  BL_TRY(bl_json_number(object, "latency_us", 0, 1e9, &out->latency_us));
  return bl_json_text(object, "source", origin->source, sizeof origin->source);
}

/* Those of the keys that are there, all of them where `required`. */
static bl_status read_links(bl_json object, bool required, bl_links *out) {
  static const char *const keys = "gbps efficiency latency_us source";
  bl_json link;
  if (required || bl_json_has(object, "intra")) {
    BL_TRY(bl_json_object(object, "intra", &link));
    BL_TRY(read_link(link, keys, &out->intra, &out->intra_origin));
  }
  if (required || bl_json_has(object, "inter")) {
    BL_TRY(bl_json_object(object, "inter", &link));
    BL_TRY(read_link(link, keys, &out->inter, &out->inter_origin));
  }
  return BL_OK;
}

static bl_status read_racks(bl_json links, bl_racks *out) {
  bl_json object;
  int64_t nodes;
  if (!bl_json_has(links, "racks")) return BL_OK;
  BL_TRY(bl_json_object(links, "racks", &object));
  BL_TRY(read_link(object, "nodes gbps efficiency latency_us source", &out->link, &out->origin));
  BL_TRY(bl_json_int(object, "nodes", 1, 1 << 20, &nodes));
  out->nodes = (int32_t)nodes;
  return BL_OK;
}

static bl_status read_types(bl_json object, bl_device *d) {
  bl_json list;
  int64_t n;
  if (!bl_json_has(object, "types")) return BL_OK;
  BL_TRY(bl_json_array(object, "types", 0, BL_CLUSTER_MAX_TYPES, &list, &n));
  for (bl_json item = bl_json_first(list); !bl_json_is_null(item); item = bl_json_next(item)) {
    bl_compute_type *type = &d->types[d->n_types++];
    int64_t num_bytes = 1;
    BL_TRY(bl_json_keys(item, "name tflops num_bytes efficiency source"));
    BL_TRY(bl_json_int_or(item, "num_bytes", 1, 4, &num_bytes));
    type->num_bytes = (int32_t)num_bytes;
    BL_TRY(bl_json_text(item, "name", type->name, sizeof type->name));
    BL_TRY(bl_json_number(item, "tflops", 1e-6, 1e9, &type->tflops));
    BL_TRY(bl_json_number(item, "efficiency", 1e-6, 1, &type->efficiency));
    BL_TRY(bl_json_text(item, "source", type->source, sizeof type->source));
  }
  return BL_OK;
}

static bl_status read_device(bl_json object, bl_device *d) {
  int64_t num_bytes;
  BL_TRY(bl_json_keys(object, "name tflops num_bytes memory_bytes memory_gbps efficiency efficiency_source call_us "
                              "spread types source"));
  BL_TRY(bl_json_text(object, "name", d->name, sizeof d->name));
  BL_TRY(bl_json_number(object, "tflops", 1e-6, 1e9, &d->tflops));
  BL_TRY(bl_json_int(object, "num_bytes", 1, 4, &num_bytes));
  BL_TRY(bl_json_number(object, "memory_bytes", 1, 1e18, &d->memory_bytes));
  BL_TRY(bl_json_number(object, "memory_gbps", 1e-6, 1e9, &d->memory_gbps));
  BL_TRY(bl_json_number(object, "efficiency", 1e-6, 1, &d->efficiency));
  BL_TRY(bl_json_number(object, "call_us", 0, 1e6, &d->call_us));
  BL_TRY(bl_json_number_or(object, "spread", 0, 1, &d->spread));
  d->num_bytes = (int32_t)num_bytes;
  snprintf(d->efficiency_source, sizeof d->efficiency_source, "assumed");
  if (bl_json_has(object, "efficiency_source"))
    BL_TRY(bl_json_text(object, "efficiency_source", d->efficiency_source, sizeof d->efficiency_source));
  BL_TRY(read_types(object, d));
  return bl_json_text(object, "source", d->source, sizeof d->source);
}

static bl_status read_size(bl_json object, bl_node_group *out) {
  int64_t value;
  BL_TRY(bl_json_int(object, "nodes", 1, 1 << 20, &value));
  out->nodes = (int32_t)value;
  BL_TRY(bl_json_int(object, "ranks_per_node", 1, 1024, &value));
  out->ranks_per_node = (int32_t)value;
  return BL_OK;
}

/* `out` has the file's device and links already. */
static bl_status read_group(bl_json object, bl_node_group *out) {
  const int32_t num_bytes = out->device.num_bytes;
  bl_json part;
  BL_TRY(bl_json_keys(object, "nodes ranks_per_node device links"));
  BL_TRY(read_size(object, out));
  if (bl_json_has(object, "links")) {
    BL_TRY(bl_json_object(object, "links", &part));
    BL_TRY(bl_json_keys(part, "intra inter"));
    BL_TRY(read_links(part, false, &out->links));
  }
  if (!bl_json_has(object, "device")) return BL_OK;
  memset(&out->device, 0, sizeof out->device);
  BL_TRY(bl_json_object(object, "device", &part));
  BL_TRY(read_device(part, &out->device));
  if (out->device.num_bytes == num_bytes) return BL_OK;
  BL_TRY(bl_json_member(part, "num_bytes", &part));
  return bl_json_fail(part, "expected %d, as of the file's device, found %d", num_bytes, out->device.num_bytes);
}

static bl_status read_groups(bl_json root, const bl_node_group *common, bl_cluster *c) {
  bl_json list;
  int64_t n;
  if (!bl_json_has(root, "node_groups")) {
    c->node_group[0] = *common;
    c->n_node_groups = 1;
    return read_size(root, &c->node_group[0]);
  }
  if (bl_json_has(root, "nodes") || bl_json_has(root, "ranks_per_node"))
    return bl_json_fail(root, "expected nodes and ranks_per_node, or node_groups, found both");
  BL_TRY(bl_json_array(root, "node_groups", 1, BL_CLUSTER_MAX_NODE_GROUPS, &list, &n));
  for (bl_json item = bl_json_first(list); !bl_json_is_null(item); item = bl_json_next(item)) {
    bl_node_group *group = &c->node_group[c->n_node_groups++];
    *group = *common;
    BL_TRY(read_group(item, group));
  }
  const int64_t ranks = bl_cluster_ranks(c), most = 1 << 30;
  if (ranks > most)
    return bl_json_fail(list, "expected at most %lld ranks in all, found %lld", (long long)most, (long long)ranks);
  return BL_OK;
}

/* Ranks that share a card are of one node. */
static bl_status read_cards(bl_json root, bl_cluster *c) {
  int64_t value = 1;
  bl_json member;
  BL_TRY(bl_json_int_or(root, "ranks_per_card", 1, bl_cluster_widest_node(c), &value));
  c->ranks_per_card = (int32_t)value;
  for (int32_t i = 0; c->n_node_groups > 1 && i < c->n_node_groups; i++) {
    const int32_t ranks = c->node_group[i].ranks_per_node;
    if (ranks % value == 0) continue;
    BL_TRY(bl_json_member(root, "ranks_per_card", &member));
    return bl_json_fail(member, "expected a divisor of every node's ranks, found %d, and %d in node_groups[%d]",
                        (int)value, ranks, i);
  }
  return BL_OK;
}

static bl_status read_cluster(bl_json root, bl_cluster *c) {
  int64_t version;
  bl_json part;
  bl_node_group common = {0};
  BL_TRY(bl_json_keys(root, "version name nodes ranks_per_node ranks_per_card node_groups device links"));
  BL_TRY(bl_json_int(root, "version", 1, 1, &version));
  BL_TRY(bl_json_text(root, "name", c->name, sizeof c->name));
  BL_TRY(bl_json_object(root, "device", &part));
  BL_TRY(read_device(part, &common.device));
  BL_TRY(bl_json_object(root, "links", &part));
  BL_TRY(bl_json_keys(part, "intra inter racks"));
  BL_TRY(read_links(part, true, &common.links));
  BL_TRY(read_racks(part, &c->racks));
  BL_TRY(read_groups(root, &common, c));
  return read_cards(root, c);
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

/* -- writing ------------------------------------------------------------------------------------------------------- */

static void write_link(bl_json_writer *w, const bl_link *link, const bl_link_origin *origin) {
  bl_json_put_number(w, "gbps", link->gbps / origin->efficiency);
  bl_json_put_number(w, "efficiency", origin->efficiency);
  bl_json_put_number(w, "latency_us", link->latency_us);
  bl_json_put_string(w, "source", origin->source);
}

static void write_links(bl_json_writer *w, const bl_links *links) {
  bl_json_key(w, "intra");
  bl_json_begin_object(w);
  write_link(w, &links->intra, &links->intra_origin);
  bl_json_end_object(w);
  bl_json_key(w, "inter");
  bl_json_begin_object(w);
  write_link(w, &links->inter, &links->inter_origin);
  bl_json_end_object(w);
}

static void write_racks(bl_json_writer *w, const bl_racks *racks) {
  bl_json_key(w, "racks");
  bl_json_begin_object(w);
  bl_json_put_number(w, "nodes", racks->nodes);
  write_link(w, &racks->link, &racks->origin);
  bl_json_end_object(w);
}

static void write_device(bl_json_writer *w, const bl_device *d) {
  bl_json_begin_object(w);
  bl_json_put_string(w, "name", d->name);
  bl_json_put_number(w, "tflops", d->tflops);
  bl_json_put_number(w, "num_bytes", d->num_bytes);
  bl_json_put_number(w, "memory_bytes", d->memory_bytes);
  bl_json_put_number(w, "memory_gbps", d->memory_gbps);
  bl_json_put_number(w, "efficiency", d->efficiency);
  bl_json_put_string(w, "efficiency_source", d->efficiency_source);
  bl_json_put_number(w, "call_us", d->call_us);
  bl_json_put_number(w, "spread", d->spread);
  bl_json_put_string(w, "source", d->source);
  bl_json_key(w, "types");
  bl_json_begin_array(w);
  for (int32_t i = 0; i < d->n_types; i++) {
    bl_json_begin_object(w);
    bl_json_put_string(w, "name", d->types[i].name);
    bl_json_put_number(w, "tflops", d->types[i].tflops);
    bl_json_put_number(w, "num_bytes", d->types[i].num_bytes);
    bl_json_put_number(w, "efficiency", d->types[i].efficiency);
    bl_json_put_string(w, "source", d->types[i].source);
    bl_json_end_object(w);
  }
  bl_json_end_array(w);
  bl_json_end_object(w);
}

static void write_size(bl_json_writer *w, const bl_node_group *group) {
  bl_json_put_number(w, "nodes", group->nodes);
  bl_json_put_number(w, "ranks_per_node", group->ranks_per_node);
}

/* Devices and links are written where they differ from the first group's, which are the file's. */
static void write_groups(bl_json_writer *w, const bl_cluster *c) {
  const bl_node_group *common = &c->node_group[0];
  bl_json_key(w, "node_groups");
  bl_json_begin_array(w);
  for (int32_t i = 0; i < c->n_node_groups; i++) {
    const bl_node_group *group = &c->node_group[i];
    bl_json_begin_object(w);
    write_size(w, group);
    if (memcmp(&group->device, &common->device, sizeof common->device) != 0) {
      bl_json_key(w, "device");
      write_device(w, &group->device);
    }
    if (memcmp(&group->links, &common->links, sizeof common->links) != 0) {
      bl_json_key(w, "links");
      bl_json_begin_object(w);
      write_links(w, &group->links);
      bl_json_end_object(w);
    }
    bl_json_end_object(w);
  }
  bl_json_end_array(w);
}

bl_status bl_cluster_save(const char *path, const bl_cluster *c) {
  bl_output *output;
  bl_json_writer w;
  BL_TRY(bl_output_open(path, &output));
  bl_json_writer_init(&w, bl_output_stream(output), true);
  bl_json_begin_object(&w);
  bl_json_put_number(&w, "version", 1);
  bl_json_put_string(&w, "name", c->name);
  if (c->n_node_groups == 1)
    write_size(&w, &c->node_group[0]);
  else
    write_groups(&w, c);
  if (c->ranks_per_card > 1) bl_json_put_number(&w, "ranks_per_card", c->ranks_per_card);
  bl_json_key(&w, "device");
  write_device(&w, &c->node_group[0].device);
  bl_json_key(&w, "links");
  bl_json_begin_object(&w);
  write_links(&w, &c->node_group[0].links);
  if (c->racks.nodes > 0) write_racks(&w, &c->racks);
  bl_json_end_object(&w);
  bl_json_end_object(&w);
  bl_json_newline(&w);
  return bl_output_commit(output);
}
