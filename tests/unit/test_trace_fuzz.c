/* Thousands of damaged .blt files and text tables: every one is refused with a sentence or read without harm (the
 * sanitizer build watches), and the fast text parser never accepts what the careful one reads differently. */
#include "tests/unit/trace_files.h"
#include "traces/codec.h"
#include "traces/smartmoe_text.h"

static const bl_trace_shape shape = {.layers = 2, .ranks = 2, .micro_batches = 2, .experts = 6};

/* Changes the bytes in one of the ways that files get damaged.  @return : the new length, at most 2 * n. */
static uint64_t mutate(bl_rng *rng, uint8_t *bytes, uint64_t n) {
  const uint64_t changes = 1 + bl_rng_below(rng, 4);
  for (uint64_t i = 0; i < changes && n > 0; i++) {
    const uint64_t at = bl_rng_below(rng, n);
    const uint64_t length = 1 + bl_rng_below(rng, n - at < 16 ? n - at : 16);
    const uint8_t extremes[] = {0, 1, 0x7f, 0x80, 0xff, '-', '.', '9', '[', ']', ',', '\n'};
    switch (bl_rng_below(rng, 7)) {
    case 0:
      bytes[at] ^= (uint8_t)(1 << bl_rng_below(rng, 8));
      break;
    case 1:
      bytes[at] = (uint8_t)bl_rng_u64(rng);
      break;
    case 2:
      memset(bytes + at, extremes[bl_rng_below(rng, sizeof extremes)], length);
      break;
    case 3: /* a piece is lost */
      memmove(bytes + at, bytes + at + length, n - at - length);
      n -= length;
      break;
    case 4: /* a piece comes twice */
      memmove(bytes + at + length, bytes + at, n - at);
      n += length;
      break;
    case 5:
      memmove(bytes + at, bytes + bl_rng_below(rng, n - length + 1), length);
      break;
    case 6:
      n = at;
      break;
    }
  }
  return n;
}

static void put_crc(uint8_t *to, const uint8_t *bytes, uint64_t n) {
  const uint32_t crc = bl_crc32(0, bytes, n);
  for (int i = 0; i < 4; i++) to[i] = (uint8_t)(crc >> 8 * i);
}

/* Sets all checksums right again, as far as the blocks can be followed: so the checks behind them are reached. */
static void repair(uint8_t *bytes, uint64_t n) {
  uint64_t offset = BL_BLT_HEADER_BYTES;
  if (n < BL_BLT_HEADER_BYTES) return;
  put_crc(bytes + 60, bytes, 60);
  while (n - offset >= BL_BLT_BLOCK_BYTES) {
    bl_block block;
    bl_blt_unpack_block(bytes + offset, &block);
    if (block.stored <= n - offset - BL_BLT_BLOCK_BYTES)
      put_crc(bytes + offset + 24, bytes + offset + BL_BLT_BLOCK_BYTES, block.stored);
    put_crc(bytes + offset + 28, bytes + offset, 28);
    if (block.stored > n - offset - BL_BLT_BLOCK_BYTES) break;
    offset += BL_BLT_BLOCK_BYTES + block.stored;
  }
  if (n >= BL_BLT_HEADER_BYTES + BL_BLT_TRAILER_BYTES) put_crc(bytes + n - 8, bytes + n - 16, 8);
}

/* Opens and reads all there is.  @return : steps that could be read, -1 when the file was refused. */
static int32_t try_read(const char *path) {
  bl_trace_reader *reader = NULL;
  int32_t good = 0;
  bl_error_clear();
  if (bl_trace_open(path, &reader) != BL_OK) {
    CHECK(strstr(bl_error_text(), path) != NULL);
    return -1;
  }
  const size_t size = (size_t)bl_trace_step_size(bl_trace_shape_of(reader));
  uint32_t *counts = malloc(size * sizeof *counts);
  CHECK(counts != NULL && size < (1u << 24));
  for (int32_t i = 0; i < bl_trace_steps(reader); i++) {
    bl_error_clear();
    if (bl_trace_read(reader, i, counts) == BL_OK)
      good++;
    else
      CHECK(strstr(bl_error_text(), path) != NULL);
    CHECK(bl_trace_find(reader, bl_trace_iteration(reader, i)) == i);
  }
  free(counts);
  bl_trace_close(reader);
  return good;
}

