/* search_model.h - the made-up model and cluster that tests of the layout search share. */
#ifndef BL_TESTS_UNIT_SEARCH_MODEL_H
#define BL_TESTS_UNIT_SEARCH_MODEL_H

#include "costmodel/cluster.h"
#include "planner/search/price.h"
#include <string.h>

static bl_model model;
static bl_cluster cluster;
static double imbalance[64];

/* Six layers, the first two dense; eight experts; sizes small enough that 16 ranks have many layouts. */
static void make_model(void) {
  bl_model_default(&model);
  model.layers = 6;
  model.moe_first_layer = 2;
  model.hidden = 1024, model.heads = 16, model.kv_heads = 16, model.head_width = 64;
  model.ffn_width = 4096, model.expert_width = 2048, model.vocabulary = 32000, model.sequence = 1024;
  cluster = (bl_cluster){.name = "test", .n_node_groups = 1};
  cluster.node_group[0] = (bl_node_group){.nodes = 4,
                                          .ranks_per_node = 4,
                                          .device = {.name = "made up",
                                                     .num_bytes = 2,
                                                     .tflops = 300,
                                                     .memory_bytes = 4e9,
                                                     .memory_gbps = 1500,
                                                     .efficiency = 0.5,
                                                     .call_us = 5},
                                          .links = {.intra = {200, 5}, .inter = {20, 12}}};
  for (int i = 0; i < 64; i++) imbalance[i] = 1 + 0.02 * (i - 1) * (i > 1);
}

/* Costs of a grid on a cluster; what the positions are stays with `at` as long as the costs are looked at. */
static inline void cost_on(const bl_cluster *c, const bl_model *m, const bl_grid *g, double uneven, bl_positions *at,
                           bl_grid_costs *out) {
  bl_positions_of(c, g, at);
  bl_grid_cost(m, at, g, uneven, out);
}

/* Layers of one block each, with experts on latent vectors: "M" in 4 heads of width 32 with 2 groups of state 16. */
static inline void add_state_space(bl_model *m) {
  memcpy(m->pattern, "ME*-EM", 7);
  m->state_heads = 4, m->state_head_width = 32, m->state_width = 16, m->state_groups = 2;
  m->state_convolution = 4, m->state_chunk = 64, m->latent_width = 256;
}

#endif
