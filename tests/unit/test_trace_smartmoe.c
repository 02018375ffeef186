/* The SmartMoE text: the fast and the careful parser agree, and everything that is wrong gets a sentence. */
#include "tests/unit/trace_files.h"
#include "traces/import_smartmoe.h"
#include "traces/smartmoe_text.h"
#include <inttypes.h>
#include <sys/stat.h>

/* A text with the padding that the parsers want. */
typedef struct padded {
  char *buffer, *text;
  uint64_t n;
} padded;

static padded pad(const char *text, uint64_t n) {
  padded p = {.buffer = malloc(n + 2 * BL_TEXT_PADDING), .n = n};
  memset(p.buffer, '.', n + 2 * BL_TEXT_PADDING); /* what lies around must not matter */
  p.text = p.buffer + BL_TEXT_PADDING;
  memcpy(p.text, text, n);
  return p;
}

static bl_text_format format_of(int32_t layers, int32_t rows, int32_t experts) {
  bl_text_format format = {layers, rows, experts, NULL};
  format.dots = malloc(((size_t)layers * (size_t)rows * (size_t)experts + BL_TEXT_PADDING) * sizeof *format.dots);
  return format;
}

/* Prints counts as the artifact does; with `plain` numbers without ".0". */
static char *print_text(const bl_text_format *format, const uint32_t *counts, bool plain, uint64_t *n) {
  char *text = NULL;
  size_t size = 0;
  FILE *stream = open_memstream(&text, &size);
  for (int32_t layer = 0; layer < format->layers; layer++) {
    fprintf(stream, "%" PRId32 ":[", layer);
    for (int32_t row = 0; row < format->rows; row++)
      for (int32_t e = 0; e < format->experts; e++)
        fprintf(stream, "%s%" PRIu32 "%s%s",
                e > 0     ? ", "
                : row > 0 ? ", ["
                          : "[",
                *counts++, plain ? "" : ".0", e + 1 == format->experts ? "]" : "");
    fprintf(stream, "]\n");
  }
  fclose(stream);
  *n = size;
  return text;
}

/* Random counts below `below`, every row with the same sum. */
static void random_rows(bl_rng *rng, const bl_text_format *format, uint64_t below, uint32_t *counts) {
  const size_t experts = (size_t)format->experts;
  const uint64_t digits[] = {1, 10, 100, 1000, 10000, 100000};
  for (int32_t row = 0; row < format->layers * format->rows; row++)
    for (size_t e = 0; e < experts; e++) {
      uint64_t limit = digits[bl_rng_below(rng, 6)];
      if (limit > below) limit = below;
      counts[(size_t)row * experts + e] = (uint32_t)bl_rng_below(rng, limit);
      if (row > 0) { /* the same counts as in the first row, turned */
        counts[(size_t)row * experts + e] = counts[(e + (size_t)row) % experts];
      }
    }
}

static void check_agree(int32_t layers, int32_t rows, int32_t experts, uint64_t below, uint64_t seed) {
  bl_text_format format = format_of(layers, rows, experts);
  const size_t n_counts = (size_t)layers * (size_t)rows * (size_t)experts;
  const int64_t stride = (int64_t)rows * experts + 3;
  uint32_t *counts = malloc(n_counts * sizeof *counts);
  uint32_t *fast = calloc((size_t)layers * (size_t)stride, sizeof *fast);
  uint32_t *careful = calloc((size_t)layers * (size_t)stride, sizeof *careful);
  bl_rng rng;
  bl_rng_seed(&rng, seed, 0);
  random_rows(&rng, &format, below, counts);
  uint64_t n = 0;
  char *text = print_text(&format, counts, false, &n);
  padded p = pad(text, n);
  CHECK(bl_text_parse_fast(p.text, n, &format, fast, stride) == (below <= 10000));
  CHECK_OK(bl_text_parse_careful("f", p.text, n, &format, careful, stride));
  for (size_t i = 0; i < n_counts; i++) {
    const size_t at = i / ((size_t)rows * (size_t)experts) * (size_t)stride + i % ((size_t)rows * (size_t)experts);
    if (careful[at] != counts[i] || (below <= 10000 && fast[at] != counts[i])) CHECK(false);
  }
  bl_text_format measured;
  CHECK_OK(bl_text_measure("f", p.text, n, &measured));
  CHECK(measured.layers == layers && measured.rows == rows && measured.experts == experts);
  free(p.buffer);
  free(text);
  text = print_text(&format, counts, true, &n);
  p = pad(text, n);
  CHECK(!bl_text_parse_fast(p.text, n, &format, fast, stride));
  CHECK_OK(bl_text_parse("f", p.text, n, &format, careful, stride));
  for (size_t i = 0; i < (size_t)rows * (size_t)experts; i++) CHECK(careful[i] == counts[i]);
  free(p.buffer);
  free(text);
  free(counts);
  free(fast);
  free(careful);
  free(format.dots);
}

