/* mma.cuh - what a warp does together on the matrix units, and copies into shared memory that run ahead.
 *
 * PTX of sm_80 and later (PTX ISA manual: mma.m16n8k16, ldmatrix, cp.async). Every function is called by whole warps.
 * Where the device's compiler is not at hand, the stand-ins of tests/exec/cuda_shim do the same on the processor. */
#ifndef BL_EXECUTOR_CUDA_MMA_CUH
#define BL_EXECUTOR_CUDA_MMA_CUH

#include "executor/cuda/device.cuh"

/*! bl_shared() : the shared memory that the launch asked for (bl_blocks.shared_bytes), 16-byte aligned. */
__device__ static inline char *bl_shared(void) {
#ifdef __CUDACC__
  extern __shared__ __align__(16) char bl_shared_bytes[];
  return bl_shared_bytes;
#else
  return shim_shared();
#endif
}

/*! bl_mma() : c[16][8] += a[16][16] b[16][8], operands bf16 in pairs of neighbours in the direction of the sum, lower
 *  half first. With g = lane / 4 and t = lane % 4 this lane holds
 *    a: rows g, g + 8 (0, 1) in columns 2t, 2t + 1; the same rows in columns 2t + 8, 2t + 9 (2, 3)
 *    b: rows 2t, 2t + 1 (b0) and 2t + 8, 2t + 9 (b1) of column g
 *    c: columns 2t, 2t + 1 of row g (0, 1) and of row g + 8 (2, 3) */
__device__ static inline void bl_mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#ifdef __CUDACC__
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
               "{%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  shim_mma(c, a, b0, b1);
#endif
}

/*! bl_load_matrices() : four matrices of 8 x 8 from shared memory; lane l brings the address of row l % 8 of matrix
 *  l / 8, 16-byte aligned. to[i]: of matrix i, columns 2t, 2t + 1 of row g; transposed: rows 2t, 2t + 1 of column g. */
template <bool transposed> __device__ static inline void bl_load_matrices(uint32_t (&to)[4], const bl_bf16 *row) {
#ifdef __CUDACC__
  const uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
  if (transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(at)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(at)
                 : "memory");
#else
  shim_load_matrices(to, row, transposed);
#endif
}

/*! bl_copy_ahead() : 16 bytes from global to shared memory, of which all behind the first `bytes` become 0 and are not
 *  read. There at the latest when bl_copies_wait() has returned, for other threads behind the next barrier. */
__device__ static inline void bl_copy_ahead(void *shared, const void *global, int32_t bytes) {
#ifdef __CUDACC__
  const uint32_t to = (uint32_t)__cvta_generic_to_shared(shared);
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(bytes) : "memory");
#else
  shim_copy_ahead(shared, global, bytes);
#endif
}

__device__ static inline void bl_copies_wait(void) {
#ifdef __CUDACC__
  asm volatile("cp.async.wait_all;" ::: "memory");
#else
  shim_copies_wait();
#endif
}

/*! bl_exp2() : 2^x, about 2 units in the last place; 0 for -inf. For numbers that become bf16. */
__device__ static inline float bl_exp2(float x) {
#ifdef __CUDACC__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return exp2f(x);
#endif
}

/*! bl_pack_pair() : a pair as the operands have it. */
__device__ static inline uint32_t bl_pack_pair(float low, float high) {
#ifdef __CUDACC__
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  const bl_bf16 both[2] = {__float2bfloat16_rn(low), __float2bfloat16_rn(high)};
  uint32_t pair;
  memcpy(&pair, both, sizeof pair);
  return pair;
#endif
}

/* -- tiles in shared memory: rows of D numbers, 16 bytes apart from one another, which spreads ldmatrix over all banks
 * -- */

template <int D> __device__ constexpr int32_t bl_tile_stride(void) { return D + 8; }
template <int D> constexpr size_t bl_tile_bytes(int32_t rows) { return (size_t)rows * (D + 8) * sizeof(bl_bf16); }

/*! bl_tile_load() : rows first .. first + ROWS of a matrix with `rows` rows of `width` numbers, `stride` apart; zeros
 *  elsewhere. All threads of the block; there after bl_copies_wait() and a barrier. `wide`: all rows begin 16-byte
 *  aligned and width is a multiple of 8. */
