/* ballast-plan export: a placement in the form that another stack reads. */
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "planner/commands.h"
#include "planner/even_slots.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static struct { const char *plan, *format, *output; } arg = {.output = "-"};

/* A plan as those stacks see it. */
typedef struct slots_of_all {
  const bl_placement *placement;
  int32_t slots;    /* of all ranks together */
  int32_t *phy2log; /* [layers][slots] */
} slots_of_all;

static void write_ints(bl_json_writer *w, const int32_t *values, int32_t n) {
  bl_json_begin_flat_array(w);
  for (int32_t i = 0; i < n; i++) bl_json_write_int(w, values[i]);
  bl_json_end_array(w);
}

static void write_phy2log(bl_json_writer *w, const slots_of_all *s) {
  bl_json_begin_array(w);
  for (int32_t l = 0; l < s->placement->layers; l++) write_ints(w, s->phy2log + (int64_t)l * s->slots, s->slots);
  bl_json_end_array(w);
}

static int32_t count_of(const slots_of_all *s, int32_t layer, int32_t expert) {
  int32_t n = 0;
  for (int32_t i = 0; i < s->slots; i++) n += s->phy2log[(int64_t)layer * s->slots + i] == expert;
  return n;
}

/* The slots of each expert, filled up with -1 to the most that any expert of any layer has. */
static void write_log2phy(bl_json_writer *w, const slots_of_all *s) {
  int32_t most = 0;
  for (int32_t l = 0; l < s->placement->layers; l++)
    for (int32_t e = 0; e < s->placement->experts; e++) {
      const int32_t n = count_of(s, l, e);
      most = n > most ? n : most;
    }
  bl_json_begin_array(w);
  for (int32_t l = 0; l < s->placement->layers; l++) {
    bl_json_begin_array(w);
    for (int32_t e = 0; e < s->placement->experts; e++) {
      int32_t n = 0;
      bl_json_begin_flat_array(w);
      for (int32_t i = 0; i < s->slots; i++) {
        if (s->phy2log[(int64_t)l * s->slots + i] != e) continue;
        bl_json_write_int(w, i);
        n++;
      }
      for (; n < most; n++) bl_json_write_int(w, -1);
      bl_json_end_array(w);
    }
    bl_json_end_array(w);
  }
  bl_json_end_array(w);
}

static void write_logcnt(bl_json_writer *w, const slots_of_all *s) {
  bl_json_begin_array(w);
  for (int32_t l = 0; l < s->placement->layers; l++) {
    bl_json_begin_flat_array(w);
    for (int32_t e = 0; e < s->placement->experts; e++) bl_json_write_int(w, count_of(s, l, e));
    bl_json_end_array(w);
  }
  bl_json_end_array(w);
}

/* What EPLB's rebalance_experts() returns, under its names. */
static void write_eplb(bl_json_writer *w, const slots_of_all *s) {
  bl_json_begin_object(w);
  bl_json_key(w, "phy2log");
  write_phy2log(w, s);
  bl_json_key(w, "log2phy");
  write_log2phy(w, s);
  bl_json_key(w, "logcnt");
  write_logcnt(w, s);
  bl_json_end_object(w);
}

/* SGLang's --init-expert-location. */
static void write_sglang(bl_json_writer *w, const slots_of_all *s) {
  bl_json_begin_object(w);
  bl_json_key(w, "physical_to_logical_map");
  write_phy2log(w, s);
  bl_json_end_object(w);
}

/* TensorRT-LLM's YAML; it asks for slots rank by rank, as they are here. */
static void write_tensorrt(FILE *stream, const slots_of_all *s) {
  fprintf(stream, "num_slots: %" PRId32 "\ninitial_global_assignments:\n", s->slots);
  for (int32_t l = 0; l < s->placement->layers; l++) {
    fprintf(stream, "  %" PRId32 ": [", s->placement->layer[l].layer);
    for (int32_t i = 0; i < s->slots; i++)
      fprintf(stream, "%s%" PRId32, i ? ", " : "", s->phy2log[(int64_t)l * s->slots + i]);
    fprintf(stream, "]\n");
  }
  fprintf(stream, "layer_updates_per_iter: 0\n");
}

