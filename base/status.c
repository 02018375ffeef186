/* status.c - the error sentence of each thread. */
#include "base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { TEXT_BYTES = 2048 };

static _Thread_local char error_text[TEXT_BYTES];

const char *bl_status_name(bl_status status) {
  switch (status) {
#define X(name, exit_code, text) \
  case BL_##name:                \
    return #name;
    BL_STATUS_LIST(X)
#undef X
  }
  return "?";
}

const char *bl_status_meaning(bl_status status) {
  switch (status) {
#define X(name, exit_code, text) \
  case BL_##name:                \
    return text;
    BL_STATUS_LIST(X)
#undef X
  }
  return "an unknown failure";
}

int bl_status_exit_code(bl_status status) {
  switch (status) {
#define X(name, exit_code, text) \
  case BL_##name:                \
    return exit_code;
    BL_STATUS_LIST(X)
#undef X
  }
  return 3;
}

/* Formats beside the buffer first: an argument may be bl_error_text() itself. */
static void set_text(const char *format, va_list args, const char *tail) {
  char text[TEXT_BYTES];
  const int n = vsnprintf(text, sizeof text, format, args);
  const size_t length = n < 0 ? 0 : strnlen(text, sizeof text);
  if (n < 0) text[0] = 0;
  if (tail) snprintf(text + length, sizeof text - length, ": %s", tail);
  memcpy(error_text, text, sizeof error_text);
}

bl_status(bl_fail)(bl_status status, const char *format, ...) {
  va_list args;
  va_start(args, format);
  set_text(format, args, NULL);
  va_end(args);
  return status;
}

bl_status(bl_fail_errno)(bl_status status, const char *format, ...) {
  char reason[128];
  const char *tail = strerror_r(errno, reason, sizeof reason);
  va_list args;
  va_start(args, format);
  set_text(format, args, tail);
  va_end(args);
  return status;
}

const char *bl_error_text(void) { return error_text; }

void bl_error_clear(void) { error_text[0] = 0; }
