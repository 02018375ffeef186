/* step.h - the step program: everything that one training step does at one pipeline position, as a graph of actions.
 *
 * One program, two interpreters: costmodel/simulate prices it with a profile, executor/interpret runs it with a backend
 * and a transport; planner/passes rewrite it. It is a template over symbolic token counts: built when the layout or an
 * option changes, never per step. All ranks of a pipeline position run the same program; what differs (tokens, quotas,
 * copies) is looked up when an action runs.
 *
 * An action names the buffers it reads and writes; from them follow its waits (read after write, write after read,
 * write after write; a sum into a buffer is a read and a write). The issue order is total: the interpreter walks
 * order[] from front to back and never reorders; each resource executes its own actions in that order. A pass permutes
 * order[] and keeps the waits; bl_step_check() proves that the result is sound.
 *
 * When things run. The program begins where the last optimizer ended:
 *   choose_hosts, move_home (all layers), zero_grads,
 *   for each micro-batch: forward layer by layer, head, backward layer by layer; in the first, copy_fill of a layer is
 *     issued before the layer's attention, so that it runs under it and ends before the layer's first expert_fwd,
 *   copy_reduce, expert_reduce, dense_reduce (once a step), square_grads, grad_norm, optimizer.
 *
 * Blocks. The forward of one stage and micro-batch is a block, so is its backward (recomputation included, the head
 * too): an action knows its part, chunk (which of the position's vp stages) and micro-batch. As built, a position runs
 * one micro-batch after the other through all its stages; planner/passes/pipeline orders the blocks of several
 * positions. Sends and receives of one neighbour match in order. Each kind has a queue of its own, so none waits behind
 * another. */
#ifndef BL_COSTMODEL_STEP_H
#define BL_COSTMODEL_STEP_H

#include "costmodel/group.h"
#include "costmodel/model.h"
#include "costmodel/plan.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Resources: each runs one action at a time, in issue order. */
#define BL_RESOURCE_LIST(X)                                                     \
  X(COMPUTE, "compute")           /* the compute stream */                      \
  X(INTRA_LINK, "intra_link")     /* links inside a node (or of one process) */ \
  X(INTER_LINK, "inter_link")     /* links between nodes */                     \
  X(NETWORK_CARD, "network_card") /* shared by the ranks of a node */           \
  X(SEND_DOWN, "send_down")       /* activations to the next stage */           \
  X(RECV_DOWN, "recv_down")       /* and from the one before */                 \
  X(SEND_UP, "send_up")           /* gradients to the stage before */           \
  X(RECV_UP, "recv_up")           /* and from the next */                       \
  X(HOST_COPY, "host_copy")       /* copy engine between host and device */     \
  X(HOST_CPU, "host_cpu")         /* decisions: hosts, shares, quotas */        \
  X(LAUNCH, "launch")             /* the thread that issues work */

typedef enum bl_resource {
#define X(name, text) BL_RESOURCE_##name,
  BL_RESOURCE_LIST(X)
#undef X
      BL_RESOURCE_COUNT,
  BL_RESOURCE_LINK = BL_RESOURCE_COUNT /* in the list below: INTRA_LINK or INTER_LINK, by the group */
} bl_resource;

/* What an action's cost grows with; the interpreter looks the number up for its rank (and layer, micro-batch). */
#define BL_AMOUNT_LIST(X)                                                                             \
  X(NONE, "nothing: a constant")                                                                      \
  X(TOKENS, "tokens of this rank in the micro-batch")                                                 \
  X(CHOICES, "token copies that this rank's gate sends: tokens * top_k, less dropped ones")           \
  X(EXPERT_ROWS, "rows that the experts on this rank take, expert by expert, by the quotas")          \
  X(EXCHANGE_ROWS, "rows that this rank sends to and receives from each peer, by the quotas")         \
  X(GROUP_ROWS, "rows of EXPERT_ROWS, gathered over the ranks that share an expert")                  \
  X(COUNTS, "one count an expert")                                                                    \
  X(COPY_WEIGHTS, "weights of the layer's copies that leave or reach this rank, compute type")        \
  X(COPY_GRADS, "gradients of the layer's copies that leave or reach this rank, fp32")                \
  X(LATE_COPIES, "weights of copies placed by late repair, and gradients of those they displace")     \
  X(HOME_GRADS, "gradients of the layer's experts at home on this rank, fp32")                        \
  X(DENSE_GRADS, "gradients of the layer's dense part (layer -1: embedding and head), fp32")          \
  X(DENSE_WEIGHTS, "weights of the layer's dense part, compute type")                                 \
  X(HOME_WEIGHTS, "weights of the layer's experts at home on this rank, compute type")                \
  X(PARAMETERS, "parameters of the layer that this rank owns (layer -1: embedding and head, or all)") \
  X(MOVED_STATE, "training state of the layer's homes that leave or reach this rank")                 \
  X(ACTIVATIONS, "tokens * hidden of the micro-batch")                                                \
  X(EXPERT_WEIGHTS, "weights of one expert, compute type")

