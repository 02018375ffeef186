/* op_cases_moe.h - cases of the operations of the MoE part: gates, routing, rows, grouped products. */
#ifndef BL_TESTS_EXEC_OP_CASES_MOE_H
#define BL_TESTS_EXEC_OP_CASES_MOE_H

#include "tests/exec/op_check.h"

typedef struct gate_shape {
  int32_t T, E, K;
  const int32_t *chosen;
} gate_shape;

static const gate_shape gate_shapes[] = {
    {1, 1, 1, NULL}, {5, 2, 2, NULL}, {9, 8, 2, NULL}, {7, 33, 4, NULL}, {4, 16, 16, NULL}, {6, 5, 1, NULL},
};

/* Every second case draws from few values, so that ties are common. */
static tensor gate_logits(const gate_shape *g, bool ties) {
  tensor logits = random_floats(g->T * g->E, 3.0);
  for (int64_t i = 0; i < logits.n && ties; i++) logits.host.f[i] = roundf(logits.host.f[i] * 0.5f);
  up(&logits);
  return logits;
}

/* By repeated scanning for the largest not yet taken; the first one found wins a tie. */
static int32_t *largest_k(const gate_shape *g, const float *logits) {
  int32_t *chosen = op_new((size_t)(g->T * g->K), sizeof *chosen);
  for (int32_t t = 0; t < g->T; t++) {
    for (int32_t c = 0; c < g->K; c++) {
      int32_t best = -1;
      for (int32_t e = 0; e < g->E; e++) {
        bool taken = false;
        for (int32_t d = 0; d < c; d++) taken |= chosen[t * g->K + d] == e;
        if (!taken && (best < 0 || logits[t * g->E + e] > logits[t * g->E + best])) best = e;
      }
      chosen[t * g->K + c] = best;
    }
  }
  return chosen;
}

/* in: logits[T][E]; out: weight[T][K], softmax over the chosen */
static void top_k_formula(const void *shape, const double *in, double *out) {
  const gate_shape *g = shape;
  for (int32_t t = 0; t < g->T; t++) {
    double sum = 0.0;
    for (int32_t c = 0; c < g->K; c++) sum += exp(in[t * g->E + g->chosen[t * g->K + c]]);
    for (int32_t c = 0; c < g->K; c++) {
      out[t * g->K + c] = exp(in[t * g->E + g->chosen[t * g->K + c]]) / sum;
    }
  }
}

static void test_gate_top_k(void) {
  for (int i = 0; i < 2 * COUNT(gate_shapes); i++) {
    gate_shape g = gate_shapes[i / 2];
    CASE("gate_top_k T %d E %d K %d ties %d", g.T, g.E, g.K, i & 1);
    tensor logits = gate_logits(&g, i & 1), weight = poison(g.T * g.K), expert = random_ints(g.T * g.K, 1);
    int32_t *chosen = largest_k(&g, logits.host.f);
    g.chosen = chosen;
    double *want = evaluate_of(top_k_formula, &g, (const tensor *[]){&logits}, 1, weight.n);
    CALL(gate_top_k, expert.device, weight.device, logits.device, g.T, g.E, g.K);
    same_bits("expert", &expert, chosen);
    close_to("weight", &weight, want, NULL, 3e-7);
    free(want), free(chosen);
    drop(&logits), drop(&weight), drop(&expert);
  }
}

static void test_gate_top_k_bwd(void) {
  for (int i = 0; i < COUNT(gate_shapes); i++) {
    gate_shape g = gate_shapes[i];
    CASE("gate_top_k_bwd T %d E %d K %d", g.T, g.E, g.K);
    tensor logits = gate_logits(&g, false), weight = poison(g.T * g.K), expert = random_ints(g.T * g.K, 1);
    tensor dlogits = poison(logits.n), dweight = random_floats(weight.n, 1.0);
    dweight.host.f[0] = 0.0f; /* a dropped choice */
    up(&dweight);
    CALL(gate_top_k, expert.device, weight.device, logits.device, g.T, g.E, g.K);
    down(&expert);
    g.chosen = expert.host.i;
    double *want = difference_of(top_k_formula, &g, (const tensor *[]){&logits}, 1, &dweight);
    CALL(gate_top_k_bwd, dlogits.device, dweight.device, weight.device, expert.device, g.T, g.E, g.K);
    close_to("dlogits", &dlogits, want, NULL, 1e-6);
    free(want);
    drop(&logits), drop(&weight), drop(&expert), drop(&dlogits), drop(&dweight);
  }
}

