/* generate.h - made-up traces whose popularity drifts as routing does: the same counts on every machine for one seed.
 *
 * Every layer has scores y_e = -ln(rank_e) + walk_e, with the ranks 1..E dealt at random and a walk that starts at 0
 * and is pulled back (an Ornstein-Uhlenbeck process: steps of standard deviation `drift`, long-run standard deviation
 * 0.5). Popularity is p_e ~ exp(b y_e): with b = the Zipf exponent the first step is an exact Zipf law; with a top
 * share b is solved at every step so that the hottest expert takes just that share. Now and then two experts exchange
 * their scores (a jump) or one gets 8 times as popular and cools down by half a step (a burst). No expert takes more
 * than 1 / top-k.
 *
 * A row (rank, micro-batch) is a sample: tokens x top-k copies, an expert's count about binomial(tokens, k p_e),
 * rounded so that the row's sum is exact and no count exceeds the number of tokens.
 *
 * With a Gini coefficient or Herfindahl index to hold, b is solved at every step and layer, the shares are rounded to
 * the copies of all rows together, and the rows scatter about their part of them but add up to just these: so the
 * counts really made have the index, within a tolerance. With a total variation between neighbouring steps as well,
 * scores are N(0, 1) numbers that are moved as far as it takes (bl_load_drift()), in place of walk, jumps and bursts.
 */
#ifndef BL_TRACES_GENERATE_H
#define BL_TRACES_GENERATE_H

#include "traces/generate_target.h"
#include "traces/trace.h"

typedef struct bl_generate_options {
  bl_trace_shape shape;
  int32_t tokens, top_k; /* of one row; tokens * top_k < 2^31 */
  double zipf;           /* exponent, used where top_share is 0 */
  double top_share;      /* of the hottest expert, 1/experts to 1/top_k; 0: use zipf */
  double drift;          /* standard deviation of a step of the walk, 0 to 0.5 */
  double jumps, bursts;  /* probability a layer and step */
  uint64_t seed;
  bl_load_index index; /* not NONE: index_value is held at every step and layer, instead of zipf and top_share */
  double index_value;
  bool has_total_variation; /* needs an index; drift, jumps and bursts are then not used */
  double total_variation;   /* of a layer's loads between neighbouring steps, 0 to 1 */
  double tolerance;         /* of index_value and total_variation, above 0 to 1 */
} bl_generate_options;

typedef struct bl_generator bl_generator;

/*! bl_generator_create() : @return : BL_OK, BL_EINPUT (an option out of range), BL_EMACHINE. */
bl_status bl_generator_create(const bl_generate_options *options, bl_generator **out);
void bl_generator_free(bl_generator *generator); /* NULL is fine */

/*! bl_generator_step() : the next step into counts[bl_trace_step_size()].
 *  @return : BL_OK; BL_EINPUT where counts cannot come within the tolerance (too few tokens, no loads so far apart). */
bl_status bl_generator_step(bl_generator *generator, uint32_t *counts);

/*! bl_generator_popularity() : share[layers][experts] of the step made last (what its rows were drawn from), owned by
 *  the generator. */
const double *bl_generator_popularity(const bl_generator *generator);

#endif
