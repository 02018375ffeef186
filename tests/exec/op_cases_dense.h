/* op_cases_dense.h - cases of the operations of the dense part: embedding, LayerNorm, linear, attention, elementwise.
 */
#ifndef BL_TESTS_EXEC_OP_CASES_DENSE_H
#define BL_TESTS_EXEC_OP_CASES_DENSE_H

#include "tests/exec/op_check.h"

typedef struct embed_shape {
  int32_t T, seq, H, V;
  const int32_t *token;
} embed_shape;

static void embed_formula(const void *shape, const double *in, double *out) {
  const embed_shape *e = shape;
  for (int32_t t = 0; t < e->T; t++) {
    for (int32_t i = 0; i < e->H; i++) {
      out[t * e->H + i] = in[e->token[t] * e->H + i] + in[(e->V + t % e->seq) * e->H + i];
    }
  }
}

static const embed_shape embed_shapes[] = {{1, 1, 1, 1, NULL}, {6, 3, 5, 4, NULL}, {10, 5, 33, 7, NULL}};

static void test_embed_fwd(void) {
  for (int i = 0; i < COUNT(embed_shapes); i++) {
    embed_shape e = embed_shapes[i];
    CASE("embed_fwd T %d H %d", e.T, e.H);
    tensor token = random_ints(e.T, e.V), table = random_floats(e.V * e.H, 1.0),
           position = random_floats(e.seq * e.H, 1.0), x = poison(e.T * e.H);
    e.token = token.host.i;
    double *want = evaluate_of(embed_formula, &e, (const tensor *[]){&table, &position}, 2, x.n);
    CALL(embed_fwd, x.device, token.device, table.device, position.device, e.T, e.seq, e.H);
    close_to("x", &x, want, NULL, 1e-6);
    free(want);
    drop(&token), drop(&table), drop(&position), drop(&x);
  }
}

static void test_embed_bwd(void) {
  for (int i = 0; i < COUNT(embed_shapes); i++) {
    embed_shape e = embed_shapes[i];
    CASE("embed_bwd T %d H %d", e.T, e.H);
    tensor token = random_ints(e.T, e.V), table = random_floats(e.V * e.H, 1.0),
           position = random_floats(e.seq * e.H, 1.0), dx = random_floats(e.T * e.H, 1.0);
    e.token = token.host.i;
    double *want = difference_of(embed_formula, &e, (const tensor *[]){&table, &position}, 2, &dx);
    float *before[2] = {snapshot(&table), snapshot(&position)};
    CALL(embed_bwd, table.device, position.device, token.device, dx.device, e.T, e.seq, e.H);
    close_to("grad_table", &table, want, before[0], 1e-6);
    close_to("grad_position", &position, want + table.n, before[1], 1e-6);
    free(want), free(before[0]), free(before[1]);
    drop(&token), drop(&table), drop(&position), drop(&dx);
  }
}

typedef struct norm_shape {
  int32_t T, H;
} norm_shape;

static void row_moments(const double *x, int32_t H, double *mean, double *rstd) {
  double m = 0.0, v = 0.0;
  for (int32_t i = 0; i < H; i++) m += x[i] / H;
  for (int32_t i = 0; i < H; i++) v += (x[i] - m) * (x[i] - m) / H;
  *mean = m;
  *rstd = 1.0 / sqrt(v + 1e-5);
}

/* in: x[T][H], weight[H], bias[H]; out: y[T][H], mean[T], rstd[T] */
static void norm_formula(const void *shape, const double *in, double *out) {
  const norm_shape *n = shape;
  const double *weight = in + n->T * n->H, *bias = weight + n->H;
  for (int32_t t = 0; t < n->T; t++) {
    double mean, rstd;
    row_moments(in + t * n->H, n->H, &mean, &rstd);
    for (int32_t i = 0; i < n->H; i++) out[t * n->H + i] = (in[t * n->H + i] - mean) * rstd * weight[i] + bias[i];
    out[n->T * n->H + t] = mean;
    out[n->T * n->H + n->T + t] = rstd;
  }
}

static const norm_shape norm_shapes[] = {{1, 1}, {1, 7}, {5, 16}, {3, 33}, {2, 64}};

