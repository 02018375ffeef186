#include "planner/place/hosts.h"
#include "base/memory.h"
#include "base/rng.h"
#include <string.h>

/* Lays the copy slots out rank by rank, all empty. Fails where a rank has more homes than slots. */
static bl_status lay_out(bl_hosts *hosts) {
  int32_t n = 0;
  for (int32_t r = 0; r < hosts->ranks; ++r) {
    int32_t homes = 0;
    for (int32_t e = 0; e < hosts->experts; ++e) homes += hosts->home[e] == r;
    if (homes > hosts->slots[r])
      return bl_fail(BL_EINPUT, "rank %d is the home of %d experts but has %d slots: at least %d are needed", r, homes,
                     hosts->slots[r], homes);
    for (int32_t i = homes; i < hosts->slots[r]; ++i, ++n) {
      hosts->copy_rank[n] = r;
      hosts->copy_expert[n] = -1;
    }
  }
  hosts->n_copy_slots = n;
  return BL_OK;
}

/* Contiguous homes, ceil(experts / ranks) a rank; where a rank has fewer slots than that, the rest moves on to the next
 * ranks, and where these are full, the first ranks with slots left take more. */
static void place_in_order(bl_hosts *hosts) {
  const int32_t each = (hosts->experts + hosts->ranks - 1) / hosts->ranks;
  int64_t room = 0;
  for (int32_t r = 0; r < hosts->ranks; ++r) room += hosts->slots[r] < each ? hosts->slots[r] : each;
  for (int32_t r = 0, e = 0; r < hosts->ranks; ++r) {
    int32_t n = hosts->slots[r] < each ? hosts->slots[r] : each;
    for (; room < hosts->experts && n < hosts->slots[r]; ++n) ++room;
    for (; n > 0 && e < hosts->experts; --n) hosts->home[e++] = r;
  }
}

bl_status bl_hosts_create(bl_hosts *hosts, int32_t experts, int32_t ranks, const int32_t *slots) {
  memset(hosts, 0, sizeof *hosts);
  if (ranks < 1) return bl_fail(BL_EINPUT, "%d ranks: expected at least 1", ranks);
  if (experts < ranks)
    return bl_fail(BL_EINPUT, "%d experts on %d ranks: expected at least one expert a rank", experts, ranks);
  int64_t room = -(int64_t)experts;
  for (int32_t r = 0; r < ranks; ++r) {
    if (slots[r] < 0 || slots[r] > experts)
      return bl_fail(BL_EINPUT, "rank %d has %d slots: expected 0 to %d, the number of experts", r, slots[r], experts);
    room += slots[r];
  }
  if (room < 0)
    return bl_fail(BL_EINPUT, "%lld slots on %d ranks cannot hold %d experts", (long long)(room + experts), ranks,
                   experts);
  hosts->experts = experts;
  hosts->ranks = ranks;
  bl_status status = BL_OK;
  BL_TRY_GOTO(status, bl_new(&hosts->home, (size_t)experts, sizeof *hosts->home, "homes"), fail);
  BL_TRY_GOTO(status, bl_new(&hosts->slots, (size_t)ranks, sizeof *hosts->slots, "slots"), fail);
  BL_TRY_GOTO(status, bl_new(&hosts->copy_rank, (size_t)room, sizeof *hosts->copy_rank, "copy slots"), fail);
  BL_TRY_GOTO(status, bl_new(&hosts->copy_expert, (size_t)room, sizeof *hosts->copy_expert, "copy slots"), fail);
  memcpy(hosts->slots, slots, (size_t)ranks * sizeof *slots);
  place_in_order(hosts);
  BL_TRY_GOTO(status, lay_out(hosts), fail);
  return BL_OK;
fail:
  bl_hosts_free(hosts);
  return status;
}

void bl_hosts_free(bl_hosts *hosts) {
  free(hosts->home);
  free(hosts->slots);
  free(hosts->copy_rank);
  free(hosts->copy_expert);
  memset(hosts, 0, sizeof *hosts);
}

bl_status bl_hosts_assign(bl_hosts *to, const bl_hosts *from) {
  if (to->experts != from->experts || to->ranks != from->ranks ||
      memcmp(to->slots, from->slots, (size_t)to->ranks * sizeof *to->slots) != 0)
    return bl_fail(BL_EINPUT, "hosts of %d experts on %d ranks cannot take over those of %d on %d with their slots",
                   to->experts, to->ranks, from->experts, from->ranks);
  memcpy(to->home, from->home, (size_t)to->experts * sizeof *to->home);
  memcpy(to->copy_rank, from->copy_rank, (size_t)from->n_copy_slots * sizeof *to->copy_rank);
  memcpy(to->copy_expert, from->copy_expert, (size_t)from->n_copy_slots * sizeof *to->copy_expert);
  to->n_copy_slots = from->n_copy_slots;
  return BL_OK;
}

bl_status bl_hosts_set_homes(bl_hosts *hosts, const int32_t *home) {
  for (int32_t e = 0; e < hosts->experts; ++e)
    if (home[e] < 0 || home[e] >= hosts->ranks)
      return bl_fail(BL_EINPUT, "expert %d: home rank %d is not in 0..%d", e, home[e], hosts->ranks - 1);
  memmove(hosts->home, home, (size_t)hosts->experts * sizeof *home);
  return lay_out(hosts);
}

uint64_t bl_hosts_hash(const bl_hosts *hosts, uint64_t seed) {
  uint64_t hash = bl_hash_bytes(hosts->home, (uint64_t)hosts->experts * sizeof *hosts->home, seed);
  uint64_t copies = 0; /* a sum, so that the order of copies within a rank does not matter */
  for (int32_t s = 0; s < hosts->n_copy_slots; ++s)
    if (hosts->copy_expert[s] >= 0)
      copies += bl_hash_u64(seed, (uint64_t)hosts->copy_rank[s], (uint64_t)hosts->copy_expert[s], 1);
  return bl_hash_u64(hash, copies, (uint64_t)hosts->experts, (uint64_t)hosts->ranks);
}
