/* command_explain_layout.c - a layout in words: the step, the ranks, what limits it, what its figures rest on. */
#include "costmodel/group.h"
#include "planner/command_explain.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* -- what each rank does ------------------------------------------------------------------------------------------- */

static void print_layers(const bl_layout *l, int32_t stage, bool *any) {
  const int32_t first = l->stage_first[stage], end = l->stage_first[stage + 1];
  if (first == end) return;
  printf("%s", *any ? ", " : " layers ");
  if (end - first == 1)
    printf("%d", l->stage_layers[first]);
  else
    printf("%d to %d", l->stage_layers[first], l->stage_layers[end - 1]);
  *any = true;
}

static void explain_positions(const bl_layout *l) {
  const int32_t each = l->tp * l->cp * l->dp;
  printf("Ranks, pipeline position by position%s:\n", l->vp > 1 ? ", which has several stages each" : "");
  for (int32_t p = 0; p < l->pp; p++) {
    bool any = false;
    printf("  %d to %d:", p * each, (p + 1) * each - 1);
    for (int32_t s = p; s < l->n_stages; s += l->pp) print_layers(l, s, &any);
    printf("%s%s%s\n", any ? "" : " no layers", p == 0 ? ", the embedding" : "",
           p == l->pp - 1 ? ", head and loss" : "");
  }
}

static void explain_dense(const bl_layout *l) {
  printf("Attention and dense parts: ");
  if (l->tp > 1)
    printf("each matrix is split over %d neighbouring ranks (tp), ", l->tp);
  else
    printf("matrices are whole (tp 1), ");
  if (l->cp > 1) printf("each sequence over %d (cp), ", l->cp);
  printf("%d replica%s (dp).\n", l->dp, l->dp == 1 ? "" : "s");
}

static void explain_experts(const bl_plan *plan) {
  const bl_layout *l = &plan->layout;
  const int32_t experts = plan->search ? plan->search->experts : plan->has_placement ? plan->placement.experts : 0;
  if (plan->search && experts == 0) return; /* a dense model */
  printf("Experts: ");
  if (experts > 0) printf("the %d of a layer are ", experts);
  printf("spread over %d ranks (ep)", l->ep);
  if (experts > 0) printf(", %d on each", (experts + l->ep - 1) / l->ep);
  if (l->copy_slots > 0) printf(" and room for %d copies", l->copy_slots);
  if (l->etp > 1) printf("; each matrix is split over %d (etp)", l->etp);
  printf("; %d replica%s (edp).\n", l->edp, l->edp == 1 ? "" : "s");
}

static void explain_batch(const bl_plan *plan) {
  const bl_layout *l = &plan->layout;
  const int64_t batch = (int64_t)l->dp * l->micro_batch * l->micro_batches;
  const int32_t sequence = plan->search ? plan->search->sequence : l->sequence;
  printf("Batch: %" PRId64 " sequences", batch);
  if (sequence > 0) printf(" of %d tokens", sequence);
  printf(" a step; each of the %d replicas takes %" PRId64 ", in %d micro-batch%s of %d.\n", l->dp, batch / l->dp,
         l->micro_batches, l->micro_batches == 1 ? "" : "es", l->micro_batch);
}

static void explain_state(const bl_layout *l) {
  static const char *const zero[] = {"every rank keeps all of its weights' (zero 0)",
                                     "moments and master weights are spread (zero 1)", "",
                                     "weights, gradients, moments and master weights are spread (zero 3)"};
  const int32_t all = l->dp * l->cp, shard = l->shard > 0 ? l->shard : all;
  printf("Training state: %s", zero[l->zero]);
  if (l->zero > 0 && shard == all)
    printf(" over the ranks that hold the same weights, %d for dense parts and %d for experts", all, l->edp);
  else if (l->zero > 0)
    printf(" over groups of %d ranks that hold the same weights, and each of the %d groups has all of it (shard)",
           shard, all / shard);
  printf("; gradients in %s.\n", l->gradient_bytes == 2 ? "bf16" : "fp32");
}

static void explain_choices(const bl_layout *l) {
  static const char *const again[] = {"nothing", "norms, activation functions and the like (selective)",
                                      "feed-forwards and experts, with their exchange (ffn)", "whole layers (full)"};
  printf("Backward computes again: %s.\n", again[l->recompute]);
  if (l->ep > 1) {
    printf("Exchange: a token's row goes %s", l->node_dispatch ? "once to each node that needs it (dispatch nodes)"
                                                               : "once for each choice (dispatch choices)");
    if (l->overlap && l->vp > 1) printf(", beside another micro-batch's compute (overlap)");
    if (l->pieces > 1) printf(", in %d pieces beside one another's experts", l->pieces);
    printf(".\n");
  }
  if (l->type[0]) printf("Products with weights are computed in %s.\n", l->type);
  if (l->ranks_per_node > 0) printf("Of each node, %d ranks are used.\n", l->ranks_per_node);
}

