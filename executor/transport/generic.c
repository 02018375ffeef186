/* generic.c - collectives from send and recv, and views on a part of the ranks. */
#include "base/memory.h"
#include "executor/transport.h"
#include <stdlib.h>
#include <string.h>

enum { BLOCK_FLOATS = 1 << 20 }; /* all_reduce takes so many at a time: bounds its scratch to 4 MiB */

bl_status bl_comm_init(bl_comm *comm, const bl_comm_ops *ops, bl_backend *backend, int32_t rank, int32_t size) {
  comm->ops = ops;
  comm->backend = backend;
  comm->rank = rank;
  comm->size = size;
  return backend->stream_create(backend, &comm->stream);
}

void bl_comm_free(bl_comm *comm) {
  if (!comm) return;
  comm->backend->release(comm->backend, comm->scratch);
  if (comm->stream) comm->backend->stream_destroy(comm->stream);
  comm->ops->destroy(comm);
}

bl_status bl_comm_barrier(bl_comm *comm) { return comm->size == 1 ? BL_OK : comm->ops->barrier(comm); }

bool bl_comm_captured(const bl_comm *comm) { return comm->size == 1 || comm->ops->captured; }

bl_status bl_comm_wait(bl_comm *comm, bl_stream *s) {
  return comm->ops->wait ? comm->ops->wait(comm, s) : comm->backend->stream_sync(s);
}

void bl_comm_abort(bl_comm *comm, const char *reason) { comm->ops->abort(comm, reason); }

static bl_status need_scratch(bl_comm *comm, int64_t bytes) {
  if (bytes <= comm->scratch_bytes) return BL_OK;
  comm->backend->release(comm->backend, comm->scratch);
  comm->scratch = NULL;
  comm->scratch_bytes = 0;
  BL_TRY(comm->backend->alloc(comm->backend, (size_t)bytes, &comm->scratch));
  comm->scratch_bytes = bytes;
  return BL_OK;
}

/* Ends a group whatever happened inside: the first failure counts, and one between begin and end is everybody's. */
static bl_status end_group(bl_comm *comm, bl_stream *s, bl_status status) {
  if (status != BL_OK) comm->ops->abort(comm, bl_error_text());
  BL_KEEP_FIRST(status, comm->ops->group_end(comm, s));
  return status;
}

/* -- collectives -----------------------------------------------------------------------------------------------------
 */

/* Everybody's `bytes` to everybody, into all[r * bytes]; the own part is in place already. */
static bl_status gather_in_place(bl_comm *comm, bl_stream *s, char *all, int64_t bytes) {
  bl_status status = BL_OK;
  BL_TRY(comm->ops->group_begin(comm));
  for (int32_t p = 0; p < comm->size && status == BL_OK; p++) {
    if (p == comm->rank) continue;
    status = comm->ops->send(comm, s, all + comm->rank * bytes, bytes, p);
    if (status == BL_OK) status = comm->ops->recv(comm, s, all + p * bytes, bytes, p);
  }
  return end_group(comm, s, status);
}

bl_status bl_comm_all_gather_host(bl_comm *comm, const void *data, int64_t bytes, void *all) {
  char *own = (char *)all + comm->rank * bytes;
  if (bytes > 0) memmove(own, data, (size_t)bytes);
  if (comm->size == 1) return BL_OK;
  if (comm->ops->all_gather_host) return comm->ops->all_gather_host(comm, own, bytes, all);
  if (comm->backend->host_memory) return gather_in_place(comm, comm->stream, all, bytes);
  BL_TRY(need_scratch(comm, bytes * comm->size));
  char *staged = comm->scratch;
  comm->backend->to_device(comm->stream, staged + comm->rank * bytes, own, (size_t)bytes);
  BL_TRY(gather_in_place(comm, comm->stream, staged, bytes));
  comm->backend->to_host(comm->stream, all, staged, (size_t)(bytes * comm->size));
  return bl_comm_wait(comm, comm->stream);
}

