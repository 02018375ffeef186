/* Statistics against figures worked out by hand, and the CSV. */
#include "tests/unit/trace_files.h"
#include "traces/export.h"
#include "traces/stats.h"

static const bl_trace_shape shape = {.layers = 2, .ranks = 1, .micro_batches = 2, .experts = 4};

/* Three steps; layer 0 as listed (the sum of its two micro-batches in brackets), layer 1 even. */
static const uint32_t steps[3][16] = {
    {10, 0, 0, 0, 0, 10, 0, 0, /* [10 10 0 0] */ 5, 5, 5, 5, 5, 5, 5, 5},
    {4, 3, 2, 1, 4, 3, 2, 1, /* [8 6 4 2] */ 5, 5, 5, 5, 5, 5, 5, 5},
    {0, 0, 0, 10, 0, 0, 0, 10, /* [0 0 0 20] */ 5, 5, 5, 5, 5, 5, 5, 5},
};

static const char *write_steps(int n) {
  const char *path = temp_path("stats.blt");
  bl_trace_writer *writer = NULL;
  if (bl_trace_create(path, &shape, &writer) != BL_OK) exit(1);
  for (int i = 0; i < n; i++)
    if (bl_trace_append(writer, 10 * i + 5, steps[i]) != BL_OK) exit(1);
  if (bl_trace_finish(writer) != BL_OK) exit(1);
  return path;
}

static void test_imbalance(void) {
  const double loads[5] = {4, 1, 2, 3, 0};
  CHECK_NEAR(bl_stats_imbalance(loads, 5, 1), 1, 0);
  CHECK_NEAR(bl_stats_imbalance(loads, 5, 2), 7 * 2 / 10.0, 1e-15); /* 4 1 2 | 3 0 */
  CHECK_NEAR(bl_stats_imbalance(loads, 5, 3), 5 * 3 / 10.0, 1e-15); /* 4 1 | 2 3 | 0 */
  CHECK_NEAR(bl_stats_imbalance(loads, 5, 4), 5 * 4 / 10.0, 1e-15); /* two each: the fourth rank has none */
  CHECK_NEAR(bl_stats_imbalance(loads, 5, 5), 4 * 5 / 10.0, 1e-15);
  CHECK_NEAR(bl_stats_imbalance((const double[]){0, 0}, 2, 2), 1, 0);
}

static void test_stats(void) {
  bl_trace_reader *reader = NULL;
  bl_load_stats layers[2], all;
  bl_stats_options options = {.ranks = 2, .first = 0, .last = 2, .n_lags = 3, .lags = {1, 2, 3}};
  REQUIRE_OK(bl_trace_open(write_steps(3), &reader));
  REQUIRE_OK(bl_stats_compute(reader, &options, layers, &all));
  CHECK_NEAR(layers[0].imbalance, (2 + 1.4 + 2) / 3, 1e-12);
  CHECK_NEAR(layers[0].worst_imbalance, 2, 1e-12);
  CHECK_NEAR(layers[0].top_share, (0.5 + 0.4 + 1) / 3, 1e-12);
  CHECK_NEAR(layers[0].top4_share, 1, 1e-12);
  CHECK_NEAR(layers[0].idle, (0.5 + 0 + 0.75) / 3, 1e-12);
  CHECK_NEAR(layers[0].gini, (0.5 + 0.25 + 0.75) / 3, 1e-12);
  CHECK_NEAR(layers[0].herfindahl, (0.5 + 0.3 + 1) / 3, 1e-12);
  const double mixed = -(0.4 * log(0.4) + 0.3 * log(0.3) + 0.2 * log(0.2) + 0.1 * log(0.1)) / log(4);
  CHECK_NEAR(layers[0].entropy, (0.5 + mixed + 0) / 3, 1e-12);
  CHECK_NEAR(layers[0].drift[0], (0.3 + 0.9) / 2, 1e-12); /* .1+.2+.2+.1, .4+.3+.2+.9 halved */
  CHECK_NEAR(layers[0].drift[1], 1, 1e-12);
  CHECK_NEAR(layers[0].drift_p99[0], 0.9, 1e-12);
  CHECK_NEAR(layers[1].drift_p99[0], 0, 1e-12);
  CHECK_NEAR(all.drift_p99[0], 0.9, 1e-12);
  CHECK(isnan(layers[0].drift_p99[2]) && isnan(all.drift_p99[2]));
  CHECK_NEAR(layers[0].top_kept[0], 0.5, 1e-12);
  CHECK_NEAR(layers[0].top_kept[1], 0, 1e-12);
  CHECK(isnan(layers[0].drift[2]) && isnan(layers[0].top_kept[2]) && isnan(all.drift[2]));
  CHECK_NEAR(layers[1].imbalance, 1, 1e-12);
  CHECK_NEAR(layers[1].gini, 0, 1e-12);
  CHECK_NEAR(layers[1].entropy, 1, 1e-12);
  CHECK_NEAR(layers[1].drift[0], 0, 1e-12);
  CHECK_NEAR(all.imbalance, (layers[0].imbalance + 1) / 2, 1e-12);
  CHECK_NEAR(all.worst_imbalance, 2, 1e-12);

  options.each_micro_batch = true;
  options.last = 0;
  options.n_lags = 0;
  options.ranks = 4;
  REQUIRE_OK(bl_stats_compute(reader, &options, layers, &all));
  CHECK_NEAR(layers[0].imbalance, 4, 1e-12); /* each has one hot expert; their sum has two */
  options.each_micro_batch = false;
  REQUIRE_OK(bl_stats_compute(reader, &options, layers, &all));
  CHECK_NEAR(layers[0].imbalance, 2, 1e-12);
  options.ranks = 5;
  CHECK_FAILS(bl_stats_compute(reader, &options, layers, &all), BL_EINPUT, "5 ranks for 4 experts");
  options.ranks = 0;
  CHECK_FAILS(bl_stats_compute(reader, &options, layers, &all), BL_EINPUT, "0 ranks");
  bl_trace_close(reader);
}

