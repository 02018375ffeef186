#include "base/memory.h"
#include "planner/place/hosts.h"
#include <math.h>
#include <string.h>

/* An entry is one host of one expert: the home first, then copies by ascending rank. */
static void list_hosts(const bl_hosts *hosts, const bl_shares *shares, int32_t *first, int32_t *host_rank,
                       double *tokens) {
  memset(first, 0, ((size_t)hosts->experts + 1) * sizeof *first);
  for (int32_t e = 0; e < hosts->experts; ++e) ++first[e + 1];
  for (int32_t s = 0; s < hosts->n_copy_slots; ++s)
    if (hosts->copy_expert[s] >= 0) ++first[hosts->copy_expert[s] + 1];
  for (int32_t e = 0; e < hosts->experts; ++e) first[e + 1] += first[e];
  for (int32_t e = 0; e < hosts->experts; ++e) {
    host_rank[first[e]] = hosts->home[e];
    tokens[first[e]] = bl_shares_home_tokens(shares, e);
    for (int32_t i = first[e] + 1; i < first[e + 1]; ++i) host_rank[i] = -1;
  }
  for (int32_t s = 0; s < hosts->n_copy_slots; ++s) { /* slots come by ascending rank */
    const int32_t e = hosts->copy_expert[s];
    if (e < 0) continue;
    int32_t i = first[e] + 1;
    while (host_rank[i] >= 0) ++i;
    host_rank[i] = hosts->copy_rank[s];
    tokens[i] = bl_shares_copy_tokens(shares, s);
  }
}

/* tokens[n] rounded to whole numbers whose sum is `count`: largest remainder, ties to the lower rank. */
static void round_totals(const double *tokens, const int32_t *rank, int32_t n, uint32_t count, uint32_t *total,
                         double *remainder) {
  double sum = 0;
  for (int32_t i = 0; i < n; ++i) sum += tokens[i];
  int64_t left = count;
  for (int32_t i = 0; i < n; ++i) {
    const double exact = sum > 0 ? tokens[i] * ((double)count / sum) : (i == 0 ? count : 0);
    const double whole = floor(exact + 1e-9); /* 2.9999999999 from a solve is 3 */
    total[i] = (uint32_t)whole;
    remainder[i] = rint((exact - whole) * 1e6); /* so that rounding in the shares decides no tie */
    left -= total[i];
  }
  for (; left != 0; left += left > 0 ? -1 : 1) {
    int32_t best = -1;
    for (int32_t i = 0; i < n; ++i) {
      if (left < 0 && total[i] == 0) continue;
      const double gain =
          left > 0 ? remainder[i] - (best < 0 ? 0 : remainder[best]) : (best < 0 ? 0 : remainder[best]) - remainder[i];
      if (best < 0 || gain > 0 || (gain == 0 && rank[i] < rank[best])) best = i;
    }
    total[best] += left > 0 ? 1 : -1u;
    remainder[best] += left > 0 ? -1e6 : 1e6;
  }
}

/* Source `source` hands its tokens to host `i` of an expert as far as both have any left. */
static void hand_over(uint32_t *left_source, uint32_t *left_host, uint32_t *quota) {
  const uint32_t n = *left_source < *left_host ? *left_source : *left_host;
  *left_source -= n;
  *left_host -= n;
  *quota += n;
}

bl_status bl_quota_build(const bl_hosts *hosts, const bl_shares *shares, const uint32_t *counts, int32_t sources,
                         int32_t ranks_per_node, int32_t *first, int32_t *host_rank, uint32_t *quota) {
  const int32_t experts = hosts->experts, most = experts + hosts->n_copy_slots;
  double *tokens;
  uint32_t *left_host, *left_source;
  bl_status status = BL_OK;
  BL_TRY(bl_new(&tokens, 2 * (size_t)most, sizeof *tokens, "quotas"));
  BL_TRY_GOTO(status, bl_new(&left_host, (size_t)most + (size_t)sources, sizeof *left_host, "quotas"), done);
  left_source = left_host + most;
  list_hosts(hosts, shares, first, host_rank, tokens);
  const int32_t n_hosts = first[experts];
  memset(quota, 0, (size_t)sources * (size_t)n_hosts * sizeof *quota);
  const int32_t node = ranks_per_node > 0 ? ranks_per_node : hosts->ranks;
  for (int32_t e = 0; e < experts; ++e) {
    const int32_t begin = first[e], end = first[e + 1];
    uint64_t count = 0;
    for (int32_t s = 0; s < sources; ++s) count += left_source[s] = counts[(int64_t)s * experts + e];
    if (count > UINT32_MAX) {
      status = bl_fail(BL_EINPUT, "expert %d: %llu tokens exceed what a quota can count", e, (unsigned long long)count);
      break;
    }
    round_totals(tokens + begin, host_rank + begin, end - begin, (uint32_t)count, left_host + begin,
                 tokens + most + begin);
    for (int32_t pass = 0; pass < 3; ++pass) /* own rank, own node, anywhere */
      for (int32_t s = 0; s < sources; ++s) {
        const int32_t rank = (int32_t)((int64_t)s * hosts->ranks / sources);
        uint32_t *row = quota + (int64_t)s * n_hosts;
        for (int32_t r_last = -1; left_source[s] > 0;) { /* hosts by ascending rank; the home may stand anywhere */
          int32_t i = -1;
          for (int32_t h = begin; h < end; ++h)
            if (host_rank[h] > r_last && (i < 0 || host_rank[h] < host_rank[i])) i = h;
          if (i < 0) break;
          r_last = host_rank[i];
          if (pass == 0 ? r_last != rank : pass == 1 && r_last / node != rank / node) continue;
          hand_over(&left_source[s], &left_host[i], &row[i]);
        }
      }
  }
  free(left_host);
done:
  free(tokens);
  return status;
}
