/* profile.c - ranks that measure together. */
#include "executor/profile.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/rng.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_SAMPLES = 101, SGEMM = 1024, TRIAD = 1 << 23, ARENA_FLOATS = 48 << 20, PATTERN = 1 << 20 };
static const double least_sample_us = 100; /* shorter calls are repeated within a sample */

typedef struct rank {
  const bl_profile_options *options;
  bl_threads_world *world;
  int32_t number;
  bl_bench bench;
  bl_profile profile; /* rank 0's is the result */
  bl_status status;
  char text[256];
} rank;

float *bl_bench_take(bl_bench *b, int64_t n) {
  const int64_t room = (n + 15) / 16 * 16; /* whole cache lines */
  if (b->arena_next + room > b->arena_size) b->arena_next = 0;
  float *at = b->arena + b->arena_next;
  b->arena_next += room;
  return at;
}

/* What calls wrote into the arena is replaced by small random numbers, so that values stay ordinary. */
static bl_status refill(bl_bench *b) {
  float *pattern = NULL;
  bl_rng rng;
  BL_TRY(bl_new(&pattern, PATTERN, sizeof *pattern, "a profile"));
  bl_rng_seed(&rng, 7, 0);
  for (int64_t i = 0; i < PATTERN; i++) pattern[i] = (float)(0.1 * (bl_rng_unit(&rng) - 0.5));
  for (int64_t at = 0; at < b->arena_size; at += PATTERN) {
    const int64_t n = b->arena_size - at < PATTERN ? b->arena_size - at : PATTERN;
    b->be->to_device(b->s, b->arena + at, pattern, (size_t)n * sizeof *pattern);
  }
  const bl_status status = b->be->stream_sync(b->s);
  free(pattern);
  return status;
}

