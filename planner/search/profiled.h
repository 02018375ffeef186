/* profiled.h - what a profile measured on one machine, in the place of a cluster's data sheets, kind of work by kind.
 *
 * A kind of computing work takes on a layout what its closed form says (price.h) times a factor: what was measured over
 * the closed form of the profile's own model on the cluster's first device, at as many tokens, choices or rows, within
 * the measured amounts; for the optimizer and for zeroing and squaring gradients at the most parameters measured. So on
 * the same model and device, undivided, measured times come out; a model divided by tp or etp, another model, and nodes
 * with other devices scale as the closed form does. Kinds that the profile lacks keep their closed form, at its rates
 * of large products and memory.
 *
 * Where ranks of the profile had links between them (not on one device), these stand for those within a node: exchange
 * for rows, all_reduce for rings, transfer for sends and fills of copies, accumulate for their reductions; nodes with
 * faster links than the cluster's first in the same proportion. Between nodes data sheets hold. */
#ifndef BL_PLANNER_SEARCH_PROFILED_H
#define BL_PLANNER_SEARCH_PROFILED_H

#include "costmodel/cluster.h"
#include "costmodel/plan_costs.h"

typedef struct bl_profiled {
  char source[BL_PLAN_COSTS_SOURCE];
  bl_curve factor[BL_CURVE_COUNT]; /* n 0: not measured */
  double update, square;           /* factors of the optimizer; of zeroing and squaring gradients */
  bool update_known, square_known;
  bl_link exchange, all_reduce, transfer, accumulate; /* gbps 0: not measured */
  bl_link sheet;                                      /* within a node of the cluster's first group */
} bl_profiled;

/*! bl_profiled_load() : reads a profile for a cluster, which takes over its rates of products and memory, and borrows
 *  `out` as cluster->measured.  @return : BL_OK; BL_EINPUT for a profile of another compute type, or with products
 *  faster than a device's peak; BL_EMACHINE. */
bl_status bl_profiled_load(const char *path, bl_cluster *cluster, bl_profiled *out);

/*! bl_profiled_factor() : 1 where `measured` is NULL or does not know the kind. */
double bl_profiled_factor(const bl_profiled *measured, bl_curve_kind kind, double amount);

/*! bl_profiled_costs() : where the costs of each kind of work of a model on a cluster come from. */
void bl_profiled_costs(const bl_cluster *cluster, const bl_model *model, bl_plan_costs *out);

#endif
