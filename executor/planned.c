/* planned.c - tables and sizes of exchanges that are planned on the device. */
#include "executor/planned.h"
#include "base/memory.h"
#include "executor/rank.h"
#include <math.h>
#include <string.h>

/* After a step that had to be made again the headroom grows by this factor, up to MOST_HEADROOM or to what was given, if
 * that is more: experts compute on it. After CLEAN_STEPS without such a step it shrinks again, down to what was given, and
 * sizes with it: a redone step in so many costs less than room that nothing uses. */
static const double HEADROOM_GROWS = 1.5, MOST_HEADROOM = 1;
enum { CLEAN_STEPS = 100 };

bl_status bl_planned_check(const char *gate, bool gate_drops, const bl_policy_options *options,
                           const bl_policy *policy) {
  if (gate_drops)
    return bl_fail(BL_EUSAGE,
                   "--exchange device: --gate %s drops choices on the host; expected naive, uniform or trace:FILE, or "
                   "--exchange host",
                   gate);
  if (options->late_repair > 0)
    return bl_fail(BL_EUSAGE,
                   "--exchange device: --late-repair chooses hosts on the host in the middle of a step; expected none, or "
                   "--exchange host");
  if (!bl_policy_solves_shares(policy))
    return bl_fail(BL_EUSAGE,
                   "--exchange device: shares are solved on the device for every micro-batch; expected --shares fresh "
                   "and a policy of static, smartmoe and ballast, or --exchange host");
  return BL_OK;
}

static size_t bounds_size(const bl_planned *p) { return 2 * ((size_t)p->ranks + 1) + (size_t)p->most_entries + 1; }

static bl_row_bounds bounds_at(const int32_t *block, int32_t ranks) {
  return (bl_row_bounds){.send_first = block, .recv_first = block + ranks + 1, .block_first = block + 2 * (ranks + 1)};
}

static bl_status create_layer(bl_rank *r, bl_planned *p, bl_planned_layer *layer) {
  bl_backend *be = r->be;
  const size_t table = bl_host_table_size(p->experts, p->ranks, p->most_entries), bounds = bounds_size(p);
  BL_TRY(bl_new(&layer->table_block, table, sizeof(int32_t), "plans of exchanges"));
  BL_TRY(bl_new(&layer->bounds_block, bounds, sizeof(int32_t), "plans of exchanges"));
  BL_TRY(bl_new(&layer->pair_rows, (size_t)p->ranks * (size_t)p->ranks, sizeof(int32_t), "plans of exchanges"));
  BL_TRY(bl_new(&layer->entry_rows, (size_t)p->most_entries, sizeof(int32_t), "plans of exchanges"));
  BL_TRY(be->alloc(be, table * sizeof(int32_t), &layer->table_on_device));
  BL_TRY(be->alloc(be, bounds * sizeof(int32_t), &layer->bounds_on_device));
  layer->bounds = bounds_at(layer->bounds_block, p->ranks);
  layer->device_bounds = bounds_at(layer->bounds_on_device, p->ranks);
  return BL_OK;
}

static bl_status create_parts(bl_rank *r, bl_planned *p) {
  bl_backend *be = r->be;
  const size_t L = (size_t)p->layers, M = (size_t)p->micro_batches, P = (size_t)p->ranks, E = (size_t)p->experts;
  const size_t counts = L * M * (size_t)r->run->ranks * E, entries = (size_t)p->most_entries;
  BL_TRY(bl_new(&p->layer, L, sizeof *p->layer, "plans of exchanges"));
  for (size_t l = 0; l < L; l++) BL_TRY(create_layer(r, p, &p->layer[l]));
  BL_TRY(bl_new(&p->counts, counts, sizeof *p->counts, "plans of exchanges"));
  BL_TRY(bl_new(&p->rank_rows, L * M * P, sizeof *p->rank_rows, "plans of exchanges"));
  BL_TRY(bl_new(&p->mask, L * M, sizeof *p->mask, "plans of exchanges"));
  BL_TRY(bl_new(&p->group_counts, P * E, sizeof *p->group_counts, "plans of exchanges"));
  BL_TRY(bl_new(&p->quota, P * entries, sizeof *p->quota, "plans of exchanges"));
  const bl_host_table largest = {.experts = p->experts, .ranks = p->ranks, .entries = p->most_entries};
  BL_TRY(bl_new(&p->scratch, bl_quotas_scratch(&largest), sizeof *p->scratch, "plans of exchanges"));
  BL_TRY(be->alloc(be, counts * sizeof *p->counts, &p->counts_on_device));
  BL_TRY(be->alloc(be, L * M * P * sizeof *p->rank_rows, &p->rank_rows_on_device));
  for (size_t i = 0; r->forced && i < L * M; i++)
    BL_TRY(bl_take_f32(r, (int64_t)r->tokens * p->experts, &p->mask[i]));
  return BL_OK;
}

