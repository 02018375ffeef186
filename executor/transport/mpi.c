/* mpi.c - ranks are processes; host memory. The one file that calls MPI, and all of ballast-mpi.so.
 *
 * MPI itself has no deadline and knows nothing of ranks that are lost, so no call here blocks: messages are posted and
 * asked after in turns, and in every turn this rank also looks whether it was told something (`control`): that another
 * rank aborted, that it waits as well, that it is at its end. Processes on the same machine are watched besides
 * (pidfd).
 *
 * MPI counts with an int, so a long message goes in parts. The tag says how many parts are still to come, so a receiver
 * that expects another size finds out whatever the two sizes are. It receives only what is there and has that size:
 * Open MPI 4.1 has been seen to write behind the buffer where a message is longer. */
#include "base/log.h"
#include "base/memory.h"
#include "base/rng.h"
#include "base/version.h"
#include "executor/transport/patience.h"
#include "executor/transport/processes.h"
#include <errno.h>
#include <mpi.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { REASON_MAX = 256, TEXT_MAX = REASON_MAX + 32, MAX_TAG = 32767 };
enum { TAG_ABORT, TAG_WAITING, TAG_END, CONTROL_TAGS };
static const int64_t PART_BYTES = (int64_t)64 << 20;
static const int64_t SPIN_US = 5000, NAP_US = 100; /* a wait first gives way to other processes, then sleeps in turns */
static const int64_t TURN_US = 10000;              /* of the lower ranks, to say first what all see */
static const int64_t SAID_US = 1000000;            /* for a lower rank to fail alike */
static const double END_S = 2;                     /* how long an end after a failure may take */

typedef struct end_note {
  int32_t exit_code, quiet;
} end_note;

static struct {
  MPI_Comm data, control;
  bl_processes here;
  double deadline_s;
  struct pollfd *watch; /* [size]: the processes of this machine; fd -1 for others */
  bool aborted, heard;
  bool said;             /* what this rank fails with, another one says already */
  char reason[TEXT_MAX]; /* "rank N: " and why */
  char inbox[TEXT_MAX];  /* of the control message that comes next */
  MPI_Request listening;
  bool *blocked;   /* [size]: an earlier message of this peer is still to come */
  double *waiting; /* [size]: how far into this rank's own wait the other said last that it waits; -1: it did not */
  end_note *ended; /* [size]: exit_code -1 where not */
} world;

/* One message or part of one. */
typedef struct part {
  void *data;
  int32_t peer;
  int tag, bytes;
  bool is_send, begun, done; /* begun: has a request */
} part;

typedef struct mpi_comm {
  bl_comm base;
  bool in_group;
  part *parts;
  MPI_Request *requests;
  int *finished; /* indices, as MPI_Testsome() gives them */
  MPI_Status *statuses;
  size_t n, parts_room, requests_room, finished_room, statuses_room;
} mpi_comm;

static mpi_comm *self(bl_comm *comm) { return (mpi_comm *)comm; }
static bl_status aborted_status(void) { return bl_fail(BL_ECOMM, "%s", world.reason); }

static bl_status check(const char *what, int code) {
  if (code == MPI_SUCCESS) return BL_OK;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length;
  MPI_Error_string(code, text, &length);
  return bl_fail(BL_ECOMM, "%s: %s", what, text);
}

/* -- what ranks tell each other ------------------------------------------------------------------------------------ */

static void listen_again(void) {
  if (MPI_Irecv(world.inbox, TEXT_MAX, MPI_CHAR, MPI_ANY_SOURCE, MPI_ANY_TAG, world.control, &world.listening) !=
      MPI_SUCCESS)
    world.listening = MPI_REQUEST_NULL;
}

/* Whether two reasons are the same but for the rank. */
static bool same_words(const char *a, const char *b) {
  const char *mine = strchr(a, ':'), *theirs = strchr(b, ':');
  return mine && theirs && strcmp(mine, theirs) == 0;
}

/* Takes in what has come. `spent_s` is how long this rank has been waiting. */
static void hear(double spent_s) {
  int there = 1;
  MPI_Status about;
  while (world.listening != MPI_REQUEST_NULL) {
    if (MPI_Test(&world.listening, &there, &about) != MPI_SUCCESS || !there) return;
    const int from = about.MPI_SOURCE;
    if (about.MPI_TAG == TAG_WAITING) world.waiting[from] = spent_s;
    if (about.MPI_TAG == TAG_END) memcpy(&world.ended[from], world.inbox, sizeof *world.ended);
    if (about.MPI_TAG == TAG_ABORT && !world.aborted) {
      memcpy(world.reason, world.inbox, sizeof world.reason);
      world.reason[sizeof world.reason - 1] = 0;
      world.aborted = world.heard = true;
    }
    if (about.MPI_TAG == TAG_ABORT && !world.heard && from < world.here.rank) {
      world.inbox[TEXT_MAX - 1] = 0;
      world.said = world.said || same_words(world.reason, world.inbox);
    }
    listen_again();
  }
}

