/* interpret.c - runs one training step as the step program says: its actions, in its order, never another. */
#include "executor/rank.h"
#include <string.h>

static bl_status run_action(bl_rank *r, const bl_action *action) {
  const int32_t l = action->layer, m = action->micro_batch;
  if (action->pieces > 1)
    return bl_fail(BL_ENOTSUP, "the executor does not run %s in %d pieces", bl_action_names[action->kind],
                   action->pieces);
  switch (action->kind) {
  case BL_ACTION_CHOOSE_HOSTS:
    return bl_do_choose_hosts(r);
  case BL_ACTION_MOVE_HOME:
    return bl_do_move_home(r, l);
  case BL_ACTION_COPY_FILL:
    return bl_do_copy_fill(r, l);
  case BL_ACTION_ZERO_GRADS:
    bl_weights_zero_grads(&r->weights, r->s, BL_ALL_LAYERS);
    return BL_OK;
  case BL_ACTION_EMBED_FWD:
    return bl_do_embed_fwd(r, m);
  case BL_ACTION_ATTENTION_FWD:
    return bl_do_attention_fwd(r, l, m);
  case BL_ACTION_FFN_FWD:
    return bl_do_ffn_fwd(r, l, m);
  case BL_ACTION_GATE_FWD:
    return bl_do_gate_fwd(r, l, m);
  case BL_ACTION_EXCHANGE_COUNTS:
    return bl_do_exchange_counts(r, l, m);
  case BL_ACTION_SOLVE_SHARES:
    return bl_do_solve_shares(r, l, m);
  case BL_ACTION_LATE_FILL:
    return bl_do_late_fill(r, l, m);
  case BL_ACTION_SCATTER:
    return bl_do_scatter(r, l, m);
  case BL_ACTION_DISPATCH:
    return bl_do_dispatch(r, l, m);
  case BL_ACTION_EXPERT_FWD:
    return bl_do_expert_fwd(r, l, m);
  case BL_ACTION_COMBINE:
    return bl_do_combine(r, l, m);
  case BL_ACTION_GATHER:
    return bl_do_gather(r, l, m);
  case BL_ACTION_HEAD:
    return bl_do_head(r, m);
  case BL_ACTION_GATHER_BWD:
    return bl_do_gather_bwd(r, l, m);
  case BL_ACTION_COMBINE_BWD:
    return bl_do_combine_bwd(r, l, m);
  case BL_ACTION_EXPERT_DX:
    return bl_do_expert_dx(r, l, m);
  case BL_ACTION_DISPATCH_BWD:
    return bl_do_dispatch_bwd(r, l, m);
  case BL_ACTION_EXPERT_DW:
    return bl_do_expert_dw(r, l, m);
  case BL_ACTION_SCATTER_BWD:
    return bl_do_scatter_bwd(r, l, m);
  case BL_ACTION_GATE_BWD:
    return bl_do_gate_bwd(r, l, m);
  case BL_ACTION_FFN_BWD:
    return bl_do_ffn_bwd(r, l, m);
  case BL_ACTION_ATTENTION_BWD:
    return bl_do_attention_bwd(r, l, m);
  case BL_ACTION_EMBED_BWD:
    return bl_do_embed_bwd(r, m);
  case BL_ACTION_COPY_REDUCE:
    return bl_do_copy_reduce(r, l);
  case BL_ACTION_EXPERT_REDUCE:
    return bl_do_expert_reduce(r, l);
  case BL_ACTION_DENSE_REDUCE:
    return bl_do_dense_reduce(r, l);
  case BL_ACTION_SQUARE_GRADS:
    return bl_do_square_grads(r, l);
  case BL_ACTION_GRAD_NORM:
    return bl_do_grad_norm(r);
  case BL_ACTION_OPTIMIZER:
    return bl_do_optimizer(r, l);
  default:
    return bl_fail(BL_ENOTSUP, "the executor does not run the action %s", bl_action_names[action->kind]);
  }
}

