/* route.c - sizes, destination rows and expert order of one exchange. */
#include "executor/route.h"
#include "base/memory.h"
#include <string.h>

bl_status bl_route_create(int32_t ranks, int32_t experts, int32_t rank, bl_route *out) {
  *out = (bl_route){.ranks = ranks, .experts = experts, .rank = rank};
  const size_t e = (size_t)experts, r = (size_t)ranks;
  BL_TRY(bl_new(&out->first, e + 1, sizeof *out->first, "routing tables"));
  BL_TRY(bl_new(&out->rank_tokens, r, sizeof *out->rank_tokens, "routing tables"));
  BL_TRY(bl_new(&out->source_at, r, sizeof *out->source_at, "routing tables"));
  BL_TRY(bl_new(&out->send_rows, r, sizeof *out->send_rows, "routing tables"));
  BL_TRY(bl_new(&out->recv_rows, r, sizeof *out->recv_rows, "routing tables"));
  BL_TRY(bl_new(&out->group_expert, e, sizeof *out->group_expert, "routing tables"));
  BL_TRY(bl_new(&out->group_first, e, sizeof *out->group_first, "routing tables"));
  return bl_new(&out->group_rows, e, sizeof *out->group_rows, "routing tables");
}

void bl_route_free(bl_route *route) {
  free(route->first);
  free(route->host_rank);
  free(route->quota);
  free(route->dest_row);
  free(route->rank_tokens);
  free(route->source_at);
  free(route->send_rows);
  free(route->recv_rows);
  free(route->group_expert);
  free(route->group_first);
  free(route->group_rows);
  free(route->by_expert);
  free(route->by_source);
  *route = (bl_route){0};
}

/* Send side: sizes to each peer, and where each host entry's rows begin. */
static void lay_out_send(bl_route *r) {
  const uint32_t *mine = r->quota + (size_t)r->rank * (size_t)r->entries;
  memset(r->send_rows, 0, (size_t)r->ranks * sizeof *r->send_rows);
  for (int32_t i = 0; i < r->entries; i++) {
    r->dest_row[i] = (int32_t)r->send_rows[r->host_rank[i]]; /* experts ascend within a peer's block */
    r->send_rows[r->host_rank[i]] += mine[i];
  }
  int32_t start = 0;
  for (int32_t p = 0; p < r->ranks; p++) {
    r->source_at[p] = start;
    start += (int32_t)r->send_rows[p];
  }
  for (int32_t i = 0; i < r->entries; i++) r->dest_row[i] += r->source_at[r->host_rank[i]];
  r->send_total = start;
}

/* Receive side: sizes, groups, and the permutation between received and expert order. */
static bl_status lay_out_receive(bl_route *r) {
  const size_t entries = (size_t)r->entries;
  memset(r->rank_tokens, 0, (size_t)r->ranks * sizeof *r->rank_tokens);
  memset(r->recv_rows, 0, (size_t)r->ranks * sizeof *r->recv_rows);
  for (int32_t s = 0; s < r->ranks; s++)
    for (int32_t i = 0; i < r->entries; i++) {
      const uint32_t n = r->quota[(size_t)s * entries + (size_t)i];
      r->rank_tokens[r->host_rank[i]] += n;
      if (r->host_rank[i] == r->rank) r->recv_rows[s] += n;
    }
  r->recv_total = (int32_t)r->rank_tokens[r->rank];
  const size_t total = (size_t)r->recv_total;
  BL_TRY(bl_grow(&r->by_expert, &r->by_expert_room, total + 1, sizeof *r->by_expert, "routing tables"));
  BL_TRY(bl_grow(&r->by_source, &r->by_source_room, total + 1, sizeof *r->by_source, "routing tables"));

  for (int32_t s = 0, start = 0; s < r->ranks; s++) {
    r->source_at[s] = start;
    start += (int32_t)r->recv_rows[s];
  }
  int32_t row = 0;
  r->n_groups = 0;
  r->in_order = true;
  for (int32_t e = 0; e < r->experts; e++)
    for (int32_t i = r->first[e]; i < r->first[e + 1]; i++) {
      if (r->host_rank[i] != r->rank) continue;
      const int32_t group_first = row;
      for (int32_t s = 0; s < r->ranks; s++)
        for (uint32_t k = 0; k < r->quota[(size_t)s * entries + (size_t)i]; k++, row++) {
          const int32_t at = r->source_at[s]++;
          r->by_expert[row] = at;
          r->by_source[at] = row;
          r->in_order = r->in_order && at == row;
        }
      if (row == group_first) continue;
      r->group_expert[r->n_groups] = e;
      r->group_first[r->n_groups] = group_first;
      r->group_rows[r->n_groups++] = row - group_first;
    }
  r->expert_rows = row;
  return BL_OK;
}

bl_status bl_route_make_room(bl_route *route, size_t entries) {
  const size_t cells = entries * (size_t)route->ranks;
  BL_TRY(bl_grow(&route->host_rank, &route->host_rank_room, entries, sizeof *route->host_rank, "routing tables"));
  BL_TRY(bl_grow(&route->dest_row, &route->dest_row_room, entries, sizeof *route->dest_row, "routing tables"));
  return bl_grow(&route->quota, &route->quota_room, cells, sizeof *route->quota, "routing tables");
}

bl_status bl_route_lay_out(bl_route *route) {
  lay_out_send(route);
  return lay_out_receive(route);
}

bl_status bl_route_build(bl_route *route, const bl_hosts *hosts, const bl_shares *shares, const uint32_t *counts) {
  BL_TRY(bl_route_make_room(route, (size_t)route->experts + (size_t)hosts->n_copy_slots));
  BL_TRY(bl_quota_build(hosts, shares, counts, route->ranks, 0, route->first, route->host_rank, route->quota));
  route->entries = route->first[route->experts];
  return bl_route_lay_out(route);
}

bl_route_tables bl_route_upload(const bl_route *route, bl_backend *be, bl_stream *s) {
  const size_t column = (size_t)route->entries * sizeof *route->quota;
  const bl_host_part parts[] = {{route->first, ((size_t)route->experts + 1) * sizeof *route->first},
                                {route->quota + (size_t)route->rank * (size_t)route->entries, column},
                                {route->dest_row, column}};
  const void *device[3];
  be->upload(s, parts, 3, device);
  return (bl_route_tables){.first = device[0], .quota = device[1], .dest_row = device[2]};
}

double bl_route_imbalance(const bl_route *route) {
  int64_t sum = 0, most = 0;
  for (int32_t r = 0; r < route->ranks; r++) {
    sum += route->rank_tokens[r];
    if (route->rank_tokens[r] > most) most = route->rank_tokens[r];
  }
  return sum ? (double)most * route->ranks / (double)sum : 1;
}
