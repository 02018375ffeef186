#include "costmodel/plan_search.h"
#include <stdio.h>
#include <string.h>

const char *const bl_price_names[BL_PRICE_COUNT] = {
#define X(name, text, what) text,
    BL_PRICE_LIST(X)
#undef X
};

const char *const bl_price_meanings[BL_PRICE_COUNT] = {
#define X(name, text, what) what,
    BL_PRICE_LIST(X)
#undef X
};

const char *const bl_source_names[BL_SOURCE_COUNT] = {
#define X(name, text, what) text,
    BL_SOURCE_LIST(X)
#undef X
};

const char *const bl_source_meanings[BL_SOURCE_COUNT] = {
#define X(name, text, what) what,
    BL_SOURCE_LIST(X)
#undef X
};

static const double most = 1e18;

enum { KEY_MAX = 32, KEYS_MAX = 256 };

/* A name as a key: "master weights" is master_weights. */
static void key_of(const char *name, char *key) {
  snprintf(key, KEY_MAX, "%s", name);
  for (char *c = key; *c; c++)
    if (*c == ' ') *c = '_';
}

/* An object of a number for each of n names. */
static bl_status read_numbers(bl_json json, const char *member, const char *const *names, int n, double *out) {
  bl_json object;
  char key[KEY_MAX], keys[KEYS_MAX] = "";
  for (int i = 0; i < n; i++) {
    const size_t used = strlen(keys);
    key_of(names[i], key);
    snprintf(keys + used, sizeof keys - used, "%s%s", i ? " " : "", key);
  }
  BL_TRY(bl_json_object(json, member, &object));
  BL_TRY(bl_json_keys(object, keys));
  for (int i = 0; i < n; i++) {
    key_of(names[i], key);
    BL_TRY(bl_json_number(object, key, 0, most, &out[i]));
  }
  return BL_OK;
}

bl_status bl_plan_search_read(bl_json json, bl_plan_search *s) {
  bl_json sources;
  int64_t n;
  BL_TRY(bl_json_keys(json, "model sequence experts cluster device layouts simulated undecided closed_form_us bound_us "
                            "roofline_us time_us memory_bytes memory_limit_bytes sources costs"));
  BL_TRY(bl_json_text(json, "model", s->model, sizeof s->model));
  BL_TRY(bl_json_text(json, "cluster", s->cluster, sizeof s->cluster));
  BL_TRY(bl_json_text(json, "device", s->device, sizeof s->device));
  BL_TRY(bl_json_int(json, "sequence", 1, 1 << 24, &n));
  s->sequence = (int32_t)n;
  BL_TRY(bl_json_int(json, "experts", 0, 1 << 24, &n));
  s->experts = (int32_t)n;
  BL_TRY(bl_json_int(json, "layouts", 1, INT64_MAX, &s->layouts));
  BL_TRY(bl_json_int(json, "simulated", 0, INT64_MAX, &s->simulated));
  BL_TRY(bl_json_int(json, "undecided", 0, INT64_MAX, &s->undecided));
  BL_TRY(bl_json_number(json, "closed_form_us", 0, most, &s->closed_form_us));
  BL_TRY(bl_json_number(json, "bound_us", 0, most, &s->bound_us));
  BL_TRY(bl_json_number(json, "roofline_us", 0, most, &s->roofline_us));
  BL_TRY(read_numbers(json, "time_us", bl_price_names, BL_PRICE_COUNT, s->time_us));
  BL_TRY(read_numbers(json, "memory_bytes", bl_footprint_names, BL_FOOTPRINT_COUNT, s->memory_bytes));
  BL_TRY(bl_json_number(json, "memory_limit_bytes", 0, most, &s->memory_limit_bytes));
  BL_TRY(bl_json_object(json, "sources", &sources));
  BL_TRY(bl_json_keys(sources, "compute memory intra inter routing"));
  for (int i = 0; i < BL_SOURCE_COUNT; i++)
    BL_TRY(bl_json_text(sources, bl_source_names[i], s->source[i], sizeof s->source[i]));
  return bl_plan_costs_read(json, &s->costs);
}

static void write_numbers(bl_json_writer *w, const char *key, const char *const *names, int n, const double *values) {
  bl_json_key(w, key);
  bl_json_begin_object(w);
  for (int i = 0; i < n; i++) {
    char name[KEY_MAX];
    key_of(names[i], name);
    bl_json_put_number(w, name, values[i]);
  }
  bl_json_end_object(w);
}

void bl_plan_search_write(bl_json_writer *w, const bl_plan_search *s) {
  bl_json_begin_object(w);
  bl_json_put_string(w, "model", s->model);
  bl_json_put_int(w, "sequence", s->sequence);
  bl_json_put_int(w, "experts", s->experts);
  bl_json_put_string(w, "cluster", s->cluster);
  bl_json_put_string(w, "device", s->device);
  bl_json_put_int(w, "layouts", s->layouts);
  bl_json_put_int(w, "simulated", s->simulated);
  bl_json_put_int(w, "undecided", s->undecided);
  bl_json_put_number(w, "closed_form_us", s->closed_form_us);
  bl_json_put_number(w, "bound_us", s->bound_us);
  bl_json_put_number(w, "roofline_us", s->roofline_us);
  write_numbers(w, "time_us", bl_price_names, BL_PRICE_COUNT, s->time_us);
  write_numbers(w, "memory_bytes", bl_footprint_names, BL_FOOTPRINT_COUNT, s->memory_bytes);
  bl_json_put_number(w, "memory_limit_bytes", s->memory_limit_bytes);
  bl_json_key(w, "sources");
  bl_json_begin_object(w);
  for (int i = 0; i < BL_SOURCE_COUNT; i++) bl_json_put_string(w, bl_source_names[i], s->source[i]);
  bl_json_end_object(w);
  bl_plan_costs_write(w, &s->costs);
  bl_json_end_object(w);
}
