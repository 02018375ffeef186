/* plan.c - counts of tokens to quotas and rows, the specification of planning on a device. */
#include "executor/cpu/cpu.h"
#include "executor/quotas.h"
#include <string.h>

void bl_cpu_plan_quotas(bl_stream *s, uint32_t *quota, const uint32_t *counts, const bl_host_table *table) {
  int32_t *scratch = (int32_t *)bl_cpu_scratch(s, bl_quotas_scratch(table));
  if (scratch) bl_quotas_plan(table, counts, quota, scratch);
}

/* Rows that this rank sends to each entry, as far as there is room in the part of the entry's rank. */
static bool plan_send(const bl_planned_rows *rows, const uint32_t *mine, const bl_host_table *t,
                      const bl_row_bounds *bounds) {
  bool fits = true;
  for (int32_t p = 0; p < t->ranks; p++) {
    uint32_t at = (uint32_t)bounds->send_first[p];
    const uint32_t end = (uint32_t)bounds->send_first[p + 1];
    for (int32_t l = t->rank_first[p]; l < t->rank_first[p + 1]; l++) {
      const int32_t i = t->rank_entry[l];
      rows->take[i] = mine[i] < end - at ? mine[i] : end - at;
      rows->dest_row[i] = (int32_t)at;
      fits &= rows->take[i] == mine[i];
      at += rows->take[i];
    }
  }
  return fits;
}

static bool plan_receive(const bl_planned_rows *rows, const uint32_t *quota, const bl_host_table *t,
                         const bl_row_bounds *bounds, int32_t rank) {
  const int32_t n = t->rank_first[rank + 1] - t->rank_first[rank];
  const int32_t *entry = t->rank_entry + t->rank_first[rank];
  bool fits = true;
  for (int32_t i = 0; i < bounds->expert_rows; i++) rows->by_expert[i] = -1;
  for (int32_t i = 0; i < bounds->recv_rows; i++) rows->by_source[i] = -1;
  for (int32_t l = 0; l < n; l++) {
    int64_t row = bounds->block_first[l];
    for (int32_t p = 0; p < t->ranks; p++) {
      const uint32_t *column = quota + (int64_t)p * t->entries;
      int64_t at = bounds->recv_first[p]; /* behind this source's rows for earlier entries */
      for (int32_t k = 0; k < l; k++) at += column[entry[k]];
      for (uint32_t k = 0; k < column[entry[l]]; k++, at++, row++) {
        const bool received = at < bounds->recv_first[p + 1], ordered = row < bounds->block_first[l + 1];
        fits &= received && ordered;
        if (received) rows->by_source[at] = ordered ? (int32_t)row : -1;
        if (ordered) rows->by_expert[row] = received ? (int32_t)at : -1;
      }
    }
  }
  return fits;
}

void bl_cpu_plan_rows(bl_stream *s, const bl_planned_rows *rows, const uint32_t *quota, const bl_host_table *table,
                      const bl_row_bounds *bounds, int32_t rank) {
  (void)s;
  const bool sent = plan_send(rows, quota + (int64_t)rank * table->entries, table, bounds);
  const bool received = plan_receive(rows, quota, table, bounds, rank);
  memset(rows->rank_rows, 0, (size_t)table->ranks * sizeof *rows->rank_rows);
  for (int32_t p = 0; p < table->ranks; p++)
    for (int32_t i = 0; i < table->entries; i++)
      rows->rank_rows[table->rank[i]] += quota[(int64_t)p * table->entries + i];
  if (!sent || !received) *rows->overflow = 1.0;
}
