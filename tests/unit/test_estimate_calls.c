/* Calibrations on made-up times; files of measured calls, good, bad and damaged; tokens of calls under a placement. */
#include "base/rng.h"
#include "costmodel/calibrate.h"
#include "costmodel/layer_calls.h"
#include "tests/check.h"
#include <unistd.h>

enum { N = 60 };

static void fill_points(double *estimated, double *hottest) {
  bl_rng rng;
  bl_rng_seed(&rng, 5, 0);
  for (int32_t i = 0; i < N; i++) {
    estimated[i] = 1000 + 9000 * bl_rng_unit(&rng);
    hottest[i] = 100 + 900 * bl_rng_unit(&rng);
  }
}

static void test_calibrations(void) {
  double estimated[N], hottest[N], measured[N], before;
  bl_calibration c[BL_CALIBRATION_COUNT];
  bl_calibration_kind best;
  fill_points(estimated, hottest);
  for (int32_t i = 0; i < N; i++) measured[i] = 500 + 0.75 * estimated[i];
  CHECK_OK(bl_calibrate(estimated, hottest, measured, N, c, &best));
  CHECK_NEAR(c[BL_CALIBRATION_LINE].constant_us, 500, 1e-6);
  CHECK_NEAR(c[BL_CALIBRATION_LINE].per_estimate, 0.75, 1e-9);
  CHECK_NEAR(c[BL_CALIBRATION_LINE].held_out_error, 0, 1e-9);
  CHECK_NEAR(c[BL_CALIBRATION_LINE].held_out_r_squared, 1, 1e-9);
  CHECK(best != BL_CALIBRATION_LOAD && c[BL_CALIBRATION_LOAD].held_out_error > 0.05);
  for (int32_t i = 0; i < N; i++) measured[i] = 500 + 3 * hottest[i];
  CHECK_OK(bl_calibrate(estimated, hottest, measured, N, c, &best));
  CHECK(best != BL_CALIBRATION_LINE);
  CHECK_NEAR(c[BL_CALIBRATION_LOAD].per_token_us, 3, 1e-9);
  for (int32_t i = 0; i < N; i++) measured[i] = 500 + 3 * hottest[i] + 0.2 * estimated[i];
  CHECK_OK(bl_calibrate(estimated, hottest, measured, N, c, &best));
  CHECK_INT(best, BL_CALIBRATION_BOTH);
  CHECK_NEAR(bl_calibrated(&c[best], estimated[7], hottest[7]), measured[7], 1e-6);
  /* A time that falls with the estimate is not believed. */
  for (int32_t i = 0; i < N; i++) measured[i] = 20000 - estimated[i];
  CHECK_OK(bl_calibrate(estimated, hottest, measured, N, c, &best));
  CHECK(c[BL_CALIBRATION_LINE].per_estimate == 0);
  /* What is held out changes no coefficient and no choice. */
  before = c[BL_CALIBRATION_BOTH].constant_us;
  const bl_calibration_kind chosen = best;
  for (int32_t i = 1; i < N; i += 2) measured[i] = 77;
  CHECK_OK(bl_calibrate(estimated, hottest, measured, N, c, &best));
  CHECK(c[BL_CALIBRATION_BOTH].constant_us == before && best == chosen);
  CHECK(c[BL_CALIBRATION_BOTH].held_out_error > 1 && isnan(c[BL_CALIBRATION_BOTH].held_out_r_squared));
  CHECK_FAILS(bl_calibrate(estimated, hottest, measured, 7, c, &best), BL_EINPUT, "at least 8");
}

static void test_r_squared(void) {
  const double measured[4] = {1, 2, 3, 6}, predicted[4] = {1, 2, 4, 5}, mean[4] = {3, 3, 3, 3};
  CHECK_NEAR(bl_r_squared(predicted, measured, 4), 1 - 2.0 / 14, 1e-15);
  CHECK_NEAR(bl_r_squared(mean, measured, 4), 0, 1e-15);
  CHECK(isnan(bl_r_squared(measured, mean, 4)));
}

static char path[64];

static void write_bytes(const char *bytes, size_t n) {
  unlink(path); /* some file systems wait for the disk when a file is overwritten */
  FILE *file = fopen(path, "wb");
  REQUIRE(file != NULL);
  CHECK(fwrite(bytes, 1, n, file) == n);
  CHECK(fclose(file) == 0);
}

static const bl_call_grid grid = {.first = 101, .stride = 100, .layers = 2};
static const char csv[] = "step,layer,measured_ms,estimated_ms\n1,0,2.5,2\r\n1,3,0.25,.5\n21,0,1e1,9";
static const char log_form[] = "24.5\n{\"real\": [19.0, 29.0, 25.5, 7], \"est\": [15.5, 29.25, 22.5, 1]}\n";

