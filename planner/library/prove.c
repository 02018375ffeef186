/* prove.c - proofs by ballast-plan, which runs as a process of its own: a crash, a hang or the licence of its solver
 * stay there. Trace, plan and answer pass through files in memory that only the two processes see. */
#include "base/json.h"
#include "base/memory.h"
#include "costmodel/plan.h"
#include "planner/library/placement.h"
#include "traces/one_step.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Descriptors of the child, by what they are for; the same names here with -1 for those that are not open. */
enum { ANSWER = 1, COMPLAINT = 2, TRACE = 3, PLAN = 4, ALIVE = 5, CHILD_FILES = 6 };

typedef struct proof_run {
  const bl_library_shape *shape;
  ballast_prove_options options;
  int file[CHILD_FILES];
  int alive; /* ends when the child's copy of ALIVE is closed */
} proof_run;

static bl_status open_files(proof_run *run) {
  int ends[2];
  for (int i = ANSWER; i < ALIVE; i++) {
    run->file[i] = memfd_create("ballast", MFD_CLOEXEC);
    if (run->file[i] < 0) return bl_fail_errno(BL_EMACHINE, "a file in memory cannot be made");
  }
  if (pipe2(ends, O_CLOEXEC) != 0) return bl_fail_errno(BL_EMACHINE, "a pipe cannot be made");
  run->alive = ends[0];
  run->file[ALIVE] = ends[1];
  return BL_OK;
}

static void close_file(int *file) {
  if (*file >= 0) close(*file);
  *file = -1;
}

/* -- the command --------------------------------------------------------------------------------------------------- */

enum { NUMBER_TEXT = 32 };

/* "5,5,4". */
static bl_status slots_text(const bl_library_shape *s, char **out) {
  const size_t size = (size_t)s->ranks * 12;
  BL_TRY(bl_new(out, size, 1, "slots"));
  for (int32_t r = 0, n = 0; r < s->ranks; r++)
    n += snprintf(*out + n, size - (size_t)n, "%s%" PRId32, r ? "," : "", s->slots[r]);
  return BL_OK;
}

/* From this process' descriptor to the child's number for it. The numbers here may be the very ones that the child's
 * shall have: all go above them first. */
static bl_status redirect(proof_run *run, posix_spawn_file_actions_t *actions) {
  for (int i = ANSWER; i < CHILD_FILES; i++) {
    const int high = fcntl(run->file[i], F_DUPFD_CLOEXEC, 16);
    if (high < 0) return bl_fail_errno(BL_EMACHINE, "a descriptor cannot be copied");
    close_file(&run->file[i]);
    run->file[i] = high;
    if (posix_spawn_file_actions_adddup2(actions, high, i) != 0)
      return bl_fail(BL_EMACHINE, "out of memory: a process");
  }
  if (posix_spawn_file_actions_addopen(actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0) == 0) return BL_OK;
  return bl_fail(BL_EMACHINE, "out of memory: a process");
}

static bl_status spawn(proof_run *run, char *slots, pid_t *child) {
  const ballast_prove_options *o = &run->options;
  char ranks[NUMBER_TEXT], seconds[NUMBER_TEXT], within[NUMBER_TEXT];
  snprintf(ranks, sizeof ranks, "%" PRId32, run->shape->ranks);
  snprintf(seconds, sizeof seconds, "%.17g", o->seconds);
  snprintf(within, sizeof within, "%.17g", o->within);
  char *const arguments[] = {"ballast-plan", "place",     "--trace",  "/dev/fd/3", "--ranks",
                             ranks,          "--slots",   slots,      "--homes",   o->fixed_homes ? "fixed" : "free",
                             "--prove",      seconds,     "--within", within,      "--json",
                             "-o",           "/dev/fd/4", NULL};
  posix_spawn_file_actions_t actions;
  if (posix_spawn_file_actions_init(&actions) != 0) return bl_fail(BL_EMACHINE, "out of memory: a process");
  bl_status status = redirect(run, &actions);
  const int error = status == BL_OK ? posix_spawn(child, o->program, &actions, NULL, arguments, environ) : 0;
  posix_spawn_file_actions_destroy(&actions);
  errno = error;
  if (error == ENOMEM || error == EAGAIN) return bl_fail_errno(BL_EMACHINE, "%s: cannot be started", o->program);
  return error ? bl_fail_errno(BL_EINPUT, "%s: cannot be started", o->program) : status;
}

