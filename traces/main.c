/* main.c - ballast-trace: imports, exports, describes and makes up traces. */
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/options.h"
#include "base/table.h"
#include "traces/export.h"
#include "traces/generate.h"
#include "traces/import_smartmoe.h"
#include "traces/stats.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the command line said; one command runs in one process. */
static struct {
  const char *input, *output, *format, *steps, *lags, *micro_batches;
  int64_t ranks;
  bool json;
} arg = {.output = "-", .micro_batches = "auto", .lags = "1,10,100"};

/* The chosen steps of `reader` as indices, from --steps (iteration numbers, inclusive). */
static bl_status choose_steps(const bl_trace_reader *reader, int32_t *first, int32_t *last) {
  int64_t low = INT64_MIN, high = INT64_MAX;
  const int32_t steps = bl_trace_steps(reader);
  if (arg.steps != NULL) BL_TRY(bl_parse_range(arg.steps, "--steps", &low, &high));
  *first = bl_trace_find(reader, low);
  *last = high == INT64_MAX ? steps - 1 : bl_trace_find(reader, high + 1) - 1;
  if (*first <= *last) return BL_OK;
  return bl_fail(BL_EINPUT, "%s: no step within --steps %s, the iterations are %" PRId64 " to %" PRId64,
                 bl_trace_path(reader), arg.steps, bl_trace_iteration(reader, 0),
                 bl_trace_iteration(reader, steps - 1));
}

/* Opens the input and says on stderr when it was cut short. */
static bl_status open_input(bl_trace_reader **reader) {
  BL_TRY(bl_trace_open(arg.input, reader));
  if (bl_trace_truncated(*reader))
    bl_warn("%s: has no sound index (cut short or damaged); read up to its last whole block, iteration %" PRId64,
            arg.input, bl_trace_iteration(*reader, bl_trace_steps(*reader) - 1));
  return BL_OK;
}

/* -- import ------------------------------------------------------------------------------------------------------- */

static bl_status copy_steps(bl_smartmoe *source, bl_trace_writer *writer, uint32_t *counts) {
  bl_progress progress;
  bl_progress_start(&progress);
  bl_status status = BL_OK;
  for (int32_t i = 0; i < bl_smartmoe_steps(source) && status == BL_OK; i++) {
    status = bl_smartmoe_read(source, i, counts);
    if (status == BL_OK) status = bl_trace_append(writer, bl_smartmoe_iteration(source, i), counts);
    bl_progress_update(&progress, "%" PRId32 " of %" PRId32 " steps", i + 1, bl_smartmoe_steps(source));
  }
  bl_progress_end(&progress);
  return status;
}

static bl_status run_import(void *context) {
  (void)context;
  bl_smartmoe *source = NULL;
  bl_trace_writer *writer = NULL;
  uint32_t *counts = NULL;
  bl_status status;
  BL_TRY(bl_smartmoe_open(arg.input, &source));
  const bl_trace_shape *shape = bl_smartmoe_shape_of(source);
  const size_t size = (size_t)bl_trace_step_size(shape);
  BL_TRY_GOTO(status, bl_new(&counts, size, sizeof *counts, "a step of a trace"), end);
  BL_TRY_GOTO(status, bl_trace_create(arg.output, shape, &writer), end);
  BL_TRY_GOTO(status, copy_steps(source, writer, counts), end);
  bl_trace_writer *const complete = writer;
  writer = NULL;
  BL_TRY_GOTO(status, bl_trace_finish(complete), end);
  bl_log(1,
         "%" PRId32 " steps x %" PRId32 " layers x %" PRId32 " ranks x %" PRId32 " micro-batches x %" PRId32
         " experts from %.1f MB of text",
         bl_smartmoe_steps(source), shape->layers, shape->ranks, shape->micro_batches, shape->experts,
         (double)bl_smartmoe_bytes(source) * 1e-6);
  if (bl_smartmoe_rank(source, shape->ranks - 1) != shape->ranks - 1)
    bl_log(1, "the ranks in the file names have gaps (%" PRId32 " to %" PRId32 "); in the trace they are 0 to %" PRId32,
           bl_smartmoe_rank(source, 0), bl_smartmoe_rank(source, shape->ranks - 1), shape->ranks - 1);
end:
  bl_trace_discard(writer);
  bl_smartmoe_close(source);
  free(counts);
  return status;
}

