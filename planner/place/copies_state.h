/* copies_state.h - the workspace of the search for copy hosts; private to planner/place/copies*.c. */
#ifndef BL_PLANNER_PLACE_COPIES_STATE_H
#define BL_PLANNER_PLACE_COPIES_STATE_H

#include "planner/place/copies.h"
#include "planner/place/flow.h"

/* A move gives slot a the expert new_a and, where b >= 0, slot b the expert new_b. -1 = nothing. */
typedef struct bl_copies_move {
  int32_t a, new_a, b, new_b;
} bl_copies_move;

typedef struct bl_copies_candidate {
  bl_copies_move move;
  double promise;
  int32_t number;
} bl_copies_candidate;

enum { BL_COPIES_KEPT = 256 };

struct bl_copies {
  bl_flow_graph graph;
  bl_flow_scratch scratch;
  int32_t experts, ranks, max_slots;
  int64_t state_size;
  double *load;                                                           /* [scenarios][experts], mean rank load 1 */
  double *now, *trial, *kept;                                             /* [scenarios][state_size] */
  double level[BL_COPIES_MAX_SCENARIOS], weight[BL_COPIES_MAX_SCENARIOS]; /* weights sum to 1 */
  int32_t order[BL_COPIES_MAX_SCENARIOS];                                 /* scenarios, worst first */
  int32_t n;
  const double *speed;
  uint32_t *closed;  /* [ranks]: bit i = in the closed set of unbalanced scenario i */
  uint32_t *outside; /* [ranks]: bit i = outside of it */
  uint32_t *captive; /* [experts]: bit i = all hosts inside it */
  uint32_t *worth;   /* [experts]: bit i = captive, and with enough load to be worth a copy */
  double closed_speed[BL_COPIES_MAX_SCENARIOS];  /* of the closed set, summed */
  bl_copies_candidate candidate[BL_COPIES_KEPT]; /* moves to try */
  int32_t n_candidates, n_considered;
  double price;
  int32_t copies, tried, budget;
};

static inline bl_flow_state bl_copies_state(const bl_copies *c, double *blocks, int32_t scenario) {
  return bl_flow_state_at(blocks + scenario * c->state_size, c->experts, c->max_slots);
}

static inline bool bl_copies_is_host(const bl_flow_graph *g, int32_t expert, int32_t rank) {
  if (g->home[expert] == rank) return true;
  for (int32_t s = g->slot_first[expert]; s >= 0; s = g->slot_next[s])
    if (g->slot_rank[s] == rank) return true;
  return false;
}

/*! bl_copies_list() : fills candidate[] with the moves that can help, best promise first; captives must be known. */
void bl_copies_list(bl_copies *copies);

#endif
