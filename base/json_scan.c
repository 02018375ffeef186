/* json_scan.c - a pass over the letters of a JSON text, ahead of cJSON. */
#include "base/json_scan.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

bl_status bl_json_fail_at(const char *name, const char *text, uint64_t size, uint64_t offset, const char *what) {
  unsigned long line = 1, column = 1;
  for (uint64_t i = 0; i < offset && i < size; i++, column++) {
    if (text[i] == '\n') {
      line++;
      column = 0;
    }
  }
  char found[32];
  const unsigned char c = offset < size ? (unsigned char)text[offset] : 0;
  if (offset >= size) {
    snprintf(found, sizeof found, "the end of the text");
  } else if (c > ' ' && c < 127) {
    snprintf(found, sizeof found, "'%c'", c);
  } else {
    snprintf(found, sizeof found, "byte 0x%02x", c);
  }
  return bl_fail(BL_EINPUT, "%s:%lu:%lu: expected %s, found %s", name, line, column, what, found);
}

static bool is_digit(const char *p, const char *end) { return p < end && *p >= '0' && *p <= '9'; }

static const char *skip_digits(const char *p, const char *end) {
  while (is_digit(p, end)) p++;
  return p;
}

/* Advances *at over -?(0|[1-9][0-9]*)(.[0-9]+)?([eE][+-]?[0-9]+)? ; on false *at is where it goes wrong. */
static bool skip_number(const char **at, const char *end) {
  const char *p = *at;
  if (*p == '-') p++;
  *at = p;
  if (!is_digit(p, end)) return false;
  if (*p == '0') {
    *at = p + 1;
    if (is_digit(p + 1, end)) return false;
  }
  p = skip_digits(p, end);
  if (p < end && *p == '.') {
    *at = ++p;
    if (!is_digit(p, end)) return false;
    p = skip_digits(p, end);
  }
  if (p < end && (*p == 'e' || *p == 'E')) {
    p++;
    if (p < end && (*p == '+' || *p == '-')) p++;
    *at = p;
    if (!is_digit(p, end)) return false;
    p = skip_digits(p, end);
  }
  *at = p;
  return true;
}

/* Advances *at behind the closing quote; on NULL all is well, else it is what was expected at *at. */
static const char *skip_string(const char **at, const char *end) {
  const char *p = *at + 1;
  for (; p < end && *p != '"'; p++) {
    *at = p;
    if ((unsigned char)*p < ' ') return "a string without control characters";
    if (*p != '\\') continue;
    if (++p >= end) break;
    if (end - p >= 5 && !memcmp(p, "u0000", 5)) return "a string without NUL";
  }
  *at = p < end ? p + 1 : end;
  return p < end ? NULL : "a closing quote";
}

bl_status bl_json_scan(const char *name, const char *text, uint64_t size) {
  const char *p = text, *end = text + size;
  int depth = 0;
  while (p < end) {
    const char *expected = NULL;
    if (*p == '"') {
      expected = skip_string(&p, end);
    } else if (*p == '-' || is_digit(p, end)) {
      if (!skip_number(&p, end)) expected = "a number as JSON spells them";
    } else if ((unsigned char)*p < ' ' && *p != '\t' && *p != '\n' && *p != '\r') {
      expected = "text without control characters";
    } else if ((*p == '{' || *p == '[') && ++depth > BL_JSON_MAX_DEPTH) {
      expected = "at most 64 levels";
    } else {
      depth -= *p == '}' || *p == ']';
      p++;
    }
    if (expected) return bl_json_fail_at(name, text, size, (uint64_t)(p - text), expected);
  }
  return depth > 0 ? bl_json_fail_at(name, text, size, size, "a closing bracket") : BL_OK;
}
