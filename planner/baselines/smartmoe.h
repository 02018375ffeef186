/* smartmoe.h - SmartMoE's dynamic placement: longest expert first, equally many homes a rank, any gain adopted.
 *
 * Source: Zhai et al., USENIX ATC 2023, and the rule of its public artifact, exact to the tie. */
#ifndef BL_PLANNER_BASELINES_SMARTMOE_H
#define BL_PLANNER_BASELINES_SMARTMOE_H

#include "base/status.h"
#include <stdbool.h>
#include <stdint.h>

/* The order of equal loads: STABLE = lower id first; NUMPY = reversed output of numpy's default argsort (an unstable
 * quicksort), which is what the artifact's published runs used. */
typedef enum bl_smartmoe_ties { BL_TIES_STABLE, BL_TIES_NUMPY } bl_smartmoe_ties;

/*! bl_smartmoe_place() : experts by descending load, each onto the least loaded rank with a free home (lowest rank on a
 *  tie; its present rank where that is free and exactly as loaded). Adopted, i.e. written to home[experts], only where
 *  the largest rank load falls.  most_homes[ranks]: homes a rank may have.  *adopted says which it was. */
bl_status bl_smartmoe_place(const double *load, int32_t experts, int32_t ranks, const int32_t *most_homes,
                            bl_smartmoe_ties ties, int32_t *home, bool *adopted);

/*! bl_numpy_argsort() : order[n] = the indices in the order of numpy's argsort on doubles (quicksort: median of three,
 *  short runs by insertion; without its heapsort for degenerate inputs and without vector variants of newer releases).
 */
void bl_numpy_argsort(const double *value, int32_t n, int32_t *order);

#endif
