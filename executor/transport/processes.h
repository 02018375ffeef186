/* processes.h - ranks that are processes of their own, which mpirun or srun has started.
 *
 * MPI is not linked: ballast-mpi.so, built where mpicc is found, holds the only code that calls it (transport/mpi.c)
 * and is loaded by bl_processes_start(). So programs start, and train with threads, where there is no MPI.
 *
 * How a failure ends a run of processes: the rank that fails tells all others why (bl_comm_abort()), says it on stderr
 * and ends; the others end too, quietly, so that one sentence stands there and not one a rank. A rank whose process is
 * gone is noticed by those on its machine within a second, by all others at the latest after the deadline. */
#ifndef BL_EXECUTOR_TRANSPORT_PROCESSES_H
#define BL_EXECUTOR_TRANSPORT_PROCESSES_H

#include "executor/transport.h"

typedef struct bl_processes {
  int32_t rank, size;
  int32_t on_machine; /* position among the ranks of this machine */
} bl_processes;

/*! bl_processes_start() : loads and starts MPI, once a process. `deadline_s` bounds every wait for another rank.
 *  @return : BL_ENOTSUP (this build has no MPI), BL_EMACHINE (MPI or its library cannot be started). */
bl_status bl_processes_start(double deadline_s, bl_processes *out);

/*! bl_processes_join() : the comm of this process, after the start; its memory is the host's. */
bl_status bl_processes_join(bl_backend *backend, bl_comm **out);

/*! bl_processes_agree() : every rank learns whether all came so far without failing; the lowest that did not says why.
 *  @return : BL_OK, this rank's own failure, or BL_ECOMM that names the rank that failed. */
bl_status bl_processes_agree(bl_comm *comm, bl_status status);

/*! bl_processes_look() : a turn of a wait that is not for a message of the mpi transport: has another rank failed, or
 * has a process ended? `spent_s`: how long the wait has lasted.  @return : BL_OK, or BL_ECOMM that names the rank. */
bl_status bl_processes_look(double spent_s);

/*! bl_processes_failed() : before the failure of this rank is printed: nothing more appears on stderr where another
 *  rank failed first, or stopped alike and has a lower number. */
void bl_processes_failed(bl_status status);

/*! bl_processes_end() : the last call of a process, once all is written and said. The ranks leave together; where one
 *  failed, within seconds.  @return : the exit code, of the lowest rank that said something where any failed. */
int bl_processes_end(int exit_code);

/* What ballast-mpi.so exports as `bl_mpi_functions`. */
typedef struct bl_mpi_table {
  const char *version;
  uint64_t comm_bytes; /* size of a bl_comm: a library of another build does not fit */
  bl_status (*start)(double deadline_s, bl_processes *out);
  bl_status (*join)(bl_backend *backend, bl_comm **out);
  bl_status (*look)(double spent_s);
  bool (*heard)(void); /* another rank has aborted, before this one did */
  bool (*said)(void);  /* another rank has failed with the same words and says so; waits its turn for that */
  int (*end)(int exit_code, bool quiet);
} bl_mpi_table;

#endif
