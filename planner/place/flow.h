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

/* One place where tokens of an expert may lie. */
typedef struct bl_flow_entry {
  int32_t rank;
  int32_t expert;    /* -1: an empty slot */
  int32_t next_host; /* the expert's next entry: home, copies from the last filled to the first, home again */
  int32_t next_here; /* next entry on the rank whose expert has copies: slots by number, then homes; -1 = last */
} bl_flow_entry;

/* Who can host what. Changed by bl_flow_fill() and bl_flow_empty(). */
typedef struct bl_flow_graph {
  int32_t experts, ranks, slots;
  bl_flow_entry *entry; /* [experts + slots] */
  int32_t *first_here;  /* [ranks]: first entry on the rank whose expert has copies, -1 = none */
} bl_flow_graph;

/* Where the tokens lie. One block, so that a copy is one memcpy of bl_flow_state_size() doubles. */
typedef struct bl_flow_state {
  double *tokens;    /* [experts + slots] */
  double *rank_load; /* [ranks] */
} bl_flow_state;

/* How a search reached a rank. */
typedef struct bl_flow_visit {
  int32_t parent;   /* the rank before */
  int32_t from, to; /* entries that tokens would leave and enter */
} bl_flow_visit;

/* Scratch of one thread, and the certificate of the last solve. */
typedef struct bl_flow_scratch {
  double *wanted;       /* [ranks]: target times speed */
  int32_t *root;        /* [ranks]: where the search that reached a rank began, -1 = not reached */
  bl_flow_visit *visit; /* [ranks] */
  int32_t *queue;       /* [ranks] */
  int32_t *mark;        /* [experts]: expanded in search number `epoch` */
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

static inline int32_t bl_flow_home(const bl_flow_graph *graph, int32_t expert) { return graph->entry[expert].rank; }

/*! bl_flow_slot_rank(), bl_flow_slot_expert() : the rank of a slot; the expert in it, -1 = empty. */
static inline int32_t bl_flow_slot_rank(const bl_flow_graph *graph, int32_t slot) {
  return graph->entry[graph->experts + slot].rank;
}
static inline int32_t bl_flow_slot_expert(const bl_flow_graph *graph, int32_t slot) {
  return graph->entry[graph->experts + slot].expert;
}

/*! bl_flow_fill(), bl_flow_empty() : puts `expert` into an empty slot; empties a filled one. A state solved before
 * keeps its tokens: call bl_flow_return() for it when a slot is emptied. */
void bl_flow_fill(bl_flow_graph *graph, int32_t slot, int32_t expert);
void bl_flow_empty(bl_flow_graph *graph, int32_t slot);

/*! bl_flow_return() : the tokens of `expert` in `slot`, which holds or held it, go back to its home. */
void bl_flow_return(const bl_flow_graph *graph, bl_flow_state state, int32_t slot, int32_t expert);

/*! bl_flow_start() : all tokens at home.  @return : the sum of the loads. */
double bl_flow_start(const bl_flow_graph *graph, bl_flow_state state, const double *load);

/*! bl_flow_solve() : continues from `state` to the optimum.
 *  `level` is a lower bound of load / speed to start from (the mean), `cutoff` gives up early as soon as the target
 *  exceeds it, `tiny` is the amount of load that counts as nothing (about 1e-12 of the mean load).
 *  @return : the optimal largest load / speed, or a lower bound of it above `cutoff`. */
double bl_flow_solve(const bl_flow_graph *graph, bl_flow_scratch *scratch, bl_flow_state state, const double *speed,
                     double level, double cutoff, double tiny);

#endif
