/* .blt files: what goes in comes out; what is damaged, cut short or foreign is refused or read up to where it is whole.
 */
#include "tests/unit/trace_files.h"
#include "traces/codec.h"
#include <sys/stat.h>

static const bl_trace_shape small = {.layers = 2, .ranks = 3, .micro_batches = 2, .experts = 5};

static void check_round_trip(bl_trace_shape shape, int32_t steps) {
  const char *path = temp_path("round.blt");
  bl_trace_reader *reader = NULL;
  REQUIRE_OK(write_test_trace(path, &shape, steps));
  REQUIRE_OK(bl_trace_open(path, &reader));
  const bl_trace_shape *have = bl_trace_shape_of(reader);
  CHECK(have->layers == shape.layers && have->ranks == shape.ranks && have->micro_batches == shape.micro_batches &&
        have->experts == shape.experts && have->live == shape.live);
  CHECK_INT(bl_trace_steps(reader), steps);
  CHECK(!bl_trace_truncated(reader));
  for (int32_t i = 0; i < steps; i++) {
    CHECK_INT(bl_trace_iteration(reader, i), 1 + 10 * i);
    CHECK(step_is(reader, i, (uint64_t)i));
  }
  for (int32_t i = steps - 1; i >= 0; i--) CHECK(step_is(reader, i, (uint64_t)i));
  CHECK(!step_is(reader, 0, 1) || steps < 2); /* the comparison itself sees a difference */
  uint32_t dummy[1];
  CHECK_FAILS(bl_trace_read(reader, steps, dummy), BL_EINPUT, "step");
  bl_trace_close(reader);
}

static void test_round_trip(void) {
  check_round_trip(small, 5);
  check_round_trip((bl_trace_shape){1, 1, 1, 1, true}, 3);
  check_round_trip((bl_trace_shape){1, 7, 3, 1, false}, 2);
  check_round_trip((bl_trace_shape){3, 1, 1, 257, false}, 2);
  check_round_trip((bl_trace_shape){24, 16, 4, 32, true}, 2);
}

static void test_find(void) {
  bl_trace_reader *reader = NULL;
  const char *path = temp_path("find.blt");
  REQUIRE_OK(write_test_trace(path, &small, 4)); /* 1, 11, 21, 31 */
  REQUIRE_OK(bl_trace_open(path, &reader));
  CHECK_INT(bl_trace_find(reader, INT64_MIN), 0);
  CHECK_INT(bl_trace_find(reader, 1), 0);
  CHECK_INT(bl_trace_find(reader, 2), 1);
  CHECK_INT(bl_trace_find(reader, 31), 3);
  CHECK_INT(bl_trace_find(reader, 32), 4);
  CHECK_INT(bl_trace_find(reader, INT64_MAX), 4);
  CHECK_STRING(bl_trace_path(reader), path);
  bl_trace_close(reader);
}

/* Offsets where blocks end, so how many steps a file of n bytes holds. */
static int32_t whole_steps(const uint8_t *bytes, uint64_t n, int32_t steps) {
  uint64_t offset = BL_BLT_HEADER_BYTES;
  for (int32_t i = 0; i < steps; i++) {
    bl_block block;
    if (offset + BL_BLT_BLOCK_BYTES > n || !bl_blt_unpack_block(bytes + offset, &block)) return i;
    offset += BL_BLT_BLOCK_BYTES + block.stored;
    if (offset > n) return i;
  }
  return steps;
}

static void test_cut_short(void) {
  enum { STEPS = 3 };
  const char *path = temp_path("cut.blt");
  uint64_t n = 0;
  REQUIRE_OK(write_test_trace(path, &small, STEPS));
  uint8_t *bytes = get_file(path, &n);
  for (uint64_t length = 0; length < n; length++) {
    bl_trace_reader *reader = NULL;
    const int32_t whole = whole_steps(bytes, length, STEPS);
    put_file(path, bytes, length);
    if (length < BL_BLT_HEADER_BYTES || whole == 0) {
      CHECK_FAILS(bl_trace_open(path, &reader), BL_EINPUT, path);
      CHECK(reader == NULL);
      continue;
    }
    REQUIRE_OK(bl_trace_open(path, &reader));
    CHECK(bl_trace_truncated(reader));
    CHECK_INT(bl_trace_steps(reader), whole);
    for (int32_t i = 0; i < whole; i++) CHECK(step_is(reader, i, (uint64_t)i));
    bl_trace_close(reader);
  }
  free(bytes);
}

