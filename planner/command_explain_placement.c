/* command_explain_placement.c - homes and copies in words. */
#include "base/table.h"
#include "planner/command_explain.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const bl_layer_placement *worst_layer(const bl_placement *p) {
  const bl_layer_placement *worst = &p->layer[0];
  for (int32_t l = 1; l < p->layers; ++l)
    if (p->layer[l].imbalance > worst->imbalance) worst = &p->layer[l];
  return worst;
}

/* What a proof's name stands for, where a few words can say it. */
static const char *proof_text(const char *name) {
  static const char *const texts[][2] = {
      {"mean-load", ": no rank can be below the mean"},
      {"hottest-expert", ": the hottest expert has one rank, and others must live beside it"},
      {"pigeonhole", ": so many large experts must meet on one rank"},
      {"depth-first", ": every arrangement of homes was tried or excluded"},
      {"hottest-replica", ": so much of the hottest expert each even replica takes"}};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    if (strcmp(name, texts[i][0]) == 0) return texts[i][1];
  return "";
}

static int32_t homes_away(const bl_placement *p, const bl_layer_placement *layer) {
  int32_t away = 0;
  for (int32_t e = 0; e < p->experts; ++e) away += layer->home[e] != bl_home_contiguous(e, p->experts, p->ranks);
  return away;
}

static void explain_slots(const bl_placement *p) {
  int32_t least = p->slots[0], most = p->slots[0];
  for (int32_t r = 1; r < p->ranks; ++r) {
    if (p->slots[r] < least) least = p->slots[r];
    if (p->slots[r] > most) most = p->slots[r];
  }
  printf("Placement: %d experts in each of %d layers on %d ranks; a rank has room for ", p->experts, p->layers,
         p->ranks);
  if (least == most) {
    printf("%d of a layer (slots).\n", least);
  } else {
    printf("%d to %d of a layer (slots).\n", least, most);
  }
}

static void explain_hosts(const bl_placement *p) {
  const int32_t homes = (p->experts + p->ranks - 1) / p->ranks;
  int64_t copies = 0, away = 0;
  for (int32_t l = 0; l < p->layers; ++l) {
    copies += p->layer[l].n_copies;
    away += homes_away(p, &p->layer[l]);
  }
  if (away == 0)
    printf("Homes: every expert has its home, where its training state is, in order: expert e on rank e / %d.\n",
           homes);
  else
    printf(
        "Homes: %.1f of %d experts a layer have a home other than in order (expert e on rank e / %d); where they lived "
        "so until\nnow, their training state moves once.\n",
        (double)away / p->layers, p->experts, homes);
  if (copies == 0)
    printf("Copies: none.\n");
  else
    printf("Copies: %.1f a layer, which take part of their expert's tokens: weights come from the home once a step, "
           "gradients go back\nonce a step.\n",
           (double)copies / p->layers);
  if (p->even_split)
    printf("Split: even, every replica of an expert takes as many of its tokens as the others.\n");
  else if (copies > 0)
    printf("Shares are those of the loads placed for; a run solves them afresh for every layer and micro-batch%s.\n",
           p->layer[0].price ? ",\nfor balance alone, so its exchange may cost more than the price says" : "");
}

static void explain_balance(const bl_plan *plan) {
  const bl_placement *p = &plan->placement;
  const bl_layer_placement *worst = worst_layer(p);
  double mean = 0;
  for (int32_t l = 0; l < p->layers; ++l) mean += p->layer[l].imbalance / p->layers;
  printf("Balance: the busiest rank, for which all others wait, computes %.2f %% longer than if all took their part by "
         "their\nspeed (mean over layers; ranks alike: that many more tokens), %.2f %% in the worst layer, %d.\n",
         100 * fmax(0, mean - 1), 100 * fmax(0, worst->imbalance - 1), worst->layer);
  const double gap = worst->imbalance / worst->bound - 1;
  printf("Bound: in that layer no placement with these slots gets below %.2f %%", 100 * (worst->bound - 1));
  if (plan->has_bound && plan->bound_proof[0]) printf(" (%s%s)", plan->bound_proof, proof_text(plan->bound_proof));
  if (gap < 1e-6) {
    printf(": it is optimal.\n");
  } else {
    printf(": at most %.2f %% of its experts' time could be won.\n", 100 * gap / (1 + gap));
  }
  if (p->layer[0].price)
    printf("What this placement is after is the price below: balance is bought as far as it pays.\n");
}

/* -- what it costs --------------------------------------------------------------------------------------------------
 */

