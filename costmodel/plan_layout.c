#include "costmodel/plan_layout.h"
#include "base/memory.h"
#include "costmodel/footprint.h"
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum { MAX_LAYERS = 4096, MAX_SIZE = 1 << 20, MAX_SEQUENCE = 1 << 24, MAX_PIECES = 64, MAX_COPY_SLOTS = 65536 };

/* The integers; those that may be left out, and are where they are as if left out, come last. */
typedef struct size {
  const char *key;
  size_t at;
  int32_t min, max, left_out;
} size;

static const size wanted[] = {{"tp", offsetof(bl_layout, tp), 1, MAX_SIZE, 0},
                              {"cp", offsetof(bl_layout, cp), 1, MAX_SIZE, 0},
                              {"dp", offsetof(bl_layout, dp), 1, MAX_SIZE, 0},
                              {"pp", offsetof(bl_layout, pp), 1, MAX_SIZE, 0},
                              {"vp", offsetof(bl_layout, vp), 1, MAX_SIZE, 0},
                              {"etp", offsetof(bl_layout, etp), 1, MAX_SIZE, 0},
                              {"ep", offsetof(bl_layout, ep), 1, MAX_SIZE, 0},
                              {"edp", offsetof(bl_layout, edp), 1, MAX_SIZE, 0},
                              {"zero", offsetof(bl_layout, zero), 0, 3, 0},
                              {"micro_batch", offsetof(bl_layout, micro_batch), 1, MAX_SIZE, 0},
                              {"micro_batches", offsetof(bl_layout, micro_batches), 1, MAX_SIZE, 0}};
static const size optional[] = {{"shard", offsetof(bl_layout, shard), 1, MAX_SIZE, 0},
                                {"copy_slots", offsetof(bl_layout, copy_slots), 0, MAX_COPY_SLOTS, 0},
                                {"sequence", offsetof(bl_layout, sequence), 1, MAX_SEQUENCE, 0},
                                {"ranks_per_node", offsetof(bl_layout, ranks_per_node), 1, MAX_SIZE, 0},
                                {"pieces", offsetof(bl_layout, pieces), 1, MAX_PIECES, 1}};

enum { WANTED = sizeof wanted / sizeof *wanted, OPTIONAL = sizeof optional / sizeof *optional };

static int32_t *member(bl_layout *layout, const size *s) { return (int32_t *)(void *)((char *)layout + s->at); }
static int32_t value(const bl_layout *layout, const size *s) {
  return *(const int32_t *)(const void *)((const char *)layout + s->at);
}

static const char *const overlap_names[] = {"none", "exchange"}, *const dispatch_names[] = {"choices", "nodes"},
                         *const gradient_names[] = {"fp32", "bf16"};

/* -- reading ------------------------------------------------------------------------------------------------------- */

/* One of n names, the first where the key is left out. */
static bl_status read_name(bl_json json, const char *key, const char *const *names, int32_t n, int32_t *out) {
  const char *text;
  char known[128] = "";
  *out = 0;
  if (!bl_json_has(json, key)) return BL_OK;
  BL_TRY(bl_json_string(json, key, &text));
  for (*out = 0; *out < n; ++*out)
    if (strcmp(text, names[*out]) == 0) return BL_OK;
  for (int32_t i = 0; i < n; ++i) {
    const size_t used = strlen(known);
    snprintf(known + used, sizeof known - used, "%s%s", i == 0 ? "" : i < n - 1 ? ", " : " or ", names[i]);
  }
  return bl_json_fail(json, "%s is \"%s\": expected %s", key, text, known);
}

static bl_status read_type(bl_json json, bl_layout *layout) {
  const char *text;
  if (!bl_json_has(json, "type")) return BL_OK;
  BL_TRY(bl_json_string(json, "type", &text));
  if (*text == '\0' || strlen(text) >= sizeof layout->type)
    return bl_json_fail(json, "type is \"%.32s\": expected the name of a compute type, of 1 to %zu characters", text,
                        sizeof layout->type - 1);
  snprintf(layout->type, sizeof layout->type, "%s", text);
  return BL_OK;
}

