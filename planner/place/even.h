/* even.h - replicas that share their expert's load evenly, as EPLB's contract has it, packed more evenly than EPLB's.
 */
#ifndef BL_PLANNER_PLACE_EVEN_H
#define BL_PLANNER_PLACE_EVEN_H

#include "base/status.h"
#include <stdint.h>

/*! bl_even_place() : as many replicas of each expert as bl_eplb_place() makes, packed as it packs them; then the
 * hottest rank exchanges a replica with the coldest rank that this helps, until none does. Never worse than
 * bl_eplb_place(), whose arguments, result and errors it has: replicas[ranks][experts] counts them. */
bl_status bl_even_place(const double *load, int32_t experts, int32_t ranks, const int32_t *slots, int32_t *replicas);

#endif
