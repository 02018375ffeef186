/* weights.c - layout, allocation and initial values of the parameters of one rank. */
#include "executor/weights.h"
#include "base/memory.h"
#include "base/rng.h"
#include <math.h>
#include <string.h>

enum { TENSOR_ALIGNMENT = 16, SPARE_NUM = 0, SPARE_F32 = 1 };

static int64_t aligned(int64_t n) { return (n + TENSOR_ALIGNMENT - 1) / TENSOR_ALIGNMENT * TENSOR_ALIGNMENT; }

/* Appends the tensors of a part to the dense list. */
static bl_status add_part(bl_weights *w, size_t *room, bl_model_part part, int32_t layer) {
  bl_tensor tensors[BL_PART_MAX_TENSORS];
  const int32_t n = bl_model_tensors(w->model, part, tensors);
  BL_TRY(bl_grow(&w->dense, room, (size_t)(w->n_dense + n), sizeof *w->dense, "tensor list"));
  for (int32_t i = 0; i < n; i++) {
    bl_dense_tensor *d = &w->dense[w->n_dense++];
    *d = (bl_dense_tensor){
        .tensor = tensors[i], .layer = layer, .offset = w->dense_size, .n = (int64_t)tensors[i].rows * tensors[i].cols};
    bl_tensor_name(part, &tensors[i], layer, 0, d->name);
    w->dense_size += aligned(d->n);
  }
  return BL_OK;
}

static bl_status list_tensors(bl_weights *w) {
  const bl_model *model = w->model;
  size_t room = 0;
  BL_TRY(add_part(w, &room, BL_PART_EMBED, -1));
  BL_TRY(add_part(w, &room, BL_PART_HEAD, -1));
  for (int32_t l = 0; l < model->layers; l++) {
    const bool moe = bl_model_layer_is_moe(model, l);
    w->layer_first[l + 1] = w->n_dense;
    w->moe_index[l] = moe ? w->moe_layers : -1;
    if (moe) w->moe_layer[w->moe_layers++] = l;
    BL_TRY(add_part(w, &room, BL_PART_ATTENTION, l));
    BL_TRY(add_part(w, &room, moe ? BL_PART_GATE : BL_PART_FFN, l));
  }
  w->layer_first[model->layers + 1] = w->n_dense;
  if (w->moe_layers == 0) return BL_OK;
  w->experts = model->experts;
  bl_tensor tensors[BL_PART_MAX_TENSORS];
  w->n_expert_tensors = bl_model_tensors(model, BL_PART_EXPERT, tensors);
  for (int32_t i = 0; i < w->n_expert_tensors; i++) {
    const int64_t n = (int64_t)tensors[i].rows * tensors[i].cols;
    w->expert_tensor[i] = (bl_expert_tensor){.tensor = tensors[i], .offset = w->expert_size, .n = n};
    w->expert_size += aligned(n);
  }
  return BL_OK;
}

bl_status bl_weights_create(const bl_model *model, bl_backend *be, bl_weights *out) {
  *out = (bl_weights){.model = model, .be = be};
  bl_weights *w = out;
  const size_t layers = (size_t)model->layers;
  BL_TRY(bl_new(&w->layer_first, layers + 2, sizeof *w->layer_first, "tensor list"));
  BL_TRY(bl_new(&w->moe_index, layers, sizeof *w->moe_index, "tensor list"));
  BL_TRY(bl_new(&w->moe_layer, layers, sizeof *w->moe_layer, "tensor list"));
  BL_TRY(list_tensors(w));
  BL_TRY(bl_new(&w->expert, (size_t)w->moe_layers * (size_t)w->experts, sizeof *w->expert, "expert table"));
  const size_t n = (size_t)w->dense_size;
  bl_state *d = &w->dense_state;
  BL_TRY(be->alloc(be, n * be->num_bytes, &d->weight));
  if (be->num_bytes == sizeof(float)) {
    d->master = d->weight;
  } else {
    BL_TRY(be->alloc(be, n * sizeof(float), &d->master));
  }
  BL_TRY(be->alloc(be, n * sizeof(float), &d->grad));
  BL_TRY(be->alloc(be, n * sizeof(float), &d->m));
  return be->alloc(be, n * sizeof(float), &d->v);
}

