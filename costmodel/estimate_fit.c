/* estimate_fit.c - a layer's table from measured or estimated calls.
 *
 * With the slowest rank of every call known and the points' places fixed, a call's time is linear in what is sought:
 * the constant, the cost at the first point, and the rises between neighbouring points, none of them negative. */
#include "base/memory.h"
#include "costmodel/estimate.h"
#include "costmodel/nnls.h"
#include <math.h>
#include <string.h>

enum { FIRST_POINTS = 20 /* at powers of two */, MAX_TURNS = 20 };

typedef struct fit {
  const bl_layer_calls *calls;
  const double *us;
  int32_t n_knots, *slowest; /* [calls] */
  double knots[BL_CURVE_MAX_POINTS], *rows;
} fit;

static const double *tokens_of(const fit *f, int32_t call, int32_t rank) {
  return f->calls->tokens + ((int64_t)call * f->calls->ranks + rank) * f->calls->slots;
}

static bl_status check(const bl_layer_calls *calls, const double *us, double *least, double *most) {
  const int64_t size = (int64_t)calls->n * calls->ranks * calls->slots;
  *least = INFINITY;
  *most = 0;
  if (calls->n < 2)
    return bl_fail(BL_EINPUT, "the fit of a layer's table: expected at least 2 calls, found %d", calls->n);
  for (int64_t i = 0; i < size; i++) {
    const double t = calls->tokens[i];
    if (!(t >= 0) || !isfinite(t)) return bl_fail(BL_EINPUT, "the fit of a layer's table: %g tokens", t);
    if (t > *most) *most = t;
    if (t > 0 && t < *least) *least = t;
  }
  for (int32_t i = 0; i < calls->n; i++)
    if (!(us[i] >= 0) || !isfinite(us[i]))
      return bl_fail(BL_EINPUT, "the fit of a layer's table: a time of %g us", us[i]);
  if (*most == 0) return bl_fail(BL_EINPUT, "the fit of a layer's table: no call has a token");
  return BL_OK;
}

/* Powers of two from the one at or below the fewest tokens to the one at or above the most, the upper ones where these
 * are too many. */
static void place_knots(fit *f, double least, double most) {
  const int32_t last = (int32_t)ceil(log2(most));
  int32_t first = (int32_t)floor(log2(least));
  if (first < 0) first = 0;
  if (first <= last - FIRST_POINTS) first = last - FIRST_POINTS + 1;
  for (int32_t i = first; i <= last || f->n_knots == 0; i++) f->knots[f->n_knots++] = exp2(i);
}

/* Column 0: experts with tokens; i: how much of the way from knot i-1 to knot i they go, summed; the last: 1. */
static void fill_row(const fit *f, const double *tokens, double *row) {
  memset(row, 0, (size_t)f->n_knots * sizeof *row);
  for (int32_t s = 0; s < f->calls->slots; s++) {
    if (tokens[s] <= 0) continue;
    row[0] += 1;
    for (int32_t i = 1; i < f->n_knots && tokens[s] > f->knots[i - 1]; i++)
      row[i] += tokens[s] < f->knots[i] ? (tokens[s] - f->knots[i - 1]) / (f->knots[i] - f->knots[i - 1]) : 1;
  }
  row[f->n_knots] = 1;
}

/* The best table for these knots and slowest ranks; *squares: its sum of squared errors on them. */
static bl_status solve(const fit *f, bl_layer_table *table, double *squares) {
  const int32_t n_columns = f->n_knots + 1;
  double x[BL_NNLS_MAX];
  for (int32_t i = 0; i < f->calls->n; i++)
    fill_row(f, tokens_of(f, i, f->slowest[i]), f->rows + (int64_t)i * n_columns);
  BL_TRY(bl_nnls(f->rows, f->us, f->calls->n, n_columns, x));
  *squares = 0;
  for (int32_t i = 0; i < f->calls->n; i++) {
    double error = -f->us[i];
    for (int32_t c = 0; c < n_columns; c++) error += f->rows[(int64_t)i * n_columns + c] * x[c];
    *squares += error * error;
  }
  table->constant_us = x[f->n_knots];
  table->expert.n = 0;
  double us = 0;
  for (int32_t i = 0; i < f->n_knots; i++) {
    us += x[i];
    BL_TRY(bl_curve_add(&table->expert, f->knots[i], us));
  }
  return BL_OK;
}

