/* estimate.h - what a MoE layer takes, from how many tokens reach each expert: a table of costs and its fit.
 *
 * A layer ends when its slowest rank does:
 *   time = max over ranks r of ( constant + sum over the experts of r that have tokens of g(tokens) )
 * with g piecewise linear: what an expert costs at all, its products, and the exchange of its rows. This is the form of
 * SmartMoE's performance model (ATC'23, fig. 11), here with the numbers in a file:
 *   { "version": 1, "constant_us": 0, "expert": { "per": "tokens", "amounts": [16, 32], "times_us": [733.3, 766.7] } }
 * Tokens are token copies that an expert processes in one call of the layer. */
#ifndef BL_COSTMODEL_ESTIMATE_H
#define BL_COSTMODEL_ESTIMATE_H

#include "costmodel/curve.h"
#include <stdbool.h>

typedef struct bl_layer_table {
  double constant_us;
  bl_curve expert; /* n >= 1; below its first point it is flat */
} bl_layer_table;

/* Calls of a layer: tokens[n][ranks][slots], the tokens of every expert by the rank that hosts it; 0 where a slot is
 * empty or its expert has none. */
typedef struct bl_layer_calls {
  int32_t n, ranks, slots;
  const double *tokens;
} bl_layer_calls;

/*! bl_layer_estimate() : microseconds of call `i`. */
double bl_layer_estimate(const bl_layer_table *table, const bl_layer_calls *calls, int32_t i);

/*! bl_layer_hottest() : tokens of the rank with the most, in call `i`. */
double bl_layer_hottest(const bl_layer_calls *calls, int32_t i);

/*! bl_layer_table_fit() : the table that comes closest (least squares) to us[n], the times of the calls, among those
 *  whose costs are not negative and never fall with more tokens. Points lie at powers of two, and further ones where
 *  a point between them halves the sum of squares. The constant can be told from an expert's own cost only where ranks
 *  differ in how many experts have tokens. Which rank is the slowest and the table are found in turns, beginning with
 *  the rank with the most tokens.
 *  @return : BL_OK; BL_EINPUT for fewer than 2 calls, tokens or times that are negative or not finite, or no tokens at
 *  all; BL_EMACHINE. */
bl_status bl_layer_table_fit(const bl_layer_calls *calls, const double *us, bl_layer_table *out);

bl_status bl_layer_table_load(const char *path, bl_layer_table *out);
bl_status bl_layer_table_save(const char *path, const bl_layer_table *table); /* atomic */

#endif