/* What would shrink the largest term. */
static void advise_price(const double *us) {
  static const char *const texts[BL_PLACE_TERM_COUNT] = {
      [BL_PLACE_COMPUTE] = "more slots (place --slots) let copies even it out; beyond that, more ranks",
      [BL_PLACE_EXCHANGE] = "an expert-parallel group on fewer nodes, faster links, or fewer experts a token",
      [BL_PLACE_FILL] = "more micro-batches a step pay copies off; fewer slots or --relay best make them cheaper",
      [BL_PLACE_REDUCE] = "more micro-batches a step pay copies off; fewer slots or --relay best make them cheaper",
      [BL_PLACE_MOVE] = "a longer --horizon pays moves off"};
  int largest = 0;
  for (int t = 1; t < BL_PLACE_TERM_COUNT; ++t)
    if (us[t] > us[largest]) largest = t;
  printf("  What limits it: %s. What shrinks that: %s.\n", bl_place_term_names[largest], texts[largest]);
}

static void explain_proof(const bl_plan_proof *p) {
  const char *rest = p->reason[0] ? "; " : "";
  if (p->copies < 0)
    printf("  within an imbalance of %g: no placement found%s%s\n", p->within, rest, p->reason);
  else if (p->price <= p->bound + 1e-6)
    printf("  within an imbalance of %g: %d copies and %d moved homes, proved least (%s)%s%s\n", p->within, p->copies,
           p->moves, p->proof, rest, p->reason);
  else
    printf(
        "  within an imbalance of %g: %d copies and %d moved homes, a price of %g in copies, of which at least %g is "
        "needed (%s)%s%s\n",
        p->within, p->copies, p->moves, p->price, p->bound, p->proof, rest, p->reason);
}

static const char *level_name(int32_t level) {
  static const char *const names[] = {"nowhere", "inside its node", "between nodes", "between racks"};
  return names[level < 0 || level > 3 ? 0 : level];
}

static void explain_port(const bl_layer_price *price, bl_place_term term) {
  const bl_place_port *port = &price->port[term];
  if (port->level == 0) return;
  printf("    %s: busiest is rank %d, which %s most %s\n", bl_place_term_names[term], port->rank,
         port->in ? "receives" : "sends", level_name(port->level));
}

/* All layers' terms together. */
static void explain_price(const bl_placement *p) {
  double us[BL_PLACE_TERM_COUNT] = {0}, total = 0, bound = 0;
  if (p->layers < 1) return;
  const bl_layer_placement *widest = &p->layer[0];
  double gap = -1;
  for (int32_t l = 0; l < p->layers; ++l) {
    const bl_layer_price *price = p->layer[l].price;
    if (!price) return;
    for (int t = 0; t < BL_PLACE_TERM_COUNT; ++t) us[t] += price->us[t];
    total += price->total_us;
    bound += price->bound_us;
    if (price->total_us - price->bound_us > gap) {
      gap = price->total_us - price->bound_us;
      widest = &p->layer[l];
    }
  }
  printf(
      "Price: with compute, exchange and copies added up, nothing hidden under anything else, the placed layers take "
      "%.1f us of an\noptimizer step (by the cluster file's figures, measured or assumed as that file says):\n",
      total);
  for (int t = 0; t < BL_PLACE_TERM_COUNT; ++t)
    printf("  %-8s %12.1f us  %5.1f %%  %s\n", bl_place_term_names[t], us[t], total > 0 ? 100 * us[t] / total : 0,
           bl_place_term_texts[t]);
  printf("  No placement takes less than %.1f us (proof: %s): at most %.2f %% could be won, most of it in layer %d.\n",
         bound, widest->price->proof, total > 0 ? 100 * (1 - bound / total) : 0, widest->layer);
  advise_price(us);
}

/* One layer's price: who is the bottleneck of each term. */
static void explain_layer_price(const bl_layer_price *price) {
  printf("  price %.1f us, bound %.1f us (%s)%s%s\n", price->total_us, price->bound_us, price->proof,
         price->reason[0] ? "; " : "", price->reason);
  for (int t = 0; t < BL_PLACE_TERM_COUNT; ++t)
    if (price->us[t] > 0)
      printf("    %-8s %12.1f us  %s\n", bl_place_term_names[t], price->us[t], bl_place_term_texts[t]);
  printf("    compute: rank %d takes longest\n", price->slowest_rank);
  for (int t = BL_PLACE_EXCHANGE; t < BL_PLACE_TERM_COUNT; ++t)
    if (t != BL_PLACE_REDUCE) explain_port(price, (bl_place_term)t); /* the way back of the fills */
}

