/* plan_price.h - what a layer's placement costs, as a plan file carries it: optional "price" of a layer,
 *   { "compute_us": 812.5, "exchange_us": 160.0, "fill_us": 12.5, "reduce_us": 25.0, "move_us": 0, "bound_us": 1000.0,
 *     "proof": "mean-load", "slowest_rank": 3, "exchange_port": [2, 0, "in"], "fill_port": [1, 3, "out"] }
 * Microseconds of one optimizer step. "reason", optional: why a proof that was asked for leaves a gap. A port is
 * [level, first rank that it serves, direction]; left out where there is no traffic. planner/place/cost.h says what the
 * terms mean. */
#ifndef BL_COSTMODEL_PLAN_PRICE_H
#define BL_COSTMODEL_PLAN_PRICE_H

#include "base/json.h"

/* Terms: name, key in the plan, what it is. */
#define BL_PLACE_TERM_LIST(X)                                     \
  X(COMPUTE, "compute", "the slowest rank's tokens")              \
  X(EXCHANGE, "exchange", "dispatch and combine, forth and back") \
  X(FILL, "fill", "weights to the copies, once a step")           \
  X(REDUCE, "reduce", "gradients from the copies, once a step")   \
  X(MOVE, "move", "homes that change, paid off over the horizon")

typedef enum bl_place_term {
#define X(name, text, what) BL_PLACE_##name,
  BL_PLACE_TERM_LIST(X)
#undef X
      BL_PLACE_TERM_COUNT
} bl_place_term;

extern const char *const bl_place_term_names[BL_PLACE_TERM_COUNT];
extern const char *const bl_place_term_texts[BL_PLACE_TERM_COUNT];

/* The busiest port of a term. */
typedef struct bl_place_port {
  int32_t level; /* 1: inside a node, 2: between nodes, 3: between racks; 0: no traffic */
  int32_t rank;  /* the first that it serves */
  bool in;       /* what arrives is more than what leaves */
  double amount; /* tokens, or experts; not in the file */
} bl_place_port;

typedef struct bl_layer_price {
  double us[BL_PLACE_TERM_COUNT], total_us, bound_us;
  char proof[64], reason[160]; /* reason "": none was asked for, or there is no gap */
  int32_t slowest_rank;
  bl_place_port port[BL_PLACE_TERM_COUNT];
} bl_layer_price;

/*! bl_layer_price_read(), bl_layer_price_write() : the object above; ranks and levels in range, terms not negative. */
bl_status bl_layer_price_read(bl_json json, int32_t ranks, bl_layer_price *out);
void bl_layer_price_write(bl_json_writer *w, const bl_layer_price *price);

#endif
