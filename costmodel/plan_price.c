#include "costmodel/plan_price.h"
#include <stdio.h>
#include <string.h>

const char *const bl_place_term_names[BL_PLACE_TERM_COUNT] = {
#define X(name, text, what) text,
    BL_PLACE_TERM_LIST(X)
#undef X
};

const char *const bl_place_term_texts[BL_PLACE_TERM_COUNT] = {
#define X(name, text, what) what,
    BL_PLACE_TERM_LIST(X)
#undef X
};

enum { MAX_LEVEL = 8 };

static bl_status read_port(bl_json json, const char *key, int32_t ranks, bl_place_port *port) {
  bl_json list;
  int64_t n, value;
  const char *direction;
  if (!bl_json_has(json, key)) return BL_OK;
  BL_TRY(bl_json_array(json, key, 3, 3, &list, &n));
  bl_json item = bl_json_first(list);
  BL_TRY(bl_json_as_int(item, 1, MAX_LEVEL, &value));
  port->level = (int32_t)value;
  item = bl_json_next(item);
  BL_TRY(bl_json_as_int(item, 0, ranks - 1, &value));
  port->rank = (int32_t)value;
  item = bl_json_next(item);
  BL_TRY(bl_json_as_string(item, &direction));
  port->in = strcmp(direction, "in") == 0;
  if (port->in || strcmp(direction, "out") == 0) return BL_OK;
  return bl_json_fail(item, "expected \"in\" or \"out\", found \"%s\"", direction);
}

bl_status bl_layer_price_read(bl_json json, int32_t ranks, bl_layer_price *out) {
  const char *proof, *reason = "";
  int64_t rank;
  char key[32];
  memset(out, 0, sizeof *out);
  BL_TRY(bl_json_keys(json, "compute_us exchange_us fill_us reduce_us move_us bound_us proof reason slowest_rank "
                            "exchange_port fill_port reduce_port move_port"));
  for (int t = 0; t < BL_PLACE_TERM_COUNT; ++t) {
    snprintf(key, sizeof key, "%s_us", bl_place_term_names[t]);
    BL_TRY(bl_json_number(json, key, 0, 1e18, &out->us[t]));
    out->total_us += out->us[t];
    snprintf(key, sizeof key, "%s_port", bl_place_term_names[t]);
    BL_TRY(read_port(json, key, ranks, &out->port[t]));
  }
  BL_TRY(bl_json_number(json, "bound_us", 0, 1e18, &out->bound_us));
  BL_TRY(bl_json_string(json, "proof", &proof));
  if (strlen(proof) >= sizeof out->proof)
    return bl_json_fail(json, "the proof's name has %zu characters, expected fewer than %zu", strlen(proof),
                        sizeof out->proof);
  snprintf(out->proof, sizeof out->proof, "%s", proof);
  if (bl_json_has(json, "reason")) BL_TRY(bl_json_string(json, "reason", &reason));
  snprintf(out->reason, sizeof out->reason, "%s", reason);
  BL_TRY(bl_json_int(json, "slowest_rank", 0, ranks - 1, &rank));
  out->slowest_rank = (int32_t)rank;
  return BL_OK;
}

void bl_layer_price_write(bl_json_writer *w, const bl_layer_price *price) {
  char key[32];
  bl_json_begin_object(w);
  for (int t = 0; t < BL_PLACE_TERM_COUNT; ++t) {
    snprintf(key, sizeof key, "%s_us", bl_place_term_names[t]);
    bl_json_put_number(w, key, price->us[t]);
  }
  bl_json_put_number(w, "bound_us", price->bound_us);
  bl_json_put_string(w, "proof", price->proof);
  if (price->reason[0]) bl_json_put_string(w, "reason", price->reason);
  bl_json_put_int(w, "slowest_rank", price->slowest_rank);
  for (int t = 0; t < BL_PLACE_TERM_COUNT; ++t) {
    if (price->port[t].level == 0) continue;
    snprintf(key, sizeof key, "%s_port", bl_place_term_names[t]);
    bl_json_key(w, key);
    bl_json_begin_flat_array(w);
    bl_json_write_int(w, price->port[t].level);
    bl_json_write_int(w, price->port[t].rank);
    bl_json_write_string(w, price->port[t].in ? "in" : "out");
    bl_json_end_array(w);
  }
  bl_json_end_object(w);
}
