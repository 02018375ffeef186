/* cost_bound.h - microseconds below which no placement of a layer can be (cost.h), and why.
 *
 * Two arguments, added with the price of copies divided between them (lambda and 1 - lambda, the best of a few):
 *  compute   Were no rank to take longer than M, an expert of load w needs so many hosts that their speeds times M
 * reach w, so copies; with homes that stay, a rank above M must part with load, so with at least so many experts.
 *            Copies of one expert leave its home (all of them without relays), and every copy passes some port. The
 *            price of these copies falls in steps as M grows: the bound is the least over the steps of compute at M
 * plus lambda times the copies, M being at least the mean, and without any copy at least what homes alone reach
 *            (bound.h).
 *  exchange  What a group sends to experts without a host in it leaves it. Every expert has one home; another host in a
 *            group keeps there what the group sends it, and costs a copy on the same ports. No port of a level carries
 *            less at its busiest than the mean over all of them.
 * Where moves are priced: either no home moves, and homes are given, or at least one does. */
#ifndef BL_PLANNER_PLACE_COST_BOUND_H
#define BL_PLANNER_PLACE_COST_BOUND_H

#include "planner/place/cost.h"

typedef enum bl_place_homes {
  BL_PLACE_HOMES_FREE,  /* chosen; moves cost nothing */
  BL_PLACE_HOMES_COST,  /* chosen; moves are paid off over the horizon */
  BL_PLACE_HOMES_FIXED, /* stay */
} bl_place_homes;

/* One layer's problem; all borrowed. */
typedef struct bl_place_problem {
  const bl_place_machine *machine;
  const bl_place_demand *demand;
  const int32_t *slots;    /* [ranks] */
  const int32_t *old_home; /* [experts]: may be NULL where homes are free */
  bl_place_homes homes;
  bool relay; /* copies may feed copies (relay.h); else homes feed all of theirs */
} bl_place_problem;

typedef struct bl_place_bound {
  double us;      /* of a step */
  double level;   /* the load / speed at which the compute argument is cheapest */
  char proof[64]; /* such as "mean-load", "copies-or-compute + locality" */
} bl_place_bound;

/*! bl_place_bound_find() : the bound; 0 or more.  @return : BL_OK or BL_EMACHINE. */
bl_status bl_place_bound_find(const bl_place_problem *problem, bl_place_bound *out);

#endif
