#include "planner/search/search.h"
#include "base/memory.h"
#include <float.h>
#include <stdio.h>
#include <string.h>

const char *const bl_search_reasons[BL_SEARCH_REASON_COUNT] = {
#define X(name, text) text,
    BL_SEARCH_REASON_LIST(X)
#undef X
};

typedef struct searcher {
  const bl_search_options *o;
  bl_search_result *result;
  int32_t count[BL_ITEM_COUNT]; /* of the whole model */
  bl_search_entry *variant;     /* workspace: the best zero and recomputation of one fold */
  bl_search_entry *tried;       /* workspace */
  bl_positions positions;       /* of the fold looked at */
  bool least_memory;            /* look for that instead of time; the best is result->entry[0] */
  bl_search_visitor visit;      /* or only hand each layout to this, or NULL */
  void *context;
} searcher;

static void reject(searcher *s, bl_search_reason reason, const bl_grid *grid) {
  if (s->result->rejected[reason]++ == 0) s->result->example[reason] = *grid;
}

static double imbalance_of(const bl_search_options *o, const bl_grid *g) {
  return o->model->experts > 0 ? o->imbalance[g->ep] : 1;
}

/* -- one layout ---------------------------------------------------------------------------------------------------- */

/* Divides and prices; false where it does not fit. */
static bool price(const bl_search_options *o, const bl_grid *g, const bl_grid_costs *costs, double limit,
                  bl_search_entry *e) {
  int32_t counts[BL_STAGES_MAX * BL_ITEM_COUNT];
  e->grid = *g;
  e->imbalance = imbalance_of(o, g);
  if (!bl_stages_divide(o->model, g, costs, limit, e->first)) return false;
  bl_stages_counts(o->model, g, e->first, counts);
  e->memory_share = bl_stages_memory_share(costs, bl_stages_memory(g, costs, counts, &e->memory));
  bl_price_step(g, costs, counts, &e->price);
  return e->memory.total <= limit * e->memory_share;
}

bool bl_search_price(const bl_search_options *o, const bl_grid *grid, bl_search_entry *e) {
  bl_positions positions;
  bl_grid_costs costs;
  int32_t count[BL_ITEM_COUNT];
  bl_items_of_model(o->model, count);
  bl_positions_of(o->cluster, grid, &positions);
  bl_grid_cost(o->model, &positions, grid, imbalance_of(o, grid), &costs);
  const bool fits = price(o, grid, &costs, o->memory_bytes, e);
  if (!fits) price(o, grid, &costs, DBL_MAX / 2, e);
  e->bound_us = bl_price_bound(grid, &costs, count);
  return fits;
}

/* At most what the fullest rank holds, were it of the cluster's first device: the mean of all positions, by their
 * devices' memory, each with as little in flight as the last. */
static double memory_bound(const searcher *s, const bl_grid *g, const bl_grid_costs *costs) {
  const bl_positions *p = costs->positions;
  bl_footprint f;
  double shares = 0;
  for (int32_t k = 0; k < p->kinds; k++) shares += p->count[k] * p->memory_share[k];
  bl_footprint_of(costs->size, s->count, g, p->num_bytes, bl_grid_in_flight(g, g->pp - 1), &f);
  return (f.total - f.bytes[BL_FOOTPRINT_WORKSPACE]) / shares;
}

/* What the fullest rank holds, likewise. */
static double fullest(const bl_search_entry *e) { return e->memory.total / e->memory_share; }

static double worst_kept(const searcher *s) {
  return s->result->n < s->o->top ? DBL_MAX : s->result->entry[s->result->n - 1].price.step_us;
}

