#include "planner/milp/prove.h"
#include "base/log.h"
#include "base/memory.h"
#include "planner/milp/child.h"
#include "planner/milp/copy_search.h"
#include "planner/milp/expert_groups.h"
#include "planner/milp/fewest.h"
#include "planner/milp/fewest_copies.h"
#include "planner/milp/prove_with.h"
#include "planner/milp/rank_groups.h"
#include "planner/milp/shares_lp.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* How long to search, without reading a clock: tries are the effort divided by experts times ranks (what one costs),
 * and no more than `thoroughness` times experts times ranks (what there is to try). The long search follows where the
 * short one leaves a gap; it takes a part of the seconds given. */
typedef struct effort {
  double work, thoroughness;
} effort;

static const effort SHORT = {.work = 1e7, .thoroughness = 40};
static const effort LONG_FOR_A_SECOND = {.work = 4e7, .thoroughness = 400};
static const double LONG_SECONDS = 5;

static const int64_t DEFAULT_MEMORY_BYTES = (int64_t)1 << 30;
static const double LP_SECONDS = 2, KILL_GRACE_SECONDS = 0.25, CHILD_MARGIN_SECONDS = 0.05;

static const char *const STATUS_NAME[] = {"optimal", "gap", "infeasible", "unknown"};
static const char *const SOLVER_NAME[] = {"not needed",    "finished", "time limit",
                                          "out of memory", "died",     "not in this build"};

const char *bl_prove_status_name(bl_prove_status status) { return STATUS_NAME[status]; }
const char *bl_prove_solver_name(bl_prove_solver solver) { return SOLVER_NAME[solver]; }

bool bl_prove_has_solver(void) {
#ifdef BL_HAVE_GLPK
  return true;
#else
  return false;
#endif
}

/* Given homes name ranks and fit into their slots. */
static bl_status check_homes(const bl_prove_problem *p) {
  for (int32_t e = 0; e < p->experts; ++e)
    if (p->home[e] < 0 || p->home[e] >= p->ranks)
      return bl_fail(BL_EINPUT, "expert %d: home rank %d is not in 0..%d", e, p->home[e], p->ranks - 1);
  for (int32_t r = 0; r < p->ranks; ++r) {
    int32_t homes = 0;
    for (int32_t e = 0; e < p->experts; ++e) homes += p->home[e] == r;
    if (homes > p->slots[r])
      return bl_fail(BL_EINPUT, "rank %d is the home of %d experts but has %d slots", r, homes, p->slots[r]);
  }
  return BL_OK;
}

static bl_status check(const bl_prove_problem *p) {
  if (p->ranks < 1 || p->experts < 1)
    return bl_fail(BL_EINPUT, "%d experts on %d ranks: expected at least one of each", p->experts, p->ranks);
  if ((int64_t)p->experts * p->ranks > 1 << 22)
    return bl_fail(BL_EINPUT, "%d experts on %d ranks: too large to prove anything about", p->experts, p->ranks);
  if (!(p->eps >= 0) || !isfinite(p->eps)) return bl_fail(BL_EINPUT, "an allowed excess of %g: expected >= 0", p->eps);
  if (!(p->seconds > 0) || !isfinite(p->seconds))
    return bl_fail(BL_EINPUT, "%g seconds to prove: expected more than 0", p->seconds);
  if (p->memory_bytes < 0) return bl_fail(BL_EINPUT, "a negative memory limit for the solver");
  double sum = 0;
  for (int32_t e = 0; e < p->experts; ++e) {
    if (!(p->load[e] >= 0) || !isfinite(p->load[e]))
      return bl_fail(BL_EINPUT, "expert %d: a load of %g: expected >= 0", e, p->load[e]);
    sum += p->load[e];
  }
  if (!(sum > 0) || !isfinite(sum)) return bl_fail(BL_EINPUT, "loads sum to %g: expected more than 0", sum);
  for (int32_t r = 0; r < p->ranks; ++r)
    if (p->slots[r] < 0 || p->slots[r] > p->experts)
      return bl_fail(BL_EINPUT, "rank %d has %d slots: expected 0 to %d, the number of experts", r, p->slots[r],
                     p->experts);
  return p->home ? check_homes(p) : BL_OK;
}

/* Everything one call works on. */
typedef struct proof {
  const bl_prove_problem *given;
  bl_fewest problem;
  double *load;
  bl_prove_result *result;
  bl_mip_result mip;
  bool has_mip;   /* the solver has sent its result */
  bool near_miss; /* a placement of the solver was within its tolerance but not within ours */
} proof;

