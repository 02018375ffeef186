/* model.c - the model file: one table of keys drives reading, range checks and writing. */
#include "costmodel/model.h"
#include "base/file.h"
#include "base/json.h"
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum {
  MAX_LAYERS = 4096,
  MAX_SIZE = 1 << 20, /* of one dimension */
  MAX_VOCABULARY = 1 << 24,
  MAX_SEQUENCE = 1 << 24,
  MAX_EXPERTS = 65536
};
static const double max_parameters = 1e15;

typedef enum field_type { INT, BOOL, CHOICE } field_type;
typedef enum section { ROOT, ATTENTION, LATENT, STATE_SPACE, FFN, MOE, SECTIONS } section;

typedef struct field {
  section in;
  const char *key;
  field_type type;
  size_t offset;
  bool required; /* within its section */
  int64_t min, max;
  const char *choices[2]; /* CHOICE: the enum's names in order */
} field;

#define AT(member) offsetof(bl_model, member)
static const field fields[] = {
    {ROOT, "layers", INT, AT(layers), true, 1, MAX_LAYERS, {0}},
    {ROOT, "hidden", INT, AT(hidden), true, 1, MAX_SIZE, {0}},
    {ROOT, "vocabulary", INT, AT(vocabulary), true, 1, MAX_VOCABULARY, {0}},
    {ROOT, "sequence", INT, AT(sequence), true, 1, MAX_SEQUENCE, {0}},
    {ROOT, "norm", CHOICE, AT(norm), false, 0, 0, {"layer", "rms"}},
    {ROOT, "position", CHOICE, AT(position), false, 0, 0, {"learned", "rotary"}},
    {ROOT, "biases", BOOL, AT(biases), false, 0, 1, {0}},
    {ROOT, "tied_embedding", BOOL, AT(tied_embedding), false, 0, 1, {0}},
    {ROOT, "causal", BOOL, AT(causal), false, 0, 1, {0}},
    {ROOT, "multi_token", INT, AT(multi_token), false, 0, 64, {0}},
    {ATTENTION, "heads", INT, AT(heads), true, 1, MAX_SIZE, {0}},
    {ATTENTION, "kv_heads", INT, AT(kv_heads), false, 1, MAX_SIZE, {0}},
    {ATTENTION, "head_width", INT, AT(head_width), false, 1, MAX_SIZE, {0}},
    {LATENT, "q_rank", INT, AT(q_rank), false, 0, MAX_SIZE, {0}},
    {LATENT, "kv_rank", INT, AT(kv_rank), true, 1, MAX_SIZE, {0}},
    {LATENT, "rope_width", INT, AT(rope_width), true, 0, MAX_SIZE, {0}},
    {LATENT, "value_width", INT, AT(value_width), true, 1, MAX_SIZE, {0}},
    {STATE_SPACE, "heads", INT, AT(state_heads), true, 1, MAX_SIZE, {0}},
    {STATE_SPACE, "head_width", INT, AT(state_head_width), true, 1, MAX_SIZE, {0}},
    {STATE_SPACE, "state", INT, AT(state_width), true, 1, MAX_SIZE, {0}},
    {STATE_SPACE, "groups", INT, AT(state_groups), false, 1, MAX_SIZE, {0}},
    {STATE_SPACE, "convolution", INT, AT(state_convolution), false, 1, 64, {0}},
    {STATE_SPACE, "chunk", INT, AT(state_chunk), false, 1, MAX_SIZE, {0}},
    {FFN, "width", INT, AT(ffn_width), false, 1, MAX_SIZE, {0}},
    {FFN, "gated", BOOL, AT(ffn_gated), false, 0, 1, {0}},
    {MOE, "experts", INT, AT(experts), true, 1, MAX_EXPERTS, {0}},
    {MOE, "width", INT, AT(expert_width), true, 1, MAX_SIZE, {0}},
    {MOE, "top_k", INT, AT(top_k), true, 1, MAX_EXPERTS, {0}},
    {MOE, "gated", BOOL, AT(expert_gated), false, 0, 1, {0}},
    {MOE, "first_layer", INT, AT(moe_first_layer), false, 0, MAX_LAYERS, {0}},
    {MOE, "every", INT, AT(moe_every), false, 1, MAX_LAYERS, {0}},
    {MOE, "shared_experts", INT, AT(shared_experts), false, 0, 256, {0}},
    {MOE, "shared_width", INT, AT(shared_width), false, 0, MAX_SIZE, {0}},
    {MOE, "score", CHOICE, AT(score), false, 0, 0, {"softmax", "sigmoid"}},
    {MOE, "score_bias", BOOL, AT(score_bias), false, 0, 1, {0}},
    {MOE, "groups", INT, AT(groups), false, 1, MAX_EXPERTS, {0}},
    {MOE, "group_top_k", INT, AT(group_top_k), false, 1, MAX_EXPERTS, {0}},
    {MOE, "latent", INT, AT(latent_width), false, 0, MAX_SIZE, {0}},
};
enum { N_FIELDS = sizeof fields / sizeof *fields };

