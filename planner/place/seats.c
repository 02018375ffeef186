#include "planner/place/seats.h"
#include "base/memory.h"
#include <string.h>

/* Of an empty seat, to the first device: nothing is ever put there. */
static const double empty_speed = 1e-9;

static bl_status check(const bl_cluster *c, int32_t ranks) {
  const int64_t there = bl_cluster_ranks(c);
  if (there >= ranks) return BL_OK;
  return bl_fail(BL_EINPUT, "cluster %s has %lld ranks, fewer than %d: place on that many, or give it %lld ranks more",
                 c->name, (long long)there, ranks, (long long)(ranks - there));
}

/* Of each rank its seat and its node group. */
static void seat_all(const bl_cluster *c, int32_t ranks, int32_t *seat, int32_t *group) {
  const int32_t widest = bl_cluster_widest_node(c);
  int32_t r = 0, node = 0;
  for (int32_t i = 0; i < c->n_node_groups; i++)
    for (int32_t n = 0; n < c->node_group[i].nodes && r < ranks; n++, node++)
      for (int32_t k = 0; k < c->node_group[i].ranks_per_node && r < ranks; k++, r++)
        seat[r] = node * widest + k, group[r] = i;
}

static bl_status fill(const bl_cluster *c, const int32_t *slots, const double *speed, const int32_t *group,
                      bl_place_seats *s) {
  const char *what = "ranks of a cluster";
  const size_t ranks = (size_t)s->ranks;
  bool alike = s->seats == s->ranks && !speed;
  BL_TRY(bl_new(&s->rank, (size_t)s->seats, sizeof *s->rank, what));
  BL_TRY(bl_new(&s->slots, (size_t)s->seats, sizeof *s->slots, what));
  BL_TRY(bl_new(&s->speed, (size_t)s->seats, sizeof *s->speed, what));
  if (c) BL_TRY(bl_new(&s->budget, ranks, sizeof *s->budget, what));
  for (int32_t i = 0; i < s->seats; i++) s->speed[i] = empty_speed;
  for (int32_t r = 0; r < s->ranks; r++) {
    const int32_t at = s->seat[r], next = r + 1 < s->ranks ? s->seat[r + 1] : s->seats;
    for (int32_t i = at; i < next; i++) s->rank[i] = r;
    s->slots[at] = slots[r];
    s->speed[at] = speed ? speed[r] : 1;
    if (!c) continue;
    const bl_device *first = &c->node_group[0].device, *own = &c->node_group[group[r]].device;
    s->budget[r] = own->memory_bytes;
    if (!speed) s->speed[at] = bl_device_rate(own) / bl_device_rate(first);
    alike = alike && s->speed[at] == 1;
  }
  if (!alike) return BL_OK;
  free(s->speed);
  s->speed = NULL;
  return BL_OK;
}

bl_status bl_place_seats_create(const bl_cluster *c, int32_t ranks, const int32_t *slots, const double *speed,
                                bl_place_seats *s) {
  int32_t *group = NULL;
  memset(s, 0, sizeof *s);
  s->ranks = ranks;
  if (c) BL_TRY(check(c, ranks));
  BL_TRY(bl_new(&s->seat, (size_t)ranks, sizeof *s->seat, "ranks of a cluster"));
  bl_status status = bl_new(&group, (size_t)ranks, sizeof *group, "ranks of a cluster");
  for (int32_t r = 0; r < ranks && !c; r++) s->seat[r] = r;
  if (status == BL_OK && c) seat_all(c, ranks, s->seat, group);
  s->seats = s->seat[ranks - 1] + 1;
  if (status == BL_OK) status = fill(c, slots, speed, group, s);
  free(group);
  if (status != BL_OK) bl_place_seats_free(s);
  return status;
}

void bl_place_seats_free(bl_place_seats *s) {
  free(s->seat);
  free(s->rank);
  free(s->slots);
  free(s->speed);
  free(s->budget);
  memset(s, 0, sizeof *s);
}

bl_status bl_place_seats_demand(const bl_place_seats *s, bl_place_demand *d) {
  double *source = NULL, *sent = NULL;
  if (s->seats == s->ranks) return BL_OK;
  d->ranks = s->seats;
  BL_TRY(bl_new(&source, (size_t)d->experts * (size_t)s->seats, sizeof *source, "loads by source"));
  const bl_status status = bl_new(&sent, (size_t)s->seats, sizeof *sent, "loads by source");
  if (status != BL_OK) {
    free(source);
    return status;
  }
  for (int32_t r = 0; r < s->ranks; r++)
    for (int32_t e = 0; e < d->experts; e++) {
      const double load = d->source ? d->source[(int64_t)e * s->ranks + r] : d->load[e] / s->ranks;
      source[(int64_t)e * s->seats + s->seat[r]] = load;
      sent[s->seat[r]] += load;
    }
  free(d->source);
  free(d->sent);
  d->source = source, d->sent = sent;
  return BL_OK;
}
