#include "planner/milp/price_bound.h"
#include "base/log.h"
#include "base/memory.h"
#include "planner/milp/child.h"
#include "planner/milp/dual_columns.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

#ifdef BL_HAVE_GLPK
#include <glpk.h>

enum { MESSAGE_BOUND = 1, MOST_BOXES = 4096 };
static const double NARROW = 1e-3; /* of the known price */

typedef struct part {
  bl_dual_box box;
  double bound;
  double *weights;
} part;

typedef struct search {
  const bl_place_problem *problem;
  bl_child_pipe *pipe;
  double known_us, seconds, said;
  int64_t start_us;
  bl_dual_sum *sum;
  bl_dual_columns *columns;
  part *parts;
  size_t n, room;
} search;

static void need(const search *s, bl_status status) {
  if (status != BL_OK) bl_child_fail(s->pipe, true, bl_error_text());
}

static int64_t at_us(const search *s, double share) { return s->start_us + (int64_t)(s->seconds * share * 1e6); }

static size_t least_part(const search *s) {
  size_t at = 0;
  for (size_t i = 1; i < s->n; ++i)
    if (s->parts[i].bound < s->parts[at].bound) at = i;
  return at;
}

static void say(search *s) {
  const double bound = fmin(s->parts[least_part(s)].bound, s->known_us);
  if (!(bound > s->said)) return;
  s->said = bound;
  bl_child_send(s->pipe, MESSAGE_BOUND, &bound, sizeof bound);
}

static void raise_part(search *s, size_t i, int64_t deadline_us) {
  part *x = &s->parts[i];
  if (!bl_dual_sum_enter(s->sum, &x->box)) {
    x->bound = INFINITY; /* nothing in it costs less than what is known */
    return;
  }
  need(s, bl_dual_columns_raise(s->columns, &x->box, s->known_us, deadline_us, x->weights, &x->bound));
}

static void add_part(search *s, const bl_dual_box *box, double bound, const double *weights) {
  const size_t size = (size_t)bl_dual_sum_layout(s->sum)->size;
  need(s, bl_grow(&s->parts, &s->room, s->n + 1, sizeof *s->parts, "boxes"));
  s->parts[s->n] = (part){.box = *box, .bound = bound};
  need(s, bl_new(&s->parts[s->n].weights, size, sizeof(double), "boxes"));
  if (weights) memcpy(s->parts[s->n].weights, weights, size * sizeof *weights);
  ++s->n;
}

/* Whether halves of the box could prove more: times that hardly differ are as good as known. */
static bool is_wide(const search *s, const part *x) {
  return x->box.high[0] - x->box.low[0] > NARROW * s->known_us || x->box.high[1] - x->box.low[1] > NARROW * s->known_us;
}

/* Into a half with shorter and one with longer times, of what has the wider range. */
static void halve(search *s, size_t i) {
  bl_dual_box low = s->parts[i].box, high = low;
  const int term = low.high[0] - low.low[0] > low.high[1] - low.low[1] ? 0 : 1;
  low.high[term] = high.low[term] = (low.low[term] + low.high[term]) / 2;
  s->parts[i].box = low;
  add_part(s, &high, s->parts[i].bound, s->parts[i].weights);
  raise_part(s, i, at_us(s, 1));
  raise_part(s, s->n - 1, at_us(s, 1));
}

static void body(bl_child_pipe *pipe, void *context) {
  search s = *(search *)context;
  s.pipe = pipe;
  glp_term_out(GLP_OFF);
  need(&s, bl_dual_sum_create(s.problem, s.known_us, &s.sum));
  need(&s, bl_dual_columns_create(s.sum, s.problem, s.known_us, &s.columns));
  bl_dual_box all = bl_dual_sum_all(s.sum);
  add_part(&s, &all, 0, NULL);
  if (!bl_dual_sum_enter(s.sum, &s.parts[0].box)) return;
  bl_dual_sum_start(s.sum, s.parts[0].weights);
  raise_part(&s, 0, at_us(&s, 0.4));
  say(&s);
  while (bl_now_us() < at_us(&s, 1) && s.n < MOST_BOXES) {
    const part *least = &s.parts[least_part(&s)];
    if (least->bound >= s.known_us || !is_wide(&s, least)) break;
    halve(&s, least_part(&s));
    say(&s);
  }
}

typedef struct answer {
  double known_us, bound;
} answer;

static bool take(void *context, uint32_t kind, const void *payload, uint32_t bytes) {
  answer *a = context;
  double bound;
  if (kind != MESSAGE_BOUND || bytes != sizeof bound) return false;
  memcpy(&bound, payload, sizeof bound);
  if (!(bound <= a->known_us)) return false;
  a->bound = fmax(a->bound, bound);
  return true;
}

bl_status bl_prove_price(const bl_place_problem *problem, double price_us, double seconds, int64_t memory_bytes,
                         bl_place_bound *bound, char reason[160]) {
  if (!(seconds > 0) || !isfinite(seconds))
    return bl_fail(BL_EINPUT, "%g seconds to prove: expected more than 0", seconds);
  search s = {.problem = problem, .known_us = price_us, .seconds = 0.9 * seconds, .start_us = bl_now_us()};
  answer a = {.known_us = price_us};
  bl_child_report report;
  const bl_child_limits limits = {.seconds = seconds,
                                  .memory_bytes = memory_bytes > 0 ? memory_bytes : (int64_t)1 << 30,
                                  .max_message = sizeof a.bound};
  BL_TRY(bl_child_run(&limits, body, &s, take, &a, &report));
  a.bound *= 1 - 1e-9; /* no rounding of sums lifts it above a price */
  if (a.bound > bound->us) {
    bound->us = a.bound;
    snprintf(bound->proof, sizeof bound->proof, "columns-of-experts");
  }
  reason[0] = 0;
  if (report.end != BL_CHILD_FINISHED)
    snprintf(reason, 160, "%s", report.reason);
  else if (bound->us < price_us * (1 - 1e-6))
    snprintf(reason, 160, "%s",
             bl_now_us() < at_us(&s, 1) ? "experts that may be divided among placements prove no more"
                                        : "the time for the proof is over");
  return BL_OK;
}

#else

bl_status bl_prove_price(const bl_place_problem *problem, double price_us, double seconds, int64_t memory_bytes,
                         bl_place_bound *bound, char reason[160]) {
  (void)problem, (void)price_us, (void)seconds, (void)memory_bytes, (void)bound;
  snprintf(reason, 160, "this program was built without GLPK (GLPK=0)");
  return BL_OK;
}

#endif
