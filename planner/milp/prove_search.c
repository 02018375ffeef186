#include "base/memory.h"
#include "planner/milp/copy_search.h"
#include "planner/milp/expert_groups.h"
#include "planner/milp/group_search.h"
#include "planner/milp/host_search.h"
#include "planner/milp/proof.h"
#include "planner/milp/rank_columns.h"
#include "planner/milp/rank_groups.h"
#include "planner/place/homes.h"
#include <math.h>
#include <string.h>

/* How long to search, without reading a clock: tries are the effort divided by experts times ranks (what one costs),
 * and no more than `thoroughness` times experts times ranks (what there is to try). The long search follows where the
 * short one leaves a gap; it takes a part of the seconds given. */
typedef struct effort {
  double work, thoroughness;
} effort;

static const effort SHORT = {.work = 1e7, .thoroughness = 40};
static const effort LONG_FOR_A_SECOND = {.work = 4e7, .thoroughness = 400};
static const double LONG_SECONDS = 5, COLUMNS_SECONDS_SHARE = 0.5;

bool bl_proof_met(const bl_prove_result *result) { return result->price <= result->bound + BL_PRICE_ROUNDING; }

static bl_status imbalance_of(const bl_proof *p, const bl_hosts *hosts, double *imbalance) {
  bl_shares *shares;
  BL_TRY(bl_shares_create(hosts->experts, hosts->ranks, hosts->n_copy_slots, &shares));
  *imbalance = bl_shares_solve(shares, hosts, p->problem.load, p->problem.speed);
  bl_shares_free(shares);
  return BL_OK;
}

bl_status bl_proof_offer(bl_proof *p, bl_hosts *hosts, bool *accepted) {
  bl_prove_result *result = p->result;
  const double price = bl_fewest_price(&p->problem, hosts);
  double imbalance = INFINITY;
  bl_status status = imbalance_of(p, hosts, &imbalance);
  *accepted = status == BL_OK && imbalance <= p->problem.cap * (1 + 1e-12);
  if (*accepted && price < result->price - BL_PRICE_ROUNDING) {
    bl_hosts_free(&result->hosts);
    result->hosts = *hosts;
    result->copies = bl_fewest_copies_of(hosts);
    result->moves = bl_fewest_moves_of(&p->problem, hosts);
    result->price = price;
    result->imbalance = imbalance;
    memset(hosts, 0, sizeof *hosts);
  }
  bl_hosts_free(hosts);
  return status;
}

static bool same_problem(const bl_proof *p, const bl_hosts *hosts) {
  const bl_fewest *problem = &p->problem;
  if (hosts->experts != problem->experts || hosts->ranks != problem->ranks) return false;
  if (memcmp(hosts->slots, problem->slots, (size_t)problem->ranks * sizeof *hosts->slots) != 0) return false;
  return !problem->home || memcmp(hosts->home, problem->home, (size_t)problem->experts * sizeof *hosts->home) == 0;
}

/* `hosts` with homes chosen as this problem has them. */
static bl_status with_homes_of(const bl_fewest *problem, const bl_hosts *hosts, bl_hosts *out) {
  bl_host *host;
  BL_TRY(bl_new(&host, (size_t)(hosts->experts + hosts->n_copy_slots), sizeof *host, "placement"));
  int32_t n = 0;
  for (int32_t e = 0; e < hosts->experts; ++e) host[n++] = (bl_host){.expert = e, .rank = hosts->home[e], .tokens = 1};
  for (int32_t s = 0; s < hosts->n_copy_slots; ++s)
    if (hosts->copy_expert[s] >= 0) host[n++] = (bl_host){.expert = hosts->copy_expert[s], .rank = hosts->copy_rank[s]};
  const bl_status status = bl_fewest_hosts(problem, host, n, out);
  free(host);
  return status;
}

/* The incumbent without the copies it can spare. */
static bl_status offer_incumbent(bl_proof *p) {
  const bl_hosts *incumbent = p->given->incumbent;
  if (!incumbent || !same_problem(p, incumbent)) return BL_OK;
  bl_hosts hosts = {.experts = 0};
  double imbalance = INFINITY;
  bool accepted;
  bl_status status = with_homes_of(&p->problem, incumbent, &hosts);
  if (status == BL_OK) status = imbalance_of(p, &hosts, &imbalance);
  if (status == BL_OK && imbalance <= p->problem.cap) status = bl_copy_search_reduce(&p->problem, &hosts);
  if (status == BL_OK) status = bl_proof_offer(p, &hosts, &accepted);
  bl_hosts_free(&hosts);
  return status;
}

static int64_t tries(const bl_proof *p, effort how) {
  const double size = (double)p->problem.experts * p->problem.ranks;
  return 1000 + (int64_t)fmin(how.work / size, how.thoroughness * size);
}

static effort long_effort(const bl_proof *p) {
  effort how = LONG_FOR_A_SECOND;
  how.work *= fmin(p->given->seconds, LONG_SECONDS);
  return how;
}

