#include "costmodel/plan_costs.h"
#include <stdio.h>
#include <string.h>

_Static_assert(BL_WORK_KIND_COUNT <= 64, "a bit for each kind of work");

const char *bl_work_kind_name(int kind) {
  return kind == BL_WORK_BETWEEN_NODES ? "between_nodes" : bl_curve_names[kind];
}

static bl_status read_kind(bl_json item, uint64_t taken, uint64_t *out) {
  const char *name;
  BL_TRY(bl_json_as_string(item, &name));
  for (int k = 0; k < BL_WORK_KIND_COUNT; k++) {
    if (strcmp(bl_work_kind_name(k), name) != 0) continue;
    if ((taken | *out) >> k & 1) return bl_json_fail(item, "expected each kind of work once, found %s again", name);
    *out |= (uint64_t)1 << k;
    return BL_OK;
  }
  return bl_json_fail(item, "expected a kind of work, such as %s or %s, found \"%s\"", bl_work_kind_name(0),
                      bl_work_kind_name(BL_WORK_BETWEEN_NODES), name);
}

static bl_status read_origin(bl_json object, bl_plan_costs *out) {
  const char *from, *source;
  bl_json list;
  int64_t n;
  BL_TRY(bl_json_keys(object, "from source works"));
  BL_TRY(bl_json_string(object, "from", &from));
  BL_TRY(bl_json_string(object, "source", &source));
  const bool measured = strcmp(from, "measured") == 0;
  if (!measured && strcmp(from, "data sheet") != 0)
    return bl_json_fail(object, "from: expected \"measured\" or \"data sheet\", found \"%s\"", from);
  uint64_t *kinds = measured ? &out->measured : &out->assumed;
  if (*kinds) return bl_json_fail(object, "from: expected each origin once, found \"%s\" again", from);
  if (strlen(source) >= BL_PLAN_COSTS_SOURCE)
    return bl_json_fail(object, "source: expected at most %d bytes", BL_PLAN_COSTS_SOURCE - 1);
  memcpy(measured ? out->measured_source : out->assumed_source, source, strlen(source) + 1);
  BL_TRY(bl_json_array(object, "works", 1, BL_WORK_KIND_COUNT, &list, &n));
  const uint64_t taken = measured ? out->assumed : out->measured;
  for (bl_json item = bl_json_first(list); !bl_json_is_null(item); item = bl_json_next(item))
    BL_TRY(read_kind(item, taken, kinds));
  return BL_OK;
}

bl_status bl_plan_costs_read(bl_json object, bl_plan_costs *out) {
  bl_json list;
  int64_t n;
  memset(out, 0, sizeof *out);
  if (!bl_json_has(object, "costs")) return BL_OK;
  BL_TRY(bl_json_array(object, "costs", 1, 2, &list, &n));
  for (bl_json item = bl_json_first(list); !bl_json_is_null(item); item = bl_json_next(item))
    BL_TRY(read_origin(item, out));
  return BL_OK;
}

static void write_origin(bl_json_writer *w, const char *from, const char *source, uint64_t kinds) {
  if (!kinds) return;
  bl_json_begin_object(w);
  bl_json_put_string(w, "from", from);
  bl_json_put_string(w, "source", source);
  bl_json_key(w, "works");
  bl_json_begin_flat_array(w);
  for (int k = 0; k < BL_WORK_KIND_COUNT; k++)
    if (kinds >> k & 1) bl_json_write_string(w, bl_work_kind_name(k));
  bl_json_end_array(w);
  bl_json_end_object(w);
}

void bl_plan_costs_write(bl_json_writer *w, const bl_plan_costs *c) {
  if (!(c->measured | c->assumed)) return;
  bl_json_key(w, "costs");
  bl_json_begin_array(w);
  write_origin(w, "measured", c->measured_source, c->measured);
  write_origin(w, "data sheet", c->assumed_source, c->assumed);
  bl_json_end_array(w);
}

static void print_origin(const char *from, const char *source, uint64_t kinds) {
  if (!kinds) return;
  printf("costs %s:", from);
  for (int k = 0; k < BL_WORK_KIND_COUNT; k++)
    if (kinds >> k & 1) printf(" %s", bl_work_kind_name(k));
  printf(" (%s)\n", source);
}

void bl_plan_costs_print(const bl_plan_costs *c) {
  if (!c->measured && c->assumed) {
    printf("costs by data sheet: all (%s)\n", c->assumed_source);
    return;
  }
  print_origin("measured", c->measured_source, c->measured);
  print_origin("by data sheet", c->assumed_source, c->assumed);
}
