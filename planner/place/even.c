#include "planner/place/even.h"
#include "base/memory.h"
#include "planner/baselines/eplb.h"
#include <stdbool.h>
#include <string.h>

typedef struct even {
  int32_t ranks;
  int32_t *start;  /* [ranks + 1]: where the replicas of each rank begin */
  int32_t *expert; /* [replicas] */
  double *weight;  /* [replicas]: load of one replica */
  double *sum;     /* [ranks] */
  bool *tried;     /* [ranks]: with the hottest rank, in vain */
} even;

static void exchange(even *v, int32_t p, int32_t i, int32_t q, int32_t j) {
  const double w = v->weight[i];
  const int32_t e = v->expert[i];
  v->sum[p] += v->weight[j] - w;
  v->sum[q] += w - v->weight[j];
  v->weight[i] = v->weight[j];
  v->expert[i] = v->expert[j];
  v->weight[j] = w;
  v->expert[j] = e;
}

/* The exchange between p and q that comes nearest to levelling them. */
static bool level(even *v, int32_t p, int32_t q) {
  const double gap = v->sum[p] - v->sum[q], least = 1e-12 * v->sum[p];
  double best = gap / 2 - least; /* distance from half the gap; less than half of it helps */
  int32_t from = -1, to = -1;
  for (int32_t i = v->start[p]; i < v->start[p + 1]; ++i)
    for (int32_t j = v->start[q]; j < v->start[q + 1]; ++j) {
      const double d = v->weight[i] - v->weight[j] - gap / 2, distance = d < 0 ? -d : d;
      if (distance < best) {
        best = distance;
        from = i;
        to = j;
      }
    }
  if (from >= 0) exchange(v, p, from, q, to);
  return from >= 0;
}

/* The same with two replicas for two. */
static bool level_by_pairs(even *v, int32_t p, int32_t q) {
  const double gap = v->sum[p] - v->sum[q], least = 1e-12 * v->sum[p], *w = v->weight;
  double best = gap / 2 - least;
  int32_t from[2] = {-1, -1}, to[2] = {-1, -1};
  for (int32_t i = v->start[p]; i < v->start[p + 1]; ++i)
    for (int32_t k = i + 1; k < v->start[p + 1]; ++k)
      for (int32_t j = v->start[q]; j < v->start[q + 1]; ++j)
        for (int32_t m = j + 1; m < v->start[q + 1]; ++m) {
          const double d = w[i] + w[k] - w[j] - w[m] - gap / 2, distance = d < 0 ? -d : d;
          if (distance >= best) continue;
          best = distance;
          from[0] = i, from[1] = k;
          to[0] = j, to[1] = m;
        }
  if (from[0] < 0) return false;
  exchange(v, p, from[0], q, to[0]);
  exchange(v, p, from[1], q, to[1]);
  return true;
}

/* One exchange of the hottest rank with the coldest, of so many, that it helps. Every one lowers the sum of squares. */
static bool relieve_hottest(even *v, int32_t partners, bool (*level_two)(even *, int32_t, int32_t)) {
  int32_t hottest = 0;
  for (int32_t r = 1; r < v->ranks; ++r)
    if (v->sum[r] > v->sum[hottest]) hottest = r;
  for (int32_t r = 0; r < v->ranks; ++r) v->tried[r] = r == hottest;
  for (int32_t n = 1; n < v->ranks && n <= partners; ++n) {
    int32_t coldest = -1;
    for (int32_t r = 0; r < v->ranks; ++r)
      if (!v->tried[r] && (coldest < 0 || v->sum[r] < v->sum[coldest])) coldest = r;
    if (level_two(v, hottest, coldest)) return true;
    v->tried[coldest] = true;
  }
  return false;
}

static bl_status pack(const double *load, int32_t experts, int32_t ranks, int32_t *replicas, bl_arena *arena) {
  enum { MOST_EXCHANGES = 100 /* a rank */, PAIR_PARTNERS = 2 /* more cost time and bring little */ };
  even v = {.ranks = ranks};
  int32_t *count, n = 0;
  BL_TRY(bl_arena_take(arena, &count, (size_t)experts, sizeof *count));
  for (int32_t r = 0; r < ranks; ++r)
    for (int32_t e = 0; e < experts; ++e) {
      count[e] += replicas[(int64_t)r * experts + e];
      n += replicas[(int64_t)r * experts + e];
    }
  BL_TRY(bl_arena_take(arena, &v.start, (size_t)ranks + 1, sizeof *v.start));
  BL_TRY(bl_arena_take(arena, &v.expert, (size_t)n, sizeof *v.expert));
  BL_TRY(bl_arena_take(arena, &v.weight, (size_t)n, sizeof *v.weight));
  BL_TRY(bl_arena_take(arena, &v.sum, (size_t)ranks, sizeof *v.sum));
  BL_TRY(bl_arena_take(arena, &v.tried, (size_t)ranks, sizeof *v.tried));
  n = 0;
  for (int32_t r = 0; r < ranks; ++r) {
    for (int32_t e = 0; e < experts; ++e)
      for (int32_t c = 0; c < replicas[(int64_t)r * experts + e]; ++c) {
        v.expert[n] = e;
        v.weight[n] = load[e] / count[e];
        v.sum[r] += v.weight[n++];
      }
    v.start[r + 1] = n;
  }
  for (int64_t i = 0; i < (int64_t)MOST_EXCHANGES * ranks; ++i)
    if (!relieve_hottest(&v, ranks, level) && !relieve_hottest(&v, PAIR_PARTNERS, level_by_pairs)) break;
  memset(replicas, 0, (size_t)ranks * (size_t)experts * sizeof *replicas);
  for (int32_t r = 0; r < ranks; ++r)
    for (int32_t i = v.start[r]; i < v.start[r + 1]; ++i) ++replicas[(int64_t)r * experts + v.expert[i]];
  return BL_OK;
}

bl_status bl_even_place(const double *load, int32_t experts, int32_t ranks, const int32_t *slots, int32_t *replicas) {
  BL_TRY(bl_eplb_place(load, experts, ranks, slots, replicas));
  bl_arena *arena;
  BL_TRY(bl_arena_create(&arena));
  const bl_status status = pack(load, experts, ranks, replicas, arena);
  bl_arena_free(arena);
  return status;
}
