#include "planner/milp/expert_groups.h"
#include "base/memory.h"
#include "planner/milp/groups_realise.h"
#include "planner/milp/packing.h"
#include <math.h>
#include <string.h>

/* An expert needs ceil(load / cap) hosts. */
static int32_t hosts_of(const bl_fewest *problem, int32_t expert) {
  return (int32_t)ceil(problem->load[expert] / bl_fewest_largest_cap(problem));
}

static int32_t hosts_needed(const bl_fewest *problem) {
  int32_t copies = 0;
  for (int32_t e = 0; e < problem->experts; ++e)
    if (hosts_of(problem, e) > 1) copies += hosts_of(problem, e) - 1;
  return copies;
}

/* Tries every split of `left` more copies over the bins from `b` on, no bin larger than `most` ranks; bin b has 1 rank
 * so far. Large bins first: they must exist for the hottest expert. */
static bl_packing_answer split(bl_packing *p, int32_t b, int32_t left, int32_t most) {
  const int32_t bins_left = p->n_bins - b;
  if (bins_left == 0) return left > 0 ? BL_PACKING_FITS_NOT : bl_packing_pack(p);
  bl_packing_answer worst = BL_PACKING_FITS_NOT;
  for (int32_t ranks = left + 1 < most ? left + 1 : most; ranks >= 1; --ranks) {
    if ((int64_t)(ranks - 1) * bins_left < left) break; /* the rest is no larger: too little for all */
    p->bins[b].ranks = ranks;
    const bl_packing_answer verdict = split(p, b + 1, left - ranks + 1, ranks);
    if (verdict == BL_PACKING_FITS) return BL_PACKING_FITS;
    if (verdict == BL_PACKING_OUT_OF_BUDGET) worst = verdict;
  }
  return worst;
}

static int fewer(const void *a, const void *b) { return *(const int32_t *)b - *(const int32_t *)a; }

static int slower(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x < y) - (x > y);
}

/* The most that bins of 1, 2, ... ranks can take: n ranks with s slots hold s - (n - 1) experts, n - 1 of which twice.
 */
static void size_bins_by_best(bl_packing *p) {
  const bl_fewest *problem = p->problem;
  for (int32_t r = 0; r < problem->ranks; ++r) {
    p->room[r + 1] = bl_fewest_cap(problem, r);
    p->places[r + 1] = problem->slots[r];
  }
  qsort(p->room + 1, (size_t)problem->ranks, sizeof *p->room, slower);
  qsort(p->places + 1, (size_t)problem->ranks, sizeof *p->places, fewer);
  for (int32_t n = 1; n <= problem->ranks; ++n) {
    p->room[n] += p->room[n - 1];
    p->places[n] += n == 1 ? 0 : p->places[n - 1] - 1;
  }
}

/* What bins take whichever ranks they have: all have the slots of the least. */
static void size_bins_by_least(bl_packing *p, int32_t least) {
  for (int32_t n = 1; n <= p->problem->ranks; ++n) p->places[n] = n * (least - 1) + 1;
}

static bl_status realise_all(const bl_packing *p, int32_t slots, bl_hosts *hosts) {
  const int32_t experts = p->problem->experts;
  int32_t *group;
  BL_TRY(bl_new(&group, (size_t)(experts + p->n_bins), sizeof *group, "groups"));
  for (int32_t i = 0; i < experts; ++i) group[p->order[i]] = p->in_bin[i];
  for (int32_t b = 0; b < p->n_bins; ++b) group[experts + b] = p->bins[b].ranks;
  const bl_status status = bl_groups_realise(p->problem, group, group + experts, p->n_bins, slots, hosts);
  free(group);
  return status;
}