static const char *const section_names[SECTIONS] = {"", "attention", "attention.latent", "state_space", "ffn", "moe"};
static const char *const section_keys[SECTIONS] = {
    "version name layers hidden vocabulary sequence norm position biases tied_embedding causal multi_token pattern "
    "attention state_space ffn moe",
    "heads kv_heads head_width latent",
    "q_rank kv_rank rope_width value_width",
    "heads head_width state groups convolution chunk",
    "width gated",
    "experts width top_k gated first_layer every shared_experts shared_width score score_bias groups group_top_k "
    "latent"};

/* What an empty file would say; sizes that have no default stay 0. */
static void model_init(bl_model *model) {
  memset(model, 0, sizeof *model);
  snprintf(model->name, sizeof model->name, "model");
  model->biases = model->tied_embedding = model->causal = true;
  model->moe_every = model->groups = model->group_top_k = 1;
  model->state_groups = 1, model->state_convolution = 4, model->state_chunk = 128;
}

static void fill_in_defaults(bl_model *model) {
  if (model->kv_heads == 0) model->kv_heads = model->heads;
  if (model->head_width == 0) model->head_width = model->hidden / model->heads;
  if (model->ffn_width == 0) model->ffn_width = 4 * model->hidden;
  if (model->shared_width == 0) model->shared_width = model->expert_width;
}

void bl_model_default(bl_model *model) {
  model_init(model);
  snprintf(model->name, sizeof model->name, "small");
  model->layers = 4;
  model->hidden = 256;
  model->vocabulary = 256;
  model->sequence = 128;
  model->heads = 4;
  model->experts = 8;
  model->expert_width = 1024;
  model->top_k = 2;
  fill_in_defaults(model);
}

static bl_status read_field(bl_json object, const field *f, bl_model *model) {
  void *target = (char *)model + f->offset;
  if (!f->required && !bl_json_has(object, f->key)) return BL_OK;
  if (f->type == BOOL) return bl_json_bool(object, f->key, target);
  if (f->type == INT) {
    int64_t value;
    BL_TRY(bl_json_int(object, f->key, f->min, f->max, &value));
    *(int32_t *)target = (int32_t)value;
    return BL_OK;
  }
  const char *text;
  BL_TRY(bl_json_string(object, f->key, &text));
  for (int32_t i = 0; i < 2; i++)
    if (strcmp(text, f->choices[i]) == 0) {
      const int32_t value = i;
      memcpy(target, &value, sizeof value);
      return BL_OK;
    }
  bl_json member;
  BL_TRY(bl_json_member(object, f->key, &member));
  return bl_json_fail(member, "expected \"%s\" or \"%s\", found \"%s\"", f->choices[0], f->choices[1], text);
}

static bl_status read_section(bl_json object, section in, bl_model *model) {
  BL_TRY(bl_json_keys(object, section_keys[in]));
  for (int i = 0; i < N_FIELDS; i++)
    if (fields[i].in == in) BL_TRY(read_field(object, &fields[i], model));
  return BL_OK;
}

