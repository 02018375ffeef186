/* cost_state.h - a placement that the search for the least price changes bit by bit. Private to cost_*.c. */
#ifndef BL_PLANNER_PLACE_COST_STATE_H
#define BL_PLANNER_PLACE_COST_STATE_H

#include "planner/place/cost_bound.h"
#include "planner/place/flow.h"
#include "planner/place/hosts.h"
#include "planner/place/relay.h"

/* Homes and copies with shares; arrays of fixed room, so that one is taken over by memcpy. */
typedef struct bl_place_state {
  int32_t *home;   /* [experts] */
  int32_t *used;   /* [ranks]: experts on each */
  bl_copy *copies; /* [room] */
  int32_t *feeder; /* [room] */
  int32_t n;       /* copies */
  bl_place_price price;
} bl_place_state;

/* What states are evaluated with. */
typedef struct bl_place_judge {
  bl_place_problem problem;     /* demand and old homes change from call to call */
  int32_t experts, ranks, room; /* room: for copies */
  bl_place_cost *cost;
  bl_relay *relay;
  bl_flow_graph graph; /* shares are levelled on it */
  bl_flow_scratch scratch;
  bl_flow_state flow;
  double *flow_block;
  bl_hosts hosts;    /* what shares are solved on; its arrays lie in ours */
  double heights[4]; /* at which speeds are cut; the largest speed first */
  int32_t n_heights;
  double *cut, *taken;              /* [ranks]: speeds cut at a height; tokens of the expert looked at, -1: no host */
  bool *served;                     /* [ranks]: its tokens of that expert have found a host */
  double *level_share, *last_share; /* [room]: best for compute at a height, and at the one before */
  double *near_share;               /* [room]: every source to its nearest hosts */
  int32_t *start;                   /* [ranks + 1] */
  int32_t *first, *next;            /* [experts], [room]: copies by expert */
  bl_copy *sorted;                  /* [room]: copies by rank */
  bl_place_state kept;              /* the best shares so far */
  int32_t evaluations;
} bl_place_judge;

bl_status bl_place_state_create(const bl_place_judge *judge, bl_place_state *out);
void bl_place_state_free(bl_place_state *state);
void bl_place_state_assign(const bl_place_judge *judge, bl_place_state *to, const bl_place_state *from);

/*! bl_place_state_count() : used[] anew from homes and copies. */
void bl_place_state_count(const bl_place_judge *judge, bl_place_state *state);

bl_status bl_place_judge_create(const bl_place_problem *problem, bl_place_judge *out);
void bl_place_judge_free(bl_place_judge *judge);

/*! bl_place_judge_price() : the price with the copies' shares (and feeders) as they are. */
bl_status bl_place_judge_price(bl_place_judge *judge, bl_place_state *state);

/*! bl_place_judge_solve() : the best shares for the state's hosts; copies that take nothing are dropped; then the
 * price. Copies end up by ascending rank. */
bl_status bl_place_judge_solve(bl_place_judge *judge, bl_place_state *state);

/*! bl_place_holds() : whether a rank holds an expert. */
bool bl_place_holds(const bl_place_state *state, int32_t expert, int32_t rank);

#endif
