/* op_cases_train.h - cases of the loss, the sums and the optimizer. */
#ifndef BL_TESTS_EXEC_OP_CASES_TRAIN_H
#define BL_TESTS_EXEC_OP_CASES_TRAIN_H

#include "tests/exec/op_check.h"

typedef struct loss_shape {
  int32_t T, V;
  const int32_t *target;
} loss_shape;

/* in: logits[T][V]; out: loss[T] */
static void cross_entropy_formula(const void *shape, const double *in, double *out) {
  const loss_shape *l = shape;
  for (int32_t t = 0; t < l->T; t++) {
    double sum = 0.0;
    for (int32_t v = 0; v < l->V; v++) sum += exp(in[t * l->V + v]);
    out[t] = l->target[t] < 0 ? 0.0 : log(sum) - in[t * l->V + l->target[t]];
  }
}

static void test_cross_entropy(void) {
  const loss_shape shapes[] = {{1, 1, NULL}, {4, 3, NULL}, {5, 33, NULL}, {3, 256, NULL}};
  for (int i = 0; i < COUNT(shapes); i++) {
    loss_shape l = shapes[i];
    const float scale = 0.125f;
    CASE("cross_entropy T %d V %d", l.T, l.V);
    tensor logits = random_floats(l.T * l.V, 9.0), target = random_ints(l.T, l.V), loss = poison(l.T);
    tensor cotangent = poison(l.T);
    if (l.T > 1) target.host.i[1] = -1;
    up(&target);
    for (int32_t t = 0; t < l.T; t++) cotangent.host.f[t] = scale;
    l.target = target.host.i;
    double *want = evaluate_of(cross_entropy_formula, &l, (const tensor *[]){&logits}, 1, loss.n);
    double *gradient = difference_of(cross_entropy_formula, &l, (const tensor *[]){&logits}, 1, &cotangent);
    CALL(cross_entropy, loss.device, logits.device, target.device, l.T, l.V, scale);
    close_to("loss", &loss, want, NULL, 5e-7);
    close_to("dlogits", &logits, gradient, NULL, 3e-7);
    free(want), free(gradient);
    drop(&logits), drop(&target), drop(&loss), drop(&cotangent);
  }
}

/* Sums in double; the same bits from another alignment. */
static void sum_cases(bool squares) {
  const int64_t sizes[] = {0, 1, 15, 16, 17, 1000, 4099};
  for (int i = 0; i < COUNT(sizes); i++) {
    CASE("%s n %lld", squares ? "sum_sq" : "sum_f32", (long long)sizes[i]);
    tensor x = random_floats(sizes[i], 1.0), sum = tensor_of(1, sizeof(double), 0);
    sum.host.d[0] = NAN;
    up(&sum);
    double want = 0.0;
    for (int64_t k = 0; k < x.n; k++) want += squares ? (double)x.host.f[k] * (double)x.host.f[k] : (double)x.host.f[k];
    const bl_square_part there = {sum.device, x.device, x.n};
    if (squares) CALL(sum_sq, &there, 1);
    if (!squares) CALL(sum_f32, sum.device, x.device, x.n);
    down(&sum);
    const double got = sum.host.d[0];
    CHECK_NEAR(got, want, squares ? 1e-13 * want : 0.0); /* one order is given for sum_f32: exactly that */
    tensor moved = tensor_of(x.n, sizeof(float), sizeof(float));
    memcpy(moved.host.f, x.host.f, x.bytes);
    up(&moved);
    const bl_square_part elsewhere = {sum.device, moved.device, x.n};
    if (squares) CALL(sum_sq, &elsewhere, 1);
    if (!squares) CALL(sum_f32, sum.device, moved.device, x.n);
    same_bits("sum of the same numbers elsewhere", &sum, &got);
    drop(&x), drop(&sum), drop(&moved);
  }
}

static void test_sum_sq(void) { sum_cases(true); }
static void test_sum_f32(void) { sum_cases(false); }

/* Five updates in double beside five in float. */
static void adamw_case(int64_t n, bool own_weight) {
  const float decay = 0.1f;
  tensor master = random_floats(n, 1.0), m = random_floats(n, 0.0), v = random_floats(n, 0.0), weight = poison(n);
  double *w = op_new((size_t)n, sizeof *w), *first = op_new((size_t)n, sizeof *w),
         *second = op_new((size_t)n, sizeof *w);
  for (int64_t i = 0; i < n; i++) w[i] = (double)master.host.f[i];
  for (int step = 1; step <= 5; step++) {
    tensor grad = random_floats(n, 2.0);
    const bl_adamw a = {
        1e-2f, 0.9f, 0.95f, 1e-8f, 0.5f, 1.0f - powf(0.9f, (float)step), 1.0f - powf(0.95f, (float)step), 0};
    const bl_adamw_part part = {
        own_weight ? weight.device : master.device, master.device, m.device, v.device, grad.device, n, decay};
    bl_adamw skipped = a;
    skipped.skip = 1;
    CALL(adamw, &part, 1, &skipped); /* nothing */
    CALL(adamw, &part, 1, &a);
    for (int64_t i = 0; i < n; i++) {
      const double g = (double)grad.host.f[i] * (double)a.grad_scale;
      first[i] = (double)a.beta1 * first[i] + (1.0 - (double)a.beta1) * g;
      second[i] = (double)a.beta2 * second[i] + (1.0 - (double)a.beta2) * g * g;
      const double update =
          first[i] / (double)a.bias_correction1 / (sqrt(second[i] / (double)a.bias_correction2) + (double)a.eps);
      w[i] -= (double)a.lr * (update + (double)decay * w[i]);
    }
    drop(&grad);
  }
  close_to("master", &master, w, NULL, 1e-6);
  close_to("m", &m, first, NULL, 1e-6);
  close_to("v", &v, second, NULL, 1e-6);
  if (own_weight) same_bits("weight", &weight, master.host.f);
  free(w), free(first), free(second);
  drop(&master), drop(&m), drop(&v), drop(&weight);
}

static void test_adamw(void) {
  const int64_t sizes[] = {0, 1, 16, 37, 500};
  for (int i = 0; i < 2 * COUNT(sizes); i++) {
    CASE("adamw n %lld own weight %d", (long long)sizes[i / 2], i & 1);
    adamw_case(sizes[i / 2], i & 1);
  }
}

#endif