static bl_status read_model(bl_json root, bl_model *model) {
  int64_t version;
  BL_TRY(bl_json_int(root, "version", 1, 1, &version));
  if (bl_json_has(root, "name")) memset(model->name, 0, sizeof model->name);
  BL_TRY(bl_json_text_or(root, "name", model->name, sizeof model->name));
  BL_TRY(bl_json_text_or(root, "pattern", model->pattern, sizeof model->pattern));
  BL_TRY(read_section(root, ROOT, model));
  bl_json part, latent;
  BL_TRY(bl_json_object(root, "attention", &part));
  BL_TRY(read_section(part, ATTENTION, model));
  if (bl_json_has(part, "latent")) {
    BL_TRY(bl_json_object(part, "latent", &latent));
    BL_TRY(read_section(latent, LATENT, model));
    model->latent_attention = true;
  }
  if (bl_json_has(root, "state_space")) {
    BL_TRY(bl_json_object(root, "state_space", &part));
    BL_TRY(read_section(part, STATE_SPACE, model));
  }
  if (bl_json_has(root, "ffn")) {
    BL_TRY(bl_json_object(root, "ffn", &part));
    BL_TRY(read_section(part, FFN, model));
  }
  if (bl_json_has(root, "moe")) {
    BL_TRY(bl_json_object(root, "moe", &part));
    BL_TRY(read_section(part, MOE, model));
  }
  return BL_OK;
}

/* Takes the document, and frees it. */
static bl_status take_model(const char *name, bl_json_doc *doc, bl_json root, bl_model *out) {
  bl_model model;
  model_init(&model);
  const bl_status status = read_model(root, &model);
  bl_json_free(doc);
  BL_TRY(status);
  fill_in_defaults(&model);
  BL_TRY(bl_model_check(&model, name));
  *out = model;
  return BL_OK;
}

bl_status bl_model_load(const char *path, bl_model *out) {
  bl_json_doc *doc;
  bl_json root;
  BL_TRY(bl_json_load(path, &doc, &root));
  return take_model(path, doc, root, out);
}

bl_status bl_model_parse(const char *name, const char *text, uint64_t size, bl_model *out) {
  bl_json_doc *doc;
  bl_json root;
  BL_TRY(bl_json_parse(name, text, size, &doc, &root));
  return take_model(name, doc, root, out);
}

static void write_section(bl_json_writer *w, section in, const bl_model *model) {
  for (int i = 0; i < N_FIELDS; i++) {
    const field *f = &fields[i];
    const void *from = (const char *)model + f->offset;
    if (f->in != in) continue;
    bl_json_key(w, f->key);
    if (f->type == BOOL)
      bl_json_write_bool(w, *(const bool *)from);
    else if (f->type == INT)
      bl_json_write_int(w, *(const int32_t *)from);
    else {
      int32_t value;
      memcpy(&value, from, sizeof value);
      bl_json_write_string(w, f->choices[value]);
    }
  }
}

bl_status bl_model_save(const char *path, const bl_model *model) {
  bl_output *output;
  bl_json_writer w;
  BL_TRY(bl_output_open(path, &output));
  bl_json_writer_init(&w, bl_output_stream(output), true);
  bl_json_begin_object(&w);
  bl_json_put_int(&w, "version", 1);
  bl_json_put_string(&w, "name", model->name);
  write_section(&w, ROOT, model);
  if (model->pattern[0]) {
    bl_json_put_string(&w, "pattern", model->pattern);
  }
  bl_json_key(&w, "attention");
  bl_json_begin_object(&w);
  write_section(&w, ATTENTION, model);
  if (model->latent_attention) {
    bl_json_key(&w, "latent");
    bl_json_begin_object(&w);
    write_section(&w, LATENT, model);
    bl_json_end_object(&w);
  }
  bl_json_end_object(&w);
  if (model->state_heads > 0) {
    bl_json_key(&w, "state_space");
    bl_json_begin_object(&w);
    write_section(&w, STATE_SPACE, model);
    bl_json_end_object(&w);
  }
  bl_json_key(&w, "ffn");
  bl_json_begin_object(&w);
  write_section(&w, FFN, model);
  bl_json_end_object(&w);
  if (model->experts > 0) {
    bl_json_key(&w, "moe");
    bl_json_begin_object(&w);
    write_section(&w, MOE, model);
    bl_json_end_object(&w);
  }
  bl_json_end_object(&w);
  bl_json_newline(&w);
  return bl_output_commit(output);
}

