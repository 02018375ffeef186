/* setup.c - checks and loads what a training run is made of. */
#include "executor/setup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "executor/checkpoint.h"
#include "planner/policy_options.h"
#include <stdio.h>
#include <string.h>

void bl_train_options_init(bl_train_options *options) {
  *options = (bl_train_options){.ranks = 1,
                                .steps = 100,
                                .batch = 8,
                                .micro_batches = 1,
                                .backend = "cpu",
                                .precision = "auto",
                                .expert_gemm = "loop",
                                .transport = "threads",
                                .gate = "naive",
                                .exchange = "host",
                                .graph = "auto",
                                .headroom = 0.25,
                                .flop = "mcore",
                                .deadline_s = 600, /* a large step on a busy machine is slow, a lost rank is not */
                                .warmup = -1,
                                .schedule_steps = -1,
                                .lr = 1e-3,
                                .capacity_factor = 1.25,
                                .balance = 0.01};
  bl_policy_options_init(&options->policy);
}

static bl_status path_of_saved_model(const char *checkpoint, char **path) {
  const size_t room = strlen(checkpoint) + sizeof "/model.json";
  BL_TRY(bl_new(path, room, 1, "path"));
  snprintf(*path, room, "%s/model.json", checkpoint);
  return BL_OK;
}

static bl_status expect_model_of_checkpoint(const bl_train_options *o, const bl_model *model) {
  bl_model saved;
  char *path;
  BL_TRY(path_of_saved_model(o->resume, &path));
  bl_status status = bl_model_load(path, &saved);
  if (status == BL_OK) status = bl_model_expect_same(model, o->model, &saved, path);
  free(path);
  return status;
}

static bl_status check_model(const bl_model *model) {
  BL_TRY(bl_model_runs_on_executor(model));
  if (bl_model_moe_layers(model) == 0)
    return bl_fail(BL_EINPUT,
                   "model %s: expected a layer with experts, but moe.first_layer is %d and moe.every %d in %d layers",
                   model->name, model->moe_first_layer, model->moe_every, model->layers);
  if (model->vocabulary < 256)
    return bl_fail(BL_EINPUT, "model %s: expected a vocabulary of at least 256 (one token a byte), found %d",
                   model->name, model->vocabulary);
  return BL_OK;
}

static bl_status load_model(const bl_train_options *o, bl_setup *s) {
  bl_model_default(&s->model);
  const char *path = o->model;
  if (!path && o->resume) {
    BL_TRY(path_of_saved_model(o->resume, &s->resume_model));
    path = s->resume_model;
  }
  if (path) BL_TRY(bl_model_load(path, &s->model));
  if (o->model && o->resume) BL_TRY(expect_model_of_checkpoint(o, &s->model));
  const bl_status status = check_model(&s->model);
  if (status == BL_OK || !path) return status;
  char text[256];
  snprintf(text, sizeof text, "%s", bl_error_text());
  return bl_fail(status, "%s: %s", path, text);
}

static bl_status check_plan_layout(const bl_train_options *o, const bl_layout *layout, bl_setup *s) {
  if (layout->tp != 1 || layout->cp != 1 || layout->pp != 1 || layout->vp != 1 || layout->etp != 1 || layout->zero != 0)
    return bl_fail(BL_ENOTSUP,
                   "%s: layout: the executor runs dp = ep x edp alone; tp, cp, pp, vp, etp must be 1 and zero 0",
                   o->plan);
  if (layout->recompute != 0 || layout->pieces != 1)
    return bl_fail(BL_ENOTSUP, "%s: layout: the executor runs recompute \"none\" and pieces 1 alone", o->plan);
  if (layout->gradient_bytes == 2 || layout->type[0])
    return bl_fail(
        BL_ENOTSUP,
        "%s: layout: the executor sums gradients in fp32 and computes in one type; expected no \"gradients\" "
        "and no \"type\"",
        o->plan);
  if (layout->sequence > 0 && layout->sequence != s->model.sequence)
    return bl_fail(BL_EINPUT, "%s: layout: sequences of %d tokens, but model %s has %d", o->plan, layout->sequence,
                   s->model.name, s->model.sequence);
  BL_TRY(bl_layout_check(layout, s->model.layers, o->plan));
  s->run.ep = layout->ep;
  s->run.ranks = layout->dp;
  if (!o->micro_batches_given) s->run.micro_batches = layout->micro_batches;
  const int64_t batch = (int64_t)layout->micro_batch * s->run.micro_batches * layout->dp;
  if (!o->batch_given && batch > BL_TRAIN_MAX_BATCH)
    return bl_fail(BL_EINPUT, "%s: layout: expected at most %d sequences a step, found %lld", o->plan,
                   BL_TRAIN_MAX_BATCH, (long long)batch);
  if (!o->batch_given) s->run.batch = (int32_t)batch;
  return BL_OK;
}

