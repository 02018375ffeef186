/* ballast-plan replay: how a policy would have done on a recorded trace. */
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/table.h"
#include "costmodel/model.h"
#include "planner/commands.h"
#include "planner/policy_options.h"
#include "planner/replay.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static struct {
  bl_policy_options policy;
  const char *trace, *slots, *steps, *layers, *micro_batches, *dump, *plan, *model;
  int64_t ranks, source_rank, micro_batch, regret;
  bool json;
} arg = {.micro_batches = "auto", .source_rank = -1, .micro_batch = -1};

/* Bytes of bf16 mixed precision: what goes to a copy, and the whole state that moves with a home. */
enum { FILL_BYTES = 2, MOVE_BYTES = 14 };

/* What went over the wire in all scored steps, for an expert of so many parameters. */
typedef struct bytes {
  double moved, filled, filled_late;
} bytes;

static bytes bytes_of(const bl_replay_result *r, int64_t parameters) {
  const double n = (double)parameters;
  return (bytes){n * MOVE_BYTES * (double)r->moves, n * FILL_BYTES * (double)r->fills,
                 n * FILL_BYTES * (double)r->late_fills};
}

static void print_json(const bl_replay_result *r, bool each, int64_t parameters) {
  const bytes b = bytes_of(r, parameters);
  bl_json_writer w;
  bl_json_writer_init(&w, stdout, true);
  bl_json_begin_object(&w);
  bl_json_put_string(&w, "policy", arg.policy.policy);
  bl_json_put_string(&w, "micro_batches", each ? "each" : "sum");
  const struct {
    const char *key;
    int64_t value;
  } counts[] = {{"ranks", arg.ranks},
                {"steps", r->steps},
                {"layers", r->layers},
                {"first_iteration", r->first},
                {"last_iteration", r->last},
                {"worst_iteration", r->worst_iteration},
                {"worst_layer", r->worst_layer},
                {"fills", r->fills},
                {"late_fills", r->late_fills},
                {"moves", r->moves},
                {"changes", r->changes}};
  const struct {
    const char *key;
    double value;
  } numbers[] = {{"imbalance_mean", r->mean},
                 {"imbalance_p99", r->p99},
                 {"imbalance_worst", r->worst},
                 {"copies", r->copies},
                 {"copies_used", r->copies_used},
                 {"copies_changed", r->copies_changed},
                 {"moves_per_layer_per_1000", r->moves_per_1000},
                 {"late_percent", 100 * r->late},
                 {"late_copies", r->late_copies},
                 {"decided_percent", 100 * r->decided},
                 {"decide_mean_us", r->decide_mean_us},
                 {"decide_median_us", r->decide_median_us},
                 {"decide_p99_us", r->decide_p99_us}};
  for (size_t i = 0; i < sizeof counts / sizeof *counts; ++i) {
    bl_json_put_int(&w, counts[i].key, counts[i].value);
  }
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; ++i) {
    bl_json_put_number(&w, numbers[i].key, numbers[i].value);
  }
  const struct {
    const char *key;
    bool given;
    double value;
  } wanted[] = {{"moved_bytes", parameters > 0, b.moved},           {"fill_bytes", parameters > 0, b.filled},
                {"late_fill_bytes", parameters > 0, b.filled_late}, {"cost", arg.regret > 0, r->cost},
                {"least_cost", arg.regret > 0, r->least_cost},      {"regret", arg.regret > 0, r->cost - r->least_cost},
                {"copy_price", arg.regret > 0, r->copy_price},      {"move_price", arg.regret > 0, r->move_price},
                {"candidates", arg.regret > 0, r->candidates}};
  for (size_t i = 0; i < sizeof wanted / sizeof *wanted; ++i) {
    if (!wanted[i].given) continue;
    bl_json_put_number(&w, wanted[i].key, wanted[i].value);
  }
  bl_json_end_object(&w);
  bl_json_newline(&w);
}

