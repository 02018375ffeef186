/* machine.h - the machine that a placement is priced on (cost.h), from a cluster file or a measured profile, and what
 * the placement takes of a rank's memory. */
#ifndef BL_PLANNER_PLACE_MACHINE_H
#define BL_PLANNER_PLACE_MACHINE_H

#include "costmodel/cluster.h"
#include "planner/place/seats.h"

typedef struct bl_place_rack {
  int32_t nodes; /* of one rack; 0: racks do not matter */
  double gbps;   /* between racks, of one rank and direction */
  double latency_us;
} bl_place_rack;

/*! bl_place_machine_make() : of all seats: links of `cluster` (levels: node, nodes, racks where rack->nodes > 0; as
 * many as they need; each the slowest of all nodes), or where it is NULL one level from the profile's `transfer` curve;
 * the time of a token at speed 1 from the profile's expert curves at `rows` rows an expert, forward, input and weight
 *  gradients, or from the data sheet of the cluster's first device where `profile` is NULL. One of both must be given.
 *  Bytes of an expert: weights n a parameter in the compute type (n bytes), gradients 4, state n + 12 where n < 4, else
 *  12. Speeds are the seats', borrowed; one micro-batch, a horizon of 1: the caller's to set.
 *  @return : BL_OK, or BL_EINPUT: a model without experts, a profile without the curve named. */
bl_status bl_place_machine_make(const bl_cluster *cluster, const bl_profile *profile, const bl_model *model,
                                const bl_place_rack *rack, const bl_place_seats *seats, double rows,
                                bl_place_machine *out);

/* Memory of a rank for its experts in all layers together. */
typedef struct bl_place_memory {
  double slot_bytes;  /* of a slot in one layer: weights and fp32 gradient */
  double state_bytes; /* of a home in one layer beside that: master weights and moments */
  double row_bytes;   /* of a token received: on its way in and out, and in between as the layer's backward needs it */
  const double *budget; /* [ranks]: bytes that each has; borrowed */
  int32_t layers;
} bl_place_memory;

void bl_place_memory_make(const bl_model *model, int32_t num_bytes, int32_t layers, const double *budget,
                          bl_place_memory *out);

/*! bl_place_memory_bytes() : of a rank with `slots` slots in each layer and `homes` homes in all layers together that
 *  receives at most `rows` tokens in a micro-batch of any layer:
 *  layers * slots * slot_bytes + homes * state_bytes + rows * row_bytes. */
double bl_place_memory_bytes(const bl_place_memory *memory, int32_t slots, int64_t homes, double rows);

/*! bl_place_memory_check() : whether experts fit: every slot filled, the homes as even as the slots allow, `rows` as
 *  above (the mean, or what a placement brings).  @return : BL_OK, or BL_EINPUT: slots that cannot hold all experts, or
 *  a rank beyond its budget: which, by how much, and the nearest change that fits. */
bl_status bl_place_memory_check(const bl_place_memory *memory, int32_t experts, int32_t ranks, const int32_t *slots,
                                double rows);

#endif
