/* gates.c - capacity, random second choice, and counts forced by a trace. */
#include "executor/gates.h"
#include "base/memory.h"
#include "base/rng.h"
#include <math.h>
#include <string.h>

bl_status bl_gate_parse(const char *text, bl_gate *out) {
  static const struct {
    const char *name;
    bl_gate_kind kind;
  } names[] = {
      {"naive", BL_GATE_NAIVE}, {"gshard", BL_GATE_GSHARD}, {"switch", BL_GATE_SWITCH}, {"uniform", BL_GATE_UNIFORM}};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (!strcmp(text, names[i].name)) {
      out->kind = names[i].kind;
      return BL_OK;
    }
  if (!strncmp(text, "trace:", 6) && text[6]) {
    out->kind = BL_GATE_TRACE;
    out->trace_path = text + 6;
    return BL_OK;
  }
  return bl_fail(BL_EUSAGE, "--gate %s: expected naive, gshard, switch, uniform or trace:FILE", text);
}

int32_t bl_gate_capacity(const bl_gate *gate, int32_t sequence, int32_t top_k, int32_t experts) {
  const double capacity = ceil(gate->capacity_factor * top_k * sequence / experts);
  return capacity < 1 ? 1 : capacity > sequence ? sequence : (int32_t)capacity;
}

void bl_gate_drop_second(int32_t *choice, const float *weight, int32_t tokens, uint64_t seed, int64_t step,
                         int32_t layer, int64_t first_token) {
  for (int32_t t = 0; t < tokens; t++) {
    const uint64_t hash = bl_hash_u64(seed, (uint64_t)step, (uint64_t)layer, (uint64_t)(first_token + t));
    const double chance = (double)(hash >> 11) * 0x1p-53;
    if (chance >= 2.0 * (double)weight[2 * t + 1]) choice[2 * t + 1] = -1;
  }
}

void bl_gate_drop_over_capacity(int32_t *choice, int32_t sequences, int32_t sequence, int32_t top_k, int32_t experts,
                                int32_t capacity, int32_t *taken) {
  for (int32_t q = 0; q < sequences; q++) {
    memset(taken, 0, (size_t)experts * sizeof *taken);
    int32_t *first = choice + (size_t)q * (size_t)sequence * (size_t)top_k;
    for (int32_t c = 0; c < top_k; c++)
      for (int32_t t = 0; t < sequence; t++) {
        int32_t *id = &first[t * top_k + c];
        if (*id >= 0 && taken[*id]++ >= capacity) *id = -1;
      }
  }
}

/* Part of `left` copies that an expert gets in proportion, equal parts where nobody left has any load: whole copies,
 * and *rest of the common denominator. Exact for counts (products below 2^53), so that equal remainders compare equal.
 */
static int64_t part_of(double load, double total, int32_t open, int64_t left, double *rest) {
  const double all = total > 0 ? load * (double)left : (double)left, by = total > 0 ? total : open;
  *rest = fmod(all, by);
  return (int64_t)((all - *rest) / by);
}

static bool exceeds(double load, double total, int32_t open, int64_t left, int32_t tokens) {
  double rest;
  const int64_t whole = part_of(load, total, open, left, &rest);
  return whole > tokens || (whole == tokens && rest > 0);
}

void bl_gate_scale_counts(const double *load, int32_t experts, int32_t tokens, int32_t top_k, int32_t *count) {
  int64_t left = (int64_t)tokens * top_k;
  double total = 0;
  int32_t open = experts;
  for (int32_t e = 0; e < experts; e++) {
    total += load[e];
    count[e] = -1; /* not decided yet */
  }
  for (bool capped = true; capped;) {
    capped = false;
    const double round_total = total;
    const int32_t round_open = open;
    const int64_t round_left = left;
    for (int32_t e = 0; e < experts; e++)
      if (count[e] < 0 && exceeds(load[e], round_total, round_open, round_left, tokens)) {
        count[e] = tokens;
        left -= tokens;
        total -= load[e];
        open--;
        capped = true;
      }
    if (capped) { /* subtraction loses bits: add the rest up again */
      total = 0;
      for (int32_t e = 0; e < experts; e++)
        if (count[e] < 0) total += load[e];
    }
  }
  double part_rest;
  int64_t given = 0;
  for (int32_t e = 0; e < experts; e++)
    if (count[e] < 0) given += part_of(load[e], total, open, left, &part_rest);
  for (int64_t rest = left - given; rest > 0; rest--) {
    int32_t best = -1;
    double best_remainder = -1;
    for (int32_t e = 0; e < experts; e++) {
      if (count[e] != -1) continue;
      const int64_t whole = part_of(load[e], total, open, left, &part_rest);
      if (part_rest > best_remainder && whole < tokens) {
        best_remainder = part_rest;
        best = e;
      }
    }
    if (best < 0) break;
    count[best] = (int32_t)part_of(load[best], total, open, left, &part_rest) + 1;
  }
  for (int32_t e = 0; e < experts; e++)
    if (count[e] == -1) count[e] = (int32_t)part_of(load[e], total, open, left, &part_rest);
}

