/* second_stage.c - of the layouts that closed forms have priced, those that may be the fastest are simulated. */
#include "base/memory.h"
#include "planner/search/block_bound.h"
#include "planner/search/survivor.h"
#include <float.h>
#include <stdlib.h>
#include <string.h>

typedef struct candidate {
  bl_grid grid;
  double price_us, bound_us;
} candidate;

typedef struct stage {
  const bl_search_options *o;
  bl_search_result *result;
  int32_t count[BL_ITEM_COUNT]; /* of the whole model */
  candidate *candidate;
  size_t n, room;
  bl_search_entry *tried; /* workspace */
  bl_status status;
} stage;

static double best_us(const stage *s) { return s->result->entry[0].simulated.step_us; }

static bool same_fold(const bl_grid *a, const bl_grid *b) {
  return a->tp == b->tp && a->cp == b->cp && a->dp == b->dp && a->pp == b->pp && a->vp == b->vp && a->etp == b->etp &&
         a->ep == b->ep && a->micro_batch == b->micro_batch;
}

static bool same_layout(const bl_grid *a, const bl_grid *b) {
  return same_fold(a, b) && a->zero == b->zero && a->recompute == b->recompute &&
         (a->pieces > 1 ? a->pieces : 1) == (b->pieces > 1 ? b->pieces : 1);
}

/* Entries are sorted by simulated time; a fold is there once. */
static void insert(stage *s, const bl_search_entry *e) {
  bl_search_result *r = s->result;
  int32_t at = 0;
  for (int32_t i = 0; i < r->n; i++) {
    if (!same_fold(&r->entry[i].grid, &e->grid)) continue;
    if (r->entry[i].simulated.step_us <= e->simulated.step_us) return;
    memmove(&r->entry[i], &r->entry[i + 1], (size_t)(--r->n - i) * sizeof *e);
    break;
  }
  while (at < r->n && r->entry[at].simulated.step_us <= e->simulated.step_us) at++;
  if (at == s->o->top) return;
  const int32_t kept = r->n < s->o->top ? r->n++ : r->n - 1;
  memmove(&r->entry[at + 1], &r->entry[at], (size_t)(kept - at) * sizeof *e);
  r->entry[at] = *e;
}

static bl_status simulate_entries(stage *s) {
  bl_search_result *r = s->result;
  const int32_t n = r->n;
  bl_search_entry *entries;
  BL_TRY(bl_new(&entries, (size_t)n, sizeof *entries, "layouts"));
  memcpy(entries, r->entry, (size_t)n * sizeof *entries);
  bl_status status = BL_OK;
  for (int32_t i = 0; i < n && status == BL_OK; i++) status = bl_survivor_simulate(s->o, false, &entries[i]);
  if (status == BL_OK) {
    r->n = 0;
    for (int32_t i = 0; i < n; i++) insert(s, &entries[i]);
    r->simulated = n;
  }
  free(entries);
  return status;
}

/* As bl_block_bound_any(), from sums that are at hand: what its items take beside rows that links may hide. */
static double quick_bound(const stage *s, const bl_grid *g, const bl_grid_costs *costs, bool beside) {
  double us[BL_POSITION_KINDS][BL_ITEM_COUNT], sum;
  const double again = g->recompute == BL_RECOMPUTE_FFN || g->recompute == BL_RECOMPUTE_FULL; /* two of four again */
  for (int32_t k = 0; k < costs->positions->kinds; k++)
    for (int i = 0; i < BL_ITEM_COUNT; i++) {
      const bl_item_price *price = &costs->at[k].price[i];
      us[k][i] = price->total - (beside ? price->us[BL_PRICE_EXCHANGE] * (1 + again / 2) : 0);
    }
  return g->micro_batches * bl_positions_share(costs->positions, (const double(*)[BL_ITEM_COUNT])us, s->count, &sum);
}

/* Keeps a layout whose bounds leave hope, and that fits. */
static void consider_one(stage *s, const bl_grid *g, const bl_grid_costs *costs) {
  const bl_search_options *o = s->o;
  const bl_positions *p = costs->positions;
  bl_work work;
  bl_block_costs blocks[BL_POSITION_KINDS];
  const bool beside = bl_grid_overlaps(g) || g->pieces > 1;
  if (quick_bound(s, g, costs, beside) >= best_us(s)) return;
  if (s->status != BL_OK || !bl_search_may_fit(o, g, costs)) return;
  s->result->hopeful++;
  for (int32_t k = 0; k < p->kinds; k++) {
    bl_grid_work(o->model, p, k, g, o->model->experts > 0 ? o->imbalance[g->ep] : 1, &work);
    bl_block_cost(o->model, g, &work, beside, &blocks[k]);
  }
  if (bl_block_bound_any(g, p, blocks, s->count) >= best_us(s)) return;
  s->result->divided++;
  if (!bl_search_price(o, g, s->tried)) return;
  const double bound = bl_block_bound(o->model, g, p, blocks, s->tried->first, bl_grid_overlaps(g));
  if (bound >= best_us(s)) return;
  s->status = bl_grow(&s->candidate, &s->room, s->n + 1, sizeof *s->candidate, "layouts");
  if (s->status != BL_OK) return;
  s->candidate[s->n++] = (candidate){*g, s->tried->price.step_us, bound};
}

static void consider(void *context, const bl_grid *grid, const bl_grid_costs *costs) {
  stage *s = context;
  bl_grid g = *grid;
  const int32_t most = g.ep > 1 && s->o->pieces > 1 ? s->o->pieces : 1;
  for (g.pieces = 1; g.pieces <= most; g.pieces *= 2) consider_one(s, &g, costs);
}

static int by_price(const void *a, const void *b) {
  const candidate *x = a, *y = b;
  return (x->price_us > y->price_us) - (x->price_us < y->price_us);
}

static bool is_entry(const stage *s, const bl_grid *g) {
  for (int32_t i = 0; i < s->result->n; i++)
    if (same_layout(&s->result->entry[i].grid, g)) return true;
  return false;
}

static bl_status simulate_candidates(stage *s) {
  bl_search_result *r = s->result;
  double least = DBL_MAX;
  int32_t left = s->o->simulate;
  if (s->n > 0) qsort(s->candidate, s->n, sizeof *s->candidate, by_price);
  for (size_t i = 0; i < s->n; i++) {
    const candidate *c = &s->candidate[i];
    if (c->bound_us >= best_us(s) || is_entry(s, &c->grid)) continue;
    if (left == 0) {
      r->open++;
      if (c->bound_us < least) least = c->bound_us;
      continue;
    }
    left--;
    bl_search_price(s->o, &c->grid, s->tried);
    BL_TRY(bl_survivor_simulate(s->o, false, s->tried));
    r->simulated++;
    insert(s, s->tried);
  }
  r->proved_us = least < best_us(s) ? least : best_us(s);
  return BL_OK;
}

bl_status bl_search_simulate(const bl_search_options *o, bl_search_result *r) {
  stage s = {.o = o, .result = r};
  bl_items_of_model(o->model, s.count);
  bl_status status = bl_new(&s.tried, 1, sizeof *s.tried, "layouts");
  if (status == BL_OK) status = simulate_entries(&s);
  if (status == BL_OK) status = bl_search_visit(o, consider, &s);
  if (status == BL_OK) status = s.status;
  if (status == BL_OK) status = simulate_candidates(&s);
  free(s.tried);
  free(s.candidate);
  if (status != BL_OK) bl_search_free(r);
  return status;
}