/* -- homes that stay ----------------------------------------------------------------------------------------------- */

/* Copies for the homes of `problem`, cheaper than what is known so far. */
static bl_status search_copies(bl_proof *p, const bl_fewest *problem, int32_t bound, const int32_t *group, effort how) {
  const bl_prove_result *known = p->result;
  const bl_copy_search_options options = {.bound = bound,
                                          .below = known->price < INT32_MAX ? (int32_t)ceil(known->price) : INT32_MAX,
                                          .group = group,
                                          .budget = tries(p, how)};
  bl_hosts hosts = {.experts = 0}, ours = {.experts = 0};
  bool found = false, accepted;
  bl_status status = bl_copy_search(problem, &options, &hosts, &found);
  if (status == BL_OK && found) status = with_homes_of(&p->problem, &hosts, &ours);
  if (status == BL_OK && found) status = bl_proof_offer(p, &ours, &accepted);
  bl_hosts_free(&hosts);
  bl_hosts_free(&ours);
  return status;
}

/* More ranks than the table of groups holds: columns raise the bound, and the groups they choose are searched. */
static bl_status by_columns(bl_proof *p, int32_t *bound, int32_t *group) {
  const int32_t before = *bound;
  bl_hosts hosts = {.experts = 0};
  bool chosen, found, accepted;
  BL_TRY(
      bl_rank_columns(&p->problem, COLUMNS_SECONDS_SHARE * p->given->seconds, p->memory_bytes, bound, &chosen, group));
  if (*bound > before) p->result->proof = "columns-of-ranks";
  if (!chosen) return BL_OK;
  bl_status status = bl_group_search(&p->problem, group, 20000, &hosts, &found);
  if (status == BL_OK && found) status = bl_proof_offer(p, &hosts, &accepted);
  bl_hosts_free(&hosts);
  return status;
}

static bl_status with_given_homes(bl_proof *p) {
  bl_prove_result *result = p->result;
  bool infeasible;
  int32_t *group, bound;
  result->proof = "groups-of-ranks";
  BL_TRY(bl_new(&group, (size_t)p->problem.ranks, sizeof *group, "groups of ranks"));
  bl_status status = bl_rank_groups_solve(&p->problem, &bound, &infeasible, group);
  if (status == BL_OK && infeasible) result->status = BL_PROVE_INFEASIBLE;
  if (status == BL_OK && !infeasible && p->problem.ranks > BL_RANK_GROUPS_MAX) status = by_columns(p, &bound, group);
  result->bound = bound;
  if (status == BL_OK && !infeasible) status = offer_incumbent(p);
  if (status == BL_OK && !infeasible) status = search_copies(p, &p->problem, bound, group, SHORT);
  if (status == BL_OK && !infeasible && !bl_proof_met(result))
    status = search_copies(p, &p->problem, bound, group, long_effort(p));
  free(group);
  return status;
}

/* -- homes that are free ------------------------------------------------------------------------------------------- */

/* Nodes of a packing are much cheaper than placements scored. */
static int64_t packing_nodes(const bl_proof *p, double seconds) {
  static const double A_SECOND = 4e5;
  return 100 * p->problem.experts + tries(p, SHORT) + (int64_t)(A_SECOND * seconds);
}

/* A packing for free homes, with fewer copies than known so far. *bound is raised. */
static bl_status pack(bl_proof *p, int64_t nodes, int32_t *bound) {
  bl_prove_result *known = p->result;
  const bl_expert_groups_options options = {
      .bound = *bound, .below = known->price < INT32_MAX ? (int32_t)known->price : INT32_MAX, .budget = nodes};
  bl_expert_groups groups;
  bl_hosts hosts = {.experts = 0};
  bool accepted;
  bl_status status = bl_expert_groups_solve(&p->problem, &options, &groups, &hosts);
  if (status == BL_OK) {
    *bound = groups.bound;
    if (groups.infeasible && known->copies < 0) known->status = BL_PROVE_INFEASIBLE;
    if (groups.found) status = bl_proof_offer(p, &hosts, &accepted);
  }
  bl_hosts_free(&hosts);
  return status;
}

/* Homes longest first, for ranks that are not alike: the packing finds nothing for these. */
static bl_status longest_first(bl_proof *p, int32_t bound, effort how) {
  bl_fewest with_homes = p->problem;
  const size_t experts = (size_t)p->problem.experts, ranks = (size_t)p->problem.ranks;
  int64_t slots = 0;
  int32_t *home, *most, *group;
  BL_TRY(bl_new(&home, experts + 2 * ranks, sizeof *home, "homes"));
  most = home + experts;
  group = most + ranks;
  for (size_t r = 0; r < ranks; ++r) slots += p->problem.slots[r];
  bl_status status = BL_OK;
  for (int32_t spare = 1; spare >= 0 && status == BL_OK; --spare) { /* room for a copy on every rank, or none */
    int64_t places = 0;
    for (size_t r = 0; r < ranks; ++r)
      places += most[r] = p->problem.slots[r] > spare ? p->problem.slots[r] - spare : 0;
    if (places < p->problem.experts) continue;
    status = bl_homes_longest_first(p->problem.load, p->problem.experts, p->problem.ranks, most, p->problem.speed,
                                    spare > 0, home);
    with_homes.home = home;
    with_homes.current = NULL;
    if (status == BL_OK) status = search_copies(p, &with_homes, bound, group, how);
  }
  free(home);
  return status;
}