typedef enum bl_amount_kind {
#define X(name, text) BL_AMOUNT_##name,
  BL_AMOUNT_LIST(X)
#undef X
      BL_AMOUNT_COUNT
} bl_amount_kind;

/* Action kinds: name, text (the phase of the run log and the simulator), resource, group, amount, what it does.
 * Resource LINK is INTRA_LINK, or INTER_LINK where the group spans nodes. */
#define BL_ACTION_LIST(X)                                                                                             \
  /* between steps */                                                                                                 \
  X(CHOOSE_HOSTS, "choose_hosts", HOST_CPU, NONE, NONE, "hosts of all layers for this step, from past counts")        \
  X(MOVE_HOME, "move_home", LINK, EP, MOVED_STATE, "weight, master, moments of moved experts to their new homes")     \
  X(COPY_FILL, "copy_fill", LINK, EP, COPY_WEIGHTS, "weights of the layer's copies, from their homes")                \
  X(ZERO_GRADS, "zero_grads", COMPUTE, NONE, PARAMETERS, "all gradients of this rank, those of copies too")           \
  /* forward */                                                                                                       \
  X(EMBED_FWD, "embed_fwd", COMPUTE, NONE, TOKENS, "x = token + position")                                            \
  X(ATTENTION_FWD, "attention_fwd", COMPUTE, NONE, TOKENS, "norm1, qkv, attention, out, residual")                    \
  X(STATE_SPACE_FWD, "state_space_fwd", COMPUTE, NONE, TOKENS, "norm1, projections, convolution, scan, residual")     \
  X(FFN_FWD, "ffn_fwd", COMPUTE, NONE, TOKENS, "dense layer: norm2, fc1, activation, fc2, residual")                  \
  X(GATE_FWD, "gate_fwd", COMPUTE, NONE, TOKENS, "norm2, logits, choices and weights, counts of this rank")           \
  X(SHARED_FWD, "shared_fwd", COMPUTE, NONE, TOKENS, "shared experts on norm2's output")                              \
  X(EXCHANGE_COUNTS, "exchange_counts", LINK, EP, COUNTS, "counts (and placement hash) of all ranks to all")          \
  X(SOLVE_SHARES, "solve_shares", HOST_CPU, NONE, NONE, "shares and quotas of this layer and micro-batch")            \
  X(LATE_FILL, "late_fill", LINK, EP, LATE_COPIES, "late repair only: displaced gradients home, new copies filled")   \
  X(SCATTER, "scatter", COMPUTE, NONE, CHOICES, "tokens into the send buffer, by host")                               \
  X(DISPATCH, "dispatch", LINK, EP, EXCHANGE_ROWS, "rows to the hosts of their experts")                              \
  X(EXPERT_FWD, "expert_fwd", COMPUTE, NONE, EXPERT_ROWS, "rows by expert: fc1, activation, fc2, rows by source")     \
  X(COMBINE, "combine", LINK, EP, EXCHANGE_ROWS, "rows back to their sources")                                        \
  X(GATHER, "gather", COMPUTE, NONE, CHOICES, "x += weighted sum of the rows (and of the shared experts)")            \
  X(HEAD, "head", COMPUTE, NONE, TOKENS, "final norm, logits, loss, and the backward of all three")                   \
  /* backward */                                                                                                      \
  X(GATHER_BWD, "gather_bwd", COMPUTE, NONE, CHOICES, "gradients of rows and of gate weights")                        \
  X(SHARED_BWD, "shared_bwd", COMPUTE, NONE, TOKENS, "shared experts: input and weight gradients")                    \
  X(COMBINE_BWD, "combine_bwd", LINK, EP, EXCHANGE_ROWS, "row gradients to the hosts")                                \
  X(EXPERT_DX, "expert_dx", COMPUTE, NONE, EXPERT_ROWS, "rows by expert: gradient of hidden and of input rows")       \
  X(DISPATCH_BWD, "dispatch_bwd", LINK, EP, EXCHANGE_ROWS, "input gradients back to the sources")                     \
  X(EXPERT_DW, "expert_dw", COMPUTE, NONE, EXPERT_ROWS, "weight gradients of homes and copies, accumulated")          \
  X(SCATTER_BWD, "scatter_bwd", COMPUTE, NONE, CHOICES, "input gradients summed a token")                             \
  X(GATE_BWD, "gate_bwd", COMPUTE, NONE, TOKENS, "gate and norm2: input and weight gradients, residual")              \
  X(FFN_BWD, "ffn_bwd", COMPUTE, NONE, TOKENS, "dense layer: input and weight gradients, residual")                   \
  X(ATTENTION_BWD, "attention_bwd", COMPUTE, NONE, TOKENS, "attention and norm1: input and weight gradients")         \
  X(STATE_SPACE_BWD, "state_space_bwd", COMPUTE, NONE, TOKENS, "mixer and norm1: input and weight gradients")         \
  X(EMBED_BWD, "embed_bwd", COMPUTE, NONE, TOKENS, "gradients of token and position embeddings")                      \
  /* end of the step */                                                                                               \
  X(COPY_REDUCE, "copy_reduce", LINK, EP, COPY_GRADS, "gradients of copies added to their homes, in rank order")      \
  X(EXPERT_REDUCE, "expert_reduce", LINK, EDP, HOME_GRADS, "expert gradients summed over replicas")                   \
  X(DENSE_REDUCE, "dense_reduce", LINK, DP, DENSE_GRADS, "dense gradients summed over replicas")                      \
  X(SQUARE_GRADS, "square_grads", COMPUTE, NONE, PARAMETERS, "sum of squares of each tensor's gradient")              \
  X(GRAD_NORM, "grad_norm", LINK, WORLD, NONE, "squares and losses of all ranks; norm in (layer, expert) order")      \
  X(OPTIMIZER, "optimizer", COMPUTE, NONE, PARAMETERS, "clip and AdamW of what this rank owns in the layer")          \
  /* layouts beyond dp x ep; the names of forward serve backward too where the work is the same */                    \
  X(SEQUENCE_GATHER, "sequence_gather", LINK, TP, ACTIVATIONS, "rows of all parts of a sequence, for split matrices") \
  X(SEQUENCE_SCATTER, "sequence_scatter", LINK, TP, ACTIVATIONS, "partial sums added; each rank keeps its rows")      \
  X(CONTEXT_RING, "context_ring", LINK, CP, ACTIVATIONS,                                                              \
    "keys and values past all parts: beyond what attention hides")                                                    \
  X(CONTEXT_RING_BWD, "context_ring_bwd", LINK, CP, ACTIVATIONS, "likewise backward, with their gradients")           \
  X(HEADS_EXCHANGE, "heads_exchange", LINK, CP, ACTIVATIONS, "state-space layer: sequences for heads, and back")      \
  X(ROWS_GATHER, "rows_gather", LINK, ETP, GROUP_ROWS, "rows of experts whose matrices are split")                    \
  X(ROWS_SCATTER, "rows_scatter", LINK, ETP, GROUP_ROWS, "partial sums of such rows added")                           \
  X(RECOMPUTE, "recompute", COMPUTE, NONE, TOKENS, "norms, activations, up-projections of a layer once more")         \
  X(MODULE_FWD, "module_fwd", COMPUTE, NONE, TOKENS, "multi-token module: norms and projection before its layer")     \
  X(MODULE_BWD, "module_bwd", COMPUTE, NONE, TOKENS, "multi-token module: input and weight gradients")                \
  X(WEIGHT_GATHER, "weight_gather", LINK, DP, DENSE_WEIGHTS, "dense weights of a layer from the shards' owners")      \
  X(EXPERT_GATHER, "expert_gather", LINK, EDP, HOME_WEIGHTS, "expert weights of a layer from the shards' owners")     \
  X(TIED_REDUCE, "tied_reduce", LINK, ENDS, DENSE_GRADS, "gradient of an embedding that the last stage uses too")     \
  X(SEND_ACTIVATION, "send_activation", SEND_DOWN, PP, ACTIVATIONS, "x of a layer to the stage that has it")          \
  X(RECV_ACTIVATION, "recv_activation", RECV_DOWN, PP, ACTIVATIONS, "x of a layer from the stage before")             \
  X(SEND_GRADIENT, "send_gradient", SEND_UP, PP, ACTIVATIONS, "gradient of x to the stage before")                    \
  X(RECV_GRADIENT, "recv_gradient", RECV_UP, PP, ACTIVATIONS, "gradient of x from the next stage")                    \
  /* emitted by no builder yet */                                                                                     \
  X(LOAD_EXPERT, "load_expert", HOST_COPY, NONE, EXPERT_WEIGHTS, "an expert's weights from host to device")           \
  X(DROP_EXPERT, "drop_expert", HOST_COPY, NONE, EXPERT_WEIGHTS, "an expert's state back to the host, slot freed")