static bl_status imbalance_of(const proof *p, const bl_hosts *hosts, double *imbalance) {
  bl_shares *shares;
  BL_TRY(bl_shares_create(hosts->experts, hosts->ranks, hosts->n_copy_slots, &shares));
  *imbalance = bl_shares_solve(shares, hosts, p->problem.load, NULL);
  bl_shares_free(shares);
  return BL_OK;
}

/* Takes `hosts` over into the result where they stand the check and need fewer copies than what is there; empties them
 * either way. */
static bl_status offer(proof *p, bl_hosts *hosts, bool *accepted) {
  bl_prove_result *result = p->result;
  const int32_t copies = bl_fewest_copies_of(hosts);
  double imbalance = INFINITY;
  bl_status status = imbalance_of(p, hosts, &imbalance);
  *accepted = status == BL_OK && imbalance <= p->problem.cap * (1 + 1e-12);
  if (*accepted && (result->copies < 0 || copies < result->copies)) {
    bl_hosts_free(&result->hosts);
    result->hosts = *hosts;
    result->copies = copies;
    result->imbalance = imbalance;
    memset(hosts, 0, sizeof *hosts);
  }
  bl_hosts_free(hosts);
  return status;
}

static bool same_problem(const proof *p, const bl_hosts *hosts) {
  const bl_fewest *problem = &p->problem;
  if (hosts->experts != problem->experts || hosts->ranks != problem->ranks) return false;
  if (memcmp(hosts->slots, problem->slots, (size_t)problem->ranks * sizeof *hosts->slots) != 0) return false;
  return !problem->home || memcmp(hosts->home, problem->home, (size_t)problem->experts * sizeof *hosts->home) == 0;
}

/* The incumbent without the copies it can spare. */
static bl_status offer_incumbent(proof *p) {
  const bl_hosts *incumbent = p->given->incumbent;
  if (!incumbent || !same_problem(p, incumbent)) return BL_OK;
  bl_host *host;
  BL_TRY(bl_new(&host, (size_t)(incumbent->experts + incumbent->n_copy_slots), sizeof *host, "incumbent"));
  int32_t n = 0;
  for (int32_t e = 0; e < incumbent->experts; ++e)
    host[n++] = (bl_host){.expert = e, .rank = incumbent->home[e], .tokens = 1};
  for (int32_t s = 0; s < incumbent->n_copy_slots; ++s)
    if (incumbent->copy_expert[s] >= 0)
      host[n++] = (bl_host){.expert = incumbent->copy_expert[s], .rank = incumbent->copy_rank[s]};
  bl_hosts hosts = {.experts = 0};
  bl_status status = bl_fewest_hosts(&p->problem, host, n, &hosts);
  free(host);
  double imbalance = INFINITY;
  if (status == BL_OK) status = imbalance_of(p, &hosts, &imbalance);
  if (status == BL_OK && imbalance <= p->problem.cap) status = bl_copy_search_reduce(&p->problem, &hosts);
  bool accepted;
  if (status == BL_OK) status = offer(p, &hosts, &accepted);
  bl_hosts_free(&hosts);
  return status;
}

static int64_t tries(const proof *p, effort how) {
  const double size = (double)p->problem.experts * p->problem.ranks;
  return 1000 + (int64_t)fmin(how.work / size, how.thoroughness * size);
}

static effort long_effort(const proof *p) {
  effort how = LONG_FOR_A_SECOND;
  how.work *= fmin(p->given->seconds, LONG_SECONDS);
  return how;
}

/* Copies for given homes, fewer than known so far. */
static bl_status search(proof *p, const int32_t *group, effort how) {
  const bl_prove_result *known = p->result;
  const bl_copy_search_options options = {.bound = known->bound,
                                          .below = known->copies < 0 ? INT32_MAX : known->copies,
                                          .group = group,
                                          .budget = tries(p, how)};
  bl_hosts hosts = {.experts = 0};
  bool found = false, accepted;
  bl_status status = bl_copy_search(&p->problem, &options, &hosts, &found);
  if (status == BL_OK && found) status = offer(p, &hosts, &accepted);
  bl_hosts_free(&hosts);
  return status;
}

static bl_status with_given_homes(proof *p) {
  bl_prove_result *result = p->result;
  bool infeasible;
  int32_t *group;
  result->proof = "groups-of-ranks";
  BL_TRY(bl_new(&group, (size_t)p->problem.ranks, sizeof *group, "groups of ranks"));
  bl_status status = bl_rank_groups_solve(&p->problem, &result->bound, &infeasible, group);
  if (status == BL_OK && infeasible) result->status = BL_PROVE_INFEASIBLE;
  if (status == BL_OK && !infeasible) status = offer_incumbent(p);
  if (status == BL_OK && !infeasible) status = search(p, group, SHORT);
  if (status == BL_OK && !infeasible && result->copies > result->bound) status = search(p, group, long_effort(p));
  free(group);
  return status;
}

