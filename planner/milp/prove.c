#include "planner/milp/prove.h"
#include "base/log.h"
#include "base/memory.h"
#include "planner/milp/child.h"
#include "planner/milp/fewest_copies.h"
#include "planner/milp/proof.h"
#include "planner/milp/prove_with.h"
#include "planner/milp/shares_lp.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

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
static bl_status check_homes(const bl_prove_problem *p, const int32_t *home) {
  for (int32_t e = 0; e < p->experts; ++e)
    if (home[e] < 0 || home[e] >= p->ranks)
      return bl_fail(BL_EINPUT, "expert %d: home rank %d is not in 0..%d", e, home[e], p->ranks - 1);
  for (int32_t r = 0; r < p->ranks; ++r) {
    int32_t homes = 0;
    for (int32_t e = 0; e < p->experts; ++e) homes += home[e] == r;
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
  for (int32_t r = 0; p->speed && r < p->ranks; ++r)
    if (!(p->speed[r] > 0) || !isfinite(p->speed[r]))
      return bl_fail(BL_EINPUT, "rank %d has speed %g: expected more than 0", r, p->speed[r]);
  if (p->home && p->current) return bl_fail(BL_EINPUT, "homes that must stay and homes that may move: expected one");
  if (p->current && !(p->move_price >= 0 && p->move_price <= 1e6))
    return bl_fail(BL_EINPUT, "a price of %g copies for a move: expected 0 to 1e6", p->move_price);
  BL_TRY(p->home ? check_homes(p, p->home) : BL_OK);
  return p->current ? check_homes(p, p->current) : BL_OK;
}

/* -- what the child says ------------------------------------------------------------------------------------------- */

static bool take_placement(bl_proof *p, const uint8_t *is_host, uint32_t bytes) {
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
  if (status == BL_OK) status = bl_proof_offer(p, &hosts, &accepted);
  free(host);
  p->near_miss = p->near_miss || (status == BL_OK && !accepted);
  return status == BL_OK;
}

static bool take_bound(bl_proof *p, const void *payload, uint32_t bytes) {
  double bound;
  if (bytes != sizeof bound) return false;
  memcpy(&bound, payload, sizeof bound);
  if (!(bound <= p->result->price + BL_PRICE_ROUNDING)) return false;
  if (bound > p->result->bound + BL_PRICE_ROUNDING) {
    p->result->bound = bound;
    p->result->bound_by_glpk = true;
    p->result->proof = "glpk-mip";
  }
  return true;
}

static bool take_result(bl_proof *p, const void *payload, uint32_t bytes) {
  if (bytes != sizeof p->mip) return false;
  memcpy(&p->mip, payload, sizeof p->mip);
  p->has_mip = true;
  p->result->nodes = p->mip.nodes;
  if (p->mip.verdict == BL_MIP_OPTIMAL) return take_bound(p, &p->mip.price, sizeof p->mip.price);
  if (p->mip.verdict == BL_MIP_INFEASIBLE) {
    if (p->result->copies >= 0) return false;
    p->result->status = BL_PROVE_INFEASIBLE;
    p->result->bound_by_glpk = true;
    p->result->proof = "glpk-mip";
  }
  return true;
}

static bool sink(void *context, uint32_t kind, const void *payload, uint32_t bytes) {
  bl_proof *p = context;
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

static void explain(bl_proof *p, const char *reason) {
  snprintf(p->result->reason, sizeof p->result->reason, "%s", reason);
}

static bl_prove_solver solver_end(bl_proof *p, const bl_child_report *report) {
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

static bl_status ask_solver(bl_proof *p, int64_t start_us, bl_child_body *body) {
  bl_prove_result *result = p->result;
  const double left = p->given->seconds - (double)(bl_now_us() - start_us) * 1e-6;
  if (left < 2 * CHILD_MARGIN_SECONDS) {
    result->solver = BL_PROVE_SOLVER_TIME;
    explain(p, "the bounds took all of the time, none was left for the solver");
    return BL_OK;
  }
  const int64_t memory = p->memory_bytes;
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

static void settle(bl_proof *p) {
  bl_prove_result *result = p->result;
  if (result->status == BL_PROVE_INFEASIBLE) return;
  if (result->copies < 0)
    result->status = BL_PROVE_UNKNOWN;
  else
    result->status = bl_proof_met(result) ? BL_PROVE_OPTIMAL : BL_PROVE_GAP;
}

static bl_status scale(bl_proof *p) {
  const bl_prove_problem *given = p->given;
  double sum = 0;
  BL_TRY(bl_new(&p->load, (size_t)given->experts, sizeof *p->load, "loads"));
  for (int32_t e = 0; e < given->experts; ++e) sum += given->load[e];
  for (int32_t e = 0; e < given->experts; ++e) p->load[e] = given->load[e] / sum * given->ranks;
  if (given->speed) {
    double speeds = 0;
    BL_TRY(bl_new(&p->speed, (size_t)given->ranks, sizeof *p->speed, "speeds"));
    for (int32_t r = 0; r < given->ranks; ++r) speeds += given->speed[r];
    for (int32_t r = 0; r < given->ranks; ++r) p->speed[r] = given->speed[r] / speeds * given->ranks;
  }
  p->problem = (bl_fewest){.experts = given->experts,
                           .ranks = given->ranks,
                           .load = p->load,
                           .slots = given->slots,
                           .speed = p->speed,
                           .home = given->home,
                           .current = given->current,
                           .move_price = given->move_price,
                           .cap = (1 + given->eps) * (1 + BL_FEWEST_TOLERANCE)};
  return BL_OK;
}

bl_status bl_prove_with(const bl_prove_problem *problem, bl_child_body *body, bl_prove_result *result) {
  const int64_t start_us = bl_now_us();
  memset(result, 0, sizeof *result);
  result->copies = -1;
  result->price = INFINITY;
  result->status = BL_PROVE_UNKNOWN;
  result->proof = "none";
  BL_TRY(check(problem));
  bl_proof p = {.given = problem, .result = result};
  p.memory_bytes = problem->memory_bytes > 0 ? problem->memory_bytes : DEFAULT_MEMORY_BYTES;
  bl_status status = BL_OK;
  BL_TRY_GOTO(status, scale(&p), done);
  BL_TRY_GOTO(status, bl_proof_search(&p), done);
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
  free(p.speed);
  result->seconds = (double)(bl_now_us() - start_us) * 1e-6;
  return status;
}

bl_status bl_prove_fewest_copies(const bl_prove_problem *problem, bl_prove_result *result) {
  BL_TRY(bl_prove_with(problem, bl_prove_has_solver() ? bl_fewest_copies_body : NULL, result));
  if (result->copies < 0 || !bl_prove_has_solver()) return BL_OK;
  return bl_shares_lp_in_child(&result->hosts, problem->load, problem->speed, LP_SECONDS, &result->lp_imbalance);
}

void bl_prove_result_free(bl_prove_result *result) {
  bl_hosts_free(&result->hosts);
  result->copies = -1;
}