typedef enum bl_action_kind {
#define X(name, text, resource, group, amount, what) BL_ACTION_##name,
  BL_ACTION_LIST(X)
#undef X
      BL_ACTION_COUNT
} bl_action_kind;

/* Buffers: name, text, whether it exists before the step (true) or the step writes it first (false), and what tells its
 * instances apart: nothing (STEP), the layer, the micro-batch, or BOTH; pieces tell them apart besides. X of layer l is
 * the residual stream that enters layer l; X of layer `layers` enters the head. A layer of one block has no MID. */
#define BL_BUFFER_LIST(X)                                                                          \
  X(TOKENS, "tokens", true, MICRO)             /* inputs and targets of a micro-batch */           \
  X(HISTORY, "history", true, LAYER)           /* what the policy remembers */                     \
  X(HOSTS, "hosts", false, LAYER)              /* of a layer, in force */                          \
  X(WEIGHT_EMBED, "weight_embed", true, STEP)  /* embedding and head */                            \
  X(WEIGHT_DENSE, "weight_dense", true, LAYER) /* of a layer */                                    \
  X(WEIGHT_HOME, "weight_home", true, LAYER)   /* of a layer's experts at home here */             \
  X(WEIGHT_COPY, "weight_copy", true, LAYER)   /* of a layer's copies here */                      \
  X(WHOLE_EMBED, "whole_embed", false, MICRO)  /* zero 3: gathered for one micro-batch */          \
  X(WHOLE_DENSE, "whole_dense", false, BOTH)                                                       \
  X(WHOLE_HOME, "whole_home", false, BOTH)                                                         \
  X(STATE_EMBED, "state_embed", true, STEP) /* masters and moments */                              \
  X(STATE_DENSE, "state_dense", true, LAYER)                                                       \
  X(STATE_HOME, "state_home", true, LAYER)                                                         \
  X(GRAD_EMBED, "grad_embed", false, STEP)                                                         \
  X(GRAD_DENSE, "grad_dense", false, LAYER)                                                        \
  X(GRAD_HOME, "grad_home", false, LAYER)                                                          \
  X(GRAD_COPY, "grad_copy", false, LAYER)                                                          \
  X(X, "x", false, BOTH)                                 /* residual stream entering a layer */    \
  X(ATTENTION_SAVED, "attention_saved", false, BOTH)     /* norm1 out, qkv, out, log-sum-exp */    \
  X(STATE_SPACE_SAVED, "state_space_saved", false, BOTH) /* norm1 out, projections, scan */        \
  X(MID, "mid", false, BOTH)                             /* residual stream after attention */     \
  X(FFN_SAVED, "ffn_saved", false, BOTH)                 /* norm2 out, hidden before activation */ \
  X(NORM2, "norm2", false, BOTH)                         /* input of gate and experts */           \
  X(GATE, "gate", false, BOTH)                           /* logits, choices, weights */            \
  X(SHARED_SAVED, "shared_saved", false, BOTH)                                                     \
  X(SHARED_OUT, "shared_out", false, BOTH)                                                         \
  X(LOCAL_COUNTS, "local_counts", false, BOTH) /* of this rank's tokens */                         \
  X(COUNTS, "counts", false, BOTH)             /* of all ranks */                                  \
  X(QUOTA, "quota", false, BOTH)               /* integers that route; the backward reuses them */ \
  X(SEND, "send", false, BOTH)                 /* rows by host */                                  \
  X(RECEIVED, "received", false, BOTH)         /* rows at their host: input of experts */          \
  X(EXPERT_SAVED, "expert_saved", false, BOTH) /* hidden before and after activation */            \
  X(EXPERT_OUT, "expert_out", false, BOTH)                                                         \
  X(BACK, "back", false, BOTH)                 /* expert outputs at the source */                  \
  X(WHOLE, "whole", false, BOTH)               /* rows of all of tp: input of a split product */   \
  X(PARTIAL, "partial", false, BOTH)           /* output of one, before sums over tp */            \
  X(KEYS, "keys", false, BOTH)                 /* keys and values that passed by */                \
  X(HEADS, "heads", false, BOTH)               /* whole sequences of some of the scan's heads */   \
  X(ROWS, "rows", false, BOTH)                 /* RECEIVED of all of etp */                        \
  X(ROWS_PARTIAL, "rows_partial", false, BOTH) /* of experts, before sums over etp */              \
  X(LOSS, "loss", false, MICRO)                                                                    \
  X(DX, "dx", false, BOTH) /* gradients of the buffers above */                                    \
  X(DMID, "dmid", false, BOTH)                                                                     \
  X(DGATE, "dgate", false, BOTH)                                                                   \
  X(DBACK, "dback", false, BOTH)                                                                   \
  X(DEXPERT_OUT, "dexpert_out", false, BOTH)                                                       \
  X(DROWS, "drows", false, BOTH)                                                                   \
  X(DHIDDEN, "dhidden", false, BOTH)                                                               \
  X(DRECEIVED, "dreceived", false, BOTH)                                                           \
  X(DSEND, "dsend", false, BOTH)                                                                   \
  X(DNORM2, "dnorm2", false, BOTH)         /* from the routed experts */                           \
  X(DSHARED, "dshared", false, BOTH)       /* from the shared experts */                           \
  X(SQUARES, "squares", false, LAYER)      /* of a layer's gradients */                            \
  X(GRAD_SCALE, "grad_scale", false, STEP) /* norm, clip; mean loss */

