#include "planner/place/relay.h"
#include "base/memory.h"
#include <stdlib.h>
#include <string.h>

typedef enum tree { DIRECT, NODES, CHAIN, NODE_CHAIN, BINARY, TREES } tree;

enum { ROUNDS = 3 };

typedef struct fed {        /* an expert with copies */
  int32_t expert, first, n; /* its copies are order[first .. first + n] */
  tree tree;
  double latency_us;
} fed;

struct bl_relay {
  const bl_place_machine *machine;
  int32_t experts;
  double *out[BL_PLACE_MAX_LEVELS + 1], *in[BL_PLACE_MAX_LEVELS + 1]; /* [level][ranks]: microseconds of a byte more */
  int32_t *count;                                                     /* [experts] */
  fed *fed;                                                           /* [experts] */
  int32_t *order;                                                     /* [copies] */
  size_t room;
  int32_t *parent; /* [ranks]: in the tree of one expert, as positions: 0 the home, i the i-th copy */
  double *way_us;  /* [ranks] */
};

bl_status bl_relay_create(const bl_place_machine *machine, int32_t experts, bl_relay **out) {
  bl_relay *r;
  const char *what = "trees of copies";
  const size_t ranks = (size_t)machine->ranks;
  *out = NULL;
  BL_TRY(bl_new(&r, 1, sizeof *r, what));
  r->machine = machine;
  r->experts = experts;
  bl_status status = BL_OK;
  BL_TRY_GOTO(status, bl_new(&r->out[0], ranks * 2 * (BL_PLACE_MAX_LEVELS + 1), sizeof(double), what), fail);
  BL_TRY_GOTO(status, bl_new(&r->count, (size_t)experts, sizeof *r->count, what), fail);
  BL_TRY_GOTO(status, bl_new(&r->fed, (size_t)experts, sizeof *r->fed, what), fail);
  BL_TRY_GOTO(status, bl_new(&r->parent, ranks + 1, sizeof *r->parent, what), fail);
  BL_TRY_GOTO(status, bl_new(&r->way_us, ranks + 1, sizeof *r->way_us, what), fail);
  for (int l = 0; l <= BL_PLACE_MAX_LEVELS; ++l) {
    r->out[l] = r->out[0] + ranks * 2 * (size_t)l;
    r->in[l] = r->out[l] + ranks;
  }
  *out = r;
  return BL_OK;
fail:
  bl_relay_free(r);
  return status;
}

void bl_relay_free(bl_relay *r) {
  if (!r) return;
  free(r->out[0]);
  free(r->count);
  free(r->fed);
  free(r->order);
  free(r->parent);
  free(r->way_us);
  free(r);
}

/* `times` copies more (or fewer) from one rank to another.  @return : the busier of the ports passed. */
static double add_edge(bl_relay *r, int32_t from, int32_t to, double times) {
  const bl_place_machine *m = r->machine;
  const int32_t level = bl_place_level_between(m, from, to);
  double most = 0;
  for (int32_t l = level; l >= 1 && (l == level || l >= 2); --l) {
    const bl_place_level *at = &m->level[l - 1];
    const double us = times * 1e-3 / (at->gbps * at->sharing);
    const double out = r->out[l][from / at->sharing] += us, in = r->in[l][to / at->sharing] += us;
    if (out > most) most = out;
    if (in > most) most = in;
  }
  return most;
}

static double busiest(const bl_relay *r) {
  double most = 0;
  const size_t n = (size_t)r->machine->ranks * 2 * (BL_PLACE_MAX_LEVELS + 1);
  for (size_t i = 0; i < n; ++i)
    if (r->out[0][i] > most) most = r->out[0][i];
  return most;
}

/* Positions 1..n are the copies in order, 0 the home; parent[i] < i. */
static void shape(const bl_relay *r, const fed *f, tree kind, int32_t home, const bl_copy *copies) {
  const int32_t node = r->machine->level[0].ranks;
  int32_t head = 0, last_node = home / node;
  for (int32_t i = 1; i <= f->n; ++i) {
    const int32_t here = copies[r->order[f->first + i - 1]].rank / node;
    const bool leads = here != last_node;
    switch (kind) {
    case DIRECT:
    case TREES:
      r->parent[i] = 0;
      break;
    case NODES:
      r->parent[i] = leads ? 0 : head;
      break;
    case CHAIN:
      r->parent[i] = i - 1;
      break;
    case NODE_CHAIN:
      r->parent[i] = head;
      break;
    case BINARY:
      r->parent[i] = (i - 1) / 2;
      break;
    }
    if (leads) head = i;
    last_node = here;
  }
}

static int32_t rank_at(const bl_relay *r, const fed *f, int32_t position, int32_t home, const bl_copy *copies) {
  return position == 0 ? home : copies[r->order[f->first + position - 1]].rank;
}

/* Adds (or takes away) the edges of an expert's tree; the busiest port passed and the longest way. */
static double add_tree(bl_relay *r, fed *f, tree kind, int32_t home, const bl_copy *copies, double times) {
  double most = 0;
  f->latency_us = 0;
  shape(r, f, kind, home, copies);
  r->way_us[0] = 0;
  for (int32_t i = 1; i <= f->n; ++i) {
    const int32_t from = rank_at(r, f, r->parent[i], home, copies), to = rank_at(r, f, i, home, copies);
    const double us = add_edge(r, from, to, times);
    if (us > most) most = us;
    r->way_us[i] =
        r->way_us[r->parent[i]] + r->machine->level[bl_place_level_between(r->machine, from, to) - 1].latency_us;
    if (r->way_us[i] > f->latency_us) f->latency_us = r->way_us[i];
  }
  return most;
}

