/* search_model.h - the made-up model and cluster that tests of the layout search share. */
#ifndef BL_TESTS_UNIT_SEARCH_MODEL_H
#define BL_TESTS_UNIT_SEARCH_MODEL_H

#include "costmodel/cluster.h"
#include "costmodel/footprint.h"
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
  cluster = (bl_cluster){.name = "test",
                         .nodes = 4,
                         .ranks_per_node = 4,
                         .num_bytes = 2,
                         .tflops = 300,
                         .memory_bytes = 4e9,
                         .memory_gbps = 1500,
                         .efficiency = 0.5,
                         .call_us = 5,
                         .intra = {200, 5},
                         .inter = {20, 12}};
  for (int i = 0; i < 64; i++) imbalance[i] = 1 + 0.02 * (i - 1) * (i > 1);
}

/* Layers of one block each, with experts on latent vectors: "M" in 4 heads of width 32 with 2 groups of state 16. */
static inline void add_state_space(bl_model *m) {
  memcpy(m->pattern, "ME*-EM", 7);
  m->state_heads = 4, m->state_head_width = 32, m->state_width = 16, m->state_groups = 2;
  m->state_convolution = 4, m->state_chunk = 64, m->latent_width = 256;
}

#endif
