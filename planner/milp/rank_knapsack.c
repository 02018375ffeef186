#include "planner/milp/rank_knapsack.h"
#include "base/memory.h"
#include <math.h>
#include <string.h>

bl_status bl_rank_knapsack_create(int32_t items, int32_t most, int32_t grid, bl_rank_knapsack *k) {
  const char *what = "columns";
  const size_t n = (size_t)items, row = (size_t)(grid + 1), table = (size_t)(most + 1) * row;
  *k = (bl_rank_knapsack){.items = items, .states = most + 1, .grid = grid};
  BL_TRY(bl_new(&k->rank, n, sizeof *k->rank, what));
  BL_TRY(bl_new(&k->weight, n, sizeof *k->weight, what));
  BL_TRY(bl_new(&k->step, n, sizeof *k->step, what));
  BL_TRY(bl_new(&k->value, n, sizeof *k->value, what));
  BL_TRY(bl_new(&k->best, table, sizeof *k->best, what));
  BL_TRY(bl_new(&k->took, n * table, 1, what));
  return bl_new(&k->copy, row, sizeof *k->copy, what);
}

void bl_rank_knapsack_free(bl_rank_knapsack *k) {
  free(k->rank);
  free(k->weight);
  free(k->step);
  free(k->value);
  free(k->best);
  free(k->took);
  free(k->copy);
  memset(k, 0, sizeof *k);
}

/* to[w] = the larger of itself and best[w - weight] + value, with a mark where it changes. */
static void relax(double *restrict to, const double *restrict best, uint8_t *restrict mark, int32_t n, double value,
                  uint8_t as) {
  for (int32_t w = 0; w < n; ++w) {
    const double taken = best[w] + value;
    mark[w] = taken > to[w] ? as : mark[w];
    to[w] = taken > to[w] ? taken : to[w];
  }
}

void bl_rank_knapsack_fill(bl_rank_knapsack *k, bool at_least) {
  const int32_t last = k->states - 1;
  const int64_t row = k->grid + 1;
  for (int64_t i = 0; i < (int64_t)k->states * row; ++i) k->best[i] = -INFINITY;
  for (int32_t w = 0; w <= (at_least ? 0 : k->grid); ++w) k->best[w] = 0;
  memset(k->took, 0, (size_t)(k->items * k->states * row));
  for (int32_t i = 0; i < k->items; ++i) {
    const int32_t weight = k->weight[i], step = k->step[i];
    for (int32_t s = last; s >= 0; --s)
      for (int32_t from = s == last ? last : s - step; from >= 0 && from >= s - step; --from) {
        double *to = k->best + s * row;
        uint8_t *mark = k->took + ((int64_t)i * k->states + s) * row;
        memcpy(k->copy, k->best + from * row, (size_t)row * sizeof *k->copy); /* it may be `to` */
        relax(to + weight, k->copy, mark + weight, k->grid + 1 - weight, k->value[i], (uint8_t)(from + 1));
        for (int32_t w = 0; at_least && w < weight; ++w)
          relax(to + w, k->copy, mark + w, 1, k->value[i], (uint8_t)(from + 1));
      }
  }
}

void bl_rank_knapsack_trace(const bl_rank_knapsack *k, int32_t state, int32_t w, uint8_t *member) {
  const int64_t row = k->grid + 1;
  for (int32_t i = k->items - 1; i >= 0; --i) {
    const uint8_t from = k->took[((int64_t)i * k->states + state) * row + w];
    if (!from) continue;
    member[k->rank[i]] = 1;
    state = from - 1;
    w = w > k->weight[i] ? w - k->weight[i] : 0;
  }
}
