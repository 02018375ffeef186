#include "executor/cpu/gemm.h"
#include <string.h>

#ifdef BL_HAVE_OPENBLAS
#include <cblas.h>

void bl_gemm_init(void) { openblas_set_num_threads(1); }

void bl_gemm(float *c, int32_t c_stride, bl_matrix a, bl_matrix b, int32_t m, int32_t n, int32_t k, float scale,
             bool accumulate) {
  if (m == 0 || n == 0) return;
  cblas_sgemm(CblasRowMajor, a.transposed ? CblasTrans : CblasNoTrans, b.transposed ? CblasTrans : CblasNoTrans, m, n,
              k, scale, a.data, a.stride, b.data, b.stride, accumulate ? 1.0f : 0.0f, c, c_stride);
}

#else

enum { ROWS = 8, COLUMNS = 32, DEPTH = 256 };

void bl_gemm_init(void) {}

/* panel[p][COLUMNS] = b[p0 + p][j0 ..), zeros behind the last column. */
static void pack_b(float panel[DEPTH][COLUMNS], bl_matrix b, int32_t p0, int32_t depth, int32_t j0, int32_t width) {
  for (int32_t p = 0; p < depth; p++) {
    for (int32_t j = 0; j < COLUMNS; j++) {
      const int64_t row = b.transposed ? j0 + j : p0 + p, column = b.transposed ? p0 + p : j0 + j;
      panel[p][j] = j < width ? b.data[row * b.stride + column] : 0.0f;
    }
  }
}

static void tile(float *c, int32_t c_stride, bl_matrix a, const float panel[DEPTH][COLUMNS], int32_t i0, int32_t rows,
                 int32_t p0, int32_t depth, int32_t width, float scale) {
  float sum[ROWS][COLUMNS];
  memset(sum, 0, sizeof sum);
  for (int32_t p = 0; p < depth; p++) {
    for (int32_t i = 0; i < rows; i++) {
      const int64_t row = a.transposed ? p0 + p : i0 + i, column = a.transposed ? i0 + i : p0 + p;
      const float value = a.data[row * a.stride + column];
      for (int32_t j = 0; j < COLUMNS; j++) sum[i][j] += value * panel[p][j];
    }
  }
  for (int32_t i = 0; i < rows; i++) {
    for (int32_t j = 0; j < width; j++) c[(int64_t)i * c_stride + j] += scale * sum[i][j];
  }
}

void bl_gemm(float *c, int32_t c_stride, bl_matrix a, bl_matrix b, int32_t m, int32_t n, int32_t k, float scale,
             bool accumulate) {
  float panel[DEPTH][COLUMNS];
  for (int32_t i = 0; i < m && !accumulate; i++) memset(c + (int64_t)i * c_stride, 0, sizeof(float) * (size_t)n);
  for (int32_t j = 0; j < n; j += COLUMNS) {
    const int32_t width = n - j < COLUMNS ? n - j : COLUMNS;
    for (int32_t p = 0; p < k; p += DEPTH) {
      const int32_t depth = k - p < DEPTH ? k - p : DEPTH;
      pack_b(panel, b, p, depth, j, width);
      for (int32_t i = 0; i < m; i += ROWS) {
        const int32_t rows = m - i < ROWS ? m - i : ROWS;
        tile(c + (int64_t)i * c_stride + j, c_stride, a, panel, i, rows, p, depth, width, scale);
      }
    }
  }
}

#endif
