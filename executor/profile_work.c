/* profile_work.c - one call of each kind of work, made of the same operations as the actions of training. */
#include "base/memory.h"
#include "base/rng.h"
#include "executor/profile_calls.h"
#include <stdlib.h>

enum { MAX_GROUPS = 4, MAX_EXPERTS = 64, LARGEST_BYTES = 1 << 24 };

/* Sizes of the model that the calls need, in short. */
typedef struct sizes {
  int32_t H, A, heads, width, seq, V, E, K, F, D;
} sizes;

static sizes sizes_of(const bl_bench *b) {
  const bl_model *m = b->model;
  return (sizes){
      m->hidden, m->heads * m->head_width, m->heads,    m->head_width, m->sequence, m->vocabulary, m->experts,
      m->top_k,  m->expert_width,          m->ffn_width};
}

static float *take(bl_bench *b, int64_t n) { return bl_bench_take(b, n); }
static bl_num *num(bl_bench *b, int64_t n) { return bl_bench_take_num(b, n); }

static bl_status embed_fwd(bl_bench *b, int64_t T) {
  const sizes z = sizes_of(b);
  b->be->ops.embed_fwd(b->s, num(b, T * z.H), b->ids, num(b, (int64_t)z.V * z.H), num(b, (int64_t)z.seq * z.H),
                       (int32_t)T, z.seq, z.H);
  return BL_OK;
}

static bl_status embed_bwd(bl_bench *b, int64_t T) {
  const sizes z = sizes_of(b);
  b->be->ops.embed_bwd(b->s, take(b, (int64_t)z.V * z.H), take(b, (int64_t)z.seq * z.H), b->ids, num(b, T * z.H),
                       (int32_t)T, z.seq, z.H);
  return BL_OK;
}

/* y = norm(x) with fresh weights; returns y. */
static bl_num *norm_fwd(bl_bench *b, const bl_num *x, int32_t T, int32_t H) {
  bl_num *y = num(b, (int64_t)T * H);
  b->be->ops.norm_fwd(b->s, y, take(b, T), take(b, T), x, num(b, H), num(b, H), T, H);
  return y;
}

static void norm_bwd(bl_bench *b, bl_num *dx, const bl_num *dy, int32_t T, int32_t H) {
  b->be->ops.norm_bwd(b->s, dx, take(b, H), take(b, H), dy, num(b, (int64_t)T * H), take(b, T), take(b, T), num(b, H),
                      T, H);
}

static bl_num *linear_fwd(bl_bench *b, const bl_num *x, int32_t T, int32_t N, int32_t K, bool accumulate) {
  bl_num *y = num(b, (int64_t)T * N);
  b->be->ops.linear_fwd(b->s, y, x, num(b, (int64_t)N * K), num(b, N), T, N, K, accumulate);
  return y;
}

static bl_num *linear_bwd(bl_bench *b, const bl_num *dy, int32_t T, int32_t N, int32_t K, bool with_bias) {
  bl_num *dx = num(b, (int64_t)T * K);
  b->be->ops.linear_dw(b->s, take(b, (int64_t)N * K), with_bias ? take(b, N) : NULL, dy, num(b, (int64_t)T * K), T, N,
                       K);
  b->be->ops.linear_dx(b->s, dx, dy, num(b, (int64_t)N * K), T, N, K, false);
  return dx;
}

static void copy_rows(bl_bench *b, int64_t T) {
  const size_t bytes = (size_t)T * (size_t)b->model->hidden * b->be->num_bytes;
  b->be->copy(b->s, num(b, T * b->model->hidden), num(b, T * b->model->hidden), bytes);
}