/* Small messages leave at once; nobody waits for them. */
static void tell_all(int tag, const void *data, int bytes) {
  for (int32_t p = 0; p < world.here.size; p++) {
    MPI_Request sent;
    if (p == world.here.rank) continue;
    if (MPI_Isend(data, bytes, MPI_CHAR, p, tag, world.control, &sent) == MPI_SUCCESS) MPI_Request_free(&sent);
  }
}

static void abort_for(int32_t rank, const char *reason) {
  char text[TEXT_MAX];
  hear(0);
  snprintf(text, sizeof text, "rank %d: %.*s", rank, REASON_MAX - 1, reason);
  world.said = world.said || (world.heard && same_words(world.reason, text));
  if (world.aborted) return;
  memcpy(world.reason, text, sizeof text);
  world.aborted = true;
  tell_all(TAG_ABORT, world.reason, TEXT_MAX);
}

/* Lets lower ranks speak first, until `told`. */
static void wait_for_turn(const bool *told, int64_t longest_us) {
  const int64_t until = bl_now_us() + (world.here.rank > 0 ? longest_us : 0);
  do hear(0);
  while (!*told && bl_now_us() < until && usleep(500) == 0);
}

/* What several ranks are about to notice is said by the lowest that does. */
static void abort_in_turn(int32_t rank, const char *reason) {
  const int64_t turn = world.here.rank < 100 ? world.here.rank : 100;
  wait_for_turn(&world.aborted, turn * TURN_US);
  abort_for(rank, reason);
}

/* -- ranks that are lost ------------------------------------------------------------------------------------------- */

/* Process numbers mean something within one boot of one kernel and one namespace. */
static uint64_t name_of_machine(void) {
  char boot[64] = "";
  struct stat space;
  FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
  if (!file || !fgets(boot, sizeof boot, file) || stat("/proc/self/ns/pid", &space) != 0) space.st_ino = 0;
  if (file) fclose(file);
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  const uint64_t name = bl_hash_bytes(boot, strlen(boot), (uint64_t)space.st_ino);
  return bl_hash_bytes(host, strlen(host), name);
}

static bl_status find_neighbours(void) {
  struct about {
    uint64_t machine;
    int64_t pid;
  } mine = {name_of_machine(), getpid()}, *all = NULL;
  const size_t size = (size_t)world.here.size;
  BL_TRY(bl_new(&all, size, sizeof *all, "processes"));
  bl_status status =
      check("MPI_Allgather", MPI_Allgather(&mine, sizeof mine, MPI_BYTE, all, sizeof mine, MPI_BYTE, world.control));
  for (int32_t p = 0; p < world.here.size && status == BL_OK; p++) {
    const bool neighbour = p != world.here.rank && all[p].machine == mine.machine;
    world.watch[p] = (struct pollfd){.fd = -1, .events = POLLIN};
#ifdef SYS_pidfd_open
    if (neighbour) world.watch[p].fd = (int)syscall(SYS_pidfd_open, (pid_t)all[p].pid, 0);
#endif
    if (neighbour && p < world.here.rank) world.here.on_machine++;
  }
  free(all);
  return status;
}

/* A process of this machine that is no more, -1 where all are. */
static int32_t lost_rank(void) {
  if (poll(world.watch, (nfds_t)world.here.size, 0) <= 0) return -1;
  for (int32_t p = 0; p < world.here.size; p++)
    if (world.watch[p].fd >= 0 && (world.watch[p].revents & POLLIN) && world.ended[p].exit_code < 0) return p;
  return -1;
}

/* What others say, and every now and then whether they are still there. */
static void look_around(double spent_s, double *next_look_s) {
  hear(spent_s);
  if (world.aborted || spent_s < *next_look_s) return;
  *next_look_s = spent_s + BL_PATIENCE_LOOK_S / 2;
  const int32_t lost = lost_rank();
  if (lost >= 0) abort_in_turn(lost, "its process has ended before its time");
}

