#include "planner/policy.h"
#include "base/memory.h"
#include "planner/policy_state.h"
#include <string.h>
#include <time.h>

/* Processor time, so that what else runs on the machine is not counted. */
static double now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static bl_status check_shape(const bl_policy_shape *shape) {
  if (shape->layers < 1) return bl_fail(BL_EINPUT, "a policy for %d layers: expected at least 1", shape->layers);
  if (shape->ranks < 1) return bl_fail(BL_EINPUT, "%d ranks: expected at least 1", shape->ranks);
  if (shape->experts < shape->ranks)
    return bl_fail(BL_EINPUT, "%d experts on %d ranks: expected at least one expert a rank", shape->experts,
                   shape->ranks);
  for (int32_t r = 0; shape->speed && r < shape->ranks; ++r)
    if (!(shape->speed[r] > 0 && shape->speed[r] < 1e9))
      return bl_fail(BL_EINPUT, "rank %d has speed %g: expected a number above 0", r, shape->speed[r]);
  return BL_OK;
}

static bl_status create_layer(bl_policy *p, const bl_policy_shape *shape, int32_t l) {
  bl_policy_layer *layer = &p->layer[l];
  BL_TRY(bl_hosts_create(&layer->hosts, p->experts, p->ranks, p->slots));
  BL_TRY(bl_hosts_create(&layer->planned, p->experts, p->ranks, p->slots));
  if (shape->home) BL_TRY(bl_hosts_set_homes(&layer->hosts, shape->home + (int64_t)l * p->experts));
  BL_TRY(bl_new(&layer->fraction, (size_t)p->max_copies, sizeof *layer->fraction, "a policy"));
  BL_TRY(bl_new(&layer->taken, (size_t)p->max_copies, sizeof *layer->taken, "a policy"));
  BL_TRY(bl_new(&layer->counts, (size_t)p->experts, sizeof *layer->counts, "a policy"));
  BL_TRY(bl_new(&layer->rest.forecast, (size_t)p->experts, sizeof *layer->rest.forecast, "a policy"));
  BL_TRY(bl_new(&layer->recent, (size_t)bl_policy_recent(p), sizeof *layer->recent, "a policy"));
  for (int32_t i = 0; i < bl_policy_recent(p); ++i) layer->recent[i] = 1;
  return BL_OK;
}

static bl_status create_workspaces(bl_policy *p) {
  const bool ballast = p->config.kind == BL_POLICY_BALLAST, shadows = p->config.kind == BL_POLICY_FASTERMOE;
  BL_TRY(bl_history_create(&p->history, p->layers, p->experts, p->ranks, p->config.lag, shadows, ballast));
  BL_TRY(bl_new(&p->record, (size_t)p->layers * (size_t)p->history.width, sizeof *p->record, "a policy"));
  BL_TRY(bl_shares_create(p->experts, p->ranks, p->max_copies, &p->shares));
  for (int i = 0; i < 2; ++i) BL_TRY(bl_hosts_create(&p->spare[i], p->experts, p->ranks, p->slots));
  if (!ballast) return BL_OK;
  BL_TRY(bl_new(&p->scenarios, (size_t)p->experts * BL_POLICY_SCENARIOS, sizeof *p->scenarios, "a policy"));
  BL_TRY(bl_copies_create(p->experts, p->ranks, p->max_copies, &p->copies));
  if (p->config.homes == BL_HOMES_FREE) BL_TRY(bl_window_create(p->experts, p->ranks, &p->window));
  return BL_OK;
}

static bl_status fill(bl_policy *p, const bl_policy_shape *shape) {
  const size_t ranks = (size_t)p->ranks;
  int64_t slots = 0;
  BL_TRY(bl_new(&p->slots, ranks, sizeof *p->slots, "a policy"));
  for (int32_t r = 0; r < p->ranks; ++r) /* shadowing is a rule without slots: room for everything */
    slots += p->slots[r] = p->config.kind == BL_POLICY_FASTERMOE ? p->experts : shape->slots[r];
  if (slots < p->experts)
    return bl_fail(BL_EINPUT, "%lld slots on %d ranks cannot hold %d experts", (long long)slots, p->ranks, p->experts);
  if (slots - p->experts > INT32_MAX / 2) return bl_fail(BL_EINPUT, "%lld slots are too many", (long long)slots);
  p->max_copies = (int32_t)(slots - p->experts);
  if (shape->speed) {
    BL_TRY(bl_new(&p->speed, ranks, sizeof *p->speed, "a policy"));
    memcpy(p->speed, shape->speed, ranks * sizeof *p->speed);
  }
  BL_TRY(bl_new(&p->layer_id, (size_t)shape->layers, sizeof *p->layer_id, "a policy"));
  BL_TRY(bl_new(&p->layer, (size_t)shape->layers, sizeof *p->layer, "a policy"));
  p->layers = shape->layers;
  for (int32_t l = 0; l < p->layers; ++l) {
    p->layer_id[l] = shape->layer_id ? shape->layer_id[l] : l;
    BL_TRY(create_layer(p, shape, l));
  }
  return create_workspaces(p);
}

