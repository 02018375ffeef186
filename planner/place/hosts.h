/* hosts.h - where the experts of one layer can be computed: homes, copy slots, and the best shares for given loads.
 *
 * This is the working form of a layer's placement used inside policies, searches and the live run; costmodel/plan.h is
 * the file form. Loads are tokens (or any unit); all results scale with them. */
#ifndef BL_PLANNER_PLACE_HOSTS_H
#define BL_PLANNER_PLACE_HOSTS_H

#include "base/status.h"
#include <stdbool.h>
#include <stdint.h>

typedef struct bl_hosts {
  int32_t experts, ranks;
  int32_t *home;        /* [experts] */
  int32_t *slots;       /* [ranks]: homes plus copies that fit */
  int32_t n_copy_slots; /* = sum over ranks of max(0, slots[r] - homes on r), laid out rank by rank */
  int32_t *copy_rank;   /* [n_copy_slots]: the rank of each copy slot, ascending */
  int32_t *copy_expert; /* [n_copy_slots]: the expert in it, or -1 when empty */
} bl_hosts;

/*! bl_hosts_create() : contiguous homes (bl_home_contiguous(); where slots differ so that these do not fit, in the same
 *  order with as many on each rank as it has slots), all copy slots empty. slots[ranks]; fails where homes do not fit.
 */
bl_status bl_hosts_create(bl_hosts *hosts, int32_t experts, int32_t ranks, const int32_t *slots);
void bl_hosts_free(bl_hosts *hosts);

/*! bl_hosts_assign() : same experts, ranks and slots; copies homes and copy slots (their number may differ). */
bl_status bl_hosts_assign(bl_hosts *to, const bl_hosts *from);

/*! bl_hosts_set_homes() : new homes; the copy-slot layout is rebuilt and all copy slots emptied. */
bl_status bl_hosts_set_homes(bl_hosts *hosts, const int32_t *home);

/*! bl_hosts_hash() : equal placements hash alike, whatever the order of copies within a rank. */
uint64_t bl_hosts_hash(const bl_hosts *hosts, uint64_t seed);

/* Shares: how much of each expert every host takes so that the largest rank load is least. */
typedef struct bl_shares bl_shares; /* workspace and result; one owner, reused without allocation */

bl_status bl_shares_create(int32_t experts, int32_t ranks, int32_t max_copy_slots, bl_shares **out);
void bl_shares_free(bl_shares *shares);

/*! bl_shares_solve() : minimises the largest rank load (divided by speed[rank] where speed is not NULL) over all ways
 * to split every expert over its hosts: augmenting paths at a target M, raised to (load of a closed set of ranks) /
 * (its speed) when stuck, so the final M is optimal (parametric maximum flow; the closed set is the certificate).
 *  Deterministic: depends on the arguments alone.
 *  @return : the optimal max/mean imbalance (1.0 for zero load). */
double bl_shares_solve(bl_shares *shares, const bl_hosts *hosts, const double *load, const double *speed);

/*! bl_shares_apply() : instead of solving, copy slot i takes fraction[i] of its expert's load and homes take the rest
 *  (frozen or even shares). fraction[n_copy_slots], each in [0,1]; cut where an expert's fractions exceed 1.
 *  @return : the max/mean imbalance that results (1.0 for zero load). */
double bl_shares_apply(bl_shares *shares, const bl_hosts *hosts, const double *load, const double *fraction,
                       const double *speed);

/*! bl_shares_home_tokens(), bl_shares_copy_tokens() : after solve: tokens that expert e's home takes; tokens that the
 * copy in slot i takes (0 when empty). For every expert the sum equals its load. */
double bl_shares_home_tokens(const bl_shares *shares, int32_t expert);
double bl_shares_copy_tokens(const bl_shares *shares, int32_t slot);

/*! bl_quota_build() : the integers that execute the shares of one (layer, micro-batch).
 *  counts[sources][experts] token copies; quotas are written for the hosts of each expert in the order (home, then its
 *  copies by ascending rank): quota[source * n_hosts_total + first[expert] + h], where first[experts + 1] is filled
 * here and host_rank[] names the rank of every host entry. Rule: per expert the hosts' totals are the shares' tokens
 * rounded by largest remainder (ties to the lower rank); sources then fill hosts: own rank first, then own node
 * (ranks_per_node; 0 = one node), then by rank order, tokens in position order. Every source's row sums to its count;
 * every host's column to its total. Array sizes: first[experts + 1], host_rank[experts + n_copy_slots], quota[sources *
 * (experts + n_copy_slots)]. */
bl_status bl_quota_build(const bl_hosts *hosts, const bl_shares *shares, const uint32_t *counts, int32_t sources,
                         int32_t ranks_per_node, int32_t *first, int32_t *host_rank, uint32_t *quota);

#endif
