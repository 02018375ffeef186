/* pipeline.c - the order of forward and backward blocks at a pipeline position. */
#include "base/memory.h"
#include "planner/passes/passes.h"
#include <string.h>

typedef struct block {
  int32_t first, n; /* of its actions, in the sorted list */
} block;

/* Actions sorted by block, in the order in which they were. */
typedef struct blocks {
  const bl_step *step;
  int32_t per_part; /* blocks of one direction: vp x micro-batches */
  block *block;     /* [2 + 2 per_part]: begin, forward by (micro-batch, chunk), backward likewise, end */
  int32_t *action;  /* [n_actions] */
} blocks;

static int32_t block_of(const blocks *b, const bl_action *a) {
  switch (a->part) {
  case BL_STEP_BEGIN:
    return 0;
  case BL_STEP_END:
    return 1 + 2 * b->per_part;
  case BL_STEP_FORWARD:
  case BL_STEP_BACKWARD:
    break;
  }
  /* What is done once a step lies with the first micro-batch. */
  const int32_t m = a->micro_batch < 0 ? 0 : a->micro_batch;
  return 1 + (a->part == BL_STEP_BACKWARD) * b->per_part + m * b->step->vp + a->chunk;
}

static bl_status sort(blocks *b) {
  const bl_step *step = b->step;
  const int32_t n = 2 + 2 * b->per_part;
  BL_TRY(bl_new(&b->block, (size_t)n, sizeof *b->block, "a pipeline's order"));
  BL_TRY(bl_new(&b->action, (size_t)step->n_actions, sizeof *b->action, "a pipeline's order"));
  for (int32_t i = 0; i < step->n_actions; i++) b->block[block_of(b, &step->actions[i])].n++;
  for (int32_t k = 1; k < n; k++) b->block[k].first = b->block[k - 1].first + b->block[k - 1].n;
  for (int32_t k = 0; k < n; k++) b->block[k].n = 0;
  for (int32_t i = 0; i < step->n_actions; i++) {
    block *k = &b->block[block_of(b, &step->actions[step->order[i]])];
    b->action[k->first + k->n++] = step->order[i];
  }
  return BL_OK;
}

/* The i-th block of a direction: groups of pp micro-batches, chunk after chunk, backward from the last. */
static const block *nth(const blocks *b, bool backward, int32_t i) {
  const bl_step *s = b->step;
  const int32_t group = s->vp > 1 ? s->pp : 1, round = group * s->vp;
  const int32_t chunk = i % round / group, m = i / round * group + i % group;
  return &b->block[1 + backward * b->per_part + m * s->vp + (backward ? s->vp - 1 - chunk : chunk)];
}

static void issue(const blocks *b, const block *k, int32_t *order, int32_t *n) {
  for (int32_t i = 0; i < k->n; i++) order[(*n)++] = b->action[k->first + i];
}

static bool is_exchange(const bl_step *step, int32_t action) {
  return bl_action_amounts[step->actions[action].kind] == BL_AMOUNT_EXCHANGE_ROWS;
}

/* Two blocks in turn, each up to and with its next exchange. */
static void issue_beside(const blocks *b, const block *x, const block *y, int32_t *order, int32_t *n) {
  const block *both[2] = {x, y};
  int32_t at[2] = {0, 0};
  for (int turn = 0; at[0] < x->n || at[1] < y->n; turn = 1 - turn)
    while (at[turn] < both[turn]->n) {
      const int32_t action = b->action[both[turn]->first + at[turn]++];
      order[(*n)++] = action;
      if (is_exchange(b->step, action)) break;
    }
}

bl_status bl_pass_pipeline(bl_step *step, bool beside) {
  const int32_t total = step->vp * step->micro_batches, behind = step->pp - 1 - step->stage;
  blocks b = {.step = step, .per_part = total};
  bl_status status = BL_OK;
  int32_t *order = NULL, n = 0;
  const bool pair = beside && step->vp > 1;
  if (step->pp == 1) return BL_OK;
  if (step->vp > 1 && step->micro_batches % step->pp != 0)
    return bl_fail(BL_EINPUT, "%d stages a position interleave only where pp divides the micro-batches: %d, %d",
                   step->vp, step->pp, step->micro_batches);
  int32_t warm_up = step->vp > 1 ? 2 * behind + (step->vp - 1) * step->pp : behind;
  if (pair) warm_up++;
  if (warm_up > total) warm_up = total;
  BL_TRY_GOTO(status, sort(&b), done);
  BL_TRY_GOTO(status, bl_new(&order, (size_t)step->n_actions, sizeof *order, "a pipeline's order"), done);
  issue(&b, &b.block[0], order, &n);
  for (int32_t i = 0; i < warm_up; i++) issue(&b, nth(&b, false, i), order, &n);
  for (int32_t i = 0; i < total - warm_up; i++) {
    const block *forward = nth(&b, false, warm_up + i), *backward = nth(&b, true, i);
    if (pair) {
      issue_beside(&b, forward, backward, order, &n);
    } else {
      issue(&b, forward, order, &n);
      issue(&b, backward, order, &n);
    }
  }
  for (int32_t i = total - warm_up; i < total; i++) issue(&b, nth(&b, true, i), order, &n);
  issue(&b, &b.block[1 + 2 * total], order, &n);
  memcpy(step->order, order, (size_t)n * sizeof *order);
done:
  free(order);
  free(b.block);
  free(b.action);
  return status;
}
