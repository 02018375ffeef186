/* forecast.c - policy, quotas and simulator, one recorded step after the other. */
#include "planner/forecast.h"
#include "base/log.h"
#include "base/memory.h"
#include <math.h>
#include <string.h>

typedef struct forecast {
  const bl_forecast_options *o;
  int32_t ranks, experts, moe_layers, micro_batches;
  int32_t *moe_layer; /* [moe_layers]: layer numbers in the model */
  bl_step step;
  bl_traffic traffic;
  bl_policy *policy; /* NULL: fixed hosts */
  bl_hosts *fixed;   /* [moe_layers] */
  bl_shares *shares;
  int32_t *old_home;      /* [moe_layers][experts] */
  uint32_t *recorded;     /* one step of the trace */
  uint32_t *counts;       /* [ranks][experts] */
  double *load, *sources; /* [experts], [ranks][experts] */
  int32_t *first, *host_rank;
  uint32_t *quota;
  bl_copy *copies;
  bool *hosted; /* [experts][ranks] */
} forecast;

/* -- counts -------------------------------------------------------------------------------------------------------- */

/* Scales a row of counts to a total: largest remainder, ties to the lower expert. rest[n] is scratch. */
static void scale_row(uint32_t *row, double *rest, int32_t n, int64_t total) {
  double sum = 0;
  int64_t given = 0;
  for (int32_t e = 0; e < n; e++) sum += row[e];
  if (sum == 0) {
    for (int32_t e = 0; e < n; e++) row[e] = (uint32_t)(total / n + (e < total % n));
    return;
  }
  for (int32_t e = 0; e < n; e++) {
    const double exact = row[e] * (double)total / sum;
    row[e] = (uint32_t)floor(exact);
    rest[e] = exact - row[e];
    given += row[e];
  }
  for (; given < total; given++) {
    int32_t most = 0;
    for (int32_t e = 1; e < n; e++)
      if (rest[e] > rest[most]) most = e;
    row[most]++;
    rest[most] = -1;
  }
}

/* Does source rank s of a trace on t ranks belong to rank r of p? Where p > t, every rank has one source. */
static bool folds(int32_t s, int32_t t, int32_t r, int32_t p) {
  return p > t ? (int64_t)r * t / p == s : (int64_t)s * p / t == r;
}

static void fill_counts(forecast *f, int32_t moe, int32_t micro_batch) {
  const bl_trace_shape *t = f->o->trace ? bl_trace_shape_of(f->o->trace) : NULL;
  const int64_t total = (int64_t)f->o->layout->micro_batch * f->o->model->sequence * f->o->model->top_k;
  const bool as_is = t && t->live && t->ranks == f->ranks && t->micro_batches == f->micro_batches;
  memset(f->counts, 0, (size_t)f->ranks * (size_t)f->experts * sizeof *f->counts);
  for (int32_t r = 0; r < f->ranks; r++) {
    uint32_t *row = f->counts + (size_t)r * (size_t)f->experts;
    for (int32_t s = 0; t && s < t->ranks; s++) {
      if (!folds(s, t->ranks, r, f->ranks)) continue;
      const uint32_t *from = f->recorded + (((int64_t)(moe % t->layers) * t->ranks + s) * t->micro_batches +
                                            micro_batch % t->micro_batches) *
                                               f->experts;
      for (int32_t e = 0; e < f->experts; e++) row[e] += from[e];
    }
    if (!as_is) scale_row(row, f->load, f->experts, total);
  }
  memset(f->load, 0, (size_t)f->experts * sizeof *f->load);
  for (int32_t i = 0; i < f->ranks * f->experts; i++) {
    f->sources[i] = f->counts[i];
    f->load[i % f->experts] += f->counts[i];
  }
}

/* -- hosts ----------------------------------------------------------------------------------------------------------
 */

static const bl_hosts *hosts_of(const forecast *f, int32_t moe) {
  return f->policy ? bl_policy_hosts(f->policy, moe) : &f->fixed[moe];
}

