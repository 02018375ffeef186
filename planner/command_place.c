/* ballast-plan place: homes and copies for the loads of a trace range, with a bound beside every layer. */
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/table.h"
#include "costmodel/plan.h"
#include "planner/command_place_cost.h"
#include "planner/command_place_even.h"
#include "planner/command_place_prove.h"
#include "planner/commands.h"
#include "planner/place/bound.h"
#include "planner/place/homes.h"
#include "planner/place/homes_proof.h"
#include "planner/policy_options.h"
#include "traces/trace.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
  bl_policy_options policy;
  const char *trace, *slots, *steps, *output, *split, *from, *speeds;
  int64_t ranks;
  double prove, within, move_price;
  bool prove_given, within_given, move_price_given;
  bool json, homes_given;
  bl_place_cost_options cost;
} arg;

/* What one run carries along. */
typedef struct place {
  bl_trace_reader *reader;
  const bl_trace_shape *shape;
  int32_t *slots;
  double *speed; /* [ranks] or NULL */
  uint32_t *step;
  double *load, *sum; /* [layers][experts] of one step, and of all chosen steps */
  double *by_source;  /* [layers][source ranks][experts] of all chosen steps, where placements are priced */
  bl_policy *policy;
  bl_plan plan;
  bl_place_proofs proofs;
  int32_t steps;
  bool priced; /* by microseconds */
} place;

static bool even_split(void) { return strcmp(arg.split, "even") == 0; }

static void add_by_source(place *p) {
  const int64_t rows = (int64_t)p->shape->layers * p->shape->ranks, experts = p->shape->experts;
  const uint32_t *count = p->step;
  for (int64_t i = 0; i < rows; ++i)
    for (int32_t m = 0; m < p->shape->micro_batches; ++m, count += experts)
      for (int64_t e = 0; e < experts; ++e) p->by_source[i * experts + e] += count[e];
}

static bl_status sum_loads(place *p) {
  int64_t low = INT64_MIN, high = INT64_MAX;
  const int64_t n = (int64_t)p->shape->layers * p->shape->experts;
  if (arg.steps) BL_TRY(bl_parse_range(arg.steps, "--steps", &low, &high));
  const int32_t end = high == INT64_MAX ? bl_trace_steps(p->reader) : bl_trace_find(p->reader, high + 1);
  for (int32_t i = bl_trace_find(p->reader, low); i < end; ++i, ++p->steps) {
    BL_TRY(bl_trace_read(p->reader, i, p->step));
    bl_trace_loads(p->shape, p->step, -1, -1, p->load);
    for (int64_t k = 0; k < n; ++k) p->sum[k] += p->load[k];
    if (p->by_source) add_by_source(p);
  }
  if (p->steps > 0) return BL_OK;
  return bl_fail(BL_EINPUT, "%s: no step within --steps, the iterations are %" PRId64 " to %" PRId64, arg.trace,
                 bl_trace_iteration(p->reader, 0), bl_trace_iteration(p->reader, bl_trace_steps(p->reader) - 1));
}

static bl_status create_plan(place *p) {
  const bl_trace_shape *shape = p->shape;
  const int32_t ranks = (int32_t)arg.ranks;
  if (shape->experts < ranks)
    return bl_fail(BL_EINPUT, "%s has %d experts, too few for %d ranks: expected at least one a rank", arg.trace,
                   shape->experts, ranks);
  BL_TRY(bl_new(&p->slots, (size_t)ranks, sizeof *p->slots, "slots"));
  BL_TRY(bl_parse_slots(arg.slots, shape->experts, ranks, p->slots));
  if (arg.speeds) {
    BL_TRY(bl_new(&p->speed, (size_t)ranks, sizeof *p->speed, "speeds"));
    BL_TRY(bl_parse_speeds(arg.speeds, ranks, p->speed));
  }
  BL_TRY(bl_placement_create(ranks, shape->experts, shape->layers, 0, &p->plan.placement));
  p->plan.has_placement = p->plan.has_predicted = p->plan.has_bound = true;
  if (p->priced)
    BL_TRY(bl_new(&p->by_source, (size_t)shape->layers * (size_t)shape->ranks * (size_t)shape->experts,
                  sizeof *p->by_source, "loads by source"));
  const size_t n = (size_t)shape->layers * (size_t)shape->experts;
  BL_TRY(bl_new(&p->step, (size_t)bl_trace_step_size(shape), sizeof *p->step, "a step of the trace"));
  BL_TRY(bl_new(&p->load, n, sizeof *p->load, "loads"));
  BL_TRY(bl_new(&p->sum, n, sizeof *p->sum, "loads"));
  const bl_policy_shape policy = {
      .layers = shape->layers, .experts = shape->experts, .ranks = ranks, .slots = p->slots, .speed = p->speed};
  return p->priced ? BL_OK : bl_policy_create(&arg.policy, &policy, &p->policy);
}

