/* json_write.c - the writer: commas, indentation and escapes. */
#include "base/json.h"

#include <inttypes.h>
#include <math.h>

void bl_json_writer_init(bl_json_writer *w, FILE *stream, bool pretty) {
  *w = (bl_json_writer){.stream = stream, .pretty = pretty};
}

static uint64_t bit(const bl_json_writer *w) { return (uint64_t)1 << (w->depth & 63); }

static void new_line(const bl_json_writer *w) {
  fputc('\n', w->stream);
  for (int i = 0; i < w->depth; i++) fputs("  ", w->stream);
}

/* What stands before a value or key: the comma and, when pretty, the line break. */
static void separate(bl_json_writer *w) {
  if (w->after_key) {
    w->after_key = false;
    return;
  }
  const bool flat = !w->pretty || (w->is_flat & bit(w));
  if (w->has_items & bit(w)) fputs(flat && w->pretty ? ", " : ",", w->stream);
  if (w->depth > 0 && !flat) new_line(w);
  w->has_items |= bit(w);
}

static void begin(bl_json_writer *w, char bracket, bool flat) {
  separate(w);
  fputc(bracket, w->stream);
  flat = flat || (w->depth > 0 && (w->is_flat & bit(w)));
  w->depth++;
  w->has_items &= ~bit(w);
  w->is_flat = flat ? w->is_flat | bit(w) : w->is_flat & ~bit(w);
}

static void end(bl_json_writer *w, char bracket) {
  const bool breaks = w->pretty && !(w->is_flat & bit(w)) && (w->has_items & bit(w));
  w->depth--;
  if (breaks) new_line(w);
  fputc(bracket, w->stream);
}

void bl_json_begin_object(bl_json_writer *w) { begin(w, '{', false); }
void bl_json_begin_flat_object(bl_json_writer *w) { begin(w, '{', true); }
void bl_json_end_object(bl_json_writer *w) { end(w, '}'); }
void bl_json_begin_array(bl_json_writer *w) { begin(w, '[', false); }
void bl_json_begin_flat_array(bl_json_writer *w) { begin(w, '[', true); }
void bl_json_end_array(bl_json_writer *w) { end(w, ']'); }

/* Length of the well-formed UTF-8 sequence at p (NUL-terminated), 0 when there is none. */
static int utf8_length(const unsigned char *p) {
  const int n = p[0] < 0x80                   ? 1
                : p[0] >= 0xc2 && p[0] < 0xe0 ? 2
                : (p[0] & 0xf0) == 0xe0       ? 3
                : p[0] >= 0xf0 && p[0] < 0xf5 ? 4
                                              : 0;
  for (int i = 1; i < n; i++) {
    if ((p[i] & 0xc0) != 0x80) return 0;
  }
  if (p[0] == 0xe0 && p[1] < 0xa0) return 0;                                    /* overlong */
  if (p[0] == 0xed && p[1] > 0x9f) return 0;                                    /* half of a surrogate pair */
  if ((p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f)) return 0; /* overlong, beyond Unicode */
  return n;
}

static void write_quoted(FILE *stream, const char *text) {
  fputc('"', stream);
  for (const unsigned char *p = (const unsigned char *)text; *p;) {
    const int n = utf8_length(p);
    if (*p == '"' || *p == '\\') {
      fprintf(stream, "\\%c", *p++);
    } else if (*p == '\n') {
      fputs("\\n", stream);
      p++;
    } else if (*p < ' ' || n == 0) {
      fprintf(stream, "\\u%04x", *p++);
    } else {
      fwrite(p, 1, (size_t)n, stream);
      p += n;
    }
  }
  fputc('"', stream);
}

void bl_json_key(bl_json_writer *w, const char *key) {
  separate(w);
  write_quoted(w->stream, key);
  fputs(w->pretty ? ": " : ":", w->stream);
  w->after_key = true;
}

void bl_json_write_int(bl_json_writer *w, int64_t value) {
  separate(w);
  fprintf(w->stream, "%" PRId64, value);
}

void bl_json_write_number(bl_json_writer *w, double value) {
  separate(w);
  if (isfinite(value)) {
    fprintf(w->stream, "%.9g", value);
  } else {
    fputs("null", w->stream);
  }
}

void bl_json_write_bool(bl_json_writer *w, bool value) {
  separate(w);
  fputs(value ? "true" : "false", w->stream);
}

void bl_json_write_string(bl_json_writer *w, const char *value) {
  separate(w);
  write_quoted(w->stream, value);
}

void bl_json_write_null(bl_json_writer *w) {
  separate(w);
  fputs("null", w->stream);
}

void bl_json_put_int(bl_json_writer *w, const char *key, int64_t value) {
  bl_json_key(w, key);
  bl_json_write_int(w, value);
}

void bl_json_put_number(bl_json_writer *w, const char *key, double value) {
  bl_json_key(w, key);
  bl_json_write_number(w, value);
}

void bl_json_put_bool(bl_json_writer *w, const char *key, bool value) {
  bl_json_key(w, key);
  bl_json_write_bool(w, value);
}

void bl_json_put_string(bl_json_writer *w, const char *key, const char *value) {
  bl_json_key(w, key);
  bl_json_write_string(w, value);
}

void bl_json_newline(bl_json_writer *w) {
  fputc('\n', w->stream);
  w->has_items = 0;
}
