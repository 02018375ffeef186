/* op_cases_grouped.h - cases of the products over groups of rows: right against finite differences, and a group's bits
 * do not depend on the other groups, nor on where its rows and matrices lie. */
#ifndef BL_TESTS_EXEC_OP_CASES_GROUPED_H
#define BL_TESTS_EXEC_OP_CASES_GROUPED_H

#include "tests/exec/op_cases_dense.h"

enum { GROUPS = 5, GROUP_ROWS = 160, GROUP_N = 19, GROUP_K = 23 };

/* Five experts: 7 rows, none, one, 130, 3; unused rows in between. One without bias. */
typedef struct grouped_case {
  bl_group groups[GROUPS];
  tensor x, y, weight[GROUPS], bias[GROUPS], grad_weight[GROUPS], grad_bias[GROUPS];
} grouped_case;

static void grouped_open(grouped_case *g) {
  const int32_t first[GROUPS] = {2, 9, 9, 12, 150}, rows[GROUPS] = {7, 0, 1, 130, 3};
  g->x = random_floats(GROUP_ROWS * GROUP_K, 1.0);
  g->y = random_floats(GROUP_ROWS * GROUP_N, 1.0);
  for (int e = 0; e < GROUPS; e++) {
    g->weight[e] = random_floats(GROUP_N * GROUP_K, 1.0);
    g->bias[e] = random_floats(GROUP_N, e == 3 ? 0.0 : 1.0);
    g->grad_weight[e] = random_floats(GROUP_N * GROUP_K, 1.0);
    g->grad_bias[e] = random_floats(GROUP_N, 1.0);
    g->groups[e] = (bl_group){first[e],
                              rows[e],
                              g->weight[e].device,
                              e == 3 ? NULL : g->bias[e].device,
                              g->grad_weight[e].device,
                              e == 3 ? NULL : g->grad_bias[e].device};
  }
}

static void grouped_close(grouped_case *g) {
  drop(&g->x), drop(&g->y);
  for (int e = 0; e < GROUPS; e++) {
    drop(&g->weight[e]), drop(&g->bias[e]), drop(&g->grad_weight[e]), drop(&g->grad_bias[e]);
  }
}

/* Elements [from, from + n) of a tensor as another one, 4 bytes off the alignment of every allocation. */
static tensor slice(const tensor *t, int64_t from, int64_t n) {
  tensor part = tensor_of(n, sizeof(float), sizeof(float));
  memcpy(part.host.f, t->host.f + from, part.bytes);
  up(&part);
  return part;
}

static linear_shape group_shape(const bl_group *group) { return (linear_shape){group->rows, GROUP_N, GROUP_K}; }

static void untouched_rows(const grouped_case *g, const tensor *got, int32_t width, const float *before) {
  bool same = true;
  for (int32_t row = 0; row < GROUP_ROWS; row++) {
    bool in_group = false;
    for (int e = 0; e < GROUPS; e++) {
      in_group |= row >= g->groups[e].first && row < g->groups[e].first + g->groups[e].rows;
    }
    if (in_group) continue;
    same &= memcmp(got->host.f + row * width, before + row * width, sizeof(float) * (size_t)width) == 0;
  }
  if (!check_count(same)) printf("%s: a row outside all groups was written\n", op_case);
}

static void test_grouped_fwd(void) {
  grouped_case g;
  grouped_open(&g);
  CASE("grouped_fwd");
  float *before = snapshot(&g.y);
  CALL(grouped_fwd, g.y.device, g.x.device, g.groups, GROUPS, GROUP_N, GROUP_K);
  down(&g.y);
  untouched_rows(&g, &g.y, GROUP_N, before);
  for (int e = 0; e < GROUPS; e++) {
    bl_group alone = g.groups[e];
    const linear_shape shape = group_shape(&alone);
    CASE("grouped_fwd, group %d alone", e);
    const float *result = g.y.host.f + alone.first * GROUP_N;
    tensor x = slice(&g.x, alone.first * GROUP_K, alone.rows * GROUP_K), weight = slice(&g.weight[e], 0, g.weight[e].n);
    tensor y = slice(&g.y, alone.first * GROUP_N, alone.rows * GROUP_N);
    double *want = evaluate_of(linear_formula, &shape, (const tensor *[]){&x, &weight, &g.bias[e]}, 3, y.n);
    close_to("y", &y, want, NULL, 2e-6);
    for (int64_t i = 0; i < y.n; i++) y.host.f[i] = NAN;
    up(&y);
    alone.first = 0;
    alone.weight = weight.device;
    CALL(grouped_fwd, y.device, x.device, &alone, 1, GROUP_N, GROUP_K);
    same_bits("y", &y, result);
    free(want);
    drop(&x), drop(&weight), drop(&y);
  }
  free(before);
  grouped_close(&g);
}