bl_status bl_planned_create(bl_rank *r, double headroom, bl_planned **out) {
  BL_TRY(bl_new(out, 1, sizeof **out, "plans of exchanges"));
  bl_planned *p = *out;
  const bl_run *run = r->run;
  int32_t slots = 0;
  for (int32_t q = 0; q < run->ep; q++) slots += run->slots[q];
  *p = (bl_planned){.given = headroom,
                    .headroom = headroom,
                    .layers = r->weights.moe_layers,
                    .micro_batches = run->micro_batches,
                    .ranks = run->ep,
                    .experts = run->model->experts,
                    .most_entries = slots > run->model->experts ? slots : run->model->experts};
  return create_parts(r, p);
}

void bl_planned_free(bl_rank *r, bl_planned *p) {
  if (!p) return;
  for (int32_t l = 0; p->layer && l < p->layers; l++) {
    bl_planned_layer *layer = &p->layer[l];
    r->be->release(r->be, layer->table_on_device);
    r->be->release(r->be, layer->bounds_on_device);
    free(layer->table_block);
    free(layer->bounds_block);
    free(layer->pair_rows);
    free(layer->entry_rows);
  }
  for (int32_t i = 0; p->mask && i < p->layers * p->micro_batches; i++) bl_pool_give(r->pool, &p->mask[i]);
  r->be->release(r->be, p->counts_on_device);
  r->be->release(r->be, p->rank_rows_on_device);
  free(p->layer);
  free(p->counts);
  free(p->rank_rows);
  free(p->mask);
  free(p->group_counts);
  free(p->quota);
  free(p->scratch);
  free(p);
}

/* -- sizes --------------------------------------------------------------------------------------------------------- */

/* `beyond`: rows in proportion to which there is headroom. */
static bool raise_to(int32_t *rows, int64_t needed, double beyond, int64_t most) {
  if (needed <= *rows) return false;
  const double wanted = (double)needed + ceil(beyond);
  const int64_t limit = most < INT32_MAX ? most : INT32_MAX;
  *rows = (int32_t)(wanted < (double)limit ? wanted : (double)limit);
  return true;
}

/* Room for these quotas at least; what has grown has headroom again. Rows between two ranks vary with the shares of all
 * experts, so that where there were none there may be some: their headroom is of the mean too. An expert's vary with its
 * count, small counts more than in proportion. */
static bool grow_for(const bl_planned *p, bl_planned_layer *layer, const uint32_t *quota, int64_t sent_at_most) {
  const bl_host_table *t = &layer->table;
  bool grown = false;
  for (int32_t from = 0; from < p->ranks; from++)
    for (int32_t to = 0; to < p->ranks; to++) {
      int64_t rows = 0;
      for (int32_t l = t->rank_first[to]; l < t->rank_first[to + 1]; l++)
        rows += quota[(int64_t)from * t->entries + t->rank_entry[l]];
      grown |= raise_to(&layer->pair_rows[from * p->ranks + to], rows,
                        p->headroom * ((double)rows + (double)sent_at_most / p->ranks), sent_at_most);
    }
  for (int32_t i = 0; i < t->entries; i++) {
    int64_t rows = 0;
    for (int32_t from = 0; from < p->ranks; from++) rows += quota[(int64_t)from * t->entries + i];
    grown |= raise_to(&layer->entry_rows[i], rows, p->headroom * ((double)rows + 8 * sqrt((double)rows + 1)),
                      sent_at_most * p->ranks);
  }
  return grown;
}

static int64_t choices_of_rank(const bl_rank *r) { return (int64_t)r->tokens * r->run->top_k; }

/* starts[i + 1] = starts[i] + rows, where that is a number of rows. */
static bl_status add_rows(const bl_rank *r, int32_t *starts, int32_t i, int32_t rows) {
  const int64_t sum = (int64_t)starts[i] + rows;
  if (sum > INT32_MAX)
    return bl_fail(BL_EMACHINE,
                   "step %lld: --exchange device wants room for %lld rows on rank %d, at most %d can be; expected more "
                   "--micro-batches or less --headroom",
                   (long long)r->step, (long long)sum, r->rank, INT32_MAX);
  starts[i + 1] = (int32_t)sum;
  return BL_OK;
}