/* in: logits[T][E]; out: weight[T], the chosen one's probability among all */
static void switch_formula(const void *shape, const double *in, double *out) {
  const gate_shape *g = shape;
  for (int32_t t = 0; t < g->T; t++) {
    double sum = 0.0;
    for (int32_t e = 0; e < g->E; e++) sum += exp(in[t * g->E + e]);
    out[t] = exp(in[t * g->E + g->chosen[t]]) / sum;
  }
}

static void test_gate_switch(void) {
  for (int i = 0; i < 2 * COUNT(gate_shapes); i++) {
    gate_shape g = gate_shapes[i / 2];
    g.K = 1;
    CASE("gate_switch T %d E %d ties %d", g.T, g.E, i & 1);
    tensor logits = gate_logits(&g, i & 1), weight = poison(g.T), expert = random_ints(g.T, 1);
    int32_t *chosen = largest_k(&g, logits.host.f);
    g.chosen = chosen;
    double *want = evaluate_of(switch_formula, &g, (const tensor *[]){&logits}, 1, weight.n);
    CALL(gate_switch, expert.device, weight.device, logits.device, g.T, g.E);
    same_bits("expert", &expert, chosen);
    close_to("weight", &weight, want, NULL, 3e-7);
    free(want), free(chosen);
    drop(&logits), drop(&weight), drop(&expert);
  }
}

static void test_gate_switch_bwd(void) {
  for (int i = 0; i < COUNT(gate_shapes); i++) {
    gate_shape g = gate_shapes[i];
    CASE("gate_switch_bwd T %d E %d", g.T, g.E);
    tensor logits = gate_logits(&g, false), chosen = random_ints(g.T, g.E); /* any choice has a gradient */
    tensor dlogits = poison(logits.n), dweight = random_floats(g.T, 1.0);
    g.chosen = chosen.host.i;
    double *want = difference_of(switch_formula, &g, (const tensor *[]){&logits}, 1, &dweight);
    CALL(gate_switch_bwd, dlogits.device, dweight.device, logits.device, chosen.device, g.T, g.E);
    close_to("dlogits", &dlogits, want, NULL, 1e-6);
    free(want);
    drop(&logits), drop(&chosen), drop(&dlogits), drop(&dweight);
  }
}

typedef struct balance_shape {
  int32_t sequences, seq, E, K;
  const int32_t *chosen;
} balance_shape;

static const double BALANCE = 0.7; /* the coefficient */

/* in: logits[T][E]; out: loss[sequences] */
static void balance_formula(const void *shape, const double *in, double *out) {
  const balance_shape *b = shape;
  for (int32_t q = 0; q < b->sequences; q++) {
    out[q] = 0.0;
    for (int32_t e = 0; e < b->E; e++) {
      double fraction = 0.0, mean = 0.0;
      for (int32_t t = q * b->seq; t < (q + 1) * b->seq; t++) {
        double sum = 0.0;
        for (int32_t k = 0; k < b->E; k++) sum += exp(in[t * b->E + k]);
        mean += exp(in[t * b->E + e]) / sum / b->seq;
        if (b->chosen[t * b->K] == e) fraction += 1.0 / b->seq;
      }
      out[q] += BALANCE * b->E * fraction * mean;
    }
  }
}