/* Homes and slots of the plan; its copies are hints that the policy does not need. */
static bl_status take_placement(const bl_train_options *o, bl_setup *s) {
  const bl_placement *p = &s->plan.placement;
  const int32_t moe = bl_model_moe_layers(&s->model), E = s->model.experts;
  if (p->experts != E || p->layers != moe)
    return bl_fail(BL_EINPUT, "%s: placement: expected %d layers of %d experts as in model %s, found %d of %d", o->plan,
                   moe, E, s->model.name, p->layers, p->experts);
  if (p->ranks != s->run.ep)
    return bl_fail(BL_EINPUT, "%s: placement: expected %d ranks, found %d", o->plan, s->run.ep, p->ranks);
  BL_TRY(bl_new(&s->home, (size_t)moe * (size_t)E, sizeof *s->home, "homes"));
  for (int32_t l = 0; l < moe; l++)
    if (p->layer[l].layer != l)
      return bl_fail(BL_EINPUT, "%s: placement: expected MoE layer %d, found %d", o->plan, l, p->layer[l].layer);
  for (int32_t l = 0; l < moe; l++) memcpy(s->home + l * E, p->layer[l].home, (size_t)E * sizeof *s->home);
  s->run.home = s->home;
  if (!o->slots) memcpy(s->slots, p->slots, (size_t)p->ranks * sizeof *s->slots);
  return BL_OK;
}

/* Where ranks are processes, their launcher has said how many. */
static bl_status expect_ranks(const bl_train_options *o, int32_t processes, int32_t ranks) {
  if (processes == 0 || ranks == processes) return BL_OK;
  if (o->plan)
    return bl_fail(BL_EUSAGE, "%s is for %d ranks: expected as many processes, found %d", o->plan, ranks, processes);
  return bl_fail(BL_EUSAGE, "--ranks %d: expected as many processes, found %d; mpirun -np %d starts them", ranks,
                 processes, ranks);
}

static bl_status load_plan(const bl_train_options *o, int32_t processes, bl_setup *s) {
  s->run.ranks = processes > 0 && !o->ranks_given ? processes : (int32_t)o->ranks;
  if (o->plan) {
    BL_TRY(bl_plan_load(o->plan, &s->plan));
    if (s->plan.has_placement) s->run.ep = s->plan.placement.ranks;
    if (s->plan.has_placement && o->ep == 0) s->run.ranks = s->run.ep; /* replicas are asked for by name */
    if (s->plan.has_layout) BL_TRY(check_plan_layout(o, &s->plan.layout, s));
    if (!s->plan.has_placement && !s->plan.has_layout)
      return bl_fail(BL_EINPUT, "%s: expected a layout or a placement, found neither", o->plan);
    if (o->ranks_given && o->ranks != s->run.ranks)
      return bl_fail(BL_EUSAGE, "--ranks %lld: the plan %s is for %d ranks", (long long)o->ranks, o->plan,
                     s->run.ranks);
    if (o->ep > 0 && o->ep != s->run.ep)
      return bl_fail(BL_EUSAGE, "--ep %lld: the plan %s spreads experts over %d ranks", (long long)o->ep, o->plan,
                     s->run.ep);
  }
  BL_TRY(expect_ranks(o, processes, s->run.ranks));
  if (s->run.ranks > BL_TRAIN_MAX_RANKS)
    return bl_fail(BL_EINPUT, "%s: expected at most %d ranks, found %d", o->plan, BL_TRAIN_MAX_RANKS, s->run.ranks);
  if (s->run.ep == 0) s->run.ep = o->ep > 0 ? (int32_t)o->ep : s->run.ranks;
  if (s->run.ranks % s->run.ep)
    return bl_fail(BL_EUSAGE, "experts on %d of %d ranks: expected a divisor, so that each has as many replicas",
                   s->run.ep, s->run.ranks);
  if (s->run.ep > s->model.experts)
    return bl_fail(BL_EINPUT, "model %s has %d experts, too few for %d ranks", s->model.name, s->model.experts,
                   s->run.ep);
  BL_TRY(bl_new(&s->slots, (size_t)s->run.ep, sizeof *s->slots, "slots"));
  BL_TRY(bl_parse_slots(o->slots, s->model.experts, s->run.ep, s->slots));
  const int32_t copy_slots = s->plan.has_layout && !o->slots ? s->plan.layout.copy_slots : 0;
  const int32_t homes = (s->model.experts + s->run.ep - 1) / s->run.ep, slots = homes + copy_slots;
  for (int32_t r = 0; copy_slots > 0 && r < s->run.ep; r++)
    s->slots[r] = slots < s->model.experts ? slots : s->model.experts;
  s->run.slots = s->slots;
  return s->plan.has_placement ? take_placement(o, s) : BL_OK;
}

