/* ballast-trace stats: imbalance, concentration and drift of every layer. */
#include "base/json.h"
#include "base/memory.h"
#include "base/table.h"
#include "traces/command_input.h"
#include "traces/commands.h"
#include "traces/stats.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static bl_command_input input;
static struct {
  const char *lags, *micro_batches;
  int64_t ranks;
  bool json;
} arg = {.lags = "1,10,100", .micro_batches = "auto"};

static bl_status parse_lags(bl_stats_options *options) {
  const char *at = arg.lags;
  while (*at != '\0') {
    char word[32];
    int length = 0;
    int64_t lag = 0;
    if (sscanf(at, "%31[^,]%n", word, &length) != 1)
      return bl_fail(BL_EUSAGE, "--lags: expected N,N,..., found \"%s\"", arg.lags);
    BL_TRY(bl_parse_int(word, "--lags", &lag));
    if (lag < 1 || lag > INT32_MAX || options->n_lags == BL_STATS_MAX_LAGS)
      return bl_fail(BL_EUSAGE, "--lags: expected at most %d numbers of at least 1, found \"%s\"", BL_STATS_MAX_LAGS,
                     arg.lags);
    options->lags[options->n_lags++] = (int32_t)lag;
    at += length;
    if (*at == ',') at++;
  }
  return BL_OK;
}

static void write_stats_object(bl_json_writer *w, const bl_stats_options *options, int32_t layer,
                               const bl_load_stats *stats) {
  const struct {
    const char *key;
    double value;
  } numbers[] = {{"imbalance", stats->imbalance},
                 {"worst_imbalance", stats->worst_imbalance},
                 {"gini", stats->gini},
                 {"herfindahl", stats->herfindahl},
                 {"entropy", stats->entropy},
                 {"top_share", stats->top_share},
                 {"top4_share", stats->top4_share},
                 {"idle", stats->idle}};
  const struct {
    const char *key;
    const double *values;
  } arrays[] = {{"drift", stats->drift}, {"drift_p99", stats->drift_p99}, {"top_kept", stats->top_kept}};
  bl_json_begin_flat_object(w);
  if (layer >= 0) {
    bl_json_put_int(w, "layer", layer);
  }
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    bl_json_put_number(w, numbers[i].key, numbers[i].value);
  }
  for (size_t a = 0; a < sizeof arrays / sizeof *arrays; a++) {
    bl_json_key(w, arrays[a].key);
    bl_json_begin_flat_array(w);
    for (int32_t i = 0; i < options->n_lags; i++) bl_json_write_number(w, arrays[a].values[i]);
    bl_json_end_array(w);
  }
  bl_json_end_object(w);
}

static void print_stats_json(const bl_trace_reader *reader, const bl_stats_options *options,
                             const bl_load_stats *layers, const bl_load_stats *all) {
  bl_json_writer w;
  bl_json_writer_init(&w, stdout, true);
  bl_json_begin_object(&w);
  bl_json_put_int(&w, "version", 1);
  bl_json_put_string(&w, "file", bl_trace_path(reader));
  bl_json_put_int(&w, "ranks", options->ranks);
  bl_json_put_int(&w, "steps", options->last - options->first + 1);
  bl_json_put_int(&w, "first_iteration", bl_trace_iteration(reader, options->first));
  bl_json_put_int(&w, "last_iteration", bl_trace_iteration(reader, options->last));
  bl_json_put_string(&w, "micro_batches", options->each_micro_batch ? "each" : "sum");
  bl_json_key(&w, "lags");
  bl_json_begin_flat_array(&w);
  for (int32_t i = 0; i < options->n_lags; i++) bl_json_write_int(&w, options->lags[i]);
  bl_json_end_array(&w);
  bl_json_key(&w, "layers");
  bl_json_begin_array(&w);
  for (int32_t layer = 0; layer < bl_trace_shape_of(reader)->layers; layer++)
    write_stats_object(&w, options, layer, &layers[layer]);
  bl_json_end_array(&w);
  bl_json_key(&w, "all");
  write_stats_object(&w, options, -1, all);
  bl_json_end_object(&w);
  bl_json_newline(&w);
}

static bl_status add_distance(bl_table *table, double value) {
  return isnan(value) ? bl_table_cell(table, "-") : bl_table_cell(table, "%.4f", value);
}