static bl_status attention_fwd(bl_bench *b, int64_t tokens) {
  const sizes z = sizes_of(b);
  const int32_t T = (int32_t)tokens;
  const bl_num *qkv = linear_fwd(b, norm_fwd(b, num(b, tokens * z.H), T, z.H), T, 3 * z.A, z.H, false);
  bl_num *out = num(b, tokens * z.A);
  b->be->ops.attention_fwd(b->s, out, take(b, tokens * z.heads), qkv, T / z.seq, z.seq, z.heads, z.width);
  copy_rows(b, tokens);
  linear_fwd(b, out, T, z.H, z.A, true);
  return BL_OK;
}

static bl_status attention_bwd(bl_bench *b, int64_t tokens) {
  const sizes z = sizes_of(b);
  const int32_t T = (int32_t)tokens;
  const bl_num *dout = linear_bwd(b, num(b, tokens * z.H), T, z.H, z.A, true);
  bl_num *dqkv = num(b, tokens * 3 * z.A);
  b->be->ops.attention_bwd(b->s, dqkv, dout, num(b, tokens * 3 * z.A), num(b, tokens * z.A), take(b, tokens * z.heads),
                           T / z.seq, z.seq, z.heads, z.width);
  norm_bwd(b, num(b, tokens * z.H), linear_bwd(b, dqkv, T, 3 * z.A, z.H, true), T, z.H);
  return BL_OK;
}

static bl_status ffn_fwd(bl_bench *b, int64_t tokens) {
  const sizes z = sizes_of(b);
  const int32_t T = (int32_t)tokens;
  const bl_num *norm2 = norm_fwd(b, num(b, tokens * z.H), T, z.H);
  const bl_group fc1 = {.rows = T, .weight = num(b, (int64_t)z.D * z.H), .bias = num(b, z.D)};
  bl_num *active = num(b, tokens * z.D);
  b->be->ops.grouped_gelu_fwd(b->s, active, num(b, tokens * z.D), norm2, &fc1, 1, z.D, z.H);
  copy_rows(b, tokens);
  linear_fwd(b, active, T, z.H, z.D, true);
  return BL_OK;
}

static bl_status ffn_bwd(bl_bench *b, int64_t tokens) {
  const sizes z = sizes_of(b);
  const int32_t T = (int32_t)tokens;
  bl_num *dhidden = linear_bwd(b, num(b, tokens * z.H), T, z.H, z.D, true);
  const bl_group fc1 = {.rows = T, .bias = num(b, z.D), .grad_bias = take(b, z.D)};
  b->be->ops.grouped_gelu_bwd(b->s, dhidden, dhidden, num(b, tokens * z.D), &fc1, 1, z.D);
  norm_bwd(b, num(b, tokens * z.H), linear_bwd(b, dhidden, T, z.D, z.H, false), T, z.H);
  return BL_OK;
}

static bl_status head(bl_bench *b, int64_t tokens) {
  const sizes z = sizes_of(b);
  const int32_t T = (int32_t)tokens;
  const bl_num *x = norm_fwd(b, num(b, tokens * z.H), T, z.H);
  bl_num *logits = linear_fwd(b, x, T, z.V, z.H, false), *dx = num(b, tokens * z.H);
  float *loss = take(b, tokens);
  b->be->ops.cross_entropy(b->s, loss, logits, b->ids, T, z.V, 1e-3F);
  b->be->ops.sum_f32(b->s, b->sum, loss, tokens);
  const bl_num *dnorm = linear_bwd(b, logits, T, z.V, z.H, false);
  b->be->zero(b->s, dx, (size_t)tokens * (size_t)z.H * b->be->num_bytes);
  norm_bwd(b, dx, dnorm, T, z.H);
  return BL_OK;
}

static bl_status gate_fwd(bl_bench *b, int64_t tokens) {
  const sizes z = sizes_of(b);
  const int32_t T = (int32_t)tokens;
  const bl_num *logits = linear_fwd(b, norm_fwd(b, num(b, tokens * z.H), T, z.H), T, z.E, z.H, false);
  uint32_t counts[1];
  int32_t *chosen = (int32_t *)(void *)take(b, tokens * z.K);
  uint32_t *device_counts = (uint32_t *)(void *)take(b, z.E);
  b->be->ops.gate_top_k(b->s, chosen, take(b, tokens * z.K), logits, T, z.E, z.K);
  b->be->ops.histogram(b->s, device_counts, chosen, tokens * z.K, z.E);
  b->be->to_host(b->s, counts, device_counts, sizeof counts);
  return b->be->stream_sync(b->s);
}