static const bl_option import_options[] = {
    {.type = BL_OPTION_STRING, .target = &arg.input, .metavar = "DIR", .help = "the folder to read", .required = true},
    {.name = "from",
     .type = BL_OPTION_CHOICE,
     .target = &arg.format,
     .choices = "smartmoe",
     .help = "what the folder holds; smartmoe: text files table_iter<I>_rank<R>.log",
     .required = true},
    {.name = "output|o",
     .type = BL_OPTION_STRING,
     .target = &arg.output,
     .metavar = "F",
     .help = "the .blt trace to write",
     .required = true},
};

/* -- export ------------------------------------------------------------------------------------------------------- */

static bl_status run_export(void *context) {
  (void)context;
  bl_trace_reader *reader = NULL;
  bl_output *output = NULL;
  int32_t first = 0, last = 0;
  const char *const inputs[] = {arg.input};
  bl_status status;
  BL_TRY(bl_output_check(arg.output, inputs, 1));
  BL_TRY(open_input(&reader));
  BL_TRY_GOTO(status, choose_steps(reader, &first, &last), end);
  BL_TRY_GOTO(status, bl_output_open(arg.output, &output), end);
  BL_TRY_GOTO(status, bl_export_csv(reader, first, last, output), end);
  status = bl_output_commit(output);
  output = NULL;
end:
  bl_output_discard(output);
  bl_trace_close(reader);
  return status;
}

static const bl_option export_options[] = {
    {.type = BL_OPTION_STRING,
     .target = &arg.input,
     .metavar = "F",
     .help = "the .blt trace to read",
     .required = true},
    {.name = "to",
     .type = BL_OPTION_CHOICE,
     .target = &arg.format,
     .choices = "csv",
     .help = "csv: step,layer,rank,micro_batch,e0,...,eN, a line for every row of counts",
     .required = true},
    {.name = "steps",
     .type = BL_OPTION_STRING,
     .target = &arg.steps,
     .metavar = "A:B",
     .help = "only iterations A to B, inclusive; by default all"},
    {.name = "output|o",
     .type = BL_OPTION_STRING,
     .target = &arg.output,
     .metavar = "F",
     .help = "where the text goes"},
};

/* -- info --------------------------------------------------------------------------------------------------------- */

static void print_info_json(const bl_trace_reader *reader, const bl_trace_summary *summary) {
  const bl_trace_shape *shape = bl_trace_shape_of(reader);
  const int32_t steps = bl_trace_steps(reader);
  const struct {
    const char *key;
    int64_t value;
  } numbers[] = {{"bytes", (int64_t)summary->file_bytes},
                 {"steps", steps},
                 {"first_iteration", bl_trace_iteration(reader, 0)},
                 {"last_iteration", bl_trace_iteration(reader, steps - 1)},
                 {"iteration_stride", summary->stride},
                 {"layers", shape->layers},
                 {"ranks", shape->ranks},
                 {"micro_batches", shape->micro_batches},
                 {"experts", shape->experts},
                 {"min_row_sum", (int64_t)summary->min_row},
                 {"max_row_sum", (int64_t)summary->max_row},
                 {"copies", (int64_t)summary->copies}};
  bl_json_writer w;
  bl_json_writer_init(&w, stdout, true);
  bl_json_begin_object(&w);
  bl_json_key(&w, "version");
  bl_json_write_int(&w, 1);
  bl_json_key(&w, "file");
  bl_json_write_string(&w, bl_trace_path(reader));
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    bl_json_key(&w, numbers[i].key);
    bl_json_write_int(&w, numbers[i].value);
  }
  bl_json_key(&w, "live");
  bl_json_write_bool(&w, shape->live);
  bl_json_key(&w, "truncated");
  bl_json_write_bool(&w, bl_trace_truncated(reader));
  bl_json_end_object(&w);
  bl_json_newline(&w);
}