static bl_status add_stats_row(bl_table *table, const bl_stats_options *options, const bl_load_stats *stats) {
  const double values[] = {stats->imbalance, stats->worst_imbalance, stats->gini,       stats->herfindahl,
                           stats->entropy,   stats->top_share,       stats->top4_share, stats->idle};
  for (size_t i = 0; i < sizeof values / sizeof *values; i++) BL_TRY(bl_table_cell(table, "%.4f", values[i]));
  for (int32_t i = 0; i < options->n_lags; i++) {
    BL_TRY(add_distance(table, stats->drift[i]));
    BL_TRY(add_distance(table, stats->drift_p99[i]));
  }
  return BL_OK;
}

static bl_status print_stats(const bl_trace_reader *reader, const bl_stats_options *options,
                             const bl_load_stats *layers, const bl_load_stats *all) {
  char headings[512] = "<layer|imbalance|worst|gini|herfindahl|entropy|top 1|top 4|idle";
  bl_table *table = NULL;
  bl_status status = BL_OK;
  for (int32_t i = 0; i < options->n_lags; i++) {
    const size_t length = strlen(headings);
    snprintf(headings + length, sizeof headings - length, "|drift %" PRId32 "|p99", options->lags[i]);
  }
  BL_TRY(bl_table_create(headings, &table));
  for (int32_t layer = 0; layer < bl_trace_shape_of(reader)->layers; layer++) {
    BL_TRY_GOTO(status, bl_table_cell(table, "%" PRId32, layer), end);
    BL_TRY_GOTO(status, add_stats_row(table, options, &layers[layer]), end);
  }
  BL_TRY_GOTO(status, bl_table_cell(table, "all"), end);
  BL_TRY_GOTO(status, add_stats_row(table, options, all), end);
  printf("%" PRId32 " steps, iterations %" PRId64 " to %" PRId64 ", experts on %" PRId32
         " ranks with contiguous homes; imbalance %s; drift: total variation over so many recorded steps, mean and "
         "99th percentile\n",
         options->last - options->first + 1, bl_trace_iteration(reader, options->first),
         bl_trace_iteration(reader, options->last), options->ranks,
         options->each_micro_batch ? "of each micro-batch" : "of the sum of micro-batches");
  bl_table_print(table, stdout);
end:
  bl_table_free(table);
  return status;
}

static bl_status run(void *context) {
  (void)context;
  bl_trace_reader *reader = NULL;
  bl_load_stats *layers = NULL, all;
  bl_stats_options options = {0};
  bl_status status;
  BL_TRY(parse_lags(&options));
  BL_TRY(bl_command_input_open(&input, &reader));
  const bl_trace_shape *shape = bl_trace_shape_of(reader);
  options.ranks = (int32_t)arg.ranks;
  options.each_micro_batch =
      strcmp(arg.micro_batches, "auto") == 0 ? shape->live : strcmp(arg.micro_batches, "each") == 0;
  BL_TRY_GOTO(status, bl_command_input_steps(&input, reader, &options.first, &options.last), end);
  BL_TRY_GOTO(status, bl_new(&layers, (size_t)shape->layers, sizeof *layers, "statistics"), end);
  BL_TRY_GOTO(status, bl_stats_compute(reader, &options, layers, &all), end);
  if (arg.json)
    print_stats_json(reader, &options, layers, &all);
  else
    status = print_stats(reader, &options, layers, &all);
end:
  free(layers);
  bl_trace_close(reader);
  return status;
}

bl_command bl_command_stats(void) {
  static const bl_option options[] = {
      BL_INPUT_PATH_ROW(input),
      {.name = "ranks",
       .type = BL_OPTION_INT,
       .target = &arg.ranks,
       .metavar = "P",
       .help = "ranks that the experts are spread over, contiguously",
       .min = 1,
       .max = BL_TRACE_MAX_RANKS,
       .required = true},
      BL_INPUT_STEPS_ROW(input),
      {.name = "micro-batches",
       .type = BL_OPTION_CHOICE,
       .target = &arg.micro_batches,
       .choices = "auto|sum|each",
       .help = "imbalance of their sum or of each; auto: of each where the trace was recorded live"},
      {.name = "lags",
       .type = BL_OPTION_STRING,
       .target = &arg.lags,
       .metavar = "N,N,...",
       .help = "recorded steps over which drift is measured"},
      {.name = "json", .type = BL_OPTION_FLAG, .target = &arg.json, .help = "print JSON"}};
  return (bl_command){.name = "stats",
                      .summary = "imbalance, concentration and drift, for every layer",
                      .example = "ballast-trace stats smartmoe.blt --ranks 8",
                      .options = options,
                      .n_options = sizeof options / sizeof *options,
                      .run = run};
}