static bl_status read_names(bl_json json, bl_layout *layout) {
  int32_t overlap, nodes, gradients;
  BL_TRY(read_name(json, "recompute", bl_recompute_names, BL_RECOMPUTE_COUNT, &layout->recompute));
  BL_TRY(read_name(json, "overlap", overlap_names, 2, &overlap));
  BL_TRY(read_name(json, "dispatch", dispatch_names, 2, &nodes));
  BL_TRY(read_name(json, "gradients", gradient_names, 2, &gradients));
  layout->overlap = overlap;
  layout->node_dispatch = nodes;
  layout->gradient_bytes = gradients ? 2 : 4;
  return read_type(json, layout);
}

static bl_status read_stages(bl_json layout_json, bl_layout *layout) {
  bl_json stages;
  int64_t n, total = 0, count;
  BL_TRY(bl_json_array(layout_json, "stages", 1, MAX_LAYERS, &stages, &n));
  for (bl_json stage = bl_json_first(stages); !bl_json_is_null(stage); stage = bl_json_next(stage)) {
    BL_TRY(bl_json_as_array(stage, 0, MAX_LAYERS, &count));
    total += count;
  }
  BL_TRY(bl_new(&layout->stage_first, (size_t)n + 1, sizeof *layout->stage_first, "stages"));
  BL_TRY(bl_new(&layout->stage_layers, (size_t)total, sizeof *layout->stage_layers, "stages"));
  layout->n_stages = (int32_t)n;
  int32_t s = 0, i = 0;
  for (bl_json stage = bl_json_first(stages); !bl_json_is_null(stage); stage = bl_json_next(stage)) {
    for (bl_json layer = bl_json_first(stage); !bl_json_is_null(layer); layer = bl_json_next(layer)) {
      BL_TRY(bl_json_as_int(layer, 0, MAX_LAYERS - 1, &count));
      layout->stage_layers[i++] = (int32_t)count;
    }
    layout->stage_first[++s] = i;
  }
  return BL_OK;
}

bl_status bl_layout_read(bl_json json, bl_layout *layout) {
  BL_TRY(bl_json_keys(json,
                      "tp cp dp pp vp etp ep edp zero micro_batch micro_batches recompute pieces overlap dispatch "
                      "shard gradients copy_slots type sequence ranks_per_node stages"));
  for (int i = 0; i < WANTED; i++) {
    int64_t n;
    BL_TRY(bl_json_int(json, wanted[i].key, wanted[i].min, wanted[i].max, &n));
    *member(layout, &wanted[i]) = (int32_t)n;
  }
  for (int i = 0; i < OPTIONAL; i++) {
    int64_t n = optional[i].left_out;
    BL_TRY(bl_json_int_or(json, optional[i].key, optional[i].min, optional[i].max, &n));
    *member(layout, &optional[i]) = (int32_t)n;
  }
  BL_TRY(read_names(json, layout));
  return read_stages(json, layout);
}

/* -- writing ------------------------------------------------------------------------------------------------------- */

void bl_layout_write(bl_json_writer *w, const bl_layout *layout) {
  bl_json_begin_object(w);
  for (int i = 0; i < WANTED; i++) bl_json_put_int(w, wanted[i].key, value(layout, &wanted[i]));
  for (int i = 0; i < OPTIONAL; i++)
    if (value(layout, &optional[i]) != optional[i].left_out)
      bl_json_put_int(w, optional[i].key, value(layout, &optional[i]));
  bl_json_put_string(w, "recompute", bl_recompute_names[layout->recompute]);
  bl_json_put_string(w, "overlap", overlap_names[layout->overlap]);
  bl_json_put_string(w, "dispatch", dispatch_names[layout->node_dispatch]);
  if (layout->gradient_bytes == 2) bl_json_put_string(w, "gradients", gradient_names[1]);
  if (layout->type[0]) bl_json_put_string(w, "type", layout->type);
  bl_json_key(w, "stages");
  bl_json_begin_array(w);
  for (int32_t s = 0; s < layout->n_stages; ++s) {
    bl_json_begin_flat_array(w);
    for (int32_t i = layout->stage_first[s]; i < layout->stage_first[s + 1]; ++i)
      bl_json_write_int(w, layout->stage_layers[i]);
    bl_json_end_array(w);
  }
  bl_json_end_array(w);
  bl_json_end_object(w);
}