static void test_gate_balance(void) {
  const balance_shape shapes[] = {{1, 1, 1, 1, NULL}, {2, 5, 3, 2, NULL}, {3, 4, 8, 2, NULL}, {1, 7, 19, 1, NULL}};
  for (int i = 0; i < COUNT(shapes); i++) {
    balance_shape b = shapes[i];
    const int32_t T = b.sequences * b.seq;
    const float scale = 0.25f;
    CASE("gate_balance %d x %d E %d K %d", b.sequences, b.seq, b.E, b.K);
    tensor logits = random_floats(T * b.E, 2.0), chosen = random_ints(T * b.K, b.E), loss = poison(b.sequences);
    tensor dlogits = random_floats(logits.n, 1.0), cotangent = poison(b.sequences);
    for (int32_t q = 0; q < b.sequences; q++) cotangent.host.f[q] = scale;
    float *before = snapshot(&dlogits);
    b.chosen = chosen.host.i;
    double *want = evaluate_of(balance_formula, &b, (const tensor *[]){&logits}, 1, loss.n);
    double *gradient = difference_of(balance_formula, &b, (const tensor *[]){&logits}, 1, &cotangent);
    CALL(gate_balance, loss.device, NULL, logits.device, chosen.device, b.sequences, b.seq, b.E, b.K, (float)BALANCE,
         scale);
    close_to("loss without gradient", &loss, want, NULL, 1e-6);
    CALL(gate_balance, loss.device, dlogits.device, logits.device, chosen.device, b.sequences, b.seq, b.E, b.K,
         (float)BALANCE, scale);
    close_to("loss", &loss, want, NULL, 1e-6);
    close_to("dlogits", &dlogits, gradient, before, 1e-6);
    free(want), free(gradient), free(before);
    drop(&logits), drop(&chosen), drop(&loss), drop(&dlogits), drop(&cotangent);
  }
}

/* Ids in 0..E-1, about one in eight dropped (negative). */
static tensor routed_experts(int64_t n, int32_t E) {
  tensor expert = random_ints(n, E);
  for (int64_t i = 0; i < n; i++) {
    if (bl_rng_below(&op_rng, 8) == 0) expert.host.i[i] = -1 - (int32_t)bl_rng_below(&op_rng, 3);
  }
  up(&expert);
  return expert;
}

static void test_histogram(void) {
  const int64_t sizes[] = {0, 1, 17, 500};
  for (int i = 0; i < COUNT(sizes); i++) {
    enum { E = 11 };
    CASE("histogram n %lld", (long long)sizes[i]);
    tensor expert = routed_experts(sizes[i], E), counts = random_ints(E, 1000);
    uint32_t want[E] = {0};
    for (int32_t e = 0; e < E; e++) {
      for (int64_t k = 0; k < sizes[i]; k++) want[e] += expert.host.i[k] == e;
    }
    CALL(histogram, counts.device, expert.device, sizes[i], E);
    same_bits("counts", &counts, want);
    drop(&expert), drop(&counts);
  }
}

/* Splits each expert's count at random over 1..3 hosts (some with quota 0) and gives every host entry its own rows. */
static int32_t random_quotas(const int32_t *expert, int64_t n, int32_t E, int32_t *first, uint32_t *quota,
                             int32_t *dest_row) {
  int32_t entries = 0, row = 0;
  for (int32_t e = 0; e < E; e++) {
    uint32_t left = 0;
    for (int64_t i = 0; i < n; i++) left += expert[i] == e;
    first[e] = entries;
    const int32_t hosts = 1 + (int32_t)bl_rng_below(&op_rng, 3);
    for (int32_t h = 0; h < hosts; h++, entries++) {
      quota[entries] = h + 1 == hosts ? left : (uint32_t)bl_rng_below(&op_rng, left + 1);
      left -= quota[entries];
      dest_row[entries] = row;
      row += (int32_t)quota[entries] + (int32_t)bl_rng_below(&op_rng, 3);
    }
  }
  first[E] = entries;
  return row;
}

