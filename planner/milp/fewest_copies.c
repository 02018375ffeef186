#include "planner/milp/fewest_copies.h"
#include "base/memory.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

#ifdef BL_HAVE_GLPK
#include <glpk.h>

/* A program in the making: GLPK wants coefficients as (row, column, value), counted from 1. */
typedef struct program {
  const bl_mip_task *task;
  bl_child_pipe *pipe;
  glp_prob *lp;
  int *row, *column;
  double *value;
  int n, room;
  int *y, *f;         /* [experts * ranks]: columns, 0 = none */
  double *start;      /* [columns + 1]: the warm start */
  bool start_offered; /* glp_ios_heur_sol has been called */
  bool warm_started;  /* and took it */
  double bound;       /* last sent */
  int64_t nodes;
  char last_words[120]; /* what GLPK printed last: the reason when it aborts */
} program;

static int at(const program *p, int32_t e, int32_t r) { return e * p->task->problem->ranks + r; }

static void term(program *p, int row, int column, double value) {
  if (p->n == p->room) bl_child_fail(p->pipe, false, "the program has more terms than counted");
  ++p->n;
  p->row[p->n] = row;
  p->column[p->n] = column;
  p->value[p->n] = value;
}

static void need(program *p, bl_status status) {
  if (status != BL_OK) bl_child_fail(p->pipe, true, bl_error_text());
}

static int add_row(program *p, int type, double lower, double upper) {
  const int row = glp_add_rows(p->lp, 1);
  glp_set_row_bnds(p->lp, row, type, lower, upper);
  return row;
}

/* What y[e][r] = 1 adds to the price: a copy, less the move that it spares. */
static double coefficient(const bl_fewest *problem, int32_t e, int32_t r) {
  return problem->current && problem->current[e] == r ? 1 - problem->move_price : 1;
}

/* What the price is when all coefficients sum to 0: one host of every expert is no copy, all current homes are left. */
static double constant(const bl_fewest *problem) {
  const double moves = problem->current ? problem->move_price * problem->experts : 0;
  return problem->home ? 0 : moves - problem->experts;
}

static void add_columns(program *p) {
  const bl_fewest *problem = p->task->problem;
  for (int32_t e = 0; e < problem->experts; ++e)
    for (int32_t r = 0; r < problem->ranks; ++r) {
      if (problem->home && problem->home[e] == r) continue;
      const int y = glp_add_cols(p->lp, 2), f = y + 1;
      p->y[at(p, e, r)] = y;
      p->f[at(p, e, r)] = f;
      glp_set_col_kind(p->lp, y, GLP_BV);
      glp_set_obj_coef(p->lp, y, coefficient(problem, e, r));
      const double most = fmin(problem->load[e], bl_fewest_cap(problem, r));
      if (most > 0)
        glp_set_col_bnds(p->lp, f, GLP_DB, 0, most);
      else
        glp_set_col_bnds(p->lp, f, GLP_FX, 0, 0);
      const int link = add_row(p, GLP_UP, 0, 0); /* f <= most * y */
      term(p, link, f, 1);
      term(p, link, y, -most);
    }
}

static void add_expert_rows(program *p) {
  const bl_fewest *problem = p->task->problem;
  for (int32_t e = 0; e < problem->experts; ++e) {
    /* given homes: copies take no more than the load; free homes: hosts take it all, and there are enough of them */
    const bool given = problem->home != NULL;
    const int load = add_row(p, given ? GLP_UP : GLP_FX, problem->load[e], problem->load[e]);
    for (int32_t r = 0; r < problem->ranks; ++r)
      if (p->f[at(p, e, r)]) term(p, load, p->f[at(p, e, r)], 1);
    if (given) continue;
    const int enough = add_row(p, GLP_LO, fmax(1, ceil(problem->load[e] / bl_fewest_largest_cap(problem))), 0);
    for (int32_t r = 0; r < problem->ranks; ++r) term(p, enough, p->y[at(p, e, r)], 1);
  }
}

static void add_rank_rows(program *p) {
  const bl_fewest *problem = p->task->problem;
  for (int32_t r = 0; r < problem->ranks; ++r) {
    double homes = 0;
    int32_t n_homes = 0;
    for (int32_t e = 0; problem->home && e < problem->experts; ++e)
      if (problem->home[e] == r) {
        homes += problem->load[e];
        ++n_homes;
      }
    const int load = add_row(p, GLP_UP, 0, bl_fewest_cap(problem, r) - homes);
    const int slots = add_row(p, GLP_UP, 0, problem->slots[r] - n_homes);
    for (int32_t e = 0; e < problem->experts; ++e) {
      if (p->f[at(p, e, r)]) {
        term(p, load, p->f[at(p, e, r)], 1);
        term(p, slots, p->y[at(p, e, r)], 1);
      } else {
        for (int32_t other = 0; other < problem->ranks; ++other)
          if (p->f[at(p, e, other)]) term(p, load, p->f[at(p, e, other)], -1);
      }
    }
  }
}

