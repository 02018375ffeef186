/* order.h - experts by load, ties to the lower id: the order that every rule here starts from. */
#ifndef BL_PLANNER_PLACE_ORDER_H
#define BL_PLANNER_PLACE_ORDER_H

#include <stdint.h>

/*! bl_order_ascending(), bl_order_descending() : order[n] = ids 0..n-1 sorted by load; of equal loads the lower id
 * comes first in both. scratch[n] is workspace. */
void bl_order_ascending(const double *load, int32_t n, int32_t *order, int32_t *scratch);
void bl_order_descending(const double *load, int32_t n, int32_t *order, int32_t *scratch);

/*! bl_order_least() : the first index of the least of value[n], or -1 where none is below infinity. Looks at several at
 *  once: for long arrays that change little from call to call. */
int32_t bl_order_least(const double *value, int32_t n);

#endif
