#include "planner/milp/group_search.h"
#include "base/memory.h"
#include "planner/milp/copy_search.h"
#include "planner/milp/rank_groups.h"
#include <string.h>

/* One group as a problem of its own, with experts and ranks renumbered. */
typedef struct part {
  int32_t *expert, *rank; /* [experts], [ranks]: what they are in the whole problem */
  int32_t *number;        /* [ranks]: the way back */
  double *load, *speed;
  int32_t *slots, *home, *group;
  bl_fewest problem;
} part;

static bl_status part_create(part *p, const bl_fewest *whole, bl_arena *arena) {
  const size_t experts = (size_t)whole->experts, ranks = (size_t)whole->ranks;
  BL_TRY(bl_arena_take(arena, &p->expert, experts, sizeof *p->expert));
  BL_TRY(bl_arena_take(arena, &p->rank, ranks, sizeof *p->rank));
  BL_TRY(bl_arena_take(arena, &p->number, ranks, sizeof *p->number));
  BL_TRY(bl_arena_take(arena, &p->load, experts, sizeof *p->load));
  BL_TRY(bl_arena_take(arena, &p->speed, ranks, sizeof *p->speed));
  BL_TRY(bl_arena_take(arena, &p->slots, ranks, sizeof *p->slots));
  BL_TRY(bl_arena_take(arena, &p->home, experts, sizeof *p->home));
  return bl_arena_take(arena, &p->group, ranks, sizeof *p->group);
}

/* Loads and speeds are scaled as in a whole problem; the limit stays what it is in tokens. */
static void take_group(part *p, const bl_fewest *whole, const int32_t *group, int32_t which) {
  int32_t experts = 0, ranks = 0;
  double load = 0, speed = 0;
  for (int32_t r = 0; r < whole->ranks; ++r) {
    if (group[r] != which) continue;
    p->rank[ranks] = r;
    p->number[r] = ranks;
    p->slots[ranks] = whole->slots[r];
    speed += p->speed[ranks++] = whole->speed ? whole->speed[r] : 1;
  }
  for (int32_t e = 0; e < whole->experts; ++e) {
    if (group[whole->home[e]] != which) continue;
    p->expert[experts] = e;
    p->home[experts] = p->number[whole->home[e]];
    load += p->load[experts++] = whole->load[e];
  }
  for (int32_t e = 0; e < experts && load > 0; ++e) p->load[e] *= ranks / load;
  for (int32_t r = 0; r < ranks; ++r) {
    p->speed[r] *= ranks / speed;
    if (p->slots[r] > experts) p->slots[r] = experts;
  }
  p->problem = (bl_fewest){.experts = experts,
                           .ranks = ranks,
                           .load = p->load,
                           .slots = p->slots,
                           .speed = whole->speed ? p->speed : NULL,
                           .home = p->home,
                           .cap = load > 0 ? whole->cap * speed / load : whole->cap};
}

/* The copies of one group, appended to host[]. */
static bl_status search_part(const part *p, int64_t budget, bl_host *host, int32_t *n, bool *found) {
  bl_hosts hosts = {.experts = 0};
  int32_t bound;
  bool infeasible;
  *found = false;
  BL_TRY(bl_rank_groups_solve(&p->problem, &bound, &infeasible, p->group));
  if (infeasible) return BL_OK;
  const bl_copy_search_options options = {.bound = bound, .below = INT32_MAX, .group = p->group, .budget = budget};
  const bl_status status = bl_copy_search(&p->problem, &options, &hosts, found);
  for (int32_t s = 0; *found && s < hosts.n_copy_slots; ++s)
    if (hosts.copy_expert[s] >= 0)
      host[(*n)++] = (bl_host){.expert = p->expert[hosts.copy_expert[s]], .rank = p->rank[hosts.copy_rank[s]]};
  bl_hosts_free(&hosts);
  return status;
}

bl_status bl_group_search(const bl_fewest *problem, const int32_t *wanted, int64_t budget, bl_hosts *hosts,
                          bool *found) {
  part p;
  bl_arena *arena;
  bl_host *host;
  int32_t n = 0, groups = 0, *group;
  size_t slots = 0;
  *found = true;
  for (int32_t r = 0; r < problem->ranks; ++r) {
    slots += (size_t)problem->slots[r];
    if (wanted[r] >= groups) groups = wanted[r] + 1;
  }
  BL_TRY(bl_arena_create(&arena));
  bl_status status = part_create(&p, problem, arena);
  if (status == BL_OK) status = bl_arena_take(arena, &host, slots, sizeof *host);
  if (status == BL_OK) status = bl_arena_take(arena, &group, (size_t)problem->ranks, sizeof *group);
  if (status == BL_OK) memcpy(group, wanted, (size_t)problem->ranks * sizeof *group);
  for (int32_t g = 0; g < groups && status == BL_OK; ++g) {
    take_group(&p, problem, group, g);
    status = search_part(&p, budget, host, &n, found);
    for (int32_t r = 0; r < problem->ranks && !*found; ++r)
      if (group[r] == g) group[r] = g + 1; /* joins the next */
  }
  if (status == BL_OK && *found) status = bl_fewest_hosts(problem, host, n, hosts);
  bl_arena_free(arena);
  return status;
}
