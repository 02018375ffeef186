#include "planner/search/positions.h"
#include "planner/search/profiled.h"
#include <string.h>

static double larger(double a, double b) { return a > b ? a : b; }
static double smaller(double a, double b) { return a < b ? a : b; }

/* A link within nodes as measured, where it was: on nodes with faster links faster. */
static bl_link inside(const bl_cluster *c, const bl_link *measured, bl_link sheet) {
  if (!measured || !(measured->gbps > 0)) return sheet;
  return (bl_link){measured->gbps * sheet.gbps / c->measured->sheet.gbps, measured->latency_us};
}

/* The slowest link within groups; in a node as `measured`. */
static bl_link slowest_link(const bl_cluster *c, const bl_reach *r, const bl_link *measured) {
  return r->racks > 1 ? r->rack : r->nodes > 1 ? r->inter : inside(c, measured, r->intra);
}

/* The link between a position and the next: within a node only where both lie in one. */
static bl_link between(const bl_cluster *c, int64_t first, int64_t ranks) {
  bl_reach both;
  bl_cluster_reach(c, first, ranks, ranks, 1, &both);
  return slowest_link(c, &both, c->measured ? &c->measured->transfer : NULL);
}

static void use_measured_links(const bl_cluster *c, bl_position_view *v) {
  bl_reach *const rings[] = {&v->tp, &v->cp, &v->etp, &v->dense, &v->shard, &v->replicas, &v->experts};
  v->fill = slowest_link(c, &v->ep, &c->measured->transfer);
  v->reduce = slowest_link(c, &v->ep, &c->measured->accumulate);
  v->ep.intra = inside(c, &c->measured->exchange, v->ep.intra);
  for (size_t i = 0; i < sizeof rings / sizeof *rings; i++)
    rings[i]->intra = inside(c, &c->measured->all_reduce, rings[i]->intra);
}

static void look(const bl_cluster *c, const bl_grid *g, int32_t position, bl_position_view *v) {
  const int64_t ranks = (int64_t)g->tp * g->cp * g->dp, first = position * ranks, all = ranks * g->pp;
  const int32_t shard = (int32_t)bl_grid_shard(g), replicas = g->dp * g->cp / shard;
  bl_cluster_pace(c, first, ranks, (double)all, &v->pace);
  bl_cluster_reach(c, first, ranks, g->tp, 1, &v->tp);
  bl_cluster_reach(c, first, ranks, g->cp, g->tp, &v->cp);
  bl_cluster_reach(c, first, ranks, g->etp, 1, &v->etp);
  bl_cluster_reach(c, first, ranks, g->ep, g->etp, &v->ep);
  bl_cluster_reach(c, first, ranks, (int64_t)g->dp * g->cp, g->tp, &v->dense);
  bl_cluster_reach(c, first, ranks, shard, g->tp, &v->shard);
  bl_cluster_reach(c, first, ranks, replicas, (int64_t)shard * g->tp, &v->replicas);
  bl_cluster_reach(c, first, ranks, g->edp < shard ? g->edp : shard, (int64_t)g->etp * g->ep, &v->experts);
  v->fill = v->reduce = slowest_link(c, &v->ep, NULL);
  if (c->measured) use_measured_links(c, v);
  v->down = position + 1 < g->pp ? between(c, first, 2 * ranks) : between(c, 0, all);
  v->up = position > 0 ? between(c, first - ranks, 2 * ranks) : between(c, 0, all);
}

static bl_link slower(bl_link a, bl_link b) {
  return (bl_link){smaller(a.gbps, b.gbps), larger(a.latency_us, b.latency_us)};
}

static void worsen(bl_reach *r, const bl_reach *by) {
  r->nodes = larger(r->nodes, by->nodes), r->racks = larger(r->racks, by->racks);
  r->least = smaller(r->least, by->least), r->most = larger(r->most, by->most);
  r->least_in_rack = smaller(r->least_in_rack, by->least_in_rack);
  r->intra = slower(r->intra, by->intra), r->inter = slower(r->inter, by->inter), r->rack = slower(r->rack, by->rack);
}

static void merge(bl_position_view *v, const bl_position_view *by) {
  bl_reach *const mine[] = {&v->tp, &v->cp, &v->ep, &v->etp, &v->dense, &v->shard, &v->replicas, &v->experts};
  const bl_reach *const its[] = {&by->tp,    &by->cp,    &by->ep,       &by->etp,
                                 &by->dense, &by->shard, &by->replicas, &by->experts};
  for (size_t i = 0; i < sizeof mine / sizeof *mine; i++) worsen(mine[i], its[i]);
  v->pace.matrix_rate = smaller(v->pace.matrix_rate, by->pace.matrix_rate);
  v->pace.core_rate = smaller(v->pace.core_rate, by->pace.core_rate);
  v->pace.memory_gbps = smaller(v->pace.memory_gbps, by->pace.memory_gbps);
  v->pace.memory_bytes = smaller(v->pace.memory_bytes, by->pace.memory_bytes);
  v->pace.call_us = larger(v->pace.call_us, by->pace.call_us);
  v->fill = slower(v->fill, by->fill), v->reduce = slower(v->reduce, by->reduce);
  v->down = slower(v->down, by->down), v->up = slower(v->up, by->up);
}

void bl_positions_of(const bl_cluster *c, const bl_grid *g, bl_positions *out) {
  const bl_device *device = &c->node_group[0].device;
  out->pp = g->pp, out->kinds = 0, out->num_bytes = device->num_bytes, out->measured = c->measured;
  for (int32_t d = 0; d < g->pp; d++) {
    bl_position_view view;
    int32_t kind = 0;
    look(c, g, d, &view);
    /* Numbers alone, no padding between them. */
    while (kind < out->kinds && memcmp(&out->view[kind], &view, sizeof view) != 0) kind++;
    if (kind == BL_POSITION_KINDS)
      merge(&out->view[--kind], &view);
    else if (kind == out->kinds)
      out->view[kind] = view, out->count[kind] = 0, out->kinds++;
    out->kind[d] = (uint8_t)kind;
    out->count[kind]++;
  }
  for (int32_t k = 0; k < out->kinds; k++) out->memory_share[k] = out->view[k].pace.memory_bytes / device->memory_bytes;
}

double bl_positions_share(const bl_positions *p, const double (*us)[BL_ITEM_COUNT], const int32_t *count, double *sum) {
  double least[BL_ITEM_COUNT], positions = 0, dearest = 0;
  *sum = 0;
  for (int i = 0; i < BL_ITEM_COUNT; i++) {
    least[i] = us[0][i];
    for (int32_t k = 1; k < p->kinds; k++) least[i] = smaller(least[i], us[k][i]);
    if (count[i] > 0) *sum += count[i] * least[i], dearest = larger(dearest, least[i]);
  }
  if (p->kinds == 1) return larger(*sum / p->pp, dearest);
  for (int32_t k = 0; k < p->kinds; k++) {
    double ratio = 0;
    for (int i = 0; i < BL_ITEM_COUNT; i++)
      if (count[i] > 0 && least[i] > 0 && (ratio == 0 || us[k][i] / least[i] < ratio)) ratio = us[k][i] / least[i];
    positions += p->count[k] / larger(ratio, 1);
  }
  return larger(*sum / positions, dearest);
}