static bl_status print_table(const bl_replay_result *r, bool each, int64_t parameters) {
  const bytes b = bytes_of(r, parameters);
  printf("%s on %" PRId64 " ranks, lag %" PRId64 ": %d layers x %d steps (iterations %" PRId64 " to %" PRId64
         "), micro-batches %s\n\n",
         arg.policy.policy, arg.ranks, arg.policy.lag, r->layers, r->steps, r->first, r->last,
         each ? "one by one" : "summed");
  const struct {
    const char *what, *unit;
    double value;
    int digits;
    bool hidden;
  } rows[] = {{"imbalance, mean", "max/mean", r->mean, 6, false},
              {"imbalance, 99 % are below", "", r->p99, 6, false},
              {"imbalance, worst", "", r->worst, 6, false},
              {"copies in slots", "a layer", r->copies, 2, false},
              {"copies that took tokens", "a layer", r->copies_used, 2, false},
              {"copies changed", "a layer and step", r->copies_changed, 3, false},
              {"homes moved", "a layer per 1000 iterations", r->moves_per_1000, 2, false},
              {"homes moved, in all", "", (double)r->moves, 0, false},
              {"layer-steps with moves", "", (double)r->changes, 0, false},
              {"repaired late", "% of layer-steps", 100 * r->late, 2, false},
              {"copies filled in a late repair", "", r->late_copies, 2, false},
              {"bytes of homes moved", "GB in all", b.moved / 1e9, 3, parameters == 0},
              {"bytes of copies filled", "GB in all", b.filled / 1e9, 3, parameters == 0},
              {"bytes of copies filled late", "GB in all", b.filled_late / 1e9, 3, parameters == 0},
              {"cost of the decisions", "a layer and step", r->cost, 6, arg.regret == 0},
              {"least cost in hindsight", "a layer and step", r->least_cost, 6, arg.regret == 0},
              {"regret", "a layer and step", r->cost - r->least_cost, 6, arg.regret == 0},
              {"decided", "% of layer-steps", 100 * r->decided, 2, false},
              {"time of a decision, mean", "us a layer", r->decide_mean_us, 1, false},
              {"time of a decision, median", "us a layer", r->decide_median_us, 1, false},
              {"time of a decision, 99 % are below", "us a layer", r->decide_p99_us, 1, false}};
  bl_table *table;
  BL_TRY(bl_table_create("<what|value|<unit", &table));
  bl_status status = BL_OK;
  for (size_t i = 0; i < sizeof rows / sizeof *rows && status == BL_OK; ++i) {
    if (rows[i].hidden) continue;
    status = bl_table_cell(table, "%s", rows[i].what);
    if (status == BL_OK) status = bl_table_cell(table, "%.*f", rows[i].digits, rows[i].value);
    if (status == BL_OK) status = bl_table_cell(table, "%s", rows[i].unit);
  }
  if (status == BL_OK) {
    bl_table_print(table, stdout);
    printf("\nworst at iteration %" PRId64 ", layer %d\n", r->worst_iteration, r->worst_layer);
    if (arg.regret > 0)
      printf("cost: imbalance + %g a copy + %g a home moved; hindsight: any sequence of %.1f candidates a layer, the "
             "hosts at the start and, at %" PRId64
             " evenly spread steps, those decided and those searched on the step's own counts\n",
             r->copy_price, r->move_price, r->candidates, arg.regret);
  }
  bl_table_free(table);
  return status;
}

static bl_status choose_micro_batches(const bl_trace_shape *shape, bool *each) {
  *each = strcmp(arg.micro_batches, "each") == 0 || (strcmp(arg.micro_batches, "auto") == 0 && shape->live);
  if (arg.micro_batch >= 0 && strcmp(arg.micro_batches, "auto") != 0)
    return bl_fail(BL_EUSAGE, "--micro-batch and --micro-batches: expected one of them");
  return BL_OK;
}

/* What the command line names beside the trace. */
typedef struct files {
  bl_plan plan;
  bl_model model;
} files;