/* A packing for free homes, with fewer copies than known so far. */
static bl_status pack(proof *p, effort how) {
  bl_prove_result *known = p->result;
  const bl_expert_groups_options options = {.bound = known->bound,
                                            .below = known->copies < 0 ? INT32_MAX : known->copies,
                                            .budget = 100 * p->problem.experts + tries(p, how)};
  bl_expert_groups groups;
  bl_hosts hosts = {.experts = 0};
  bool accepted;
  bl_status status = bl_expert_groups_solve(&p->problem, &options, &groups, &hosts);
  if (status == BL_OK) {
    known->bound = groups.bound;
    if (groups.infeasible && known->copies < 0) known->status = BL_PROVE_INFEASIBLE;
    if (groups.found) status = offer(p, &hosts, &accepted);
  }
  bl_hosts_free(&hosts);
  return status;
}

static bl_status with_free_homes(proof *p) {
  bl_prove_result *result = p->result;
  result->proof = "groups-of-experts";
  BL_TRY(offer_incumbent(p));
  BL_TRY(pack(p, SHORT));
  if (result->status == BL_PROVE_INFEASIBLE || result->copies == result->bound) return BL_OK;
  return pack(p, long_effort(p));
}

/* -- what the child says ------------------------------------------------------------------------------------------- */

static bool take_placement(proof *p, const uint8_t *is_host, uint32_t bytes) {
  const bl_fewest *problem = &p->problem;
  if (bytes != (uint32_t)(problem->experts * problem->ranks)) return false;
  bl_host *host;
  bl_hosts hosts = {.experts = 0};
  bool accepted = false;
  if (bl_new(&host, bytes, sizeof *host, "placement") != BL_OK) return false;
  int32_t n = 0;
  for (int32_t e = 0; e < problem->experts; ++e)
    for (int32_t r = 0; r < problem->ranks; ++r)
      if (is_host[e * problem->ranks + r]) host[n++] = (bl_host){.expert = e, .rank = r};
  bl_status status = bl_fewest_hosts(problem, host, n, &hosts);
  if (status == BL_OK) status = offer(p, &hosts, &accepted);
  free(host);
  p->near_miss = p->near_miss || (status == BL_OK && !accepted);
  return status == BL_OK;
}

static bool take_bound(proof *p, const void *payload, uint32_t bytes) {
  int32_t bound;
  if (bytes != sizeof bound) return false;
  memcpy(&bound, payload, sizeof bound);
  if (p->result->copies >= 0 && bound > p->result->copies) return false;
  if (bound > p->result->bound) {
    p->result->bound = bound;
    p->result->bound_by_glpk = true;
    p->result->proof = "glpk-mip";
  }
  return true;
}

static bool take_result(proof *p, const void *payload, uint32_t bytes) {
  if (bytes != sizeof p->mip) return false;
  memcpy(&p->mip, payload, sizeof p->mip);
  p->has_mip = true;
  p->result->nodes = p->mip.nodes;
  if (p->mip.verdict == BL_MIP_OPTIMAL) return take_bound(p, &p->mip.copies, sizeof p->mip.copies);
  if (p->mip.verdict == BL_MIP_INFEASIBLE) {
    if (p->result->copies >= 0) return false;
    p->result->status = BL_PROVE_INFEASIBLE;
    p->result->bound_by_glpk = true;
    p->result->proof = "glpk-mip";
  }
  return true;
}

static bool sink(void *context, uint32_t kind, const void *payload, uint32_t bytes) {
  proof *p = context;
  switch (kind) {
  case BL_MIP_PLACEMENT:
    return take_placement(p, payload, bytes);
  case BL_MIP_BOUND:
    return take_bound(p, payload, bytes);
  case BL_MIP_RESULT:
    return take_result(p, payload, bytes);
  default:
    return false;
  }
}

/* -- the whole call ------------------------------------------------------------------------------------------------ */

static void explain(proof *p, const char *reason) {
  snprintf(p->result->reason, sizeof p->result->reason, "%s", reason);
}

static bl_prove_solver solver_end(proof *p, const bl_child_report *report) {
  switch (report->end) {
  case BL_CHILD_TIME:
    explain(p, report->reason);
    return BL_PROVE_SOLVER_TIME;
  case BL_CHILD_MEMORY:
    explain(p, report->reason);
    return BL_PROVE_SOLVER_MEMORY;
  case BL_CHILD_DIED:
    explain(p, report->reason);
    return BL_PROVE_SOLVER_DIED;
  case BL_CHILD_FINISHED:
    break;
  }
  if (!p->has_mip) {
    explain(p, "the solver process ended without a result");
    return BL_PROVE_SOLVER_DIED;
  }
  if (p->mip.verdict == BL_MIP_STOPPED) {
    explain(p, "the solver stopped at the time limit");
    return BL_PROVE_SOLVER_TIME;
  }
  if (p->near_miss) explain(p, "the solver's placement exceeds the allowed imbalance by its rounding");
  return BL_PROVE_SOLVER_FINISHED;
}

