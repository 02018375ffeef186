/* The mpi transport: started as it is, this program starts itself again with mpirun, as 2 and as 4 processes, which run
 * the cases of every transport and compare with threads; cases that end a run have a start of their own. */
#include "executor/transport/processes.h"
#include "tests/exec/transport_cases.h"
#include <signal.h>

/* -- in a process that mpirun started -------------------------------------------------------------------------------- */

/* What this transport gave to every rank, against threads. */
static void check_against_threads(rank_test *t) {
  rank_test ranks[MAX_RANKS];
  uint64_t all[MAX_RANKS];
  body_drawn(t);
  REQUIRE_OK(bl_comm_all_gather_host(t->comm, &digest_of_rank[t->rank], sizeof *all, all));
  if (t->rank != 0) return;
  run_on_threads(t->size, 60, body_drawn, ranks);
  for (int32_t p = 0; p < t->size; p++) CHECK(all[p] == digest_of_rank[p]);
}

/* Longer than one MPI message may be, one way; nothing the other way. */
static void body_long(rank_test *t) {
  const int64_t long_bytes = ((int64_t)64 << 20) + 1000;
  int64_t send_bytes[MAX_RANKS] = {0}, recv_bytes[MAX_RANKS] = {0};
  if (t->rank > 1) {
    CHECK_OK(bl_comm_all_to_all_v(t->comm, t->stream, NULL, send_bytes, NULL, recv_bytes));
    return;
  }
  unsigned char *data = malloc((size_t)long_bytes);
  for (int64_t i = 0; i < long_bytes; i++) data[i] = (unsigned char)(t->rank == 0 ? i % 251 : 0);
  if (t->rank == 0) send_bytes[1] = long_bytes;
  if (t->rank == 1) recv_bytes[0] = long_bytes;
  CHECK_OK(bl_comm_all_to_all_v(t->comm, t->stream, data, send_bytes, data, recv_bytes));
  bool right = true;
  for (int64_t i = 0; i < long_bytes; i++) right &= data[i] == i % 251;
  CHECK(right);
  free(data);
}

static void case_right(rank_test *t) {
  static const int64_t sizes[] = {0, 1, 3, 1000, (1 << 20) + 7};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    reduce_n = sizes[i];
    body_all_reduce(t);
  }
  if (t->size == 4) body_rank_order(t);
  body_all_to_all(t);
  body_nothing_to_all(t);
  if (t->size == 1) return;
  body_small(t);
  body_groups(t);
  body_long(t);
  check_against_threads(t);
}

/* A whole message where a longer one of several parts is expected. */
static void case_parts(rank_test *t) {
  const int64_t part = (int64_t)64 << 20;
  char *data = calloc(2 * (size_t)part, 1);
  if (t->rank == 0) t->status = t->comm->ops->send(t->comm, t->stream, data, part, 1);
  if (t->rank == 1) t->status = t->comm->ops->recv(t->comm, t->stream, data, 2 * part, 0);
  if (t->status == BL_OK) t->status = bl_comm_barrier(t->comm);
  free(data);
}

/* More than is expected, in a message that MPI sends at once and in one that it does not: nothing is written behind the
 * buffer. */
static void case_longer(rank_test *t) {
  enum { FITS = 4608, COMES = 12608 };
  char *data = calloc(COMES, 1);
  memset(data, t->rank, COMES);
  if (t->rank == 0) t->status = t->comm->ops->send(t->comm, t->stream, data, COMES, 1);
  if (t->rank == 1) t->status = t->comm->ops->recv(t->comm, t->stream, data, FITS, 0);
  bool untouched = true;
  for (int i = FITS; i < COMES; i++) untouched &= data[i] == t->rank;
  CHECK(untouched);
  if (t->status == BL_OK) t->status = bl_comm_barrier(t->comm);
  free(data);
}

/* The rank that is missing lives on for a while, doing something else. */
static void stay_away(const rank_test *t, int32_t absent) {
  if (t->rank == absent) usleep(1800000);
}

static void case_absent(rank_test *t) {
  body_absent_reduce(t);
  stay_away(t, 3);
}

static void case_no_barrier(rank_test *t) {
  body_absent_barrier(t);
  stay_away(t, 0);
}

static void case_chain(rank_test *t) {
  body_chain(t);
  stay_away(t, t->size - 1);
}

static void case_killed(rank_test *t) {
  if (t->rank == 1) raise(SIGKILL);
  t->status = bl_comm_barrier(t->comm);
}

typedef struct mpi_case {
  const char *name;
  void (*body)(rank_test *);
  int32_t ranks;
  double deadline_s;
  const char *expected; /* what every rank that comes to an end says; NULL: none fails */
} mpi_case;