void bl_gate_assign(const int32_t *count, int32_t experts, int32_t tokens, int32_t top_k, int32_t *choice) {
  int64_t position = 0;
  for (int32_t e = 0; e < experts; e++)
    for (int32_t i = 0; i < count[e]; i++, position++) choice[position % tokens * top_k + position / tokens] = e;
}

struct bl_forced_counts {
  bl_trace_reader *reader; /* NULL: uniform */
  int32_t experts, rank, ranks;
  int32_t record;   /* the one in counts[], -1 = none */
  uint32_t *counts; /* one step of the trace */
  double *load;     /* [experts] */
};

bl_status bl_forced_counts_create(const bl_gate *gate, int32_t experts, int32_t rank, int32_t ranks,
                                  bl_forced_counts **out) {
  bl_forced_counts *f = NULL;
  BL_TRY(bl_new(&f, 1, sizeof *f, "forced counts"));
  *f = (bl_forced_counts){.experts = experts, .rank = rank, .ranks = ranks, .record = -1};
  bl_status status = bl_new(&f->load, (size_t)experts, sizeof *f->load, "forced counts");
  if (status == BL_OK && gate->kind == BL_GATE_TRACE) {
    BL_TRY_GOTO(status, bl_trace_open(gate->trace_path, &f->reader), fail);
    const bl_trace_shape *shape = bl_trace_shape_of(f->reader);
    if (shape->experts != experts)
      status = bl_fail(BL_EINPUT, "%s: the trace has %d experts, the model has %d", gate->trace_path, shape->experts,
                       experts);
    else if (bl_trace_steps(f->reader) == 0)
      status = bl_fail(BL_EINPUT, "%s: the trace has no steps", gate->trace_path);
    else
      status = bl_new(&f->counts, (size_t)bl_trace_step_size(shape), sizeof *f->counts, "a step of the trace");
  }
  if (status == BL_OK) {
    *out = f;
    return BL_OK;
  }
fail:
  bl_forced_counts_free(f);
  return status;
}

void bl_forced_counts_free(bl_forced_counts *forced) {
  if (!forced) return;
  bl_trace_close(forced->reader);
  free(forced->counts);
  free(forced->load);
  free(forced);
}

bl_status bl_forced_counts_get(bl_forced_counts *forced, int64_t step, int32_t layer, int32_t micro_batch,
                               int32_t tokens, int32_t top_k, int32_t *count) {
  for (int32_t e = 0; e < forced->experts; e++) forced->load[e] = forced->reader ? 0 : 1;
  if (forced->reader) {
    const bl_trace_shape *shape = bl_trace_shape_of(forced->reader);
    const int32_t record = (int32_t)((step - 1) % bl_trace_steps(forced->reader));
    if (record != forced->record) {
      BL_TRY(bl_trace_read(forced->reader, record, forced->counts));
      forced->record = record;
    }
    const int64_t first = (int64_t)forced->rank * shape->ranks / forced->ranks;
    int64_t end = (int64_t)(forced->rank + 1) * shape->ranks / forced->ranks;
    if (end == first) end = first + 1;
    for (int64_t r = first; r < end; r++) {
      const int64_t row = ((int64_t)(layer % shape->layers) * shape->ranks + r) * shape->micro_batches +
                          micro_batch % shape->micro_batches;
      for (int32_t e = 0; e < forced->experts; e++) forced->load[e] += forced->counts[row * forced->experts + e];
    }
  }
  bl_gate_scale_counts(forced->load, forced->experts, tokens, top_k, count);
  return BL_OK;
}
