/* json.c - the strict reader: cJSON's tree, with types, ranges and keys checked and every error located. */
#include "base/json.h"
#include "base/file.h"
#include "base/json_scan.h"
#include "base/memory.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const double MAX_EXACT = 9007199254740991.0; /* 2^53 - 1: the neighbours of 2^53 are read as 2^53 too */

struct bl_json_doc {
  char *name;
  cJSON *root;
};

static const cJSON *node_of(bl_json value) { return value.node; }
static bl_json at(bl_json near, const cJSON *node) { return (bl_json){near.doc, node}; }

/* -- where a value stands and what it is, for messages ---------------------------------------------------------------
 */

/* Appends to `path` the way from `node` to `wanted`; the depth is bounded by the scan before parsing. */
static bool find_path(const cJSON *node, const cJSON *wanted, char *path, size_t size) {
  if (node == wanted) return true;
  const size_t length = strlen(path);
  const bool is_array = cJSON_IsArray(node);
  long index = 0;
  for (const cJSON *child = node->child; child; child = child->next, index++) {
    if (is_array) {
      snprintf(path + length, size - length, "[%ld]", index);
    } else {
      snprintf(path + length, size - length, "%s%s", length ? "." : "", child->string);
    }
    if (find_path(child, wanted, path, size)) return true;
  }
  path[length] = 0;
  return false;
}

static void describe(const cJSON *node, char *text, size_t size) {
  if (!node) {
    snprintf(text, size, "nothing");
  } else if (cJSON_IsNumber(node)) {
    snprintf(text, size, "%.17g", node->valuedouble);
    double back;
    char shorter[32];
    snprintf(shorter, sizeof shorter, "%.9g", node->valuedouble);
    back = strtod(shorter, NULL);
    if (back >= node->valuedouble && back <= node->valuedouble) snprintf(text, size, "%s", shorter);
  } else if (cJSON_IsString(node)) {
    snprintf(text, size, "\"%.40s%s\"", node->valuestring, strlen(node->valuestring) > 40 ? "..." : "");
  } else if (cJSON_IsBool(node)) {
    snprintf(text, size, "%s", cJSON_IsTrue(node) ? "true" : "false");
  } else if (cJSON_IsNull(node)) {
    snprintf(text, size, "null");
  } else if (cJSON_IsArray(node)) {
    snprintf(text, size, "an array of %d", cJSON_GetArraySize(node));
  } else {
    snprintf(text, size, "an object");
  }
  for (; *text; text++) {
    if ((unsigned char)*text < ' ' || *text == 127) *text = '?';
  }
}

bl_status bl_json_fail(bl_json value, const char *format, ...) {
  char path[512] = "", text[1024];
  if (value.node) find_path(value.doc->root, value.node, path, sizeof path);
  va_list args;
  va_start(args, format);
  if (vsnprintf(text, sizeof text, format, args) < 0) text[0] = 0;
  va_end(args);
  return bl_fail(BL_EINPUT, "%s: %s: %s", value.doc->name, *path ? path : "top level", text);
}

static bl_status fail_expected(bl_json value, const char *what) {
  char found[128];
  describe(node_of(value), found, sizeof found);
  return bl_json_fail(value, "expected %s, found %s", what, found);
}

/* -- parsing ---------------------------------------------------------------------------------------------------------
 */

static int compare_keys(const void *a, const void *b) {
  const cJSON *const *x = a, *const *y = b;
  return strcmp((*x)->string, (*y)->string);
}

static bl_status check_duplicates(bl_json object) {
  const cJSON *node = node_of(object), **sorted = NULL;
  const int n = cJSON_GetArraySize(node);
  BL_TRY(bl_new(&sorted, (size_t)n, sizeof *sorted, "the keys of a JSON object"));
  int i = 0;
  for (const cJSON *child = node->child; child; child = child->next) sorted[i++] = child;
  qsort(sorted, (size_t)n, sizeof *sorted, compare_keys);
  bl_status status = BL_OK;
  for (i = 1; i < n && status == BL_OK; i++) {
    if (compare_keys(&sorted[i - 1], &sorted[i]) != 0) continue;
    status = bl_json_fail(object, "expected every key once, found \"%s\" twice", sorted[i]->string);
  }
  free(sorted);
  return status;
}

static bl_status check_tree(bl_json value) {
  const cJSON *node = node_of(value);
  if (cJSON_IsNumber(node) && !isfinite(node->valuedouble)) return bl_json_fail(value, "the number is too large");
  if (cJSON_IsObject(node)) BL_TRY(check_duplicates(value));
  for (const cJSON *child = node->child; child; child = child->next) BL_TRY(check_tree(at(value, child)));
  return BL_OK;
}