static void test_norm_fwd(void) {
  for (int i = 0; i < COUNT(norm_shapes); i++) {
    const norm_shape n = norm_shapes[i];
    CASE("norm_fwd T %d H %d", n.T, n.H);
    tensor x = random_floats(n.T * n.H, 2.0), weight = random_floats(n.H, 1.5), bias = random_floats(n.H, 0.5);
    tensor y = poison(x.n), mean = poison(n.T), rstd = poison(n.T);
    double *want = evaluate_of(norm_formula, &n, (const tensor *[]){&x, &weight, &bias}, 3, y.n + 2 * n.T);
    CALL(norm_fwd, y.device, mean.device, rstd.device, x.device, weight.device, bias.device, n.T, n.H);
    close_to("y", &y, want, NULL, 3e-6);
    close_to("mean", &mean, want + y.n, NULL, 1e-6);
    close_to("rstd", &rstd, want + y.n + n.T, NULL, 3e-6);
    free(want);
    drop(&x), drop(&weight), drop(&bias), drop(&y), drop(&mean), drop(&rstd);
  }
}

static void test_norm_bwd(void) {
  for (int i = 0; i < COUNT(norm_shapes); i++) {
    const norm_shape n = norm_shapes[i];
    CASE("norm_bwd T %d H %d", n.T, n.H);
    tensor x = random_floats(n.T * n.H, 2.0), weight = random_floats(n.H, 1.5), bias = random_floats(n.H, 0.5);
    tensor y = poison(x.n), mean = poison(n.T), rstd = poison(n.T), dy = random_floats(x.n + 2 * n.T, 1.0);
    tensor dx = random_floats(x.n, 1.0), dw = random_floats(n.H, 1.0), db = random_floats(n.H, 1.0);
    for (int64_t k = x.n; k < dy.n; k++) dy.host.f[k] = 0.0f; /* mean and rstd are outputs without a gradient */
    double *want = difference_of(norm_formula, &n, (const tensor *[]){&x, &weight, &bias}, 3, &dy);
    float *before[3] = {snapshot(&dx), snapshot(&dw), snapshot(&db)};
    CALL(norm_fwd, y.device, mean.device, rstd.device, x.device, weight.device, bias.device, n.T, n.H);
    CALL(norm_bwd, dx.device, dw.device, db.device, dy.device, x.device, mean.device, rstd.device, weight.device, n.T,
         n.H);
    close_to("dx", &dx, want, before[0], 1e-5);
    close_to("grad_weight", &dw, want + x.n, before[1], 1e-5);
    close_to("grad_bias", &db, want + x.n + n.H, before[2], 1e-5);
    free(want), free(before[0]), free(before[1]), free(before[2]);
    drop(&x), drop(&weight), drop(&bias), drop(&y), drop(&mean), drop(&rstd), drop(&dy), drop(&dx), drop(&dw),
        drop(&db);
  }
}

typedef struct linear_shape {
  int32_t T, N, K;
} linear_shape;

/* in: x[T][K], weight[N][K], bias[N]; out: y[T][N] */
static void linear_formula(const void *shape, const double *in, double *out) {
  const linear_shape *l = shape;
  const double *weight = in + l->T * l->K, *bias = weight + l->N * l->K;
  for (int32_t t = 0; t < l->T; t++) {
    for (int32_t n = 0; n < l->N; n++) {
      double sum = bias[n];
      for (int32_t k = 0; k < l->K; k++) sum += in[t * l->K + k] * weight[n * l->K + k];
      out[t * l->N + n] = sum;
    }
  }
}

static const linear_shape linear_shapes[] = {{1, 1, 1}, {1, 5, 3}, {7, 1, 9}, {5, 17, 8}, {13, 6, 21}};