static void write_all(FILE *stream, const slots_of_all *s) {
  bl_json_writer w;
  if (strcmp(arg.format, "tensorrt-llm") == 0) {
    write_tensorrt(stream, s);
    return;
  }
  bl_json_writer_init(&w, stream, true);
  if (strcmp(arg.format, "eplb-json") == 0)
    write_eplb(&w, s);
  else if (strcmp(arg.format, "sglang") == 0)
    write_sglang(&w, s);
  else
    write_phy2log(&w, s); /* vLLM: a list for every layer */
  bl_json_newline(&w);
}

/* These stacks give every rank as many slots, and fill them. */
static bl_status check_slots(const bl_placement *p) {
  for (int32_t r = 1; r < p->ranks; r++)
    if (p->slots[r] != p->slots[0])
      return bl_fail(BL_EINPUT, "%s: rank 0 has %d slots, rank %d has %d: --to %s needs as many on every rank",
                     arg.plan, p->slots[0], r, p->slots[r], arg.format);
  if ((int64_t)p->ranks * p->slots[0] > INT32_MAX) return bl_fail(BL_EINPUT, "%s: more than 2^31 slots", arg.plan);
  return BL_OK;
}

static bl_status list_all(const bl_placement *p, slots_of_all *s) {
  double most = 0, off = 0;
  *s = (slots_of_all){.placement = p, .slots = p->ranks * p->slots[0]};
  BL_TRY(bl_new(&s->phy2log, (size_t)p->layers * (size_t)s->slots, sizeof *s->phy2log, "slots"));
  for (int32_t l = 0; l < p->layers; l++) {
    int32_t *mine = s->phy2log + (int64_t)l * s->slots;
    BL_TRY(bl_even_slots(p, l, mine, &off));
    most = off > most ? off : most;
    for (int32_t i = 0; i < s->slots; i++)
      if (mine[i] < 0)
        return bl_fail(BL_EINPUT, "%s: layer %d: rank %d has no expert, expected at least one on every rank", arg.plan,
                       p->layer[l].layer, i / p->slots[0]);
  }
  if (most > 0.005)
    bl_warn(
        "%s: that stack splits tokens evenly, so shares will be up to %.2f off the plan's and its predicted imbalance "
        "does not hold; place --split even (without --cluster and --profile) plans for it",
        arg.plan, most);
  return BL_OK;
}

static bl_status export_plan(const bl_plan *plan) {
  slots_of_all s = {0};
  bl_output *output = NULL;
  bl_status status;
  if (!plan->has_placement) return bl_fail(BL_EINPUT, "%s: has no placement to export", arg.plan);
  BL_TRY(check_slots(&plan->placement));
  BL_TRY_GOTO(status, list_all(&plan->placement, &s), end);
  BL_TRY_GOTO(status, bl_output_open(arg.output, &output), end);
  write_all(bl_output_stream(output), &s);
  status = bl_output_commit(output);
end:
  free(s.phy2log);
  return status;
}

static bl_status run(void *context) {
  (void)context;
  const char *const inputs[] = {arg.plan};
  bl_plan plan;
  BL_TRY(bl_output_check(arg.output, inputs, 1));
  BL_TRY(bl_plan_load(arg.plan, &plan));
  const bl_status status = export_plan(&plan);
  bl_plan_free(&plan);
  return status;
}

bl_command bl_command_export(void) {
  static const bl_option options[] = {
      {.type = BL_OPTION_STRING, .target = &arg.plan, .metavar = "PLAN", .help = "the plan file", .required = true},
      {.name = "to",
       .type = BL_OPTION_CHOICE,
       .target = &arg.format,
       .choices = "eplb-json|sglang|vllm|tensorrt-llm",
       .help = "eplb-json: phy2log, log2phy and logcnt; sglang: for --init-expert-location; vllm: a list of experts by "
               "slot for every layer; tensorrt-llm: YAML of its load balancer",
       .required = true},
      {.name = "output|o", .type = BL_OPTION_STRING, .target = &arg.output, .metavar = "F", .help = "where it goes"}};
  return (bl_command){.name = "export",
                      .summary = "writes a placement in the form that another stack reads",
                      .description =
                          "Those stacks split an expert's tokens evenly over its replicas and fill every slot: "
                          "spare slots repeat experts of their rank, and where the plan's shares are uneven a "
                          "warning says by how much. Plans of place --split even are made for this.",
                      .example = "ballast-plan export plan.json --to sglang -o location.json",
                      .options = options,
                      .n_options = sizeof options / sizeof *options,
                      .run = run};
}
