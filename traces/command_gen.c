/* ballast-trace gen: makes up a trace. */
#include "base/log.h"
#include "base/memory.h"
#include "traces/command_input.h"
#include "traces/commands.h"
#include "traces/generate.h"
#include <inttypes.h>

static struct {
  const char *output;
  int64_t layers, experts, ranks, micro_batches, steps, first, stride, tokens, top_k, seed;
  double zipf, top_share, gini, herfindahl, tolerance, drift, jumps, bursts, total_variation;
  bool zipf_given, top_share_given, gini_given, herfindahl_given, tolerance_given;
  bool drift_given, jumps_given, bursts_given, total_variation_given, live;
} arg = {.layers = 24,
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
         .gini = -1,
         .herfindahl = -1,
         .tolerance = 0.001,
         .total_variation = -1,
         .drift = 0.05,
         .jumps = 0.01,
         .bursts = 0.01};

static bl_status append_generated(bl_generator *generator, bl_trace_writer *writer, uint32_t *counts) {
  bl_progress progress;
  bl_progress_start(&progress);
  bl_status status = BL_OK;
  for (int64_t i = 0; i < arg.steps && status == BL_OK; i++) {
    status = bl_generator_step(generator, counts);
    if (status == BL_OK) status = bl_trace_append(writer, arg.first + i * arg.stride, counts);
    bl_progress_update(&progress, "%" PRId64 " of %" PRId64 " steps", i + 1, arg.steps);
  }
  bl_progress_end(&progress);
  return status;
}

static bl_status check_exclusions(void) {
  const bool index = arg.gini_given || arg.herfindahl_given;
  if (arg.zipf_given + arg.top_share_given + arg.gini_given + arg.herfindahl_given > 1)
    return bl_fail(BL_EUSAGE, "--zipf, --top-share, --gini and --herfindahl exclude each other");
  if (arg.total_variation_given && !index) return bl_fail(BL_EUSAGE, "--total-variation needs --gini or --herfindahl");
  if (arg.total_variation_given && (arg.drift_given || arg.jumps_given || arg.bursts_given))
    return bl_fail(BL_EUSAGE, "--total-variation and --drift, --jumps or --bursts exclude each other");
  if (arg.tolerance_given && !index) return bl_fail(BL_EUSAGE, "--tolerance needs --gini or --herfindahl");
  return BL_OK;
}

static bl_status run(void *context) {
  (void)context;
  const bl_generate_options options = {.shape = {.layers = (int32_t)arg.layers,
                                                 .ranks = (int32_t)arg.ranks,
                                                 .micro_batches = (int32_t)arg.micro_batches,
                                                 .experts = (int32_t)arg.experts,
                                                 .live = arg.live},
                                       .tokens = (int32_t)arg.tokens,
                                       .top_k = (int32_t)arg.top_k,
                                       .zipf = arg.zipf,
                                       .top_share = arg.top_share,
                                       .drift = arg.drift,
                                       .jumps = arg.jumps,
                                       .bursts = arg.bursts,
                                       .seed = (uint64_t)arg.seed,
                                       .index = arg.gini_given         ? BL_LOAD_INDEX_GINI
                                                : arg.herfindahl_given ? BL_LOAD_INDEX_HERFINDAHL
                                                                       : BL_LOAD_INDEX_NONE,
                                       .index_value = arg.gini_given ? arg.gini : arg.herfindahl,
                                       .has_total_variation = arg.total_variation_given,
                                       .total_variation = arg.total_variation,
                                       .tolerance = arg.tolerance};
  bl_generator *generator = NULL;
  bl_trace_writer *writer = NULL;
  uint32_t *counts = NULL;
  bl_status status;
  BL_TRY(check_exclusions());
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
    .name = option, .type = BL_OPTION_INT, .target = &arg.field, .metavar = letter, .help = text, .min = 1, \
    .max = most                                                                                             \
  }