static bool field_applies(const field *f, const bl_model *model) {
  if (f->in == LATENT) return model->latent_attention;
  if (f->in == STATE_SPACE) return model->state_heads > 0;
  return f->in != MOE || model->experts > 0;
}

/* One known letter a layer, each with the section that it needs. */
static bl_status check_pattern(const bl_model *model, const char *where) {
  const size_t letters = strlen(model->pattern);
  if (letters == 0) return BL_OK;
  if (letters != (size_t)model->layers)
    return bl_fail(BL_EINPUT, "%s: pattern: expected a letter for each of %d layers, found %zu", where, model->layers,
                   letters);
  for (size_t i = 0; i < letters; i++) {
    const char letter = model->pattern[i];
    if (!strchr("M*-E", letter))
      return bl_fail(BL_EINPUT, "%s: pattern: expected M, *, - or E as letter %zu, found %c", where, i + 1, letter);
    if ((letter == 'M' && model->state_heads == 0) || (letter == 'E' && model->experts == 0))
      return bl_fail(BL_EINPUT, "%s: pattern: letter %zu is %c, but there is no \"%s\"", where, i + 1, letter,
                     section_names[letter == 'M' ? STATE_SPACE : MOE]);
  }
  return BL_OK;
}

bl_status bl_model_check(const bl_model *model, const char *where) {
  for (int i = 0; i < N_FIELDS; i++) {
    const field *f = &fields[i];
    if (f->type != INT || !field_applies(f, model)) continue;
    const int32_t value = *(const int32_t *)((const char *)model + f->offset);
    if (value < f->min || value > f->max)
      return bl_fail(BL_EINPUT, "%s: %s%s%s: expected %lld..%lld, found %d", where, section_names[f->in],
                     f->in == ROOT ? "" : ".", f->key, (long long)f->min, (long long)f->max, value);
  }
  if (model->heads % model->kv_heads != 0)
    return bl_fail(BL_EINPUT, "%s: attention.kv_heads: expected a divisor of %d heads, found %d", where, model->heads,
                   model->kv_heads);
  BL_TRY(check_pattern(model, where));
  if (model->state_heads > 0 && model->state_heads % model->state_groups != 0)
    return bl_fail(BL_EINPUT, "%s: state_space.groups: expected a divisor of %d heads, found %d", where,
                   model->state_heads, model->state_groups);
  if ((int64_t)model->state_heads * model->state_head_width + (int64_t)model->state_groups * model->state_width >
      MAX_SIZE)
    return bl_fail(BL_EINPUT,
                   "%s: state_space: %d heads of width %d and %d groups of state %d are more than %d numbers", where,
                   model->state_heads, model->state_head_width, model->state_groups, model->state_width, MAX_SIZE);
  const int64_t widest = model->head_width + (int64_t)model->rope_width + model->value_width;
  if (model->heads * widest > MAX_SIZE * 16)
    return bl_fail(BL_EINPUT, "%s: attention: %d heads of width %d are more than %d numbers a token", where,
                   model->heads, model->head_width, MAX_SIZE * 16);
  if (model->experts > 0) {
    if (model->top_k > model->experts)
      return bl_fail(BL_EINPUT, "%s: moe.top_k: expected at most %d experts, found %d", where, model->experts,
                     model->top_k);
    if (model->experts % model->groups != 0)
      return bl_fail(BL_EINPUT, "%s: moe.groups: expected a divisor of %d experts, found %d", where, model->experts,
                     model->groups);
    if (model->group_top_k > model->groups ||
        (int64_t)model->group_top_k * (model->experts / model->groups) < model->top_k)
      return bl_fail(BL_EINPUT, "%s: moe.group_top_k: %d of %d groups cannot hold the top %d experts", where,
                     model->group_top_k, model->groups, model->top_k);
  }
  const double state = (double)model->state_heads * model->state_head_width;
  const double mlp = 3.0 * model->hidden;
  const double most = (double)(model->layers + model->multi_token) *
                          (mlp * model->expert_width * model->experts + mlp * model->ffn_width +
                           mlp * model->shared_width * model->shared_experts +
                           4.0 * model->hidden * model->heads * (model->head_width + model->rope_width) +
                           4.0 * model->hidden * (state + (double)model->state_groups * model->state_width)) +
                      2.0 * model->hidden * ((double)model->vocabulary + model->sequence);
  if (most > max_parameters)
    return bl_fail(BL_EINPUT, "%s: expected at most %.0e parameters, found about %.1e", where, max_parameters, most);
  return BL_OK;
}

