/* simulate_pipeline.c - list scheduling of all positions of a pipeline, each in its issue order. */
#include "costmodel/simulate_pipeline.h"
#include "base/memory.h"
#include <string.h>

bl_item bl_work_row(const bl_model *model, const bl_step *step, const bl_action *action) {
  const bl_item experts = model->experts > 0 ? BL_ITEM_MOE : BL_ITEM_DENSE;
  if (action->layer < 0) return step->stage == 0 ? BL_ITEM_EMBED : BL_ITEM_HEAD;
  return action->layer < model->layers ? bl_item_of_layer(model, action->layer) : experts;
}

/* One position as far as it has come. */
typedef struct position {
  const bl_step *step;
  bl_span *spans;
  int32_t next; /* in the order */
  double free_us[BL_RESOURCE_COUNT];
  double owed_us;                   /* to links, by the compute stream */
  double *sent_us[2];               /* when the activations, gradients sent so far arrive, in order */
  int32_t n_sent[2], n_received[2]; /* down, up */
  const bl_action *met;             /* the call of several positions at which it stands, or NULL */
} position;

typedef struct run {
  const bl_model *model;
  const bl_work *const *work; /* [n] */
  position *p;
  int32_t n;
} run;

static double ready(const position *p, const bl_action *a) {
  double at = p->free_us[a->resource];
  const int32_t *waits = p->step->waits + a->first_wait;
  for (int32_t i = 0; i < a->n_waits; i++)
    if (p->spans[waits[i]].end_us > at) at = p->spans[waits[i]].end_us;
  return at;
}

static void finish(position *p, int32_t number, double ready_us, double start_us, double us) {
  const bl_action *a = &p->step->actions[number];
  p->spans[number] = (bl_span){ready_us, start_us, start_us + us};
  p->free_us[a->resource] = start_us + us;
  p->next++;
}

/* Compute pays what links have taken from it since. */
static double price(const run *r, position *p, const bl_action *a) {
  const bl_work *work = r->work[p - r->p];
  double us = work->us[bl_work_row(r->model, p->step, a)][a->kind];
  if (a->group != BL_GROUP_NONE && a->resource != BL_RESOURCE_COMPUTE) p->owed_us += work->stolen * us;
  if (a->resource == BL_RESOURCE_COMPUTE) us += p->owed_us, p->owed_us = 0;
  return us;
}

/* Do all positions that the call joins stand at it? Then it ends for them together. */
static void meet(run *r, const bl_action *call) {
  double start = 0, longest = 0;
  for (int32_t i = 0; i < r->n; i++) {
    position *p = &r->p[i];
    if (call->group == BL_GROUP_ENDS && i > 0 && i < r->n - 1) continue;
    if (!p->met || p->met->kind != call->kind) return;
    const double at = ready(p, p->met), us = r->work[i]->us[bl_work_row(r->model, p->step, p->met)][call->kind];
    if (at > start) start = at;
    if (us > longest) longest = us;
  }
  for (int32_t i = 0; i < r->n; i++) {
    position *p = &r->p[i];
    if (call->group == BL_GROUP_ENDS && i > 0 && i < r->n - 1) continue;
    finish(p, p->step->order[p->next], ready(p, p->met), start, longest);
    p->met = NULL;
  }
}

/* The next action of a position.  @return : whether it has come further. */
static bool advance(run *r, int32_t i) {
  position *p = &r->p[i];
  if (p->next == p->step->n_actions || p->met) return false;
  const int32_t number = p->step->order[p->next];
  const bl_action *a = &p->step->actions[number];
  const double at = ready(p, a);
  if (r->n > 1 && (a->group == BL_GROUP_WORLD || a->group == BL_GROUP_ENDS)) {
    p->met = a;
    meet(r, a);
    return !p->met;
  }
  const int up = a->kind == BL_ACTION_SEND_GRADIENT || a->kind == BL_ACTION_RECV_GRADIENT;
  if (a->kind == BL_ACTION_RECV_ACTIVATION || a->kind == BL_ACTION_RECV_GRADIENT) {
    const position *from = &r->p[a->peer_stage];
    if (p->n_received[up] == from->n_sent[up]) return false;
    const double arrives = from->sent_us[up][p->n_received[up]++];
    finish(p, number, at, arrives > at ? arrives : at, 0);
    return true;
  }
  finish(p, number, at, at, price(r, p, a));
  if (a->kind == BL_ACTION_SEND_ACTIVATION || a->kind == BL_ACTION_SEND_GRADIENT)
    p->sent_us[up][p->n_sent[up]++] = p->spans[number].end_us;
  return true;
}

static bl_status run_all(run *r) {
  for (bool changed = true; changed;) {
    changed = false;
    for (int32_t i = 0; i < r->n; i++)
      while (advance(r, i)) changed = true;
  }
  for (int32_t i = 0; i < r->n; i++)
    if (r->p[i].next < r->p[i].step->n_actions) {
      char text[BL_ACTION_TEXT_MAX];
      bl_action_text(&r->p[i].step->actions[r->p[i].step->order[r->p[i].next]], text);
      return bl_fail(BL_EINPUT, "step programs: pipeline position %d cannot go on at %s", i, text);
    }
  return BL_OK;
}

bl_status bl_simulate_pipeline(const bl_step *step, const bl_model *model, const bl_work *const *work,
                               bl_pipeline_simulation *out) {
  run r = {.model = model, .work = work, .n = step[0].pp};
  bl_status status = BL_OK;
  const size_t sends = (size_t)step[0].micro_batches * (size_t)step[0].vp;
  *out = (bl_pipeline_simulation){.positions = r.n};
  BL_TRY_GOTO(status, bl_new(&r.p, (size_t)r.n, sizeof *r.p, "a simulation"), done);
  BL_TRY_GOTO(status, bl_new(&out->spans, (size_t)r.n, sizeof *out->spans, "a simulation"), done);
  for (int32_t i = 0; i < r.n; i++) {
    position *p = &r.p[i];
    p->step = &step[i];
    BL_TRY_GOTO(status, bl_new(&out->spans[i], (size_t)step[i].n_actions, sizeof **out->spans, "a simulation"), done);
    p->spans = out->spans[i];
    for (int up = 0; up < 2; up++)
      BL_TRY_GOTO(status, bl_new(&p->sent_us[up], sends, sizeof **p->sent_us, "a simulation"), done);
  }
  BL_TRY_GOTO(status, run_all(&r), done);
  for (int32_t i = 0; i < r.n; i++)
    for (int k = 0; k < BL_RESOURCE_COUNT; k++)
      if (r.p[i].free_us[k] > out->step_us) out->step_us = r.p[i].free_us[k];
done:
  for (int32_t i = 0; r.p && i < r.n; i++) free(r.p[i].sent_us[0]), free(r.p[i].sent_us[1]);
  free(r.p);
  if (status != BL_OK) bl_pipeline_simulation_free(out);
  return status;
}

void bl_pipeline_simulation_free(bl_pipeline_simulation *s) {
  for (int32_t i = 0; s->spans && i < s->positions; i++) free(s->spans[i]);
  free(s->spans);
  memset(s, 0, sizeof *s);
}