/* A bin for each expert that needs several ranks, copies to spare one a bin: what most placements look like. */
static bl_packing_answer natural_split(bl_packing *p, int32_t copies) {
  int32_t b = 0;
  for (; b < p->n_bins && b < p->problem->experts; ++b) {
    const int32_t needed = hosts_of(p->problem, p->order[b]);
    if (needed < 2) break;
    p->bins[b].ranks = needed;
    copies -= needed - 1;
  }
  if (copies < 0) return BL_PACKING_OUT_OF_BUDGET;
  for (int32_t i = b; i < p->n_bins; ++i) p->bins[i].ranks = 1;
  for (int32_t i = b < p->n_bins ? b : 0; copies > 0; --copies, i = (i + 1) % p->n_bins) ++p->bins[i].ranks;
  return bl_packing_pack(p);
}

static bl_packing_answer fits(bl_packing *p, int32_t copies, bool all_splits) {
  p->n_bins = p->problem->ranks - copies;
  if (natural_split(p, copies) == BL_PACKING_FITS) return BL_PACKING_FITS;
  return all_splits ? split(p, 0, copies, p->problem->ranks) : BL_PACKING_OUT_OF_BUDGET;
}

/* The nodes for the next number of copies, 0 where the budget is spent. */
static int64_t next_share(const bl_packing *p, int64_t budget) {
  const int64_t left = budget - p->visited, once_through = 4 * (int64_t)p->problem->experts;
  if (left < once_through) return 0;
  return left / 2 > once_through ? left / 2 : once_through;
}

/* The first number of copies from `copies` on for which exchanges pack the most natural split, `end` if there is none;
 * each number gets as much of `budget`, which the search that follows does not miss. */
static int32_t first_natural(bl_packing *p, int32_t copies, int32_t end, int64_t budget) {
  const int64_t each = budget / (end - copies + 1);
  p->quick = true;
  for (; copies < end; ++copies) {
    p->last = p->visited + each + 8 * (int64_t)p->problem->experts;
    if (fits(p, copies, false) == BL_PACKING_FITS) break;
  }
  p->quick = false;
  p->visited = 0;
  return copies;
}

bl_status bl_expert_groups_solve(const bl_fewest *problem, const bl_expert_groups_options *options,
                                 bl_expert_groups *out, bl_hosts *hosts) {
  memset(out, 0, sizeof *out);
  int32_t least = problem->slots[0];
  bool fast_alike = true;
  for (int32_t r = 1; r < problem->ranks; ++r) {
    if (problem->slots[r] < least) least = problem->slots[r];
    fast_alike = fast_alike && bl_fewest_cap(problem, r) == bl_fewest_cap(problem, 0);
  }
  const bool alike = bl_fewest_ranks_alike(problem);
  bl_packing p;
  bl_status status = bl_packing_create(problem, &p);
  p.split_nodes = 2 * (int64_t)problem->experts + options->budget / 16;
  const int32_t needed = hosts_needed(problem);
  int32_t end = options->below < problem->ranks ? options->below : problem->ranks;
  bool proved = true; /* so far every smaller number of copies was refuted */
  out->bound = needed > options->bound ? needed : options->bound;
  bool found_first = false;
  if (status == BL_OK && alike) {
    size_bins_by_best(&p);
    const int32_t first = first_natural(&p, out->bound, end, options->budget / 4);
    found_first = first < end;
    if (found_first) status = realise_all(&p, least, hosts);
    end = first;
  }
  for (int32_t copies = out->bound; status == BL_OK && copies < end && !out->found; ++copies) {
    const int64_t share = next_share(&p, options->budget);
    p.last = p.visited + (share ? share : 8 * (int64_t)problem->experts);
    size_bins_by_best(&p);
    bl_packing_answer verdict = fits(&p, copies, share > 0);
    proved = proved && verdict == BL_PACKING_FITS_NOT;
    if (verdict == BL_PACKING_FITS && !alike) {
      if (!fast_alike || least == 0) break; /* that it may fit is all that is known */
      size_bins_by_least(&p, least);
      verdict = fits(&p, copies, share > 0);
    }
    out->found = verdict == BL_PACKING_FITS;
    if (proved) out->bound = copies + 1;
    if (out->found) status = realise_all(&p, least, hosts);
  }
  out->found = out->found || found_first;
  out->infeasible = proved && !out->found; /* a search that broke off has not proved it */
  out->visited = p.visited;
  bl_packing_free(&p);
  return status;
}