static bl_status parse_into(bl_json_doc *doc, const char *text, uint64_t size) {
  BL_TRY(bl_json_scan(doc->name, text, size));
  const char *end = NULL;
  doc->root = cJSON_ParseWithLengthOpts(text, size, &end, 0);
  const uint64_t stop = end ? (uint64_t)(end - text) : size;
  if (!doc->root) return bl_json_fail_at(doc->name, text, size, stop, "JSON");
  const uint64_t rest = stop + strspn(text + stop, " \t\r\n");
  if (rest < size) return bl_json_fail_at(doc->name, text, size, rest, "the end of the document");
  return check_tree((bl_json){doc, doc->root});
}

bl_status bl_json_parse(const char *name, const char *text, uint64_t size, bl_json_doc **out, bl_json *root) {
  bl_json_doc *doc = NULL;
  BL_TRY(bl_new(&doc, 1, sizeof *doc, "a JSON document"));
  doc->name = strdup(name);
  const bl_status status = doc->name ? parse_into(doc, text, size) : bl_fail(BL_EMACHINE, "out of memory: a name");
  if (status != BL_OK) {
    bl_json_free(doc);
    return status;
  }
  *out = doc;
  *root = (bl_json){doc, doc->root};
  return BL_OK;
}

bl_status bl_json_load(const char *path, bl_json_doc **out, bl_json *root) {
  char *text = NULL;
  uint64_t size = 0;
  BL_TRY(bl_file_read(path, (uint64_t)256 << 20, &text, &size));
  const bl_status status = bl_json_parse(path, text, size, out, root);
  free(text);
  return status;
}

void bl_json_free(bl_json_doc *doc) {
  if (!doc) return;
  cJSON_Delete(doc->root);
  free(doc->name);
  free(doc);
}

/* -- values ----------------------------------------------------------------------------------------------------------
 */

bl_status bl_json_as_int(bl_json value, int64_t min, int64_t max, int64_t *out) {
  const cJSON *node = node_of(value);
  char what[96];
  if (min == INT64_MIN && max == INT64_MAX) {
    snprintf(what, sizeof what, "an integer");
  } else if (max == INT64_MAX) {
    snprintf(what, sizeof what, "an integer of at least %lld", (long long)min);
  } else {
    snprintf(what, sizeof what, "an integer from %lld to %lld", (long long)min, (long long)max);
  }
  if (!cJSON_IsNumber(node)) return fail_expected(value, what);
  const double number = node->valuedouble;
  if (!(fabs(number) <= MAX_EXACT) || floor(number) < number) return fail_expected(value, what);
  const int64_t integer = (int64_t)number;
  if (integer < min || integer > max) return fail_expected(value, what);
  *out = integer;
  return BL_OK;
}

bl_status bl_json_as_number(bl_json value, double min, double max, double *out) {
  const cJSON *node = node_of(value);
  if (cJSON_IsNumber(node) && node->valuedouble >= min && node->valuedouble <= max) {
    *out = node->valuedouble;
    return BL_OK;
  }
  char what[96];
  if (isfinite(min) && isfinite(max)) {
    snprintf(what, sizeof what, "a number from %.9g to %.9g", min, max);
  } else if (isfinite(min)) {
    snprintf(what, sizeof what, "a number of at least %.9g", min);
  } else {
    snprintf(what, sizeof what, "a number");
  }
  return fail_expected(value, what);
}

bl_status bl_json_as_string(bl_json value, const char **out) {
  if (!cJSON_IsString(node_of(value))) return fail_expected(value, "a string");
  *out = node_of(value)->valuestring;
  return BL_OK;
}

bl_status bl_json_as_array(bl_json value, int64_t min_items, int64_t max_items, int64_t *n) {
  const cJSON *node = node_of(value);
  if (!cJSON_IsArray(node)) return fail_expected(value, "an array");
  const int64_t items = cJSON_GetArraySize(node);
  if (items < min_items || items > max_items) {
    char what[96];
    if (min_items == max_items) {
      snprintf(what, sizeof what, "an array of %lld", (long long)min_items);
    } else if (max_items == INT64_MAX) {
      snprintf(what, sizeof what, "an array of at least %lld", (long long)min_items);
    } else {
      snprintf(what, sizeof what, "an array of %lld to %lld", (long long)min_items, (long long)max_items);
    }
    return fail_expected(value, what);
  }
  *n = items;
  return BL_OK;
}

static bl_status as_bool(bl_json value, bool *out) {
  if (!cJSON_IsBool(node_of(value))) return fail_expected(value, "true or false");
  *out = cJSON_IsTrue(node_of(value));
  return BL_OK;
}

