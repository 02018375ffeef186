/* test_base_json.c - the strict reader on good, bad and hostile text; the writer read back. */
#include "base/file.h"
#include "base/json.h"
#include "tests/check.h"

#include <stdint.h>
#include <unistd.h>

static bl_status parse(const char *text, bl_json_doc **doc, bl_json *root) {
  return bl_json_parse("plan.json", text, strlen(text), doc, root);
}

/* The text is refused with this sentence (a part of it). */
static void refused(const char *text, const char *part) {
  bl_json_doc *doc = NULL;
  bl_json root;
  bl_error_clear();
  const bl_status status = parse(text, &doc, &root);
  if (!check_count(status == BL_EINPUT && strstr(bl_error_text(), part))) {
    printf("text %s: expected a sentence with \"%s\", found %s \"%s\"\n", text, part, bl_status_name(status),
           bl_error_text());
  }
  if (status == BL_OK) bl_json_free(doc);
}

static void test_not_json(void) {
  refused("", "plan.json:1:1: expected JSON, found the end of the text");
  refused("{\"a\": 1", "plan.json:1:8: expected a closing bracket, found the end of the text");
  refused("{\"a\": 1}\n  x", "plan.json:2:3: expected the end of the document, found 'x'");
  refused("{} {}", "expected the end of the document");
  refused("{\"a\": 01}", "expected a number as JSON spells them");
  refused("[+1]", "expected JSON");
  refused("[-]", "expected a number");
  refused("[1.]", "expected a number");
  refused("[.5]", "expected JSON");
  refused("[1e]", "expected a number");
  refused("[1,]", "plan.json:1:4");
  refused("[NaN]", "expected JSON");
  refused("[Infinity]", "expected JSON");
  refused("[1 2]", "expected JSON");
  refused("{'a': 1}", "expected JSON");
  refused("{a: 1}", "expected JSON");
  refused("[\"a\nb\"]", "without control characters");
  refused("[\"ab", "a closing quote");
  refused("[\"ab\\", "a closing quote");
  refused("[\"a\\u0000b\"]", "without NUL");
  refused("[\"a\\x\"]", "expected JSON");
  refused("\v[1]", "without control characters");
  refused("[1e999]", "[0]: the number is too large");
  refused("// words\n{}", "expected JSON");
}

static void test_nul_byte_and_depth(void) {
  bl_json_doc *doc = NULL;
  bl_json root;
  CHECK_FAILS(bl_json_parse("x", "{}\0{}", 5, &doc, &root), BL_EINPUT, "x:1:3: expected text without control");
  char deep[4096];
  memset(deep, '[', 2000);
  memset(deep + 2000, ']', 2000);
  CHECK_FAILS(bl_json_parse("x", deep, 4000, &doc, &root), BL_EINPUT, "at most 64 levels");
  memset(deep, '[', 64);
  memset(deep + 64, ']', 64);
  REQUIRE_OK(bl_json_parse("x", deep, 128, &doc, &root));
  bl_json_free(doc);
}

static void test_duplicates(void) {
  refused("{\"a\": 1, \"b\": 2, \"a\": 3}", "plan.json: top level: expected every key once, found \"a\" twice");
  refused("{\"l\": [0, {\"k\": 1, \"k\": 1}]}", "plan.json: l[1]: expected every key once, found \"k\" twice");
  refused("{\"a\": 1, \"\\u0061\": 2}", "found \"a\" twice");
  bl_json_doc *doc = NULL;
  bl_json root;
  REQUIRE_OK(parse("{\"a\": 1, \"A\": 2, \"\": 3}", &doc, &root));
  int64_t value = 0;
  CHECK_OK(bl_json_int(root, "A", 0, 9, &value));
  CHECK_INT(value, 2);
  bl_json_free(doc);
}

static const char SAMPLE[] =
    "{\"version\": 1, \"name\": \"wide \\u00e9\", \"rate\": 0.25, \"on\": true, \"none\": null,\n"
    " \"layout\": {\"stages\": [[0, 1], [2, 7.5]], \"dp\": 4}, \"big\": 9007199254740993}";

