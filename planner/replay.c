#include "planner/replay.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "planner/regret.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What a replay carries from step to step. */
typedef struct run {
  const bl_replay_options *options;
  const bl_trace_shape *shape;
  int32_t layers;    /* chosen */
  int32_t *layer_id; /* [layers] in the trace */
  uint32_t *step;    /* counts as read */
  double *counts;    /* [layers][experts] of one micro-batch, or of the whole step */
  double *sources;   /* [layers][ranks][experts], the same by source rank, folded onto the policy's ranks */
  double *imbalance, *decide_us;
  size_t n_imbalance, n_decide, imbalance_room, decide_room;
  bl_policy *policy;
  bl_regret *regret; /* NULL: not wanted */
  bl_replay_result *result;
} run;

static bl_status choose_layers(run *r) {
  const bl_replay_options *o = r->options;
  r->layers = o->layers ? o->n_layers : r->shape->layers;
  BL_TRY(bl_new(&r->layer_id, (size_t)r->layers, sizeof *r->layer_id, "a replay"));
  for (int32_t l = 0; l < r->layers; ++l) {
    r->layer_id[l] = o->layers ? o->layers[l] : l;
    if (r->layer_id[l] < 0 || r->layer_id[l] >= r->shape->layers)
      return bl_fail(BL_EINPUT, "--layers %d: the trace has layers 0 to %d", r->layer_id[l], r->shape->layers - 1);
    if (l > 0 && r->layer_id[l] <= r->layer_id[l - 1])
      return bl_fail(BL_EINPUT, "--layers: expected ascending layers, found %d after %d", r->layer_id[l],
                     r->layer_id[l - 1]);
  }
  return BL_OK;
}

static bl_status check_options(const run *r) {
  const bl_replay_options *o = r->options;
  if (o->source_rank >= r->shape->ranks)
    return bl_fail(BL_EINPUT, "--source-rank %d: the trace has source ranks 0 to %d", o->source_rank,
                   r->shape->ranks - 1);
  if (o->micro_batch >= r->shape->micro_batches)
    return bl_fail(BL_EINPUT, "--micro-batch %d: the trace has micro-batches 0 to %d", o->micro_batch,
                   r->shape->micro_batches - 1);
  return BL_OK;
}

/* home[layers][experts] of the plan to start from. */
static bl_status start_homes(const run *r, int32_t *home) {
  const bl_placement *start = r->options->start;
  const size_t experts = (size_t)r->shape->experts;
  if (start->ranks != r->options->ranks || start->experts != r->shape->experts)
    return bl_fail(BL_EINPUT, "%s: places %d experts on %d ranks, expected %d on %d", r->options->start_path,
                   start->experts, start->ranks, r->shape->experts, r->options->ranks);
  for (int32_t l = 0; l < r->layers; ++l) {
    int32_t at = 0;
    while (at < start->layers && start->layer[at].layer != r->layer_id[l]) ++at;
    if (at == start->layers)
      return bl_fail(BL_EINPUT, "%s: expected a placement of layer %d, found none", r->options->start_path,
                     r->layer_id[l]);
    memcpy(home + (size_t)l * experts, start->layer[at].home, experts * sizeof *home);
  }
  return BL_OK;
}

static bl_status create_policy(run *r) {
  const bl_replay_options *o = r->options;
  int32_t *home = NULL;
  bl_status status = BL_OK;
  if (o->start) {
    BL_TRY(bl_new(&home, (size_t)r->layers * (size_t)r->shape->experts, sizeof *home, "homes to start from"));
    status = start_homes(r, home);
  }
  const bl_policy_shape shape = {.layers = r->layers,
                                 .experts = r->shape->experts,
                                 .ranks = o->ranks,
                                 .slots = o->slots,
                                 .home = home,
                                 .layer_id = r->layer_id};
  if (status == BL_OK) status = bl_policy_create(&o->policy, &shape, &r->policy);
  free(home);
  return status;
}

/* Copies have a price where the policy is to weigh them; without, slots are taken as given. A copy's weights and
 * gradients are 2 + 4 bytes a parameter and step, a move's state 14 once. */
static bl_status create_regret(run *r, int64_t steps) {
  static const double MOVE_IN_COPIES = 14.0 / 6;
  const bl_replay_options *o = r->options;
  const bool priced = strcmp(o->policy.homes, "cost") == 0;
  r->result->copy_price = priced ? o->policy.copy_price : 0;
  r->result->move_price = MOVE_IN_COPIES * o->policy.copy_price;
  const bl_regret_options options = {.layers = r->layers,
                                     .experts = r->shape->experts,
                                     .ranks = o->ranks,
                                     .slots = bl_policy_hosts(r->policy, 0)->slots,
                                     .spread = o->regret,
                                     .steps = steps,
                                     .copy_price = r->result->copy_price,
                                     .move_price = r->result->move_price};
  return bl_regret_create(&options, &r->regret);
}