/* Puts a layer's sizes into effect. */
static bl_status lay_out_bounds(bl_rank *r, bl_planned *p, bl_planned_layer *layer) {
  const bl_host_table *t = &layer->table;
  int32_t *send = layer->bounds_block, *recv = send + p->ranks + 1, *block = recv + p->ranks + 1;
  send[0] = recv[0] = block[0] = 0;
  for (int32_t q = 0; q < p->ranks; q++) {
    BL_TRY(add_rows(r, send, q, layer->pair_rows[r->place * p->ranks + q]));
    BL_TRY(add_rows(r, recv, q, layer->pair_rows[q * p->ranks + r->place]));
  }
  const int32_t first = t->rank_first[r->place], n = t->rank_first[r->place + 1] - first;
  for (int32_t l = 0; l < n; l++) BL_TRY(add_rows(r, block, l, layer->entry_rows[t->rank_entry[first + l]]));
  layer->bounds.recv_rows = layer->device_bounds.recv_rows = recv[p->ranks];
  layer->bounds.expert_rows = layer->device_bounds.expert_rows = block[n];
  r->be->to_device(r->s, layer->bounds_on_device, layer->bounds_block, bounds_size(p) * sizeof(int32_t));
  p->version++;
  return BL_OK;
}

static const uint32_t *counts_of(const bl_planned *p, const uint32_t *counts, int32_t all_ranks, int32_t moe, int32_t m,
                                 int32_t rank) {
  return counts + (((int64_t)moe * p->micro_batches + m) * all_ranks + rank) * p->experts;
}

/* Less than none, so that none is a need too. */
static void forget_sizes(const bl_planned *p, bl_planned_layer *layer) {
  for (int32_t i = 0; i < p->ranks * p->ranks; i++) layer->pair_rows[i] = -1;
  for (int32_t i = 0; i < p->most_entries; i++) layer->entry_rows[i] = -1;
}

/* What the newest counts would need on the layer's hosts. */
static bl_status forecast(bl_rank *r, bl_planned *p, int32_t moe) {
  bl_planned_layer *layer = &p->layer[moe];
  const int32_t first = r->rank / p->ranks * p->ranks;
  forget_sizes(p, layer);
  for (int32_t m = 0; m < p->micro_batches; m++) {
    bl_quotas_plan(&layer->table, counts_of(p, p->counts, r->run->ranks, moe, m, first), p->quota, p->scratch);
    grow_for(p, layer, p->quota, choices_of_rank(r));
  }
  return lay_out_bounds(r, p, layer);
}

/* The table of the hosts in force and its sizes, where hosts or the headroom have changed. */
static bl_status take_hosts(bl_rank *r, bl_planned *p, int32_t moe) {
  bl_planned_layer *layer = &p->layer[moe];
  const bl_hosts *hosts = bl_policy_hosts(r->policy, moe);
  const uint64_t hash = bl_hosts_hash(hosts, 1);
  if (layer->table.first && hash == layer->hosts_hash && !p->shrunk) return BL_OK;
  BL_TRY(bl_comm_wait(r->comm, r->s)); /* for moves: a copy to the device would wait by itself, and for ever */
  layer->hosts_hash = hash;
  layer->table = bl_host_table_fill(layer->table_block, hosts);
  layer->device_table = bl_host_table_at(layer->table_on_device, p->experts, p->ranks, layer->table.entries);
  const size_t size = bl_host_table_size(p->experts, p->ranks, layer->table.entries);
  r->be->to_device(r->s, layer->table_on_device, layer->table_block, size * sizeof(int32_t));
  layer->sized = p->counts_known;
  if (p->counts_known) return forecast(r, p, moe);
  forget_sizes(p, layer);
  return BL_OK;
}

bl_status bl_planned_agree(bl_rank *r, uint64_t flags, uint64_t *of_all) {
  typedef struct record {
    uint64_t hosts, flags;
  } record;
  const record mine = {r->placement_hash, flags};
  record *all = NULL;
  BL_TRY(bl_new(&all, (size_t)r->run->ranks, sizeof *all, "agreement"));
  bl_status status = bl_comm_all_gather_host(r->comm, &mine, sizeof mine, all);
  *of_all = flags;
  for (int32_t p = 0; p < r->run->ranks && status == BL_OK; p++) {
    *of_all &= all[p].flags;
    if (all[p].hosts != all[0].hosts)
      status = bl_fail(BL_ECOMM, "step %lld: rank %d has other expert hosts in force than rank 0", (long long)r->step, p);
  }
  free(all);
  return status;
}

