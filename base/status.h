/* status.h - how every function of Ballast says that it failed.
 *
 * A function that can fail returns bl_status and leaves one clear sentence (what, where, what was
 * expected) in a buffer of the calling thread. Only main() prints it and turns the status into an
 * exit code. Callers pass failures upward with BL_TRY / BL_TRY_GOTO and add nothing unless they know
 * the place better. */
#ifndef BL_BASE_STATUS_H
#define BL_BASE_STATUS_H

#include <stddef.h>

/* name, exit code of a program that ends with it, meaning */
#define BL_STATUS_LIST(X)                                    \
  X(OK, 0, "done")                                           \
  X(EINPUT, 1, "the input is wrong")                         \
  X(EUSAGE, 2, "the command line is wrong")                  \
  X(EMACHINE, 3, "the machine failed: memory, disk, device") \
  X(ECOMM, 3, "another rank failed or was lost")             \
  X(ENOTSUP, 1, "not supported by this build or backend")    \
  X(EINTERRUPTED, 130, "stopped cleanly on request")

typedef enum bl_status {
#define X(name, exit_code, text) BL_##name,
  BL_STATUS_LIST(X)
#undef X
} bl_status;

/*! bl_status_name() : "OK", "EINPUT", ...; "?" for a value out of range. */
const char *bl_status_name(bl_status status);

/*! bl_status_meaning() : "the input is wrong", ...: for a failure that left no sentence. */
const char *bl_status_meaning(bl_status status);

/*! bl_status_exit_code() : the exit code of DESIGN section 8 for this status. */
int bl_status_exit_code(bl_status status);

/*! bl_fail() : records the sentence (printf format, without final newline or full stop) for the calling thread,
 *  replacing an older one.
 *  @return : `status`, so that `return bl_fail(BL_EINPUT, "...")` reads well. */
bl_status bl_fail(bl_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*! bl_fail_errno() : as bl_fail(), with ": " and the text of errno behind the sentence. */
bl_status bl_fail_errno(bl_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Tells clang's analyzer, which sees one file at a time, that the two above return their argument. */
#ifdef __clang_analyzer__
#define bl_fail(status, ...) (bl_fail((status), __VA_ARGS__), (status))
#define bl_fail_errno(status, ...) (bl_fail_errno((status), __VA_ARGS__), (status))
#endif

/*! bl_error_text() : the calling thread's last sentence, "" if none. Valid until its next bl_fail(). */
const char *bl_error_text(void);

/*! bl_error_clear() : forgets the calling thread's sentence. */
void bl_error_clear(void);

/* Returns the failure of `call` to the caller. */
#define BL_TRY(call)                                    \
  do {                                                  \
    const bl_status bl_try_status_ = (call);            \
    if (bl_try_status_ != BL_OK) return bl_try_status_; \
  } while (0)

/* Stores the failure of `call` in `status` and jumps to the clean-up at `label`. */
#define BL_TRY_GOTO(status, call, label) \
  do {                                   \
    (status) = (call);                   \
    if ((status) != BL_OK) goto label;   \
  } while (0)

/* In clean-up paths: runs `call`, keeps the first failure in `status`. */
#define BL_KEEP_FIRST(status, call)                    \
  do {                                                 \
    const bl_status bl_keep_status_ = (call);          \
    if ((status) == BL_OK) (status) = bl_keep_status_; \
  } while (0)

#endif
