/* The example model files reproduce the published sizes; the example clusters load. */
#include "costmodel/cluster.h"
#include "costmodel/model.h"
#include "tests/check.h"
#include <unistd.h>

/* Billions of parameters, in all and met by one token, as published, and how far rounding and left-out norms reach. */
static void test_model_sizes(void) {
  static const struct {
    const char *file;
    double total, used, total_within, used_within;
  } models[] = {
      {"mixtral-8x7b", 46.7, 12.9, 0.05, 0.05},
      {"mixtral-8x22b", 140.6, 39.1, 0.1, 0.1},
      {"qwen3-30b-a3b", 30.5, 3.3, 0.05, 0.06},
      {"qwen3-235b-a22b", 235, 22, 0.5, 0.5},
      {"llama-4-maverick", 400, 17, 1, 0.5},
      {"grok-1", 314, 0.25 * 314, 2, 0.02 * 314},
      {"nemotron-3-nano-30b-a3b", 31.6, 3.6, 0.05, 0.05},
  };
  for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
    char path[128];
    bl_model m;
    bl_model_counts c;
    snprintf(path, sizeof path, "costmodel/models/%s.json", models[i].file);
    REQUIRE_OK(bl_model_load(path, &m));
    CHECK_STRING(m.name, models[i].file);
    bl_model_count(&m, &c);
    CHECK_NEAR((double)c.parameters / 1e9, models[i].total, models[i].total_within);
    CHECK_NEAR((double)c.used_parameters / 1e9, models[i].used, models[i].used_within);
  }
}

static void test_deepseek_v3(void) {
  bl_model m;
  bl_model_counts c;
  REQUIRE_OK(bl_model_load("costmodel/models/deepseek-v3.json", &m));
  CHECK_INT(bl_model_moe_layers(&m), 58);
  CHECK_INT(m.multi_token, 1);
  m.multi_token = 0; /* published sizes are of the main model */
  bl_model_count(&m, &c);
  CHECK_NEAR((double)c.parameters / 1e9, 671, 0.3);
  CHECK_NEAR((double)c.used_parameters / 1e9, 37, 0.6); /* the report leaves the input embedding out */
}

static void test_nemotron_3_super(void) {
  bl_model m;
  bl_model_counts c;
  REQUIRE_OK(bl_model_load("costmodel/models/nemotron-3-super-120b-a12b.json", &m));
  CHECK_INT(bl_model_moe_layers(&m), 40);
  m.multi_token = 0; /* published sizes are of the main model */
  bl_model_count(&m, &c);
  CHECK_NEAR((double)c.parameters / 1e9, 120.6, 0.1);
  CHECK_NEAR((double)c.used_parameters / 1e9, 12.7, 0.1);
}

/* TFLOP/s a GPU of published steps, each counted as its stack counts: causal attention over half of the sequence or all
 * of it, the tokenizer's vocabulary, no gates (NVIDIA DGX Cloud benchmarking recipes v25.01 to v25.10). */
static void test_published_rates(void) {
  static const struct {
    const char *file;
    int32_t vocabulary, sequence, batch, ranks;
    bool causal;
    double step_s, tflops;
  } steps[] = {
      {"deepseek-v3", 129280, 4096, 2048, 256, true, 11.07148, 769.50},
      {"deepseek-v3", 129280, 4096, 8192, 1024, true, 52.04, 163.7},
      {"deepseek-v3", 129280, 4096, 8192, 1024, true, 36.189, 235.43},
      {"grok-1", 32000, 8192, 512, 256, false, 7.382, 1192.94},
      {"llama-4-maverick", 128256, 8192, 1024, 512, false, 3.685, 527.78},
  };
  for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
    char path[128];
    bl_model m;
    snprintf(path, sizeof path, "costmodel/models/%s.json", steps[i].file);
    REQUIRE_OK(bl_model_load(path, &m));
    m.vocabulary = steps[i].vocabulary, m.sequence = steps[i].sequence, m.causal = steps[i].causal;
    const int64_t tokens = (int64_t)m.sequence * steps[i].batch;
    const double gates = 6.0 * (bl_model_moe_layers(&m) + m.multi_token) * m.hidden * m.experts * (double)tokens;
    const double flop = bl_model_training_flop(&m, tokens, true) - gates;
    CHECK_NEAR(flop / steps[i].ranks / steps[i].step_s * 1e-12, steps[i].tflops, 3e-4 * steps[i].tflops);
  }
  /* One sequence of Grok-1 as its recipe's notes count it: 4.27405e15. */
  bl_model m;
  REQUIRE_OK(bl_model_load("costmodel/models/grok-1.json", &m));
  m.vocabulary = 128256;
  const double gates = 6.0 * 64 * 6144 * 8 * 8192;
  CHECK_NEAR((bl_model_training_flop(&m, 8192, true) - gates) * 1e-15, 4.27405, 1e-5);
}

static void test_clusters(void) {
  static const struct {
    const char *file;
    int32_t ranks_per_node;
    double tflops;
  } clusters[] = {{"h100-hgx", 8, 989},      {"a100-hgx", 8, 312},     {"b200-hgx", 8, 2250},
                  {"b300-hgx", 8, 2250},     {"v100-p3dn", 8, 125},    {"gb200-nvl72", 72, 2450},
                  {"gb300-nvl72", 72, 2450}, {"v100-smartmoe", 8, 112}};
  for (size_t i = 0; i < sizeof clusters / sizeof *clusters; i++) {
    char path[128];
    bl_cluster c;
    snprintf(path, sizeof path, "costmodel/clusters/%s.json", clusters[i].file);
    REQUIRE_OK(bl_cluster_load(path, &c));
    CHECK_INT(c.node_group[0].ranks_per_node, clusters[i].ranks_per_node);
    const bl_device *d = &c.node_group[0].device;
    CHECK_NEAR(d->tflops, clusters[i].tflops, 1e-9);
    CHECK(d->spread > 0 && strlen(d->efficiency_source) > 0 && strlen(d->source) > 0);
    for (int32_t t = 0; t < d->n_types; t++) CHECK_NEAR(d->types[t].tflops, 2 * d->tflops, 2);
  }
}

int main(void) {
  RUN(test_model_sizes);
  RUN(test_deepseek_v3);
  RUN(test_nemotron_3_super);
  RUN(test_published_rates);
  RUN(test_clusters);
  TEST_MAIN_END;
}
