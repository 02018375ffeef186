#include "planner/milp/shares_lp.h"
#include "base/memory.h"
#include "planner/milp/child.h"
#include <string.h>

#ifdef BL_HAVE_GLPK
#include <glpk.h>

/* Columns: 1 = the level, then experts at home, then copy slots. Rows: experts, then ranks. Terms count from 1. */
typedef struct terms {
  int *row, *column;
  double *value;
  int n;
} terms;

static void term(terms *t, int row, int column, double value) {
  ++t->n;
  t->row[t->n] = row;
  t->column[t->n] = column;
  t->value[t->n] = value;
}

/* Tokens of an expert on a rank: they count for the expert and for the rank. */
static void add_host(glp_prob *lp, terms *t, const bl_hosts *hosts, int column, int expert, int rank) {
  glp_set_col_bnds(lp, column, GLP_LO, 0, 0);
  term(t, 1 + expert, column, 1);
  term(t, 1 + hosts->experts + rank, column, 1);
}

static void build(glp_prob *lp, terms *t, const bl_hosts *hosts, const double *load, const double *speed, double mean) {
  const int experts = hosts->experts, ranks = hosts->ranks;
  glp_add_cols(lp, 1 + experts + hosts->n_copy_slots);
  glp_add_rows(lp, experts + ranks);
  glp_set_col_bnds(lp, 1, GLP_LO, 0, 0);
  glp_set_obj_coef(lp, 1, 1);
  for (int e = 0; e < experts; ++e) {
    glp_set_row_bnds(lp, 1 + e, GLP_FX, load[e] / mean, load[e] / mean);
    add_host(lp, t, hosts, 2 + e, e, hosts->home[e]);
  }
  for (int s = 0; s < hosts->n_copy_slots; ++s)
    if (hosts->copy_expert[s] >= 0) add_host(lp, t, hosts, 2 + experts + s, hosts->copy_expert[s], hosts->copy_rank[s]);
  for (int r = 0; r < ranks; ++r) { /* load <= speed * level */
    glp_set_row_bnds(lp, 1 + experts + r, GLP_UP, 0, 0);
    term(t, 1 + experts + r, 1, speed ? -speed[r] : -1.0);
  }
  glp_load_matrix(lp, t->n, t->row, t->column, t->value);
}

static bl_status minimise(glp_prob *lp, double *level) {
  glp_smcp options;
  glp_init_smcp(&options);
  options.msg_lev = GLP_MSG_OFF;
  options.tol_bnd = options.tol_dj = 1e-10; /* for comparing results, not for finding one */
  const int code = glp_simplex(lp, &options);
  if (code != 0 || glp_get_status(lp) != GLP_OPT)
    return bl_fail(BL_EMACHINE, "GLPK did not solve the linear program of shares (code %d, status %d)", code,
                   glp_get_status(lp));
  *level = glp_get_obj_val(lp);
  return BL_OK;
}

bl_status bl_shares_lp(const bl_hosts *hosts, const double *load, const double *speed, double *imbalance) {
  double sum = 0, speeds = 0;
  for (int32_t e = 0; e < hosts->experts; ++e) sum += load[e];
  for (int32_t r = 0; r < hosts->ranks; ++r) speeds += speed ? speed[r] : 1.0;
  *imbalance = 1.0;
  if (!(sum > 0)) return BL_OK;
  terms t = {.n = 0};
  const size_t room = 1 + 2 * (size_t)(hosts->experts + hosts->n_copy_slots) + (size_t)hosts->ranks;
  glp_term_out(GLP_OFF);
  glp_prob *lp = glp_create_prob();
  bl_status status = BL_OK;
  BL_TRY_GOTO(status, bl_new(&t.row, room, sizeof *t.row, "linear program"), done);
  BL_TRY_GOTO(status, bl_new(&t.column, room, sizeof *t.column, "linear program"), done);
  BL_TRY_GOTO(status, bl_new(&t.value, room, sizeof *t.value, "linear program"), done);
  build(lp, &t, hosts, load, speed, sum / speeds);
  status = minimise(lp, imbalance);
done:
  free(t.row);
  free(t.column);
  free(t.value);
  glp_delete_prob(lp);
  glp_free_env();
  return status;
}

#else

bl_status bl_shares_lp(const bl_hosts *hosts, const double *load, const double *speed, double *imbalance) {
  (void)hosts;
  (void)load;
  (void)speed;
  (void)imbalance;
  return bl_fail(BL_ENOTSUP, "the linear program of shares needs GLPK, which this build is without");
}

#endif

typedef struct question {
  const bl_hosts *hosts;
  const double *load, *speed;
} question;

static void answer(bl_child_pipe *pipe, void *context) {
  const question *q = context;
  double imbalance;
  if (bl_shares_lp(q->hosts, q->load, q->speed, &imbalance) != BL_OK) bl_child_fail(pipe, false, bl_error_text());
  bl_child_send(pipe, 1, &imbalance, sizeof imbalance);
}

static bool take(void *context, uint32_t kind, const void *payload, uint32_t bytes) {
  if (kind != 1 || bytes != sizeof(double)) return false;
  memcpy(context, payload, bytes);
  return true;
}

bl_status bl_shares_lp_in_child(const bl_hosts *hosts, const double *load, const double *speed, double seconds,
                                double *imbalance) {
  question q = {.hosts = hosts, .load = load, .speed = speed};
  const bl_child_limits limits = {.seconds = seconds, .max_message = sizeof(double)};
  bl_child_report report;
  *imbalance = 0;
  return bl_child_run(&limits, answer, &q, take, imbalance, &report);
}
