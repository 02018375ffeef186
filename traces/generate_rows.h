/* generate_rows.h - the rows (source rank, micro-batch) of a generated step: samples of popularity, or a split of
 * totals that are given. A row is `copies` = tokens x top-k token copies, none of its counts above `tokens`. */
#ifndef BL_TRACES_GENERATE_ROWS_H
#define BL_TRACES_GENERATE_ROWS_H

#include "base/rng.h"
#include "base/status.h"

typedef struct bl_row_drawer bl_row_drawer;

/*! bl_row_drawer_create() : for rows of `tokens` tokens that take `top_k` of `experts` experts each. */
bl_status bl_row_drawer_create(int32_t experts, int32_t tokens, int32_t top_k, bl_row_drawer **out);
void bl_row_drawer_free(bl_row_drawer *drawer); /* NULL is fine */

/*! bl_round_counts() : rounds weight[n], low <= weight <= high, whose sum is `total`, to whole counts between low and
 * high with just that sum: each takes what lies between two whole numbers of the running sum, which starts at `offset`
 * in [0, 1). */
void bl_round_counts(const double *weight, const int64_t *low, const int64_t *high, int32_t n, double offset,
                     int64_t total, int64_t *counts);

/*! bl_cap_values() : holds value[n] to at most `cap` and their sum to `total` <= n * cap: what is cut off goes to the
 * others in proportion. */
void bl_cap_values(double *value, int32_t n, double cap, double total);

/*! bl_row_sample() : one row drawn from share[experts]: an expert's count is about binomial(tokens, top_k * share). */
void bl_row_sample(bl_row_drawer *drawer, bl_rng *rng, const double *share, uint32_t *counts);

/*! bl_row_split() : one of `rows` rows still to be made, so that all of them add up to left[experts] copies, which sum
 * to rows * copies with none above rows * tokens; the row scatters about left / rows as a sample would. Takes it off
 * left. */
void bl_row_split(bl_row_drawer *drawer, bl_rng *rng, int64_t rows, int64_t *left, uint32_t *counts);

#endif
