/* test_cuda_ops.c - every operation of ops.def on the CUDA backend against the CPU backend: fresh random inputs that
 * the compute type can hold, poisoned outputs, both compute types, odd and large sizes, addresses off alignment; and
 * the same bits when a case runs again. One counted reason is printed where there is no device. With an argument, of
 * the operations only those whose name contains it. time limit: 900 s */
#ifdef BL_HAVE_CUDA
#include "executor/cuda/cuda.h"
#include "tests/exec/cuda_cases.h"
#include <time.h>

static const struct {
  const char *name;
  void (*test)(void);
} cases[] = {
#define BL_OP(name, args) {#name, test_##name},
#include "executor/ops.def"
#undef BL_OP
};

static bl_cuda_options options;
static const char *only = "";

#ifdef BL_CUDA_SHIM
extern bool shim_reversed; /* the second run takes the threads of a block in reverse order */
#else
static bool shim_reversed;
#endif

/* Twice from one seed: every bit that CUDA computes must come again. */
static void run_case(int op, uint64_t seed) {
  uint64_t hash[2];
  const int before = check_n_failed;
  if (!strstr(cases[op].name, only)) return;
  for (int round = 0; round < 2; round++) {
    bl_rng_seed(&case_rng, seed, (uint64_t)op);
    case_hash = 0;
    shim_reversed = round == 1;
    cases[op].test();
    hash[round] = case_hash;
  }
  if (!check_count(hash[0] == hash[1])) printf("%s: other bits in the second run\n", cases[op].name);
  if (!check_count(called[op])) printf("the case of %s never called it\n", cases[op].name);
  if (check_n_failed != before)
    printf("in the case of %s, %s, seed %llu\n", cases[op].name, options.bf16 ? "bf16" : "fp32",
           (unsigned long long)seed);
}

static void open_sides(void) {
  tolerance = options.bf16 ? 1e-2 : 1e-5;
  REQUIRE_OK(bl_backend_cpu_create(&sides[CPU]));
  REQUIRE_OK(bl_backend_cuda_create(&options, &sides[CUDA]));
  for (int side = 0; side < SIDES; side++) REQUIRE_OK(sides[side]->stream_create(sides[side], &streams[side]));
}

static void close_sides(void) {
  for (int side = 0; side < SIDES; side++) {
    sides[side]->stream_destroy(streams[side]);
    sides[side]->destroy(sides[side]);
  }
}

static void test_every_operation(void) {
  const uint64_t seed = (uint64_t)time(NULL);
  options.grouping = BL_CUDA_GROUP_BY_GROUP;
  open_sides();
  CHECK_INT(sides[CUDA]->num_bytes, options.bf16 ? 2 : 4);
  memset(called, 0, sizeof called);
  for (int op = 0; op < BL_OP_COUNT; op++) run_case(op, seed);
  CHECK_OK(sides[CUDA]->stream_sync(streams[CUDA]));
  close_sides();
}

/* The other ways to issue the products of groups; with `alone` a group's bits depend on its own rows. */
static void test_grouping(bl_cuda_grouping grouping, bool alone) {
  options.grouping = grouping;
  groups_stand_alone = alone;
  open_sides();
  run_case(BL_OP_grouped_fwd, (uint64_t)time(NULL));
  run_case(BL_OP_grouped_dx, (uint64_t)time(NULL));
  run_case(BL_OP_grouped_dw, (uint64_t)time(NULL));
  run_case(BL_OP_grouped_gelu_fwd, (uint64_t)time(NULL));
  CHECK_OK(sides[CUDA]->stream_sync(streams[CUDA]));
  close_sides();
}

static void test_groups_on_streams(void) { test_grouping(BL_CUDA_GROUPS_ON_STREAMS, true); }
static void test_groups_at_once(void) { test_grouping(BL_CUDA_GROUPS_AT_ONCE, false); }

static void test_memory(void) {
  bl_backend *be;
  unsigned char *a, *b, *none, host[1000];
  bl_stream *s;
  REQUIRE_OK(bl_backend_cuda_create(&options, &be));
  CHECK_STRING(be->name, "cuda");
  CHECK(!be->host_memory);
  REQUIRE_OK(be->stream_create(be, &s));
  const size_t start = be->memory_peak(be); /* what a stream needs for itself */
  REQUIRE_OK(be->alloc(be, 1000, &a));
  REQUIRE_OK(be->alloc(be, 0, &none));
  CHECK(none != NULL && (uintptr_t)a % 64 == 0 && (uintptr_t)none % 64 == 0);
  be->to_host(s, host, a, sizeof host);
  CHECK_OK(be->stream_sync(s));
  bool zero = true;
  for (size_t i = 0; i < sizeof host; i++) zero = zero && host[i] == 0;
  CHECK(zero);
  CHECK_INT(be->memory_peak(be), start + 1000);
  be->release(be, a);
  REQUIRE_OK(be->alloc(be, 600, &a));
  REQUIRE_OK(be->alloc(be, 500, &b));
  CHECK_INT(be->memory_peak(be), start + 1100);
  void *no;
  CHECK_FAILS(be->alloc(be, SIZE_MAX - 10, &no), BL_EMACHINE, "out of memory");
  CHECK_FAILS(be->alloc(be, (size_t)1 << 60, &no), BL_EMACHINE, "1152921504606846976 bytes");
  be->release(be, a);
  be->release(be, b);
  be->release(be, none);
  be->release(be, NULL);
  CHECK_OK(be->stream_sync(s));
  be->stream_destroy(s);
  be->destroy(be);
}