static void test_parsers_agree(void) {
  check_agree(24, 4, 32, 10000, 1);
  check_agree(1, 1, 1, 10000, 2);
  check_agree(12, 3, 64, 10000, 3);
  check_agree(11, 1, 65, 10000, 4);
  check_agree(2, 2, 200, 10000, 5);
  check_agree(101, 5, 2, 1, 6);
  check_agree(2, 2, 64, 100000, 8); /* five digits somewhere: only the careful one */
}

/* Every byte of a long row replaced by every other of these: the fast parser accepts nothing that the careful one does
 * not read alike, and both see most of it. */
static void test_every_byte(void) {
  enum { E = 130 };
  static const char bytes[] = "0x.,[] -e\n";
  bl_text_format format = format_of(2, 1, E);
  uint32_t counts[2 * E], fast[2 * E], careful[2 * E];
  for (uint32_t i = 0; i < 2 * E; i++) counts[i] = i % E * 71 % 1700;
  uint64_t n = 0;
  int accepted = 0;
  char *text = print_text(&format, counts, false, &n);
  padded p = pad(text, n);
  for (uint64_t i = 0; i < n; i++)
    for (size_t b = 0; b < sizeof bytes - 1; b++) {
      p.text[i] = bytes[b];
      const bool is_fast = bl_text_parse_fast(p.text, n, &format, fast, E);
      const bl_status status = bl_text_parse_careful("f", p.text, n, &format, careful, E);
      if (is_fast) CHECK(status == BL_OK && memcmp(fast, careful, sizeof fast) == 0);
      accepted += is_fast;
      p.text[i] = text[i];
    }
  CHECK(accepted > 100 && accepted < (int)n);
  free(p.buffer);
  free(text);
  free(format.dots);
}

static const bl_text_format tiny = {2, 2, 3, NULL};
static const char good[] = "0:[[1.0, 2.0, 3.0], [3.0, 3.0, 0.0]]\n1:[[6.0, 0.0, 0.0], [0.0, 6.0, 0.0]]\n";

static bl_status parse(const char *text) {
  bl_text_format format = format_of(tiny.layers, tiny.rows, tiny.experts);
  uint32_t counts[12];
  padded p = pad(text, strlen(text));
  const bl_status status = bl_text_parse("t.log", p.text, p.n, &format, counts, 6);
  free(p.buffer);
  free(format.dots);
  return status;
}

/* Replaces the first `from` in the good text by `to`. */
static bl_status parse_with(const char *from, const char *to) {
  char text[400];
  const char *at = strstr(good, from);
  if (at == NULL) return BL_OK;
  snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good), good, to, at + strlen(from));
  return parse(text);
}

static void test_accepted(void) {
  CHECK_OK(parse(good));
  CHECK_OK(parse_with("1.0, 2.0", "1,2.000"));
  CHECK_OK(parse_with("]]\n1", "] ]\r\n 1"));
  CHECK_OK(parse_with("0.0]]\n1:", "0.]]\n1 :"));
  CHECK_OK(parse("0:[[1.0, 2.0, 3.0], [3.0, 3.0, 0.0]]\n1:[[6.0, 0.0, 0.0], [0.0, 6.0, 0.0]]"));
  CHECK_OK(parse("0:[[1.0, 2.0, 3.0], [3.0, 3.0, 0.0]]\n1:[[6.0, 0.0, 0.0], [0.0, 6.0, 0.0]]\n \n"));
}

