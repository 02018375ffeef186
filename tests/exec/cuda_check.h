/* cuda_check.h - the same operation on the CPU backend and on the CUDA backend: buffers that live on both, random
 * inputs that the compute type can hold, poisoned outputs, and how far the results are apart. */
#ifndef BL_TESTS_EXEC_CUDA_CHECK_H
#define BL_TESTS_EXEC_CUDA_CHECK_H

#include "base/rng.h"
#include "executor/backend.h"
#include "tests/check.h"

enum { CPU, CUDA, SIDES };

static bl_backend *sides[SIDES];
static bl_stream *streams[SIDES];
static bl_rng case_rng;
static double tolerance;    /* of the compute type under test */
static uint64_t case_hash;  /* of everything that CUDA computed in this case */
static char case_name[160]; /* for messages */
static bool called[BL_OP_COUNT];

/* Elements are of the compute type (NUM: 4 bytes on the CPU, num_bytes on CUDA) or of one type on both sides. */
typedef enum kind { NUM, F32, F64, I32 } kind;

typedef struct buffer {
  kind kind;
  int64_t n;
  void *base[SIDES], *device[SIDES]; /* device stands a little behind base where another alignment is wanted */
} buffer;

#define D(b) ((b).device[side])
#define BOTH(name, ...)                                                                         \
  do {                                                                                          \
    called[BL_OP_##name] = true;                                                                \
    for (int side = 0; side < SIDES; side++) sides[side]->ops.name(streams[side], __VA_ARGS__); \
  } while (0)

static inline void *case_new(size_t bytes) {
  void *p = malloc(bytes ? bytes : 1);
  if (!p) exit(3);
  return p;
}

static inline bool is_bf16(int side, kind k) { return k == NUM && sides[side]->num_bytes == 2; }

static inline size_t element_bytes(int side, kind k) { return k == F64 ? 8 : is_bf16(side, k) ? 2 : 4; }

/* To the nearest, ties to even; NaN stays NaN. */
static inline uint16_t to_bf16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  if (isnan(x)) return 0x7fc0;
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline float of_bf16(uint16_t x) {
  const uint32_t bits = (uint32_t)x << 16;
  float y;
  memcpy(&y, &bits, sizeof y);
  return y;
}

/* What the compute type under test makes of x: both sides get this. */
static inline float held(kind k, float x) { return is_bf16(CUDA, k) ? of_bf16(to_bf16(x)) : x; }

/* Elements [0, n) from an array of 4- or 8-byte elements. */
static inline void put(const buffer *b, const void *host) {
  const size_t wide = b->kind == F64 ? 8 : 4;
  uint16_t *narrow = case_new((size_t)b->n * 2);
  for (int64_t i = 0; i < b->n && is_bf16(CUDA, b->kind); i++) narrow[i] = to_bf16(((const float *)host)[i]);
  for (int side = 0; side < SIDES; side++) {
    const bool bf16 = is_bf16(side, b->kind);
    sides[side]->to_device(streams[side], b->device[side], bf16 ? (const void *)narrow : host,
                           (size_t)b->n * (bf16 ? 2 : wide));
    CHECK_OK(sides[side]->stream_sync(streams[side]));
  }
  free(narrow);
}

/* A host array of 4- or 8-byte elements, bf16 widened; freed by the caller. */
static inline void *get(const buffer *b, int side) {
  const size_t bytes = (size_t)b->n * element_bytes(side, b->kind);
  void *raw = case_new(bytes);
  sides[side]->to_host(streams[side], raw, b->device[side], bytes);
  CHECK_OK(sides[side]->stream_sync(streams[side]));
  if (side == CUDA) case_hash = bl_hash_bytes(raw, bytes, case_hash);
  if (!is_bf16(side, b->kind)) return raw;
  float *wide = case_new((size_t)b->n * sizeof *wide);
  for (int64_t i = 0; i < b->n; i++) wide[i] = of_bf16(((const uint16_t *)raw)[i]);
  free(raw);
  return wide;
}

/* `shift` elements behind the alignment of an allocation. */
static inline buffer buffer_at(kind k, int64_t n, int64_t shift) {
  buffer b = {.kind = k, .n = n};
  for (int side = 0; side < SIDES; side++) {
    const size_t bytes = element_bytes(side, k);
    if (sides[side]->alloc(sides[side], (size_t)(n + shift) * bytes, &b.base[side]) != BL_OK) {
      printf("%s: %s\n", case_name, bl_error_text());
      exit(3);
    }
    b.device[side] = (char *)b.base[side] + (size_t)shift * bytes;
  }
  return b;
}

static inline void drop(buffer *b) {
  for (int side = 0; side < SIDES; side++) sides[side]->release(sides[side], b->base[side]);
}

#define DROP(...)                                                                                       \
  do {                                                                                                  \
    buffer *dropped[] = {__VA_ARGS__};                                                                  \
    for (size_t drop_i = 0; drop_i < sizeof dropped / sizeof *dropped; drop_i++) drop(dropped[drop_i]); \
  } while (0)

/* Uniform in +-scale. */
static inline buffer random_at(kind k, int64_t n, double scale, int64_t shift) {
  buffer b = buffer_at(k, n, shift);
  float *host = case_new((size_t)n * sizeof *host);
  for (int64_t i = 0; i < n; i++) host[i] = held(k, (float)(scale * (2.0 * bl_rng_unit(&case_rng) - 1.0)));
  put(&b, host);
  free(host);
  return b;
}

static inline buffer random_of(kind k, int64_t n, double scale) { return random_at(k, n, scale, 0); }

/* NaN in every element: what an operation must overwrite. */
static inline buffer poison_at(kind k, int64_t n, int64_t shift) {
  buffer b = buffer_at(k, n, shift);
  void *host = case_new((size_t)n * 8);
  memset(host, 0xff, (size_t)n * 8);
  put(&b, host);
  free(host);
  return b;
}

static inline buffer poison(kind k, int64_t n) { return poison_at(k, n, 0); }

static inline buffer ints_of(const int32_t *host, int64_t n) {
  buffer b = buffer_at(I32, n, 0);
  put(&b, host);
  return b;
}

static inline int32_t below(int32_t n) { return (int32_t)bl_rng_below(&case_rng, (uint64_t)n); }

static inline int32_t *random_ints(int64_t n, int32_t limit) {
  int32_t *x = case_new((size_t)n * sizeof *x);
  for (int64_t i = 0; i < n; i++) x[i] = below(limit);
  return x;
}

/* |cuda - cpu| / |cpu| over the whole buffer, and no element further off than 16 tolerances of the root mean square.
 * A NaN on either side fails unless both have it (rows that nothing writes). */
static inline void agree_within(const char *what, const buffer *b, double limit) {
  void *want = get(b, CPU), *got = get(b, CUDA);
  double error = 0.0, norm = 0.0, worst = 0.0;
  int64_t different = 0;
  for (int64_t i = 0; i < b->n; i++) {
    if (b->kind == I32) {
      different += ((int32_t *)want)[i] != ((int32_t *)got)[i];
      continue;
    }
    const double w = b->kind == F64 ? ((double *)want)[i] : (double)((float *)want)[i];
    const double g = b->kind == F64 ? ((double *)got)[i] : (double)((float *)got)[i];
    if (isnan(w) && isnan(g)) continue;
    const double e = fabs(g - w);
    if (!isfinite(e)) different++;
    if (e > worst) worst = e;
    error += e * e;
    norm += w * w;
  }
  const double root = sqrt(norm / (double)(b->n ? b->n : 1));
  const bool close = sqrt(error) <= limit * sqrt(norm) + 1e-30 && worst <= 16.0 * limit * root + 1e-30;
  if (!check_count(different == 0 && close))
    printf("%s: %s: relative error %.3g, worst %.3g of %.3g, %lld of %lld different\n", case_name, what,
           sqrt(error / (norm > 0 ? norm : 1)), worst, root, (long long)different, (long long)b->n);
  free(want);
  free(got);
}

static inline void agree(const char *what, const buffer *b) { agree_within(what, b, tolerance); }

#define CASE(...) snprintf(case_name, sizeof case_name, __VA_ARGS__)

#endif