/* No single flipped bit may change a count unnoticed. */
static void test_flipped_bits(void) {
  enum { STEPS = 2 };
  const char *path = temp_path("flip.blt");
  uint64_t n = 0, refused = 0, damaged = 0;
  REQUIRE_OK(write_test_trace(path, &small, STEPS));
  uint8_t *bytes = get_file(path, &n);
  uint32_t counts[60], want[60];
  for (uint64_t bit = 0; bit < 8 * n; bit++) {
    bl_trace_reader *reader = NULL;
    bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    put_file(path, bytes, n);
    bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    bl_error_clear();
    if (bl_trace_open(path, &reader) != BL_OK) {
      CHECK(strstr(bl_error_text(), path) != NULL);
      refused++;
      continue;
    }
    for (int32_t i = 0; i < bl_trace_steps(reader); i++) {
      fill_counts(&small, (uint64_t)(bl_trace_iteration(reader, i) / 10), want);
      if (bl_trace_read(reader, i, counts) == BL_OK)
        CHECK(memcmp(counts, want, sizeof want) == 0);
      else
        damaged += strstr(bl_error_text(), "iteration") != NULL;
    }
    bl_trace_close(reader);
  }
  CHECK(refused >= 8 * BL_BLT_HEADER_BYTES);
  CHECK(damaged > 0);
  free(bytes);
}

static void check_refused(const void *bytes, uint64_t n, const char *part) {
  bl_trace_reader *reader = NULL;
  const char *path = temp_path("foreign.blt");
  put_file(path, bytes, n);
  CHECK_FAILS(bl_trace_open(path, &reader), BL_EINPUT, part);
}

static void test_foreign_files(void) {
  bl_trace_reader *reader = NULL;
  check_refused("", 0, "is empty");
  check_refused("step,layer,rank", 15, "is not a .blt trace");
  check_refused("\x1f\x8b\x08", 3, "is not a .blt trace");
  check_refused("\x89"
                "BLT",
                4, "ends inside the header");
  CHECK_FAILS(bl_trace_open(temp_path("absent.blt"), &reader), BL_EINPUT, "absent.blt: cannot open");
  CHECK_FAILS(bl_trace_open(temp_path(""), &reader), BL_EINPUT, "regular file");

  uint8_t header[BL_BLT_HEADER_BYTES];
  bl_blt_pack_header(&small, header);
  check_refused(header, sizeof header, "no whole step");
  header[8] = 2; /* the version, with its CRC set right */
  const uint32_t crc = bl_crc32(0, header, 60);
  for (int i = 0; i < 4; i++) header[60 + i] = (uint8_t)(crc >> 8 * i);
  check_refused(header, sizeof header, "version 2");
  const bl_trace_shape shapes[] = {{0, 1, 1, 1, false},     {1, -1, 1, 1, false},   {1, 1, 1 << 30, 1, false},
                                   {1, 1, 1, 65537, false}, {4097, 1, 1, 1, false}, {4096, 65536, 65536, 65536, false}};
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
    bl_trace_writer *writer = NULL;
    bl_blt_pack_header(&shapes[i], header);
    check_refused(header, sizeof header, "expected");
    CHECK_FAILS(bl_trace_create(temp_path("bad.blt"), &shapes[i], &writer), BL_EINPUT, "expected");
  }
  CHECK_INT(count_files("bad.blt"), 0);
}

/* A header of sound CRCs that promises more counts than its blocks can hold. */
static void test_promised_size(void) {
  const bl_trace_shape huge = {64, 64, 64, 64, false};
  uint8_t bytes[BL_BLT_HEADER_BYTES + BL_BLT_BLOCK_BYTES + 8] = {0};
  bl_block block = {.kind = BL_BLT_KIND_STEP, .iteration = 1, .stored = 8, .raw = 64 * 64 * 64 * 64};
  block.crc = bl_crc32(0, bytes + BL_BLT_HEADER_BYTES + BL_BLT_BLOCK_BYTES, 8);
  bl_blt_pack_header(&huge, bytes);
  bl_blt_pack_block(&block, bytes + BL_BLT_HEADER_BYTES);
  check_refused(bytes, sizeof bytes, "iteration 1");
}

