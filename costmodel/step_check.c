/* step_check.c - proofs about step programs: one rank's order is sound, and all ranks' orders together end. */
#include "base/memory.h"
#include "costmodel/step.h"
#include <stdlib.h>
#include <string.h>

typedef char action_text[BL_ACTION_TEXT_MAX];

static const char *text_of(const bl_action *action, char *text) {
  bl_action_text(action, text);
  return text;
}

/* position[action] = where in the order it is issued. */
static bl_status find_positions(const bl_step *step, int32_t *position) {
  for (int32_t a = 0; a < step->n_actions; a++) position[a] = -1;
  for (int32_t i = 0; i < step->n_actions; i++) {
    const int32_t a = step->order[i];
    action_text text;
    if (a < 0 || a >= step->n_actions)
      return bl_fail(BL_EINPUT, "step program: order[%d] is %d, expected 0..%d", i, a, step->n_actions - 1);
    if (position[a] >= 0)
      return bl_fail(BL_EINPUT, "step program: %s is issued twice", text_of(&step->actions[a], text));
    position[a] = i;
  }
  return BL_OK;
}

static bl_status check_order(const bl_step *step, const int32_t *position) {
  for (int32_t a = 0; a < step->n_actions; a++) {
    const bl_action *action = &step->actions[a];
    for (int32_t i = 0; i < action->n_waits; i++) {
      const int32_t other = step->waits[action->first_wait + i];
      action_text text, text2;
      if (other < 0 || other >= step->n_actions)
        return bl_fail(BL_EINPUT, "step program: %s waits for action %d of %d", text_of(action, text), other,
                       step->n_actions);
      if (position[other] >= position[a])
        return bl_fail(BL_EINPUT, "step program: %s is issued before %s, for which it waits", text_of(action, text),
                       text_of(&step->actions[other], text2));
    }
  }
  return BL_OK;
}

static bl_status check_written_first(const bl_step *step, bool *written) {
  for (int32_t b = 0; b < step->n_buffers; b++) written[b] = bl_buffer_kept[step->buffers[b].kind];
  for (int32_t i = 0; i < step->n_actions; i++) {
    const bl_action *action = &step->actions[step->order[i]];
    const int32_t *uses = step->uses + action->first_use;
    for (int32_t u = 0; u < action->n_reads; u++)
      if (!written[uses[u]]) {
        const bl_buffer *b = &step->buffers[uses[u]];
        action_text text;
        return bl_fail(BL_EINPUT, "step program: %s reads %s (layer %d, micro-batch %d) before anything writes it",
                       text_of(action, text), bl_buffer_names[b->kind], b->layer, b->micro_batch);
      }
    for (int32_t u = action->n_reads; u < action->n_reads + action->n_writes; u++) written[uses[u]] = true;
  }
  return BL_OK;
}

/* Does `from` end before `to` starts, by waits alone? Walks back from `to`; the order is sound, so nothing issued
 * before `from` can lead to it. seen[action] == stamp marks what this walk has met; stack[n_actions]. */
static bool waits_for(const bl_step *step, const int32_t *position, int32_t to, int32_t from, int32_t stamp,
                      int32_t *seen, int32_t *stack) {
  int32_t top = 0;
  stack[top++] = to;
  while (top > 0) {
    const bl_action *action = &step->actions[stack[--top]];
    for (int32_t i = 0; i < action->n_waits; i++) {
      const int32_t other = step->waits[action->first_wait + i];
      if (other == from) return true;
      if (position[other] < position[from] || seen[other] == stamp) continue;
      seen[other] = stamp;
      stack[top++] = other;
    }
  }
  return false;
}

/* Every conflict that the buffers show in the present order is covered by waits. */
static bl_status check_conflicts(const bl_step *step, const int32_t *position) {
  bl_step fresh = *step;
  int32_t *seen = NULL, *stack = NULL;
  bl_status status = BL_OK;
  const size_t n = (size_t)step->n_actions;
  fresh.actions = NULL;
  fresh.waits = NULL;
  fresh.waits_room = 0;
  BL_TRY_GOTO(status, bl_new(&fresh.actions, n, sizeof *fresh.actions, "checking the step program"), done);
  BL_TRY_GOTO(status, bl_new(&seen, n, sizeof *seen, "checking the step program"), done);
  BL_TRY_GOTO(status, bl_new(&stack, n, sizeof *stack, "checking the step program"), done);
  memcpy(fresh.actions, step->actions, n * sizeof *fresh.actions);
  BL_TRY_GOTO(status, bl_step_derive_waits(&fresh), done);
  int32_t stamp = 0;
  for (int32_t a = 0; a < step->n_actions && status == BL_OK; a++)
    for (int32_t i = 0; i < fresh.actions[a].n_waits; i++) {
      const int32_t other = fresh.waits[fresh.actions[a].first_wait + i];
      action_text text, text2;
      if (waits_for(step, position, a, other, ++stamp, seen, stack)) continue;
      status = bl_fail(BL_EINPUT, "step program: %s does not wait for %s, with which it shares a buffer",
                       text_of(&step->actions[a], text), text_of(&step->actions[other], text2));
      break;
    }
done:
  free(fresh.actions);
  free(fresh.waits);
  free(seen);
  free(stack);
  return status;
}