static bl_status open_run(run *r) {
  const bl_replay_options *o = r->options;
  BL_TRY(check_options(r));
  BL_TRY(choose_layers(r));
  const size_t counts = (size_t)r->layers * (size_t)r->shape->experts;
  BL_TRY(bl_new(&r->step, (size_t)bl_trace_step_size(r->shape), sizeof *r->step, "a step of the trace"));
  BL_TRY(bl_new(&r->counts, counts, sizeof *r->counts, "a replay"));
  BL_TRY(bl_new(&r->sources, counts * (size_t)o->ranks, sizeof *r->sources, "a replay"));
  BL_TRY(create_policy(r));
  bl_policy_time_decisions(r->policy);
  return BL_OK;
}

static void close_run(run *r) {
  free(r->layer_id);
  free(r->step);
  free(r->counts);
  free(r->sources);
  free(r->imbalance);
  free(r->decide_us);
  bl_policy_free(r->policy);
  bl_regret_free(r->regret);
}

/* Sums the chosen counts of micro-batches first..last by expert, and by source rank. */
static void sum_counts(run *r, int32_t first, int32_t last) {
  const bl_trace_shape *t = r->shape;
  const int64_t experts = t->experts, ranks = r->options->ranks;
  memset(r->counts, 0, (size_t)r->layers * (size_t)experts * sizeof *r->counts);
  memset(r->sources, 0, (size_t)r->layers * (size_t)(ranks * experts) * sizeof *r->sources);
  for (int64_t l = 0; l < r->layers; ++l)
    for (int64_t source = 0; source < t->ranks; ++source) {
      if (r->options->source_rank >= 0 && source != r->options->source_rank) continue;
      double *total = r->counts + l * experts;
      double *mine = r->sources + (l * ranks + source * ranks / t->ranks) * experts;
      for (int64_t m = first; m <= last; ++m) {
        const uint32_t *row =
            r->step + ((r->layer_id[l] * (int64_t)t->ranks + source) * t->micro_batches + m) * experts;
        for (int64_t e = 0; e < experts; ++e) {
          total[e] += row[e];
          mine[e] += row[e];
        }
      }
    }
}

/* All micro-batches of one step, layer by layer. */
static bl_status play(run *r, int64_t iteration, bool scored) {
  const bl_replay_options *o = r->options;
  const int64_t experts = r->shape->experts;
  const int32_t first = o->micro_batch >= 0 ? o->micro_batch : 0;
  const int32_t last = o->micro_batch >= 0 ? o->micro_batch : r->shape->micro_batches - 1;
  bl_policy_outcome outcome;
  sum_counts(r, first, last);
  if (o->policy.lag == 0) BL_TRY(bl_policy_preview(r->policy, r->counts, r->sources));
  BL_TRY(bl_policy_begin_step(r->policy, iteration));
  for (int32_t l = 0; r->regret && scored && l < r->layers; ++l)
    BL_TRY(bl_regret_play(r->regret, l, bl_policy_hosts(r->policy, l), r->counts + l * experts));
  for (int32_t m = o->each ? first : last; m <= last; ++m) {
    if (o->each) sum_counts(r, m, m);
    for (int32_t l = 0; l < r->layers; ++l)
      BL_TRY(bl_policy_micro_batch(r->policy, l, r->counts + l * experts, r->sources + (int64_t)l * o->ranks * experts,
                                   &outcome));
  }
  return bl_policy_end_step(r->policy);
}

