/* rank.h - one rank of a training run: what it shares with the others, what it holds, and the actions of a step.
 *
 * Every function bl_do_*() is one action of the step program (costmodel/step.h), named alike; executor/interpret.c
 * walks the program and calls them. Nothing here dereferences a device pointer. In a host-synchronised step counts and
 * choices reach the host in exchange_counts (gates with a capacity already in gate_fwd); in a planned one nothing does
 * before the step's end (executor/planned.h). */
#ifndef BL_EXECUTOR_RANK_H
#define BL_EXECUTOR_RANK_H

#include "base/status.h"
#include "costmodel/flop.h"
#include "costmodel/step.h"
#include "executor/backend.h"
#include "executor/data.h"
#include "executor/gates.h"
#include "executor/planned.h"
#include "executor/pool.h"
#include "executor/route.h"
#include "executor/spans.h"
#include "executor/transport.h"
#include "executor/weights.h"
#include "planner/policy.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum bl_exchange_mode { BL_EXCHANGE_HOST, BL_EXCHANGE_DEVICE } bl_exchange_mode;

/* What is the same for all ranks and fixed before they start. */
typedef struct bl_run {
  const bl_model *model;
  const bl_step *program;
  const bl_corpus *corpus;
  bl_gate gate;
  bl_policy_options policy;
  const int32_t *slots; /* [ep] */
  const int32_t *home;  /* [MoE layers][experts] to start from, or NULL: contiguous */
  int32_t ranks;         /* over which the batch is spread */
  int32_t ep;            /* over which the experts are spread; ranks / ep replicas of each expert */
  int32_t micro_batches;
  int32_t batch;     /* sequences of a step in all */
  int32_t top_k;     /* choices a token: the model's, or 1 under the switch gate */
  int32_t sequences; /* of one micro-batch on one rank = batch / (ranks * micro_batches) */
  bl_exchange_mode exchange;
  bool graphs;     /* planned exchanges: a step like the one before is captured and replayed, where that can be */
  double headroom; /* planned exchanges: room beyond the forecast, as a part of it */
  uint64_t seed;
  int64_t steps;           /* train up to this step */
  int64_t schedule_steps;  /* length of the learning-rate schedule */
  int64_t warmup;          /* steps of linear warm-up */
  double lr;               /* peak learning rate */
  bl_flop_convention flop; /* how the operations of the model are counted */
  double peak_flops;       /* of all devices of the run together; 0: by the device's name */
} bl_run;

/* Device buffers of one (micro-batch, layer) that live from one action to another; each is taken by the action that
 * writes it and given back by the last that reads it. */
typedef struct bl_saved {
  bl_chunk x, norm1, mean1, rstd1, qkv, attention, lse; /* attention half */
  bl_chunk mid, norm2, mean2, rstd2;                    /* feed-forward half */
  bl_chunk hidden, active;                              /* before and after GELU: dense layer, or rows of experts */
  bl_chunk logits, chosen, choice, weight, row;         /* gate: ids before and after dropping, weights, send rows */
  bl_chunk local_counts;
  bl_chunk by_expert, by_source; /* planned steps: the route's arrays, on the device */
  bl_chunk send, received, rows_in, rows_out, back;             /* rows on their way to the experts and back */
  bl_chunk dback, dweight, dout, drows, dhidden, dsend, dnorm2; /* their gradients */
  bl_route route;
  int32_t received_room, sent_room; /* rows for which its buffers have room, where memory is not the host's */
} bl_saved;

/* A dense weight and its gradient (NULL where the model has none). */
typedef struct bl_pair {
  bl_num *weight;
  float *grad;
} bl_pair;

typedef struct bl_layer_weights {
  bl_pair norm1_weight, norm1_bias, qkv_weight, qkv_bias, out_weight, out_bias;
  bl_pair norm2_weight, norm2_bias, fc1_weight, fc1_bias, fc2_weight, fc2_bias, gate_weight;
} bl_layer_weights;

/* How ranks see one expert in a layer; the same table on all ranks. */
enum { BL_HOSTED_NOT, BL_HOSTED_COPY, BL_HOSTED_HOME };

/* Experts, their hosts and the exchange of rows are a matter of one expert-parallel group: ranks x * ep .. (x + 1) * ep,
 * of which rank x * ep + e is the e-th. Groups hold replicas of the same experts at the same places: hosts are decided
 * from the counts of all groups together, so they move alike everywhere. */

