/* gate.cu - choice of experts and its gradients: a warp a token. */
#include "executor/cuda/device.cuh"
#include "executor/op_math.h"

namespace {

enum { TOKENS = 8, THREADS = TOKENS * BL_WARP }; /* tokens of a block */

bl_blocks blocks_of(int64_t T) { return {bl_ceil_div(T, TOKENS), 1}; }

/* The calling warp's token; may be beyond the last. */
__device__ int64_t my_token() { return (int64_t)blockIdx.x * TOKENS + threadIdx.x / BL_WARP; }
__device__ int32_t my_lane() { return (int32_t)threadIdx.x % BL_WARP; }

/* A logit that no comparison loses: NaN counts as minus infinity. */
template <typename N> __device__ float logit(const N *x) {
  const float v = bl_load(x);
  return v == v ? v : -INFINITY;
}

struct candidate {
  float value;
  int32_t expert;
};

/* Whether a goes before b: the larger logit, at a tie the lower id. */
__device__ bool goes_before(candidate a, candidate b) {
  return a.value > b.value || (a.value == b.value && a.expert < b.expert);
}

/* The warp's first candidate behind `last` in that order; expert INT32_MAX when there is none. */
template <typename N> __device__ candidate next_choice(const N *logits, int32_t E, candidate last) {
  candidate best = {-INFINITY, INT32_MAX};
  for (int32_t e = my_lane(); e < E; e += BL_WARP) {
    const candidate c = {logit(logits + e), e};
    if (goes_before(last, c) && goes_before(c, best)) best = c;
  }
  for (int step = BL_WARP / 2; step > 0; step /= 2) {
    const candidate other = {__shfl_xor_sync(0xffffffffu, best.value, step),
                             __shfl_xor_sync(0xffffffffu, best.expert, step)};
    if (goes_before(other, best)) best = other;
  }
  return best;
}

template <typename N>
__global__ void choose_top_k(int32_t *expert, float *weight, const N *logits, int64_t T, int32_t E, int32_t K) {
  const int64_t t = my_token();
  if (t >= T) return;
  candidate last = {INFINITY, -1};
  float largest = 0.0f, sum = 0.0f;
  for (int32_t c = 0; c < K; c++) {
    last = next_choice(logits + t * E, E, last);
    if (c == 0) largest = last.value;
    const float w = bl_expf(last.value - largest);
    sum += w;
    if (my_lane() != 0) continue;
    expert[t * K + c] = last.expert;
    weight[t * K + c] = w;
  }
  for (int32_t c = 0; c < K && my_lane() == 0; c++) weight[t * K + c] /= sum;
}

template <typename N>
void gate_top_k(bl_stream *s, int32_t *expert, float *weight, const bl_num *logits, int32_t T, int32_t E, int32_t K) {
  bl_launch(s, "gate_top_k", choose_top_k<N>, blocks_of(T), THREADS, expert, weight, static_cast<const N *>(logits), T,
            E, K);
}

template <typename N>
__global__ void top_k_backward(N *dlogits, const float *dweight, const float *weight, const int32_t *chosen, int64_t T,
                               int32_t E, int32_t K) {
  const int64_t t = my_token();
  if (t >= T) return;
  const float *w = weight + t * K, *dw = dweight + t * K;
  float inner = 0.0f;
  for (int32_t c = 0; c < K; c++) inner += w[c] * dw[c];
  for (int32_t e = my_lane(); e < E; e += BL_WARP) {
    float d = 0.0f;
    for (int32_t c = 0; c < K; c++)
      if (chosen[t * K + c] == e) d = w[c] * (dw[c] - inner);
    bl_store(dlogits + t * E + e, d);
  }
}

template <typename N>
void gate_top_k_bwd(bl_stream *s, bl_num *dlogits, const float *dweight, const float *weight, const int32_t *chosen,
                    int32_t T, int32_t E, int32_t K) {
  bl_launch(s, "gate_top_k_bwd", top_k_backward<N>, blocks_of(T), THREADS, static_cast<N *>(dlogits), dweight, weight,
            chosen, T, E, K);
}

/* Softmax of a token's logits: p_e = exp(x_e - largest) * over, known to the whole warp. */
struct softmax {
  float largest, over;
  template <typename N> __device__ float operator()(const N *x) const { return bl_expf(bl_load(x) - largest) * over; }
};

template <typename N> __device__ softmax softmax_of(const N *x, int32_t E) {
  softmax p = {-INFINITY, 1.0f};
  float sum = 0.0f;
  for (int32_t e = my_lane(); e < E; e += BL_WARP) p.largest = logit(x + e) > p.largest ? logit(x + e) : p.largest;
  p.largest = bl_warp_max(p.largest);
  for (int32_t e = my_lane(); e < E; e += BL_WARP) sum += p(x + e);
  p.over = 1.0f / bl_warp_sum(sum);
  return p;
}

template <typename N>
__global__ void choose_largest(int32_t *expert, float *weight, const N *logits, int64_t T, int32_t E) {
  const int64_t t = my_token();
  if (t >= T) return;
  const candidate best = next_choice(logits + t * E, E, {INFINITY, -1});
  const softmax p = softmax_of(logits + t * E, E);
  if (my_lane() != 0) return;
  expert[t] = best.expert;
  weight[t] = p(logits + t * E + best.expert);
}

template <typename N>
void gate_switch(bl_stream *s, int32_t *expert, float *weight, const bl_num *logits, int32_t T, int32_t E) {
  bl_launch(s, "gate_switch", choose_largest<N>, blocks_of(T), THREADS, expert, weight, static_cast<const N *>(logits),
            T, E);
}

template <typename N>
__global__ void switch_backward(N *dlogits, const float *dweight, const N *logits, const int32_t *chosen, int64_t T,
                                int32_t E) {
  const int64_t t = my_token();
  if (t >= T) return;
  const N *x = logits + t * E;
  const softmax p = softmax_of(x, E);
  const float through = p(x + chosen[t]) * dweight[t];
  for (int32_t e = my_lane(); e < E; e += BL_WARP)
    bl_store(dlogits + t * E + e, (e == chosen[t] ? through : 0.0f) - p(x + e) * through);
}

template <typename N>
void gate_switch_bwd(bl_stream *s, bl_num *dlogits, const float *dweight, const bl_num *logits, const int32_t *chosen,
                     int32_t T, int32_t E) {
  bl_launch(s, "gate_switch_bwd", switch_backward<N>, blocks_of(T), THREADS, static_cast<N *>(dlogits), dweight,
            static_cast<const N *>(logits), chosen, T, E);
}

/* -- balance loss
 * ------------------------------------------------------------------------------------------------------ */

template <typename N> __global__ void token_softmax(softmax *of_token, const N *logits, int64_t T, int32_t E) {
  const int64_t t = my_token();
  if (t >= T) return;
  const softmax p = softmax_of(logits + t * E, E);
  if (my_lane() == 0) of_token[t] = p;
}

/* Block x is (sequence, expert): fraction of first choices, and its product with the mean probability. */
template <typename N>
__global__ void expert_shares(float *fraction, float *product, const softmax *of_token, const N *logits,
                              const int32_t *chosen, int32_t seq, int32_t E, int32_t K) {
  const int64_t q = (int64_t)blockIdx.x / E, first = q * seq;
  const int32_t e = (int32_t)((int64_t)blockIdx.x % E);
  float probability = 0.0f;
  int32_t n = 0;
  for (int64_t t = first + threadIdx.x; t < first + seq; t += blockDim.x) {
    probability += of_token[t](logits + t * E + e);
    n += chosen[t * K] == e;
  }
  probability = bl_block_sum(probability);
  n = bl_block_sum(n);
  if (threadIdx.x != 0) return;
  const float f = (float)n / (float)seq;
  fraction[blockIdx.x] = f;
  product[blockIdx.x] = f * (probability / (float)seq);
}

/* Block x is a sequence, of one warp. */
static __global__ void balance_loss(float *loss, const float *product, int32_t E, float factor) {
  float sum = 0.0f;
  for (int32_t e = my_lane(); e < E; e += BL_WARP) sum += product[(int64_t)blockIdx.x * E + e];
  sum = bl_warp_sum(sum);
  if (my_lane() == 0) loss[blockIdx.x] = factor * sum;
}

/* d loss / d logits of one token = factor p_e (f_e - sum_j f_j p_j). */
template <typename N>
__global__ void balance_backward(N *dlogits, const softmax *of_token, const float *fraction, const N *logits, int64_t T,
                                 int32_t seq, int32_t E, float factor) {
  const int64_t t = my_token();
  if (t >= T) return;
  const float *f = fraction + t / seq * E;
  const N *x = logits + t * E;
  const softmax p = of_token[t];
  float inner = 0.0f;
  for (int32_t e = my_lane(); e < E; e += BL_WARP) inner += f[e] * p(x + e);
  inner = bl_warp_sum(inner);
  for (int32_t e = my_lane(); e < E; e += BL_WARP) {
    N *d = dlogits + t * E + e;
    bl_store(d, bl_load(d) + factor * p(x + e) * (f[e] - inner));
  }
}

template <typename N>
void gate_balance(bl_stream *s, float *loss, bl_num *dlogits, const bl_num *logits, const int32_t *chosen,
                  int32_t sequences, int32_t seq, int32_t E, int32_t K, float coefficient, float scale) {
  const char *what = "gate_balance";
  const int64_t T = (int64_t)sequences * seq, cells = (int64_t)sequences * E;
  if (T <= 0) return;
  char *scratch = bl_cuda_scratch(s, what, (size_t)T * sizeof(softmax) + 2 * (size_t)cells * sizeof(float));
  if (!scratch) return;
  softmax *of_token = reinterpret_cast<softmax *>(scratch);
  float *fraction = reinterpret_cast<float *>(of_token + T), *product = fraction + cells;
  const N *x = static_cast<const N *>(logits);
  const float factor = coefficient * (float)E;
  bl_launch(s, what, token_softmax<N>, blocks_of(T), THREADS, of_token, x, T, E);
  bl_launch(s, what, expert_shares<N>, {cells, 1}, bl_row_threads(seq), fraction, product, of_token, x, chosen, seq, E,
            K);
  bl_launch(s, what, balance_loss, {sequences, 1}, BL_WARP, loss, product, E, factor);
  if (!dlogits) return;
  bl_launch(s, what, balance_backward<N>, blocks_of(T), THREADS, static_cast<N *>(dlogits), of_token, fraction, x, T,
            seq, E, scale * factor / (float)seq);
}

template <typename N> void fill(bl_ops *ops) {
  ops->gate_top_k = gate_top_k<N>;
  ops->gate_top_k_bwd = gate_top_k_bwd<N>;
  ops->gate_switch = gate_switch<N>;
  ops->gate_switch_bwd = gate_switch_bwd<N>;
  ops->gate_balance = gate_balance<N>;
}

} // namespace

void bl_cuda_gate_ops(bl_ops *ops, bool bf16) { bf16 ? fill<bl_bf16>(ops) : fill<float>(ops); }
