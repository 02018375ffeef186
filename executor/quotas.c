/* quotas.c - experts split over their hosts by rounds of whole tokens. */
#include "executor/quotas.h"
#include <stdbool.h>
#include <string.h>

size_t bl_host_table_size(int32_t experts, int32_t ranks, int32_t entries) {
  return 2 * (size_t)experts + (size_t)ranks + 2 + 3 * (size_t)entries;
}

bl_host_table bl_host_table_at(const int32_t *block, int32_t experts, int32_t ranks, int32_t entries) {
  bl_host_table t = {.experts = experts, .ranks = ranks, .entries = entries, .first = block};
  t.home = t.first + experts + 1;
  t.rank_first = t.home + experts;
  t.rank = t.rank_first + ranks + 1;
  t.expert = t.rank + entries;
  t.rank_entry = t.expert + entries;
  return t;
}

/* Where in a block an array of the table lies: the block is the caller's to write. */
static int32_t *in_block(int32_t *block, const int32_t *array) { return block + (array - block); }

bl_host_table bl_host_table_fill(int32_t *block, const bl_hosts *hosts) {
  const int32_t E = hosts->experts, P = hosts->ranks;
  int32_t entries = E;
  for (int32_t s = 0; s < hosts->n_copy_slots; s++) entries += hosts->copy_expert[s] >= 0;
  const bl_host_table t = bl_host_table_at(block, E, P, entries);
  int32_t *first = block, *home = in_block(block, t.home), *rank_first = in_block(block, t.rank_first),
          *rank = in_block(block, t.rank), *expert = in_block(block, t.expert),
          *rank_entry = in_block(block, t.rank_entry);
  memset(first, 0, ((size_t)E + 1) * sizeof *first);
  for (int32_t e = 0; e < E; e++) first[e + 1] = 1;
  for (int32_t s = 0; s < hosts->n_copy_slots; s++)
    if (hosts->copy_expert[s] >= 0) first[hosts->copy_expert[s] + 1]++;
  for (int32_t e = 0; e < E; e++) {
    first[e + 1] += first[e];
    for (int32_t i = first[e]; i < first[e + 1]; i++) expert[i] = e;
    rank[first[e]] = hosts->home[e];
    for (int32_t i = first[e] + 1; i < first[e + 1]; i++) rank[i] = -1;
  }
  for (int32_t s = 0; s < hosts->n_copy_slots; s++) { /* slots come by ascending rank */
    const int32_t e = hosts->copy_expert[s];
    if (e < 0) continue;
    int32_t i = first[e] + 1;
    while (rank[i] >= 0) i++;
    for (; i > first[e] && rank[i - 1] > hosts->copy_rank[s]; i--) rank[i] = rank[i - 1]; /* the home stood first */
    rank[i] = hosts->copy_rank[s];
  }
  for (int32_t e = 0; e < E; e++)
    for (int32_t i = first[e]; i < first[e + 1]; i++)
      if (rank[i] == hosts->home[e]) home[e] = i;
  memset(rank_first, 0, ((size_t)P + 1) * sizeof *rank_first);
  for (int32_t i = 0; i < entries; i++) rank_first[rank[i] + 1]++;
  for (int32_t r = 0; r < P; r++) rank_first[r + 1] += rank_first[r];
  for (int32_t i = 0; i < entries; i++) rank_entry[rank_first[rank[i]]++] = i;
  for (int32_t r = P; r > 0; r--) rank_first[r] = rank_first[r - 1];
  rank_first[0] = 0;
  return t;
}

/* What the rounds work on. */
typedef struct split {
  const bl_host_table *table;
  int32_t *tokens;        /* [entries] */
  int32_t *load, *change; /* [ranks] */
  int32_t *depth;         /* [ranks]: steps to a rank below the target, -1 = none known */
  int32_t *reach;         /* [experts]: the least depth of its hosts, -1 = none known */
  int32_t target;
} split;

size_t bl_quotas_scratch(const bl_host_table *table) {
  return (size_t)table->entries + (size_t)table->experts + 4 * (size_t)table->ranks;
}

/* @return : the target to begin with: the mean load, rounded up. */
static int32_t begin_at_home(split *s, const uint32_t *counts) {
  const bl_host_table *t = s->table;
  int32_t sum = 0;
  memset(s->tokens, 0, (size_t)t->entries * sizeof *s->tokens);
  memset(s->load, 0, (size_t)t->ranks * sizeof *s->load);
  for (int32_t e = 0; e < t->experts; e++) {
    int32_t n = 0;
    for (int32_t p = 0; p < t->ranks; p++) n += (int32_t)counts[(int64_t)p * t->experts + e];
    s->tokens[t->home[e]] = n;
    s->load[t->rank[t->home[e]]] += n;
    sum += n;
  }
  return sum / t->ranks + (sum % t->ranks > 0);
}

static bool any_above(const split *s) {
  for (int32_t r = 0; r < s->table->ranks; r++)
    if (s->load[r] > s->target) return true;
  return false;
}

/* Whether a rank above the target is not known to reach one below. */
static bool any_cut_off(const split *s) {
  for (int32_t r = 0; r < s->table->ranks; r++)
    if (s->load[r] > s->target && s->depth[r] < 0) return true;
  return false;
}