/* In a planned step every copy counts: whether it has taken tokens the host does not know. */
static void use_all_copies(bl_rank *r) {
  const bl_planned *p = r->planned;
  for (int32_t moe = 0; moe < p->layers; moe++) {
    const bl_host_table *t = &p->layer[moe].table;
    for (int32_t i = 0; i < t->entries; i++)
      if (i != t->home[t->expert[i]]) bl_rank_used(r, moe, t->expert[i])[t->rank[i]] = 1;
  }
}

bl_status bl_planned_begin(bl_rank *r, bool *ready) {
  bl_planned *p = r->planned;
  *ready = true;
  for (int32_t moe = 0; moe < p->layers; moe++) {
    BL_TRY(take_hosts(r, p, moe));
    *ready = *ready && p->layer[moe].sized;
  }
  p->shrunk = false;
  if (!*ready) return BL_OK;
  use_all_copies(r);
  for (int32_t moe = 0; r->forced && moe < p->layers; moe++)
    for (int32_t m = 0; m < p->micro_batches; m++)
      BL_TRY(bl_rank_upload_mask(r, moe, m, p->mask[moe * p->micro_batches + m].data));
  return BL_OK;
}

bl_status bl_planned_route_on_host(bl_rank *r, int32_t layer, int32_t micro_batch, const uint32_t *counts) {
  bl_planned *p = r->planned;
  const int32_t moe = r->weights.moe_index[layer];
  bl_planned_layer *planned = &p->layer[moe];
  const bl_host_table *t = &planned->table;
  bl_route *route = &bl_rank_saved(r, layer, micro_batch)->route;
  BL_TRY(bl_route_make_room(route, (size_t)p->most_entries));
  memcpy(route->first, t->first, ((size_t)t->experts + 1) * sizeof *route->first);
  memcpy(route->host_rank, t->rank, (size_t)t->entries * sizeof *route->host_rank);
  route->entries = t->entries;
  bl_quotas_plan(t, counts, route->quota, p->scratch);
  if (grow_for(p, planned, route->quota, choices_of_rank(r)))
    BL_TRY(lay_out_bounds(r, p, planned));
  planned->sized = true;
  return bl_route_lay_out(route);
}

void bl_planned_note_counts(bl_rank *r, int32_t moe, int32_t micro_batch, const uint32_t *counts) {
  bl_planned *p = r->planned;
  const size_t n = (size_t)r->run->ranks * (size_t)p->experts;
  memcpy(p->counts + ((size_t)moe * (size_t)p->micro_batches + (size_t)micro_batch) * n, counts, n * sizeof *counts);
}

/* -- a planned step ------------------------------------------------------------------------------------------------ */

bl_status bl_planned_counts(bl_rank *r, int32_t layer, int32_t micro_batch) {
  const bl_planned *p = r->planned;
  bl_saved *a = bl_rank_saved(r, layer, micro_batch);
  const int64_t place = counts_of(p, p->counts, r->run->ranks, r->weights.moe_index[layer], micro_batch, 0) - p->counts;
  BL_TRY(bl_comm_all_gather(r->comm, r->s, a->local_counts.data, (int64_t)sizeof(uint32_t) * p->experts,
                            p->counts_on_device + place));
  bl_pool_give(r->pool, &a->local_counts);
  return BL_OK;
}

/* The route as the host knows it: sizes alone. */
static void lay_out_route(const bl_rank *r, const bl_planned_layer *layer, bl_route *route) {
  const bl_host_table *t = &layer->table;
  const bl_row_bounds *b = &layer->bounds;
  const int32_t first = t->rank_first[r->place], n = t->rank_first[r->place + 1] - first;
  for (int32_t q = 0; q < t->ranks; q++) {
    route->send_rows[q] = b->send_first[q + 1] - b->send_first[q];
    route->recv_rows[q] = b->recv_first[q + 1] - b->recv_first[q];
  }
  route->send_total = b->send_first[t->ranks];
  route->recv_total = b->recv_first[t->ranks];
  route->expert_rows = b->block_first[n];
  route->in_order = false;
  route->n_groups = 0;
  for (int32_t l = 0; l < n; l++) {
    if (b->block_first[l + 1] == b->block_first[l]) continue;
    route->group_expert[route->n_groups] = t->expert[t->rank_entry[first + l]];
    route->group_first[route->n_groups] = b->block_first[l];
    route->group_rows[route->n_groups++] = b->block_first[l + 1] - b->block_first[l];
  }
}