/* One turn of a wait that did not end yet: looks around and gives the processor away. */
static void pass_time(const bl_patience *patience, int64_t started_us, double *next_look_s) {
  look_around(patience->spent_s, next_look_s);
  if (world.aborted) return;
  if (bl_now_us() - started_us < SPIN_US)
    sched_yield();
  else
    usleep(NAP_US);
}

/* -- messages ------------------------------------------------------------------------------------------------------ */

static bl_status make_room(mpi_comm *c) {
  const size_t need = c->n + 1;
  BL_TRY(bl_grow(&c->parts, &c->parts_room, need, sizeof *c->parts, "messages"));
  BL_TRY(bl_grow(&c->requests, &c->requests_room, need, sizeof(MPI_Request), "messages"));
  BL_TRY(bl_grow(&c->finished, &c->finished_room, need, sizeof *c->finished, "messages"));
  return bl_grow(&c->statuses, &c->statuses_room, need, sizeof *c->statuses, "messages");
}

static bl_status post(mpi_comm *c, void *data, int64_t bytes, int32_t peer, bool is_send) {
  int64_t to_come = bytes > 0 ? (bytes - 1) / PART_BYTES : 0;
  if (peer < 0 || peer >= c->base.size || bytes < 0 || to_come > MAX_TAG)
    return bl_fail(BL_ECOMM, "a message of %lld bytes for rank %d of %d", (long long)bytes, peer, c->base.size);
  char *at = data;
  for (; to_come >= 0; to_come--, bytes -= PART_BYTES, at += PART_BYTES) {
    BL_TRY(make_room(c));
    const int n = (int)(bytes < PART_BYTES ? bytes : PART_BYTES), tag = (int)to_come;
    c->requests[c->n] = MPI_REQUEST_NULL;
    if (is_send) BL_TRY(check("MPI_Isend", MPI_Isend(at, n, MPI_BYTE, peer, tag, world.data, &c->requests[c->n])));
    c->parts[c->n++] = (part){.data = at, .peer = peer, .tag = tag, .bytes = n, .is_send = is_send, .begun = is_send};
  }
  return BL_OK;
}

static void abort_for_mpi(const mpi_comm *c, const char *what, int code) {
  check(what, code);
  abort_for(c->base.rank, bl_error_text());
}

/* Begins to receive a part if it is there, and is the one that is expected.  @return : whether it was there. */
static bool begin_receive(mpi_comm *c, part *p, MPI_Request *request) {
  int there = 0, bytes = 0;
  MPI_Message message;
  MPI_Status about;
  int code = MPI_Improbe(p->peer, MPI_ANY_TAG, world.data, &there, &message, &about);
  if (code == MPI_SUCCESS && !there) return false;
  if (code == MPI_SUCCESS) MPI_Get_count(&about, MPI_BYTE, &bytes);
  if (code == MPI_SUCCESS && (bytes != p->bytes || about.MPI_TAG != p->tag)) {
    char reason[REASON_MAX];
    snprintf(reason, sizeof reason, "sent %lld bytes where rank %d expected %lld",
             (long long)(about.MPI_TAG * PART_BYTES + bytes), c->base.rank,
             (long long)(p->tag * PART_BYTES + p->bytes));
    abort_for(p->peer, reason);
    return true;
  }
  if (code == MPI_SUCCESS) code = MPI_Imrecv(p->data, p->bytes, MPI_BYTE, &message, request);
  if (code != MPI_SUCCESS) abort_for_mpi(c, "receiving", code);
  p->begun = code == MPI_SUCCESS;
  return true;
}

/* What has come from each peer, in the order of posting. */
static void begin_receives(mpi_comm *c) {
  memset(world.blocked, 0, (size_t)world.here.size * sizeof *world.blocked);
  for (size_t i = 0; i < c->n && !world.aborted; i++) {
    part *p = &c->parts[i];
    if (!p->begun && !world.blocked[p->peer]) world.blocked[p->peer] = !begin_receive(c, p, &c->requests[i]);
  }
}

/* Ticks off what is through.  @return : whether everything is. */
static bool take_finished(mpi_comm *c) {
  int n = 0;
  begin_receives(c);
  const int code = MPI_Testsome((int)c->n, c->requests, &n, c->finished, c->statuses);
  if (code != MPI_SUCCESS) {
    abort_for_mpi(c, "an exchange", code == MPI_ERR_IN_STATUS && n > 0 ? c->statuses[0].MPI_ERROR : code);
    return false;
  }
  for (int i = 0; n != MPI_UNDEFINED && i < n; i++) c->parts[c->finished[i]].done = true;
  for (size_t i = 0; i < c->n; i++)
    if (!c->parts[i].done) return false;
  return true;
}

