#include "planner/place/levels.h"
#include "base/memory.h"
#include "planner/place/window.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct part { /* a group at one level */
  int32_t begin, end, homes;
  double target;
  bool room;   /* for a piece: every rank has a slot beyond its homes */
  double turn; /* how far its load an item is from the average: the farthest come first */
} part;

struct bl_levels {
  int32_t experts, ranks;
  bl_window_item *items; /* a stack: each level works on copies behind its caller's */
  part *parts;
  const double *load, *speed;
  const int32_t *homes, *slots, *group;
  int32_t n_groups;
  double level; /* load / speed */
  int32_t *home;
  bl_copy *copies;
  int32_t n_copies;
};

bl_status bl_levels_create(int32_t experts, int32_t ranks, bl_levels **out) {
  bl_levels *v;
  *out = NULL;
  BL_TRY(bl_new(&v, 1, sizeof *v, "placement by levels"));
  v->experts = experts;
  v->ranks = ranks;
  /* Four levels of at most all items, a piece more for each group. */
  bl_status status = bl_new(&v->items, 4 * ((size_t)experts + 2 * (size_t)ranks), sizeof *v->items, "levels");
  if (status == BL_OK) status = bl_new(&v->parts, 4 * (size_t)ranks, sizeof *v->parts, "levels");
  if (status != BL_OK) {
    bl_levels_free(v);
    return status;
  }
  *out = v;
  return BL_OK;
}

void bl_levels_free(bl_levels *v) {
  if (!v) return;
  free(v->items);
  free(v->parts);
  free(v);
}

bl_status bl_levels_homes(int32_t experts, int32_t ranks, const int32_t *slots, const double *speed, int32_t *homes) {
  int64_t room = 0, all = 0;
  double speeds = 0;
  for (int32_t r = 0; r < ranks; ++r) {
    all += slots[r];
    room += slots[r] > 0 ? slots[r] - 1 : 0;
    speeds += speed ? speed[r] : 1;
  }
  if (all < experts)
    return bl_fail(BL_EINPUT, "%lld slots on %d ranks cannot hold %d experts: %lld are missing", (long long)all, ranks,
                   experts, (long long)(experts - all));
  const int32_t kept = room >= experts; /* a slot a rank is kept for a copy */
  int32_t left = experts;
  for (int32_t r = 0; r < ranks; ++r) {
    const int32_t most = slots[r] > 0 ? slots[r] - kept : 0;
    const double exact = experts * ((speed ? speed[r] : 1) / speeds);
    homes[r] = exact < most ? (int32_t)(exact + 1e-9) : most;
    left -= homes[r];
  }
  for (; left > 0; --left) { /* the rank that is farthest below its part, of those with room */
    int32_t best = -1;
    double farthest = 0;
    for (int32_t r = 0; r < ranks; ++r) {
      const double below = experts * ((speed ? speed[r] : 1) / speeds) - homes[r];
      if (homes[r] >= slots[r] - kept || (best >= 0 && below <= farthest)) continue;
      best = r;
      farthest = below;
    }
    ++homes[best];
  }
  return BL_OK;
}

static int ascending(const void *a, const void *b) {
  const bl_window_item *x = a, *y = b;
  if (x->load != y->load) return x->load < y->load ? -1 : 1;
  return (x->expert > y->expert) - (x->expert < y->expert);
}

static int farthest_first(const void *a, const void *b) {
  const part *x = a, *y = b;
  if (x->turn != y->turn) return x->turn < y->turn ? 1 : -1;
  return (x->begin > y->begin) - (x->begin < y->begin);
}

/* Makes items[at] smaller and moves it to where it belongs; what is before it is sorted. */
static void shrink(bl_window_item *items, int32_t at, double piece) {
  bl_window_item kept = items[at];
  kept.load -= piece;
  for (; at > 0 && items[at - 1].load > kept.load; --at) items[at] = items[at - 1];
  items[at] = kept;
}

