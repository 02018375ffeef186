/* ballast-plan check: is this plan file sound, and does it fit a trace? */
#include "costmodel/plan.h"
#include "planner/commands.h"
#include "traces/trace.h"
#include <stdio.h>

static struct { const char *plan, *trace; } arg;

/* The plan must place the layers and experts that the trace has. */
static bl_status check_trace(const bl_plan *plan) {
  bl_trace_reader *reader;
  const bl_placement *p = &plan->placement;
  if (!plan->has_placement) return bl_fail(BL_EINPUT, "%s: has no placement to compare with a trace", arg.plan);
  BL_TRY(bl_trace_open(arg.trace, &reader));
  const bl_trace_shape shape = *bl_trace_shape_of(reader);
  bl_trace_close(reader);
  if (p->experts != shape.experts)
    return bl_fail(BL_EINPUT, "%s places %d experts, but %s has %d", arg.plan, p->experts, arg.trace, shape.experts);
  const int32_t last = p->layer[p->layers - 1].layer;
  if (last >= shape.layers)
    return bl_fail(BL_EINPUT, "%s places layer %d, but %s has layers 0 to %d", arg.plan, last, arg.trace,
                   shape.layers - 1);
  return BL_OK;
}

static bl_status run(void *context) {
  (void)context;
  bl_plan plan;
  BL_TRY(bl_plan_load(arg.plan, &plan));
  const bl_status status = arg.trace ? check_trace(&plan) : BL_OK;
  if (status == BL_OK) {
    printf("%s: sound:", arg.plan);
    if (plan.has_layout)
      printf(" a layout of %lld ranks in %d stages%s",
             (long long)plan.layout.tp * plan.layout.cp * plan.layout.dp * plan.layout.pp, plan.layout.n_stages,
             plan.has_placement ? ";" : "");
    if (plan.has_placement)
      printf(" a placement of %d experts on %d ranks in %d layers", plan.placement.experts, plan.placement.ranks,
             plan.placement.layers);
    printf("\n");
  }
  bl_plan_free(&plan);
  return status;
}

bl_command bl_command_check(void) {
  static const bl_option options[] = {
      {.type = BL_OPTION_STRING, .target = &arg.plan, .metavar = "PLAN", .help = "the plan file", .required = true},
      {.name = "trace",
       .type = BL_OPTION_STRING,
       .target = &arg.trace,
       .metavar = "F",
       .help = "also check that the plan fits this trace's layers and experts"}};
  return (bl_command){.name = "check",
                      .summary = "says whether a plan file is sound",
                      .example = "ballast-plan check plan.json --trace smartmoe.blt",
                      .options = options,
                      .n_options = sizeof options / sizeof *options,
                      .run = run};
}
