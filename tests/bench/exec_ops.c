/* exec_ops.c - what every operation of the CPU backend costs in one step of the default model (4 layers, hidden 256, 4
 * heads, sequence 128, 8 experts of width 1024, top-2, vocabulary 256, 1024 tokens), in one thread, against the
 * roofline of the same run: 6 x weight multiply-adds at the best matrix product rate + 28 bytes a parameter at the
 * triad rate. */
#include "base/rng.h"
#include "executor/backend.h"
#include "executor/cpu/gemm.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#ifdef BL_HAVE_OPENBLAS
#include <cblas.h>
#endif

enum { LAYERS = 4, H = 256, HEADS = 4, SEQ = 128, SEQUENCES = 8, T = SEQ * SEQUENCES, E = 8, F = 1024, K = 2, V = 256 };
enum {
  COPIES = T * K,
  LAYER = 4 * H * H + 8 * H + E * H + E * (2 * H * F + H + F),
  PARAMETERS = LAYERS * LAYER + H * (V + SEQ + 2)
};

static bl_backend *be;
static bl_stream *s;

static void *room(size_t bytes) {
  void *p = NULL;
  if (be->alloc(be, bytes, &p) != BL_OK) {
    fprintf(stderr, "exec_ops: %s\n", bl_error_text());
    exit(3);
  }
  return p;
}

static float *floats(int64_t n) {
  static bl_rng rng;
  float *x = room(sizeof(float) * (size_t)n);
  if (!rng.state[0]) bl_rng_seed(&rng, 1, 2);
  for (int64_t i = 0; i < n; i++) x[i] = (float)(bl_rng_unit(&rng) - 0.5);
  return x;
}

static int compare(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

enum { RUNS = 9 };

static double thread_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return 1e6 * (double)now.tv_sec + 1e-3 * (double)now.tv_nsec;
}

/* The statement's median and best time in microseconds; the first run only warms up. */
#define TIME(median, best, ...)                 \
  do {                                          \
    double us[RUNS + 1];                        \
    for (int run = 0; run <= RUNS; run++) {     \
      const double start = thread_us();         \
      __VA_ARGS__;                              \
      us[run] = thread_us() - start;            \
    }                                           \
    qsort(us + 1, RUNS, sizeof us[0], compare); \
    (median) = us[1 + RUNS / 2];                \
    (best) = us[1];                             \
  } while (0)

static void row(const char *name, double value, const char *unit, const char *note) {
  printf("{\"name\": \"%s\", \"value\": %.6g, \"unit\": \"%s\", \"reach\": null, \"note\": \"%s\"}\n", name, value,
         unit, note);
}

/* The rate of a square product in flop/s, the better of ours and OpenBLAS. */
static double product_rate(void) {
  enum { N = 1024 };
  float *a = floats(N * N), *b = floats(N * N), *c = floats(N * N);
  const double flops = 2.0 * N * N * N;
  double median, best, rate;
  TIME(median, best, bl_gemm(c, N, (bl_matrix){a, N, false}, (bl_matrix){b, N, false}, N, N, N, 1.0f, false));
  rate = 1e6 * flops / best;
  row("sgemm 1024, one thread, ours", 1e-9 * rate, "Gflop/s", "");
#ifdef BL_HAVE_OPENBLAS
  openblas_set_num_threads(1);
  TIME(median, best, cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, N, N, N, 1.0f, a, N, b, N, 0.0f, c, N));
  row("sgemm 1024, one thread, OpenBLAS", 1e-3 * flops / best, "Gflop/s", "");
  if (1e6 * flops / best > rate) rate = 1e6 * flops / best;
#endif
  (void)median;
  be->release(be, a), be->release(be, b), be->release(be, c);
  return rate;
}

static void triad(float *restrict x, const float *restrict y, const float *restrict z, int64_t n) {
  for (int64_t i = 0; i < n; i++) x[i] = y[i] + 3.0f * z[i];
}

/* Bytes a second of x = y + 3 z on arrays beyond every cache, counting 12 bytes an element. */
static double triad_rate(void) {
  const int64_t n = 16 << 20;
  float *x = floats(n), *y = floats(n), *z = floats(n);
  double median, best;
  TIME(median, best, triad(x, y, z, n));
  (void)median;
  row("triad, one thread", 12e-3 * (double)n / best, "GB/s", "");
  be->release(be, x), be->release(be, y), be->release(be, z);
  return 12e6 * (double)n / best;
}