typedef enum bl_buffer_kind {
#define X(name, text, kept, scope) BL_BUFFER_##name,
  BL_BUFFER_LIST(X)
#undef X
      BL_BUFFER_COUNT
} bl_buffer_kind;

extern const char *const bl_resource_names[BL_RESOURCE_COUNT];
extern const char *const bl_action_names[BL_ACTION_COUNT];
extern const char *const bl_buffer_names[BL_BUFFER_COUNT];
extern const bool bl_buffer_kept[BL_BUFFER_COUNT];
extern const bl_amount_kind bl_action_amounts[BL_ACTION_COUNT];

typedef struct bl_buffer {
  bl_buffer_kind kind;
  int32_t layer, micro_batch; /* -1 where they do not tell instances apart */
  int32_t piece;
} bl_buffer;

/* Where in the step an action is: before the micro-batches, in one of its stages' blocks, behind them. */
typedef enum bl_step_part { BL_STEP_BEGIN, BL_STEP_FORWARD, BL_STEP_BACKWARD, BL_STEP_END } bl_step_part;

typedef struct bl_action {
  bl_action_kind kind;
  bl_step_part part;
  int32_t chunk;              /* which of the position's stages; 0 outside blocks */
  int32_t layer, micro_batch; /* -1 where it does not apply */
  int32_t piece, pieces;      /* the piece-th of `pieces` parts of the amount; 0 and 1 where whole */
  int32_t peer_stage;         /* pipeline position of the other end of a send or receive, else -1 */
  bl_resource resource;
  bl_group_kind group;
  int32_t first_use, n_reads, n_writes; /* step.uses[first_use ...]: buffers read, then buffers written */
  int32_t first_wait, n_waits;          /* step.waits[first_wait ...]: actions that must have ended */
} bl_action;