/* At the deadline: the rank to blame, which is one that is not waiting itself. */
static int32_t missing_rank(const mpi_comm *c, double spent_s) {
  const double since = spent_s - 0.5 * world.deadline_s;
  int32_t first = -1;
  for (int pass = 0; pass < 2; pass++)
    for (size_t i = 0; i < c->n; i++) {
      const part *p = &c->parts[i];
      if (p->done || p->is_send != (pass == 1)) continue;
      if (world.waiting[p->peer] < since) return p->peer;
      if (first < 0) first = p->peer;
    }
  for (int32_t p = 0; p < world.here.size; p++)
    if (p != world.here.rank && world.waiting[p] < since) return p;
  return first;
}

static void give_up(const mpi_comm *c, double spent_s) {
  char reason[REASON_MAX];
  const int32_t missing = missing_rank(c, spent_s);
  snprintf(reason, sizeof reason, "was not heard of within %.3g s (rank %d waited)", world.deadline_s, c->base.rank);
  abort_in_turn(missing, reason);
}

/* After an abort no receive may write into memory that its owner will free. One that has begun ends, unless its sender
 * is gone. */
static void end_receives(mpi_comm *c) {
  const int64_t until = bl_now_us() + 1000000;
  for (bool open = true; open && bl_now_us() < until;) {
    open = false;
    for (size_t i = 0; i < c->n; i++) {
      int there = 1;
      if (!c->parts[i].is_send) MPI_Test(&c->requests[i], &there, MPI_STATUS_IGNORE);
      open = open || !there;
    }
  }
}

static bl_status complete(mpi_comm *c) {
  bl_patience patience = bl_patience_of(world.deadline_s);
  const int64_t started_us = patience.last_us;
  double next_look_s = 0, next_word_s = world.deadline_s / 8;
  for (int32_t p = 0; p < world.here.size; p++) world.waiting[p] = -world.deadline_s;
  hear(0);
  while (!world.aborted && !take_finished(c)) {
    if (!bl_patience_spend(&patience)) give_up(c, patience.spent_s);
    if (patience.spent_s > next_word_s) {
      next_word_s += world.deadline_s / 8;
      tell_all(TAG_WAITING, NULL, 0);
    }
    pass_time(&patience, started_us, &next_look_s);
  }
  if (world.aborted) end_receives(c);
  c->n = 0;
  return world.aborted ? aborted_status() : BL_OK;
}

static bl_status mpi_send(bl_comm *comm, bl_stream *s, const void *data, int64_t bytes, int32_t peer) {
  (void)s;
  BL_TRY(post(self(comm), (void *)(uintptr_t)data, bytes, peer, true));
  return self(comm)->in_group ? BL_OK : complete(self(comm));
}

static bl_status mpi_recv(bl_comm *comm, bl_stream *s, void *data, int64_t bytes, int32_t peer) {
  (void)s;
  BL_TRY(post(self(comm), data, bytes, peer, false));
  return self(comm)->in_group ? BL_OK : complete(self(comm));
}

static bl_status mpi_group_begin(bl_comm *comm) {
  self(comm)->in_group = true;
  return BL_OK;
}

static bl_status mpi_group_end(bl_comm *comm, bl_stream *s) {
  (void)s;
  self(comm)->in_group = false;
  return complete(self(comm));
}

/* Each round reaches twice as far: after the last one everybody has heard of everybody. */
static bl_status mpi_barrier(bl_comm *comm) {
  for (int32_t reach = 1; reach < comm->size; reach *= 2) {
    BL_TRY(post(self(comm), NULL, 0, (comm->rank + reach) % comm->size, true));
    BL_TRY(post(self(comm), NULL, 0, (comm->rank + comm->size - reach) % comm->size, false));
    BL_TRY(complete(self(comm)));
  }
  return BL_OK;
}

static void mpi_abort(bl_comm *comm, const char *reason) { abort_for(comm->rank, reason); }

static void mpi_destroy(bl_comm *comm) {
  mpi_comm *c = self(comm);
  free(c->parts);
  free(c->requests);
  free(c->finished);
  free(c->statuses);
  free(c);
}

static const bl_comm_ops mpi_ops = {.name = "mpi",
                                    .send = mpi_send,
                                    .recv = mpi_recv,
                                    .group_begin = mpi_group_begin,
                                    .group_end = mpi_group_end,
                                    .barrier = mpi_barrier,
                                    .abort = mpi_abort,
                                    .destroy = mpi_destroy};

