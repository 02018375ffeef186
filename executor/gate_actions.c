/* gate_actions.c - choosing experts, telling all ranks how many, and turning counts into quotas. */
#include "executor/rank.h"
#include <string.h>

/* Choices of a forced gate are made by masking: far below every logit for all experts but the assigned ones, so the k
 * largest are exactly those, in the order of the real logits and weighted by them. */
static const float MASKED = -1e30f;

bl_status bl_rank_upload_mask(bl_rank *r, int32_t moe, int32_t micro_batch, void *mask) {
  const int32_t T = r->tokens, E = r->run->model->experts, K = r->run->top_k;
  const int64_t n = (int64_t)T * E;
  BL_TRY(bl_forced_counts_get(r->forced, r->step, moe, micro_batch, T, K, r->forced_count));
  bl_gate_assign(r->forced_count, E, T, K, r->mask_ids);
  for (int64_t i = 0; i < n; i++) r->host_weights[i] = MASKED;
  for (int32_t t = 0; t < T; t++)
    for (int32_t c = 0; c < K; c++) r->host_weights[(int64_t)t * E + r->mask_ids[t * K + c]] = 0;
  const bl_host_part part = {r->host_weights, (size_t)n * sizeof(float)};
  const void *uploaded;
  r->be->upload(r->s, &part, 1, &uploaded);
  r->be->copy(r->s, mask, uploaded, part.bytes);
  return BL_OK;
}

static bl_status mask_logits(bl_rank *r, int32_t layer, int32_t micro_batch, const bl_saved *a, bl_chunk *masked) {
  const int32_t moe = r->weights.moe_index[layer];
  const int64_t n = (int64_t)r->tokens * r->run->model->experts;
  bl_chunk own = {0};
  const void *mask = r->planned_now ? r->planned->mask[moe * r->run->micro_batches + micro_batch].data : NULL;
  if (!mask) {
    BL_TRY(bl_take_f32(r, n, &own));
    BL_TRY(bl_rank_upload_mask(r, moe, micro_batch, own.data));
    mask = own.data;
  }
  BL_TRY(bl_take_num(r, n, masked));
  r->be->ops.from_f32(r->s, masked->data, mask, n);
  r->be->ops.add(r->s, masked->data, a->logits.data, n);
  bl_pool_give(r->pool, &own);
  return BL_OK;
}

/* Random second choice and capacity, decided on the host: `choice` is `chosen` with -1 where dropped. */
static bl_status drop_choices(bl_rank *r, int32_t layer, int32_t micro_batch, bl_saved *a) {
  const bl_run *run = r->run;
  const int32_t T = r->tokens, E = run->model->experts, K = run->top_k;
  const size_t n = (size_t)T * (size_t)K;
  BL_TRY(bl_comm_wait(r->comm, r->s));
  r->be->to_host(r->s, r->host_ids, a->chosen.data, n * sizeof *r->host_ids);
  r->be->to_host(r->s, r->host_weights, a->weight.data, n * sizeof *r->host_weights);
  BL_TRY(bl_comm_wait(r->comm, r->s));
  if (run->gate.kind == BL_GATE_GSHARD) {
    const int64_t first = ((int64_t)micro_batch * run->ranks + r->rank) * T;
    bl_gate_drop_second(r->host_ids, r->host_weights, T, run->seed, r->step, r->weights.moe_index[layer], first);
  }
  const int32_t capacity = bl_gate_capacity(&run->gate, run->model->sequence, K, E);
  bl_gate_drop_over_capacity(r->host_ids, run->sequences, run->model->sequence, K, E, capacity, r->forced_count);
  BL_TRY(bl_take_i32(r, (int64_t)n, &a->choice));
  r->be->to_device(r->s, a->choice.data, r->host_ids, n * sizeof *r->host_ids);
  return BL_OK;
}

static const int32_t *choices(const bl_saved *a) { return a->choice.data ? a->choice.data : a->chosen.data; }