typedef struct bl_step {
  int32_t layers, micro_batches;
  int32_t stage, pp, vp; /* pipeline position, of pp with vp stages each */
  bl_step_part part;     /* of the actions that builders add now; so is chunk */
  int32_t chunk;
  bool exchanges_inline, rows_beside; /* as in the options */
  bl_resource link[BL_GROUP_COUNT];   /* the link that each kind of group uses */
  int32_t n_actions, n_buffers, n_uses, n_waits;
  bl_action *actions;
  int32_t *order; /* [n_actions]: issue order, as indices into actions; as built 0, 1, 2, ... */
  bl_buffer *buffers;
  int32_t *uses;  /* indices into buffers */
  int32_t *waits; /* indices into actions, ascending per action */
  /* For builders: room behind the arrays, and buffers by name. */
  size_t actions_room, order_room, buffers_room, uses_room, waits_room;
  int32_t *table; /* [table_size]: a hash table of buffer numbers, -1 where empty */
  size_t table_size;
} bl_step;

typedef struct bl_step_options {
  bool moves;             /* homes may move: move_home is in the program */
  bool copies;            /* copies may exist: copy_fill and copy_reduce are in the program */
  bool late_repair;       /* late_fill is in the program; needs copies */
  bool exchanges_inline;  /* exchanges over tp, cp, etp and ep run in the compute stream, so that nothing hides them */
  bool rows_beside;       /* but for those of rows over ep, which run on links for a pass to hide */
  int32_t ranks_per_node; /* groups that reach beyond use the inter-node link; 0: one node */
} bl_step_options;

