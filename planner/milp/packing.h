/* packing.h - experts into bins of ranks, each with room for so much load and so many experts: by exchanges, which
 * decide nothing but find most packings of even loads, and by a depth-first search, which also proves that there is
 * none. */
#ifndef BL_PLANNER_MILP_PACKING_H
#define BL_PLANNER_MILP_PACKING_H

#include "base/rng.h"
#include "planner/milp/fewest.h"
#include <stdbool.h>

typedef enum bl_packing_answer { BL_PACKING_FITS, BL_PACKING_FITS_NOT, BL_PACKING_OUT_OF_BUDGET } bl_packing_answer;

typedef struct bl_packing_bin {
  int32_t ranks, places; /* places left */
  double room;           /* capacity left */
} bl_packing_bin;

/* A packing search: experts by descending load into bins. */
typedef struct bl_packing {
  const bl_fewest *problem;
  double *room;         /* [ranks + 1]: what a bin of so many ranks can take, in load and in experts: optimistic, the */
  int32_t *places;      /* fastest and the roomiest ranks, or alike, the least slots for all */
  int32_t *order;       /* [experts] by descending load */
  double *prefix;       /* [experts + 1]: sum of the first i loads in that order */
  int32_t *in_bin;      /* [experts] by position in that order: the bin, the result */
  bl_packing_bin *bins; /* [ranks] */
  int32_t n_bins;
  bool emptiest_first; /* the order in which bins are tried */
  int64_t visited;     /* nodes so far */
  int64_t limit;       /* of visited, for this split of the ranks */
  int64_t last;        /* of visited, for this number of copies */
  int64_t split_nodes; /* for one split of the ranks and one order of bins */
  bool quick;          /* exchanges and kicks alone */
  bl_rng rng;          /* of kicks */
} bl_packing;

/*! bl_packing_create() : no bins yet, room[] and places[] all 0. Freed with bl_packing_free(), also after a failure. */
bl_status bl_packing_create(const bl_fewest *problem, bl_packing *packing);
void bl_packing_free(bl_packing *packing);

/*! bl_packing_pack() : into bins[n_bins] of `ranks` each, as large as room[] and places[] say; in_bin[] where it fits.
 *  Exchanges first, then (unless `quick`) the search in both orders, as each finds quickly what the other does not: the
 *  emptiest bin first spreads even loads, the tightest keeps what is large for what needs it. */
bl_packing_answer bl_packing_pack(bl_packing *packing);

#endif
