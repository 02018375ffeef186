/* price_sum.h - a lower bound of a placement's price in microseconds for any weights of ranks, ports and slots.
 *
 * Compute, exchange, copies and moves are each the largest over ranks or ports, and so at least any weighted mean over
 * them. With weights chosen, and prices on slots, the price falls apart into experts, whose least costs add up to a
 * bound (price_hosts.h); which weights are good is found elsewhere (price_columns.h).
 *
 * The bound is of a box: of the placements whose ranks compute and whose ports exchange within given times. No rank and
 * port may take longer, so that a hot expert needs so many hosts, and neither time is shorter than the box begins
 * with. */
#ifndef BL_PLANNER_MILP_PRICE_SUM_H
#define BL_PLANNER_MILP_PRICE_SUM_H

#include "planner/milp/price_hosts.h"

enum { BL_PRICE_COMPUTE, BL_PRICE_EXCHANGE, BL_PRICE_COPIES, BL_PRICE_MOVES, BL_PRICE_TERMS };

/* Weights of the ranks or ports of each term, not negative, at most 1 together: what is missing counts for the least
 * the term can be; then a price in microseconds for a slot of each rank. One array, in this order. */
typedef struct bl_price_layout {
  int32_t first[BL_PRICE_TERMS + 1]; /* a term's weights; the last are the slots' */
  int32_t size;
} bl_price_layout;

typedef struct bl_price_box {
  double low[2], high[2]; /* microseconds of a step: compute; the exchange without latency */
} bl_price_box;

typedef struct bl_price_sum bl_price_sum; /* of one thread and one problem, which is borrowed */

/*! bl_price_sum_create() : price_us is that of a placement that is known: prices above it do not matter. */
bl_status bl_price_sum_create(const bl_place_problem *problem, double price_us, bl_price_sum **out);
void bl_price_sum_free(bl_price_sum *sum);

const bl_price_layout *bl_price_sum_layout(const bl_price_sum *sum);

/*! bl_price_sum_all() : the box of everything that may cost less than the known price. */
bl_price_box bl_price_sum_all(const bl_price_sum *sum);

/*! bl_price_sum_enter() : from now on the placements of this box; what of its high ends cannot be reached below the
 *  known price is cut off. false: the box is empty. */
bool bl_price_sum_enter(bl_price_sum *sum, bl_price_box *box);

/*! bl_price_sum_allowed() : whether so many hosts may be enough for an expert in the box. */
bool bl_price_sum_allowed(const bl_price_sum *sum, int32_t expert, int32_t hosts);

/*! bl_price_sum_start() : weights that are alike, of the ports those of the level that proves most, and a price of
 *  slots at which about all are taken. */
void bl_price_sum_start(bl_price_sum *sum, double *weights);

/* What an expert uses: amounts behind weights in microseconds at weight 1, of slots in slots. */
typedef void bl_price_use(void *context, int32_t expert, int32_t hosts, const int32_t *at, const double *amount,
                          int32_t n);

/*! bl_price_sum_find() : the bound; `use`, if not NULL, hears the cheapest use of every expert.
 *  @return : INFINITY where the box holds no placement. */
double bl_price_sum_find(bl_price_sum *sum, const double *weights, bl_price_use *use, void *context);

#endif
