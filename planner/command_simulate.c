/* ballast-plan simulate: what a step takes, on paper. */
#include "planner/command_simulate.h"
#include "planner/commands.h"
#include <string.h>

static bl_simulate_arguments arg = {.ranks = 1, .batch = 8, .micro_batches = 1};

bool bl_layout_is_plain(const bl_layout *l) {
  return l->tp == 1 && l->cp == 1 && l->pp == 1 && l->vp == 1 && l->etp == 1 && l->edp == 1 && l->zero == 0 &&
         l->recompute == 0 && l->pieces == 1 && l->gradient_bytes != 2 && l->copy_slots == 0 && !l->type[0];
}

/* A plain layout on a trace or a measured machine is simulated rank by rank, so is every placement; what is left is as
 * a search saw it. */
static bool simulates_layout(const bl_plan *plan) {
  if (!plan->has_layout) return false;
  if (!bl_layout_is_plain(&plan->layout)) return true;
  return !plan->has_placement && arg.cluster && !arg.trace && !arg.log && !arg.measured && !arg.slots;
}

static bl_status run(void *context) {
  bl_plan plan = {0};
  (void)context;
  if (!arg.plan) return bl_simulate_steps(&arg, NULL);
  BL_TRY(bl_plan_load(arg.plan, &plan));
  const bl_status status = simulates_layout(&plan) ? bl_simulate_layout(&arg, &plan) : bl_simulate_steps(&arg, &plan);
  bl_plan_free(&plan);
  return status;
}

bl_command bl_command_simulate(void) {
  static const bl_option own[] = {
      {.name = "plan",
       .type = BL_OPTION_STRING,
       .target = &arg.plan,
       .metavar = "FILE",
       .help = "a plan whose homes and copies stay; without it a policy decides, as in replay"},
      {.name = "profile",
       .type = BL_OPTION_STRING,
       .target = &arg.profile,
       .metavar = "FILE",
       .help =
           "what each kind of work takes (ballast-profile); beside --cluster, of a layout that search found with it"},
      {.name = "cluster",
       .type = BL_OPTION_STRING,
       .target = &arg.cluster,
       .metavar = "FILE",
       .help = "devices and links of a cluster (JSON), for an estimate from data sheets"},
      {.name = "model",
       .type = BL_OPTION_STRING,
       .target = &arg.model,
       .metavar = "FILE",
       .help = "model file (JSON); without it the small model"},
      {.name = "trace",
       .type = BL_OPTION_STRING,
       .target = &arg.trace,
       .metavar = "FILE",
       .help = "routing of each step (.blt); without it every expert takes the same"},
      {.name = "steps",
       .type = BL_OPTION_STRING,
       .target = &arg.steps,
       .metavar = "A:B",
       .help = "only these iterations of the trace, inclusive"},
      {.name = "ranks",
       .type = BL_OPTION_INT,
       .target = &arg.ranks,
       .metavar = "P",
       .help = "ranks, where there is no plan",
       .min = 1,
       .max = 65536,
       .given = &arg.ranks_given},
      {.name = "slots",
       .type = BL_OPTION_STRING,
       .target = &arg.slots,
       .metavar = "S",
       .help = "experts that a rank can hold: a number or one a rank; default: one more than the homes"},
      {.name = "batch",
       .type = BL_OPTION_INT,
       .target = &arg.batch,
       .metavar = "N",
       .help = "sequences of a step, of all ranks and micro-batches",
       .min = 1,
       .max = 1e6},
      {.name = "micro-batches",
       .type = BL_OPTION_INT,
       .target = &arg.micro_batches,
       .metavar = "N",
       .help = "micro-batches of a step",
       .min = 1,
       .max = BL_SIMULATE_MAX_MICRO_BATCHES},
      {.name = "log",
       .type = BL_OPTION_STRING,
       .target = &arg.log,
       .metavar = "FILE",
       .help = "run log of the run that recorded the trace: predicted against measured"},
      {.name = "perfetto",
       .type = BL_OPTION_STRING,
       .target = &arg.perfetto,
       .metavar = "FILE",
       .help = "timeline of the first step, for ui.perfetto.dev"},
      {.name = "measured",
       .type = BL_OPTION_STRING,
       .target = &arg.measured,
       .metavar = "FILE",
       .help = "timeline that ballast-train --perfetto wrote, to be drawn beside the same step's prediction"},
      {.name = "json", .type = BL_OPTION_FLAG, .target = &arg.json, .help = "results as JSON"}};
  enum { OWN = sizeof own / sizeof *own };
  static bl_option options[OWN + BL_POLICY_OPTION_ROWS];
  memcpy(options, own, sizeof own);
  bl_policy_options_init(&arg.policy);
  bl_policy_option_rows(&arg.policy, options + OWN);
  return (bl_command){
      .name = "simulate",
      .summary = "predicts step time, exposed communication and memory",
      .description = "Prices the step program of the training run, action by action, for all ranks together, on the "
                     "routing of a trace and a profile of the machine. A plan of ballast-plan search may have any "
                     "layout: then one rank stands for all of its pipeline position.",
      .example =
          "ballast-plan simulate --ranks 2 --policy ballast --trace run.blt --profile profile.json --log run.jsonl",
      .options = options,
      .n_options = OWN + BL_POLICY_OPTION_ROWS,
      .run = run};
}