template <int D, int ROWS>
__device__ static inline void bl_tile_load(bl_bf16 *tile, const bl_bf16 *matrix, int32_t first, int32_t rows,
                                           int64_t stride, int32_t width, bool wide) {
  for (int32_t i = (int32_t)threadIdx.x; i < ROWS * D / 8; i += (int32_t)blockDim.x) {
    const int32_t row = i / (D / 8), column = i % (D / 8) * 8, rest = width - column;
    const int32_t n = first + row >= rows || rest <= 0 ? 0 : rest < 8 ? rest : 8;
    bl_bf16 *to = tile + row * bl_tile_stride<D>() + column;
    const bl_bf16 *from = matrix + (n > 0 ? (first + row) * stride + column : 0);
    if (wide) bl_copy_ahead(to, from, n * (int32_t)sizeof *to);
    for (int32_t k = 0; k < 8 && !wide; k++) to[k] = k < n ? from[k] : __float2bfloat16_rn(0.0f);
  }
}

template <typename... T> static bool bl_tile_is_wide(int32_t width, const T *...matrices) {
  return width % 8 == 0 && ((reinterpret_cast<uintptr_t>(matrices) % 16 == 0) && ...);
}

/*! bl_tile_store_row() : this lane's numbers of row g (part 0) or g + 8 (part 1) of a product, times `scale`. */
template <int D>
__device__ static inline void bl_tile_store_row(bl_bf16 *row, const float (&c)[D / 8][4], int part, float scale,
                                                int32_t width, bool wide) {
#pragma unroll
  for (int j = 0; j < D / 8; j++) {
    const int32_t column = 8 * j + (int32_t)threadIdx.x % 4 * 2;
    const float low = c[j][2 * part] * scale, high = c[j][2 * part + 1] * scale;
    if (wide) {
      if (column < width) *reinterpret_cast<uint32_t *>(row + column) = bl_pack_pair(low, high);
    } else {
      if (column < width) bl_store(row + column, low);
      if (column + 1 < width) bl_store(row + column + 1, high);
    }
  }
}

/*! bl_rows_by_rows() : c[16 M][8 N] = a[16 M][D] b[8 N][D]^T of this warp, a and b in tiles. */
template <int D, int M, int N>
__device__ static inline void bl_rows_by_rows(float (&c)[M][N][4], const bl_bf16 *a, const bl_bf16 *b) {
  const int32_t lane = (int32_t)threadIdx.x % BL_WARP, stride = bl_tile_stride<D>();
  a += lane % 16 * stride + lane / 16 * 8;
  b += (lane / 16 * 8 + lane % 8) * stride + lane / 8 % 2 * 8;
#pragma unroll
  for (int i = 0; i < M; i++)
#pragma unroll
    for (int j = 0; j < N; j++)
#pragma unroll
      for (int k = 0; k < 4; k++) c[i][j][k] = 0.0f;
#pragma unroll
  for (int k = 0; k < D; k += 16) {
    uint32_t from_a[M][4], from_b[4];
#pragma unroll
    for (int i = 0; i < M; i++) bl_load_matrices<false>(from_a[i], a + 16 * i * stride + k);
#pragma unroll
    for (int j = 0; j < N; j += 2) {
      bl_load_matrices<false>(from_b, b + 8 * j * stride + k);
#pragma unroll
      for (int i = 0; i < M; i++) {
        bl_mma(c[i][j], from_a[i], from_b[0], from_b[1]);
        bl_mma(c[i][j + 1], from_a[i], from_b[2], from_b[3]);
      }
    }
  }
}

/*! bl_add_by_columns() : c[16 M][D] += a[16 M][8 N] b[8 N][D] of this warp; a as a product left it, rounded to bf16
 *  here, b in a tile. */
template <int D, int M, int N>
__device__ static inline void bl_add_by_columns(float (&c)[M][D / 8][4], const float (&a)[M][N][4], const bl_bf16 *b) {
  const int32_t lane = (int32_t)threadIdx.x % BL_WARP, stride = bl_tile_stride<D>();
  b += lane % 16 * stride + lane / 16 * 8;
#pragma unroll
  for (int k = 0; k < N; k += 2) {
    uint32_t from_a[M][4], from_b[4];
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
      for (int part = 0; part < 4; part++)
        from_a[i][part] = bl_pack_pair(a[i][k + part / 2][part % 2 * 2], a[i][k + part / 2][part % 2 * 2 + 1]);
#pragma unroll
    for (int j = 0; j < D / 8; j += 2) {
      bl_load_matrices<true>(from_b, b + 8 * k * stride + 8 * j);
#pragma unroll
      for (int i = 0; i < M; i++) {
        bl_mma(c[i][j], from_a[i], from_b[0], from_b[1]);
        bl_mma(c[i][j + 1], from_a[i], from_b[2], from_b[3]);
      }
    }
  }
}

#endif
