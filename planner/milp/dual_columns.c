#include "planner/milp/dual_columns.h"

#ifdef BL_HAVE_GLPK
#include "base/log.h"
#include "base/memory.h"
#include <glpk.h>
#include <math.h>
#include <string.h>

enum { MOST_ROUNDS = 2000 };
static const double TOLERANCE = 1e-4, STEP = 0.35; /* of the known price; from the best weights to the program's */
/* The program may leave an expert out, or take a slot more, at so many times what it costs at the first weights: else
 * its weights are wild until it knows enough columns. */
static const double LEFT_OUT = 4, SLOT_MORE = 20;

typedef struct column {
  int32_t expert, hosts, n;
  size_t first; /* of its entries */
} column;

struct bl_dual_columns {
  bl_dual_sum *sum;
  const bl_place_problem *problem;
  const bl_dual_layout *layout;
  double known_us;
  column *list;
  size_t n, room;
  int *row; /* of all columns' entries, as GLPK counts them: from 1 */
  double *value;
  size_t n_entries, row_room, value_room;
  bl_status status; /* of the columns heard of last */
  glp_prob *lp;
  double *master, *tried; /* [layout->size]: weights */
  double *worth;          /* [experts]: what the program pays for an expert */
  int32_t added;
};

bl_status bl_dual_columns_create(bl_dual_sum *sum, const bl_place_problem *problem, double price_us,
                                 bl_dual_columns **out) {
  bl_dual_columns *c;
  bl_status status = BL_OK;
  *out = NULL;
  BL_TRY(bl_new(&c, 1, sizeof *c, "columns"));
  c->sum = sum;
  c->problem = problem;
  c->layout = bl_dual_sum_layout(sum);
  c->known_us = price_us;
  const size_t size = (size_t)c->layout->size;
  BL_TRY_GOTO(status, bl_new(&c->master, 2 * size + (size_t)problem->demand->experts, sizeof *c->master, "columns"),
              fail);
  c->tried = c->master + size;
  c->worth = c->tried + size;
  *out = c;
  return BL_OK;
fail:
  bl_dual_columns_free(c);
  return status;
}

void bl_dual_columns_free(bl_dual_columns *c) {
  if (!c) return;
  free(c->list);
  free(c->row);
  free(c->value);
  free(c->master);
  free(c);
}

/* -- the program --------------------------------------------------------------------------------------------------- */

/* Columns of the program: the least of each term, one for every expert that is too dear to be used, then the uses. In
 * units of the known price. Rows: ranks, ports and slots as in the layout, then experts. */
static int expert_row(const bl_dual_columns *c, int32_t expert) { return c->layout->size + expert + 1; }

static void put_column(bl_dual_columns *c, const column *x) {
  const int j = glp_add_cols(c->lp, 1);
  glp_set_col_bnds(c->lp, j, GLP_LO, 0, 0);
  glp_set_mat_col(c->lp, j, x->n, c->row + x->first - 1, c->value + x->first - 1);
}

static void note_cost(void *context, int32_t expert, int32_t hosts, const int32_t *at, const double *amount,
                      int32_t n) {
  bl_dual_columns *c = context;
  (void)hosts;
  c->worth[expert] = 0;
  for (int32_t i = 0; i < n; ++i) c->worth[expert] += amount[i] * c->tried[at[i]];
}

static void add_elastic(bl_dual_columns *c, int row_number, double sign, double cost_us) {
  const int j = glp_add_cols(c->lp, 1), row[2] = {0, row_number};
  const double value[2] = {0, sign};
  glp_set_obj_coef(c->lp, j, cost_us / c->known_us);
  glp_set_col_bnds(c->lp, j, GLP_LO, 0, 0);
  glp_set_mat_col(c->lp, j, 1, row, value);
}

static void create_program(bl_dual_columns *c, const bl_dual_box *box) {
  const bl_dual_layout *layout = c->layout;
  const int32_t experts = c->problem->demand->experts;
  glp_prob *lp = c->lp = glp_create_prob();
  glp_set_obj_dir(lp, GLP_MIN);
  glp_add_rows(lp, layout->size + experts);
  for (int32_t i = 0; i < layout->size; ++i) {
    const int32_t rank = i - layout->first[BL_DUAL_TERMS];
    glp_set_row_bnds(lp, i + 1, GLP_UP, 0, rank >= 0 ? c->problem->slots[rank] : 0);
  }
  for (int32_t e = 0; e < experts; ++e) glp_set_row_bnds(lp, expert_row(c, e), GLP_FX, 1, 1);
  for (int t = 0; t < BL_DUAL_TERMS; ++t) {
    const int j = glp_add_cols(lp, 1);
    glp_set_obj_coef(lp, j, 1);
    glp_set_col_bnds(lp, j, GLP_LO, t < 2 ? box->low[t] / c->known_us : 0, 0);
    const int32_t n = layout->first[t + 1] - layout->first[t];
    int *row = malloc(((size_t)n + 1) * sizeof *row);
    double *value = malloc(((size_t)n + 1) * sizeof *value);
    if (!row || !value) c->status = bl_fail(BL_EMACHINE, "out of memory: columns");
    for (int32_t i = 0; i < n && c->status == BL_OK; ++i) {
      row[i + 1] = layout->first[t] + i + 1;
      value[i + 1] = -1;
    }
    if (c->status == BL_OK) glp_set_mat_col(lp, j, n, row, value);
    free(row);
    free(value);
  }
  const double least_us = c->known_us / experts;
  for (int32_t e = 0; e < experts; ++e) add_elastic(c, expert_row(c, e), 1, LEFT_OUT * fmax(c->worth[e], least_us));
  for (int32_t r = 0; r < c->problem->machine->ranks; ++r) {
    const int32_t slot = layout->first[BL_DUAL_TERMS] + r;
    add_elastic(c, slot + 1, -1, SLOT_MORE * fmax(c->tried[slot], 1e-3 * least_us));
  }
  for (size_t i = 0; i < c->n; ++i)
    if (bl_dual_sum_allowed(c->sum, c->list[i].expert, c->list[i].hosts)) put_column(c, &c->list[i]);
}

