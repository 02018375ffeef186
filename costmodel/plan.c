#include "costmodel/plan.h"
#include "base/memory.h"
#include <math.h>
#include <string.h>

enum { MAX_WORLD = 1 << 20 };

int32_t bl_home_contiguous(int32_t expert, int32_t experts, int32_t ranks) {
  return expert / ((experts + ranks - 1) / ranks);
}

bl_status bl_layout_default(bl_layout *layout, int32_t ranks, int32_t layers, int32_t micro_batch,
                            int32_t micro_batches) {
  *layout = (bl_layout){.tp = 1,
                        .cp = 1,
                        .dp = ranks,
                        .pp = 1,
                        .vp = 1,
                        .etp = 1,
                        .ep = ranks,
                        .edp = 1,
                        .micro_batch = micro_batch,
                        .micro_batches = micro_batches,
                        .pieces = 1,
                        .n_stages = 1};
  if (layers < 1) return bl_fail(BL_EINPUT, "a layout of %d layers: expected at least 1", layers);
  BL_TRY(bl_new(&layout->stage_first, 2, sizeof *layout->stage_first, "stages"));
  const bl_status status = bl_new(&layout->stage_layers, (size_t)layers, sizeof *layout->stage_layers, "stages");
  if (status != BL_OK) {
    bl_layout_free(layout);
    return status;
  }
  layout->stage_first[1] = layers;
  for (int32_t l = 0; l < layers; ++l) layout->stage_layers[l] = l;
  return BL_OK;
}

void bl_layout_free(bl_layout *layout) {
  free(layout->stage_first);
  free(layout->stage_layers);
  memset(layout, 0, sizeof *layout);
}

static bl_status check_stages(const bl_layout *layout, int32_t layers, const char *where) {
  if ((int64_t)layout->pp * layout->vp != layout->n_stages)
    return bl_fail(BL_EINPUT, "%s: %d stages, but pp x vp is %d x %d", where, layout->n_stages, layout->pp, layout->vp);
  const int32_t n = layout->stage_first[layout->n_stages];
  if (n != layers) return bl_fail(BL_EINPUT, "%s: the stages hold %d layers, expected %d", where, n, layers);
  for (int32_t i = 0; i < n; ++i)
    if (layout->stage_layers[i] != i)
      return bl_fail(BL_EINPUT, "%s: the stages name layer %d where layer %d should follow: every layer once, in order",
                     where, layout->stage_layers[i], i);
  return BL_OK;
}

bl_status bl_layout_check(const bl_layout *layout, int32_t layers, const char *where) {
  const struct {
    const char *name;
    int32_t value;
  } sizes[] = {{"tp", layout->tp},
               {"cp", layout->cp},
               {"dp", layout->dp},
               {"pp", layout->pp},
               {"vp", layout->vp},
               {"etp", layout->etp},
               {"ep", layout->ep},
               {"edp", layout->edp},
               {"micro_batch", layout->micro_batch},
               {"micro_batches", layout->micro_batches},
               {"pieces", layout->pieces}};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; ++i)
    if (sizes[i].value < 1)
      return bl_fail(BL_EINPUT, "%s: %s is %d, expected at least 1", where, sizes[i].name, sizes[i].value);
  if (layout->zero != 0 && layout->zero != 1 && layout->zero != 3)
    return bl_fail(BL_EINPUT, "%s: zero is %d, expected 0, 1 or 3", where, layout->zero);
  if (layout->shard > 0 && layout->zero == 0)
    return bl_fail(BL_EINPUT, "%s: shard is %d, but zero 0 shards nothing", where, layout->shard);
  if (layout->shard > 0 && (int64_t)layout->cp * layout->dp % layout->shard != 0)
    return bl_fail(BL_EINPUT, "%s: shard is %d, expected a divisor of cp x dp = %d x %d", where, layout->shard,
                   layout->cp, layout->dp);
  const double dense = (double)layout->tp * layout->cp * layout->dp,
               expert = (double)layout->etp * layout->ep * layout->edp;
  if (dense != expert)
    return bl_fail(BL_EINPUT,
                   "%s: the grids fold to different worlds: tp x cp x dp = %d x %d x %d, etp x ep x edp = %d x %d x %d",
                   where, layout->tp, layout->cp, layout->dp, layout->etp, layout->ep, layout->edp);
  if (dense * layout->pp > MAX_WORLD)
    return bl_fail(BL_EINPUT, "%s: the layout has %.0f ranks, expected at most %d", where, dense * layout->pp,
                   MAX_WORLD);
  return check_stages(layout, layers, where);
}

