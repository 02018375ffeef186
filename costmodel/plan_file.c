/* The plan file: strict reading, tidy and atomic writing. */
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "costmodel/plan_layout.h"
#include <stdio.h>
#include <string.h>

enum { MAX_RANKS = 65536, MAX_EXPERTS = 65536, MAX_LAYERS = 4096, MAX_SIZE = 1 << 20 };

static bl_status read_int(bl_json object, const char *key, int64_t min, int64_t max, int32_t *out) {
  int64_t value;
  BL_TRY(bl_json_int(object, key, min, max, &value));
  *out = (int32_t)value;
  return BL_OK;
}

static bl_status read_item(bl_json item, int64_t min, int64_t max, int32_t *out) {
  int64_t value;
  BL_TRY(bl_json_as_int(item, min, max, &value));
  *out = (int32_t)value;
  return BL_OK;
}

static bl_status read_slots(bl_json json, bl_placement *placement) {
  bl_json slots;
  BL_TRY(bl_json_member(json, "slots", &slots));
  if (!bl_json_value_is_array(slots)) {
    int32_t each;
    BL_TRY(read_item(slots, 1, MAX_EXPERTS, &each));
    for (int32_t r = 0; r < placement->ranks; ++r) placement->slots[r] = each;
    return BL_OK;
  }
  int64_t n;
  BL_TRY(bl_json_as_array(slots, placement->ranks, placement->ranks, &n));
  bl_json item = bl_json_first(slots);
  for (int32_t r = 0; r < placement->ranks; ++r, item = bl_json_next(item))
    BL_TRY(read_item(item, 0, MAX_EXPERTS, &placement->slots[r]));
  return BL_OK;
}

static bl_status read_copies(bl_json json, const bl_placement *placement, bl_layer_placement *layer) {
  bl_json copies;
  int64_t n, fed = 0;
  BL_TRY(bl_json_array(json, "copies", 0, (int64_t)placement->ranks * placement->experts, &copies, &n));
  BL_TRY(bl_new(&layer->copies, (size_t)n, sizeof *layer->copies, "copies"));
  for (bl_json item = bl_json_first(copies); !bl_json_is_null(item); item = bl_json_next(item)) {
    bl_copy *copy = &layer->copies[layer->n_copies++];
    BL_TRY(bl_json_keys(item, "expert rank share from"));
    BL_TRY(read_int(item, "expert", 0, placement->experts - 1, &copy->expert));
    BL_TRY(read_int(item, "rank", 0, placement->ranks - 1, &copy->rank));
    BL_TRY(bl_json_number(item, "share", 1e-12, 1, &copy->share));
    if (!bl_json_has(item, "from")) continue;
    if (!layer->feeder) BL_TRY(bl_new(&layer->feeder, (size_t)n, sizeof *layer->feeder, "copies"));
    BL_TRY(read_int(item, "from", 0, placement->ranks - 1, &layer->feeder[layer->n_copies - 1]));
    ++fed;
  }
  if (layer->feeder && fed < n)
    return bl_json_fail(copies, "%lld of %lld copies say who fills them: expected all, or none", (long long)fed,
                        (long long)n);
  return BL_OK;
}

static bl_status read_proof(bl_json layer, bl_plan_proof *proof) {
  bl_json json;
  if (!bl_json_has(layer, "proved")) return BL_OK;
  BL_TRY(bl_json_object(layer, "proved", &json));
  BL_TRY(bl_json_keys(json, "within copies moves move_price price bound gap proof solver seconds reason"));
  proof->given = true;
  proof->copies = -1;
  BL_TRY(bl_json_number(json, "within", 1, 1e9, &proof->within));
  if (bl_json_has(json, "copies")) {
    BL_TRY(read_int(json, "copies", 0, MAX_SIZE, &proof->copies));
    BL_TRY(read_int(json, "moves", 0, MAX_EXPERTS, &proof->moves));
    BL_TRY(bl_json_number(json, "price", 0, 1e12, &proof->price));
  }
  BL_TRY(bl_json_number(json, "move_price", 0, 1e9, &proof->move_price));
  BL_TRY(bl_json_number(json, "bound", 0, 1e12, &proof->bound));
  double gap = 0; /* price - bound, for readers of the file */
  BL_TRY(bl_json_number_or(json, "gap", -1e-6, 1e12, &gap));
  BL_TRY(bl_json_text(json, "proof", proof->proof, sizeof proof->proof));
  BL_TRY(bl_json_text(json, "solver", proof->solver, sizeof proof->solver));
  BL_TRY(bl_json_number(json, "seconds", 0, 1e9, &proof->seconds));
  return bl_json_text_or(json, "reason", proof->reason, sizeof proof->reason);
}

