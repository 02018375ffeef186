/* gates.h - which experts a token goes to, beyond the k largest logits: capacity, random second choice, counts forced
 * by a trace. Host memory throughout; the numbers of a layer's tokens are small.
 *
 * Choices are laid out [T][K]: choice c of token t at t * K + c; -1 = dropped. */
#ifndef BL_EXECUTOR_GATES_H
#define BL_EXECUTOR_GATES_H

#include "base/status.h"
#include "traces/trace.h"
#include <stdbool.h>
#include <stdint.h>

typedef enum bl_gate_kind {
  BL_GATE_NAIVE,   /* the k largest logits, weights = softmax over the chosen */
  BL_GATE_GSHARD,  /* top-2, random second choice, capacity a sequence, balance loss (Lepikhin et al. 2020, alg. 1) */
  BL_GATE_SWITCH,  /* top-1, capacity a sequence, balance loss (Fedus et al. 2021) */
  BL_GATE_UNIFORM, /* equal counts for every expert, forced */
  BL_GATE_TRACE    /* the counts of a recorded trace, forced */
} bl_gate_kind;

typedef struct bl_gate {
  bl_gate_kind kind;
  const char *trace_path; /* TRACE only; points into the option's text */
  double capacity_factor; /* GSHARD, SWITCH: capacity = ceil(factor * k * sequence / experts), per sequence */
  double balance;         /* GSHARD, SWITCH: coefficient of the balance loss */
} bl_gate;

/*! bl_gate_parse() : "naive", "gshard", "switch", "uniform" or "trace:FILE".  @return : BL_OK or BL_EUSAGE. */
bl_status bl_gate_parse(const char *text, bl_gate *out);

static inline bool bl_gate_is_forced(const bl_gate *gate) {
  return gate->kind == BL_GATE_UNIFORM || gate->kind == BL_GATE_TRACE;
}
static inline bool bl_gate_has_capacity(const bl_gate *gate) {
  return gate->kind == BL_GATE_GSHARD || gate->kind == BL_GATE_SWITCH;
}

/*! bl_gate_capacity() : copies that one expert takes from one sequence. */
int32_t bl_gate_capacity(const bl_gate *gate, int32_t sequence, int32_t top_k, int32_t experts);

/*! bl_gate_drop_second() : GShard's random routing: the second choice of token t is kept when a hash of (seed, step,
 *  layer, first_token + t), read as a fraction, is below 2 * weight[t][1]. K = 2. */
void bl_gate_drop_second(int32_t *choice, const float *weight, int32_t tokens, uint64_t seed, int64_t step,
                         int32_t layer, int64_t first_token);

/*! bl_gate_drop_over_capacity() : in every sequence, first all first choices by position, then all second ones..., an
 *  expert's choices beyond `capacity` are dropped. taken[experts] is scratch. */
void bl_gate_drop_over_capacity(int32_t *choice, int32_t sequences, int32_t sequence, int32_t top_k, int32_t experts,
                                int32_t capacity, int32_t *taken);

/*! bl_gate_scale_counts() : integers in proportion to load[experts] with sum top_k * tokens and none above `tokens`:
 *  an expert whose part would exceed `tokens` gets exactly that and the rest is divided among the others; then largest
 *  remainder, ties to the lower id. Where the others have no load they share equally. top_k <= experts. */
void bl_gate_scale_counts(const double *load, int32_t experts, int32_t tokens, int32_t top_k, int32_t *count);

/*! bl_gate_assign() : choices with exactly these counts: token t takes positions t, t + tokens, ... of the list in
 * which expert e stands count[e] times, in ascending order. Distinct because no count exceeds `tokens`. */
void bl_gate_assign(const int32_t *count, int32_t experts, int32_t tokens, int32_t top_k, int32_t *choice);

/* The counts that a forced gate asks for, step by step. One object a rank. */
typedef struct bl_forced_counts bl_forced_counts;

/*! bl_forced_counts_create() : for rank `rank` of `ranks`. A trace must have `experts` experts (BL_EINPUT otherwise).
 */
bl_status bl_forced_counts_create(const bl_gate *gate, int32_t experts, int32_t rank, int32_t ranks,
                                  bl_forced_counts **out);
void bl_forced_counts_free(bl_forced_counts *forced); /* NULL is fine */

/*! bl_forced_counts_get() : count[experts] for `tokens` tokens of this rank in (step from 1, layer, micro_batch).
 *  Layer l takes the trace's layer l mod L, step s its record (s - 1) mod records, micro-batch m its m mod M. Source
 *  ranks fold contiguously: of T recorded ranks, rank r of R takes r * T / R up to (r + 1) * T / R, at least one. */
bl_status bl_forced_counts_get(bl_forced_counts *forced, int64_t step, int32_t layer, int32_t micro_batch,
                               int32_t tokens, int32_t top_k, int32_t *count);

#endif
