/* pieces.c - rows of a MoE layer in pieces, so that some travel while experts work on others (FasterMoE, PPoPP 2022,
 * section 4.3; Lancet, MLSys 2024, section 4). */
#include "planner/passes/passes.h"
#include <string.h>

/* Copies an action into another program as piece `piece` of `pieces`. */
static bl_status copy(bl_step *to, const bl_step *from, int32_t number, int32_t piece, int32_t pieces) {
  const bl_action *a = &from->actions[number];
  const int32_t *uses = from->uses + a->first_use;
  to->part = a->part;
  to->chunk = a->chunk;
  BL_TRY(bl_step_add(to, a->kind, a->layer, a->micro_batch));
  bl_action *added = &to->actions[to->n_actions - 1];
  added->piece = piece;
  added->pieces = pieces;
  added->peer_stage = a->peer_stage;
  for (int32_t u = 0; u < a->n_reads + a->n_writes; u++) {
    const bl_buffer *b = &from->buffers[uses[u]];
    BL_TRY((u < a->n_reads ? bl_step_reads : bl_step_writes)(to, b->kind, b->layer, b->micro_batch));
  }
  return BL_OK;
}

/* Actions whose pieces follow one another at once. */
static bool splits_alone(bl_action_kind kind) {
  return kind == BL_ACTION_DISPATCH || kind == BL_ACTION_COMBINE_BWD || kind == BL_ACTION_EXPERT_DW;
}

/* Experts' work on a piece, from its rows to its exchange. */
static bool begins_run(bl_action_kind kind) {
  return kind == BL_ACTION_ROWS_GATHER || kind == BL_ACTION_EXPERT_FWD || kind == BL_ACTION_EXPERT_DX;
}

static bool ends_run(bl_action_kind kind) { return kind == BL_ACTION_COMBINE || kind == BL_ACTION_DISPATCH_BWD; }

static bl_status rewrite(bl_step *to, const bl_step *from, int32_t pieces) {
  for (int32_t i = 0; i < from->n_actions; i++) {
    const bl_action_kind kind = from->actions[from->order[i]].kind;
    int32_t end = i + 1;
    if (begins_run(kind))
      while (!ends_run(from->actions[from->order[end - 1]].kind)) end++;
    const int32_t n = splits_alone(kind) || end > i + 1 ? pieces : 1;
    for (int32_t p = 0; p < n; p++)
      for (int32_t k = i; k < end; k++) BL_TRY(copy(to, from, from->order[k], p, n));
    i = end - 1;
  }
  return bl_step_derive_waits(to);
}

bl_status bl_pass_pieces(bl_step *step, int32_t pieces) {
  bl_step to = *step;
  if (pieces < 2) return BL_OK;
  to.actions = NULL, to.order = NULL, to.buffers = NULL, to.uses = NULL, to.waits = NULL, to.table = NULL;
  to.n_actions = to.n_buffers = to.n_uses = to.n_waits = 0;
  to.actions_room = to.order_room = to.buffers_room = to.uses_room = to.waits_room = to.table_size = 0;
  const bl_status status = rewrite(&to, step, pieces);
  bl_step_free(status == BL_OK ? step : &to);
  if (status == BL_OK) *step = to;
  return status;
}