static bl_status gate_bwd(bl_bench *b, int64_t tokens) {
  const sizes z = sizes_of(b);
  const int32_t T = (int32_t)tokens;
  bl_num *dlogits = num(b, tokens * z.E);
  b->be->ops.gate_top_k_bwd(b->s, dlogits, take(b, tokens * z.K), take(b, tokens * z.K), b->choice, T, z.E, z.K);
  norm_bwd(b, num(b, tokens * z.H), linear_bwd(b, dlogits, T, z.E, z.H, false), T, z.H);
  return BL_OK;
}

static bl_status scatter(bl_bench *b, int64_t n) {
  const sizes z = sizes_of(b);
  b->be->ops.rows_scatter(b->s, num(b, n * z.H), num(b, n / z.K * z.H), b->row, (int32_t)(n / z.K), z.K, z.H);
  return BL_OK;
}

static bl_status gather(bl_bench *b, int64_t n) {
  const sizes z = sizes_of(b);
  copy_rows(b, n / z.K);
  b->be->ops.combine_fwd(b->s, num(b, n / z.K * z.H), num(b, n * z.H), take(b, n), b->row, (int32_t)(n / z.K), z.K,
                         z.H);
  return BL_OK;
}

static bl_status gather_bwd(bl_bench *b, int64_t n) {
  const sizes z = sizes_of(b);
  b->be->ops.combine_bwd(b->s, num(b, n * z.H), take(b, n), num(b, n / z.K * z.H), num(b, n * z.H), take(b, n), b->row,
                         (int32_t)(n / z.K), z.K, z.H);
  return BL_OK;
}

static bl_status scatter_bwd(bl_bench *b, int64_t n) {
  const sizes z = sizes_of(b);
  bl_num *dx = num(b, n / z.K * z.H);
  b->be->zero(b->s, dx, (size_t)(n / z.K) * (size_t)z.H * b->be->num_bytes);
  b->be->ops.rows_sum(b->s, dx, num(b, n * z.H), b->row, (int32_t)(n / z.K), z.K, z.H);
  return BL_OK;
}

/* Groups of `rows` rows, each with its own weights [N][K] and gradients. */
static void make_groups(bl_bench *b, int64_t rows, int32_t N, int32_t K) {
  for (int32_t g = 0; g < b->n_groups; g++)
    b->groups[g] = (bl_group){.first = (int32_t)(g * rows),
                              .rows = (int32_t)rows,
                              .weight = num(b, (int64_t)N * K),
                              .bias = num(b, N),
                              .grad_weight = take(b, (int64_t)N * K),
                              .grad_bias = take(b, N)};
}

static bl_num *reorder(bl_bench *b, const bl_num *x, int64_t n) {
  bl_num *y = num(b, n * b->model->hidden);
  const bl_host_part part = {b->host_index, (size_t)n * sizeof *b->host_index};
  const void *index;
  b->be->upload(b->s, &part, 1, &index);
  b->be->ops.rows_gather(b->s, y, x, index, (int32_t)n, b->model->hidden);
  return y;
}

static bl_status expert_fwd(bl_bench *b, int64_t rows) {
  const sizes z = sizes_of(b);
  const int64_t n = rows * b->n_groups;
  const bl_num *x = reorder(b, num(b, n * z.H), n);
  bl_num *hidden = num(b, n * z.F), *active = num(b, n * z.F), *out = num(b, n * z.H);
  make_groups(b, rows, z.F, z.H);
  b->be->ops.grouped_gelu_fwd(b->s, active, hidden, x, b->groups, b->n_groups, z.F, z.H);
  make_groups(b, rows, z.H, z.F);
  b->be->ops.grouped_fwd(b->s, out, active, b->groups, b->n_groups, z.H, z.F);
  reorder(b, out, n);
  return BL_OK;
}