/* What one part gets of items[*n]: moved to out[], its number returned. */
static int32_t take(bl_window_item *items, int32_t *n, const part *p, int32_t k, bl_window_item *out) {
  double sum;
  const int32_t first = bl_window_find(items, *n, k, p->target, &sum);
  memcpy(out, items + first, (size_t)k * sizeof *items);
  memmove(items + first, items + first + k, (size_t)(*n - first - k) * sizeof *items);
  *n -= k;
  const double missing = p->target - sum;
  if (!p->room || *n == 0 || !(missing > 1e-12 * p->target)) return k;
  /* The next larger item has the piece where there is one; else the largest left gives what it has. */
  const int32_t from = first < *n ? first : *n - 1;
  const double piece = missing < items[from].load ? missing : items[from].load;
  if (!(piece > 0)) return k;
  out[k] = (bl_window_item){piece, items[from].expert, false};
  if (piece < items[from].load) {
    shrink(items, from, piece);
    return k + 1;
  }
  out[k].whole = items[from].whole; /* all of it: the piece is the item, and what is left of it an empty copy */
  items[from].load = 0;
  items[from].whole = false;
  const bl_window_item empty = items[from];
  memmove(items + 1, items, (size_t)from * sizeof *items);
  items[0] = empty;
  return k + 1;
}

static void settle(bl_levels *v, int32_t rank, const bl_window_item *items, int32_t n) {
  for (int32_t i = 0; i < n; ++i) {
    const int32_t e = items[i].expert;
    if (items[i].whole) {
      v->home[e] = rank;
    } else if (items[i].load > 0) {
      const double share = items[i].load / v->load[e];
      v->copies[v->n_copies++] = (bl_copy){e, rank, share < 1 ? share : 1};
    }
  }
}

/* Ranks [begin, end) share items[n]; what is behind items[n] and parts is free. */
static void divide(bl_levels *v, int32_t depth, int32_t begin, int32_t end, bl_window_item *items, int32_t n,
                   part *parts) {
  if (end - begin == 1) {
    settle(v, begin, items, n);
    return;
  }
  const int32_t size = depth < v->n_groups ? v->group[depth] : 1;
  int32_t n_parts = 0, homes = 0;
  double target = 0;
  for (int32_t at = begin; at < end; at += size) {
    part *p = &parts[n_parts++];
    *p = (part){.begin = at, .end = at + size < end ? at + size : end, .room = true};
    for (int32_t r = p->begin; r < p->end; ++r) {
      p->homes += v->homes[r];
      p->target += v->level * (v->speed ? v->speed[r] : 1);
      p->room = p->room && v->slots[r] > v->homes[r];
    }
    homes += p->homes;
    target += p->target;
  }
  for (int32_t i = 0; i < n_parts; ++i)
    parts[i].turn = fabs(parts[i].target * homes - target * parts[i].homes) / (target > 0 ? target : 1);
  qsort(parts, (size_t)n_parts, sizeof *parts, farthest_first);
  qsort(items, (size_t)n, sizeof *items, ascending);
  for (int32_t i = 0; i < n_parts; ++i) {
    bl_window_item *got = items + n; /* behind what is left: the part's own stack */
    const bool last = i + 1 == n_parts;
    const int32_t k = last || parts[i].homes > n ? n : parts[i].homes;
    const int32_t n_got = take(items, &n, &parts[i], k, got);
    divide(v, depth + 1, parts[i].begin, parts[i].end, got, n_got, parts + n_parts);
  }
}

int32_t bl_levels_place(bl_levels *v, const double *load, const int32_t *homes, const int32_t *slots,
                        const double *speed, const int32_t *group, int32_t n_groups, int32_t *home, bl_copy *copies) {
  double sum = 0, speeds = 0;
  v->load = load;
  v->speed = speed;
  v->homes = homes;
  v->slots = slots;
  v->group = group;
  v->n_groups = n_groups;
  v->home = home;
  v->copies = copies;
  v->n_copies = 0;
  for (int32_t e = 0; e < v->experts; ++e) {
    v->items[e] = (bl_window_item){load[e], e, true};
    sum += load[e];
  }
  for (int32_t r = 0; r < v->ranks; ++r) speeds += speed ? speed[r] : 1;
  v->level = sum / speeds;
  divide(v, 0, 0, v->ranks, v->items, v->experts, v->parts);
  return v->n_copies;
}
