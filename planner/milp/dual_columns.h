/* dual_columns.h - the best weights for the bound of dual_sum.h, by column generation.
 *
 * A column is a use that one expert can make of ranks, ports and slots. The linear program mixes the columns known so
 * far for the least price; its dual values are weights, and where the sum over experts at these weights has uses that
 * are cheaper still, they become columns. The bound is the sum's, so it does not rest on the program's word. Weights
 * asked for lie between the program's and those that proved most so far (Wentges, International Transactions in
 * Operational Research 4, 1997). GLPK is not told apart here: to be called in a child process. */
#ifndef BL_PLANNER_MILP_DUAL_COLUMNS_H
#define BL_PLANNER_MILP_DUAL_COLUMNS_H

#include "planner/milp/dual_sum.h"

typedef struct bl_dual_columns bl_dual_columns; /* the columns of all boxes; the sum is borrowed */

bl_status bl_dual_columns_create(bl_dual_sum *sum, const bl_place_problem *problem, double price_us,
                                 bl_dual_columns **out);
void bl_dual_columns_free(bl_dual_columns *columns);

/*! bl_dual_columns_raise() : the best bound for the box that the sum has entered, until bl_now_us() is deadline_us,
 *  the program proves no more, or the bound has reached `enough`. weights: those to start from, then the best.
 *  *bound: only raised.  @return : BL_OK, BL_EMACHINE. */
bl_status bl_dual_columns_raise(bl_dual_columns *columns, const bl_dual_box *box, double enough, int64_t deadline_us,
                                double *weights, double *bound);

#endif
