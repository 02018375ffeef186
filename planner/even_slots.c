#include "planner/even_slots.h"
#include "base/memory.h"
#include <math.h>
#include <stdbool.h>

/* One layer as numbers of replicas and the shares that they are to approach. */
typedef struct replicas {
  int32_t experts, ranks;
  int32_t *n;     /* [ranks][experts] */
  int32_t *all;   /* [experts] */
  int32_t *spare; /* [ranks]: slots without a replica */
  double *share;  /* [ranks][experts] */
} replicas;

/* How far the even split of expert e is from its shares, were there `more` replicas on `rank`. */
static double distance(const replicas *x, int32_t e, int32_t rank, int32_t more) {
  double sum = 0;
  for (int32_t r = 0; r < x->ranks; r++) {
    const int64_t i = (int64_t)r * x->experts + e;
    sum += fabs((double)(x->n[i] + (r == rank ? more : 0)) / (x->all[e] + more) - x->share[i]);
  }
  return sum;
}

/* Replicas of expert e in as many as `all`, where its shares are just such parts.  @return : whether there are. */
static bool is_split(const replicas *x, int32_t e, int32_t all) {
  int64_t sum = 0;
  for (int32_t r = 0; r < x->ranks; r++) {
    const int64_t i = (int64_t)r * x->experts + e;
    const double part = x->share[i] * all, whole = round(part);
    if (x->n[i] == 0) continue;
    if (fabs(part - whole) > 1e-6 * all || whole < 1 || whole - 1 > x->spare[r]) return false;
    sum += (int64_t)whole;
  }
  return sum == all;
}

/* The fewest replicas of each expert that split it just as the plan does, where there are such and they fit. */
static void split_exactly(replicas *x, int64_t spare) {
  for (int32_t e = 0; e < x->experts; e++) {
    int32_t all = x->all[e];
    while (all <= x->all[e] + spare && !is_split(x, e, all)) all++;
    if (all > x->all[e] + spare || all == x->all[e]) continue;
    for (int32_t r = 0; r < x->ranks; r++) {
      const int64_t i = (int64_t)r * x->experts + e;
      if (x->n[i] == 0) continue;
      x->n[i] = (int32_t)round(x->share[i] * all);
      x->spare[r] -= x->n[i] - 1;
      spare -= x->n[i] - 1;
    }
    x->all[e] = all;
  }
}

/* One more replica in a spare slot, where the shares gain most by it.  @return : false where no rank can take one. */
static bool add_replica(replicas *x) {
  int32_t best = -1, rank = -1;
  double gain = 0;
  for (int32_t r = 0; r < x->ranks; r++)
    for (int32_t e = 0; e < x->experts && x->spare[r] > 0; e++) {
      if (x->n[(int64_t)r * x->experts + e] == 0) continue;
      const double here = distance(x, e, r, 0) - distance(x, e, r, 1);
      if (best >= 0 && here <= gain + 1e-12) continue;
      best = e;
      rank = r;
      gain = here;
    }
  if (best < 0) return false;
  x->n[(int64_t)rank * x->experts + best]++;
  x->all[best]++;
  x->spare[rank]--;
  return true;
}

static void start(replicas *x, const bl_layer_placement *layer) {
  for (int32_t e = 0; e < x->experts; e++) {
    const int64_t i = (int64_t)layer->home[e] * x->experts + e;
    x->n[i] = x->all[e] = 1;
    x->share[i] = 1;
  }
  for (int32_t c = 0; c < layer->n_copies; c++) {
    const bl_copy *copy = &layer->copies[c];
    const int64_t i = (int64_t)copy->rank * x->experts + copy->expert;
    x->n[i] = 1;
    x->all[copy->expert]++;
    x->share[i] = copy->share;
    x->share[(int64_t)layer->home[copy->expert] * x->experts + copy->expert] -= copy->share;
  }
}

static int64_t count_spare(replicas *x, const int32_t *slots) {
  int64_t all = 0;
  for (int32_t r = 0; r < x->ranks; r++) {
    x->spare[r] = slots[r];
    for (int32_t e = 0; e < x->experts; e++) x->spare[r] -= x->n[(int64_t)r * x->experts + e];
    all += x->spare[r];
  }
  return all;
}

bl_status bl_even_slots(const bl_placement *placement, int32_t layer, int32_t *phy2log, double *off) {
  replicas x = {.experts = placement->experts, .ranks = placement->ranks};
  const size_t experts = (size_t)x.experts, ranks = (size_t)x.ranks;
  bl_status status;
  BL_TRY_GOTO(status, bl_new(&x.n, (ranks + 1) * experts + ranks, sizeof *x.n, "replicas"), end);
  BL_TRY_GOTO(status, bl_new(&x.share, ranks * experts, sizeof *x.share, "shares"), end);
  x.all = x.n + ranks * experts;
  x.spare = x.all + experts;
  start(&x, &placement->layer[layer]);
  split_exactly(&x, count_spare(&x, placement->slots));
  while (add_replica(&x)) continue;
  *off = 0;
  for (int32_t r = 0, slot = 0; r < x.ranks; r++) {
    const int32_t next = slot + placement->slots[r];
    for (int32_t e = 0; e < x.experts; e++) {
      const int64_t i = (int64_t)r * x.experts + e;
      for (int32_t k = 0; k < x.n[i]; k++) phy2log[slot++] = e;
      *off = fmax(*off, fabs((double)x.n[i] / x.all[e] - x.share[i]));
    }
    while (slot < next) phy2log[slot++] = -1;
  }
end:
  free(x.n);
  free(x.share);
  return status;
}
