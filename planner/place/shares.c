#include "base/memory.h"
#include "planner/place/flow.h"
#include "planner/place/hosts.h"
#include <float.h>
#include <string.h>

struct bl_shares {
  bl_flow_graph graph;
  bl_flow_scratch scratch;
  bl_flow_state state;
  double *block;
  int32_t max_slots;
};

bl_status bl_shares_create(int32_t experts, int32_t ranks, int32_t max_copy_slots, bl_shares **out) {
  bl_shares *shares;
  *out = NULL;
  BL_TRY(bl_new(&shares, 1, sizeof *shares, "shares"));
  bl_status status = BL_OK;
  BL_TRY_GOTO(status, bl_flow_graph_create(&shares->graph, experts, ranks, max_copy_slots), fail);
  BL_TRY_GOTO(status, bl_flow_scratch_create(&shares->scratch, experts, ranks), fail);
  BL_TRY_GOTO(
      status,
      bl_new(&shares->block, (size_t)bl_flow_state_size(experts, ranks, max_copy_slots), sizeof(double), "shares"),
      fail);
  shares->state = bl_flow_state_at(shares->block, experts, max_copy_slots);
  shares->max_slots = max_copy_slots;
  *out = shares;
  return BL_OK;
fail:
  bl_shares_free(shares);
  return status;
}

void bl_shares_free(bl_shares *shares) {
  if (!shares) return;
  bl_flow_graph_free(&shares->graph);
  bl_flow_scratch_free(&shares->scratch);
  free(shares->block);
  free(shares);
}

/* The mean that a perfect balance would reach: load / speed, equal on all ranks. */
static double mean_level(const bl_hosts *hosts, const double *speed, double sum) {
  double speeds = hosts->ranks;
  if (speed) {
    speeds = 0;
    for (int32_t r = 0; r < hosts->ranks; ++r) speeds += speed[r];
  }
  return sum / speeds;
}

double bl_shares_solve(bl_shares *shares, const bl_hosts *hosts, const double *load, const double *speed) {
  bl_flow_graph *graph = &shares->graph;
  bl_flow_graph_load(graph, hosts);
  const double sum = bl_flow_start(graph, shares->state, load);
  if (!(sum > 0)) return 1.0;
  const double mean = mean_level(hosts, speed, sum);
  const double level =
      bl_flow_solve(graph, &shares->scratch, shares->state, speed, mean, DBL_MAX, mean * BL_SHARES_TINY);
  /* Pushes leave rounding at the home; what the copies do not take is the home's, exactly. */
  double *tokens = shares->state.tokens;
  for (int32_t e = 0; e < graph->experts; ++e) {
    const bl_flow_entry *entry = graph->entry;
    if (entry[e].next_host == e) continue;
    double copies = 0;
    for (int32_t x = entry[e].next_host; x != e; x = entry[x].next_host) copies += tokens[x];
    tokens[e] = load[e] > copies ? load[e] - copies : 0;
  }
  return level / mean;
}

double bl_shares_apply(bl_shares *shares, const bl_hosts *hosts, const double *load, const double *fraction,
                       const double *speed) {
  bl_flow_graph *graph = &shares->graph;
  bl_flow_graph_load(graph, hosts);
  const double sum = bl_flow_start(graph, shares->state, load);
  double *tokens = shares->state.tokens, *rank_load = shares->state.rank_load;
  for (int32_t s = 0; s < graph->slots; ++s) {
    const int32_t e = bl_flow_slot_expert(graph, s);
    if (e < 0) continue;
    const double amount = load[e] * fraction[s] < tokens[e] ? load[e] * fraction[s] : tokens[e];
    tokens[graph->experts + s] = amount;
    tokens[e] -= amount;
    rank_load[bl_flow_slot_rank(graph, s)] += amount;
    rank_load[bl_flow_home(graph, e)] -= amount;
  }
  if (!(sum > 0)) return 1.0;
  double level = 0;
  for (int32_t r = 0; r < graph->ranks; ++r) {
    const double now = speed ? rank_load[r] / speed[r] : rank_load[r];
    if (now > level) level = now;
  }
  return level / mean_level(hosts, speed, sum);
}

double bl_shares_home_tokens(const bl_shares *shares, int32_t expert) { return shares->state.tokens[expert]; }

double bl_shares_copy_tokens(const bl_shares *shares, int32_t slot) {
  return shares->state.tokens[shares->graph.experts + slot];
}
