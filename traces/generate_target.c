/* generate_target.c - bisection for the unevenness and the drift of generated loads. */
#include "traces/generate_target.h"
#include "base/memory.h"
#include "traces/concentration.h"
#include <math.h>
#include <string.h>

enum { ROUNDS = 48 };                   /* of a bisection: as far as doubles go */
enum { DIRECTIONS = 16 };               /* tried for a drift */
static const double index_close = 1e-8; /* near enough to end one; the loads of a step are rounded more coarsely */
static const double drift_close = 1e-6;

struct bl_load_solver {
  bl_load_target target;
  double *sorted, *share; /* [experts], ascending: scores, shares */
  double *fresh, *mixed;  /* [experts]: scores of a drift */
};

const char *bl_load_index_name(bl_load_index index) {
  return index == BL_LOAD_INDEX_GINI ? "Gini coefficient" : "Herfindahl index";
}

bl_status bl_load_target_check(const bl_load_target *t) {
  const double experts = t->experts, top_k = t->top_k;
  if (t->index == BL_LOAD_INDEX_GINI && !(t->value >= 0 && t->value <= 1 - top_k / experts))
    return bl_fail(BL_EINPUT,
                   "a Gini coefficient of %g, expected 0 to 1 - top-k / experts = %.4g: no expert takes more than "
                   "1 / top-k of the load",
                   t->value, 1 - top_k / experts);
  if (t->index == BL_LOAD_INDEX_HERFINDAHL && !(t->value >= 1 / experts && t->value <= 1 / top_k))
    return bl_fail(BL_EINPUT,
                   "a Herfindahl index of %g, expected 1 / experts = %.4g (all loads equal) to 1 / top-k = %.4g (no "
                   "expert takes more of the load)",
                   t->value, 1 / experts, 1 / top_k);
  return BL_OK;
}

bl_status bl_load_solver_create(const bl_load_target *target, bl_load_solver **out) {
  bl_load_solver *s = NULL;
  bl_status status;
  *out = NULL;
  BL_TRY(bl_load_target_check(target));
  BL_TRY(bl_new(&s, 1, sizeof *s, "a target"));
  s->target = *target;
  double **const arrays[] = {&s->sorted, &s->share, &s->fresh, &s->mixed};
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
    BL_TRY_GOTO(status, bl_new(arrays[i], (size_t)target->experts, sizeof(double), "a target"), fail);
  *out = s;
  return BL_OK;
fail:
  bl_load_solver_free(s);
  return status;
}

void bl_load_solver_free(bl_load_solver *solver) {
  if (solver == NULL) return;
  free(solver->sorted);
  free(solver->share);
  free(solver->fresh);
  free(solver->mixed);
  free(solver);
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double index_of_sorted(const bl_load_solver *s, const double *values) {
  return s->target.index == BL_LOAD_INDEX_GINI ? bl_gini(values, s->target.experts)
                                               : bl_herfindahl(values, s->target.experts);
}

double bl_load_measure(bl_load_solver *s, const double *loads) {
  memcpy(s->share, loads, (size_t)s->target.experts * sizeof *loads);
  qsort(s->share, (size_t)s->target.experts, sizeof *s->share, ascending);
  return index_of_sorted(s, s->share);
}

/* value_e = the share of experts whose scores come in any order, given how the capped ones end: scores at or above
 * `bound` take the cap, the others exp(b (score - top)) * scale. */
typedef struct share_rule {
  double b, top, scale, bound, cap;
} share_rule;

static double share_of(const share_rule *rule, double score) {
  return score >= rule->bound ? rule->cap : rule->scale * bl_det_exp(rule->b * (score - rule->top));
}

/* The rule for exponent b over s->sorted: the cap is taken by as many of the highest scores as would exceed it. Fills
 * s->share. */
static share_rule rule_at(bl_load_solver *s, double b) {
  const double cap = 1.0 / s->target.top_k;
  double left = 1;
  share_rule rule = {.b = b, .bound = INFINITY, .cap = cap};
  for (int32_t last = s->target.experts - 1;; last--) {
    double sum = 0;
    rule.top = s->sorted[last];
    for (int32_t i = 0; i <= last; i++) {
      s->share[i] = bl_det_exp(b * (s->sorted[i] - rule.top));
      sum += s->share[i];
    }
    rule.scale = left / sum;
    if (last == 0 || rule.scale <= cap) {
      for (int32_t i = 0; i <= last; i++) s->share[i] *= rule.scale;
      return rule;
    }
    s->share[last] = cap;
    left -= cap;
    rule.bound = rule.top;
  }
}

void bl_load_solve(bl_load_solver *s, const double *score, double *share) {
  double low = 0, high = 1; /* of b / (1 + b) */
  share_rule rule = {0};
  memcpy(s->sorted, score, (size_t)s->target.experts * sizeof *score);
  qsort(s->sorted, (size_t)s->target.experts, sizeof *s->sorted, ascending);
  for (int i = 0; i < ROUNDS; i++) {
    const double middle = 0.5 * (low + high);
    rule = rule_at(s, middle / (1 - middle));
    const double off = index_of_sorted(s, s->share) - s->target.value;
    if (fabs(off) <= index_close) break;
    if (off < 0)
      low = middle;
    else
      high = middle;
  }
  for (int32_t e = 0; e < s->target.experts; e++) share[e] = share_of(&rule, score[e]);
}

/* Shares at correlation c with the scores before.  @return : their distance from the shares before. */
static double drift_at(bl_load_solver *s, const double *before, double c, const double *score, double *share) {
  const double rest = sqrt(1 - c * c);
  for (int32_t e = 0; e < s->target.experts; e++) s->mixed[e] = c * score[e] + rest * s->fresh[e];
  bl_load_solve(s, s->mixed, share);
  return bl_total_variation(share, before, s->target.experts);
}

/* Bisection along one direction s->fresh.  @return : the distance reached, with the scores in s->mixed. */
static double move_along(bl_load_solver *s, const double *before, double distance, const double *score, double *share) {
  double far = -1, near = 1;
  double reached = drift_at(s, before, near, score, share); /* not 0: shares before were rounded to copies */
  if (reached >= distance) return reached;
  for (int i = 0; i < ROUNDS && fabs(reached - distance) > drift_close; i++) {
    const double middle = 0.5 * (far + near);
    reached = drift_at(s, before, middle, score, share);
    if (reached < distance)
      near = middle;
    else
      far = middle;
  }
  return reached;
}

double bl_load_drift(bl_load_solver *s, bl_rng *rng, const double *before, double distance, double *score,
                     double *share) {
  double reached = 0;
  for (int i = 0; i < DIRECTIONS; i++) {
    for (int32_t e = 0; e < s->target.experts; e++) s->fresh[e] = bl_rng_normal(rng);
    reached = move_along(s, before, distance, score, share);
    if (fabs(reached - distance) <= drift_close) break;
  }
  memcpy(score, s->mixed, (size_t)s->target.experts * sizeof *score);
  return reached;
}
