/* layer_calls.c - a trace's counts by rank, as calls of a layer. */
#include "costmodel/layer_calls.h"
#include "base/memory.h"
#include <inttypes.h>

/* The most experts that any rank hosts in any layer. */
static bl_status most_hosted(const bl_placement *p, int32_t *most) {
  int32_t *hosted;
  *most = 1;
  for (int32_t l = 0; l < p->layers; l++) {
    const bl_layer_placement *layer = &p->layer[l];
    BL_TRY(bl_new(&hosted, (size_t)p->ranks, sizeof *hosted, "hosts"));
    for (int32_t e = 0; e < p->experts; e++) hosted[layer->home[e]]++;
    for (int32_t c = 0; c < layer->n_copies; c++) hosted[layer->copies[c].rank]++;
    for (int32_t r = 0; r < p->ranks; r++)
      if (hosted[r] > *most) *most = hosted[r];
    free(hosted);
  }
  return BL_OK;
}

static void put(double *rank, int32_t slots, double tokens) {
  if (tokens <= 0) return;
  for (int32_t s = 0; s < slots; s++)
    if (rank[s] == 0) {
      rank[s] = tokens;
      return;
    }
}

/* One call: every expert's tokens to its hosts. */
static void spread(const bl_placement *p, const bl_layer_placement *layer, const double *loads, double scale,
                   int32_t slots, double *tokens) {
  for (int32_t e = 0; e < p->experts; e++) {
    double kept = 1;
    for (int32_t c = 0; c < layer->n_copies; c++) {
      if (layer->copies[c].expert != e) continue;
      kept -= layer->copies[c].share;
      put(tokens + (int64_t)layer->copies[c].rank * slots, slots, loads[e] * scale * layer->copies[c].share);
    }
    if (kept < 1e-9) kept = 0; /* shares that sum to 1 but for rounding */
    put(tokens + (int64_t)layer->home[e] * slots, slots, loads[e] * scale * kept);
  }
}

typedef struct source {
  bl_trace_reader *reader;
  const bl_placement *placement;
  const bl_call_options *options;
  uint32_t *counts;
  double *loads;
  int32_t index; /* of the step in counts and loads; -1: none yet */
} source;

static bl_status read_call(source *s, int64_t step, int32_t layer, int32_t slots, double *tokens) {
  const bl_trace_shape *shape = bl_trace_shape_of(s->reader);
  const bl_call_options *o = s->options;
  const int32_t index = bl_trace_find(s->reader, step);
  if (index != s->index) {
    BL_TRY(bl_trace_read(s->reader, index, s->counts));
    bl_trace_loads(shape, s->counts, o->source_rank, o->micro_batch, s->loads);
    s->index = index;
  }
  const double *loads = s->loads + (int64_t)layer * shape->experts;
  double sum = 0;
  for (int32_t e = 0; e < shape->experts; e++) sum += loads[e];
  if (sum == 0)
    return bl_fail(BL_EINPUT, "%s: no tokens at iteration %" PRId64 ", layer %d", bl_trace_path(s->reader), step,
                   layer);
  const double scale = o->tokens > 0 ? o->tokens / sum : 1.0 / (o->micro_batch < 0 ? shape->micro_batches : 1);
  for (int32_t l = 0; l < s->placement->layers; l++)
    if (s->placement->layer[l].layer == layer) {
      spread(s->placement, &s->placement->layer[l], loads, scale, slots, tokens);
      return BL_OK;
    }
  return bl_fail(BL_EINPUT, "the placement has no layer %d", layer);
}

bl_status bl_layer_calls_read(bl_trace_reader *reader, const bl_placement *placement, const bl_call_options *options,
                              int32_t n, const int64_t *steps, const int32_t *layers, double **tokens,
                              bl_layer_calls *out) {
  const bl_trace_shape *shape = bl_trace_shape_of(reader);
  source s = {.reader = reader, .placement = placement, .options = options, .index = -1};
  int32_t slots;
  bl_status status;
  *tokens = NULL;
  BL_TRY(most_hosted(placement, &slots));
  const size_t call = (size_t)placement->ranks * (size_t)slots;
  BL_TRY_GOTO(status, bl_new(&s.counts, (size_t)bl_trace_step_size(shape), sizeof *s.counts, "a step"), end);
  BL_TRY_GOTO(status, bl_new(&s.loads, (size_t)shape->layers * (size_t)shape->experts, sizeof *s.loads, "loads"), end);
  BL_TRY_GOTO(status, bl_new(tokens, (size_t)n * call, sizeof **tokens, "calls"), end);
  for (int32_t i = 0; i < n && status == BL_OK; i++)
    status = read_call(&s, steps[i], layers[i], slots, *tokens + (size_t)i * call);
  *out = (bl_layer_calls){.n = n, .ranks = placement->ranks, .slots = slots, .tokens = *tokens};
end:
  free(s.counts);
  free(s.loads);
  if (status != BL_OK) {
    free(*tokens);
    *tokens = NULL;
  }
  return status;
}