/* What one MoE layer did in a step. */
typedef struct bl_layer_result {
  double imbalance; /* of tokens really processed: mean over micro-batches of max/mean */
  int32_t copies, moved;
  bool late;
} bl_layer_result;

typedef struct bl_step_result {
  double loss, balance_loss, grad_norm, lr;
  int64_t moved_bytes, fill_bytes; /* of all ranks together */
  int64_t plan_version;            /* how often hosts have changed since the run began */
  bl_layer_result *layer;          /* [MoE layers] */
  double phase_us[BL_ACTION_COUNT];
  bool stop;   /* some rank was asked to stop after this step */
  bool redone;   /* rows of a planned step had no room: it was made once more */
  bool replayed; /* all from the first action after homes have moved was one graph */
} bl_step_result;

/* Behind a rank's sums: marks that go round with them. */
enum { BL_SUM_STOP, BL_SUM_OVERFLOW, BL_SUM_MARKS };

typedef struct bl_rank {
  const bl_run *run;
  int32_t rank;
  bl_backend *be;
  bl_stream *s;      /* the step's own: compute, and exchanges that compute waits for */
  bl_stream *beside; /* fills of copies, under the attention of their layer */
  bl_event *forked;  /* where work on `beside` may begin */
  bl_event **filled; /* [MoE layers]: the layer's copies are here, and its homes' weights have been sent */
  bool *filling;     /* [MoE layers]: `s` has not waited for that event yet */
  bl_comm *comm;
  int32_t place;              /* in the expert-parallel group, 0..ep - 1 */
  bl_comm *ep_comm, *edp_comm; /* the group; the ranks with replicas of this one's experts. Views where edp > 1, owned */
  bl_policy *policy;
  bl_pool *pool;
  bl_weights weights;
  bl_layer_weights *layer; /* [layers] */
  bl_pair token, position, norm_weight, norm_bias;
  bl_forced_counts *forced; /* forced gates only */
  int32_t tokens;           /* of one micro-batch on this rank */

  bl_saved *saved;                  /* [micro_batches][layers + 1]; the last one holds only x, the input of the head */
  bl_chunk *dx;                     /* [micro_batches]: gradient of the residual stream on its way down */
  bl_chunk *token_ids, *target_ids; /* [micro_batches] */

  int64_t step;                   /* under way, from 1 */
  const atomic_int *stop_request; /* not 0: finish this step and stop */
  int64_t plan_version;
  uint64_t placement_hash;
  uint8_t *hosted;   /* [MoE layers][experts][ep]: BL_HOSTED_* */
  uint8_t *used;     /* likewise, not 0: a copy has taken tokens in this step, its gradient counts */
  uint8_t *wanted;   /* [experts][ep]: scratch */
  uint32_t *counts;  /* [MoE layers][sources][micro_batches][experts]: this step's, as a trace records them */
  uint8_t *gathered; /* exchange_counts: all ranks' records */
  /* Sums of this rank: of squares of each tensor's gradient, dense ones first, then (layer, expert, tensor); behind
   * them losses [micro_batches] and balance losses [MoE layers][micro_batches], then the marks. */
  double *device_sums;
  double *all_sums, *host_sums; /* [ranks] of that, on the device and at the step's end on the host */
  int64_t n_squares, n_sums;
  int32_t *square_order; /* [n_squares]: places in all_sums, in the order in which the norm adds them */
  bl_adamw *hyper;       /* device: of this step */
  bl_square_part *square_parts; /* scratch: of one layer's tensors */
  bl_adamw_part *adamw_parts;
  bl_step_result result;
  bl_planned *planned; /* NULL: every step is host-synchronised */
  bool planned_now;    /* the step under way is planned on the device */
  bl_graph *graph;     /* of planned steps with the hosts and sizes of graph_version; NULL: none */
  uint64_t graph_version, planned_version; /* planned_version: of the planned step before */
  int64_t graph_fill_bytes;
  bl_spans spans; /* of the program's actions, in the last step */

  int32_t *host_tokens, *host_targets; /* [micro_batches][tokens] */
  int32_t *host_ids, *mask_ids;        /* [tokens * top_k] */
  float *host_weights;                 /* [tokens * top_k], or [tokens * experts] for masks */
  int32_t *forced_count;               /* [experts] */
  uint32_t *layer_counts;              /* [ranks][experts] */
  double *expert_load;                 /* [experts] */
  double *source_load;                 /* [ep][experts] */
  bl_shares *group_shares;             /* of this group's own counts; NULL where it is the only group */
  int64_t *group_tokens, *all_tokens;  /* [MoE layers][micro-batches] of this rank, [ranks] of that; likewise */
  int64_t *send_bytes, *recv_bytes;    /* [ep] */
  bl_group *group;                     /* [experts] */
  bool moment_flipped;                 /* by the test hook of adapt.c */
  bl_chunk *incoming;                  /* [ep * experts]: gradients of copies on their way home */
} bl_rank;

