/* embed.cu - token and position embedding.
 *
 * The backward pass adds the rows of one word in a fixed order without atomics: tokens in runs of RUN, within a run the
 * first occurrence of a word (its leader) gets the sum of all; then the leaders of a word are added in order. */
#include "executor/cuda/device.cuh"

namespace {

enum { RUN = 64, COLUMNS = 256 };

template <typename N, int V>
__global__ void forward_rows(N *x, const int32_t *token, const N *table, const N *position, int32_t seq, int32_t H) {
  const int64_t t = (int64_t)blockIdx.x;
  const N *word = table + (int64_t)token[t] * H, *place = position + t % seq * H;
  for (int32_t i = (int32_t)threadIdx.x * V; i < H; i += (int32_t)blockDim.x * V) {
    float a[V], b[V];
    bl_load_pack<V>(a, word + i);
    bl_load_pack<V>(b, place + i);
    for (int k = 0; k < V; k++) a[k] += b[k];
    bl_store_pack<V>(x + t * H + i, a);
  }
}

template <typename N>
void embed_fwd(bl_stream *s, bl_num *x, const int32_t *token, const bl_num *table, const bl_num *position, int32_t T,
               int32_t seq, int32_t H) {
  N *to = static_cast<N *>(x);
  const N *words = static_cast<const N *>(table), *places = static_cast<const N *>(position);
  const bool wide = bl_all_wide(H, to, words, places);
  bl_launch(s, "embed_fwd", wide ? forward_rows<N, BL_WIDE> : forward_rows<N, 1>, {T, 1},
            bl_row_threads(H / (wide ? BL_WIDE : 1)), to, token, words, places, seq, H);
}

/* Block x is a run, block y COLUMNS columns. lead[t] = the word of a leader, -1 for others; partial[t][H] = its sum. */
template <typename N>
__global__ void sum_runs(float *partial, int32_t *lead, const int32_t *token, const N *dx, int32_t T, int32_t H) {
  __shared__ int32_t leader[RUN];
  const int64_t begin = (int64_t)blockIdx.x * RUN;
  const int32_t n = T - begin < RUN ? (int32_t)(T - begin) : (int32_t)RUN, me = (int32_t)threadIdx.x;
  if (me < n) {
    const int32_t word = token[begin + me];
    int32_t first = me;
    for (int32_t i = me - 1; i >= 0; i--)
      if (token[begin + i] == word) first = i;
    leader[me] = first;
    if (blockIdx.y == 0) lead[begin + me] = first == me ? word : -1;
  }
  __syncthreads();
  const int64_t column = (int64_t)blockIdx.y * COLUMNS + me;
  if (column >= H) return;
  for (int32_t i = 0; i < n; i++) {
    float *sum = partial + (begin + leader[i]) * H + column; /* this thread's alone */
    const float d = bl_load(dx + (begin + i) * H + column);
    *sum = leader[i] == i ? d : *sum + d;
  }
}

/* Block x is a token; only a word's first token works. */
__global__ void sum_words(float *grad_table, const float *partial, const int32_t *lead, int32_t T, int32_t H) {
  __shared__ int32_t hit[COLUMNS];
  const int32_t t = (int32_t)blockIdx.x, word = lead[t], me = (int32_t)threadIdx.x;
  const int64_t column = (int64_t)blockIdx.y * COLUMNS + me;
  if (word < 0) return;
  for (int32_t base = 0; base < t; base += COLUMNS) {
    const bool earlier = me < t - base && lead[base + me] == word;
    if (__syncthreads_or(earlier)) return;
  }
  float sum = 0.0f;
  for (int64_t base = t; base < T; base += COLUMNS) {
    const bool found = me < T - base && lead[base + me] == word;
    if (!__syncthreads_or(found)) continue; /* behind it all are done with the last tile's `hit` */
    hit[me] = found;
    __syncthreads();
    for (int32_t i = 0; i < COLUMNS && column < H; i++)
      if (hit[i]) sum += partial[(base + i) * H + column];
  }
  if (column < H) grad_table[(int64_t)word * H + column] += sum;
}

/* Block x is a position; sequences in order. */
template <typename N>
__global__ void sum_positions(float *grad_position, const N *dx, int32_t T, int32_t seq, int32_t H) {
  const int64_t p = (int64_t)blockIdx.x, column = (int64_t)blockIdx.y * COLUMNS + threadIdx.x;
  if (column >= H) return;
  float sum = 0.0f;
  for (int64_t t = p; t < T; t += seq) sum += bl_load(dx + t * H + column);
  grad_position[p * H + column] += sum;
}

template <typename N>
void embed_bwd(bl_stream *s, float *grad_table, float *grad_position, const int32_t *token, const bl_num *dx, int32_t T,
               int32_t seq, int32_t H) {
  if (T <= 0) return;
  const N *from = static_cast<const N *>(dx);
  const size_t lead_bytes = (size_t)bl_ceil_div(T, 64) * 64 * sizeof(int32_t);
  char *scratch = bl_cuda_scratch(s, "embed_bwd", lead_bytes + (size_t)T * (size_t)H * sizeof(float));
  if (!scratch) return;
  int32_t *lead = reinterpret_cast<int32_t *>(scratch);
  float *partial = reinterpret_cast<float *>(scratch + lead_bytes);
  const int64_t tiles = bl_ceil_div(H, COLUMNS);
  bl_launch(s, "embed_bwd", sum_runs<N>, {bl_ceil_div(T, RUN), tiles}, COLUMNS, partial, lead, token, from, T, H);
  bl_launch(s, "embed_bwd", sum_words, {T, tiles}, COLUMNS, grad_table, partial, lead, T, H);
  bl_launch(s, "embed_bwd", sum_positions<N>, {T < seq ? T : seq, tiles}, COLUMNS, grad_position, from, T, seq, H);
}

template <typename N> void fill(bl_ops *ops) {
  ops->embed_fwd = embed_fwd<N>;
  ops->embed_bwd = embed_bwd<N>;
}

} // namespace

void bl_cuda_embed_ops(bl_ops *ops, bool bf16) { bf16 ? fill<bl_bf16>(ops) : fill<float>(ops); }