static void test_refused(void) {
  CHECK_FAILS(parse_with("2.0", "3.0"), BL_EINPUT, "t.log:1: row 1 sums to 6, expected 7");
  CHECK_FAILS(parse_with("6.0, 0.0", "5.0, 0.0"), BL_EINPUT, "t.log:2: row 0 sums to 5, expected 6");
  CHECK_FAILS(parse_with("3.0, 3.0", "3.0, NaN"), BL_EINPUT, "t.log:1: row 1, entry 1 is NaN");
  CHECK_FAILS(parse_with("3.0, 3.0", "3.0, nan"), BL_EINPUT, "NaN");
  CHECK_FAILS(parse_with("3.0, 3.0", "Infinity, 3.0"), BL_EINPUT, "row 1, entry 0 is NaN or infinite");
  CHECK_FAILS(parse_with("6.0", "-6.0"), BL_EINPUT, "t.log:2: row 0, entry 0 is negative");
  CHECK_FAILS(parse_with("2.0", "2.5"), BL_EINPUT, "t.log:1: row 0, entry 1 is not whole");
  CHECK_FAILS(parse_with("2.0", "2.000001"), BL_EINPUT, "not whole");
  CHECK_FAILS(parse_with("2.0", "2e3"), BL_EINPUT, "exponent");
  CHECK_FAILS(parse_with("2.0", "1.0e+20"), BL_EINPUT, "exponent");
  CHECK_FAILS(parse_with("2.0", "2147483648.0"), BL_EINPUT, "too large");
  CHECK_FAILS(parse_with("2.0", "99999999999999999999999999.0"), BL_EINPUT, "too large");
  CHECK_FAILS(parse_with("2.0", ""), BL_EINPUT, "t.log:1: expected a count, found ','");
  CHECK_FAILS(parse_with("2.0", "x"), BL_EINPUT, "found 'x'");
  CHECK_FAILS(parse_with("2.0", "\x01"), BL_EINPUT, "found byte 1");
  CHECK_FAILS(parse_with(", 3.0]", "]"), BL_EINPUT, "next expert, found ']'");
  CHECK_FAILS(parse_with(", 3.0]", ", 2.0, 1.0]"), BL_EINPUT, "']' behind the last expert of a row, found ','");
  CHECK_FAILS(parse_with(", [3.0, 3.0, 0.0]]", "]"), BL_EINPUT, "next micro-batch, found ']'");
  CHECK_FAILS(parse_with("]]\n1", "], [6.0, 0.0, 0.0]]\n1"), BL_EINPUT, "']' behind the last row, found ','");
  CHECK_FAILS(parse_with("]]\n1", "]] 1"), BL_EINPUT, "the end of the line, found '1'");
  CHECK_FAILS(parse_with("1:", "2:"), BL_EINPUT, "t.log:2: another layer than expected, which is 1");
  CHECK_FAILS(parse_with("0:", "99999999999999999999:"), BL_EINPUT, "another layer");
  CHECK_FAILS(parse_with("0:", ":"), BL_EINPUT, "the number of a layer");
  CHECK_FAILS(parse_with("1:", "1"), BL_EINPUT, "':'");
  CHECK_FAILS(parse(""), BL_EINPUT, "ends after 0 layers, expected 2");
  CHECK_FAILS(parse("0:[[1.0, 2.0, 3.0], [3.0, 3.0, 0.0]]\n"), BL_EINPUT, "ends after 1 layers, expected 2");
  CHECK_FAILS(parse("0:[[1.0, 2.0, 3.0], [3.0, 3.0"), BL_EINPUT, "found the end of the file");
  char longer[300];
  snprintf(longer, sizeof longer, "%s2:[[6.0]]\n", good);
  CHECK_FAILS(parse(longer), BL_EINPUT, "t.log:3: text behind layer 1, expected 2 layers");
}

static void test_measure(void) {
  bl_text_format format;
  CHECK_FAILS(bl_text_measure("m", "", 0, &format), BL_EINPUT, "m: is empty");
  CHECK_FAILS(bl_text_measure("m", "hello", 5, &format), BL_EINPUT, "expected LAYER");
  char *text = malloc(1 << 20);
  memset(text, '[', 1 << 20);
  CHECK_FAILS(bl_text_measure("m", text, 1 << 20, &format), BL_EINPUT, "more than");
  memset(text, '\n', 1 << 20);
  memcpy(text, "0:[[1]]", 7);
  CHECK_FAILS(bl_text_measure("m", text, 1 << 20, &format), BL_EINPUT, "more than");
  free(text);
}

/* -- folders ------------------------------------------------------------------------------------------------------ */

static const char *folder;

static void put_rank_file(const char *name, const char *text) {
  char path[700];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  put_file(path, text, strlen(text));
}

static void drop_rank_file(const char *name) {
  char path[700];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  unlink(path);
}

