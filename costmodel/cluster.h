/* cluster.h - a cluster that is not at hand: its devices and links, from a file; and the profile that follows.
 *
 *   { "version": 1, "name": "64 H100", "nodes": 8, "ranks_per_node": 8,
 *     "device": { "name": "H100 SXM", "tflops": 989, "num_bytes": 2, "memory_bytes": 80e9, "memory_gbps": 3350,
 *                 "efficiency": 0.5, "efficiency_source": "fitted to ...", "call_us": 8, "spread": 0.02,
 *                 "source": "data sheet",
 *                 "types": [ { "name": "fp8", "tflops": 1979, "efficiency": 0.35, "source": "..." } ] },
 *     "links": { "intra": { "gbps": 450, "efficiency": 0.8, "latency_us": 6, "source": "..." },
 *                "inter": { "gbps": 50, "efficiency": 0.9, "latency_us": 15, "source": "..." },
 *                "racks": { "nodes": 4, "gbps": 12.5, "latency_us": 20, "source": "..." } } }
 *
 * Strict JSON. "ranks_per_card" (default 1) consecutive ranks share a network card, which has as many times the gbps of
 * `inter`: only prices of placements weigh that. gbps are gigabytes a second of one rank and direction, of which
 * messages reach the part `efficiency` (default 1). tflops is the dense peak in the compute type of num_bytes;
 * efficiency is what of it large matrix products reach (the one number to fit on measurements), efficiency_source where
 * it comes from (default "assumed"). `types` are narrower types that products with weights may use, each with its own
 * peak and efficiency; what is kept and sent stays num_bytes wide. spread: standard deviation of the devices' speeds
 * over their mean (default 0). "racks" may be left out: then racks do not matter. Else every so many nodes, in order,
 * are a rack, which all its ranks together leave over an uplink of so many gbps for each of them.
 *
 * Nodes that are not alike stand in a list, in place of nodes and ranks_per_node:
 *   "node_groups": [ { "nodes": 100, "ranks_per_node": 8 }, { "nodes": 1, "ranks_per_node": 7 },
 *                    { "nodes": 28, "ranks_per_node": 8, "device": { "name": "A100", ... }, "links": { ... } } ]
 * A group without device, intra or inter has the file's. All devices compute with the same num_bytes. Ranks are
 * numbered along the list, node by node; a search of fewer ranks takes the first. */
#ifndef BL_COSTMODEL_CLUSTER_H
#define BL_COSTMODEL_CLUSTER_H

#include "costmodel/profile.h"

typedef struct bl_link {
  double gbps, latency_us; /* gbps: reached, efficiency included */
} bl_link;

typedef struct bl_link_origin {
  double efficiency; /* of the file's gbps */
  char source[256];
} bl_link_origin;

typedef struct bl_links {
  bl_link intra, inter;
  bl_link_origin intra_origin, inter_origin;
} bl_links;

typedef struct bl_compute_type {
  char name[16];
  int32_t num_bytes;
  double tflops, efficiency;
  char source[256]; /* of the efficiency */
} bl_compute_type;

enum { BL_CLUSTER_MAX_TYPES = 4, BL_CLUSTER_MAX_NODE_GROUPS = 32 };

typedef struct bl_device {
  char name[64];
  int32_t num_bytes, n_types;
  double tflops, memory_bytes, memory_gbps, efficiency, call_us, spread;
  char efficiency_source[256], source[512];
  bl_compute_type types[BL_CLUSTER_MAX_TYPES];
  bl_compute_type matrix; /* what products with weights use; tflops 0: that of num_bytes */
} bl_device;

/* Nodes that are alike. */
typedef struct bl_node_group {
  int32_t nodes, ranks_per_node;
  bl_device device;
  bl_links links;
} bl_node_group;

typedef struct bl_racks {
  int32_t nodes; /* of a rack; 0: racks do not matter */
  bl_link link;  /* between racks, of one rank and direction */
  bl_link_origin origin;
} bl_racks;

typedef struct bl_cluster {
  char name[64];
  int32_t ranks_per_card, n_node_groups;
  bl_node_group node_group[BL_CLUSTER_MAX_NODE_GROUPS]; /* in the order of the ranks; at least one */
  bl_racks racks;
  const struct bl_profiled *measured; /* in the place of data sheets (planner/search/profiled.h); borrowed, or NULL */
} bl_cluster;

bl_status bl_cluster_load(const char *path, bl_cluster *out);

/*! bl_cluster_save() : writes a cluster that was loaded, with what has changed since. */
bl_status bl_cluster_save(const char *path, const bl_cluster *cluster);

/*! bl_cluster_parse() : the same from text in memory, a NUL after `size` bytes; `name` stands for the file in messages.
 */
bl_status bl_cluster_parse(const char *name, const char *text, uint64_t size, bl_cluster *out);

/*! bl_cluster_ranks() : of all nodes together, at most 2^30.  bl_cluster_widest_node(),
 *  bl_cluster_narrowest_node() : ranks of the largest and of the smallest node. */
int64_t bl_cluster_ranks(const bl_cluster *cluster);
int32_t bl_cluster_widest_node(const bl_cluster *cluster);
int32_t bl_cluster_narrowest_node(const bl_cluster *cluster);

/*! bl_cluster_narrow() : uses at most `ranks` ranks of each node from now on. */
void bl_cluster_narrow(bl_cluster *cluster, int32_t ranks);

/*! bl_cluster_use_type() : products with weights from now on in `name` of the types that all devices of the file have,
 *  or in that of num_bytes where name is NULL.  @return : BL_OK, or BL_EINPUT naming the types that there are. */
bl_status bl_cluster_use_type(bl_cluster *cluster, const char *name);

/*! bl_device_rate() : floating point operations a microsecond that products with weights reach on a device;
 *  bl_device_core_rate() : likewise products without, which stay in the type of num_bytes. */
double bl_device_rate(const bl_device *device);
double bl_device_core_rate(const bl_device *device);

/*! bl_device_slowest() : time on the slowest of `ranks` devices over that on the mean one: 1 + spread times the
 *  expectation of the largest of so many normal deviates (H. Cramer, Mathematical Methods of Statistics, 28.6). */
double bl_device_slowest(const bl_device *device, double ranks);

/*! bl_cluster_profile() : what each kind of work of `model` takes on `ranks` ranks of the cluster: the longer of its
 *  arithmetic at tflops * efficiency and its bytes at memory_gbps, plus call_us, on the slowest device of these ranks;
 *  messages at latency plus bytes over the slowest link that they use. An estimate from data sheets: measured curves
 *  replace it where there are any.
 *  @return : BL_OK, or BL_EINPUT where the cluster has fewer ranks. */
bl_status bl_cluster_profile(const bl_cluster *cluster, const bl_model *model, int32_t ranks, bl_profile *out);

#endif
