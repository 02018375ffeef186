/* calibrate.h - how far predictions are from measurements, and the few numbers that bring them closest. */
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

/*! bl_r_squared() : the part of the measurements' variance that the predictions explain as they are,
 *  1 - sum (measured - predicted)^2 / sum (measured - mean)^2; NaN for measurements that are all the same. */
double bl_r_squared(const double *predicted, const double *measured, int32_t n);

/* How a layer's time may follow from what is known before it runs. LINE: constant + a x estimate. LOAD: constant + b x
 * tokens of the rank with the most. BOTH: constant + a x estimate + b x those tokens. Nothing is negative. */
#define BL_CALIBRATION_LIST(X) \
  X(LINE, "line")              \
  X(LOAD, "load")              \
  X(BOTH, "both")

typedef enum bl_calibration_kind {
#define X(name, text) BL_CALIBRATION_##name,
  BL_CALIBRATION_LIST(X)
#undef X
      BL_CALIBRATION_COUNT
} bl_calibration_kind;

extern const char *const bl_calibration_names[BL_CALIBRATION_COUNT];

typedef struct bl_calibration {
  double constant_us, per_estimate, per_token_us;
  double fitted_error;   /* mean error over the points that it was fitted on, 0, 2, 4, ... */
  double crossed_error;  /* among those, halves predicted from each other; a little low where the estimates were
                           fitted to the same points */
  double held_out_error; /* over the points that it has not seen, 1, 3, 5, ... */
  double held_out_r_squared;
} bl_calibration;

/*! bl_calibrate() : fits each kind by least squares on points 0, 2, 4, ... and judges it on the others.
 *  estimated, hottest (tokens), measured [n], n >= 8, measured > 0.  *best: the kind with the least crossed_error, so
 *  chosen without the held-out points.  @return : BL_OK or BL_EINPUT. */
bl_status bl_calibrate(const double *estimated, const double *hottest, const double *measured, int32_t n,
                       bl_calibration out[BL_CALIBRATION_COUNT], bl_calibration_kind *best);

/*! bl_calibrated() : the time that a calibration predicts. */
double bl_calibrated(const bl_calibration *calibration, double estimated, double hottest);

#endif