/*! bl_rank_create() : a rank with its policy, buffers and contiguous (or given) homes; the weights are undefined until
 *  bl_weights_initialise() or a checkpoint. `backend` and `comm` are borrowed, the comm's group is all ranks. Fails as
 *  its parts do; free with bl_rank_free() also then. */
bl_status bl_rank_create(const bl_run *run, int32_t rank, bl_backend *backend, bl_comm *comm, bl_rank *out);
void bl_rank_free(bl_rank *r);

/*! bl_rank_adopt_policy_homes() : the same with the policy's present homes. */
bl_status bl_rank_adopt_policy_homes(bl_rank *r);

/*! bl_rank_step() : one training step, r->step + 1, as the program says (executor/interpret.c). On return r->result
 * tells what happened and r->counts what was routed. */
bl_status bl_rank_step(bl_rank *r);

static inline bl_saved *bl_rank_saved(const bl_rank *r, int32_t layer, int32_t micro_batch) {
  return &r->saved[micro_batch * (r->run->model->layers + 1) + layer];
}
/* Of all ranks' sums, at the step's end: those of rank p. */
static inline const double *bl_rank_sums(const bl_rank *r, int32_t p) {
  return r->host_sums + (int64_t)p * (r->n_sums + BL_SUM_MARKS);
}
static inline int32_t bl_run_replicas(const bl_run *run) { return run->ranks / run->ep; }

/* Position of a rank's counts in a trace: the ranks at one place of all groups together, so that a replay for `ep` ranks,
 * which folds neighbouring sources, gives each place what its ranks have sent. */
static inline int32_t bl_run_source(const bl_run *run, int32_t rank) {
  return rank % run->ep * bl_run_replicas(run) + rank / run->ep;
}
static inline uint8_t *bl_rank_hosted(const bl_rank *r, int32_t moe, int32_t expert) {
  return &r->hosted[(moe * r->run->model->experts + expert) * r->run->ep];
}
static inline uint8_t *bl_rank_used(const bl_rank *r, int32_t moe, int32_t expert) {
  return &r->used[(moe * r->run->model->experts + expert) * r->run->ep];
}

/*! bl_take_num(), bl_take_f32(), bl_take_i32() : a pool buffer of n numbers of the compute type, floats, ids. */
static inline bl_status bl_take_num(bl_rank *r, int64_t n, bl_chunk *out) {
  return bl_pool_take(r->pool, (size_t)n * r->be->num_bytes, out);
}
static inline bl_status bl_take_f32(bl_rank *r, int64_t n, bl_chunk *out) {
  return bl_pool_take(r->pool, (size_t)n * sizeof(float), out);
}
static inline bl_status bl_take_i32(bl_rank *r, int64_t n, bl_chunk *out) {
  return bl_pool_take(r->pool, (size_t)n * sizeof(int32_t), out);
}

/* Dense actions (layers.c) */
bl_status bl_do_embed_fwd(bl_rank *r, int32_t micro_batch);
bl_status bl_do_embed_bwd(bl_rank *r, int32_t micro_batch);
bl_status bl_do_attention_fwd(bl_rank *r, int32_t layer, int32_t micro_batch);
bl_status bl_do_attention_bwd(bl_rank *r, int32_t layer, int32_t micro_batch);
bl_status bl_do_ffn_fwd(bl_rank *r, int32_t layer, int32_t micro_batch);
bl_status bl_do_ffn_bwd(bl_rank *r, int32_t layer, int32_t micro_batch);
bl_status bl_do_head(bl_rank *r, int32_t micro_batch);

/* Routing (gate_actions.c) */
bl_status bl_do_gate_fwd(bl_rank *r, int32_t layer, int32_t micro_batch);
bl_status bl_do_gate_bwd(bl_rank *r, int32_t layer, int32_t micro_batch);
bl_status bl_do_exchange_counts(bl_rank *r, int32_t layer, int32_t micro_batch);
bl_status bl_do_solve_shares(bl_rank *r, int32_t layer, int32_t micro_batch);

