/* The threads transport: exact results on small integers, and errors that name the rank instead of hanging. */
#include "base/log.h"
#include "executor/transport.h"
#include "tests/check.h"
#include <pthread.h>

enum { MAX_RANKS = 8 };

typedef struct rank_test {
  bl_threads_world *world;
  int32_t rank, size;
  bl_backend *backend;
  bl_comm *comm;
  bl_stream *stream;
  void (*body)(struct rank_test *);
  bl_status status;
  char text[320];
} rank_test;

static void *run_rank(void *arg) {
  rank_test *t = arg;
  if (bl_backend_cpu_create(&t->backend) != BL_OK) return NULL;
  if (bl_threads_world_join(t->world, t->rank, t->backend, &t->comm) == BL_OK &&
      t->backend->stream_create(t->backend, &t->stream) == BL_OK)
    t->body(t);
  snprintf(t->text, sizeof t->text, "%s", bl_error_text());
  return NULL;
}

/* Runs body on `size` ranks; their results stay in ranks[]. */
static void run(int32_t size, double deadline_s, void (*body)(rank_test *), rank_test *ranks) {
  bl_threads_world *world;
  pthread_t threads[MAX_RANKS];
  REQUIRE_OK(bl_threads_world_create(size, deadline_s, &world));
  for (int32_t r = 0; r < size; r++) {
    ranks[r] = (rank_test){.world = world, .rank = r, .size = size, .body = body};
    pthread_create(&threads[r], NULL, run_rank, &ranks[r]);
  }
  for (int32_t r = 0; r < size; r++) pthread_join(threads[r], NULL);
  for (int32_t r = 0; r < size; r++) {
    bl_comm_free(ranks[r].comm);
    if (ranks[r].stream) ranks[r].backend->stream_destroy(ranks[r].stream);
    if (ranks[r].backend) ranks[r].backend->destroy(ranks[r].backend);
  }
  bl_threads_world_free(world);
}

/* -- what is right ----------------------------------------------------------------------------------------------------
 */

static int64_t reduce_n;

static void body_all_reduce(rank_test *t) {
  float *data = malloc((size_t)reduce_n * sizeof *data);
  bool right = true;
  for (int64_t i = 0; i < reduce_n; i++) data[i] = (float)(i % 97 + t->rank);
  CHECK_OK(bl_comm_all_reduce(t->comm, t->stream, data, reduce_n));
  for (int64_t i = 0; i < reduce_n; i++) right &= (int64_t)data[i] == t->size * (i % 97) + t->size * (t->size - 1) / 2;
  CHECK(right);
  free(data);
}

static void test_all_reduce(void) {
  rank_test ranks[MAX_RANKS];
  static const int64_t sizes[] = {0, 1, 3, 1000, (1 << 20) + 7};
  for (int32_t size = 1; size <= 5; size++)
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
      reduce_n = sizes[i];
      run(size, 20, body_all_reduce, ranks);
    }
}

/* Rank order: 1e8 + 1 - 1e8 in fp32 is 0 from left to right, and something else in most other orders. */
static void body_rank_order(rank_test *t) {
  static const float values[4] = {1e8F, 1.0F, -1e8F, 3.0F};
  float data[7];
  for (int i = 0; i < 7; i++) data[i] = values[t->rank];
  CHECK_OK(bl_comm_all_reduce(t->comm, t->stream, data, 7));
  for (int i = 0; i < 7; i++) CHECK_NEAR(data[i], 3.0, 0);
}

static void test_rank_order(void) {
  rank_test ranks[MAX_RANKS];
  run(4, 20, body_rank_order, ranks);
}

/* Rank a sends b (a * 3 + b) % 4 * 1000 bytes, none included. */
static int64_t sent(int32_t a, int32_t b) { return (a * 3 + b) % 4 * 1000; }