static struct {
  const char *name;
  double us; /* a step */
} costs[64];
static int n_costs;

static void cost(const char *name, int calls, double us) {
  costs[n_costs].name = name;
  costs[n_costs++].us = us * calls;
}

#define COST(calls, label, op, ...)                           \
  do {                                                        \
    double cost_median, cost_best;                            \
    TIME(cost_median, cost_best, be->ops.op(s, __VA_ARGS__)); \
    (void)cost_best;                                          \
    cost(label, calls, cost_median);                          \
  } while (0)

static void dense_costs(void) {
  float *x = floats(T * H), *y = floats(T * H), *qkv = floats(T * 3 * H), *dqkv = floats(T * 3 * H);
  float *weight = floats(3 * H * H), *grad = floats(3 * H * H), *bias = floats(3 * H), *lse = floats(HEADS * T);
  float *mean = floats(T), *rstd = floats(T), *logits = floats(T * V), *loss = floats(T);
  int32_t *token = room(sizeof *token * T);
  for (int t = 0; t < T; t++) token[t] = t * 31 % V;
  COST(1, "embed_fwd", embed_fwd, x, token, weight, weight, T, SEQ, H);
  COST(1, "embed_bwd", embed_bwd, grad, grad, token, x, T, SEQ, H);
  COST(2 * LAYERS + 1, "norm_fwd", norm_fwd, y, mean, rstd, x, weight, bias, T, H);
  COST(2 * LAYERS + 1, "norm_bwd", norm_bwd, x, bias, bias, y, x, mean, rstd, weight, T, H);
  COST(LAYERS, "linear_fwd qkv", linear_fwd, qkv, x, weight, bias, T, 3 * H, H, false);
  COST(LAYERS, "linear_dx qkv", linear_dx, x, dqkv, weight, T, 3 * H, H, false);
  COST(LAYERS, "linear_dw qkv", linear_dw, grad, bias, dqkv, x, T, 3 * H, H);
  COST(LAYERS, "attention_fwd", attention_fwd, y, lse, qkv, SEQUENCES, SEQ, HEADS, H / HEADS);
  COST(LAYERS, "attention_bwd", attention_bwd, dqkv, x, qkv, y, lse, SEQUENCES, SEQ, HEADS, H / HEADS);
  COST(LAYERS, "linear_fwd out", linear_fwd, y, x, weight, bias, T, H, H, true);
  COST(LAYERS, "linear_dx out", linear_dx, x, y, weight, T, H, H, false);
  COST(LAYERS, "linear_dw out", linear_dw, grad, bias, y, x, T, H, H);
  COST(1, "linear_fwd logits", linear_fwd, logits, x, weight, NULL, T, V, H, false);
  COST(1, "cross_entropy", cross_entropy, loss, logits, token, T, V, 1.0f);
  COST(1, "linear_dx logits", linear_dx, x, logits, weight, T, V, H, false);
  COST(1, "linear_dw logits", linear_dw, grad, NULL, logits, x, T, V, H);
  COST(LAYERS, "linear_fwd gate", linear_fwd, logits, x, weight, NULL, T, E, H, false);
  COST(LAYERS, "linear_dx gate", linear_dx, x, logits, weight, T, E, H, true);
  COST(LAYERS, "linear_dw gate", linear_dw, grad, NULL, logits, x, T, E, H);
}

