#include "planner/place/anneal.h"
#include "base/memory.h"
#include "base/rng.h"
#include <string.h>

enum { COOLINGS = 400 };

typedef struct anneal {
  const double *load;
  int32_t items, ranks;
  int32_t *rank, *best; /* [items] now, and in the best placement */
  double *sum;          /* [ranks] */
  double largest;       /* of the best placement */
  bl_rng rng;
} anneal;

static double largest_of(const double *sum, int32_t ranks) {
  double largest = 0;
  for (int32_t r = 0; r < ranks; ++r)
    if (sum[r] > largest) largest = sum[r];
  return largest;
}

static void weigh_exchange(anneal *a, double heat) {
  const int32_t i = (int32_t)bl_rng_below(&a->rng, (uint64_t)a->items);
  const int32_t j = (int32_t)bl_rng_below(&a->rng, (uint64_t)a->items);
  const int32_t p = a->rank[i], q = a->rank[j];
  const double d = a->load[i] - a->load[j];
  if (p == q || d == 0) return;
  const double change = 2 * d * (d - a->sum[p] + a->sum[q]); /* of sum_p^2 + sum_q^2 when d moves from p to q */
  if (change > 0 && (change > 30 * heat || bl_rng_unit(&a->rng) >= bl_det_exp(-change / heat))) return;
  a->rank[i] = q;
  a->rank[j] = p;
  a->sum[p] -= d;
  a->sum[q] += d;
  if (a->sum[p] >= a->largest || a->sum[q] >= a->largest) return;
  const double largest = largest_of(a->sum, a->ranks);
  if (!(largest < a->largest)) return;
  a->largest = largest;
  memcpy(a->best, a->rank, (size_t)a->items * sizeof *a->best);
}

bl_status bl_anneal_swaps(const double *load, int32_t items, int32_t ranks, int64_t steps, double enough, int32_t *rank,
                          double *largest) {
  double *sum, total = 0;
  int32_t *now;
  BL_TRY(bl_new(&sum, (size_t)ranks, sizeof *sum, "annealing"));
  const bl_status status = bl_new(&now, (size_t)items, sizeof *now, "annealing");
  if (status != BL_OK) {
    free(sum);
    return status;
  }
  memcpy(now, rank, (size_t)items * sizeof *now);
  for (int32_t i = 0; i < items; ++i) {
    sum[rank[i]] += load[i];
    total += load[i];
  }
  anneal a = {.load = load, .items = items, .ranks = ranks, .rank = now, .best = rank, .sum = sum};
  a.largest = largest_of(sum, ranks);
  bl_rng_seed(&a.rng, 1, (uint64_t)items);
  const double size = items > 0 ? total / items : 0;
  double heat = 0.1 * size * size; /* from a third of an item to a hundred-thousandth of one */
  const double cooling = bl_det_exp(bl_det_log(1e-9) / COOLINGS);
  for (int32_t c = 0; c < COOLINGS && a.largest > enough && total > 0; ++c, heat *= cooling) {
    for (int64_t s = 0; s < steps / COOLINGS; ++s) weigh_exchange(&a, heat);
    for (int32_t r = 0; r < ranks; ++r) sum[r] = 0; /* no rounding gathers */
    for (int32_t i = 0; i < items; ++i) sum[now[i]] += load[i];
  }
  for (int32_t r = 0; r < ranks; ++r) sum[r] = 0;
  for (int32_t i = 0; i < items; ++i) sum[rank[i]] += load[i];
  *largest = largest_of(sum, ranks);
  free(now);
  free(sum);
  return BL_OK;
}
