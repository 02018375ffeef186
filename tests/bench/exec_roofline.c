/* exec_roofline.c - what this machine can do at best: the matrix product and the memory that training stands on, with
 * as many threads at once as the first argument says (2). tests/bench/train.py holds training against it. */
#include "executor/backend.h"
#include "executor/cpu/gemm.h"
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { SIDE = 1024, TRIAD = 16 << 20, REPEATS = 5, MAX_THREADS = 256 };

static pthread_barrier_t barrier;

static double now_s(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct worker {
  pthread_t thread;
  float *a, *b, *c;
  double best_gemm_s, best_triad_s;
} worker;

static void triad(float *restrict a, const float *restrict b, const float *restrict c) {
  for (int i = 0; i < TRIAD; i++) a[i] = b[i] + 3.0f * c[i];
}

/* All threads work at once; the time of a repeat is that of the slowest, which the barrier behind it measures. */
static void *work(void *argument) {
  worker *w = argument;
  const bl_matrix a = {w->a, SIDE, false}, b = {w->b, SIDE, true};
  w->best_gemm_s = w->best_triad_s = 1e30;
  for (int i = 0; i < REPEATS; i++) {
    pthread_barrier_wait(&barrier);
    double start = now_s();
    bl_gemm(w->c, SIDE, a, b, SIDE, SIDE, SIDE, 1.0f, false);
    pthread_barrier_wait(&barrier);
    double took = now_s() - start;
    if (took < w->best_gemm_s) w->best_gemm_s = took;
    pthread_barrier_wait(&barrier);
    start = now_s();
    triad(w->a, w->b, w->c);
    pthread_barrier_wait(&barrier);
    took = now_s() - start;
    if (took < w->best_triad_s) w->best_triad_s = took;
  }
  return NULL;
}

int main(int argc, char **argv) {
  const int threads = argc > 1 ? atoi(argv[1]) : 2;
  static worker workers[MAX_THREADS];
  if (threads < 1 || threads > MAX_THREADS) return 2;
  bl_gemm_init();
  pthread_barrier_init(&barrier, NULL, (unsigned)threads);
  for (int t = 0; t < threads; t++) {
    float **arrays[3] = {&workers[t].a, &workers[t].b, &workers[t].c};
    for (int k = 0; k < 3; k++) {
      *arrays[k] = aligned_alloc(64, sizeof(float) * TRIAD);
      if (!*arrays[k]) return 3;
      for (int i = 0; i < TRIAD; i++) (*arrays[k])[i] = (float)(i % 7) * 0.25f;
    }
  }
  for (int t = 0; t < threads; t++) pthread_create(&workers[t].thread, NULL, work, &workers[t]);
  for (int t = 0; t < threads; t++) pthread_join(workers[t].thread, NULL);
  const double gflops = 2e-9 * threads * (double)SIDE * SIDE * SIDE / workers[0].best_gemm_s;
  const double gbps = 1e-9 * threads * 12.0 * TRIAD / workers[0].best_triad_s;
  printf("{\"name\": \"matrix product 1024^3, %d threads\", \"value\": %.6g, \"unit\": \"Gflop/s\", \"reach\": null}\n",
         threads, gflops);
  printf("{\"name\": \"triad, %d threads\", \"value\": %.6g, \"unit\": \"GB/s\", \"reach\": null}\n", threads, gbps);
  return 0;
}