#define RATE_OPTION(option, field, most, text)                                                                 \
  {                                                                                                            \
    .name = option, .type = BL_OPTION_NUMBER, .target = &arg.field, .metavar = "X", .help = text, .max = most, \
    .given = &arg.field##_given                                                                                \
  }

bl_command bl_command_gen(void) {
  static const bl_option options[] = {
      BL_OUTPUT_TRACE_ROW(arg.output),
      {.type = BL_OPTION_HEADING, .help = "Size"},
      SIZE_OPTION("layers", layers, "L", BL_TRACE_MAX_LAYERS, "MoE layers"),
      SIZE_OPTION("experts", experts, "E", BL_TRACE_MAX_EXPERTS, "experts of a layer"),
      SIZE_OPTION("ranks", ranks, "R", BL_TRACE_MAX_RANKS, "source ranks"),
      SIZE_OPTION("micro-batches", micro_batches, "M", BL_TRACE_MAX_MICRO_BATCHES, "micro-batches of a step"),
      SIZE_OPTION("steps", steps, "N", 1e8, "recorded steps"),
      SIZE_OPTION("stride", stride, "N", 1e9, "iterations between recorded steps"),
      {.name = "first",
       .type = BL_OPTION_INT,
       .target = &arg.first,
       .metavar = "I",
       .help = "iteration of the first step",
       .max = 1e15},
      SIZE_OPTION("tokens", tokens, "T", 1e9, "tokens of one rank and micro-batch"),
      SIZE_OPTION("top-k", top_k, "K", BL_TRACE_MAX_EXPERTS, "experts that a token takes"),
      {.type = BL_OPTION_HEADING, .help = "Load"},
      RATE_OPTION("zipf", zipf, 64, "popularity of the r-th expert is r^-X at first"),
      {.name = "top-share",
       .type = BL_OPTION_NUMBER,
       .target = &arg.top_share,
       .metavar = "X",
       .help = "share of the hottest expert, held at every step, instead of --zipf",
       .min = 1e-6,
       .max = 1,
       .given = &arg.top_share_given},
      RATE_OPTION("gini", gini, 1, "Gini coefficient of every layer and step, instead of --zipf"),
      RATE_OPTION("herfindahl", herfindahl, 1,
                  "Herfindahl index (sum of squared shares; APTMoE calls it gini), instead of --zipf"),
      {.type = BL_OPTION_HEADING, .help = "Change over steps"},
      RATE_OPTION("drift", drift, 0.5, "how far log popularity walks in a step (standard deviation)"),
      RATE_OPTION("jumps", jumps, 1, "probability a layer and step that two experts exchange their popularity"),
      RATE_OPTION("bursts", bursts, 1,
                  "probability a layer and step that an expert gets 8 times as popular for a while"),
      RATE_OPTION(
          "total-variation", total_variation, 1,
          "total variation (half the sum of |differences|) between a layer's shares and those of the step before, "
          "with --gini or --herfindahl, instead of --drift, --jumps and --bursts"),
      {.type = BL_OPTION_HEADING, .help = "How it is made"},
      {.name = "tolerance",
       .type = BL_OPTION_NUMBER,
       .target = &arg.tolerance,
       .metavar = "X",
       .help = "how far the counts may be from the wanted index and total variation before they are refused",
       .min = 1e-5,
       .max = 1,
       .given = &arg.tolerance_given},
      {.name = "live", .type = BL_OPTION_FLAG, .target = &arg.live, .help = "mark the trace as recorded live"},
      {.name = "seed",
       .type = BL_OPTION_INT,
       .target = &arg.seed,
       .metavar = "N",
       .help = "of the random numbers",
       .max = 9e15}};
  return (bl_command){.name = "gen",
                      .summary = "makes up a trace whose popularity drifts as routing does",
                      .description = "The same options give the same counts on every machine.",
                      .example = "ballast-trace gen --experts 8 --ranks 4 --top-share 0.36 --steps 200 -o made_up.blt",
                      .options = options,
                      .n_options = sizeof options / sizeof *options,
                      .run = run};
}
