/* rank.c - making and freeing one rank of a training run. */
#include "executor/rank.h"
#include "base/memory.h"
#include <string.h>

static bl_pair pair(const bl_weights *w, int32_t layer, const char *suffix) {
  const bl_dense_tensor *t = bl_weights_find(w, layer, suffix);
  if (!t) return (bl_pair){0};
  return (bl_pair){bl_weights_at(w, w->dense_state.weight, t->offset), w->dense_state.grad + t->offset};
}

static bl_status bind_weights(bl_rank *r) {
  const bl_weights *w = &r->weights;
  const int32_t layers = r->run->model->layers;
  BL_TRY(bl_new(&r->layer, (size_t)layers, sizeof *r->layer, "layers"));
  r->token = pair(w, -1, "embed.token");
  r->position = pair(w, -1, "embed.position");
  r->norm_weight = pair(w, -1, "norm.weight");
  r->norm_bias = pair(w, -1, "norm.bias");
  for (int32_t l = 0; l < layers; l++)
    r->layer[l] = (bl_layer_weights){.norm1_weight = pair(w, l, "norm1.weight"),
                                     .norm1_bias = pair(w, l, "norm1.bias"),
                                     .qkv_weight = pair(w, l, "attn.qkv.weight"),
                                     .qkv_bias = pair(w, l, "attn.qkv.bias"),
                                     .out_weight = pair(w, l, "attn.out.weight"),
                                     .out_bias = pair(w, l, "attn.out.bias"),
                                     .norm2_weight = pair(w, l, "norm2.weight"),
                                     .norm2_bias = pair(w, l, "norm2.bias"),
                                     .fc1_weight = pair(w, l, "ffn.fc1.weight"),
                                     .fc1_bias = pair(w, l, "ffn.fc1.bias"),
                                     .fc2_weight = pair(w, l, "ffn.fc2.weight"),
                                     .fc2_bias = pair(w, l, "ffn.fc2.bias"),
                                     .gate_weight = pair(w, l, "moe.gate.weight")};
  return BL_OK;
}

static bl_status make_host_arrays(bl_rank *r) {
  const bl_run *run = r->run;
  const size_t E = (size_t)run->model->experts, R = (size_t)run->ranks, T = (size_t)r->tokens, K = (size_t)run->top_k,
               M = (size_t)run->micro_batches, L = (size_t)r->weights.moe_layers, P = (size_t)run->ep;
  const size_t weights = T * (r->forced ? E : K);
  const size_t record = sizeof(uint64_t) + E * sizeof(uint32_t);
  BL_TRY(bl_new(&r->hosted, L * E * P, 1, "host table"));
  BL_TRY(bl_new(&r->used, L * E * P, 1, "host table"));
  BL_TRY(bl_new(&r->wanted, E * P, 1, "host table"));
  BL_TRY(bl_new(&r->counts, L * R * M * E, sizeof *r->counts, "counts"));
  BL_TRY(bl_new(&r->gathered, (R + 1) * record, 1, "exchange records"));
  BL_TRY(bl_new(&r->host_sums, R * ((size_t)r->n_sums + BL_SUM_MARKS), sizeof *r->host_sums, "gradient sums"));
  BL_TRY(bl_new(&r->square_order, (size_t)r->n_squares, sizeof *r->square_order, "gradient sums"));
  BL_TRY(bl_new(&r->result.layer, L, sizeof *r->result.layer, "step results"));
  BL_TRY(bl_new(&r->host_tokens, M * T, sizeof *r->host_tokens, "tokens"));
  BL_TRY(bl_new(&r->host_targets, M * T, sizeof *r->host_targets, "tokens"));
  BL_TRY(bl_new(&r->square_parts, (size_t)r->n_squares, sizeof *r->square_parts, "tensor list"));
  BL_TRY(bl_new(&r->adamw_parts, (size_t)r->n_squares, sizeof *r->adamw_parts, "tensor list"));
  BL_TRY(bl_new(&r->host_ids, T * K, sizeof *r->host_ids, "choices"));
  BL_TRY(bl_new(&r->mask_ids, T * K, sizeof *r->mask_ids, "choices"));
  BL_TRY(bl_new(&r->host_weights, weights, sizeof *r->host_weights, "choices"));
  BL_TRY(bl_new(&r->forced_count, E, sizeof *r->forced_count, "counts"));
  BL_TRY(bl_new(&r->layer_counts, R * E, sizeof *r->layer_counts, "counts"));
  BL_TRY(bl_new(&r->expert_load, E, sizeof *r->expert_load, "counts"));
  BL_TRY(bl_new(&r->source_load, P * E, sizeof *r->source_load, "counts"));
  BL_TRY(bl_new(&r->send_bytes, P, sizeof *r->send_bytes, "exchange sizes"));
  BL_TRY(bl_new(&r->recv_bytes, P, sizeof *r->recv_bytes, "exchange sizes"));
  BL_TRY(bl_new(&r->group, E, sizeof *r->group, "expert groups"));
  if (P < R) {
    BL_TRY(bl_new(&r->group_tokens, L * M, sizeof *r->group_tokens, "counts"));
    BL_TRY(bl_new(&r->all_tokens, R * L * M, sizeof *r->all_tokens, "counts"));
  }
  return bl_new(&r->incoming, P * E, sizeof *r->incoming, "incoming gradients");
}

