/* cuda_cases.h - a case for every operation of ops.def: inputs, both backends, comparison. */
#ifndef BL_TESTS_EXEC_CUDA_CASES_H
#define BL_TESTS_EXEC_CUDA_CASES_H

#include "tests/exec/cuda_check.h"

static bool groups_stand_alone; /* a group's bits must not depend on the other groups */

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

/* The last shape of a list is a large one, for a device. */
#define SHAPES(list) (COUNT(list) - (check_is_small() ? 1 : 0))

/* -- dense part -------------------------------------------------------------------------------------------------------
 */

static const struct {
  int32_t T, seq, H, V;
} embeds[] = {{1, 1, 1, 1}, {6, 3, 5, 4}, {200, 50, 33, 7}, {300, 65, 264, 300}, {4096, 512, 1024, 256}};

static void test_embed_fwd(void) {
  for (int i = 0; i < SHAPES(embeds); i++) {
    const int32_t T = embeds[i].T, seq = embeds[i].seq, H = embeds[i].H, V = embeds[i].V;
    CASE("embed_fwd T %d seq %d H %d V %d", T, seq, H, V);
    int32_t *ids = random_ints(T, V);
    buffer token = ints_of(ids, T), table = random_of(NUM, (int64_t)V * H, 1), place = random_of(NUM, seq * H, 1);
    buffer x = poison(NUM, (int64_t)T * H);
    BOTH(embed_fwd, D(x), (const int32_t *)D(token), D(table), D(place), T, seq, H);
    agree("x", &x);
    free(ids);
    DROP(&token, &table, &place, &x);
  }
}

static void test_embed_bwd(void) {
  for (int i = 0; i < SHAPES(embeds); i++) {
    const int32_t T = embeds[i].T, seq = embeds[i].seq, H = embeds[i].H, V = embeds[i].V;
    CASE("embed_bwd T %d seq %d H %d V %d", T, seq, H, V);
    int32_t *ids = random_ints(T, V);
    for (int32_t t = 0; t < T; t += 2) ids[t] /= 2; /* some words are common */
    buffer token = ints_of(ids, T), table = random_of(F32, (int64_t)V * H, 1), place = random_of(F32, seq * H, 1);
    buffer dx = random_of(NUM, (int64_t)T * H, 1);
    BOTH(embed_bwd, D(table), D(place), D(token), D(dx), T, seq, H);
    agree_within("grad_table", &table, 1e-5);
    agree_within("grad_position", &place, 1e-5);
    free(ids);
    DROP(&token, &table, &place, &dx);
  }
}

static const struct {
  int32_t T, H, shift;
} norms[] = {{1, 1, 0}, {5, 7, 0}, {3, 33, 1}, {70, 256, 0}, {17, 264, 2}, {4096, 1024, 0}};

static void test_norm_fwd(void) {
  for (int i = 0; i < SHAPES(norms); i++) {
    const int32_t T = norms[i].T, H = norms[i].H, shift = norms[i].shift;
    CASE("norm_fwd T %d H %d shift %d", T, H, shift);
    buffer x = random_at(NUM, (int64_t)T * H, 2, shift), weight = random_of(NUM, H, 1.5), bias = random_of(NUM, H, 1);
    buffer y = poison(NUM, (int64_t)T * H), mean = poison(F32, T), rstd = poison(F32, T);
    BOTH(norm_fwd, D(y), D(mean), D(rstd), D(x), D(weight), D(bias), T, H);
    agree("y", &y);
    agree_within("mean", &mean, 1e-5);
    agree_within("rstd", &rstd, 1e-5);
    DROP(&x, &weight, &bias, &y, &mean, &rstd);
  }
}

static void test_norm_bwd(void) {
  for (int i = 0; i < SHAPES(norms); i++) {
    const int32_t T = norms[i].T, H = norms[i].H, shift = norms[i].shift;
    const int64_t n = (int64_t)T * H;
    CASE("norm_bwd T %d H %d shift %d", T, H, shift);
    buffer x = random_of(NUM, n, 2), weight = random_of(NUM, H, 1.5), bias = random_of(NUM, H, 1);
    buffer y = poison(NUM, n), mean = poison(F32, T), rstd = poison(F32, T), dy = random_at(NUM, n, 1, shift);
    buffer dx = random_of(NUM, n, 1), dw = random_of(F32, H, 1), db = random_of(F32, H, 1);
    BOTH(norm_fwd, D(y), D(mean), D(rstd), D(x), D(weight), D(bias), T, H);
    BOTH(norm_bwd, D(dx), D(dw), D(db), D(dy), D(x), D(mean), D(rstd), D(weight), T, H);
    agree("dx", &dx);
    agree_within("grad_weight", &dw, 1e-5);
    agree_within("grad_bias", &db, 1e-5);
    DROP(&x, &weight, &bias, &y, &mean, &rstd, &dy, &dx, &dw, &db);
  }
}