/*! bl_rank_upload_mask() : what a forced gate adds to the logits of a MoE layer and micro-batch, floats
 *  [tokens][experts] at `mask` on the device. */
bl_status bl_rank_upload_mask(bl_rank *r, int32_t moe, int32_t micro_batch, void *mask);

/*! bl_rank_record_counts() : counts[ranks][experts] of all ranks go to the step's record and become the layer's counts
 *  (layer_counts). @return : BL_EMACHINE where a forced gate did not give what was asked for. */
bl_status bl_rank_record_counts(bl_rank *r, int32_t moe, int32_t micro_batch, const uint32_t *counts);

/*! bl_rank_tell_policy() : the layer's counts to the policy. */
bl_status bl_rank_tell_policy(bl_rank *r, int32_t moe, bl_policy_outcome *outcome);

/* Rows and experts (experts.c) */
bl_status bl_do_scatter(bl_rank *r, int32_t layer, int32_t micro_batch);
bl_status bl_do_dispatch(bl_rank *r, int32_t layer, int32_t micro_batch);
bl_status bl_do_expert_fwd(bl_rank *r, int32_t layer, int32_t micro_batch);
bl_status bl_do_combine(bl_rank *r, int32_t layer, int32_t micro_batch);
bl_status bl_do_gather(bl_rank *r, int32_t layer, int32_t micro_batch);
bl_status bl_do_gather_bwd(bl_rank *r, int32_t layer, int32_t micro_batch);
bl_status bl_do_combine_bwd(bl_rank *r, int32_t layer, int32_t micro_batch);
bl_status bl_do_expert_dx(bl_rank *r, int32_t layer, int32_t micro_batch);
bl_status bl_do_dispatch_bwd(bl_rank *r, int32_t layer, int32_t micro_batch);
bl_status bl_do_expert_dw(bl_rank *r, int32_t layer, int32_t micro_batch);
bl_status bl_do_scatter_bwd(bl_rank *r, int32_t layer, int32_t micro_batch);

/*! bl_rank_take_order() : a pool buffer for an order of the rows at a (layer, micro-batch)'s experts. */
bl_status bl_rank_take_order(bl_rank *r, bl_saved *a, bl_chunk *out);

/* Hosts (adapt.c) */

/*! bl_rank_note_hosts() : takes the policy's hosts of all layers as those in force, for the ranks to agree on. */
void bl_rank_note_hosts(bl_rank *r);
bl_status bl_do_choose_hosts(bl_rank *r);
bl_status bl_do_move_home(bl_rank *r, int32_t layer);
bl_status bl_do_copy_fill(bl_rank *r, int32_t layer);

/*! bl_rank_await_fills() : work on the step's own stream from now on finds the copies of a MoE layer filled. */
void bl_rank_await_fills(bl_rank *r, int32_t moe);
bl_status bl_do_late_fill(bl_rank *r, int32_t layer, int32_t micro_batch);
bl_status bl_do_copy_reduce(bl_rank *r, int32_t layer);

/* End of the step (optimizer.c); layer -1 = embedding and head */
bl_status bl_do_expert_reduce(bl_rank *r, int32_t layer);
bl_status bl_do_dense_reduce(bl_rank *r, int32_t layer);
bl_status bl_do_square_grads(bl_rank *r, int32_t layer);
bl_status bl_do_grad_norm(bl_rank *r);
bl_status bl_do_optimizer(bl_rank *r, int32_t layer);

/*! bl_rank_begin_update() : what the optimizer needs to know of the step goes to the device, marks are cleared. */
void bl_rank_begin_update(bl_rank *r);

/*! bl_rank_note_stop() : a wish to stop goes round with this step's sums. */
void bl_rank_note_stop(bl_rank *r);

/*! bl_rank_read_sums() : after the wait at a step's end: norm, losses and the wish to stop. BL_EINPUT where the loss is
 *  no number. */
bl_status bl_rank_read_sums(bl_rank *r);

/*! bl_learning_rate() : linear warm-up over `warmup` steps, then cosine from `peak` down to a tenth of it at
 *  `schedule_steps`; step from 1. */
double bl_learning_rate(double peak, int64_t step, int64_t warmup, int64_t schedule_steps);

#endif