static void release_state(bl_backend *be, bl_state *state) {
  if (state->master != state->weight) be->release(be, state->master);
  be->release(be, state->weight);
  be->release(be, state->grad);
  be->release(be, state->m);
  be->release(be, state->v);
  *state = (bl_state){0};
}

void bl_weights_free(bl_weights *w) {
  if (!w->be) return;
  release_state(w->be, &w->dense_state);
  for (int32_t i = 0; w->expert && i < w->moe_layers * w->experts; i++) release_state(w->be, &w->expert[i]);
  for (int k = 0; k < 2; k++) {
    for (size_t i = 0; i < w->n_spare[k]; i++) w->be->release(w->be, w->spare[k][i]);
    free(w->spare[k]);
  }
  free(w->dense);
  free(w->layer_first);
  free(w->moe_layer);
  free(w->moe_index);
  free(w->expert);
  *w = (bl_weights){0};
}

static bl_status take_block(bl_weights *w, int kind, void *out_pointer) {
  if (w->n_spare[kind]) {
    memcpy(out_pointer, &w->spare[kind][--w->n_spare[kind]], sizeof(void *));
    return BL_OK;
  }
  /* Room to give the block back is made here, so that giving back cannot fail. */
  BL_TRY(bl_grow(&w->spare[kind], &w->spare_room[kind], w->n_made[kind] + 1, sizeof(void *), "expert blocks"));
  w->n_made[kind]++;
  return w->be->alloc(w->be, (size_t)w->expert_size * (kind == SPARE_NUM ? w->be->num_bytes : sizeof(float)),
                      out_pointer);
}

static void give_block(bl_weights *w, int kind, void *block) {
  if (block) w->spare[kind][w->n_spare[kind]++] = block;
}

static bl_status reserve(bl_weights *w, int kind, size_t blocks) {
  void **taken = NULL;
  bl_status status = bl_new(&taken, blocks, sizeof *taken, "expert blocks");
  size_t n = 0;
  while (n < blocks && status == BL_OK)
    if ((status = take_block(w, kind, &taken[n])) == BL_OK) n++;
  while (n > 0) give_block(w, kind, taken[--n]);
  free(taken);
  return status;
}

bl_status bl_weights_reserve(bl_weights *w, int32_t copies) {
  const size_t blocks = copies > 0 ? (size_t)copies * (size_t)w->moe_layers : 0;
  BL_TRY(reserve(w, SPARE_NUM, blocks));
  return reserve(w, SPARE_F32, blocks);
}

bl_status bl_weights_hold(bl_weights *w, int32_t moe, int32_t expert, bool as_home) {
  bl_state *state = bl_weights_expert(w, moe, expert);
  if (!state->weight) BL_TRY(take_block(w, SPARE_NUM, &state->weight));
  if (!state->grad) BL_TRY(take_block(w, SPARE_F32, &state->grad));
  if (!as_home || state->m) return BL_OK;
  if (w->be->num_bytes == sizeof(float)) {
    state->master = state->weight;
  } else {
    BL_TRY(take_block(w, SPARE_F32, &state->master));
  }
  BL_TRY(take_block(w, SPARE_F32, &state->m));
  return take_block(w, SPARE_F32, &state->v);
}

void bl_weights_drop(bl_weights *w, int32_t moe, int32_t expert, bool keep_copy) {
  bl_state *state = bl_weights_expert(w, moe, expert);
  if (state->master != state->weight) give_block(w, SPARE_F32, state->master);
  give_block(w, SPARE_F32, state->m);
  give_block(w, SPARE_F32, state->v);
  state->master = state->m = state->v = NULL;
  if (keep_copy) return;
  give_block(w, SPARE_NUM, state->weight);
  give_block(w, SPARE_F32, state->grad);
  *state = (bl_state){0};
}

