#include "planner/command_place_cost.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/table.h"
#include "planner/milp/price_bound.h"
#include "planner/place/cost_solve.h"
#include "planner/place/machine.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where a proof is asked for: times the placements that the quick search prices, in this part of the time at most. */
enum { LONG_SEARCH = 20 };
static const double SEARCH_PART = 0.3;

void bl_place_cost_options_init(bl_place_cost_options *o) {
  *o = (bl_place_cost_options){.relay = "direct", .horizon = 1000};
}

void bl_place_cost_option_rows(bl_place_cost_options *o, bl_option rows[BL_PLACE_COST_OPTION_ROWS]) {
  const bl_option table[BL_PLACE_COST_OPTION_ROWS] = {
      {.type = BL_OPTION_HEADING, .help = "Price in microseconds (with --cluster or --profile)"},
      {.name = "cluster",
       .type = BL_OPTION_STRING,
       .target = &o->cluster,
       .metavar = "C",
       .help = "place for the least microseconds of a step on the first ranks of this cluster (JSON), such as "
               "costmodel/clusters/h100-hgx.json"},
      {.name = "model",
       .type = BL_OPTION_STRING,
       .target = &o->model,
       .metavar = "M",
       .help = "the model file: bytes and arithmetic of an expert"},
      {.name = "profile",
       .type = BL_OPTION_STRING,
       .target = &o->profile,
       .metavar = "R",
       .help = "a measured profile: its expert times replace the cluster's data sheet; alone, its links too"},
      {.name = "micro-batches",
       .type = BL_OPTION_INT,
       .target = &o->micro_batches,
       .metavar = "N",
       .help = "micro-batches of a step, each like the mean one recorded; by default as many as recorded",
       .min = 0,
       .max = 65536,
       .given = &o->any},
      {.name = "tokens",
       .type = BL_OPTION_NUMBER,
       .target = &o->tokens,
       .metavar = "T",
       .help = "tokens of a rank in a micro-batch: the recorded counts are scaled to it; by default as recorded",
       .min = 0,
       .max = 1e9,
       .given = &o->any},
      {.name = "horizon",
       .type = BL_OPTION_NUMBER,
       .target = &o->horizon,
       .metavar = "H",
       .help = "steps over which moving a home is paid off",
       .min = 1,
       .max = 1e9,
       .given = &o->any},
      {.name = "relay",
       .type = BL_OPTION_CHOICE,
       .target = &o->relay,
       .help = "who fills copies: their home (as ballast-train does), or the best of it, chains, trees and one a node",
       .choices = "direct|best",
       .given = &o->any},
      {.name = "rack",
       .type = BL_OPTION_STRING,
       .target = &o->rack,
       .metavar = "N:GBPS:US",
       .help = "racks of N nodes, between them gigabytes a second of a rank, and latency; goes before the cluster's "
               "own racks"},
      {.name = "memory-gb",
       .type = BL_OPTION_NUMBER,
       .target = &o->memory_gb,
       .metavar = "X",
       .help = "memory of a rank for the experts of all layers; by default its device's in the cluster file",
       .min = 0,
       .max = 1e9,
       .given = &o->any}};
  memcpy(rows, table, sizeof table);
}

bl_status bl_place_cost_asked(const bl_place_cost_options *o, const char *homes, bool *asked) {
  *asked = o->cluster || o->profile;
  if (!*asked && (o->any || o->model || o->rack))
    return bl_fail(BL_EUSAGE, "a price in microseconds needs --cluster or --profile beside its other options");
  if (!*asked && strcmp(homes, "cost") == 0)
    return bl_fail(BL_EUSAGE, "--homes cost weighs microseconds: it goes with --cluster or --profile");
  if (*asked && !o->model) return bl_fail(BL_EUSAGE, "--cluster and --profile go with --model");
  return BL_OK;
}

/* What one run carries along. */
typedef struct pricing {
  const bl_place_cost_options *o;
  const bl_trace_shape *shape;
  bl_plan *plan;
  bl_model model;
  bl_cluster cluster;
  bl_profile *profile; /* NULL: none */
  bl_place_seats seats;
  bl_place_machine machine;
  bl_place_memory memory; /* layers 0: no budget is known */
  double scale;           /* of counted tokens, to a mean micro-batch */
  double *mean;           /* [source ranks][experts] of a layer */
  double *rows;           /* [ranks]: most tokens of a micro-batch in any layer; [ranks] more as workspace */
  double *budget;         /* [ranks]: bytes */
  int32_t *contiguous;    /* [experts] */
  int32_t *old_home;      /* [experts]: seats before, of a layer */
  bl_plan from;
  bl_place_problem problem;
  bl_place_solver *solver;
} pricing;