static void moe_costs(void) {
  float *x = floats(T * H), *send = floats(COPIES * H), *back = floats(COPIES * H), *logits = floats(T * E);
  float *hidden = floats((int64_t)COPIES * F), *dhidden = floats((int64_t)COPIES * F), *weight = floats(COPIES);
  float *matrices = floats((int64_t)E * H * F), *grads = floats((int64_t)E * H * F), *bias = floats(F),
        *dweight = floats(COPIES);
  int32_t *expert = room(sizeof *expert * COPIES), *to_row = room(sizeof *to_row * COPIES);
  uint32_t counts[E];
  int32_t first[E + 1], dest[E];
  COST(LAYERS, "gate_top_k", gate_top_k, expert, weight, logits, T, E, K);
  COST(LAYERS, "histogram", histogram, counts, expert, COPIES, E);
  bl_group groups[E];
  for (int32_t e = 0, at = 0; e < E; at += (int32_t)counts[e++]) {
    first[e] = e;
    dest[e] = at;
    groups[e] =
        (bl_group){at, (int32_t)counts[e], matrices + (int64_t)e * H * F, bias, grads + (int64_t)e * H * F, bias};
  }
  first[E] = E;
  COST(LAYERS, "route_rows", route_rows, to_row, expert, COPIES, E, first, counts, dest);
  COST(LAYERS, "rows_scatter", rows_scatter, send, x, to_row, T, K, H);
  COST(LAYERS, "grouped_gelu_fwd", grouped_gelu_fwd, dhidden, hidden, send, groups, E, F, H);
  COST(LAYERS, "grouped_fwd fc2", grouped_fwd, back, hidden, groups, E, H, F);
  COST(LAYERS, "combine_fwd", combine_fwd, x, back, weight, to_row, T, K, H);
  COST(LAYERS, "combine_bwd", combine_bwd, send, dweight, x, back, weight, to_row, T, K, H);
  COST(LAYERS, "grouped_dx fc2", grouped_dx, dhidden, back, groups, E, H, F);
  COST(LAYERS, "grouped_dw fc2", grouped_dw, back, hidden, groups, E, H, F);
  COST(LAYERS, "grouped_gelu_bwd", grouped_gelu_bwd, dhidden, dhidden, hidden, groups, E, F);
  COST(LAYERS, "grouped_dx fc1", grouped_dx, send, dhidden, groups, E, F, H);
  COST(LAYERS, "grouped_dw fc1", grouped_dw, dhidden, send, groups, E, F, H);
  COST(LAYERS, "rows_sum", rows_sum, x, send, to_row, T, K, H);
  COST(LAYERS, "gate_top_k_bwd", gate_top_k_bwd, logits, dweight, weight, expert, T, E, K);
}

static void update_costs(void) {
  const int64_t n = PARAMETERS;
  float *w = floats(n), *m = floats(n), *v = floats(n), *grad = floats(n);
  double *sum = room(sizeof *sum);
  const bl_adamw hyper = {1e-4f, 0.9f, 0.95f, 1e-8f, 1.0f, 0.1f, 0.05f, 0};
  const bl_square_part squares = {sum, grad, n};
  const bl_adamw_part part = {w, w, m, v, grad, n, 0.1f};
  double median, best;
  for (int64_t i = 0; i < n; i++) v[i] += 0.5f;
  TIME(median, best, be->zero(s, grad, sizeof(float) * (size_t)n));
  (void)best;
  cost("zero gradients", 1, median);
  COST(1, "sum_sq", sum_sq, &squares, 1);
  COST(1, "adamw", adamw, &part, 1, &hyper);
}

int main(void) {
  if (bl_backend_cpu_create(&be) != BL_OK || be->stream_create(be, &s) != BL_OK) {
    fprintf(stderr, "exec_ops: %s\n", bl_error_text());
    return 3;
  }
  const double products = product_rate(), bytes = triad_rate();
  dense_costs();
  moe_costs();
  update_costs();
  double step = 0.0;
  for (int i = 0; i < n_costs; i++) step += costs[i].us;
  for (int i = 0; i < n_costs; i++) {
    char name[64], note[64];
    snprintf(name, sizeof name, "step: %s", costs[i].name);
    snprintf(note, sizeof note, "%.1f %%", 100.0 * costs[i].us / step);
    row(name, costs[i].us, "us", note);
  }
  const double multiply_adds = (double)T * (LAYERS * (4.0 * H * H + E * H + K * 2.0 * H * F) + V * H);
  const double roofline = 6e6 * multiply_adds / products + 28e6 * PARAMETERS / bytes;
  row("step: all operations", step, "us", "");
  row("step: roofline", roofline, "us", "");
  printf(
      "{\"name\": \"operations of a step against roofline\", \"value\": %.4f, \"unit\": \"ratio\", \"reach\": 0.7}\n",
      roofline / step);
  be->stream_destroy(s);
  be->destroy(be);
  return 0;
}