static bl_status read_layer(bl_json json, bl_placement *placement, int32_t index) {
  bl_layer_placement *layer = &placement->layer[index];
  layer->proof = "";
  bl_json home;
  int64_t n;
  BL_TRY(bl_json_keys(json, "layer home copies imbalance bound proved price"));
  BL_TRY(read_int(json, "layer", 0, MAX_LAYERS - 1, &layer->layer));
  if (index > 0 && layer->layer <= layer[-1].layer)
    return bl_json_fail(json, "layer %d follows layer %d: expected ascending layers", layer->layer, layer[-1].layer);
  BL_TRY(bl_json_array(json, "home", 1, MAX_EXPERTS, &home, &n));
  if (placement->experts == 0) placement->experts = (int32_t)n;
  if (n != placement->experts)
    return bl_json_fail(home, "expected %d homes as in the layers before, found %lld", placement->experts,
                        (long long)n);
  BL_TRY(bl_new(&layer->home, (size_t)n, sizeof *layer->home, "homes"));
  int32_t e = 0;
  for (bl_json item = bl_json_first(home); !bl_json_is_null(item); item = bl_json_next(item))
    BL_TRY(read_item(item, 0, placement->ranks - 1, &layer->home[e++]));
  BL_TRY(bl_json_number(json, "imbalance", 1 - 1e-9, 1e9, &layer->imbalance));
  BL_TRY(bl_json_number(json, "bound", 1 - 1e-9, 1e9, &layer->bound));
  BL_TRY(read_proof(json, &layer->proved));
  if (bl_json_has(json, "price")) {
    bl_json price;
    BL_TRY(bl_json_object(json, "price", &price));
    BL_TRY(bl_new(&layer->price, 1, sizeof *layer->price, "a price"));
    BL_TRY(bl_layer_price_read(price, placement->ranks, layer->price));
  }
  return read_copies(json, placement, layer);
}

static bl_status read_split(bl_json json, bl_placement *placement) {
  const char *split;
  if (!bl_json_has(json, "split")) return BL_OK;
  BL_TRY(bl_json_string(json, "split", &split));
  placement->even_split = strcmp(split, "even") == 0;
  return placement->even_split ? BL_OK : bl_json_fail(json, "split is \"%s\": expected \"even\", or no split", split);
}

static bl_status read_placement(bl_json json, bl_placement *placement) {
  bl_json layers;
  int64_t n;
  int32_t ranks;
  BL_TRY(bl_json_keys(json, "ranks slots split layers"));
  BL_TRY(read_int(json, "ranks", 1, MAX_RANKS, &ranks));
  BL_TRY(bl_new(&placement->slots, (size_t)ranks, sizeof *placement->slots, "slots"));
  placement->ranks = ranks;
  BL_TRY(read_slots(json, placement));
  BL_TRY(read_split(json, placement));
  BL_TRY(bl_json_array(json, "layers", 1, MAX_LAYERS, &layers, &n));
  BL_TRY(bl_new(&placement->layer, (size_t)n, sizeof *placement->layer, "layers"));
  placement->layers = (int32_t)n;
  int32_t index = 0;
  for (bl_json item = bl_json_first(layers); !bl_json_is_null(item); item = bl_json_next(item))
    BL_TRY(read_layer(item, placement, index++));
  return BL_OK;
}

