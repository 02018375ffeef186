/* test_ops_backend.c - memory, streams and events of the CPU backend, and the same bits from every thread. */
#include "base/rng.h"
#include "executor/backend.h"
#include "tests/check.h"
#include <pthread.h>
#include <time.h>

static void test_names(void) {
  CHECK_STRING(bl_op_names[0], "embed_fwd");
  CHECK_STRING(bl_op_names[BL_OP_adamw], "adamw");
  bl_backend *be;
  REQUIRE_OK(bl_backend_cpu_create(&be));
  CHECK_STRING(be->name, "cpu");
  CHECK_INT(be->num_bytes, sizeof(float));
  CHECK(be->host_memory);
  be->destroy(be);
}

static void test_memory(void) {
  bl_backend *be;
  REQUIRE_OK(bl_backend_cpu_create(&be));
  unsigned char *a, *b, *none;
  REQUIRE_OK(be->alloc(be, 1000, &a));
  REQUIRE_OK(be->alloc(be, 0, &none));
  CHECK(none != NULL);
  CHECK((uintptr_t)a % 64 == 0 && (uintptr_t)none % 64 == 0);
  bool zero = true;
  for (int i = 0; i < 1000; i++) zero &= a[i] == 0;
  CHECK(zero);
  memset(a, 7, 1000);
  CHECK_INT(be->memory_peak(be), 1000);
  be->release(be, a);
  REQUIRE_OK(be->alloc(be, 600, &a));
  REQUIRE_OK(be->alloc(be, 300, &b));
  CHECK_INT(be->memory_peak(be), 1000);
  be->release(be, b);
  REQUIRE_OK(be->alloc(be, 500, &b));
  CHECK_INT(be->memory_peak(be), 1100);
  void *no;
  CHECK_FAILS(be->alloc(be, SIZE_MAX - 10, &no), BL_EMACHINE, "out of memory");
  CHECK_FAILS(be->alloc(be, (size_t)1 << 60, &no), BL_EMACHINE, "1152921504606846976 bytes");
  CHECK_INT(be->memory_peak(be), 1100);
  be->release(be, a);
  be->release(be, b);
  be->release(be, none);
  be->release(be, NULL);
  be->destroy(be);
}

static void test_streams_and_events(void) {
  bl_backend *be;
  bl_stream *s;
  bl_event *from, *to;
  REQUIRE_OK(bl_backend_cpu_create(&be));
  REQUIRE_OK(be->stream_create(be, &s));
  REQUIRE_OK(be->event_create(be, &from));
  REQUIRE_OK(be->event_create(be, &to));
  char data[8] = "ballast", back[8] = "";
  char *device;
  REQUIRE_OK(be->alloc(be, 16, &device));
  be->event_record(from, s);
  nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
  be->event_record(to, s);
  be->event_wait(s, to);
  CHECK(be->event_us(from, to) >= 2000.0);
  be->to_device(s, device, data, 8);
  be->copy(s, device + 8, device, 8);
  be->zero(s, device, 8);
  be->to_host(s, back, device + 8, 8);
  CHECK_OK(be->stream_sync(s));
  CHECK_STRING(back, "ballast");
  be->to_host(s, back, device, 8);
  CHECK_OK(be->stream_sync(s));
  CHECK(back[0] == 0);
  be->release(be, device);
  be->event_destroy(from);
  be->event_destroy(to);
  be->stream_destroy(s);
  be->destroy(be);
}

/* An operation that gets no scratch memory does nothing; the next sync reports it. */
static void test_scratch_failure(void) {
  bl_backend *be;
  bl_stream *s;
  REQUIRE_OK(bl_backend_cpu_create(&be));
  REQUIRE_OK(be->stream_create(be, &s));
  float x = 3.0f;
  be->ops.gate_switch(s, NULL, &x, &x, 1, -1); /* as many floats as no machine has */
  CHECK_FAILS(be->stream_sync(s), BL_EMACHINE, "scratch");
  CHECK(x == 3.0f);
  be->stream_destroy(s);
  be->destroy(be);
}

enum { SEQUENCES = 2, SEQ = 67, HEADS = 2, WIDTH = 8, H = HEADS * WIDTH, T = SEQUENCES * SEQ };

typedef struct job {
  float out[T * H], grad[3 * H * H], dqkv[T * 3 * H];
  bool failed;
} job;

/* A linear layer, attention, and back; allocations shifted so that no two threads have like addresses. */
static void *work(void *argument) {
  job *j = argument;
  bl_backend *be = NULL;
  bl_stream *s = NULL;
  float *x = NULL, *w, *qkv, *lse, *dout;
  bl_rng rng;
  bl_rng_seed(&rng, 3, 4);
  j->failed = bl_backend_cpu_create(&be) != BL_OK || be->stream_create(be, &s) != BL_OK ||
              be->alloc(be, sizeof(float) * (T * H * 6 + 3 * H * H + HEADS * T), &x) != BL_OK;
  if (j->failed) return NULL;
  w = x + T * H, qkv = w + 3 * H * H, lse = qkv + T * 3 * H, dout = lse + HEADS * T;
  for (int i = 0; i < T * H + 3 * H * H; i++) x[i] = (float)bl_rng_normal(&rng);
  for (int i = 0; i < T * H; i++) dout[i] = (float)bl_rng_normal(&rng);
  for (int repeat = 0; repeat < 20; repeat++) {
    memset(j->grad, 0, sizeof j->grad);
    be->ops.linear_fwd(s, qkv, x, w, NULL, T, 3 * H, H, false);
    be->ops.attention_fwd(s, j->out, lse, qkv, SEQUENCES, SEQ, HEADS, WIDTH);
    be->ops.attention_bwd(s, j->dqkv, dout, qkv, j->out, lse, SEQUENCES, SEQ, HEADS, WIDTH);
    be->ops.linear_dw(s, j->grad, NULL, j->dqkv, x, T, 3 * H, H);
  }
  j->failed = be->stream_sync(s) != BL_OK;
  be->release(be, x);
  be->stream_destroy(s);
  be->destroy(be);
  return NULL;
}

static void test_same_bits_in_every_thread(void) {
  enum { THREADS = 4 };
  static job alone, jobs[THREADS];
  pthread_t threads[THREADS];
  work(&alone);
  CHECK(!alone.failed);
  for (int i = 0; i < THREADS; i++) REQUIRE(pthread_create(&threads[i], NULL, work, &jobs[i]) == 0);
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  for (int i = 0; i < THREADS; i++) {
    CHECK(!jobs[i].failed);
    CHECK(memcmp(&jobs[i], &alone, sizeof alone) == 0);
  }
}

int main(void) {
  RUN(test_names);
  RUN(test_memory);
  RUN(test_streams_and_events);
  RUN(test_scratch_failure);
  RUN(test_same_bits_in_every_thread);
  TEST_MAIN_END;
}
