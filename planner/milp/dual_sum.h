/* dual_sum.h - a lower bound of a placement's price in microseconds for any weights of ranks, ports and slots.
 *
 * Compute, exchange, copies and moves are each the largest over ranks or ports, and so at least any weighted mean over
 * them. With weights chosen, and prices on slots, the price falls apart into experts, whose least costs add up to a
 * bound (dual_hosts.h); which weights are good is found elsewhere (dual_columns.h).
 *
 * The bound is of a box: of the placements whose ranks compute and whose ports exchange within given times. No rank and
 * port may take longer, so that a hot expert needs so many hosts, and neither time is shorter than the box begins
 * with. */
#ifndef BL_PLANNER_MILP_DUAL_SUM_H
#define BL_PLANNER_MILP_DUAL_SUM_H

#include "planner/milp/dual_hosts.h"

enum { BL_DUAL_COMPUTE, BL_DUAL_EXCHANGE, BL_DUAL_COPIES, BL_DUAL_MOVES, BL_DUAL_TERMS };

/* Weights of the ranks or ports of each term, not negative, at most 1 together: what is missing counts for the least
 * the term can be; then a price in microseconds for a slot of each rank. One array, in this order. */
typedef struct bl_dual_layout {
  int32_t first[BL_DUAL_TERMS + 1]; /* a term's weights; the last are the slots' */
  int32_t size;
} bl_dual_layout;

typedef struct bl_dual_box {
  double low[2], high[2]; /* microseconds of a step: compute; the exchange without latency */
} bl_dual_box;

typedef struct bl_dual_sum bl_dual_sum; /* of one thread and one problem, which is borrowed */

/*! bl_dual_sum_create() : price_us is that of a placement that is known: prices above it do not matter. */
bl_status bl_dual_sum_create(const bl_place_problem *problem, double price_us, bl_dual_sum **out);
void bl_dual_sum_free(bl_dual_sum *sum);

const bl_dual_layout *bl_dual_sum_layout(const bl_dual_sum *sum);

/*! bl_dual_sum_all() : the box of everything that may cost less than the known price. */
bl_dual_box bl_dual_sum_all(const bl_dual_sum *sum);

/*! bl_dual_sum_enter() : from now on the placements of this box; what of its high ends cannot be reached below the
 *  known price is cut off. false: the box is empty. */
bool bl_dual_sum_enter(bl_dual_sum *sum, bl_dual_box *box);

/*! bl_dual_sum_allowed() : whether so many hosts may be enough for an expert in the box. */
bool bl_dual_sum_allowed(const bl_dual_sum *sum, int32_t expert, int32_t hosts);

/*! bl_dual_sum_start() : weights that are alike, of the ports those of the level that proves most, and a price of
 *  slots at which about all are taken. */
void bl_dual_sum_start(bl_dual_sum *sum, double *weights);

/* What an expert uses: amounts behind weights in microseconds at weight 1, of slots in slots. */
typedef void bl_dual_use(void *context, int32_t expert, int32_t hosts, const int32_t *at, const double *amount,
                         int32_t n);

/*! bl_dual_sum_find() : the bound; `use`, if not NULL, hears the cheapest use of every expert.
 *  @return : INFINITY where the box holds no placement. */
double bl_dual_sum_find(bl_dual_sum *sum, const double *weights, bl_dual_use *use, void *context);

#endif
