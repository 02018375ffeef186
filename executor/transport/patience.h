/* patience.h - how long a rank waits for another one.
 *
 * Not a point in time but an amount that waiting uses up, looked at a few times a second. What passes between two looks
 * counts for at most one such interval: a run that was stopped as a whole (Ctrl-Z, a debugger, a virtual machine that
 * slept) has waited no longer than it ran, and no clock of the system leaves out all of these. */
#ifndef BL_EXECUTOR_TRANSPORT_PATIENCE_H
#define BL_EXECUTOR_TRANSPORT_PATIENCE_H

#include "base/log.h"
#include <stdbool.h>
#include <stdint.h>

static const double BL_PATIENCE_LOOK_S = 0.25; /* whoever waits looks at least so often */

typedef struct bl_patience {
  double limit_s, spent_s;
  int64_t last_us;
} bl_patience;

static inline bl_patience bl_patience_of(double limit_s) {
  return (bl_patience){limit_s, 0, bl_now_us()};
}

/*! bl_patience_spend() : counts the time since the last look.  @return : whether any is left. */
static inline bool bl_patience_spend(bl_patience *p) {
  const int64_t now = bl_now_us();
  const double passed = 1e-6 * (double)(now - p->last_us);
  p->last_us = now;
  p->spent_s += passed < BL_PATIENCE_LOOK_S ? passed : BL_PATIENCE_LOOK_S;
  return p->spent_s < p->limit_s;
}

/* Seconds until the next look is due. */
static inline double bl_patience_next_look(const bl_patience *p) {
  const double left = p->limit_s - p->spent_s;
  return left < BL_PATIENCE_LOOK_S ? left : BL_PATIENCE_LOOK_S;
}

#endif
