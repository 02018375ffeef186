/* estimate.c - the estimate of a layer and the file of its table. */
#include "costmodel/estimate.h"
#include "base/file.h"
#include "base/json.h"
#include <string.h>

double bl_layer_estimate(const bl_layer_table *table, const bl_layer_calls *calls, int32_t i) {
  const double *tokens = calls->tokens + (int64_t)i * calls->ranks * calls->slots;
  double most = 0;
  for (int32_t r = 0; r < calls->ranks; r++) {
    double us = table->constant_us;
    for (int32_t s = 0; s < calls->slots; s++, tokens++)
      if (*tokens > 0) us += bl_curve_at(&table->expert, *tokens);
    if (us > most) most = us;
  }
  return most;
}

double bl_layer_hottest(const bl_layer_calls *calls, int32_t i) {
  const double *tokens = calls->tokens + (int64_t)i * calls->ranks * calls->slots;
  double most = 0;
  for (int32_t r = 0; r < calls->ranks; r++) {
    double sum = 0;
    for (int32_t s = 0; s < calls->slots; s++) sum += *tokens++;
    if (sum > most) most = sum;
  }
  return most;
}

static bl_status read_table(bl_json root, bl_layer_table *table) {
  int64_t version;
  bl_json expert;
  BL_TRY(bl_json_keys(root, "version constant_us expert"));
  BL_TRY(bl_json_int(root, "version", 1, 1, &version));
  BL_TRY(bl_json_number(root, "constant_us", 0, 1e15, &table->constant_us));
  BL_TRY(bl_json_object(root, "expert", &expert));
  return bl_curve_read(expert, "tokens", &table->expert);
}

bl_status bl_layer_table_load(const char *path, bl_layer_table *out) {
  bl_json_doc *doc;
  bl_json root;
  BL_TRY(bl_json_load(path, &doc, &root));
  memset(out, 0, sizeof *out);
  const bl_status status = read_table(root, out);
  bl_json_free(doc);
  return status;
}

bl_status bl_layer_table_save(const char *path, const bl_layer_table *table) {
  bl_output *output;
  bl_json_writer w;
  BL_TRY(bl_output_open(path, &output));
  bl_json_writer_init(&w, bl_output_stream(output), true);
  bl_json_begin_object(&w);
  bl_json_put_int(&w, "version", 1);
  bl_json_put_number(&w, "constant_us", table->constant_us);
  bl_json_key(&w, "expert");
  bl_curve_write(&w, "tokens", &table->expert);
  bl_json_end_object(&w);
  bl_json_newline(&w);
  return bl_output_commit(output);
}
