/* placement.c - a placement of all layers: what it holds, and what can be read from it. */
#include "planner/library/placement.h"
#include "base/memory.h"
#include "planner/place/bound.h"
#include <string.h>

/* A layer's tables from its hosts. */
static bl_status list_layer(ballast_placement *p, int32_t layer, const double *load) {
  const bl_library_shape *s = &p->shape;
  placed_layer *l = &p->layer[layer];
  const size_t slots = (size_t)s->first[s->ranks];
  BL_TRY(bl_new(&l->phy2log, slots, sizeof *l->phy2log, "a placement"));
  BL_TRY(bl_new(&l->share, slots, sizeof *l->share, "a placement"));
  l->imbalance = bl_placement_shares(p, layer, load);
  BL_TRY(bl_library_list(&l->hosts, s->first, p->shares, load, l->phy2log, l->share));
  bl_bound bound = bl_bound_copies();
  int32_t most = 0;
  for (int32_t r = 0; r < s->ranks; r++) most = s->slots[r] > most ? s->slots[r] : most;
  if (s->first[s->ranks] == s->experts) BL_TRY(bl_bound_homes(load, s->experts, s->ranks, most, s->speed, &bound));
  l->bound = bound.imbalance;
  return BL_OK;
}

/* Replicas that meet on a rank are one host there, with a slot each: the others follow the first in the list. */
static void list_replicas(const bl_library_shape *s, placed_layer *l, const int32_t *replicas) {
  for (int32_t r = 0; r < s->ranks; r++) {
    const int32_t *mine = replicas + (int64_t)r * s->experts;
    int32_t empty = s->first[r];
    for (int32_t i = s->first[r]; i < s->first[r + 1]; i++) {
      const int32_t e = l->phy2log[i];
      if (e >= 0) l->share[i] /= mine[e];
    }
    for (int32_t e = 0; e < s->experts; e++)
      for (int32_t n = 1; n < mine[e]; n++) {
        int32_t from = s->first[r];
        while (l->phy2log[from] != e) from++;
        while (l->phy2log[empty] >= 0) empty++;
        l->phy2log[empty] = e;
        l->share[empty] = l->share[from];
      }
  }
}

double bl_placement_shares(ballast_placement *p, int32_t layer, const double *load) {
  const placed_layer *l = &p->layer[layer];
  if (l->fraction) return bl_shares_apply(p->shares, &l->hosts, load, l->fraction, p->shape.speed);
  return bl_shares_solve(p->shares, &l->hosts, load, p->shape.speed);
}

/* Hosts and fixed shares from replicas[ranks][experts]: an expert's home is its first rank. */
bl_status bl_placement_from_replicas(const bl_library_shape *s, const int32_t *replicas, placed_layer *l) {
  const int32_t experts = s->experts, ranks = s->ranks;
  int32_t *home = NULL;
  bl_status status = BL_OK;
  BL_TRY(bl_new(&home, 2 * (size_t)experts, sizeof *home, "homes"));
  int32_t *const n = home + experts;
  for (int32_t r = ranks - 1; r >= 0; r--)
    for (int32_t e = 0; e < experts; e++) {
      const int32_t mine = replicas[(int64_t)r * experts + e];
      if (mine > 0) home[e] = r;
      n[e] += mine;
    }
  BL_TRY_GOTO(status, bl_hosts_create(&l->hosts, experts, ranks, s->slots), end);
  BL_TRY_GOTO(status, bl_hosts_set_homes(&l->hosts, home), end);
  BL_TRY_GOTO(status, bl_new(&l->fraction, (size_t)l->hosts.n_copy_slots, sizeof *l->fraction, "shares"), end);
  for (int32_t slot = 0, r = 0; r < ranks; r++) {
    while (slot < l->hosts.n_copy_slots && l->hosts.copy_rank[slot] < r) slot++;
    for (int32_t e = 0; e < experts; e++) {
      const int32_t mine = replicas[(int64_t)r * experts + e];
      if (mine == 0 || home[e] == r) continue;
      l->hosts.copy_expert[slot] = e;
      l->fraction[slot++] = (double)mine / n[e];
    }
  }
end:
  free(home);
  return status;
}