/* -- what the search said ------------------------------------------------------------------------------------------ */

static void explain_step(const bl_plan *plan) {
  const bl_plan_search *s = plan->search;
  const bl_layout *l = &plan->layout;
  const double us = plan->predicted_step_us, ranks = bl_layout_world(l);
  const double tokens = (double)l->dp * l->micro_batch * l->micro_batches * s->sequence;
  printf("Predicted, not measured: %.1f ms a step, %.0f tokens a second (%.0f a rank), %s.\n", us * 1e-3,
         tokens / us * 1e6, tokens / us * 1e6 / ranks,
         s->simulated > 0 ? "by a simulation of the step, action by action" : "in closed form");
  printf("Bounds: the model's arithmetic alone, at %s on all ranks, takes %.1f ms, %.0f %% of the step.\n",
         s->costs.measured ? "the devices' peak" : "the rate below", s->roofline_us * 1e-3, 100 * s->roofline_us / us);
  if (s->bound_us <= 0) return; /* which says nothing */
  printf("  Of the %" PRId64 " layouts of the space, none that fits takes less than %.1f ms", s->layouts,
         s->bound_us * 1e-3);
  const double gap = us / s->bound_us - 1;
  if (gap < 1e-6)
    printf(": this one is proved the fastest of them.\n");
  else
    printf(": this one is within %.2f %% of that.\n", 100 * gap);
}

static void explain_time(const bl_plan *plan) {
  const bl_plan_search *s = plan->search;
  printf("Where the step goes, on the ranks that compute most:\n");
  for (int k = 0; k < BL_PRICE_COUNT; k++)
    if (s->time_us[k] > 5e-4 * plan->predicted_step_us)
      printf("  %-10s %10.1f ms  %5.1f %%  %s\n", bl_price_names[k], s->time_us[k] * 1e-3,
             100 * s->time_us[k] / plan->predicted_step_us, bl_price_meanings[k]);
}

static void explain_memory(const bl_plan *plan) {
  const bl_plan_search *s = plan->search;
  printf("Memory of the fullest rank: %.1f GB of the %.1f it may fill:", plan->predicted_memory_bytes * 1e-9,
         s->memory_limit_bytes * 1e-9);
  const char *before = " ";
  for (int k = 0; k < BL_FOOTPRINT_COUNT; k++) {
    if (s->memory_bytes[k] < 5e7) continue;
    printf("%s%s %.1f", before, bl_footprint_names[k], s->memory_bytes[k] * 1e-9);
    before = ", ";
  }
  printf(".\n");
}

/* How much a figure is to be believed, by the words of its source. */
static const char *standing(const char *source) {
  if (strstr(source, "measured") || strstr(source, "a large product on")) return "measured";
  if (strstr(source, "ballast-plan fit")) return "fitted to published steps";
  if (strstr(source, "from the trace")) return "recorded";
  if (strstr(source, "ssum")) return "assumed, at least in part";
  return "data sheet or published";
}

static void explain_sources(const bl_plan_search *s) {
  printf("What the prediction rests on, for %s on %s:\n", s->device, s->cluster);
  for (int i = 0; i < BL_SOURCE_COUNT; i++)
    if (s->source[i][0]) printf("  %s [%s]: %s\n", bl_source_meanings[i], standing(s->source[i]), s->source[i]);
  if (s->costs.measured) bl_plan_costs_print(&s->costs);
}

/* -- what to change next ------------------------------------------------------------------------------------------- */

/* What would shrink a part of the step; NULL: nothing that a plan decides. */
static const char *lever(const bl_layout *l, bl_price_kind kind) {
  switch (kind) {
  case BL_PRICE_RECOMPUTE:
    return "it buys memory; more ranks, zero 3 or devices with more memory spare it";
  case BL_PRICE_TENSOR:
    return "a smaller tp or etp exchanges less and needs more memory a rank";
  case BL_PRICE_CONTEXT:
    return "a smaller cp exchanges less and needs more memory a rank";
  case BL_PRICE_EXCHANGE:
    if (!l->node_dispatch) return "search --dispatch nodes: a row crosses to each node once";
    if (!l->overlap && l->pp > 1) return "search --overlap exchange: beside another micro-batch's compute";
    if (l->pieces == 1) return "search --max-pieces 4: in pieces, beside experts' compute";
    return "faster links, or fewer ranks an expert group (search --ep)";
  case BL_PRICE_SEND:
    return "faster links between nodes, or fewer pipeline positions";
  case BL_PRICE_BUBBLE:
    return "a larger batch: more micro-batches fill the pipeline better";
  case BL_PRICE_REDUCE:
    return l->gradient_bytes == 2 ? "a larger batch pays it off over more micro-batches"
                                  : "search --gradients bf16 halves the gradients' part";
  case BL_PRICE_OPTIMIZER:
    return l->zero == 0 ? "search --zero 1 spreads it over replicas" : NULL;
  default:
    return NULL;
  }
}