static void test_grouped_dx(void) {
  grouped_case g;
  grouped_open(&g);
  CASE("grouped_dx");
  tensor dx = random_floats(GROUP_ROWS * GROUP_K, 1.0);
  float *before = snapshot(&dx);
  CALL(grouped_dx, dx.device, g.y.device, g.groups, GROUPS, GROUP_N, GROUP_K);
  down(&dx);
  untouched_rows(&g, &dx, GROUP_K, before);
  for (int e = 0; e < GROUPS; e++) {
    bl_group alone = g.groups[e];
    const linear_shape shape = group_shape(&alone);
    CASE("grouped_dx, group %d alone", e);
    const float *result = dx.host.f + alone.first * GROUP_K;
    tensor dy = slice(&g.y, alone.first * GROUP_N, alone.rows * GROUP_N),
           weight = slice(&g.weight[e], 0, g.weight[e].n);
    tensor x = slice(&g.x, alone.first * GROUP_K, alone.rows * GROUP_K), part = slice(&dx, 0, x.n);
    memcpy(part.host.f, result, part.bytes);
    up(&part);
    double *want = difference_of(linear_formula, &shape, (const tensor *[]){&x, &weight, &g.bias[e]}, 3, &dy);
    close_to("dx", &part, want, NULL, 2e-6);
    for (int64_t i = 0; i < part.n; i++) part.host.f[i] = NAN;
    up(&part);
    alone.first = 0;
    alone.weight = weight.device;
    CALL(grouped_dx, part.device, dy.device, &alone, 1, GROUP_N, GROUP_K);
    same_bits("dx", &part, result);
    free(want);
    drop(&dy), drop(&weight), drop(&x), drop(&part);
  }
  free(before);
  drop(&dx);
  grouped_close(&g);
}

static void test_grouped_dw(void) {
  grouped_case g;
  grouped_open(&g);
  CASE("grouped_dw");
  tensor weight_before[GROUPS], bias_before[GROUPS];
  for (int e = 0; e < GROUPS; e++) {
    weight_before[e] = slice(&g.grad_weight[e], 0, g.grad_weight[e].n);
    bias_before[e] = slice(&g.grad_bias[e], 0, g.grad_bias[e].n);
  }
  CALL(grouped_dw, g.y.device, g.x.device, g.groups, GROUPS, GROUP_N, GROUP_K);
  for (int e = 0; e < GROUPS; e++) {
    bl_group alone = g.groups[e];
    const linear_shape shape = group_shape(&alone);
    CASE("grouped_dw, group %d alone", e);
    tensor x = slice(&g.x, alone.first * GROUP_K, alone.rows * GROUP_K);
    tensor dy = slice(&g.y, alone.first * GROUP_N, alone.rows * GROUP_N);
    double *want = difference_of(linear_formula, &shape, (const tensor *[]){&x, &g.weight[e], &g.bias[e]}, 3, &dy);
    close_to("grad_weight", &g.grad_weight[e], want + x.n, weight_before[e].host.f, 3e-6);
    for (int64_t i = 0; i < GROUP_N && !alone.grad_bias; i++) want[x.n + g.weight[e].n + i] = 0.0;
    close_to("grad_bias", &g.grad_bias[e], want + x.n + g.weight[e].n, bias_before[e].host.f, 3e-6);
    alone.first = 0;
    alone.grad_weight = weight_before[e].device;
    alone.grad_bias = alone.grad_bias ? bias_before[e].device : NULL;
    CALL(grouped_dw, dy.device, x.device, &alone, 1, GROUP_N, GROUP_K);
    same_bits("grad_weight", &weight_before[e], g.grad_weight[e].host.f);
    same_bits("grad_bias", &bias_before[e], g.grad_bias[e].host.f);
    free(want);
    drop(&x), drop(&dy), drop(&weight_before[e]), drop(&bias_before[e]);
  }
  grouped_close(&g);
}