static bl_status make_fills(bl_rank *r) {
  const int32_t L = r->weights.moe_layers;
  BL_TRY(bl_new(&r->filled, (size_t)L, sizeof *r->filled, "events"));
  BL_TRY(bl_new(&r->filling, (size_t)L, sizeof *r->filling, "events"));
  for (int32_t l = 0; l < L; l++) BL_TRY(r->be->event_create(r->be, &r->filled[l]));
  return BL_OK;
}

static bl_status make_saved(bl_rank *r) {
  const bl_run *run = r->run;
  const size_t M = (size_t)run->micro_batches, per_batch = (size_t)run->model->layers + 1;
  BL_TRY(bl_new(&r->saved, M * per_batch, sizeof *r->saved, "activations"));
  BL_TRY(bl_new(&r->dx, M, sizeof *r->dx, "activations"));
  BL_TRY(bl_new(&r->token_ids, M, sizeof *r->token_ids, "tokens"));
  BL_TRY(bl_new(&r->target_ids, M, sizeof *r->target_ids, "tokens"));
  for (int32_t m = 0; m < run->micro_batches; m++) {
    BL_TRY(bl_take_i32(r, r->tokens, &r->token_ids[m]));
    BL_TRY(bl_take_i32(r, r->tokens, &r->target_ids[m]));
    for (int32_t l = 0; l < run->model->layers; l++)
      if (r->weights.moe_index[l] >= 0)
        BL_TRY(bl_route_create(run->ep, run->model->experts, r->place, &bl_rank_saved(r, l, m)->route));
  }
  return BL_OK;
}

/* The slots of this rank that its homes leave free. */
static bl_status reserve_copies(bl_rank *r) {
  int32_t homes = 0;
  for (int32_t e = 0; e < r->run->model->experts; e++) homes += bl_policy_hosts(r->policy, 0)->home[e] == r->place;
  return bl_weights_reserve(&r->weights, r->run->slots[r->place] - homes);
}

/* How many copies the slots of a group have room for. */
static int32_t slots_beyond_homes(const bl_run *run) {
  int64_t slots = 0;
  for (int32_t p = 0; p < run->ep; p++) slots += run->slots[p];
  return (int32_t)(slots - run->model->experts);
}

/* Views on the ranks that share experts, and on those with replicas of them (costmodel/group.h). */
static bl_status split_ranks(bl_rank *r) {
  const int32_t ep = r->run->ep, replicas = bl_run_replicas(r->run);
  int32_t *members = NULL;
  r->ep_comm = r->comm;
  if (replicas == 1) return BL_OK;
  BL_TRY(bl_new(&members, (size_t)r->run->ranks, sizeof *members, "groups of ranks"));
  for (int32_t e = 0; e < ep; e++) members[e] = r->rank / ep * ep + e;
  bl_status status = bl_comm_split(r->comm, members, ep, &r->ep_comm);
  for (int32_t x = 0; x < replicas; x++) members[x] = x * ep + r->place;
  if (status == BL_OK) status = bl_comm_split(r->comm, members, replicas, &r->edp_comm);
  free(members);
  return status;
}

bl_status bl_rank_create(const bl_run *run, int32_t rank, bl_backend *backend, bl_comm *comm, bl_rank *out) {
  *out = (bl_rank){.run = run, .rank = rank, .be = backend, .comm = comm, .place = rank % run->ep};
  bl_rank *r = out;
  BL_TRY(split_ranks(r));
  r->tokens = run->sequences * run->model->sequence;
  BL_TRY(backend->stream_create(backend, &r->s));
  BL_TRY(backend->stream_create(backend, &r->beside));
  BL_TRY(backend->event_create(backend, &r->forked));
  BL_TRY(bl_pool_create(backend, &r->pool));
  BL_TRY(bl_spans_create(backend, run->program, &r->spans));
  BL_TRY(bl_weights_create(run->model, backend, &r->weights));
  BL_TRY(bind_weights(r));
  BL_TRY(make_fills(r));
  const bl_policy_shape shape = {.layers = r->weights.moe_layers,
                                 .experts = run->model->experts,
                                 .ranks = run->ep,
                                 .slots = run->slots,
                                 .home = run->home};
  BL_TRY(bl_policy_create(&run->policy, &shape, &r->policy));
  if (bl_run_replicas(run) > 1 && bl_policy_solves_shares(r->policy))
    BL_TRY(bl_shares_create(run->model->experts, run->ep, slots_beyond_homes(run), &r->group_shares));
  if (bl_gate_is_forced(&run->gate))
    BL_TRY(bl_forced_counts_create(&run->gate, run->model->experts, rank, run->ranks, &r->forced));
  r->n_squares =
      r->weights.n_dense + (int64_t)r->weights.moe_layers * run->model->experts * r->weights.n_expert_tensors;
  r->n_sums = r->n_squares + (int64_t)run->micro_batches * (1 + r->weights.moe_layers);
  const size_t sums = ((size_t)r->n_sums + BL_SUM_MARKS) * sizeof(double);
  BL_TRY(backend->alloc(backend, sums, &r->device_sums));
  BL_TRY(backend->alloc(backend, sums * (size_t)run->ranks, &r->all_sums));
  BL_TRY(backend->alloc(backend, sizeof *r->hyper, &r->hyper));
  BL_TRY(make_host_arrays(r));
  BL_TRY(make_saved(r));
  BL_TRY(bl_rank_adopt_policy_homes(r));
  if (bl_policy_uses_copies(r->policy) && !backend->host_memory) BL_TRY(reserve_copies(r));
  return run->exchange == BL_EXCHANGE_DEVICE ? bl_planned_create(r, run->headroom, &r->planned) : BL_OK;
}

