/* transport.h - bytes between the ranks of one run.
 *
 * A transport gives send, recv and barrier; collectives have generic defaults built from them (transport/generic.c),
 * which an implementation may replace (NCCL). Implementations: `threads` (ranks are threads of one process; CPU, or
 * several ranks on one GPU), `mpi` (processes, host memory), `nccl`.
 *
 * Buffers live in the memory space of the backend that was joined, unless a function says host.
 * Order: all ranks of a group issue the same collectives in the same order. Reductions add in rank order, so a result
 * does not depend on timing. Nothing hangs: every wait has a deadline, and after bl_comm_abort() on any rank every call
 * on every rank returns BL_ECOMM with a sentence that names the rank and the reason that failed first.
 * One bl_comm belongs to one rank's thread. */
#ifndef BL_EXECUTOR_TRANSPORT_H
#define BL_EXECUTOR_TRANSPORT_H

#include "base/status.h"
#include "executor/backend.h"
#include <stdbool.h>
#include <stdint.h>

typedef struct bl_comm bl_comm;

typedef struct bl_comm_ops {
  const char *name;
  bool captured; /* its messages may be part of captured work (backend.h) */
  /* Mandatory. Between group_begin and group_end sends and receives are only posted; group_end completes all of them.
   * Outside a group each blocks until its buffer may be reused by work that is issued to `s` from then on: where memory
   * is not the host's, the host need not have waited for the bytes. Messages between two ranks match in order of
   * posting; the sizes of a pair must agree (else BL_ECOMM on both). 0 bytes is a message like any other. */
  bl_status (*send)(bl_comm *comm, bl_stream *s, const void *data, int64_t bytes, int32_t peer);
  bl_status (*recv)(bl_comm *comm, bl_stream *s, void *data, int64_t bytes, int32_t peer);
  bl_status (*group_begin)(bl_comm *comm);
  bl_status (*group_end)(bl_comm *comm, bl_stream *s);
  bl_status (*barrier)(bl_comm *comm);
  void (*abort)(bl_comm *comm, const char *reason);
  void (*destroy)(bl_comm *comm);
  /* Optional; NULL = the generic default. */
  bl_status (*all_reduce_f32)(bl_comm *comm, bl_stream *s, float *data, int64_t n);
  bl_status (*all_gather_host)(bl_comm *comm, const void *data, int64_t bytes, void *all);
  bl_status (*wait)(bl_comm *comm, bl_stream *s);
} bl_comm_ops;

/* The common head of every implementation's comm. */
struct bl_comm {
  const bl_comm_ops *ops;
  bl_backend *backend;
  int32_t rank, size;
  bl_stream *stream; /* for host collectives; owned */
  void *scratch;     /* device scratch of the generic collectives; owned */
  int64_t scratch_bytes;
};

/*! bl_comm_init() : for implementations: fills the common head and creates its stream. bl_comm_free() releases what the
 *  head owns and then calls destroy, which frees the rest and the comm itself. */
bl_status bl_comm_init(bl_comm *comm, const bl_comm_ops *ops, bl_backend *backend, int32_t rank, int32_t size);

/*! bl_comm_split() : a view of `world` on the ranks members[0..n), ascending and containing world->rank; rank numbers
 *  inside are positions in `members`. Messages of different groups never mix as long as every rank issues the
 * operations of its groups in one total order. Free with bl_comm_free(); the world must outlive it. */
bl_status bl_comm_split(bl_comm *world, const int32_t *members, int32_t n, bl_comm **out);
void bl_comm_free(bl_comm *comm); /* NULL is fine */

/*! bl_comm_captured() : whether what goes between these ranks may be part of captured work. */
bool bl_comm_captured(const bl_comm *comm);

/* Collectives: every rank of the group calls them, in the same order. */

/*! bl_comm_all_gather_host() : all[r * bytes ..] = rank r's data, on every rank. HOST memory, small control data. */
bl_status bl_comm_all_gather_host(bl_comm *comm, const void *data, int64_t bytes, void *all);

/*! bl_comm_all_reduce() : data[n] = sum over ranks, added in rank order 0, 1, 2, ... Device fp32. */
bl_status bl_comm_all_reduce(bl_comm *comm, bl_stream *s, float *data, int64_t n);

/*! bl_comm_all_to_all_v() : sends send_bytes[p] bytes, one behind the other, to every peer p (also itself); receives
 *  recv_bytes[p] likewise. recv_bytes must equal what each peer sends, else BL_ECOMM on all ranks. Device memory; the
 * byte counts are HOST arrays [size]. */
bl_status bl_comm_all_to_all_v(bl_comm *comm, bl_stream *s, const void *send, const int64_t *send_bytes, void *recv,
                               const int64_t *recv_bytes);

/*! bl_comm_all_gather() : all[r * bytes ..] = rank r's data, on every rank. Device memory. */
bl_status bl_comm_all_gather(bl_comm *comm, bl_stream *s, const void *data, int64_t bytes, void *all);

bl_status bl_comm_broadcast(bl_comm *comm, bl_stream *s, void *data, int64_t bytes, int32_t root);
bl_status bl_comm_barrier(bl_comm *comm);

/*! bl_comm_wait() : the host waits for a stream, as stream_sync does, but not for ever for messages of a rank that is
 *  lost. Copies between device and host may wait by themselves: where messages are under way this comes first. */
bl_status bl_comm_wait(bl_comm *comm, bl_stream *s);

/*! bl_comm_abort() : makes every rank's present and future calls return BL_ECOMM; the first reason wins. */
void bl_comm_abort(bl_comm *comm, const char *reason);

/* The threads transport: one world object, `size` ranks joined from `size` threads. */
typedef struct bl_threads_world bl_threads_world;

/*! bl_threads_world_create() : `deadline_s` bounds every wait (0 = 60). The world outlives all its comms. */
bl_status bl_threads_world_create(int32_t size, double deadline_s, bl_threads_world **out);
void bl_threads_world_free(bl_threads_world *world);

/*! bl_threads_world_join() : the comm of `rank`; called once per rank, from any thread. */
bl_status bl_threads_world_join(bl_threads_world *world, int32_t rank, bl_backend *backend, bl_comm **out);

#endif