static void try_layout(searcher *s, const bl_grid *g, const bl_grid_costs *costs) {
  const bl_search_options *o = s->o;
  s->result->layouts++;
  if (s->visit) {
    s->visit(s->context, g, costs);
    return;
  }
  const double least = memory_bound(s, g, costs);
  if (s->least_memory) {
    if (fullest(s->variant) <= least) return;
    price(o, g, costs, DBL_MAX / 2, s->tried);
    s->result->priced++;
    if (fullest(s->tried) < fullest(s->variant)) *s->variant = *s->tried;
    return;
  }
  if (least > o->memory_bytes) {
    reject(s, BL_SEARCH_MEMORY_BOUND, g);
    return;
  }
  const double bound = bl_price_bound(g, costs, s->count), kept = worst_kept(s);
  if (bound < s->result->bound_us) s->result->bound_us = bound;
  if (bound >= kept || bound >= s->variant->price.step_us) {
    reject(s, BL_SEARCH_TIME_BOUND, g);
    return;
  }
  s->result->priced++;
  if (!price(o, g, costs, o->memory_bytes, s->tried)) {
    reject(s, BL_SEARCH_MEMORY, g);
    return;
  }
  s->tried->bound_us = bound;
  if (s->tried->price.step_us < s->variant->price.step_us) *s->variant = *s->tried;
}

/* Puts the best variant of a fold among the K best; the first found stays before its equals. */
static void keep_variant(searcher *s) {
  bl_search_result *r = s->result;
  if (s->variant->price.step_us >= worst_kept(s)) return;
  int32_t at = r->n < s->o->top ? r->n++ : r->n - 1;
  for (; at > 0 && r->entry[at - 1].price.step_us > s->variant->price.step_us; at--) r->entry[at] = r->entry[at - 1];
  r->entry[at] = *s->variant;
}

/* -- enumeration --------------------------------------------------------------------------------------------------- */

static bool wanted(int32_t fixed, int32_t value) { return fixed == 0 || fixed == value; }

static void each_variant(searcher *s, bl_grid *g) {
  static const int32_t zeros[] = {0, 1, 3};
  const bl_search_options *o = s->o;
  const int32_t most_vp = g->pp > 1 ? o->max_vp : 1, stages = o->model->layers + 2;
  bl_grid_costs costs[3][BL_RECOMPUTE_COUNT];
  bool known[3][BL_RECOMPUTE_COUNT] = {{false}};
  for (g->vp = 1; g->vp <= most_vp && g->vp * g->pp <= stages; g->vp++) {
    if (!wanted(o->fixed.vp, g->vp)) continue;
    if (g->vp > 1 && g->micro_batches % g->pp != 0) {
      reject(s, BL_SEARCH_INTERLEAVING, g);
      break;
    }
    if (!s->least_memory) s->variant->price.step_us = DBL_MAX; /* none yet; visitors leave it so */
    for (int z = 0; z < 3; z++)
      for (int r = 0; r < BL_RECOMPUTE_COUNT; r++) {
        g->zero = zeros[z], g->recompute = (bl_recompute)r;
        if ((o->zero_fixed && o->fixed.zero != g->zero) || (o->recompute_fixed && o->fixed.recompute != g->recompute))
          continue;
        if (!known[z][r] || bl_grid_overlaps(g)) /* all else is the same for every vp */
          bl_grid_cost(o->model, &s->positions, g, imbalance_of(o, g), &costs[z][r]);
        known[z][r] = !bl_grid_overlaps(g);
        try_layout(s, g, &costs[z][r]);
      }
    if (!s->least_memory && s->variant->price.step_us < DBL_MAX) keep_variant(s);
  }
  g->vp = g->zero = 0;
}

static void each_micro_batch(searcher *s, bl_grid *g) {
  const int32_t sequences = s->o->batch / g->dp;
  bl_positions_of(s->o->cluster, g, &s->positions);
  s->result->folds++;
  for (int32_t b = 1; b <= s->o->max_micro_batch && b <= sequences; b++) {
    if (sequences % b != 0 || !wanted(s->o->fixed.micro_batch, b)) continue;
    g->micro_batch = b;
    g->micro_batches = sequences / b;
    each_variant(s, g);
  }
  g->micro_batch = g->micro_batches = 0;
}

