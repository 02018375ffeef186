/* adapt.c - homes and copies of experts while training: who hosts what, and the bytes that follow.
 *
 * r->hosted[] says who held what so far; bl_policy_hosts() says who shall. All ranks have the same of both, so each
 * derives the same list of messages, posted in one order: experts ascending, ranks ascending. */
#include "base/memory.h"
#include "base/rng.h"
#include "executor/rank.h"
#include <stdlib.h>
#include <string.h>

/* Sanitizer builds check what arrives against what was sent. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static const bool moves_checked = true;
#else
static const bool moves_checked = false;
#endif

/* hosted[experts][ranks] of a layer as the policy wants it now. */
static void wanted_hosts(const bl_rank *r, int32_t moe, uint8_t *hosted) {
  const bl_hosts *hosts = bl_policy_hosts(r->policy, moe);
  const int32_t R = r->run->ep;
  memset(hosted, BL_HOSTED_NOT, (size_t)hosts->experts * (size_t)R);
  for (int32_t i = 0; i < hosts->n_copy_slots; i++)
    if (hosts->copy_expert[i] >= 0) hosted[hosts->copy_expert[i] * R + hosts->copy_rank[i]] = BL_HOSTED_COPY;
  for (int32_t e = 0; e < hosts->experts; e++) hosted[e * R + hosts->home[e]] = BL_HOSTED_HOME;
}

static int32_t home_of(const uint8_t *hosted, int32_t ranks) {
  for (int32_t p = 0; p < ranks; p++)
    if (hosted[p] == BL_HOSTED_HOME) return p;
  return -1;
}

/* The parameters alone: blocks have gaps between tensors. */
static int64_t expert_parameters(const bl_rank *r) { return bl_model_part_parameters(r->run->model, BL_PART_EXPERT); }

void bl_rank_note_hosts(bl_rank *r) {
  uint64_t hash = r->run->seed;
  for (int32_t l = 0; l < r->weights.moe_layers; l++)
    hash = bl_hash_u64(hash, bl_hosts_hash(bl_policy_hosts(r->policy, l), (uint64_t)l), (uint64_t)l, 0);
  if (hash != r->placement_hash) r->plan_version++;
  r->placement_hash = hash;
}

bl_status bl_do_choose_hosts(bl_rank *r) {
  const int32_t E = r->run->model->experts, R = r->run->ep;
  BL_TRY(bl_policy_begin_step(r->policy, r->step));
  bl_rank_note_hosts(r);
  for (int32_t l = 0; l < r->weights.moe_layers; l++) {
    uint8_t *wanted = r->wanted;
    wanted_hosts(r, l, wanted);
    for (int32_t e = 0; e < E; e++) {
      const uint8_t held = bl_rank_hosted(r, l, e)[r->place], want = wanted[e * R + r->place];
      if (want != BL_HOSTED_NOT) BL_TRY(bl_weights_hold(&r->weights, l, e, want == BL_HOSTED_HOME));
      if (want == BL_HOSTED_NOT && held == BL_HOSTED_COPY) bl_weights_drop(&r->weights, l, e, false);
    }
  }
  memset(r->used, 0, (size_t)r->weights.moe_layers * (size_t)E * (size_t)R);
  return BL_OK;
}

/* Test hook: BL_TEST_FLIP_MOMENT=step:N flips one bit of the first moment that moves at or after step N. */
static bl_status flip_moment(bl_rank *r, const bl_state *state) {
  const char *hook = getenv("BL_TEST_FLIP_MOMENT");
  if (!hook || strncmp(hook, "step:", 5) != 0 || r->step < strtoll(hook + 5, NULL, 10) || r->moment_flipped)
    return BL_OK;
  r->moment_flipped = true;
  uint8_t byte;
  BL_TRY(bl_comm_wait(r->comm, r->s));
  r->be->to_host(r->s, &byte, (uint8_t *)state->m + 2, 1);
  BL_TRY(bl_comm_wait(r->comm, r->s));
  byte ^= 0x40;
  r->be->to_device(r->s, (uint8_t *)state->m + 2, &byte, 1);
  return bl_comm_wait(r->comm, r->s);
}