static void add_bound_row(program *p) {
  const bl_fewest *problem = p->task->problem;
  const int row = add_row(p, GLP_LO, p->task->bound - constant(problem), 0);
  for (int32_t e = 0; e < problem->experts; ++e)
    for (int32_t r = 0; r < problem->ranks; ++r)
      if (p->y[at(p, e, r)] && coefficient(problem, e, r) != 0)
        term(p, row, p->y[at(p, e, r)], coefficient(problem, e, r));
}

static bool start_hosts(const bl_hosts *start, int32_t e, int32_t r) {
  if (start->home[e] == r) return true;
  for (int32_t s = 0; s < start->n_copy_slots; ++s)
    if (start->copy_rank[s] == r && start->copy_expert[s] == e) return true;
  return false;
}

/* Ranks with the same slots can be exchanged. Numbered by their first appearance among the hosts of the hottest expert,
 * the second hottest, ..., the i-th has a host among the first i ranks; numbers are those of the start, which keeps it
 * feasible. */
static void add_symmetry_rows(program *p) {
  const bl_fewest *problem = p->task->problem;
  if (problem->home || problem->current || !p->task->start || !bl_fewest_ranks_alike(problem)) return;
  bool *used, *seen;
  need(p, bl_new(&used, (size_t)problem->experts, sizeof *used, "symmetry"));
  need(p, bl_new(&seen, (size_t)problem->ranks, sizeof *seen, "symmetry"));
  for (int32_t i = 0; i < problem->ranks - 1 && i < problem->experts; ++i) {
    int32_t e = -1;
    for (int32_t other = 0; other < problem->experts; ++other)
      if (!used[other] && (e < 0 || problem->load[other] > problem->load[e])) e = other;
    used[e] = true;
    bool among_seen = false;
    int32_t first = -1;
    for (int32_t r = 0; r < problem->ranks; ++r) {
      if (!start_hosts(p->task->start, e, r)) continue;
      among_seen = among_seen || seen[r];
      if (first < 0) first = r;
    }
    if (!among_seen) seen[first] = true;
    const int row = add_row(p, GLP_LO, 1, 0);
    for (int32_t r = 0; r < problem->ranks; ++r)
      if (seen[r]) term(p, row, p->y[at(p, e, r)], 1);
  }
  free(used);
  free(seen);
}

/* The start as a point of the program: shares make the flows. */
static void set_start(program *p) {
  const bl_fewest *problem = p->task->problem;
  const bl_hosts *start = p->task->start;
  if (!start || p->task->cold) return;
  bl_shares *shares;
  need(p, bl_shares_create(problem->experts, problem->ranks, start->n_copy_slots, &shares));
  need(p, bl_new(&p->start, (size_t)glp_get_num_cols(p->lp) + 1, sizeof *p->start, "warm start"));
  bl_shares_solve(shares, start, problem->load, problem->speed);
  for (int32_t e = 0; e < problem->experts && !problem->home; ++e) {
    p->start[p->y[at(p, e, start->home[e])]] = 1;
    p->start[p->f[at(p, e, start->home[e])]] = bl_shares_home_tokens(shares, e);
  }
  for (int32_t s = 0; s < start->n_copy_slots; ++s) {
    if (start->copy_expert[s] < 0) continue;
    const int i = at(p, start->copy_expert[s], start->copy_rank[s]);
    p->start[p->y[i]] = 1;
    p->start[p->f[i]] = bl_shares_copy_tokens(shares, s);
  }
  bl_shares_free(shares);
}

static void build(program *p) {
  const bl_fewest *problem = p->task->problem;
  const size_t pairs = (size_t)problem->experts * (size_t)problem->ranks;
  p->room = (int)pairs * 8;
  need(p, bl_new(&p->row, (size_t)p->room + 1, sizeof *p->row, "program"));
  need(p, bl_new(&p->column, (size_t)p->room + 1, sizeof *p->column, "program"));
  need(p, bl_new(&p->value, (size_t)p->room + 1, sizeof *p->value, "program"));
  need(p, bl_new(&p->y, pairs, sizeof *p->y, "program"));
  need(p, bl_new(&p->f, pairs, sizeof *p->f, "program"));
  p->lp = glp_create_prob();
  glp_set_obj_dir(p->lp, GLP_MIN);
  add_columns(p);
  add_expert_rows(p);
  add_rank_rows(p);
  add_bound_row(p);
  add_symmetry_rows(p);
  glp_load_matrix(p->lp, p->n, p->row, p->column, p->value);
  set_start(p);
}