/* The slowest ranks by the table; ties to the lower.  @return : whether any changed. */
static bool find_slowest(fit *f, const bl_layer_table *table) {
  bool changed = false;
  for (int32_t i = 0; i < f->calls->n; i++) {
    int32_t slowest = 0;
    double most = -1;
    for (int32_t r = 0; r < f->calls->ranks; r++) {
      const bl_layer_calls one = {.n = 1, .ranks = 1, .slots = f->calls->slots, .tokens = tokens_of(f, i, r)};
      const double us = bl_layer_estimate(table, &one, 0);
      if (us <= most) continue;
      most = us;
      slowest = r;
    }
    changed = changed || slowest != f->slowest[i];
    f->slowest[i] = slowest;
  }
  return changed;
}

static bl_status take_turns(fit *f, bl_layer_table *table, double *squares) {
  BL_TRY(solve(f, table, squares));
  for (int32_t turn = 0; turn < MAX_TURNS && find_slowest(f, table); turn++) BL_TRY(solve(f, table, squares));
  return BL_OK;
}

/* `f` with one more knot at x, within interval i. */
static bl_status try_knot(const fit *f, int32_t i, double x, fit *with, bl_layer_table *table, double *squares) {
  *with = *f;
  memmove(with->knots + i + 1, f->knots + i, (size_t)(f->n_knots - i) * sizeof *with->knots);
  with->knots[i] = x;
  with->n_knots++;
  return solve(with, table, squares);
}

/* Narrows a place for one more knot in interval i from [a, b] by golden sections. */
static bl_status narrow(const fit *f, int32_t i, double a, double b, double *place) {
  const double golden = (sqrt(5) - 1) / 2;
  fit with;
  bl_layer_table table;
  for (*place = (a + b) / 2; b - a > 1e-12 * b;) {
    const double low = b - golden * (b - a), high = a + golden * (b - a);
    double at_low, at_high;
    if (low <= f->knots[i - 1] || high >= f->knots[i] || low >= high) break;
    BL_TRY(try_knot(f, i, low, &with, &table, &at_low));
    BL_TRY(try_knot(f, i, high, &with, &table, &at_high));
    *place = at_low < at_high ? low : high;
    *(at_low < at_high ? &b : &a) = at_low < at_high ? high : low;
  }
  return BL_OK;
}

/* One more knot, where it lowers the sum of squares most: the best of a few places in every interval, narrowed.
 * There is room for it. */
static bl_status insert_knot(fit *f) {
  enum { PLACES = 8 };
  double best_place = 0, best_width = 0, least = INFINITY, squares;
  int32_t interval = 0;
  bl_layer_table table;
  fit with;
  for (int32_t i = 1; i < f->n_knots; i++)
    for (int32_t p = 1; p < PLACES; p++) {
      const double width = (f->knots[i] - f->knots[i - 1]) / PLACES, place = f->knots[i - 1] + p * width;
      BL_TRY(try_knot(f, i, place, &with, &table, &squares));
      if (squares >= least) continue;
      least = squares;
      interval = i;
      best_place = place;
      best_width = width;
    }
  BL_TRY(narrow(f, interval, best_place - best_width, best_place + best_width, &best_place));
  const fit old = *f;
  return try_knot(&old, interval, best_place, f, &table, &squares);
}

static bl_status fit_table(fit *f, bl_layer_table *out) {
  double squares, better, size = 0;
  bl_layer_table table;
  BL_TRY(take_turns(f, out, &squares));
  for (int32_t i = 0; i < f->calls->n; i++) size += f->us[i] * f->us[i];
  while (squares > 1e-20 * size && f->n_knots > 1 && f->n_knots < BL_CURVE_MAX_POINTS) {
    BL_TRY(insert_knot(f));
    BL_TRY(take_turns(f, &table, &better));
    if (better > squares / 2) break;
    squares = better;
    *out = table;
  }
  return BL_OK;
}

bl_status bl_layer_table_fit(const bl_layer_calls *calls, const double *us, bl_layer_table *out) {
  fit f = {.calls = calls, .us = us};
  double least, most;
  BL_TRY(check(calls, us, &least, &most));
  place_knots(&f, least, most);
  BL_TRY(bl_new(&f.slowest, (size_t)calls->n, sizeof *f.slowest, "slowest ranks"));
  bl_status status = bl_new(&f.rows, (size_t)calls->n * (BL_CURVE_MAX_POINTS + 1), sizeof *f.rows, "a fit");
  if (status == BL_OK) {
    const bl_layer_table by_tokens = {.expert = {.n = 2, .x = {1, 2}, .us = {1, 2}}};
    find_slowest(&f, &by_tokens);
    status = fit_table(&f, out);
  }
  free(f.rows);
  free(f.slowest);
  return status;
}
