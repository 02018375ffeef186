/* generate_rows.c - rows of a generated step. */
#include "traces/generate_rows.h"
#include "base/memory.h"
#include <math.h>
#include <stdbool.h>

struct bl_row_drawer {
  int32_t experts, tokens, top_k;
  double *weight, *share;    /* [experts]: a row before rounding, and what it scatters about */
  int64_t *low, *high, *row; /* [experts] */
};

bl_status bl_row_drawer_create(int32_t experts, int32_t tokens, int32_t top_k, bl_row_drawer **out) {
  bl_row_drawer *d = NULL;
  bl_status status;
  *out = NULL;
  BL_TRY(bl_new(&d, 1, sizeof *d, "rows"));
  d->experts = experts;
  d->tokens = tokens;
  d->top_k = top_k;
  BL_TRY_GOTO(status, bl_new(&d->weight, (size_t)experts, sizeof *d->weight, "a row"), fail);
  BL_TRY_GOTO(status, bl_new(&d->share, (size_t)experts, sizeof *d->share, "a row"), fail);
  int64_t **const arrays[] = {&d->low, &d->high, &d->row};
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
    BL_TRY_GOTO(status, bl_new(arrays[i], (size_t)experts, sizeof(int64_t), "a row"), fail);
  *out = d;
  return BL_OK;
fail:
  bl_row_drawer_free(d);
  return status;
}

void bl_row_drawer_free(bl_row_drawer *drawer) {
  if (drawer == NULL) return;
  free(drawer->weight);
  free(drawer->share);
  free(drawer->low);
  free(drawer->high);
  free(drawer->row);
  free(drawer);
}

static int64_t between(int64_t value, int64_t low, int64_t high) {
  return value < low ? low : value > high ? high : value;
}

void bl_round_counts(const double *weight, const int64_t *low, const int64_t *high, int32_t n, double offset,
                     int64_t total, int64_t *counts) {
  double sum = offset;
  int64_t given = 0;
  for (int32_t i = 0; i < n; i++) {
    sum += weight[i];
    counts[i] = between((int64_t)sum - given, low[i], high[i]);
    given += counts[i];
  }
  for (int32_t i = 0; given != total; i = (i + 1) % n) { /* the last part of a copy, lost or won in rounding */
    const int64_t step = given < total ? 1 : -1;
    if (counts[i] == (step > 0 ? high[i] : low[i])) continue;
    counts[i] += step;
    given += step;
  }
}

void bl_cap_values(double *value, int32_t n, double cap, double total) {
  for (;;) {
    double free_sum = 0, capped = 0;
    for (int32_t i = 0; i < n; i++)
      if (value[i] >= cap)
        capped += cap;
      else
        free_sum += value[i];
    const double scale = free_sum > 0 ? (total - capped) / free_sum : 1;
    bool again = false;
    for (int32_t i = 0; i < n; i++) {
      value[i] = value[i] >= cap ? cap : value[i] * scale;
      again = again || value[i] > cap;
    }
    if (!again) return;
  }
}

/* weight[e] = share[e] of a row with the noise of a sample, their sum that of a row. */
static void add_noise(bl_row_drawer *d, bl_rng *rng, const double *share) {
  const double tokens = d->tokens, copies = tokens * d->top_k;
  double sum = 0;
  for (int32_t e = 0; e < d->experts; e++) {
    const double q = d->top_k * share[e]; /* probability that a token takes this expert */
    const double spread = q < 1 ? sqrt(tokens * q * (1 - q)) : 0;
    const double drawn = tokens * q + spread * bl_rng_normal(rng);
    d->weight[e] = drawn > 0 ? drawn : 0;
    sum += d->weight[e];
  }
  for (int32_t e = 0; e < d->experts; e++) d->weight[e] = sum > 0 ? d->weight[e] * (copies / sum) : copies * share[e];
}

static void round_weight(bl_row_drawer *d, bl_rng *rng, uint32_t *counts) {
  bl_round_counts(d->weight, d->low, d->high, d->experts, bl_rng_unit(rng), (int64_t)d->tokens * d->top_k, d->row);
  for (int32_t e = 0; e < d->experts; e++) counts[e] = (uint32_t)d->row[e];
}

void bl_row_sample(bl_row_drawer *d, bl_rng *rng, const double *share, uint32_t *counts) {
  add_noise(d, rng, share);
  bl_cap_values(d->weight, d->experts, d->tokens, (double)d->tokens * d->top_k);
  for (int32_t e = 0; e < d->experts; e++) {
    d->low[e] = 0;
    d->high[e] = d->tokens;
  }
  round_weight(d, rng, counts);
}

/* Holds weight[] between low and high, and its sum to a row's: what is missing or too much is shared by the room that
 * is left. There is room, since left / rows itself lies between the bounds. */
static void hold_between(bl_row_drawer *d) {
  double sum = 0, above = 0, below = 0;
  for (int32_t e = 0; e < d->experts; e++) {
    const double low = (double)d->low[e], high = (double)d->high[e];
    d->weight[e] = d->weight[e] < low ? low : d->weight[e] > high ? high : d->weight[e];
    sum += d->weight[e];
    above += high - d->weight[e];
    below += d->weight[e] - low;
  }
  const double missing = (double)d->tokens * d->top_k - sum;
  for (int32_t e = 0; e < d->experts; e++) {
    if (missing > 0 && above > 0) d->weight[e] += missing * (((double)d->high[e] - d->weight[e]) / above);
    if (missing < 0 && below > 0) d->weight[e] += missing * ((d->weight[e] - (double)d->low[e]) / below);
  }
}

void bl_row_split(bl_row_drawer *d, bl_rng *rng, int64_t rows, int64_t *left, uint32_t *counts) {
  const double all = (double)rows * d->tokens * d->top_k;
  for (int32_t e = 0; e < d->experts; e++) {
    const int64_t later = (rows - 1) * d->tokens; /* what the other rows can take */
    d->low[e] = left[e] > later ? left[e] - later : 0;
    d->high[e] = left[e] < d->tokens ? left[e] : d->tokens;
    d->share[e] = (double)left[e] / all;
  }
  add_noise(d, rng, d->share);
  hold_between(d);
  round_weight(d, rng, counts);
  for (int32_t e = 0; e < d->experts; e++) left[e] -= d->row[e];
}