static void test_linear_fwd(void) {
  for (int i = 0; i < 4 * COUNT(linear_shapes); i++) {
    const linear_shape l = linear_shapes[i / 4];
    const bool accumulate = i & 1, with_bias = i & 2;
    CASE("linear_fwd T %d N %d K %d accumulate %d bias %d", l.T, l.N, l.K, accumulate, with_bias);
    tensor x = random_floats(l.T * l.K, 1.0), weight = random_floats(l.N * l.K, 1.0);
    tensor bias = random_floats(l.N, with_bias ? 1.0 : 0.0);
    tensor y = accumulate ? random_floats(l.T * l.N, 1.0) : poison(l.T * l.N);
    float *before = snapshot(&y);
    double *want = evaluate_of(linear_formula, &l, (const tensor *[]){&x, &weight, &bias}, 3, y.n);
    CALL(linear_fwd, y.device, x.device, weight.device, with_bias ? bias.device : NULL, l.T, l.N, l.K, accumulate);
    close_to("y", &y, want, accumulate ? before : NULL, 2e-6);
    free(want), free(before);
    drop(&x), drop(&weight), drop(&bias), drop(&y);
  }
}

static void test_linear_dx(void) {
  for (int i = 0; i < 2 * COUNT(linear_shapes); i++) {
    const linear_shape l = linear_shapes[i / 2];
    const bool accumulate = i & 1;
    CASE("linear_dx T %d N %d K %d accumulate %d", l.T, l.N, l.K, accumulate);
    tensor x = random_floats(l.T * l.K, 1.0), weight = random_floats(l.N * l.K, 1.0), bias = random_floats(l.N, 1.0);
    tensor dy = random_floats(l.T * l.N, 1.0), dx = accumulate ? random_floats(x.n, 1.0) : poison(x.n);
    float *before = snapshot(&dx);
    double *want = difference_of(linear_formula, &l, (const tensor *[]){&x, &weight, &bias}, 3, &dy);
    CALL(linear_dx, dx.device, dy.device, weight.device, l.T, l.N, l.K, accumulate);
    close_to("dx", &dx, want, accumulate ? before : NULL, 2e-6);
    free(want), free(before);
    drop(&x), drop(&weight), drop(&bias), drop(&dy), drop(&dx);
  }
}

static void test_linear_dw(void) {
  for (int i = 0; i < 2 * COUNT(linear_shapes); i++) {
    const linear_shape l = linear_shapes[i / 2];
    const bool with_bias = i & 1;
    CASE("linear_dw T %d N %d K %d bias %d", l.T, l.N, l.K, with_bias);
    tensor x = random_floats(l.T * l.K, 1.0), weight = random_floats(l.N * l.K, 1.0), bias = random_floats(l.N, 1.0);
    tensor dy = random_floats(l.T * l.N, 1.0);
    double *want = difference_of(linear_formula, &l, (const tensor *[]){&x, &weight, &bias}, 3, &dy);
    float *before[2] = {snapshot(&weight), snapshot(&bias)};
    CALL(linear_dw, weight.device, with_bias ? bias.device : NULL, dy.device, x.device, l.T, l.N, l.K);
    close_to("grad_weight", &weight, want + x.n, before[0], 3e-6);
    if (with_bias) close_to("grad_bias", &bias, want + x.n + weight.n, before[1], 3e-6);
    free(want), free(before[0]), free(before[1]);
    drop(&x), drop(&weight), drop(&bias), drop(&dy);
  }
}

typedef struct attention_shape {
  int32_t sequences, seq, heads, width;
} attention_shape;

/* Attention of one query row of one head; p is room for its probabilities. Returns the log-sum-exp. */
static double attention_row(const attention_shape *a, const double *q, const double *keys, int32_t i, double *out) {
  const int32_t H = a->heads * a->width;
  double p[256], largest = -INFINITY, sum = 0.0;
  for (int32_t j = 0; j <= i; j++) {
    p[j] = 0.0;
    for (int32_t w = 0; w < a->width; w++) p[j] += q[w] * keys[j * 3 * H + w] / sqrt(a->width);
    if (p[j] > largest) largest = p[j];
  }
  for (int32_t j = 0; j <= i; j++) sum += exp(p[j] - largest);
  for (int32_t w = 0; w < a->width; w++) {
    out[w] = 0.0;
    for (int32_t j = 0; j <= i; j++) out[w] += exp(p[j] - largest) / sum * keys[j * 3 * H + H + w];
  }
  return largest + log(sum);
}

