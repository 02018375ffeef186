/* gemm.c - single-precision matrix products in one thread.
 *
 * Two ways to the same interface. Where the compiler may use fused multiply-adds, ours: OpenBLAS chooses its kernel by
 * a list of known processors and takes an AVX2 one at half the rate on those it does not know (0.3.21 on Zen 5: 125
 * against 250 Gflop/s), while these sizes, some hundred rows, need little of its blocking. Otherwise, as in a build for
 * any x86-64, OpenBLAS, which finds the machine's instructions at run time.
 *
 * Ours: COLUMNS columns of b over DEPTH of k are packed into a panel that stays in the first cache; past it go all rows
 * of a, ROWS at a time, whose sums fill the registers. a is read in place. A sum runs over k ascending in one lane, in
 * pieces of DEPTH that are added to c one after the other: the same bits for every vector width. */
#include "executor/cpu/gemm.h"
#include <string.h>

#if defined(BL_HAVE_OPENBLAS) && !defined(__FMA__) && !defined(__ARM_FEATURE_FMA)
#include <cblas.h>

void bl_gemm_init(void) { openblas_set_num_threads(1); }
const char *bl_gemm_kernel(void) { return openblas_get_corename(); }

void bl_gemm(float *c, int32_t c_stride, bl_matrix a, bl_matrix b, int32_t m, int32_t n, int32_t k, float scale,
             bool accumulate) {
  if (m == 0 || n == 0) return;
  cblas_sgemm(CblasRowMajor, a.transposed ? CblasTrans : CblasNoTrans, b.transposed ? CblasTrans : CblasNoTrans, m, n,
              k, scale, a.data, a.stride, b.data, b.stride, accumulate ? 1.0f : 0.0f, c, c_stride);
}

#else

/* s += v * b below is meant as one fused operation: the only file whose arithmetic the compiler may contract. */
#ifdef __clang__
#pragma clang fp contract(fast)
#else
#pragma GCC optimize("fp-contract=fast", "expensive-optimizations") /* the latter for builds below -O2 */
#endif

/* ROWS x 2 sums, 2 vectors of b and one of a fit the registers: 32 of them or 16. */
#if defined(__AVX512F__)
enum { WIDTH = 16, ROWS = 8 };
#elif defined(__AVX__)
enum { WIDTH = 8, ROWS = 6 };
#elif defined(__aarch64__)
enum { WIDTH = 4, ROWS = 8 };
#else
enum { WIDTH = 4, ROWS = 6 };
#endif
enum { COLUMNS = 2 * WIDTH, DEPTH = 256 };

typedef float vec __attribute__((vector_size(4 * WIDTH)));
typedef float vec_any __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias)); /* at any float's address */
typedef int32_t vec_index __attribute__((vector_size(4 * WIDTH)));

void bl_gemm_init(void) {}

const char *bl_gemm_kernel(void) {
  return WIDTH == 16 ? "own, 16 wide" : WIDTH == 8 ? "own, 8 wide" : "own, 4 wide";
}

#ifdef __clang__
/* clang shuffles only by constants. */
static inline void transpose(float *to, const float *from, int64_t stride) {
  for (int i = 0; i < WIDTH; i++) {
    for (int j = 0; j < WIDTH; j++) to[i * COLUMNS + j] = from[j * stride + i];
  }
}
#else
/* to[i][j] = from[j][i] for a square of WIDTH: log2(WIDTH) rounds, each merging row i with row i + WIDTH / 2. */
static inline void transpose(float *to, const float *from, int64_t stride) {
  vec x[WIDTH], y[WIDTH];
  vec_index low, high;
#pragma GCC unroll 16
  for (int i = 0; i < WIDTH; i++) {
    x[i] = *(const vec_any *)(from + i * stride);
    low[i] = i / 2 + i % 2 * WIDTH;
    high[i] = low[i] + WIDTH / 2;
  }
#pragma GCC unroll 4
  for (int round = 1; round < WIDTH; round *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < WIDTH / 2; i++) {
      y[2 * i] = __builtin_shuffle(x[i], x[i + WIDTH / 2], low);
      y[2 * i + 1] = __builtin_shuffle(x[i], x[i + WIDTH / 2], high);
    }
#pragma GCC unroll 16
    for (int i = 0; i < WIDTH; i++) x[i] = y[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < WIDTH; i++) *(vec_any *)(to + i * COLUMNS) = x[i];
}
#endif

