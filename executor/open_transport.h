/* open_transport.h - the comm of a rank that is a process, by the words of the command line. */
#ifndef BL_EXECUTOR_OPEN_TRANSPORT_H
#define BL_EXECUTOR_OPEN_TRANSPORT_H

#include "executor/transport.h"
#include "executor/transport/processes.h"

/*! bl_transport_check() : do backend and transport go together, and has this build the transport?
 *  @return : BL_OK, BL_EUSAGE or BL_ENOTSUP. */
bl_status bl_transport_check(const char *backend, const char *transport);

/*! bl_transport_starts() : whether the run has processes that find each other through MPI: with mpi always, with nccl
 *  unless a single rank was started without mpirun or srun. */
bool bl_transport_starts(const char *transport, int64_t ranks);

/* What a rank of its own process computes and talks with. */
typedef struct bl_process_rank {
  bl_backend *backend;
  bl_comm *comm;
  bool own; /* to be freed; else the two are those of the host */
} bl_process_rank;

/*! bl_transport_open() : for this process. `host` is its comm over the mpi transport, NULL where it is alone.
 *  @return : what bl_backend_open() and bl_nccl_join() return. Free with bl_transport_close(), also after a failure. */
bl_status bl_transport_open(const char *transport, const char *backend, const char *precision, double deadline_s,
                            const bl_processes *here, bl_comm *host, bl_process_rank *out);
void bl_transport_close(bl_process_rank *rank);

#endif