static bl_status expert_dx(bl_bench *b, int64_t rows) {
  const sizes z = sizes_of(b);
  const int64_t n = rows * b->n_groups;
  const bl_num *dout = reorder(b, num(b, n * z.H), n);
  bl_num *dhidden = num(b, n * z.F), *drows = num(b, n * z.H);
  make_groups(b, rows, z.H, z.F);
  b->be->ops.grouped_dx(b->s, dhidden, dout, b->groups, b->n_groups, z.H, z.F);
  make_groups(b, rows, z.F, z.H);
  b->be->ops.grouped_gelu_bwd(b->s, dhidden, dhidden, num(b, n * z.F), b->groups, b->n_groups, z.F);
  b->be->ops.grouped_dx(b->s, drows, dhidden, b->groups, b->n_groups, z.F, z.H);
  reorder(b, drows, n);
  return BL_OK;
}

static bl_status expert_dw(bl_bench *b, int64_t rows) {
  const sizes z = sizes_of(b);
  const int64_t n = rows * b->n_groups;
  make_groups(b, rows, z.H, z.F);
  b->be->ops.grouped_dw(b->s, num(b, n * z.H), num(b, n * z.F), b->groups, b->n_groups, z.H, z.F);
  make_groups(b, rows, z.F, z.H);
  for (int32_t g = 0; g < b->n_groups; g++) b->groups[g].grad_bias = NULL; /* grouped_gelu_bwd adds to it */
  b->be->ops.grouped_dw(b->s, num(b, n * z.F), num(b, n * z.H), b->groups, b->n_groups, z.F, z.H);
  return BL_OK;
}

static bl_status zero_grads(bl_bench *b, int64_t n) {
  b->be->zero(b->s, take(b, n), (size_t)n * sizeof(float));
  return BL_OK;
}

static bl_status square_grads(bl_bench *b, int64_t n) {
  const bl_square_part part = {b->sum, take(b, n), n};
  b->be->ops.sum_sq(b->s, &part, 1);
  return BL_OK;
}

static bl_status optimizer(bl_bench *b, int64_t n) {
  const bl_adamw hyper = {1e-3F, 0.9F, 0.95F, 1e-8F, 1, 0.1F, 0.05F, 0};
  const bl_host_part hyper_part = {&hyper, sizeof hyper};
  bl_adamw *kept = (bl_adamw *)(void *)take(b, sizeof hyper / sizeof(float));
  const void *uploaded;
  float *master = take(b, n);
  const bl_adamw_part part = {b->be->num_bytes == sizeof(float) ? (bl_num *)master : num(b, n),
                              master,
                              take(b, n),
                              take(b, n),
                              take(b, n),
                              n,
                              0.1F};
  b->be->upload(b->s, &hyper_part, 1, &uploaded);
  b->be->copy(b->s, kept, uploaded, sizeof hyper); /* the list of tensors is another upload */
  b->be->ops.adamw(b->s, &part, 1, kept);
  return BL_OK;
}

