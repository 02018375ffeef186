/* model.h - the shape of a model: its file, its tensors, its sizes.
 *
 * The keys cover what current MoE models use, so that the planner can count them; the executor runs a subset and
 * refuses the rest by name (bl_model_runs_on_executor). The file is strict JSON. Required: version, layers, hidden,
 * vocabulary, sequence, attention.heads; inside "moe" also experts, width and top_k; inside "latent" all but q_rank.
 * Left out: kv_heads = heads, head_width = hidden / heads, ffn.width = 4 hidden, no "moe" = all layers dense, and for
 * the rest the value that bl_model_default() has.
 *
 *   { "version": 1, "name": "small", "layers": 4, "hidden": 256, "vocabulary": 256, "sequence": 128,
 *     "norm": "layer" | "rms", "position": "learned" | "rotary", "biases": true, "tied_embedding": true,
 *     "causal": true, "multi_token": 0, "pattern": "ME*E",
 *     "attention": { "heads": 4, "kv_heads": 4, "head_width": 64,
 *                    "latent": { "q_rank": 1536, "kv_rank": 512, "rope_width": 64, "value_width": 128 } },
 *     "state_space": { "heads": 64, "head_width": 64, "state": 128, "groups": 8, "convolution": 4, "chunk": 128 },
 *     "ffn": { "width": 1024, "gated": false },
 *     "moe": { "experts": 8, "width": 1024, "top_k": 2, "gated": false, "first_layer": 0, "every": 1,
 *              "shared_experts": 0, "shared_width": 1024, "score": "softmax" | "sigmoid", "score_bias": false,
 *              "groups": 1, "group_top_k": 1, "latent": 0 } }
 *
 * Layer l is a MoE layer when l >= moe.first_layer and (l - first_layer + 1) % every == 0; all others are dense.
 * Under "pattern", one letter a layer, each layer is one block instead: "M" a state-space mixer, "*" attention, "-" a
 * dense feed-forward, "E" experts. The mixer is that of Mamba-2 (arXiv 2405.21060).
 * attention.latent makes the attention multi-head latent attention: head_width is then the part of a key without
 * positions. moe.latent: experts read and write vectors of so many numbers, projected from and to the hidden ones; 0:
 * the hidden ones themselves. */
#ifndef BL_COSTMODEL_MODEL_H
#define BL_COSTMODEL_MODEL_H

#include "base/status.h"
#include <stdbool.h>
#include <stdint.h>

typedef enum bl_norm_kind { BL_NORM_LAYER, BL_NORM_RMS } bl_norm_kind;
typedef enum bl_position_kind { BL_POSITION_LEARNED, BL_POSITION_ROTARY } bl_position_kind;
typedef enum bl_score_kind { BL_SCORE_SOFTMAX, BL_SCORE_SIGMOID } bl_score_kind;

/* What a layer is made of. */
typedef enum bl_layer_kind {
  BL_LAYER_DENSE, /* attention and dense feed-forward */
  BL_LAYER_MOE,   /* attention and experts */
  BL_LAYER_STATE_SPACE,
  BL_LAYER_ATTENTION,
  BL_LAYER_FFN,
  BL_LAYER_EXPERTS,
  BL_LAYER_COUNT
} bl_layer_kind;

static inline bool bl_layer_has_attention(bl_layer_kind k) {
  return k == BL_LAYER_DENSE || k == BL_LAYER_MOE || k == BL_LAYER_ATTENTION;
}
static inline bool bl_layer_has_ffn(bl_layer_kind k) { return k == BL_LAYER_DENSE || k == BL_LAYER_FFN; }
static inline bool bl_layer_has_experts(bl_layer_kind k) { return k == BL_LAYER_MOE || k == BL_LAYER_EXPERTS; }

enum { BL_MODEL_PATTERN_MAX = 512 };