static void test_summary(void) {
  bl_trace_reader *reader = NULL;
  bl_trace_summary summary;
  REQUIRE_OK(bl_trace_open(write_steps(3), &reader));
  REQUIRE_OK(bl_trace_summarise(reader, &summary));
  CHECK(summary.min_row == 10 && summary.max_row == 20 && summary.copies == 3 * 60 && summary.stride == 10);
  bl_trace_close(reader);
  REQUIRE_OK(bl_trace_open(write_steps(1), &reader));
  REQUIRE_OK(bl_trace_summarise(reader, &summary));
  CHECK_INT(summary.stride, 0);
  bl_trace_close(reader);
}

static void test_csv(void) {
  static const char want[] = "step,layer,rank,micro_batch,e0,e1,e2,e3\n"
                             "15,0,0,0,4,3,2,1\n15,0,0,1,4,3,2,1\n15,1,0,0,5,5,5,5\n15,1,0,1,5,5,5,5\n";
  bl_trace_reader *reader = NULL;
  bl_output *output = NULL;
  uint64_t n = 0;
  const char *path = temp_path("out.csv");
  REQUIRE_OK(bl_trace_open(write_steps(3), &reader));
  REQUIRE_OK(bl_output_open(path, &output));
  CHECK_OK(bl_export_csv(reader, 1, 1, output));
  REQUIRE_OK(bl_output_commit(output));
  uint8_t *text = get_file(path, &n);
  text[n] = '\0';
  CHECK_STRING((const char *)text, want);
  free(text);
  bl_trace_close(reader);

  const bl_trace_shape one = {1, 1, 1, 2, false};
  const uint32_t counts[2] = {UINT32_MAX, 0};
  bl_trace_writer *writer = NULL;
  REQUIRE_OK(bl_trace_create(temp_path("wide.blt"), &one, &writer));
  CHECK_OK(bl_trace_append(writer, INT64_MIN, counts));
  CHECK_OK(bl_trace_append(writer, INT64_MAX, counts));
  REQUIRE_OK(bl_trace_finish(writer));
  REQUIRE_OK(bl_trace_open(temp_path("wide.blt"), &reader));
  bl_trace_summary summary;
  CHECK_OK(bl_trace_summarise(reader, &summary));
  CHECK_INT(summary.stride, 0);
  REQUIRE_OK(bl_output_open(path, &output));
  CHECK_OK(bl_export_csv(reader, 0, 1, output));
  REQUIRE_OK(bl_output_commit(output));
  text = get_file(path, &n);
  text[n] = '\0';
  CHECK_STRING((const char *)text, "step,layer,rank,micro_batch,e0,e1\n-9223372036854775808,0,0,0,4294967295,0\n"
                                   "9223372036854775807,0,0,0,4294967295,0\n");
  free(text);
  bl_trace_close(reader);
}

int main(void) {
  RUN(test_imbalance);
  RUN(test_stats);
  RUN(test_summary);
  RUN(test_csv);
  remove_temp_folder();
  TEST_MAIN_END;
}
