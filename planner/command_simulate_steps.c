/* command_simulate_steps.c - the steps of a trace under a plain layout, all ranks together. */
#include "base/file.h"
#include "base/memory.h"
#include "planner/command_simulate.h"
#include "planner/forecast.h"
#include <inttypes.h>
#include <stdlib.h>

typedef struct run {
  const bl_simulate_arguments *arg;
  bl_simulated_steps found;
  bool drawn; /* the timeline is written */
} run;

/* The first step, or with --measured the one that was measured, beside it. */
static bl_status draw(run *r, int64_t iteration, const bl_step *step, const bl_simulation *s) {
  bl_timeline both[] = {{"predicted", step, s->ranks, s->spans}, {"measured", step, s->ranks, NULL}};
  bl_span *spans = NULL;
  int64_t number = iteration;
  if (r->arg->measured) BL_TRY(bl_timeline_read(r->arg->measured, step, s->ranks, &number, &spans));
  both[1].spans = spans;
  bl_status status = BL_OK;
  if (!r->arg->measured || !r->arg->trace || number == iteration) {
    status = bl_timeline_write(r->arg->perfetto, number, both, r->arg->measured ? 2 : 1);
    r->drawn = true;
  }
  free(spans);
  return status;
}

static bl_status note_step(void *context, int64_t iteration, const bl_step *step, const bl_simulation *s) {
  run *r = context;
  bl_simulated_steps *f = &r->found;
  if (r->arg->perfetto && !r->drawn) BL_TRY(draw(r, iteration, step, s));
  BL_TRY(bl_grow(&f->steps, &f->room, f->n + 1, sizeof *f->steps, "simulated steps"));
  f->steps[f->n++] = (bl_simulated_step){.iteration = iteration,
                                         .step_us = s->step_us,
                                         .wait_us = s->wait_us,
                                         .exposed_us = s->exposed_us,
                                         .compute_us = s->compute_us,
                                         .memory_bytes = s->memory_bytes};
  for (int k = 0; k < BL_ACTION_COUNT; k++) f->phase_us[k] += s->phase_us[k];
  return BL_OK;
}

/* -- inputs ---------------------------------------------------------------------------------------------------------
 */

typedef struct inputs {
  bl_model model;
  bl_layout layout;
  bl_profile profile;
  bl_plan *plan; /* or NULL */
  bl_trace_reader *trace;
  int32_t *slots;
} inputs;

static bl_status make_layout(const bl_simulate_arguments *arg, inputs *in) {
  const bool placed = in->plan && in->plan->has_placement;
  const int32_t ranks = placed ? in->plan->placement.ranks : (int32_t)arg->ranks;
  const int64_t parts = ranks * arg->micro_batches;
  if (placed && arg->ranks_given && arg->ranks != ranks)
    return bl_fail(BL_EUSAGE, "--ranks %" PRId64 ": %s places experts on %d ranks", arg->ranks, arg->plan, ranks);
  if (in->plan && in->plan->has_layout) {
    BL_TRY(bl_layout_check(&in->plan->layout, in->model.layers, arg->plan));
    if (in->plan->layout.micro_batches > BL_SIMULATE_MAX_MICRO_BATCHES)
      return bl_fail(BL_EINPUT, "%s: layout.micro_batches: expected at most %d, found %d", arg->plan,
                     BL_SIMULATE_MAX_MICRO_BATCHES, in->plan->layout.micro_batches);
    in->layout = in->plan->layout;
    in->plan->layout = (bl_layout){0};
    in->plan->has_layout = false;
    return BL_OK;
  }
  if (arg->batch % parts != 0)
    return bl_fail(BL_EUSAGE, "--batch %" PRId64 ": expected a multiple of %d ranks x %" PRId64 " micro-batches",
                   arg->batch, ranks, arg->micro_batches);
  return bl_layout_default(&in->layout, ranks, in->model.layers, (int32_t)(arg->batch / parts),
                           (int32_t)arg->micro_batches);
}

