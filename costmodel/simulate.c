/* simulate.c - the step program priced: list scheduling in issue order. */
#include "costmodel/simulate.h"
#include "base/memory.h"
#include "costmodel/memory.h"
#include <string.h>

typedef struct run {
  const bl_step *step;
  const bl_costs *costs;
  bl_simulation *out;
  double (*free_us)[BL_RESOURCE_COUNT]; /* [rank]: when the resource's last action ends */
  int32_t *members;                     /* [ranks] */
  bool *grouped;                        /* [ranks]: the action at hand is done for this rank */
} run;

static bl_span *span_of(const bl_simulation *s, int32_t rank, int32_t action) {
  return &s->spans[(size_t)rank * (size_t)s->n_actions + (size_t)action];
}

static int queue_of(const run *r, const bl_action *action) {
  return r->costs->profile->overlap ? (int)action->resource : 0;
}

/* When the rank itself could start the action. */
static double ready(const run *r, int32_t rank, const bl_action *action) {
  double at = r->free_us[rank][queue_of(r, action)];
  for (int32_t i = 0; i < action->n_waits; i++) {
    const double end = span_of(r->out, rank, r->step->waits[action->first_wait + i])->end_us;
    if (end > at) at = end;
  }
  return at;
}

/* Runs the action for all ranks of the group that `rank` is in. */
static bl_status run_group(run *r, int32_t number, int32_t rank) {
  const bl_action *action = &r->step->actions[number];
  const int32_t size = bl_group_size(r->costs->layout, action->group);
  double start = 0, longest = 0;
  bl_group_members(r->costs->layout, action->group, rank, r->members);
  for (int32_t i = 0; i < size; i++) {
    double us;
    bl_span *span = span_of(r->out, r->members[i], number);
    BL_TRY(bl_cost_of(r->costs, action, r->members[i], &us));
    span->ready_us = ready(r, r->members[i], action);
    if (span->ready_us > start) start = span->ready_us;
    if (us > longest) longest = us;
  }
  for (int32_t i = 0; i < size; i++) {
    bl_span *span = span_of(r->out, r->members[i], number);
    span->start_us = start;
    span->end_us = start + longest;
    r->free_us[r->members[i]][queue_of(r, action)] = span->end_us;
    r->grouped[r->members[i]] = true;
  }
  return BL_OK;
}

/* Links busy while compute is not: both busy times as unions of spans, walked in issue order per resource. */
static double exposed_of(const run *r, int32_t rank) {
  const bl_step *step = r->step;
  double exposed = 0, covered = 0;
  int32_t c = 0; /* next compute action in issue order; spans of one resource do not overlap */
  for (int32_t i = 0; i < step->n_actions; i++) {
    const bl_action *action = &step->actions[step->order[i]];
    if (action->resource != BL_RESOURCE_INTRA_LINK && action->resource != BL_RESOURCE_INTER_LINK) continue;
    const bl_span *link = span_of(r->out, rank, step->order[i]);
    const double from = link->ready_us > covered ? link->ready_us : covered;
    if (link->end_us <= from) continue;
    double hidden = 0;
    for (; c < step->n_actions; c++) {
      const bl_span *compute = span_of(r->out, rank, step->order[c]);
      if (step->actions[step->order[c]].resource != BL_RESOURCE_COMPUTE || compute->end_us <= from) continue;
      if (compute->start_us >= link->end_us) break;
      const double a = compute->start_us > from ? compute->start_us : from;
      const double b = compute->end_us < link->end_us ? compute->end_us : link->end_us;
      hidden += b - a;
      if (compute->end_us > link->end_us) break;
    }
    exposed += link->end_us - from - hidden;
    covered = link->end_us;
  }
  return exposed;
}

static bl_status sum_up(run *r) {
  bl_simulation *s = r->out;
  const bl_step *step = r->step;
  for (int32_t rank = 0; rank < s->ranks; rank++) {
    double bytes;
    for (int32_t a = 0; a < step->n_actions; a++) {
      const bl_span *span = span_of(s, rank, a);
      const bl_action *action = &step->actions[a];
      s->phase_us[action->kind] += (span->end_us - span->ready_us) / s->ranks;
      s->wait_us += (span->start_us - span->ready_us) / s->ranks;
      if (action->resource == BL_RESOURCE_COMPUTE) s->compute_us += (span->end_us - span->start_us) / s->ranks;
      if (span->end_us > s->step_us) s->step_us = span->end_us;
    }
    s->exposed_us += exposed_of(r, rank) / s->ranks;
    BL_TRY(bl_memory_peak(r->costs, step, rank, &bytes));
    if (bytes > s->memory_bytes) s->memory_bytes = bytes;
  }
  return BL_OK;
}

static bl_status run_all(run *r) {
  const size_t ranks = (size_t)r->out->ranks;
  for (int32_t i = 0; i < r->step->n_actions; i++) {
    memset(r->grouped, 0, ranks * sizeof *r->grouped);
    for (int32_t rank = 0; rank < r->out->ranks; rank++) {
      if (r->grouped[rank]) continue;
      const int32_t number = r->step->order[i];
      if (r->step->actions[number].group != BL_GROUP_NONE) {
        BL_TRY(run_group(r, number, rank));
        continue;
      }
      const bl_action *action = &r->step->actions[number];
      bl_span *span = span_of(r->out, rank, number);
      double us;
      BL_TRY(bl_cost_of(r->costs, action, rank, &us));
      span->ready_us = span->start_us = ready(r, rank, action);
      span->end_us = r->free_us[rank][queue_of(r, action)] = span->start_us + us;
    }
  }
  return BL_OK;
}

bl_status bl_simulate(const bl_step *step, const bl_costs *costs, bl_simulation *out) {
  const int32_t ranks = bl_layout_world(costs->layout);
  run r = {.step = step, .costs = costs, .out = out};
  bl_status status = BL_OK;
  memset(out, 0, sizeof *out);
  out->ranks = ranks;
  out->n_actions = step->n_actions;
  const size_t cells = (size_t)ranks * (size_t)step->n_actions;
  BL_TRY_GOTO(status, bl_new(&out->spans, cells, sizeof *out->spans, "a simulation"), done);
  BL_TRY_GOTO(status, bl_new(&r.free_us, (size_t)ranks, sizeof *r.free_us, "a simulation"), done);
  BL_TRY_GOTO(status, bl_new(&r.members, (size_t)ranks, sizeof *r.members, "a simulation"), done);
  BL_TRY_GOTO(status, bl_new(&r.grouped, (size_t)ranks, sizeof *r.grouped, "a simulation"), done);
  BL_TRY_GOTO(status, run_all(&r), done);
  BL_TRY_GOTO(status, sum_up(&r), done);
done:
  free(r.free_us);
  free(r.members);
  free(r.grouped);
  if (status != BL_OK) bl_simulation_free(out);
  return status;
}

void bl_simulation_free(bl_simulation *simulation) {
  free(simulation->spans);
  memset(simulation, 0, sizeof *simulation);
}
