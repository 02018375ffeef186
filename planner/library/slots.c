/* slots.c - hosts of a layer as numbered slots: EPLB's form, and the quotas that go with it. */
#include "base/memory.h"
#include "planner/library/handle.h"
#include <string.h>

void bl_library_slots(const bl_hosts *hosts, const int32_t *first, int32_t *slot_of_home, int32_t *slot_of_copy) {
  for (int32_t r = 0, copy = 0; r < hosts->ranks; r++) {
    int32_t slot = first[r];
    for (int32_t e = 0; e < hosts->experts; e++)
      if (hosts->home[e] == r) slot_of_home[e] = slot++;
    for (; copy < hosts->n_copy_slots && hosts->copy_rank[copy] == r; copy++) slot_of_copy[copy] = slot++;
  }
}

bl_status bl_library_list(const bl_hosts *hosts, const int32_t *first, const bl_shares *shares, const double *load,
                          int32_t *phy2log, double *share) {
  int32_t *slot_of_home = NULL;
  BL_TRY(bl_new(&slot_of_home, (size_t)hosts->experts + (size_t)hosts->n_copy_slots, sizeof *slot_of_home, "slots"));
  int32_t *const slot_of_copy = slot_of_home + hosts->experts;
  bl_library_slots(hosts, first, slot_of_home, slot_of_copy);
  for (int32_t i = 0; i < first[hosts->ranks]; i++) {
    phy2log[i] = -1;
    if (share) share[i] = 0;
  }
  for (int32_t e = 0; e < hosts->experts; e++) {
    phy2log[slot_of_home[e]] = e;
    if (share) share[slot_of_home[e]] = load[e] > 0 ? bl_shares_home_tokens(shares, e) / load[e] : 1;
  }
  for (int32_t s = 0; s < hosts->n_copy_slots; s++) {
    const int32_t e = hosts->copy_expert[s];
    if (e < 0) continue;
    phy2log[slot_of_copy[s]] = e;
    if (share && load[e] > 0) share[slot_of_copy[s]] = bl_shares_copy_tokens(shares, s) / load[e];
  }
  free(slot_of_home);
  return BL_OK;
}

bl_status bl_library_sum_counts(const uint32_t *counts, int32_t sources, int32_t ranks_per_node, int32_t experts,
                                double *load) {
  if (counts == NULL) return bl_fail(BL_EINPUT, "the counts are NULL, expected an array");
  if (sources < 1 || sources > 1 << 20) return bl_fail(BL_EINPUT, "%d sources: expected 1 to 2^20", sources);
  if (ranks_per_node < 0) return bl_fail(BL_EINPUT, "%d ranks a node: expected 0 or more", ranks_per_node);
  for (int32_t e = 0; e < experts; e++) load[e] = 0;
  for (int64_t s = 0; s < sources; s++)
    for (int32_t e = 0; e < experts; e++) load[e] += counts[s * experts + e];
  return BL_OK;
}

/* slot_of_entry[]: the slot of each host entry of bl_quota_build(): an expert's home, then its copies by rank. */
static void find_entries(const bl_hosts *hosts, const int32_t *first_slot, const int32_t *first_entry,
                         const int32_t *host_rank, int32_t *slot_of_entry, int32_t *work) {
  int32_t *const slot_of_home = work, *const slot_of_copy = work + hosts->experts;
  bl_library_slots(hosts, first_slot, slot_of_home, slot_of_copy);
  for (int32_t e = 0; e < hosts->experts; e++) slot_of_entry[first_entry[e]] = slot_of_home[e];
  for (int32_t s = 0; s < hosts->n_copy_slots; s++) {
    const int32_t e = hosts->copy_expert[s];
    for (int32_t i = e >= 0 ? first_entry[e] + 1 : 0; e >= 0 && i < first_entry[e + 1]; i++)
      if (host_rank[i] == hosts->copy_rank[s]) slot_of_entry[i] = slot_of_copy[s];
  }
}

bl_status bl_library_quota(const bl_hosts *hosts, const int32_t *first, const bl_shares *shares, const uint32_t *counts,
                           int32_t sources, int32_t ranks_per_node, uint32_t *quota) {
  const size_t experts = (size_t)hosts->experts, most = experts + (size_t)hosts->n_copy_slots;
  const size_t slots = (size_t)first[hosts->ranks];
  int32_t *first_entry = NULL;
  uint32_t *built = NULL;
  bl_status status;
  BL_TRY_GOTO(status, bl_new(&first_entry, experts + 1 + 3 * most, sizeof *first_entry, "quotas"), end);
  BL_TRY_GOTO(status, bl_new(&built, (size_t)sources * most, sizeof *built, "quotas"), end);
  int32_t *const host_rank = first_entry + experts + 1, *const slot_of_entry = host_rank + most;
  BL_TRY_GOTO(status, bl_quota_build(hosts, shares, counts, sources, ranks_per_node, first_entry, host_rank, built),
              end);
  find_entries(hosts, first, first_entry, host_rank, slot_of_entry, slot_of_entry + most);
  const size_t entries = (size_t)first_entry[experts];
  memset(quota, 0, (size_t)sources * slots * sizeof *quota);
  for (size_t s = 0; s < (size_t)sources; s++)
    for (size_t i = 0; i < entries; i++) quota[s * slots + (size_t)slot_of_entry[i]] = built[s * entries + i];
end:
  free(first_entry);
  free(built);
  return status;
}