static bl_status check_batch(bl_run *run) {
  const int32_t parts = run->ranks * run->micro_batches;
  if (run->batch % parts)
    return bl_fail(BL_EUSAGE, "--batch %d: expected a multiple of %d (%d ranks x %d micro-batches), such as %lld",
                   run->batch, parts, run->ranks, run->micro_batches, ((long long)run->batch / parts + 1) * parts);
  run->sequences = run->batch / parts;
  if ((double)run->sequences * run->model->sequence * run->top_k * run->ranks > INT32_MAX / 4)
    return bl_fail(BL_EUSAGE, "--batch %d: more than %d token copies in a micro-batch; use more --micro-batches",
                   run->batch, INT32_MAX / 4);
  return BL_OK;
}

/* Copies in a plan are hints to policies that place copies. */
static void tell_unused_copies(const bl_setup *s) {
  int64_t copies = 0;
  for (int32_t l = 0; s->plan.has_placement && l < s->plan.placement.layers; l++)
    copies += s->plan.placement.layer[l].n_copies;
  if (copies > 0)
    bl_log(1, "the plan's homes are taken, its %lld copies are not: policy %s has none", (long long)copies,
           s->run.policy.policy);
}

/* The program contains only what the policy can ever need. */
static bl_status build_program(const bl_train_options *o, bl_setup *s) {
  const bl_run *run = &s->run;
  const bl_policy_shape shape = {.layers = bl_model_moe_layers(&s->model),
                                 .experts = s->model.experts,
                                 .ranks = run->ep,
                                 .slots = run->slots,
                                 .home = run->home};
  bl_policy *policy;
  BL_TRY(bl_policy_create(&run->policy, &shape, &policy));
  const bool copies = bl_policy_uses_copies(policy);
  const bl_step_options options = {
      .moves = bl_policy_moves_homes(policy), .copies = copies, .late_repair = copies && run->policy.late_repair > 0};
  const bl_status planned = run->exchange == BL_EXCHANGE_HOST
                                ? BL_OK
                                : bl_planned_check(o->gate, bl_gate_has_capacity(&run->gate), &run->policy, policy);
  bl_policy_free(policy);
  BL_TRY(planned);
  if (!copies) tell_unused_copies(s);
  BL_TRY(bl_layout_default(&s->layout, run->ranks, s->model.layers, run->sequences, run->micro_batches));
  s->layout.ep = run->ep;
  s->layout.edp = bl_run_replicas(run);
  return bl_step_build(&s->model, &s->layout, &options, 0, &s->program);
}

static bool same_file(const char *a, const char *b) {
  return bl_path_same_file(a, b) || (strcmp(a, b) == 0 && !bl_path_exists(a));
}

/* No output may take the place of what the run reads, or of another output. */
static bl_status check_outputs(const bl_train_options *o, const char *trace) {
  const struct {
    const char *name, *path;
  } files[] = {{"--log", o->log},           {"--dump", o->dump}, {"--record-trace", o->record_trace},
               {"--perfetto", o->perfetto}, {"--data", o->data}, {"--model", o->model},
               {"--plan", o->plan},         {"--gate", trace}};
  enum { OUTPUTS = 4, FILES = sizeof files / sizeof *files };
  for (int i = 0; i < OUTPUTS; i++)
    if (files[i].path && strcmp(files[i].path, "-") == 0)
      return bl_fail(BL_EUSAGE, "%s -: expected a file, found standard output, which gets the result", files[i].name);
  for (int i = 0; i < OUTPUTS; i++)
    for (int k = i + 1; k < FILES; k++)
      if (files[i].path && files[k].path && same_file(files[i].path, files[k].path))
        return bl_fail(BL_EUSAGE, "%s %s: expected another file than that of %s", files[i].name, files[i].path,
                       files[k].name);
  return o->checkpoint ? bl_checkpoint_prepare(o->checkpoint) : BL_OK;
}