static double now_s(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Until the child has ended, or the deadline has come and the child is killed. */
static bl_status wait_for(proof_run *run, pid_t child) {
  const double end = run->options.deadline > 0 ? now_s() + run->options.deadline : 0;
  struct pollfd alive = {.fd = run->alive, .events = POLLIN};
  int wait_status = 0;
  bool late = false;
  for (int ready = 0; ready == 0 && !late;) {
    const double left = end > 0 ? end - now_s() : 3600;
    ready = poll(&alive, 1, left > 0 ? (int)(left < 3600 ? left * 1000 + 1 : 3600000) : 0);
    if (ready < 0 && errno == EINTR) ready = 0;
    late = ready == 0 && end > 0 && now_s() >= end;
  }
  if (late) kill(child, SIGKILL);
  pid_t ended;
  do ended = waitpid(child, &wait_status, 0);
  while (ended < 0 && errno == EINTR);
  if (late)
    return bl_fail(BL_EINTERRUPTED, "ballast-plan took more than the %g seconds allowed", run->options.deadline);
  if (ended < 0) return BL_OK; /* a caller that ignores SIGCHLD: what was written says whether all went well */
  if (WIFSIGNALED(wait_status))
    return bl_fail(BL_EMACHINE, "ballast-plan was ended by signal %d", WTERMSIG(wait_status));
  if (WEXITSTATUS(wait_status) == 0) return BL_OK;
  char text[1024] = "";
  const ssize_t n = pread(run->file[COMPLAINT], text, sizeof text - 1, 0);
  text[n > 0 ? n : 0] = '\0';
  text[strcspn(text, "\n")] = '\0';
  const bl_status status = WEXITSTATUS(wait_status) == 3 ? BL_EMACHINE : BL_EINPUT;
  if (*text == '\0') return bl_fail(status, "ballast-plan failed with exit code %d", WEXITSTATUS(wait_status));
  return bl_fail(status, "%s", text);
}

/* -- the answer ---------------------------------------------------------------------------------------------------- */

static bl_status read_layer(bl_json item, ballast_proof *proof) {
  static const char *const states[] = {"optimal", "gap", "infeasible", "unknown"}; /* as BALLAST_PROVED... */
  const char *state;
  int64_t copies = -1, bound;
  bl_json value;
  *proof = (ballast_proof){.state = -1, .copies = -1};
  BL_TRY(bl_json_string(item, "status", &state));
  for (int32_t i = 0; i < 4; i++)
    if (strcmp(state, states[i]) == 0) proof->state = i;
  if (proof->state < 0) return bl_json_fail(item, "an unknown status \"%s\"", state);
  BL_TRY(bl_json_int(item, "bound", -1, INT32_MAX, &bound));
  proof->bound = (int32_t)bound;
  BL_TRY(bl_json_member(item, "copies", &value));
  if (bl_json_as_int(value, 0, INT32_MAX, &copies) != BL_OK) return BL_OK; /* null: there is none */
  proof->copies = (int32_t)copies;
  return bl_json_number(item, "imbalance", 0, 1e18, &proof->imbalance);
}

static bl_status read_layers(const proof_run *run, bl_json root, ballast_proof *proof) {
  const int64_t layers = run->shape->layers;
  bl_json prove, list;
  int64_t n;
  BL_TRY(bl_json_object(root, "prove", &prove));
  BL_TRY(bl_json_array(prove, "layers", layers, layers, &list, &n));
  bl_json item = bl_json_first(list);
  for (int64_t l = 0; l < n; l++, item = bl_json_next(item)) BL_TRY(read_layer(item, &proof[l]));
  return BL_OK;
}

/* What ballast-plan wrote into a file in memory, as a path of this process. */
static const char *path_of(int file, char path[NUMBER_TEXT]) {
  snprintf(path, NUMBER_TEXT, "/proc/self/fd/%d", file);
  return path;
}

static bl_status read_answer(const proof_run *run, ballast_proof *proof) {
  char path[NUMBER_TEXT];
  bl_json_doc *doc = NULL;
  bl_json root;
  bl_status status = bl_json_load(path_of(run->file[ANSWER], path), &doc, &root);
  if (status == BL_OK) status = read_layers(run, root, proof);
  bl_json_free(doc);
  if (status == BL_EMACHINE) return status;
  bl_error_clear(); /* also that of copies which are null */
  return status == BL_OK ? BL_OK
                         : bl_fail(BL_EMACHINE, "%s: its answer is not that of ballast-plan", run->options.program);
}

/* Hosts of one layer from the plan file. */
static bl_status take_layer(const bl_layer_placement *from, const bl_library_shape *s, bl_hosts *hosts) {
  BL_TRY(bl_hosts_create(hosts, s->experts, s->ranks, s->slots));
  BL_TRY(bl_hosts_set_homes(hosts, from->home));
  for (int32_t c = 0; c < from->n_copies; c++) {
    int32_t slot = 0;
    while (slot < hosts->n_copy_slots &&
           (hosts->copy_rank[slot] != from->copies[c].rank || hosts->copy_expert[slot] >= 0))
      slot++;
    if (slot == hosts->n_copy_slots) return bl_fail(BL_EMACHINE, "ballast-plan's plan does not fit its slots");
    hosts->copy_expert[slot] = from->copies[c].expert;
  }
  return BL_OK;
}

static bl_status read_plan(proof_run *run, ballast_placement *p, const uint32_t *counts) {
  const bl_library_shape *s = &p->shape;
  char path[NUMBER_TEXT];
  bl_plan plan;
  if (bl_plan_load(path_of(run->file[PLAN], path), &plan) != BL_OK)
    return bl_fail(BL_EMACHINE, "%s: its plan cannot be read", run->options.program);
  const bl_placement *from = &plan.placement;
  bl_status status = BL_OK;
  if (!plan.has_placement || from->ranks != s->ranks || from->experts != s->experts || from->layers != s->layers)
    status = bl_fail(BL_EMACHINE, "ballast-plan's plan has another shape than asked for");
  for (int32_t l = 0; l < s->layers && status == BL_OK; l++) {
    for (int32_t e = 0; e < s->experts; e++) p->load[e] = counts[(int64_t)l * s->experts + e];
    status = take_layer(&from->layer[l], s, &p->layer[l].hosts);
    if (status == BL_OK) status = bl_placement_finish(p, l, p->load, NULL);
  }
  bl_plan_free(&plan);
  return status;
}

/* -- all of it ----------------------------------------------------------------------------------------------------- */

static bl_status check(const bl_library_shape *s, const uint32_t *counts, const ballast_prove_options *o,
                       const ballast_proof *proof) {
  if (counts == NULL || proof == NULL) return bl_fail(BL_EINPUT, "the counts or the proofs are NULL, expected arrays");
  if (s->speed || s->home)
    return bl_fail(BL_EINPUT, "a proof takes no speeds and no homes to start from, expected NULL");
  if (o->program == NULL) return bl_fail(BL_EINPUT, "the path of ballast-plan is NULL");
  if (!(o->within >= 1 && o->within <= 1000)) return bl_fail(BL_EINPUT, "within %g: expected 1 to 1000", o->within);
  if (!(o->seconds >= 0.01 && o->seconds <= 1e6))
    return bl_fail(BL_EINPUT, "%g seconds a layer: expected 0.01 to 1e6", o->seconds);
  if (o->deadline >= 0 && o->deadline <= 1e9) return BL_OK;
  return bl_fail(BL_EINPUT, "a deadline of %g seconds: expected 0 or more", o->deadline);
}

static bl_status run_program(proof_run *run, const uint32_t *counts) {
  const bl_library_shape *s = run->shape;
  const bl_trace_shape traced = {.layers = s->layers, .ranks = 1, .micro_batches = 1, .experts = s->experts};
  char *slots = NULL;
  pid_t child = 0;
  BL_TRY(open_files(run));
  BL_TRY(bl_trace_write_step(run->file[TRACE], &traced, counts));
  BL_TRY(slots_text(s, &slots));
  const bl_status status = spawn(run, slots, &child);
  free(slots);
  close_file(&run->file[ALIVE]);
  return status == BL_OK ? wait_for(run, child) : status;
}

static bl_status prove(ballast *handle, const ballast_shape *given, const uint32_t *counts,
                       const ballast_prove_options *options, ballast_proof *proof, ballast_placement **out) {
  bl_library_shape shape;
  ballast_placement *p = NULL;
  proof_run run = {.options = {.within = 1.05, .seconds = 5}, .file = {-1, -1, -1, -1, -1, -1}, .alive = -1};
  BL_TRY(bl_library_options(options, &run.options, sizeof run.options, "the options of a proof"));
  BL_TRY(bl_library_shape_take(given, &shape));
  bl_status status = bl_placement_new(handle, &shape, &p);
  if (status == BL_OK) {
    run.shape = &p->shape;
    status = check(run.shape, counts, &run.options, proof);
  }
  if (status == BL_OK) status = run_program(&run, counts);
  if (status == BL_OK) status = read_answer(&run, proof);
  if (status == BL_OK) status = read_plan(&run, p, counts);
  for (int i = ANSWER; i < CHILD_FILES; i++) close_file(&run.file[i]);
  close_file(&run.alive);
  if (status == BL_OK && out)
    *out = p;
  else
    ballast_placement_free(p);
  return status;
}

ballast_status ballast_prove(ballast *handle, const ballast_shape *shape, const uint32_t *counts,
                             const ballast_prove_options *options, ballast_proof *proof, ballast_placement **out) {
  if (handle == NULL) return BALLAST_INVALID;
  if (out) *out = NULL;
  return bl_library_end(handle, prove(handle, shape, counts, options, proof, out));
}