static const struct {
  int32_t T, N, K;
} linears[] = {{1, 1, 1}, {7, 1, 9}, {5, 17, 8}, {13, 6, 21}, {300, 32, 24}, {2048, 768, 1024}};

static void test_linear_fwd(void) {
  for (int i = 0; i < 4 * SHAPES(linears); i++) {
    const int32_t T = linears[i / 4].T, N = linears[i / 4].N, K = linears[i / 4].K;
    const bool accumulate = i & 1, with_bias = i & 2;
    CASE("linear_fwd T %d N %d K %d accumulate %d bias %d", T, N, K, accumulate, with_bias);
    buffer x = random_of(NUM, (int64_t)T * K, 1), weight = random_of(NUM, (int64_t)N * K, 1);
    buffer bias = random_of(NUM, N, 1);
    buffer y = accumulate ? random_of(NUM, (int64_t)T * N, 1) : poison(NUM, (int64_t)T * N);
    BOTH(linear_fwd, D(y), D(x), D(weight), with_bias ? D(bias) : NULL, T, N, K, accumulate);
    agree("y", &y);
    DROP(&x, &weight, &bias, &y);
  }
}

static void test_linear_dx(void) {
  for (int i = 0; i < 2 * SHAPES(linears); i++) {
    const int32_t T = linears[i / 2].T, N = linears[i / 2].N, K = linears[i / 2].K;
    const bool accumulate = i & 1;
    CASE("linear_dx T %d N %d K %d accumulate %d", T, N, K, accumulate);
    buffer dy = random_of(NUM, (int64_t)T * N, 1), weight = random_of(NUM, (int64_t)N * K, 1);
    buffer dx = accumulate ? random_of(NUM, (int64_t)T * K, 1) : poison(NUM, (int64_t)T * K);
    BOTH(linear_dx, D(dx), D(dy), D(weight), T, N, K, accumulate);
    agree("dx", &dx);
    DROP(&dy, &weight, &dx);
  }
}

static void test_linear_dw(void) {
  for (int i = 0; i < 2 * SHAPES(linears); i++) {
    const int32_t T = linears[i / 2].T, N = linears[i / 2].N, K = linears[i / 2].K;
    const bool with_bias = i & 1;
    CASE("linear_dw T %d N %d K %d bias %d", T, N, K, with_bias);
    buffer dy = random_of(NUM, (int64_t)T * N, 1), x = random_of(NUM, (int64_t)T * K, 1);
    buffer dw = random_of(F32, (int64_t)N * K, 1), db = random_of(F32, N, 1);
    BOTH(linear_dw, D(dw), with_bias ? (float *)D(db) : NULL, D(dy), D(x), T, N, K);
    agree_within("grad_weight", &dw, 1e-5);
    agree_within("grad_bias", &db, 1e-5);
    DROP(&dy, &x, &dw, &db);
  }
}

/* One token, parts of a tile, several tiles of queries and keys; widths for each kernel, some of them with a rest. */
static const struct {
  int32_t sequences, seq, heads, width;
} attentions[] = {{1, 1, 1, 1},    {2, 5, 3, 4},    {2, 65, 2, 16},   {1, 33, 7, 5},
                  {1, 200, 1, 64}, {1, 130, 2, 80}, {1, 131, 1, 128}, {1, 64, 1, 100},
                  {1, 129, 1, 56}, {1, 70, 1, 136}, {2, 2048, 16, 64}};

static void test_attention_fwd(void) {
  for (int i = 0; i < SHAPES(attentions); i++) {
    const int32_t S = attentions[i].sequences, seq = attentions[i].seq, heads = attentions[i].heads;
    const int32_t width = attentions[i].width;
    const int64_t n = (int64_t)S * seq * heads * width;
    CASE("attention_fwd %d x %d heads %d width %d", S, seq, heads, width);
    buffer qkv = random_of(NUM, 3 * n, 2), out = poison(NUM, n), lse = poison(F32, (int64_t)heads * S * seq);
    BOTH(attention_fwd, D(out), D(lse), D(qkv), S, seq, heads, width);
    agree("out", &out);
    agree_within("lse", &lse, 1e-5);
    DROP(&qkv, &out, &lse);
  }
}