typedef struct bl_model {
  char name[64];
  char pattern[BL_MODEL_PATTERN_MAX + 1]; /* empty: every layer has attention and feed-forward */
  int32_t layers, hidden, vocabulary, sequence;
  bl_norm_kind norm;
  bl_position_kind position;
  bool biases, tied_embedding, causal;
  int32_t multi_token; /* extra prediction modules: each a projection of [2 hidden] and one more layer */

  int32_t heads, kv_heads, head_width;
  bool latent_attention;
  int32_t q_rank; /* 0: queries are projected straight */
  int32_t kv_rank, rope_width, value_width;

  int32_t state_heads; /* 0: no state-space layers */
  int32_t state_head_width, state_width, state_groups, state_convolution, state_chunk;

  int32_t ffn_width; /* of dense layers */
  bool ffn_gated;

  int32_t experts; /* 0: every layer is dense */
  int32_t expert_width, top_k;
  bool expert_gated;
  int32_t moe_first_layer, moe_every;
  int32_t shared_experts, shared_width; /* width of one */
  bl_score_kind score;
  bool score_bias; /* a bias per expert that only selects (auxiliary-loss-free balance) */
  int32_t groups, group_top_k;
  int32_t latent_width; /* of what experts read and write; 0: hidden */
} bl_model;

/*! bl_model_default() : the small model of the design: 4 layers, hidden 256, 4 heads, 8 experts of width 1024, top-2,
 *  sequence 128, vocabulary 256, LayerNorm, learned positions, biases, tied embedding, GELU. */
void bl_model_default(bl_model *model);

/*! bl_model_load() : reads and checks a model file.  @return : BL_OK, or BL_EINPUT (file, key, what was expected). */
bl_status bl_model_load(const char *path, bl_model *out);

/*! bl_model_parse() : the same from text in memory, a NUL after `size` bytes; `name` stands for the file in messages.
 */
bl_status bl_model_parse(const char *name, const char *text, uint64_t size, bl_model *out);

/*! bl_model_save() : writes all keys that matter; load gives the same model back. */
bl_status bl_model_save(const char *path, const bl_model *model);

/*! bl_model_check() : sizes positive and in range, heads and groups divide, top_k <= experts.  `where` opens the
 *  sentence. */
bl_status bl_model_check(const bl_model *model, const char *where);

/*! bl_model_runs_on_executor() : BL_ENOTSUP, naming the first key that the executor does not run, or BL_OK. */
bl_status bl_model_runs_on_executor(const bl_model *model);

/*! bl_model_expect_same() : BL_EINPUT, naming the first key in which the model of file `where` is not as `wanted` of
 *  file `origin`; names do not count. */
bl_status bl_model_expect_same(const bl_model *model, const char *where, const bl_model *wanted, const char *origin);

bl_layer_kind bl_model_layer_kind(const bl_model *model, int32_t layer); /* 0 <= layer < layers */
bool bl_model_layer_is_moe(const bl_model *model, int32_t layer);        /* has experts; false beyond the last layer */
int32_t bl_model_moe_layers(const bl_model *model);                      /* how many, without multi-token modules */
int32_t bl_model_row_width(const bl_model *model);                       /* numbers of a row that an expert reads */

/* -- tensors: the one list from which names, initial values and all counts follow ---------------------------------- */

/* Parts of a model whose tensors belong together: name, what it holds. */
#define BL_MODEL_PART_LIST(X)                                                \
  X(EMBED, "embed.token, embed.position")                                    \
  X(ATTENTION, "norm1 and attention of a layer")                             \
  X(STATE_SPACE, "norm1 and the state-space mixer of a layer")               \
  X(FFN, "norm2 and the dense feed-forward of a layer")                      \
  X(GATE, "norm2 and the gate of a MoE layer, projections of moe.latent")    \
  X(SHARED, "the shared experts of a MoE layer")                             \
  X(EXPERT, "one expert of a MoE layer")                                     \
  X(HEAD, "final norm, and the output matrix where it is not the embedding") \
  X(MULTI_TOKEN, "projection and norms of a multi-token module, without its layer")

