/* cost_starts_state.h - the workspace of starting points; private to cost_starts.c and the files of single starts. */
#ifndef BL_PLANNER_PLACE_COST_STARTS_STATE_H
#define BL_PLANNER_PLACE_COST_STARTS_STATE_H

#include "planner/place/copies.h"
#include "planner/place/cost_starts.h"

typedef struct piece {
  double load;
  int32_t expert, number; /* of this expert: 0 becomes its home */
} piece;

struct bl_place_starts {
  const bl_place_judge *judge;
  bl_levels *levels;
  int32_t *homes; /* [ranks]: to take */
  int32_t *mark;  /* [ranks] */
  int32_t *rank_of, *needs;
  int32_t *feeds, *node_homes;     /* [ranks]: homes of spread experts, on a rank, in a node */
  int32_t *old_group, *new_group;  /* [experts] */
  double *tokens;                  /* [experts]: still at home */
  double *load, *received;         /* [ranks]: tokens; of these from other nodes */
  double token_us, row_us;         /* of a token in compute; of one from another node in all its exchanges */
  double *coolness, *fullness;     /* [ranks]: see the files of single starts */
  int32_t *first_copy, *next_copy; /* [experts], [room]: copies by expert */
  piece *pieces;                   /* [experts + room] */
  bl_copies *search;               /* made when first asked for */
  bl_hosts hosts;                  /* likewise: what it works on */
  bool alike;                      /* speeds and slots of all ranks */
};

static inline double bl_starts_speed(const bl_place_starts *s, int32_t rank) {
  const double *speed = s->judge->problem.machine->speed;
  return speed ? speed[rank] : 1;
}

static inline int32_t bl_starts_node_size(const bl_place_starts *s) {
  return s->judge->problem.machine->level[0].ranks;
}

#endif
