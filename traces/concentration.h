/* concentration.h - how unevenly load is spread, as one number. */
#ifndef BL_TRACES_CONCENTRATION_H
#define BL_TRACES_CONCENTRATION_H

#include <stdint.h>

/*! bl_gini() : the Gini coefficient of n values in ascending order, none negative: 0 when all are equal, (n - 1) / n
 *  when one has all; 0 when their sum is 0. */
double bl_gini(const double *ascending, int32_t n);

/*! bl_herfindahl() : the Herfindahl index, the sum of squared shares, of n values, none negative: 1/n when all are
 * equal, 1 when one has all; 1/n when their sum is 0. */
double bl_herfindahl(const double *values, int32_t n);

/*! bl_total_variation() : half the sum of |a - b|: the part of the load that is elsewhere, for shares that sum to 1. */
double bl_total_variation(const double *a, const double *b, int32_t n);

#endif
