#include "planner/regret.h"
#include "base/memory.h"
#include "planner/place/copies.h"
#include <string.h>

typedef struct layer_regret {
  bl_hosts *candidate; /* [n of room] */
  double *cost;        /* [room]: of the cheapest sequence that ends in the candidate */
  int32_t n;
  bl_hosts before; /* decided for the step before */
  double decided;
  int64_t played, looked;
} layer_regret;

struct bl_regret {
  bl_regret_options o;
  int32_t room;        /* candidates of a layer */
  int32_t *slots;      /* [ranks] */
  layer_regret *layer; /* [layers] */
  bl_hosts found;
  double *arriving; /* [room] */
  bl_shares *shares;
  bl_copies *search;
};

static bl_status fill(bl_regret *g, const bl_regret_options *o) {
  int64_t slots = 0;
  g->o = *o;
  g->room = 2 * o->spread + 1;
  BL_TRY(bl_new(&g->slots, (size_t)o->ranks, sizeof *g->slots, "regret"));
  for (int32_t r = 0; r < o->ranks; ++r) slots += g->slots[r] = o->slots[r];
  g->o.slots = g->slots;
  const int32_t copies = (int32_t)(slots > o->experts ? slots - o->experts : 0);
  BL_TRY(bl_hosts_create(&g->found, o->experts, o->ranks, g->slots));
  BL_TRY(bl_new(&g->arriving, (size_t)g->room, sizeof *g->arriving, "regret"));
  BL_TRY(bl_shares_create(o->experts, o->ranks, copies, &g->shares));
  BL_TRY(bl_copies_create(o->experts, o->ranks, copies, &g->search));
  BL_TRY(bl_new(&g->layer, (size_t)o->layers, sizeof *g->layer, "regret"));
  for (int32_t l = 0; l < o->layers; ++l) {
    layer_regret *layer = &g->layer[l];
    BL_TRY(bl_hosts_create(&layer->before, o->experts, o->ranks, g->slots));
    BL_TRY(bl_new(&layer->candidate, (size_t)g->room, sizeof *layer->candidate, "regret"));
    BL_TRY(bl_new(&layer->cost, (size_t)g->room, sizeof *layer->cost, "regret"));
  }
  return BL_OK;
}

bl_status bl_regret_create(const bl_regret_options *options, bl_regret **out) {
  bl_regret *g;
  *out = NULL;
  BL_TRY(bl_new(&g, 1, sizeof *g, "regret"));
  const bl_status status = fill(g, options);
  if (status != BL_OK) {
    bl_regret_free(g);
    return status;
  }
  *out = g;
  return BL_OK;
}

void bl_regret_free(bl_regret *g) {
  if (!g) return;
  for (int32_t l = 0; g->layer && l < g->o.layers; ++l) {
    layer_regret *layer = &g->layer[l];
    for (int32_t i = 0; layer->candidate && i < layer->n; ++i) bl_hosts_free(&layer->candidate[i]);
    free(layer->candidate);
    free(layer->cost);
    bl_hosts_free(&layer->before);
  }
  free(g->layer);
  free(g->slots);
  free(g->arriving);
  bl_hosts_free(&g->found);
  bl_shares_free(g->shares);
  bl_copies_free(g->search);
  free(g);
}

/* What hosts cost in a step, moves aside. */
static double cost_of(bl_regret *g, const bl_hosts *hosts, const double *counts) {
  int32_t copies = 0;
  for (int32_t s = 0; s < hosts->n_copy_slots; ++s) copies += hosts->copy_expert[s] >= 0;
  return bl_shares_solve(g->shares, hosts, counts, NULL) + g->o.copy_price * copies;
}

static double cost_to_move(const bl_regret *g, const bl_hosts *from, const bl_hosts *to) {
  int32_t moves = 0;
  for (int32_t e = 0; e < g->o.experts; ++e) moves += from->home[e] != to->home[e];
  return g->o.move_price * moves;
}

static bl_status add_candidate(bl_regret *g, layer_regret *layer, const bl_hosts *hosts) {
  for (int32_t i = 0; i < layer->n; ++i)
    if (bl_hosts_hash(&layer->candidate[i], 0) == bl_hosts_hash(hosts, 0)) return BL_OK;
  BL_TRY(bl_hosts_create(&layer->candidate[layer->n], g->o.experts, g->o.ranks, g->slots));
  ++layer->n; /* from here on it is freed with the rest */
  return bl_hosts_assign(&layer->candidate[layer->n - 1], hosts);
}

/* Is step t one of `spread` evenly spread ones? */
static bool is_spread(const bl_regret *g, int64_t t) {
  return t * g->o.spread / g->o.steps != (t - 1) * g->o.spread / g->o.steps || t == 0;
}

bl_status bl_regret_play(bl_regret *g, int32_t l, const bl_hosts *decided, const double *counts) {
  layer_regret *layer = &g->layer[l];
  if (layer->played == 0) BL_TRY(add_candidate(g, layer, decided));
  if (layer->played > 0) layer->decided += cost_to_move(g, &layer->before, decided);
  layer->decided += cost_of(g, decided, counts);
  BL_TRY(bl_hosts_assign(&layer->before, decided));
  if (is_spread(g, layer->played++) && layer->n + 2 <= g->room) {
    bl_copies_options options;
    bl_copies_options_init(&options);
    options.copy_price = g->o.copy_price;
    BL_TRY(add_candidate(g, layer, decided));
    BL_TRY(bl_hosts_assign(&g->found, decided));
    bl_copies_search(g->search, &g->found, counts, 1, NULL, &options);
    BL_TRY(add_candidate(g, layer, &g->found));
  }
  return BL_OK;
}

void bl_regret_look_back(bl_regret *g, int32_t l, const double *counts) {
  layer_regret *layer = &g->layer[l];
  for (int32_t i = 0; i < layer->n; ++i) {
    double least = layer->looked == 0 ? cost_to_move(g, &layer->candidate[0], &layer->candidate[i]) : layer->cost[i];
    for (int32_t k = 0; k < layer->n && layer->looked > 0; ++k) {
      if (layer->cost[k] >= least) continue;
      const double via = layer->cost[k] + cost_to_move(g, &layer->candidate[k], &layer->candidate[i]);
      if (via < least) least = via;
    }
    g->arriving[i] = least;
  }
  for (int32_t i = 0; i < layer->n; ++i) layer->cost[i] = g->arriving[i] + cost_of(g, &layer->candidate[i], counts);
  ++layer->looked;
}

bl_regret_result bl_regret_sum_up(const bl_regret *g) {
  bl_regret_result result = {0};
  double steps = 0;
  for (int32_t l = 0; l < g->o.layers; ++l) {
    const layer_regret *layer = &g->layer[l];
    double best = layer->n > 0 ? layer->cost[0] : 0;
    for (int32_t i = 1; i < layer->n; ++i)
      if (layer->cost[i] < best) best = layer->cost[i];
    result.decided += layer->decided;
    result.best += best;
    result.candidates += (double)layer->n / g->o.layers;
    steps += (double)layer->played;
  }
  if (steps > 0) {
    result.decided /= steps;
    result.best /= steps;
  }
  return result;
}