/* Blocks between the steps: kinds with a small first letter are passed over, others need a newer reader. */
static void test_unknown_blocks(void) {
  const char *path = temp_path("kinds.blt");
  bl_trace_reader *reader = NULL;
  uint64_t n = 0;
  REQUIRE_OK(write_test_trace(path, &small, 2));
  uint8_t *bytes = get_file(path, &n);
  bl_block first;
  REQUIRE(bl_blt_unpack_block(bytes + BL_BLT_HEADER_BYTES, &first));
  const uint64_t cut = BL_BLT_HEADER_BYTES + BL_BLT_BLOCK_BYTES + first.stored;
  for (int optional = 0; optional < 2; optional++) {
    uint8_t header[BL_BLT_BLOCK_BYTES];
    bl_block extra = {.kind = BL_BLT_KIND_STEP, .iteration = 1, .stored = 3, .raw = 9, .crc = bl_crc32(0, "abc", 3)};
    memcpy(&extra.kind, optional ? "tokn" : "TOKN", 4);
    bl_blt_pack_block(&extra, header);
    FILE *stream = fopen(path, "wb");
    REQUIRE(stream != NULL);
    fwrite(bytes, 1, cut, stream);
    fwrite(header, 1, sizeof header, stream);
    fwrite("abc", 1, 3, stream);
    fwrite(bytes + cut, 1, n - cut, stream);
    fclose(stream);
    if (!optional) {
      CHECK_FAILS(bl_trace_open(path, &reader), BL_EINPUT, "TOKN");
      continue;
    }
    REQUIRE_OK(bl_trace_open(path, &reader));
    CHECK_INT(bl_trace_steps(reader), 2);
    CHECK(step_is(reader, 1, 1));
    bl_trace_close(reader);
  }
  free(bytes);
}

static void put_u32(uint8_t *to, uint32_t value) {
  for (int i = 0; i < 4; i++) to[i] = (uint8_t)(value >> 8 * i);
}

/* A sound trace whose second payload is changed by `damage`, with the checksums of header and payload set right. */
static void damage_second_block(const char *path, void (*damage)(uint8_t *header, uint8_t *payload, uint32_t stored)) {
  uint64_t n = 0;
  bl_block block;
  uint8_t *bytes = get_file(path, &n), *header = bytes + BL_BLT_HEADER_BYTES;
  if (!bl_blt_unpack_block(header, &block)) exit(1);
  header += BL_BLT_BLOCK_BYTES + block.stored;
  if (!bl_blt_unpack_block(header, &block)) exit(1);
  damage(header, header + BL_BLT_BLOCK_BYTES, block.stored);
  put_u32(header + 28, bl_crc32(0, header, 28));
  put_file(path, bytes, n);
  free(bytes);
}

static void wrong_crc(uint8_t *header, uint8_t *payload, uint32_t stored) {
  (void)payload, (void)stored;
  header[24] ^= 1;
}

/* A zlib stream that stops early: what the buffer holds from the step before must not be taken for the rest. */
static void unfinished_stream(uint8_t *header, uint8_t *payload, uint32_t stored) {
  memset(payload + stored - 8, 0, 8);
  put_u32(header + 24, bl_crc32(0, payload, stored));
}

static void fewer_bytes(uint8_t *header, uint8_t *payload, uint32_t stored) {
  (void)payload, (void)stored;
  header[20]--;
}

static void test_damaged_payload(void) {
  const char *path = temp_path("payload.blt");
  void (*const damages[])(uint8_t *, uint8_t *, uint32_t) = {wrong_crc, unfinished_stream, fewer_bytes};
  uint32_t counts[60], ones[60];
  for (int i = 0; i < 60; i++) ones[i] = (uint32_t)(i * i % 64);
  for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
    bl_trace_writer *writer = NULL;
    bl_trace_reader *reader = NULL;
    REQUIRE_OK(bl_trace_create(path, &small, &writer));
    for (int step = 1; step <= 3; step++) CHECK_OK(bl_trace_append(writer, step, ones));
    REQUIRE_OK(bl_trace_finish(writer));
    damage_second_block(path, damages[i]);
    REQUIRE_OK(bl_trace_open(path, &reader));
    CHECK_OK(bl_trace_read(reader, 0, counts));
    CHECK_FAILS(bl_trace_read(reader, 1, counts), BL_EINPUT, "iteration 2: the block");
    CHECK_OK(bl_trace_read(reader, 2, counts)); /* the others are not harmed */
    CHECK(memcmp(counts, ones, sizeof ones) == 0);
    bl_trace_close(reader);
  }
}

/* Without an index the first damaged block ends what can be read. */
static void test_damaged_and_cut(void) {
  const char *path = temp_path("both.blt");
  bl_trace_reader *reader = NULL;
  uint64_t n = 0;
  REQUIRE_OK(write_test_trace(path, &small, 3));
  damage_second_block(path, wrong_crc);
  uint8_t *bytes = get_file(path, &n);
  put_file(path, bytes, n - 1);
  free(bytes);
  REQUIRE_OK(bl_trace_open(path, &reader));
  CHECK_INT(bl_trace_steps(reader), 1);
  CHECK(bl_trace_truncated(reader));
  bl_trace_close(reader);
}

