#include "planner/milp/rank_columns.h"
#include "base/log.h"
#include "base/memory.h"
#include "planner/milp/child.h"
#include "planner/milp/rank_groups.h"
#include "planner/milp/rank_knapsack.h"
#include <math.h>
#include <string.h>

#ifdef BL_HAVE_GLPK
#include <glpk.h>

enum { MOST_RECEIVERS = 40, MOST_EXTRA = 6, MOST_LEAVING = 4, MOST_ROUNDS = 1000, LEAST_GRID = 512, MOST_GRID = 8192 };
enum { TABLE = 1 << 23 }; /* of all receivers: what one pricing costs */

typedef struct columns {
  const bl_fewest *problem;
  bl_child_pipe *pipe;
  const bl_rank_facts *facts;
  bl_rank_knapsack senders, receivers; /* ranks above the limit, ranks that can take something */
  double *price;                       /* [ranks]: that groups are sought for */
  double *master, *centre;             /* [ranks]: of the program, and where the bound was best */
  int *row_of;                         /* [ranks]: of the program, 0 = none */
  glp_prob *lp;
  uint8_t *member; /* [column][ranks] */
  size_t room;
  double bound; /* proved */
  int64_t deadline_us;
} columns;

enum { MESSAGE_BOUND = 1, MESSAGE_GROUPS };

static void need(columns *c, bl_status status) {
  if (status != BL_OK) bl_child_fail(c->pipe, true, bl_error_text());
}

/* Of a sender: copies that must leave it, as far as they are counted. */
static int32_t leaving(const columns *c, int32_t r) {
  return c->facts[r].leaving < MOST_LEAVING ? c->facts[r].leaving : MOST_LEAVING;
}

static void sort_ranks(columns *c) {
  const bl_fewest *problem = c->problem;
  int32_t senders = 0, receivers = 0;
  for (int32_t r = 0; r < problem->ranks; ++r) {
    senders += c->facts[r].excess > 0;
    receivers += c->facts[r].excess < 0 && c->facts[r].free > 0;
  }
  const int32_t most = receivers < MOST_RECEIVERS ? receivers : MOST_RECEIVERS;
  int32_t grid = MOST_GRID;
  while (grid > LEAST_GRID && (int64_t)grid * (most + 1) * receivers > TABLE) grid /= 2;
  need(c, bl_rank_knapsack_create(senders, MOST_EXTRA, grid, &c->senders));
  need(c, bl_rank_knapsack_create(receivers, most, grid, &c->receivers));
  senders = receivers = 0;
  for (int32_t r = 0; r < problem->ranks; ++r) {
    if (c->facts[r].excess > 0) {
      c->senders.rank[senders] = r;
      c->senders.step[senders++] = leaving(c, r) - 1;
    } else if (c->facts[r].excess < 0 && c->facts[r].free > 0) {
      c->receivers.rank[receivers] = r;
      c->receivers.step[receivers++] = 1;
    }
  }
}

/* Weights on the grid: rounded so that every group fits that there is, or `strict`, so that none fits that is not. */
static void round_weights(columns *c, bool strict) {
  double excess = 0;
  for (int32_t i = 0; i < c->senders.items; ++i) excess += c->facts[c->senders.rank[i]].excess;
  const int32_t grid = c->senders.grid;
  for (int32_t i = 0; i < c->senders.items; ++i) {
    const double exact = c->facts[c->senders.rank[i]].excess / excess * grid;
    c->senders.weight[i] = (int32_t)(strict ? ceil(exact) : floor(exact));
  }
  for (int32_t i = 0; i < c->receivers.items; ++i) {
    const double exact = -c->facts[c->receivers.rank[i]].excess / excess * grid;
    c->receivers.weight[i] = (int32_t)fmin(strict ? floor(exact) : ceil(exact), grid);
  }
}

/* What the copies of a group cost at least. */
static int32_t cost_of(const columns *c, const uint8_t *member) {
  int32_t ranks = 0, copies = 0;
  for (int32_t r = 0; r < c->problem->ranks; ++r) {
    if (!member[r]) continue;
    ++ranks;
    copies += c->facts[r].excess > 0 ? leaving(c, r) : 0;
  }
  return copies > ranks - 1 ? copies : ranks - 1;
}

