/* search.c - the layout search for callers of the library. */
#include "base/memory.h"
#include "planner/library/found.h"
#include "planner/search/imbalance.h"
#include <string.h>

/* What a search needs, as long as it runs. */
typedef struct inputs {
  bl_model model;
  bl_cluster cluster;
  double *imbalance; /* [experts + 1] */
  bl_search_options options;
} inputs;

void ballast_search_options_init(ballast_search_options *options) {
  if (options == NULL) return;
  *options = (ballast_search_options){.bytes = sizeof *options,
                                      .imbalance = 1,
                                      .memory_fraction = 0.9,
                                      .top = 10,
                                      .max_vp = 12,
                                      .max_micro_batch = 16,
                                      .overlap = 1};
}

/* A copy with a NUL behind, as the parser wants it. */
static bl_status copy_text(const char *what, const char *text, uint64_t bytes, char **out) {
  if (text == NULL) return bl_fail(BL_EINPUT, "%s: neither a path nor a text is given", what);
  if (bytes > (uint64_t)256 << 20) return bl_fail(BL_EINPUT, "%s: a text of more than 256 MiB", what);
  BL_TRY(bl_new(out, bytes + 1, 1, "a text"));
  memcpy(*out, text, bytes);
  return BL_OK;
}

static bl_status read_model(const ballast_search_options *o, bl_model *model) {
  char *text = NULL;
  if (o->model_path) return bl_model_load(o->model_path, model);
  BL_TRY(copy_text("the model", o->model_text, o->model_bytes, &text));
  const bl_status status = bl_model_parse("the model", text, o->model_bytes, model);
  free(text);
  return status;
}

static bl_status read_cluster(const ballast_search_options *o, bl_cluster *cluster) {
  char *text = NULL;
  if (o->cluster_path) {
    BL_TRY(bl_cluster_load(o->cluster_path, cluster));
  } else {
    BL_TRY(copy_text("the cluster", o->cluster_text, o->cluster_bytes, &text));
    const bl_status status = bl_cluster_parse("the cluster", text, o->cluster_bytes, cluster);
    free(text);
    BL_TRY(status);
  }
  return bl_cluster_use_type(cluster, o->type);
}

static bl_status read_imbalance(const ballast_search_options *o, inputs *in) {
  const int32_t experts = in->model.experts;
  bl_trace_reader *trace = NULL;
  if (!(o->imbalance >= 1 && o->imbalance <= 1e6))
    return bl_fail(BL_EINPUT, "an imbalance of %g: expected 1 to 1e6", o->imbalance);
  BL_TRY(bl_new(&in->imbalance, (size_t)experts + 1, sizeof *in->imbalance, "imbalances"));
  for (int32_t ep = 1; ep <= experts; ep++) in->imbalance[ep] = ep > 1 ? o->imbalance : 1;
  if (o->trace_path == NULL) return BL_OK;
  BL_TRY(bl_trace_open(o->trace_path, &trace));
  const int32_t traced = bl_trace_shape_of(trace)->experts;
  const bl_status status = traced == experts ? bl_search_imbalances(trace, o->copy_slots, in->imbalance)
                                             : bl_fail(BL_EINPUT, "%s has %d experts, model %s has %d", o->trace_path,
                                                       traced, in->model.name, experts);
  bl_trace_close(trace);
  return status;
}

static bl_status check_sizes(const ballast_search_options *o) {
  const struct {
    const char *name;
    int32_t value, least;
  } sizes[] = {{"batch", o->batch, 1},
               {"top", o->top, 1},
               {"max_vp", o->max_vp, 1},
               {"max_micro_batch", o->max_micro_batch, 1},
               {"ranks", o->ranks, 0},
               {"sequence", o->sequence, 0},
               {"copy_slots", o->copy_slots, 0},
               {"tp", o->tp, 0},
               {"cp", o->cp, 0},
               {"dp", o->dp, 0},
               {"pp", o->pp, 0},
               {"vp", o->vp, 0},
               {"etp", o->etp, 0},
               {"ep", o->ep, 0},
               {"micro_batch", o->micro_batch, 0}};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    if (sizes[i].value < sizes[i].least)
      return bl_fail(BL_EINPUT, "the options of a search: %s %d, expected at least %d", sizes[i].name, sizes[i].value,
                     sizes[i].least);
  return BL_OK;
}