bl_status bl_bench_prepare(bl_bench *b) {
  const sizes z = sizes_of(b);
  const int64_t n = (int64_t)BL_BENCH_SEQUENCES * z.seq * z.K, rows = (int64_t)b->max_rows * MAX_GROUPS;
  int32_t *host = NULL;
  b->n_groups = z.E < MAX_GROUPS ? z.E : MAX_GROUPS;
  b->max_groups = z.E < MAX_EXPERTS ? z.E : MAX_EXPERTS;
  BL_TRY(bl_new(&b->groups, (size_t)b->max_groups, sizeof *b->groups, "a profile"));
  BL_TRY(bl_new(&b->host_index, (size_t)rows, sizeof *host, "a profile"));
  BL_TRY(bl_new(&b->control, (size_t)(b->comm->size + 1) * BL_BENCH_CONTROL_BYTES, 1, "a profile"));
  if (!b->be->host_memory) BL_TRY(bl_new(&b->host, LARGEST_BYTES, 1, "a profile"));
  BL_TRY(b->be->alloc(b->be, (size_t)n * sizeof *host, &b->ids));
  BL_TRY(b->be->alloc(b->be, (size_t)n * sizeof *host, &b->choice));
  BL_TRY(b->be->alloc(b->be, (size_t)n * sizeof *host, &b->row));
  BL_TRY(b->be->alloc(b->be, sizeof *b->sum, &b->sum));
  BL_TRY(bl_new(&host, (size_t)n, sizeof *host, "a profile"));
  bl_rng rng;
  bl_rng_seed(&rng, 1, 0);
  /* Rows of a call's experts come from several sources: neighbours in expert order are not neighbours as received. */
  for (int64_t i = 0; i < rows; i++) b->host_index[i] = (int32_t)(i & ~1) + (int32_t)(1 - (i & 1));
  for (int64_t i = 0; i < n; i++) host[i] = (int32_t)bl_rng_below(&rng, (uint64_t)z.V);
  b->be->to_device(b->s, b->ids, host, (size_t)n * sizeof *host);
  bl_status status = b->be->stream_sync(b->s);
  /* Skewed choices: the first of a token is expert e with probability 1/2, 1/4, ..., the others follow it. */
  for (int64_t i = 0; i < n; i++)
    host[i] = i % z.K ? (host[i - 1] + 1) % z.E : (int32_t)(__builtin_ctzll(bl_rng_u64(&rng) | 1ULL << 63) % z.E);
  b->be->to_device(b->s, b->choice, host, (size_t)n * sizeof *host);
  BL_KEEP_FIRST(status, b->be->stream_sync(b->s));
  if (status == BL_OK) status = bl_bench_decisions_create(b, host);
  for (int64_t i = 0; i < n; i++) host[i] = (int32_t)i;
  b->be->to_device(b->s, b->row, host, (size_t)n * sizeof *host);
  BL_KEEP_FIRST(status, b->be->stream_sync(b->s));
  free(host);
  return status;
}

/* Up to `most`. */
static void fill(int64_t *amounts, const int64_t *factors, int64_t unit, int64_t most) {
  int i = 0;
  for (; factors[i] && factors[i] * unit <= most && i < BL_CURVE_MAX_POINTS; i++) amounts[i] = factors[i] * unit;
  amounts[i] = 0;
}

static bl_status all_experts(bl_bench *b, int64_t rows) {
  const int32_t usual = b->n_groups;
  b->n_groups = b->max_groups;
  bl_status status = expert_fwd(b, rows);
  if (status == BL_OK) status = expert_dx(b, rows);
  if (status == BL_OK) status = expert_dw(b, rows);
  b->n_groups = usual;
  return status;
}

bl_work bl_bench_experts(const bl_bench *b, int64_t rows[2]) {
  const int64_t most = (int64_t)b->max_rows * b->n_groups / b->max_groups;
  rows[1] = most > 1 ? most : 1;
  rows[0] = most / 8 > 1 ? most / 8 : 1;
  return (bl_work){.call = all_experts, .per_call = b->max_groups};
}