/* The bound that no placement in these slots can beat. */
static bl_status find_bound(const place *p, const double *load, bl_bound *bound) {
  int64_t all = 0;
  int32_t most = 0;
  for (int32_t r = 0; r < arg.ranks; ++r) {
    all += p->slots[r];
    if (p->slots[r] > most) most = p->slots[r];
  }
  *bound = bl_bound_copies();
  if (all > p->shape->experts) return BL_OK;
  return bl_bound_homes(load, p->shape->experts, (int32_t)arg.ranks, most, p->speed, bound);
}

/* Hosts and shares into the plan; copies that take nothing are left out. */
static bl_status store_layer(place *p, int32_t l, const double *load, const bl_hosts *hosts, const bl_shares *shares) {
  memcpy(p->plan.placement.layer[l].home, hosts->home, (size_t)hosts->experts * sizeof *hosts->home);
  bl_copy *copies;
  int32_t n = 0;
  BL_TRY(bl_new(&copies, (size_t)hosts->n_copy_slots, sizeof *copies, "copies"));
  for (int32_t s = 0; s < hosts->n_copy_slots; ++s) {
    const int32_t e = hosts->copy_expert[s];
    const double share = e >= 0 && load[e] > 0 ? bl_shares_copy_tokens(shares, s) / load[e] : 0;
    if (share > 1e-9) copies[n++] = (bl_copy){e, hosts->copy_rank[s], share < 1 ? share : 1};
  }
  const bl_status status = bl_placement_set_copies(&p->plan.placement, l, copies, n);
  free(copies);
  return status;
}

/* The placement with the fewest copies takes the place of the policy's where one was found. */
static bl_status prove_layer(place *p, int32_t l, const double *load, const bl_hosts *hosts) {
  BL_TRY(bl_place_proofs_layer(&p->proofs, l, hosts, load, &p->plan.placement.layer[l].proved));
  const bl_hosts *fewest = &p->proofs.layer[l].hosts;
  if (p->proofs.layer[l].copies < 0) return BL_OK;
  bl_shares *shares;
  BL_TRY(bl_shares_create(fewest->experts, fewest->ranks, fewest->n_copy_slots, &shares));
  p->plan.placement.layer[l].imbalance = bl_shares_solve(shares, fewest, load, p->speed);
  const bl_status status = store_layer(p, l, load, fewest, shares);
  bl_shares_free(shares);
  return status;
}

/* Whether homes are all there is to choose: ballast, homes free, every rank full of them. */
static bool homes_alone(const place *p) {
  if (strcmp(arg.policy.policy, "ballast") != 0 || strcmp(arg.policy.homes, "free") != 0 || p->speed) return false;
  for (int32_t r = 0; r < arg.ranks; ++r)
    if (p->slots[r] * arg.ranks != p->shape->experts) return false;
  return true;
}

/* The most even homes, as far as the search gets, take the place of the policy's; the layer's bound is what it proved.
 */
static bl_status settle_homes(place *p, int32_t l, const double *load, const bl_hosts *hosts) {
  const bl_homes_budget budget = {.exchanges = 400000, .choices = 200000000}; /* a few seconds at most */
  const int32_t experts = hosts->experts, ranks = hosts->ranks;
  bl_layer_placement *layer = &p->plan.placement.layer[l];
  bl_homes_proof proof;
  int32_t *home;
  double total = 0;
  for (int32_t e = 0; e < experts; ++e) total += load[e];
  if (!(total > 0)) return BL_OK;
  BL_TRY(bl_new(&home, (size_t)(experts + ranks), sizeof *home, "homes"));
  int32_t *rank_of = home + experts;
  memcpy(home, hosts->home, (size_t)experts * sizeof *home);
  bl_status status = bl_homes_prove(load, experts, ranks, &budget, home, &proof);
  if (status == BL_OK) status = bl_homes_relabel(hosts->home, home, experts, ranks, p->slots, p->slots, rank_of);
  if (status == BL_OK) {
    for (int32_t e = 0; e < experts; ++e) layer->home[e] = rank_of[home[e]];
    layer->imbalance = proof.largest * ranks / total;
    layer->bound = proof.bound * ranks / total;
    layer->proof = proof.proof;
  }
  free(home);
  return status;
}

