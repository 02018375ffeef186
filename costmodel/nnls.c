/* nnls.c - Lawson and Hanson's active set. Columns enter one by one, the steepest first; a step that would make a
 * coefficient negative stops at zero and drops it. */
#include "costmodel/nnls.h"
#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { MAX = BL_NNLS_MAX };

typedef struct problem {
  int32_t n;
  double gram[MAX][MAX], rhs[MAX], length[MAX]; /* of the scaled columns; length 0: a column of zeros */
} problem;

static bl_status build(const double *a, const double *y, int64_t n_rows, int32_t n, problem *p) {
  double squares = 0;
  memset(p, 0, sizeof *p);
  p->n = n;
  for (int64_t r = 0; r < n_rows; r++) {
    const double *row = a + r * n;
    squares += y[r] * y[r];
    for (int32_t i = 0; i < n; i++) {
      if (row[i] == 0) continue;
      p->rhs[i] += row[i] * y[r];
      for (int32_t j = 0; j <= i; j++) p->gram[i][j] += row[i] * row[j];
    }
  }
  for (int32_t i = 0; i < n; i++) {
    squares += p->gram[i][i];
    p->length[i] = sqrt(p->gram[i][i]);
  }
  if (!isfinite(squares)) return bl_fail(BL_EINPUT, "a least-squares fit: expected finite values");
  for (int32_t i = 0; i < n; i++) {
    if (p->length[i] == 0) continue;
    p->rhs[i] /= p->length[i];
    for (int32_t j = 0; j <= i; j++)
      if (p->length[j] > 0) p->gram[i][j] = p->gram[j][i] = p->gram[i][j] / (p->length[i] * p->length[j]);
  }
  return BL_OK;
}

/* The unconstrained solution over the columns in `set`, by Cholesky; false where one follows from the others. */
static bool solve(const problem *p, const int32_t *set, int32_t k, double *z) {
  const double dependent = 1e-13; /* what is left of a column of length 1 */
  double l[MAX][MAX];
  for (int32_t i = 0; i < k; i++) {
    double sum = p->rhs[set[i]];
    for (int32_t j = 0; j <= i; j++) {
      double v = p->gram[set[i]][set[j]];
      for (int32_t m = 0; m < j; m++) v -= l[i][m] * l[j][m];
      if (j < i) {
        l[i][j] = v / l[j][j];
        continue;
      }
      if (v < dependent) return false;
      l[i][i] = sqrt(v);
    }
    for (int32_t j = 0; j < i; j++) sum -= l[i][j] * z[j];
    z[i] = sum / l[i][i];
  }
  for (int32_t i = k - 1; i >= 0; i--) {
    for (int32_t j = i + 1; j < k; j++) z[i] -= l[j][i] * z[j];
    z[i] /= l[i][i];
  }
  return true;
}

/* The column that lowers the error most from x, -1 when none does. */
static int32_t steepest(const problem *p, const double *x, const bool *out) {
  int32_t best = -1;
  double most = 0;
  for (int32_t i = 0; i < p->n; i++) {
    if (out[i] || p->length[i] == 0) continue;
    double slope = p->rhs[i];
    for (int32_t j = 0; j < p->n; j++) slope -= p->gram[i][j] * x[j];
    if (slope > most + 1e-13 * fabs(p->rhs[i])) {
      most = slope;
      best = i;
    }
  }
  return best;
}

/* Moves x towards z until a coefficient is about to turn negative; that one leaves the set.  @return : whether z was
 * reached. */
static bool step_towards(double *x, const double *z, int32_t *set, int32_t *k) {
  double part = 1;
  int32_t blocking = -1, kept = 0;
  for (int32_t i = 0; i < *k; i++) {
    const double at = x[set[i]];
    if (z[i] > 0 || at / (at - z[i]) >= part) continue;
    part = at / (at - z[i]);
    blocking = i;
  }
  for (int32_t i = 0; i < *k; i++) {
    const int32_t c = set[i];
    x[c] += part * (z[i] - x[c]);
    if (i == blocking || x[c] <= 0)
      x[c] = 0;
    else
      set[kept++] = c;
  }
  *k = kept;
  return blocking < 0;
}

bl_status bl_nnls(const double *a, const double *y, int64_t n_rows, int32_t n_columns, double *x) {
  problem p;
  int32_t set[MAX], k = 0;
  bool out[MAX] = {false}; /* in the set, or dependent on it */
  double z[MAX];
  BL_TRY(build(a, y, n_rows, n_columns, &p));
  memset(x, 0, (size_t)n_columns * sizeof *x);
  for (int32_t round = 0; round < 10 * n_columns; round++) {
    const int32_t column = steepest(&p, x, out);
    if (column < 0) break;
    out[column] = true;
    set[k++] = column;
    if (!solve(&p, set, k, z) || z[k - 1] <= 0) { /* follows from the others, or is steepest by rounding alone */
      k--;
      continue;
    }
    while (!step_towards(x, z, set, &k))
      if (k == 0 || !solve(&p, set, k, z)) break;
    memset(out, 0, sizeof out);
    for (int32_t i = 0; i < k; i++) out[set[i]] = true;
  }
  for (int32_t i = 0; i < n_columns; i++) x[i] = p.length[i] > 0 ? x[i] / p.length[i] : 0;
  return BL_OK;
}