/* The varints of one layer, two ranks, one expert. */
static bool decodes(const char *bytes, uint64_t n, uint32_t counts[2]) {
  const bl_trace_shape two = {1, 2, 1, 1, false};
  return bl_blt_decode(&two, (const uint8_t *)bytes, n, counts);
}

static void test_varints(void) {
  uint32_t counts[2];
  CHECK(decodes("\x06\x01", 2, counts) && counts[0] == 3 && counts[1] == 2);
  CHECK(decodes("\xfe\xff\xff\xff\x1f\x00", 6, counts) && counts[0] == UINT32_MAX && counts[1] == UINT32_MAX);
  CHECK(decodes("\xfe\xff\xff\xff\x1f\xfd\xff\xff\xff\x1f", 10, counts) && counts[1] == 0);
  CHECK(!decodes("\x01\x00", 2, counts));                     /* below 0 */
  CHECK(!decodes("\x80\x80\x80\x80\x20\x00", 6, counts));     /* 2^32 */
  CHECK(!decodes("\xfe\xff\xff\xff\x1f\x02", 6, counts));     /* 2^32 in the second */
  CHECK(!decodes("\x80\x80\x80\x80\x80\x00\x00", 7, counts)); /* a sixth byte */
  CHECK(!decodes("\x06", 1, counts));
  CHECK(!decodes("\x06\x81", 2, counts));
  CHECK(!decodes("\x06\x01\x00", 3, counts)); /* one too many */
}

static void test_writer_failures(void) {
  bl_trace_writer *writer = NULL;
  uint32_t counts[60] = {0};
  const char *path = temp_path("fails.blt");
  CHECK_FAILS(bl_trace_create(temp_path("no/such/folder.blt"), &small, &writer), BL_EINPUT, "folder.blt");
  REQUIRE_OK(bl_trace_create(path, &small, &writer));
  CHECK_OK(bl_trace_append(writer, 5, counts));
  CHECK_FAILS(bl_trace_append(writer, 5, counts), BL_EINPUT, "iteration 5 after 5");
  CHECK_FAILS(bl_trace_append(writer, -1, counts), BL_EINPUT, "iteration -1 after 5");
  bl_trace_discard(writer);
  CHECK_INT(count_files("fails.blt"), 0);
  bl_trace_discard(NULL);
  bl_trace_close(NULL);
  if (access("/dev/full", W_OK) != 0) SKIP("no /dev/full");
  REQUIRE_OK(bl_trace_create("/dev/full", &small, &writer));
  CHECK_FAILS(bl_trace_append(writer, 1, counts), BL_EMACHINE, "/dev/full");
  bl_trace_discard(writer);
}

/* Steps are in the file as soon as they are appended. */
static void test_crash_keeps_steps(void) {
  bl_trace_writer *writer = NULL;
  bl_trace_reader *reader = NULL;
  uint32_t counts[60];
  char leftover[600];
  const char *path = temp_path("crash.blt");
  REQUIRE_OK(bl_trace_create(path, &small, &writer));
  for (uint64_t i = 0; i < 3; i++) {
    fill_counts(&small, i, counts);
    REQUIRE_OK(bl_trace_append(writer, 1 + 10 * (int64_t)i, counts));
  }
  snprintf(leftover, sizeof leftover, "%s.tmp.%ld", path, (long)getpid());
  REQUIRE_OK(bl_trace_open(leftover, &reader));
  CHECK(bl_trace_truncated(reader));
  CHECK_INT(bl_trace_steps(reader), 3);
  CHECK(step_is(reader, 2, 2));
  bl_trace_close(reader);
  bl_trace_discard(writer);
}

static void append_and_check(const char *path, bl_trace_writer *writer, int32_t kept) {
  bl_trace_reader *reader = NULL;
  uint32_t counts[60];
  fill_counts(&small, 99, counts);
  CHECK_OK(bl_trace_append(writer, 991, counts));
  REQUIRE_OK(bl_trace_finish(writer));
  REQUIRE_OK(bl_trace_open(path, &reader));
  CHECK(!bl_trace_truncated(reader));
  REQUIRE(bl_trace_steps(reader) == kept + 1);
  for (int32_t i = 0; i < kept; i++) CHECK(step_is(reader, i, (uint64_t)i));
  CHECK(step_is(reader, kept, 99));
  CHECK_INT(bl_trace_iteration(reader, kept), 991);
  bl_trace_close(reader);
}