static bl_status place_layer(place *p, int32_t l) {
  bl_layer_placement *layer = &p->plan.placement.layer[l];
  const double *load = p->sum + (int64_t)l * p->shape->experts;
  bl_policy_outcome outcome;
  bl_bound bound;
  if (even_split()) return bl_place_even_layer(&p->plan.placement, l, load, p->slots);
  BL_TRY(bl_policy_micro_batch(p->policy, l, load, NULL, &outcome));
  const bl_hosts *hosts = bl_policy_hosts(p->policy, l);
  BL_TRY(find_bound(p, load, &bound));
  layer->imbalance = outcome.imbalance;
  layer->bound = bound.imbalance;
  layer->proof = bound.proof;
  BL_TRY(store_layer(p, l, load, hosts, outcome.shares));
  if (arg.prove_given) return prove_layer(p, l, load, hosts);
  return homes_alone(p) ? settle_homes(p, l, load, hosts) : BL_OK;
}

/* The totals are the worst layer's. */
static void sum_up(place *p) {
  const bl_placement *placement = &p->plan.placement;
  const bl_layer_placement *worst = &placement->layer[0];
  for (int32_t l = 1; l < placement->layers; ++l)
    if (placement->layer[l].imbalance > worst->imbalance) worst = &placement->layer[l];
  p->plan.predicted_imbalance = worst->imbalance;
  p->plan.bound_imbalance = worst->bound;
  p->plan.bound_gap = worst->imbalance / worst->bound - 1;
  if (p->plan.bound_gap < 1e-9) p->plan.bound_gap = 0;
  snprintf(p->plan.bound_proof, sizeof p->plan.bound_proof, "%s", worst->proof);
}

static bl_status place_all(place *p) {
  BL_TRY(create_plan(p));
  BL_TRY(sum_loads(p));
  for (int32_t r = 0; r < arg.ranks; ++r) /* a shadowing rule copies to every rank, whatever the slots */
    p->plan.placement.slots[r] = strcmp(arg.policy.policy, "fastermoe") == 0 ? p->shape->experts : p->slots[r];
  p->plan.placement.even_split = even_split();
  if (p->priced) {
    arg.cost.from = arg.from;
    arg.cost.prove_seconds = arg.prove_given ? arg.prove : 0;
    BL_TRY(bl_place_cost_all(&arg.cost, arg.policy.homes, p->speed, p->shape, p->by_source, p->steps, &p->plan));
    BL_TRY(bl_placement_check(&p->plan.placement, "the placement found"));
    sum_up(p);
    return BL_OK;
  }
  if (arg.prove_given) {
    p->proofs.speed = p->speed;
    BL_TRY(bl_place_proofs_create(&p->proofs, &p->plan.placement));
  }
  BL_TRY(bl_policy_preview(p->policy, p->sum, NULL));
  BL_TRY(bl_policy_begin_step(p->policy, 0));
  for (int32_t l = 0; l < p->shape->layers; ++l) BL_TRY(place_layer(p, l));
  BL_TRY(bl_placement_check(&p->plan.placement, "the placement found"));
  sum_up(p);
  return BL_OK;
}

static void print_json(const place *p) {
  bl_json_writer w;
  bl_json_writer_init(&w, stdout, true);
  bl_json_begin_object(&w);
  bl_json_put_string(&w, "policy", arg.policy.policy);
  bl_json_put_int(&w, "steps", p->steps);
  bl_json_put_number(&w, "imbalance", p->plan.predicted_imbalance);
  bl_json_put_number(&w, "bound", p->plan.bound_imbalance);
  bl_json_put_number(&w, "gap", p->plan.bound_gap);
  bl_json_put_string(&w, "proof", p->plan.bound_proof);
  bl_json_key(&w, "layers");
  bl_json_begin_array(&w);
  for (int32_t l = 0; l < p->plan.placement.layers; ++l) {
    const bl_layer_placement *layer = &p->plan.placement.layer[l];
    bl_json_begin_flat_object(&w);
    bl_json_put_int(&w, "layer", layer->layer);
    bl_json_put_number(&w, "imbalance", layer->imbalance);
    bl_json_put_number(&w, "bound", layer->bound);
    bl_json_put_int(&w, "copies", layer->n_copies);
    bl_json_end_object(&w);
  }
  bl_json_end_array(&w);
  if (p->priced) bl_place_cost_json(&p->plan, &w);
  if (arg.prove_given && !p->priced) {
    bl_json_key(&w, "prove");
    bl_place_proofs_json(&p->proofs, &w);
  }
  bl_json_end_object(&w);
  bl_json_newline(&w);
}