bl_status bl_do_gate_fwd(bl_rank *r, int32_t layer, int32_t micro_batch) {
  const bl_run *run = r->run;
  const bl_layer_weights *w = &r->layer[layer];
  bl_saved *a = bl_rank_saved(r, layer, micro_batch);
  const int32_t T = r->tokens, H = run->model->hidden, E = run->model->experts, K = run->top_k;
  const int64_t n = (int64_t)T * K;
  BL_TRY(bl_take_num(r, (int64_t)T * H, &a->norm2));
  BL_TRY(bl_take_f32(r, T, &a->mean2));
  BL_TRY(bl_take_f32(r, T, &a->rstd2));
  BL_TRY(bl_take_num(r, (int64_t)T * E, &a->logits));
  BL_TRY(bl_take_i32(r, n, &a->chosen));
  BL_TRY(bl_take_f32(r, n, &a->weight));
  BL_TRY(bl_take_i32(r, E, &a->local_counts));
  const bl_ops *op = &r->be->ops;
  op->norm_fwd(r->s, a->norm2.data, a->mean2.data, a->rstd2.data, a->mid.data, w->norm2_weight.weight,
               w->norm2_bias.weight, T, H);
  op->linear_fwd(r->s, a->logits.data, a->norm2.data, w->gate_weight.weight, NULL, T, E, H, false);
  bl_chunk masked = {0};
  if (r->forced) BL_TRY(mask_logits(r, layer, micro_batch, a, &masked));
  const bl_num *logits = r->forced ? masked.data : a->logits.data;
  if (run->gate.kind == BL_GATE_SWITCH)
    op->gate_switch(r->s, a->chosen.data, a->weight.data, logits, T, E);
  else
    op->gate_top_k(r->s, a->chosen.data, a->weight.data, logits, T, E, K);
  bl_pool_give(r->pool, &masked);
  if (bl_gate_has_capacity(&run->gate)) BL_TRY(drop_choices(r, layer, micro_batch, a));
  op->histogram(r->s, a->local_counts.data, choices(a), n, E);
  return BL_OK;
}

bl_status bl_do_gate_bwd(bl_rank *r, int32_t layer, int32_t micro_batch) {
  const bl_run *run = r->run;
  const bl_layer_weights *w = &r->layer[layer];
  bl_saved *a = bl_rank_saved(r, layer, micro_batch);
  const int32_t T = r->tokens, H = run->model->hidden, E = run->model->experts, K = run->top_k;
  bl_chunk dlogits = {0}, balance = {0};
  BL_TRY(bl_take_num(r, (int64_t)T * E, &dlogits));
  const bl_ops *op = &r->be->ops;
  if (run->gate.kind == BL_GATE_SWITCH)
    op->gate_switch_bwd(r->s, dlogits.data, a->dweight.data, a->logits.data, a->chosen.data, T, E);
  else
    op->gate_top_k_bwd(r->s, dlogits.data, a->dweight.data, a->weight.data, a->chosen.data, T, E, K);
  if (bl_gate_has_capacity(&run->gate)) {
    BL_TRY(bl_take_f32(r, run->sequences, &balance));
    op->gate_balance(r->s, balance.data, dlogits.data, a->logits.data, a->chosen.data, run->sequences,
                     run->model->sequence, E, K, (float)run->gate.balance, 1.0f / (float)run->batch);
    double *sum = r->device_sums + r->n_squares + run->micro_batches +
                  (int64_t)r->weights.moe_index[layer] * run->micro_batches + micro_batch;
    op->sum_f32(r->s, sum, balance.data, run->sequences);
  }
  op->linear_dw(r->s, w->gate_weight.grad, NULL, dlogits.data, a->norm2.data, T, E, H);
  op->linear_dx(r->s, a->dnorm2.data, dlogits.data, w->gate_weight.weight, T, E, H, true);
  op->norm_bwd(r->s, r->dx[micro_batch].data, w->norm2_weight.grad, w->norm2_bias.grad, a->dnorm2.data, a->mid.data,
               a->mean2.data, a->rstd2.data, w->norm2_weight.weight, T, H);
  bl_chunk *done[] = {&dlogits,   &balance,   &a->mid,     &a->norm2,  &a->mean2,  &a->rstd2, &a->logits,
                      &a->chosen, &a->choice, &a->dweight, &a->weight, &a->dnorm2, &a->row,
                      &a->by_expert, &a->by_source};
  for (size_t i = 0; i < sizeof done / sizeof *done; i++) bl_pool_give(r->pool, done[i]);
  return BL_OK;
}