/* This rank's tokens and targets of every micro-batch: sequences of a micro-batch go to ranks in order. */
static void load_tokens(bl_rank *r) {
  const bl_run *run = r->run;
  const int32_t seq = run->model->sequence;
  const size_t bytes = (size_t)r->tokens * sizeof(int32_t);
  for (int32_t m = 0; m < run->micro_batches; m++) {
    const int64_t first = ((int64_t)m * run->ranks + r->rank) * run->sequences;
    int32_t *tokens = r->host_tokens + (int64_t)m * r->tokens, *targets = r->host_targets + (int64_t)m * r->tokens;
    for (int32_t q = 0; q < run->sequences; q++)
      bl_corpus_sequence(run->corpus, run->seed, r->step, first + q, seq, tokens + q * seq, targets + q * seq);
    r->be->to_device(r->s, r->token_ids[m].data, tokens, bytes);
    r->be->to_device(r->s, r->target_ids[m].data, targets, bytes);
  }
}

static void clear_result(bl_rank *r) {
  bl_layer_result *layer = r->result.layer;
  r->result = (bl_step_result){.layer = layer};
  memset(layer, 0, (size_t)r->weights.moe_layers * sizeof *layer);
}

/* What runs beside the step's own stream begins when that stream has come to this place. */
static bl_status run_and_time(bl_rank *r, int32_t number) {
  const bl_action *action = &r->run->program->actions[number];
  bl_stream *s = bl_spans_aside(r->be, action->kind) ? r->beside : r->s;
  if (s != r->s) {
    r->be->event_record(r->forked, r->s);
    r->be->event_wait(s, r->forked);
  }
  bl_spans_begin(&r->spans, number, s);
  BL_TRY(run_action(r, action));
  bl_spans_end(&r->spans, number, s);
  return BL_OK;
}

static void sum_phases(bl_rank *r) {
  bl_spans_read(&r->spans);
  for (int32_t i = 0; i < r->spans.n; i++)
    r->result.phase_us[r->run->program->actions[i].kind] += r->spans.span[i].end_us - r->spans.span[i].start_us;
}

/* What the program does before anything is computed, and which is done once a step. */
static bool is_adaptation(bl_action_kind kind) {
  return kind == BL_ACTION_CHOOSE_HOSTS || kind == BL_ACTION_MOVE_HOME || kind == BL_ACTION_COPY_FILL;
}

/* The actions from order[first] on; `again`: all that may be done twice. */
static bl_status walk(bl_rank *r, int32_t first, bool again) {
  const bl_step *program = r->run->program;
  for (int32_t i = first; i < program->n_actions; i++)
    if (!again || !is_adaptation(program->actions[program->order[i]].kind)) BL_TRY(run_and_time(r, program->order[i]));
  return BL_OK;
}

/* What the host must know at a step's end. */
static bl_status wait_for_end(bl_rank *r) {
  const size_t sums = ((size_t)r->n_sums + BL_SUM_MARKS) * (size_t)r->run->ranks * sizeof(double);
  BL_TRY(bl_comm_wait(r->comm, r->beside));
  BL_TRY(bl_comm_wait(r->comm, r->s)); /* a copy to the host would wait by itself, and for ever for a lost rank */
  r->be->to_host(r->s, r->host_sums, r->all_sums, sums);
  if (r->planned_now) bl_planned_fetch(r);
  BL_TRY(bl_comm_wait(r->comm, r->s));
  sum_phases(r);
  return BL_OK;
}

static bool can_capture(const bl_rank *r) {
  return r->run->graphs && r->be->capture_begin && bl_comm_captured(r->comm);
}

static void launch(bl_rank *r) {
  r->be->graph_launch(r->s, r->graph);
  r->result.replayed = true;
}

