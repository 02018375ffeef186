/* quotas.h - the rule by which an exchange planned on the device splits experts over their hosts: integers throughout, in
 * rounds of which every part is independent, so that a block of threads computes the same as a loop.
 *
 * The rule. All tokens begin at home, the target M is the mean load rounded up. While a rank holds more than M: find how
 * many steps it is from each rank to one below M, where a step from rank r to rank q is an expert with tokens on r that q
 * hosts too. Then, from the farthest ranks to the nearest, each rank above M hands what it has too much to hosts one step
 * nearer: its entries ascending, an entry's other hosts in turn from its own on, to a rank below M not more than it
 * lacks. Distances never shrink, as in the push-relabel method (Goldberg and Tarjan 1988), so this ends. Where a rank
 * above M reaches none below, the ranks that reach none are a closed set: nothing on them can go elsewhere, so M rises to
 * their mean, rounded up. At the end M is both reached and proved: the largest load is the least that whole tokens
 * allow, which is what bl_shares_solve() finds, rounded up.
 * Sources then fill hosts as bl_quota_build() has it: own rank first, then by rank order. */
#ifndef BL_EXECUTOR_QUOTAS_H
#define BL_EXECUTOR_QUOTAS_H

#include "base/status.h"
#include "executor/plan_ops.h"
#include "planner/place/hosts.h"
#include <stddef.h>

/*! bl_host_table_size() : numbers in the block of a table of so many entries. */
size_t bl_host_table_size(int32_t experts, int32_t ranks, int32_t entries);

/*! bl_host_table_at() : the table that lies in a block, or its image elsewhere. */
bl_host_table bl_host_table_at(const int32_t *block, int32_t experts, int32_t ranks, int32_t entries);

/*! bl_host_table_fill() : writes the table of `hosts` to a block with room for experts + n_copy_slots entries.
 *  @return : the table. */
bl_host_table bl_host_table_fill(int32_t *block, const bl_hosts *hosts);

/*! bl_quotas_scratch() : numbers that bl_quotas_plan() needs. */
size_t bl_quotas_scratch(const bl_host_table *table);

/*! bl_quotas_plan() : quota[ranks][entries] for counts[ranks][experts] (in all below 2^31). Host memory; scratch as
 *  above, contents undefined. */
void bl_quotas_plan(const bl_host_table *table, const uint32_t *counts, uint32_t *quota, int32_t *scratch);

#endif
