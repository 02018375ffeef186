/* ballast-plan explain: a plan file in words. */
#include "planner/command_explain.h"
#include "planner/commands.h"
#include <inttypes.h>
#include <stdio.h>

static struct {
  const char *plan;
  int64_t layer;
} arg = {.layer = BL_EXPLAIN_WORST};

static bl_status explain(const bl_plan *plan) {
  if (arg.layer != BL_EXPLAIN_WORST && !plan->has_placement)
    return bl_fail(BL_EINPUT, "%s: places no layer %" PRId64 ", it has no placement", arg.plan, arg.layer);
  if (plan->has_layout) bl_explain_layout(plan);
  if (plan->has_layout && plan->has_placement) printf("\n");
  return plan->has_placement ? bl_explain_placement(plan, arg.layer, arg.plan) : BL_OK;
}

static bl_status run(void *context) {
  (void)context;
  bl_plan plan;
  BL_TRY(bl_plan_load(arg.plan, &plan));
  const bl_status status = explain(&plan);
  bl_plan_free(&plan);
  return status;
}

bl_command bl_command_explain(void) {
  static const bl_option options[] = {
      {.type = BL_OPTION_STRING, .target = &arg.plan, .metavar = "PLAN", .help = "the plan file", .required = true},
      {.name = "layer",
       .type = BL_OPTION_INT,
       .target = &arg.layer,
       .metavar = "L",
       .help = "this layer's ranks; -1 shows all layers'; default: the worst layer's",
       .min = -1,
       .max = 65536}};
  return (bl_command){.name = "explain",
                      .summary = "says in words what a plan does and how good it is",
                      .example = "ballast-plan explain plan.json --layer 3",
                      .options = options,
                      .n_options = sizeof options / sizeof *options,
                      .run = run};
}
