/* reduce_early.c - gradients leave as soon as they are complete. */
#include "base/memory.h"
#include "planner/passes/passes.h"
#include <string.h>

static bool is_reduction(const bl_action *a) {
  return a->part == BL_STEP_END &&
         (a->kind == BL_ACTION_COPY_REDUCE || a->kind == BL_ACTION_EXPERT_REDUCE || a->kind == BL_ACTION_DENSE_REDUCE);
}

/* Behind which position of the order a reduction may go: its last wait's, a moved reduction counting as where it went.
 */
static int32_t earliest(const bl_step *step, const int32_t *behind, const bl_action *a) {
  int32_t at = 0;
  for (int32_t i = 0; i < a->n_waits; i++) {
    const int32_t p = behind[step->waits[a->first_wait + i]];
    if (p > at) at = p;
  }
  return at;
}

bl_status bl_pass_reduce_early(bl_step *step) {
  const size_t n = (size_t)step->n_actions;
  bl_status status = BL_OK;
  int32_t *behind = NULL, *first = NULL, *next = NULL, *order = NULL, written = 0;
  BL_TRY_GOTO(status, bl_new(&behind, n, sizeof *behind, "early reductions"), done);
  BL_TRY_GOTO(status, bl_new(&first, n, sizeof *first, "early reductions"), done);
  BL_TRY_GOTO(status, bl_new(&next, n, sizeof *next, "early reductions"), done);
  BL_TRY_GOTO(status, bl_new(&order, n, sizeof *order, "early reductions"), done);
  for (size_t i = 0; i < n; i++) behind[step->order[i]] = (int32_t)i, first[i] = -1;
  for (size_t i = 0; i < n; i++) {
    const bl_action *a = &step->actions[step->order[i]];
    if (is_reduction(a)) behind[step->order[i]] = earliest(step, behind, a);
  }
  /* Lists of what follows each position; built from the back, so that they come out in the old order. */
  for (size_t i = n; i-- > 0;) {
    const int32_t a = step->order[i];
    if (!is_reduction(&step->actions[a])) continue;
    next[a] = first[behind[a]];
    first[behind[a]] = a;
  }
  for (size_t i = 0; i < n; i++) {
    const int32_t a = step->order[i];
    if (!is_reduction(&step->actions[a])) order[written++] = a;
    for (int32_t moved = first[i]; moved >= 0; moved = next[moved]) order[written++] = moved;
  }
  memcpy(step->order, order, n * sizeof *order);
done:
  free(behind);
  free(first);
  free(next);
  free(order);
  return status;
}
