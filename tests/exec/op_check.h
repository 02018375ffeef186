/* op_check.h - what the tests of operations share: tensors with random or poisoned contents, and central finite
 * differences of a reference written in double.
 *
 * A reference is the forward formula alone; a backward operation is right when it equals the difference quotient of
 * that formula. Nothing here reads device memory, so the cases serve every backend. */
#ifndef BL_TESTS_EXEC_OP_CHECK_H
#define BL_TESTS_EXEC_OP_CHECK_H

#include "base/rng.h"
#include "executor/backend.h"
#include "tests/check.h"

static bl_backend *op_backend;
static bl_stream *op_stream;
static bl_rng op_rng;
static bool op_called[BL_OP_COUNT];
static const char *op_case = ""; /* the operation and shape now running, for messages */

/* Calls an operation of the backend under test and notes that it was. */
#define CALL(name, ...) (op_called[BL_OP_##name] = true, op_backend->ops.name(op_stream, __VA_ARGS__))

/* Ends the program: a test without memory cannot go on. */
static inline void *op_new(size_t count, size_t size) {
  void *p = calloc(count ? count : 1, size);
  if (!p) exit(3);
  return p;
}

/* A device array of 4-byte or 8-byte elements with a host copy. `tensor` frees nothing by itself: drop(). */
typedef struct tensor {
  int64_t n;
  size_t bytes;
  void *base;   /* of the device allocation */
  void *device; /* base, or a little behind it where another alignment is wanted */
  union {
    void *any;
    float *f;
    double *d;
    int32_t *i;
    uint32_t *u;
  } host;
} tensor;

static inline tensor tensor_of(int64_t n, size_t size, size_t offset) {
  tensor t = {n, (size_t)n * size, NULL, NULL, {op_new((size_t)n, size)}};
  if (op_backend->alloc(op_backend, t.bytes + offset, &t.base) != BL_OK) exit(3);
  t.device = (char *)t.base + offset;
  return t;
}

static inline void up(const tensor *t) { op_backend->to_device(op_stream, t->device, t->host.any, t->bytes); }

static inline void down(const tensor *t) {
  op_backend->to_host(op_stream, t->host.any, t->device, t->bytes);
  CHECK_OK(op_backend->stream_sync(op_stream));
}

static inline void drop(tensor *t) {
  op_backend->release(op_backend, t->base);
  free(t->host.any);
  *t = (tensor){0};
}

static inline double op_uniform(double low, double high) { return low + (high - low) * bl_rng_unit(&op_rng); }

/* n floats, uniform in +-scale. */
static inline tensor random_floats(int64_t n, double scale) {
  tensor t = tensor_of(n, sizeof(float), 0);
  for (int64_t i = 0; i < n; i++) t.host.f[i] = (float)op_uniform(-scale, scale);
  up(&t);
  return t;
}

/* n floats, all NaN: what an operation must overwrite. */
static inline tensor poison(int64_t n) {
  tensor t = tensor_of(n, sizeof(float), 0);
  for (int64_t i = 0; i < n; i++) t.host.f[i] = NAN;
  up(&t);
  return t;
}

static inline tensor random_ints(int64_t n, int32_t below) {
  tensor t = tensor_of(n, sizeof(int32_t), 0);
  for (int64_t i = 0; i < n; i++) t.host.i[i] = (int32_t)bl_rng_below(&op_rng, (uint64_t)below);
  up(&t);
  return t;
}

/* The host copy in double, behind one another: what references read. */
static inline double *widen(const tensor *const *parts, int n, int64_t *total) {
  *total = 0;
  for (int p = 0; p < n; p++) *total += parts[p]->n;
  double *x = op_new((size_t)*total, sizeof *x), *at = x;
  for (int p = 0; p < n; p++) {
    for (int64_t i = 0; i < parts[p]->n; i++) *at++ = (double)parts[p]->host.f[i];
  }
  return x;
}

/* got (on the device) = want + before, `before` NULL for nothing, within tolerance of the largest value expected. */
static inline void close_to(const char *what, const tensor *got, const double *want, const float *before,
                            double tolerance) {
  down(got);
  double worst = 0.0, largest = 1.0;
  int64_t where = -1;
  for (int64_t i = 0; i < got->n; i++) {
    const double expected = want[i] + (before ? (double)before[i] : 0.0);
    const double error = fabs((double)got->host.f[i] - expected);
    if (fabs(expected) > largest) largest = fabs(expected);
    if (!(error <= worst)) {
      worst = error;
      where = i;
      if (isnan(error)) break;
    }
  }
  if (!check_count(worst <= tolerance * largest)) {
    printf("%s: %s[%lld] is %.9g, expected %.9g (tolerance %g)\n", op_case, what, (long long)where,
           (double)got->host.f[where], want[where] + (before ? (double)before[where] : 0.0), tolerance * largest);
  }
}

/* The copy of a host array that an accumulating operation starts from. */
static inline float *snapshot(const tensor *t) {
  float *copy = op_new((size_t)t->n, sizeof *copy);
  memcpy(copy, t->host.any, t->bytes);
  return copy;
}

static inline void same_bits(const char *what, const tensor *got, const void *want) {
  down(got);
  if (!check_count(memcmp(got->host.any, want, got->bytes) == 0)) printf("%s: %s differs in bits\n", op_case, what);
}

/* out = the formula at in; both are all inputs and outputs behind one another. */
typedef void reference(const void *shape, const double *in, double *out);

/* The gradient of sum cotangent[o] * out[o] with respect to every input, by central differences. */
static inline double *difference(reference *formula, const void *shape, double *in, int64_t n_in,
                                 const double *cotangent, int64_t n_out) {
  const double h = 1e-5;
  double *gradient = op_new((size_t)n_in, sizeof *gradient), *out = op_new((size_t)n_out, sizeof *out);
  for (int64_t i = 0; i < n_in; i++) {
    const double x = in[i];
    double side[2] = {0.0, 0.0};
    for (int k = 0; k < 2; k++) {
      in[i] = k ? x - h : x + h;
      formula(shape, in, out);
      for (int64_t o = 0; o < n_out; o++) side[k] += cotangent[o] * out[o];
    }
    in[i] = x;
    gradient[i] = (side[0] - side[1]) / (2.0 * h);
  }
  free(out);
  return gradient;
}

static inline double *evaluate(reference *formula, const void *shape, const double *in, int64_t n_out) {
  double *out = op_new((size_t)n_out, sizeof *out);
  formula(shape, in, out);
  return out;
}

/* All in one: widens the inputs and the cotangent; gradient[] behind one another as the inputs are. */
static inline double *difference_of(reference *formula, const void *shape, const tensor *const *inputs, int n,
                                    const tensor *cotangent) {
  int64_t n_in, n_out;
  double *in = widen(inputs, n, &n_in), *c = widen(&cotangent, 1, &n_out);
  double *gradient = difference(formula, shape, in, n_in, c, n_out);
  free(in);
  free(c);
  return gradient;
}

static inline double *evaluate_of(reference *formula, const void *shape, const tensor *const *inputs, int n,
                                  int64_t n_out) {
  int64_t n_in;
  double *in = widen(inputs, n, &n_in), *out = evaluate(formula, shape, in, n_out);
  free(in);
  return out;
}

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

/* Names the case in messages; a buffer of its own, since shapes are part of it. */
#define CASE(...)                                       \
  do {                                                  \
    static char case_text[160];                         \
    snprintf(case_text, sizeof case_text, __VA_ARGS__); \
    op_case = case_text;                                \
  } while (0)

#endif