typedef enum bl_model_part {
#define X(name, text) BL_PART_##name,
  BL_MODEL_PART_LIST(X)
#undef X
      BL_PART_COUNT
} bl_model_part;

typedef enum bl_tensor_init {
  BL_INIT_ZERO,      /* biases */
  BL_INIT_ONE,       /* norm weights */
  BL_INIT_NORMAL,    /* N(0, 0.02) */
  BL_INIT_NORMAL_OUT /* N(0, 0.02 / sqrt(2 layers)): projections into the residual stream */
} bl_tensor_init;

typedef struct bl_tensor {
  const char *suffix; /* "norm1.weight", "attn.qkv.weight", "fc1.weight": bl_tensor_name() makes the full name */
  int32_t rows, cols; /* matrices are [out, in]; vectors have rows 1 */
  bl_tensor_init init;
  bool decay; /* weight decay applies: matrices and embeddings */
} bl_tensor;

enum { BL_PART_MAX_TENSORS = 16, BL_TENSOR_NAME_MAX = 96 };

/*! bl_model_tensors() : the tensors of a part, in the order in which the executor lays them out.
 *  @return : how many were written to tensors[BL_PART_MAX_TENSORS]. */
int32_t bl_model_tensors(const bl_model *model, bl_model_part part, bl_tensor *tensors);

/*! bl_tensor_name() : the full name, as in checkpoints: "layers.2.moe.experts.5.fc1.weight". `layer` and `expert` are
 *  ignored by parts that have none.  name[BL_TENSOR_NAME_MAX]. */
void bl_tensor_name(bl_model_part part, const bl_tensor *tensor, int32_t layer, int32_t expert, char *name);

/*! bl_model_part_parameters() : parameters of one instance of a part (one layer, one expert). */
int64_t bl_model_part_parameters(const bl_model *model, bl_model_part part);

/*! bl_model_part_macs() : multiply-adds of one token with all matrices of one instance of a part. */
int64_t bl_model_part_macs(const bl_model *model, bl_model_part part);

/* -- counts of the whole model ---------------------------------------------------------------------------------------
 * Weight multiply-adds per token: one for each weight that a token meets (norms, biases and embedding look-ups cost
 * none; the output matrix does, tied or not). Training needs 6 floating point operations for each. */
typedef struct bl_model_counts {
  int64_t parameters;        /* all */
  int64_t expert_parameters; /* of all experts of all layers */
  int64_t used_parameters;   /* met by one token: parameters less the experts not chosen */
  int64_t layer_macs_dense;  /* one MoE layer, per token: attention projections, gate, shared experts */
  int64_t layer_macs_expert; /* one expert, per token sent to it */
  int64_t macs_dense;        /* whole model, per token: everything but experts */
  int64_t macs_used;         /* whole model, per token: macs_dense + top_k experts a MoE layer */
  int64_t macs_attention;    /* whole model, per token, without weights: scores and their application, over half of the
                                sequence where causal; scans of state-space layers */
} bl_model_counts;

void bl_model_count(const bl_model *model, bl_model_counts *out);

/*! bl_model_scan_macs() : multiply-adds without weights of one token in a state-space layer, in chunks of Q tokens
 *  (arXiv 2405.21060, section 6): groups Q state for the products of inputs' and outputs' projections, heads Q
 *  head_width for their application, 2 heads head_width state for what enters and leaves the state. */
int64_t bl_model_scan_macs(const bl_model *model);

/*! bl_model_core_macs() : multiply-adds without weights of one token in an attention layer: scores and their
 *  application, over half of the sequence where causal. */
int64_t bl_model_core_macs(const bl_model *model);

/*! bl_model_training_flop() : floating point operations of one training step over `tokens` tokens:
 *  6 * tokens * (macs_used + (with_attention ? macs_attention : 0)). */
double bl_model_training_flop(const bl_model *model, int64_t tokens, bool with_attention);

#endif