static bl_status open_folder(void) {
  bl_smartmoe *source = NULL;
  const bl_status status = bl_smartmoe_open(folder, &source);
  bl_smartmoe_close(source);
  return status;
}

static void test_folder(void) {
  static char path[512];
  bl_smartmoe *source = NULL;
  uint32_t counts[24];
  snprintf(path, sizeof path, "%s", temp_path("moe_trace"));
  folder = path;
  CHECK_FAILS(open_folder(), BL_EINPUT, "moe_trace: cannot open the folder");
  REQUIRE(mkdir(folder, 0777) == 0);
  put_rank_file("README", "nothing");
  put_rank_file("other.log", "nothing");
  CHECK_FAILS(open_folder(), BL_EINPUT, "holds no file table_iter<I>_rank<R>.log");
  const char *const other = "0:[[0.0, 0.0, 6.0], [0.0, 5.0, 1.0]]\n1:[[0.0, 0.0, 6.0], [6.0, 0.0, 0.0]]\n";
  put_rank_file("table_iter100_rank2.log", good);
  put_rank_file("table_iter100_rank10.log", other);
  put_rank_file("table_iter9_rank10.log", good);
  CHECK_FAILS(open_folder(), BL_EINPUT, "/table_iter9_rank2.log is missing");
  put_rank_file("table_iter9_rank2.log", other);

  REQUIRE_OK(bl_smartmoe_open(folder, &source));
  const bl_trace_shape *shape = bl_smartmoe_shape_of(source);
  CHECK(shape->layers == 2 && shape->ranks == 2 && shape->micro_batches == 2 && shape->experts == 3 && !shape->live);
  CHECK_INT(bl_smartmoe_steps(source), 2);
  CHECK_INT(bl_smartmoe_iteration(source, 0), 9); /* by number, not by name */
  CHECK_INT(bl_smartmoe_iteration(source, 1), 100);
  CHECK_INT(bl_smartmoe_rank(source, 0), 2);
  CHECK_INT(bl_smartmoe_rank(source, 1), 10);
  REQUIRE_OK(bl_smartmoe_read(source, 0, counts));
  const uint32_t want[24] = {0, 0, 6, 0, 5, 1, 1, 2, 3, 3, 3, 0, 0, 0, 6, 6, 0, 0, 6, 0, 0, 0, 6, 0};
  CHECK(memcmp(counts, want, sizeof want) == 0);
  CHECK_INT(bl_smartmoe_bytes(source), 2 * strlen(good));
  put_rank_file("table_iter100_rank10.log",
                "0:[[0.0, 0.0, 6.0], [0.0, 5.0, 1.0]]\n1:[[0.0, 0.0, 6.0], [6.0, 1.0, 0.0]]\n");
  CHECK_FAILS(bl_smartmoe_read(source, 1, counts), BL_EINPUT, "/table_iter100_rank10.log:2: row 1 sums to 7");
  drop_rank_file("table_iter100_rank10.log");
  CHECK_FAILS(bl_smartmoe_read(source, 1, counts), BL_EINPUT, "/table_iter100_rank10.log: cannot open");
  bl_smartmoe_close(source);

  CHECK_FAILS(open_folder(), BL_EINPUT, "/table_iter100_rank10.log is missing");
  drop_rank_file("table_iter100_rank2.log");
  CHECK_OK(open_folder());
  const char *const names[] = {"table_iter01_rank2.log", "table_iter1_rank65536.log", "table_iter1_rank.log",
                               "table_iter99999999999999999999_rank2.log", "table_iter1_rank2x.log"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    put_rank_file(names[i], good);
    CHECK_FAILS(open_folder(), BL_EINPUT, names[i]);
    drop_rank_file(names[i]);
  }
  put_rank_file("table_iter9_rank2.log", "");
  put_rank_file("table_iter9_rank10.log", "");
  CHECK_FAILS(open_folder(), BL_EINPUT, "rank2.log: is empty");
  put_rank_file("table_iter9_rank2.log", "0:[[1,2,3,4\n\n\n\n\n\n\n\n");
  CHECK_FAILS(open_folder(), BL_EINPUT, "fewer counts");
}

int main(void) {
  RUN(test_parsers_agree);
  RUN(test_every_byte);
  RUN(test_accepted);
  RUN(test_refused);
  RUN(test_measure);
  RUN(test_folder);
  remove_temp_folder();
  TEST_MAIN_END;
}
