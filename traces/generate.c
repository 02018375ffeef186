/* generate.c - made-up traces. Only additions, multiplications, divisions, square roots and base/rng.h's functions are
 * used, in a fixed order: so the counts have the same bits everywhere. */
#include "traces/generate.h"
#include "base/memory.h"
#include "traces/concentration.h"
#include "traces/generate_rows.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const double walk_spread = 0.5;                 /* long-run standard deviation of the walk */
static const double burst_height = 2.0794415416798357; /* ln 8 */
static const double burst_decay = 0.5;
static const double max_exponent = 64;

struct bl_generator {
  bl_generate_options options;
  int64_t steps;                       /* made so far */
  double pull;                         /* what is left of a walk after one step */
  bl_rng *rng;                         /* [layers]: of the popularity */
  double *base, *walk, *burst, *share; /* [layers][experts] */
  double *score;                       /* [experts] */
  bl_row_drawer *drawer;
  /* Where an index is wanted: */
  bl_load_solver *solver;
  int64_t *low, *high, *total; /* [experts]: bounds and copies of all rows of a layer */
  double *before;              /* [layers][experts]: shares that the step before really took */
};

static bl_status check_options(const bl_generate_options *o) {
  BL_TRY(bl_trace_shape_check(&o->shape, "the trace to generate"));
  if (o->tokens < 1 || o->top_k < 1 || (int64_t)o->tokens * o->top_k > INT32_MAX)
    return bl_fail(BL_EINPUT,
                   "%" PRId32 " tokens x top-%" PRId32 ", expected at least 1 of each and a product below 2^31",
                   o->tokens, o->top_k);
  if (o->top_k > o->shape.experts)
    return bl_fail(BL_EINPUT, "top-%" PRId32 " of %" PRId32 " experts, expected at most as many as there are", o->top_k,
                   o->shape.experts);
  if (!(o->zipf >= 0 && o->zipf <= max_exponent))
    return bl_fail(BL_EINPUT, "a Zipf exponent of %g, expected 0 to %g", o->zipf, max_exponent);
  const double least = 1.0 / o->shape.experts, most = 1.0 / o->top_k;
  if (o->top_share != 0 && !(o->top_share >= least && o->top_share <= most))
    return bl_fail(BL_EINPUT, "a top share of %g, expected 1/experts = %.4g to 1/top-k = %.4g", o->top_share, least,
                   most);
  if (!(o->drift >= 0 && o->drift <= walk_spread))
    return bl_fail(BL_EINPUT, "a drift of %g, expected 0 to %g", o->drift, walk_spread);
  if (!(o->jumps >= 0 && o->jumps <= 1) || !(o->bursts >= 0 && o->bursts <= 1))
    return bl_fail(BL_EINPUT, "probabilities %g of jumps and %g of bursts, expected 0 to 1", o->jumps, o->bursts);
  if (o->index != BL_LOAD_INDEX_NONE && o->top_share != 0)
    return bl_fail(BL_EINPUT, "a top share and a %s, expected one of them", bl_load_index_name(o->index));
  if (o->index != BL_LOAD_INDEX_NONE && !(o->tolerance > 0 && o->tolerance <= 1))
    return bl_fail(BL_EINPUT, "a tolerance of %g, expected above 0 to 1", o->tolerance);
  if (!o->has_total_variation) return BL_OK;
  if (o->index == BL_LOAD_INDEX_NONE)
    return bl_fail(BL_EINPUT, "a total variation without a Gini coefficient or Herfindahl index to hold, expected one");
  if (!(o->total_variation >= 0 && o->total_variation <= 1))
    return bl_fail(BL_EINPUT, "a total variation of %g between steps, expected 0 to 1", o->total_variation);
  return BL_OK;
}

static bl_status create_target(bl_generator *g) {
  const bl_generate_options *o = &g->options;
  const size_t experts = (size_t)o->shape.experts;
  const bl_load_target target = {o->index, o->index_value, o->shape.experts, o->top_k};
  const double rows = (double)o->shape.ranks * o->shape.micro_batches;
  if (rows * o->tokens * o->top_k > 0x1p53)
    return bl_fail(BL_EINPUT, "%g token copies in a layer and step, expected at most 2^53",
                   rows * o->tokens * o->top_k);
  BL_TRY(bl_load_solver_create(&target, &g->solver));
  int64_t **const arrays[] = {&g->low, &g->high, &g->total};
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
    BL_TRY(bl_new(arrays[i], experts, sizeof(int64_t), "a generator"));
  for (size_t e = 0; e < experts; e++) g->high[e] = (int64_t)rows * o->tokens;
  return bl_new(&g->before, (size_t)o->shape.layers * experts, sizeof *g->before, "a generator");
}

