/* planned.h - exchanges planned on the device: counts become quotas and rows without the host, in buffers whose sizes are
 * known before the step.
 *
 * The sizes. For every MoE layer the group's ranks have one table: how many rows may go from each rank to each, and how
 * many each host entry may take. It is forecast when hosts change, from the newest counts by the same rule that splits
 * the true ones (executor/quotas.h), plus `headroom`. Messages have these sizes whatever is in them, expert matrices work
 * on as many rows, the rest of them zeros, which changes no sum.
 * What does not fit. Then a flag goes round with the sums of the gradient norm, no rank updates anything, sizes and headroom
 * grow, and the step is made once more, host-synchronised, with the same quotas: nothing is dropped, and the result is that of
 * a step in which all had fitted: bit for bit on the CPU; to rounding on CUDA, where cuBLAS may take another kernel for more
 * rows. The first step of a run is host-synchronised too, there being nothing to forecast from.
 * What the policy learns from a step and what is logged it gets when the step has ended. */
#ifndef BL_EXECUTOR_PLANNED_H
#define BL_EXECUTOR_PLANNED_H

#include "base/status.h"
#include "executor/pool.h"
#include "executor/quotas.h"
#include "planner/policy.h"
#include <stdbool.h>
#include <stdint.h>

typedef struct bl_rank bl_rank;

/* One MoE layer: its host entries and the rows for which there is room. Blocks are on the host and, alike, on the device. */
typedef struct bl_planned_layer {
  int32_t *table_block, *table_on_device;
  bl_host_table table, device_table;
  uint64_t hosts_hash;
  bool sized;          /* the sizes are for these hosts */
  int32_t *pair_rows;  /* [ranks][ranks]: from, to */
  int32_t *entry_rows; /* [entries] */
  int32_t *bounds_block, *bounds_on_device;
  bl_row_bounds bounds, device_bounds;
} bl_planned_layer;

typedef struct bl_planned {
  double given, headroom; /* headroom: now, no less than was given */
  int32_t clean_steps;    /* since a step was made again, or since it shrank */
  bool shrunk;            /* sizes are to be forecast again */
  int32_t layers, micro_batches, ranks, experts; /* ranks: of the group */
  int32_t most_entries;
  bl_planned_layer *layer; /* [layers] */
  bool counts_known;       /* of the step before */
  uint64_t version;        /* changes with hosts and sizes */
  uint32_t *counts, *counts_on_device; /* [layers][micro-batches][all ranks][experts] */
  uint32_t *rank_rows, *rank_rows_on_device; /* [layers][micro-batches][ranks] */
  bl_chunk *mask;          /* [layers][micro-batches]: forced gates only */
  uint32_t *group_counts, *quota; /* [ranks][experts], [ranks][most entries]: scratch */
  int32_t *scratch;
} bl_planned;

/*! bl_planned_check() : whether a run's gate and policy can do without the host.  @return : BL_EUSAGE with a sentence. */
bl_status bl_planned_check(const char *gate, bool gate_drops, const bl_policy_options *options, const bl_policy *policy);

/*! bl_planned_create() : for a rank whose policy, weights and pool are there; also after a failure freed with
 * bl_planned_free(). */
bl_status bl_planned_create(bl_rank *r, double headroom, bl_planned **out);
void bl_planned_free(bl_rank *r, bl_planned *planned); /* NULL is fine */

/*! bl_planned_begin() : hosts of the step are chosen: tables, sizes and what else the device needs goes there.
 *  @return : *ready = whether every size is known, the same on all ranks. */
bl_status bl_planned_begin(bl_rank *r, bool *ready);

/*! bl_planned_agree() : all ranks call it.  @return : *of_all = the flags that every rank has; BL_ECOMM where ranks have
 *  different hosts in force. */
bl_status bl_planned_agree(bl_rank *r, uint64_t flags, uint64_t *of_all);

/*! bl_planned_counts(), bl_planned_route() : the actions exchange_counts and solve_shares of a planned step. */
bl_status bl_planned_counts(bl_rank *r, int32_t layer, int32_t micro_batch);
bl_status bl_planned_route(bl_rank *r, int32_t layer, int32_t micro_batch);

/*! bl_planned_route_on_host() : the same quotas where the step is host-synchronised, counts[ranks][experts] of the group;
 * sizes grow to hold them. */
bl_status bl_planned_route_on_host(bl_rank *r, int32_t layer, int32_t micro_batch, const uint32_t *counts);

/*! bl_planned_note_counts() : counts[all ranks][experts] of a host-synchronised step, to forecast from. */
void bl_planned_note_counts(bl_rank *r, int32_t moe, int32_t micro_batch, const uint32_t *counts);

/*! bl_planned_fetch() : asks for what the host must know of a planned step, before the wait at its end. */
void bl_planned_fetch(bl_rank *r);

/*! bl_planned_overflowed() : whether some rank had no room for its rows; after the wait. */
bool bl_planned_overflowed(const bl_rank *r);

/*! bl_planned_widen() : more headroom from now on, after a step that overflowed; no more than 1 or what was given, and none
 *  where none was given. It shrinks again when steps fit for long. */
void bl_planned_widen(bl_rank *r);

/*! bl_planned_finish() : the step stands: counts go to the record and the policy, loads into the result. */
bl_status bl_planned_finish(bl_rank *r);

#endif