static bl_status replay(bl_trace_reader *reader, const files *in, int32_t *slots, int32_t **layers) {
  const int64_t parameters = arg.model ? bl_model_part_parameters(&in->model, BL_PART_EXPERT) : 0;
  const bl_trace_shape *shape = bl_trace_shape_of(reader);
  bl_replay_options o = {.policy = arg.policy,
                         .first = INT64_MIN,
                         .last = INT64_MAX,
                         .ranks = (int32_t)arg.ranks,
                         .slots = slots,
                         .source_rank = (int32_t)arg.source_rank,
                         .micro_batch = (int32_t)arg.micro_batch,
                         .start = arg.plan ? &in->plan.placement : NULL,
                         .start_path = arg.plan,
                         .regret = (int32_t)arg.regret,
                         .dump = arg.dump};
  if (shape->experts < arg.ranks)
    return bl_fail(BL_EINPUT, "%s has %d experts, too few for %" PRId64 " ranks: expected at least one a rank",
                   bl_trace_path(reader), shape->experts, arg.ranks);
  BL_TRY(bl_parse_slots(arg.slots, shape->experts, o.ranks, slots));
  if (arg.steps) BL_TRY(bl_parse_range(arg.steps, "--steps", &o.first, &o.last));
  if (arg.layers) {
    BL_TRY(bl_parse_layers(arg.layers, layers, &o.n_layers));
    o.layers = *layers;
  }
  BL_TRY(choose_micro_batches(shape, &o.each));
  bl_replay_result result;
  BL_TRY(bl_replay(reader, &o, &result));
  if (arg.json) {
    print_json(&result, o.each, parameters);
    return BL_OK;
  }
  return print_table(&result, o.each, parameters);
}

static bl_status load_files(files *in) {
  if (arg.plan) {
    BL_TRY(bl_plan_load(arg.plan, &in->plan));
    if (!in->plan.has_placement)
      return bl_fail(BL_EINPUT, "%s: expected a plan with a placement to start from, found none", arg.plan);
  }
  if (!arg.model) return BL_OK;
  BL_TRY(bl_model_load(arg.model, &in->model));
  if (bl_model_moe_layers(&in->model) == 0)
    return bl_fail(BL_EINPUT, "%s: expected a model with experts, found none", arg.model);
  return BL_OK;
}

static bl_status run(void *context) {
  (void)context;
  bl_trace_reader *reader;
  int32_t *slots, *layers = NULL;
  files in = {0};
  const char *const inputs[] = {arg.trace, arg.plan, arg.model};
  BL_TRY(bl_output_check(arg.dump, inputs, 3));
  BL_TRY(bl_trace_open(arg.trace, &reader));
  if (bl_trace_truncated(reader))
    bl_warn("%s: has no sound index (cut short or damaged); read up to its last whole block", arg.trace);
  bl_status status = load_files(&in);
  if (status == BL_OK) status = bl_new(&slots, (size_t)arg.ranks, sizeof *slots, "slots");
  if (status == BL_OK) {
    status = replay(reader, &in, slots, &layers);
    free(slots);
    free(layers);
  }
  bl_plan_free(&in.plan);
  bl_trace_close(reader);
  return status;
}

