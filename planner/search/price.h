/* price.h - what a training step takes under a layout, in closed form.
 *
 * Each kind of item (embedding, layers, head) has a price per micro-batch; a device's time is the sum over its items;
 * the pipeline adds its bubble; gradients' reduction and the optimizer follow. What is assumed:
 * - Products with weights take the longer of their arithmetic, at the rate of the data type, and their weights'
 *   bytes, at memory_gbps. Backward is one such product for the gradients of the inputs, and one for those of the
 *   weights, which reads and writes what it adds to once its sums are done: no arithmetic hides that. Arithmetic is
 *   done in tiles of 128 x 128, the last of which are half empty on average: factors (1 + 64 / rows) (1 + 64 / width).
 * - The head's product stays in the type of num_bytes, as Megatron-LM's output layer does under narrower types; the
 *   loss takes the passes over fp32 logits of its vocab-parallel cross-entropy (core/tensor_parallel/cross_entropy.py).
 * - Attention cores and scans have no weights and run in the type of num_bytes; a core's backward is 2.5 times its
 *   forward, which it repeats (arXiv 2307.08691). What is neither (norms, residuals, rotations, activation functions,
 *   scatter and gather, scores) takes its bytes. Each kind of work takes call_us besides. Whoever launches them is
 *   ahead: a host that launches each kernel takes longer than small micro-batches compute (tests/cli/fit_published.py
 *   has such throughputs beside the prices).
 * - The slowest of a position's devices sets its pace (positions.h): their speeds spread normally.
 * - tp: the sequence is split beside the matrices (arXiv 2205.05198): an all-gather and a reduce-scatter for each of
 *   mixer, feed-forward and shared experts, forward and backward, not overlapped.
 * - cp: keys and values travel a ring under the attention core (arXiv 2310.01889); what exceeds it is exposed. A
 *   state-space layer exchanges sequences for heads and back.
 * - ep: dispatch and combine, forward and backward; every choice travels by itself, or under node_dispatch once to
 *   each node that it needs, n (1 - (1 - 1/n)^k) of n nodes for k even choices, at most those that hold group_top_k of
 *   the groups, and once to each rank within it. etp gathers rows. Under overlap, an interleaved pipeline (vp > 1) runs
 *   them beside the other direction of another micro-batch, all but those of its warm-up.
 * - pp: m W + (sum of positions - W) / vp, where W is the slowest one's micro-batch: for vp = 1 what a flush schedule
 *   takes; for vp > 1 the bubble is the vp-th part (arXiv 2104.04473). Sends are exposed only where vp = 1, else they
 *   run under compute.
 * - Copies are filled once and reduced once a step, each over the slowest link of its group, as the weights and
 *   gradients.
 * - Recomputation repeats forward of what it covers, exchanges included; what is selective costs its memory traffic.
 * - Gradients, in fp32 unless told otherwise, are reduced under the last backward, weights gathered under the first
 *   forward, all but those of one layer; under zero 3 both in every micro-batch.
 *   Where the state has replicas (shard), each layer's gradients are all-reduced between them behind their
 *   reduce-scatter, exposed.
 * - A ring passes all its ranks: one latency for each hop, of the link that it takes.
 * - What a profile measured takes the place of these, kind by kind (profiled.h).
 * - Whatever is sent under compute takes processors from it: BL_PRICE_STOLEN of its time.
 * - A group whose ranks lie on several nodes exchanges over all kinds of link at once, the slowest one counts; its
 *   rings use a network card for each of its ranks in a node, and of a rack's uplink their part. Of groups of a kind
 *   that lie differently, or whose ranks are unevenly many in their nodes, the worst counts. */
#ifndef BL_PLANNER_SEARCH_PRICE_H
#define BL_PLANNER_SEARCH_PRICE_H

#include "costmodel/cluster.h"
#include "costmodel/work.h"
#include "planner/search/positions.h"

/* DeepEP's kernels take 24 of the 132 multiprocessors of an H100 (github.com/deepseek-ai/DeepEP, README). */
#define BL_PRICE_STOLEN (24.0 / 132)

typedef struct bl_item_price {
  double us[BL_PRICE_COUNT]; /* of a micro-batch, forward and backward */
  double total;
} bl_item_price;

/* What prices of a kind of positions follow from. */
typedef struct bl_position_costs {
  bl_item_price price[BL_ITEM_COUNT];
  double down_us, up_us; /* a micro-batch's numbers to the next position; its gradients to the one before */
  double dense_gather_us, dense_reduce_us; /* a parameter: weights gathered over dp x cp, gradients reduce-scattered */
  double expert_gather_us, expert_reduce_us; /* likewise over edp */
  double replica_us, replica_layer_us;       /* between replicas of a sharded state, a parameter and a layer */
  double fill_byte_us, reduce_byte_us;       /* a byte filled or reduced between a copy and its home */
  double update_byte_us, square_byte_us;     /* a byte of state updated; of gradients zeroed and squared */
} bl_position_costs;

/* What the prices of a layout follow from; made once a layout. */
typedef struct bl_grid_costs {
  const bl_positions *positions; /* borrowed */
  bl_item_size size[BL_ITEM_COUNT];
  bl_position_costs at[BL_POSITION_KINDS]; /* of each kind of positions */
} bl_grid_costs;

static inline const bl_position_costs *bl_costs_at(const bl_grid_costs *costs, int32_t position) {
  return &costs->at[costs->positions->kind[position]];
}

typedef struct bl_step_price {
  double us[BL_PRICE_COUNT]; /* of the device that sets the pace */
  double step_us;
} bl_step_price;

/*! bl_grid_cost() : item sizes and prices under a grid whose positions are known. imbalance: see bl_item_sizes(). */
void bl_grid_cost(const bl_model *model, const bl_positions *positions, const bl_grid *grid, double imbalance,
                  bl_grid_costs *out);

/*! bl_grid_work() : the same prices action by action, for bl_simulate_pipeline(), of one kind of positions: their sums
 *  over a layer are those of bl_grid_cost() where nothing overlaps and rows are in one piece. Deciding and exchanging
 *  counts is taken as hidden, zeroing gradients counts with squaring them, and so do sums over replicas of a sharded
 *  state. */
void bl_grid_work(const bl_model *model, const bl_positions *positions, int32_t kind, const bl_grid *grid,
                  double imbalance, bl_work *out);

/*! bl_grid_sheet() : actions of a rank by itself with so many tokens, on the first of the positions' kinds, as its data
 *  sheet has it: nothing measured. */
void bl_grid_sheet(const bl_model *model, const bl_positions *positions, double tokens, bl_work *out);

/*! bl_price_update() : the optimizer on so many parameters of a rank, and zeroing and squaring their gradients; what a
 *  byte takes as in bl_position_costs. */
void bl_price_update(const bl_grid *grid, int32_t num_bytes, double update_byte_us, double square_byte_us, double dense,
                     double expert, double *update_us, double *square_us);

/*! bl_device_us() : microseconds of a micro-batch on a device with count[k] items of each kind. */
double bl_device_us(const bl_position_costs *costs, const int32_t *count);

/*! bl_price_step() : the step, for counts[pp][BL_ITEM_COUNT], the items of each pipeline position. */
void bl_price_step(const bl_grid *grid, const bl_grid_costs *costs, const int32_t *counts, bl_step_price *out);

/*! bl_price_bound() : at most the price of any division of the model's items, count[k] in all, into stages. */
double bl_price_bound(const bl_grid *grid, const bl_grid_costs *costs, const int32_t *count);

#endif