static void note_hosts(forecast *f, int32_t moe, bool moved) {
  const bl_hosts *hosts = hosts_of(f, moe);
  int32_t *old = f->old_home + (size_t)moe * (size_t)f->experts;
  int32_t n = 0;
  for (int32_t i = 0; i < hosts->n_copy_slots; i++)
    if (hosts->copy_expert[i] >= 0)
      f->copies[n++] = (bl_copy){.expert = hosts->copy_expert[i], .rank = hosts->copy_rank[i], .share = 1};
  bl_traffic_set_hosts(&f->traffic, f->moe_layer[moe], hosts->home, f->copies, n);
  bl_traffic_set_moves(&f->traffic, f->moe_layer[moe], moved ? old : hosts->home, hosts->home);
  memcpy(old, hosts->home, (size_t)f->experts * sizeof *old);
}

/* Which ranks host which experts of the layer now: hosted[expert][rank]. */
static void mark_hosted(forecast *f, int32_t moe) {
  const bl_hosts *hosts = hosts_of(f, moe);
  memset(f->hosted, 0, (size_t)f->experts * (size_t)f->ranks);
  for (int32_t e = 0; e < f->experts; e++) f->hosted[e * f->ranks + hosts->home[e]] = true;
  for (int32_t i = 0; i < hosts->n_copy_slots; i++)
    if (hosts->copy_expert[i] >= 0) f->hosted[hosts->copy_expert[i] * f->ranks + hosts->copy_rank[i]] = true;
}

/* Copies that late repair has added since mark_hosted(). */
static void note_late(forecast *f, int32_t moe, int32_t micro_batch) {
  const bl_hosts *hosts = hosts_of(f, moe);
  for (int32_t i = 0; i < hosts->n_copy_slots; i++) {
    const int32_t e = hosts->copy_expert[i], r = hosts->copy_rank[i];
    if (e >= 0 && !f->hosted[e * f->ranks + r])
      bl_traffic_add_late(&f->traffic, f->moe_layer[moe], micro_batch, hosts->home[e], r);
  }
}

static bl_status solve(forecast *f, int32_t moe, int32_t micro_batch, bl_policy_outcome *outcome) {
  *outcome = (bl_policy_outcome){.shares = f->shares};
  bl_traffic_clear_late(&f->traffic, f->moe_layer[moe], micro_batch);
  if (!f->policy) {
    bl_shares_solve(f->shares, hosts_of(f, moe), f->load, NULL);
    return BL_OK;
  }
  mark_hosted(f, moe);
  BL_TRY(bl_policy_micro_batch(f->policy, moe, f->load, f->sources, outcome));
  if (outcome->late) note_late(f, moe, micro_batch);
  return BL_OK;
}

static bl_status run_step(forecast *f, int64_t iteration, bool first) {
  if (f->policy) BL_TRY(bl_policy_begin_step(f->policy, iteration));
  for (int32_t moe = 0; moe < f->moe_layers; moe++) note_hosts(f, moe, !first);
  for (int32_t m = 0; m < f->micro_batches; m++)
    for (int32_t moe = 0; moe < f->moe_layers; moe++) {
      bl_policy_outcome outcome;
      fill_counts(f, moe, m);
      BL_TRY(solve(f, moe, m, &outcome));
      BL_TRY(bl_quota_build(hosts_of(f, moe), outcome.shares, f->counts, f->ranks, f->o->ranks_per_node, f->first,
                            f->host_rank, f->quota));
      bl_traffic_set_quota(&f->traffic, f->moe_layer[moe], m, f->first, f->host_rank, f->quota);
    }
  return f->policy ? bl_policy_end_step(f->policy) : BL_OK;
}

/* -- setting up
 * -------------------------------------------------------------------------------------------------------- */