bl_status bl_placement_create(int32_t ranks, int32_t experts, int32_t layers, int32_t slots_per_rank,
                              bl_placement *out) {
  memset(out, 0, sizeof *out);
  if (ranks < 1 || experts < ranks || layers < 1)
    return bl_fail(BL_EINPUT, "a placement of %d experts in %d layers on %d ranks: expected at least one expert a rank",
                   experts, layers, ranks);
  const int32_t homes = (experts + ranks - 1) / ranks;
  if (slots_per_rank == 0) slots_per_rank = homes;
  if (slots_per_rank < homes || slots_per_rank > experts)
    return bl_fail(BL_EINPUT, "%d slots a rank: %d experts on %d ranks need %d to %d", slots_per_rank, experts, ranks,
                   homes, experts);
  bl_status status = BL_OK;
  out->ranks = ranks;
  out->experts = experts;
  BL_TRY_GOTO(status, bl_new(&out->slots, (size_t)ranks, sizeof *out->slots, "a placement"), fail);
  BL_TRY_GOTO(status, bl_new(&out->layer, (size_t)layers, sizeof *out->layer, "a placement"), fail);
  out->layers = layers;
  for (int32_t r = 0; r < ranks; ++r) out->slots[r] = slots_per_rank;
  for (int32_t l = 0; l < layers; ++l) {
    bl_layer_placement *layer = &out->layer[l];
    *layer = (bl_layer_placement){.layer = l, .imbalance = 1, .bound = 1, .proof = ""};
    BL_TRY_GOTO(status, bl_new(&layer->home, (size_t)experts, sizeof *layer->home, "a placement"), fail);
    for (int32_t e = 0; e < experts; ++e) layer->home[e] = bl_home_contiguous(e, experts, ranks);
  }
  return BL_OK;
fail:
  bl_placement_free(out);
  return status;
}

bl_status bl_placement_set_copies(bl_placement *placement, int32_t layer, const bl_copy *copies, int32_t n) {
  bl_copy *own;
  BL_TRY(bl_new(&own, (size_t)n, sizeof *own, "copies"));
  if (n > 0) memcpy(own, copies, (size_t)n * sizeof *own);
  free(placement->layer[layer].copies);
  placement->layer[layer].copies = own;
  placement->layer[layer].n_copies = n;
  free(placement->layer[layer].feeder);
  placement->layer[layer].feeder = NULL;
  return BL_OK;
}

bl_status bl_placement_set_feeders(bl_placement *placement, int32_t layer, const int32_t *feeder) {
  bl_layer_placement *to = &placement->layer[layer];
  free(to->feeder);
  BL_TRY(bl_new(&to->feeder, (size_t)to->n_copies, sizeof *to->feeder, "copies"));
  if (to->n_copies > 0) memcpy(to->feeder, feeder, (size_t)to->n_copies * sizeof *feeder);
  return BL_OK;
}

bl_status bl_placement_set_price(bl_placement *placement, int32_t layer, const bl_layer_price *price) {
  bl_layer_placement *to = &placement->layer[layer];
  if (!to->price) BL_TRY(bl_new(&to->price, 1, sizeof *to->price, "a price"));
  *to->price = *price;
  return BL_OK;
}

void bl_placement_free(bl_placement *placement) {
  for (int32_t l = 0; placement->layer && l < placement->layers; ++l) {
    free(placement->layer[l].home);
    free(placement->layer[l].copies);
    free(placement->layer[l].feeder);
    free(placement->layer[l].price);
  }
  free(placement->layer);
  free(placement->slots);
  memset(placement, 0, sizeof *placement);
}

/* The copy of an expert on a rank, -1 if there is none. */
static int32_t copy_on(const bl_layer_placement *layer, int32_t expert, int32_t rank) {
  for (int32_t i = 0; i < layer->n_copies; ++i)
    if (layer->copies[i].expert == expert && layer->copies[i].rank == rank) return i;
  return -1;
}

