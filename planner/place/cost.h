/* cost.h - what a placement of one layer costs: microseconds of one optimizer step, term by term.
 *
 * Ranks lie in nested groups: level 1 joins the ranks of a node, level 2 nodes, level 3 racks of nodes. Traffic between
 * two ranks is of the lowest level whose group holds both. It leaves through a port of the sender and arrives through
 * one of the receiver, both directions at once. Level 1 has ports of its own; what crosses level 3 also passes the
 * ports of level 2 (a network card, then its switch's uplink). A port may serve several consecutive ranks. With N
 * micro-batches a step, terms add up; nothing is taken to hide under anything else: compute   N * token_us * max over
 * ranks of (tokens of the rank / its speed) exchange  N * exchanges * (row_bytes * busiest port + latency of the
 * highest level used); `exchanges` is 4: dispatch and combine, forth and backward, where what goes out one way comes
 * back the other fill      once a step, each copy's weights from its feeder: fill_bytes * busiest port + the longest
 * way's latencies reduce    once a step, the same edges backwards with the gradients: reduce_bytes instead move
 * (state_bytes * busiest port + latency) / horizon, over homes that differ from before where "busiest port" is the
 * largest, over ports and both directions, of amount / (its gigabytes a second * 1000).
 *
 * Which source's tokens go to which host of an expert: as many as both have left first on the own rank, then inside the
 * group of each level, sources and hosts of a group taking part in proportion to what they have left. bl_quota_build()
 * hands out whole tokens in rank order instead, with the same sums a node. */
#ifndef BL_PLANNER_PLACE_COST_H
#define BL_PLANNER_PLACE_COST_H

#include "costmodel/plan.h" /* and plan_price.h: the terms */
#include <stdbool.h>
#include <stdint.h>

enum { BL_PLACE_MAX_LEVELS = 3 };

typedef struct bl_place_level {
  int32_t ranks;   /* of one group: consecutive ranks; a multiple of the level's before. The last level joins all */
  int32_t sharing; /* consecutive ranks that share a port of this level; at least 1 */
  double gbps;     /* gigabytes a second of one rank and direction; a port has `sharing` times as much */
  double latency_us;
} bl_place_level;

/* What prices follow from. Experts are whole: their bytes are those that one rank holds. */
typedef struct bl_place_machine {
  int32_t ranks, levels;
  bl_place_level level[BL_PLACE_MAX_LEVELS];    /* innermost first */
  const double *speed;                          /* [ranks], > 0, or NULL: all 1; borrowed */
  double token_us;                              /* a token through an expert at speed 1, forward and backward */
  double row_bytes;                             /* of a token on its way */
  double fill_bytes, reduce_bytes, state_bytes; /* of an expert: weights, fp32 gradients, whole training state */
  int32_t exchanges, micro_batches;             /* in a forward and backward; in a step */
  double horizon;                               /* steps over which a move is paid off */
} bl_place_machine;

/*! bl_place_machine_check() : BL_EINPUT, naming what is out of range: no rank, levels that do not nest, a bandwidth or
 *  speed that is not positive, a negative latency or size. */
bl_status bl_place_machine_check(const bl_place_machine *machine);

/*! bl_place_level_between() : the level of traffic between two ranks: 0 where they are the same, else 1 .. levels. */
int32_t bl_place_level_between(const bl_place_machine *machine, int32_t a, int32_t b);

/* Tokens of a mean micro-batch. Both arrays are the owner's who made it. */
typedef struct bl_place_demand {
  int32_t experts, ranks;
  double *load;   /* [experts] */
  double *source; /* [experts][ranks]: of the load, what comes from each rank; NULL: the same from all */
  double *sent;   /* [ranks]: what each rank sends in all; NULL with source */
} bl_place_demand;

/*! bl_place_demand_create() : counts[sources][experts]; `sources` are spread over the ranks in order (several on one,
 *  or one over several). Sources NULL: counts[experts] come alike from all ranks. Freed with bl_place_demand_free(). */
bl_status bl_place_demand_create(int32_t experts, int32_t ranks, const double *counts, int32_t sources,
                                 bl_place_demand *out);
void bl_place_demand_free(bl_place_demand *demand);

/* Where experts are; all borrowed. */
typedef struct bl_placed {
  const int32_t *home;     /* [experts] */
  const bl_copy *copies;   /* [n_copies] */
  const int32_t *feeder;   /* [n_copies]: the host of the same expert that fills each copy; NULL: homes feed all */
  const int32_t *old_home; /* [experts]: before; NULL: moves cost nothing */
  int32_t n_copies;
} bl_placed;

typedef struct bl_place_price {
  double us[BL_PLACE_TERM_COUNT], total_us;
  double imbalance; /* the largest of load / speed over its mean (all load / all speeds); 1 without load */
  int32_t slowest;  /* the rank that computes longest */
  int32_t moved;    /* homes that differ from before */
  int32_t depth;    /* hops on the longest way of a fill */
  bl_place_port port[BL_PLACE_TERM_COUNT]; /* that of the reduction is the one of the fill, the other way */
} bl_place_price;

typedef struct bl_place_cost bl_place_cost; /* workspace of one thread for one machine */

/*! bl_place_cost_create() : `machine` is checked and borrowed. */
bl_status bl_place_cost_create(const bl_place_machine *machine, int32_t experts, bl_place_cost **out);
void bl_place_cost_free(bl_place_cost *cost);

/*! bl_place_cost_price() : the price of a sound placement (see bl_placement_check()) under a demand of the same shape.
 *  O(experts + ranks + hosts * ranks of a group of the last level but one).
 *  @return : BL_OK or BL_EMACHINE. */
bl_status bl_place_cost_price(bl_place_cost *cost, const bl_place_demand *demand, const bl_placed *placed,
                              bl_place_price *out);

/*! bl_place_cost_loads() : after a price: tokens on each rank, [ranks]. */
const double *bl_place_cost_loads(const bl_place_cost *cost);

#endif
