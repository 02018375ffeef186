/* elementwise.cu - additions, conversions: one value in, one value out. */
#include "executor/cuda/elementwise.cuh"

namespace {

template <typename N> struct addition {
  N *y;
  const N *x;
  template <int V> __device__ void at(int64_t i) const {
    float v[V], sum[V];
    bl_load_pack<V>(v, x + i);
    bl_load_pack<V>(sum, y + i);
    for (int k = 0; k < V; k++) sum[k] += v[k];
    bl_store_pack<V>(y + i, sum);
  }
};

template <typename To, typename From> struct conversion {
  To *y;
  const From *x;
  template <int V> __device__ void at(int64_t i) const {
    float v[V];
    bl_load_pack<V>(v, x + i);
    bl_store_pack<V>(y + i, v);
  }
};

template <typename N> void add(bl_stream *s, bl_num *y, const bl_num *x, int64_t n) {
  const addition<N> f = {static_cast<N *>(y), static_cast<const N *>(x)};
  bl_map(s, "add", f, n, bl_all_wide(0, f.y, f.x));
}

void add_f32(bl_stream *s, float *y, const float *x, int64_t n) { add<float>(s, y, x, n); }

template <typename N> void from_f32(bl_stream *s, bl_num *y, const float *x, int64_t n) {
  const conversion<N, float> f = {static_cast<N *>(y), x};
  bl_map(s, "from_f32", f, n, bl_all_wide(0, f.y) && bl_all_wide(0, f.x));
}

template <typename N> void to_f32(bl_stream *s, float *y, const bl_num *x, int64_t n) {
  const conversion<float, N> f = {y, static_cast<const N *>(x)};
  bl_map(s, "to_f32", f, n, bl_all_wide(0, f.y) && bl_all_wide(0, f.x));
}

template <typename N> void fill(bl_ops *ops) {
  ops->add = add<N>;
  ops->from_f32 = from_f32<N>;
  ops->to_f32 = to_f32<N>;
}

} // namespace

void bl_cuda_elementwise_ops(bl_ops *ops, bool bf16) {
  bf16 ? fill<bl_bf16>(ops) : fill<float>(ops);
  ops->add_f32 = add_f32;
}
