/* cluster.h - a cluster that is not at hand: its devices and links, from a file; and the profile that follows.
 *
 *   { "version": 1, "name": "64 H100", "nodes": 8, "ranks_per_node": 8,
 *     "device": { "name": "H100 SXM", "tflops": 989, "num_bytes": 2, "memory_bytes": 80e9, "memory_gbps": 3350,
 *                 "efficiency": 0.5, "call_us": 8, "source": "data sheet" },
 *     "links": { "intra": { "gbps": 450, "latency_us": 6, "source": "..." },
 *                "inter": { "gbps": 50, "latency_us": 15, "source": "..." } } }
 *
 * Strict JSON. gbps are gigabytes a second of one rank and direction; tflops is the dense peak in the compute type of
 * num_bytes; efficiency is what of it large matrix products reach (the one number to fit on measurements). */
#ifndef BL_COSTMODEL_CLUSTER_H
#define BL_COSTMODEL_CLUSTER_H

#include "costmodel/profile.h"

typedef struct bl_link {
  double gbps, latency_us;
} bl_link;

typedef struct bl_cluster {
  char name[64], device[64];
  int32_t nodes, ranks_per_node, num_bytes;
  double tflops, memory_bytes, memory_gbps, efficiency, call_us;
  bl_link intra, inter;
} bl_cluster;

bl_status bl_cluster_load(const char *path, bl_cluster *out);

/*! bl_cluster_profile() : what each kind of work of `model` takes on `ranks` ranks of the cluster: the longer of its
 *  arithmetic at tflops * efficiency and its bytes at memory_gbps, plus call_us; messages at latency plus bytes over
 * the slowest link that they use. An estimate from data sheets: measured curves replace it where there are any.
 *  @return : BL_OK, or BL_EINPUT where the cluster has fewer ranks. */
bl_status bl_cluster_profile(const bl_cluster *cluster, const bl_model *model, int32_t ranks, bl_profile *out);

#endif