static bl_status read_totals(bl_json root, bl_plan *plan) {
  bl_json json;
  if (bl_json_has(root, "predicted")) {
    BL_TRY(bl_json_object(root, "predicted", &json));
    BL_TRY(bl_json_keys(json, "step_us imbalance memory_bytes"));
    BL_TRY(bl_json_number(json, "step_us", 0, 1e18, &plan->predicted_step_us));
    BL_TRY(bl_json_number(json, "imbalance", 0, 1e9, &plan->predicted_imbalance));
    BL_TRY(bl_json_number(json, "memory_bytes", 0, 1e18, &plan->predicted_memory_bytes));
    plan->has_predicted = true;
  }
  if (!bl_json_has(root, "bound")) return BL_OK;
  const char *proof;
  BL_TRY(bl_json_object(root, "bound", &json));
  BL_TRY(bl_json_keys(json, "imbalance gap proof"));
  BL_TRY(bl_json_number(json, "imbalance", 0, 1e9, &plan->bound_imbalance));
  BL_TRY(bl_json_number(json, "gap", -1e-6, 1e9, &plan->bound_gap));
  BL_TRY(bl_json_string(json, "proof", &proof));
  if (strlen(proof) >= sizeof plan->bound_proof)
    return bl_json_fail(json, "the proof's name has %zu characters, expected fewer than %zu", strlen(proof),
                        sizeof plan->bound_proof);
  snprintf(plan->bound_proof, sizeof plan->bound_proof, "%s", proof);
  plan->has_bound = true;
  return BL_OK;
}

static bl_status read_plan(const char *path, bl_json root, bl_plan *plan) {
  int64_t version;
  bl_json json;
  BL_TRY(bl_json_keys(root, "version layout placement predicted bound search"));
  BL_TRY(bl_json_int(root, "version", 1, 1, &version));
  if (bl_json_has(root, "placement")) {
    BL_TRY(bl_json_object(root, "placement", &json));
    BL_TRY(read_placement(json, &plan->placement));
    BL_TRY(bl_placement_check(&plan->placement, path));
    plan->has_placement = true;
  }
  if (bl_json_has(root, "layout")) {
    BL_TRY(bl_json_object(root, "layout", &json));
    BL_TRY(bl_layout_read(json, &plan->layout));
    BL_TRY(bl_layout_check(&plan->layout, plan->layout.stage_first[plan->layout.n_stages], path));
    plan->has_layout = true;
  }
  if (!plan->has_layout && !plan->has_placement)
    return bl_fail(BL_EINPUT, "%s: expected a layout or a placement, found neither", path);
  if (plan->has_layout && plan->has_placement && plan->layout.ep != plan->placement.ranks)
    return bl_fail(BL_EINPUT, "%s: the placement is for %d ranks, but layout.ep is %d", path, plan->placement.ranks,
                   plan->layout.ep);
  if (bl_json_has(root, "search")) {
    BL_TRY(bl_json_object(root, "search", &json));
    if (!plan->has_layout) return bl_json_fail(json, "expected a layout, of which this tells, found none");
    BL_TRY(bl_new(&plan->search, 1, sizeof *plan->search, "a plan"));
    BL_TRY(bl_plan_search_read(json, plan->search));
  }
  return read_totals(root, plan);
}

bl_status bl_plan_load(const char *path, bl_plan *out) {
  bl_json_doc *doc;
  bl_json root;
  memset(out, 0, sizeof *out);
  BL_TRY(bl_json_load(path, &doc, &root));
  const bl_status status = read_plan(path, root, out);
  bl_json_free(doc);
  if (status != BL_OK) bl_plan_free(out);
  return status;
}

static void write_proof(bl_json_writer *w, const bl_plan_proof *proof) {
  bl_json_key(w, "proved");
  bl_json_begin_flat_object(w);
  bl_json_put_number(w, "within", proof->within);
  if (proof->copies >= 0) {
    bl_json_put_int(w, "copies", proof->copies);
    bl_json_put_int(w, "moves", proof->moves);
    bl_json_put_number(w, "price", proof->price);
  }
  bl_json_put_number(w, "move_price", proof->move_price);
  bl_json_put_number(w, "bound", proof->bound);
  if (proof->copies >= 0) bl_json_put_number(w, "gap", proof->price - proof->bound);
  bl_json_put_string(w, "proof", proof->proof);
  bl_json_put_string(w, "solver", proof->solver);
  bl_json_put_number(w, "seconds", proof->seconds);
  if (proof->reason[0]) bl_json_put_string(w, "reason", proof->reason);
  bl_json_end_object(w);
}