static bl_status ask_solver(proof *p, int64_t start_us, bl_child_body *body) {
  bl_prove_result *result = p->result;
  const double left = p->given->seconds - (double)(bl_now_us() - start_us) * 1e-6;
  if (left < 2 * CHILD_MARGIN_SECONDS) {
    result->solver = BL_PROVE_SOLVER_TIME;
    explain(p, "the bounds took all of the time, none was left for the solver");
    return BL_OK;
  }
  const int64_t memory = p->given->memory_bytes > 0 ? p->given->memory_bytes : DEFAULT_MEMORY_BYTES;
  bl_mip_task task = {.problem = &p->problem,
                      .bound = result->bound,
                      .start = result->copies >= 0 ? &result->hosts : NULL,
                      .seconds = left - CHILD_MARGIN_SECONDS,
                      .memory_bytes = memory};
  const bl_child_limits limits = {
      .seconds = left + KILL_GRACE_SECONDS,
      .memory_bytes = memory + (64 << 20), /* GLPK should meet its own limit first: it can say so */
      .max_message = (uint32_t)(p->problem.experts * p->problem.ranks) + (uint32_t)sizeof(bl_mip_result)};
  bl_child_report report;
  BL_TRY(bl_child_run(&limits, body, &task, sink, p, &report));
  result->solver = solver_end(p, &report);
  return BL_OK;
}

static void settle(proof *p) {
  bl_prove_result *result = p->result;
  if (result->status == BL_PROVE_INFEASIBLE) return;
  if (result->copies < 0)
    result->status = BL_PROVE_UNKNOWN;
  else
    result->status = result->copies == result->bound ? BL_PROVE_OPTIMAL : BL_PROVE_GAP;
}

static bl_status scale(proof *p) {
  const bl_prove_problem *given = p->given;
  double sum = 0;
  BL_TRY(bl_new(&p->load, (size_t)given->experts, sizeof *p->load, "loads"));
  for (int32_t e = 0; e < given->experts; ++e) sum += given->load[e];
  for (int32_t e = 0; e < given->experts; ++e) p->load[e] = given->load[e] / sum * given->ranks;
  p->problem = (bl_fewest){.experts = given->experts,
                           .ranks = given->ranks,
                           .load = p->load,
                           .slots = given->slots,
                           .home = given->home,
                           .cap = (1 + given->eps) * (1 + BL_FEWEST_TOLERANCE)};
  return BL_OK;
}

bl_status bl_prove_with(const bl_prove_problem *problem, bl_child_body *body, bl_prove_result *result) {
  const int64_t start_us = bl_now_us();
  memset(result, 0, sizeof *result);
  result->copies = -1;
  result->status = BL_PROVE_UNKNOWN;
  result->proof = "none";
  BL_TRY(check(problem));
  proof p = {.given = problem, .result = result};
  bl_status status = BL_OK;
  BL_TRY_GOTO(status, scale(&p), done);
  BL_TRY_GOTO(status, problem->home ? with_given_homes(&p) : with_free_homes(&p), done);
  settle(&p);
  if (result->status == BL_PROVE_OPTIMAL || result->status == BL_PROVE_INFEASIBLE) goto done;
  if (body) {
    BL_TRY_GOTO(status, ask_solver(&p, start_us, body), done);
  } else {
    result->solver = BL_PROVE_SOLVER_ABSENT;
    explain(&p, "this program was built without GLPK (GLPK=0): bounds and search alone did not meet");
  }
  settle(&p);
done:
  free(p.load);
  result->seconds = (double)(bl_now_us() - start_us) * 1e-6;
  return status;
}

bl_status bl_prove_fewest_copies(const bl_prove_problem *problem, bl_prove_result *result) {
  BL_TRY(bl_prove_with(problem, bl_prove_has_solver() ? bl_fewest_copies_body : NULL, result));
  if (result->copies < 0 || !bl_prove_has_solver()) return BL_OK;
  return bl_shares_lp_in_child(&result->hosts, problem->load, LP_SECONDS, &result->lp_imbalance);
}

void bl_prove_result_free(bl_prove_result *result) {
  bl_hosts_free(&result->hosts);
  result->copies = -1;
}