/* -- input --------------------------------------------------------------------------------------------------------- */

static bl_status read_number(const char **at, const char *what, double *out) {
  char *end;
  *out = strtod(*at, &end);
  if (end == *at || !isfinite(*out) || (**at != '.' && (**at < '0' || **at > '9')))
    return bl_fail(BL_EUSAGE, "%s: expected a number at \"%s\"", what, *at);
  *at = end;
  return BL_OK;
}

static bl_status read_rack(const char *text, bl_place_rack *rack) {
  double value[3];
  const char *at = text;
  for (int i = 0; i < 3; ++i) {
    BL_TRY(read_number(&at, "--rack", &value[i]));
    if (*at++ != (i < 2 ? ':' : '\0')) return bl_fail(BL_EUSAGE, "--rack %s: expected N:GBPS:US as in 4:12.5:20", text);
  }
  if (!(value[0] >= 1 && value[0] <= 65536) || value[0] != floor(value[0]) || !(value[1] > 0))
    return bl_fail(BL_EUSAGE, "--rack %s: expected 1 to 65536 nodes, and more than 0 gigabytes a second", text);
  *rack = (bl_place_rack){(int32_t)value[0], value[1], value[2]};
  return BL_OK;
}

static bl_status load_files(pricing *p) {
  const bl_placement *placement = &p->plan->placement;
  BL_TRY(bl_model_load(p->o->model, &p->model));
  if (p->model.experts != placement->experts)
    return bl_fail(BL_EINPUT, "%s has %d experts a layer, the trace %d", p->o->model, p->model.experts,
                   placement->experts);
  if (p->o->cluster) BL_TRY(bl_cluster_load(p->o->cluster, &p->cluster));
  if (p->o->profile) {
    BL_TRY(bl_new(&p->profile, 1, sizeof *p->profile, "a profile"));
    BL_TRY(bl_profile_load(p->o->profile, p->profile));
    BL_TRY(bl_profile_fits(p->profile, &p->model, p->o->profile));
  }
  if (!p->o->from) return BL_OK;
  BL_TRY(bl_plan_load(p->o->from, &p->from));
  const bl_placement *old = &p->from.placement;
  if (!p->from.has_placement || old->experts != placement->experts || old->ranks != placement->ranks)
    return bl_fail(BL_EINPUT, "%s: expected a placement of %d experts on %d ranks, as is being made", p->o->from,
                   placement->experts, placement->ranks);
  return BL_OK;
}

/* The seats of the homes before, of a layer; contiguous where the plan does not place it. */
static const int32_t *homes_before(pricing *p, int32_t layer) {
  const int32_t *home = p->contiguous;
  for (int32_t l = 0; l < p->from.placement.layers; ++l)
    if (p->from.placement.layer[l].layer == layer) home = p->from.placement.layer[l].home;
  for (int32_t e = 0; e < p->plan->placement.experts; ++e) p->old_home[e] = p->seats.seat[home[e]];
  return p->old_home;
}

static double mean_total(const pricing *p, const double *sum, int32_t steps) {
  const int64_t n = (int64_t)p->shape->layers * p->shape->ranks * p->shape->experts;
  double all = 0;
  for (int64_t i = 0; i < n; ++i) all += sum[i];
  return all / p->shape->layers / steps / p->shape->micro_batches;
}

