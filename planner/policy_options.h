/* policy_options.h - the command-line options of a policy, one table for every program that takes them, and what they
 * mean once parsed. */
#ifndef BL_PLANNER_POLICY_OPTIONS_H
#define BL_PLANNER_POLICY_OPTIONS_H

#include "base/options.h"
#include "planner/baselines/smartmoe.h"
#include "planner/policy.h"

enum { BL_POLICY_OPTION_ROWS = 9 };

/*! bl_policy_option_rows() : writes the rows (a heading and --policy, --lag, --shares, --late-repair, --homes,
 *  --copy-price, --back-off, --ties) for a command's option table; parsing fills `options`, which must outlive it. Call
 * bl_policy_options_init() first.
 */
void bl_policy_option_rows(bl_policy_options *options, bl_option rows[BL_POLICY_OPTION_ROWS]);

/* The same, understood. */
typedef struct bl_policy_config {
  bl_policy_kind kind;
  int64_t every; /* iterations between decisions */
  int32_t lag;
  bool stale;
  double late_repair;
  bl_homes_mode homes;
  bl_smartmoe_ties ties;
  double copy_price;
  int64_t back_off;
} bl_policy_config;

/*! bl_policy_config_read() : BL_EUSAGE for a policy or value that does not exist and for contradictions. */
bl_status bl_policy_config_read(const bl_policy_options *options, bl_policy_config *out);

/*! bl_parse_slots() : "5" (every rank) or "5,5,4,6" (one a rank) into slots[ranks]; NULL = one more than the homes that
 *  ceil(experts / ranks) gives. BL_EUSAGE for anything else. */
bl_status bl_parse_slots(const char *text, int32_t experts, int32_t ranks, int32_t *slots);

/*! bl_parse_speeds() : "1,1,0.5" into speed[ranks], each above 0 and below 1e9. BL_EUSAGE for anything else. */
bl_status bl_parse_speeds(const char *text, int32_t ranks, double *speed);

/*! bl_parse_layers() : "3,7,8" into *layers, which the caller frees (also on failure), and their number. */
bl_status bl_parse_layers(const char *text, int32_t **layers, int32_t *n);

#endif