static void each_expert_grid(searcher *s, bl_grid *g) {
  const bl_search_options *o = s->o;
  const int32_t ranks = g->tp * g->cp * g->dp, experts = o->model->experts;
  for (g->etp = 1; g->etp <= ranks; g->etp++) {
    if (ranks % g->etp != 0 || !wanted(o->fixed.etp, g->etp)) continue;
    if (experts == 0 ? g->etp > 1 : o->model->expert_width % g->etp != 0) {
      reject(s, BL_SEARCH_WIDTH, g);
      continue;
    }
    for (g->ep = 1; g->ep <= ranks / g->etp; g->ep++) {
      g->edp = ranks / g->etp / g->ep;
      if (ranks / g->etp % g->ep != 0 || !wanted(o->fixed.ep, g->ep) || !wanted(o->fixed.edp, g->edp)) continue;
      if (experts == 0 ? g->ep > 1 : experts % g->ep != 0)
        reject(s, BL_SEARCH_EXPERTS, g);
      else
        each_micro_batch(s, g);
    }
    g->ep = g->edp = 0;
  }
  g->etp = 0;
}

static void each_pipeline(searcher *s, bl_grid *g) {
  const bl_search_options *o = s->o;
  const int32_t rest = o->ranks / (g->tp * g->cp);
  for (g->pp = 1; g->pp <= rest; g->pp++) {
    g->dp = rest / g->pp;
    if (rest % g->pp != 0 || !wanted(o->fixed.pp, g->pp) || !wanted(o->fixed.dp, g->dp)) continue;
    if (g->pp > o->model->layers + 2 || g->pp > BL_STAGES_MAX)
      reject(s, BL_SEARCH_STAGES, g);
    else if (o->batch % g->dp != 0)
      reject(s, BL_SEARCH_BATCH, g);
    else
      each_expert_grid(s, g);
  }
  g->pp = g->dp = 0;
}

static void enumerate(searcher *s) {
  const bl_search_options *o = s->o;
  bl_grid g = {.copy_slots = o->copy_slots,
               .node_dispatch = o->node_dispatch,
               .overlap = o->overlap,
               .gradient_bytes = o->gradient_bytes,
               .shard = o->shard,
               .input_bytes = o->cluster->node_group[0].device.matrix.num_bytes};
  for (g.tp = 1; g.tp <= o->ranks; g.tp++) {
    if (o->ranks % g.tp != 0 || !wanted(o->fixed.tp, g.tp)) continue;
    if (o->model->heads % g.tp != 0 || o->model->state_heads % g.tp != 0) {
      reject(s, BL_SEARCH_HEADS, &g);
      continue;
    }
    for (g.cp = 1; g.cp <= o->ranks / g.tp; g.cp++) {
      if (o->ranks / g.tp % g.cp != 0 || !wanted(o->fixed.cp, g.cp)) continue;
      if (g.cp > 1 && o->model->sequence % (2 * (int64_t)g.cp) != 0)
        reject(s, BL_SEARCH_SEQUENCE, &g);
      else
        each_pipeline(s, &g);
    }
    g.cp = 0;
  }
}

static bl_status check_options(const bl_search_options *o) {
  if (o->ranks < 1 || bl_cluster_ranks(o->cluster) < o->ranks)
    return bl_fail(BL_EINPUT,
                   "cluster %s has %lld ranks, fewer than %d: search on those, or list more nodes in its file",
                   o->cluster->name, (long long)bl_cluster_ranks(o->cluster), o->ranks);
  if (o->ranks > BL_SEARCH_MAX_RANKS)
    return bl_fail(BL_EINPUT, "cluster %s has %d ranks, a search takes at most %d: choose some with --ranks",
                   o->cluster->name, o->ranks, BL_SEARCH_MAX_RANKS);
  if (o->model->experts > 0 && o->copy_slots > o->model->experts)
    return bl_fail(BL_EINPUT, "%d copy slots a rank: expected at most the %d experts of model %s", o->copy_slots,
                   o->model->experts, o->model->name);
  if (o->model->layers > BL_STAGES_MAX_LAYERS)
    return bl_fail(BL_EINPUT, "model %s has %d layers, the search takes at most %d", o->model->name, o->model->layers,
                   BL_STAGES_MAX_LAYERS);
  if (o->top < 1 || o->top > BL_SEARCH_MAX_TOP || o->batch < 1 || o->max_vp < 1 || o->max_micro_batch < 1)
    return bl_fail(BL_EINPUT, "a search of the best %d layouts, batch %d, vp up to %d, micro-batches up to %d", o->top,
                   o->batch, o->max_vp, o->max_micro_batch);
  return BL_OK;
}

