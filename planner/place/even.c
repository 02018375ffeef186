#include "planner/place/even.h"
#include "base/memory.h"
#include "planner/place/order.h"
#include <math.h>
#include <stdbool.h>
#include <string.h>

/* How long the exchanges may go on: so many a rank; and how many pairs of pairs are weighed to relieve a rank for which
 * no single exchange is left, two partners at least. */
enum { MOST_EXCHANGES = 100, PAIRS_WEIGHED = 800 };

/* Where exchanges leave more than this of the mean, other numbers of replicas are tried, so many replicas packed in
 * all.
 */
static const double WORTH_RECOUNTING = 1e-3;
enum { REPLICAS_PACKED = 8000 };

/* Of a heap: the largest key is on top, of equal ones the lowest id. */
typedef struct entry {
  double key;
  int32_t id;
} entry;

typedef struct even {
  int32_t experts, ranks;
  const double *load; /* [experts] */
  double mean;        /* rank load */
  int32_t *start;     /* [ranks + 1]: where the replicas of each rank begin */
  int32_t *expert;    /* [replicas] */
  double *weight;     /* [replicas]: load of one replica */
  double *sum;        /* [ranks] */
  int32_t *partner;   /* [ranks]: of the hottest rank */
  entry *heap;        /* [the larger of experts and ranks] */
  int32_t *used;      /* [ranks] */
  double *each;       /* [experts]: load of one replica */
  int32_t *order;     /* [2 experts]: the first half by descending each[] */
} even;

static bl_status too_few(int64_t slots, int32_t experts) {
  if (slots >= experts && slots <= INT32_MAX) return BL_OK;
  return bl_fail(BL_EINPUT, "%lld slots for replicas of %d experts: expected one an expert, and fewer than 2^31",
                 (long long)slots, experts);
}

/* -- EPLB's rule, with heaps ------------------------------------------------------------------------------------------
 */

static bool above(entry a, entry b) { return a.key > b.key || (a.key == b.key && a.id < b.id); }

static void sift_down(entry *heap, int32_t n, int32_t at) {
  const entry moved = heap[at];
  for (int32_t child; (child = 2 * at + 1) < n; at = child) {
    if (child + 1 < n && above(heap[child + 1], heap[child])) ++child;
    if (!above(heap[child], moved)) break;
    heap[at] = heap[child];
  }
  heap[at] = moved;
}

/* Every slot beyond one replica each goes to the expert with the largest load per replica. */
static void count_replicas(const double *load, int32_t experts, int32_t slots, entry *heap, int32_t *count) {
  for (int32_t e = 0; e < experts; ++e) {
    heap[e] = (entry){load[e], e};
    count[e] = 1;
  }
  for (int32_t i = experts / 2 - 1; i >= 0; --i) sift_down(heap, experts, i);
  for (int32_t i = experts; i < slots; ++i) {
    const int32_t e = heap[0].id;
    ++count[e];
    heap[0].key = load[e] / count[e];
    sift_down(heap, experts, 0);
  }
}

/* Replicas by descending weight, each onto the least loaded rank with a free slot. */
static void pack_greedily(even *v, const int32_t *count) {
  entry *heap = v->heap;
  int32_t open = 0;
  for (int32_t e = 0; e < v->experts; ++e) v->each[e] = v->load[e] / count[e];
  bl_order_descending(v->each, v->experts, v->order, v->order + v->experts);
  for (int32_t r = 0; r < v->ranks; ++r) {
    v->sum[r] = 0;
    v->used[r] = 0;
    if (v->start[r + 1] > v->start[r]) heap[open++] = (entry){0, r};
  }
  for (int32_t i = 0; i < v->experts; ++i) {
    const int32_t e = v->order[i];
    for (int32_t c = 0; c < count[e]; ++c) {
      const int32_t r = heap[0].id, at = v->start[r] + v->used[r]++;
      v->expert[at] = e;
      v->weight[at] = v->each[e];
      v->sum[r] += v->each[e];
      if (at + 1 < v->start[r + 1])
        heap[0].key = -v->sum[r];
      else
        heap[0] = heap[--open];
      sift_down(heap, open, 0);
    }
  }
}