static void test_route_rows(void) {
  enum { E = 7 };
  const int64_t sizes[] = {0, 1, 40, 333};
  for (int i = 0; i < 3 * COUNT(sizes); i++) {
    const int64_t n = sizes[i / 3];
    CASE("route_rows n %lld", (long long)n);
    int32_t first[E + 1], dest_row[3 * E];
    uint32_t quota[3 * E], taken[3 * E] = {0};
    tensor expert = routed_experts(n, E), row = random_ints(n, 1000);
    random_quotas(expert.host.i, n, E, first, quota, dest_row);
    int32_t *want = op_new((size_t)n, sizeof *want);
    for (int64_t k = 0; k < n; k++) {
      want[k] = -1;
      const int32_t e = expert.host.i[k];
      for (int32_t h = e < 0 ? 0 : first[e]; e >= 0 && want[k] < 0 && h < first[e + 1]; h++) {
        if (taken[h] < quota[h]) want[k] = dest_row[h] + (int32_t)taken[h]++;
      }
    }
    CALL(route_rows, row.device, expert.device, n, E, first, quota, dest_row);
    same_bits("row", &row, want);
    free(want);
    drop(&expert), drop(&row);
  }
}

typedef struct rows_shape {
  int32_t T, K, H, rows; /* rows of the send buffer; some stay unused */
  const int32_t *row;
} rows_shape;

static const rows_shape rows_shapes[] = {
    {1, 1, 1, 1, NULL}, {5, 2, 7, 12, NULL}, {6, 3, 33, 20, NULL}, {4, 1, 16, 4, NULL}};

/* Distinct rows in random order, about one in five dropped. */
static tensor random_rows(const rows_shape *r) {
  tensor row = tensor_of(r->T * r->K, sizeof(int32_t), 0);
  bool *used = op_new((size_t)r->rows, sizeof *used);
  for (int64_t i = 0; i < row.n; i++) {
    row.host.i[i] = -1;
    if (i > 0 && bl_rng_below(&op_rng, 5) == 0) continue;
    do {
      row.host.i[i] = (int32_t)bl_rng_below(&op_rng, (uint64_t)r->rows);
    } while (used[row.host.i[i]]);
    used[row.host.i[i]] = true;
  }
  free(used);
  up(&row);
  return row;
}

/* in: x[T][H]; out: send[rows][H] */
static void scatter_formula(const void *shape, const double *in, double *out) {
  const rows_shape *r = shape;
  memset(out, 0, sizeof *out * (size_t)(r->rows * r->H));
  for (int32_t i = 0; i < r->T * r->K; i++) {
    for (int32_t h = 0; h < r->H && r->row[i] >= 0; h++) out[r->row[i] * r->H + h] = in[i / r->K * r->H + h];
  }
}

static void test_rows_scatter(void) {
  for (int i = 0; i < COUNT(rows_shapes); i++) {
    rows_shape r = rows_shapes[i];
    CASE("rows_scatter T %d K %d H %d", r.T, r.K, r.H);
    tensor row = random_rows(&r), x = random_floats(r.T * r.H, 1.0), send = random_floats(r.rows * r.H, 1.0);
    float *want = snapshot(&send); /* rows that no copy goes to stay as they are */
    for (int32_t k = 0; k < row.n; k++) {
      if (row.host.i[k] < 0) continue;
      memcpy(want + row.host.i[k] * r.H, x.host.f + k / r.K * r.H, sizeof(float) * (size_t)r.H);
    }
    CALL(rows_scatter, send.device, x.device, row.device, r.T, r.K, r.H);
    same_bits("send", &send, want);
    free(want);
    drop(&row), drop(&x), drop(&send);
  }
}

static void test_rows_gather(void) {
  const int32_t sizes[] = {0, 1, 13};
  for (int i = 0; i < COUNT(sizes); i++) {
    enum { ROWS = 9, H = 5 };
    CASE("rows_gather n %d", sizes[i]);
    tensor index = random_ints(sizes[i], ROWS + 2), x = random_floats(ROWS * H, 1.0), y = poison(sizes[i] * H);
    for (int32_t k = 0; k < index.n; k++)
      if (index.host.i[k] >= ROWS) index.host.i[k] = -1; /* zeros */
    up(&index);
    float *want = snapshot(&y);
    for (int32_t k = 0; k < y.n; k++)
      want[k] = index.host.i[k / H] < 0 ? 0 : x.host.f[index.host.i[k / H] * H + k % H];
    CALL(rows_gather, y.device, x.device, index.device, sizes[i], H);
    same_bits("y", &y, want);
    free(want);
    drop(&index), drop(&x), drop(&y);
  }
}

