#include "planner/place/homes.h"
#include "base/memory.h"
#include "planner/place/order.h"
#include <float.h>

/* Exchanges pairs of homes while the sum of squared loads over speeds falls. */
static void swap_homes(const double *load, int32_t experts, const double *speed, double *sum, int32_t *home) {
  for (int32_t round = 0, changed = 1; changed && round < 50; ++round) {
    changed = 0;
    for (int32_t a = 0; a < experts; ++a)
      for (int32_t b = a + 1; b < experts; ++b) {
        const int32_t p = home[a], q = home[b];
        const double d = load[a] - load[b];
        if (p == q || d == 0) continue;
        const double sp = speed ? speed[p] : 1, sq = speed ? speed[q] : 1;
        /* change of (sum_p)^2 / s_p + (sum_q)^2 / s_q when d moves from p to q */
        const double change = (d * d - 2 * d * sum[p]) / sp + (d * d + 2 * d * sum[q]) / sq;
        if (!(change < -1e-9 * (sum[p] * sum[p] / sp + sum[q] * sum[q] / sq))) continue;
        home[a] = q;
        home[b] = p;
        sum[p] -= d;
        sum[q] += d;
        changed = 1;
      }
  }
}

bl_status bl_homes_longest_first(const double *load, int32_t experts, int32_t ranks, const int32_t *most_homes,
                                 const double *speed, bool clip, int32_t *home) {
  double *clipped, total = 0, speeds = ranks;
  int32_t *order;
  const char *what = "longest-first homes";
  BL_TRY(bl_new(&clipped, (size_t)(experts + ranks), sizeof *clipped, what));
  bl_status status = BL_OK;
  BL_TRY_GOTO(status, bl_new(&order, 2 * (size_t)experts + (size_t)ranks, sizeof *order, what), done);
  if (speed) {
    speeds = 0;
    for (int32_t r = 0; r < ranks; ++r) speeds += speed[r];
  }
  for (int32_t e = 0; e < experts; ++e) total += load[e];
  for (int32_t e = 0; e < experts; ++e) clipped[e] = clip && load[e] > total / speeds ? total / speeds : load[e];
  double *sum = clipped + experts;
  int32_t *homes = order + 2 * experts;
  bl_order_descending(load, experts, order, order + experts);
  for (int32_t i = 0; i < experts && status == BL_OK; ++i) {
    int32_t best = -1;
    double least = DBL_MAX;
    for (int32_t r = 0; r < ranks; ++r) {
      const double now = speed ? sum[r] / speed[r] : sum[r];
      if (homes[r] < most_homes[r] && now < least) {
        least = now;
        best = r;
      }
    }
    if (best < 0) {
      status = bl_fail(BL_EINPUT, "%d ranks have no room for the homes of %d experts", ranks, experts);
      break;
    }
    home[order[i]] = best;
    sum[best] += clipped[order[i]];
    ++homes[best];
  }
  if (status == BL_OK) swap_homes(clipped, experts, speed, sum, home);
  free(order);
done:
  free(clipped);
  return status;
}

/* Assigns each row (group) a column (rank) of least total cost; n <= a few hundred. Rows and columns from 1, potentials
 * u and v, augmenting one row at a time along shortest reduced paths. match[column] = row. */
static void assign(const int64_t *cost, int32_t n, int64_t *u, int64_t *v, int64_t *least, int32_t *match, int32_t *way,
                   bool *used) {
  for (int32_t row = 1; row <= n; ++row) {
    match[0] = row;
    int32_t column = 0;
    for (int32_t j = 0; j <= n; ++j) {
      least[j] = INT64_MAX;
      used[j] = false;
    }
    do {
      used[column] = true;
      const int32_t i = match[column];
      int64_t delta = INT64_MAX;
      int32_t next = 0;
      for (int32_t j = 1; j <= n; ++j) {
        if (used[j]) continue;
        const int64_t reduced = cost[(int64_t)(i - 1) * n + j - 1] - u[i] - v[j];
        if (reduced < least[j]) {
          least[j] = reduced;
          way[j] = column;
        }
        if (least[j] < delta) {
          delta = least[j];
          next = j;
        }
      }
      for (int32_t j = 0; j <= n; ++j) {
        if (used[j]) {
          u[match[j]] += delta;
          v[j] -= delta;
        } else if (j > 0) {
          least[j] -= delta;
        }
      }
      column = next;
    } while (match[column] != 0);
    for (; column != 0; column = way[column]) match[column] = match[way[column]];
  }
}

bl_status bl_homes_relabel(const int32_t *old_home, const int32_t *new_home, int32_t experts, int32_t ranks,
                           const int32_t *needs, const int32_t *slots, int32_t *rank_of) {
  const size_t n = (size_t)ranks;
  int64_t *numbers;
  int32_t *match;
  bool *used;
  const char *what = "the relabelling of ranks";
  BL_TRY(bl_new(&numbers, n * n + 3 * (n + 1), sizeof *numbers, what));
  bl_status status = BL_OK;
  BL_TRY_GOTO(status, bl_new(&match, 2 * (n + 1), sizeof *match, what), done);
  BL_TRY_GOTO(status, bl_new(&used, n + 1, sizeof *used, what), done_match);
  int64_t *cost = numbers, *u = numbers + n * n, *v = u + n + 1, *least = v + n + 1;
  for (int32_t e = 0; e < experts; ++e) cost[(int64_t)new_home[e] * ranks + old_home[e]] -= ranks + 1;
  for (int32_t g = 0; g < ranks; ++g)
    for (int32_t r = 0; r < ranks; ++r) {
      cost[(int64_t)g * ranks + r] -= g == r; /* of equal overlaps the rank's own name */
      if (needs[g] > slots[r]) cost[(int64_t)g * ranks + r] += (int64_t)(ranks + 2) * (experts + 1) * (ranks + 1);
    }
  assign(cost, ranks, u, v, least, match, match + n + 1, used);
  for (int32_t r = 1; r <= ranks; ++r) rank_of[match[r] - 1] = r - 1;
  free(used);
done_match:
  free(match);
done:
  free(numbers);
  return status;
}