static bl_status check_fit(const bl_forecast_options *o) {
  const bl_trace_shape *t = o->trace ? bl_trace_shape_of(o->trace) : NULL;
  if (o->layout->dp != o->layout->ep)
    return bl_fail(
        BL_ENOTSUP,
        "a forecast follows the ranks of one expert-parallel group: expected dp = ep, found dp = %d of ep = %d",
        o->layout->dp, o->layout->ep);
  if (bl_model_moe_layers(o->model) == 0)
    return bl_fail(BL_EINPUT, "model %s has no experts to balance", o->model->name);
  if (t && t->experts != o->model->experts)
    return bl_fail(BL_EINPUT, "%s has %d experts, but model %s has %d", bl_trace_path(o->trace), t->experts,
                   o->model->name, o->model->experts);
  if (o->layout->ep > o->model->experts)
    return bl_fail(BL_EINPUT, "model %s has %d experts, too few for %d ranks", o->model->name, o->model->experts,
                   o->layout->ep);
  if (!o->placement) return BL_OK;
  const bl_placement *p = o->placement;
  if (p->ranks != o->layout->ep || p->experts != o->model->experts || p->layers != bl_model_moe_layers(o->model))
    return bl_fail(BL_EINPUT, "%s: places %d layers of %d experts on %d ranks, expected %d of %d on %d", o->plan_path,
                   p->layers, p->experts, p->ranks, bl_model_moe_layers(o->model), o->model->experts, o->layout->ep);
  for (int32_t l = 0; l < p->layers; l++)
    if (p->layer[l].layer != l)
      return bl_fail(BL_EINPUT, "%s: expected a placement of MoE layer %d, found layer %d", o->plan_path, l,
                     p->layer[l].layer);
  return BL_OK;
}

static bl_status fixed_hosts(forecast *f) {
  const bl_placement *p = f->o->placement;
  BL_TRY(bl_new(&f->fixed, (size_t)f->moe_layers, sizeof *f->fixed, "a forecast"));
  for (int32_t moe = 0; moe < f->moe_layers; moe++) {
    bl_hosts *hosts = &f->fixed[moe];
    const bl_layer_placement *layer = &p->layer[moe];
    BL_TRY(bl_hosts_create(hosts, f->experts, f->ranks, p->slots));
    BL_TRY(bl_hosts_set_homes(hosts, layer->home));
    for (int32_t c = 0; c < layer->n_copies; c++)
      for (int32_t i = 0; i < hosts->n_copy_slots; i++)
        if (hosts->copy_rank[i] == layer->copies[c].rank && hosts->copy_expert[i] < 0) {
          hosts->copy_expert[i] = layer->copies[c].expert;
          break;
        }
  }
  return BL_OK;
}

static bl_status build_program(forecast *f, const int32_t *slots) {
  bl_step_options options = {.moves = false, .copies = false, .ranks_per_node = f->o->ranks_per_node};
  int32_t room = 0;
  for (int32_t r = 0; r < f->ranks; r++) room += slots[r];
  if (f->policy) {
    options.moves = bl_policy_moves_homes(f->policy);
    options.copies = bl_policy_uses_copies(f->policy) && room > f->experts;
    options.late_repair = options.copies && f->o->policy.late_repair > 0;
  } else
    for (int32_t moe = 0; moe < f->moe_layers; moe++) options.copies |= f->o->placement->layer[moe].n_copies > 0;
  return bl_step_build(f->o->model, f->o->layout, &options, 0, &f->step);
}