/* -- exchanges --------------------------------------------------------------------------------------------------------
 */

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

static int32_t hottest_rank(const even *v) {
  int32_t hottest = 0;
  for (int32_t r = 1; r < v->ranks; ++r)
    if (v->sum[r] > v->sum[hottest]) hottest = r;
  return hottest;
}

static int32_t pairs(const even *v, int32_t r) {
  const int32_t n = v->start[r + 1] - v->start[r];
  return n * (n - 1) / 2;
}

/* One exchange of the hottest rank with the coldest that it helps: of one replica if there is any such, else of two.
 * Every exchange lowers the sum of squares. */
static bool relieve_hottest(even *v) {
  const int32_t hottest = hottest_rank(v), from = pairs(v, hottest);
  int32_t *order = v->partner; /* a selection sort, as far as it is needed */
  for (int32_t r = 0; r < v->ranks; ++r) order[r] = r;
  order[hottest] = v->ranks - 1;
  order[v->ranks - 1] = hottest;
  for (int32_t n = 0; n < v->ranks - 1; ++n) {
    int32_t coldest = n;
    for (int32_t i = n + 1; i < v->ranks - 1; ++i)
      if (v->sum[order[i]] < v->sum[order[coldest]]) coldest = i;
    const int32_t q = order[coldest];
    order[coldest] = order[n];
    order[n] = q;
    if (level(v, hottest, q)) return true;
  }
  int64_t weighed = 0;
  for (int32_t n = 0; n < v->ranks - 1 && (n < 2 || weighed < PAIRS_WEIGHED); ++n) {
    weighed += (int64_t)from * pairs(v, order[n]);
    if (level_by_pairs(v, hottest, order[n])) return true;
  }
  return false;
}

/* The best packing found with so many replicas. @return : its largest rank load. */
static double pack(even *v, const int32_t *count) {
  pack_greedily(v, count);
  for (int64_t i = 0; i < (int64_t)MOST_EXCHANGES * v->ranks; ++i)
    if (!relieve_hottest(v)) break;
  return v->sum[hottest_rank(v)];
}

/* -- other numbers of replicas ----------------------------------------------------------------------------------------
 */

/* One replica fewer of an expert whose replicas stay small, one more of one that the hottest rank holds: the first such
 * change that lowers the largest load by `gain`, with no more than *tries packings. A packing of `count` comes before.
 */
static bool recount(even *v, int32_t *count, int32_t *tries, double gain, double *largest) {
  enum { GIVERS = 4, TAKERS = 64 };
  const int32_t hottest = hottest_rank(v), first = v->start[hottest], held = v->start[hottest + 1] - first;
  const int32_t givers = v->experts < GIVERS ? v->experts : GIVERS, takers = held < TAKERS ? held : TAKERS;
  int32_t giver[GIVERS], taker[TAKERS];
  for (int32_t e = 0; e < v->experts; ++e) v->each[e] = count[e] > 1 ? v->load[e] / (count[e] - 1) : INFINITY;
  bl_order_ascending(v->each, v->experts, v->order, v->order + v->experts);
  memcpy(giver, v->order, (size_t)givers * sizeof *giver);
  memcpy(taker, v->expert + first, (size_t)takers * sizeof *taker);
  for (int32_t g = 0; g < givers && count[giver[g]] > 1; ++g)
    for (int32_t t = 0; t < takers; ++t) {
      if (taker[t] == giver[g]) continue;
      if ((*tries)-- <= 0) return false;
      --count[giver[g]];
      ++count[taker[t]];
      const double now = pack(v, count);
      if (now < *largest - gain) {
        *largest = now;
        return true;
      }
      ++count[giver[g]];
      --count[taker[t]];
    }
  return false;
}

