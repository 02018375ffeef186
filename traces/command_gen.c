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
  double zipf, top_share, drift, jumps, bursts;
  bool zipf_given, top_share_given, live;
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
         .drift = 0.05,
         .jumps = 0.01,
         .bursts = 0.01};

static bl_status append_generated(bl_generator *generator, bl_trace_writer *writer, uint32_t *counts) {
  bl_progress progress;
  bl_progress_start(&progress);
  bl_status status = BL_OK;
  for (int64_t i = 0; i < arg.steps && status == BL_OK; i++) {
    bl_generator_step(generator, counts);
    status = bl_trace_append(writer, arg.first + i * arg.stride, counts);
    bl_progress_update(&progress, "%" PRId64 " of %" PRId64 " steps", i + 1, arg.steps);
  }
  bl_progress_end(&progress);
  return status;
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
                                       .seed = (uint64_t)arg.seed};
  bl_generator *generator = NULL;
  bl_trace_writer *writer = NULL;
  uint32_t *counts = NULL;
  bl_status status;
  if (arg.zipf_given && arg.top_share_given) return bl_fail(BL_EUSAGE, "--zipf and --top-share exclude each other");
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
#define RATE_OPTION(option, field, most, text) \
  { .name = option, .type = BL_OPTION_NUMBER, .target = &arg.field, .metavar = "X", .help = text, .max = most }

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
      {.name = "zipf",
       .type = BL_OPTION_NUMBER,
       .target = &arg.zipf,
       .metavar = "S",
       .help = "popularity of the r-th expert is r^-S at first",
       .max = 64,
       .given = &arg.zipf_given},
      {.name = "top-share",
       .type = BL_OPTION_NUMBER,
       .target = &arg.top_share,
       .metavar = "X",
       .help = "share of the hottest expert, held at every step, instead of --zipf",
       .min = 1e-6,
       .max = 1,
       .given = &arg.top_share_given},
      RATE_OPTION("drift", drift, 0.5, "how far log popularity walks in a step (standard deviation)"),
      RATE_OPTION("jumps", jumps, 1, "probability a layer and step that two experts exchange their popularity"),
      RATE_OPTION("bursts", bursts, 1,
                  "probability a layer and step that an expert gets 8 times as popular for a while"),
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