static bl_status score(run *r, int64_t iteration) {
  bl_replay_result *result = r->result;
  const size_t layers = (size_t)r->layers;
  BL_TRY(bl_grow(&r->imbalance, &r->imbalance_room, r->n_imbalance + layers, sizeof *r->imbalance, "a replay"));
  BL_TRY(bl_grow(&r->decide_us, &r->decide_room, r->n_decide + layers, sizeof *r->decide_us, "a replay"));
  if (result->steps++ == 0) result->first = iteration;
  result->last = iteration;
  for (int32_t l = 0; l < r->layers; ++l) {
    const bl_policy_layer_report *report = bl_policy_report(r->policy, l);
    r->imbalance[r->n_imbalance++] = report->imbalance;
    if (report->decide_us > 0) r->decide_us[r->n_decide++] = report->decide_us;
    if (report->imbalance > result->worst) {
      result->worst = report->imbalance;
      result->worst_iteration = iteration;
      result->worst_layer = r->layer_id[l];
    }
    result->mean += report->imbalance;
    result->copies += report->copies;
    result->copies_used += report->copies_used;
    result->moves += report->moved;
    result->changes += report->moved > 0;
    result->decided += report->decided;
    result->late += report->late;
    result->late_copies += report->late_copies;
    result->copies_changed += report->changed;
    result->fills += report->planned;
    result->late_fills += report->late_copies;
  }
  return BL_OK;
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* The value that a share `p` of the n sorted ones does not exceed. */
static double quantile(const double *sorted, size_t n, double p) {
  if (n == 0) return 0;
  const size_t rank = (size_t)ceil(p * (double)n);
  return sorted[rank > 0 ? rank - 1 : 0];
}

static void sum_up(run *r) {
  bl_replay_result *result = r->result;
  const double n = (double)r->n_imbalance;
  result->layers = r->layers;
  if (result->late > 0) result->late_copies /= result->late;
  result->mean /= n;
  result->copies /= n;
  result->copies_used /= n;
  result->copies_changed /= n;
  result->late /= n;
  result->decided /= n;
  const double span = (double)result->last - (double)result->first; /* the integers may be too far apart */
  const double iterations = result->steps > 1 ? span * result->steps / (result->steps - 1) : 1;
  result->moves_per_1000 = (double)result->moves / r->layers / iterations * 1000;
  qsort(r->imbalance, r->n_imbalance, sizeof *r->imbalance, ascending);
  qsort(r->decide_us, r->n_decide, sizeof *r->decide_us, ascending);
  result->p99 = quantile(r->imbalance, r->n_imbalance, 0.99);
  for (size_t i = 0; i < r->n_decide; ++i) result->decide_mean_us += r->decide_us[i] / (double)r->n_decide;
  result->decide_median_us = quantile(r->decide_us, r->n_decide, 0.5);
  result->decide_p99_us = quantile(r->decide_us, r->n_decide, 0.99);
}

/* The scored steps once more, for hindsight. */
static bl_status look_back(run *r, bl_trace_reader *reader, int32_t first, int32_t end) {
  const bl_replay_options *o = r->options;
  for (int32_t i = first; i < end; ++i) {
    BL_TRY(bl_trace_read(reader, i, r->step));
    sum_counts(r, o->micro_batch >= 0 ? o->micro_batch : 0,
               o->micro_batch >= 0 ? o->micro_batch : r->shape->micro_batches - 1);
    for (int32_t l = 0; l < r->layers; ++l)
      bl_regret_look_back(r->regret, l, r->counts + (int64_t)l * r->shape->experts);
  }
  const bl_regret_result found = bl_regret_sum_up(r->regret);
  r->result->cost = found.decided;
  r->result->least_cost = found.best;
  r->result->candidates = found.candidates;
  return BL_OK;
}

static bl_status play_all(run *r, bl_trace_reader *reader, FILE *dump) {
  const int32_t end =
      r->options->last == INT64_MAX ? bl_trace_steps(reader) : bl_trace_find(reader, r->options->last + 1);
  const int32_t first = bl_trace_find(reader, r->options->first);
  if (first >= end)
    return bl_fail(BL_EINPUT, "%s: no step within --steps, the iterations are %" PRId64 " to %" PRId64,
                   bl_trace_path(reader), bl_trace_iteration(reader, 0),
                   bl_trace_iteration(reader, bl_trace_steps(reader) - 1));
  bl_progress progress;
  bl_status status = r->options->regret > 0 ? create_regret(r, end - first) : BL_OK;
  bl_progress_start(&progress);
  for (int32_t i = 0; i < end && status == BL_OK; ++i) {
    const int64_t iteration = bl_trace_iteration(reader, i);
    const bool scored = iteration >= r->options->first;
    bl_policy_dump_to(r->policy, scored ? dump : NULL);
    status = bl_trace_read(reader, i, r->step);
    if (status == BL_OK) status = play(r, iteration, scored);
    if (status == BL_OK && scored) status = score(r, iteration);
    bl_progress_update(&progress, "%" PRId32 " of %" PRId32 " steps", i + 1, end);
  }
  bl_progress_end(&progress);
  if (status == BL_OK && r->regret) status = look_back(r, reader, first, end);
  return status;
}

bl_status bl_replay(bl_trace_reader *reader, const bl_replay_options *options, bl_replay_result *result) {
  run r = {.options = options, .shape = bl_trace_shape_of(reader), .result = result};
  bl_output *dump = NULL;
  *result = (bl_replay_result){0};
  bl_status status = open_run(&r);
  if (status == BL_OK && options->dump) status = bl_output_open(options->dump, &dump);
  if (status == BL_OK) status = play_all(&r, reader, dump ? bl_output_stream(dump) : NULL);
  if (dump) {
    if (status == BL_OK) {
      status = bl_output_commit(dump);
    } else {
      bl_output_discard(dump);
    }
  }
  if (status == BL_OK) sum_up(&r);
  close_run(&r);
  return status;
}
