/* nnls.h - least squares with coefficients that cannot be negative. */
#ifndef BL_COSTMODEL_NNLS_H
#define BL_COSTMODEL_NNLS_H

#include "base/status.h"
#include <stdint.h>

enum { BL_NNLS_MAX = 32 };

/*! bl_nnls() : the x >= 0 that minimises |A x - y|^2, for A of n_rows x n_columns by rows (at most BL_NNLS_MAX
 * columns): the active-set method of Lawson and Hanson (1974) on the normal equations of A with its columns scaled to
 * length 1. Columns that are zero, or that follow from the others, get 0.  @return : BL_OK, or BL_EINPUT for values
 * that are not finite. */
bl_status bl_nnls(const double *a, const double *y, int64_t n_rows, int32_t n_columns, double *x);

#endif
