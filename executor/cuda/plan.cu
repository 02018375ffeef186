/* plan.cu - counts of tokens to quotas and rows, in one block each: the rounds of executor/quotas.h, where every part of a
 * round is a thread's. Sums are of integers, so that the order of their terms does not matter. */
#include "executor/cuda/device.cuh"

namespace {

enum { THREADS = 1024, WARPS = THREADS / BL_WARP, SHARED_NUMBERS = 10240 };

#define BL_EACH(i, n) for (int32_t i = (int32_t)threadIdx.x; i < (n); i += THREADS)

/* Everything that the rounds read and write, in shared memory where it fits. */
struct split {
  bl_host_table t;
  int32_t *tokens, *own;          /* [entries]; own: taken by the source on the same rank */
  int32_t *reach;                 /* [experts] */
  int32_t *load, *change, *depth; /* [ranks] */
};

/* Numbers of a table and of the rest. */
__host__ __device__ int64_t table_numbers(const bl_host_table &t) {
  return 2 * (int64_t)t.experts + t.ranks + 2 + 3 * (int64_t)t.entries;
}
__host__ __device__ int64_t split_numbers(const bl_host_table &t) {
  return table_numbers(t) + 2 * (int64_t)t.entries + t.experts + 3 * (int64_t)t.ranks;
}

/* A table is one block from `first` on (executor/quotas.c); its copy keeps the places. */
__device__ split bring(const bl_host_table &t, int32_t *at) {
  const int32_t *from = t.first;
  const int32_t n = (int32_t)table_numbers(t);
  split s = {t, NULL, NULL, NULL, NULL, NULL, NULL};
  BL_EACH(i, n) at[i] = from[i];
  s.t.first = at;
  s.t.home = at + (t.home - from);
  s.t.rank_first = at + (t.rank_first - from);
  s.t.rank = at + (t.rank - from);
  s.t.expert = at + (t.expert - from);
  s.t.rank_entry = at + (t.rank_entry - from);
  s.tokens = at + n;
  s.own = s.tokens + t.entries;
  s.reach = s.own + t.entries;
  s.load = s.reach + t.experts;
  s.change = s.load + t.ranks;
  s.depth = s.change + t.ranks;
  return s;
}

/* All tokens at home.  @return : their number. */
__device__ int32_t begin_at_home(const split &s, const uint32_t *counts) {
  const int32_t E = s.t.experts, cells = E * s.t.ranks;
  BL_EACH(i, s.t.entries) s.tokens[i] = 0;
  BL_EACH(r, s.t.ranks) s.load[r] = 0;
  __syncthreads();
  int32_t mine = 0;
  BL_EACH(i, cells) {
    const int32_t n = (int32_t)counts[i];
    if (n) atomicAdd(&s.tokens[s.t.home[i % E]], n);
    mine += n;
  }
  const int32_t sum = bl_block_sum(mine); /* a barrier besides */
  BL_EACH(e, E) atomicAdd(&s.load[s.t.rank[s.t.home[e]]], s.tokens[s.t.home[e]]);
  __syncthreads();
  return sum;
}

__device__ bool any_above(const split &s, int32_t target) {
  bool above = false;
  BL_EACH(r, s.t.ranks) above |= s.load[r] > target;
  return __syncthreads_or(above);
}

/* @return : whether there are new ranks. */
__device__ bool step_back(const split &s, int32_t k) {
  bool grown = false;
  BL_EACH(i, s.t.entries) {
    if (s.depth[s.t.rank[i]] == k && s.reach[s.t.expert[i]] < 0) s.reach[s.t.expert[i]] = k;
  }
  __syncthreads();
  BL_EACH(i, s.t.entries) {
    if (s.reach[s.t.expert[i]] != k || s.tokens[i] == 0 || s.depth[s.t.rank[i]] >= 0) continue;
    s.depth[s.t.rank[i]] = k + 1; /* whoever else comes here writes the same */
    grown = true;
  }
  return __syncthreads_or(grown);
}

/* The largest depth of a rank above the target, 0 where one is cut off. */
__device__ int32_t find_depths(const split &s, int32_t target) {
  BL_EACH(r, s.t.ranks) s.depth[r] = s.load[r] < target ? 0 : -1;
  BL_EACH(e, s.t.experts) s.reach[e] = -1;
  __syncthreads();
  for (int32_t k = 0;; k++) {
    bool cut_off = false;
    BL_EACH(r, s.t.ranks) cut_off |= s.load[r] > target && s.depth[r] < 0;
    if (!__syncthreads_or(cut_off)) return k; /* the last to be found are as deep as this */
    if (!step_back(s, k)) return 0;
  }
}

__device__ int32_t closed_mean(const split &s) {
  int64_t load = 0, n = 0;
  BL_EACH(r, s.t.ranks) {
    if (s.depth[r] >= 0) continue;
    load += s.load[r];
    n++;
  }
  load = bl_block_sum(load);
  n = bl_block_sum(n);
  return (int32_t)((load + n - 1) / n);
}

/* Nobody else takes from the entries of rank r, and nobody gives to them, while ranks of its depth push. */
__device__ void push_from(const split &s, int32_t r, int32_t target) {
  const bl_host_table &t = s.t;
  int32_t excess = s.load[r] - target;
  for (int32_t l = t.rank_first[r]; l < t.rank_first[r + 1] && excess > 0; l++) {
    const int32_t i = t.rank_entry[l], begin = t.first[t.expert[i]], end = t.first[t.expert[i] + 1];
    int32_t left = s.tokens[i], other = i;
    for (int32_t h = 1; h < end - begin && excess > 0 && left > 0; h++) {
      other = other + 1 < end ? other + 1 : begin;
      const int32_t q = t.rank[other];
      if (s.depth[q] != s.depth[r] - 1) continue;
      int32_t amount = excess < left ? excess : left;
      if (s.depth[q] == 0 && target - s.load[q] < amount) amount = target - s.load[q];
      if (amount <= 0) continue;
      left -= amount;
      excess -= amount;
      atomicAdd(&s.tokens[other], amount);
      atomicAdd(&s.change[r], -amount);
      atomicAdd(&s.change[q], amount);
    }
    s.tokens[i] = left;
  }
}

__device__ void push(const split &s, int32_t deepest, int32_t target) {
  for (int32_t k = deepest; k > 0; k--) {
    BL_EACH(r, s.t.ranks) s.change[r] = 0;
    __syncthreads();
    BL_EACH(r, s.t.ranks) {
      if (s.depth[r] == k && s.load[r] > target) push_from(s, r, target);
    }
    __syncthreads();
    BL_EACH(r, s.t.ranks) s.load[r] += s.change[r];
    __syncthreads();
  }
}

/* Sum of the lanes before this one; *all = of all lanes. */
__device__ int32_t sum_before(int32_t x, int32_t *all) {
  const int32_t lane = (int32_t)threadIdx.x % BL_WARP;
  int32_t sum = x;
  for (int step = 1; step < BL_WARP; step *= 2) {
    const int32_t before = __shfl_up_sync(0xffffffffu, sum, (unsigned)step);
    if (lane >= step) sum += before;
  }
  *all = __shfl_sync(0xffffffffu, sum, BL_WARP - 1);
  return sum - x;
}

/* The sources' tokens one behind the other, and the hosts' room: a source gives a host what overlaps. A warp an expert, a
 * lane a source. */
__device__ void hand_out(const split &s, int32_t e, const uint32_t *counts, uint32_t *quota) {
  const bl_host_table &t = s.t;
  const int32_t lane = (int32_t)threadIdx.x % BL_WARP, begin = t.first[e], end = t.first[e + 1];
  for (int32_t base = 0, given = 0; base < t.ranks; base += BL_WARP) {
    const int32_t p = base + lane;
    const int32_t count = p < t.ranks ? (int32_t)counts[(int64_t)p * t.experts + e] : 0;
    int32_t own = 0, all;
    for (int32_t i = begin; i < end; i++)
      if (t.rank[i] == p) own = s.own[i];
    const int32_t first = given + sum_before(count - own, &all), last = first + count - own;
    given += all;
    for (int32_t i = begin, from = 0; i < end; i++) {
      const int32_t to = from + s.tokens[i] - s.own[i];
      const int32_t low = first > from ? first : from, high = last < to ? last : to;
      const int32_t n = (t.rank[i] == p ? own : 0) + (high > low ? high - low : 0);
      if (p < t.ranks) quota[(int64_t)p * t.entries + i] = (uint32_t)n;
      from = to;
    }
  }
}

__global__ void split_counts(uint32_t *quota, const uint32_t *counts, bl_host_table table, int32_t *outside) {
  __shared__ int32_t inside[SHARED_NUMBERS];
  const split s = bring(table, outside ? outside : inside);
  const bl_host_table &t = s.t;
  __syncthreads();
  const int32_t sum = begin_at_home(s, counts);
  int32_t target = sum / t.ranks + (sum % t.ranks > 0);
  while (any_above(s, target)) {
    const int32_t deepest = find_depths(s, target);
    if (deepest == 0)
      target = closed_mean(s);
    else
      push(s, deepest, target);
  }
  BL_EACH(i, t.entries) {
    const int32_t count = (int32_t)counts[(int64_t)t.rank[i] * t.experts + t.expert[i]];
    s.own[i] = count < s.tokens[i] ? count : s.tokens[i];
  }
  __syncthreads();
  const int64_t cells = (int64_t)t.ranks * t.entries;
  for (int64_t c = threadIdx.x; c < cells; c += THREADS) { /* where there is nothing to share */
    const int32_t i = (int32_t)(c % t.entries), e = t.expert[i];
    if (t.first[e + 1] - t.first[e] == 1) quota[c] = counts[c / t.entries * t.experts + e];
  }
  for (int32_t e = (int32_t)threadIdx.x / BL_WARP; e < t.experts; e += WARPS)
    if (t.first[e + 1] - t.first[e] > 1) hand_out(s, e, counts, quota);
}

void plan_quotas(bl_stream *s, uint32_t *quota, const uint32_t *counts, const bl_host_table *table) {
  int32_t *outside = NULL;
  if (split_numbers(*table) > SHARED_NUMBERS) {
    outside = reinterpret_cast<int32_t *>(bl_cuda_scratch(s, "plan_quotas", (size_t)split_numbers(*table) * sizeof *outside));
    if (!outside) return;
  }
  bl_launch(s, "plan_quotas", split_counts, {1, 1}, THREADS, quota, counts, *table, outside);
}

/* -- rows ---------------------------------------------------------------------------------------------------------- */

/* Of this rank's entries l and sources p: where the source's rows for the entry begin among received rows and in expert
 * order, as if there were room for all. [entries of the rank][ranks] each. */
struct row_starts {
  int32_t *received, *ordered;
};

/* Rows of rank p's entries in the send buffer; a warp a rank.  @return : whether all fit. */
__device__ bool place_sent(const bl_planned_rows &rows, const uint32_t *mine, const bl_host_table &t,
                           const bl_row_bounds &bounds, int32_t p) {
  const int32_t lane = (int32_t)threadIdx.x % BL_WARP, end = bounds.send_first[p + 1], last = t.rank_first[p + 1];
  int32_t before = bounds.send_first[p];
  for (int32_t base = t.rank_first[p]; base < last; base += BL_WARP) {
    const int32_t l = base + lane, i = l < last ? t.rank_entry[l] : 0, n = l < last ? (int32_t)mine[i] : 0;
    int32_t all;
    const int32_t wanted = before + sum_before(n, &all), at = wanted < end ? wanted : end;
    before += all;
    if (l >= last) continue;
    rows.dest_row[i] = at;
    rows.take[i] = (uint32_t)(n < end - at ? n : end - at);
  }
  return before <= end;
}

/* Entry l of this rank; a warp an entry, a lane a source.  @return : whether its rows fit. */
__device__ bool place_ordered(const row_starts &starts, const uint32_t *quota, const bl_host_table &t,
                              const bl_row_bounds &bounds, int32_t rank, int32_t l) {
  const int32_t i = t.rank_entry[t.rank_first[rank] + l];
  int32_t before = bounds.block_first[l];
  for (int32_t base = 0; base < t.ranks; base += BL_WARP) {
    const int32_t p = base + (int32_t)threadIdx.x % BL_WARP;
    int32_t all;
    const int32_t at = before + sum_before(p < t.ranks ? (int32_t)quota[(int64_t)p * t.entries + i] : 0, &all);
    if (p < t.ranks) starts.ordered[(int64_t)l * t.ranks + p] = at;
    before += all;
  }
  return before <= bounds.block_first[l + 1];
}

__global__ void place_rows(bl_planned_rows rows, row_starts starts, const uint32_t *quota, bl_host_table t,
                           bl_row_bounds bounds, int32_t rank) {
  const int32_t warp = (int32_t)threadIdx.x / BL_WARP, mine = t.rank_first[rank + 1] - t.rank_first[rank];
  const int32_t *entry = t.rank_entry + t.rank_first[rank];
  bool fits = true;
  BL_EACH(p, t.ranks) rows.rank_rows[p] = 0;
  __syncthreads();
  const int64_t cells = (int64_t)t.ranks * t.entries;
  for (int64_t c = threadIdx.x; c < cells; c += THREADS)
    if (quota[c]) atomicAdd(&rows.rank_rows[t.rank[c % t.entries]], quota[c]);
  for (int32_t p = warp; p < t.ranks; p += WARPS)
    fits &= place_sent(rows, quota + (int64_t)rank * t.entries, t, bounds, p);
  for (int32_t l = warp; l < mine; l += WARPS) fits &= place_ordered(starts, quota, t, bounds, rank, l);
  BL_EACH(p, t.ranks) {
    int32_t at = bounds.recv_first[p];
    for (int32_t l = 0; l < mine; l++) {
      starts.received[(int64_t)l * t.ranks + p] = at;
      at += (int32_t)quota[(int64_t)p * t.entries + entry[l]];
    }
    fits &= at <= bounds.recv_first[p + 1];
  }
  if (__syncthreads_or(!fits) && threadIdx.x == 0) *rows.overflow = 1.0;
}

/* The last of first[0 .. n * stride) in steps of `stride` that is not above `at`. */
__device__ int32_t part_at(const int32_t *first, int32_t n, int32_t stride, int32_t at) {
  int32_t low = 0, high = n;
  while (low + 1 < high) {
    const int32_t middle = low + (high - low) / 2;
    if (first[(int64_t)middle * stride] <= at)
      low = middle;
    else
      high = middle;
  }
  return low;
}

/* A thread a row: first those in expert order, then those received. */
__global__ void index_rows(bl_planned_rows rows, row_starts starts, const uint32_t *quota, bl_host_table t,
                           bl_row_bounds bounds, int32_t rank) {
  const int32_t mine = t.rank_first[rank + 1] - t.rank_first[rank];
  const int32_t *entry = t.rank_entry + t.rank_first[rank];
  const int64_t number = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (number >= (int64_t)bounds.expert_rows + bounds.recv_rows) return;
  const bool ordered = number < bounds.expert_rows;
  const int32_t row = (int32_t)(ordered ? number : number - bounds.expert_rows);
  int32_t l, p;
  if (ordered) {
    l = part_at(bounds.block_first, mine, 1, row);
    p = part_at(starts.ordered + (int64_t)l * t.ranks, t.ranks, 1, row);
  } else {
    p = part_at(bounds.recv_first, t.ranks, 1, row);
    l = part_at(starts.received + p, mine, t.ranks, row);
  }
  const int64_t cell = (int64_t)l * t.ranks + p;
  const int32_t k = row - (ordered ? starts.ordered[cell] : starts.received[cell]);
  const int32_t other = (ordered ? starts.received[cell] : starts.ordered[cell]) + k;
  const int32_t end = ordered ? bounds.recv_first[p + 1] : bounds.block_first[l + 1];
  const bool there = mine > 0 && k < (int32_t)quota[(int64_t)p * t.entries + entry[l]] && other < end;
  (ordered ? rows.by_expert : rows.by_source)[row] = there ? other : -1;
}

void plan_rows(bl_stream *s, const bl_planned_rows *rows, const uint32_t *quota, const bl_host_table *table,
               const bl_row_bounds *bounds, int32_t rank) {
  enum { ROW_THREADS = 256 };
  const int64_t cells = (int64_t)table->entries * table->ranks; /* a rank has at most all entries */
  char *scratch = bl_cuda_scratch(s, "plan_rows", 2 * (size_t)cells * sizeof(int32_t));
  if (!scratch) return;
  const row_starts starts = {reinterpret_cast<int32_t *>(scratch), reinterpret_cast<int32_t *>(scratch) + cells};
  bl_launch(s, "plan_rows", place_rows, {1, 1}, THREADS, *rows, starts, quota, *table, *bounds, rank);
  const int64_t all = (int64_t)bounds->expert_rows + bounds->recv_rows;
  bl_launch(s, "plan_rows", index_rows, {bl_ceil_div(all, ROW_THREADS), 1}, ROW_THREADS, *rows, starts, quota, *table,
            *bounds, rank);
}

} // namespace

void bl_cuda_plan_ops(bl_ops *ops) {
  ops->plan_quotas = plan_quotas;
  ops->plan_rows = plan_rows;
}