static void body_all_to_all(rank_test *t) {
  int64_t send_bytes[MAX_RANKS], recv_bytes[MAX_RANKS], n_send = 0, n_recv = 0, at = 0;
  bool right = true;
  for (int32_t p = 0; p < t->size; p++) {
    n_send += send_bytes[p] = sent(t->rank, p);
    n_recv += recv_bytes[p] = sent(p, t->rank);
  }
  unsigned char *send = malloc((size_t)n_send + 1), *recv = malloc((size_t)n_recv + 1);
  for (int32_t p = 0; p < t->size; p++)
    for (int64_t i = 0; i < send_bytes[p]; i++) send[at++] = (unsigned char)(16 * t->rank + p);
  for (int round = 0; round < 20; round++) {
    memset(recv, 255, (size_t)n_recv);
    CHECK_OK(bl_comm_all_to_all_v(t->comm, t->stream, send, send_bytes, recv, recv_bytes));
    at = 0;
    for (int32_t p = 0; p < t->size; p++)
      for (int64_t i = 0; i < recv_bytes[p]; i++) right &= recv[at++] == 16 * p + t->rank;
  }
  CHECK(right);
  free(send);
  free(recv);
}

static void body_nothing_to_all(rank_test *t) {
  const int64_t none[MAX_RANKS] = {0};
  CHECK_OK(bl_comm_all_to_all_v(t->comm, t->stream, NULL, none, NULL, none));
}

static void test_all_to_all(void) {
  rank_test ranks[MAX_RANKS];
  for (int32_t size = 1; size <= 6; size++) run(size, 20, body_all_to_all, ranks);
  run(3, 20, body_nothing_to_all, ranks);
}

static void body_small(rank_test *t) {
  int32_t all[MAX_RANKS], mine = 100 + t->rank, word = t->rank == 2 ? 77 : 0;
  CHECK_OK(bl_comm_all_gather_host(t->comm, &mine, sizeof mine, all));
  for (int32_t p = 0; p < t->size; p++) CHECK_INT(all[p], 100 + p);
  CHECK_OK(bl_comm_broadcast(t->comm, t->stream, &word, sizeof word, 2));
  CHECK_INT(word, 77);
  for (int i = 0; i < 50; i++) CHECK_OK(bl_comm_barrier(t->comm));
  /* Messages of one pair match in order of posting, also when the first comes last. */
  int32_t first = 0, second = 0, one = 1, two = 2;
  const int32_t next = (t->rank + 1) % t->size, before = (t->rank + t->size - 1) % t->size;
  CHECK_OK(t->comm->ops->group_begin(t->comm));
  CHECK_OK(t->comm->ops->recv(t->comm, t->stream, &first, sizeof first, before));
  CHECK_OK(t->comm->ops->recv(t->comm, t->stream, &second, sizeof second, before));
  CHECK_OK(t->comm->ops->send(t->comm, t->stream, &one, sizeof one, next));
  CHECK_OK(t->comm->ops->send(t->comm, t->stream, &two, sizeof two, next));
  CHECK_OK(t->comm->ops->group_end(t->comm, t->stream));
  CHECK(first == 1 && second == 2);
}

static void test_small_messages(void) {
  rank_test ranks[MAX_RANKS];
  run(4, 20, body_small, ranks);
}

static void body_groups(rank_test *t) {
  const int32_t row[2] = {t->rank / 2 * 2, t->rank / 2 * 2 + 1},
                column[3] = {t->rank % 2, t->rank % 2 + 2, t->rank % 2 + 4};
  bl_comm *rows, *columns;
  REQUIRE_OK(bl_comm_split(t->comm, row, 2, &rows));
  REQUIRE_OK(bl_comm_split(t->comm, column, 3, &columns));
  CHECK_INT(rows->rank, t->rank % 2);
  CHECK_INT(columns->rank, t->rank / 2);
  for (int i = 0; i < 10; i++) {
    float data[5] = {(float)t->rank, 1, 2, 3, 4};
    CHECK_OK(bl_comm_all_reduce(rows, t->stream, data, 5));
    CHECK_OK(bl_comm_barrier(columns));
    CHECK_OK(bl_comm_all_reduce(columns, t->stream, data, 5));
    CHECK(data[0] == 15 && data[4] == 24);
  }
  bl_comm *none;
  const int32_t others[1] = {(t->rank + 1) % 6};
  CHECK(bl_comm_split(t->comm, others, 1, &none) == BL_EINPUT);
  bl_comm_free(rows);
  bl_comm_free(columns);
}

static void test_groups(void) {
  rank_test ranks[MAX_RANKS];
  run(6, 20, body_groups, ranks);
}

/* -- what goes wrong --------------------------------------------------------------------------------------------------
 */