static bl_status prepare(pricing *p, const char *homes, const double *speed, const double *sum, int32_t steps) {
  const bl_placement *placement = &p->plan->placement;
  const int32_t ranks = placement->ranks, experts = placement->experts;
  const bl_place_cost_options *o = p->o;
  bl_place_rack rack = {0};
  BL_TRY(load_files(p));
  BL_TRY(bl_new(&p->mean, (size_t)p->shape->ranks * (size_t)experts, sizeof *p->mean, "loads"));
  BL_TRY(bl_new(&p->rows, 2 * (size_t)ranks, sizeof *p->rows, "loads"));
  BL_TRY(bl_new(&p->contiguous, 2 * (size_t)experts, sizeof *p->contiguous, "homes"));
  p->old_home = p->contiguous + experts;
  const double recorded = mean_total(p, sum, steps);
  double total = recorded;
  if (o->tokens > 0) total = o->tokens * ranks * p->model.top_k;
  p->scale = recorded > 0 ? total / recorded / steps / p->shape->micro_batches : 0;
  for (int32_t e = 0; e < experts; ++e) p->contiguous[e] = bl_home_contiguous(e, experts, ranks);
  if (o->rack) BL_TRY(read_rack(o->rack, &rack));
  if (o->rack && !o->cluster) return bl_fail(BL_EUSAGE, "--rack goes with --cluster, which says what a node is");
  const bl_cluster *cluster = o->cluster ? &p->cluster : NULL;
  if (cluster && !o->rack)
    rack = (bl_place_rack){cluster->racks.nodes, cluster->racks.link.gbps, cluster->racks.link.latency_us};
  BL_TRY(bl_place_seats_create(cluster, ranks, placement->slots, speed, &p->seats));
  BL_TRY(bl_place_machine_make(cluster, p->profile, &p->model, &rack, &p->seats, total / experts, &p->machine));
  p->machine.micro_batches = o->micro_batches > 0 ? (int32_t)o->micro_batches : p->shape->micro_batches;
  p->machine.horizon = o->horizon;
  if (p->seats.budget || o->memory_gb > 0) {
    BL_TRY(bl_new(&p->budget, (size_t)ranks, sizeof *p->budget, "memory of ranks"));
    for (int32_t r = 0; r < ranks; ++r) p->budget[r] = o->memory_gb > 0 ? o->memory_gb * 1e9 : p->seats.budget[r];
    bl_place_memory_make(&p->model, p->profile ? p->profile->num_bytes : p->cluster.node_group[0].device.num_bytes,
                         placement->layers, p->budget, &p->memory);
    BL_TRY(bl_place_memory_check(&p->memory, experts, ranks, placement->slots, total / ranks));
  }
  p->problem = (bl_place_problem){.machine = &p->machine,
                                  .slots = p->seats.slots,
                                  .homes = strcmp(homes, "free") == 0    ? BL_PLACE_HOMES_FREE
                                           : strcmp(homes, "fixed") == 0 ? BL_PLACE_HOMES_FIXED
                                                                         : BL_PLACE_HOMES_COST,
                                  .relay = strcmp(o->relay, "best") == 0};
  return BL_OK;
}

/* -- layers -------------------------------------------------------------------------------------------------------- */

/* Seats become ranks again. */
static bl_status store_copies(pricing *p, int32_t l, const bl_place_solution *found) {
  bl_placement *placement = &p->plan->placement;
  bl_copy *copies = NULL;
  int32_t *feeder = NULL;
  bl_status status = bl_new(&copies, (size_t)found->n_copies, sizeof *copies, "copies");
  if (status == BL_OK) status = bl_new(&feeder, (size_t)found->n_copies, sizeof *feeder, "copies");
  for (int32_t i = 0; status == BL_OK && i < found->n_copies; ++i) {
    copies[i] = found->copies[i];
    copies[i].rank = p->seats.rank[found->copies[i].rank];
    feeder[i] = p->seats.rank[found->feeder[i]];
  }
  if (status == BL_OK) status = bl_placement_set_copies(placement, l, copies, found->n_copies);
  if (status == BL_OK && p->problem.relay && found->n_copies > 0)
    status = bl_placement_set_feeders(placement, l, feeder);
  free(copies);
  free(feeder);
  return status;
}

static bl_status store(pricing *p, int32_t l, const bl_place_demand *demand, const bl_place_solution *found,
                       const char *reason) {
  bl_placement *placement = &p->plan->placement;
  bl_layer_placement *layer = &placement->layer[l];
  bl_layer_price price = {.bound_us = found->bound.us,
                          .total_us = found->price.total_us,
                          .slowest_rank = p->seats.rank[found->price.slowest]};
  memcpy(price.us, found->price.us, sizeof price.us);
  memcpy(price.port, found->price.port, sizeof price.port);
  for (int t = 0; t < BL_PLACE_TERM_COUNT; ++t) price.port[t].rank = p->seats.rank[price.port[t].rank];
  snprintf(price.proof, sizeof price.proof, "%s", found->bound.proof);
  snprintf(price.reason, sizeof price.reason, "%s", reason);
  for (int32_t e = 0; e < demand->experts; ++e) layer->home[e] = p->seats.rank[found->home[e]];
  layer->imbalance = found->price.imbalance;
  layer->bound = 1;
  layer->proof = "mean-load";
  BL_TRY(store_copies(p, l, found));
  return bl_placement_set_price(placement, l, &price);
}

