/* fabric.h - what ranks of a cluster can rely on: the slowest of their devices and links, and how groups of them lie on
 * nodes and racks. */
#ifndef BL_COSTMODEL_FABRIC_H
#define BL_COSTMODEL_FABRIC_H

#include "costmodel/cluster.h"

/* A run of ranks: the worst of its devices, each number by itself. */
typedef struct bl_pace {
  double matrix_rate, core_rate; /* operations a microsecond of products with and without weights */
  double memory_gbps, memory_bytes, call_us;
} bl_pace;

/*! bl_cluster_pace() : of ranks first .. first + ranks - 1, which the cluster has, as some of `all` ranks that wait for
 *  each other: their speeds spread. */
void bl_cluster_pace(const bl_cluster *cluster, int64_t first, int64_t ranks, double all, bl_pace *out);

/* Groups of `size` ranks, `stride` apart, that a run of ranks is divided into: the worst of them, each number by
 * itself. Links are the slowest of the nodes that the run touches. */
typedef struct bl_reach {
  double size;
  double nodes, racks;  /* the most that a group has ranks in; 1: each group lies within one */
  double least, most;   /* ranks of a group in a node, of those that have any */
  double least_in_rack; /* likewise in a rack; size where racks do not matter */
  bl_link intra, inter, rack;
} bl_reach;

/*! bl_cluster_reach() : of ranks first .. first + ranks - 1, which the cluster has: runs of size * stride of them are
 *  `stride` groups. Takes time that grows with the node groups of the file and the ranks of a node. */
void bl_cluster_reach(const bl_cluster *cluster, int64_t first, int64_t ranks, int64_t size, int64_t stride,
                      bl_reach *out);

#endif