static void test_attention_bwd(void) {
  for (int i = 0; i < SHAPES(attentions); i++) {
    const int32_t S = attentions[i].sequences, seq = attentions[i].seq, heads = attentions[i].heads;
    const int32_t width = attentions[i].width;
    const int64_t n = (int64_t)S * seq * heads * width;
    CASE("attention_bwd %d x %d heads %d width %d", S, seq, heads, width);
    buffer qkv = random_of(NUM, 3 * n, 2), out = poison(NUM, n), lse = poison(F32, (int64_t)heads * S * seq);
    buffer dout = random_of(NUM, n, 1), dqkv = poison(NUM, 3 * n);
    BOTH(attention_fwd, D(out), D(lse), D(qkv), S, seq, heads, width);
    BOTH(attention_bwd, D(dqkv), D(dout), D(qkv), D(out), D(lse), S, seq, heads, width);
    agree("dqkv", &dqkv);
    DROP(&qkv, &out, &lse, &dout, &dqkv);
  }
}

/* -- one value in, one value out
 * --------------------------------------------------------------------------------------- */

static const struct {
  int64_t n, shift;
} lengths[] = {{0, 0}, {1, 0}, {3, 1}, {1000, 0}, {1027, 1}, {4098, 2}, {5000003, 0}};

static void test_add(void) {
  for (int i = 0; i < SHAPES(lengths); i++) {
    CASE("add n %lld shift %lld", (long long)lengths[i].n, (long long)lengths[i].shift);
    buffer x = random_at(NUM, lengths[i].n, 1, lengths[i].shift), y = random_of(NUM, lengths[i].n, 1);
    BOTH(add, D(y), D(x), lengths[i].n);
    agree("y", &y);
    DROP(&x, &y);
  }
}

static void test_add_f32(void) {
  for (int i = 0; i < SHAPES(lengths); i++) {
    CASE("add_f32 n %lld shift %lld", (long long)lengths[i].n, (long long)lengths[i].shift);
    buffer x = random_at(F32, lengths[i].n, 1, lengths[i].shift), y = random_of(F32, lengths[i].n, 1);
    BOTH(add_f32, D(y), D(x), lengths[i].n);
    agree_within("y", &y, 0.0);
    DROP(&x, &y);
  }
}

static void test_from_f32(void) {
  for (int i = 0; i < SHAPES(lengths); i++) {
    CASE("from_f32 n %lld shift %lld", (long long)lengths[i].n, (long long)lengths[i].shift);
    buffer x = random_at(F32, lengths[i].n, 1, lengths[i].shift), y = poison(NUM, lengths[i].n);
    BOTH(from_f32, D(y), D(x), lengths[i].n);
    agree("y", &y);
    DROP(&x, &y);
  }
}

static void test_to_f32(void) {
  for (int i = 0; i < SHAPES(lengths); i++) {
    CASE("to_f32 n %lld shift %lld", (long long)lengths[i].n, (long long)lengths[i].shift);
    buffer x = random_at(NUM, lengths[i].n, 1, lengths[i].shift), y = poison(F32, lengths[i].n);
    BOTH(to_f32, D(y), D(x), lengths[i].n);
    agree_within("y", &y, 0.0);
    DROP(&x, &y);
  }
}

/* -- loss, sums, optimizer
 * --------------------------------------------------------------------------------------------- */

static const struct { int32_t T, V; } losses[] = {{1, 1}, {4, 3}, {5, 33}, {70, 256}, {3, 5000}, {2048, 50257}};

static void test_cross_entropy(void) {
  for (int i = 0; i < SHAPES(losses); i++) {
    const int32_t T = losses[i].T, V = losses[i].V;
    CASE("cross_entropy T %d V %d", T, V);
    int32_t *ids = random_ints(T, V);
    if (T > 1) ids[1] = -1;
    buffer logits = random_of(NUM, (int64_t)T * V, 9), target = ints_of(ids, T), loss = poison(F32, T);
    BOTH(cross_entropy, D(loss), D(logits), D(target), T, V, 0.125f);
    agree_within("loss", &loss, 1e-5);
    agree("dlogits", &logits);
    free(ids);
    DROP(&logits, &target, &loss);
  }
}

