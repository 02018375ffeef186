/* optimizer.cu - the AdamW update. */
#include "executor/cuda/elementwise.cuh"

namespace {

/* `weight` is NULL where the master is the weight. */
template <typename N> struct adamw_update {
  N *weight;
  float *master, *m, *v;
  const float *grad;
  bl_adamw a;
  float rest1, rest2, over1, over2;

  template <int V> __device__ void at(int64_t i) const {
    float w[V], first[V], second[V], g[V];
    bl_load_pack<V>(w, master + i);
    bl_load_pack<V>(first, m + i);
    bl_load_pack<V>(second, v + i);
    bl_load_pack<V>(g, grad + i);
    for (int k = 0; k < V; k++) {
      const float scaled = g[k] * a.grad_scale;
      first[k] = a.beta1 * first[k] + rest1 * scaled;
      second[k] = a.beta2 * second[k] + rest2 * (scaled * scaled);
      const float update = first[k] * over1 / (sqrtf(second[k] * over2) + a.eps);
      w[k] -= a.lr * (update + a.decay * w[k]);
    }
    bl_store_pack<V>(master + i, w);
    bl_store_pack<V>(m + i, first);
    bl_store_pack<V>(v + i, second);
    if (weight) bl_store_pack<V>(weight + i, w);
  }
};

template <typename N>
void adamw(bl_stream *s, bl_num *weight, float *master, float *m, float *v, const float *grad, int64_t n,
           const bl_adamw *hyper) {
  const bool own = weight != static_cast<void *>(master);
  const adamw_update<N> f = {own ? static_cast<N *>(weight) : NULL,
                             master,
                             m,
                             v,
                             grad,
                             *hyper,
                             1.0f - hyper->beta1,
                             1.0f - hyper->beta2,
                             1.0f / hyper->bias_correction1,
                             1.0f / hyper->bias_correction2};
  bl_map(s, "adamw", f, n, bl_all_wide(0, f.weight) && bl_all_wide(0, f.master, f.m, f.v, f.grad));
}

} // namespace

void bl_cuda_optimizer_ops(bl_ops *ops, bool bf16) { ops->adamw = bf16 ? adamw<bl_bf16> : adamw<float>; }