static void explain_layer(const bl_placement *p, const bl_layer_placement *layer) {
  printf("\nLayer %d: imbalance %.6f, bound %.6f\n", layer->layer, layer->imbalance, layer->bound);
  if (layer->proved.given) explain_proof(&layer->proved);
  if (layer->price) explain_layer_price(layer->price);
  for (int32_t r = 0; r < p->ranks; ++r) {
    int32_t used = 0;
    printf("  rank %d: home of", r);
    for (int32_t e = 0; e < p->experts; ++e)
      if (layer->home[e] == r) {
        printf(" %d", e);
        ++used;
      }
    if (used == 0) printf(" none");
    const char *before = "; copies of";
    for (int32_t i = 0; i < layer->n_copies; ++i) {
      const bl_copy copy = layer->copies[i];
      if (copy.rank != r) continue;
      printf("%s %d (takes %.1f %% of its tokens", before, copy.expert, 100 * copy.share);
      if (layer->feeder && layer->feeder[i] != layer->home[copy.expert])
        printf(", filled from rank %d", layer->feeder[i]);
      printf(")");
      before = ",";
      ++used;
    }
    if (used < p->slots[r]) printf("; %d free", p->slots[r] - used);
    printf("\n");
  }
}

/* -- the whole ------------------------------------------------------------------------------------------------------
 */

static bl_status print_layers(const bl_placement *p) {
  bl_table *table;
  const bool priced = p->layer[0].price != NULL;
  BL_TRY(bl_table_create(priced ? "layer|busiest rank %|bound %|copies|homes not in order|us|bound us"
                                : "layer|busiest rank %|bound %|copies|homes not in order",
                         &table));
  for (int32_t l = 0; l < p->layers; ++l) {
    const bl_layer_placement *layer = &p->layer[l];
    bl_table_cell(table, "%d", layer->layer);
    bl_table_cell(table, "+%.2f", 100 * fmax(0, layer->imbalance - 1));
    bl_table_cell(table, "+%.2f", 100 * fmax(0, layer->bound - 1));
    bl_table_cell(table, "%d", layer->n_copies);
    bl_table_cell(table, "%d", homes_away(p, layer));
    if (!priced) continue;
    bl_table_cell(table, "%.1f", layer->price ? layer->price->total_us : 0);
    bl_table_cell(table, "%.1f", layer->price ? layer->price->bound_us : 0);
  }
  printf("\n");
  bl_table_print(table, stdout);
  bl_table_free(table);
  return BL_OK;
}

static void explain_next(const bl_plan *plan, const char *where) {
  const bl_placement *p = &plan->placement;
  const bl_layer_placement *worst = worst_layer(p);
  int64_t copies = 0;
  for (int32_t l = 0; l < p->layers; ++l) copies += p->layer[l].n_copies;
  printf("\nNext:\n");
  const bool proved = worst->proved.given;
  if (worst->imbalance > 1.01 && copies == 0)
    printf("  - one more slot a rank (place --slots) lets copies take what homes alone cannot balance\n");
  else if (worst->imbalance > 1.01 && proved)
    printf("  - an imbalance of %g was allowed: a smaller place --within is more even and needs more copies\n",
           worst->proved.within);
  else if (worst->imbalance > 1.01 * worst->bound && !p->layer[0].price)
    printf("  - more slots (place --slots) come nearer to the bound\n");
  printf("  - ballast-plan replay --trace F --ranks %d --slots %d --policy ballast: whether it holds while routing "
         "drifts\n",
         p->ranks, p->slots[0]);
  printf("  - ballast-train --plan %s trains with it; ballast-plan export %s --to STACK gives it to another one\n",
         where, where);
}

static bl_status explain_ranks(const bl_placement *p, int64_t wanted) {
  const int32_t worst = worst_layer(p)->layer;
  if (wanted == BL_EXPLAIN_WORST) {
    BL_TRY(print_layers(p));
    if (p->layers > 1) printf("\nRanks of the worst layer (--layer L shows another, --layer -1 all):");
    wanted = worst;
  }
  for (int32_t l = 0; l < p->layers; ++l)
    if (wanted == BL_EXPLAIN_ALL || p->layer[l].layer == wanted) explain_layer(p, &p->layer[l]);
  return BL_OK;
}

bl_status bl_explain_placement(const bl_plan *plan, int64_t layer, const char *where) {
  const bl_placement *p = &plan->placement;
  bool found = layer < 0;
  for (int32_t l = 0; l < p->layers; ++l) found = found || p->layer[l].layer == layer;
  if (!found) return bl_fail(BL_EINPUT, "%s: places no layer %" PRId64, where, layer);
  explain_slots(p);
  explain_hosts(p);
  explain_balance(plan);
  explain_price(p);
  BL_TRY(explain_ranks(p, layer));
  explain_next(plan, where);
  return BL_OK;
}