/* *captured = false where some rank could not keep it: nothing has been done then, and no rank has a graph. */
static bl_status capture(bl_rank *r, int32_t first, bool *captured) {
  uint64_t kept;
  const int64_t fill_bytes = r->result.fill_bytes;
  r->be->graph_destroy(r->graph);
  r->graph = NULL;
  BL_TRY(r->be->capture_begin(r->s));
  r->be->event_record(r->forked, r->s); /* what runs beside is part of it, to its end */
  r->be->event_wait(r->beside, r->forked);
  bl_status status = walk(r, first, false);
  r->be->event_record(r->forked, r->beside);
  r->be->event_wait(r->s, r->forked);
  BL_KEEP_FIRST(status, r->be->capture_end(r->s, &r->graph));
  BL_TRY(status);
  BL_TRY(bl_planned_agree(r, r->graph != NULL, &kept));
  *captured = kept;
  r->graph_version = r->planned->version;
  r->graph_fill_bytes = r->result.fill_bytes - fill_bytes;
  if (*captured) {
    bl_spans_keep(&r->spans);
    return BL_OK;
  }
  r->be->graph_destroy(r->graph);
  r->graph = NULL;
  r->result.fill_bytes = fill_bytes;
  return BL_OK;
}

/* What every rank must have, for a graph with messages to be captured or launched by all of them or by none. */
enum { AS_BEFORE = 1, HAS_GRAPH = 2 };

/* A planned step issues the same work each time as long as hosts and sizes stay: the second of the kind captures it, later
 * ones launch it. */
static bl_status walk_planned(bl_rank *r, int32_t first) {
  const uint64_t version = r->planned->version;
  const bool has_graph = r->graph && r->graph_version == version && r->be->graph_holds(r->graph);
  uint64_t can = (r->planned_version == version ? AS_BEFORE : 0) | (has_graph ? HAS_GRAPH : 0);
  r->planned_version = version;
  BL_TRY(bl_planned_agree(r, can, &can));
  if (!can_capture(r) || !(can & AS_BEFORE)) return walk(r, first, false);
  if (can & HAS_GRAPH) {
    bl_spans_replay(&r->spans);
    r->result.fill_bytes += r->graph_fill_bytes;
    launch(r);
    return BL_OK;
  }
  bool captured;
  BL_TRY(capture(r, first, &captured));
  if (!captured) return walk(r, first, false);
  launch(r);
  return BL_OK;
}

/* Hosts are chosen and homes have moved: the rest of the step, with exchanges planned on the device where that can be. */
static bl_status compute(bl_rank *r, int32_t first) {
  r->planned_now = false;
  if (r->planned) BL_TRY(bl_planned_begin(r, &r->planned_now));
  bl_rank_begin_update(r);
  if (r->planned_now) bl_rank_note_stop(r);
  BL_TRY(r->planned_now ? walk_planned(r, first) : walk(r, first, false));
  BL_TRY(wait_for_end(r));
  if (!r->planned_now) return BL_OK;
  if (!bl_planned_overflowed(r)) return bl_planned_finish(r);
  r->planned_now = false;
  r->result.redone = true;
  bl_planned_widen(r);
  bl_rank_begin_update(r);
  bl_spans_start(&r->spans, r->s);
  BL_TRY(walk(r, first, true));
  return wait_for_end(r);
}

bl_status bl_rank_step(bl_rank *r) {
  const bl_step *program = r->run->program;
  clear_result(r);
  r->step++;
  load_tokens(r);
  bl_spans_start(&r->spans, r->s);
  int32_t first = 0; /* behind what moves experts: that is done once, and by the host */
  for (; first < program->n_actions; first++) {
    const bl_action_kind kind = program->actions[program->order[first]].kind;
    if (kind != BL_ACTION_CHOOSE_HOSTS && kind != BL_ACTION_MOVE_HOME) break;
    BL_TRY(run_and_time(r, program->order[first]));
  }
  BL_TRY(compute(r, first));
  if (r->planned) r->planned->counts_known = true;
  BL_TRY(bl_rank_read_sums(r));
  BL_TRY(bl_policy_end_step(r->policy));
  for (int32_t l = 0; l < r->weights.moe_layers; l++)
    r->result.layer[l].copies = bl_policy_report(r->policy, l)->copies;
  r->result.plan_version = r->plan_version;
  return BL_OK;
}