int32_t bl_bench_works(const bl_bench *b, bl_work works[BL_WORK_MAX]) {
  static const int64_t sequences[] = {1, 2, 4, BL_BENCH_SEQUENCES, 0},
                       rows[] = {1, 8, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 0};
  static const int64_t parameters[] = {1000, 10000, 100000, 1000000, 4000000, 0}, once[] = {1, 0};
  static const int64_t large[] = {1 << 12, 1 << 16, 1 << 18, 1 << 20, 1 << 22, LARGEST_BYTES, 0},
                       small[] = {8, 256, BL_BENCH_CONTROL_BYTES, 0};
  const sizes z = sizes_of(b);
  const int32_t moe = bl_model_moe_layers(b->model);
  const bool dense = moe<b->model->layers, several = b->comm->size> 1;
  const struct {
    bl_curve_kind curve;
    bl_status (*call)(bl_bench *, int64_t);
    const int64_t *factors;
    int64_t unit;
    bool wanted;
  } list[] = {
      {BL_CURVE_EMBED_FWD, embed_fwd, sequences, z.seq, true},
      {BL_CURVE_ATTENTION_FWD, attention_fwd, sequences, z.seq, true},
      {BL_CURVE_FFN_FWD, ffn_fwd, sequences, z.seq, dense},
      {BL_CURVE_GATE_FWD, gate_fwd, sequences, z.seq, true},
      {BL_CURVE_SCATTER, scatter, sequences, (int64_t)z.seq * z.K, true},
      {BL_CURVE_EXPERT_FWD, expert_fwd, rows, 1, true},
      {BL_CURVE_GATHER, gather, sequences, (int64_t)z.seq * z.K, true},
      {BL_CURVE_HEAD, head, sequences, z.seq, true},
      {BL_CURVE_GATHER_BWD, gather_bwd, sequences, (int64_t)z.seq * z.K, true},
      {BL_CURVE_EXPERT_DX, expert_dx, rows, 1, true},
      {BL_CURVE_EXPERT_DW, expert_dw, rows, 1, true},
      {BL_CURVE_SCATTER_BWD, scatter_bwd, sequences, (int64_t)z.seq * z.K, true},
      {BL_CURVE_GATE_BWD, gate_bwd, sequences, z.seq, true},
      {BL_CURVE_FFN_BWD, ffn_bwd, sequences, z.seq, dense},
      {BL_CURVE_ATTENTION_BWD, attention_bwd, sequences, z.seq, true},
      {BL_CURVE_EMBED_BWD, embed_bwd, sequences, z.seq, true},
      {BL_CURVE_ZERO_GRADS, zero_grads, parameters, 1, true},
      {BL_CURVE_SQUARE_GRADS, square_grads, parameters, 1, true},
      {BL_CURVE_OPTIMIZER, optimizer, parameters, 1, true},
      {BL_CURVE_CHOOSE_HOSTS, bl_bench_choose_hosts, once, moe, true},
      {BL_CURVE_SOLVE_SHARES, bl_bench_solve_shares, once, 1, true},
      {BL_CURVE_GATHER_HOST, bl_bench_gather_host, small, 1, several},
      {BL_CURVE_EXCHANGE, bl_bench_exchange, large, 1, true},
      {BL_CURVE_TRANSFER, bl_bench_transfer, large, 1, several},
      {BL_CURVE_ACCUMULATE, bl_bench_accumulate, large, 1, several},
      {BL_CURVE_ALL_REDUCE, bl_bench_all_reduce, large, 1, several},
      {BL_CURVE_TO_DEVICE, bl_bench_to_device, large, 1, !b->be->host_memory},
      {BL_CURVE_TO_HOST, bl_bench_to_host, large, 1, !b->be->host_memory},
  };
  int32_t n = 0;
  for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
    if (!list[i].wanted) continue;
    const bool by_expert = list[i].factors == rows;
    works[n] = (bl_work){.curve = list[i].curve,
                         .call = list[i].call,
                         .together = list[i].curve >= BL_CURVE_GATHER_HOST && list[i].curve <= BL_CURVE_ALL_REDUCE,
                         .per_call = by_expert ? b->n_groups : 1};
    fill(works[n++].amounts, list[i].factors, list[i].unit, by_expert ? b->max_rows : INT64_MAX);
  }
  return n;
}
