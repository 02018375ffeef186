/* launch.c - ranks as threads or as processes, and the loop over steps. */
#include "executor/launch.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "executor/checkpoint.h"
#include "executor/open_transport.h"
#include "executor/outputs.h"
#include "executor/same_run.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct launch {
  const bl_train_options *options;
  bl_setup setup;
  bl_outputs out;
  bl_processes here; /* where ranks are processes: which this one is, and its part in agreeing with the others */
  bl_backend *host;
  bl_comm *host_comm;
  pthread_mutex_t lock;
  bl_status status; /* of the first rank that failed */
  char text[512];
} launch;

typedef struct rank_thread {
  launch *launch;
  int32_t rank;
  bl_backend *backend;
  bl_comm *comm;
  pthread_t thread;
  bool started;
} rank_thread;

/* -- asking to stop ---------------------------------------------------------------------------------------------- */

static atomic_int stop_request; /* written by the handler, read by all ranks */
static atomic_bool
    keep_outputs; /* a checkpoint is there to go on from: an unfinished trace is taken up, as after a kill */

static void request_stop(int number) {
  if (stop_request) {
    if (!bl_checkpoint_discard()) return;
    if (!keep_outputs) bl_output_discard_all();
    _exit(128 + number);
  }
  stop_request = 1;
}

enum { STOP_SIGNALS = 3 };

static void catch_signals(struct sigaction old[STOP_SIGNALS], bool restore) {
  static const int numbers[STOP_SIGNALS] = {SIGINT, SIGTERM, SIGHUP};
  struct sigaction action = {.sa_handler = request_stop, .sa_flags = SA_RESTART};
  sigemptyset(&action.sa_mask);
  for (int i = 0; i < STOP_SIGNALS; i++) {
    sigaction(numbers[i], restore ? &old[i] : NULL, restore ? NULL : &old[i]);
    /* nohup stays in force; a script's background job, whose shell ignores SIGINT, still stops when asked by name */
    if (!restore && (numbers[i] != SIGHUP || old[i].sa_handler != SIG_IGN)) sigaction(numbers[i], &action, NULL);
  }
}

/* -- one rank ------------------------------------------------------------------------------------------------------ */

static double mean_imbalance(const bl_rank *r) {
  double sum = 0;
  for (int32_t l = 0; l < r->weights.moe_layers; l++) sum += r->result.layer[l].imbalance;
  return sum / r->weights.moe_layers;
}

static bl_status train(launch *l, bl_rank *r) {
  const bl_train_options *o = l->options;
  const bl_run *run = r->run;
  const int64_t tokens = (int64_t)run->batch * run->model->sequence;
  bl_progress progress;
  bl_progress_start(&progress);
  bool stop = false;
  while (r->step < run->steps && !stop) {
    const int64_t start = bl_now_us();
    BL_TRY(bl_rank_step(r));
    const int64_t step_us = bl_now_us() - start;
    stop = r->result.stop;
    if (r->rank == 0) {
      BL_TRY(bl_outputs_step(&l->out, r, step_us));
      bl_progress_update(&progress, "step %lld of %lld: loss %.4f, %.0f tokens/s, imbalance %.3f", (long long)r->step,
                         (long long)run->steps, r->result.loss, (double)tokens * 1e6 / (double)(step_us + 1),
                         mean_imbalance(r));
    }
    const bool due = o->checkpoint_every > 0 && r->step % o->checkpoint_every == 0 && r->step < run->steps && !stop;
    if (o->checkpoint && due) BL_TRY(bl_checkpoint_save(r, o->checkpoint));
  }
  if (r->rank == 0) bl_progress_end(&progress);
  if (o->checkpoint) BL_TRY(bl_checkpoint_save(r, o->checkpoint));
  return stop ? BL_EINTERRUPTED : BL_OK;
}

/* The result, on standard output. */
static bl_status print_result(const bl_rank *r) {
  const uint64_t mine = r->be->memory_peak(r->be);
  uint64_t *all = NULL, most = 0;
  BL_TRY(bl_new(&all, (size_t)r->run->ranks, sizeof *all, "memory of all ranks"));
  const bl_status status = bl_comm_all_gather_host(r->comm, &mine, sizeof mine, all);
  for (int32_t p = 0; status == BL_OK && p < r->run->ranks; p++)
    if (all[p] > most) most = all[p];
  free(all);
  if (status == BL_OK && r->rank == 0)
    printf("step %lld, loss %.9g, at most %.1f MB on a rank\n", (long long)r->step, r->result.loss,
           1e-6 * (double)most);
  return status;
}