/* Ranks that reach one of depth k in a step.  @return : whether there are new ones. */
static bool step_back(split *s, int32_t k) {
  const bl_host_table *t = s->table;
  bool grown = false;
  for (int32_t e = 0; e < t->experts; e++)
    for (int32_t i = t->first[e]; i < t->first[e + 1] && s->reach[e] < 0; i++)
      if (s->depth[t->rank[i]] == k) s->reach[e] = k;
  for (int32_t i = 0; i < t->entries; i++) {
    if (s->reach[t->expert[i]] != k || s->tokens[i] == 0 || s->depth[t->rank[i]] >= 0) continue;
    s->depth[t->rank[i]] = k + 1;
    grown = true;
  }
  return grown;
}

/* @return : the largest depth of a rank above the target, 0 where one is cut off. */
static int32_t find_depths(split *s) {
  const bl_host_table *t = s->table;
  for (int32_t r = 0; r < t->ranks; r++) s->depth[r] = s->load[r] < s->target ? 0 : -1;
  for (int32_t e = 0; e < t->experts; e++) s->reach[e] = -1;
  for (int32_t k = 0; any_cut_off(s); k++)
    if (!step_back(s, k)) return 0;
  int32_t deepest = 0;
  for (int32_t r = 0; r < t->ranks; r++)
    if (s->load[r] > s->target && s->depth[r] > deepest) deepest = s->depth[r];
  return deepest;
}

/* The mean load, rounded up, of the ranks that reach none below the target. */
static int32_t closed_mean(const split *s) {
  int64_t load = 0, n = 0;
  for (int32_t r = 0; r < s->table->ranks; r++)
    if (s->depth[r] < 0) {
      load += s->load[r];
      n++;
    }
  return (int32_t)((load + n - 1) / n);
}

/* Rank r hands on what it has above the target. */
static void push_from(split *s, int32_t r) {
  const bl_host_table *t = s->table;
  int32_t excess = s->load[r] - s->target;
  for (int32_t l = t->rank_first[r]; l < t->rank_first[r + 1] && excess > 0; l++) {
    const int32_t i = t->rank_entry[l], begin = t->first[t->expert[i]], n = t->first[t->expert[i] + 1] - begin;
    for (int32_t h = 1; h < n && excess > 0 && s->tokens[i] > 0; h++) {
      const int32_t other = begin + (i - begin + h) % n, q = t->rank[other];
      if (s->depth[q] != s->depth[r] - 1) continue;
      int32_t amount = excess < s->tokens[i] ? excess : s->tokens[i];
      if (s->depth[q] == 0 && s->target - s->load[q] < amount) amount = s->target - s->load[q];
      if (amount <= 0) continue;
      s->tokens[i] -= amount;
      s->tokens[other] += amount;
      s->change[r] -= amount;
      s->change[q] += amount;
      excess -= amount;
    }
  }
}

static void push(split *s, int32_t deepest) {
  const bl_host_table *t = s->table;
  for (int32_t k = deepest; k > 0; k--) {
    memset(s->change, 0, (size_t)t->ranks * sizeof *s->change);
    for (int32_t r = 0; r < t->ranks; r++)
      if (s->depth[r] == k && s->load[r] > s->target) push_from(s, r);
    for (int32_t r = 0; r < t->ranks; r++) s->load[r] += s->change[r];
  }
}

/* The tokens of expert e at its hosts, taken by their sources. */
static void hand_out(const bl_host_table *t, int32_t e, const uint32_t *counts, int32_t *left_host, int32_t *left_source,
                     uint32_t *quota) {
  const int32_t begin = t->first[e], end = t->first[e + 1];
  for (int32_t p = 0; p < t->ranks; p++) {
    left_source[p] = (int32_t)counts[(int64_t)p * t->experts + e];
    for (int32_t i = begin; i < end; i++) {
      int32_t own = 0;
      if (t->rank[i] == p) own = left_source[p] < left_host[i] ? left_source[p] : left_host[i];
      quota[(int64_t)p * t->entries + i] = (uint32_t)own;
      left_source[p] -= own;
      left_host[i] -= own;
    }
  }
  for (int32_t p = 0, i = begin; p < t->ranks; p++)
    while (left_source[p] > 0) {
      const int32_t n = left_source[p] < left_host[i] ? left_source[p] : left_host[i];
      quota[(int64_t)p * t->entries + i] += (uint32_t)n;
      left_source[p] -= n;
      left_host[i] -= n;
      if (left_host[i] == 0) i++;
    }
}

void bl_quotas_plan(const bl_host_table *table, const uint32_t *counts, uint32_t *quota, int32_t *scratch) {
  split s = {.table = table, .tokens = scratch};
  s.reach = s.tokens + table->entries;
  s.load = s.reach + table->experts;
  s.change = s.load + table->ranks;
  s.depth = s.change + table->ranks;
  s.target = begin_at_home(&s, counts);
  while (any_above(&s)) {
    const int32_t deepest = find_depths(&s);
    if (deepest == 0)
      s.target = closed_mean(&s);
    else
      push(&s, deepest);
  }
  int32_t *left_source = s.depth + table->ranks;
  for (int32_t e = 0; e < table->experts; e++) hand_out(table, e, counts, s.tokens, left_source, quota);
}
