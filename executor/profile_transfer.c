/* profile_transfer.c - bytes between ranks, and between host and device. */
#include "executor/profile_calls.h"

bl_status bl_bench_gather_host(bl_bench *b, int64_t bytes) {
  return bl_comm_all_gather_host(b->comm, b->control, bytes, b->control + BL_BENCH_CONTROL_BYTES);
}

/* `bytes` in all to all ranks alike, the own part included. */
bl_status bl_bench_exchange(bl_bench *b, int64_t bytes) {
  const int32_t size = b->comm->size;
  int64_t parts[64];
  for (int32_t p = 0; p < size; p++) parts[p] = bytes / size / 64 * 64;
  const int64_t floats = bytes / (int64_t)sizeof(float);
  return bl_comm_all_to_all_v(b->comm, b->s, bl_bench_take(b, floats), parts, bl_bench_take(b, floats), parts);
}

/* `bytes` to the next rank, as many from the one before. */
static bl_status pass_on(bl_bench *b, int64_t bytes, void *into) {
  bl_comm *c = b->comm;
  BL_TRY(c->ops->group_begin(c));
  BL_TRY(c->ops->send(c, b->s, bl_bench_take(b, bytes / (int64_t)sizeof(float)), bytes, (c->rank + 1) % c->size));
  BL_TRY(c->ops->recv(c, b->s, into, bytes, (c->rank + c->size - 1) % c->size));
  return c->ops->group_end(c, b->s);
}

bl_status bl_bench_transfer(bl_bench *b, int64_t bytes) {
  return pass_on(b, bytes, bl_bench_take(b, bytes / (int64_t)sizeof(float)));
}

bl_status bl_bench_accumulate(bl_bench *b, int64_t bytes) {
  const int64_t n = bytes / (int64_t)sizeof(float);
  float *incoming = bl_bench_take(b, n);
  BL_TRY(pass_on(b, bytes, incoming));
  b->be->ops.add_f32(b->s, bl_bench_take(b, n), incoming, n);
  return BL_OK;
}

bl_status bl_bench_all_reduce(bl_bench *b, int64_t bytes) {
  const int64_t n = bytes / (int64_t)sizeof(float);
  return bl_comm_all_reduce(b->comm, b->s, bl_bench_take(b, n), n);
}

/* Page-locked or not is the program's habit in training: plain host memory. */
bl_status bl_bench_to_device(bl_bench *b, int64_t bytes) {
  b->be->to_device(b->s, bl_bench_take(b, bytes / (int64_t)sizeof(float)), b->host, (size_t)bytes);
  return BL_OK;
}

bl_status bl_bench_to_host(bl_bench *b, int64_t bytes) {
  b->be->to_host(b->s, b->host, bl_bench_take(b, bytes / (int64_t)sizeof(float)), (size_t)bytes);
  return BL_OK;
}