/* Tokens that each rank receives in a micro-batch, of the layer where they are most. */
static void note_rows(pricing *p, const bl_layer_placement *layer, const bl_place_demand *demand) {
  double *now = p->rows + p->seats.ranks;
  memset(now, 0, (size_t)p->seats.ranks * sizeof *now);
  for (int32_t e = 0; e < demand->experts; ++e) now[layer->home[e]] += demand->load[e];
  for (int32_t i = 0; i < layer->n_copies; ++i) {
    const bl_copy *copy = &layer->copies[i];
    now[copy->rank] += copy->share * demand->load[copy->expert];
    now[layer->home[copy->expert]] -= copy->share * demand->load[copy->expert];
  }
  for (int32_t r = 0; r < p->seats.ranks; ++r) p->rows[r] = fmax(p->rows[r], now[r]);
}

/* Searches longer, for a part of the seconds given, and raises the bound of what was found in the rest. */
static bl_status take_time(pricing *p, const bl_place_demand *demand, const int32_t *old_home, int64_t start_us,
                           bl_place_solution *found, char reason[160]) {
  const double spent = (double)(bl_now_us() - start_us) * 1e-6, quick_us = found->price.total_us;
  const double times = fmin(LONG_SEARCH, SEARCH_PART * p->o->prove_seconds / fmax(spent, 1e-6));
  bl_place_problem problem = p->problem;
  problem.demand = demand;
  problem.old_home = old_home;
  if (times >= 2) BL_TRY(bl_place_solve(p->solver, demand, old_home, (int32_t)(times * found->evaluations), found));
  if (found->price.total_us > quick_us) BL_TRY(bl_place_solve(p->solver, demand, old_home, 0, found));
  const double left = p->o->prove_seconds - (double)(bl_now_us() - start_us) * 1e-6;
  return bl_prove_price(&problem, found->price.total_us, fmax(left, 0.5 * p->o->prove_seconds), 0, &found->bound,
                        reason);
}

static bl_status place_layer(pricing *p, int32_t l, const double *sum) {
  const bl_placement *placement = &p->plan->placement;
  const int64_t n = (int64_t)p->shape->ranks * p->shape->experts;
  bl_place_demand demand;
  bl_place_solution found;
  char reason[160] = "";
  const int64_t start_us = bl_now_us();
  for (int64_t i = 0; i < n; ++i) p->mean[i] = sum[l * n + i] * p->scale;
  BL_TRY(bl_place_demand_create(placement->experts, placement->ranks, p->mean, p->shape->ranks, &demand));
  const int32_t *old_home = homes_before(p, placement->layer[l].layer);
  bl_status status = bl_place_seats_demand(&p->seats, &demand);
  if (status == BL_OK && !p->solver) {
    p->problem.demand = &demand;
    p->problem.old_home = old_home;
    status = bl_place_solver_create(&p->problem, &p->solver);
  }
  if (status == BL_OK) status = bl_place_solve(p->solver, &demand, old_home, 0, &found);
  if (status == BL_OK && p->o->prove_seconds > 0) status = take_time(p, &demand, old_home, start_us, &found, reason);
  if (status == BL_OK) status = store(p, l, &demand, &found, reason);
  if (status == BL_OK) note_rows(p, &placement->layer[l], &demand);
  bl_place_demand_free(&demand);
  return status;
}

/* What the placement found takes of each rank's memory: exchange buffers hold what really arrives. */
static bl_status check_memory(pricing *p) {
  const bl_placement *placement = &p->plan->placement;
  if (p->memory.layers == 0) return BL_OK;
  for (int32_t r = 0; r < placement->ranks; ++r) {
    int64_t homes = 0;
    for (int32_t l = 0; l < placement->layers; ++l)
      for (int32_t e = 0; e < placement->experts; ++e) homes += placement->layer[l].home[e] == r;
    const double bytes = bl_place_memory_bytes(&p->memory, placement->slots[r], homes, p->rows[r]);
    p->plan->predicted_memory_bytes = fmax(p->plan->predicted_memory_bytes, bytes);
    if (bytes <= p->memory.budget[r]) continue;
    const double over = bytes - p->memory.budget[r], slot = p->memory.layers * p->memory.slot_bytes;
    return bl_fail(
        BL_EINPUT,
        "memory of rank %d: the placement found takes %.3f GB there, of which buffers for %.0f tokens %.3f GB: "
        "%.3f GB more than the %.3f GB there are; %.0f slots fewer on it would fit, or %.3f GB more",
        r, bytes * 1e-9, p->rows[r], p->rows[r] * p->memory.row_bytes * 1e-9, over * 1e-9, p->memory.budget[r] * 1e-9,
        ceil(over / slot), over * 1e-9);
  }
  return BL_OK;
}

