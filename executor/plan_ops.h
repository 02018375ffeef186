/* plan_ops.h - what the operations that plan an exchange on the device read and write (ops.def: plan_quotas, plan_rows).
 *
 * A host entry is one host of one expert. Entries of an expert stand by ascending rank; expert e has the entries
 * first[e] .. first[e + 1]. Ranks are those of one expert-parallel group. All arrays are device memory; a struct itself
 * is read when the operation is called. A table's arrays lie in one block from `first` on (executor/quotas.h). */
#ifndef BL_EXECUTOR_PLAN_OPS_H
#define BL_EXECUTOR_PLAN_OPS_H

#include <stdint.h>

typedef struct bl_host_table {
  int32_t experts, ranks, entries;
  const int32_t *first;      /* [experts + 1] */
  const int32_t *rank;       /* [entries] */
  const int32_t *expert;     /* [entries] */
  const int32_t *home;       /* [experts]: the entry of its home */
  const int32_t *rank_first; /* [ranks + 1]: entries on rank r are rank_entry[rank_first[r]] .. */
  const int32_t *rank_entry; /* [entries], ascending within a rank */
} bl_host_table;

/* How many rows one rank's buffers have room for. */
typedef struct bl_row_bounds {
  const int32_t *send_first;  /* [ranks + 1]: rows for rank p lie at send_first[p] .. send_first[p + 1] */
  const int32_t *recv_first;  /* [ranks + 1]: likewise rows from rank p */
  const int32_t *block_first; /* [entries on this rank + 1]: rows of each in expert order */
  int32_t recv_rows, expert_rows; /* the last of both */
} bl_row_bounds;

/* Where the rows of one rank go. */
typedef struct bl_planned_rows {
  uint32_t *take;      /* [entries]: rows that this rank sends to each */
  int32_t *dest_row;   /* [entries]: the first of them in its send buffer */
  int32_t *by_expert;  /* [block_first[last]]: the received row that stands here in expert order, -1 for none */
  int32_t *by_source;  /* [recv_first[ranks]]: the inverse, -1 for none */
  uint32_t *rank_rows; /* [ranks]: rows that each rank's experts take */
  double *overflow;    /* [1] */
} bl_planned_rows;

#endif