/* Operations a microsecond of the first ranks together, in the faster type; at the peak where single kinds of work have
 * been measured, some of which may be above the rate of large products. */
static double all_rates(const bl_cluster *c, int64_t ranks) {
  double sum = 0;
  for (int32_t i = 0; i < c->n_node_groups && ranks > 0; i++) {
    const bl_node_group *group = &c->node_group[i];
    const bl_device *d = &group->device;
    const double base = c->measured ? d->tflops * 1e6 : bl_device_core_rate(d);
    const double rate = c->measured ? d->matrix.tflops * 1e6 : bl_device_rate(d);
    const int64_t all = (int64_t)group->nodes * group->ranks_per_node, used = all < ranks ? all : ranks;
    sum += (double)used * (rate > base ? rate : base);
    ranks -= used;
  }
  return sum;
}

static bl_status begin(searcher *s, const bl_search_options *o, bl_search_result *out) {
  memset(out, 0, sizeof *out);
  *s = (searcher){.o = o, .result = out};
  BL_TRY(check_options(o));
  bl_items_of_model(o->model, s->count);
  out->bound_us = DBL_MAX;
  const double flop = bl_model_training_flop(o->model, (int64_t)o->batch * o->model->sequence, true);
  out->roofline_us = flop / all_rates(o->cluster, o->ranks);
  BL_TRY(bl_new(&out->entry, (size_t)o->top, sizeof *out->entry, "layouts"));
  /* Both workspaces in one allocation. */
  const bl_status status = bl_new(&s->variant, 2, sizeof *s->variant, "layouts");
  if (status != BL_OK) bl_search_free(out);
  s->tried = s->variant + 1;
  return status;
}

bl_status bl_search(const bl_search_options *o, bl_search_result *out) {
  searcher s;
  BL_TRY(begin(&s, o, out));
  enumerate(&s);
  free(s.variant);
  return o->simulate > 0 && out->n > 0 ? bl_search_simulate(o, out) : BL_OK;
}

bl_status bl_search_visit(const bl_search_options *o, bl_search_visitor visit, void *context) {
  searcher s;
  bl_search_result result;
  BL_TRY(begin(&s, o, &result));
  s.visit = visit;
  s.context = context;
  s.variant->price.step_us = DBL_MAX;
  enumerate(&s);
  free(s.variant);
  bl_search_free(&result);
  return BL_OK;
}

bool bl_search_may_fit(const bl_search_options *o, const bl_grid *g, const bl_grid_costs *costs) {
  searcher s = {.o = o};
  bl_items_of_model(o->model, s.count);
  return memory_bound(&s, g, costs) <= o->memory_bytes;
}

void bl_search_free(bl_search_result *result) {
  free(result->entry);
  memset(result, 0, sizeof *result);
}

static bool dense_grid_folds(const bl_search_options *o, int32_t ranks) {
  const bl_model *m = o->model;
  for (int32_t tp = 1; tp <= m->heads; tp++) {
    if (m->heads % tp != 0 || m->state_heads % tp != 0 || ranks % tp != 0 || !wanted(o->fixed.tp, tp)) continue;
    for (int32_t cp = 1; cp <= ranks / tp; cp++) {
      if (ranks / tp % cp != 0 || !wanted(o->fixed.cp, cp)) continue;
      if (cp > 1 && m->sequence % (2 * (int64_t)cp) != 0) continue;
      for (int32_t pp = 1; pp <= m->layers + 2 && pp <= BL_STAGES_MAX; pp++) {
        const int32_t rest = ranks / tp / cp;
        if (rest % pp == 0 && o->batch % (rest / pp) == 0 && wanted(o->fixed.pp, pp) && wanted(o->fixed.dp, rest / pp))
          return true;
      }
    }
  }
  return false;
}

/* The most ranks, fewer than asked for, that fold; 0: none, or the expert grid is fixed. */
static int32_t fewer_ranks(const bl_search_options *o) {
  int32_t ranks = o->ranks - 1;
  if (o->fixed.etp > 0 || o->fixed.ep > 0 || o->fixed.edp > 0 || o->fixed.vp > 0 || o->fixed.micro_batch > 0) return 0;
  while (ranks > 0 && !dense_grid_folds(o, ranks)) ranks--;
  return ranks;
}

