#include "planner/milp/rank_groups.h"
#include "base/memory.h"
#include <string.h>

enum { NO_WAY = 255 };

/* The least number of experts of rank r whose loads sum to its excess. */
static int32_t copies_leaving(const bl_fewest *problem, int32_t r, double excess, bool *taken) {
  int32_t n = 0;
  memset(taken, 0, (size_t)problem->experts * sizeof *taken);
  while (excess > 0) {
    int32_t largest = -1;
    for (int32_t e = 0; e < problem->experts; ++e)
      if (problem->home[e] == r && !taken[e] && (largest < 0 || problem->load[e] > problem->load[largest])) largest = e;
    if (largest < 0) break;
    taken[largest] = true;
    excess -= problem->load[largest];
    ++n;
  }
  return n;
}

bl_status bl_rank_facts_gather(const bl_fewest *problem, bl_rank_facts **out) {
  bool *taken;
  bl_rank_facts *facts;
  BL_TRY(bl_new(out, (size_t)problem->ranks, sizeof **out, "ranks"));
  facts = *out;
  const bl_status status = bl_new(&taken, (size_t)problem->experts, sizeof *taken, "ranks");
  if (status != BL_OK) {
    free(*out);
    return status;
  }
  for (int32_t r = 0; r < problem->ranks; ++r) {
    facts[r] = (bl_rank_facts){.excess = -bl_fewest_cap(problem, r), .free = problem->slots[r]};
    for (int32_t e = 0; e < problem->experts; ++e) {
      if (problem->home[e] != r) continue;
      facts[r].excess += problem->load[e];
      --facts[r].free;
    }
    facts[r].leaving = copies_leaving(problem, r, facts[r].excess, taken);
  }
  free(taken);
  return BL_OK;
}

/* Per set of ranks, bit i standing for rank order[i]. */
typedef struct table {
  int32_t order[BL_RANK_GROUPS_MAX];
  double *excess;
  uint8_t *leaving, *free;
  uint8_t *alone;  /* copies that the set needs as one group, or NO_WAY */
  uint8_t *cost;   /* copies that the set needs in its cheapest partition, or NO_WAY */
  uint16_t *group; /* of that partition, the group of the lowest rank */
} table;

static uint8_t add_up_to_limit(uint8_t a, int32_t b) { return (uint8_t)(a + b < NO_WAY ? a + b : NO_WAY); }

static uint8_t cost_alone(const table *t, uint32_t set) {
  const uint8_t joins = (uint8_t)(__builtin_popcount(set) - 1);
  const uint8_t cost = joins > t->leaving[set] ? joins : t->leaving[set];
  return t->excess[set] > 0 || cost > t->free[set] ? NO_WAY : cost;
}

/* The cheapest group to take out of `set` with its lowest rank. Ranks above the limit come lowest, so a set whose
 * lowest rank is within it needs nothing. */
static void cheapest(table *t, uint32_t set) {
  const uint32_t low = set & -set, rest = set ^ low;
  if (t->excess[low] <= 0) {
    t->cost[set] = 0;
    t->group[set] = (uint16_t)low;
    return;
  }
  int32_t best = NO_WAY;
  uint32_t taken = low;
  for (uint32_t sub = rest;; sub = (sub - 1) & rest) {
    const int32_t cost = t->alone[sub | low] + t->cost[rest ^ sub];
    if (cost < best) {
      best = cost;
      taken = sub | low;
    }
    if (sub == 0) break;
  }
  t->cost[set] = (uint8_t)best;
  t->group[set] = (uint16_t)taken;
}

static void fill_table(table *t, const bl_rank_facts *facts, int32_t ranks) {
  int32_t n = 0;
  for (int32_t above = 1; above >= 0; --above)
    for (int32_t r = 0; r < ranks; ++r)
      if ((facts[r].excess > 0) == above) t->order[n++] = r;
  for (uint32_t set = 1; set < 1u << ranks; ++set) {
    const uint32_t rest = set & (set - 1);
    const bl_rank_facts *lowest = &facts[t->order[__builtin_ctz(set)]];
    t->excess[set] = t->excess[rest] + lowest->excess;
    t->leaving[set] = add_up_to_limit(t->leaving[rest], lowest->leaving);
    t->free[set] = add_up_to_limit(t->free[rest], lowest->free);
    t->alone[set] = cost_alone(t, set);
    cheapest(t, set);
  }
}

static bl_status by_partition(const bl_rank_facts *facts, int32_t ranks, int32_t *bound, bool *infeasible,
                              int32_t *group) {
  const size_t sets = (size_t)1 << ranks;
  table t = {.excess = NULL};
  bl_status status = BL_OK;
  BL_TRY_GOTO(status, bl_new(&t.excess, sets, sizeof *t.excess, "groups of ranks"), done);
  BL_TRY_GOTO(status, bl_new(&t.leaving, sets, sizeof *t.leaving, "groups of ranks"), done);
  BL_TRY_GOTO(status, bl_new(&t.free, sets, sizeof *t.free, "groups of ranks"), done);
  BL_TRY_GOTO(status, bl_new(&t.alone, sets, sizeof *t.alone, "groups of ranks"), done);
  BL_TRY_GOTO(status, bl_new(&t.cost, sets, sizeof *t.cost, "groups of ranks"), done);
  BL_TRY_GOTO(status, bl_new(&t.group, sets, sizeof *t.group, "groups of ranks"), done);
  fill_table(&t, facts, ranks);
  *infeasible = t.cost[sets - 1] == NO_WAY;
  *bound = *infeasible ? 0 : t.cost[sets - 1];
  int32_t number = 0;
  for (uint32_t set = (uint32_t)sets - 1; set && !*infeasible; set ^= t.group[set], ++number)
    for (int32_t i = 0; i < ranks; ++i)
      if (t.group[set] >> i & 1) group[t.order[i]] = number;
done:
  free(t.excess);
  free(t.leaving);
  free(t.free);
  free(t.alone);
  free(t.cost);
  free(t.group);
  return status;
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Copies that must leave, and the fewest ranks below the limit that can take the whole excess. */
static bl_status by_counting(const bl_rank_facts *facts, int32_t ranks, int32_t *bound, bool *infeasible) {
  double *takes, excess = 0;
  int32_t n = 0, leaving = 0, receiving = 0;
  BL_TRY(bl_new(&takes, (size_t)ranks, sizeof *takes, "ranks"));
  for (int32_t r = 0; r < ranks; ++r) {
    leaving += facts[r].leaving;
    if (facts[r].excess > 0)
      excess += facts[r].excess;
    else if (facts[r].free > 0)
      takes[n++] = -facts[r].excess;
  }
  qsort(takes, (size_t)n, sizeof *takes, ascending);
  while (excess > 1e-12 && receiving < n) excess -= takes[n - ++receiving];
  free(takes);
  *infeasible = excess > 1e-12;
  *bound = leaving > receiving ? leaving : receiving;
  return BL_OK;
}

bl_status bl_rank_groups_solve(const bl_fewest *problem, int32_t *bound, bool *infeasible, int32_t *group) {
  bl_rank_facts *facts;
  memset(group, 0, (size_t)problem->ranks * sizeof *group);
  BL_TRY(bl_rank_facts_gather(problem, &facts));
  const bl_status status = problem->ranks <= BL_RANK_GROUPS_MAX
                               ? by_partition(facts, problem->ranks, bound, infeasible, group)
                               : by_counting(facts, problem->ranks, bound, infeasible);
  free(facts);
  return status;
}
