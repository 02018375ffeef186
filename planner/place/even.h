/* even.h - replicas that share their expert's load evenly, as EPLB's contract has it, packed more evenly than EPLB's.
 */
#ifndef BL_PLANNER_PLACE_EVEN_H
#define BL_PLANNER_PLACE_EVEN_H

#include "base/status.h"
#include "planner/place/bound.h"
#include <stdint.h>

/*! bl_even_place() : as many replicas of each expert as bl_eplb_place() makes, packed as it packs them; then the
 * hottest rank exchanges a replica, or two for two, with the coldest rank that this helps, until none does; and
 * where that leaves more than a thousandth of the mean, a replica less of one expert and one more of another that the
 * hottest rank holds, while it helps and a budget of packings lasts. No clock is read. Never worse than
 * bl_eplb_place(), whose arguments, result and errors it has: replicas[ranks][experts] counts them, and may name an
 * expert more than once on a rank. */
bl_status bl_even_place(const double *load, int32_t experts, int32_t ranks, const int32_t *slots, int32_t *replicas);

/*! bl_even_bound() : what no even split in these slots beats: "mean-load", or "hottest-replica": replicas made for the
 *  largest load per replica, one slot after the other, leave the smallest largest replica that there can be. */
bl_status bl_even_bound(const double *load, int32_t experts, int32_t ranks, const int32_t *slots, bl_bound *out);

#endif
