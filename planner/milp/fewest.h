/* fewest.h - the problem behind prove.h in the form its parts work on: loads scaled so that the mean rank load is 1.
 *
 * Unscaled token counts have hit an assertion inside GLPK; scaled ones also solve faster. */
#ifndef BL_PLANNER_MILP_FEWEST_H
#define BL_PLANNER_MILP_FEWEST_H

#include "base/status.h"
#include "planner/place/hosts.h"
#include <stdbool.h>
#include <stdint.h>

/* A placement whose largest load exceeds the limit by this fraction still counts as within it, in bounds and checks. */
#define BL_FEWEST_TOLERANCE 1e-9

typedef struct bl_fewest {
  int32_t experts, ranks;
  const double *load;   /* [experts], sum = ranks */
  const int32_t *slots; /* [ranks], each <= experts */
  const double *speed;  /* [ranks], mean 1, or NULL: all alike */
  const int32_t *home;  /* [experts] homes that stay, or NULL */
  const int32_t
      *current;      /* [experts] homes that may be left for move_price each, or NULL; with `home` NULL too: free */
  double move_price; /* in copies; >= 0 */
  double cap;        /* largest load a rank of speed 1 may have: (1 + eps)(1 + BL_FEWEST_TOLERANCE) */
} bl_fewest;

/*! bl_fewest_cap() : the largest load that rank r may have. */
double bl_fewest_cap(const bl_fewest *problem, int32_t rank);

/*! bl_fewest_largest_cap() : of the fastest rank. */
double bl_fewest_largest_cap(const bl_fewest *problem);

/*! bl_fewest_ranks_alike() : whether all ranks have the same slots and speed. */
bool bl_fewest_ranks_alike(const bl_fewest *problem);

/* One host of an expert. */
typedef struct bl_host {
  int32_t expert, rank;
  double tokens; /* a preference: without given homes the host with most of it becomes the home */
} bl_host;

/*! bl_fewest_hosts() : the placement with exactly these hosts (and, with given homes, the homes). `out` is zeroed or
 *  holds a placement of the same problem, which is replaced; the caller frees it.
 *  @return : BL_EINPUT where an expert has no host, a pair is listed twice or a rank has more hosts than slots. */
bl_status bl_fewest_hosts(const bl_fewest *problem, const bl_host *host, int32_t n, bl_hosts *out);

/*! bl_fewest_copies_of() : filled copy slots.  bl_fewest_moves_of() : homes that are not the current ones; a host on
 *  the current rank is the home (bl_fewest_hosts() sees to it), so these have no host there. */
int32_t bl_fewest_copies_of(const bl_hosts *hosts);
int32_t bl_fewest_moves_of(const bl_fewest *problem, const bl_hosts *hosts);

/*! bl_fewest_price() : copies plus the price of moves: what is to be least. */
double bl_fewest_price(const bl_fewest *problem, const bl_hosts *hosts);

#endif