/* The profile, measured or derived from a cluster. */
static bl_status load_costs(const bl_simulate_arguments *arg, inputs *in, int32_t *ranks_per_node) {
  bl_cluster cluster;
  if (!arg->profile == !arg->cluster) return bl_fail(BL_EUSAGE, "expected one of --profile and --cluster");
  if (arg->cluster) {
    BL_TRY(bl_cluster_load(arg->cluster, &cluster));
    BL_TRY(bl_simulate_narrow(&cluster, &in->layout, arg->plan));
    *ranks_per_node = bl_cluster_narrowest_node(&cluster);
    return bl_cluster_profile(&cluster, &in->model, bl_layout_world(&in->layout), &in->profile);
  }
  BL_TRY(bl_profile_load(arg->profile, &in->profile));
  if (in->profile.ranks == 1 && bl_layout_world(&in->layout) > 1)
    return bl_fail(BL_EINPUT,
                   "%s: measured on 1 rank, which exchanges nothing; expected one of ballast-profile --ranks %d",
                   arg->profile, bl_layout_world(&in->layout));
  return bl_profile_fits(&in->profile, &in->model, arg->profile);
}

static bl_status open_inputs(const bl_simulate_arguments *arg, inputs *in, bl_forecast_options *o) {
  int32_t ranks_per_node = 0;
  if (!arg->plan && !arg->ranks_given) return bl_fail(BL_EUSAGE, "expected --plan, or --ranks with a policy");
  bl_policy_config config;
  BL_TRY(bl_policy_config_read(&arg->policy, &config)); /* also where a plan stands in its place */
  if (arg->log && !arg->trace) return bl_fail(BL_EUSAGE, "--log needs --trace: the routing of the same run");
  if (arg->measured && !arg->perfetto)
    return bl_fail(BL_EUSAGE, "--measured needs --perfetto: the timeline to draw it in");
  const char *const paths[] = {arg->plan, arg->profile, arg->cluster, arg->model, arg->trace, arg->log, arg->measured};
  BL_TRY(bl_output_check(arg->perfetto, paths, sizeof paths / sizeof *paths));
  bl_model_default(&in->model);
  if (arg->model) BL_TRY(bl_model_load(arg->model, &in->model));
  if (in->plan && in->plan->has_layout && in->plan->layout.sequence > 0) in->model.sequence = in->plan->layout.sequence;
  BL_TRY(make_layout(arg, in));
  BL_TRY(load_costs(arg, in, &ranks_per_node));
  if (arg->trace) BL_TRY(bl_trace_open(arg->trace, &in->trace));
  BL_TRY(bl_new(&in->slots, (size_t)in->layout.ep, sizeof *in->slots, "--slots"));
  BL_TRY(bl_parse_slots(arg->slots, in->model.experts, in->layout.ep, in->slots));
  *o = (bl_forecast_options){.model = &in->model,
                             .layout = &in->layout,
                             .profile = &in->profile,
                             .ranks_per_node = ranks_per_node,
                             .policy = arg->policy,
                             .slots = in->slots,
                             .placement = in->plan && in->plan->has_placement ? &in->plan->placement : NULL,
                             .plan_path = arg->plan,
                             .trace = in->trace,
                             .first = INT64_MIN,
                             .last = INT64_MAX};
  return arg->steps ? bl_parse_range(arg->steps, "--steps", &o->first, &o->last) : BL_OK;
}

static void close_inputs(inputs *in) {
  bl_trace_close(in->trace);
  bl_layout_free(&in->layout);
  free(in->slots);
}

bl_status bl_simulate_steps(const bl_simulate_arguments *arg, bl_plan *plan) {
  inputs in = {.plan = plan};
  run r = {.arg = arg};
  bl_forecast_options options;
  bl_status status = open_inputs(arg, &in, &options);
  if (status == BL_OK) status = bl_forecast(&options, note_step, &r);
  if (status == BL_OK && arg->perfetto && !r.drawn)
    status = bl_fail(BL_EINPUT, "%s: measured in a step that is not among those simulated", arg->measured);
  if (status == BL_OK && arg->log) status = bl_simulated_read_log(arg->log, &r.found);
  if (status == BL_OK) status = bl_simulated_print(&r.found, arg->log != NULL, arg->json);
  close_inputs(&in);
  free(r.found.steps);
  return status;
}
