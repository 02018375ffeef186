/* curve.h - a cost over an amount: measured points, straight lines between them. */
#ifndef BL_COSTMODEL_CURVE_H
#define BL_COSTMODEL_CURVE_H

#include "base/json.h"
#include <stdint.h>

enum { BL_CURVE_MAX_POINTS = 24 };

typedef struct bl_curve {
  int32_t n;                      /* 0: not measured */
  double x[BL_CURVE_MAX_POINTS];  /* amounts, ascending, > 0 */
  double us[BL_CURVE_MAX_POINTS]; /* microseconds, >= 0 */
} bl_curve;

/*! bl_curve_at() : microseconds at amount x: between points a straight line; below the first the first (what a call
 *  costs at all); beyond the last the line through the last two, which never falls. One point is a constant. n >= 1. */
double bl_curve_at(const bl_curve *curve, double x);

/*! bl_curve_add() : appends a point; x must exceed the last one's. BL_EINPUT otherwise, or when the curve is full. */
bl_status bl_curve_add(bl_curve *curve, double x, double us);

/*! bl_curve_held_out_error() : mean of |predicted - measured| / measured over the inner points, each predicted by the
 *  curve without it; 0 with fewer than three points. */
double bl_curve_held_out_error(const bl_curve *curve);

/*! bl_curve_read(), bl_curve_write() : { "per": unit, "amounts": [...], "times_us": [...] }; another unit, amounts that
 *  do not ascend or lists of unlike length are BL_EINPUT. */
bl_status bl_curve_read(bl_json object, const char *unit, bl_curve *out);
void bl_curve_write(bl_json_writer *w, const char *unit, const bl_curve *curve);

#endif