static bl_status print_table(const place *p) {
  bl_table *table;
  BL_TRY(bl_table_create("layer|imbalance|bound|gap %|copies|<proof", &table));
  bl_status status = BL_OK;
  for (int32_t l = 0; l < p->plan.placement.layers && status == BL_OK; ++l) {
    const bl_layer_placement *layer = &p->plan.placement.layer[l];
    status = bl_table_cell(table, "%d", layer->layer);
    if (status == BL_OK) status = bl_table_cell(table, "%.6f", layer->imbalance);
    if (status == BL_OK) status = bl_table_cell(table, "%.6f", layer->bound);
    if (status == BL_OK) status = bl_table_cell(table, "%.4f", 100 * fmax(0, layer->imbalance / layer->bound - 1));
    if (status == BL_OK) status = bl_table_cell(table, "%d", layer->n_copies);
    if (status == BL_OK) status = bl_table_cell(table, "%s", layer->proof);
  }
  if (status == BL_OK) {
    bl_table_print(table, stdout);
    printf("\n%s on %d ranks, loads of %d steps: the worst layer's imbalance is %.6f, no placement can be below %.6f "
           "(%s), gap %.4f %%\n",
           arg.policy.policy, p->plan.placement.ranks, p->steps, p->plan.predicted_imbalance, p->plan.bound_imbalance,
           p->plan.bound_proof, 100 * p->plan.bound_gap);
  }
  bl_table_free(table);
  return status == BL_OK && arg.prove_given ? bl_place_proofs_print(&p->proofs) : status;
}

static bl_status run(void *context) {
  (void)context;
  place p = {0};
  BL_TRY(bl_place_cost_asked(&arg.cost, arg.policy.homes, &p.priced));
  if (p.priced && (strcmp(arg.policy.policy, "ballast") != 0 || even_split() || arg.within_given))
    return bl_fail(BL_EUSAGE, "a price in microseconds (--cluster, --profile) decides under --policy ballast alone, "
                              "without --split even and --within");
  if (p.priced && !arg.homes_given) arg.policy.homes = "cost";
  if (!p.priced && !arg.homes_given) arg.policy.homes = strcmp(arg.policy.policy, "ballast") == 0 ? "free" : "fixed";
  if (arg.prove_given && strcmp(arg.policy.policy, "ballast") != 0)
    return bl_fail(BL_EUSAGE, "--prove goes with --policy ballast; %s follows its own rule", arg.policy.policy);
  if (even_split() && (strcmp(arg.policy.policy, "ballast") != 0 || arg.homes_given || arg.prove_given || arg.speeds))
    return bl_fail(BL_EUSAGE, "--split even has its own rule for homes: it goes with --policy ballast, and not with "
                              "--homes, --prove, --from or --speeds");
  if ((arg.from || arg.move_price_given) && !(arg.from && arg.prove_given) && !(p.priced && !arg.move_price_given))
    return bl_fail(BL_EUSAGE, "--from goes with --prove, with or without --move-price, or with --cluster or --profile");
  if (arg.from && arg.homes_given && !p.priced)
    return bl_fail(BL_EUSAGE, "--from lets homes move: --homes does not go with it");
  if (arg.within_given && !arg.prove_given) return bl_fail(BL_EUSAGE, "--within goes with --prove");
  p.proofs = (bl_place_proofs){.seconds = arg.prove,
                               .within = arg.within,
                               .from = arg.from,
                               .move_price = arg.move_price,
                               .free_homes = strcmp(arg.policy.homes, "free") == 0};
  arg.policy.lag = 0; /* the loads given are those that the placement is for */
  const char *const inputs[] = {arg.trace, arg.from, arg.cost.cluster, arg.cost.model, arg.cost.profile};
  BL_TRY(bl_output_check(arg.output, inputs, sizeof inputs / sizeof *inputs));
  BL_TRY(bl_trace_open(arg.trace, &p.reader));
  if (bl_trace_truncated(p.reader))
    bl_warn("%s: has no sound index (cut short or damaged); read up to its last whole block", arg.trace);
  p.shape = bl_trace_shape_of(p.reader);
  bl_status status = place_all(&p);
  if (status == BL_OK && arg.output) status = bl_plan_save(arg.output, &p.plan);
  if (status == BL_OK) {
    if (arg.json) {
      print_json(&p);
    } else {
      status = p.priced ? bl_place_cost_print(&p.plan) : print_table(&p);
    }
  }
  bl_place_proofs_free(&p.proofs);
  bl_plan_free(&p.plan);
  bl_policy_free(p.policy);
  bl_trace_close(p.reader);
  free(p.slots);
  free(p.speed);
  free(p.step);
  free(p.load);
  free(p.sum);
  free(p.by_source);
  return status;
}

