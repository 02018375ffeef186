/* The example model files reproduce the published sizes; the example clusters load. */
#include "costmodel/cluster.h"
#include "costmodel/model.h"
#include "tests/check.h"

/* Billions of parameters, in all and met by one token, as published, and how far rounding and left-out norms reach. */
static void test_model_sizes(void) {
  static const struct {
    const char *file;
    double total, used, total_within, used_within;
  } models[] = {
      {"mixtral-8x7b", 46.7, 12.9, 0.05, 0.05}, {"mixtral-8x22b", 140.6, 39.1, 0.1, 0.1},
      {"qwen3-30b-a3b", 30.5, 3.3, 0.05, 0.06}, {"qwen3-235b-a22b", 235, 22, 0.5, 0.5},
      {"llama-4-maverick", 400, 17, 1, 0.5},    {"grok-1", 314, 0.25 * 314, 2, 0.02 * 314},
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

static void test_clusters(void) {
  static const struct {
    const char *file;
    int32_t ranks_per_node;
    double tflops;
  } clusters[] = {{"h100-hgx", 8, 989},  {"a100-hgx", 8, 312},      {"b200-hgx", 8, 2250},    {"b300-hgx", 8, 2250},
                  {"v100-p3dn", 8, 125}, {"gb200-nvl72", 72, 2450}, {"gb300-nvl72", 72, 2450}};
  for (size_t i = 0; i < sizeof clusters / sizeof *clusters; i++) {
    char path[128];
    bl_cluster c;
    snprintf(path, sizeof path, "costmodel/clusters/%s.json", clusters[i].file);
    REQUIRE_OK(bl_cluster_load(path, &c));
    CHECK_INT(c.ranks_per_node, clusters[i].ranks_per_node);
    CHECK_NEAR(c.tflops, clusters[i].tflops, 1e-9);
  }
}

int main(void) {
  RUN(test_model_sizes);
  RUN(test_deepseek_v3);
  RUN(test_clusters);
  TEST_MAIN_END;
}
