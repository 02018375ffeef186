/* profile.h - what a machine takes for each kind of work of one model, measured (ballast-profile) or derived from a
 * cluster file (costmodel/cluster.h).
 *
 * The file, strict JSON: what was measured with what, the two machine rates, and a curve for each kind of work:
 *   { "version": 1, "backend": "cpu", "transport": "threads", "device": "...", "ranks": 2, "overlap": false,
 * "num_bytes": 4, "sgemm_gflops": 90.1, "triad_gbps": 11.0, "model": { "hidden": 256, "vocabulary": 256, "sequence":
 * 128, "heads": 4, "experts": 8, "top_k": 2, "expert_width": 1024, "ffn_width": 1024 }, "curves": { "attention_fwd": {
 * "per": "tokens", "amounts": [128, 256], "times_us": [410.5, 822.0] }, ... } } Rates are of one rank while all ranks
 * run. A curve that is left out is unknown, which differs from free: pricing an action that needs it fails and names
 * it. */
#ifndef BL_COSTMODEL_PROFILE_H
#define BL_COSTMODEL_PROFILE_H

#include "base/status.h"
#include "costmodel/curve.h"
#include "costmodel/model.h"
#include <stdbool.h>
#include <stdint.h>

/* Kinds of work: name, key, unit of the amount. Most are one action of the step program; those at the end serve
 * several. EXPERT_*: rows of one expert, in a call with several experts; the call's time is the sum over its experts.
 */
#define BL_CURVE_LIST(X)                                                                                        \
  X(EMBED_FWD, "embed_fwd", "tokens")                                                                           \
  X(ATTENTION_FWD, "attention_fwd", "tokens")                                                                   \
  X(STATE_SPACE_FWD, "state_space_fwd", "tokens")                                                               \
  X(FFN_FWD, "ffn_fwd", "tokens")                                                                               \
  X(GATE_FWD, "gate_fwd", "tokens")                                                                             \
  X(SHARED_FWD, "shared_fwd", "tokens")                                                                         \
  X(SCATTER, "scatter", "choices")                                                                              \
  X(EXPERT_FWD, "expert_fwd", "rows")                                                                           \
  X(GATHER, "gather", "choices")                                                                                \
  X(HEAD, "head", "tokens")                                                                                     \
  X(GATHER_BWD, "gather_bwd", "choices")                                                                        \
  X(SHARED_BWD, "shared_bwd", "tokens")                                                                         \
  X(EXPERT_DX, "expert_dx", "rows")                                                                             \
  X(EXPERT_DW, "expert_dw", "rows")                                                                             \
  X(SCATTER_BWD, "scatter_bwd", "choices")                                                                      \
  X(GATE_BWD, "gate_bwd", "tokens")                                                                             \
  X(FFN_BWD, "ffn_bwd", "tokens")                                                                               \
  X(ATTENTION_BWD, "attention_bwd", "tokens")                                                                   \
  X(STATE_SPACE_BWD, "state_space_bwd", "tokens")                                                               \
  X(EMBED_BWD, "embed_bwd", "tokens")                                                                           \
  X(ZERO_GRADS, "zero_grads", "parameters")                                                                     \
  X(SQUARE_GRADS, "square_grads", "parameters")                                                                 \
  X(OPTIMIZER, "optimizer", "parameters")                                                                       \
  X(CHOOSE_HOSTS, "choose_hosts", "layers")                                                                     \
  X(SOLVE_SHARES, "solve_shares", "calls")                                                                      \
  X(GATHER_HOST, "gather_host", "bytes") /* small control data from all to all */                               \
  X(EXCHANGE, "exchange", "bytes")       /* largest sum that a rank sends or receives, its own part included */ \
  X(TRANSFER, "transfer", "bytes")       /* largest sum that leaves or reaches a rank */                        \
  X(ACCUMULATE, "accumulate", "bytes")   /* likewise, and added to what is there */                             \
  X(ALL_REDUCE, "all_reduce", "bytes")   /* of the buffer, over all ranks of the profile */                     \
  X(TO_DEVICE, "to_device", "bytes")     /* from the host's memory; backends with memory of their own */        \
  X(TO_HOST, "to_host", "bytes")

typedef enum bl_curve_kind {
#define X(name, text, unit) BL_CURVE_##name,
  BL_CURVE_LIST(X)
#undef X
      BL_CURVE_COUNT
} bl_curve_kind;

extern const char *const bl_curve_names[BL_CURVE_COUNT];
extern const char *const bl_curve_units[BL_CURVE_COUNT];

/* The part of a model that its costs depend on. */
typedef struct bl_profile_shape {
  int32_t hidden, vocabulary, sequence, heads, experts, top_k, expert_width, ffn_width;
} bl_profile_shape;

typedef struct bl_profile {
  char backend[16], transport[16], device[96];
  int32_t ranks;
  bool overlap;      /* streams and links run beside the compute stream; false: a rank does one thing at a time */
  bool one_device;   /* ranks share a device: exchanges are copies in its memory, not a link; false where left out */
  int32_t num_bytes; /* of the compute type */
  double sgemm_gflops, triad_gbps;
  bl_profile_shape shape;
  bl_curve curves[BL_CURVE_COUNT];
} bl_profile;

void bl_profile_shape_of(const bl_model *model, bl_profile_shape *shape);

bl_status bl_profile_load(const char *path, bl_profile *out);
bl_status bl_profile_save(const char *path, const bl_profile *profile); /* atomic */

/*! bl_profile_fits() : BL_OK when the profile was made for this model's shape; else BL_EINPUT naming the size.
 *  `where` opens the sentence. */
bl_status bl_profile_fits(const bl_profile *profile, const bl_model *model, const char *where);

#endif
