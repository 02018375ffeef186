/* footprint.h - memory of a rank under a layout, item by item, in closed form.
 *
 * Unlike memory.h, which follows the buffers of one step program, this needs none: it is what a search asks for every
 * layout of the two grids. A model is a chain of items: embedding, layers of each kind, head. Sources:
 * activations after Korthikanti et al. (arXiv 2205.05198), without attention scores (they are computed in tiles), with
 * sequences split over tp beside the matrices; ZeRO after Rajbhandari et al. (arXiv 1910.02054); micro-batches in
 * flight after Narayanan et al. (arXiv 2104.04473). All dense matrices but the gate are taken as split over tp. */
#ifndef BL_COSTMODEL_FOOTPRINT_H
#define BL_COSTMODEL_FOOTPRINT_H

#include "costmodel/model.h"

typedef enum bl_recompute {
  BL_RECOMPUTE_NONE,
  BL_RECOMPUTE_SELECTIVE, /* norms, activation functions, latent attention's up-projections */
  BL_RECOMPUTE_FFN,       /* beside these, feed-forwards whole, dispatch and combine included */
  BL_RECOMPUTE_FULL,      /* whole layers, from their inputs */
  BL_RECOMPUTE_COUNT
} bl_recompute;

extern const char *const bl_recompute_names[BL_RECOMPUTE_COUNT];

/* The numbers of a layout (plan.h), without the stages; how layers are recomputed, and copy slots of a rank and layer.
 */
typedef struct bl_grid {
  int32_t tp, cp, dp, pp, vp, etp, ep, edp, zero, micro_batch, micro_batches, copy_slots;
  int32_t shard;          /* ranks over which zero spreads; where that does not divide dp x cp, or is 0: all of them */
  int32_t gradient_bytes; /* of a number that gradients are summed and reduced in; 0: 4 */
  int32_t input_bytes;    /* of a number that backward keeps for products with weights alone; 0: as all others */
  bool node_dispatch;     /* a token's row goes once to each node, which hands it on to its ranks; else once a choice */
  bool overlap;           /* interleaved pipelines exchange rows of one micro-batch while another computes */
  bl_recompute recompute;
  int32_t pieces; /* of a MoE layer's rows, as in a plan; 0: 1. Closed forms take rows whole */
} bl_grid;

typedef enum bl_item {
  BL_ITEM_EMBED,
  BL_ITEM_DENSE,
  BL_ITEM_MOE,
  BL_ITEM_HEAD,
  BL_ITEM_STATE_SPACE, /* from here on: layers that are one block each */
  BL_ITEM_ATTENTION,
  BL_ITEM_FFN,
  BL_ITEM_EXPERTS,
  BL_ITEM_COUNT
} bl_item;

/*! bl_item_of_layer() : the item that a layer is. */
bl_item bl_item_of_layer(const bl_model *model, int32_t layer);

/*! bl_item_kind() : what the layers of an item are made of, BL_LAYER_COUNT for embedding and head; whether the model
 * can have such layers, its multi-token modules included. */
bl_layer_kind bl_item_kind(bl_item item);
bool bl_item_occurs(const bl_model *model, bl_item item);

/*! bl_items_of_model() : the items of the whole model.  count[BL_ITEM_COUNT]. */
void bl_items_of_model(const bl_model *model, int32_t *count);

/* name, text, formula. P: parameters on the rank; n: bytes of the compute type; Z: ranks that share a state. */
#define BL_FOOTPRINT_LIST(X)                                                                     \
  X(WEIGHTS, "weights", "n P; under zero 3 n P / Z, and two whole layers at a time in gathered") \
  X(GRADIENTS, "gradients", "g P, g bytes a number, 4 by default; under zero 3 / Z")             \
  X(MASTER, "master weights", "4 P where n < 4; under zero 1 and 3 / Z")                         \
  X(MOMENTS, "moments", "8 P; under zero 1 and 3 / Z")                                           \
  X(COPIES, "copy slots", "(n + g) parameters of an expert, a slot and MoE layer")               \
  X(ACTIVATIONS, "activations", "what backward reads, for all micro-batches in flight")          \
  X(WORKSPACE, "workspace", "the most of: exchange buffers, one layer recomputed, logits, gathered weights")

typedef enum bl_footprint_kind {
#define X(name, text, formula) BL_FOOTPRINT_##name,
  BL_FOOTPRINT_LIST(X)
#undef X
      BL_FOOTPRINT_COUNT
} bl_footprint_kind;

extern const char *const bl_footprint_names[BL_FOOTPRINT_COUNT];
extern const char *const bl_footprint_formulas[BL_FOOTPRINT_COUNT];

typedef struct bl_footprint {
  double bytes[BL_FOOTPRINT_COUNT], total;
} bl_footprint;

/* What one item takes on one rank. */
typedef struct bl_item_size {
  double dense_parameters, expert_parameters; /* homes only */
  double copy_parameters;                     /* of its copy slots */
  double kept_bytes;                          /* for backward, of one micro-batch */
  double workspace_bytes;                     /* while it runs */
} bl_item_size;

/*! bl_grid_tokens() : tokens of one micro-batch on one rank of the attention grid, before tp splits the sequence. */
double bl_grid_tokens(const bl_model *model, const bl_grid *grid);

/*! bl_item_sizes() : the sizes of all kinds of items. num_bytes: of the compute type; imbalance: max/mean rows of the
 *  ranks of an expert-parallel group, which the fullest rank needs room for. The head's item has the multi-token
 *  modules, and a second embedding matrix where it is tied but lies on another stage.  sizes[BL_ITEM_COUNT]. */
void bl_item_sizes(const bl_model *model, const bl_grid *grid, int32_t num_bytes, double imbalance,
                   bl_item_size *sizes);

double bl_grid_gradient_bytes(const bl_grid *grid);

/*! bl_grid_shard() : ranks of the dp x cp that hold one state under zero 1 or 3; replicas of it lie on the others. */
double bl_grid_shard(const bl_grid *grid);

/*! bl_grid_overlaps() : whether exchanges run beside the other direction of another micro-batch: overlap is wanted, the
 *  pipeline interleaved, and backward does not repeat them. */
bool bl_grid_overlaps(const bl_grid *grid);

/*! bl_grid_in_flight() : micro-batches whose activations the device of pipeline position `position` holds at once,
 *  as a multiple of all its stages': min(m, pp - position) without interleaving, else after Narayanan et al., and
 *  one stage's more where exchanges overlap. */
double bl_grid_in_flight(const bl_grid *grid, int32_t position);

/*! bl_footprint_of() : memory of a device that holds count[k] items of each kind, `in_flight` micro-batches at once. */
void bl_footprint_of(const bl_item_size *sizes, const int32_t *count, const bl_grid *grid, int32_t num_bytes,
                     double in_flight, bl_footprint *out);

#endif
