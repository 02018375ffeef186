/* flow.h - the minimum of the largest rank load for given hosts, as a parametric maximum flow that can be continued
 * after a change of hosts. The engine under bl_shares_solve() and the search for copy hosts.
 *
 * Tokens of an expert lie at its hosts; the entries are numbered 0..experts-1 (at home) and experts..experts+slots-1
 * (in a copy slot). While a rank is above the target, a breadth-first search over "tokens of an expert here may go to
 * another host of it" looks for ranks below the target and pushes along the paths found. Where none is reached, the
 * ranks visited are a closed set: nothing on them can go elsewhere, so their mean is a lower bound, and the target
 * rises to it. The target never falls, so at the end it is both reached and proved. */
#ifndef BL_PLANNER_PLACE_FLOW_H
#define BL_PLANNER_PLACE_FLOW_H

#include "planner/place/hosts.h"

/* Load below this fraction of the mean rank load counts as nothing: far above rounding, far below a token. */
#define BL_SHARES_TINY 1e-12

/* Who can host what. Changed by bl_flow_fill() and bl_flow_empty(). */
typedef struct bl_flow_graph {
  int32_t experts, ranks, slots;
  int32_t *home;        /* [experts] */
  int32_t *slot_rank;   /* [slots], ascending */
  int32_t *slot_expert; /* [slots], -1 = empty */
  int32_t *slot_next;   /* [slots]: next slot of the same expert, -1 = last */
  int32_t *slot_first;  /* [experts]: first slot of the expert, -1 = no copies */
  int32_t *rank_slots;  /* [ranks + 1]: slots of rank r are rank_slots[r] .. rank_slots[r+1]-1 */
  int32_t *shared_at;   /* [ranks]: first expert with copies whose home is here, -1 = none */
  int32_t *shared_next; /* [experts] */
} bl_flow_graph;

/* Where the tokens lie. One block, so that a copy is one memcpy of bl_flow_state_size() doubles. */
typedef struct bl_flow_state {
  double *tokens;    /* [experts + slots] */
  double *rank_load; /* [ranks] */
} bl_flow_state;

/* Scratch of one thread, and the certificate of the last solve. */
typedef struct bl_flow_scratch {
  int32_t *queue, *parent, *from, *to, *root; /* [ranks] */
  int32_t *mark;                              /* [experts]: expanded in search number `epoch` */
  int32_t epoch;
  int32_t n_closed; /* size of the last closed set, 0 = the mean itself was reached; its ranks are closed[] */
  int32_t *closed;  /* [ranks] */
} bl_flow_scratch;

/*! bl_flow_graph_create() : room for up to `max_slots` copy slots; one allocation, freed with bl_flow_graph_free(). */
bl_status bl_flow_graph_create(bl_flow_graph *graph, int32_t experts, int32_t ranks, int32_t max_slots);
void bl_flow_graph_free(bl_flow_graph *graph);

bl_status bl_flow_scratch_create(bl_flow_scratch *scratch, int32_t experts, int32_t ranks);
void bl_flow_scratch_free(bl_flow_scratch *scratch);

/*! bl_flow_state_size() : doubles in one state of this graph's capacity. */
int64_t bl_flow_state_size(int32_t experts, int32_t ranks, int32_t max_slots);

/*! bl_flow_state_at() : a state laid out in `block` (bl_flow_state_size() doubles, owned by the caller). */
bl_flow_state bl_flow_state_at(double *block, int32_t experts, int32_t max_slots);

/*! bl_flow_graph_load() : takes homes and copies over from `hosts` (as many slots as created for, or fewer). */
void bl_flow_graph_load(bl_flow_graph *graph, const bl_hosts *hosts);

/*! bl_flow_fill(), bl_flow_empty() : puts `expert` into an empty slot; empties a filled one. A state solved before
 * keeps its tokens: call bl_flow_return() for it first when a slot is emptied. */
void bl_flow_fill(bl_flow_graph *graph, int32_t slot, int32_t expert);
void bl_flow_empty(bl_flow_graph *graph, int32_t slot);

/*! bl_flow_return() : the tokens in `slot` go back to their expert's home. */
void bl_flow_return(const bl_flow_graph *graph, bl_flow_state state, int32_t slot);

/*! bl_flow_start() : all tokens at home.  @return : the sum of the loads. */
double bl_flow_start(const bl_flow_graph *graph, bl_flow_state state, const double *load);

/*! bl_flow_solve() : continues from `state` to the optimum.
 *  `level` is a lower bound of load / speed to start from (the mean), `cutoff` gives up early as soon as the target
 *  exceeds it, `tiny` is the amount of load that counts as nothing (about 1e-12 of the mean load).
 *  @return : the optimal largest load / speed, or a lower bound of it above `cutoff`. */
double bl_flow_solve(const bl_flow_graph *graph, bl_flow_scratch *scratch, bl_flow_state state, const double *speed,
                     double level, double cutoff, double tiny);

#endif
