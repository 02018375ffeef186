/* search.h - the best layouts of a model on a cluster: every fold of the two grids, pruned by bounds.
 *
 * The space: tp, cp, dp, pp with product `ranks`; etp, ep, edp with the product of tp, cp, dp; micro-batches of up to
 * max_micro_batch sequences; vp up to max_vp; zero 0, 1, 3; recomputation none, selective, ffn, full. A layout that
 * holds too much even were it spread evenly is pruned, so is one whose bound is no better than the K-th best; the
 * others' stages are divided exactly (stages.h) and priced (price.h). Deterministic. */
#ifndef BL_PLANNER_SEARCH_SEARCH_H
#define BL_PLANNER_SEARCH_SEARCH_H

#include "costmodel/plan.h"
#include "planner/search/stages.h"

typedef struct bl_search_options {
  const bl_model *model;
  const bl_cluster *cluster;
  int32_t ranks, batch;    /* batch: sequences of a step, of all ranks */
  double memory_bytes;     /* that a rank of the cluster's first device may fill; of others in proportion */
  const double *imbalance; /* [experts + 1]: max/mean rows of a rank, by ep */
  int32_t max_vp, max_micro_batch, copy_slots;
  int32_t gradient_bytes, shard; /* 0: 4; all of dp x cp */
  bool node_dispatch, overlap;
  bl_grid fixed; /* sizes that are 0 are free; micro_batches and copy_slots are not looked at */
  bool zero_fixed, recompute_fixed;
  int32_t top;      /* layouts to keep, 1 .. BL_SEARCH_MAX_TOP */
  int32_t pieces;   /* most pieces of a MoE layer's rows that simulations try, by doubling; 0: 1 */
  int32_t simulate; /* layouts to simulate at most, beside the kept ones; 0: closed form only */
} bl_search_options;

/* Why layouts are not priced: name, sentence. */
#define BL_SEARCH_REASON_LIST(X)                                      \
  X(HEADS, "tp does not divide the heads")                            \
  X(SEQUENCE, "cp > 1, and 2 cp does not divide the sequence")        \
  X(STAGES, "more stages than layers")                                \
  X(BATCH, "dp does not divide the batch")                            \
  X(WIDTH, "etp does not divide the experts' width")                  \
  X(EXPERTS, "ep does not divide the experts")                        \
  X(INTERLEAVING, "vp > 1, and pp does not divide the micro-batches") \
  X(MEMORY_BOUND, "too much memory, even spread evenly")              \
  X(TIME_BOUND, "the bound is no better than what was found")         \
  X(MEMORY, "too much memory on the fullest rank, however its stages are divided")

typedef enum bl_search_reason {
#define X(name, text) BL_SEARCH_##name,
  BL_SEARCH_REASON_LIST(X)
#undef X
      BL_SEARCH_REASON_COUNT
} bl_search_reason;

extern const char *const bl_search_reasons[BL_SEARCH_REASON_COUNT];

typedef struct bl_search_entry {
  bl_grid grid;
  bl_step_price price;     /* in closed form */
  bl_step_price simulated; /* survivor.h; step_us 0: not simulated */
  bl_footprint memory;     /* of the fullest position */
  double memory_share;     /* of its devices' memory in that of the cluster's first */
  double bound_us, imbalance;
  int32_t first[BL_STAGES_MAX + 1]; /* stages */
} bl_search_entry;

enum { BL_SEARCH_MAX_TOP = 100, BL_SEARCH_MAX_RANKS = 1 << 20 };

typedef struct bl_search_result {
  int32_t n; /* entries, best first; each differs from the others in more than zero and recomputation */
  bl_search_entry *entry;
  int64_t folds, layouts, priced; /* folds of the grids; complete layouts, pruned or priced */
  int64_t rejected[BL_SEARCH_REASON_COUNT];
  bl_grid example[BL_SEARCH_REASON_COUNT]; /* the first of each; sizes that were not reached are 0 */
  double bound_us;                         /* least bound of the layouts that memory does not rule out */
  int32_t simulated;                       /* layouts simulated; the fields that follow are for more than 0 */
  int64_t hopeful;    /* layouts whose actions were priced for a bound: sums at hand did not rule them out */
  int64_t divided;    /* of those, whose stages were divided: the bound of any division did not rule them out */
  int64_t open;       /* layouts whose bound is below the best one's time, but were not simulated */
  double proved_us;   /* no layout of the space is simulated to take less, as their blocks' bounds say */
  double roofline_us; /* the model's arithmetic at tflops * efficiency (with a profile tflops) on all ranks */
} bl_search_result;

/*! bl_search() : @return : BL_OK, also where nothing fits (result n = 0); BL_EINPUT for options out of range;
 *  BL_EMACHINE. The caller frees with bl_search_free(). */
bl_status bl_search(const bl_search_options *options, bl_search_result *out);
void bl_search_free(bl_search_result *result);

/*! bl_search_simulate() : the second stage. Simulates the entries; then all other layouts whose bound (block_bound.h)
 * is below the best simulated time, dearest closed form last, at most options->simulate of them. Entries become the K
 *  fastest of what was simulated, fastest first. Called by bl_search().  @return : BL_OK, BL_EMACHINE (`result` is then
 * freed). */
bl_status bl_search_simulate(const bl_search_options *options, bl_search_result *result);

/*! bl_search_visit() : every complete layout of the space, in the order of the search, with its costs. */
typedef void (*bl_search_visitor)(void *context, const bl_grid *grid, const bl_grid_costs *costs);
bl_status bl_search_visit(const bl_search_options *options, bl_search_visitor visit, void *context);

/*! bl_search_may_fit() : false where a layout holds too much even were it spread evenly. */
bool bl_search_may_fit(const bl_search_options *options, const bl_grid *grid, const bl_grid_costs *costs);

/*! bl_search_price() : divides and prices one complete grid.  @return : whether it fits; where it does not, entry has
 *  the memory of the division without a limit. */
bool bl_search_price(const bl_search_options *options, const bl_grid *grid, bl_search_entry *entry);

/*! bl_search_least_memory() : the layout whose fullest rank holds least of its memory, whatever its time; its step is
 *  priced too.
 *  @return : BL_OK, or BL_EINPUT where no layout folds at all. */
bl_status bl_search_least_memory(const bl_search_options *options, bl_search_entry *entry);

/*! bl_search_layout() : the layout as a plan has it; the caller frees with bl_layout_free(). */
bl_status bl_search_layout(const bl_search_options *options, const bl_search_entry *entry, bl_layout *layout);

#endif