static void test_streams_and_events(void) {
  bl_backend *be;
  bl_stream *s, *other;
  bl_event *from, *to;
  char data[8] = "ballast", back[8] = "", *device;
  REQUIRE_OK(bl_backend_cuda_create(&options, &be));
  REQUIRE_OK(be->stream_create(be, &s));
  REQUIRE_OK(be->stream_create(be, &other));
  REQUIRE_OK(be->event_create(be, &from));
  REQUIRE_OK(be->event_create(be, &to));
  REQUIRE_OK(be->alloc(be, 16, &device));
  be->event_record(from, s);
  be->to_device(s, device, data, 8);
  be->event_record(to, s);
  be->event_wait(other, to);
  be->copy(other, device + 8, device, 8);
  be->zero(other, device, 8);
  be->to_host(other, back, device + 8, 8);
  CHECK_OK(be->stream_sync(other));
  CHECK_OK(be->stream_sync(s));
  CHECK_STRING(back, "ballast");
  CHECK(be->event_us(from, to) >= 0.0);
  be->to_host(s, back, device, 8);
  CHECK_OK(be->stream_sync(s));
  CHECK(back[0] == 0);
  be->release(be, device);
  be->event_destroy(from);
  be->event_destroy(to);
  be->stream_destroy(s);
  be->stream_destroy(other);
  be->destroy(be);
}

/* A host array may change as soon as the call is back, many calls long before the first of them has run: through small
 * segments the ring goes round before it grows and after. */
static void test_host_arrays_are_taken_at_once(void) {
  enum { N = 64, MOST = 1024, H = 8, CALLS = 400 };
  float rows[N * H], *got = case_new(sizeof *got * MOST * H);
  int32_t index[MOST];
  open_sides();
  bl_backend *be = sides[CUDA];
  bl_stream *s = streams[CUDA];
  void *x, *x32, *y;
  float *y32;
  REQUIRE_OK(be->alloc(be, sizeof rows, &x32));
  REQUIRE_OK(be->alloc(be, sizeof rows, &x));
  REQUIRE_OK(be->alloc(be, CALLS * sizeof *got * MOST * H, &y));
  REQUIRE_OK(be->alloc(be, sizeof *got * MOST * H, &y32));
  for (int i = 0; i < N * H; i++) rows[i] = (float)(i / H);
  be->to_device(s, x32, rows, sizeof rows);
  be->ops.from_f32(s, x, x32, N * H);
#define ROWS(call) ((call) % 200 == 99 ? MOST : N)
  for (int call = 0; call < CALLS; call++) {
    for (int i = 0; i < ROWS(call); i++) index[i] = (i + call) % N;
    const bl_host_part part = {index, (size_t)ROWS(call) * sizeof *index};
    const void *uploaded;
    be->upload(s, &part, 1, &uploaded);
    be->ops.rows_gather(s, (char *)y + (size_t)call * sizeof *got * MOST * H, x, uploaded, ROWS(call), H);
    memset(index, 0x7f, sizeof index);
  }
  for (int call = 0; call < CALLS; call++) {
    be->ops.to_f32(s, y32, (char *)y + (size_t)call * sizeof *got * MOST * H, ROWS(call) * H);
    be->to_host(s, got, y32, sizeof *got * (size_t)ROWS(call) * H);
    CHECK_OK(be->stream_sync(s));
    bool right = true;
    for (int i = 0; i < ROWS(call) * H; i++) right = right && got[i] == (float)((i / H + call) % N);
    CHECK(right);
  }
#undef ROWS
  be->release(be, x), be->release(be, x32), be->release(be, y), be->release(be, y32);
  close_sides();
  free(got);
}