static void send_placement(program *p) {
  const bl_fewest *problem = p->task->problem;
  const int32_t pairs = problem->experts * problem->ranks;
  uint8_t *hosts;
  need(p, bl_new(&hosts, (size_t)pairs, 1, "placement"));
  for (int32_t e = 0; e < problem->experts; ++e)
    for (int32_t r = 0; r < problem->ranks; ++r) {
      const int y = p->y[at(p, e, r)];
      hosts[at(p, e, r)] = y ? glp_mip_col_val(p->lp, y) > 0.5 : 1; /* no column: the given home */
    }
  bl_child_send(p->pipe, BL_MIP_PLACEMENT, hosts, (uint32_t)pairs);
  free(hosts);
}

/* Prices are whole where that of a move is. */
static bool whole_prices(const bl_fewest *problem) {
  return !problem->current || problem->move_price == floor(problem->move_price);
}

static void send_bound(program *p, double value) {
  const bl_fewest *problem = p->task->problem;
  const double price = value + constant(problem) - 1e-6, bound = whole_prices(problem) ? ceil(price) : price;
  if (!(bound > p->bound) || value > 1e9) return;
  p->bound = bound;
  bl_child_send(p->pipe, BL_MIP_BOUND, &bound, sizeof bound);
}

static void on_event(glp_tree *tree, void *info) {
  program *p = info;
  int open, all;
  switch (glp_ios_reason(tree)) {
  case GLP_IHEUR:
    if (p->start && !p->start_offered) {
      p->start_offered = true;
      p->warm_started = glp_ios_heur_sol(tree, p->start) == 0;
    }
    break;
  case GLP_IBINGO:
    send_placement(p);
    break;
  case GLP_ISELECT: {
    const int best = glp_ios_best_node(tree);
    if (best) send_bound(p, glp_ios_node_bound(tree, best));
    break;
  }
  default:
    break;
  }
  glp_ios_tree_size(tree, &open, NULL, &all);
  p->nodes = all;
}

/* GLPK never prints: its words are kept. When it aborts, the last but "Error detected in file ..." say why. */
static int keep_words(void *info, const char *text) {
  program *p = info;
  if (text[0] == '\n' || text[0] == '\0' || strncmp(text, "Error detected", 14) == 0) return 1;
  snprintf(p->last_words, sizeof p->last_words, "GLPK aborted: %s", text);
  return 1;
}

static void on_abort(void *info) {
  program *p = info;
  bl_child_fail(p->pipe, strstr(p->last_words, "memory") != NULL, p->last_words);
}

static int milliseconds(double seconds) { return seconds > 1e6 ? 1000000000 : (int)(seconds * 1000); }

static bl_mip_result solve(program *p) {
  glp_smcp simplex;
  glp_init_smcp(&simplex);
  simplex.msg_lev = GLP_MSG_OFF;
  simplex.tm_lim = milliseconds(p->task->seconds);
  bl_mip_result result = {.verdict = BL_MIP_STOPPED};
  if (glp_simplex(p->lp, &simplex) != 0) return result;
  if (glp_get_status(p->lp) == GLP_NOFEAS) {
    result.verdict = BL_MIP_INFEASIBLE;
    return result;
  }
  if (glp_get_status(p->lp) != GLP_OPT) return result;
  send_bound(p, glp_get_obj_val(p->lp));
  glp_iocp options;
  glp_init_iocp(&options);
  options.msg_lev = GLP_MSG_OFF;
  options.presolve = GLP_OFF; /* the callback must see our columns */
  options.mir_cuts = GLP_ON;
  options.tm_lim = milliseconds(p->task->seconds);
  options.cb_func = on_event;
  options.cb_info = p;
  const int code = glp_intopt(p->lp, &options);
  const int status = glp_mip_status(p->lp);
  if (code == 0 && status == GLP_OPT) {
    result.verdict = BL_MIP_OPTIMAL;
    result.price = glp_mip_obj_val(p->lp) + constant(p->task->problem);
    if (whole_prices(p->task->problem)) result.price = round(result.price);
  } else if (code == 0 && status == GLP_NOFEAS) {
    result.verdict = BL_MIP_INFEASIBLE;
  }
  return result;
}

void bl_fewest_copies_body(bl_child_pipe *pipe, void *context) {
  program p = {.task = context, .pipe = pipe};
  p.bound = p.task->bound;
  glp_init_env();
  glp_term_hook(keep_words, &p);
  glp_error_hook(on_abort, &p);
  if (p.task->memory_bytes > 0) glp_mem_limit((int)fmin(ceil((double)p.task->memory_bytes / (1 << 20)), 1 << 30));
  build(&p);
  bl_mip_result result = solve(&p);
  result.warm_started = p.warm_started;
  result.nodes = p.nodes;
  bl_child_send(pipe, BL_MIP_RESULT, &result, sizeof result);
}

#else

void bl_fewest_copies_body(bl_child_pipe *pipe, void *context) {
  (void)context;
  bl_child_fail(pipe, false, "this program was built without GLPK");
}

#endif
