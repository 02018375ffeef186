/* found.c - what a search found, for callers of the library. */
#include "planner/library/found.h"
#include <stdlib.h>
#include <string.h>

void ballast_found_free(ballast_found *found) {
  if (found == NULL) return;
  bl_search_free(&found->result);
  free(found);
}

int32_t ballast_found_count(const ballast_found *found) { return found ? found->result.n : 0; }

double ballast_found_bound_us(const ballast_found *found) {
  if (!found) return 0;
  return found->result.simulated > 0 ? found->result.proved_us : found->result.bound_us;
}

int32_t ballast_found_simulated(const ballast_found *found) { return found ? found->result.simulated : 0; }

int64_t ballast_found_undecided(const ballast_found *found) { return found ? found->result.open : 0; }

/* The simulation where there is one. */
static const bl_step_price *predicted(const bl_search_entry *e) {
  return e->simulated.step_us > 0 ? &e->simulated : &e->price;
}

static bl_status check_entry(const ballast_found *found, int32_t i, const void *target) {
  if (i < 0 || i >= found->result.n) return bl_fail(BL_EINPUT, "layout %d: expected 0 to %d", i, found->result.n - 1);
  return target ? BL_OK : bl_fail(BL_EINPUT, "the place for the result is NULL");
}

ballast_status ballast_found_layout(const ballast_found *found, int32_t i, ballast_layout *out) {
  if (found == NULL) return BALLAST_INVALID;
  const bl_status status = check_entry(found, i, out);
  if (status == BL_OK) {
    const bl_search_entry *e = &found->result.entry[i];
    *out = (ballast_layout){.tp = e->grid.tp,
                            .cp = e->grid.cp,
                            .dp = e->grid.dp,
                            .pp = e->grid.pp,
                            .vp = e->grid.vp,
                            .etp = e->grid.etp,
                            .ep = e->grid.ep,
                            .edp = e->grid.edp,
                            .zero = e->grid.zero,
                            .micro_batch = e->grid.micro_batch,
                            .micro_batches = e->grid.micro_batches,
                            .recompute = (int32_t)e->grid.recompute,
                            .step_us = predicted(e)->step_us,
                            .bound_us = e->bound_us,
                            .imbalance = e->imbalance,
                            .memory_bytes = e->memory.total};
  }
  return bl_library_end(found->handle, status);
}

ballast_status ballast_found_stages(const ballast_found *found, int32_t i, int32_t *layers) {
  if (found == NULL) return BALLAST_INVALID;
  const bl_status status = check_entry(found, i, layers);
  if (status == BL_OK) {
    const bl_search_entry *e = &found->result.entry[i];
    for (int32_t s = 0; s < e->grid.pp * e->grid.vp; s++) layers[s] = e->first[s + 1] - e->first[s];
  }
  return bl_library_end(found->handle, status);
}

static void fill_detail(const bl_search_entry *e, ballast_layout_detail *d) {
  const double *us = predicted(e)->us;
  d->closed_form_us = e->price.step_us, d->simulated_us = e->simulated.step_us;
  d->dense_us = us[BL_PRICE_DENSE], d->experts_us = us[BL_PRICE_EXPERT], d->recompute_us = us[BL_PRICE_RECOMPUTE];
  d->tensor_us = us[BL_PRICE_TENSOR], d->context_us = us[BL_PRICE_CONTEXT], d->exchange_us = us[BL_PRICE_EXCHANGE];
  d->send_us = us[BL_PRICE_SEND], d->bubble_us = us[BL_PRICE_BUBBLE], d->reduce_us = us[BL_PRICE_REDUCE];
  d->optimizer_us = us[BL_PRICE_OPTIMIZER];
  d->pieces = e->grid.pieces > 1 ? e->grid.pieces : 1;
  d->shard = e->grid.zero > 0 ? (int32_t)bl_grid_shard(&e->grid) : 1;
}

/* As much as the caller's structure has room for, the rest of it 0. */
ballast_status ballast_found_detail(const ballast_found *found, int32_t i, ballast_layout_detail *out) {
  if (found == NULL) return BALLAST_INVALID;
  ballast_layout_detail detail = {0};
  bl_status status = check_entry(found, i, out);
  if (status == BL_OK && (out->bytes < sizeof out->bytes || out->bytes > 65536))
    status = bl_fail(BL_EINPUT, "the detail of a layout: its member bytes is %llu, expected its sizeof",
                     (unsigned long long)out->bytes);
  if (status == BL_OK) {
    fill_detail(&found->result.entry[i], &detail);
    detail.bytes = out->bytes;
    memset(out, 0, detail.bytes);
    memcpy(out, &detail, detail.bytes < sizeof detail ? detail.bytes : sizeof detail);
  }
  return bl_library_end(found->handle, status);
}