/* Why no layout folds: what stopped those that came furthest, and for a batch the nearest one that would do. */
static bl_status nothing_folds(const bl_search_options *o, const bl_search_result *r) {
  int last = -1;
  const int32_t fewer = fewer_ranks(o);
  char change[64] = "", ranks[48] = "";
  for (int i = 0; i < BL_SEARCH_REASON_COUNT; i++)
    if (r->rejected[i] > 0) last = i;
  const bool batch = last == BL_SEARCH_BATCH;
  if (fewer > 0) snprintf(ranks, sizeof ranks, "%s %d ranks", batch ? ", or" : "; nearest change:", fewer);
  if (last < 0)
    return bl_fail(BL_EINPUT,
                   "model %s: no layout folds %d ranks with a batch of %d: the sizes asked for do not divide %d%s",
                   o->model->name, o->ranks, o->batch, o->ranks, ranks);
  const bl_grid *g = &r->example[last];
  if (batch) snprintf(change, sizeof change, "; nearest change: a batch of %d", (o->batch + g->dp - 1) / g->dp * g->dp);
  const int32_t sizes[] = {g->tp, g->cp, g->dp, g->pp, g->ep};
  static const char *const names[] = {"tp", "cp", "dp", "pp", "ep"};
  char text[96] = "";
  for (size_t i = 0, n = 0; i < sizeof sizes / sizeof *sizes; i++)
    if (sizes[i] > 0) n += (size_t)snprintf(text + n, sizeof text - n, "%s%s %d", n ? ", " : "", names[i], sizes[i]);
  return bl_fail(BL_EINPUT,
                 "model %s: no layout folds %d ranks with a batch of %d: %s (%d heads, %d layers, %d experts), as with "
                 "%s%s%s",
                 o->model->name, o->ranks, o->batch, bl_search_reasons[last], o->model->heads, o->model->layers,
                 o->model->experts, text, change, ranks);
}

bl_status bl_search_least_memory(const bl_search_options *o, bl_search_entry *entry) {
  searcher s;
  bl_search_result result;
  BL_TRY(begin(&s, o, &result));
  s.least_memory = true;
  s.variant->memory.total = DBL_MAX, s.variant->memory_share = 1;
  enumerate(&s);
  *entry = *s.variant;
  free(s.variant);
  const bl_status status = entry->memory.total < DBL_MAX ? BL_OK : nothing_folds(o, &result);
  bl_search_free(&result);
  return status;
}

bl_status bl_search_layout(const bl_search_options *o, const bl_search_entry *e, bl_layout *layout) {
  const bl_grid *g = &e->grid;
  const int32_t stages = g->pp * g->vp;
  BL_TRY(bl_layout_default(layout, 1, o->model->layers, g->micro_batch, g->micro_batches));
  layout->tp = g->tp, layout->cp = g->cp, layout->dp = g->dp, layout->pp = g->pp, layout->vp = g->vp;
  layout->etp = g->etp, layout->ep = g->ep, layout->edp = g->edp, layout->zero = g->zero;
  layout->pieces = g->pieces > 1 ? g->pieces : 1;
  layout->recompute = (int32_t)g->recompute, layout->overlap = g->overlap, layout->node_dispatch = g->node_dispatch;
  layout->copy_slots = g->copy_slots, layout->gradient_bytes = (int32_t)bl_grid_gradient_bytes(g);
  if (g->zero > 0 && (int32_t)bl_grid_shard(g) < g->dp * g->cp) layout->shard = (int32_t)bl_grid_shard(g);
  layout->n_stages = stages;
  int32_t *first;
  const bl_status status = bl_new(&first, (size_t)stages + 1, sizeof *first, "stages");
  if (status != BL_OK) {
    bl_layout_free(layout);
    return status;
  }
  memcpy(first, e->first, ((size_t)stages + 1) * sizeof *first);
  free(layout->stage_first);
  layout->stage_first = first;
  return BL_OK;
}
