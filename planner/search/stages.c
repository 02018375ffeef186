#include "planner/search/stages.h"
#include "base/memory.h"
#include <float.h>
#include <string.h>

static void count_stage(const bl_model *m, int32_t stages, int32_t stage, int32_t from, int32_t to, int32_t *count) {
  for (int32_t l = from; l < to; l++) count[bl_item_of_layer(m, l)]++;
  if (stage == 0) count[BL_ITEM_EMBED]++;
  if (stage == stages - 1) count[BL_ITEM_HEAD]++;
}

void bl_stages_counts(const bl_model *model, const bl_grid *grid, const int32_t *first, int32_t *counts) {
  const int32_t stages = grid->pp * grid->vp;
  memset(counts, 0, (size_t)grid->pp * BL_ITEM_COUNT * sizeof *counts);
  for (int32_t s = 0; s < stages; s++)
    count_stage(model, stages, s, first[s], first[s + 1], counts + (int64_t)(s % grid->pp) * BL_ITEM_COUNT);
}

double bl_stages_memory_share(const bl_grid_costs *costs, int32_t position) {
  return costs->positions->memory_share[costs->positions->kind[position]];
}

int32_t bl_stages_memory(const bl_grid *grid, const bl_grid_costs *costs, const int32_t *counts, bl_footprint *out) {
  int32_t fullest = 0;
  double most = 0;
  for (int32_t d = 0; d < grid->pp; d++) {
    bl_footprint f;
    bl_footprint_of(costs->size, counts + (int64_t)d * BL_ITEM_COUNT, grid, costs->positions->num_bytes,
                    bl_grid_in_flight(grid, d), &f);
    const double full = f.total / bl_stages_memory_share(costs, d);
    if (d == 0 || full > most) *out = f, fullest = d, most = full;
  }
  return fullest;
}

/* Shared by all stages of one division. */
typedef struct divider {
  const bl_grid *grid;
  const bl_grid_costs *costs;
  int32_t stages;
  double memory_bytes, mean_us; /* mean_us: of a stage */
  bl_item item[BL_STAGES_MAX_LAYERS];
} divider;

/* Whether a stage's items fit. Those of an interleaved pipeline share their device: the caller looks. */
static bool fits(const divider *d, int32_t stage, const int32_t *count) {
  bl_footprint f;
  if (d->grid->vp > 1) return true;
  bl_footprint_of(d->costs->size, count, d->grid, d->costs->positions->num_bytes, bl_grid_in_flight(d->grid, stage),
                  &f);
  return f.total <= d->memory_bytes * bl_stages_memory_share(d->costs, stage);
}

/* The best last run of a division of the first j layers into stages 0..stage; before[i]: the slowest of the stages in
 * front where these hold i layers. Longer runs only take longer, so the first too slow ends the search. Of equals the
 * longest that takes no more than the mean: no stage idles for others, and those in front, which hold most
 * micro-batches and start interleaved rounds, take what does not divide. */
static int32_t last_run(const divider *d, int32_t stage, const double *before, int32_t j, double *slowest) {
  const bl_position_costs *costs = bl_costs_at(d->costs, stage % d->grid->pp);
  int32_t count[BL_ITEM_COUNT] = {[BL_ITEM_EMBED] = stage == 0, [BL_ITEM_HEAD] = stage == d->stages - 1}, best = j;
  double us = bl_device_us(costs, count);
  *slowest = DBL_MAX;
  for (int32_t i = j;; i--) {
    if (stage > 0 || i == 0) {
      const double both = us > before[i] ? us : before[i];
      if (us >= *slowest || !fits(d, stage, count)) break;
      if (both < *slowest || (both == *slowest && us <= d->mean_us)) *slowest = both, best = i;
    }
    if (i == 0) break;
    const bl_item item = d->item[i - 1];
    count[item]++;
    us += costs->price[item].total;
  }
  return best;
}

bool bl_stages_divide(const bl_model *model, const bl_grid *grid, const bl_grid_costs *costs, double memory_bytes,
                      int32_t *first) {
  const int32_t layers = model->layers;
  divider d = {.grid = grid, .costs = costs, .stages = grid->pp * grid->vp, .memory_bytes = memory_bytes};
  int32_t count[BL_ITEM_COUNT];
  double row[2][BL_STAGES_MAX_LAYERS + 1];
  int16_t *from; /* [stages][layers + 1]: where the stage that ends there begins */
  if (layers < 1 || layers > BL_STAGES_MAX_LAYERS || d.stages > BL_STAGES_MAX) return false;
  const size_t width = (size_t)layers + 1;
  if (bl_new(&from, (size_t)d.stages * width, sizeof *from, "stages") != BL_OK) return false;
  for (int32_t l = 0; l < layers; l++) d.item[l] = bl_item_of_layer(model, l);
  bl_items_of_model(model, count);
  d.mean_us = bl_device_us(bl_costs_at(costs, 0), count) / d.stages;
  for (int32_t j = 0; j <= layers; j++) row[0][j] = j ? DBL_MAX : 0;
  for (int32_t s = 0; s < d.stages; s++)
    for (int32_t j = s == d.stages - 1 ? layers : 0; j <= layers; j++)
      from[(size_t)s * width + (size_t)j] = (int16_t)last_run(&d, s, row[s % 2], j, &row[(s + 1) % 2][j]);
  const bool found = row[d.stages % 2][layers] < DBL_MAX;
  if (found) first[d.stages] = layers;
  for (int32_t s = d.stages - 1; found && s >= 0; s--) first[s] = from[(size_t)s * width + (size_t)first[s + 1]];
  free(from);
  return found;
}