/* in: back[rows][H], weight[T][K]; out: y[T][H] */
static void combine_formula(const void *shape, const double *in, double *out) {
  const rows_shape *r = shape;
  memset(out, 0, sizeof *out * (size_t)(r->T * r->H));
  for (int32_t i = 0; i < r->T * r->K; i++) {
    for (int32_t h = 0; h < r->H && r->row[i] >= 0; h++) {
      out[i / r->K * r->H + h] += in[r->rows * r->H + i] * in[r->row[i] * r->H + h];
    }
  }
}

static void test_combine_fwd(void) {
  for (int i = 0; i < COUNT(rows_shapes); i++) {
    rows_shape r = rows_shapes[i];
    CASE("combine_fwd T %d K %d H %d", r.T, r.K, r.H);
    tensor row = random_rows(&r), back = random_floats(r.rows * r.H, 1.0), weight = random_floats(r.T * r.K, 1.0);
    tensor y = random_floats(r.T * r.H, 1.0);
    float *before = snapshot(&y);
    r.row = row.host.i;
    double *want = evaluate_of(combine_formula, &r, (const tensor *[]){&back, &weight}, 2, y.n);
    CALL(combine_fwd, y.device, back.device, weight.device, row.device, r.T, r.K, r.H);
    close_to("y", &y, want, before, 1e-6);
    free(want), free(before);
    drop(&row), drop(&back), drop(&weight), drop(&y);
  }
}

/* Rows that no copy has must still be poisoned; they become the zeros that differences give. */
static void clear_unused_rows(const rows_shape *r, tensor *got) {
  bool poisoned = true;
  down(got);
  for (int32_t row = 0; row < r->rows; row++) {
    bool used = false;
    for (int32_t i = 0; i < r->T * r->K; i++) used |= r->row[i] == row;
    for (int32_t h = 0; h < r->H && !used; h++) {
      poisoned &= isnan(got->host.f[row * r->H + h]);
      got->host.f[row * r->H + h] = 0.0f;
    }
  }
  up(got);
  if (!check_count(poisoned)) printf("%s: a row without a copy was written\n", op_case);
}

static void test_combine_bwd(void) {
  for (int i = 0; i < COUNT(rows_shapes); i++) {
    rows_shape r = rows_shapes[i];
    CASE("combine_bwd T %d K %d H %d", r.T, r.K, r.H);
    tensor row = random_rows(&r), back = random_floats(r.rows * r.H, 1.0), weight = random_floats(r.T * r.K, 1.0);
    tensor dy = random_floats(r.T * r.H, 1.0), dback = poison(back.n), dweight = poison(weight.n);
    r.row = row.host.i;
    double *want = difference_of(combine_formula, &r, (const tensor *[]){&back, &weight}, 2, &dy);
    CALL(combine_bwd, dback.device, dweight.device, dy.device, back.device, weight.device, row.device, r.T, r.K, r.H);
    clear_unused_rows(&r, &dback);
    close_to("dback", &dback, want, NULL, 1e-6);
    close_to("dweight", &dweight, want + back.n, NULL, 1e-6);
    free(want);
    drop(&row), drop(&back), drop(&weight), drop(&dy), drop(&dback), drop(&dweight);
  }
}

static void test_rows_sum(void) {
  for (int i = 0; i < COUNT(rows_shapes); i++) {
    rows_shape r = rows_shapes[i];
    CASE("rows_sum T %d K %d H %d", r.T, r.K, r.H);
    tensor row = random_rows(&r), x = random_floats(r.T * r.H, 1.0), dsend = random_floats(r.rows * r.H, 1.0);
    float *before = snapshot(&x);
    r.row = row.host.i;
    double *want = difference_of(scatter_formula, &r, (const tensor *[]){&x}, 1, &dsend);
    CALL(rows_sum, x.device, dsend.device, row.device, r.T, r.K, r.H);
    close_to("dx", &x, want, before, 1e-6);
    free(want), free(before);
    drop(&row), drop(&x), drop(&dsend);
  }
}

#endif