bl_status bl_placement_new(ballast *handle, bl_library_shape *shape, ballast_placement **out) {
  ballast_placement *p = NULL;
  *out = NULL;
  const bl_status status = bl_new(&p, 1, sizeof *p, "a placement");
  if (status != BL_OK) {
    bl_library_shape_free(shape);
    return status;
  }
  p->handle = handle;
  p->shape = *shape;
  memset(shape, 0, sizeof *shape);
  *out = p;
  BL_TRY(bl_new(&p->layer, (size_t)p->shape.layers, sizeof *p->layer, "a placement"));
  BL_TRY(bl_new(&p->load, (size_t)p->shape.experts, sizeof *p->load, "a placement"));
  return bl_shares_create(p->shape.experts, p->shape.ranks, p->shape.first[p->shape.ranks] - p->shape.experts,
                          &p->shares);
}

bl_status bl_placement_finish(ballast_placement *p, int32_t layer, const double *load, const int32_t *replicas) {
  BL_TRY(list_layer(p, layer, load));
  if (replicas) list_replicas(&p->shape, &p->layer[layer], replicas);
  return BL_OK;
}

void ballast_placement_free(ballast_placement *p) {
  if (p == NULL) return;
  for (int32_t l = 0; p->layer && l < p->shape.layers; l++) {
    bl_hosts_free(&p->layer[l].hosts);
    free(p->layer[l].fraction);
    free(p->layer[l].phy2log);
    free(p->layer[l].share);
  }
  free(p->layer);
  free(p->load);
  bl_shares_free(p->shares);
  bl_library_shape_free(&p->shape);
  free(p);
}

/* -- reading ------------------------------------------------------------------------------------------------------- */

int32_t ballast_placement_slots(const ballast_placement *p) { return p ? p->shape.first[p->shape.ranks] : 0; }

static bl_status check_layer(const ballast_placement *p, int32_t layer, const void *target) {
  if (layer < 0 || layer >= p->shape.layers)
    return bl_fail(BL_EINPUT, "layer %d: expected 0 to %d", layer, p->shape.layers - 1);
  return target ? BL_OK : bl_fail(BL_EINPUT, "the array for the result is NULL");
}

ballast_status ballast_placement_home(const ballast_placement *p, int32_t layer, int32_t *home) {
  if (p == NULL) return BALLAST_INVALID;
  const bl_status status = check_layer(p, layer, home);
  if (status == BL_OK) memcpy(home, p->layer[layer].hosts.home, (size_t)p->shape.experts * sizeof *home);
  return bl_library_end(p->handle, status);
}

ballast_status ballast_placement_phy2log(const ballast_placement *p, int32_t layer, int32_t *phy2log, double *share) {
  if (p == NULL) return BALLAST_INVALID;
  const bl_status status = check_layer(p, layer, phy2log);
  const size_t slots = (size_t)p->shape.first[p->shape.ranks];
  if (status == BL_OK) memcpy(phy2log, p->layer[layer].phy2log, slots * sizeof *phy2log);
  if (status == BL_OK && share) memcpy(share, p->layer[layer].share, slots * sizeof *share);
  return bl_library_end(p->handle, status);
}

ballast_status ballast_placement_imbalance(const ballast_placement *p, int32_t layer, double *imbalance,
                                           double *bound) {
  if (p == NULL) return BALLAST_INVALID;
  const bl_status status = check_layer(p, layer, imbalance);
  if (status == BL_OK) *imbalance = p->layer[layer].imbalance;
  if (status == BL_OK && bound) *bound = p->layer[layer].bound;
  return bl_library_end(p->handle, status);
}

ballast_status ballast_placement_quota(ballast_placement *p, int32_t layer, const uint32_t *counts, int32_t sources,
                                       int32_t ranks_per_node, uint32_t *quota, double *imbalance) {
  if (p == NULL) return BALLAST_INVALID;
  double reached = 1;
  bl_status status = check_layer(p, layer, quota);
  if (status == BL_OK) status = bl_library_sum_counts(counts, sources, ranks_per_node, p->shape.experts, p->load);
  if (status == BL_OK) {
    reached = bl_placement_shares(p, layer, p->load);
    status =
        bl_library_quota(&p->layer[layer].hosts, p->shape.first, p->shares, counts, sources, ranks_per_node, quota);
  }
  if (status == BL_OK && imbalance) *imbalance = reached;
  return bl_library_end(p->handle, status);
}
