/* The threads transport: exact results on small integers, and errors that name the rank instead of hanging. */
#include "base/log.h"
#include "tests/exec/transport_cases.h"

/* -- what is right ----------------------------------------------------------------------------------------------------
 */

static void test_all_reduce(void) {
  rank_test ranks[MAX_RANKS];
  static const int64_t sizes[] = {0, 1, 3, 1000, (1 << 20) + 7};
  for (int32_t size = 1; size <= 5; size++)
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
      reduce_n = sizes[i];
      run_on_threads(size, 20, body_all_reduce, ranks);
    }
}

static void test_rank_order(void) {
  rank_test ranks[MAX_RANKS];
  run_on_threads(4, 20, body_rank_order, ranks);
}

static void test_all_to_all(void) {
  rank_test ranks[MAX_RANKS];
  for (int32_t size = 1; size <= 6; size++) run_on_threads(size, 20, body_all_to_all, ranks);
  run_on_threads(3, 20, body_nothing_to_all, ranks);
}

static void test_small_messages(void) {
  rank_test ranks[MAX_RANKS];
  run_on_threads(4, 20, body_small, ranks);
}

static void test_groups(void) {
  rank_test ranks[MAX_RANKS];
  run_on_threads(6, 20, body_groups, ranks);
}

static void test_drawn(void) {
  rank_test ranks[MAX_RANKS];
  uint64_t before[MAX_RANKS];
  run_on_threads(5, 20, body_drawn, ranks);
  memcpy(before, digest_of_rank, sizeof before);
  run_on_threads(5, 20, body_drawn, ranks);
  CHECK(memcmp(before, digest_of_rank, 5 * sizeof *before) == 0 && before[0] != before[1]);
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

static void test_failures(void) {
  rank_test ranks[MAX_RANKS];
  run_on_threads(4, 20, body_mismatch, ranks);
  all_name(ranks, 4, -1, "rank 1: sent 64 bytes where rank 2 expected 100");
  run_on_threads(4, 20, body_abort, ranks);
  all_name(ranks, 4, 2, "rank 2: out of memory: 12 bytes for a test");
  const int64_t start = bl_now_us();
  run_on_threads(4, 0.2, body_absent_reduce, ranks);
  all_name(ranks, 4, 3, "rank 3: ");
  run_on_threads(3, 0.2, body_absent_barrier, ranks);
  all_name(ranks, 3, 0, "rank 0: did not come to a barrier within 0.2 s");
  CHECK(bl_now_us() - start < 5000000);
}

static void test_abort_in_traffic(void) {
  rank_test ranks[MAX_RANKS];
  for (int i = 0; i < 5; i++) {
    run_on_threads(5, 20, body_abort_in_traffic, ranks);
    all_name(ranks, 5, -1, "rank 1: stopped on purpose");
  }
}

/* Who waits for a rank that waits itself does not blame that one. */
static void test_chain(void) {
  rank_test ranks[MAX_RANKS];
  run_on_threads(3, 0.8, body_chain, ranks);
  all_name(ranks, 3, 2, "rank 2: sent nothing within 0.8 s");
}

static void test_joining(void) {
  bl_threads_world *world = NULL;
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
  RUN(test_drawn);
  RUN(test_failures);
  RUN(test_abort_in_traffic);
  RUN(test_chain);
  RUN(test_joining);
  TEST_MAIN_END;
}
