/* flop.h - floating point operations of training under the conventions in use, and what devices can do at most.
 *
 * Model FLOP utilisation is operations of the model over time and peak. The operations depend on what is counted, up to
 * a quarter apart, so a figure goes with the name of its convention and a peak with the name of its device. */
#ifndef BL_COSTMODEL_FLOP_H
#define BL_COSTMODEL_FLOP_H

#include "base/status.h"
#include "costmodel/model.h"

/* Name, text, operations of one token, forward and backward; h hidden, L layers, s sequence, V vocabulary, k top_k. */
#define BL_FLOP_LIST(X)                                                                                        \
  X(MCORE, "mcore", "6 a weight that a token meets (top_k experts, no gate) and for scores, causal ones half") \
  X(AIPERF, "aiperf", "72 L h^2 (1 + s / 6h): whole scores, one feed-forward of width 4h, no logits")          \
  X(PAXML, "paxml", "aiperf's and the logits, 6 V h")                                                          \
  X(NVIDIA_README, "nvidia-readme", "12 L h^2 (1 + kv_heads/heads + s/2h) + 6 matrices L width h k + 6 V h")   \
  X(LLM_C, "llm.c", "6 parameters + 6 L h s, all parameters there are, also of experts not chosen")

typedef enum bl_flop_convention {
#define X(name, text, what) BL_FLOP_##name,
  BL_FLOP_LIST(X)
#undef X
      BL_FLOP_COUNT
} bl_flop_convention;

extern const char *const bl_flop_names[BL_FLOP_COUNT];

/*! bl_flop_convention_by_name() : @return : BL_OK or BL_EUSAGE naming those that exist. */
bl_status bl_flop_convention_by_name(const char *name, bl_flop_convention *out);

/*! bl_flop_per_token() : of training on the model's own sequence length. */
double bl_flop_per_token(const bl_model *model, bl_flop_convention convention);

/*! bl_device_peak_flops() : dense peak a second of a device, by its name as the driver gives it, for operands of
 *  num_bytes (2: bf16 on matrix units; 4: fp32 without them), from the vendor's data sheets; 0 where not known. */
double bl_device_peak_flops(const char *device, int32_t num_bytes);

#endif