/* The dual values as weights: not negative, and no term's above 1 together. */
static void take_weights(bl_dual_columns *c) {
  const bl_dual_layout *layout = c->layout;
  for (int32_t i = 0; i < layout->size; ++i)
    c->master[i] = fmax(0, -glp_get_row_dual(c->lp, i + 1)) * (i < layout->first[BL_DUAL_TERMS] ? 1 : c->known_us);
  for (int t = 0; t < BL_DUAL_TERMS; ++t) {
    double sum = 0;
    for (int32_t i = layout->first[t]; i < layout->first[t + 1]; ++i) sum += c->master[i];
    for (int32_t i = layout->first[t]; i < layout->first[t + 1] && sum > 1; ++i) c->master[i] /= sum;
  }
  for (int32_t e = 0; e < c->problem->demand->experts; ++e) c->worth[e] = glp_get_row_dual(c->lp, expert_row(c, e));
}

/* -- columns ------------------------------------------------------------------------------------------------------- */

/* Keeps a use that makes the program cheaper. */
static void hear(void *context, int32_t expert, int32_t hosts, const int32_t *at, const double *amount, int32_t n) {
  bl_dual_columns *c = context;
  const int32_t slots = c->layout->first[BL_DUAL_TERMS];
  double cost = 0;
  for (int32_t i = 0; i < n; ++i) cost += amount[i] * c->master[at[i]];
  if (!(cost / c->known_us < c->worth[expert] - 1e-9) || c->status != BL_OK) return;
  const size_t need = c->n_entries + (size_t)n + 2;
  c->status = bl_grow(&c->list, &c->room, c->n + 1, sizeof *c->list, "columns");
  if (c->status == BL_OK) c->status = bl_grow(&c->row, &c->row_room, need, sizeof *c->row, "columns");
  if (c->status == BL_OK) c->status = bl_grow(&c->value, &c->value_room, need, sizeof *c->value, "columns");
  if (c->status != BL_OK) return;
  /* GLPK's arrays begin at 1: an entry in front of each column's is not looked at. */
  column *x = &c->list[c->n++];
  *x = (column){.expert = expert, .hosts = hosts, .n = n + 1, .first = c->n_entries + 1};
  for (int32_t i = 0; i < n; ++i) {
    c->row[x->first + (size_t)i] = at[i] + 1;
    c->value[x->first + (size_t)i] = at[i] < slots ? amount[i] / c->known_us : amount[i];
  }
  c->row[x->first + (size_t)n] = expert_row(c, expert);
  c->value[x->first + (size_t)n] = 1;
  c->n_entries = x->first + (size_t)n + 1;
  put_column(c, x);
  ++c->added;
}

bl_status bl_dual_columns_raise(bl_dual_columns *c, const bl_dual_box *box, double enough, int64_t deadline_us,
                                double *weights, double *bound) {
  const size_t size = (size_t)c->layout->size;
  glp_smcp simplex;
  glp_init_smcp(&simplex);
  simplex.msg_lev = GLP_MSG_OFF;
  c->status = BL_OK;
  memcpy(c->tried, weights, size * sizeof *weights);
  bl_dual_sum_find(c->sum, c->tried, note_cost, c);
  create_program(c, box);
  double best = -INFINITY, limit = INFINITY; /* of the bound; the program's own, which no bound of it exceeds */
  for (int32_t round = 0; round < MOST_ROUNDS && c->status == BL_OK; ++round) {
    const int failed = glp_simplex(c->lp, &simplex);
    if (failed != 0 && failed != GLP_EITLIM) break;
    take_weights(c);
    limit = glp_get_obj_val(c->lp) * c->known_us;
    c->added = 0;
    for (double step = round == 0 ? 0 : STEP;; step = 1) {
      for (size_t i = 0; i < size; ++i) c->tried[i] = weights[i] + step * (c->master[i] - weights[i]);
      const double now = bl_dual_sum_find(c->sum, c->tried, hear, c);
      const bool better = now > best;
      if (better) {
        best = now;
        memcpy(weights, c->tried, size * sizeof *weights);
      }
      if (better || c->added > 0 || step == 1 || c->status != BL_OK) break;
    }
    if (best >= enough || best >= limit - TOLERANCE * c->known_us || bl_now_us() > deadline_us) break;
    if (c->added == 0 && round > 0) break;
  }
  *bound = fmax(*bound, best);
  glp_delete_prob(c->lp);
  return c->status;
}
#endif