/* Captured work is done as often as it is launched, on what memory holds then, with host arrays as they were. */
static void test_graph(void) {
  enum { N = 8, H = 4 };
  bl_graph *graph = NULL;
  int32_t index[N];
  float rows[N * H], got[N * H];
  void *x, *y, *x32, *spare;
  open_sides();
  bl_backend *be = sides[CUDA];
  bl_stream *s = streams[CUDA];
  REQUIRE_OK(be->alloc(be, sizeof rows, &x));
  REQUIRE_OK(be->alloc(be, sizeof rows, &y));
  REQUIRE_OK(be->alloc(be, sizeof rows, &x32));
  REQUIRE_OK(be->alloc(be, 16, &spare));
  const bl_host_part part = {index, sizeof index};
  static char large[5 << 20]; /* more than a graph has room for at first */
  for (int again = 0; again < 2; again++) {
    const bl_host_part parts[] = {part, {large, again ? 1 : sizeof large}};
    const void *uploaded[2];
    for (int i = 0; i < N; i++) index[i] = N - 1 - i;
    REQUIRE_OK(be->capture_begin(s));
    be->upload(s, parts, 2, uploaded);
    be->ops.rows_gather(s, y, x, uploaded[0], N, H);
    be->ops.to_f32(s, x32, y, N * H);
    REQUIRE_OK(be->capture_end(s, &graph));
    CHECK((graph != NULL) == again);
    memset(index, 0, sizeof index);
  }
  for (int launch = 0; launch < 3; launch++) {
    for (int i = 0; i < N * H; i++) rows[i] = (float)(i / H + 10 * launch);
    be->to_device(s, x32, rows, sizeof rows);
    be->ops.from_f32(s, x, x32, N * H);
    CHECK(be->graph_holds(graph));
    be->graph_launch(s, graph);
    be->to_host(s, got, x32, sizeof got);
    CHECK_OK(be->stream_sync(s));
    bool right = true;
    for (int i = 0; i < N * H; i++) right = right && got[i] == (float)(N - 1 - i / H + 10 * launch);
    CHECK(right);
  }
  be->release(be, spare); /* what is given back may be another's tomorrow */
  CHECK(!be->graph_holds(graph));
  be->graph_destroy(graph);
  be->release(be, x), be->release(be, y), be->release(be, x32);
  close_sides();
}

/* No check: what one exchange costs to plan, for a person to read. */
static void show_plan_time(void) {
  enum { CALLS = 20 };
  static const plan_shape shape = {256, 64, 5, 1};
  bl_event *from, *to;
  open_sides();
  bl_backend *be = sides[CUDA];
  bl_stream *s = streams[CUDA];
  plan_instance x = plan_make(&shape, &case_rng, true);
  buffer block = table_of(&x), counts = ints_of((int32_t *)x.counts, (int64_t)shape.ranks * shape.experts);
  buffer quota = poison(I32, (int64_t)shape.ranks * x.table.entries);
  const bl_host_table table = table_at(&x, block.device[CUDA]);
  REQUIRE_OK(be->event_create(be, &from));
  REQUIRE_OK(be->event_create(be, &to));
  be->ops.plan_quotas(s, quota.device[CUDA], counts.device[CUDA], &table);
  be->event_record(from, s);
  for (int i = 0; i < CALLS; i++) be->ops.plan_quotas(s, quota.device[CUDA], counts.device[CUDA], &table);
  be->event_record(to, s);
  CHECK_OK(be->stream_sync(s));
  printf("plan_quotas, 256 experts on 64 ranks: %.1f us\n", be->event_us(from, to) / CALLS);
  be->event_destroy(from), be->event_destroy(to);
  plan_drop(&x);
  DROP(&block, &counts, &quota);
  close_sides();
}

static void test_no_such_device(void) {
  bl_backend *be;
  const bl_cuda_options far = {.device = 4711};
  CHECK_FAILS(bl_backend_cuda_create(&far, &be), BL_EMACHINE, "CUDA device 4711");
}

static void test_device(void) {
  bl_backend *be;
  if (bl_backend_cuda_create(&options, &be) != BL_OK) SKIP(bl_error_text());
  be->destroy(be);
  RUN(test_no_such_device);
  RUN(test_memory);
  RUN(test_streams_and_events);
  for (int bf16 = 0; bf16 < 2; bf16++) {
    options.bf16 = bf16;
    groups_stand_alone = true;
    RUN(test_host_arrays_are_taken_at_once);
    RUN(test_every_operation);
    RUN(test_graph);
    if (!bf16) show_plan_time();
    RUN(test_groups_on_streams);
    RUN(test_groups_at_once);
  }
}
#else
#include "tests/check.h"

static void test_device(void) { SKIP("this build has no CUDA backend"); }
#endif

int main(int argc, char **argv) {
#ifdef BL_HAVE_CUDA
  if (argc > 1) only = argv[1];
#else
  (void)argc, (void)argv;
#endif
  RUN(test_device);
  TEST_MAIN_END;
}
