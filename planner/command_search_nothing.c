/* command_search_nothing.c - why no layout fits, and what would. */
#include "base/memory.h"
#include "planner/command_search.h"
#include <stdio.h>
#include <stdlib.h>

/* The least multiple of the ranks, by doubling, on which something fits, `held` bytes being what the leanest layout
 * holds now; 0: none within the cluster. What a rank holds shrinks at most in proportion to their number. */
static bl_status more_ranks(const bl_search_report *report, double held, int32_t *ranks) {
  bl_search_options o = *report->options;
  bl_search_result r;
  const double wanted = o.ranks * held / o.memory_bytes;
  const int64_t there = bl_cluster_ranks(o.cluster), most = there < BL_SEARCH_MAX_RANKS ? there : BL_SEARCH_MAX_RANKS;
  o.top = 1;
  o.simulate = 0;
  *ranks = 0;
  while (*ranks == 0 && 2 * (int64_t)o.ranks <= most) {
    o.ranks *= 2;
    if (o.cluster->n_node_groups == 1 && o.ranks < wanted) continue;
    BL_TRY(bl_search(&o, &r));
    if (r.n > 0) *ranks = o.ranks;
    bl_search_free(&r);
  }
  return BL_OK;
}

bl_status bl_search_explain_nothing(const bl_search_report *report) {
  const bl_search_options *o = report->options;
  char text[BL_GRID_TEXT_MAX], more[64] = "";
  bl_search_entry *least;
  int32_t ranks, worst = 0;
  BL_TRY(bl_new(&least, 1, sizeof *least, "layouts"));
  bl_status status = bl_search_least_memory(o, least);
  if (status == BL_OK) status = more_ranks(report, least->memory.total / least->memory_share, &ranks);
  if (status == BL_OK) {
    const bl_footprint *f = &least->memory;
    const double may = o->memory_bytes * least->memory_share;
    for (int k = 1; k < BL_FOOTPRINT_COUNT; k++)
      if (f->bytes[k] > f->bytes[worst]) worst = k;
    const bool alike = o->cluster->n_node_groups == 1; /* else less may do, with layouts that lean on larger devices */
    if (ranks > 0) snprintf(more, sizeof more, ", or %d ranks", ranks);
    status =
        bl_fail(BL_EINPUT,
                "model %s does not fit %d ranks with a batch of %d: the leanest layout (%s, zero %d, recompute %s) "
                "fills %.1f GB of a rank, %.1f GB more than the %.1f GB it may, most of it %s (%.1f GB); %sdevices of "
                "%.0f GB%s%s",
                o->model->name, o->ranks, o->batch, bl_grid_text(&least->grid, text), least->grid.zero,
                bl_recompute_names[least->grid.recompute], f->total * 1e-9, (f->total - may) * 1e-9, may * 1e-9,
                bl_footprint_names[worst], f->bytes[worst] * 1e-9, alike ? "nearest change: " : "",
                f->total / report->memory_fraction * 1e-9 + 0.5, more, alike ? "" : " would do");
  }
  free(least);
  return status;
}
