/* transport_cases.h - what every transport must do, as a rank sees it: exact results on small integers, where every order
 * of adding gives the same bits, and errors that name the rank instead of hanging. */
#ifndef BL_TESTS_EXEC_TRANSPORT_CASES_H
#define BL_TESTS_EXEC_TRANSPORT_CASES_H

#include "base/log.h"
#include "base/rng.h"
#include "executor/transport.h"
#include "tests/check.h"
#include <pthread.h>
#include <unistd.h>

enum { MAX_RANKS = 8 };

typedef struct rank_test {
  int32_t rank, size;
  bl_backend *backend;
  bl_comm *comm;
  bl_stream *stream;
  void (*body)(struct rank_test *);
  bl_status status;
  char text[320];
} rank_test;

static bl_threads_world *threads_world;

static void *run_thread(void *arg) {
  rank_test *t = arg;
  if (bl_backend_cpu_create(&t->backend) != BL_OK) return NULL;
  if (bl_threads_world_join(threads_world, t->rank, t->backend, &t->comm) == BL_OK &&
      t->backend->stream_create(t->backend, &t->stream) == BL_OK)
    t->body(t);
  snprintf(t->text, sizeof t->text, "%s", bl_error_text());
  return NULL;
}

/* Runs body on `size` ranks; their results stay in ranks[]. */
static void run_on_threads(int32_t size, double deadline_s, void (*body)(rank_test *), rank_test *ranks) {
  pthread_t threads[MAX_RANKS];
  REQUIRE_OK(bl_threads_world_create(size, deadline_s, &threads_world));
  for (int32_t r = 0; r < size; r++) {
    ranks[r] = (rank_test){.rank = r, .size = size, .body = body};
    pthread_create(&threads[r], NULL, run_thread, &ranks[r]);
  }
  for (int32_t r = 0; r < size; r++) pthread_join(threads[r], NULL);
  for (int32_t r = 0; r < size; r++) {
    bl_comm_free(ranks[r].comm);
    if (ranks[r].stream) ranks[r].backend->stream_destroy(ranks[r].stream);
    if (ranks[r].backend) ranks[r].backend->destroy(ranks[r].backend);
  }
  bl_threads_world_free(threads_world);
}

/* -- what is right --------------------------------------------------------------------------------------------------- */

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

/* Rank order: 1e8 + 1 - 1e8 in fp32 is 0 from left to right, and something else in most other orders. */
static void body_rank_order(rank_test *t) {
  static const float values[4] = {1e8F, 1.0F, -1e8F, 3.0F};
  float data[7];
  for (int i = 0; i < 7; i++) data[i] = values[t->rank];
  CHECK_OK(bl_comm_all_reduce(t->comm, t->stream, data, 7));
  for (int i = 0; i < 7; i++) CHECK_NEAR(data[i], 3.0, 0);
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

static void body_small(rank_test *t) {
  int32_t all[MAX_RANKS], mine = 100 + t->rank, word = t->rank == t->size - 1 ? 77 : 0;
  CHECK_OK(bl_comm_all_gather_host(t->comm, &mine, sizeof mine, all));
  for (int32_t p = 0; p < t->size; p++) CHECK_INT(all[p], 100 + p);
  CHECK_OK(bl_comm_broadcast(t->comm, t->stream, &word, sizeof word, t->size - 1));
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

/* An even number of ranks, in pairs and in two rows across. */
static void body_groups(rank_test *t) {
  int32_t pair[2] = {t->rank / 2 * 2, t->rank / 2 * 2 + 1}, across[MAX_RANKS];
  for (int32_t i = 0; i < t->size / 2; i++) across[i] = 2 * i + t->rank % 2;
  bl_comm *pairs, *rows, *none;
  REQUIRE_OK(bl_comm_split(t->comm, pair, 2, &pairs));
  REQUIRE_OK(bl_comm_split(t->comm, across, t->size / 2, &rows));
  CHECK_INT(pairs->rank, t->rank % 2);
  CHECK_INT(rows->rank, t->rank / 2);
  for (int i = 0; i < 10; i++) {
    float data[5] = {(float)t->rank, 1, 2, 3, 4};
    CHECK_OK(bl_comm_all_reduce(pairs, t->stream, data, 5));
    CHECK_OK(bl_comm_barrier(rows));
    CHECK_OK(bl_comm_all_reduce(rows, t->stream, data, 5));
    CHECK((int32_t)data[0] == t->size * (t->size - 1) / 2 && (int32_t)data[4] == 4 * t->size);
  }
  const int32_t others[1] = {(t->rank + 1) % t->size};
  CHECK(bl_comm_split(t->comm, others, 1, &none) == BL_EINPUT);
  bl_comm_free(pairs);
  bl_comm_free(rows);
}

static uint64_t digest_of_rank[MAX_RANKS];

/* Uneven exchanges and sums of whole numbers drawn afresh; the digest is of all that this rank received. */
static void body_drawn(rank_test *t) {
  enum { MOST = 3000, ROUNDS = 40 };
  uint64_t digest = 0;
  float *send = calloc((size_t)t->size * MOST, sizeof *send), *recv = calloc((size_t)t->size * MOST, sizeof *recv);
  for (int round = 0; round < ROUNDS; round++) {
    int64_t send_bytes[MAX_RANKS], recv_bytes[MAX_RANKS], n_send = 0, n_recv = 0;
    const uint64_t draw = (uint64_t)round;
    for (int32_t p = 0; p < t->size; p++) {
      const uint64_t there = bl_hash_u64(draw, (uint64_t)t->rank, (uint64_t)p, 1) % MOST,
                     back = bl_hash_u64(draw, (uint64_t)p, (uint64_t)t->rank, 1) % MOST;
      n_send += send_bytes[p] = there % 3 ? (int64_t)(there * sizeof *send) : 0;
      n_recv += recv_bytes[p] = back % 3 ? (int64_t)(back * sizeof *send) : 0;
    }
    const int64_t n = n_recv / (int64_t)sizeof *recv;
    for (int64_t i = 0; i < n_send / (int64_t)sizeof *send; i++)
      send[i] = (float)(bl_hash_u64(draw, (uint64_t)t->rank, (uint64_t)i, 2) % 1000);
    CHECK_OK(bl_comm_all_to_all_v(t->comm, t->stream, send, send_bytes, recv, recv_bytes));
    digest = bl_hash_bytes(recv, (uint64_t)n_recv, digest);
    for (int64_t i = n; i < MOST; i++) recv[i] = (float)t->rank;
    CHECK_OK(bl_comm_all_reduce(t->comm, t->stream, recv, MOST));
    digest = bl_hash_bytes(recv, MOST * sizeof *recv, digest);
  }
  digest_of_rank[t->rank] = digest;
  free(send);
  free(recv);
}

/* -- what goes wrong ------------------------------------------------------------------------------------------------- */

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

/* The last rank never comes; rank 0 waits for it, and the others, since longer, for rank 0. */
static void body_chain(rank_test *t) {
  char word;
  const int32_t last = t->size - 1;
  if (t->rank == last) return;
  if (t->rank == 0) usleep(300000);
  t->status = t->comm->ops->recv(t->comm, t->stream, &word, 1, t->rank == 0 ? last : 0);
}
#endif
