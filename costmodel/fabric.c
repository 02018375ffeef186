#include "costmodel/fabric.h"
#include <string.h>

static int64_t least_of(int64_t a, int64_t b) { return a < b ? a : b; }
static double larger(double a, double b) { return a > b ? a : b; }
static double smaller(double a, double b) { return a < b ? a : b; }

/* -- devices and links --------------------------------------------------------------------------------------------- */

/* The node groups that a run of ranks touches: indices first .. last. */
static void groups_of(const bl_cluster *c, int64_t first, int64_t ranks, int32_t *from, int32_t *to) {
  int64_t end = 0;
  *from = -1;
  for (*to = 0; *to < c->n_node_groups; ++*to) {
    end += (int64_t)c->node_group[*to].nodes * c->node_group[*to].ranks_per_node;
    if (*from < 0 && first < end) *from = *to;
    if (first + ranks <= end) return;
  }
  *to = c->n_node_groups - 1;
  if (*from < 0) *from = *to;
}

void bl_cluster_pace(const bl_cluster *c, int64_t first, int64_t ranks, double all, bl_pace *out) {
  int32_t from, to;
  groups_of(c, first, ranks, &from, &to);
  for (int32_t i = from; i <= to; i++) {
    const bl_device *d = &c->node_group[i].device;
    const double slowest = bl_device_slowest(d, all);
    const bl_pace p = {bl_device_rate(d) / slowest, bl_device_core_rate(d) / slowest, d->memory_gbps, d->memory_bytes,
                       d->call_us};
    if (i == from) *out = p;
    out->matrix_rate = smaller(out->matrix_rate, p.matrix_rate);
    out->core_rate = smaller(out->core_rate, p.core_rate);
    out->memory_gbps = smaller(out->memory_gbps, p.memory_gbps);
    out->memory_bytes = smaller(out->memory_bytes, p.memory_bytes);
    out->call_us = larger(out->call_us, p.call_us);
  }
}

static bl_link slower(bl_link a, bl_link b) {
  return (bl_link){smaller(a.gbps, b.gbps), larger(a.latency_us, b.latency_us)};
}

/* -- groups on nodes ----------------------------------------------------------------------------------------------- */

/* Nodes or racks of as many ranks each, one behind the other. */
typedef struct run {
  int64_t cells, ranks;
} run;

/* Groups on cells: the most that one touches, least and most of its ranks in one. */
typedef struct spread {
  int64_t cells, least, most;
} spread;

/* A block of size * stride ranks as far as it has been walked. */
typedef struct block {
  int64_t size, stride, at, cells;
} block;

/* `cells` whole or cut ones of `ranks` ranks each: of a group that has any there, so many. */
static void enter(block *b, spread *s, int64_t cells, int64_t ranks) {
  const int64_t whole = ranks / b->stride, least = whole > 0 ? whole : 1, most = whole + (ranks % b->stride > 0);
  if (least < s->least) s->least = least;
  if (most > s->most) s->most = most;
  b->at += cells * ranks;
  b->cells += cells;
  if (least_of(b->cells, b->size) > s->cells) s->cells = least_of(b->cells, b->size);
  if (b->at == b->size * b->stride) b->at = b->cells = 0;
}

/* The part of a run of cells, from its rank `at` to its rank `end`. Blocks that begin at the same place of a cell are
 * alike: once one such place has come back, all that is left of the run repeats what was walked. */
static void walk(const run *r, int64_t at, int64_t end, block *b, spread *s) {
  int64_t seen = -1, seen_at = 0;
  const int64_t whole = b->size * b->stride;
  while (at < end) {
    const int64_t offset = at % r->ranks;
    if (b->at == 0 && offset == seen) {
      const int64_t period = at - seen_at;
      at += (end - at) / period * period;
      seen = -1;
      if (at == end) return;
    }
    if (b->at == 0 && seen < 0) seen = offset, seen_at = at;
    const int64_t left = least_of(whole - b->at, end - at);
    int64_t cells = 1, ranks = least_of(r->ranks - offset, left);
    if (offset == 0 && left >= r->ranks) cells = left / r->ranks, ranks = r->ranks;
    enter(b, s, cells, ranks);
    at += cells * ranks;
  }
}

static spread spread_over(const run *runs, int32_t n, int64_t first, int64_t ranks, int64_t size, int64_t stride) {
  spread s = {1, size, 1};
  block b = {.size = size, .stride = stride};
  const int64_t end = first + ranks;
  int64_t begin = 0;
  for (int32_t i = 0; i < n && begin < end; i++) {
    const int64_t all = runs[i].cells * runs[i].ranks, from = first > begin ? first - begin : 0;
    if (from < all) walk(&runs[i], from, least_of(all, end - begin), &b, &s);
    begin += all;
  }
  return s;
}

/* Racks of `nodes` nodes each, in the order of the list; those with nodes of several groups stand for themselves.
 * runs[3 * groups]. */
static int32_t list_racks(const bl_cluster *c, run *runs) {
  const int64_t nodes = c->racks.nodes;
  int64_t filled = 0, ranks = 0; /* of a rack begun in an earlier group */
  int32_t n = 0;
  for (int32_t i = 0; i < c->n_node_groups; i++) {
    const int64_t each = c->node_group[i].ranks_per_node;
    int64_t left = c->node_group[i].nodes;
    if (filled > 0) {
      const int64_t more = least_of(nodes - filled, left);
      left -= more, filled += more, ranks += more * each;
      if (filled == nodes) runs[n++] = (run){1, ranks}, filled = ranks = 0;
    }
    if (left >= nodes) runs[n++] = (run){left / nodes, nodes * each};
    if (left % nodes > 0 && filled == 0) filled = left % nodes, ranks = filled * each;
  }
  if (filled > 0) runs[n++] = (run){1, ranks};
  return n;
}

void bl_cluster_reach(const bl_cluster *c, int64_t first, int64_t ranks, int64_t size, int64_t stride, bl_reach *out) {
  run runs[3 * BL_CLUSTER_MAX_NODE_GROUPS];
  int32_t from, to;
  groups_of(c, first, ranks, &from, &to);
  for (int32_t i = 0; i < c->n_node_groups; i++)
    runs[i] = (run){c->node_group[i].nodes, c->node_group[i].ranks_per_node};
  const spread nodes = spread_over(runs, c->n_node_groups, first, ranks, size, stride);
  *out = (bl_reach){.size = (double)size,
                    .nodes = (double)nodes.cells,
                    .racks = 1,
                    .least = (double)nodes.least,
                    .most = (double)nodes.most,
                    .least_in_rack = (double)size,
                    .intra = c->node_group[from].links.intra,
                    .inter = c->node_group[from].links.inter,
                    .rack = c->racks.link};
  for (int32_t i = from + 1; i <= to; i++) {
    out->intra = slower(out->intra, c->node_group[i].links.intra);
    out->inter = slower(out->inter, c->node_group[i].links.inter);
  }
  if (c->racks.nodes == 0) return;
  const spread racks = spread_over(runs, list_racks(c, runs), first, ranks, size, stride);
  out->racks = (double)racks.cells;
  out->least_in_rack = (double)racks.least;
}
