/* test_base_memory.c - allocation, growth, the arena and the error sentences. */
#include "base/memory.h"
#include "tests/check.h"

#include <pthread.h>
#include <stdint.h>

static void test_status(void) {
  CHECK_STRING(bl_status_name(BL_EINPUT), "EINPUT");
  CHECK_STRING(bl_status_name((bl_status)99), "?");
  CHECK_INT(bl_status_exit_code(BL_OK), 0);
  CHECK_INT(bl_status_exit_code(BL_EINPUT), 1);
  CHECK_INT(bl_status_exit_code(BL_EUSAGE), 2);
  CHECK_INT(bl_status_exit_code(BL_EMACHINE), 3);
  CHECK_INT(bl_status_exit_code(BL_ECOMM), 3);
  CHECK_INT(bl_status_exit_code(BL_EINTERRUPTED), 130);
  CHECK_INT(bl_fail(BL_EINPUT, "%s %d", "row", 3), BL_EINPUT);
  CHECK_STRING(bl_error_text(), "row 3");
  (void)bl_fail(BL_EINPUT, "layer 2: %s", bl_error_text());
  CHECK_STRING(bl_error_text(), "layer 2: row 3");
  bl_error_clear();
  CHECK_STRING(bl_error_text(), "");
}

static void test_sentence_is_cut_not_overrun(void) {
  char *big = NULL;
  REQUIRE_OK(bl_new(&big, 100001, 1, "text"));
  memset(big, 'x', 100000);
  (void)bl_fail(BL_EINPUT, "%s", big);
  CHECK(strlen(bl_error_text()) > 1000 && strlen(bl_error_text()) < 100000);
  (void)bl_fail_errno(BL_EINPUT, "%s", big);
  CHECK(strlen(bl_error_text()) < 100000);
  free(big);
}

static void *other_thread(void *argument) {
  (void)bl_fail(BL_EINPUT, "of the other thread");
  return argument;
}

static void test_sentence_belongs_to_its_thread(void) {
  pthread_t thread;
  (void)bl_fail(BL_EINPUT, "of this thread");
  REQUIRE(pthread_create(&thread, NULL, other_thread, NULL) == 0);
  pthread_join(thread, NULL);
  CHECK_STRING(bl_error_text(), "of this thread");
}

static void test_new(void) {
  int64_t *numbers = NULL;
  REQUIRE_OK(bl_new(&numbers, 1000, sizeof *numbers, "numbers"));
  int64_t sum = 0;
  for (int i = 0; i < 1000; i++) sum |= numbers[i];
  CHECK_INT(sum, 0);
  free(numbers);
  numbers = NULL;
  REQUIRE_OK(bl_new(&numbers, 0, 8, "nothing"));
  CHECK(numbers != NULL);
  free(numbers);
  void *untouched = &sum;
  CHECK_FAILS(bl_new(&untouched, SIZE_MAX / 2, 3, "quotas"), BL_EMACHINE, "quotas");
  CHECK_FAILS(bl_new(&untouched, (size_t)1 << 62, 1, "quotas"), BL_EMACHINE,
              "out of memory: 4611686018427387904 bytes");
  CHECK(untouched == &sum);
}

static void test_grow(void) {
  int *items = NULL;
  size_t capacity = 0;
  int n_moves = 0;
  for (int i = 0; i < 100000; i++) {
    const size_t before = capacity;
    if (bl_grow(&items, &capacity, (size_t)i + 1, sizeof *items, "items") != BL_OK) break;
    n_moves += capacity != before;
    items[i] = i;
  }
  CHECK(n_moves < 20);
  REQUIRE(capacity >= 100000);
  int wrong = 0;
  for (int i = 0; i < 100000; i++) wrong += items[i] != i;
  CHECK_INT(wrong, 0);
  const size_t before = capacity;
  CHECK_FAILS(bl_grow(&items, &capacity, SIZE_MAX / 2, sizeof *items, "items"), BL_EMACHINE, "items");
  CHECK(capacity == before && items[99999] == 99999);
  free(items);
}

static void test_arena(void) {
  bl_arena *arena = NULL;
  REQUIRE_OK(bl_arena_create(&arena));
  for (int round = 0; round < 3; round++) {
    unsigned char *before = NULL;
    for (size_t size = 1; size < 300000; size = size * 3 + 1) {
      unsigned char *bytes = NULL;
      REQUIRE_OK(bl_arena_take(arena, &bytes, size, 1));
      CHECK_INT((uintptr_t)bytes % 64, 0);
      unsigned char any = 0;
      for (size_t i = 0; i < size; i++) any |= bytes[i];
      CHECK_INT(any, 0); /* also after a reset, where it has been written to */
      memset(bytes, 0xff, size);
      CHECK(bytes != before);
      before = bytes;
    }
    bl_arena_reset(arena);
  }
  const size_t held = bl_arena_bytes(arena);
  void *memory = NULL;
  REQUIRE_OK(bl_arena_take(arena, &memory, 0, 8));
  CHECK(memory != NULL);
  CHECK_INT(bl_arena_bytes(arena), held);
  CHECK_FAILS(bl_arena_take(arena, &memory, SIZE_MAX / 4, 16), BL_EMACHINE, "out of memory");
  CHECK_FAILS(bl_arena_take(arena, &memory, SIZE_MAX - 10, 1), BL_EMACHINE, "out of memory");
  CHECK_INT(bl_arena_bytes(arena), held);
  bl_arena_free(arena);
  bl_arena_free(NULL);
}

static void test_arena_reuses_its_memory(void) {
  bl_arena *arena = NULL;
  REQUIRE_OK(bl_arena_create(&arena));
  size_t held = 0;
  for (int round = 0; round < 50; round++) {
    for (int i = 0; i < 40; i++) {
      void *memory = NULL;
      if (bl_arena_take(arena, &memory, 1000 + (size_t)i * 500, 1) != BL_OK) check_count(false);
    }
    if (round == 0) held = bl_arena_bytes(arena);
    bl_arena_reset(arena);
  }
  CHECK_INT(bl_arena_bytes(arena), held);
  bl_arena_free(arena);
}

int main(void) {
  RUN(test_status);
  RUN(test_sentence_is_cut_not_overrun);
  RUN(test_sentence_belongs_to_its_thread);
  RUN(test_new);
  RUN(test_grow);
  RUN(test_arena);
  RUN(test_arena_reuses_its_memory);
  TEST_MAIN_END;
}
