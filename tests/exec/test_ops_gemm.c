/* test_ops_gemm.c - the matrix product against one in double, around the sizes of its tiles; operands inside larger
 * matrices, whose other elements stay untouched; the same bits from other addresses. */
#include "base/rng.h"
#include "executor/cpu/gemm.h"
#include "tests/check.h"

enum { LARGEST = 300, STRIDE = LARGEST + 7 };

static float a_data[STRIDE * STRIDE + 1], b_data[STRIDE * STRIDE + 1], c_data[STRIDE * STRIDE],
    again[STRIDE * STRIDE + 1];
static bl_rng rng;

static void fill(float *x, int n) {
  for (int i = 0; i < n; i++) x[i] = (float)(2.0 * bl_rng_unit(&rng) - 1.0);
}

static float at(bl_matrix x, int row, int column) {
  return x.transposed ? x.data[column * x.stride + row] : x.data[row * x.stride + column];
}

static void check_product(int m, int n, int k, bool a_transposed, bool b_transposed, bool accumulate, float scale) {
  bl_gemm_init();
  const bl_matrix a = {a_data, STRIDE, a_transposed}, b = {b_data, STRIDE, b_transposed};
  fill(c_data, STRIDE * STRIDE);
  memcpy(again, c_data, sizeof c_data);
  for (int i = 0; i < m && !accumulate; i++) {
    for (int j = 0; j < n; j++) c_data[i * STRIDE + j] = NAN;
  }
  bl_gemm(c_data, STRIDE, a, b, m, n, k, scale, accumulate);
  double worst = 0.0;
  bool outside = true;
  for (int i = 0; i < STRIDE; i++) {
    for (int j = 0; j < STRIDE; j++) {
      const float got = c_data[i * STRIDE + j], before = again[i * STRIDE + j];
      if (i >= m || j >= n) {
        outside &= got == before;
        continue;
      }
      double want = 0.0;
      for (int p = 0; p < k; p++) want += (double)at(a, i, p) * (double)at(b, p, j);
      const double error = fabs((double)got - ((double)scale * want + (accumulate ? (double)before : 0.0)));
      if (!(error <= worst)) worst = error;
    }
  }
  CHECK(outside);
  CHECK_NEAR(worst, 0.0, 2e-6 * sqrt(k) * 4.0);
  if (worst > 2e-6 * sqrt(k) * 4.0) printf("m %d n %d k %d\n", m, n, k);
}

static void test_sizes(void) {
  const int sizes[][3] = {{1, 1, 1},   {7, 31, 5},   {8, 32, 16},    {9, 33, 17},   {6, 16, 8},    {17, 64, 255},
                          {5, 8, 256}, {3, 40, 257}, {64, 100, 300}, {40, 300, 33}, {300, 15, 64}, {2, 34, 1}};
  fill(a_data, STRIDE * STRIDE);
  fill(b_data, STRIDE * STRIDE);
  for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
    for (int way = 0; way < 8; way++) {
      check_product(sizes[s][0], sizes[s][1], sizes[s][2], way & 1, way & 2, way & 4, way & 4 ? 0.5f : 1.0f);
    }
  }
}

static void test_same_bits_elsewhere(void) {
  enum { M = 45, N = 70, K = 290 };
  for (int way = 0; way < 4; way++) {
    fill(a_data, STRIDE * STRIDE);
    fill(b_data, STRIDE * STRIDE);
    bl_gemm(c_data, N, (bl_matrix){a_data, STRIDE, way & 1}, (bl_matrix){b_data, STRIDE, way & 2}, M, N, K, 1.0f,
            false);
    memmove(a_data + 1, a_data, sizeof a_data - sizeof(float));
    memmove(b_data + 1, b_data, sizeof b_data - sizeof(float));
    bl_gemm(again + 1, N, (bl_matrix){a_data + 1, STRIDE, way & 1}, (bl_matrix){b_data + 1, STRIDE, way & 2}, M, N, K,
            1.0f, false);
    CHECK(memcmp(c_data, again + 1, sizeof(float) * M * N) == 0);
  }
}

/* One term of a sum, as the build has it. */
static float add_term(float sum, float x, float y) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return fmaf(x, y, sum);
#else
  return sum + x * y;
#endif
}

/* k ascending in pieces of 256 that are added one after the other: whatever the width of the machine's vectors, so that
 * a run repeats to the bit on another machine. */
static void test_specified_bits(void) {
#if defined(BL_HAVE_OPENBLAS) && !defined(__FMA__) && !defined(__ARM_FEATURE_FMA)
  SKIP("the order of a sum is OpenBLAS' own in a build without fused multiply-adds");
#endif
  enum { M = 21, N = 75, K = 300 };
  fill(a_data, STRIDE * STRIDE);
  fill(b_data, STRIDE * STRIDE);
  fill(c_data, STRIDE * STRIDE);
  for (int way = 0; way < 8; way++) {
    const bl_matrix a = {a_data, STRIDE, way & 1}, b = {b_data, STRIDE, way & 2};
    const bool accumulate = way & 4;
    for (int i = 0; i < M * N; i++) {
      float *c = again + i, piece = 0.0f;
      bool written = accumulate;
      *c = c_data[i];
      for (int p = 0; p < K; p++) {
        piece = add_term(piece, at(a, i / N, p), at(b, p, i % N));
        if (p % 256 != 255 && p + 1 != K) continue;
        *c = written ? *c + piece : piece;
        written = true;
        piece = 0.0f;
      }
    }
    bl_gemm(c_data, N, a, b, M, N, K, 1.0f, accumulate);
    CHECK(memcmp(c_data, again, sizeof(float) * M * N) == 0);
  }
}

/* NaN and infinity in the operands come through; an unwritten c does not. */
static void test_not_finite(void) {
  fill(a_data, STRIDE * STRIDE);
  fill(b_data, STRIDE * STRIDE);
  a_data[3 * STRIDE + 4] = NAN;
  bl_gemm(c_data, STRIDE, (bl_matrix){a_data, STRIDE, false}, (bl_matrix){b_data, STRIDE, true}, 10, 40, 20, 1.0f,
          false);
  bool right = true;
  for (int i = 0; i < 10; i++) {
    for (int j = 0; j < 40; j++) right &= isnan(c_data[i * STRIDE + j]) == (i == 3);
  }
  CHECK(right);
}

int main(void) {
  bl_rng_seed(&rng, 5, 6);
  RUN(test_sizes);
  RUN(test_same_bits_elsewhere);
  RUN(test_specified_bits);
  RUN(test_not_finite);
  TEST_MAIN_END;
}