/* in: qkv[T][3 H]; out: out[T][H], lse[heads][T] */
static void attention_formula(const void *shape, const double *in, double *out) {
  const attention_shape *a = shape;
  const int32_t H = a->heads * a->width, T = a->sequences * a->seq;
  for (int32_t t = 0; t < T; t++) {
    for (int32_t h = 0; h < a->heads; h++) {
      const int32_t start = t / a->seq * a->seq;
      out[T * H + h * T + t] = attention_row(a, in + t * 3 * H + h * a->width, in + start * 3 * H + H + h * a->width,
                                             t - start, out + t * H + h * a->width);
    }
  }
}

static const attention_shape attention_shapes[] = {
    {1, 1, 1, 1}, {2, 1, 2, 3}, {2, 5, 3, 4}, {1, 67, 1, 3}, {1, 64, 1, 2}, {1, 129, 1, 1},
};

static void test_attention_fwd(void) {
  for (int i = 0; i < COUNT(attention_shapes); i++) {
    const attention_shape a = attention_shapes[i];
    const int32_t H = a.heads * a.width, T = a.sequences * a.seq;
    CASE("attention_fwd %d x %d, %d heads of %d", a.sequences, a.seq, a.heads, a.width);
    tensor qkv = random_floats(T * 3 * H, 2.0), out = poison(T * H), lse = poison(a.heads * T);
    double *want = evaluate_of(attention_formula, &a, (const tensor *[]){&qkv}, 1, out.n + lse.n);
    CALL(attention_fwd, out.device, lse.device, qkv.device, a.sequences, a.seq, a.heads, a.width);
    close_to("out", &out, want, NULL, 3e-6);
    close_to("lse", &lse, want + out.n, NULL, 1e-6);
    free(want);
    drop(&qkv), drop(&out), drop(&lse);
  }
}

static void test_attention_bwd(void) {
  for (int i = 0; i < COUNT(attention_shapes); i++) {
    const attention_shape a = attention_shapes[i];
    const int32_t H = a.heads * a.width, T = a.sequences * a.seq;
    CASE("attention_bwd %d x %d, %d heads of %d", a.sequences, a.seq, a.heads, a.width);
    tensor qkv = random_floats(T * 3 * H, 2.0), out = poison(T * H), lse = poison(a.heads * T), dqkv = poison(qkv.n);
    tensor dout = random_floats(out.n + lse.n, 1.0);
    for (int64_t k = out.n; k < dout.n; k++) dout.host.f[k] = 0.0f; /* lse carries no gradient */
    double *want = difference_of(attention_formula, &a, (const tensor *[]){&qkv}, 1, &dout);
    CALL(attention_fwd, out.device, lse.device, qkv.device, a.sequences, a.seq, a.heads, a.width);
    CALL(attention_bwd, dqkv.device, dout.device, qkv.device, out.device, lse.device, a.sequences, a.seq, a.heads,
         a.width);
    close_to("dqkv", &dqkv, want, NULL, 1e-5);
    free(want);
    drop(&qkv), drop(&out), drop(&lse), drop(&dqkv), drop(&dout);
  }
}

/* y += x and plain copies are exact, so these compare bits. */
static void exact_cases(int which) {
  const int64_t sizes[] = {0, 1, 15, 17, 1000};
  for (int i = 0; i < COUNT(sizes); i++) {
    const int64_t n = sizes[i];
    CASE("%s n %lld", (const char *[]){"add", "add_f32", "from_f32", "to_f32"}[which], (long long)n);
    tensor x = random_floats(n, 1.0), y = which < 2 ? random_floats(n, 1.0) : poison(n);
    float *want = snapshot(&y);
    for (int64_t k = 0; k < n; k++) want[k] = which < 2 ? want[k] + x.host.f[k] : x.host.f[k];
    if (which == 0) CALL(add, y.device, x.device, n);
    if (which == 1) CALL(add_f32, y.device, x.device, n);
    if (which == 2) CALL(from_f32, y.device, x.device, n);
    if (which == 3) CALL(to_f32, y.device, x.device, n);
    same_bits("y", &y, want);
    free(want);
    drop(&x), drop(&y);
  }
}

static void test_add(void) { exact_cases(0); }
static void test_add_f32(void) { exact_cases(1); }
static void test_from_f32(void) { exact_cases(2); }
static void test_to_f32(void) { exact_cases(3); }

#endif