/* The largest part that is neither arithmetic nor done yet; -1: none of 1 % or more. */
static int largest_left(const bl_plan *plan, const bool *done) {
  int largest = -1;
  for (int k = 0; k < BL_PRICE_COUNT; k++) {
    const double us = plan->search->time_us[k];
    if (k == BL_PRICE_DENSE || k == BL_PRICE_EXPERT || done[k] || us < 0.01 * plan->predicted_step_us) continue;
    if (largest < 0 || us > plan->search->time_us[largest]) largest = k;
  }
  return largest;
}

static void explain_limits(const bl_plan *plan) {
  const bl_plan_search *s = plan->search;
  const double us = plan->predicted_step_us;
  bool done[BL_PRICE_COUNT] = {false};
  printf("What limits it: dense and experts take %.1f %% of the step; what exceeds the arithmetic's %.1f %% is memory "
         "traffic, "
         "small\nmatrices, calls and the slowest device.",
         100 * (s->time_us[BL_PRICE_DENSE] + s->time_us[BL_PRICE_EXPERT]) / us, 100 * s->roofline_us / us);
  int k = largest_left(plan, done);
  if (k < 0) {
    printf(" Nothing else takes 1 %%.\n");
    return;
  }
  printf(" The rest, and what would shrink it:\n");
  for (; k >= 0; k = largest_left(plan, done)) {
    const char *text = lever(&plan->layout, (bl_price_kind)k);
    printf("  %-10s %5.1f %%%s%s\n", bl_price_names[k], 100 * s->time_us[k] / us, text ? "  " : "", text ? text : "");
    done[k] = true;
  }
}

static void explain_next(const bl_plan *plan) {
  const bl_plan_search *s = plan->search;
  const bl_layout *l = &plan->layout;
  printf("Next:\n");
  if (s->experts > 0 && strstr(s->source[BL_SOURCE_ROUTING], "assumed"))
    printf("  - routing is assumed: record that of a short run (ballast-train --record-trace, or ballast-trace import) "
           "and "
           "search with\n    --trace; experts and exchange wait for the fullest rank\n");
  else if (plan->predicted_imbalance > 1.02 && l->copy_slots == 0)
    printf("  - the fullest rank gets %.0f %% more tokens than the mean: search --copy-slots 1 says what copies of hot "
           "experts win\n",
           100 * (plan->predicted_imbalance - 1));
  if (s->costs.measured == 0)
    printf("  - nothing was measured on your devices: ballast-profile on one of them, then search --profile\n");
  if (s->undecided > 0)
    printf("  - %" PRId64 " layouts could be faster by their bounds and were not simulated: search --simulate %" PRId64
           "\n",
           s->undecided, s->simulated + s->undecided);
  printf("  - ballast-plan simulate --plan FILE --model ... --cluster ... --perfetto step.json draws the step\n");
}

void bl_explain_layout(const bl_plan *plan) {
  const bl_layout *l = &plan->layout;
  printf("Layout");
  if (plan->search) printf(" of %s", plan->search->model);
  printf(": %" PRId32 " rank%s.\n", bl_layout_world(l), bl_layout_world(l) == 1 ? "" : "s");
  const bool searched = plan->search && plan->predicted_step_us > 0;
  if (searched) {
    explain_step(plan);
    explain_time(plan);
    explain_limits(plan);
    explain_memory(plan);
  } else if (plan->has_predicted && plan->predicted_step_us > 0) {
    printf("Predicted: %.1f ms a step, %.2f GB on the fullest rank.\n", plan->predicted_step_us * 1e-3,
           plan->predicted_memory_bytes * 1e-9);
  }
  printf("\nWhat each rank does:\n");
  explain_positions(l);
  explain_dense(l);
  explain_experts(plan);
  explain_batch(plan);
  explain_state(l);
  explain_choices(l);
  if (!searched) return;
  printf("\n");
  explain_sources(plan->search);
  explain_next(plan);
}
