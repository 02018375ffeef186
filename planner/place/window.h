/* window.h - homes and copies with perfect balance, from scratch, in microseconds, with one copy slot a rank.
 *
 * Let E = k P experts (padded with zero loads), M = sum / P. Sorted ascending, slide a window of k consecutive experts
 * from the smallest to the largest: the first sums to at most M, the last to at least M, so some window has a sum s <=
 * M whose successor (drop the smallest, take the next larger) exceeds M. The rank gets this window whole, and of the
 * next larger expert the piece M - s, which that expert has. k (P-1) experts of total (P-1) M remain; repeat. Every
 * rank ends with exactly M, k homes and at most one copy; at most P-1 copies in all; never two of one expert on a rank.
 */
#ifndef BL_PLANNER_PLACE_WINDOW_H
#define BL_PLANNER_PLACE_WINDOW_H

#include "base/status.h"
#include "costmodel/plan.h"
#include <stdbool.h>
#include <stdint.h>

/* What is left of an expert to be given away. */
typedef struct bl_window_item {
  double load;
  int32_t expert; /* -1: none, fills up */
  bool whole;     /* holds the expert's home */
} bl_window_item;

/*! bl_window_find() : of n items by ascending load, the last k consecutive ones whose sum, in *sum, does not exceed the
 *  target, or the first; k <= n.  @return : where they begin. */
int32_t bl_window_find(const bl_window_item *items, int32_t n, int32_t k, double target, double *sum);

typedef struct bl_window bl_window; /* workspace of one thread */

bl_status bl_window_create(int32_t experts, int32_t ranks, bl_window **out);
void bl_window_free(bl_window *window);

/*! bl_window_place() : home[experts], copies[up to ranks - 1] (ascending rank, at most one a rank).
 *  Each rank needs ceil(experts / ranks) + 1 slots.  @return : the number of copies. */
int32_t bl_window_place(bl_window *window, const double *load, int32_t *home, bl_copy *copies);

#endif