/* Deals the Zipf ranks of one layer. */
static void deal_ranks(bl_rng *rng, int32_t experts, double *base) {
  for (int32_t e = 0; e < experts; e++) base[e] = -bl_det_log((double)e + 1);
  for (int32_t e = experts - 1; e > 0; e--) {
    const uint64_t other = bl_rng_below(rng, (uint64_t)e + 1);
    const double kept = base[e];
    base[e] = base[other];
    base[other] = kept;
  }
}

bl_status bl_generator_create(const bl_generate_options *options, bl_generator **out) {
  bl_generator *g = NULL;
  bl_status status;
  *out = NULL;
  BL_TRY(check_options(options));
  BL_TRY(bl_new(&g, 1, sizeof *g, "a generator"));
  g->options = *options;
  const double step = options->drift / walk_spread;
  g->pull = sqrt(1 - step * step);
  const size_t layers = (size_t)options->shape.layers, experts = (size_t)options->shape.experts;
  double **const arrays[] = {&g->base, &g->walk, &g->burst, &g->share};
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
    BL_TRY_GOTO(status, bl_new(arrays[i], layers * experts, sizeof(double), "a generator"), fail);
  BL_TRY_GOTO(status, bl_new(&g->rng, layers, sizeof *g->rng, "a generator"), fail);
  BL_TRY_GOTO(status, bl_new(&g->score, experts, sizeof *g->score, "a generator"), fail);
  BL_TRY_GOTO(status, bl_row_drawer_create(options->shape.experts, options->tokens, options->top_k, &g->drawer), fail);
  if (options->index != BL_LOAD_INDEX_NONE) BL_TRY_GOTO(status, create_target(g), fail);
  for (size_t layer = 0; layer < layers; layer++) {
    bl_rng_seed(&g->rng[layer], options->seed, layer);
    deal_ranks(&g->rng[layer], options->shape.experts, g->base + layer * experts);
  }
  *out = g;
  return BL_OK;
fail:
  bl_generator_free(g);
  return status;
}

void bl_generator_free(bl_generator *generator) {
  if (generator == NULL) return;
  free(generator->rng);
  free(generator->base);
  free(generator->walk);
  free(generator->burst);
  free(generator->share);
  free(generator->score);
  bl_row_drawer_free(generator->drawer);
  bl_load_solver_free(generator->solver);
  free(generator->low);
  free(generator->high);
  free(generator->total);
  free(generator->before);
  free(generator);
}

const double *bl_generator_popularity(const bl_generator *generator) { return generator->share; }

static void move_popularity(bl_generator *g, size_t layer) {
  const size_t experts = (size_t)g->options.shape.experts;
  bl_rng *rng = &g->rng[layer];
  double *base = g->base + layer * experts, *walk = g->walk + layer * experts, *burst = g->burst + layer * experts;
  for (size_t e = 0; e < experts; e++) {
    walk[e] = g->pull * walk[e] + g->options.drift * bl_rng_normal(rng);
    burst[e] *= burst_decay;
  }
  if (bl_rng_unit(rng) < g->options.jumps) {
    const uint64_t a = bl_rng_below(rng, experts), b = bl_rng_below(rng, experts);
    const double kept_base = base[a], kept_walk = walk[a];
    base[a] = base[b];
    walk[a] = walk[b];
    base[b] = kept_base;
    walk[b] = kept_walk;
  }
  if (bl_rng_unit(rng) < g->options.bursts) burst[bl_rng_below(rng, experts)] += burst_height;
}

/* share_e = exp(b (score_e - top)) / sum.  @return : the largest share. */
static double shares_at(double b, const double *score, double top, size_t experts, double *share) {
  double sum = 0;
  for (size_t e = 0; e < experts; e++) {
    share[e] = bl_det_exp(b * (score[e] - top));
    sum += share[e];
  }
  for (size_t e = 0; e < experts; e++) share[e] /= sum;
  return 1 / sum;
}