bl_status bl_policy_create(const bl_policy_options *options, const bl_policy_shape *shape, bl_policy **out) {
  bl_policy *p;
  bl_policy_config config;
  *out = NULL;
  BL_TRY(bl_policy_config_read(options, &config));
  BL_TRY(check_shape(shape));
  BL_TRY(bl_new(&p, 1, sizeof *p, "a policy"));
  p->config = config;
  p->experts = shape->experts;
  p->ranks = shape->ranks;
  const bl_status status = fill(p, shape);
  if (status != BL_OK) {
    bl_policy_free(p);
    return status;
  }
  *out = p;
  return BL_OK;
}

void bl_policy_free(bl_policy *p) {
  if (!p) return;
  for (int32_t l = 0; p->layer && l < p->layers; ++l) {
    bl_policy_layer *layer = &p->layer[l];
    bl_hosts_free(&layer->hosts);
    bl_hosts_free(&layer->planned);
    free(layer->fraction);
    free(layer->taken);
    free(layer->counts);
    free(layer->recent);
    free(layer->rest.forecast);
  }
  free(p->layer);
  free(p->slots);
  free(p->speed);
  free(p->layer_id);
  bl_history_free(&p->history);
  free(p->record);
  free(p->scenarios);
  bl_shares_free(p->shares);
  bl_copies_free(p->copies);
  bl_window_free(p->window);
  for (int i = 0; i < 2; ++i) bl_hosts_free(&p->spare[i]);
  free(p);
}

bool bl_policy_moves_homes(const bl_policy *p) {
  switch (p->config.kind) {
  case BL_POLICY_SMARTMOE:
  case BL_POLICY_EPLB:
    return true;
  case BL_POLICY_BALLAST:
    return p->config.homes != BL_HOMES_FIXED;
  default:
    return false;
  }
}

bool bl_policy_uses_copies(const bl_policy *p) {
  return p->max_copies > 0 && p->config.kind != BL_POLICY_STATIC && p->config.kind != BL_POLICY_SMARTMOE;
}

bool bl_policy_solves_shares(const bl_policy *p) {
  return !p->config.stale && p->config.kind != BL_POLICY_EPLB && p->config.kind != BL_POLICY_FASTERMOE;
}

void bl_policy_dump_to(bl_policy *p, FILE *stream) { p->dump = stream; }

void bl_policy_time_decisions(bl_policy *p) { p->timed = true; }

/* Adds counts of one layer to a record: totals, and by source where the history keeps them. */
static void add_record(const bl_policy *p, double *record, const double *counts, const double *source_counts) {
  const int64_t experts = p->experts;
  for (int64_t e = 0; e < experts; ++e) record[e] += counts[e];
  if (!p->history.by_source) return;
  for (int64_t r = 0; r < p->ranks; ++r)
    for (int64_t e = 0; e < experts; ++e)
      record[experts + r * experts + e] += source_counts ? source_counts[r * experts + e] : counts[e] / p->ranks;
}

bl_status bl_policy_preview(bl_policy *p, const double *counts, const double *source_counts) {
  if (p->config.lag != 0)
    return bl_fail(BL_EUSAGE, "a preview of a step's counts is for lag 0 alone, not for lag %d", p->config.lag);
  memset(p->record, 0, (size_t)p->layers * (size_t)p->history.width * sizeof *p->record);
  for (int64_t l = 0; l < p->layers; ++l)
    add_record(p, p->record + l * p->history.width, counts + l * p->experts,
               source_counts ? source_counts + l * p->ranks * p->experts : NULL);
  bl_history_push(&p->history, p->record);
  return BL_OK;
}

/* Copies of `now`, and how many of them `before` did not have. */
static void count_copies(const bl_hosts *before, const bl_hosts *now, bl_policy_layer_report *report) {
  for (int32_t s = 0, first = 0; s < now->n_copy_slots; ++s) {
    const int32_t e = now->copy_expert[s], rank = now->copy_rank[s];
    if (e < 0) continue;
    while (first < before->n_copy_slots && before->copy_rank[first] < rank) ++first; /* slots come by ascending rank */
    bool stays = false;
    for (int32_t t = first; t < before->n_copy_slots && before->copy_rank[t] == rank; ++t)
      stays = stays || before->copy_expert[t] == e;
    ++report->planned;
    report->changed += !stays;
  }
}

/* The layer's hosts for the step that begins; layer->planned still are those before. */
static bl_status decide(bl_policy *p, int32_t l) {
  bl_policy_layer *layer = &p->layer[l];
  const double start = p->timed ? now_us() : 0;
  if (!bl_policy_rests(p, l)) {
    layer->report.decided = true;
    BL_TRY(bl_policy_decide(p, l));
    bl_policy_settle(p, l, bl_hosts_hash(&layer->hosts, 0) != bl_hosts_hash(&layer->planned, 0));
  }
  if (p->timed) layer->report.decide_us = now_us() - start;
  return BL_OK;
}