static void print_info(const bl_trace_reader *reader, const bl_trace_summary *summary) {
  const bl_trace_shape *shape = bl_trace_shape_of(reader);
  const int32_t steps = bl_trace_steps(reader);
  printf("%s: %" PRId32 " x %" PRId32 " layers x %" PRId32 " ranks x %" PRId32 " micro-batches x %" PRId32 " experts\n",
         bl_trace_path(reader), steps, shape->layers, shape->ranks, shape->micro_batches, shape->experts);
  printf("iterations   %" PRId64 " to %" PRId64, bl_trace_iteration(reader, 0), bl_trace_iteration(reader, steps - 1));
  if (summary->stride > 0) printf(", every %" PRId64, summary->stride);
  printf("\nrow sums     ");
  if (summary->min_row == summary->max_row)
    printf("%" PRIu64 " (every row)\n", summary->min_row);
  else
    printf("%" PRIu64 " to %" PRIu64 "\n", summary->min_row, summary->max_row);
  printf("recorded     %s\n", shape->live ? "live: every micro-batch was scheduled by itself" : "as a histogram");
  printf("size         %.1f MB, %.3f bytes a count\n", (double)summary->file_bytes * 1e-6,
         (double)summary->file_bytes / ((double)bl_trace_step_size(shape) * steps));
  printf("index        %s\n", bl_trace_truncated(reader) ? "missing or damaged, rebuilt" : "sound");
}

static bl_status run_info(void *context) {
  (void)context;
  bl_trace_reader *reader = NULL;
  bl_trace_summary summary;
  BL_TRY(open_input(&reader));
  const bl_status status = bl_trace_summarise(reader, &summary);
  if (status == BL_OK && arg.json) print_info_json(reader, &summary);
  if (status == BL_OK && !arg.json) print_info(reader, &summary);
  bl_trace_close(reader);
  return status;
}

static const bl_option info_options[] = {
    {.type = BL_OPTION_STRING,
     .target = &arg.input,
     .metavar = "F",
     .help = "the .blt trace to read",
     .required = true},
    {.name = "json", .type = BL_OPTION_FLAG, .target = &arg.json, .help = "print JSON"},
};

/* -- stats -------------------------------------------------------------------------------------------------------- */

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
                 {"entropy", stats->entropy},
                 {"top_share", stats->top_share},
                 {"top4_share", stats->top4_share},
                 {"idle", stats->idle}};
  const double *const arrays[] = {stats->drift, stats->top_kept};
  bl_json_begin_flat_object(w);
  if (layer >= 0) {
    bl_json_key(w, "layer");
    bl_json_write_int(w, layer);
  }
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    bl_json_key(w, numbers[i].key);
    bl_json_write_number(w, numbers[i].value);
  }
  for (int a = 0; a < 2; a++) {
    bl_json_key(w, a == 0 ? "drift" : "top_kept");
    bl_json_begin_flat_array(w);
    for (int32_t i = 0; i < options->n_lags; i++) bl_json_write_number(w, arrays[a][i]);
    bl_json_end_array(w);
  }
  bl_json_end_object(w);
}

