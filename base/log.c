/* log.c - lines on stderr, each written whole, and a progress line that gives way to them. */
#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const int64_t PROGRESS_AFTER_US = 1000000, PROGRESS_EVERY_US = 100000;
static const char CLEAR_LINE[] = "\r\033[K";

static const char *_Atomic program_name = "ballast";
static atomic_int log_level = 1;
static atomic_bool progress_is_shown;

void bl_log_set_program(const char *name) { program_name = name; }
void bl_log_set_level(int level) { log_level = level; }

/* One fwrite a line: stdio's lock keeps lines of threads apart. */
static void write_line(const char *mark, const char *format, va_list args) {
  char line[4096];
  const size_t size = sizeof line - 1; /* room for the newline */
  const char *clear = atomic_exchange(&progress_is_shown, false) ? CLEAR_LINE : "";
  const int head = snprintf(line, size, "%s%s: %s", clear, program_name, mark);
  const size_t start = head < 0 ? 0 : strnlen(line, size);
  if (vsnprintf(line + start, size - start, format, args) < 0) line[start] = 0;
  const size_t end = strnlen(line, size);
  line[end] = '\n';
  fwrite(line, 1, end + 1, stderr);
}

void bl_log(int level, const char *format, ...) {
  if (level > log_level) return;
  va_list args;
  va_start(args, format);
  write_line("", format, args);
  va_end(args);
}

void bl_warn(const char *format, ...) {
  va_list args;
  va_start(args, format);
  write_line("warning: ", format, args);
  va_end(args);
}

int64_t bl_now_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

void bl_progress_start(bl_progress *progress) {
  progress->start_us = progress->last_us = bl_now_us();
  progress->shown = false;
}

void bl_progress_update(bl_progress *progress, const char *format, ...) {
  const int64_t now = bl_now_us();
  if (now - progress->start_us < PROGRESS_AFTER_US || now - progress->last_us < PROGRESS_EVERY_US) return;
  progress->last_us = now;
  if (!isatty(STDERR_FILENO)) return;
  char text[256];
  va_list args;
  va_start(args, format);
  if (vsnprintf(text, sizeof text, format, args) < 0) text[0] = 0;
  va_end(args);
  fprintf(stderr, "%s%s: %s", CLEAR_LINE, program_name, text);
  progress->shown = true;
  progress_is_shown = true;
}

void bl_progress_end(bl_progress *progress) {
  if (progress->shown && atomic_exchange(&progress_is_shown, false)) fputs(CLEAR_LINE, stderr);
  progress->shown = false;
}