static bl_status hash_state(bl_rank *r, const bl_state *state, uint64_t *hash) {
  const size_t bytes = (size_t)r->weights.expert_size * sizeof(float);
  const float *parts[] = {state->master, state->m, state->v};
  void *host = NULL;
  BL_TRY(bl_new(&host, bytes, 1, "check of a moved expert"));
  *hash = 0;
  bl_status status = BL_OK;
  for (int i = 0; i < 3 && status == BL_OK; i++) {
    status = bl_comm_wait(r->comm, r->s);
    if (status != BL_OK) break;
    r->be->to_host(r->s, host, parts[i], bytes);
    status = bl_comm_wait(r->comm, r->s);
    *hash = bl_hash_bytes(host, bytes, *hash);
  }
  free(host);
  return status;
}

/* All ranks compare the hashes of the experts that moved; hash[experts] holds this rank's, sent or received. */
static bl_status compare_moves(bl_rank *r, int32_t moe, const uint8_t *wanted, const uint64_t *hash) {
  const int32_t E = r->run->model->experts, R = r->run->ep;
  uint64_t *all = NULL;
  BL_TRY(bl_new(&all, (size_t)E * (size_t)R, sizeof *all, "check of moved experts"));
  bl_status status = bl_comm_all_gather_host(r->ep_comm, hash, (int64_t)sizeof *hash * E, all);
  for (int32_t e = 0; e < E && status == BL_OK; e++) {
    const int32_t from = home_of(bl_rank_hosted(r, moe, e), R), to = home_of(wanted + e * R, R);
    if (from != to && all[from * E + e] != all[to * E + e])
      status = bl_fail(BL_ECOMM, "step %lld, layer %d: expert %d changed on its way from rank %d to rank %d",
                       (long long)r->step, r->weights.moe_layer[moe], e, from, to);
  }
  free(all);
  return status;
}

/* Sends or receives the whole state of an expert. A new home that held a copy gets the weight all the same. */
static bl_status transfer_state(bl_rank *r, const bl_state *state, int32_t peer, bool sending) {
  const int64_t n = r->weights.expert_size, bytes = n * (int64_t)sizeof(float);
  void *parts[] = {state->master, state->m, state->v};
  for (int i = 0; i < 3; i++)
    BL_TRY(sending ? r->ep_comm->ops->send(r->ep_comm, r->s, parts[i], bytes, peer)
                   : r->ep_comm->ops->recv(r->ep_comm, r->s, parts[i], bytes, peer));
  return BL_OK;
}

static bl_status move_layer(bl_rank *r, int32_t moe, const uint8_t *wanted, uint64_t *hash) {
  const int32_t E = r->run->model->experts, R = r->run->ep;
  BL_TRY(r->ep_comm->ops->group_begin(r->ep_comm));
  for (int32_t e = 0; e < E; e++) {
    const int32_t from = home_of(bl_rank_hosted(r, moe, e), R), to = home_of(wanted + e * R, R);
    if (from == to) continue;
    r->result.moved_bytes += 12 * expert_parameters(r) * bl_run_replicas(r->run);
    r->result.layer[moe].moved++;
    const bl_state *state = bl_weights_expert(&r->weights, moe, e);
    if (r->place == from && moves_checked) BL_TRY(hash_state(r, state, &hash[e]));
    if (r->place == from) BL_TRY(flip_moment(r, state));
    if (r->place == from) BL_TRY(transfer_state(r, state, to, true));
    if (r->place == to) BL_TRY(transfer_state(r, state, from, false));
  }
  BL_TRY(r->ep_comm->ops->group_end(r->ep_comm, r->s));
  if (!r->result.layer[moe].moved) return BL_OK;
  for (int32_t e = 0; e < E; e++) {
    uint8_t *hosted = bl_rank_hosted(r, moe, e);
    const int32_t from = home_of(hosted, R), to = home_of(wanted + e * R, R);
    if (from == to) continue;
    const bl_state *state = bl_weights_expert(&r->weights, moe, e);
    if (r->place == to) {
      if (state->master != state->weight)
        r->be->ops.from_f32(r->s, state->weight, state->master, r->weights.expert_size);
      if (moves_checked) BL_TRY(hash_state(r, state, &hash[e]));
    }
  }
  if (moves_checked) BL_TRY(compare_moves(r, moe, wanted, hash));
  return BL_OK;
}

