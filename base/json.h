/* json.h - strict JSON in, tidy JSON out. Reading stands on cJSON.
 *
 * Strict: duplicate keys, unknown keys, wrong types, out-of-range or non-finite numbers are BL_EINPUT errors of the
 * form "FILE: PATH: expected X, found Y" (PATH such as layout.stages[2][0]). What is not JSON by the letter of RFC 8259
 * (text behind the document, NUL bytes, 01, control characters in strings, more than 64 levels...) is one of the form
 * "FILE:LINE:COLUMN: expected X, found Y". The C locale's decimal point is taken for granted.
 * Integers are exact below 2^53; larger ones are out of range whatever `max` says. */
#ifndef BL_BASE_JSON_H
#define BL_BASE_JSON_H

#include "base/status.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct bl_json_doc bl_json_doc; /* a parsed document; owns all values */

/* A value inside a document, with where it stands. Plain value type; valid while the document is. */
typedef struct bl_json {
  const bl_json_doc *doc;
  const void *node; /* cJSON; NULL when absent */
} bl_json;

/*! bl_json_load() : reads a file, plain or gzip, of at most 256 MiB.  The caller frees *out with bl_json_free(). */
bl_status bl_json_load(const char *path, bl_json_doc **out, bl_json *root);

/*! bl_json_parse() : `name` stands for the file in messages; text is NUL-terminated after `size` bytes. */
bl_status bl_json_parse(const char *name, const char *text, uint64_t size, bl_json_doc **out, bl_json *root);
void bl_json_free(bl_json_doc *doc); /* NULL is fine */

/*! bl_json_fail() : a BL_EINPUT sentence with file and path of `value` in front. */
bl_status bl_json_fail(bl_json value, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*! bl_json_keys() : `object` is an object and has no keys but those listed (space separated). */
bl_status bl_json_keys(bl_json object, const char *allowed);

bool bl_json_has(bl_json object, const char *key);

/* Required members: absent is an error. Arguments: object, key, range (inclusive), out. */
bl_status bl_json_member(bl_json object, const char *key, bl_json *out);
bl_status bl_json_int(bl_json object, const char *key, int64_t min, int64_t max, int64_t *out);
bl_status bl_json_number(bl_json object, const char *key, double min, double max, double *out);
bl_status bl_json_bool(bl_json object, const char *key, bool *out);
bl_status bl_json_string(bl_json object, const char *key, const char **out);
bl_status bl_json_text(bl_json object, const char *key, char *out, size_t size); /* with its end within out[size] */
bl_status bl_json_array(bl_json object, const char *key, int64_t min_items, int64_t max_items, bl_json *out,
                        int64_t *n);
bl_status bl_json_object(bl_json object, const char *key, bl_json *out);

/* Optional members: *out keeps its value when the key is absent. */
bl_status bl_json_int_or(bl_json object, const char *key, int64_t min, int64_t max, int64_t *out);
bl_status bl_json_number_or(bl_json object, const char *key, double min, double max, double *out);
bl_status bl_json_bool_or(bl_json object, const char *key, bool *out);
bl_status bl_json_string_or(bl_json object, const char *key, const char **out);
bl_status bl_json_text_or(bl_json object, const char *key, char *out, size_t size);

/* Array items. Iterate with first/next (each O(1)). */
bl_json bl_json_first(bl_json array);
bl_json bl_json_next(bl_json item);
bool bl_json_is_null(bl_json value); /* no value: absent, or behind the last item (JSON's null is a value) */
bl_status bl_json_as_int(bl_json value, int64_t min, int64_t max, int64_t *out);
bl_status bl_json_as_number(bl_json value, double min, double max, double *out);
bl_status bl_json_as_string(bl_json value, const char **out);
bl_status bl_json_as_array(bl_json value, int64_t min_items, int64_t max_items, int64_t *n);
bool bl_json_value_is_array(bl_json value);

/* Writer: straight to a stream, commas and indentation by itself. `pretty` = indented (short arrays of numbers stay on
 * one line), otherwise one line (JSONL). Non-finite numbers are written as null. Numbers as %.9g.
 * At most 64 levels. Bytes of a string that are not UTF-8 are written as the Latin-1 characters of the same value. */
typedef struct bl_json_writer {
  FILE *stream;
  bool pretty;
  int depth;
  uint64_t has_items; /* bit per depth: an item has been written */
  uint64_t is_flat;   /* bit per depth: stays on one line */
  bool after_key;
} bl_json_writer;

void bl_json_writer_init(bl_json_writer *w, FILE *stream, bool pretty);
void bl_json_begin_object(bl_json_writer *w);
void bl_json_end_object(bl_json_writer *w);
void bl_json_begin_array(bl_json_writer *w);
void bl_json_begin_flat_array(bl_json_writer *w); /* on one line also when pretty */
void bl_json_begin_flat_object(bl_json_writer *w);
void bl_json_end_array(bl_json_writer *w);
void bl_json_key(bl_json_writer *w, const char *key);
void bl_json_write_int(bl_json_writer *w, int64_t value);
void bl_json_write_number(bl_json_writer *w, double value);
void bl_json_write_bool(bl_json_writer *w, bool value);
void bl_json_write_string(bl_json_writer *w, const char *value);
void bl_json_write_null(bl_json_writer *w);

/* A member of an object: key, then value. */
void bl_json_put_int(bl_json_writer *w, const char *key, int64_t value);
void bl_json_put_number(bl_json_writer *w, const char *key, double value);
void bl_json_put_bool(bl_json_writer *w, const char *key, bool value);
void bl_json_put_string(bl_json_writer *w, const char *key, const char *value);

void bl_json_newline(bl_json_writer *w); /* ends the document (or the JSONL row) */

#endif
