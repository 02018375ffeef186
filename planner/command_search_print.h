/* command_search_print.h - what ballast-plan search found, for people and for scripts; and why it found nothing. */
#ifndef BL_PLANNER_COMMAND_SEARCH_PRINT_H
#define BL_PLANNER_COMMAND_SEARCH_PRINT_H

#include "planner/search/search.h"

typedef struct bl_search_report {
  const bl_search_options *options;
  const bl_search_result *result;
  const char *imbalance_source; /* where the experts' imbalance comes from */
  double memory_fraction;       /* of a device's memory */
} bl_search_report;

void bl_search_print_json(const bl_search_report *report);
bl_status bl_search_print(const bl_search_report *report);

/*! bl_search_explain_nothing() : @return : BL_EINPUT with the constraint that fails, by how much, and the nearest
 * change that helps. */
bl_status bl_search_explain_nothing(const bl_search_report *report);

#endif