static void test_members(void) {
  bl_json_doc *doc = NULL;
  bl_json root, layout, stages;
  REQUIRE_OK(parse(SAMPLE, &doc, &root));
  int64_t i = -1, n = 0;
  double d = 0;
  bool b = false;
  const char *s = NULL;
  CHECK_OK(bl_json_int(root, "version", 1, 1, &i));
  CHECK_INT(i, 1);
  CHECK_OK(bl_json_string(root, "name", &s));
  CHECK_STRING(s, "wide \xc3\xa9");
  CHECK_OK(bl_json_number(root, "rate", 0, 1, &d));
  CHECK_NEAR(d, 0.25, 0);
  CHECK_OK(bl_json_bool(root, "on", &b));
  CHECK(b);
  CHECK_FAILS(bl_json_int(root, "version", 2, 3, &i), BL_EINPUT,
              "plan.json: version: expected an integer from 2 to 3, found 1");
  CHECK_FAILS(bl_json_int(root, "rate", 0, 3, &i), BL_EINPUT, "rate: expected an integer from 0 to 3, found 0.25");
  CHECK_FAILS(bl_json_int(root, "big", 0, INT64_MAX, &i), BL_EINPUT, "big: expected an integer of at least 0");
  CHECK_FAILS(bl_json_number(root, "name", 0, 1, &d), BL_EINPUT, "name: expected a number from 0 to 1, found \"wide");
  CHECK_FAILS(bl_json_number(root, "none", -INFINITY, INFINITY, &d), BL_EINPUT, "none: expected a number, found null");
  CHECK_FAILS(bl_json_string(root, "on", &s), BL_EINPUT, "on: expected a string, found true");
  CHECK_FAILS(bl_json_bool(root, "version", &b), BL_EINPUT, "version: expected true or false, found 1");
  CHECK_FAILS(bl_json_object(root, "version", &layout), BL_EINPUT, "version: expected an object, found 1");
  CHECK_FAILS(bl_json_int(root, "missing", 0, 1, &i), BL_EINPUT,
              "plan.json: top level: expected the key \"missing\", found none");
  REQUIRE_OK(bl_json_object(root, "layout", &layout));
  CHECK_FAILS(bl_json_member(layout, "tp", &stages), BL_EINPUT, "plan.json: layout: expected the key \"tp\"");
  CHECK_FAILS(bl_json_array(layout, "stages", 3, 3, &stages, &n), BL_EINPUT,
              "layout.stages: expected an array of 3, found an array of 2");
  CHECK_FAILS(bl_json_array(layout, "dp", 0, 9, &stages, &n), BL_EINPUT, "layout.dp: expected an array, found 4");
  REQUIRE_OK(bl_json_array(layout, "stages", 1, 9, &stages, &n));
  CHECK_INT(n, 2);
  const bl_json second = bl_json_next(bl_json_first(stages));
  CHECK_OK(bl_json_as_array(second, 2, 2, &n));
  const bl_json last = bl_json_next(bl_json_first(second));
  CHECK_FAILS(bl_json_as_int(last, 0, 9, &i), BL_EINPUT,
              "plan.json: layout.stages[1][1]: expected an integer from 0 to 9, found 7.5");
  CHECK(bl_json_is_null(bl_json_next(last)));
  CHECK(bl_json_is_null(bl_json_next(bl_json_next(last))));
  CHECK(!bl_json_is_null(last));
  CHECK_INT(i, 1); /* failures leave the target alone */
  bl_json_free(doc);
}

/* A string with room for it, to the last byte; nothing is written where it does not fit. */
static void test_text(void) {
  bl_json_doc *doc = NULL;
  bl_json root;
  char out[5] = "none";
  REQUIRE_OK(parse("{\"four\": \"abcd\", \"five\": \"abcde\", \"number\": 4}", &doc, &root));
  CHECK_FAILS(bl_json_text(root, "five", out, sizeof out), BL_EINPUT, "five: expected at most 4 bytes, found 5");
  CHECK_FAILS(bl_json_text(root, "number", out, sizeof out), BL_EINPUT, "number: expected a string");
  CHECK_FAILS(bl_json_text(root, "absent", out, sizeof out), BL_EINPUT, "absent");
  CHECK_OK(bl_json_text_or(root, "absent", out, sizeof out));
  CHECK(strcmp(out, "none") == 0);
  CHECK_OK(bl_json_text_or(root, "four", out, sizeof out));
  CHECK(strcmp(out, "abcd") == 0);
  bl_json_free(doc);
}

static void test_keys_and_optional(void) {
  bl_json_doc *doc = NULL;
  bl_json root;
  REQUIRE_OK(parse("{\"a\": 1, \"ab\": 2}", &doc, &root));
  CHECK_OK(bl_json_keys(root, "a ab c"));
  CHECK_FAILS(bl_json_keys(root, "a abc"), BL_EINPUT, "expected only the keys a abc, found \"ab\"");
  CHECK_FAILS(bl_json_keys(root, ""), BL_EINPUT, "found \"a\"");
  int64_t i = 7;
  CHECK_OK(bl_json_int_or(root, "c", 0, 1, &i));
  CHECK_INT(i, 7);
  CHECK_OK(bl_json_int_or(root, "ab", 0, 2, &i));
  CHECK_INT(i, 2);
  CHECK_FAILS(bl_json_int_or(root, "ab", 0, 1, &i), BL_EINPUT, "ab: expected");
  CHECK(bl_json_has(root, "a") && !bl_json_has(root, "b"));
  bl_json_free(doc);
  REQUIRE_OK(parse("[1]", &doc, &root));
  CHECK_FAILS(bl_json_keys(root, "a"), BL_EINPUT, "top level: expected an object, found an array of 1");
  CHECK_FAILS(bl_json_int(root, "a", 0, 1, &i), BL_EINPUT, "top level: expected an object");
  CHECK(!bl_json_has(root, "a"));
  bl_json_free(doc);
  bl_json_free(NULL);
}