static void gelu_formula(const void *shape, const double *in, double *out) {
  const double c = sqrt(2.0 / acos(-1.0));
  for (int64_t i = 0; i < *(const int64_t *)shape; i++) {
    out[i] = 0.5 * in[i] * (1.0 + tanh(c * (in[i] + 0.044715 * in[i] * in[i] * in[i])));
  }
}

/* x weight^T + bias of a group, in double. */
static double *linear_of_group(const grouped_case *g, int e) {
  const linear_shape shape = group_shape(&g->groups[e]);
  tensor x = slice(&g->x, g->groups[e].first * GROUP_K, shape.T * GROUP_K);
  double *out = evaluate_of(linear_formula, &shape, (const tensor *[]){&x, &g->weight[e], &g->bias[e]}, 3,
                            (int64_t)shape.T * GROUP_N);
  drop(&x);
  return out;
}

static void test_grouped_gelu_fwd(void) {
  grouped_case g;
  grouped_open(&g);
  CASE("grouped_gelu_fwd");
  tensor hidden = poison(GROUP_ROWS * GROUP_N);
  float *before = snapshot(&g.y);
  CALL(grouped_gelu_fwd, g.y.device, hidden.device, g.x.device, g.groups, GROUPS, GROUP_N, GROUP_K);
  down(&g.y);
  untouched_rows(&g, &g.y, GROUP_N, before);
  for (int e = 0; e < GROUPS; e++) {
    const int64_t n = (int64_t)g.groups[e].rows * GROUP_N;
    CASE("grouped_gelu_fwd, group %d", e);
    tensor y = slice(&g.y, g.groups[e].first * GROUP_N, n);
    double *linear = linear_of_group(&g, e), *want = linear; /* element by element */
    gelu_formula(&n, linear, want);
    close_to("y", &y, want, NULL, 2e-6);
    free(want);
    drop(&y);
  }
  free(before);
  drop(&hidden);
  grouped_close(&g);
}

/* Where the gradient overwrites what it is made of, and where it does not. */
static void grouped_gelu_backward(bool in_place) {
  grouped_case g;
  grouped_open(&g);
  tensor hidden = poison(GROUP_ROWS * GROUP_N), y = poison(GROUP_ROWS * GROUP_N);
  tensor dhidden = random_floats(GROUP_ROWS * GROUP_N, 1.0), dy[GROUPS], bias_before[GROUPS];
  for (int e = 0; e < GROUPS; e++) {
    dy[e] = slice(&g.y, g.groups[e].first * GROUP_N, g.groups[e].rows * GROUP_N);
    bias_before[e] = slice(&g.grad_bias[e], 0, g.grad_bias[e].n);
  }
  tensor *to = in_place ? &g.y : &dhidden;
  float *before = snapshot(to);
  CALL(grouped_gelu_fwd, y.device, hidden.device, g.x.device, g.groups, GROUPS, GROUP_N, GROUP_K);
  CALL(grouped_gelu_bwd, to->device, g.y.device, hidden.device, g.groups, GROUPS, GROUP_N);
  down(to);
  untouched_rows(&g, to, GROUP_N, before);
  for (int e = 0; e < GROUPS; e++) {
    const int64_t n = dy[e].n;
    CASE("grouped_gelu_bwd, group %d, in place %d", e, in_place);
    double *linear = linear_of_group(&g, e), sums[GROUP_N] = {0};
    tensor at = random_floats(n, 1.0), part = slice(to, g.groups[e].first * GROUP_N, n);
    for (int64_t i = 0; i < n; i++) at.host.f[i] = (float)linear[i];
    double *want = difference_of(gelu_formula, &n, (const tensor *[]){&at}, 1, &dy[e]);
    for (int64_t i = 0; i < n && g.groups[e].grad_bias; i++) sums[i % GROUP_N] += want[i];
    close_to("dhidden", &part, want, NULL, 3e-6);
    close_to("grad_bias", &g.grad_bias[e], sums, bias_before[e].host.f, 3e-6);
    free(linear), free(want);
    drop(&at), drop(&part), drop(&dy[e]), drop(&bias_before[e]);
  }
  free(before);
  drop(&hidden), drop(&y), drop(&dhidden);
  grouped_close(&g);
}

static void test_grouped_gelu_bwd(void) {
  grouped_gelu_backward(false);
  grouped_gelu_backward(true);
}

#endif