bl_command bl_command_replay(void) {
  enum { OWN = 13, MOST_REGRET = 1000 };
  static bl_option rows[OWN + BL_POLICY_OPTION_ROWS];
  const bl_option own[OWN] = {
      {.name = "trace",
       .type = BL_OPTION_STRING,
       .target = &arg.trace,
       .metavar = "F",
       .help = "the .blt trace to replay",
       .required = true},
      {.name = "ranks",
       .type = BL_OPTION_INT,
       .target = &arg.ranks,
       .metavar = "P",
       .help = "ranks that share the experts of a layer; any number, whatever the trace was recorded on",
       .min = 1,
       .max = BL_TRACE_MAX_RANKS,
       .required = true},
      {.name = "slots",
       .type = BL_OPTION_STRING,
       .target = &arg.slots,
       .metavar = "S",
       .help =
           "experts a rank can hold, homes and copies: one number, or one a rank as in 5,5,4,6; by default one more "
           "than its homes"},
      {.name = "steps",
       .type = BL_OPTION_STRING,
       .target = &arg.steps,
       .metavar = "A:B",
       .help = "score and dump only iterations A to B, inclusive; earlier ones still are history"},
      {.name = "layers",
       .type = BL_OPTION_STRING,
       .target = &arg.layers,
       .metavar = "L,..",
       .help = "only these layers; by default all"},
      {.name = "source-rank",
       .type = BL_OPTION_INT,
       .target = &arg.source_rank,
       .metavar = "R",
       .help = "only counts of this source rank; -1 takes all",
       .min = -1,
       .max = BL_TRACE_MAX_RANKS},
      {.name = "micro-batch",
       .type = BL_OPTION_INT,
       .target = &arg.micro_batch,
       .metavar = "M",
       .help = "only counts of this micro-batch; -1 takes all",
       .min = -1,
       .max = BL_TRACE_MAX_MICRO_BATCHES},
      {.name = "micro-batches",
       .type = BL_OPTION_CHOICE,
       .target = &arg.micro_batches,
       .help = "micro-batches summed into one, or one by one; auto: one by one where the trace was recorded live",
       .choices = "auto|sum|each"},
      {.name = "plan",
       .type = BL_OPTION_STRING,
       .target = &arg.plan,
       .metavar = "P",
       .help = "start from the homes in this plan file; by default they are contiguous"},
      {.name = "model",
       .type = BL_OPTION_STRING,
       .target = &arg.model,
       .metavar = "M",
       .help = "also report bytes for an expert of this model file, in bf16 mixed precision: 2 a parameter for each "
               "copy filled, 14 for each home moved"},
      {.name = "regret",
       .type = BL_OPTION_INT,
       .target = &arg.regret,
       .metavar = "N",
       .help = "also report the regret: what the decisions cost above the best in hindsight, with candidates from N "
               "evenly spread steps (32, say); 0 does not",
       .min = 0,
       .max = MOST_REGRET},
      {.name = "dump",
       .type = BL_OPTION_STRING,
       .target = &arg.dump,
       .metavar = "FILE",
       .help =
           "write a JSON line for each step and layer: homes, copies and shares in force, and those planned before"},
      {.name = "json", .type = BL_OPTION_FLAG, .target = &arg.json, .help = "print the result as JSON"}};
  bl_policy_options_init(&arg.policy);
  memcpy(rows, own, sizeof own);
  bl_policy_option_rows(&arg.policy, rows + OWN);
  return (bl_command){
      .name = "replay",
      .summary = "says how a policy would have done on a recorded trace",
      .description =
          "Drives the trace through the policy step by step: hosts from past counts, shares on each step's own, and "
          "reports the imbalance (largest rank load over mean) of every layer and step. Fields of --json: "
          "imbalance_mean, imbalance_p99 and imbalance_worst over all layers and steps, worst_iteration and "
          "worst_layer; "
          "copies and copies_used, filled copy slots a layer and those that took tokens; copies_changed, copies a "
          "layer "
          "and step that were not on their rank before; fills and late_fills, copies filled before a step and within "
          "it, in all; moves, homes moved in all, "
          "changes, layer-steps in which any moved, moves_per_layer_per_1000 iterations; late_percent of layer-steps "
          "repaired late, late_copies filled in each; decided_percent of layer-steps with a decision; decide_mean_us, "
          "decide_median_us and decide_p99_us, time of one "
          "layer's decision with its late repair, in processor time, those that --back-off leaves out among them. With "
          "--model: moved_bytes, fill_bytes and "
          "late_fill_bytes, in all. With --regret: cost of a layer and step (imbalance on the summed micro-batches, "
          "plus "
          "copy_price a copy under --homes cost, plus move_price a home moved, 14/6 of --copy-price), least_cost of "
          "any "
          "sequence of candidates, found by dynamic programming, and the difference, regret. The candidates of a layer "
          "are its hosts at the start and, at N evenly spread steps, the hosts decided and those that the search for "
          "copies makes of them on the step's own counts.",
      .example = "ballast-plan replay --trace smartmoe.blt --ranks 8 --slots 5 --policy ballast --late-repair 1.02",
      .options = rows,
      .n_options = OWN + BL_POLICY_OPTION_ROWS,
      .run = run};
}