static void add_column(columns *c, const uint8_t *member) {
  const int32_t ranks = c->problem->ranks;
  int index[BL_RANK_COLUMNS_MAX + 1], n = 0;
  double one[BL_RANK_COLUMNS_MAX + 1];
  const int column = glp_add_cols(c->lp, 1);
  need(c, bl_grow(&c->member, &c->room, (size_t)column * (size_t)ranks, 1, "columns"));
  memcpy(c->member + (size_t)(column - 1) * (size_t)ranks, member, (size_t)ranks);
  for (int32_t r = 0; r < ranks; ++r)
    if (member[r]) {
      index[++n] = c->row_of[r];
      one[n] = 1;
    }
  glp_set_col_bnds(c->lp, column, GLP_LO, 0, 0);
  glp_set_obj_coef(c->lp, column, cost_of(c, member));
  glp_set_mat_col(c->lp, column, n, index, one);
}

static double reduced_cost(const columns *c, const double *price, const uint8_t *member) {
  double cost = cost_of(c, member);
  for (int32_t r = 0; r < c->problem->ranks; ++r) cost -= member[r] ? price[r] : 0;
  return cost;
}

/* Finds the cheapest groups at these prices: one for each number of receivers and of extra copies, added where it
 * improves the program. @return : a lower bound of all reduced costs. */
static double price_groups(columns *c, int32_t *added) {
  uint8_t member[BL_RANK_COLUMNS_MAX];
  double least = 0;
  for (int32_t i = 0; i < c->senders.items; ++i)
    c->senders.value[i] = c->price[c->senders.rank[i]] - leaving(c, c->senders.rank[i]);
  for (int32_t i = 0; i < c->receivers.items; ++i) c->receivers.value[i] = c->price[c->receivers.rank[i]];
  bl_rank_knapsack_fill(&c->senders, false);
  bl_rank_knapsack_fill(&c->receivers, true);
  *added = 0;
  for (int32_t extra = 0; extra <= MOST_EXTRA; ++extra)
    for (int32_t n = 1; n < c->receivers.states; ++n) {
      const double *sends = c->senders.best + (int64_t)extra * (c->senders.grid + 1);
      const double *takes = c->receivers.best + (int64_t)n * (c->receivers.grid + 1);
      double best = -INFINITY;
      int32_t at = 0;
      for (int32_t w = 0; w <= c->senders.grid; ++w)
        if (sends[w] + takes[w] > best) {
          best = sends[w] + takes[w];
          at = w;
        }
      const double joins = extra == MOST_EXTRA || n - 1 < extra ? 0 : n - 1 - extra;
      least = fmin(least, joins - best);
      if (!(joins - best < -1e-7)) continue;
      memset(member, 0, sizeof member);
      bl_rank_knapsack_trace(&c->senders, extra, at, member);
      bl_rank_knapsack_trace(&c->receivers, n, at, member);
      if (reduced_cost(c, c->master, member) > -1e-7) continue; /* no help to the program */
      add_column(c, member);
      ++*added;
    }
  return least;
}

/* Every sender must be covered, at worst at a price that no group has; every receiver is in at most one group. */
static void create_program(columns *c) {
  c->lp = glp_create_prob();
  glp_set_obj_dir(c->lp, GLP_MIN);
  for (int32_t kind = 0; kind < 2; ++kind) {
    const bl_rank_knapsack *k = kind ? &c->receivers : &c->senders;
    for (int32_t i = 0; i < k->items; ++i) {
      const int row = c->row_of[k->rank[i]] = glp_add_rows(c->lp, 1);
      glp_set_row_bnds(c->lp, row, kind ? GLP_UP : GLP_LO, kind ? 0 : 1, 1);
    }
  }
  uint8_t member[BL_RANK_COLUMNS_MAX];
  for (int32_t i = 0; i < c->senders.items; ++i) {
    memset(member, 0, sizeof member);
    member[c->senders.rank[i]] = 1;
    add_column(c, member);
    glp_set_obj_coef(c->lp, i + 1, 4 * c->problem->ranks);
  }
}