bl_status bl_policy_begin_step(bl_policy *p, int64_t iteration) {
  const bool due = p->history.known > 0 && p->config.kind != BL_POLICY_STATIC &&
                   (!p->decided || (uint64_t)iteration - (uint64_t)p->last_decision >= (uint64_t)p->config.every);
  p->iteration = iteration;
  for (int32_t l = 0; l < p->layers; ++l) {
    bl_policy_layer *layer = &p->layer[l];
    layer->report = (bl_policy_layer_report){.imbalance = 1};
    layer->sum = layer->n = 0;
    layer->worst = 1;
    memset(layer->taken, 0, (size_t)p->max_copies * sizeof *layer->taken);
    memset(layer->counts, 0, (size_t)p->experts * sizeof *layer->counts);
    BL_TRY(bl_hosts_assign(&layer->planned, &layer->hosts)); /* the old hosts, to count what changes */
    if (due) BL_TRY(decide(p, l));
    for (int32_t e = 0; e < p->experts; ++e) layer->report.moved += layer->hosts.home[e] != layer->planned.home[e];
    count_copies(&layer->planned, &layer->hosts, &layer->report);
    BL_TRY(bl_hosts_assign(&layer->planned, &layer->hosts));
  }
  if (due) {
    p->decided = true;
    p->last_decision = iteration;
  }
  memset(p->record, 0, (size_t)p->layers * (size_t)p->history.width * sizeof *p->record);
  p->in_step = true;
  return BL_OK;
}

const bl_hosts *bl_policy_hosts(const bl_policy *p, int32_t layer) { return &p->layer[layer].hosts; }

/* Every shadowed expert's tokens stay at their source. */
static void set_shadow_fractions(bl_policy *p, bl_policy_layer *layer, const double *counts,
                                 const double *source_counts) {
  for (int32_t s = 0; s < layer->hosts.n_copy_slots; ++s) {
    const int32_t e = layer->hosts.copy_expert[s];
    if (e < 0) continue;
    const double mine =
        source_counts ? source_counts[(int64_t)layer->hosts.copy_rank[s] * p->experts + e] : counts[e] / p->ranks;
    layer->fraction[s] = counts[e] > 0 ? mine / counts[e] : 0;
  }
}

bl_status bl_policy_micro_batch(bl_policy *p, int32_t l, const double *counts, const double *source_counts,
                                bl_policy_outcome *out) {
  bl_policy_layer *layer = &p->layer[l];
  if (!p->in_step) return bl_fail(BL_EUSAGE, "a micro-batch outside of a step");
  if (p->config.kind == BL_POLICY_FASTERMOE) set_shadow_fractions(p, layer, counts, source_counts);
  double imbalance = bl_policy_solves_shares(p)
                         ? bl_shares_solve(p->shares, &layer->hosts, counts, p->speed)
                         : bl_shares_apply(p->shares, &layer->hosts, counts, layer->fraction, p->speed);
  if (imbalance > layer->worst) layer->worst = imbalance;
  out->late = false;
  if (p->config.late_repair > 0 && imbalance > p->config.late_repair) {
    const double start = p->timed ? now_us() : 0;
    const int32_t filled = layer->report.late_copies;
    imbalance = bl_policy_repair(p, l, counts, imbalance);
    out->late = layer->report.late_copies > filled;
    layer->report.late = layer->report.late || out->late;
    if (p->timed) layer->report.decide_us += now_us() - start;
  }
  for (int32_t s = 0; s < layer->hosts.n_copy_slots; ++s) layer->taken[s] += bl_shares_copy_tokens(p->shares, s);
  for (int32_t e = 0; e < p->experts; ++e) layer->counts[e] += counts[e];
  layer->sum += imbalance;
  ++layer->n;
  add_record(p, p->record + (int64_t)l * p->history.width, counts, source_counts);
  out->imbalance = imbalance;
  out->shares = p->shares;
  return BL_OK;
}

bl_status bl_policy_end_step(bl_policy *p) {
  if (!p->in_step) return bl_fail(BL_EUSAGE, "the end of a step that did not begin");
  const int32_t recent = bl_policy_recent(p);
  for (int32_t l = 0; l < p->layers; ++l) {
    bl_policy_layer *layer = &p->layer[l];
    bl_policy_layer_report *report = &layer->report;
    report->imbalance = layer->n > 0 ? layer->sum / layer->n : 1;
    for (int32_t s = 0; s < layer->hosts.n_copy_slots; ++s) {
      report->copies += layer->hosts.copy_expert[s] >= 0;
      report->copies_used += layer->taken[s] > 0;
    }
    memmove(layer->recent, layer->recent + 1, (size_t)(recent - 1) * sizeof *layer->recent);
    layer->recent[recent - 1] = layer->worst;
  }
  if (p->dump) bl_policy_write_dump(p);
  if (p->config.lag > 0) bl_history_push(&p->history, p->record);
  p->in_step = false;
  return BL_OK;
}

const bl_policy_layer_report *bl_policy_report(const bl_policy *p, int32_t layer) { return &p->layer[layer].report; }
