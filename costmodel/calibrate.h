/* calibrate.h - how far predictions are from measurements, and the one factor that brings them closest. */
#ifndef BL_COSTMODEL_CALIBRATE_H
#define BL_COSTMODEL_CALIBRATE_H

#include "base/status.h"
#include <stdint.h>

/*! bl_mean_error() : mean of |predicted - measured| / measured (MAPE as a fraction); measured > 0, n >= 1. */
double bl_mean_error(const double *predicted, const double *measured, int32_t n);

/*! bl_fit_scale() : the factor s that minimises the sum of ((s predicted - measured) / measured)^2 (least squares of
 * the relative error), and the mean error of each point under the factor fitted to all others (*held_out; the plain
 * error where n is 1).  @return : BL_OK, BL_EINPUT for non-positive or non-finite values. */
bl_status bl_fit_scale(const double *predicted, const double *measured, int32_t n, double *scale, double *held_out);

#endif