/* Prices of the program, of the right sign; at every round a little nearer to it from where the bound was best, which
 * takes far fewer rounds than its own prices. */
static void take_prices(columns *c, double weight) {
  for (int32_t r = 0; r < c->problem->ranks; ++r) {
    const double dual = c->row_of[r] ? glp_get_row_dual(c->lp, c->row_of[r]) : 0;
    c->master[r] = c->facts[r].excess > 0 ? fmax(0, dual) : fmin(0, dual);
    c->price[r] = weight * c->master[r] + (1 - weight) * c->centre[r];
  }
}

/* What the prices prove, where no group costs less than its ranks' prices by more than -least: there are no more groups
 * than senders; and, as no group costs less than 1, prices divided by 1 - least are not above any group's cost. */
static bool raise_bound(columns *c, double least) {
  double sum = 0;
  for (int32_t r = 0; r < c->problem->ranks; ++r) sum += c->price[r];
  const double bound = fmax(sum + c->senders.items * least, sum / (1 - least));
  if (!(bound > c->bound + 1e-6)) return false;
  c->bound = bound;
  bl_child_send(c->pipe, MESSAGE_BOUND, &bound, sizeof bound);
  memcpy(c->centre, c->price, (size_t)c->problem->ranks * sizeof *c->centre);
  return true;
}

static bool time_left(const columns *c) { return bl_now_us() < c->deadline_us; }

static bool chosen(const columns *c, int j) {
  return glp_get_col_type(c->lp, j) == GLP_FX && glp_get_col_lb(c->lp, j) > 0.5;
}

/* A group whose load is above its limit, by the rounding of the grid: good for the bound alone. */
static bool overfull(const columns *c, const uint8_t *member) {
  double excess = 0;
  for (int32_t r = 0; r < c->problem->ranks; ++r) excess += member[r] ? c->facts[r].excess : 0;
  return excess > 0;
}

/* Columns until none helps. The first time, on the generous grid, they prove the bound; then, `strict`, those that are
 * real are made enough to choose from. */
static void generate(columns *c, bool strict) {
  glp_smcp simplex;
  glp_init_smcp(&simplex);
  simplex.msg_lev = GLP_MSG_OFF;
  round_weights(c, strict);
  for (int j = c->senders.items + 1; strict && j <= glp_get_num_cols(c->lp); ++j)
    if (!chosen(c, j) && overfull(c, c->member + (size_t)(j - 1) * (size_t)c->problem->ranks))
      glp_set_col_bnds(c->lp, j, GLP_FX, 0, 0);
  for (int32_t round = 0; round < MOST_ROUNDS && time_left(c); ++round) {
    int32_t added = 0;
    if (glp_simplex(c->lp, &simplex) != 0) return;
    for (double weight = strict || round == 0 ? 1 : 0.4; added == 0; weight = 1) {
      take_prices(c, weight);
      const double least = price_groups(c, &added);
      const bool raised = !strict && raise_bound(c, least);
      if (added == 0 && weight == 1 && !raised) return;
      if (raised || !time_left(c)) break;
    }
  }
}

/* Takes the group that the program uses most, and all that it uses whole; false where it uses none that is real. */
static bool dive(columns *c) {
  int most = 0;
  for (int j = c->senders.items + 1; j <= glp_get_num_cols(c->lp); ++j) {
    if (glp_get_col_type(c->lp, j) == GLP_FX) continue;
    const double used = glp_get_col_prim(c->lp, j);
    if (used > 0.999) glp_set_col_bnds(c->lp, j, GLP_FX, 1, 1);
    if (used > 0.01 && (!most || used > glp_get_col_prim(c->lp, most))) most = j;
  }
  if (most) glp_set_col_bnds(c->lp, most, GLP_FX, 1, 1);
  return most > 0;
}