bl_status bl_step_check(const bl_step *step) {
  int32_t *position = NULL;
  bool *written = NULL;
  bl_status status = BL_OK;
  BL_TRY_GOTO(status, bl_new(&position, (size_t)step->n_actions, sizeof *position, "checking the step program"), done);
  BL_TRY_GOTO(status, bl_new(&written, (size_t)step->n_buffers, sizeof *written, "checking the step program"), done);
  BL_TRY_GOTO(status, find_positions(step, position), done);
  BL_TRY_GOTO(status, check_order(step, position), done);
  BL_TRY_GOTO(status, check_written_first(step, written), done);
  BL_TRY_GOTO(status, check_conflicts(step, position), done);
done:
  free(position);
  free(written);
  return status;
}

/* -- all ranks together ----------------------------------------------------------------------------------------------
 */

static bool is_send(bl_action_kind kind) {
  return kind == BL_ACTION_SEND_ACTIVATION || kind == BL_ACTION_SEND_GRADIENT;
}

static bool is_receive(bl_action_kind kind) {
  return kind == BL_ACTION_RECV_ACTIVATION || kind == BL_ACTION_RECV_GRADIENT;
}

/* A call of all ranks of a communicator: sends and receives are between two. */
static bool is_collective(const bl_action *a) {
  return a->group != BL_GROUP_NONE && !is_send(a->kind) && !is_receive(a->kind);
}

/* The next action of a group at or behind position *i of a rank's order, NULL at the end. */
static const bl_action *next_call(const bl_step *step, bl_group_kind group, int32_t *i) {
  for (; *i < step->n_actions; (*i)++) {
    const bl_action *action = &step->actions[step->order[*i]];
    if (action->group == group && is_collective(action)) return &step->actions[step->order[(*i)++]];
  }
  return NULL;
}

/* The next action of a kind at or behind position *i of a rank's order, NULL at the end. */
static const bl_action *next_of_kind(const bl_step *step, bl_action_kind kind, int32_t *i) {
  for (; *i < step->n_actions; (*i)++)
    if (step->actions[step->order[*i]].kind == kind) return &step->actions[step->order[(*i)++]];
  return NULL;
}

static bool same_call(const bl_action *a, const bl_action *b) {
  return a->kind == b->kind && a->layer == b->layer && a->micro_batch == b->micro_batch && a->piece == b->piece &&
         a->pieces == b->pieces;
}

static bl_status check_same_calls(const bl_step *const *rank_step, bl_group_kind group, int32_t rank, int32_t other) {
  const bl_step *a = rank_step[rank], *b = rank_step[other];
  if (a == b) return BL_OK;
  for (int32_t i = 0, j = 0;;) {
    const bl_action *x = next_call(a, group, &i), *y = next_call(b, group, &j);
    action_text text = "nothing more", text2 = "nothing more";
    if (!x && !y) return BL_OK;
    if (x && y && same_call(x, y)) continue;
    if (x) bl_action_text(x, text);
    if (y) bl_action_text(y, text2);
    return bl_fail(BL_EINPUT, "step programs: in their group %s rank %d issues %s where rank %d issues %s",
                   bl_group_names[group], rank, text, other, text2);
  }
}

/* The receives of `rank` are its neighbour's sends, in the same order. */
static bl_status check_transfers(const bl_step *const *rank_step, const bl_layout *layout, int32_t rank, bool down) {
  const int32_t width = layout->tp * layout->cp * layout->dp, position = rank / width;
  const int32_t from = (position + (down ? layout->pp - 1 : 1)) % layout->pp;
  const int32_t other = rank + (from - position) * width;
  const bl_action_kind receive = down ? BL_ACTION_RECV_ACTIVATION : BL_ACTION_RECV_GRADIENT;
  const bl_action_kind send = down ? BL_ACTION_SEND_ACTIVATION : BL_ACTION_SEND_GRADIENT;
  for (int32_t i = 0, j = 0;;) {
    const bl_action *x = next_of_kind(rank_step[rank], receive, &i), *y = next_of_kind(rank_step[other], send, &j);
    action_text text = "nothing more", text2 = "nothing more";
    if (!x && !y) return BL_OK;
    if (x && y && x->layer == y->layer && x->micro_batch == y->micro_batch && x->peer_stage == from &&
        y->peer_stage == position)
      continue;
    if (x) bl_action_text(x, text);
    if (y) bl_action_text(y, text2);
    return bl_fail(BL_EINPUT, "step programs: rank %d expects %s from rank %d, which issues %s", rank, text, other,
                   text2);
  }
}