bl_status bl_rank_adopt_policy_homes(bl_rank *r) {
  const int32_t E = r->run->model->experts, R = r->run->ep, L = r->weights.moe_layers;
  memset(r->hosted, BL_HOSTED_NOT, (size_t)L * (size_t)E * (size_t)R);
  for (int32_t l = 0; l < L; l++) {
    const bl_hosts *hosts = bl_policy_hosts(r->policy, l);
    for (int32_t e = 0; e < E; e++) {
      bl_rank_hosted(r, l, e)[hosts->home[e]] = BL_HOSTED_HOME;
      if (hosts->home[e] == r->place)
        BL_TRY(bl_weights_hold(&r->weights, l, e, true));
      else
        bl_weights_drop(&r->weights, l, e, false);
    }
  }
  return BL_OK;
}

/* Gives back every buffer of a (micro-batch, layer), also where a step failed half-way. */
static void free_saved(bl_rank *r, bl_saved *a) {
  bl_chunk *all[] = {&a->x,        &a->norm1,  &a->mean1,       &a->rstd1,   &a->qkv,    &a->attention, &a->lse,
                     &a->mid,      &a->norm2,  &a->mean2,       &a->rstd2,   &a->hidden, &a->active,    &a->logits,
                     &a->chosen,   &a->choice, &a->weight,      &a->row,     &a->send,   &a->received,  &a->rows_in,
                     &a->rows_out, &a->back,   &a->dback,       &a->dweight, &a->dout,   &a->drows,     &a->dhidden,
                     &a->dsend,    &a->dnorm2, &a->local_counts, &a->by_expert, &a->by_source};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) bl_pool_give(r->pool, all[i]);
  bl_route_free(&a->route);
}

void bl_rank_free(bl_rank *r) {
  if (!r->run) return;
  /* Work of a step that failed may still be on its way to memory of the host. */
  if (r->beside) r->be->stream_sync(r->beside);
  if (r->s) r->be->stream_sync(r->s);
  if (r->graph) r->be->graph_destroy(r->graph);
  const int32_t M = r->run->micro_batches, R = r->run->ep, E = r->run->model->experts;
  for (int32_t i = 0; r->saved && i < M * (r->run->model->layers + 1); i++) free_saved(r, &r->saved[i]);
  for (int32_t m = 0; m < M; m++) {
    if (r->dx) bl_pool_give(r->pool, &r->dx[m]);
    if (r->token_ids) bl_pool_give(r->pool, &r->token_ids[m]);
    if (r->target_ids) bl_pool_give(r->pool, &r->target_ids[m]);
  }
  for (int32_t i = 0; r->incoming && i < R * E; i++) bl_pool_give(r->pool, &r->incoming[i]);
  void *host[] = {r->layer,       r->saved,        r->dx,           r->token_ids,    r->target_ids,
                  r->hosted,      r->used,         r->wanted,       r->counts,       r->gathered,
                  r->host_sums,   r->square_order, r->result.layer, r->host_tokens,  r->host_targets, r->host_ids,
                  r->mask_ids,    r->host_weights, r->forced_count, r->layer_counts, r->expert_load,
                  r->group_tokens, r->all_tokens, r->source_load, r->send_bytes,   r->recv_bytes,   r->group,        r->incoming};
  for (size_t i = 0; i < sizeof host / sizeof *host; i++) free(host[i]);
  for (int32_t l = 0; r->filled && l < r->weights.moe_layers; l++)
    if (r->filled[l]) r->be->event_destroy(r->filled[l]);
  free(r->square_parts);
  free(r->adamw_parts);
  free(r->filled);
  free(r->filling);
  if (r->forked) r->be->event_destroy(r->forked);
  r->be->release(r->be, r->device_sums);
  r->be->release(r->be, r->all_sums);
  r->be->release(r->be, r->hyper);
  bl_planned_free(r, r->planned);
  bl_forced_counts_free(r->forced);
  bl_policy_free(r->policy);
  bl_shares_free(r->group_shares);
  if (r->ep_comm != r->comm) bl_comm_free(r->ep_comm);
  bl_comm_free(r->edp_comm);
  bl_weights_free(&r->weights);
  bl_pool_free(r->pool);
  bl_spans_free(&r->spans);
  r->be->stream_destroy(r->s);
  r->be->stream_destroy(r->beside);
  *r = (bl_rank){0};
}