bl_command bl_command_place(void) {
  static const bl_option own[] = {
      {.name = "trace",
       .type = BL_OPTION_STRING,
       .target = &arg.trace,
       .metavar = "F",
       .help = "the .blt trace whose loads are placed",
       .required = true},
      {.name = "steps",
       .type = BL_OPTION_STRING,
       .target = &arg.steps,
       .metavar = "A:B",
       .help = "only iterations A to B, inclusive; their loads are summed"},
      {.name = "ranks",
       .type = BL_OPTION_INT,
       .target = &arg.ranks,
       .metavar = "P",
       .help = "ranks that share the experts of a layer",
       .min = 1,
       .max = BL_TRACE_MAX_RANKS,
       .required = true},
      {.name = "slots",
       .type = BL_OPTION_STRING,
       .target = &arg.slots,
       .metavar = "S",
       .help =
           "experts a rank can hold, homes and copies: one number, or one a rank as in 5,5,4,6; by default one more "
           "than its homes"},
      {.name = "speeds",
       .type = BL_OPTION_STRING,
       .target = &arg.speeds,
       .metavar = "V,..",
       .help =
           "relative speed of every rank, as in 1,1,0.5,1; imbalance then counts loads over speeds; with --cluster by "
           "default its devices'"},
      {.name = "policy",
       .type = BL_OPTION_STRING,
       .target = &arg.policy.policy,
       .metavar = "NAME",
       .help = "the rule: ballast, static, smartmoe:1, eplb:1 or fastermoe"},
      {.name = "homes",
       .type = BL_OPTION_CHOICE,
       .target = &arg.policy.homes,
       .help = "homes under ballast: chosen with the copies, left as they are, or moved where it saves more "
               "microseconds than it costs (the default with --cluster or --profile)",
       .choices = "free|fixed|cost",
       .given = &arg.homes_given},
      {.name = "split",
       .type = BL_OPTION_CHOICE,
       .target = &arg.split,
       .help = "shares of an expert's hosts: as the loads ask, or even, all replicas alike as EPLB's users have it",
       .choices = "free|even"},
      {.name = "prove",
       .type = BL_OPTION_NUMBER,
       .target = &arg.prove,
       .metavar = "SECONDS",
       .help = "take the fewest copies within the allowed imbalance, and prove that no placement has fewer; with "
               "--cluster or --profile, prove how low a price can be; seconds a layer at most",
       .min = 0.01,
       .max = 1e6,
       .given = &arg.prove_given},
      {.name = "within",
       .type = BL_OPTION_NUMBER,
       .target = &arg.within,
       .metavar = "X",
       .help = "the imbalance that --prove allows",
       .min = 1,
       .max = 1000,
       .given = &arg.within_given},
      {.name = "from",
       .type = BL_OPTION_STRING,
       .target = &arg.from,
       .metavar = "PLAN",
       .help = "homes are where this plan has them. With --prove: move as few as the allowed imbalance takes, then "
               "take the fewest copies; with --cluster or --profile: moves cost what --horizon says"},
      {.name = "move-price",
       .type = BL_OPTION_NUMBER,
       .target = &arg.move_price,
       .metavar = "C",
       .help = "with --from: a moved home counts as C copies, and copies and moves together are fewest",
       .min = 0,
       .max = 1e6,
       .given = &arg.move_price_given},
      {.name = "output|o",
       .type = BL_OPTION_STRING,
       .target = &arg.output,
       .metavar = "PLAN",
       .help = "the plan file to write"},
      {.name = "json", .type = BL_OPTION_FLAG, .target = &arg.json, .help = "print the result as JSON"}};
  bl_policy_options_init(&arg.policy);
  arg.policy.homes = "free";
  arg.split = "free";
  arg.within = 1.05;
  arg.move_price = -1;
  enum { OWN = sizeof own / sizeof *own };
  static bl_option options[OWN + BL_PLACE_COST_OPTION_ROWS];
  memcpy(options, own, sizeof own);
  bl_place_cost_options_init(&arg.cost);
  bl_place_cost_option_rows(&arg.cost, options + OWN);
  return (bl_command){.name = "place",
                      .summary = "places the experts of every layer for the loads of a trace",
                      .description = "Chooses homes, copies and shares for the summed loads of the steps, and says how "
                                     "far from optimal each layer can be: by imbalance, or with a cluster or profile "
                                     "by microseconds of an optimizer step: compute, exchange, fills and reductions of "
                                     "copies, moves.",
                      .example = "ballast-plan place --trace smartmoe.blt --steps 1001:1101 --ranks 8 -o plan.json",
                      .options = options,
                      .n_options = sizeof options / sizeof *options,
                      .run = run};
}