/* Every prefix and every single changed byte of a document: refused or read, never a crash. */
static void test_damaged_text(void) {
  char text[sizeof SAMPLE];
  int n_refused = 0, n_read = 0;
  for (size_t i = 0; i < sizeof SAMPLE - 1; i++) {
    for (int value = 0; value < 256; value += 5) {
      memcpy(text, SAMPLE, sizeof SAMPLE);
      text[i] = (char)value;
      bl_json_doc *doc = NULL;
      bl_json root;
      const bl_status status = bl_json_parse("x", text, sizeof SAMPLE - 1, &doc, &root);
      n_refused += status == BL_EINPUT;
      n_read += status == BL_OK;
      if (status == BL_OK) bl_json_free(doc);
    }
    memcpy(text, SAMPLE, i);
    text[i] = 0;
    bl_json_doc *doc = NULL;
    bl_json root;
    CHECK_INT(parse(text, &doc, &root), BL_EINPUT);
  }
  CHECK(n_refused > 1000 && n_read > 100);
  CHECK_INT(n_refused + n_read, (int)(sizeof SAMPLE - 1) * 52);
}

static void write_sample(bl_json_writer *w) {
  bl_json_begin_object(w);
  bl_json_key(w, "home");
  bl_json_begin_flat_array(w);
  for (int i = 0; i < 3; i++) bl_json_write_int(w, i - 1);
  bl_json_end_array(w);
  bl_json_key(w, "empty");
  bl_json_begin_array(w);
  bl_json_end_array(w);
  bl_json_key(w, "list");
  bl_json_begin_array(w);
  bl_json_write_number(w, 1.0 / 3);
  bl_json_write_number(w, (double)INFINITY);
  bl_json_begin_flat_object(w);
  bl_json_put_bool(w, "x", false);
  bl_json_key(w, "y");
  bl_json_begin_array(w);
  bl_json_write_null(w);
  bl_json_write_number(w, 1e300);
  bl_json_end_array(w);
  bl_json_end_object(w);
  bl_json_end_array(w);
  bl_json_put_string(w, "t\"\\\n\x01", "\xc3\xa9\xff\xc0\xaf\xed\xa0\x80");
  bl_json_end_object(w);
  bl_json_newline(w);
}

static void test_writer(void) {
  static const char PRETTY[] =
      "{\n  \"home\": [-1, 0, 1],\n  \"empty\": [],\n  \"list\": [\n    0.333333333,\n    null,\n"
      "    {\"x\": false, \"y\": [null, 1e+300]}\n  ],\n"
      "  \"t\\\"\\\\\\n\\u0001\": \"\xc3\xa9\\u00ff\\u00c0\\u00af\\u00ed\\u00a0\\u0080\"\n}\n";
  static const char LINE[] =
      "{\"home\":[-1,0,1],\"empty\":[],\"list\":[0.333333333,null,{\"x\":false,\"y\":[null,1e+300]}],"
      "\"t\\\"\\\\\\n\\u0001\":\"\xc3\xa9\\u00ff\\u00c0\\u00af\\u00ed\\u00a0\\u0080\"}\n";
  for (int pretty = 0; pretty < 2; pretty++) {
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    REQUIRE(stream != NULL);
    bl_json_writer w;
    bl_json_writer_init(&w, stream, pretty != 0);
    write_sample(&w);
    if (!pretty) write_sample(&w); /* JSONL: the second row is like the first */
    fclose(stream);
    if (!pretty) {
      CHECK_STRING(text + size / 2, LINE);
      text[size / 2] = 0;
    }
    CHECK_STRING(text, pretty ? PRETTY : LINE);
    bl_json_doc *doc = NULL;
    bl_json root;
    CHECK_OK(bl_json_parse("own", text, strlen(text), &doc, &root));
    bl_json_free(doc);
    free(text);
  }
}

static void test_load(void) {
  bl_json_doc *doc = NULL;
  bl_json root;
  CHECK_FAILS(bl_json_load("/nonexistent/plan.json", &doc, &root), BL_EINPUT, "/nonexistent/plan.json: cannot open");
  CHECK_FAILS(bl_json_load("/dev/null", &doc, &root), BL_EINPUT, "/dev/null:1:1: expected JSON");
}

int main(void) {
  RUN(test_not_json);
  RUN(test_nul_byte_and_depth);
  RUN(test_duplicates);
  RUN(test_members);
  RUN(test_text);
  RUN(test_keys_and_optional);
  RUN(test_damaged_text);
  RUN(test_writer);
  RUN(test_load);
  TEST_MAIN_END;
}
