/* plan_search.h - what a layout search knows of the layout that it chose, as a plan file carries it for its readers:
 * optional "search",
 *   { "model": "deepseek-v3", "sequence": 4096, "experts": 256, "cluster": "H100 HGX", "device": "H100 SXM 80GB",
 *     "layouts": 4368972, "simulated": 139, "undecided": 0,
 *     "closed_form_us": 18800000, "bound_us": 18756078, "roofline_us": 10953500,
 *     "time_us": { "dense": ..., "experts": ... }, "memory_bytes": { "weights": ... }, "memory_limit_bytes": 7.2e10,
 *     "sources": { "compute": "0.589 of 989 TFLOP/s (...)", "memory": ..., "intra": ..., "inter": ..., "routing": ...
 * }, "costs": [...] } (plan_costs.h; may be left out). Nothing in it changes what the plan does. */
#ifndef BL_COSTMODEL_PLAN_SEARCH_H
#define BL_COSTMODEL_PLAN_SEARCH_H

#include "base/json.h"
#include "costmodel/footprint.h"
#include "costmodel/plan_costs.h"

/* Where a step's time goes: name, text, what it is. */
#define BL_PRICE_LIST(X)                                                   \
  X(DENSE, "dense", "attention, feed-forward, gate, embedding, head")      \
  X(EXPERT, "experts", "expert matrices, scatter and gather")              \
  X(RECOMPUTE, "recompute", "forward once more")                           \
  X(TENSOR, "tensor", "exchange of tp and etp")                            \
  X(CONTEXT, "context", "exposed exchange of cp")                          \
  X(EXCHANGE, "exchange", "dispatch and combine over ep")                  \
  X(SEND, "send", "between stages")                                        \
  X(BUBBLE, "bubble", "the pipeline fills and drains")                     \
  X(REDUCE, "reduce", "exposed reduction of gradients, gather of weights") \
  X(OPTIMIZER, "optimizer", "the update")

typedef enum bl_price_kind {
#define X(name, text, what) BL_PRICE_##name,
  BL_PRICE_LIST(X)
#undef X
      BL_PRICE_COUNT
} bl_price_kind;

extern const char *const bl_price_names[BL_PRICE_COUNT];
extern const char *const bl_price_meanings[BL_PRICE_COUNT];

/* Figures that predictions rest on: name, text, what it is. */
#define BL_SOURCE_LIST(X)                            \
  X(COMPUTE, "compute", "arithmetic of a device")    \
  X(MEMORY, "memory", "memory of a device, latency") \
  X(INTRA, "intra", "links within a node")           \
  X(INTER, "inter", "links between nodes")           \
  X(ROUTING, "routing", "how evenly tokens choose experts")

typedef enum bl_source_kind {
#define X(name, text, what) BL_SOURCE_##name,
  BL_SOURCE_LIST(X)
#undef X
      BL_SOURCE_COUNT
} bl_source_kind;

extern const char *const bl_source_names[BL_SOURCE_COUNT];
extern const char *const bl_source_meanings[BL_SOURCE_COUNT];

enum { BL_SOURCE_TEXT_MAX = 1024 };

typedef struct bl_plan_search {
  char model[64], cluster[64], device[64];
  int32_t sequence, experts;
  int64_t layouts, simulated; /* of the space, and of these simulated; 0: closed forms alone chose */
  int64_t undecided;          /* not simulated, though by their bounds they might be faster */
  double closed_form_us, bound_us, roofline_us;
  double time_us[BL_PRICE_COUNT];                              /* of the step, on the ranks that compute most */
  double memory_bytes[BL_FOOTPRINT_COUNT], memory_limit_bytes; /* of the fullest rank, and what it may fill */
  char source[BL_SOURCE_COUNT][BL_SOURCE_TEXT_MAX];
  bl_plan_costs costs; /* of each kind of work */
} bl_plan_search;

/*! bl_plan_search_read(), bl_plan_search_write() : the object above, strictly. */
bl_status bl_plan_search_read(bl_json json, bl_plan_search *out);
void bl_plan_search_write(bl_json_writer *w, const bl_plan_search *search);

#endif