/* Every rank's times count from its own start of the step. */
static bl_status write_timeline(const bl_rank *r, const char *path) {
  const bl_step *program = r->run->program;
  const int64_t bytes = (int64_t)sizeof(bl_span) * program->n_actions;
  bl_span *all = NULL;
  BL_TRY(bl_new(&all, (size_t)r->run->ranks * (size_t)program->n_actions, sizeof *all, "measured times"));
  bl_status status = bl_comm_all_gather_host(r->comm, r->spans.span, bytes, all);
  const bl_timeline measured = {"measured", program, r->run->ranks, all};
  if (status == BL_OK && r->rank == 0) status = bl_timeline_write(path, r->step, &measured, 1);
  free(all);
  return status;
}

/* Frees the rank. Where it failed no message of its step will come any more: its streams must not wait for them. */
static bl_status leave(const rank_thread *thread, bl_rank *r, bl_status status) {
  char text[512];
  const bool failed = status != BL_OK && status != BL_EINTERRUPTED;
  snprintf(text, sizeof text, "%s", bl_error_text());
  if (failed) bl_comm_abort(thread->comm, text);
  bl_rank_free(r);
  return status == BL_OK ? BL_OK : bl_fail(status, "%s", text);
}

static bl_status run_rank(launch *l, const rank_thread *thread) {
  const bl_train_options *o = l->options;
  bl_rank r = {0};
  bl_status status;
  BL_TRY_GOTO(status, bl_rank_create(&l->setup.run, thread->rank, thread->backend, thread->comm, &r), done);
  r.stop_request = &stop_request;
  BL_TRY_GOTO(status,
              o->resume ? bl_checkpoint_load(&r, o->resume) : bl_weights_initialise(&r.weights, r.s, r.run->seed),
              done);
  const int64_t first = r.step;
  if (first > r.run->steps) {
    status = bl_fail(BL_EUSAGE, "--steps %lld: the checkpoint %s is at step %lld already", (long long)r.run->steps,
                     o->resume, (long long)first);
    goto done;
  }
  BL_TRY_GOTO(status, bl_comm_barrier(thread->comm), done); /* no output before every rank can start */
  if (r.rank == 0) BL_TRY_GOTO(status, bl_outputs_open(o, &r, &l->out), done);
  status = train(l, &r);
  if ((status == BL_OK && r.step > first) || status == BL_EINTERRUPTED) {
    bl_status printed = print_result(&r);
    if (printed == BL_OK && o->perfetto) printed = write_timeline(&r, o->perfetto);
    if (printed != BL_OK) status = printed;
  }
  if (status == BL_EINTERRUPTED)
    bl_fail(status, "stopped on request after step %lld; %s%s", (long long)r.step,
            o->checkpoint ? "the same command goes on with --resume "
                          : "nothing was saved, as --checkpoint was not given",
            o->checkpoint ? o->checkpoint : "");
done:
  return leave(thread, &r, status);
}

static void *run_thread(void *argument) {
  rank_thread *thread = argument;
  launch *l = thread->launch;
  const bl_status status = run_rank(l, thread);
  if (status == BL_OK) return NULL;
  pthread_mutex_lock(&l->lock);
  /* A rank that failed knows more than those that lost it. */
  const bool clearer = l->status == BL_ECOMM && status != BL_ECOMM;
  if (l->status == BL_OK || clearer) {
    l->status = status;
    snprintf(l->text, sizeof l->text, "%s", bl_error_text());
  }
  pthread_mutex_unlock(&l->lock);
  return NULL;
}

/* -- ranks as threads ---------------------------------------------------------------------------------------------- */

static bl_status start_ranks(launch *l, bl_threads_world *world, rank_thread *threads) {
  const int32_t R = l->setup.run.ranks;
  for (int32_t p = 0; p < R; p++) {
    threads[p] = (rank_thread){.launch = l, .rank = p};
    BL_TRY(bl_backend_open(l->options->backend, l->options->precision, 0, &threads[p].backend));
    bl_backend_expert_gemm(threads[p].backend, l->options->expert_gemm);
    BL_TRY(bl_threads_world_join(world, p, threads[p].backend, &threads[p].comm));
  }
  for (int32_t p = 0; p < R; p++) {
    if (pthread_create(&threads[p].thread, NULL, run_thread, &threads[p]) != 0) {
      bl_comm_abort(threads[p].comm, "not all ranks could be started");
      return bl_fail(BL_EMACHINE, "the system starts no thread for rank %d", p);
    }
    threads[p].started = true;
  }
  return BL_OK;
}