static bl_status set_up(forecast *f) {
  const bl_forecast_options *o = f->o;
  const int32_t *slots = o->placement ? o->placement->slots : o->slots;
  const size_t experts = (size_t)f->experts, ranks = (size_t)f->ranks;
  size_t room = 0;
  for (size_t r = 0; r < ranks; r++) room += (size_t)slots[r];
  BL_TRY(bl_new(&f->moe_layer, (size_t)f->moe_layers, sizeof *f->moe_layer, "a forecast"));
  for (int32_t l = 0, n = 0; l < o->model->layers; l++)
    if (bl_model_layer_is_moe(o->model, l)) f->moe_layer[n++] = l;
  BL_TRY(bl_new(&f->old_home, (size_t)f->moe_layers * experts, sizeof *f->old_home, "a forecast"));
  BL_TRY(bl_new(&f->counts, ranks * experts, sizeof *f->counts, "a forecast"));
  BL_TRY(bl_new(&f->load, experts, sizeof *f->load, "a forecast"));
  BL_TRY(bl_new(&f->sources, ranks * experts, sizeof *f->sources, "a forecast"));
  BL_TRY(bl_new(&f->first, experts + 1, sizeof *f->first, "a forecast"));
  BL_TRY(bl_new(&f->host_rank, experts + room, sizeof *f->host_rank, "a forecast"));
  BL_TRY(bl_new(&f->quota, ranks * (experts + room), sizeof *f->quota, "a forecast"));
  BL_TRY(bl_new(&f->copies, room, sizeof *f->copies, "a forecast"));
  BL_TRY(bl_new(&f->hosted, experts * ranks, sizeof *f->hosted, "a forecast"));
  BL_TRY(bl_shares_create(f->experts, f->ranks, (int32_t)room, &f->shares));
  if (o->trace) {
    const size_t n = (size_t)bl_trace_step_size(bl_trace_shape_of(o->trace));
    BL_TRY(bl_new(&f->recorded, n, sizeof *f->recorded, "a forecast"));
  }
  const bl_policy_shape shape = {.layers = f->moe_layers, .experts = f->experts, .ranks = f->ranks, .slots = slots};
  if (o->placement)
    BL_TRY(fixed_hosts(f));
  else
    BL_TRY(bl_policy_create(&o->policy, &shape, &f->policy));
  BL_TRY(build_program(f, slots));
  return bl_traffic_create(f->ranks, f->experts, o->model->layers, f->micro_batches, &f->traffic);
}

static void tear_down(forecast *f) {
  for (int32_t moe = 0; f->fixed && moe < f->moe_layers; moe++) bl_hosts_free(&f->fixed[moe]);
  void *owned[] = {f->fixed,   f->moe_layer, f->old_home,  f->recorded, f->counts, f->load,
                   f->sources, f->first,     f->host_rank, f->quota,    f->copies, f->hosted};
  for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
  bl_shares_free(f->shares);
  bl_policy_free(f->policy);
  bl_step_free(&f->step);
  bl_traffic_free(&f->traffic);
}

static bl_status run_all(forecast *f, bl_forecast_step on_step, void *context) {
  const bl_forecast_options *o = f->o;
  const int32_t *slots = o->placement ? o->placement->slots : o->slots;
  const bl_costs costs = {
      .model = o->model, .layout = o->layout, .profile = o->profile, .traffic = &f->traffic, .slots = slots};
  const int32_t n = o->trace ? bl_trace_steps(o->trace) : 1;
  int32_t reported = 0;
  for (int32_t i = 0; i < n; i++) {
    const int64_t iteration = o->trace ? bl_trace_iteration(o->trace, i) : 0;
    bl_simulation simulation;
    if (o->trace && iteration > o->last) break;
    if (o->trace) BL_TRY(bl_trace_read(o->trace, i, f->recorded));
    BL_TRY(run_step(f, iteration, i == 0));
    if (o->trace && iteration < o->first) continue;
    BL_TRY(bl_simulate(&f->step, &costs, &simulation));
    const bl_status status = on_step(context, iteration, &f->step, &simulation);
    bl_simulation_free(&simulation);
    BL_TRY(status);
    reported++;
  }
  if (reported == 0) return bl_fail(BL_EINPUT, "%s has no step in the chosen range", bl_trace_path(o->trace));
  return BL_OK;
}

bl_status bl_forecast(const bl_forecast_options *options, bl_forecast_step on_step, void *context) {
  forecast f = {.o = options,
                .ranks = options->layout->ep,
                .experts = options->model->experts,
                .moe_layers = bl_model_moe_layers(options->model),
                .micro_batches = options->layout->micro_batches};
  BL_TRY(check_fit(options));
  bl_status status = set_up(&f);
  if (status == BL_OK) status = run_all(&f, on_step, context);
  tear_down(&f);
  return status;
}