static void print_stats_json(const bl_trace_reader *reader, const bl_stats_options *options,
                             const bl_load_stats *layers, const bl_load_stats *all) {
  bl_json_writer w;
  bl_json_writer_init(&w, stdout, true);
  bl_json_begin_object(&w);
  bl_json_key(&w, "version");
  bl_json_write_int(&w, 1);
  bl_json_key(&w, "file");
  bl_json_write_string(&w, bl_trace_path(reader));
  bl_json_key(&w, "ranks");
  bl_json_write_int(&w, options->ranks);
  bl_json_key(&w, "steps");
  bl_json_write_int(&w, options->last - options->first + 1);
  bl_json_key(&w, "first_iteration");
  bl_json_write_int(&w, bl_trace_iteration(reader, options->first));
  bl_json_key(&w, "last_iteration");
  bl_json_write_int(&w, bl_trace_iteration(reader, options->last));
  bl_json_key(&w, "micro_batches");
  bl_json_write_string(&w, options->each_micro_batch ? "each" : "sum");
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

static bl_status add_stats_row(bl_table *table, const bl_stats_options *options, const bl_load_stats *stats) {
  const double values[] = {stats->imbalance, stats->worst_imbalance, stats->gini, stats->entropy,
                           stats->top_share, stats->top4_share,      stats->idle};
  for (size_t i = 0; i < sizeof values / sizeof *values; i++) BL_TRY(bl_table_cell(table, "%.4f", values[i]));
  for (int32_t i = 0; i < options->n_lags; i++) {
    if (isnan(stats->drift[i]))
      BL_TRY(bl_table_cell(table, "-"));
    else
      BL_TRY(bl_table_cell(table, "%.4f", stats->drift[i]));
  }
  return BL_OK;
}

static bl_status print_stats(const bl_trace_reader *reader, const bl_stats_options *options,
                             const bl_load_stats *layers, const bl_load_stats *all) {
  char headings[256] = "<layer|imbalance|worst|gini|entropy|top 1|top 4|idle";
  bl_table *table = NULL;
  bl_status status = BL_OK;
  for (int32_t i = 0; i < options->n_lags; i++) {
    const size_t length = strlen(headings);
    snprintf(headings + length, sizeof headings - length, "|drift %" PRId32, options->lags[i]);
  }
  BL_TRY(bl_table_create(headings, &table));
  for (int32_t layer = 0; layer < bl_trace_shape_of(reader)->layers; layer++) {
    BL_TRY_GOTO(status, bl_table_cell(table, "%" PRId32, layer), end);
    BL_TRY_GOTO(status, add_stats_row(table, options, &layers[layer]), end);
  }
  BL_TRY_GOTO(status, bl_table_cell(table, "all"), end);
  BL_TRY_GOTO(status, add_stats_row(table, options, all), end);
  printf("%" PRId32 " steps, iterations %" PRId64 " to %" PRId64 ", experts on %" PRId32
         " ranks with contiguous homes; imbalance %s; drift: total variation over so many recorded steps\n",
         options->last - options->first + 1, bl_trace_iteration(reader, options->first),
         bl_trace_iteration(reader, options->last), options->ranks,
         options->each_micro_batch ? "of each micro-batch" : "of the sum of micro-batches");
  bl_table_print(table, stdout);
end:
  bl_table_free(table);
  return status;
}

static bl_status run_stats(void *context) {
  (void)context;
  bl_trace_reader *reader = NULL;
  bl_load_stats *layers = NULL, all;
  bl_stats_options options = {0};
  bl_status status;
  BL_TRY(parse_lags(&options));
  BL_TRY(open_input(&reader));
  const bl_trace_shape *shape = bl_trace_shape_of(reader);
  options.ranks = (int32_t)arg.ranks;
  options.each_micro_batch =
      strcmp(arg.micro_batches, "auto") == 0 ? shape->live : strcmp(arg.micro_batches, "each") == 0;
  BL_TRY_GOTO(status, choose_steps(reader, &options.first, &options.last), end);
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

static const bl_option stats_options[] = {
    {.type = BL_OPTION_STRING,
     .target = &arg.input,
     .metavar = "F",
     .help = "the .blt trace to read",
     .required = true},
    {.name = "ranks",
     .type = BL_OPTION_INT,
     .target = &arg.ranks,
     .metavar = "P",
     .help = "ranks that the experts are spread over, contiguously",
     .min = 1,
     .max = BL_TRACE_MAX_RANKS,
     .required = true},
    {.name = "steps",
     .type = BL_OPTION_STRING,
     .target = &arg.steps,
     .metavar = "A:B",
     .help = "only iterations A to B, inclusive; by default all"},
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
    {.name = "json", .type = BL_OPTION_FLAG, .target = &arg.json, .help = "print JSON"},
};

/* -- gen ---------------------------------------------------------------------------------------------------------- */

static struct {
  int64_t layers, experts, ranks, micro_batches, steps, first, stride, tokens, top_k, seed;
  double zipf, top_share, drift, jumps, bursts;
  bool zipf_given, top_share_given, live;
} gen = {.layers = 24,
         .experts = 32,
         .ranks = 16,
         .micro_batches = 4,
         .steps = 100,
         .first = 1,
         .stride = 1,
         .tokens = 2048,
         .top_k = 2,
         .seed = 1,
         .zipf = 1,
         .drift = 0.05,
         .jumps = 0.01,
         .bursts = 0.01};

static bl_status append_generated(bl_generator *generator, bl_trace_writer *writer, uint32_t *counts) {
  bl_progress progress;
  bl_progress_start(&progress);
  bl_status status = BL_OK;
  for (int64_t i = 0; i < gen.steps && status == BL_OK; i++) {
    bl_generator_step(generator, counts);
    status = bl_trace_append(writer, gen.first + i * gen.stride, counts);
    bl_progress_update(&progress, "%" PRId64 " of %" PRId64 " steps", i + 1, gen.steps);
  }
  bl_progress_end(&progress);
  return status;
}

static bl_status run_gen(void *context) {
  (void)context;
  const bl_generate_options options = {.shape = {.layers = (int32_t)gen.layers,
                                                 .ranks = (int32_t)gen.ranks,
                                                 .micro_batches = (int32_t)gen.micro_batches,
                                                 .experts = (int32_t)gen.experts,
                                                 .live = gen.live},
                                       .tokens = (int32_t)gen.tokens,
                                       .top_k = (int32_t)gen.top_k,
                                       .zipf = gen.zipf,
                                       .top_share = gen.top_share,
                                       .drift = gen.drift,
                                       .jumps = gen.jumps,
                                       .bursts = gen.bursts,
                                       .seed = (uint64_t)gen.seed};
  bl_generator *generator = NULL;
  bl_trace_writer *writer = NULL;
  uint32_t *counts = NULL;
  bl_status status;
  if (gen.zipf_given && gen.top_share_given) return bl_fail(BL_EUSAGE, "--zipf and --top-share exclude each other");
  BL_TRY(bl_generator_create(&options, &generator));
  BL_TRY_GOTO(status, bl_new(&counts, (size_t)bl_trace_step_size(&options.shape), sizeof *counts, "a step of a trace"),
              end);
  BL_TRY_GOTO(status, bl_trace_create(arg.output, &options.shape, &writer), end);
  BL_TRY_GOTO(status, append_generated(generator, writer, counts), end);
  bl_trace_writer *const complete = writer;
  writer = NULL;
  status = bl_trace_finish(complete);
end:
  bl_trace_discard(writer);
  bl_generator_free(generator);
  free(counts);
  return status;
}

#define SIZE_OPTION(option, field, letter, most, text)                                                      \
  {                                                                                                         \
    .name = option, .type = BL_OPTION_INT, .target = &gen.field, .metavar = letter, .help = text, .min = 1, \
    .max = most                                                                                             \
  }
#define RATE_OPTION(option, field, most, text) \
  { .name = option, .type = BL_OPTION_NUMBER, .target = &gen.field, .metavar = "X", .help = text, .max = most }

static const bl_option gen_options[] = {
    {.name = "output|o",
     .type = BL_OPTION_STRING,
     .target = &arg.output,
     .metavar = "F",
     .help = "the .blt trace to write",
     .required = true},
    {.type = BL_OPTION_HEADING, .help = "Size"},
    SIZE_OPTION("layers", layers, "L", BL_TRACE_MAX_LAYERS, "MoE layers"),
    SIZE_OPTION("experts", experts, "E", BL_TRACE_MAX_EXPERTS, "experts of a layer"),
    SIZE_OPTION("ranks", ranks, "R", BL_TRACE_MAX_RANKS, "source ranks"),
    SIZE_OPTION("micro-batches", micro_batches, "M", BL_TRACE_MAX_MICRO_BATCHES, "micro-batches of a step"),
    SIZE_OPTION("steps", steps, "N", 1e8, "recorded steps"),
    SIZE_OPTION("stride", stride, "N", 1e9, "iterations between recorded steps"),
    {.name = "first",
     .type = BL_OPTION_INT,
     .target = &gen.first,
     .metavar = "I",
     .help = "iteration of the first step",
     .max = 1e15},
    SIZE_OPTION("tokens", tokens, "T", 1e9, "tokens of one rank and micro-batch"),
    SIZE_OPTION("top-k", top_k, "K", BL_TRACE_MAX_EXPERTS, "experts that a token takes"),
    {.type = BL_OPTION_HEADING, .help = "Load"},
    {.name = "zipf",
     .type = BL_OPTION_NUMBER,
     .target = &gen.zipf,
     .metavar = "S",
     .help = "popularity of the r-th expert is r^-S at first",
     .max = 64,
     .given = &gen.zipf_given},
    {.name = "top-share",
     .type = BL_OPTION_NUMBER,
     .target = &gen.top_share,
     .metavar = "X",
     .help = "share of the hottest expert, held at every step, instead of --zipf",
     .min = 1e-6,
     .max = 1,
     .given = &gen.top_share_given},
    RATE_OPTION("drift", drift, 0.5, "how far log popularity walks in a step (standard deviation)"),
    RATE_OPTION("jumps", jumps, 1, "probability a layer and step that two experts exchange their popularity"),
    RATE_OPTION("bursts", bursts, 1, "probability a layer and step that an expert gets 8 times as popular for a while"),
    {.name = "live", .type = BL_OPTION_FLAG, .target = &gen.live, .help = "mark the trace as recorded live"},
    {.name = "seed",
     .type = BL_OPTION_INT,
     .target = &gen.seed,
     .metavar = "N",
     .help = "of the random numbers",
     .max = 9e15},
};

/* ----------------------------------------------------------------------------------------------------------------- */

#define OPTIONS(table) .options = table, .n_options = (int)(sizeof table / sizeof *table)

int main(int argc, char **argv) {
  const bl_command commands[] = {
      {.name = "import",
       .summary = "turns another format into a .blt trace",
       .description = "Any iterations and ranks may be there, but every rank for every iteration. All rows of a file "
                      "must sum alike.",
       .example = "ballast-trace import --from smartmoe moe_trace/ -o smartmoe.blt",
       OPTIONS(import_options),
       .run = run_import},
      {.name = "export",
       .summary = "turns a .blt trace into another format",
       .example = "ballast-trace export smartmoe.blt --to csv --steps 1:101 -o smartmoe.csv",
       OPTIONS(export_options),
       .run = run_export},
      {.name = "info",
       .summary = "says what a trace holds, and reads all of it",
       .example = "ballast-trace info smartmoe.blt",
       OPTIONS(info_options),
       .run = run_info},
      {.name = "stats",
       .summary = "imbalance, concentration and drift, for every layer",
       .example = "ballast-trace stats smartmoe.blt --ranks 8",
       OPTIONS(stats_options),
       .run = run_stats},
      {.name = "gen",
       .summary = "makes up a trace whose popularity drifts as routing does",
       .description = "The same options give the same counts on every machine.",
       .example = "ballast-trace gen --experts 8 --ranks 4 --top-share 0.36 --steps 200 -o made_up.blt",
       OPTIONS(gen_options),
       .run = run_gen},
  };
  return bl_program_main("ballast-trace", "expert-selection traces of MoE training", commands,
                         (int)(sizeof commands / sizeof *commands), argc, argv);
}
