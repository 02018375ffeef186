/* log.h - messages to a person, on stderr. Results go to stdout and never through here.
 *
 * A level is defined by what one line means: 0 errors and warnings, 1 once a run, 2 once a step, 3 once a layer,
 * 4 once a collective. Thread-safe (a line is written whole). */
#ifndef BL_BASE_LOG_H
#define BL_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

void bl_log_set_program(const char *name); /* prefix of every line; a literal, kept by reference */
void bl_log_set_level(int level);          /* default 1 */

void bl_log(int level, const char *format, ...) __attribute__((format(printf, 2, 3)));
void bl_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A progress line that rewrites itself, shown only when stderr is a terminal and the work has taken over a second. */
typedef struct bl_progress {
  int64_t start_us, last_us;
  bool shown;
} bl_progress;

void bl_progress_start(bl_progress *progress);
void bl_progress_update(bl_progress *progress, const char *format, ...) __attribute__((format(printf, 2, 3)));
void bl_progress_end(bl_progress *progress); /* clears the line */

/*! bl_now_us() : monotonic microseconds. Only for measuring: no decision reads a clock. */
int64_t bl_now_us(void);

#endif
