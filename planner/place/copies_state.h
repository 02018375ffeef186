/* copies_state.h - the workspace of the search for copy hosts; private to planner/place/copies*.c. */
#ifndef BL_PLANNER_PLACE_COPIES_STATE_H
#define BL_PLANNER_PLACE_COPIES_STATE_H

#include "planner/place/copies.h"
#include "planner/place/cuts.h"

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

/* A move must lower the score by this much: less is not worth filling another copy. */
#define BL_COPIES_LEAST_GAIN 1e-4

struct bl_copies {
  bl_flow_graph graph;
  bl_flow_scratch scratch;
  bl_cuts *cuts;
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
  int32_t *worthy;                               /* [experts]: those with a bit in worth[] */
  double *worthy_load;                           /* [scenarios][experts] */
  double *promise;                               /* [experts] */
  bl_copies_candidate candidate[BL_COPIES_KEPT]; /* moves to try, a heap */
  int32_t n_candidates, most_candidates, n_considered, n_taken;
  double price;
  int32_t copies, tried, budget;
};

static inline bl_flow_state bl_copies_state(const bl_copies *c, double *blocks, int32_t scenario) {
  return bl_flow_state_at(blocks + scenario * c->state_size, c->experts, c->max_slots);
}

static inline bool bl_copies_is_host(const bl_flow_graph *g, int32_t expert, int32_t rank) {
  int32_t x = expert;
  do {
    if (g->entry[x].rank == rank) return true;
    x = g->entry[x].next_host;
  } while (x != expert);
  return false;
}

/*! bl_copies_solve() : continues scenario i's flow in `now` on the graph as it is; its level and closed set. */
void bl_copies_solve(bl_copies *copies, int32_t i);

/*! bl_copies_sort() : `order` anew. */
void bl_copies_sort(bl_copies *copies);

/*! bl_copies_score() : mean level plus price of the copies. */
double bl_copies_score(const bl_copies *copies);

/*! bl_copies_list() : finds captives and lists the `most` (<= BL_COPIES_KEPT) most promising moves that can help. */
void bl_copies_list(bl_copies *copies, double candidate_load, int32_t most);

/*! bl_copies_nth() : the n-th best of them, from 0, or NULL where there are fewer; to be asked for in order, but again
 *  as often as one likes. Valid until the next list. */
const bl_copies_move *bl_copies_nth(bl_copies *copies, int32_t n);

/*! bl_copies_back() : the move that undoes `move`, which has not been made yet. */
bl_copies_move bl_copies_back(const bl_copies *copies, bl_copies_move move);

/*! bl_copies_make() : makes a move whatever it brings. bl_copies_unmake() : undoes it by its bl_copies_back(); the
 *  flows in `now` are the caller's to put back. */
void bl_copies_make(bl_copies *copies, bl_copies_move move);
void bl_copies_unmake(bl_copies *copies, bl_copies_move back);

/*! bl_copies_improves() : tries a move: made where the score falls below *best, which then is the new score; otherwise
 *  all is as before. */
bool bl_copies_improves(bl_copies *copies, bl_copies_move move, double *best);

#endif