bl_status bl_do_move_home(bl_rank *r, int32_t layer) {
  const int32_t moe = r->weights.moe_index[layer], E = r->run->model->experts, R = r->run->ep;
  uint8_t *wanted = r->wanted;
  wanted_hosts(r, moe, wanted);
  uint64_t *hash = NULL;
  BL_TRY(bl_new(&hash, (size_t)E, sizeof *hash, "check of moved experts"));
  const bl_status status = move_layer(r, moe, wanted, hash);
  free(hash);
  BL_TRY(status);
  for (int32_t e = 0; e < E; e++) {
    uint8_t *hosted = bl_rank_hosted(r, moe, e);
    const int32_t from = home_of(hosted, R), to = home_of(wanted + e * R, R);
    if (from == to) continue;
    if (r->place == from) bl_weights_drop(&r->weights, moe, e, wanted[e * R + from] == BL_HOSTED_COPY);
    hosted[from] = BL_HOSTED_NOT;
    hosted[to] = BL_HOSTED_HOME;
  }
  return BL_OK;
}

/* Sends the weights of the wanted copies from their homes: all of them, or only those not held yet. */
static bl_status fill_copies(bl_rank *r, bl_stream *s, int32_t moe, const uint8_t *wanted, bool only_new) {
  const int32_t E = r->run->model->experts, R = r->run->ep;
  const int64_t bytes = r->weights.expert_size * (int64_t)r->be->num_bytes;
  BL_TRY(r->ep_comm->ops->group_begin(r->ep_comm));
  for (int32_t e = 0; e < E; e++) {
    const uint8_t *hosted = bl_rank_hosted(r, moe, e), *want = wanted + e * R;
    const int32_t home = home_of(want, R);
    bl_num *weight = bl_weights_expert(&r->weights, moe, e)->weight;
    for (int32_t p = 0; p < R; p++) {
      if (want[p] != BL_HOSTED_COPY || (only_new && hosted[p] == BL_HOSTED_COPY)) continue;
      r->result.fill_bytes += expert_parameters(r) * (int64_t)r->be->num_bytes * bl_run_replicas(r->run);
      if (r->place == home) BL_TRY(r->ep_comm->ops->send(r->ep_comm, s, weight, bytes, p));
      if (r->place == p) BL_TRY(r->ep_comm->ops->recv(r->ep_comm, s, weight, bytes, home));
    }
  }
  return r->ep_comm->ops->group_end(r->ep_comm, s);
}

/* Adds the gradients of copies to their homes, in rank order: of all copies that were used in this step, or only of
 * those that are not wanted any more (wanted not NULL). */
