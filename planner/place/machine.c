#include "planner/place/machine.h"
#include "base/memory.h"
#include "costmodel/fabric.h"
#include <stdio.h>
#include <string.h>

enum { GRADIENT_BYTES = 4, MOMENT_BYTES = 8, MASTER_BYTES = 4 };

/* Nodes have as many seats as the widest one; links are the slowest of all. */
static void set_levels(const bl_cluster *cluster, const bl_place_rack *rack, const bl_place_seats *seats,
                       bl_place_machine *out) {
  const int32_t node = bl_cluster_widest_node(cluster);
  const int64_t in_rack = (int64_t)rack->nodes * node;
  bl_reach all;
  bl_cluster_reach(cluster, 0, seats->ranks, seats->ranks, 1, &all);
  out->levels = 1;
  out->level[0] = (bl_place_level){node, 1, all.intra.gbps, all.intra.latency_us};
  if (all.nodes < 2) {
    out->level[0].ranks = seats->seats;
    return;
  }
  out->levels = 2;
  out->level[1] = (bl_place_level){0, cluster->ranks_per_card, all.inter.gbps, all.inter.latency_us};
  if (in_rack > 0 && in_rack < seats->seats) {
    out->levels = 3;
    out->level[1].ranks = (int32_t)in_rack;
    out->level[2] = (bl_place_level){0, 1, rack->gbps, rack->latency_us};
  }
  const int32_t inner = out->level[out->levels - 2].ranks;
  out->level[out->levels - 1].ranks = (seats->seats + inner - 1) / inner * inner;
}

static bl_status curve_of(const bl_profile *profile, bl_curve_kind kind, const bl_curve **out) {
  *out = &profile->curves[kind];
  if ((*out)->n > 0) return BL_OK;
  return bl_fail(BL_EINPUT, "the profile has no curve %s, which the price of a placement needs", bl_curve_names[kind]);
}

/* One level, as measured between two ranks: latency is what the smallest message takes beyond its bytes. */
static bl_status set_measured_level(const bl_profile *profile, int32_t ranks, bl_place_machine *out) {
  const bl_curve *curve;
  BL_TRY(curve_of(profile, BL_CURVE_TRANSFER, &curve));
  const double far = curve->x[curve->n - 1], us = bl_curve_at(curve, 2 * far) - bl_curve_at(curve, far);
  const double per_byte = us > 0 ? us / far : bl_curve_at(curve, far) / far;
  const double latency_us = curve->us[0] - per_byte * curve->x[0];
  out->levels = 1;
  out->level[0] = (bl_place_level){ranks, 1, 1e-3 / per_byte, latency_us > 0 ? latency_us : 0};
  return BL_OK;
}

static bl_status set_token(const bl_profile *profile, double rows, bl_place_machine *out) {
  static const bl_curve_kind kinds[] = {BL_CURVE_EXPERT_FWD, BL_CURVE_EXPERT_DX, BL_CURVE_EXPERT_DW};
  const double at = rows > 1 ? rows : 1;
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; ++i) {
    const bl_curve *curve;
    BL_TRY(curve_of(profile, kinds[i], &curve));
    out->token_us += bl_curve_at(curve, at) / at;
  }
  return BL_OK;
}

/* The time of a token on the first device, from its data sheet. */
static bl_status set_sheet_token(const bl_cluster *cluster, const bl_model *model, double rows, bl_place_machine *out) {
  bl_profile *sheet;
  BL_TRY(bl_new(&sheet, 1, sizeof *sheet, "a profile"));
  bl_status status = bl_cluster_profile(cluster, model, 1, sheet);
  if (status == BL_OK) status = set_token(sheet, rows, out);
  free(sheet);
  return status;
}