/* A run of all ranks in which each resource (or, with one queue, each rank) takes its actions in issue order. */
typedef struct joint_run {
  const bl_step *const *rank_step;
  const bl_layout *layout;
  bool one_queue;
  int32_t world;
  bool **done;                           /* [rank][action] */
  int32_t (*next)[BL_RESOURCE_COUNT];    /* [rank][queue]: position in the rank's order */
  int32_t (*arrived)[BL_RESOURCE_COUNT]; /* [rank][queue]: the call at which it stands, -1; a group has a communicator
                                            for each resource, so calls on two do not get in each other's way */
  int32_t *members;                      /* [world] */
} joint_run;

/* The action at the front of a queue, -1 when the queue is empty. */
static int32_t front(joint_run *run, int32_t rank, int32_t queue) {
  const bl_step *step = run->rank_step[rank];
  int32_t *i = &run->next[rank][queue];
  for (; *i < step->n_actions; (*i)++) {
    const int32_t a = step->order[*i];
    if (run->done[rank][a]) continue;
    if (run->one_queue || (int32_t)step->actions[a].resource == queue) return a;
  }
  return -1;
}

static bool is_ready(const joint_run *run, int32_t rank, const bl_action *action) {
  const int32_t *waits = run->rank_step[rank]->waits + action->first_wait;
  for (int32_t i = 0; i < action->n_waits; i++)
    if (!run->done[rank][waits[i]]) return false;
  return true;
}

/* Runs a group's call when all its ranks have arrived at it. */
static void finish_call(joint_run *run, int32_t rank, int32_t queue) {
  const bl_action *call = &run->rank_step[rank]->actions[run->arrived[rank][queue]];
  const int32_t size = bl_group_size(run->layout, call->group);
  bl_group_members(run->layout, call->group, rank, run->members);
  for (int32_t i = 0; i < size; i++) {
    const int32_t r = run->members[i], at = run->arrived[r][queue];
    if (at < 0 || !same_call(call, &run->rank_step[r]->actions[at])) return;
  }
  for (int32_t i = 0; i < size; i++) {
    int32_t *at = &run->arrived[run->members[i]][queue];
    run->done[run->members[i]][*at] = true;
    *at = -1;
  }
}

/* Ends a receive and the send that it meets, each at the front of its queue: neither is buffered. */
static void finish_transfer(joint_run *run, int32_t rank, int32_t a) {
  const bl_layout *l = run->layout;
  const bl_action *here = &run->rank_step[rank]->actions[a];
  const int32_t width = l->tp * l->cp * l->dp, other = rank + (here->peer_stage - rank / width) * width;
  const bl_resource queue = here->kind == BL_ACTION_SEND_ACTIVATION   ? BL_RESOURCE_RECV_DOWN
                            : here->kind == BL_ACTION_RECV_ACTIVATION ? BL_RESOURCE_SEND_DOWN
                            : here->kind == BL_ACTION_SEND_GRADIENT   ? BL_RESOURCE_RECV_UP
                                                                      : BL_RESOURCE_SEND_UP;
  const int32_t b = front(run, other, run->one_queue ? 0 : (int32_t)queue);
  if (b < 0) return;
  const bl_action *there = &run->rank_step[other]->actions[b];
  const bool meet = is_send(here->kind) != is_send(there->kind) && there->peer_stage == rank / width &&
                    here->layer == there->layer && here->micro_batch == there->micro_batch &&
                    (here->kind == BL_ACTION_SEND_ACTIVATION || here->kind == BL_ACTION_RECV_ACTIVATION) ==
                        (there->kind == BL_ACTION_SEND_ACTIVATION || there->kind == BL_ACTION_RECV_ACTIVATION);
  if (meet && is_ready(run, other, there)) run->done[rank][a] = run->done[other][b] = true;
}