bl_status bl_model_runs_on_executor(const bl_model *model) {
  const struct {
    bool refused;
    const char *key;
  } rules[] = {
      {model->norm != BL_NORM_LAYER, "norm \"rms\""},
      {model->position != BL_POSITION_LEARNED, "position \"rotary\""},
      {!model->biases, "biases false"},
      {!model->tied_embedding, "tied_embedding false"},
      {!model->causal, "causal false"},
      {model->multi_token > 0, "multi_token"},
      {model->kv_heads != model->heads, "attention.kv_heads other than heads"},
      {model->head_width * model->heads != model->hidden, "attention.head_width other than hidden / heads"},
      {model->latent_attention, "attention.latent"},
      {model->ffn_gated && bl_model_moe_layers(model) < model->layers, "ffn.gated"},
      {model->pattern[0] != '\0', "pattern"},
      {model->experts == 0, "a model without moe"},
      {model->expert_gated, "moe.gated"},
      {model->shared_experts > 0, "moe.shared_experts"},
      {model->score != BL_SCORE_SOFTMAX, "moe.score \"sigmoid\""},
      {model->score_bias, "moe.score_bias"},
      {model->groups > 1, "moe.groups"},
      {model->latent_width > 0, "moe.latent"},
  };
  for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
    if (rules[i].refused)
      return bl_fail(BL_ENOTSUP, "model %s: the executor does not run %s", model->name, rules[i].key);
  return BL_OK;
}

bl_status bl_model_expect_same(const bl_model *model, const char *where, const bl_model *wanted, const char *origin) {
  for (int i = 0; i < N_FIELDS; i++) {
    const field *f = &fields[i];
    const size_t size = f->type == BOOL ? sizeof(bool) : sizeof(int32_t);
    if (memcmp((const char *)model + f->offset, (const char *)wanted + f->offset, size) != 0)
      return bl_fail(BL_EINPUT, "%s: %s%s%s: expected the same as in %s, found another", where, section_names[f->in],
                     f->in == ROOT ? "" : ".", f->key, origin);
  }
  if (strcmp(model->pattern, wanted->pattern) != 0)
    return bl_fail(BL_EINPUT, "%s: pattern: expected the same as in %s, found another", where, origin);
  return BL_OK;
}

bl_layer_kind bl_model_layer_kind(const bl_model *model, int32_t layer) {
  switch (model->pattern[0] ? model->pattern[layer] : '\0') {
  case 'M':
    return BL_LAYER_STATE_SPACE;
  case '*':
    return BL_LAYER_ATTENTION;
  case '-':
    return BL_LAYER_FFN;
  case 'E':
    return BL_LAYER_EXPERTS;
  default:
    return model->experts > 0 && layer >= model->moe_first_layer &&
                   (layer - model->moe_first_layer + 1) % model->moe_every == 0
               ? BL_LAYER_MOE
               : BL_LAYER_DENSE;
  }
}

bool bl_model_layer_is_moe(const bl_model *model, int32_t layer) {
  return layer < model->layers && bl_layer_has_experts(bl_model_layer_kind(model, layer));
}

int32_t bl_model_row_width(const bl_model *model) {
  return model->latent_width > 0 ? model->latent_width : model->hidden;
}

int32_t bl_model_moe_layers(const bl_model *model) {
  int32_t n = 0;
  for (int32_t layer = 0; layer < model->layers; layer++) n += bl_model_layer_is_moe(model, layer);
  return n;
}
