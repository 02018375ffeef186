/* bound.h - lower bounds of the imbalance that any placement of a layer can reach: what a plan is measured against. */
#ifndef BL_PLANNER_PLACE_BOUND_H
#define BL_PLANNER_PLACE_BOUND_H

#include "base/status.h"
#include <stdint.h>

typedef struct bl_bound {
  double imbalance;  /* max/mean load (loads over speeds where these differ); >= 1 */
  const char *proof; /* why: "mean-load", "hottest-expert", "pigeonhole"; a static string */
} bl_bound;

/*! bl_bound_homes() : every expert on one rank only, at most `homes_per_rank` of them on a rank.
 *  Where homes_per_rank is the least that holds all (ceil(experts / ranks)), every rank must hold exactly that many,
 *  counting experts of zero load that pad up to ranks * homes_per_rank, and the smallest ones fill up:
 *    max( sum/P ; w1 + the k-1 smallest ; for q = 2..k: the q items ending at index (q-1)P+1 + the k-q smallest ).
 *  Where it is more, the fillers fall away. speed[ranks] or NULL: then each term counts on the fastest rank.
 *  Source: pigeonhole bounds for cardinality-constrained scheduling (Dell'Amico and Martello, 2001). */
bl_status bl_bound_homes(const double *load, int32_t experts, int32_t ranks, int32_t homes_per_rank,
                         const double *speed, bl_bound *out);

/*! bl_bound_copies() : experts may be copied and split freely: only the mean is a bound. */
bl_bound bl_bound_copies(void);

#endif