static void all_name(const rank_test *ranks, int32_t size, int32_t except, const char *expected) {
  for (int32_t r = 0; r < size; r++) {
    if (r == except) continue;
    CHECK(ranks[r].status == BL_ECOMM);
    if (!check_count(strstr(ranks[r].text, expected) != NULL))
      printf("rank %d: \"%s\" does not say \"%s\"\n", r, ranks[r].text, expected);
  }
}

static void body_mismatch(rank_test *t) {
  int64_t send_bytes[MAX_RANKS], recv_bytes[MAX_RANKS];
  char send[800] = {0}, recv[800];
  for (int32_t p = 0; p < t->size; p++) send_bytes[p] = recv_bytes[p] = 100;
  if (t->rank == 1) send_bytes[2] = 64;
  t->status = bl_comm_all_to_all_v(t->comm, t->stream, send, send_bytes, recv, recv_bytes);
  if (t->status == BL_OK) t->status = bl_comm_barrier(t->comm);
}

static void body_abort(rank_test *t) {
  float data[64] = {0};
  if (t->rank == 2) {
    bl_comm_abort(t->comm, "out of memory: 12 bytes for a test");
    return;
  }
  t->status = bl_comm_all_reduce(t->comm, t->stream, data, 64);
  if (t->status == BL_OK) t->status = bl_comm_barrier(t->comm);
}

static void body_absent_reduce(rank_test *t) {
  float data[64] = {0};
  if (t->rank == 3) return;
  t->status = bl_comm_all_reduce(t->comm, t->stream, data, 64);
}

static void body_absent_barrier(rank_test *t) {
  if (t->rank != 0) t->status = bl_comm_barrier(t->comm);
}

static void test_failures(void) {
  rank_test ranks[MAX_RANKS];
  run(4, 20, body_mismatch, ranks);
  all_name(ranks, 4, -1, "rank 1: sent 64 bytes where rank 2 expected 100");
  run(4, 20, body_abort, ranks);
  all_name(ranks, 4, 2, "rank 2: out of memory: 12 bytes for a test");
  const int64_t start = bl_now_us();
  run(4, 0.2, body_absent_reduce, ranks);
  all_name(ranks, 4, 3, "rank 3: ");
  run(3, 0.2, body_absent_barrier, ranks);
  all_name(ranks, 3, 0, "rank 0: did not come to a barrier within 0.2 s");
  CHECK(bl_now_us() - start < 5000000);
}

/* One rank fails in the middle of heavy traffic: all stop, none reads freed memory (the sanitizers watch). */
static void body_abort_in_traffic(rank_test *t) {
  enum { N = 20000 };
  float *data = calloc(N, sizeof *data);
  for (int i = 0; t->status == BL_OK; i++) {
    if (t->rank == 1 && i == 5) bl_comm_abort(t->comm, "stopped on purpose");
    t->status = bl_comm_all_reduce(t->comm, t->stream, data, N);
  }
  free(data);
}

static void test_abort_in_traffic(void) {
  rank_test ranks[MAX_RANKS];
  for (int i = 0; i < 5; i++) {
    run(5, 20, body_abort_in_traffic, ranks);
    all_name(ranks, 5, -1, "rank 1: stopped on purpose");
  }
}

static void test_joining(void) {
  bl_threads_world *world;
  bl_backend *backend;
  bl_comm *comm, *again;
  CHECK(bl_threads_world_create(0, 1, &world) == BL_EINPUT);
  REQUIRE_OK(bl_threads_world_create(2, 1, &world));
  REQUIRE_OK(bl_backend_cpu_create(&backend));
  CHECK(bl_threads_world_join(world, 2, backend, &comm) == BL_EINPUT);
  CHECK_OK(bl_threads_world_join(world, 1, backend, &comm));
  CHECK(bl_threads_world_join(world, 1, backend, &again) == BL_EINPUT);
  bl_comm_free(comm);
  backend->destroy(backend);
  bl_threads_world_free(world);
}

int main(void) {
  RUN(test_all_reduce);
  RUN(test_rank_order);
  RUN(test_all_to_all);
  RUN(test_small_messages);
  RUN(test_groups);
  RUN(test_failures);
  RUN(test_abort_in_traffic);
  RUN(test_joining);
  TEST_MAIN_END;
}