/* A resumed run goes on as the first one would have where the command line does not say otherwise. */
static void take_settings(const bl_train_options *o, const bl_checkpoint_settings *saved, bl_run *run) {
  if (!o->seed_given) run->seed = saved->seed;
  if (!o->batch_given) run->batch = saved->batch;
  if (!o->micro_batches_given) run->micro_batches = saved->micro_batches;
  if (o->schedule_steps >= 0 || saved->schedule_steps < 0) return;
  run->schedule_steps = saved->schedule_steps;
  if (o->warmup < 0 && saved->warmup >= 0) run->warmup = saved->warmup;
}

bl_status bl_setup_create(const bl_train_options *o, int32_t processes, bl_setup *out) {
  *out = (bl_setup){0};
  bl_setup *s = out;
  bl_run *run = &s->run;
  *run = (bl_run){.model = &s->model,
                  .program = &s->program,
                  .corpus = &s->corpus,
                  .policy = o->policy,
                  .exchange = strcmp(o->exchange, "device") == 0 ? BL_EXCHANGE_DEVICE : BL_EXCHANGE_HOST,
                  .headroom = o->headroom,
                  .graphs = strcmp(o->graph, "off") != 0,
                  .micro_batches = (int32_t)o->micro_batches,
                  .batch = (int32_t)o->batch,
                  .seed = (uint64_t)o->seed,
                  .steps = o->steps,
                  .schedule_steps = o->schedule_steps < 0 ? o->steps : o->schedule_steps,
                  .lr = o->lr,
                  .peak_flops = 1e12 * o->peak_tflops};
  run->warmup = o->warmup >= 0 ? o->warmup : run->schedule_steps / 10 < 100 ? run->schedule_steps / 10 : 100;
  run->gate.capacity_factor = o->capacity_factor;
  run->gate.balance = o->balance;
  if (run->exchange == BL_EXCHANGE_HOST && (o->headroom_given || o->graph_given))
    return bl_fail(BL_EUSAGE, "%s is for --exchange device alone", o->headroom_given ? "--headroom" : "--graph");
  if (o->checkpoint_every > 0 && !o->checkpoint) return bl_fail(BL_EUSAGE, "--checkpoint-every needs --checkpoint DIR");
  BL_TRY(bl_gate_parse(o->gate, &run->gate));
  BL_TRY(bl_flop_convention_by_name(o->flop, &run->flop));
  if (o->policy.lag == 0)
    return bl_fail(BL_EUSAGE,
                   "--lag 0 decides from counts that do not exist yet: only a replay can, training needs 1 or more");
  if (o->resume) {
    bl_checkpoint_settings saved;
    BL_TRY(bl_checkpoint_read_settings(o->resume, &saved));
    take_settings(o, &saved, run);
  }
  BL_TRY(load_model(o, s));
  run->top_k = run->gate.kind == BL_GATE_SWITCH ? 1 : s->model.top_k;
  if (run->gate.kind == BL_GATE_GSHARD && run->top_k != 2)
    return bl_fail(BL_EUSAGE, "--gate gshard: expected a model with top_k 2, model %s has %d", s->model.name,
                   run->top_k);
  BL_TRY(load_plan(o, processes, s));
  BL_TRY(check_batch(run));
  BL_TRY(check_outputs(o, run->gate.trace_path));
  BL_TRY(build_program(o, s));
  return bl_corpus_load(o->data, s->model.sequence, &s->corpus);
}

void bl_setup_free(bl_setup *setup) {
  bl_corpus_free(&setup->corpus);
  bl_step_free(&setup->program);
  bl_layout_free(&setup->layout);
  bl_plan_free(&setup->plan);
  free(setup->slots);
  free(setup->home);
  free(setup->resume_model);
  *setup = (bl_setup){0};
}
