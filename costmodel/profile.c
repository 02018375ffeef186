/* profile.c - the profile file. */
#include "costmodel/profile.h"
#include "base/file.h"
#include "base/json.h"
#include <stddef.h>
#include <stdio.h>
#include <string.h>

const char *const bl_curve_names[BL_CURVE_COUNT] = {
#define X(name, text, unit) text,
    BL_CURVE_LIST(X)
#undef X
};

const char *const bl_curve_units[BL_CURVE_COUNT] = {
#define X(name, text, unit) unit,
    BL_CURVE_LIST(X)
#undef X
};

static const char curve_keys[] =
#define X(name, text, unit) text " "
    BL_CURVE_LIST(X)
#undef X
    ;

static const struct {
  const char *key;
  size_t offset;
  int32_t least;
} shape_fields[] = {
    {"hidden", offsetof(bl_profile_shape, hidden), 1},
    {"vocabulary", offsetof(bl_profile_shape, vocabulary), 1},
    {"sequence", offsetof(bl_profile_shape, sequence), 1},
    {"heads", offsetof(bl_profile_shape, heads), 1},
    {"experts", offsetof(bl_profile_shape, experts), 0},
    {"top_k", offsetof(bl_profile_shape, top_k), 0},
    {"expert_width", offsetof(bl_profile_shape, expert_width), 0},
    {"ffn_width", offsetof(bl_profile_shape, ffn_width), 0},
};
enum { N_SHAPE = sizeof shape_fields / sizeof *shape_fields };

static int32_t *field(bl_profile_shape *shape, int i) { return (int32_t *)((char *)shape + shape_fields[i].offset); }

void bl_profile_shape_of(const bl_model *model, bl_profile_shape *shape) {
  *shape = (bl_profile_shape){.hidden = model->hidden,
                              .vocabulary = model->vocabulary,
                              .sequence = model->sequence,
                              .heads = model->heads,
                              .experts = model->experts,
                              .top_k = model->top_k,
                              .expert_width = model->expert_width,
                              .ffn_width = model->ffn_width};
}

bl_status bl_profile_fits(const bl_profile *profile, const bl_model *model, const char *where) {
  bl_profile_shape has = profile->shape, wanted;
  bl_profile_shape_of(model, &wanted);
  for (int i = 0; i < N_SHAPE; i++)
    if (*field(&has, i) != *field(&wanted, i))
      return bl_fail(BL_EINPUT, "%s: made for a model with %s %d, but %s has %d", where, shape_fields[i].key,
                     *field(&has, i), model->name, *field(&wanted, i));
  return BL_OK;
}

static bl_status read_profile(bl_json root, bl_profile *p) {
  int64_t value;
  bl_json part, curve;
  BL_TRY(bl_json_keys(
      root,
      "version backend transport device ranks overlap one_device num_bytes sgemm_gflops triad_gbps model curves"));
  BL_TRY(bl_json_int(root, "version", 1, 1, &value));
  BL_TRY(bl_json_text(root, "backend", p->backend, sizeof p->backend));
  BL_TRY(bl_json_text(root, "transport", p->transport, sizeof p->transport));
  BL_TRY(bl_json_text(root, "device", p->device, sizeof p->device));
  BL_TRY(bl_json_int(root, "ranks", 1, 1 << 20, &value));
  p->ranks = (int32_t)value;
  BL_TRY(bl_json_bool(root, "overlap", &p->overlap));
  if (bl_json_has(root, "one_device")) BL_TRY(bl_json_bool(root, "one_device", &p->one_device));
  BL_TRY(bl_json_int(root, "num_bytes", 1, 4, &value));
  p->num_bytes = (int32_t)value;
  BL_TRY(bl_json_number(root, "sgemm_gflops", 1e-9, 1e12, &p->sgemm_gflops));
  BL_TRY(bl_json_number(root, "triad_gbps", 1e-9, 1e12, &p->triad_gbps));
  BL_TRY(bl_json_object(root, "model", &part));
  BL_TRY(bl_json_keys(part, "hidden vocabulary sequence heads experts top_k expert_width ffn_width"));
  for (int i = 0; i < N_SHAPE; i++) {
    BL_TRY(bl_json_int(part, shape_fields[i].key, shape_fields[i].least, INT32_MAX, &value));
    *field(&p->shape, i) = (int32_t)value;
  }
  BL_TRY(bl_json_object(root, "curves", &part));
  BL_TRY(bl_json_keys(part, curve_keys));
  for (int k = 0; k < BL_CURVE_COUNT; k++) {
    if (!bl_json_has(part, bl_curve_names[k])) continue;
    BL_TRY(bl_json_object(part, bl_curve_names[k], &curve));
    BL_TRY(bl_curve_read(curve, bl_curve_units[k], &p->curves[k]));
  }
  return BL_OK;
}

bl_status bl_profile_load(const char *path, bl_profile *out) {
  bl_json_doc *doc;
  bl_json root;
  BL_TRY(bl_json_load(path, &doc, &root));
  memset(out, 0, sizeof *out);
  const bl_status status = read_profile(root, out);
  bl_json_free(doc);
  return status;
}

static void write_curves(bl_json_writer *w, const bl_profile *p) {
  bl_json_key(w, "curves");
  bl_json_begin_object(w);
  for (int k = 0; k < BL_CURVE_COUNT; k++) {
    const bl_curve *curve = &p->curves[k];
    if (curve->n == 0) continue;
    bl_json_key(w, bl_curve_names[k]);
    bl_curve_write(w, bl_curve_units[k], curve);
  }
  bl_json_end_object(w);
}

bl_status bl_profile_save(const char *path, const bl_profile *p) {
  bl_output *output;
  bl_json_writer w;
  bl_profile_shape shape = p->shape;
  BL_TRY(bl_output_open(path, &output));
  bl_json_writer_init(&w, bl_output_stream(output), true);
  bl_json_begin_object(&w);
  bl_json_put_number(&w, "version", 1);
  bl_json_put_string(&w, "backend", p->backend);
  bl_json_put_string(&w, "transport", p->transport);
  bl_json_put_string(&w, "device", p->device);
  bl_json_put_number(&w, "ranks", p->ranks);
  bl_json_put_bool(&w, "overlap", p->overlap);
  if (p->one_device) {
    bl_json_put_bool(&w, "one_device", true);
  }
  bl_json_put_number(&w, "num_bytes", p->num_bytes);
  bl_json_put_number(&w, "sgemm_gflops", p->sgemm_gflops);
  bl_json_put_number(&w, "triad_gbps", p->triad_gbps);
  bl_json_key(&w, "model");
  bl_json_begin_flat_object(&w);
  for (int i = 0; i < N_SHAPE; i++) bl_json_put_number(&w, shape_fields[i].key, *field(&shape, i));
  bl_json_end_object(&w);
  write_curves(&w, p);
  bl_json_end_object(&w);
  bl_json_newline(&w);
  return bl_output_commit(output);
}
