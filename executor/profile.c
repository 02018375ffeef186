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

enum { MAX_SAMPLES = 101, PATTERN = 1 << 20 };

/* Amounts that are large for the caches of a processor, and of a device. */
static const struct {
  int32_t rows, matrix;
  int64_t triad, arena;
} on_host = {1024, 1024, 1 << 23, 48 << 20}, on_device = {8192, 8192, 1 << 25, 96 << 20};
static const double least_sample_us = 100; /* shorter calls are repeated within a sample */

typedef struct rank {
  const bl_profile_options *options;
  bl_threads_world *world;
  int32_t number;
  bl_bench bench;
  bl_profile profile; /* rank 0's is the result */
  bl_profile_ways ways;
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

bl_num *bl_bench_take_num(bl_bench *b, int64_t n) {
  return bl_bench_take(b, (n * (int64_t)b->be->num_bytes + (int64_t)sizeof(float) - 1) / (int64_t)sizeof(float));
}

/* A small random number as fp32 whose halves are small random numbers as bf16 too. */
static float small_number(bl_rng *rng) {
  uint32_t high, low;
  float x = (float)(0.1 * (bl_rng_unit(rng) - 0.5));
  memcpy(&high, &x, sizeof high);
  x = (float)(0.1 * (bl_rng_unit(rng) - 0.5));
  memcpy(&low, &x, sizeof low);
  high = (high & 0xffff0000U) | low >> 16;
  memcpy(&x, &high, sizeof x);
  return x;
}

/* What calls wrote into the arena is replaced by small random numbers, so that values stay ordinary. */
static bl_status refill(bl_bench *b) {
  float *pattern = NULL;
  bl_rng rng;
  BL_TRY(bl_new(&pattern, PATTERN, sizeof *pattern, "a profile"));
  bl_rng_seed(&rng, 7, 0);
  for (int64_t i = 0; i < PATTERN; i++) pattern[i] = small_number(&rng);
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
  const bool by_events = !b->be->host_memory && !work->together;
  const clockid_t clock = r->options->cpu_clock && !work->together ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
  BL_TRY(bl_comm_barrier(b->comm));
  const double start = clock_us(clock);
  if (by_events) b->be->event_record(b->from, b->s);
  for (int32_t i = 0; i < repeat; i++) BL_TRY(work->call(b, amount));
  if (by_events) b->be->event_record(b->to, b->s);
  BL_TRY(b->be->stream_sync(b->s));
  *us = (by_events ? b->be->event_us(b->from, b->to) : clock_us(clock) - start) / repeat;
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
  b->be->ops.linear_fwd(b->s, bl_bench_take_num(b, n * n), bl_bench_take_num(b, n * n), bl_bench_take_num(b, n * n),
                        NULL, m, m, m, false);
  return BL_OK;
}

static bl_status triad_call(bl_bench *b, int64_t n) {
  b->be->ops.add_f32(b->s, bl_bench_take(b, n), bl_bench_take(b, n), n);
  return BL_OK;
}

static int32_t matrix_of(const rank *r) {
  if (r->options->matrix > 0) return r->options->matrix;
  return r->bench.be->host_memory ? on_host.matrix : on_device.matrix;
}

static bl_status measure_rates(rank *r) {
  const bl_work sgemm = {.call = sgemm_call, .per_call = 1}, triad = {.call = triad_call, .per_call = 1};
  const int64_t n = matrix_of(r), triad_n = r->bench.be->host_memory ? on_host.triad : on_device.triad;
  double us;
  BL_TRY(refill(&r->bench));
  BL_TRY(measure_point(r, &sgemm, n, &us));
  r->profile.sgemm_gflops = 2.0 * (double)n * (double)n * (double)n / us * 1e-3;
  BL_TRY(measure_point(r, &triad, triad_n, &us));
  r->profile.triad_gbps = 12.0 * (double)triad_n / us * 1e-3;
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

/* The ways take turns, so that a clock that drifts treats them alike. */
static bl_status measure_ways(rank *r) {
  static const char *const names[BL_EXPERT_GEMM_WAYS] = {"loop", "streams", "grouped"};
  bl_profile_ways *w = &r->ways;
  const bl_work experts = bl_bench_experts(&r->bench, w->rows);
  BL_TRY(refill(&r->bench));
  w->experts = r->bench.max_groups;
  for (int at = 0; at < 2; at++)
    for (w->n = 0; w->n < BL_EXPERT_GEMM_WAYS; w->n++) {
      w->name[w->n] = names[w->n];
      bl_backend_expert_gemm(r->bench.be, names[w->n]);
      BL_TRY(measure_point(r, &experts, w->rows[at], &w->us[w->n][at]));
    }
  return BL_OK;
}

/* The arena must hold the operands of the largest call twice. */
static int64_t arena_floats(const rank *r) {
  const bl_model *m = r->bench.model;
  const int64_t least = r->bench.be->host_memory ? on_host.arena : on_device.arena;
  const int64_t widest = m->expert_width > m->ffn_width ? m->expert_width : m->ffn_width;
  const int64_t tokens = 8 * (int64_t)m->sequence, width = widest > m->vocabulary ? widest : m->vocabulary;
  const int64_t one = 4 * (int64_t)r->bench.max_rows * (2 * widest + 4 * (int64_t)m->hidden) + 16 * widest * m->hidden +
                      tokens * (4 * width + 16 * (int64_t)m->hidden) + 4 * (int64_t)m->vocabulary * m->hidden;
  const int64_t matrices = 3 * (int64_t)matrix_of(r) * matrix_of(r), most = 2 * one > matrices ? 2 * one : matrices;
  return most > least ? most : least;
}

static bl_status set_up(rank *r) {
  bl_bench *b = &r->bench;
  b->model = r->options->model;
  BL_TRY(bl_backend_open(r->options->backend, r->options->precision, 0, &b->be));
  BL_TRY(b->be->stream_create(b->be, &b->s));
  BL_TRY(b->be->event_create(b->be, &b->from));
  BL_TRY(b->be->event_create(b->be, &b->to));
  b->max_rows = r->options->rows > 0 ? r->options->rows : b->be->host_memory ? on_host.rows : on_device.rows;
  bl_backend_expert_gemm(b->be, r->options->expert_gemm);
  BL_TRY(bl_threads_world_join(r->world, r->number, b->be, &b->comm));
  b->arena_size = arena_floats(r);
  BL_TRY(b->be->alloc(b->be, (size_t)b->arena_size * sizeof(float), &b->arena));
  return bl_bench_prepare(b);
}

static void tear_down(bl_bench *b) {
  bl_bench_release(b);
  free(b->groups);
  free(b->host_index);
  free(b->control);
  free(b->host);
  if (!b->be) return;
  void *owned[] = {b->arena, b->ids, b->choice, b->row, b->sum};
  for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) b->be->release(b->be, owned[i]);
  bl_comm_free(b->comm);
  b->be->event_destroy(b->from);
  b->be->event_destroy(b->to);
  if (b->s) b->be->stream_destroy(b->s);
  b->be->destroy(b->be);
}

static void *run_rank(void *arg) {
  rank *r = arg;
  r->status = set_up(r);
  if (r->status == BL_OK) r->status = measure_all(r);
  if (r->status == BL_OK && !r->bench.be->host_memory) r->status = measure_ways(r);
  if (r->status != BL_OK) snprintf(r->text, sizeof r->text, "%s", bl_error_text());
  if (r->status != BL_OK && r->bench.comm) bl_comm_abort(r->bench.comm, r->text);
  return NULL;
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

bl_status bl_profile_measure(const bl_profile_options *options, bl_profile *out, bl_profile_ways *ways) {
  const int32_t n = options->ranks;
  bl_threads_world *world = NULL;
  rank *ranks = NULL;
  bl_status status = BL_OK;
  BL_TRY(bl_model_runs_on_executor(options->model));
  BL_TRY(bl_backend_check(options->backend, options->precision, options->expert_gemm));
  const bool cuda = !strcmp(options->backend, "cuda");
  if (cuda && options->cpu_clock)
    return bl_fail(BL_EUSAGE, "--clock cpu: work on cuda is timed by the device's events");
  if (n < 1 || n > 64) return bl_fail(BL_EUSAGE, "--ranks: expected 1..64, found %d", n);
  BL_TRY_GOTO(status, bl_new(&ranks, (size_t)n, sizeof *ranks, "ranks"), done);
  BL_TRY_GOTO(status, bl_threads_world_create(n, 0, &world), done);
  for (int32_t i = 0; i < n; i++) ranks[i] = (rank){.options = options, .world = world, .number = i};
  BL_TRY_GOTO(status, run_ranks(ranks, n), done);
  *out = ranks[0].profile;
  *ways = ranks[0].ways;
  const bl_backend *be = ranks[0].bench.be;
  snprintf(out->backend, sizeof out->backend, "%s", be->name);
  snprintf(out->transport, sizeof out->transport, "threads");
  snprintf(out->device, sizeof out->device, "%s", be->device);
  out->ranks = n;
  out->overlap = false;
  out->one_device = cuda;
  out->num_bytes = (int32_t)be->num_bytes;
  bl_profile_shape_of(options->model, &out->shape);
done:
  for (int32_t i = 0; ranks && i < n; i++) tear_down(&ranks[i].bench);
  bl_threads_world_free(world);
  free(ranks);
  return status;
}
