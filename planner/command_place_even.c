#include "planner/command_place_even.h"
#include "base/memory.h"
#include "planner/place/even.h"

/* Hosts and shares of expert e, whose replicas on rank r are replicas[r * experts + e]; copies are appended. */
static void take_expert(bl_layer_placement *layer, int32_t e, int32_t experts, int32_t ranks, const int32_t *replicas,
                        double load, double *rank_load, bl_copy *copies, int32_t *n_copies) {
  const int32_t preferred = bl_home_contiguous(e, experts, ranks);
  int32_t count = 0, home = -1;
  for (int32_t r = 0; r < ranks; ++r) {
    const int32_t here = replicas[(int64_t)r * experts + e];
    count += here;
    if (here > 0 && (home < 0 || r == preferred)) home = r;
  }
  layer->home[e] = home;
  for (int32_t r = 0; r < ranks; ++r) {
    const int32_t here = replicas[(int64_t)r * experts + e];
    rank_load[r] += load * here / count;
    if (here > 0 && r != home) copies[(*n_copies)++] = (bl_copy){e, r, (double)here / count};
  }
}

static bl_status take_replicas(bl_placement *placement, int32_t l, const double *load, const int32_t *replicas,
                               double *rank_load, bl_copy *copies) {
  bl_layer_placement *layer = &placement->layer[l];
  const int32_t experts = placement->experts, ranks = placement->ranks;
  int32_t n_copies = 0;
  double sum = 0, largest = 0;
  for (int32_t e = 0; e < experts; ++e) {
    take_expert(layer, e, experts, ranks, replicas, load[e], rank_load, copies, &n_copies);
    sum += load[e];
  }
  for (int32_t r = 0; r < ranks; ++r)
    if (rank_load[r] > largest) largest = rank_load[r];
  layer->imbalance = sum > 0 ? largest * ranks / sum : 1;
  return bl_placement_set_copies(placement, l, copies, n_copies);
}

bl_status bl_place_even_layer(bl_placement *placement, int32_t l, const double *load, const int32_t *slots) {
  const size_t experts = (size_t)placement->experts, ranks = (size_t)placement->ranks;
  bl_arena *arena;
  int32_t *replicas;
  double *rank_load;
  bl_copy *copies;
  bl_bound bound;
  BL_TRY(bl_even_bound(load, placement->experts, placement->ranks, slots, &bound));
  placement->layer[l].bound = bound.imbalance;
  placement->layer[l].proof = bound.proof;
  BL_TRY(bl_arena_create(&arena));
  bl_status status = bl_arena_take(arena, &replicas, ranks * experts, sizeof *replicas);
  if (status == BL_OK) status = bl_arena_take(arena, &rank_load, ranks, sizeof *rank_load);
  if (status == BL_OK) status = bl_arena_take(arena, &copies, ranks * experts, sizeof *copies);
  if (status == BL_OK) status = bl_even_place(load, placement->experts, placement->ranks, slots, replicas);
  if (status == BL_OK) status = take_replicas(placement, l, load, replicas, rank_load, copies);
  bl_arena_free(arena);
  return status;
}