bl_status bl_place_machine_make(const bl_cluster *cluster, const bl_profile *profile, const bl_model *model,
                                const bl_place_rack *rack, const bl_place_seats *seats, double rows,
                                bl_place_machine *out) {
  memset(out, 0, sizeof *out);
  if (model->experts < 1) return bl_fail(BL_EINPUT, "model %s has no experts to place", model->name);
  const double parameters = (double)bl_model_part_parameters(model, BL_PART_EXPERT);
  int32_t num_bytes;
  if (profile)
    num_bytes = profile->num_bytes;
  else if (cluster)
    num_bytes = cluster->node_group[0].device.num_bytes;
  else
    return bl_fail(BL_EINPUT, "the price of a placement needs a cluster or a profile");
  out->ranks = seats->seats;
  out->speed = seats->speed;
  out->exchanges = 4;
  out->micro_batches = 1;
  out->horizon = 1;
  out->row_bytes = (double)model->hidden * num_bytes;
  out->fill_bytes = parameters * num_bytes;
  out->reduce_bytes = parameters * GRADIENT_BYTES;
  out->state_bytes = parameters * (MOMENT_BYTES + MASTER_BYTES + (num_bytes < MASTER_BYTES ? num_bytes : 0));
  if (cluster)
    set_levels(cluster, rack, seats, out);
  else
    BL_TRY(set_measured_level(profile, seats->ranks, out));
  if (profile)
    BL_TRY(set_token(profile, rows, out));
  else
    BL_TRY(set_sheet_token(cluster, model, rows, out));
  return bl_place_machine_check(out);
}

/* -- memory -------------------------------------------------------------------------------------------------------- */

void bl_place_memory_make(const bl_model *model, int32_t num_bytes, int32_t layers, const double *budget,
                          bl_place_memory *out) {
  const double parameters = (double)bl_model_part_parameters(model, BL_PART_EXPERT);
  *out = (bl_place_memory){.slot_bytes = parameters * (num_bytes + GRADIENT_BYTES),
                           .state_bytes = parameters * (MOMENT_BYTES + (num_bytes < MASTER_BYTES ? MASTER_BYTES : 0)),
                           .row_bytes = 2.0 * model->hidden * num_bytes, /* received, and the result to send back */
                           .budget = budget,
                           .layers = layers};
}

double bl_place_memory_bytes(const bl_place_memory *m, int32_t slots, int64_t homes, double rows) {
  return (double)m->layers * slots * m->slot_bytes + (double)homes * m->state_bytes + rows * m->row_bytes;
}

/* The most slots of a rank with so many homes that fit; less than `homes` where not even these do. */
static int32_t slots_that_fit(const bl_place_memory *m, int32_t rank, int32_t homes, double rows, int32_t most) {
  int32_t slots = most;
  while (slots >= 0 &&
         bl_place_memory_bytes(m, slots, (int64_t)m->layers * (homes < slots ? homes : slots), rows) > m->budget[rank])
    --slots;
  return slots;
}

bl_status bl_place_memory_check(const bl_place_memory *m, int32_t experts, int32_t ranks, const int32_t *slots,
                                double rows) {
  const int32_t each = (experts + ranks - 1) / ranks;
  int64_t room = 0;
  for (int32_t r = 0; r < ranks; ++r) room += slots[r];
  if (room < experts)
    return bl_fail(BL_EINPUT,
                   "%lld slots on %d ranks hold %lld experts fewer than the %d there are: expected %d slots a "
                   "rank, or %lld more in all",
                   (long long)room, ranks, (long long)(experts - room), experts, each, (long long)(experts - room));
  for (int32_t r = 0; r < ranks; ++r) {
    const int32_t homes = slots[r] < each ? slots[r] : each;
    const double bytes = bl_place_memory_bytes(m, slots[r], (int64_t)m->layers * homes, rows);
    if (bytes <= m->budget[r]) continue;
    const int32_t fit = slots_that_fit(m, r, homes, rows, slots[r]);
    char change[160];
    if (fit >= homes)
      snprintf(change, sizeof change, "%d slots fit", fit);
    else if (fit > 0)
      snprintf(change, sizeof change, "not even its %d homes fit, %d experts do: %d ranks would hold all", homes, fit,
               (experts + fit - 1) / fit);
    else
      snprintf(change, sizeof change,
               "not one expert fits: fewer layers a rank (%d now), or fewer tokens a micro-batch", m->layers);
    return bl_fail(BL_EINPUT,
                   "memory of rank %d: %d slots and %d homes in %d layers take %.3f GB, buffers for %.0f tokens %.3f "
                   "GB: %.3f GB more than the %.3f GB there are; %s",
                   r, slots[r], homes, m->layers, (bytes - rows * m->row_bytes) * 1e-9, rows,
                   rows * m->row_bytes * 1e-9, (bytes - m->budget[r]) * 1e-9, m->budget[r] * 1e-9, change);
  }
  return BL_OK;
}