bl_status bl_planned_route(bl_rank *r, int32_t layer, int32_t micro_batch) {
  const bl_planned *p = r->planned;
  const int32_t moe = r->weights.moe_index[layer];
  const bl_planned_layer *planned = &p->layer[moe];
  const bl_host_table *t = &planned->table;
  bl_saved *a = bl_rank_saved(r, layer, micro_batch);
  bl_chunk quota = {0}, take = {0}, dest_row = {0};
  lay_out_route(r, planned, &a->route);
  BL_TRY(bl_take_i32(r, (int64_t)p->ranks * p->most_entries, &quota));
  BL_TRY(bl_take_i32(r, p->most_entries, &take));
  BL_TRY(bl_take_i32(r, p->most_entries, &dest_row));
  BL_TRY(bl_rank_take_order(r, a, &a->by_expert));
  BL_TRY(bl_rank_take_order(r, a, &a->by_source));
  BL_TRY(bl_take_i32(r, choices_of_rank(r), &a->row));
  const int32_t group = r->rank / p->ranks * p->ranks;
  const uint32_t *counts = counts_of(p, p->counts_on_device, r->run->ranks, moe, micro_batch, group);
  const bl_planned_rows rows = {
      .take = take.data,
      .dest_row = dest_row.data,
      .by_expert = a->by_expert.data,
      .by_source = a->by_source.data,
      .rank_rows = p->rank_rows_on_device + ((int64_t)moe * p->micro_batches + micro_batch) * p->ranks,
      .overflow = r->device_sums + r->n_sums + BL_SUM_OVERFLOW};
  const bl_ops *op = &r->be->ops;
  op->plan_quotas(r->s, quota.data, counts, &planned->device_table);
  op->plan_rows(r->s, &rows, quota.data, &planned->device_table, &planned->device_bounds, r->place);
  op->route_rows(r->s, a->row.data, a->chosen.data, choices_of_rank(r), t->experts, planned->device_table.first,
                 take.data, dest_row.data);
  bl_pool_give(r->pool, &quota);
  bl_pool_give(r->pool, &take);
  bl_pool_give(r->pool, &dest_row);
  return BL_OK;
}

void bl_planned_widen(bl_rank *r) {
  bl_planned *p = r->planned;
  const double most = p->given > MOST_HEADROOM ? p->given : MOST_HEADROOM, wider = p->headroom * HEADROOM_GROWS;
  p->headroom = wider < most ? wider : most;
  p->clean_steps = 0;
}

static void narrow(bl_planned *p) {
  if (++p->clean_steps < CLEAN_STEPS) return;
  p->clean_steps = 0;
  if (p->headroom <= p->given) return;
  const double narrower = p->headroom / HEADROOM_GROWS;
  p->headroom = narrower > p->given ? narrower : p->given;
  p->shrunk = true;
}

void bl_planned_fetch(bl_rank *r) {
  bl_planned *p = r->planned;
  const size_t plans = (size_t)p->layers * (size_t)p->micro_batches;
  r->be->to_host(r->s, p->counts, p->counts_on_device,
                 plans * (size_t)r->run->ranks * (size_t)p->experts * sizeof *p->counts);
  r->be->to_host(r->s, p->rank_rows, p->rank_rows_on_device, plans * (size_t)p->ranks * sizeof *p->rank_rows);
}

bool bl_planned_overflowed(const bl_rank *r) {
  for (int32_t p = 0; p < r->run->ranks; p++)
    if (bl_rank_sums(r, p)[r->n_sums + BL_SUM_OVERFLOW] != 0) return true;
  return false;
}

static void note_load(bl_rank *r, int32_t moe, int32_t m) {
  const bl_planned *p = r->planned;
  const uint32_t *rows = p->rank_rows + ((int64_t)moe * p->micro_batches + m) * p->ranks;
  if (r->group_tokens) {
    r->group_tokens[moe * p->micro_batches + m] = rows[r->place];
    return;
  }
  int64_t sum = 0, most = 0;
  for (int32_t q = 0; q < p->ranks; q++) {
    sum += rows[q];
    if (rows[q] > most) most = rows[q];
  }
  r->result.layer[moe].imbalance += (sum ? (double)most * p->ranks / (double)sum : 1) / p->micro_batches;
}

bl_status bl_planned_finish(bl_rank *r) {
  bl_planned *p = r->planned;
  bl_policy_outcome outcome;
  for (int32_t m = 0; m < p->micro_batches; m++)
    for (int32_t moe = 0; moe < p->layers; moe++) {
      BL_TRY(bl_rank_record_counts(r, moe, m, counts_of(p, p->counts, r->run->ranks, moe, m, 0)));
      BL_TRY(bl_rank_tell_policy(r, moe, &outcome));
      note_load(r, moe, m);
    }
  narrow(p);
  return BL_OK;
}
