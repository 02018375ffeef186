/* plan.h - layouts and placements, and the plan file that carries them (DESIGN section 7).
 *
 * A placement gives every expert of every layer one home rank of the expert-parallel group and any number of copies. */
#ifndef BL_COSTMODEL_PLAN_H
#define BL_COSTMODEL_PLAN_H

#include "base/status.h"
#include "costmodel/plan_price.h"
#include "costmodel/plan_search.h"
#include <stdbool.h>
#include <stdint.h>

/* In the file, "recompute" (none, selective, ffn, full), "pieces", "overlap" (none, exchange), "dispatch" (choices,
 * nodes) and "gradients" (fp32, bf16) may be left out of a layout: none, 1, none, choices, fp32; so may be "shard",
 * "copy_slots", "type", "sequence" and "ranks_per_node".
 * World = tp x cp x dp x pp = etp x ep x edp x pp: the attention grid and the expert grid fold independently. */
typedef struct bl_layout {
  int32_t tp, cp, dp, pp, vp, etp, ep, edp;
  int32_t zero;           /* 0, 1 or 3 */
  int32_t micro_batch;    /* sequences in one micro-batch of one data-parallel rank */
  int32_t micro_batches;  /* micro-batches in a step */
  int32_t recompute;      /* what backward computes again: a bl_recompute (footprint.h) */
  int32_t pieces;         /* parts of a MoE layer's rows whose exchange runs beside others' experts; 1: whole */
  bool overlap;           /* interleaved pipelines exchange rows of one micro-batch beside another's compute */
  bool node_dispatch;     /* a row crosses nodes once for each node that needs it, not once a choice */
  int32_t shard;          /* ranks over which zero 1 or 3 spreads, with replicas between them; 0: all of dp x cp */
  int32_t gradient_bytes; /* of a number that gradients are summed and reduced in: 2; 4 or 0: fp32 */
  int32_t copy_slots; /* experts of a layer that a rank can hold beyond its homes; a placement's slots stand above */
  int32_t sequence;   /* tokens of a sequence; 0: the model's */
  int32_t ranks_per_node; /* ranks used of each node; 0: all that the cluster has */
  char type[16];          /* of products with weights, one of the cluster's; "": that of all else */
  int32_t n_stages;       /* pp * vp */
  int32_t *stage_first;   /* [n_stages + 1]: stage s holds layers stage_layers[stage_first[s] .. stage_first[s+1]) */
  int32_t *stage_layers;  /* [all layers] */
} bl_layout;

typedef struct bl_copy {
  int32_t expert, rank;
  double share; /* of the expert's tokens, in (0,1]; the home takes the rest; a hint, quotas are what runs */
} bl_copy;

/* What a search with a proof said of a layer. */
typedef struct bl_plan_proof {
  bool given;
  double within;       /* the imbalance that was allowed */
  int32_t copies;      /* -1: no placement within it was found; the layer's is another rule's */
  int32_t moves;       /* homes that left where they were */
  double move_price;   /* of one, in copies */
  double price, bound; /* copies + move_price * moves, and proved: none is lower */
  char proof[32];      /* name of the bound's proof */
  char solver[24];     /* how the solver ended */
  char reason[192];    /* one sentence where price and bound do not meet or the solver failed; else "" */
  double seconds;
} bl_plan_proof;

typedef struct bl_layer_placement {
  int32_t layer;
  int32_t *home; /* [experts] */
  bl_copy *copies;
  int32_t n_copies;
  double imbalance, bound; /* predicted max/mean load; proved lower bound of it */
  const char *proof;       /* name of the bound's proof; a static string */
  bl_plan_proof proved;
  int32_t *feeder;       /* [n_copies]: the rank that fills each copy, "from" in the file; NULL: homes fill all */
  bl_layer_price *price; /* NULL: none */
} bl_layer_placement;

typedef struct bl_placement {
  int32_t ranks, experts, layers;
  int32_t *slots;  /* [ranks]: distinct experts a rank can hold, homes plus copies */
  bool even_split; /* shares are whole numbers of equal replicas, for stacks that cannot split otherwise */
  bl_layer_placement *layer;
} bl_placement;

typedef struct bl_plan {
  bool has_layout, has_placement, has_predicted, has_bound;
  bl_layout layout;
  bl_placement placement;
  double predicted_step_us, predicted_imbalance, predicted_memory_bytes;
  double bound_imbalance, bound_gap;
  char bound_proof[64];
  bl_plan_search *search; /* of the layout; owned, NULL: none */
} bl_plan;

/*! bl_home_contiguous() : expert e lives at e / ceil(experts / ranks). Works where ranks do not divide experts. */
int32_t bl_home_contiguous(int32_t expert, int32_t experts, int32_t ranks);

/*! bl_layout_default() : dp = ep = ranks, everything else 1, one stage with `layers` layers. */
bl_status bl_layout_default(bl_layout *layout, int32_t ranks, int32_t layers, int32_t micro_batch,
                            int32_t micro_batches);
void bl_layout_free(bl_layout *layout);

/*! bl_layout_check() : the two grids fold to the same world, stages cover every layer once, all sizes positive. */
bl_status bl_layout_check(const bl_layout *layout, int32_t layers, const char *where);

/*! bl_placement_create() : contiguous homes, no copies, `slots_per_rank` slots (or 0: as many as homes need).
 *  The placement owns all its arrays; copies[] is replaced through bl_placement_set_copies. */
bl_status bl_placement_create(int32_t ranks, int32_t experts, int32_t layers, int32_t slots_per_rank,
                              bl_placement *out);
bl_status bl_placement_set_copies(bl_placement *placement, int32_t layer, const bl_copy *copies, int32_t n);

/*! bl_placement_set_feeders() : after the layer's copies: who fills them; feeder[n_copies] is copied.
 *  bl_placement_set_price() : what the layer costs; copied. */
bl_status bl_placement_set_feeders(bl_placement *placement, int32_t layer, const int32_t *feeder);
bl_status bl_placement_set_price(bl_placement *placement, int32_t layer, const bl_layer_price *price);
void bl_placement_free(bl_placement *placement);

/*! bl_placement_check() : every home and copy names an existing rank, no rank holds an expert twice or more experts
 *  than its slots, slots exceed no number of experts, shares lie in (0,1] and sum to at most 1, a copy is filled by a
 *  host of its expert, in the end its home.  `where` opens the sentence. */
bl_status bl_placement_check(const bl_placement *placement, const char *where);

bl_status bl_plan_load(const char *path, bl_plan *out);        /* strict; checks layout and placement */
bl_status bl_plan_save(const char *path, const bl_plan *plan); /* atomic */
void bl_plan_free(bl_plan *plan);

#endif