/* The popularity of a layer whose exponent or top share is given. */
static void choose_shares(bl_generator *g, const double *score, double *share) {
  const size_t experts = (size_t)g->options.shape.experts;
  double top = -INFINITY, b = g->options.zipf;
  for (size_t e = 0; e < experts; e++)
    if (score[e] > top) top = score[e];
  if (g->options.top_share > 0) { /* the largest share grows with b, from 1/experts towards 1 */
    double low = 0, high = max_exponent;
    for (int i = 0; i < 48; i++) {
      b = 0.5 * (low + high);
      if (shares_at(b, score, top, experts, share) < g->options.top_share)
        low = b;
      else
        high = b;
    }
  }
  shares_at(b, score, top, experts, share);
  bl_cap_values(share, (int32_t)experts, 1.0 / g->options.top_k, 1);
}

/* Rounds a layer's shares to the copies of all its rows; got[] are the shares that experts then have. */
static void round_totals(bl_generator *g, const double *share, double *got) {
  const bl_generate_options *o = &g->options;
  const int32_t experts = o->shape.experts;
  const int64_t copies = (int64_t)o->shape.ranks * o->shape.micro_batches * o->tokens * o->top_k;
  for (int32_t e = 0; e < experts; e++) got[e] = (double)copies * share[e];
  bl_round_counts(got, g->low, g->high, experts, 0.5, copies, g->total);
  for (int32_t e = 0; e < experts; e++) got[e] = (double)g->total[e] / (double)copies;
}

/* The copies of a layer with the wanted index and, after the first step, at the wanted distance from the step before.
 */
static bl_status choose_totals(bl_generator *g, size_t layer, double *score, double *share) {
  const bl_generate_options *o = &g->options;
  const int32_t experts = o->shape.experts;
  double *before = g->before + layer * (size_t)experts, *got = g->score;
  const bool drifts = o->has_total_variation && g->steps > 0;
  char moved[96] = "";
  if (drifts)
    bl_load_drift(g->solver, &g->rng[layer], before, o->total_variation, score, share);
  else
    bl_load_solve(g->solver, score, share);
  round_totals(g, share, got);
  const double index = bl_load_measure(g->solver, got), distance = bl_total_variation(got, before, experts);
  const bool far = drifts && !(fabs(distance - o->total_variation) <= o->tolerance);
  memcpy(before, got, (size_t)experts * sizeof *before);
  if (!far && fabs(index - o->index_value) <= o->tolerance) return BL_OK;
  if (drifts)
    snprintf(moved, sizeof moved, " that lie a total variation of %g (here %.6g) from the step before",
             o->total_variation, distance);
  return bl_fail(BL_EINPUT,
                 "step %" PRId64
                 ", layer %zu: found no counts with a %s of %g (here %.6g)%s, within %g; fewer experts, "
                 "more tokens, less extreme wishes or a wider tolerance help",
                 g->steps + 1, layer, bl_load_index_name(o->index), o->index_value, index, moved, o->tolerance);
}

/* The scores of a layer in this step: dealt Zipf ranks that walk, or normal numbers that the drift moves. */
static double *scores_of(bl_generator *g, size_t layer) {
  const size_t experts = (size_t)g->options.shape.experts, first = layer * experts;
  if (g->options.has_total_variation) {
    for (size_t e = 0; e < experts && g->steps == 0; e++) g->walk[first + e] = bl_rng_normal(&g->rng[layer]);
    return g->walk + first;
  }
  if (g->steps > 0) move_popularity(g, layer);
  for (size_t e = 0; e < experts; e++) g->score[e] = g->base[first + e] + g->walk[first + e] + g->burst[first + e];
  return g->score;
}

bl_status bl_generator_step(bl_generator *g, uint32_t *counts) {
  const bl_generate_options *o = &g->options;
  const size_t layers = (size_t)o->shape.layers, experts = (size_t)o->shape.experts;
  const int64_t rows = (int64_t)o->shape.ranks * o->shape.micro_batches;
  for (size_t layer = 0; layer < layers; layer++) {
    bl_rng noise;
    double *score = scores_of(g, layer), *share = g->share + layer * experts;
    bl_rng_seed(&noise, o->seed, bl_hash_u64(1, (uint64_t)g->steps, layer, 0));
    if (o->index != BL_LOAD_INDEX_NONE) {
      BL_TRY(choose_totals(g, layer, score, share));
      for (int64_t row = 0; row < rows; row++, counts += experts)
        bl_row_split(g->drawer, &noise, rows - row, g->total, counts);
    } else {
      choose_shares(g, score, share);
      for (int64_t row = 0; row < rows; row++, counts += experts) bl_row_sample(g->drawer, &noise, share, counts);
    }
  }
  g->steps++;
  return BL_OK;
}
