/* placement.h - a placement of all layers inside the library; private to planner/library/. */
#ifndef BL_PLANNER_LIBRARY_PLACEMENT_H
#define BL_PLANNER_LIBRARY_PLACEMENT_H

#include "planner/library/handle.h"

typedef struct placed_layer {
  bl_hosts hosts;
  double *fraction; /* [copy slots]: fixed shares of copies; NULL: shares are free */
  int32_t *phy2log; /* [slots] */
  double *share;    /* [slots] */
  double imbalance, bound;
} placed_layer;

struct ballast_placement {
  ballast *handle;
  bl_library_shape shape;
  placed_layer *layer; /* [layers] */
  bl_shares *shares;
  double *load; /* [experts] */
};

/*! bl_placement_new() : without hosts yet; takes over the shape, also on failure. What *out has then is to be freed
 * too. */
bl_status bl_placement_new(ballast *handle, bl_library_shape *shape, ballast_placement **out);

/*! bl_placement_from_replicas() : a layer's hosts with even shares, from replicas[ranks][experts]. */
bl_status bl_placement_from_replicas(const bl_library_shape *shape, const int32_t *replicas, placed_layer *layer);

/*! bl_placement_finish() : a layer's tables for load[experts], its hosts being there; replicas: of even shares, or
 * NULL. */
bl_status bl_placement_finish(ballast_placement *placement, int32_t layer, const double *load, const int32_t *replicas);

/*! bl_placement_shares() : placement->shares for a layer's loads.  @return : their imbalance. */
double bl_placement_shares(ballast_placement *placement, int32_t layer, const double *load);

#endif
