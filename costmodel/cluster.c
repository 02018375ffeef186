/* cluster.c - what a cluster has. */
#include "costmodel/cluster.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

int64_t bl_cluster_ranks(const bl_cluster *c) {
  int64_t ranks = 0;
  for (int32_t i = 0; i < c->n_node_groups; i++)
    ranks += (int64_t)c->node_group[i].nodes * c->node_group[i].ranks_per_node;
  return ranks;
}

int32_t bl_cluster_widest_node(const bl_cluster *c) {
  int32_t widest = 0;
  for (int32_t i = 0; i < c->n_node_groups; i++)
    if (c->node_group[i].ranks_per_node > widest) widest = c->node_group[i].ranks_per_node;
  return widest;
}

int32_t bl_cluster_narrowest_node(const bl_cluster *c) {
  int32_t narrowest = c->node_group[0].ranks_per_node;
  for (int32_t i = 1; i < c->n_node_groups; i++)
    if (c->node_group[i].ranks_per_node < narrowest) narrowest = c->node_group[i].ranks_per_node;
  return narrowest;
}

void bl_cluster_narrow(bl_cluster *c, int32_t ranks) {
  for (int32_t i = 0; i < c->n_node_groups; i++)
    if (c->node_group[i].ranks_per_node > ranks) c->node_group[i].ranks_per_node = ranks;
}

static bl_status use_type(const bl_cluster *c, bl_device *d, const char *name) {
  char known[128] = "";
  memset(&d->matrix, 0, sizeof d->matrix);
  if (!name) return BL_OK;
  for (int32_t i = 0; i < d->n_types; i++) {
    const size_t used = strlen(known);
    if (strcmp(d->types[i].name, name) == 0) d->matrix = d->types[i];
    snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", d->types[i].name);
  }
  if (d->matrix.tflops > 0) return BL_OK;
  return bl_fail(BL_EINPUT, "cluster %s, device %s: expected one of its device.types (%s), found %s", c->name, d->name,
                 d->n_types ? known : "there are none", name);
}

bl_status bl_cluster_use_type(bl_cluster *c, const char *name) {
  for (int32_t i = 0; i < c->n_node_groups; i++) BL_TRY(use_type(c, &c->node_group[i].device, name));
  return BL_OK;
}

double bl_device_core_rate(const bl_device *d) { return d->tflops * d->efficiency * 1e6; }

double bl_device_rate(const bl_device *d) {
  return d->matrix.tflops > 0 ? d->matrix.tflops * d->matrix.efficiency * 1e6 : bl_device_core_rate(d);
}

double bl_device_slowest(const bl_device *d, double ranks) {
  if (ranks < 2) return 1;
  const double pi = 3.14159265358979323846, root = sqrt(2 * log(ranks));
  const double largest = root - (log(log(ranks)) + log(4 * pi)) / (2 * root);
  return 1 + d->spread * (largest > 0 ? largest : 0);
}