/* Whole groups: those that the program uses most are taken one after the other, with new columns for what is left. */
static void choose(columns *c) {
  const int32_t ranks = c->problem->ranks;
  int32_t group[BL_RANK_COLUMNS_MAX], n = 0;
  do generate(c, true);
  while (time_left(c) && dive(c));
  for (int32_t r = 0; r < ranks; ++r) group[r] = -1;
  for (int j = 1; j <= glp_get_num_cols(c->lp); ++j) {
    if (!chosen(c, j)) continue;
    for (int32_t r = 0; r < ranks; ++r)
      if (c->member[(size_t)(j - 1) * (size_t)ranks + (size_t)r] && group[r] < 0) group[r] = n;
    ++n;
  }
  for (int32_t i = 0; i < c->senders.items; ++i)
    if (group[c->senders.rank[i]] < 0) return; /* not all are covered */
  bl_child_send(c->pipe, MESSAGE_GROUPS, group, (uint32_t)((size_t)ranks * sizeof *group));
}

typedef struct question {
  const bl_fewest *problem;
  const bl_rank_facts *facts;
  double seconds;
} question;

static void body(bl_child_pipe *pipe, void *context) {
  const question *q = context;
  const int64_t start_us = bl_now_us();
  columns c = {.problem = q->problem, .pipe = pipe, .facts = q->facts};
  glp_term_out(GLP_OFF);
  need(&c, bl_new(&c.price, (size_t)q->problem->ranks, sizeof *c.price, "columns"));
  need(&c, bl_new(&c.row_of, (size_t)q->problem->ranks, sizeof *c.row_of, "columns"));
  need(&c, bl_new(&c.master, (size_t)q->problem->ranks, sizeof *c.master, "columns"));
  need(&c, bl_new(&c.centre, (size_t)q->problem->ranks, sizeof *c.centre, "columns"));
  sort_ranks(&c);
  create_program(&c);
  c.deadline_us = start_us + (int64_t)(q->seconds * 0.5e6);
  generate(&c, false);
  c.deadline_us = start_us + (int64_t)(q->seconds * 0.95e6);
  choose(&c);
}

typedef struct answer {
  int32_t ranks, *bound, *group;
  bool *found;
} answer;

static bool take(void *context, uint32_t kind, const void *payload, uint32_t bytes) {
  answer *a = context;
  double bound;
  if (kind == MESSAGE_GROUPS && bytes == (uint32_t)a->ranks * sizeof(int32_t)) {
    memcpy(a->group, payload, bytes);
    for (int32_t r = 0; r < a->ranks; ++r)
      if (a->group[r] < -1 || a->group[r] >= a->ranks) return false;
    *a->found = true;
    return true;
  }
  if (kind != MESSAGE_BOUND || bytes != sizeof bound) return false;
  memcpy(&bound, payload, bytes);
  if (!(bound <= (double)a->ranks * MOST_LEAVING)) return false;
  const int32_t whole = (int32_t)ceil(bound - 1e-6);
  if (whole > *a->bound) *a->bound = whole;
  return true;
}

bl_status bl_rank_columns(const bl_fewest *problem, double seconds, int64_t memory_bytes, int32_t *bound, bool *found,
                          int32_t *group) {
  bl_rank_facts *facts;
  bl_child_report report;
  *found = false;
  if (problem->ranks > BL_RANK_COLUMNS_MAX || !(seconds > 0)) return BL_OK;
  BL_TRY(bl_rank_facts_gather(problem, &facts));
  int32_t *groups = NULL;
  bl_status status = bl_new(&groups, (size_t)problem->ranks, sizeof *groups, "groups of ranks");
  if (status == BL_OK) {
    question q = {.problem = problem, .facts = facts, .seconds = seconds};
    answer a = {.ranks = problem->ranks, .bound = bound, .group = groups, .found = found};
    const bl_child_limits limits = {.seconds = seconds,
                                    .memory_bytes = memory_bytes,
                                    .max_message = (uint32_t)(sizeof(int32_t) * BL_RANK_COLUMNS_MAX)};
    status = bl_child_run(&limits, body, &q, take, &a, &report);
    if (*found) memcpy(group, groups, (size_t)problem->ranks * sizeof *group);
  }
  free(groups);
  free(facts);
  return status;
}

#else

bl_status bl_rank_columns(const bl_fewest *problem, double seconds, int64_t memory_bytes, int32_t *bound, bool *found,
                          int32_t *group) {
  (void)problem, (void)seconds, (void)memory_bytes, (void)bound, (void)group;
  *found = false;
  return BL_OK;
}

#endif