/* panel[p][COLUMNS] = b[p0 + p][j0 ..), zeros behind its `width` columns. */
static void pack(float *restrict panel, bl_matrix b, int32_t p0, int32_t depth, int32_t j0, int32_t width) {
  const int64_t down = b.transposed ? 1 : b.stride, right = b.transposed ? b.stride : 1;
  const float *from = b.data + p0 * down + j0 * right;
  int32_t p = 0;
  if (width == COLUMNS && b.transposed) {
    for (; p + WIDTH <= depth; p += WIDTH) {
      transpose(panel + p * COLUMNS, from + p, b.stride);
      transpose(panel + p * COLUMNS + WIDTH, from + p + WIDTH * right, b.stride);
    }
  }
  if (width == COLUMNS && !b.transposed) {
    for (; p < depth; p++) memcpy(panel + p * COLUMNS, from + p * down, COLUMNS * sizeof(float));
  }
  for (; p < depth; p++) {
    for (int32_t j = 0; j < COLUMNS; j++) panel[p * COLUMNS + j] = j < width ? from[p * down + j * right] : 0.0f;
  }
}

/* Where a tile of c goes. */
typedef struct target {
  float *c;
  int64_t stride;
  int32_t rows, width; /* of the tile that c has: at most ROWS, COLUMNS */
  float scale;
  bool add;
} target;

static inline void store(const target *to, vec sum[ROWS][2]) {
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) {
    if (r >= to->rows) return;
    vec_any *c = (vec_any *)(to->c + r * to->stride);
    for (int v = 0; v < 2; v++) {
      vec result = to->scale * sum[r][v];
      if (to->add) result += c[v];
      c[v] = result;
    }
  }
}

static inline void store_narrow(const target *to, vec sum[ROWS][2]) {
  float out[ROWS][COLUMNS];
  target all = {&out[0][0], COLUMNS, ROWS, COLUMNS, to->scale, false};
  store(&all, sum);
  for (int r = 0; r < to->rows; r++) {
    float *c = to->c + r * to->stride;
    for (int32_t j = 0; j < to->width; j++) c[j] = to->add ? c[j] + out[r][j] : out[r][j];
  }
}

/* A tile: rows of a, whose elements lie `step` apart, times the panel. */
static void tile(const target *to, const float *const row[ROWS], int64_t step, const float *panel, int32_t depth) {
  vec sum[ROWS][2] = {0};
  const float *a[ROWS];
  for (int r = 0; r < ROWS; r++) a[r] = row[r];
  for (int r = 0; r < to->rows; r++) { /* c is wanted after the loop; ask for it now */
    __builtin_prefetch(to->c + r * to->stride, 1);
    __builtin_prefetch(to->c + r * to->stride + COLUMNS - 1, 1);
  }
  for (int32_t p = 0; p < depth; p++) {
    const vec b0 = *(const vec_any *)(panel + p * COLUMNS), b1 = *(const vec_any *)(panel + p * COLUMNS + WIDTH);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) {
      const float v = a[r][p * step];
      sum[r][0] += v * b0;
      sum[r][1] += v * b1;
    }
  }
  if (to->width == COLUMNS)
    store(to, sum);
  else
    store_narrow(to, sum);
}

void bl_gemm(float *c, int32_t c_stride, bl_matrix a, bl_matrix b, int32_t m, int32_t n, int32_t k, float scale,
             bool accumulate) {
  _Alignas(64) float panel[DEPTH * COLUMNS];
  const int64_t down = a.transposed ? 1 : a.stride, step = a.transposed ? a.stride : 1;
  for (int32_t p = 0; p < k; p += DEPTH) {
    const int32_t depth = k - p < DEPTH ? k - p : DEPTH;
    for (int32_t j = 0; j < n; j += COLUMNS) {
      const int32_t width = n - j < COLUMNS ? n - j : COLUMNS;
      pack(panel, b, p, depth, j, width);
      for (int32_t i = 0; i < m; i += ROWS) {
        const int32_t rows = m - i < ROWS ? m - i : ROWS;
        const target to = {c + (int64_t)i * c_stride + j, c_stride, rows, width, scale, accumulate || p > 0};
        const float *row[ROWS]; /* behind the last row: that one again, its sums are not stored */
        for (int r = 0; r < ROWS; r++) row[r] = a.data + (i + (r < rows ? r : rows - 1)) * down + p * step;
        tile(&to, row, step, panel, depth);
      }
    }
  }
}

#endif
