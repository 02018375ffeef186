#include "planner/milp/fewest.h"
#include "base/memory.h"
#include <math.h>
#include <string.h>

double bl_fewest_cap(const bl_fewest *problem, int32_t rank) {
  return problem->speed ? problem->cap * problem->speed[rank] : problem->cap;
}

double bl_fewest_largest_cap(const bl_fewest *problem) {
  double largest = 0;
  for (int32_t r = 0; r < problem->ranks; ++r) largest = fmax(largest, bl_fewest_cap(problem, r));
  return largest;
}

bool bl_fewest_ranks_alike(const bl_fewest *problem) {
  for (int32_t r = 1; r < problem->ranks; ++r)
    if (problem->slots[r] != problem->slots[0] || (problem->speed && problem->speed[r] != problem->speed[0]))
      return false;
  return true;
}

/* Homes for free experts: the current one where it is a host, else the host that takes most tokens. Ties to the lower
 * rank, so that hosts decide alone. */
static void choose_homes(const bl_fewest *problem, const bl_host *host, int32_t n, int32_t *home, double *most) {
  for (int32_t e = 0; e < problem->experts; ++e) home[e] = -1;
  for (int32_t i = 0; i < n; ++i) {
    const int32_t e = host[i].expert;
    const int32_t current = problem->current ? problem->current[e] : -1;
    if (home[e] >= 0 && home[e] == current) continue;
    const bool better = home[e] < 0 || host[i].rank == current || host[i].tokens > most[e] ||
                        (host[i].tokens == most[e] && host[i].rank < home[e]);
    if (!better) continue;
    home[e] = host[i].rank;
    most[e] = host[i].tokens;
  }
}

static bl_status fill_slots(const bl_host *host, int32_t n, bl_hosts *out) {
  for (int32_t i = 0; i < n; ++i) {
    if (host[i].rank == out->home[host[i].expert]) continue;
    int32_t empty = -1;
    for (int32_t s = 0; s < out->n_copy_slots; ++s) {
      if (out->copy_rank[s] != host[i].rank) continue;
      if (out->copy_expert[s] == host[i].expert)
        return bl_fail(BL_EINPUT, "expert %d is placed twice on rank %d", host[i].expert, host[i].rank);
      if (out->copy_expert[s] < 0 && empty < 0) empty = s;
    }
    if (empty < 0) return bl_fail(BL_EINPUT, "rank %d holds more experts than its slots", host[i].rank);
    out->copy_expert[empty] = host[i].expert;
  }
  return BL_OK;
}

static bl_status allocate(const bl_fewest *problem, bl_hosts *out) {
  const size_t experts = (size_t)problem->experts, ranks = (size_t)problem->ranks;
  size_t room = 0;
  for (size_t r = 0; r < ranks; ++r) room += (size_t)problem->slots[r];
  bl_hosts_free(out);
  out->experts = problem->experts;
  out->ranks = problem->ranks;
  BL_TRY(bl_new(&out->home, experts, sizeof *out->home, "homes"));
  BL_TRY(bl_new(&out->slots, ranks, sizeof *out->slots, "slots"));
  BL_TRY(bl_new(&out->copy_rank, room, sizeof *out->copy_rank, "copy slots"));
  BL_TRY(bl_new(&out->copy_expert, room, sizeof *out->copy_expert, "copy slots"));
  memcpy(out->slots, problem->slots, ranks * sizeof *out->slots);
  return BL_OK;
}

bl_status bl_fewest_hosts(const bl_fewest *problem, const bl_host *host, int32_t n, bl_hosts *out) {
  int32_t *home = NULL;
  double *most = NULL;
  bl_status status = BL_OK;
  BL_TRY_GOTO(status, allocate(problem, out), done);
  BL_TRY_GOTO(status, bl_new(&home, (size_t)problem->experts, sizeof *home, "homes"), done);
  BL_TRY_GOTO(status, bl_new(&most, (size_t)problem->experts, sizeof *most, "homes"), done);
  if (problem->home)
    memcpy(home, problem->home, (size_t)problem->experts * sizeof *home);
  else
    choose_homes(problem, host, n, home, most);
  BL_TRY_GOTO(status, bl_hosts_set_homes(out, home), done);
  BL_TRY_GOTO(status, fill_slots(host, n, out), done);
done:
  free(home);
  free(most);
  if (status != BL_OK) bl_hosts_free(out);
  return status;
}

int32_t bl_fewest_copies_of(const bl_hosts *hosts) {
  int32_t copies = 0;
  for (int32_t s = 0; s < hosts->n_copy_slots; ++s) copies += hosts->copy_expert[s] >= 0;
  return copies;
}

int32_t bl_fewest_moves_of(const bl_fewest *problem, const bl_hosts *hosts) {
  int32_t moves = 0;
  for (int32_t e = 0; problem->current && e < problem->experts; ++e) moves += hosts->home[e] != problem->current[e];
  return moves;
}

double bl_fewest_price(const bl_fewest *problem, const bl_hosts *hosts) {
  const int32_t moves = bl_fewest_moves_of(problem, hosts);
  return bl_fewest_copies_of(hosts) + (moves > 0 ? problem->move_price * moves : 0);
}
