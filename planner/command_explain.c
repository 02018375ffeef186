/* ballast-plan explain: a plan file in words. */
#include "base/memory.h"
#include "costmodel/plan.h"
#include "planner/commands.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static struct {
  const char *plan;
  int64_t layer;
} arg = {.layer = -1};

static void explain_layout(const bl_layout *l) {
  printf("Layout: %" PRId64 " ranks. Dense part: %d tensor x %d context x %d data parallel x %d pipeline; experts: "
         "%d tensor x %d expert x %d data parallel.\n",
         (int64_t)l->tp * l->cp * l->dp * l->pp, l->tp, l->cp, l->dp, l->pp, l->etp, l->ep, l->edp);
  printf("A step has %d micro-batches of %d sequences a data-parallel rank; optimizer sharding level %d.\n",
         l->micro_batches, l->micro_batch, l->zero);
  for (int32_t s = 0; s < l->n_stages; ++s)
    printf("  stage %d: %d layers\n", s, l->stage_first[s + 1] - l->stage_first[s]);
}

static const bl_layer_placement *worst_layer(const bl_placement *p) {
  const bl_layer_placement *worst = &p->layer[0];
  for (int32_t l = 1; l < p->layers; ++l)
    if (p->layer[l].imbalance > worst->imbalance) worst = &p->layer[l];
  return worst;
}

static void explain_summary(const bl_plan *plan) {
  const bl_placement *p = &plan->placement;
  const bl_layer_placement *worst = worst_layer(p);
  int64_t copies = 0, away = 0;
  int32_t least = p->slots[0], most = p->slots[0];
  double mean = 0;
  for (int32_t l = 0; l < p->layers; ++l) {
    copies += p->layer[l].n_copies;
    mean += p->layer[l].imbalance / p->layers;
    for (int32_t e = 0; e < p->experts; ++e) away += p->layer[l].home[e] != bl_home_contiguous(e, p->experts, p->ranks);
  }
  for (int32_t r = 1; r < p->ranks; ++r) {
    if (p->slots[r] < least) least = p->slots[r];
    if (p->slots[r] > most) most = p->slots[r];
  }
  printf("Placement: %d experts in each of %d layers on %d ranks", p->experts, p->layers, p->ranks);
  if (least == most) {
    printf(" with %d slots each.\n", least);
  } else {
    printf(" with %d to %d slots.\n", least, most);
  }
  if (p->even_split) printf("Split: even, every replica of an expert takes as many of its tokens as the others.\n");
  printf("Homes: %.1f of %d experts a layer live elsewhere than in contiguous order. Copies: %.1f a layer.\n",
         (double)away / p->layers, p->experts, (double)copies / p->layers);
  printf("Balance: the busiest rank computes %.2f %% more tokens than the mean rank (mean over layers), %.2f %% in the "
         "worst layer, %d.\n",
         100 * fmax(0, mean - 1), 100 * fmax(0, worst->imbalance - 1), worst->layer);
  const double gap = worst->imbalance / worst->bound - 1;
  printf("Bound: in that layer no placement gets below %.2f %%", 100 * (worst->bound - 1));
  if (plan->has_bound && plan->bound_proof[0]) printf(" (proof: %s)", plan->bound_proof);
  if (gap < 1e-6) {
    printf(": it is optimal.\n");
  } else {
    printf(": at most %.2f %% of its time could be won.\n", 100 * gap / (1 + gap));
  }
}

static void explain_proof(const bl_plan_proof *p) {
  const char *rest = p->reason[0] ? "; " : "";
  if (p->copies < 0)
    printf("  within an imbalance of %g: no placement found%s%s\n", p->within, rest, p->reason);
  else if (p->price <= p->bound + 1e-6)
    printf("  within an imbalance of %g: %d copies and %d moved homes, proved least (%s)%s%s\n", p->within, p->copies,
           p->moves, p->proof, rest, p->reason);
  else
    printf("  within an imbalance of %g: %d copies and %d moved homes, a price of %g of which at least %g is needed "
           "(%s)%s%s\n",
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
  printf("Price: the placed layers take %.1f us of an optimizer step:\n", total);
  for (int t = 0; t < BL_PLACE_TERM_COUNT; ++t)
    printf("  %-8s %12.1f us  %5.1f %%  %s\n", bl_place_term_names[t], us[t], total > 0 ? 100 * us[t] / total : 0,
           bl_place_term_texts[t]);
  printf("  at least %.1f us with any placement: at most %.2f %% could be won, most of it in layer %d (%s).\n", bound,
         total > 0 ? 100 * (1 - bound / total) : 0, widest->layer, widest->price->proof);
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

static bl_status explain(const bl_plan *plan) {
  bool found = arg.layer < 0;
  for (int32_t l = 0; l < plan->placement.layers; ++l) found = found || plan->placement.layer[l].layer == arg.layer;
  if (!found) return bl_fail(BL_EINPUT, "%s: places no layer %" PRId64, arg.plan, arg.layer);
  if (plan->has_layout) explain_layout(&plan->layout);
  if (plan->has_predicted && plan->predicted_step_us > 0)
    printf("Predicted: %.0f us a step, %.2f GB on the fullest rank.\n", plan->predicted_step_us,
           plan->predicted_memory_bytes * 1e-9);
  if (plan->search) bl_plan_costs_print(&plan->search->costs);
  if (!plan->has_placement) return BL_OK;
  explain_summary(plan);
  explain_price(&plan->placement);
  for (int32_t l = 0; l < plan->placement.layers; ++l)
    if (arg.layer < 0 || plan->placement.layer[l].layer == arg.layer)
      explain_layer(&plan->placement, &plan->placement.layer[l]);
  return BL_OK;
}

static bl_status run(void *context) {
  (void)context;
  bl_plan plan;
  BL_TRY(bl_plan_load(arg.plan, &plan));
  const bl_status status = explain(&plan);
  bl_plan_free(&plan);
  return status;
}

bl_command bl_command_explain(void) {
  static const bl_option options[] = {
      {.type = BL_OPTION_STRING, .target = &arg.plan, .metavar = "PLAN", .help = "the plan file", .required = true},
      {.name = "layer",
       .type = BL_OPTION_INT,
       .target = &arg.layer,
       .metavar = "L",
       .help = "only this layer's ranks; -1 shows all",
       .min = -1,
       .max = 65536}};
  return (bl_command){.name = "explain",
                      .summary = "says in words what a plan does and how good it is",
                      .example = "ballast-plan explain plan.json --layer 3",
                      .options = options,
                      .n_options = sizeof options / sizeof *options,
                      .run = run};
}
