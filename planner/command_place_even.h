/* command_place_even.h - `ballast-plan place --split even`: placements for stacks whose replicas share evenly. */
#ifndef BL_PLANNER_COMMAND_PLACE_EVEN_H
#define BL_PLANNER_COMMAND_PLACE_EVEN_H

#include "costmodel/plan.h"

/*! bl_place_even_layer() : layer l of the placement (an index) for load[experts] in slots[ranks]: hosts, shares,
 *  imbalance and bound. Replicas that meet on a rank are one host with their shares. An expert's home is its contiguous
 *  home where that is a host, else its lowest host. */
bl_status bl_place_even_layer(bl_placement *placement, int32_t l, const double *load, const int32_t *slots);

#endif