static void test_continue(void) {
  const char *path = temp_path("continued.blt");
  bl_trace_writer *writer = NULL;
  CHECK_FAILS(bl_trace_continue(path, &small, 100, &writer), BL_EINPUT, "cannot open");
  REQUIRE_OK(write_test_trace(path, &small, 5));
  REQUIRE_OK(bl_trace_continue(path, &small, 30, &writer)); /* keeps 1, 11, 21 */
  append_and_check(path, writer, 3);
  REQUIRE_OK(bl_trace_continue(path, &small, 0, &writer)); /* keeps nothing */
  append_and_check(path, writer, 0);
  REQUIRE_OK(write_test_trace(path, &small, 5));
  REQUIRE_OK(bl_trace_continue(path, &small, INT64_MAX, &writer));
  append_and_check(path, writer, 5);

  bl_trace_shape other = small;
  other.experts = 6;
  CHECK_FAILS(bl_trace_continue(path, &other, 30, &writer), BL_EINPUT, "5 experts");
  CHECK(writer == NULL);
  put_file(path, "text", 4);
  CHECK_FAILS(bl_trace_continue(path, &small, 30, &writer), BL_EINPUT, "is not a .blt trace");
  CHECK_INT(count_files("continued.blt"), 1);
}

/* A killed run leaves its temporary file; the resumed one finds it when it holds more than the trace beside it. */
static void test_continue_after_kill(void) {
  char path[512], leftover[600];
  bl_trace_writer *writer = NULL;
  snprintf(path, sizeof path, "%s", temp_path("killed.blt"));
  snprintf(leftover, sizeof leftover, "%s.tmp.%ld", path, (long)getpid()); /* even of the same process number */
  for (int with_older = 0; with_older < 2; with_older++) {
    if (with_older)
      REQUIRE_OK(write_test_trace(path, &small, 2));
    else
      unlink(path);
    REQUIRE_OK(write_test_trace(temp_path("whole.blt"), &small, 4));
    uint64_t n = 0;
    uint8_t *bytes = get_file(temp_path("whole.blt"), &n);
    put_file(leftover, bytes, n - 40); /* no index */
    free(bytes);
    REQUIRE_OK(bl_trace_continue(path, &small, 31, &writer));
    append_and_check(path, writer, 4);
    CHECK_INT(count_files("killed.blt"), 1);
  }
  char other[600]; /* of equal length: the trace itself is preferred */
  snprintf(other, sizeof other, "%s.tmp.1", path);
  REQUIRE_OK(write_test_trace(other, &small, 1));
  REQUIRE_OK(write_test_trace(path, &small, 1));
  REQUIRE_OK(bl_trace_continue(path, &small, 5, &writer));
  append_and_check(path, writer, 1);
  CHECK_INT(count_files("killed.blt"), 2);
  unlink(other);
  REQUIRE_OK(write_test_trace(temp_path("killed.blt"), &small, 4));
  put_file(leftover, "no trace", 8); /* left alone: it says nothing */
  REQUIRE_OK(bl_trace_continue(path, &small, 11, &writer));
  append_and_check(path, writer, 2);
}

static void test_loads(void) {
  enum { COUNTS = 60, LOADS = 10 };
  uint32_t counts[COUNTS];
  double loads[LOADS], want[LOADS];
  for (uint32_t i = 0; i < COUNTS; i++) counts[i] = i * i % 101;
  counts[7] = UINT32_MAX;
  for (int32_t rank = -1; rank < small.ranks; rank++)
    for (int32_t micro = -1; micro < small.micro_batches; micro++) {
      memset(want, 0, sizeof want);
      for (int32_t i = 0; i < COUNTS; i++) {
        const int32_t e = i % 5, m = i / 5 % 2, r = i / 10 % 3, layer = i / 30;
        if ((rank < 0 || rank == r) && (micro < 0 || micro == m)) want[layer * 5 + e] += counts[i];
      }
      bl_trace_loads(&small, counts, rank, micro, loads);
      for (int i = 0; i < LOADS; i++) CHECK(loads[i] == want[i]);
    }
}

int main(void) {
  RUN(test_round_trip);
  RUN(test_find);
  RUN(test_cut_short);
  RUN(test_flipped_bits);
  RUN(test_foreign_files);
  RUN(test_promised_size);
  RUN(test_unknown_blocks);
  RUN(test_damaged_payload);
  RUN(test_damaged_and_cut);
  RUN(test_varints);
  RUN(test_writer_failures);
  RUN(test_crash_keeps_steps);
  RUN(test_continue);
  RUN(test_continue_after_kill);
  RUN(test_loads);
  remove_temp_folder();
  TEST_MAIN_END;
}