static bl_status check_extras(const ballast_search_extras *x) {
  enum { MAX_PIECES = 64 };
  if (x->simulate < 0)
    return bl_fail(BL_EINPUT, "the extras of a search: simulate %d, expected at least 0", x->simulate);
  if (x->shard < 0) return bl_fail(BL_EINPUT, "the extras of a search: shard %d, expected at least 0", x->shard);
  if (x->max_pieces < 0 || x->max_pieces > MAX_PIECES)
    return bl_fail(BL_EINPUT, "the extras of a search: max_pieces %d, expected 0 to %d", x->max_pieces, MAX_PIECES);
  if (x->gradient_bytes != 0 && x->gradient_bytes != 2 && x->gradient_bytes != 4)
    return bl_fail(BL_EINPUT, "the extras of a search: gradient_bytes %d, expected 2 or 4", x->gradient_bytes);
  return BL_OK;
}

static bl_status read_inputs(const ballast_search_options *o, const ballast_search_extras *x, inputs *in) {
  BL_TRY(check_sizes(o));
  BL_TRY(check_extras(x));
  if (!(o->memory_fraction > 0 && o->memory_fraction <= 1))
    return bl_fail(BL_EINPUT, "a memory fraction of %g: expected above 0 to 1", o->memory_fraction);
  BL_TRY(read_model(o, &in->model));
  if (o->sequence > 0) in->model.sequence = o->sequence;
  BL_TRY(bl_model_check(&in->model, "the model"));
  BL_TRY(read_cluster(o, &in->cluster));
  BL_TRY(read_imbalance(o, in));
  in->options = (bl_search_options){.model = &in->model,
                                    .cluster = &in->cluster,
                                    .ranks = o->ranks > 0 ? o->ranks : (int32_t)bl_cluster_ranks(&in->cluster),
                                    .batch = o->batch,
                                    .memory_bytes = in->cluster.node_group[0].device.memory_bytes * o->memory_fraction,
                                    .imbalance = in->imbalance,
                                    .max_vp = o->max_vp,
                                    .max_micro_batch = o->max_micro_batch,
                                    .copy_slots = o->copy_slots,
                                    .node_dispatch = o->node_dispatch != 0,
                                    .overlap = o->overlap != 0,
                                    .shard = x->shard,
                                    .gradient_bytes = x->gradient_bytes > 0 ? x->gradient_bytes : 4,
                                    .fixed = {.tp = o->tp,
                                              .cp = o->cp,
                                              .dp = o->dp,
                                              .pp = o->pp,
                                              .vp = o->vp,
                                              .etp = o->etp,
                                              .ep = o->ep,
                                              .micro_batch = o->micro_batch},
                                    .top = o->top,
                                    .pieces = x->max_pieces > 0 ? x->max_pieces : 1,
                                    .simulate = x->simulate};
  return BL_OK;
}

/* Nothing was found: by how much the leanest layout is too large. */
static bl_status explain_nothing(const inputs *in) {
  bl_search_entry *least;
  BL_TRY(bl_new(&least, 1, sizeof *least, "a layout"));
  bl_status status = bl_search_least_memory(&in->options, least);
  const double may = in->options.memory_bytes * least->memory_share;
  if (status == BL_OK)
    status = bl_fail(BL_EINPUT,
                     "model %s does not fit %d ranks with a batch of %d: the leanest layout fills %.1f GB of a rank, "
                     "%.1f GB more than the %.1f GB it may",
                     in->model.name, in->options.ranks, in->options.batch, least->memory.total * 1e-9,
                     (least->memory.total - may) * 1e-9, may * 1e-9);
  free(least);
  return status;
}

static bl_status search(const ballast_search_options *given, const ballast_search_extras *extras,
                        bl_search_result *result) {
  ballast_search_options o;
  ballast_search_extras x = {.bytes = sizeof x};
  inputs *in = NULL;
  ballast_search_options_init(&o);
  BL_TRY(bl_library_options(given, &o, sizeof o, "the options of a search"));
  if (extras) BL_TRY(bl_library_options(extras, &x, sizeof x, "the extras of a search"));
  BL_TRY(bl_new(&in, 1, sizeof *in, "a search"));
  bl_status status = read_inputs(&o, &x, in);
  if (status == BL_OK) status = bl_search(&in->options, result);
  if (status == BL_OK && result->n == 0) status = explain_nothing(in);
  free(in->imbalance);
  free(in);
  return status;
}

ballast_status ballast_search_with(ballast *handle, const ballast_search_options *options,
                                   const ballast_search_extras *extras, ballast_found **out) {
  if (handle == NULL || out == NULL) return BALLAST_INVALID;
  ballast_found *found = NULL;
  *out = NULL;
  bl_status status = bl_new(&found, 1, sizeof *found, "a search");
  if (status == BL_OK) {
    found->handle = handle;
    status = search(options, extras, &found->result);
  }
  if (status == BL_OK)
    *out = found;
  else
    ballast_found_free(found);
  return bl_library_end(handle, status);
}

ballast_status ballast_search(ballast *handle, const ballast_search_options *options, ballast_found **out) {
  return ballast_search_with(handle, options, NULL, out);
}
