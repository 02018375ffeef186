/* generate_target.h - loads of a wanted unevenness: popularity p_e ~ exp(b score_e), b found by bisection.
 *
 * Both indices grow with b, for a larger b moves share from every expert to those above it. No share exceeds 1 / top-k:
 * what is cut off goes to the others in proportion. So the Herfindahl index lies between 1 / experts and 1 / top-k, the
 * Gini coefficient between 0 and 1 - top-k / experts. */
#ifndef BL_TRACES_GENERATE_TARGET_H
#define BL_TRACES_GENERATE_TARGET_H

#include "base/rng.h"
#include "base/status.h"

/* How the unevenness of a layer's loads is measured; see concentration.h. */
typedef enum bl_load_index { BL_LOAD_INDEX_NONE, BL_LOAD_INDEX_GINI, BL_LOAD_INDEX_HERFINDAHL } bl_load_index;

typedef struct bl_load_target {
  bl_load_index index;
  double value;
  int32_t experts, top_k;
} bl_load_target;

/*! bl_load_target_check() : @return : BL_OK, or BL_EINPUT where no loads have such an index. */
bl_status bl_load_target_check(const bl_load_target *target);

/*! bl_load_index_name() : "Gini coefficient", "Herfindahl index". */
const char *bl_load_index_name(bl_load_index index);

typedef struct bl_load_solver bl_load_solver;

/*! bl_load_solver_create() : memory for one target; one thread a solver. */
bl_status bl_load_solver_create(const bl_load_target *target, bl_load_solver **out);
void bl_load_solver_free(bl_load_solver *solver); /* NULL is fine */

/*! bl_load_solve() : share[experts], their sum 1, that follow score[experts] and have the wanted index. */
void bl_load_solve(bl_load_solver *solver, const double *score, double *share);

/*! bl_load_drift() : moves the scores so far that the total variation between `before` and the new shares is
 * `distance`: score = c score + sqrt(1 - c^2) fresh, `fresh` being new N(0, 1) numbers from rng. The correlation c is
 * found by bisection, from 1 (nothing moves) by way of 0 (unrelated) to -1 (the order turned round), as far as it
 * takes; the index is solved at every c. Very uneven loads change by leaps, when another expert becomes the hottest:
 * where bisection ends at one, other fresh numbers are tried, 16 at most. Also fills share[experts].
 *  @return : the distance reached: below `distance` where even the order turned round is no farther, above it at a
 * leap, or where nothing moves and the rounding of `before` is more. */
double bl_load_drift(bl_load_solver *solver, bl_rng *rng, const double *before, double distance, double *score,
                     double *share);

/*! bl_load_measure() : the target's index of loads[experts]. */
double bl_load_measure(bl_load_solver *solver, const double *loads);

#endif