bool bl_json_is_null(bl_json value) { return value.node == NULL; }
bool bl_json_value_is_array(bl_json value) { return cJSON_IsArray(node_of(value)); }
bl_json bl_json_first(bl_json array) { return at(array, array.node ? node_of(array)->child : NULL); }
bl_json bl_json_next(bl_json item) { return at(item, item.node ? node_of(item)->next : NULL); }

/* -- members ---------------------------------------------------------------------------------------------------------
 */

static const cJSON *find(bl_json object, const char *key) {
  return cJSON_IsObject(node_of(object)) ? cJSON_GetObjectItemCaseSensitive(node_of(object), key) : NULL;
}

bool bl_json_has(bl_json object, const char *key) { return find(object, key) != NULL; }

bl_status bl_json_keys(bl_json object, const char *allowed) {
  if (!cJSON_IsObject(node_of(object))) return fail_expected(object, "an object");
  for (const cJSON *child = node_of(object)->child; child; child = child->next) {
    const size_t length = strlen(child->string);
    bool known = false;
    for (const char *p = allowed; *p && !known;) {
      const size_t word = strcspn(p, " ");
      known = word == length && !memcmp(p, child->string, word);
      p += word + (p[word] == ' ');
    }
    if (!known) return bl_json_fail(object, "expected only the keys %s, found \"%.60s\"", allowed, child->string);
  }
  return BL_OK;
}

bl_status bl_json_member(bl_json object, const char *key, bl_json *out) {
  if (!cJSON_IsObject(node_of(object))) return fail_expected(object, "an object");
  const cJSON *node = find(object, key);
  if (!node) return bl_json_fail(object, "expected the key \"%s\", found none", key);
  *out = at(object, node);
  return BL_OK;
}

bl_status bl_json_int(bl_json object, const char *key, int64_t min, int64_t max, int64_t *out) {
  bl_json value = {NULL, NULL};
  BL_TRY(bl_json_member(object, key, &value));
  return bl_json_as_int(value, min, max, out);
}

bl_status bl_json_number(bl_json object, const char *key, double min, double max, double *out) {
  bl_json value = {NULL, NULL};
  BL_TRY(bl_json_member(object, key, &value));
  return bl_json_as_number(value, min, max, out);
}

bl_status bl_json_bool(bl_json object, const char *key, bool *out) {
  bl_json value = {NULL, NULL};
  BL_TRY(bl_json_member(object, key, &value));
  return as_bool(value, out);
}

bl_status bl_json_string(bl_json object, const char *key, const char **out) {
  bl_json value = {NULL, NULL};
  BL_TRY(bl_json_member(object, key, &value));
  return bl_json_as_string(value, out);
}

bl_status bl_json_text(bl_json object, const char *key, char *out, size_t size) {
  const char *text = "";
  BL_TRY(bl_json_string(object, key, &text));
  const size_t length = strlen(text);
  if (length >= size) return bl_json_fail(object, "%s: expected at most %zu bytes, found %zu", key, size - 1, length);
  memcpy(out, text, length + 1);
  return BL_OK;
}

bl_status bl_json_text_or(bl_json object, const char *key, char *out, size_t size) {
  return bl_json_has(object, key) ? bl_json_text(object, key, out, size) : BL_OK;
}

bl_status bl_json_array(bl_json object, const char *key, int64_t min_items, int64_t max_items, bl_json *out,
                        int64_t *n) {
  bl_json value = {NULL, NULL};
  BL_TRY(bl_json_member(object, key, &value));
  BL_TRY(bl_json_as_array(value, min_items, max_items, n));
  *out = value;
  return BL_OK;
}

bl_status bl_json_object(bl_json object, const char *key, bl_json *out) {
  bl_json value = {NULL, NULL};
  BL_TRY(bl_json_member(object, key, &value));
  if (!cJSON_IsObject(node_of(value))) return fail_expected(value, "an object");
  *out = value;
  return BL_OK;
}

bl_status bl_json_int_or(bl_json object, const char *key, int64_t min, int64_t max, int64_t *out) {
  return bl_json_has(object, key) ? bl_json_int(object, key, min, max, out) : BL_OK;
}

bl_status bl_json_number_or(bl_json object, const char *key, double min, double max, double *out) {
  return bl_json_has(object, key) ? bl_json_number(object, key, min, max, out) : BL_OK;
}

bl_status bl_json_bool_or(bl_json object, const char *key, bool *out) {
  return bl_json_has(object, key) ? bl_json_bool(object, key, out) : BL_OK;
}

bl_status bl_json_string_or(bl_json object, const char *key, const char **out) {
  return bl_json_has(object, key) ? bl_json_string(object, key, out) : BL_OK;
}
