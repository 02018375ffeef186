/* generate.c - made-up traces. Only additions, multiplications, divisions, square roots and base/rng.h's functions are
 * used, in a fixed order: so the counts have the same bits everywhere. */
#include "traces/generate.h"
#include "base/memory.h"
#include "base/rng.h"
#include <inttypes.h>
#include <math.h>

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
  double *weight;                      /* [experts]: a row before rounding */
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
  return BL_OK;
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
  BL_TRY_GOTO(status, bl_new(&g->weight, experts, sizeof *g->weight, "a generator"), fail);
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
  free(generator->weight);
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

/* Holds values to at most `cap` and their sum to `total` <= n * cap: what is cut off goes to the others in proportion.
 */
static void cap_values(double *value, size_t n, double cap, double total) {
  for (;;) {
    double free_sum = 0, capped = 0;
    for (size_t i = 0; i < n; i++)
      if (value[i] >= cap)
        capped += cap;
      else
        free_sum += value[i];
    const double scale = free_sum > 0 ? (total - capped) / free_sum : 1;
    bool again = false;
    for (size_t i = 0; i < n; i++) {
      value[i] = value[i] >= cap ? cap : value[i] * scale;
      again = again || value[i] > cap;
    }
    if (!again) return;
  }
}

static void choose_shares(bl_generator *g, size_t layer) {
  const size_t experts = (size_t)g->options.shape.experts;
  double *share = g->share + layer * experts, *score = g->weight;
  double top = -INFINITY, b = g->options.zipf;
  for (size_t e = 0; e < experts; e++) {
    score[e] = g->base[layer * experts + e] + g->walk[layer * experts + e] + g->burst[layer * experts + e];
    if (score[e] > top) top = score[e];
  }
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
  cap_values(share, experts, 1.0 / g->options.top_k, 1);
}

/* Rounds weight[] (at most `tokens` each, their sum `copies`) to whole counts with that sum: each takes what lies
 * between two whole numbers of the running sum, which starts at `offset` in [0, 1). */
static void round_row(const double *weight, size_t experts, double offset, int64_t copies, int64_t tokens,
                      uint32_t *counts) {
  double sum = offset;
  int64_t given = 0;
  for (size_t e = 0; e < experts; e++) {
    sum += weight[e];
    int64_t count = (int64_t)sum - given;
    if (count > tokens) count = tokens;
    if (count > copies - given) count = copies - given;
    given += count;
    counts[e] = (uint32_t)count;
  }
  for (size_t e = 0; given < copies; e = (e + 1) % experts) { /* the last part of a copy, lost in rounding */
    if (counts[e] >= tokens) continue;
    counts[e]++;
    given++;
  }
}

static void draw_row(bl_generator *g, bl_rng *rng, const double *share, uint32_t *counts) {
  const size_t experts = (size_t)g->options.shape.experts;
  const double tokens = g->options.tokens, copies = tokens * g->options.top_k;
  double sum = 0;
  for (size_t e = 0; e < experts; e++) {
    const double q = g->options.top_k * share[e]; /* probability that a token takes this expert */
    const double spread = q < 1 ? sqrt(tokens * q * (1 - q)) : 0;
    const double drawn = tokens * q + spread * bl_rng_normal(rng);
    g->weight[e] = drawn > 0 ? drawn : 0;
    sum += g->weight[e];
  }
  for (size_t e = 0; e < experts; e++) g->weight[e] = sum > 0 ? g->weight[e] * (copies / sum) : copies * share[e];
  cap_values(g->weight, experts, tokens, copies);
  round_row(g->weight, experts, bl_rng_unit(rng), (int64_t)g->options.tokens * g->options.top_k, g->options.tokens,
            counts);
}

void bl_generator_step(bl_generator *g, uint32_t *counts) {
  const size_t layers = (size_t)g->options.shape.layers, experts = (size_t)g->options.shape.experts;
  const size_t rows = (size_t)g->options.shape.ranks * (size_t)g->options.shape.micro_batches;
  for (size_t layer = 0; layer < layers; layer++) {
    bl_rng noise;
    if (g->steps > 0) move_popularity(g, layer);
    choose_shares(g, layer);
    bl_rng_seed(&noise, g->options.seed, bl_hash_u64(1, (uint64_t)g->steps, layer, 0));
    for (size_t row = 0; row < rows; row++, counts += experts) draw_row(g, &noise, g->share + layer * experts, counts);
  }
  g->steps++;
}