/*! bl_step_build() : the program of pipeline position `stage` of a layout, with its waits derived and checked.
 *  @return : BL_OK; BL_EINPUT for a position that the layout has not; BL_EMACHINE. The caller frees with
 *  bl_step_free(). bl_step_build_unchecked() leaves out the proof, whose time grows with the square of a step: for
 *  programs that are priced by the thousand, of layouts whose like is checked elsewhere. */
bl_status bl_step_build(const bl_model *model, const bl_layout *layout, const bl_step_options *options, int32_t stage,
                        bl_step *out);
bl_status bl_step_build_unchecked(const bl_model *model, const bl_layout *layout, const bl_step_options *options,
                                  int32_t stage, bl_step *out);
void bl_step_free(bl_step *step); /* a zeroed step is fine */

/* -- for builders and passes ----------------------------------------------------------------------------------------
 */

/*! bl_step_begin() : an empty program; `layers` bounds the layer numbers (0..layers). */
bl_status bl_step_begin(bl_step *step, const bl_layout *layout, int32_t layers, int32_t stage, int32_t ranks_per_node);

/*! bl_step_add() : appends an action at the end of the order, whole, with its kind's group and resource (a LINK becomes
 *  step.link[group]). The buffers it uses follow at once: all reads, then all writes; what is summed into is both.
 *  layer and micro_batch are -1 where they do not apply; bl_step_reads and _writes ignore those that the buffer has
 * not. */
bl_status bl_step_add(bl_step *step, bl_action_kind kind, int32_t layer, int32_t micro_batch);
bl_status bl_step_reads(bl_step *step, bl_buffer_kind kind, int32_t layer, int32_t micro_batch);
bl_status bl_step_writes(bl_step *step, bl_buffer_kind kind, int32_t layer, int32_t micro_batch);

/*! bl_step_derive_waits() : replaces all waits by those that follow from the buffers and the present order. */
bl_status bl_step_derive_waits(bl_step *step);

/*! bl_step_check() : the program of one rank is sound: order[] is a permutation, no action is issued before one it
 *  waits for, the waits cover every conflict on a buffer, no made buffer is read before it is written.
 *  @return : BL_OK, or BL_EINPUT with a sentence that names the actions and the buffer. */
bl_status bl_step_check(const bl_step *step);

/*! bl_steps_check() : the programs of all ranks together: rank_step[r] is the (sound) program of rank r, which ranks
 * may share. Every communicator's ranks issue the same calls in the same order; and running each rank's resources in
 * issue order, every call waiting for all its ranks and every send for its receive, ends: no cycle over ranks and
 *  resources. `one_queue`: a rank
 * executes its whole order as one queue, as a host-synchronised interpreter does.
 *  @return : BL_OK, or BL_EINPUT naming group, ranks and actions. */
bl_status bl_steps_check(const bl_step *const *rank_step, const bl_layout *layout, bool one_queue);

/*! bl_action_text() : "dispatch layer 2 micro-batch 0" for messages.  text[BL_ACTION_TEXT_MAX]. */
enum { BL_ACTION_TEXT_MAX = 96 };
void bl_action_text(const bl_action *action, char *text);

#endif