bl_status bl_place_cost_all(const bl_place_cost_options *options, const char *homes, const double *speed,
                            const bl_trace_shape *shape, const double *sum, int32_t steps, bl_plan *plan) {
  pricing p = {.o = options, .shape = shape, .plan = plan};
  bl_status status = prepare(&p, homes, speed, sum, steps);
  for (int32_t l = 0; l < plan->placement.layers && status == BL_OK; ++l) status = place_layer(&p, l, sum);
  if (status == BL_OK) status = check_memory(&p);
  bl_place_solver_free(p.solver);
  bl_plan_free(&p.from);
  free(p.profile);
  free(p.mean);
  free(p.rows);
  free(p.budget);
  free(p.contiguous);
  bl_place_seats_free(&p.seats);
  return status;
}

/* -- output -------------------------------------------------------------------------------------------------------- */

static double gap_of(const bl_layer_price *price) {
  return price->bound_us > 0 ? price->total_us / price->bound_us - 1 : 0;
}

bl_status bl_place_cost_print(const bl_plan *plan) {
  const bl_placement *placement = &plan->placement;
  bl_table *table;
  bl_layer_price all = {0};
  int64_t copies = 0;
  BL_TRY(bl_table_create("layer|us a step|bound us|gap %|compute|exchange|fill|reduce|move|imbalance|copies|<proof",
                         &table));
  bl_status status = BL_OK;
  for (int32_t l = 0; l < placement->layers && status == BL_OK; ++l) {
    const bl_layer_placement *layer = &placement->layer[l];
    const bl_layer_price *price = layer->price;
    all.total_us += price->total_us;
    all.bound_us += price->bound_us;
    copies += layer->n_copies;
    status = bl_table_cell(table, "%d", layer->layer);
    if (status == BL_OK) status = bl_table_cell(table, "%.1f", price->total_us);
    if (status == BL_OK) status = bl_table_cell(table, "%.1f", price->bound_us);
    if (status == BL_OK) status = bl_table_cell(table, "%.2f", 100 * gap_of(price));
    for (int t = 0; t < BL_PLACE_TERM_COUNT && status == BL_OK; ++t)
      status = bl_table_cell(table, "%.1f", price->us[t]);
    if (status == BL_OK) status = bl_table_cell(table, "%.4f", layer->imbalance);
    if (status == BL_OK) status = bl_table_cell(table, "%d", layer->n_copies);
    if (status == BL_OK) status = bl_table_cell(table, "%s", price->proof);
  }
  if (status == BL_OK) {
    bl_table_print(table, stdout);
    printf(
        "\n%d layers on %d ranks: %.1f us of a step, at least %.1f us with any placement, gap %.2f %%; %.1f copies a "
        "layer\n",
        placement->layers, placement->ranks, all.total_us, all.bound_us, 100 * gap_of(&all),
        (double)copies / placement->layers);
  }
  bl_table_free(table);
  return status;
}

void bl_place_cost_json(const bl_plan *plan, bl_json_writer *w) {
  bl_layer_price all = {0};
  for (int32_t l = 0; l < plan->placement.layers; ++l) {
    all.total_us += plan->placement.layer[l].price->total_us;
    all.bound_us += plan->placement.layer[l].price->bound_us;
  }
  bl_json_key(w, "price");
  bl_json_begin_object(w);
  bl_json_put_number(w, "us", all.total_us);
  bl_json_put_number(w, "bound_us", all.bound_us);
  bl_json_put_number(w, "gap", gap_of(&all));
  bl_json_key(w, "layers");
  bl_json_begin_array(w);
  for (int32_t l = 0; l < plan->placement.layers; ++l) bl_layer_price_write(w, plan->placement.layer[l].price);
  bl_json_end_array(w);
  bl_json_end_object(w);
}