static bl_status with_free_homes(bl_proof *p) {
  bl_prove_result *result = p->result;
  const bool alike = bl_fewest_ranks_alike(&p->problem);
  int32_t bound = 0;
  result->proof = "groups-of-experts";
  BL_TRY(offer_incumbent(p));
  BL_TRY(pack(p, packing_nodes(p, 0), &bound));
  result->bound = bound;
  if (result->status == BL_PROVE_INFEASIBLE || bl_proof_met(result)) return BL_OK;
  BL_TRY(pack(p, packing_nodes(p, fmin(p->given->seconds, LONG_SECONDS)), &bound));
  result->bound = bound;
  if (alike || result->status == BL_PROVE_INFEASIBLE || bl_proof_met(result)) return BL_OK;
  return longest_first(p, bound, SHORT);
}

/* -- homes that move at a price ------------------------------------------------------------------------------------ */

/* A placement that moves m homes and has c copies has at least as many copies as one with free homes; and it is one
 * without moves, with m + c copies, if slots do not count: a home that left stays as a host without tokens. */
static bl_status bound_of_moves(bl_proof *p, int32_t with_free, double *bound) {
  const int32_t experts = p->problem.experts, ranks = p->problem.ranks;
  bl_fewest staying = p->problem;
  int64_t slots = -experts;
  int32_t *roomy, with_given;
  bool infeasible;
  BL_TRY(bl_new(&roomy, 2 * (size_t)ranks, sizeof *roomy, "slots"));
  for (int32_t r = 0; r < ranks; ++r) {
    slots += p->problem.slots[r];
    roomy[r] = experts;
  }
  staying.home = p->problem.current;
  staying.current = NULL;
  staying.slots = roomy;
  const bl_status status = bl_rank_groups_solve(&staying, &with_given, &infeasible, roomy + ranks);
  const double most = (double)slots;
  double copies = with_free;
  if (p->problem.move_price >= 1) copies = fmin(fmax(with_free, with_given), fmax(most, with_free));
  *bound = copies + p->problem.move_price * fmax(0, with_given - copies);
  free(roomy);
  return status;
}

/* Annealing from the best placement known, or from the current homes. */
static bl_status search_hosts(bl_proof *p, effort how) {
  enum { RUNS = 3 };
  bl_hosts start = {.experts = 0};
  bl_status status = BL_OK;
  for (uint64_t run = 0; run < RUNS && status == BL_OK && !bl_proof_met(p->result); ++run) {
    bl_hosts hosts = {.experts = 0};
    bool found = false, accepted;
    bl_fewest staying = p->problem;
    staying.home = p->problem.current;
    if (!start.experts) status = bl_fewest_hosts(&staying, NULL, 0, &start);
    const bl_host_search_options options = {.start = run == 1 && p->result->copies >= 0 ? &p->result->hosts : &start,
                                            .below = p->result->price,
                                            .bound = p->result->bound,
                                            .budget = tries(p, how),
                                            .seed = run};
    if (status == BL_OK) status = bl_host_search(&p->problem, &options, &hosts, &found);
    if (status == BL_OK && found) status = bl_proof_offer(p, &hosts, &accepted);
    bl_hosts_free(&hosts);
  }
  bl_hosts_free(&start);
  return status;
}

static bl_status with_current_homes(bl_proof *p) {
  bl_prove_result *result = p->result;
  bl_fewest staying = p->problem;
  int32_t with_free = 0, with_given, *group;
  bool infeasible;
  staying.home = p->problem.current;
  staying.current = NULL;
  result->proof = "groups";
  BL_TRY(offer_incumbent(p));
  BL_TRY(pack(p, packing_nodes(p, 0), &with_free));
  if (result->status == BL_PROVE_INFEASIBLE) return BL_OK;
  BL_TRY(bound_of_moves(p, with_free, &result->bound));
  BL_TRY(bl_new(&group, (size_t)p->problem.ranks, sizeof *group, "groups of ranks"));
  bl_status status = bl_rank_groups_solve(&staying, &with_given, &infeasible, group);
  if (status == BL_OK && !infeasible && !bl_proof_met(result))
    status = search_copies(p, &staying, with_given, group, SHORT);
  free(group);
  if (status == BL_OK && !bl_proof_met(result)) status = search_hosts(p, SHORT);
  if (status == BL_OK && !bl_proof_met(result)) status = search_hosts(p, long_effort(p));
  return status;
}

bl_status bl_proof_search(bl_proof *p) {
  if (p->problem.home) return with_given_homes(p);
  return p->problem.current ? with_current_homes(p) : with_free_homes(p);
}