static bl_status run_threads(launch *l) {
  const int32_t R = l->setup.run.ranks;
  bl_threads_world *world = NULL;
  rank_thread *threads = NULL;
  bl_status status;
  BL_TRY_GOTO(status, bl_new(&threads, (size_t)R, sizeof *threads, "ranks"), done);
  BL_TRY_GOTO(status, bl_threads_world_create(R, l->options->deadline_s, &world), done);
  status = start_ranks(l, world, threads);
  for (int32_t p = 0; p < R; p++)
    if (threads[p].started) pthread_join(threads[p].thread, NULL);
  if (status == BL_OK && l->status != BL_OK) status = bl_fail(l->status, "%s", l->text);
done:
  for (int32_t p = 0; threads && p < R; p++) {
    bl_comm_free(threads[p].comm);
    if (threads[p].backend) threads[p].backend->destroy(threads[p].backend);
  }
  bl_threads_world_free(world);
  free(threads);
  return status;
}

/* -- ranks as processes ---------------------------------------------------------------------------------------------
 */

static bl_status join_processes(launch *l) {
  BL_TRY(bl_processes_start(l->options->deadline_s, &l->here));
  BL_TRY(bl_backend_cpu_create(&l->host));
  return bl_processes_join(l->host, &l->host_comm);
}

static void leave_processes(launch *l) {
  bl_comm_free(l->host_comm);
  if (l->host) l->host->destroy(l->host);
}

static bool are_threads(const bl_train_options *o) { return !strcmp(o->transport, "threads"); }

/* Loads and checks what the command line names; on all ranks, or on none. */
static bl_status set_up(launch *l) {
  const int32_t processes = are_threads(l->options) ? 0 : l->host_comm ? l->here.size : 1;
  const bl_status status = bl_setup_create(l->options, processes, &l->setup);
  if (!l->host_comm) return status;
  BL_TRY(bl_processes_agree(l->host_comm, status));
  return bl_processes_agree(l->host_comm, bl_expect_same_run(l->host_comm, &l->setup, l->options));
}

/* This process' rank, in this thread. */
static bl_status run_process(launch *l) {
  const bl_train_options *o = l->options;
  bl_process_rank rank;
  bl_status status =
      bl_transport_open(o->transport, o->backend, o->precision, o->deadline_s, &l->here, l->host_comm, &rank);
  if (status == BL_OK) {
    bl_backend_expert_gemm(rank.backend, o->expert_gemm);
    rank_thread thread = {.launch = l, .rank = l->here.rank, .backend = rank.backend, .comm = rank.comm};
    run_thread(&thread);
    if (l->status != BL_OK) status = bl_fail(l->status, "%s", l->text);
  }
  bl_transport_close(&rank);
  return status;
}

/* -- the run ------------------------------------------------------------------------------------------------------- */

static bl_status run_and_close(launch *l) {
  struct sigaction old[STOP_SIGNALS];
  char text[sizeof l->text];
  stop_request = 0;
  keep_outputs = l->options->checkpoint != NULL;
  catch_signals(old, false);
  const bl_status status = are_threads(l->options) ? run_threads(l) : run_process(l);
  catch_signals(old, true);
  const bool failed = status != BL_OK && status != BL_EINTERRUPTED;
  snprintf(text, sizeof text, "%s", bl_error_text());
  const bl_status closed = bl_outputs_close(&l->out, failed);
  if (status == BL_OK || (!failed && closed != BL_OK)) return closed;
  return bl_fail(status, "%s", text);
}

bl_status bl_launch(const bl_train_options *options) {
  launch l = {.options = options};
  pthread_mutex_init(&l.lock, NULL);
  bl_status status = bl_transport_check(options->backend, options->transport);
  if (status == BL_OK) status = bl_backend_check(options->backend, options->precision, options->expert_gemm);
  if (status == BL_OK && bl_transport_starts(options->transport, options->ranks)) status = join_processes(&l);
  if (status == BL_OK) status = set_up(&l);
  if (status == BL_OK) status = run_and_close(&l);
  bl_setup_free(&l.setup);
  leave_processes(&l);
  pthread_mutex_destroy(&l.lock);
  if (status != BL_OK) bl_processes_failed(status);
  return status;
}
