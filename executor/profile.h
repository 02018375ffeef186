/* profile.h - measures what each kind of work takes: the curves of costmodel/profile.h, with the real backend and
 * transport, all ranks working at once as they do in training. */
#ifndef BL_EXECUTOR_PROFILE_H
#define BL_EXECUTOR_PROFILE_H

#include "costmodel/profile.h"
#include "executor/backend.h"
#include "executor/transport.h"
#include <stdbool.h>
#include <stdint.h>

typedef struct bl_profile_options {
  const bl_model *model;
  const char *backend, *precision; /* as bl_backend_open() takes them */
  const char *expert_gemm;         /* in which way the curves' experts work, as bl_backend_expert_gemm() takes it */
  int32_t ranks;
  int32_t samples;      /* timed calls a point; their median counts */
  int32_t rows, matrix; /* most rows of an expert; width of the square product that gives the rate; 0: by the backend */
  bool cpu_clock;       /* work of one rank by its thread's processor time instead of the wall clock; cpu alone */
} bl_profile_options;

/* Forward and backward of experts in each way to issue their products, with few and with many rows an expert. */
typedef struct bl_profile_ways {
  int32_t n, experts; /* ways, 0 where the backend has one alone; experts in a call */
  const char *name[BL_EXPERT_GEMM_WAYS];
  int64_t rows[2];
  double us[BL_EXPERT_GEMM_WAYS][2]; /* of one expert */
} bl_profile_ways;

/*! bl_profile_measure() : measures on a backend and the threads transport with one thread a rank; ranks on cuda share
 * one device. Each point is the mean over ranks of the median of samples, after a warm-up; operands come from a region
 * larger than the caches, as in training. The clock: events on the rank's stream; where ranks work together, and on the
 * CPU, the wall clock or the thread's processor time. `ways` is filled in where the backend has several.
 *  @return : BL_OK; BL_ENOTSUP for a model that the executor does not run; BL_EUSAGE, BL_EMACHINE, BL_ECOMM. */
bl_status bl_profile_measure(const bl_profile_options *options, bl_profile *out, bl_profile_ways *ways);

/* -- inside: one rank at work
 * ------------------------------------------------------------------------------------------ */

typedef struct bl_bench {
  const bl_model *model;
  bl_backend *be;
  bl_stream *s;
  bl_comm *comm;
  bl_event *from, *to; /* around what is timed */
  float *arena;        /* device: operands are taken from it round and round */
  int64_t arena_size, arena_next;
  int32_t max_rows; /* of an expert */
  char *control;    /* host: small control data of this rank, then of all */
  void *host;       /* host: what goes to the device and back; NULL where memory is the host's */
  int32_t *ids;     /* device: token ids, experts, rows; [max_ids] each of three */
  int32_t *choice, *row;
  double *sum;         /* device */
  int32_t *host_index; /* host: a permutation of rows */
  bl_group *groups;
  int32_t n_groups; /* experts in a call; room for max_groups */
  int32_t max_groups;
  void *decisions; /* of the policy curves, owned by profile_work.c */
} bl_bench;

/*! bl_bench_take(), bl_bench_take_num() : n floats, or numbers of the compute type, of the arena, that have not been
 * touched for long. */
float *bl_bench_take(bl_bench *b, int64_t n);
bl_num *bl_bench_take_num(bl_bench *b, int64_t n);

/* One call of a kind of work at an amount; amounts[] ends with 0. */
typedef struct bl_work {
  bl_curve_kind curve;
  bl_status (*call)(bl_bench *b, int64_t amount);
  int64_t amounts[BL_CURVE_MAX_POINTS + 1];
  bool together;   /* all ranks take part in one call: always by the wall clock */
  double per_call; /* the call does its work so many times: EXPERT_* once an expert */
} bl_work;

enum { BL_WORK_MAX = BL_CURVE_COUNT };

/*! bl_bench_works() : what is measured for this model on this many ranks.  @return : how many works[] were written. */
int32_t bl_bench_works(const bl_bench *bench, bl_work works[BL_WORK_MAX]);

/*! bl_bench_experts() : forward and both backwards of max_groups experts; rows[] = few and many rows an expert. */
bl_work bl_bench_experts(const bl_bench *bench, int64_t rows[2]);

/*! bl_bench_prepare(), bl_bench_release() : what the calls need besides the arena. */
bl_status bl_bench_prepare(bl_bench *bench);
void bl_bench_release(bl_bench *bench);

#endif