static bl_status place(even *v, int32_t slots, int32_t *replicas, bl_arena *arena) {
  const size_t experts = (size_t)v->experts, ranks = (size_t)v->ranks;
  int32_t *count;
  BL_TRY(bl_arena_take(arena, &v->heap, experts > ranks ? experts : ranks, sizeof *v->heap));
  BL_TRY(bl_arena_take(arena, &count, experts, sizeof *count));
  BL_TRY(bl_arena_take(arena, &v->order, 2 * experts, sizeof *v->order));
  BL_TRY(bl_arena_take(arena, &v->each, experts, sizeof *v->each));
  BL_TRY(bl_arena_take(arena, &v->used, ranks, sizeof *v->used));
  BL_TRY(bl_arena_take(arena, &v->expert, (size_t)slots, sizeof *v->expert));
  BL_TRY(bl_arena_take(arena, &v->weight, (size_t)slots, sizeof *v->weight));
  BL_TRY(bl_arena_take(arena, &v->sum, ranks, sizeof *v->sum));
  BL_TRY(bl_arena_take(arena, &v->partner, ranks, sizeof *v->partner));
  count_replicas(v->load, v->experts, slots, v->heap, count);
  double largest = pack(v, count);
  int32_t tries = REPLICAS_PACKED / slots;
  while (largest > (1 + WORTH_RECOUNTING) * v->mean)
    if (!recount(v, count, &tries, WORTH_RECOUNTING / 10 * v->mean, &largest)) {
      pack(v, count); /* again the best */
      break;
    }
  memset(replicas, 0, ranks * experts * sizeof *replicas);
  for (int32_t r = 0; r < v->ranks; ++r)
    for (int32_t i = v->start[r]; i < v->start[r + 1]; ++i) ++replicas[(int64_t)r * v->experts + v->expert[i]];
  return BL_OK;
}

bl_status bl_even_bound(const double *load, int32_t experts, int32_t ranks, const int32_t *slots, bl_bound *out) {
  int64_t total = 0;
  double sum = 0, largest = 0;
  entry *heap = NULL;
  int32_t *count = NULL;
  *out = bl_bound_copies();
  for (int32_t r = 0; r < ranks; ++r) total += slots[r];
  for (int32_t e = 0; e < experts; ++e) sum += load[e];
  BL_TRY(too_few(total, experts));
  bl_status status = BL_OK;
  BL_TRY_GOTO(status, bl_new(&heap, (size_t)experts, sizeof *heap, "a bound"), done);
  BL_TRY_GOTO(status, bl_new(&count, (size_t)experts, sizeof *count, "a bound"), done);
  count_replicas(load, experts, (int32_t)total, heap, count);
  for (int32_t e = 0; e < experts; ++e)
    if (load[e] / count[e] > largest) largest = load[e] / count[e];
  if (largest * ranks > sum) *out = (bl_bound){largest * ranks / sum, "hottest-replica"};
done:
  free(heap);
  free(count);
  return status;
}

bl_status bl_even_place(const double *load, int32_t experts, int32_t ranks, const int32_t *slots, int32_t *replicas) {
  even v = {.experts = experts, .ranks = ranks, .load = load};
  int64_t total = 0;
  for (int32_t r = 0; r < ranks; ++r) total += slots[r];
  for (int32_t e = 0; e < experts; ++e) v.mean += load[e] / ranks;
  BL_TRY(too_few(total, experts));
  bl_arena *arena;
  BL_TRY(bl_arena_create(&arena));
  bl_status status = bl_arena_take(arena, &v.start, (size_t)ranks + 1, sizeof *v.start);
  for (int32_t r = 0; r < ranks && status == BL_OK; ++r) v.start[r + 1] = v.start[r] + slots[r];
  if (status == BL_OK) status = place(&v, (int32_t)total, replicas, arena);
  bl_arena_free(arena);
  return status;
}
