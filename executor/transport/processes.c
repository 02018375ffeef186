/* processes.c - loads MPI, and how processes fail and end together. */
#include "executor/transport/processes.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/version.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char LIBRARY[] = "ballast-mpi.so"; /* beside the program: the Makefile says where to look */

static const bl_mpi_table *mpi; /* NULL: not started */
static bl_processes self;
static bool quiet;

static bl_status load(const bl_mpi_table **out) {
  /* MPI loads parts of its own later, which look for its names among all. */
  void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_GLOBAL);
  if (!library) {
    const char *reason = dlerror();
    if (strncmp(reason, LIBRARY, strlen(LIBRARY)) == 0) /* else one that it needs is missing */
      return bl_fail(BL_ENOTSUP, "this build has no mpi transport: mpicc was not there when it was made");
    return bl_fail(BL_EMACHINE, "MPI cannot be loaded: %s", reason);
  }
  const bl_mpi_table *table = dlsym(library, "bl_mpi_functions");
  if (!table || strcmp(table->version, BL_VERSION) != 0 || table->comm_bytes != sizeof(bl_comm))
    return bl_fail(BL_EMACHINE, "%s is not of this build", LIBRARY);
  *out = table;
  return BL_OK;
}

bl_status bl_processes_start(double deadline_s, bl_processes *out) {
  const bl_mpi_table *table = NULL;
  BL_TRY(load(&table));
  BL_TRY(table->start(deadline_s, &self));
  mpi = table;
  *out = self;
  if (self.rank != 0) bl_log_set_level(0); /* what is said once a run is said by rank 0 */
  return BL_OK;
}

bl_status bl_processes_join(bl_backend *backend, bl_comm **out) { return mpi->join(backend, out); }

bl_status bl_processes_look(double spent_s) { return mpi->look(spent_s); }

static void be_quiet(void) {
  quiet = true;
  bl_log_set_level(-1);
}

bl_status bl_processes_agree(bl_comm *comm, bl_status status) {
  const int32_t mine = status;
  int32_t *all = NULL;
  BL_TRY(bl_new(&all, (size_t)comm->size, sizeof *all, "agreement"));
  char text[512];
  snprintf(text, sizeof text, "%s", bl_error_text());
  const bl_status gathered = bl_comm_all_gather_host(comm, &mine, sizeof mine, all);
  int32_t failed = 0;
  while (gathered == BL_OK && failed < comm->size && all[failed] == BL_OK) failed++;
  free(all);
  if (gathered != BL_OK) return gathered;
  if (failed == comm->size) return BL_OK;
  if (failed != comm->rank) be_quiet();
  return status != BL_OK ? bl_fail(status, "%s", text) : bl_fail(BL_ECOMM, "rank %d failed", failed);
}

void bl_processes_failed(bl_status status) {
  if (!mpi) return;
  if (status == BL_EINTERRUPTED ? self.rank != 0 : (status == BL_ECOMM && mpi->heard()) || mpi->said()) be_quiet();
}

int bl_processes_end(int exit_code) {
  if (!mpi) return exit_code;
  const int code = mpi->end(exit_code, quiet);
  mpi = NULL;
  return code;
}