static void test_measured(void) {
  bl_measured_calls m;
  write_bytes(csv, strlen(csv));
  REQUIRE_OK(bl_measured_load(path, &grid, &m));
  CHECK_INT(m.n, 3);
  CHECK(m.steps[2] == 21 && m.layers[1] == 3 && m.measured_us[0] == 2500 && m.estimated_us[1] == 500);
  CHECK_NEAR(m.measured_us[2], 10000, 1e-9);
  const bool keep[3] = {false, true, true};
  bl_measured_keep(&m, keep);
  CHECK(m.n == 2 && m.steps[1] == 21 && m.estimated_us[0] == 500 && m.layers[0] == 3);
  bl_measured_free(&m);
  write_bytes(log_form, strlen(log_form));
  REQUIRE_OK(bl_measured_load(path, &grid, &m));
  CHECK(m.n == 4 && m.steps[1] == 101 && m.steps[2] == 201 && m.layers[2] == 0 && m.layers[3] == 1);
  CHECK(m.measured_us[2] == 25500 && m.estimated_us[3] == 1000);
  bl_measured_free(&m);
  const char bare[] = "{\"real\": [1, 2]}";
  write_bytes(bare, strlen(bare));
  REQUIRE_OK(bl_measured_load(path, &grid, &m));
  CHECK(m.n == 2 && m.estimated_us == NULL);
  bl_measured_free(&m);
}

static void test_measured_bad(void) {
  const struct {
    const char *text, *part;
  } bad[] = {
      {"", ":1: expected the heading"},
      {"step,layer,ms\n1,0,2\n", ":1: expected the heading"},
      {"step,layer,measured_ms\n", "no calls"},
      {"step,layer,measured_ms\n1,0,2\n1,0\n", ":3: expected step,layer,measured_ms"},
      {"step,layer,measured_ms\n1,0,2,3\n", ":2: "},
      {"step,layer,measured_ms\n1,0,-2\n", ":2: "},
      {"step,layer,measured_ms\n1,0,0\n", ":2: "},
      {"step,layer,measured_ms\n1,0,nan\n", ":2: "},
      {"step,layer,measured_ms\n1,0,0x1p3\n", ":2: "},
      {"step,layer,measured_ms\n1.5,0,1\n", ":2: "},
      {"step,layer,measured_ms\n1,99999,1\n", ":2: "},
      {"step,layer,measured_ms\n1, 0,1\n", ":2: "},
      {"step,layer,measured_ms\n\n1,0,1\n", ":2: "},
      {"24.5\n", "expected"},
      {"24.5\n{\"real\": [1, 2], \"est\": [1]}\n", "est"},
      {"24.5\n{\"real\": [1, 2, 3]}\n", "each of 2 layers"},
      {"24.5\n{\"real\": [1, -2]}\n", "real[1]"},
      {"24.5\n{\"real\": [1, 2],\n\"est\": [1, x]}\n", ":3:"},
      {"{\"real\": [1, 2], \"more\": 1}", "more"},
      {"{\"est\": [1, 2]}", "real"},
  };
  bl_measured_calls m;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    write_bytes(bad[i].text, strlen(bad[i].text));
    CHECK_FAILS(bl_measured_load(path, &grid, &m), BL_EINPUT, bad[i].part);
    CHECK(strstr(bl_error_text(), path) != NULL && m.steps == NULL);
  }
  const bl_call_grid far = {.first = INT64_MAX - 1, .stride = 1 << 30, .layers = 2};
  write_bytes(log_form, strlen(log_form));
  CHECK_FAILS(bl_measured_load(path, &far, &m), BL_EINPUT, "too far");
}

/* Flipped, cut and inserted bytes: read or refused with the file's name, never more. */
static void test_measured_fuzz(void) {
  bl_rng rng;
  bl_rng_seed(&rng, 6, 0);
  for (int trial = 0; trial < 2000; trial++) {
    const char *from = trial % 2 ? csv : log_form;
    char text[256];
    bl_measured_calls m;
    size_t n = strlen(from);
    memcpy(text, from, n);
    for (int changes = 1 + (int)bl_rng_below(&rng, 3); changes > 0; changes--)
      text[bl_rng_below(&rng, n)] =
          (char)(bl_rng_below(&rng, 2) ? bl_rng_below(&rng, 256) : (uint64_t) ",\n0.[{"[changes]);
    if (bl_rng_below(&rng, 3) == 0) n = bl_rng_below(&rng, n);
    write_bytes(text, n);
    if (bl_measured_load(path, &grid, &m) == BL_OK) {
      CHECK(m.n > 0);
      bl_measured_free(&m);
    } else
      CHECK(strstr(bl_error_text(), path) != NULL);
  }
}

