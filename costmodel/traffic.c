/* traffic.c - rows and copies per rank. */
#include "costmodel/traffic.h"
#include "base/memory.h"
#include <string.h>

bl_status bl_traffic_create(int32_t ranks, int32_t experts, int32_t layers, int32_t micro_batches, bl_traffic *out) {
  const size_t p = (size_t)ranks, calls = (size_t)layers * (size_t)micro_batches, held = (size_t)layers * p;
  bl_status status = BL_OK;
  *out = (bl_traffic){.ranks = ranks, .experts = experts, .layers = layers, .micro_batches = micro_batches};
  BL_TRY_GOTO(status, bl_new(&out->expert_rows, calls * p * (size_t)experts, sizeof(uint32_t), "traffic"), failed);
  BL_TRY_GOTO(status, bl_new(&out->exchange_rows, calls * p * p, sizeof(uint32_t), "traffic"), failed);
  BL_TRY_GOTO(status, bl_new(&out->homes, held, sizeof(int32_t), "traffic"), failed);
  BL_TRY_GOTO(status, bl_new(&out->copies_in, held, sizeof(int32_t), "traffic"), failed);
  BL_TRY_GOTO(status, bl_new(&out->copies_out, held, sizeof(int32_t), "traffic"), failed);
  BL_TRY_GOTO(status, bl_new(&out->moves_in, held, sizeof(int32_t), "traffic"), failed);
  BL_TRY_GOTO(status, bl_new(&out->moves_out, held, sizeof(int32_t), "traffic"), failed);
  BL_TRY_GOTO(status, bl_new(&out->late_in, calls * p, sizeof(int32_t), "traffic"), failed);
  BL_TRY_GOTO(status, bl_new(&out->late_out, calls * p, sizeof(int32_t), "traffic"), failed);
  return BL_OK;
failed:
  bl_traffic_free(out);
  return status;
}

void bl_traffic_free(bl_traffic *traffic) {
  free(traffic->expert_rows);
  free(traffic->exchange_rows);
  free(traffic->homes);
  free(traffic->copies_in);
  free(traffic->copies_out);
  free(traffic->moves_in);
  free(traffic->moves_out);
  free(traffic->late_in);
  free(traffic->late_out);
  memset(traffic, 0, sizeof *traffic);
}

void bl_traffic_set_hosts(bl_traffic *t, int32_t layer, const int32_t *home, const bl_copy *copies, int32_t n) {
  const size_t row = (size_t)layer * (size_t)t->ranks;
  memset(t->homes + row, 0, (size_t)t->ranks * sizeof *t->homes);
  memset(t->copies_in + row, 0, (size_t)t->ranks * sizeof *t->copies_in);
  memset(t->copies_out + row, 0, (size_t)t->ranks * sizeof *t->copies_out);
  for (int32_t e = 0; e < t->experts; e++) t->homes[row + (size_t)home[e]]++;
  for (int32_t i = 0; i < n; i++) {
    t->copies_in[row + (size_t)copies[i].rank]++;
    t->copies_out[row + (size_t)home[copies[i].expert]]++;
  }
}

void bl_traffic_set_moves(bl_traffic *t, int32_t layer, const int32_t *old_home, const int32_t *new_home) {
  const size_t row = (size_t)layer * (size_t)t->ranks;
  memset(t->moves_in + row, 0, (size_t)t->ranks * sizeof *t->moves_in);
  memset(t->moves_out + row, 0, (size_t)t->ranks * sizeof *t->moves_out);
  for (int32_t e = 0; e < t->experts; e++) {
    if (old_home[e] == new_home[e]) continue;
    t->moves_in[row + (size_t)new_home[e]]++;
    t->moves_out[row + (size_t)old_home[e]]++;
  }
}

static size_t call_of(const bl_traffic *t, int32_t layer, int32_t micro_batch) {
  return (size_t)layer * (size_t)t->micro_batches + (size_t)micro_batch;
}

void bl_traffic_clear_late(bl_traffic *t, int32_t layer, int32_t micro_batch) {
  const size_t row = call_of(t, layer, micro_batch) * (size_t)t->ranks;
  memset(t->late_in + row, 0, (size_t)t->ranks * sizeof *t->late_in);
  memset(t->late_out + row, 0, (size_t)t->ranks * sizeof *t->late_out);
}

void bl_traffic_add_late(bl_traffic *t, int32_t layer, int32_t micro_batch, int32_t home, int32_t rank) {
  const size_t row = call_of(t, layer, micro_batch) * (size_t)t->ranks;
  t->late_in[row + (size_t)rank]++;
  t->late_out[row + (size_t)home]++;
}

static uint32_t *expert_rows(const bl_traffic *t, int32_t layer, int32_t micro_batch) {
  return t->expert_rows + call_of(t, layer, micro_batch) * (size_t)t->ranks * (size_t)t->experts;
}

static uint32_t *exchange_rows(const bl_traffic *t, int32_t layer, int32_t micro_batch) {
  return t->exchange_rows + call_of(t, layer, micro_batch) * (size_t)t->ranks * (size_t)t->ranks;
}

const uint32_t *bl_traffic_expert_rows(const bl_traffic *t, int32_t layer, int32_t micro_batch) {
  return expert_rows(t, layer, micro_batch);
}

const uint32_t *bl_traffic_exchange_rows(const bl_traffic *t, int32_t layer, int32_t micro_batch) {
  return exchange_rows(t, layer, micro_batch);
}

void bl_traffic_set_quota(bl_traffic *t, int32_t layer, int32_t micro_batch, const int32_t *first,
                          const int32_t *host_rank, const uint32_t *quota) {
  const size_t ranks = (size_t)t->ranks, experts = (size_t)t->experts, entries = (size_t)first[experts];
  uint32_t *rows = expert_rows(t, layer, micro_batch), *sent = exchange_rows(t, layer, micro_batch);
  memset(rows, 0, ranks * experts * sizeof *rows);
  memset(sent, 0, ranks * ranks * sizeof *sent);
  for (size_t source = 0; source < ranks; source++)
    for (size_t e = 0; e < experts; e++)
      for (int32_t h = first[e]; h < first[e + 1]; h++) {
        const uint32_t n = quota[source * entries + (size_t)h];
        rows[(size_t)host_rank[h] * experts + e] += n;
        sent[source * ranks + (size_t)host_rank[h]] += n;
      }
}
