/* check.h - a C test is a program: checks count, failures name their line, the last line sums up.
 *
 *   #include "tests/check.h"
 *   static void test_adding(void) { CHECK(1 + 1 == 2); }
 *   int main(void) {
 *     RUN(test_adding);
 *     TEST_MAIN_END;
 *   }
 *
 * Every CHECK is counted; it may be used from several threads. A failed check is printed and the test goes on; REQUIRE
 * leaves the function instead. SKIP("reason") counts and prints a reason and leaves the function. */
#ifndef BL_TESTS_CHECK_H
#define BL_TESTS_CHECK_H

#include "base/status.h"
#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A sanitizer's allocator returns NULL for a huge size, as malloc does, and does not end the program. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
const char *__asan_default_options(void);
const char *__tsan_default_options(void);
const char *__asan_default_options(void) { return "allocator_may_return_null=1"; }
const char *__tsan_default_options(void) { return "allocator_may_return_null=1"; }
#endif

static atomic_int check_n_passed, check_n_failed, check_n_skipped;

static inline bool check_count(bool passed) {
  atomic_fetch_add(passed ? &check_n_passed : &check_n_failed, 1);
  return passed;
}

#define CHECK(condition)                                                                        \
  do {                                                                                          \
    if (!check_count(condition)) printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
  } while (0)

#define REQUIRE(condition)                                         \
  do {                                                             \
    if (check_count(condition)) break;                             \
    printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
    return;                                                        \
  } while (0)

/* |a - b| <= tolerance; NaN never passes. */
#define CHECK_NEAR(a, b, tolerance)                                                                                   \
  do {                                                                                                                \
    const double check_a = (double)(a), check_b = (double)(b), check_t = (double)(tolerance);                         \
    if (!check_count(fabs(check_a - check_b) <= check_t)) {                                                           \
      printf("%s:%d: failed: %s near %s: %.17g, %.17g, tolerance %g\n", __FILE__, __LINE__, #a, #b, check_a, check_b, \
             check_t);                                                                                                \
    }                                                                                                                 \
  } while (0)

#define CHECK_INT(a, b)                                                                              \
  do {                                                                                               \
    const long long check_a = (long long)(a), check_b = (long long)(b);                              \
    if (!check_count(check_a == check_b)) {                                                          \
      printf("%s:%d: failed: %s == %s: %lld, %lld\n", __FILE__, __LINE__, #a, #b, check_a, check_b); \
    }                                                                                                \
  } while (0)

#define CHECK_STRING(a, b)                                                                                    \
  do {                                                                                                        \
    const char *check_a = (a), *check_b = (b);                                                                \
    if (!check_count(strcmp(check_a, check_b) == 0)) {                                                        \
      printf("%s:%d: failed: %s == %s:\n  \"%s\"\n  \"%s\"\n", __FILE__, __LINE__, #a, #b, check_a, check_b); \
    }                                                                                                         \
  } while (0)

/* The call returns BL_OK; its sentence is printed when not. */
#define CHECK_OK(call)                                                                                                 \
  do {                                                                                                                 \
    const bl_status check_status = (call);                                                                             \
    if (!check_count(check_status == BL_OK)) {                                                                         \
      printf("%s:%d: failed: %s: %s: %s\n", __FILE__, __LINE__, #call, bl_status_name(check_status), bl_error_text()); \
    }                                                                                                                  \
  } while (0)

/* As CHECK_OK(), and leaves the function when not. */
#define REQUIRE_OK(call)                                                                                             \
  do {                                                                                                               \
    const bl_status check_status = (call);                                                                           \
    if (check_count(check_status == BL_OK)) break;                                                                   \
    printf("%s:%d: failed: %s: %s: %s\n", __FILE__, __LINE__, #call, bl_status_name(check_status), bl_error_text()); \
    return;                                                                                                          \
  } while (0)

/* The call fails with this status and a sentence that contains `part`. */
#define CHECK_FAILS(call, status, part)                                                                            \
  do {                                                                                                             \
    bl_error_clear();                                                                                              \
    const bl_status check_status = (call);                                                                         \
    if (!check_count(check_status == (status) && strstr(bl_error_text(), (part)) != NULL)) {                       \
      printf("%s:%d: failed: %s: expected %s with \"%s\", found %s: \"%s\"\n", __FILE__, __LINE__, #call, #status, \
             (part), bl_status_name(check_status), bl_error_text());                                               \
    }                                                                                                              \
  } while (0)

#define SKIP(reason)                       \
  do {                                     \
    atomic_fetch_add(&check_n_skipped, 1); \
    printf("SKIP: %s\n", (reason));        \
    return;                                \
  } while (0)

#define RUN(test)                                                 \
  do {                                                            \
    const int check_before = check_n_failed;                      \
    test();                                                       \
    if (check_n_failed != check_before) printf("in %s\n", #test); \
    fflush(stdout);                                               \
  } while (0)

/* Whether the run is a sanitizer's or otherwise slow one: tests then take small sizes. */
static inline bool check_is_small(void) {
  const char *value = getenv("BL_TEST_SMALL");
  return value && *value && strcmp(value, "0") != 0;
}

/* Ends main(): the sum line and the exit code. A program without a single check has failed. */
#define TEST_MAIN_END                                                                              \
  do {                                                                                             \
    if (!check_n_passed && !check_n_failed && !check_n_skipped) {                                  \
      printf("%s: no check was made\n", __FILE__);                                                 \
      check_n_failed = 1;                                                                          \
    }                                                                                              \
    printf("%d passed, %d failed, %d skipped\n", check_n_passed, check_n_failed, check_n_skipped); \
    return check_n_failed != 0;                                                                    \
  } while (0)

#endif