typedef struct sorting {
  const bl_copy *copies;
  const int32_t *home;
  int32_t node, nodes;
} sorting;

/* The home's node first, then round from there. */
static int32_t place_in_line(const sorting *s, int32_t copy) {
  const bl_copy *c = &s->copies[copy];
  const int32_t own = s->home[c->expert] / s->node;
  return ((c->rank / s->node - own + s->nodes) % s->nodes) * s->node + c->rank % s->node;
}

static int compare_copies(const void *a, const void *b, void *context) {
  const sorting *s = context;
  const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
  if (s->copies[x].expert != s->copies[y].expert) return s->copies[x].expert < s->copies[y].expert ? -1 : 1;
  const int32_t p = place_in_line(s, x), q = place_in_line(s, y);
  return (p > q) - (p < q);
}

static int more_copies_first(const void *a, const void *b) {
  const fed *x = a, *y = b;
  if (x->n != y->n) return x->n < y->n ? 1 : -1;
  return (x->expert > y->expert) - (x->expert < y->expert);
}

static bl_status list_experts(bl_relay *r, const int32_t *home, const bl_copy *copies, int32_t n, int32_t *n_fed) {
  const int32_t node = r->machine->level[0].ranks;
  sorting s = {copies, home, node, (r->machine->ranks + node - 1) / node};
  BL_TRY(bl_grow(&r->order, &r->room, (size_t)n, sizeof *r->order, "trees of copies"));
  for (int32_t i = 0; i < n; ++i) r->order[i] = i;
  qsort_r(r->order, (size_t)n, sizeof *r->order, compare_copies, &s);
  *n_fed = 0;
  for (int32_t i = 0; i < n; ++i) {
    if (i == 0 || copies[r->order[i]].expert != copies[r->order[i - 1]].expert)
      r->fed[(*n_fed)++] = (fed){.expert = copies[r->order[i]].expert, .first = i};
    ++r->fed[*n_fed - 1].n;
  }
  qsort(r->fed, (size_t)*n_fed, sizeof *r->fed, more_copies_first);
  return BL_OK;
}

/* What all trees cost, were `most` the busiest port and `latency_us` one of the ways. */
static double price(const bl_relay *r, double most, double latency_us) {
  return (r->machine->fill_bytes + r->machine->reduce_bytes) * most + 2 * latency_us;
}

static double longest_way(const bl_relay *r, int32_t n_fed, int32_t but) {
  double most = 0;
  for (int32_t i = 0; i < n_fed; ++i)
    if (i != but && r->fed[i].latency_us > most) most = r->fed[i].latency_us;
  return most;
}

/* The best tree for one expert, given all others; `rest` is their busiest port, `way_us` their longest way. */
static void choose_tree(bl_relay *r, fed *f, int32_t home, const bl_copy *copies, double rest, double way_us) {
  double best = 0;
  tree chosen = DIRECT;
  for (tree kind = DIRECT; kind < TREES; ++kind) {
    if (f->n == 1 && kind != DIRECT) break;
    const double most = add_tree(r, f, kind, home, copies, 1), latency_us = f->latency_us;
    add_tree(r, f, kind, home, copies, -1);
    const double all = price(r, most > rest ? most : rest, latency_us > way_us ? latency_us : way_us);
    const double own = price(r, most, latency_us); /* of equal prices the one that leaves others more room */
    const double value = all + 1e-6 * own;
    if (kind != DIRECT && !(value < best)) continue;
    best = value;
    chosen = kind;
  }
  f->tree = chosen;
  add_tree(r, f, chosen, home, copies, 1);
}

static void write_feeders(bl_relay *r, int32_t n_fed, const int32_t *home, const bl_copy *copies, int32_t *feeder) {
  for (int32_t k = 0; k < n_fed; ++k) {
    const fed *f = &r->fed[k];
    shape(r, f, f->tree, home[f->expert], copies);
    for (int32_t i = 1; i <= f->n; ++i)
      feeder[r->order[f->first + i - 1]] = rank_at(r, f, r->parent[i], home[f->expert], copies);
  }
}

bl_status bl_relay_choose(bl_relay *r, const int32_t *home, const bl_copy *copies, int32_t n, int32_t *feeder) {
  int32_t n_fed;
  if (n == 0) return BL_OK;
  BL_TRY(list_experts(r, home, copies, n, &n_fed));
  memset(r->out[0], 0, (size_t)r->machine->ranks * 2 * (BL_PLACE_MAX_LEVELS + 1) * sizeof(double));
  for (int32_t k = 0; k < n_fed; ++k) add_tree(r, &r->fed[k], DIRECT, home[r->fed[k].expert], copies, 1);
  double best = price(r, busiest(r), longest_way(r, n_fed, -1));
  for (int32_t k = 0; k < n_fed; ++k) r->fed[k].tree = DIRECT;
  write_feeders(r, n_fed, home, copies, feeder);
  for (int round = 0; round < ROUNDS; ++round) {
    for (int32_t k = 0; k < n_fed; ++k) {
      fed *f = &r->fed[k];
      add_tree(r, f, f->tree, home[f->expert], copies, -1);
      choose_tree(r, f, home[f->expert], copies, busiest(r), longest_way(r, n_fed, k));
    }
    const double now = price(r, busiest(r), longest_way(r, n_fed, -1));
    if (!(now < best)) break;
    best = now;
    write_feeders(r, n_fed, home, copies, feeder);
  }
  return BL_OK;
}
