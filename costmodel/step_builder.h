/* step_builder.h - what the builders of step programs share: a program being written, and one action with its buffers
 * in a line. Private to costmodel/step_*.c. */
#ifndef BL_COSTMODEL_STEP_BUILDER_H
#define BL_COSTMODEL_STEP_BUILDER_H

#include "costmodel/footprint.h"
#include "costmodel/step.h"

/* `status` keeps the first failure, after which additions do nothing. */
typedef struct builder {
  const bl_model *model;
  const bl_layout *layout;
  const bl_step_options *options;
  bl_step *step;
  bl_status status;
} builder;

#define B(name) BL_BUFFER_##name

enum { LIST_END = -1, MAX_LIST = 12 };
typedef struct list {
  int kinds[MAX_LIST];
} list;
#define BUFFERS(...) ((list){{__VA_ARGS__, LIST_END}})

static inline void add(builder *b, bl_action_kind kind, int32_t layer, int32_t micro_batch) {
  if (b->status == BL_OK) b->status = bl_step_add(b->step, kind, layer, micro_batch);
}

static inline void reads(builder *b, bl_buffer_kind kind, int32_t layer, int32_t micro_batch) {
  if (b->status == BL_OK) b->status = bl_step_reads(b->step, kind, layer, micro_batch);
}

static inline void writes(builder *b, bl_buffer_kind kind, int32_t layer, int32_t micro_batch) {
  if (b->status == BL_OK) b->status = bl_step_writes(b->step, kind, layer, micro_batch);
}

/* An action with the buffers of its own layer and micro-batch: those it reads, then those it writes. */
static inline void act(builder *b, bl_action_kind kind, int32_t layer, int32_t micro_batch, list in, list out) {
  add(b, kind, layer, micro_batch);
  for (const int *k = in.kinds; *k != LIST_END; k++) reads(b, (bl_buffer_kind)*k, layer, micro_batch);
  for (const int *k = out.kinds; *k != LIST_END; k++) writes(b, (bl_buffer_kind)*k, layer, micro_batch);
}

/* Layers beyond the model's are those of multi-token modules, which have experts where the model has. */
static inline bl_layer_kind kind_of(const builder *b, int32_t layer) {
  if (layer < b->model->layers) return bl_model_layer_kind(b->model, layer);
  return b->model->experts > 0 ? BL_LAYER_MOE : BL_LAYER_DENSE;
}
static inline bool is_moe(const builder *b, int32_t layer) { return bl_layer_has_experts(kind_of(b, layer)); }

/* Under zero 3 weights are used where they were gathered for one block; the shards stay what they are. */
static inline bool dense_is_shared(const builder *b) { return bl_group_size(b->layout, BL_GROUP_DP) > 1; }
static inline bool experts_are_shared(const builder *b) { return b->layout->edp > 1; }
static inline bl_buffer_kind dense_weights(const builder *b) {
  return b->layout->zero == 3 && dense_is_shared(b) ? B(WHOLE_DENSE) : B(WEIGHT_DENSE);
}
static inline bl_buffer_kind home_weights(const builder *b) {
  return b->layout->zero == 3 && experts_are_shared(b) ? B(WHOLE_HOME) : B(WEIGHT_HOME);
}
static inline bl_buffer_kind embed_weights(const builder *b) {
  return b->layout->zero == 3 && dense_is_shared(b) ? B(WHOLE_EMBED) : B(WEIGHT_EMBED);
}

/* One layer (step_layers.c), from X of the layer to X of the next, and back from DX.
 */
void bl_build_layer_fwd(builder *b, int32_t layer, int32_t micro_batch);
void bl_build_layer_bwd(builder *b, int32_t layer, int32_t micro_batch);

#endif