bl_status bl_comm_all_gather(bl_comm *comm, bl_stream *s, const void *data, int64_t bytes, void *all) {
  comm->backend->copy(s, (char *)all + comm->rank * bytes, data, (size_t)bytes);
  return comm->size == 1 ? BL_OK : gather_in_place(comm, s, all, bytes);
}

bl_status bl_comm_broadcast(bl_comm *comm, bl_stream *s, void *data, int64_t bytes, int32_t root) {
  bl_status status = BL_OK;
  BL_TRY(comm->ops->group_begin(comm));
  if (comm->rank != root) status = comm->ops->recv(comm, s, data, bytes, root);
  for (int32_t p = 0; p < comm->size && comm->rank == root && status == BL_OK; p++)
    if (p != root) status = comm->ops->send(comm, s, data, bytes, p);
  return end_group(comm, s, status);
}

/* A place in a buffer that may be NULL where nothing is sent. */
static void *at(const void *buffer, int64_t offset, int64_t bytes) {
  return bytes > 0 ? (char *)(uintptr_t)buffer + offset : NULL;
}

bl_status bl_comm_all_to_all_v(bl_comm *comm, bl_stream *s, const void *send, const int64_t *send_bytes, void *recv,
                               const int64_t *recv_bytes) {
  int64_t from = 0, to = 0, own_from = 0, own_to = 0;
  bl_status status = BL_OK;
  BL_TRY(comm->ops->group_begin(comm));
  for (int32_t p = 0; p < comm->size && status == BL_OK; p++) {
    if (send_bytes[p] < 0 || recv_bytes[p] < 0)
      status = bl_fail(BL_ECOMM, "all_to_all_v with a negative size for rank %d", p);
    else if (p == comm->rank)
      own_from = from, own_to = to;
    else {
      status = comm->ops->send(comm, s, at(send, from, send_bytes[p]), send_bytes[p], p);
      if (status == BL_OK) status = comm->ops->recv(comm, s, at(recv, to, recv_bytes[p]), recv_bytes[p], p);
    }
    from += send_bytes[p];
    to += recv_bytes[p];
  }
  const int64_t own = send_bytes[comm->rank];
  if (status == BL_OK && own != recv_bytes[comm->rank])
    status = bl_fail(BL_ECOMM, "all_to_all_v of %lld bytes to itself where %lld are expected", (long long)own,
                     (long long)recv_bytes[comm->rank]);
  if (status == BL_OK && own > 0) comm->backend->copy(s, at(recv, own_to, own), at(send, own_from, own), (size_t)own);
  return end_group(comm, s, status);
}

/* First element of rank r's part of n. */
static int64_t part(int64_t n, int32_t r, int32_t size) { return n * r / size; }

/* Every rank sums its own part of the block, in rank order, from the parts that the others send it; then the sums go
 * round. scratch holds one part a rank. */
static bl_status reduce_block(bl_comm *comm, bl_stream *s, float *data, int64_t n) {
  const int32_t size = comm->size, rank = comm->rank;
  const int64_t first = part(n, rank, size), length = part(n, rank + 1, size) - first;
  float *parts = comm->scratch;
  bl_status status = BL_OK;
  BL_TRY(comm->ops->group_begin(comm));
  for (int32_t p = 0; p < size && status == BL_OK; p++) {
    if (p == rank) continue;
    const int64_t from = part(n, p, size), bytes = (part(n, p + 1, size) - from) * (int64_t)sizeof *data;
    status = comm->ops->send(comm, s, data + from, bytes, p);
    if (status == BL_OK) status = comm->ops->recv(comm, s, parts + p * length, length * (int64_t)sizeof *data, p);
  }
  BL_TRY(end_group(comm, s, status));
  float *sum = rank == 0 ? data + first : parts;
  for (int32_t p = 1; p < size && length > 0; p++)
    comm->backend->ops.add_f32(s, sum, p == rank ? data + first : parts + p * length, length);
  if (rank != 0 && length > 0) comm->backend->copy(s, data + first, sum, (size_t)length * sizeof *data);

  BL_TRY(comm->ops->group_begin(comm));
  for (int32_t p = 0; p < size && status == BL_OK; p++) {
    if (p == rank) continue;
    const int64_t from = part(n, p, size), bytes = (part(n, p + 1, size) - from) * (int64_t)sizeof *data;
    status = comm->ops->send(comm, s, data + first, length * (int64_t)sizeof *data, p);
    if (status == BL_OK) status = comm->ops->recv(comm, s, data + from, bytes, p);
  }
  return end_group(comm, s, status);
}

