/* flop.c - conventions of counting, and peaks. */
#include "costmodel/flop.h"
#include <string.h>

const char *const bl_flop_names[BL_FLOP_COUNT] = {
#define X(name, text, what) text,
    BL_FLOP_LIST(X)
#undef X
};

bl_status bl_flop_convention_by_name(const char *name, bl_flop_convention *out) {
  for (int i = 0; i < BL_FLOP_COUNT; i++)
    if (!strcmp(name, bl_flop_names[i])) {
      *out = (bl_flop_convention)i;
      return BL_OK;
    }
  return bl_fail(BL_EUSAGE,
                 "a way to count operations: expected mcore, aiperf, paxml, nvidia-readme or llm.c, found %s", name);
}

double bl_flop_per_token(const bl_model *m, bl_flop_convention convention) {
  const double L = m->layers, h = m->hidden, s = m->sequence, V = m->vocabulary;
  bl_model_counts counts;
  bl_model_count(m, &counts);
  switch (convention) {
  case BL_FLOP_AIPERF:
    return 72 * L * h * h * (1 + s / (6 * h));
  case BL_FLOP_PAXML:
    return 72 * L * h * h * (1 + s / (6 * h)) + 6 * V * h;
  case BL_FLOP_NVIDIA_README: {
    const bool moe = m->experts > 0, gated = moe ? m->expert_gated : m->ffn_gated;
    const double k = moe ? m->top_k : 1, f = moe ? m->expert_width : m->ffn_width;
    return 12 * L * h * h * (1 + (double)m->kv_heads / m->heads + s / (2 * h)) + (gated ? 18 : 12) * L * f * h * k +
           6 * V * h;
  }
  case BL_FLOP_LLM_C:
    return 6 * (double)counts.parameters + 6 * L * h * s;
  default: {
    const double moe = m->experts > 0 ? bl_model_moe_layers(m) + m->multi_token : 0;
    const double gates = moe > 0 ? moe * (double)bl_model_part_macs(m, BL_PART_GATE) : 0;
    return 6 * ((double)counts.macs_used - gates + (double)counts.macs_attention);
  }
  }
}

/* The first name that the device's begins with; more special ones first. Data sheets give the rate of sparse matrices
 * for the matrix units of Hopper and later: these are half of it.
 * H100 of the SXM form, and H200, which is the same chip with other memory: 132 multiprocessors x 128 fused
 * multiply-adds x 1.98 GHz = 66.9, and 989.4 for bf16 at 1.83 GHz (glennklockwood.com/garden/processors/h100, after
 * NVIDIA's white paper). Other forms of these chips run at clocks for which no data sheet was at hand: they are not
 * known. */
static const struct {
  const char *device;
  double bf16, fp32; /* tera-operations a second; 0: none or not known */
} peaks[] = {
    {"NVIDIA GH200", 0, 0},     {"NVIDIA H200 NVL", 0, 0},    {"NVIDIA H200", 989.4, 66.9}, {"NVIDIA H100 PCIe", 0, 0},
    {"NVIDIA H100 NVL", 0, 0},  {"NVIDIA H100", 989.4, 66.9}, {"NVIDIA A100", 312, 19.5},   {"NVIDIA B200", 2250, 75},
    {"NVIDIA L40S", 362, 91.6}, {"Tesla V100-SXM2", 0, 15.7},
};

double bl_device_peak_flops(const char *device, int32_t num_bytes) {
  for (size_t i = 0; i < sizeof peaks / sizeof *peaks; i++)
    if (!strncmp(device, peaks[i].device, strlen(peaks[i].device)))
      return 1e12 * (num_bytes == 2 ? peaks[i].bf16 : peaks[i].fp32);
  return 0;
}