static void fill_initial(float *to, const bl_tensor *tensor, int64_t n, const char *name, int32_t layers,
                         uint64_t seed) {
  if (tensor->init == BL_INIT_ZERO || tensor->init == BL_INIT_ONE) {
    for (int64_t i = 0; i < n; i++) to[i] = tensor->init == BL_INIT_ONE ? 1.0f : 0.0f;
    return;
  }
  const double deviation = tensor->init == BL_INIT_NORMAL_OUT ? 0.02 / sqrt(2.0 * layers) : 0.02;
  bl_rng rng;
  bl_rng_seed(&rng, seed, bl_hash_bytes(name, strlen(name), 0));
  for (int64_t i = 0; i < n; i++) to[i] = (float)(deviation * bl_rng_normal(&rng));
}

/* Brings `host` (n numbers) into master and weight and clears the moments. */
static bl_status upload(bl_weights *w, bl_stream *s, const bl_state *state, const float *host, int64_t n) {
  const size_t bytes = (size_t)n * sizeof(float);
  w->be->to_device(s, state->master, host, bytes);
  if (state->master != state->weight) w->be->ops.from_f32(s, state->weight, state->master, n);
  w->be->zero(s, state->m, bytes);
  w->be->zero(s, state->v, bytes);
  return w->be->stream_sync(s);
}

bl_status bl_weights_initialise(bl_weights *w, bl_stream *s, uint64_t seed) {
  float *host = NULL;
  const int64_t room = w->dense_size > w->expert_size ? w->dense_size : w->expert_size;
  BL_TRY(bl_new(&host, (size_t)room, sizeof *host, "initial weights"));
  for (int32_t i = 0; i < w->n_dense; i++) {
    const bl_dense_tensor *d = &w->dense[i];
    fill_initial(host + d->offset, &d->tensor, d->n, d->name, w->model->layers, seed);
  }
  bl_status status = upload(w, s, &w->dense_state, host, w->dense_size);
  memset(host, 0, (size_t)room * sizeof *host);
  for (int32_t i = 0; status == BL_OK && i < w->moe_layers * w->experts; i++) {
    if (!w->expert[i].m) continue;
    for (int32_t t = 0; t < w->n_expert_tensors; t++) {
      const bl_expert_tensor *tensor = &w->expert_tensor[t];
      char name[BL_TENSOR_NAME_MAX];
      bl_tensor_name(BL_PART_EXPERT, &tensor->tensor, w->moe_layer[i / w->experts], i % w->experts, name);
      fill_initial(host + tensor->offset, &tensor->tensor, tensor->n, name, w->model->layers, seed);
    }
    status = upload(w, s, &w->expert[i], host, w->expert_size);
  }
  free(host);
  return status;
}

void bl_weights_range(const bl_weights *w, int32_t layer, int32_t *first, int32_t *end, int64_t *offset, int64_t *n) {
  *first = w->layer_first[layer + 1];
  *end = w->layer_first[layer + 2];
  *offset = *first < w->n_dense ? w->dense[*first].offset : w->dense_size;
  *n = (*end < w->n_dense ? w->dense[*end].offset : w->dense_size) - *offset;
}

void bl_weights_zero_grads(bl_weights *w, bl_stream *s, int32_t layer) {
  if (layer == BL_ALL_LAYERS) {
    for (int32_t l = -1; l < w->model->layers; l++) bl_weights_zero_grads(w, s, l);
    return;
  }
  int32_t first, end;
  int64_t offset, n;
  bl_weights_range(w, layer, &first, &end, &offset, &n);
  w->be->zero(s, w->dense_state.grad + offset, (size_t)n * sizeof(float));
  const int32_t moe = layer < 0 ? -1 : w->moe_index[layer];
  for (int32_t e = 0; moe >= 0 && e < w->experts; e++) {
    float *grad = bl_weights_expert(w, moe, e)->grad;
    if (grad) w->be->zero(s, grad, (size_t)w->expert_size * sizeof(float));
  }
}

const bl_dense_tensor *bl_weights_find(const bl_weights *w, int32_t layer, const char *suffix) {
  int32_t first, end;
  int64_t offset, n;
  bl_weights_range(w, layer, &first, &end, &offset, &n);
  for (int32_t i = first; i < end; i++)
    if (!strcmp(w->dense[i].tensor.suffix, suffix)) return &w->dense[i];
  return NULL;
}
