/* weights.h - the parameters that one rank holds: the dense part whole, experts only where the rank hosts them.
 *
 * The dense part is one range: first embedding and head (as "layer -1"), then layer after layer, so that a layer's
 * gradients are reduced in one call. An expert is one block with its tensors in it, so that filling a copy, reducing
 * its gradient or moving a home is one message a block. Tensors begin at multiples of 16 numbers; the gaps stay zero.
 * Where the compute type is fp32, weight and master are the same memory. */
#ifndef BL_EXECUTOR_WEIGHTS_H
#define BL_EXECUTOR_WEIGHTS_H

#include "base/status.h"
#include "costmodel/model.h"
#include "executor/backend.h"
#include <stdbool.h>
#include <stdint.h>

/* Device memory of one range or block; NULL where not held: copies hold weight and grad alone. */
typedef struct bl_state {
  bl_num *weight;
  float *master, *grad, *m, *v;
} bl_state;

/* One dense tensor and where it lies. */
typedef struct bl_dense_tensor {
  char name[BL_TENSOR_NAME_MAX];
  bl_tensor tensor;
  int32_t layer; /* -1: embedding or head */
  int64_t offset, n;
} bl_dense_tensor;

/* One tensor of an expert's block. */
typedef struct bl_expert_tensor {
  bl_tensor tensor;
  int64_t offset, n;
} bl_expert_tensor;

typedef struct bl_weights bl_weights;
struct bl_weights {
  const bl_model *model;
  bl_backend *be;
  int32_t n_dense;
  bl_dense_tensor *dense;
  int64_t dense_size; /* numbers */
  bl_state dense_state;
  int32_t *layer_first; /* [layers + 2]: dense tensors of layer l are layer_first[l + 1] .. layer_first[l + 2] */
  int32_t moe_layers, experts;
  int32_t *moe_layer; /* [moe_layers]: the model's layer number */
  int32_t *moe_index; /* [layers]: position among the MoE layers, -1 for dense layers */
  int32_t n_expert_tensors;
  bl_expert_tensor expert_tensor[BL_PART_MAX_TENSORS];
  int64_t expert_size; /* numbers in an expert's block */
  bl_state *expert;    /* [moe_layers * experts] */
  void **spare[2];     /* blocks to reuse: of working weights, of fp32 */
  size_t n_spare[2], n_made[2], spare_room[2];
};

/*! bl_weights_create() : allocates the dense part (zero); no expert is held yet. `model` is borrowed. */
bl_status bl_weights_create(const bl_model *model, bl_backend *be, bl_weights *out);
void bl_weights_free(bl_weights *w); /* also after a failed create */

static inline bl_state *bl_weights_expert(const bl_weights *w, int32_t moe, int32_t expert) {
  return &w->expert[moe * w->experts + expert];
}

/*! bl_weights_hold() : makes room for an expert (weight and gradient, as a home also master and moments); contents of
 * new memory are undefined. What is held already stays. */
bl_status bl_weights_hold(bl_weights *w, int32_t moe, int32_t expert, bool as_home);

/*! bl_weights_reserve() : room for `copies` copies in every MoE layer, so that holding them asks for no memory. */
bl_status bl_weights_reserve(bl_weights *w, int32_t copies);

/*! bl_weights_drop() : gives up the moments (and master) of a former home, or all of an expert no longer hosted here.
 */
void bl_weights_drop(bl_weights *w, int32_t moe, int32_t expert, bool keep_copy);

/*! bl_weights_initialise() : initial values of the dense part and of all homes held (DESIGN section 7): each tensor
 * from its own stream of (seed, hash of its name), so the values do not depend on the ranks. Moments become zero. */
bl_status bl_weights_initialise(bl_weights *w, bl_stream *s, uint64_t seed);

enum { BL_ALL_LAYERS = -2 };

/*! bl_weights_zero_grads() : the dense gradients of `layer` (-1: embedding and head, or BL_ALL_LAYERS) and those of all
 *  experts of it that are held here. */
void bl_weights_zero_grads(bl_weights *w, bl_stream *s, int32_t layer);

/*! bl_weights_range() : the dense tensors of a layer (-1: embedding and head): first tensor, behind the last, and their
 *  range of numbers. */
void bl_weights_range(const bl_weights *w, int32_t layer, int32_t *first, int32_t *end, int64_t *offset, int64_t *n);

/*! bl_weights_find() : the dense tensor of a layer by its suffix ("attn.qkv.weight"); NULL where the model has none. */
const bl_dense_tensor *bl_weights_find(const bl_weights *w, int32_t layer, const char *suffix);

/*! bl_weights_at() : a working weight `offset` numbers into a block (pointer arithmetic in the compute type). */
static inline bl_num *bl_weights_at(const bl_weights *w, bl_num *block, int64_t offset) {
  return (char *)block + (size_t)offset * w->be->num_bytes;
}

#endif