static int compare(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double clock_us(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static bl_status timed(rank *r, const bl_work *work, int64_t amount, int32_t repeat, double *us) {
  bl_bench *b = &r->bench;
  const clockid_t clock = r->options->cpu_clock && !work->together ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
  BL_TRY(bl_comm_barrier(b->comm));
  const double start = clock_us(clock);
  for (int32_t i = 0; i < repeat; i++) BL_TRY(work->call(b, amount));
  BL_TRY(b->be->stream_sync(b->s));
  *us = (clock_us(clock) - start) / repeat;
  return BL_OK;
}

/* Mean over ranks of each one's `value`. */
static bl_status mean_over_ranks(bl_bench *b, double *value) {
  double all[1024], sum = 0;
  BL_TRY(bl_comm_all_gather_host(b->comm, value, sizeof *value, all));
  for (int32_t p = 0; p < b->comm->size; p++) sum += all[p];
  *value = sum / b->comm->size;
  return BL_OK;
}

/* Median of the samples; all ranks repeat alike, as the mean of a first call says. */
static bl_status measure_point(rank *r, const bl_work *work, int64_t amount, double *us) {
  double samples[MAX_SAMPLES], first;
  const int32_t n = r->options->samples < MAX_SAMPLES ? r->options->samples : MAX_SAMPLES;
  BL_TRY(timed(r, work, amount, 1, &first));
  BL_TRY(timed(r, work, amount, 1, &first));
  BL_TRY(mean_over_ranks(&r->bench, &first));
  const int32_t repeat = first < least_sample_us ? (int32_t)(least_sample_us / (first + 1)) + 1 : 1;
  for (int32_t i = 0; i < n; i++) BL_TRY(timed(r, work, amount, repeat, &samples[i]));
  qsort(samples, (size_t)n, sizeof *samples, compare);
  *us = samples[n / 2] / work->per_call;
  return mean_over_ranks(&r->bench, us);
}

static bl_status measure_work(rank *r, const bl_work *work) {
  bl_curve *curve = &r->profile.curves[work->curve];
  BL_TRY(refill(&r->bench));
  for (int i = 0; work->amounts[i] > 0; i++) {
    double us;
    BL_TRY(measure_point(r, work, work->amounts[i], &us));
    BL_TRY(bl_curve_add(curve, (double)work->amounts[i], us));
  }
  return BL_OK;
}

static bl_status sgemm_call(bl_bench *b, int64_t n) {
  const int32_t m = (int32_t)n;
  b->be->ops.linear_fwd(b->s, bl_bench_take(b, n * n), bl_bench_take(b, n * n), bl_bench_take(b, n * n), NULL, m, m, m,
                        false);
  return BL_OK;
}

static bl_status triad_call(bl_bench *b, int64_t n) {
  b->be->ops.add_f32(b->s, bl_bench_take(b, n), bl_bench_take(b, n), n);
  return BL_OK;
}

static bl_status measure_rates(rank *r) {
  const bl_work sgemm = {.call = sgemm_call, .per_call = 1}, triad = {.call = triad_call, .per_call = 1};
  double us;
  BL_TRY(refill(&r->bench));
  BL_TRY(measure_point(r, &sgemm, SGEMM, &us));
  r->profile.sgemm_gflops = 2.0 * SGEMM * SGEMM * SGEMM / us * 1e-3;
  BL_TRY(measure_point(r, &triad, TRIAD, &us));
  r->profile.triad_gbps = 12.0 * TRIAD / us * 1e-3;
  return BL_OK;
}

static bl_status measure_all(rank *r) {
  bl_work works[BL_WORK_MAX];
  bl_progress progress;
  const int32_t n = bl_bench_works(&r->bench, works);
  bl_progress_start(&progress);
  BL_TRY(measure_rates(r));
  for (int32_t i = 0; i < n; i++) {
    if (r->number == 0) bl_progress_update(&progress, "%s (%d of %d)", bl_curve_names[works[i].curve], i + 1, n);
    BL_TRY(measure_work(r, &works[i]));
  }
  bl_progress_end(&progress);
  return BL_OK;
}

/* The arena must hold the operands of the largest call twice. */
static int64_t arena_floats(const bl_model *m) {
  const int64_t widest = m->expert_width > m->ffn_width ? m->expert_width : m->ffn_width;
  const int64_t tokens = 8 * (int64_t)m->sequence, width = widest > m->vocabulary ? widest : m->vocabulary;
  const int64_t one = 4096 * (2 * widest + 4 * (int64_t)m->hidden) + 16 * widest * m->hidden +
                      tokens * (4 * width + 16 * (int64_t)m->hidden) + 4 * (int64_t)m->vocabulary * m->hidden;
  return 2 * one > ARENA_FLOATS ? 2 * one : ARENA_FLOATS;
}

static bl_status set_up(rank *r) {
  bl_bench *b = &r->bench;
  b->model = r->options->model;
  BL_TRY(bl_backend_cpu_create(&b->be));
  BL_TRY(b->be->stream_create(b->be, &b->s));
  BL_TRY(bl_threads_world_join(r->world, r->number, b->be, &b->comm));
  b->arena_size = arena_floats(b->model);
  BL_TRY(b->be->alloc(b->be, (size_t)b->arena_size * sizeof(float), &b->arena));
  return bl_bench_prepare(b);
}

static void tear_down(bl_bench *b) {
  bl_bench_release(b);
  free(b->groups);
  free(b->host_index);
  if (!b->be) return;
  void *owned[] = {b->arena, b->ids, b->choice, b->row, b->sum};
  for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) b->be->release(b->be, owned[i]);
  bl_comm_free(b->comm);
  if (b->s) b->be->stream_destroy(b->s);
  b->be->destroy(b->be);
}

static void *run_rank(void *arg) {
  rank *r = arg;
  r->status = set_up(r);
  if (r->status == BL_OK) r->status = measure_all(r);
  if (r->status != BL_OK) snprintf(r->text, sizeof r->text, "%s", bl_error_text());
  if (r->status != BL_OK && r->bench.comm) bl_comm_abort(r->bench.comm, r->text);
  return NULL;
}

static void read_device_name(char *name, size_t size) {
  char line[512];
  FILE *f = fopen("/proc/cpuinfo", "r");
  snprintf(name, size, "unknown");
  while (f && fgets(line, sizeof line, f)) {
    const char *colon = strchr(line, ':');
    if (strncmp(line, "model name", 10) != 0 || !colon) continue;
    snprintf(name, size, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
    break;
  }
  if (f) fclose(f);
}

static bl_status run_ranks(rank *ranks, int32_t n) {
  pthread_t *threads = NULL;
  bl_status status = BL_OK;
  int32_t started = 0;
  BL_TRY(bl_new(&threads, (size_t)n, sizeof *threads, "threads"));
  for (; started < n && status == BL_OK; started++)
    if (pthread_create(&threads[started], NULL, run_rank, &ranks[started]) != 0)
      status = bl_fail(BL_EMACHINE, "rank %d of %d could not start a thread", started, n);
  if (status != BL_OK) started--;
  for (int32_t i = 0; i < started; i++) pthread_join(threads[i], NULL);
  for (int32_t i = 0; i < started && status == BL_OK; i++)
    if (ranks[i].status != BL_OK) status = bl_fail(ranks[i].status, "%s", ranks[i].text);
  free(threads);
  return status;
}

bl_status bl_profile_measure(const bl_profile_options *options, bl_profile *out) {
  const int32_t n = options->ranks;
  bl_threads_world *world = NULL;
  rank *ranks = NULL;
  bl_status status = BL_OK;
  BL_TRY(bl_model_runs_on_executor(options->model));
  if (n < 1 || n > 64) return bl_fail(BL_EUSAGE, "--ranks: expected 1..64, found %d", n);
  BL_TRY_GOTO(status, bl_new(&ranks, (size_t)n, sizeof *ranks, "ranks"), done);
  BL_TRY_GOTO(status, bl_threads_world_create(n, 0, &world), done);
  for (int32_t i = 0; i < n; i++) ranks[i] = (rank){.options = options, .world = world, .number = i};
  BL_TRY_GOTO(status, run_ranks(ranks, n), done);
  *out = ranks[0].profile;
  snprintf(out->backend, sizeof out->backend, "cpu");
  snprintf(out->transport, sizeof out->transport, "threads");
  read_device_name(out->device, sizeof out->device);
  out->ranks = n;
  out->overlap = false;
  out->num_bytes = sizeof(float);
  bl_profile_shape_of(options->model, &out->shape);
done:
  for (int32_t i = 0; ranks && i < n; i++) tear_down(&ranks[i].bench);
  bl_threads_world_free(world);
  free(ranks);
  return status;
}