bl_status bl_comm_all_reduce(bl_comm *comm, bl_stream *s, float *data, int64_t n) {
  if (comm->size == 1 || n == 0) return BL_OK;
  if (comm->ops->all_reduce_f32) return comm->ops->all_reduce_f32(comm, s, data, n);
  const int64_t block = n < BLOCK_FLOATS ? n : BLOCK_FLOATS;
  BL_TRY(need_scratch(comm, (block + comm->size) * (int64_t)sizeof *data));
  for (int64_t at = 0; at < n; at += block) BL_TRY(reduce_block(comm, s, data + at, n - at < block ? n - at : block));
  return BL_OK;
}

/* -- a view on some ranks: calls go to the world with the peer's world number
 * ------------------------------------------ */

typedef struct view {
  bl_comm base;
  bl_comm *world;
  int32_t *members;
} view;

static bl_status view_send(bl_comm *comm, bl_stream *s, const void *data, int64_t bytes, int32_t peer) {
  view *v = (view *)comm;
  return v->world->ops->send(v->world, s, data, bytes, v->members[peer]);
}

static bl_status view_recv(bl_comm *comm, bl_stream *s, void *data, int64_t bytes, int32_t peer) {
  view *v = (view *)comm;
  return v->world->ops->recv(v->world, s, data, bytes, v->members[peer]);
}

static bl_status view_group_begin(bl_comm *comm) {
  view *v = (view *)comm;
  return v->world->ops->group_begin(v->world);
}

static bl_status view_group_end(bl_comm *comm, bl_stream *s) {
  view *v = (view *)comm;
  return v->world->ops->group_end(v->world, s);
}

/* Empty messages between all. */
static bl_status view_barrier(bl_comm *comm) { return gather_in_place(comm, comm->stream, (char[1]){0}, 0); }

static bl_status view_wait(bl_comm *comm, bl_stream *s) { return bl_comm_wait(((view *)comm)->world, s); }

static void view_abort(bl_comm *comm, const char *reason) {
  view *v = (view *)comm;
  v->world->ops->abort(v->world, reason);
}

static void view_destroy(bl_comm *comm) {
  free(((view *)comm)->members);
  free(comm);
}

static const bl_comm_ops view_ops = {.name = "view",
                                     .send = view_send,
                                     .recv = view_recv,
                                     .group_begin = view_group_begin,
                                     .group_end = view_group_end,
                                     .barrier = view_barrier,
                                     .wait = view_wait,
                                     .abort = view_abort,
                                     .destroy = view_destroy};

bl_status bl_comm_split(bl_comm *world, const int32_t *members, int32_t n, bl_comm **out) {
  view *v = NULL;
  int32_t rank = -1;
  for (int32_t i = 0; i < n; i++) {
    if (members[i] < 0 || members[i] >= world->size || (i > 0 && members[i] <= members[i - 1]))
      return bl_fail(BL_EINPUT, "a group of ranks: expected ascending ranks of 0..%d, found %d", world->size - 1,
                     members[i]);
    if (members[i] == world->rank) rank = i;
  }
  if (rank < 0) return bl_fail(BL_EINPUT, "a group of ranks: rank %d does not belong to its own", world->rank);
  BL_TRY(bl_new(&v, 1, sizeof *v, "a group of ranks"));
  bl_status status = bl_new(&v->members, (size_t)n, sizeof *members, "a group of ranks");
  if (status == BL_OK) memcpy(v->members, members, (size_t)n * sizeof *members);
  if (status == BL_OK) status = bl_comm_init(&v->base, &view_ops, world->backend, rank, n);
  if (status != BL_OK) {
    free(v->members);
    free(v);
    return status;
  }
  v->world = world;
  *out = &v->base;
  return BL_OK;
}
