/* open_transport.c - which transport, and what it needs. */
#include "executor/open_transport.h"
#include "executor/transport/nccl.h"
#include <stdlib.h>
#include <string.h>

bl_status bl_transport_check(const char *backend, const char *transport) {
  const bool cpu = !strcmp(backend, "cpu");
  if (cpu && !strcmp(transport, "nccl"))
    return bl_fail(BL_EUSAGE, "--backend cpu works with --transport threads or mpi, not nccl");
  if (!cpu && !strcmp(transport, "mpi"))
    return bl_fail(BL_EUSAGE, "--backend cuda works with --transport threads or nccl, not mpi");
#ifndef BL_HAVE_NCCL
  if (!strcmp(transport, "nccl"))
    return bl_fail(BL_ENOTSUP, "this build has no nccl transport: CUDA or nccl.h was not there when it was made");
#endif
  return BL_OK;
}

bool bl_transport_starts(const char *transport, int64_t ranks) {
  static const char *const launched[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"};
  if (strcmp(transport, "nccl") != 0) return !strcmp(transport, "mpi");
  for (size_t i = 0; i < sizeof launched / sizeof *launched; i++)
    if (getenv(launched[i])) return true;
  return ranks > 1;
}

bl_status bl_transport_open(const char *transport, const char *backend, const char *precision, double deadline_s,
                            const bl_processes *here, bl_comm *host, bl_process_rank *out) {
  *out = (bl_process_rank){.own = true};
#ifdef BL_HAVE_NCCL
  if (!strcmp(transport, "nccl")) {
    bl_status status = bl_backend_open(backend, precision, bl_nccl_device(here->on_machine), &out->backend);
    if (host) status = bl_processes_agree(host, status);
    return status == BL_OK ? bl_nccl_join(out->backend, host, deadline_s, &out->comm) : status;
  }
#endif
  (void)transport, (void)backend, (void)precision, (void)deadline_s, (void)here;
  *out = (bl_process_rank){.backend = host->backend, .comm = host};
  return BL_OK;
}

void bl_transport_close(bl_process_rank *rank) {
  if (!rank->own) return;
  bl_comm_free(rank->comm);
  if (rank->backend) rank->backend->destroy(rank->backend);
}