/* Every copy's weights come, over others perhaps, from its home. */
static bl_status check_feeders(const bl_layer_placement *layer, const char *where) {
  for (int32_t i = 0; layer->feeder && i < layer->n_copies; ++i) {
    const int32_t e = layer->copies[i].expert;
    int32_t at = i, hops = 0;
    while (at >= 0 && layer->feeder[at] != layer->home[e] && ++hops <= layer->n_copies)
      at = copy_on(layer, e, layer->feeder[at]);
    if (at < 0 || hops > layer->n_copies)
      return bl_fail(BL_EINPUT,
                     "%s: layer %d: the copy of expert %d on rank %d is not filled from its home, %d, directly or over "
                     "other copies",
                     where, layer->layer, e, layer->copies[i].rank, layer->home[e]);
  }
  return BL_OK;
}

/* One layer. used[ranks], share[experts] and held[ranks * experts] are workspace. */
static bl_status check_layer(const bl_placement *p, const bl_layer_placement *layer, const char *where, int32_t *used,
                             double *share, bool *held) {
  memset(used, 0, (size_t)p->ranks * sizeof *used);
  memset(share, 0, (size_t)p->experts * sizeof *share);
  memset(held, 0, (size_t)p->ranks * (size_t)p->experts * sizeof *held);
  for (int32_t e = 0; e < p->experts; ++e) {
    const int32_t r = layer->home[e];
    if (r < 0 || r >= p->ranks)
      return bl_fail(BL_EINPUT, "%s: layer %d: the home of expert %d is rank %d, expected 0 to %d", where, layer->layer,
                     e, r, p->ranks - 1);
    held[(int64_t)r * p->experts + e] = true;
    ++used[r];
  }
  for (int32_t i = 0; i < layer->n_copies; ++i) {
    const bl_copy copy = layer->copies[i];
    if (copy.expert < 0 || copy.expert >= p->experts || copy.rank < 0 || copy.rank >= p->ranks)
      return bl_fail(BL_EINPUT,
                     "%s: layer %d: copy %d is of expert %d on rank %d, expected experts 0 to %d and ranks 0 to %d",
                     where, layer->layer, i, copy.expert, copy.rank, p->experts - 1, p->ranks - 1);
    bool *here = &held[(int64_t)copy.rank * p->experts + copy.expert];
    if (*here)
      return bl_fail(BL_EINPUT, "%s: layer %d: rank %d holds expert %d twice", where, layer->layer, copy.rank,
                     copy.expert);
    *here = true;
    ++used[copy.rank];
    share[copy.expert] += copy.share;
    if (!(copy.share > 0) || !(share[copy.expert] <= 1 + 1e-6))
      return bl_fail(BL_EINPUT,
                     "%s: layer %d: the shares of expert %d's copies: expected above 0 and at most 1 together", where,
                     layer->layer, copy.expert);
  }
  for (int32_t r = 0; r < p->ranks; ++r)
    if (used[r] > p->slots[r])
      return bl_fail(BL_EINPUT, "%s: layer %d: rank %d holds %d experts in %d slots", where, layer->layer, r, used[r],
                     p->slots[r]);
  return check_feeders(layer, where);
}

bl_status bl_placement_check(const bl_placement *placement, const char *where) {
  const size_t ranks = (size_t)placement->ranks, experts = (size_t)placement->experts;
  int32_t *used;
  double *share = NULL;
  bool *held = NULL;
  BL_TRY(bl_new(&used, ranks, sizeof *used, "the check of a placement"));
  bl_status status = bl_new(&share, experts, sizeof *share, "the check of a placement");
  if (status == BL_OK) status = bl_new(&held, ranks * experts, sizeof *held, "the check of a placement");
  for (int32_t r = 0; r < placement->ranks && status == BL_OK; ++r)
    if (placement->slots[r] < 0 || placement->slots[r] > placement->experts)
      status = bl_fail(BL_EINPUT, "%s: rank %d has %d slots: expected 0 to %d, the number of experts", where, r,
                       placement->slots[r], placement->experts);
  for (int32_t l = 0; l < placement->layers && status == BL_OK; ++l)
    status = check_layer(placement, &placement->layer[l], where, used, share, held);
  free(used);
  free(share);
  free(held);
  return status;
}

void bl_plan_free(bl_plan *plan) {
  bl_layout_free(&plan->layout);
  bl_placement_free(&plan->placement);
  free(plan->search);
  memset(plan, 0, sizeof *plan);
}