/* The counts of a rank, of this layer and micro-batch, in the step's record. */
static uint32_t *recorded_counts(const bl_rank *r, int32_t moe, int32_t rank, int32_t micro_batch) {
  const bl_run *run = r->run;
  const int64_t source = (int64_t)moe * run->ranks + bl_run_source(run, rank);
  return r->counts + (source * run->micro_batches + micro_batch) * run->model->experts;
}

static bl_status check_forced(bl_rank *r, int32_t moe, int32_t micro_batch, const uint32_t *counts) {
  if (!r->forced) return BL_OK;
  BL_TRY(bl_forced_counts_get(r->forced, r->step, moe, micro_batch, r->tokens, r->run->top_k, r->forced_count));
  for (int32_t e = 0; e < r->run->model->experts; e++)
    if (counts[e] != (uint32_t)r->forced_count[e])
      return bl_fail(BL_EMACHINE, "step %lld, layer %d: the gate gave expert %d %u tokens where %d were forced",
                     (long long)r->step, r->weights.moe_layer[moe], e, counts[e], r->forced_count[e]);
  return BL_OK;
}

bl_status bl_rank_record_counts(bl_rank *r, int32_t moe, int32_t micro_batch, const uint32_t *counts) {
  const bl_run *run = r->run;
  const size_t E = (size_t)run->model->experts, row = E * sizeof *counts;
  BL_TRY(check_forced(r, moe, micro_batch, counts + (size_t)r->rank * E));
  for (int32_t p = 0; p < run->ranks; p++)
    memcpy(recorded_counts(r, moe, p, micro_batch), counts + (size_t)p * E, row);
  if (counts != r->layer_counts) memcpy(r->layer_counts, counts, (size_t)run->ranks * row);
  if (r->planned && !r->planned_now) bl_planned_note_counts(r, moe, micro_batch, counts);
  return BL_OK;
}

bl_status bl_do_exchange_counts(bl_rank *r, int32_t layer, int32_t micro_batch) {
  const bl_run *run = r->run;
  if (r->planned_now) return bl_planned_counts(r, layer, micro_batch);
  bl_saved *a = bl_rank_saved(r, layer, micro_batch);
  const int32_t moe = r->weights.moe_index[layer];
  const size_t bytes = (size_t)run->model->experts * sizeof(uint32_t), record = sizeof(uint64_t) + bytes;
  uint8_t *outgoing = r->gathered + (size_t)run->ranks * record;
  memcpy(outgoing, &r->placement_hash, sizeof r->placement_hash);
  BL_TRY(bl_comm_wait(r->comm, r->s)); /* as at the step's end */
  r->be->to_host(r->s, outgoing + sizeof r->placement_hash, a->local_counts.data, bytes);
  BL_TRY(bl_comm_wait(r->comm, r->s));
  bl_pool_give(r->pool, &a->local_counts);
  BL_TRY(bl_comm_all_gather_host(r->comm, outgoing, (int64_t)record, r->gathered));
  for (int32_t p = 0; p < run->ranks; p++) {
    const uint8_t *theirs = r->gathered + (size_t)p * record;
    if (memcmp(theirs, r->gathered, sizeof r->placement_hash) != 0) /* the same words on all ranks */
      return bl_fail(BL_ECOMM, "step %lld, layer %d: rank %d has other expert hosts in force than rank 0",
                     (long long)r->step, layer, p);
    memcpy(r->layer_counts + (size_t)p * (size_t)run->model->experts, theirs + sizeof r->placement_hash, bytes);
  }
  return bl_rank_record_counts(r, moe, micro_batch, r->layer_counts);
}