/* -- begin and end ------------------------------------------------------------------------------------------------- */

static bl_status start(double deadline_s, bl_processes *out) {
  int level, rank, size;
  world.deadline_s = deadline_s;
  BL_TRY(check("MPI_Init", MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level)));
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  BL_TRY(check("MPI_Comm_rank", MPI_Comm_rank(MPI_COMM_WORLD, &rank)));
  BL_TRY(check("MPI_Comm_size", MPI_Comm_size(MPI_COMM_WORLD, &size)));
  world.here = (bl_processes){.rank = rank, .size = size};
  BL_TRY(check("MPI_Comm_dup", MPI_Comm_dup(MPI_COMM_WORLD, &world.data)));
  BL_TRY(check("MPI_Comm_dup", MPI_Comm_dup(MPI_COMM_WORLD, &world.control)));
  BL_TRY(bl_new(&world.watch, (size_t)size, sizeof *world.watch, "processes"));
  BL_TRY(bl_new(&world.blocked, (size_t)size, sizeof *world.blocked, "processes"));
  BL_TRY(bl_new(&world.waiting, (size_t)size, sizeof *world.waiting, "processes"));
  BL_TRY(bl_new(&world.ended, (size_t)size, sizeof *world.ended, "processes"));
  for (int p = 0; p < size; p++) world.ended[p].exit_code = -1;
  BL_TRY(find_neighbours());
  listen_again();
  *out = world.here;
  return BL_OK;
}

static bl_status join(bl_backend *backend, bl_comm **out) {
  mpi_comm *c = NULL;
  if (!backend->host_memory)
    return bl_fail(BL_EUSAGE, "the mpi transport moves host memory; the %s backend has its own", backend->name);
  BL_TRY(bl_new(&c, 1, sizeof *c, "a rank"));
  const bl_status status = bl_comm_init(&c->base, &mpi_ops, backend, world.here.rank, world.here.size);
  if (status != BL_OK) {
    free(c);
    return status;
  }
  *out = &c->base;
  return BL_OK;
}

static bl_status look(double spent_s) {
  static double next_look_s;
  if (spent_s < next_look_s - BL_PATIENCE_LOOK_S) next_look_s = 0; /* another wait */
  look_around(spent_s, &next_look_s);
  return world.aborted ? aborted_status() : BL_OK;
}

static bool heard(void) { return world.heard; }

static bool said(void) {
  if (world.aborted && !world.heard) wait_for_turn(&world.said, SAID_US);
  return world.said;
}

static bool all_ended(void) {
  for (int32_t p = 0; p < world.here.size; p++)
    if (world.ended[p].exit_code < 0) return false;
  return true;
}

/* Without a failure the wait for the others has the deadline of any other. Who failed waits only a little, for the
 * others to be told and to have said what they have to say: the launcher ends everybody as soon as one process has
 * failed. */
static void wait_for_ends(int exit_code) {
  bl_patience patience = bl_patience_of(exit_code == 0 ? world.deadline_s : END_S);
  while (!all_ended() && lost_rank() < 0 && bl_patience_spend(&patience)) {
    hear(patience.spent_s);
    usleep(NAP_US);
  }
  hear(patience.spent_s);
}

static int end(int exit_code, bool quiet) {
  const end_note note = {.exit_code = exit_code, .quiet = quiet};
  world.ended[world.here.rank] = note;
  tell_all(TAG_END, &note, sizeof note);
  wait_for_ends(exit_code);
  int code = exit_code;
  for (int32_t p = world.here.size - 1; p >= 0; p--)
    if (world.ended[p].exit_code > 0 && !world.ended[p].quiet) code = world.ended[p].exit_code;
  if (!all_ended()) { /* MPI would wait for who does not come */
    if (code == 0) bl_log(0, "not all ranks came to the end of the run");
    return code != 0 ? code : bl_status_exit_code(BL_ECOMM);
  }
  if (world.listening != MPI_REQUEST_NULL) {
    MPI_Cancel(&world.listening);
    MPI_Request_free(&world.listening);
  }
  MPI_Finalize();
  return code;
}

const bl_mpi_table bl_mpi_functions = {.version = BL_VERSION,
                                       .comm_bytes = sizeof(bl_comm),
                                       .start = start,
                                       .join = join,
                                       .look = look,
                                       .heard = heard,
                                       .said = said,
                                       .end = end};
