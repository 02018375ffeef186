/* dual_hosts.h - the least that one expert can cost when all that it uses has a price.
 *
 * With a price for a token processed on each rank, for a token and a copy through each port, and for each slot, experts
 * no longer depend on one another: the cheapest home and copies of each are found alone. Their sum is the Lagrangian
 * function of the placement (dual_sum.h; Fisher, Management Science 27, 1981).
 *
 * Where an expert has copies, some things are taken for better than they are, so that its cost stays a lower bound:
 * tokens for a host of their own node go to the cheapest rank there, those that leave their node to the cheapest rank
 * of all, and unless homes stay, copies come from whichever rank sends them cheapest. With relays they always do, from
 * their own node where that is cheaper; one of each node without the home comes from another node, at the least that
 * this costs more on any rank there. */
#ifndef BL_PLANNER_MILP_DUAL_HOSTS_H
#define BL_PLANNER_MILP_DUAL_HOSTS_H

#include "planner/place/cost_bound.h"

enum { BL_DUAL_OUT, BL_DUAL_IN };

/* Amounts at every rank, or their prices: tokens processed, slots taken, and what leaves and enters over each level (1
 * .. levels) of tokens, copies and homes that move. A price of a level is that of all ports passed. One block. */
typedef struct bl_dual_amounts {
  double *compute, *slot;                    /* [ranks] */
  double *token[2][BL_PLACE_MAX_LEVELS + 1]; /* [ranks] each */
  double *copy[2][BL_PLACE_MAX_LEVELS + 1];
  double *move[2][BL_PLACE_MAX_LEVELS + 1];
  size_t size; /* doubles from `compute` on */
} bl_dual_amounts;

/*! bl_dual_amounts_create() : all 0.  bl_dual_amounts_free() : frees the block, not the struct. */
bl_status bl_dual_amounts_create(const bl_place_machine *machine, bl_dual_amounts *out);
void bl_dual_amounts_free(bl_dual_amounts *amounts);

/* What no rank and no port may exceed; INFINITY where nothing is known. */
typedef struct bl_dual_caps {
  double tokens;                            /* processed by a rank of speed 1 */
  double arriving[BL_PLACE_MAX_LEVELS + 1]; /* tokens over one port of a level */
  double copies[BL_PLACE_MAX_LEVELS + 1];   /* likewise */
} bl_dual_caps;

typedef struct bl_dual_hosts bl_dual_hosts; /* workspace of one thread for one problem, borrowed */

bl_status bl_dual_hosts_create(const bl_place_problem *problem, bl_dual_hosts **out);
void bl_dual_hosts_free(bl_dual_hosts *costs);

/*! bl_dual_hosts_cap() : from now on hosts and shares beyond the caps do not count. */
void bl_dual_hosts_cap(bl_dual_hosts *costs, const bl_dual_caps *caps);

/*! bl_dual_hosts_price() : the prices, borrowed until others are set. */
void bl_dual_hosts_price(bl_dual_hosts *costs, const bl_dual_amounts *price);

/*! bl_dual_hosts_cheapest() : what `expert` costs at least. used: what the cheapest use takes is added there.
 *  @return : INFINITY where no hosts are within the caps. */
double bl_dual_hosts_cheapest(bl_dual_hosts *costs, int32_t expert, bl_dual_amounts *used);

/*! bl_dual_hosts_allowed() : whether so many hosts may be enough for `expert` under the caps. */
bool bl_dual_hosts_allowed(const bl_dual_hosts *costs, int32_t expert, int32_t hosts);

#endif
