/* handle.h - what the files of the library share; private to planner/library/. */
#ifndef BL_PLANNER_LIBRARY_HANDLE_H
#define BL_PLANNER_LIBRARY_HANDLE_H

#include "base/status.h"
#include "planner/ballast.h"
#include "planner/place/hosts.h"

struct ballast {
  char text[2048]; /* of the last failure */
};

/*! bl_library_end() : how every call ends: keeps the thread's sentence in the handle, or clears it on success. */
ballast_status bl_library_end(ballast *handle, bl_status status);

/*! bl_library_options() : the caller's structure, which begins with its size, into `own` of `size` bytes; members that
 * the caller does not know stay as they are in `own`.  @return : BL_OK, or BL_EINPUT naming `what`. */
bl_status bl_library_options(const void *given, void *own, uint64_t size, const char *what);

/* A shape, checked, with its arrays copied. */
typedef struct bl_library_shape {
  int32_t layers, experts, ranks;
  int32_t *slots, *first; /* [ranks]; [ranks + 1]: the first slot of each rank */
  double *speed;          /* [ranks] or NULL */
  int32_t *home;          /* [layers][experts] or NULL */
} bl_library_shape;

bl_status bl_library_shape_take(const ballast_shape *given, bl_library_shape *out);
void bl_library_shape_free(bl_library_shape *shape);

/*! bl_library_check_loads() : numbers, none negative or infinite. loads[layers][experts]. */
bl_status bl_library_check_loads(const double *loads, int32_t layers, int32_t experts);

/* Where homes and copies of one layer stand among the numbered slots: a rank's homes by expert, then its copies. */

/*! bl_library_slots() : slot_of_home[experts], slot_of_copy[n_copy_slots]. */
void bl_library_slots(const bl_hosts *hosts, const int32_t *first, int32_t *slot_of_home, int32_t *slot_of_copy);

/*! bl_library_list() : the expert in each slot, -1 in empty ones, and (where shares is not NULL) the part of the load
 * that each takes; a share of an expert without load is 1 at home. phy2log[slots], share[slots]. */
bl_status bl_library_list(const bl_hosts *hosts, const int32_t *first, const bl_shares *shares, const double *load,
                          int32_t *phy2log, double *share);

/*! bl_library_quota() : bl_quota_build() into quota[sources][slots]. */
bl_status bl_library_quota(const bl_hosts *hosts, const int32_t *first, const bl_shares *shares, const uint32_t *counts,
                           int32_t sources, int32_t ranks_per_node, uint32_t *quota);

/*! bl_library_sum_counts() : load[experts] = sums of counts[sources][experts]. */
bl_status bl_library_sum_counts(const uint32_t *counts, int32_t sources, int32_t ranks_per_node, int32_t experts,
                                double *load);

#endif
