#include "planner/place/window.h"
#include "base/memory.h"
#include "planner/place/order.h"
#include <string.h>

struct bl_window {
  int32_t experts, ranks, per_rank;
  bl_window_item *items; /* [ranks * per_rank], ascending */
  int32_t *order, *scratch;
};

bl_status bl_window_create(int32_t experts, int32_t ranks, bl_window **out) {
  bl_window *w;
  *out = NULL;
  BL_TRY(bl_new(&w, 1, sizeof *w, "the window rule"));
  w->experts = experts;
  w->ranks = ranks;
  w->per_rank = (experts + ranks - 1) / ranks;
  bl_status status = BL_OK;
  BL_TRY_GOTO(status, bl_new(&w->items, (size_t)w->per_rank * (size_t)ranks, sizeof *w->items, "the window rule"),
              fail);
  BL_TRY_GOTO(status, bl_new(&w->order, (size_t)experts, sizeof *w->order, "the window rule"), fail);
  BL_TRY_GOTO(status, bl_new(&w->scratch, (size_t)experts, sizeof *w->scratch, "the window rule"), fail);
  *out = w;
  return BL_OK;
fail:
  bl_window_free(w);
  return status;
}

void bl_window_free(bl_window *window) {
  if (!window) return;
  free(window->items);
  free(window->order);
  free(window->scratch);
  free(window);
}

int32_t bl_window_find(const bl_window_item *items, int32_t n, int32_t k, double target, double *sum) {
  double s = 0;
  for (int32_t i = 0; i < k; ++i) s += items[i].load;
  int32_t first = 0;
  for (; first + k < n; ++first) {
    const double next = s - items[first].load + items[first + k].load;
    if (next > target) break;
    s = next;
  }
  *sum = s;
  return first;
}

int32_t bl_window_place(bl_window *window, const double *load, int32_t *home, bl_copy *copies) {
  const int32_t k = window->per_rank, experts = window->experts, pads = k * window->ranks - experts;
  bl_window_item *items = window->items;
  bl_order_ascending(load, experts, window->order, window->scratch);
  double total = 0;
  for (int32_t i = 0; i < pads; ++i) items[i] = (bl_window_item){0, -1, false};
  for (int32_t i = 0; i < experts; ++i) {
    items[pads + i] = (bl_window_item){load[window->order[i]], window->order[i], true};
    total += items[pads + i].load;
  }
  const double mean = total / window->ranks, tiny = mean * 1e-12;
  int32_t n_copies = 0;
  for (int32_t rank = 0, n = k * window->ranks; rank < window->ranks; ++rank, n -= k) {
    double sum;
    const int32_t first = bl_window_find(items, n, k, mean, &sum);
    for (int32_t i = first; i < first + k; ++i)
      if (items[i].expert >= 0) home[items[i].expert] = rank;
    bl_window_item *next = &items[first + k];
    if (first + k < n && mean - sum > tiny) { /* the piece leaves `next` larger than what is before it: order holds */
      const double whole = load[next->expert], piece = mean - sum;
      copies[n_copies++] = (bl_copy){next->expert, rank, piece / whole};
      next->load -= piece;
    }
    memmove(&items[first], next, (size_t)(n - first - k) * sizeof *items);
  }
  return n_copies;
}