static void test_blt(void) {
  const int rounds = 20000;
  const char *path = temp_path("fuzz.blt");
  uint64_t n = 0;
  int refused = 0, whole = 0, partly = 0;
  REQUIRE_OK(write_test_trace(path, &shape, 3));
  uint8_t *bytes = get_file(path, &n), *damaged = malloc(2 * n + 256);
  for (int i = 0; i < rounds; i++) {
    bl_rng rng;
    bl_rng_seed(&rng, 11, (uint64_t)i);
    memcpy(damaged, bytes, n);
    const uint64_t length = mutate(&rng, damaged, n);
    if (i % 4 != 0) repair(damaged, length);
    put_file(path, damaged, length);
    const int32_t good = try_read(path);
    refused += good < 0;
    whole += good == 3;
    partly += good >= 0 && good < 3;
  }
  printf("%d damaged traces: %d refused, %d read in part, %d whole\n", rounds, refused, partly, whole);
  CHECK(refused > rounds / 20 && partly > rounds / 20 && whole > rounds / 50);
  free(bytes);
  free(damaged);
}

/* A run that goes on from a damaged trace writes a whole one or says why not. */
static void test_continue(void) {
  const int rounds = 3000;
  const char *path = temp_path("again.blt");
  uint64_t n = 0;
  uint32_t counts[48] = {0};
  int went_on = 0;
  REQUIRE_OK(write_test_trace(path, &shape, 3));
  uint8_t *bytes = get_file(path, &n), *damaged = malloc(2 * n + 256);
  for (int i = 0; i < rounds; i++) {
    bl_trace_writer *writer = NULL;
    bl_rng rng;
    bl_rng_seed(&rng, 12, (uint64_t)i);
    memcpy(damaged, bytes, n);
    const uint64_t length = mutate(&rng, damaged, n);
    if (i % 4 != 0) repair(damaged, length);
    put_file(path, damaged, length);
    bl_error_clear();
    if (bl_trace_continue(path, &shape, 20, &writer) != BL_OK) {
      CHECK(strstr(bl_error_text(), path) != NULL && writer == NULL);
      continue;
    }
    went_on++;
    CHECK_OK(bl_trace_append(writer, 21, counts));
    if (i % 64 != 0) { /* finishing waits for the disk */
      bl_trace_discard(writer);
      continue;
    }
    CHECK_OK(bl_trace_finish(writer));
    CHECK(try_read(path) >= 1);
  }
  CHECK(went_on > rounds / 20);
  CHECK_INT(count_files("again.blt"), 1);
  free(bytes);
  free(damaged);
}

static void test_text(void) {
  static const char good[] = "0:[[1.0, 22.0, 3.0, 4074.0], [2048.0, 2048.0, 2.0, 2.0], [0.0, 1000.0, 2000.0, 1100.0]]\n"
                             "1:[[4096.0, 0.0, 0.0, 4.0], [100.0, 1900.0, 100.0, 2000.0], [4100.0, 0.0, 0.0, 0.0]]\n"
                             "2:[[4096.0, 4.0, 0.0, 0.0], [0.0, 0.0, 4100.0, 0.0], [1025.0, 1025.0, 1025.0, 1025.0]]\n";
  const uint64_t n = sizeof good - 1;
  const int rounds = 200000;
  uint8_t *buffer = malloc(2 * n + 256 + 2 * BL_TEXT_PADDING), *text = buffer + BL_TEXT_PADDING;
  uint32_t fast[36], careful[36];
  bl_text_format format = {3, 3, 4, malloc((36 + BL_TEXT_PADDING) * sizeof(uint32_t))};
  int accepted = 0, accepted_fast = 0;
  for (int i = 0; i < rounds; i++) {
    bl_rng rng;
    bl_text_format measured;
    bl_rng_seed(&rng, 13, (uint64_t)i);
    memset(buffer, '5', BL_TEXT_PADDING);
    memcpy(text, good, n);
    const uint64_t length = i == 0 ? n : mutate(&rng, text, n);
    memset(text + length, '5', BL_TEXT_PADDING);
    bl_error_clear();
    const bool is_fast = bl_text_parse_fast((const char *)text, length, &format, fast, 12);
    const bl_status status = bl_text_parse_careful("f.log", (const char *)text, length, &format, careful, 12);
    if (status != BL_OK) CHECK(strncmp(bl_error_text(), "f.log:", 6) == 0);
    if (is_fast) CHECK(status == BL_OK && memcmp(fast, careful, sizeof fast) == 0);
    accepted += status == BL_OK;
    accepted_fast += is_fast;
    if (bl_text_measure("f.log", (const char *)text, length, &measured) == BL_OK)
      CHECK(measured.layers >= 1 && measured.rows >= 1 && measured.experts >= 1);
  }
  printf("%d damaged texts: %d still sound, %d of them in the usual form\n", rounds, accepted, accepted_fast);
  CHECK(accepted_fast > 0 && accepted > accepted_fast);
  free(buffer);
  free(format.dots);
}

int main(void) {
  RUN(test_blt);
  RUN(test_continue);
  RUN(test_text);
  remove_temp_folder();
  TEST_MAIN_END;
}