static bl_status reduce_copies(bl_rank *r, int32_t moe, const uint8_t *wanted) {
  const int32_t E = r->run->model->experts, R = r->run->ep;
  const int64_t n = r->weights.expert_size, bytes = n * (int64_t)sizeof(float);
  BL_TRY(r->ep_comm->ops->group_begin(r->ep_comm));
  for (int32_t e = 0; e < E; e++) {
    const uint8_t *hosted = bl_rank_hosted(r, moe, e), *used = bl_rank_used(r, moe, e);
    const int32_t home = home_of(hosted, R);
    for (int32_t p = 0; p < R; p++) {
      if (hosted[p] != BL_HOSTED_COPY || !used[p] || (wanted && wanted[e * R + p] != BL_HOSTED_NOT)) continue;
      if (r->place == p)
        BL_TRY(r->ep_comm->ops->send(r->ep_comm, r->s, bl_weights_expert(&r->weights, moe, e)->grad, bytes, home));
      if (r->place != home) continue;
      bl_chunk *incoming = &r->incoming[e * R + p];
      BL_TRY(bl_take_f32(r, n, incoming));
      BL_TRY(r->ep_comm->ops->recv(r->ep_comm, r->s, incoming->data, bytes, p));
    }
  }
  BL_TRY(r->ep_comm->ops->group_end(r->ep_comm, r->s));
  for (int32_t e = 0; e < E; e++)
    for (int32_t p = 0; p < R; p++) {
      bl_chunk *incoming = &r->incoming[e * R + p];
      if (!incoming->data) continue;
      r->be->ops.add_f32(r->s, bl_weights_expert(&r->weights, moe, e)->grad, incoming->data, n);
      bl_pool_give(r->pool, incoming);
    }
  return BL_OK;
}

void bl_rank_await_fills(bl_rank *r, int32_t moe) {
  if (r->filling[moe]) r->be->event_wait(r->s, r->filled[moe]);
  r->filling[moe] = false;
}

bl_status bl_do_copy_fill(bl_rank *r, int32_t layer) {
  const int32_t moe = r->weights.moe_index[layer], E = r->run->model->experts, R = r->run->ep;
  uint8_t *wanted = r->wanted;
  wanted_hosts(r, moe, wanted);
  BL_TRY(fill_copies(r, r->beside, moe, wanted, false));
  r->be->event_record(r->filled[moe], r->beside);
  r->filling[moe] = true;
  memcpy(bl_rank_hosted(r, moe, 0), wanted, (size_t)E * (size_t)R);
  return BL_OK;
}

bl_status bl_do_late_fill(bl_rank *r, int32_t layer, int32_t micro_batch) {
  (void)micro_batch;
  const int32_t moe = r->weights.moe_index[layer], E = r->run->model->experts, R = r->run->ep;
  uint8_t *wanted = r->wanted;
  wanted_hosts(r, moe, wanted);
  if (memcmp(bl_rank_hosted(r, moe, 0), wanted, (size_t)E * (size_t)R) == 0) return BL_OK;
  bl_rank_await_fills(r, moe); /* a copy that is given up may be on its way yet */
  BL_TRY(reduce_copies(r, moe, wanted));
  for (int32_t e = 0; e < E; e++) {
    const uint8_t *hosted = bl_rank_hosted(r, moe, e), *want = wanted + e * R;
    for (int32_t p = 0; p < R; p++)
      if (hosted[p] == BL_HOSTED_COPY && want[p] == BL_HOSTED_NOT) bl_rank_used(r, moe, e)[p] = 0;
    if (hosted[r->place] == BL_HOSTED_COPY && want[r->place] == BL_HOSTED_NOT)
      bl_weights_drop(&r->weights, moe, e, false);
  }
  for (int32_t e = 0; e < E; e++) {
    if (wanted[e * R + r->place] != BL_HOSTED_COPY || bl_rank_hosted(r, moe, e)[r->place] == BL_HOSTED_COPY) continue;
    BL_TRY(bl_weights_hold(&r->weights, moe, e, false));
    r->be->zero(r->s, bl_weights_expert(&r->weights, moe, e)->grad, (size_t)r->weights.expert_size * sizeof(float));
  }
  BL_TRY(fill_copies(r, r->s, moe, wanted, true));
  memcpy(bl_rank_hosted(r, moe, 0), wanted, (size_t)E * (size_t)R);
  return BL_OK;
}

bl_status bl_do_copy_reduce(bl_rank *r, int32_t layer) { return reduce_copies(r, r->weights.moe_index[layer], NULL); }
