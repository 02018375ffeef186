/* test_flop.c - operations of training against the figures that the conventions' owners published, and device peaks. */
#include "costmodel/flop.h"
#include "tests/check.h"

static bl_model plain(int32_t layers, int32_t hidden, int32_t sequence, int32_t vocabulary) {
  bl_model m;
  bl_model_default(&m);
  m.layers = layers;
  m.hidden = hidden;
  m.sequence = sequence;
  m.vocabulary = vocabulary;
  m.heads = m.kv_heads = hidden / 64;
  m.head_width = 64;
  m.ffn_width = 4 * hidden;
  m.experts = m.top_k = 0;
  return m;
}

static void test_aiperf(void) {
  const bl_model m = plain(12, 1024, 1024, 50304);
  CHECK_NEAR(bl_flop_per_token(&m, BL_FLOP_AIPERF) * 1024, 1082331758592.0, 1);
  const bl_model wide = plain(12, 2048, 1024, 50304);
  CHECK_NEAR(bl_flop_per_token(&wide, BL_FLOP_AIPERF) * 1024, 4020089389056.0, 1);
}

static void test_paxml(void) {
  const bl_model m = plain(96, 12288, 2048, 51200);
  CHECK_NEAR(bl_flop_per_token(&m, BL_FLOP_PAXML), 1076442955776.0, 1e3);
}

/* Grok-1: 4.27405e15 a sequence of 8192. */
static void test_nvidia_readme(void) {
  bl_model m;
  REQUIRE_OK(bl_model_load("costmodel/models/grok-1.json", &m));
  m.sequence = 8192;
  m.vocabulary = 128256;
  CHECK_NEAR(bl_flop_per_token(&m, BL_FLOP_NVIDIA_README), 53150220288.0 + 463856467968.0 + 4728029184.0, 1e4);
}

/* GPT-2 124M with a padded vocabulary. */
static void test_llm_c(void) {
  const bl_model m = plain(12, 768, 1024, 50304);
  CHECK_NEAR(bl_flop_per_token(&m, BL_FLOP_LLM_C), 803478528.0, 1);
}

/* DeepSeek-V3: 259.99e9 a token at a sequence of 4096. */
static void test_mcore(void) {
  bl_model m;
  REQUIRE_OK(bl_model_load("costmodel/models/deepseek-v3.json", &m));
  m.sequence = 4096;
  CHECK_NEAR(bl_flop_per_token(&m, BL_FLOP_MCORE) * 1e-9, 259.99, 0.02);
}

static void test_names(void) {
  bl_flop_convention c;
  for (int i = 0; i < BL_FLOP_COUNT; i++) {
    CHECK_OK(bl_flop_convention_by_name(bl_flop_names[i], &c));
    CHECK_INT(c, i);
  }
  CHECK_FAILS(bl_flop_convention_by_name("palm", &c), BL_EUSAGE, "nvidia-readme");
}

static void test_peaks(void) {
  CHECK_NEAR(bl_device_peak_flops("NVIDIA H200", 2), 989.4e12, 1e9);
  CHECK_NEAR(bl_device_peak_flops("NVIDIA H200", 4), 66.9e12, 1e9);
  CHECK_NEAR(bl_device_peak_flops("NVIDIA H100 80GB HBM3", 4), 66.9e12, 1e9);
  CHECK(bl_device_peak_flops("NVIDIA H200 NVL", 2) == 0 && bl_device_peak_flops("NVIDIA H200 NVL", 4) == 0);
  CHECK(bl_device_peak_flops("NVIDIA H100 PCIe", 2) == 0 && bl_device_peak_flops("NVIDIA H100 NVL", 2) == 0);
  CHECK(bl_device_peak_flops("NVIDIA GH200 480GB", 2) == 0);
  CHECK_NEAR(bl_device_peak_flops("NVIDIA A100-SXM4-80GB", 2), 312e12, 1e9);
  CHECK(bl_device_peak_flops("Tesla V100-SXM2-32GB", 2) == 0);
  CHECK(bl_device_peak_flops("AMD EPYC 9B45", 4) == 0 && bl_device_peak_flops("", 2) == 0);
}

int main(void) {
  RUN(test_aiperf);
  RUN(test_paxml);
  RUN(test_nvidia_readme);
  RUN(test_llm_c);
  RUN(test_mcore);
  RUN(test_names);
  RUN(test_peaks);
  TEST_MAIN_END;
}