static const mpi_case cases[] = {
    {"right", case_right, 1, 60, NULL}, /* and without mpirun: MPI starts a single process by itself */
    {"right", case_right, 2, 60, NULL},
    {"right", case_right, 4, 60, NULL},
    {"mismatch", body_mismatch, 4, 30, "rank 1: sent 64 bytes where rank 2 expected 100"},
    {"parts", case_parts, 2, 30, "rank 0: sent 67108864 bytes where rank 1 expected 134217728"},
    {"longer", case_longer, 2, 30, "rank 0: sent 12608 bytes where rank 1 expected 4608"},
    {"abort", body_abort, 4, 30, "rank 2: out of memory: 12 bytes for a test"},
    {"traffic", body_abort_in_traffic, 4, 30, "rank 1: stopped on purpose"},
    {"absent", case_absent, 4, 0.8, "rank 3: was not heard of within 0.8 s"},
    {"no barrier", case_no_barrier, 2, 0.8, "rank 0: was not heard of within 0.8 s"},
    {"chain", case_chain, 4, 0.8, "rank 3: was not heard of within 0.8 s"},
    {"killed", case_killed, 4, 60, "rank 1: its process has ended before its time"},
};
enum { CASES = sizeof cases / sizeof *cases };

static int run_case(const mpi_case *c) {
  bl_processes here;
  rank_test t = {0};
  if (bl_processes_start(c->deadline_s, &here) != BL_OK || bl_backend_cpu_create(&t.backend) != BL_OK ||
      bl_processes_join(t.backend, &t.comm) != BL_OK || t.backend->stream_create(t.backend, &t.stream) != BL_OK) {
    printf("not started: %s\n", bl_error_text());
    return 1;
  }
  t.rank = here.rank;
  t.size = here.size;
  CHECK_INT(t.size, c->ranks);
  c->body(&t);
  if (t.status != BL_OK) printf("rank %d ends: %s\n", t.rank, check_n_failed ? "checks failed" : bl_error_text());
  if (c->expected == NULL) printf("rank %d: %d passed, %d failed\n", t.rank, check_n_passed, check_n_failed);
  t.backend->stream_destroy(t.stream);
  bl_comm_free(t.comm);
  t.backend->destroy(t.backend);
  fflush(stdout);
  return bl_processes_end(t.status != BL_OK ? 3 : check_n_failed > 0);
}

/* -- in the process that is the test --------------------------------------------------------------------------------- */

/* Output and exit code of `mpirun -np ranks program case`. */
static int start_case(const char *program, int index, char *output, size_t room) {
  char command[600];
  size_t length = 0, n;
  const int ranks = cases[index].ranks;
  if (ranks == 1)
    snprintf(command, sizeof command, "timeout 120 '%s' %d 2>&1", program, index);
  else
    snprintf(command, sizeof command, "timeout 120 mpirun --oversubscribe -np %d '%s' %d 2>&1", ranks, program, index);
  FILE *pipe = popen(command, "r");
  if (!pipe) return -1;
  while ((n = fread(output + length, 1, room - length - 1, pipe)) > 0) length += n;
  output[length] = 0;
  const int code = pclose(pipe);
  return code < 0 || !WIFEXITED(code) ? -1 : WEXITSTATUS(code);
}

static int32_t count(const char *text, const char *part) {
  int32_t n = 0;
  for (; (text = strstr(text, part)) != NULL; text++) n++;
  return n;
}

static void check_case(const char *program, int index) {
  static char output[1 << 16];
  const mpi_case *c = &cases[index];
  const int failed = check_n_failed, code = start_case(program, index, output, sizeof output);
  if (c->expected) {
    char said[320];
    snprintf(said, sizeof said, " ends: %s", c->expected);
    CHECK(code != 0 && code != 124);
    CHECK(count(output, said) >= 1); /* mpirun may be faster in ending the last ones */
    CHECK_INT(count(output, said), count(output, " ends: "));
  } else {
    CHECK_INT(code, 0);
    CHECK_INT(count(output, " passed, 0 failed"), c->ranks);
  }
  if (check_n_failed > failed) printf("case %s with %d ranks: exit %d\n%s\n", c->name, c->ranks, code, output);
}

/* Beside the programs, two folders above this one. */
static bool has_library(const char *program) {
  char path[500];
  const char *end = strrchr(program, '/');
  snprintf(path, sizeof path, "%.*s/../../ballast-mpi.so", end ? (int)(end - program) : 1, end ? program : ".");
  return access(path, R_OK) == 0;
}

static void test_processes(const char *program) {
#ifdef __SANITIZE_THREAD__
  SKIP("the thread sanitizer does not know MPI, and a rank of the mpi transport is one thread");
#endif
  if (system("command -v mpirun >/dev/null") != 0) SKIP("no mpirun: ranks as processes are not tested");
  if (!has_library(program)) SKIP("built without mpicc: ranks as processes are not tested");
  /* mpirun asks root twice; what Open MPI keeps until the process ends is no leak of ours, and is in libraries that are
   * unloaded by then, so that it cannot be told from ours: test_transport_threads looks for those. */
  setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
  setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
  setenv("ASAN_OPTIONS", "detect_leaks=0:allocator_may_return_null=1", 1);
  for (int i = 0; i < CASES; i++) check_case(program, i);
}

int main(int argc, char **argv) {
  if (argc == 2) return run_case(&cases[atoi(argv[1]) % CASES]);
  test_processes(argv[0]);
  TEST_MAIN_END;
}