/* Loads of all groups together, by expert and by the place that sent them. */
static void sum_counts(bl_rank *r) {
  const int32_t E = r->run->model->experts, P = r->run->ep;
  memset(r->expert_load, 0, (size_t)E * sizeof *r->expert_load);
  memset(r->source_load, 0, (size_t)P * (size_t)E * sizeof *r->source_load);
  for (int32_t p = 0; p < r->run->ranks; p++)
    for (int32_t e = 0; e < E; e++) {
      r->source_load[p % P * E + e] += r->layer_counts[p * E + e];
      r->expert_load[e] += r->layer_counts[p * E + e];
    }
}

/* This group's counts, and the shares by which its own rows go: those of all groups together, or where the policy
 * solves them afresh, solved for this group. */
static const uint32_t *counts_of_group(bl_rank *r, const bl_hosts *hosts, const bl_shares **shares) {
  const int32_t E = r->run->model->experts, P = r->run->ep;
  const uint32_t *counts = r->layer_counts + (int64_t)(r->rank / P) * P * E;
  if (!r->group_shares) return counts;
  memset(r->expert_load, 0, (size_t)E * sizeof *r->expert_load);
  for (int32_t p = 0; p < P; p++)
    for (int32_t e = 0; e < E; e++) r->expert_load[e] += counts[p * E + e];
  bl_shares_solve(r->group_shares, hosts, r->expert_load, NULL);
  *shares = r->group_shares;
  return counts;
}

bl_status bl_rank_tell_policy(bl_rank *r, int32_t moe, bl_policy_outcome *outcome) {
  sum_counts(r);
  return bl_policy_micro_batch(r->policy, moe, r->expert_load, r->source_load, outcome);
}

/* The route of a host-synchronised step. */
static bl_status build_route(bl_rank *r, int32_t layer, int32_t micro_batch, const bl_shares *shares) {
  const int32_t P = r->run->ep;
  const bl_hosts *hosts = bl_policy_hosts(r->policy, r->weights.moe_index[layer]);
  if (r->planned) {
    const uint32_t *counts = r->layer_counts + (int64_t)(r->rank / P) * P * r->run->model->experts;
    return bl_planned_route_on_host(r, layer, micro_batch, counts);
  }
  const uint32_t *counts = counts_of_group(r, hosts, &shares);
  return bl_route_build(&bl_rank_saved(r, layer, micro_batch)->route, hosts, shares, counts);
}

bl_status bl_do_solve_shares(bl_rank *r, int32_t layer, int32_t micro_batch) {
  const bl_run *run = r->run;
  const int32_t E = run->model->experts, P = run->ep, moe = r->weights.moe_index[layer];
  if (r->planned_now) return bl_planned_route(r, layer, micro_batch);
  bl_saved *a = bl_rank_saved(r, layer, micro_batch);
  bl_policy_outcome outcome;
  BL_TRY(bl_rank_tell_policy(r, moe, &outcome));
  if (outcome.late) {
    r->result.layer[moe].late = true;
    bl_rank_note_hosts(r);
  }
  BL_TRY(build_route(r, layer, micro_batch, outcome.shares));
  bl_route *route = &a->route;
  if (r->group_tokens)
    r->group_tokens[moe * run->micro_batches + micro_batch] = route->rank_tokens[r->place];
  else
    r->result.layer[moe].imbalance += bl_route_imbalance(route) / run->micro_batches;
  for (int32_t e = 0; e < E; e++)
    for (int32_t i = route->first[e]; i < route->first[e + 1]; i++)
      for (int32_t p = 0; p < P; p++)
        if (route->quota[(int64_t)p * route->entries + i]) bl_rank_used(r, moe, e)[route->host_rank[i]] = 1;
  const int64_t n = (int64_t)r->tokens * run->top_k;
  BL_TRY(bl_take_i32(r, n, &a->row));
  const bl_route_tables tables = bl_route_upload(route, r->be, r->s);
  r->be->ops.route_rows(r->s, a->row.data, choices(a), n, E, tables.first, tables.quota, tables.dest_row);
  return BL_OK;
}
