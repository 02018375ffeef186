/* How ranks lie on nodes and racks: against counting every rank of every group; the slowest of a run of ranks. */
#include "base/rng.h"
#include "costmodel/fabric.h"
#include "tests/check.h"

enum { MOST_RANKS = 4096 };

static bl_cluster cluster;
static int32_t node_of[MOST_RANKS], group_of[MOST_RANKS];

static int32_t random_cluster(bl_rng *rng) {
  int32_t ranks = 0, node = 0;
  memset(&cluster, 0, sizeof cluster);
  cluster.n_node_groups = 1 + (int32_t)bl_rng_below(rng, 4);
  cluster.racks.nodes = (int32_t)bl_rng_below(rng, 5);
  for (int32_t i = 0; i < cluster.n_node_groups; i++) {
    bl_node_group *g = &cluster.node_group[i];
    g->nodes = 1 + (int32_t)bl_rng_below(rng, bl_rng_below(rng, 2) ? 60 : 4);
    g->ranks_per_node = 1 + (int32_t)bl_rng_below(rng, 9);
    g->device.tflops = 100 + (double)bl_rng_below(rng, 100), g->device.efficiency = 0.5;
    g->device.memory_bytes = 1e9 * (1 + (double)bl_rng_below(rng, 9));
    g->links.intra = (bl_link){100 + (double)bl_rng_below(rng, 100), (double)bl_rng_below(rng, 10)};
    g->links.inter = (bl_link){10 + (double)bl_rng_below(rng, 10), (double)bl_rng_below(rng, 10)};
    for (int32_t n = 0; n < g->nodes; n++, node++)
      for (int32_t r = 0; r < g->ranks_per_node; r++) node_of[ranks] = node, group_of[ranks++] = i;
  }
  return ranks;
}

/* Of all groups of the run: what bl_cluster_reach() says, counted rank by rank. Cells: nodes, or racks of `per` nodes.
 */
static void count_all(int32_t first, int32_t ranks, int32_t size, int32_t stride, int32_t per, double *cells,
                      double *least, double *most) {
  *cells = 0, *least = 1e9, *most = 0;
  for (int32_t block = first; block < first + ranks; block += size * stride)
    for (int32_t j = 0; j < stride; j++) {
      double n = 0, inside = 0;
      for (int32_t i = 0; i < size; i++) {
        const int32_t rank = block + j + i * stride, next = rank + stride;
        inside++;
        if (i + 1 < size && node_of[next] / per == node_of[rank] / per) continue;
        n++;
        *least = fmin(*least, inside), *most = fmax(*most, inside);
        inside = 0;
      }
      *cells = fmax(*cells, n);
    }
}

/* Where a group's ranks are further apart than nodes are wide, nodes between may hold none of them: then counting by
 * cut cells may say one node too many, but never too few. */
static void test_reach(void) {
  bl_rng rng;
  bl_rng_seed(&rng, 5, 0);
  int exact = 0, all = 0;
  for (int round = 0; round < (check_is_small() ? 300 : 4000); round++) {
    const int32_t there = random_cluster(&rng);
    const int32_t size = 1 + (int32_t)bl_rng_below(&rng, 12), stride = 1 + (int32_t)bl_rng_below(&rng, 12);
    const int32_t block = size * stride;
    if (block > there) continue;
    const int32_t blocks = 1 + (int32_t)bl_rng_below(&rng, (uint64_t)(there / block));
    const int32_t first = (int32_t)bl_rng_below(&rng, (uint64_t)(there - blocks * block + 1));
    bl_reach r;
    double cells, least, most;
    bl_cluster_reach(&cluster, first, blocks * block, size, stride, &r);
    count_all(first, blocks * block, size, stride, 1, &cells, &least, &most);
    CHECK_NEAR(r.least, least, 0);
    CHECK_NEAR(r.most, most, 0);
    CHECK(r.nodes >= cells && r.nodes <= size);
    CHECK((r.nodes > 1) == (cells > 1));
    if (stride == 1) CHECK_NEAR(r.nodes, cells, 0);
    exact += r.nodes == cells, all++;
    if (cluster.racks.nodes > 0) {
      count_all(first, blocks * block, size, stride, cluster.racks.nodes, &cells, &least, &most);
      CHECK_NEAR(r.least_in_rack, least, 0);
      CHECK(r.racks >= cells && (r.racks > 1) == (cells > 1));
    } else
      CHECK(r.racks == 1 && r.least_in_rack == size);
    bl_pace pace;
    double rate = 1e30, memory = 1e30, intra = 1e30, inter_us = 0;
    for (int32_t i = first; i < first + blocks * block; i++) {
      const bl_node_group *g = &cluster.node_group[group_of[i]];
      rate = fmin(rate, g->device.tflops * 0.5e6), memory = fmin(memory, g->device.memory_bytes);
      intra = fmin(intra, g->links.intra.gbps), inter_us = fmax(inter_us, g->links.inter.latency_us);
    }
    bl_cluster_pace(&cluster, first, blocks * block, 1, &pace);
    CHECK_NEAR(pace.matrix_rate, rate, 1e-6);
    CHECK_NEAR(pace.memory_bytes, memory, 1e-3);
    CHECK_NEAR(r.intra.gbps, intra, 1e-9);
    CHECK_NEAR(r.inter.latency_us, inter_us, 1e-9);
  }
  printf("%d of %d groups: nodes counted exactly\n", exact, all);
  CHECK(exact > 0.8 * all);
}

/* 2039 ranks in a moment: what repeats is not walked again. */
static void test_by_hand(void) {
  bl_reach r;
  memset(&cluster, 0, sizeof cluster);
  cluster.n_node_groups = 2;
  cluster.node_group[0].nodes = 254, cluster.node_group[0].ranks_per_node = 8;
  cluster.node_group[1].nodes = 1, cluster.node_group[1].ranks_per_node = 7;
  bl_cluster_reach(&cluster, 0, 2032, 16, 1, &r);
  CHECK(r.nodes == 2 && r.least == 8 && r.most == 8);
  bl_cluster_reach(&cluster, 0, 2032, 2032 / 16, 16, &r); /* one in every second node */
  CHECK(r.nodes == 127 && r.least == 1 && r.most == 1);
  bl_cluster_reach(&cluster, 2024, 15, 5, 3, &r); /* 8 and 7 ranks: of every third rank 3 or 2 in each node */
  CHECK(r.nodes == 2 && r.least == 2 && r.most == 3);
  bl_cluster_reach(&cluster, 2024, 8, 8, 1, &r);
  CHECK(r.nodes == 1 && r.least == 8);
  CHECK_INT(bl_cluster_ranks(&cluster), 2039);
  bl_cluster_narrow(&cluster, 7);
  CHECK_INT(bl_cluster_ranks(&cluster), 255 * 7);
}

int main(void) {
  RUN(test_reach);
  RUN(test_by_hand);
  TEST_MAIN_END;
}