enum { LAYERS = 2, SOURCES = 2, MICRO = 2, EXPERTS = 4 };

static uint32_t counts[2][LAYERS * SOURCES * MICRO * EXPERTS];

static bool write_trace(void) {
  const bl_trace_shape shape = {.layers = LAYERS, .ranks = SOURCES, .micro_batches = MICRO, .experts = EXPERTS};
  bl_trace_writer *writer;
  bl_rng rng;
  bl_rng_seed(&rng, 7, 0);
  for (int s = 0; s < 2; s++)
    for (int i = 0; i < LAYERS * SOURCES * MICRO * EXPERTS; i++) counts[s][i] = 1 + (uint32_t)bl_rng_below(&rng, 90);
  for (int i = 0; i < MICRO * EXPERTS; i++) counts[1][i] = 0; /* source rank 0 sends nothing in layer 0 */
  CHECK_OK(bl_trace_create(path, &shape, &writer));
  CHECK_OK(bl_trace_append(writer, 10, counts[0]));
  CHECK_OK(bl_trace_append(writer, 30, counts[1]));
  return bl_trace_finish(writer) == BL_OK;
}

static uint32_t count(int step, int layer, int rank, int micro_batch, int expert) {
  return counts[step][((layer * SOURCES + rank) * MICRO + micro_batch) * EXPERTS + expert];
}

/* The tokens of a rank in call i, whatever their order. */
static double sum_of(const bl_layer_calls *calls, int32_t i, int32_t rank, int32_t *n) {
  double sum = 0;
  *n = 0;
  for (int32_t s = 0; s < calls->slots; s++) {
    sum += calls->tokens[(i * calls->ranks + rank) * calls->slots + s];
    *n += calls->tokens[(i * calls->ranks + rank) * calls->slots + s] > 0;
  }
  return sum;
}

static void test_calls(void) {
  bl_trace_reader *reader;
  bl_placement placement;
  bl_layer_calls calls;
  double *tokens;
  int32_t n;
  const int64_t steps[3] = {30, 10, 30};
  const int32_t layers[3] = {1, 0, 0};
  REQUIRE(write_trace());
  REQUIRE_OK(bl_trace_open(path, &reader));
  REQUIRE_OK(bl_placement_create(2, EXPERTS, LAYERS, 0, &placement));
  /* All source ranks, the mean of the micro-batches, contiguous homes. */
  bl_call_options o = {.source_rank = -1, .micro_batch = -1};
  REQUIRE_OK(bl_layer_calls_read(reader, &placement, &o, 3, steps, layers, &tokens, &calls));
  for (int r = 0; r < 2; r++) {
    double sum = 0;
    for (int source = 0; source < SOURCES; source++)
      for (int m = 0; m < MICRO; m++) sum += count(1, 1, source, m, 2 * r) + count(1, 1, source, m, 2 * r + 1);
    CHECK_NEAR(sum_of(&calls, 0, r, &n), sum / MICRO, 1e-9);
    CHECK_INT(n, 2);
  }
  free(tokens);
  /* One source and micro-batch, scaled; a copy takes a quarter of expert 0 to rank 1. */
  const bl_copy copy = {.expert = 0, .rank = 1, .share = 0.25};
  REQUIRE_OK(bl_placement_set_copies(&placement, 0, &copy, 1));
  o = (bl_call_options){.source_rank = 1, .micro_batch = 0, .tokens = 1000};
  REQUIRE_OK(bl_layer_calls_read(reader, &placement, &o, 3, steps, layers, &tokens, &calls));
  double row[EXPERTS], all = 0;
  for (int e = 0; e < EXPERTS; e++) all += row[e] = count(0, 0, 1, 0, e);
  CHECK_NEAR(sum_of(&calls, 1, 0, &n), (0.75 * row[0] + row[1]) * 1000 / all, 1e-9);
  CHECK_NEAR(sum_of(&calls, 1, 1, &n), (0.25 * row[0] + row[2] + row[3]) * 1000 / all, 1e-9);
  CHECK(n == 3 && calls.slots == 3);
  free(tokens);
  o.source_rank = 0;
  CHECK_FAILS(bl_layer_calls_read(reader, &placement, &o, 3, steps, layers, &tokens, &calls), BL_EINPUT,
              "no tokens at iteration 30, layer 0");
  CHECK(tokens == NULL);
  bl_placement_free(&placement);
  bl_trace_close(reader);
}

int main(void) {
  snprintf(path, sizeof path, "/tmp/ballast_calls_%d", (int)getpid());
  RUN(test_calibrations);
  RUN(test_r_squared);
  RUN(test_measured);
  RUN(test_measured_bad);
  RUN(test_measured_fuzz);
  RUN(test_calls);
  unlink(path);
  TEST_MAIN_END;
}