static void write_layer(bl_json_writer *w, const bl_layer_placement *layer, int32_t experts) {
  bl_json_begin_object(w);
  bl_json_put_int(w, "layer", layer->layer);
  bl_json_key(w, "home");
  bl_json_begin_flat_array(w);
  for (int32_t e = 0; e < experts; ++e) bl_json_write_int(w, layer->home[e]);
  bl_json_end_array(w);
  bl_json_key(w, "copies");
  bl_json_begin_array(w);
  for (int32_t i = 0; i < layer->n_copies; ++i) {
    bl_json_begin_flat_object(w);
    bl_json_put_int(w, "expert", layer->copies[i].expert);
    bl_json_put_int(w, "rank", layer->copies[i].rank);
    bl_json_put_number(w, "share", layer->copies[i].share);
    if (layer->feeder) bl_json_put_int(w, "from", layer->feeder[i]);
    bl_json_end_object(w);
  }
  bl_json_end_array(w);
  bl_json_put_number(w, "imbalance", layer->imbalance);
  bl_json_put_number(w, "bound", layer->bound);
  if (layer->proved.given) write_proof(w, &layer->proved);
  if (layer->price) {
    bl_json_key(w, "price");
    bl_layer_price_write(w, layer->price);
  }
  bl_json_end_object(w);
}

static void write_placement(bl_json_writer *w, const bl_placement *placement) {
  bl_json_key(w, "placement");
  bl_json_begin_object(w);
  bl_json_put_int(w, "ranks", placement->ranks);
  bool even = true;
  for (int32_t r = 1; r < placement->ranks; ++r) even = even && placement->slots[r] == placement->slots[0];
  if (even) {
    bl_json_put_int(w, "slots", placement->slots[0]);
  } else {
    bl_json_key(w, "slots");
    bl_json_begin_flat_array(w);
    for (int32_t r = 0; r < placement->ranks; ++r) bl_json_write_int(w, placement->slots[r]);
    bl_json_end_array(w);
  }
  if (placement->even_split) {
    bl_json_put_string(w, "split", "even");
  }
  bl_json_key(w, "layers");
  bl_json_begin_array(w);
  for (int32_t l = 0; l < placement->layers; ++l) write_layer(w, &placement->layer[l], placement->experts);
  bl_json_end_array(w);
  bl_json_end_object(w);
}

static void write_totals(bl_json_writer *w, const bl_plan *plan) {
  if (plan->has_predicted) {
    bl_json_key(w, "predicted");
    bl_json_begin_flat_object(w);
    bl_json_put_number(w, "step_us", plan->predicted_step_us);
    bl_json_put_number(w, "imbalance", plan->predicted_imbalance);
    bl_json_put_number(w, "memory_bytes", plan->predicted_memory_bytes);
    bl_json_end_object(w);
  }
  if (plan->has_bound) {
    bl_json_key(w, "bound");
    bl_json_begin_flat_object(w);
    bl_json_put_number(w, "imbalance", plan->bound_imbalance);
    bl_json_put_number(w, "gap", plan->bound_gap);
    bl_json_put_string(w, "proof", plan->bound_proof);
    bl_json_end_object(w);
  }
}

bl_status bl_plan_save(const char *path, const bl_plan *plan) {
  bl_output *output;
  BL_TRY(bl_output_open(path, &output));
  bl_json_writer w;
  bl_json_writer_init(&w, bl_output_stream(output), true);
  bl_json_begin_object(&w);
  bl_json_put_int(&w, "version", 1);
  if (plan->has_layout) {
    bl_json_key(&w, "layout");
    bl_layout_write(&w, &plan->layout);
  }
  if (plan->has_placement) write_placement(&w, &plan->placement);
  write_totals(&w, plan);
  if (plan->search) {
    bl_json_key(&w, "search");
    bl_plan_search_write(&w, plan->search);
  }
  bl_json_end_object(&w);
  bl_json_newline(&w);
  return bl_output_commit(output);
}