/* One attempt at the front of a queue.  @return : whether anything changed. */
static bool advance(joint_run *run, int32_t rank, int32_t queue) {
  const int32_t a = front(run, rank, queue);
  if (a < 0) return false;
  const bl_action *action = &run->rank_step[rank]->actions[a];
  if (!is_ready(run, rank, action)) return false;
  if (action->group == BL_GROUP_NONE) return run->done[rank][a] = true;
  if (!is_collective(action)) {
    finish_transfer(run, rank, a);
    return run->done[rank][a];
  }
  if (run->arrived[rank][queue] >= 0) return false;
  run->arrived[rank][queue] = a;
  finish_call(run, rank, queue);
  return true;
}

static bl_status name_the_blocked(joint_run *run) {
  for (int32_t rank = 0; rank < run->world; rank++)
    for (int32_t q = 0; q < BL_RESOURCE_COUNT; q++) {
      const int32_t a = front(run, rank, q);
      action_text text, text2;
      if (a < 0) continue;
      const bl_action *action = &run->rank_step[rank]->actions[a];
      if (!is_collective(action) || run->arrived[rank][q] != a) continue;
      const int32_t size = bl_group_size(run->layout, action->group);
      bl_group_members(run->layout, action->group, rank, run->members);
      for (int32_t i = 0; i < size; i++) {
        const int32_t other = run->members[i], at = front(run, other, q);
        if (at < 0 || same_call(action, &run->rank_step[other]->actions[at])) continue;
        return bl_fail(BL_EINPUT, "step programs: no rank can go on: rank %d is at %s (group %s), rank %d at %s", rank,
                       text_of(action, text), bl_group_names[action->group], other,
                       text_of(&run->rank_step[other]->actions[at], text2));
      }
    }
  return bl_fail(BL_EINPUT, "step programs: no rank can go on");
}

static bl_status run_to_the_end(joint_run *run) {
  const int32_t queues = run->one_queue ? 1 : BL_RESOURCE_COUNT;
  for (bool changed = true; changed;) {
    changed = false;
    for (int32_t rank = 0; rank < run->world; rank++)
      for (int32_t q = 0; q < queues; q++)
        while (advance(run, rank, q)) changed = true;
  }
  for (int32_t rank = 0; rank < run->world; rank++)
    for (int32_t q = 0; q < queues; q++)
      if (front(run, rank, q) >= 0) return name_the_blocked(run);
  return BL_OK;
}

static bl_status check_groups(const joint_run *run) {
  for (int g = BL_GROUP_NONE + 1; g < BL_GROUP_COUNT; g++)
    for (int32_t rank = 0; rank < run->world; rank++) {
      if (!bl_group_has(run->layout, (bl_group_kind)g, rank)) continue;
      bl_group_members(run->layout, (bl_group_kind)g, rank, run->members);
      BL_TRY(check_same_calls(run->rank_step, (bl_group_kind)g, run->members[0], rank));
    }
  for (int32_t rank = 0; rank < run->world; rank++) {
    BL_TRY(check_transfers(run->rank_step, run->layout, rank, true));
    BL_TRY(check_transfers(run->rank_step, run->layout, rank, false));
  }
  return BL_OK;
}

bl_status bl_steps_check(const bl_step *const *rank_step, const bl_layout *layout, bool one_queue) {
  joint_run run = {.rank_step = rank_step, .layout = layout, .one_queue = one_queue, .world = bl_layout_world(layout)};
  const size_t world = (size_t)run.world;
  bl_status status = BL_OK;
  BL_TRY_GOTO(status, bl_new(&run.members, world, sizeof *run.members, "checking the step programs"), done);
  BL_TRY_GOTO(status, bl_new(&run.next, world, sizeof *run.next, "checking the step programs"), done);
  BL_TRY_GOTO(status, bl_new(&run.arrived, world, sizeof *run.arrived, "checking the step programs"), done);
  BL_TRY_GOTO(status, bl_new(&run.done, world, sizeof *run.done, "checking the step programs"), done);
  for (size_t r = 0; r < world; r++)
    for (int q = 0; q < BL_RESOURCE_COUNT; q++) run.arrived[r][q] = -1;
  for (size_t r = 0; r < world; r++)
    BL_TRY_GOTO(status, bl_new(&run.done[r], (size_t)rank_step[r]->n_actions, 1, "checking the step programs"), done);
  BL_TRY_GOTO(status, check_groups(&run), done);
  BL_TRY_GOTO(status, run_to_the_end(&run), done);
done:
  for (size_t r = 0; run.done && r < world; r++) free(run.done[r]);
  free(run.done);
  free(run.arrived);
  free(run.next);
  free(run.members);
  return status;
}