/* Tensors of all lengths in one call, some of several runs, some empty; each sum as if it were alone. */
static void test_sum_sq(void) {
  enum { MOST = 16 };
  buffer x[MOST], sum[MOST];
  bl_square_part parts[SIDES][MOST];
  const int n = SHAPES(lengths) + 2;
  CASE("sum_sq of %d tensors", n);
  for (int i = 0; i < n; i++) {
    const int64_t length = i < n - 2    ? lengths[i].n
                           : i == n - 2 ? 20000
                                        : 16384 * 3,
                  shift = i < n - 2 ? lengths[i].shift : 1;
    x[i] = random_at(F32, length, 1, shift);
    sum[i] = poison(F64, 1);
    for (int side = 0; side < SIDES; side++) parts[side][i] = (bl_square_part){D(sum[i]), D(x[i]), length};
  }
  BOTH(sum_sq, parts[side], n);
  for (int i = 0; i < n; i++) agree_within("sum", &sum[i], 1e-12);
  for (int i = 0; i < n; i++) {
    double *together = get(&sum[i], CUDA);
    BOTH(sum_sq, &parts[side][i], 1);
    double *alone = get(&sum[i], CUDA);
    CHECK(together[0] == alone[0]);
    free(together), free(alone);
  }
  for (int i = 0; i < n; i++) DROP(&x[i], &sum[i]);
}

/* One order is given: exactly the same sum. */
static void test_sum_f32(void) {
  for (int i = 0; i < SHAPES(lengths); i++) {
    CASE("sum_f32 n %lld", (long long)lengths[i].n);
    buffer x = random_at(F32, lengths[i].n, 1, lengths[i].shift), sum = poison(F64, 1);
    BOTH(sum_f32, D(sum), D(x), lengths[i].n);
    agree_within("sum", &sum, 0.0);
    DROP(&x, &sum);
  }
}

/* Tensors of all lengths in one call, with and without decay, and each of a tensor's five arrays off alignment alone.
 */
static void test_adamw(void) {
  enum { MOST = 32, ARRAYS = 5 };
  buffer master[MOST], m[MOST], v[MOST], weight[MOST], grad[MOST];
  const int n = SHAPES(lengths) + 1 + 2 * ARRAYS;
  CASE("adamw of %d tensors", n);
  for (int i = 0; i < n; i++) {
    const int off = i - SHAPES(lengths) - 1;
    const int64_t length = off >= 0 ? 500 + i : off == -1 ? 40001 : lengths[i].n;
    master[i] = random_at(F32, length, 1, off % ARRAYS == 0), m[i] = random_at(F32, length, 0, off % ARRAYS == 1);
    v[i] = random_at(F32, length, 0, off % ARRAYS == 2), weight[i] = poison_at(NUM, length, off % ARRAYS == 3);
  }
  const bool is_bf16_now = sides[CUDA]->num_bytes != sizeof(float);
  for (int step = 1; step <= 3; step++) {
    bl_adamw_part parts[SIDES][MOST];
    const bl_adamw a = {
        1e-2f, 0.9f, 0.95f, 1e-8f, 0.5f, 1.0f - powf(0.9f, (float)step), 1.0f - powf(0.95f, (float)step), 0};
    bl_adamw skipped = a;
    skipped.skip = 1;
    for (int i = 0; i < n; i++) {
      grad[i] = random_at(F32, master[i].n, 2, (i - SHAPES(lengths) - 1) % ARRAYS == 4);
      for (int side = 0; side < SIDES; side++)
        parts[side][i] = (bl_adamw_part){i & 1 || is_bf16_now ? D(weight[i]) : D(master[i]),
                                         D(master[i]),
                                         D(m[i]),
                                         D(v[i]),
                                         D(grad[i]),
                                         master[i].n,
                                         i % 3 ? 0.1f : 0.0f};
    }
    for (int k = 0; k < 2; k++) {
      const bl_host_part part = {k ? &a : &skipped, sizeof a};
      buffer hyper = buffer_at(F32, sizeof a / sizeof(float), 0);
      for (int side = 0; side < SIDES; side++) {
        const void *uploaded;
        sides[side]->upload(streams[side], &part, 1, &uploaded);
        sides[side]->copy(streams[side], D(hyper), uploaded, sizeof a);
      }
      BOTH(adamw, parts[side], n, D(hyper));
      for (int side = 0; side < SIDES; side++) CHECK_OK(sides[side]->stream_sync(streams[side]));
      drop(&hyper);
    }
    for (int i = 0; i < n; i++) drop(&grad[i]);
  }
  for (int i = 0; i < n; i++) {
    agree_within("master", &master[i], 1e-5);
    agree_within("m", &m[i], 1e-5);
    agree_within("v", &v[i], 1e-5);
    if (i & 1 || is_bf16_now) agree("weight", &weight[i]);
    DROP(&master[i], &m[i], &v[i], &weight[i]);
  }
}

#include "tests/exec/cuda_cases_moe.h"
#include "tests/exec/cuda_cases_plan.h"

#endif
