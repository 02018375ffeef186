/* ballast-plan check: is this plan file sound, and does it fit a trace? */
#include "costmodel/plan.h"
#include "planner/commands.h"
#include "traces/trace.h"
#include <math.h>
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

static bool far_from(double a, double b) { return fabs(a - b) > 1e-6 * fmax(1, fabs(b)); }

/* What a plan says of itself must hang together: bounds below what they bound, totals of the worst layer, the gap. */
static bl_status check_totals(const bl_plan *plan) {
  const bl_placement *p = &plan->placement;
  double worst = 0;
  for (int32_t l = 0; l < p->layers; ++l) {
    const bl_layer_placement *layer = &p->layer[l];
    if (layer->bound > layer->imbalance * (1 + 1e-6))
      return bl_fail(BL_EINPUT, "%s: layer %d: the bound, %g, lies above the imbalance, %g", arg.plan, layer->layer,
                     layer->bound, layer->imbalance);
    if (layer->price && layer->price->bound_us > layer->price->total_us * (1 + 1e-6))
      return bl_fail(BL_EINPUT, "%s: layer %d: the bound of its price, %g us, lies above the price, %g us", arg.plan,
                     layer->layer, layer->price->bound_us, layer->price->total_us);
    worst = fmax(worst, layer->imbalance);
  }
  if (plan->has_placement && plan->has_predicted && far_from(plan->predicted_imbalance, worst))
    return bl_fail(BL_EINPUT, "%s: predicted.imbalance is %g, expected that of the worst layer, %g", arg.plan,
                   plan->predicted_imbalance, worst);
  if (!plan->has_bound || !plan->has_predicted) return BL_OK;
  const double gap = plan->predicted_imbalance / plan->bound_imbalance - 1;
  if (plan->bound_imbalance > plan->predicted_imbalance * (1 + 1e-6))
    return bl_fail(BL_EINPUT, "%s: bound.imbalance, %g, lies above predicted.imbalance, %g", arg.plan,
                   plan->bound_imbalance, plan->predicted_imbalance);
  if (far_from(plan->bound_gap, gap))
    return bl_fail(BL_EINPUT, "%s: bound.gap is %g, expected predicted.imbalance / bound.imbalance - 1, %g", arg.plan,
                   plan->bound_gap, gap);
  return BL_OK;
}

/* What a search said of the layout: its parts add up to what the plan predicts, its bounds lie below. */
static bl_status check_search(const bl_plan *plan) {
  const bl_plan_search *s = plan->search;
  double us = 0, bytes = 0;
  if (!s || !plan->has_predicted) return BL_OK;
  for (int k = 0; k < BL_PRICE_COUNT; k++) us += s->time_us[k];
  for (int k = 0; k < BL_FOOTPRINT_COUNT; k++) bytes += s->memory_bytes[k];
  if (fabs(us - plan->predicted_step_us) > 1e-6 * us)
    return bl_fail(BL_EINPUT, "%s: search.time_us adds up to %g, expected predicted.step_us, %g", arg.plan, us,
                   plan->predicted_step_us);
  if (fabs(bytes - plan->predicted_memory_bytes) > 1e-6 * bytes)
    return bl_fail(BL_EINPUT, "%s: search.memory_bytes adds up to %g, expected predicted.memory_bytes, %g", arg.plan,
                   bytes, plan->predicted_memory_bytes);
  if (s->bound_us > us * (1 + 1e-6))
    return bl_fail(BL_EINPUT, "%s: search.bound_us, %g, lies above predicted.step_us, %g", arg.plan, s->bound_us, us);
  return BL_OK;
}

static bl_status run(void *context) {
  (void)context;
  bl_plan plan;
  BL_TRY(bl_plan_load(arg.plan, &plan));
  bl_status status = check_totals(&plan);
  if (status == BL_OK) status = check_search(&plan);
  if (status == BL_OK && arg.trace) status = check_trace(&plan);
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
