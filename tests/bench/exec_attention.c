/* exec_attention.c - what attention takes on a backend, forward and backward, for one shape:
 *
 *     exec_attention [cpu|cuda [SEQUENCES SEQ HEADS WIDTH [RUNS]]]        (default: cpu 1 256 4 64 5)
 *
 * One JSON object: medians in microseconds, by the backend's events, and the rates by the usual count of operations: 4
 * x pairs x width forward, of which a causal mask leaves half, and 2.5 times as many backward, whatever is computed
 * twice. */
#include "base/rng.h"
#include "executor/backend.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_RUNS = 101 };

static bl_backend *be;
static bl_stream *s;
static bl_event *from, *to;

static void check(bl_status status) {
  if (status == BL_OK) return;
  fprintf(stderr, "exec_attention: %s\n", bl_error_text());
  exit(3);
}

/* Random numbers of the compute type. */
static bl_num *random_numbers(int64_t n, uint64_t seed) {
  bl_rng rng;
  float *host = malloc(sizeof *host * (size_t)n), *wide;
  bl_num *x;
  if (!host) exit(3);
  bl_rng_seed(&rng, seed, 1);
  for (int64_t i = 0; i < n; i++) host[i] = (float)(2 * bl_rng_unit(&rng) - 1);
  check(be->alloc(be, sizeof *host * (size_t)n, &wide));
  check(be->alloc(be, be->num_bytes * (size_t)n, &x));
  be->to_device(s, wide, host, sizeof *host * (size_t)n);
  be->ops.from_f32(s, x, wide, n);
  check(be->stream_sync(s));
  be->release(be, wide);
  free(host);
  return x;
}

static int compare(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* The statement's median; the first two runs warm up. */
#define TIME(median, runs, ...)                         \
  do {                                                  \
    double us[MOST_RUNS + 2];                           \
    for (int run = 0; run < (runs) + 2; run++) {        \
      be->event_record(from, s);                        \
      __VA_ARGS__;                                      \
      be->event_record(to, s);                          \
      check(be->stream_sync(s));                        \
      us[run] = be->event_us(from, to);                 \
    }                                                   \
    qsort(us + 2, (size_t)(runs), sizeof *us, compare); \
    (median) = us[2 + (runs) / 2];                      \
  } while (0)

static int32_t number(int argc, char **argv, int i, int32_t otherwise, int32_t most) {
  if (i >= argc) return otherwise;
  const long n = strtol(argv[i], NULL, 10);
  if (n >= 1 && n <= most) return (int32_t)n;
  fprintf(stderr, "exec_attention: argument %d: expected a number of 1..%d, found %s\n", i, most, argv[i]);
  exit(2);
}

int main(int argc, char **argv) {
  const char *backend = argc > 1 ? argv[1] : "cpu";
  const int32_t S = number(argc, argv, 2, 1, 1024), seq = number(argc, argv, 3, 256, 1 << 16);
  const int32_t heads = number(argc, argv, 4, 4, 256), width = number(argc, argv, 5, 64, 1024);
  const int32_t runs = number(argc, argv, 6, 5, MOST_RUNS);
  const int64_t T = (int64_t)S * seq, n = T * heads * width;
  double forward, backward;
  check(bl_backend_open(backend, "auto", 0, &be));
  check(be->stream_create(be, &s));
  check(be->event_create(be, &from));
  check(be->event_create(be, &to));
  bl_num *qkv = random_numbers(3 * n, 1), *dout = random_numbers(n, 2);
  bl_num *out, *dqkv;
  float *lse;
  check(be->alloc(be, be->num_bytes * (size_t)n, &out));
  check(be->alloc(be, be->num_bytes * 3 * (size_t)n, &dqkv));
  check(be->alloc(be, sizeof *lse * (size_t)(T * heads), &lse));
  TIME(forward, runs, be->ops.attention_fwd(s, out, lse, qkv, S, seq, heads, width));
  TIME(backward, runs, be->ops.attention_bwd(s, dqkv, dout, qkv, out, lse, S, seq, heads, width));
  const double flop = 2.0 * (double)n * seq;
  printf("{\"name\": \"attention %d x %d, %d heads of %d, %s\", \"value\": %.6g, \"unit\": \"us\", \"reach\": null, "
         "\"note\": \"forward and backward\", \"forward_us\": %.6g, \"backward_us\": %.6g, \"forward_tflops\": %.4g, "
         "\"backward_tflops\": %.4g, \"memory_bytes\": %zu}\n",
         S, seq, heads, width, backend, forward + backward, forward, backward, 1e-6 * flop / forward,
         2.5e-6 * flop / backward, be->memory_peak(be));
  void *owned[] = {qkv, dout, out, dqkv, lse};
  for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) be->release(be, owned[i]);
  be->event_destroy(from);
  be->event_destroy(to);
  be->stream_destroy(s);
  be->destroy(be);
  return 0;
}
