/* plan_instance.h - made-up inputs of the operations that plan an exchange: hosts, counts of tokens, room for rows. */
#ifndef BL_TESTS_EXEC_PLAN_INSTANCE_H
#define BL_TESTS_EXEC_PLAN_INSTANCE_H

#include "base/rng.h"
#include "executor/quotas.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct plan_shape {
  int32_t experts, ranks, slots; /* slots: of each rank */
  double skew;                   /* the r-th hottest expert has a load of r^-skew */
} plan_shape;

static const plan_shape plan_shapes[] = {{1, 1, 1, 0},  {4, 1, 4, 1},  {6, 2, 3, 1},    {6, 2, 5, 1.5},  {8, 4, 3, 1},
                                         {32, 8, 5, 1}, {33, 8, 6, 2}, {64, 16, 6, 1.2}, {96, 48, 4, 0.8}, {256, 64, 5, 1}};

/* One instance: everything on the host. */
typedef struct plan_instance {
  bl_hosts hosts;
  int32_t *block; /* of the table */
  bl_host_table table;
  uint32_t *counts; /* [ranks][experts] */
  int32_t *bounds_block;
  bl_row_bounds bounds; /* of `rank` */
  int32_t rank;
} plan_instance;

static inline void *plan_new(size_t n, size_t size) {
  void *p = calloc(n ? n : 1, size);
  if (!p) exit(3);
  return p;
}

/* Copies at random, of hot experts more often; about one slot in six stays empty. */
static inline void plan_fill_slots(bl_hosts *hosts, bl_rng *rng) {
  for (int32_t s = 0; s < hosts->n_copy_slots; s++) {
    const double unit = bl_rng_unit(rng);
    const int32_t e = (int32_t)(unit * unit * unit * hosts->experts);
    bool there = hosts->home[e] == hosts->copy_rank[s] || bl_rng_below(rng, 6) == 0;
    for (int32_t o = 0; o < hosts->n_copy_slots; o++)
      there |= hosts->copy_rank[o] == hosts->copy_rank[s] && hosts->copy_expert[o] == e;
    hosts->copy_expert[s] = there ? -1 : e;
  }
}

static inline plan_instance plan_make(const plan_shape *shape, bl_rng *rng, bool copies) {
  plan_instance x = {.rank = (int32_t)bl_rng_below(rng, (uint64_t)shape->ranks)};
  const int32_t E = shape->experts, P = shape->ranks;
  int32_t slots[1024], home[4096];
  for (int32_t p = 0; p < P; p++) slots[p] = shape->slots;
  if (bl_hosts_create(&x.hosts, E, P, slots) != BL_OK) exit(3);
  for (int32_t e = 0; e < E; e++) home[e] = x.hosts.home[e];
  for (int32_t e = E - 1; e > 0; e--) { /* homes anywhere, as many on each rank */
    const int32_t o = (int32_t)bl_rng_below(rng, (uint64_t)e + 1), kept = home[e];
    home[e] = home[o];
    home[o] = kept;
  }
  if (bl_hosts_set_homes(&x.hosts, home) != BL_OK) exit(3);
  if (copies) plan_fill_slots(&x.hosts, rng);
  x.block = plan_new(bl_host_table_size(E, P, E + x.hosts.n_copy_slots), sizeof *x.block);
  x.table = bl_host_table_fill(x.block, &x.hosts);
  x.counts = plan_new((size_t)P * (size_t)E, sizeof *x.counts);
  for (int32_t p = 0; p < P; p++)
    for (int32_t e = 0; e < E; e++)
      x.counts[p * E + e] = (uint32_t)(400 * pow(e + 1, -shape->skew) * bl_rng_unit(rng));
  x.bounds_block = plan_new(2 * ((size_t)P + 1) + (size_t)x.table.entries + 1, sizeof(int32_t));
  return x;
}

/* Room for the rows of x.rank by these quotas; `tight`: here and there a little less. */
static inline void plan_bounds(plan_instance *x, const uint32_t *quota, bl_rng *rng, bool tight) {
  const bl_host_table *t = &x->table;
  const int32_t P = t->ranks, me = x->rank, first = t->rank_first[me], n = t->rank_first[me + 1] - first;
  int32_t *send = x->bounds_block, *recv = send + P + 1, *block = recv + P + 1;
  for (int32_t p = 0; p < P; p++) {
    int32_t out = 0, in = 0;
    for (int32_t l = t->rank_first[p]; l < t->rank_first[p + 1]; l++) out += (int32_t)quota[me * t->entries + t->rank_entry[l]];
    for (int32_t l = 0; l < n; l++) in += (int32_t)quota[p * t->entries + t->rank_entry[first + l]];
    const int32_t spare_out = (int32_t)bl_rng_below(rng, 5), spare_in = (int32_t)bl_rng_below(rng, 5);
    send[p + 1] = send[p] + (tight && bl_rng_below(rng, 4) == 0 ? out / 2 : out + spare_out);
    recv[p + 1] = recv[p] + (tight && bl_rng_below(rng, 4) == 0 ? in / 2 : in + spare_in);
  }
  for (int32_t l = 0; l < n; l++) {
    int32_t rows = 0;
    for (int32_t p = 0; p < P; p++) rows += (int32_t)quota[p * t->entries + t->rank_entry[first + l]];
    block[l + 1] = block[l] + (tight && bl_rng_below(rng, 4) == 0 ? rows / 2 : rows + (int32_t)bl_rng_below(rng, 5));
  }
  x->bounds = (bl_row_bounds){send, recv, block, recv[P], block[n]};
}

static inline void plan_drop(plan_instance *x) {
  bl_hosts_free(&x->hosts);
  free(x->block);
  free(x->counts);
  free(x->bounds_block);
}

#endif
