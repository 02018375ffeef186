/* cuda_cases_moe.h - cases of the operations of the MoE part: gates, routing, rows, products of groups. */
#ifndef BL_TESTS_EXEC_CUDA_CASES_MOE_H
#define BL_TESTS_EXEC_CUDA_CASES_MOE_H

#include "tests/exec/cuda_cases.h"

static const struct {
  int32_t T, E, K;
} gates[] = {{1, 1, 1}, {5, 2, 2}, {9, 8, 2}, {37, 33, 4}, {4, 16, 16}, {70, 64, 8}, {8192, 256, 8}};

/* Every second case draws from few values, so that ties are common. */
static buffer gate_logits(int64_t n, bool ties) {
  buffer logits = random_of(NUM, n, 3);
  float *host = get(&logits, CPU);
  for (int64_t i = 0; i < n && ties; i++) host[i] = roundf(host[i] * 0.5f);
  put(&logits, host);
  free(host);
  return logits;
}

static void test_gate_top_k(void) {
  for (int i = 0; i < 2 * SHAPES(gates); i++) {
    const int32_t T = gates[i / 2].T, E = gates[i / 2].E, K = gates[i / 2].K;
    CASE("gate_top_k T %d E %d K %d ties %d", T, E, K, i & 1);
    buffer logits = gate_logits((int64_t)T * E, i & 1);
    buffer expert = poison(I32, (int64_t)T * K), weight = poison(F32, (int64_t)T * K);
    BOTH(gate_top_k, D(expert), D(weight), D(logits), T, E, K);
    agree("expert", &expert);
    agree_within("weight", &weight, 1e-5);
    DROP(&logits, &expert, &weight);
  }
}

static void test_gate_top_k_bwd(void) {
  for (int i = 0; i < SHAPES(gates); i++) {
    const int32_t T = gates[i].T, E = gates[i].E, K = gates[i].K;
    CASE("gate_top_k_bwd T %d E %d K %d", T, E, K);
    buffer logits = gate_logits((int64_t)T * E, false), dlogits = poison(NUM, (int64_t)T * E);
    buffer expert = poison(I32, (int64_t)T * K), weight = poison(F32, (int64_t)T * K);
    buffer dweight = random_of(F32, (int64_t)T * K, 1);
    BOTH(gate_top_k, D(expert), D(weight), D(logits), T, E, K);
    BOTH(gate_top_k_bwd, D(dlogits), D(dweight), D(weight), D(expert), T, E, K);
    if (K > 1) agree("dlogits", &dlogits);
    if (K == 1) agree_within("dlogits of one choice", &dlogits, 0.0);
    DROP(&logits, &dlogits, &expert, &weight, &dweight);
  }
}

static void test_gate_switch(void) {
  for (int i = 0; i < 2 * SHAPES(gates); i++) {
    const int32_t T = gates[i / 2].T, E = gates[i / 2].E;
    CASE("gate_switch T %d E %d ties %d", T, E, i & 1);
    buffer logits = gate_logits((int64_t)T * E, i & 1), expert = poison(I32, T), weight = poison(F32, T);
    BOTH(gate_switch, D(expert), D(weight), D(logits), T, E);
    agree("expert", &expert);
    agree_within("weight", &weight, 1e-5);
    DROP(&logits, &expert, &weight);
  }
}

static void test_gate_switch_bwd(void) {
  for (int i = 1; i < SHAPES(gates); i++) {
    const int32_t T = gates[i].T, E = gates[i].E;
    CASE("gate_switch_bwd T %d E %d", T, E);
    int32_t *ids = random_ints(T, E);
    buffer logits = gate_logits((int64_t)T * E, false), chosen = ints_of(ids, T), dweight = random_of(F32, T, 1);
    buffer dlogits = poison(NUM, (int64_t)T * E);
    BOTH(gate_switch_bwd, D(dlogits), D(dweight), D(logits), D(chosen), T, E);
    agree("dlogits", &dlogits);
    free(ids);
    DROP(&logits, &chosen, &dweight, &dlogits);
  }
}

static void test_gate_balance(void) {
  static const struct {
    int32_t sequences, seq, E, K;
  } shapes[] = {{1, 1, 1, 1}, {2, 5, 3, 2}, {3, 40, 8, 2}, {1, 300, 19, 1}, {8, 1024, 64, 2}};
  for (int i = 0; i < SHAPES(shapes); i++) {
    const int32_t S = shapes[i].sequences, seq = shapes[i].seq, E = shapes[i].E, K = shapes[i].K, T = S * seq;
    CASE("gate_balance %d x %d E %d K %d", S, seq, E, K);
    int32_t *ids = random_ints((int64_t)T * K, E);
    buffer logits = gate_logits((int64_t)T * E, false), chosen = ints_of(ids, (int64_t)T * K);
    buffer alone = poison(F32, S), loss = poison(F32, S), dlogits = random_of(NUM, (int64_t)T * E, 1);
    BOTH(gate_balance, D(alone), NULL, D(logits), D(chosen), S, seq, E, K, 0.7f, 0.25f);
    BOTH(gate_balance, D(loss), D(dlogits), D(logits), D(chosen), S, seq, E, K, 0.7f, 0.25f);
    agree_within("loss without gradient", &alone, 1e-5);
    agree_within("loss", &loss, 1e-5);
    agree("dlogits", &dlogits);
    free(ids);
    DROP(&logits, &chosen, &alone, &loss, &dlogits);
  }
}

/* Ids in 0..E-1, about one in eight dropped (negative); half of them one expert. */
static int32_t *routed_experts(int64_t n, int32_t E) {
  int32_t *expert = random_ints(n, E);
  for (int64_t i = 0; i < n; i++) {
    if (below(2)) expert[i] = E / 2;
    if (below(8) == 0) expert[i] = -1 - below(3);
  }
  return expert;
}

static const struct {
  int64_t n;
  int32_t E;
} routes[] = {{0, 3}, {1, 1}, {40, 7}, {2500, 11}, {131072, 64}};

static void test_histogram(void) {
  for (int i = 0; i < SHAPES(routes); i++) {
    const int64_t n = routes[i].n;
    const int32_t E = routes[i].E;
    CASE("histogram n %lld E %d", (long long)n, E);
    int32_t *ids = routed_experts(n, E);
    buffer expert = ints_of(ids, n), counts = poison(I32, E);
    BOTH(histogram, D(counts), D(expert), n, E);
    agree("counts", &counts);
    free(ids);
    DROP(&expert, &counts);
  }
}

/* Splits each expert's count over 1..3 hosts (some with quota 0), now and then less than all; every entry its own rows.
 */
static void random_quotas(const int32_t *expert, int64_t n, int32_t E, int32_t *first, uint32_t *quota,
                          int32_t *dest_row) {
  int32_t entries = 0, row = 0;
  for (int32_t e = 0; e < E; e++) {
    uint32_t left = 0;
    for (int64_t i = 0; i < n; i++) left += expert[i] == e;
    first[e] = entries;
    const int32_t hosts = 1 + below(3);
    for (int32_t h = 0; h < hosts; h++, entries++) {
      quota[entries] = h + 1 == hosts && below(4) ? left : (uint32_t)below((int32_t)left + 1);
      left -= quota[entries];
      dest_row[entries] = row;
      row += (int32_t)quota[entries] + below(3);
    }
  }
  first[E] = entries;
}

static void test_route_rows(void) {
  for (int i = 0; i < 2 * SHAPES(routes); i++) {
    const int64_t n = routes[i / 2].n;
    const int32_t E = routes[i / 2].E;
    CASE("route_rows n %lld E %d", (long long)n, E);
    int32_t *ids = routed_experts(n, E), *first = case_new(((size_t)E + 1) * 4), *dest = case_new((size_t)E * 3 * 4);
    uint32_t *quota = case_new((size_t)E * 3 * 4);
    random_quotas(ids, n, E, first, quota, dest);
    buffer expert = ints_of(ids, n), row = poison(I32, n);
    for (int64_t k = 0; k < n; k++) ids[k] = 12345;
    put(&row, ids);
    buffer firsts = ints_of(first, E + 1), quotas = ints_of((int32_t *)quota, first[E]), dests = ints_of(dest, first[E]);
    BOTH(route_rows, D(row), D(expert), n, E, D(firsts), D(quotas), D(dests));
    agree("row", &row);
    DROP(&firsts, &quotas, &dests);
    free(ids), free(first), free(quota), free(dest);
    DROP(&expert, &row);
  }
}

static const struct {
  int32_t T, K, H, rows; /* rows of the send buffer; some stay unused */
} moves[] = {{1, 1, 1, 1}, {5, 2, 7, 12}, {6, 3, 33, 20}, {40, 1, 16, 40}, {60, 2, 264, 130}, {4096, 2, 1024, 8200}};

/* Distinct rows in random order, about one in five dropped. */
static buffer random_rows(int32_t n, int32_t rows) {
  int32_t *row = case_new((size_t)n * sizeof *row), *order = case_new((size_t)rows * sizeof *order);
  for (int32_t i = 0; i < rows; i++) order[i] = i;
  for (int32_t i = 0; i < n; i++) {
    const int32_t k = i + below(rows - i), taken = order[k];
    order[k] = order[i];
    row[i] = i > 0 && below(5) == 0 ? -1 : taken;
  }
  buffer b = ints_of(row, n);
  free(row), free(order);
  return b;
}

static void test_rows_scatter(void) {
  for (int i = 0; i < SHAPES(moves); i++) {
    const int32_t T = moves[i].T, K = moves[i].K, H = moves[i].H, rows = moves[i].rows;
    CASE("rows_scatter T %d K %d H %d", T, K, H);
    buffer row = random_rows(T * K, rows), x = random_of(NUM, (int64_t)T * H, 1);
    buffer send = poison(NUM, (int64_t)rows * H); /* rows that no copy goes to stay as they are */
    BOTH(rows_scatter, D(send), D(x), D(row), T, K, H);
    agree_within("send", &send, 0.0);
    DROP(&row, &x, &send);
  }
}

static void test_rows_gather(void) {
  for (int i = 0; i < SHAPES(moves); i++) {
    const int32_t n = i ? moves[i].T * moves[i].K : 0, H = moves[i].H, rows = moves[i].rows;
    CASE("rows_gather n %d H %d", n, H);
    int32_t *list = random_ints(n, rows);
    for (int32_t k = 0; k < n; k += 7) list[k] = -1;
    buffer index = ints_of(list, n);
    buffer x = random_at(NUM, (int64_t)rows * H, 1, i % 3), y = poison(NUM, (int64_t)n * H);
    BOTH(rows_gather, D(y), D(x), D(index), n, H);
    agree_within("y", &y, 0.0);
    free(list);
    DROP(&x, &y, &index);
  }
}

static void test_combine_fwd(void) {
  for (int i = 0; i < SHAPES(moves); i++) {
    const int32_t T = moves[i].T, K = moves[i].K, H = moves[i].H, rows = moves[i].rows;
    CASE("combine_fwd T %d K %d H %d", T, K, H);
    buffer row = random_rows(T * K, rows), back = random_of(NUM, (int64_t)rows * H, 1);
    buffer weight = random_of(F32, (int64_t)T * K, 1), y = random_of(NUM, (int64_t)T * H, 1);
    BOTH(combine_fwd, D(y), D(back), D(weight), D(row), T, K, H);
    agree("y", &y);
    DROP(&row, &back, &weight, &y);
  }
}

static void test_combine_bwd(void) {
  for (int i = 0; i < SHAPES(moves); i++) {
    const int32_t T = moves[i].T, K = moves[i].K, H = moves[i].H, rows = moves[i].rows;
    CASE("combine_bwd T %d K %d H %d", T, K, H);
    buffer row = random_rows(T * K, rows), back = random_of(NUM, (int64_t)rows * H, 1);
    buffer weight = random_of(F32, (int64_t)T * K, 1), dy = random_of(NUM, (int64_t)T * H, 1);
    buffer dback = poison(NUM, (int64_t)rows * H), dweight = poison(F32, (int64_t)T * K);
    BOTH(combine_bwd, D(dback), D(dweight), D(dy), D(back), D(weight), D(row), T, K, H);
    agree("dback", &dback);
    agree_within("dweight", &dweight, 1e-5);
    DROP(&row, &back, &weight, &dy, &dback, &dweight);
  }
}

static void test_rows_sum(void) {
  for (int i = 0; i < SHAPES(moves); i++) {
    const int32_t T = moves[i].T, K = moves[i].K, H = moves[i].H, rows = moves[i].rows;
    CASE("rows_sum T %d K %d H %d", T, K, H);
    buffer row = random_rows(T * K, rows), dsend = random_of(NUM, (int64_t)rows * H, 1);
    buffer dx = random_of(NUM, (int64_t)T * H, 1);
    BOTH(rows_sum, D(dx), D(dsend), D(row), T, K, H);
    agree("dx", &dx);
    DROP(&row, &dsend, &dx);
  }
}

/* -- products of groups
 * -------------------------------------------------------------------------------------------------- */

enum { GROUPS = 70 }; /* more groups than a table of a kernel holds */

typedef struct grouped {
  int32_t n, rows, N, K;
  bl_group groups[SIDES][GROUPS];
  buffer weight, bias, grad_weight, grad_bias; /* of all experts one behind the other */
} grouped;

/* Expert g has g % 5 rows, the third one many; unused rows in between; every fourth one has no bias. */
static void grouped_open(grouped *g, int32_t n, int32_t many, int32_t N, int32_t K) {
  *g = (grouped){.n = n, .rows = 2, .N = N, .K = K};
  g->weight = random_of(NUM, (int64_t)n * N * K, 1);
  g->bias = random_of(NUM, (int64_t)n * N, 1);
  g->grad_weight = random_of(F32, (int64_t)n * N * K, 1);
  g->grad_bias = random_of(F32, (int64_t)n * N, 1);
  for (int32_t e = 0; e < n; e++) {
    const int32_t rows = e == 2 ? many : e % 5;
    for (int side = 0; side < SIDES; side++) {
      const size_t num = sides[side]->num_bytes;
      g->groups[side][e] =
          (bl_group){.first = g->rows,
                     .rows = rows,
                     .weight = (char *)g->weight.device[side] + (size_t)e * (size_t)N * (size_t)K * num,
                     .bias = e % 4 == 3 ? NULL : (char *)g->bias.device[side] + (size_t)e * (size_t)N * num,
                     .grad_weight = (float *)g->grad_weight.device[side] + (int64_t)e * N * K,
                     .grad_bias = e % 4 == 3 ? NULL : (float *)g->grad_bias.device[side] + (int64_t)e * N};
    }
    g->rows += rows + e % 2;
  }
}

static void grouped_close(grouped *g) { DROP(&g->weight, &g->bias, &g->grad_weight, &g->grad_bias); }

static const struct {
  int32_t n, many, N, K;
} groupings[] = {{1, 1, 5, 3}, {5, 130, 19, 23}, {GROUPS, 30, 8, 16}, {6, 300, 24, 8}, {64, 3000, 1024, 256}};

/* Of groups whose rows begin aligned, as all that models have. */
static bool stands_alone(int32_t N, int32_t K) { return groups_stand_alone && N % 8 == 0 && K % 8 == 0; }

/* Group e of `all` (rows `width` wide) against a call for this group alone, its rows at the front of `part`. */
static void same_alone(const char *what, const buffer *all, const buffer *part, const bl_group *group, int32_t width) {
  const size_t bytes = (size_t)group->rows * (size_t)width * sides[CUDA]->num_bytes;
  char *a = case_new(bytes), *b = case_new(bytes);
  const char *from = (char *)all->device[CUDA] + (size_t)group->first * (size_t)width * sides[CUDA]->num_bytes;
  sides[CUDA]->to_host(streams[CUDA], a, from, bytes);
  sides[CUDA]->to_host(streams[CUDA], b, part->device[CUDA], bytes);
  CHECK_OK(sides[CUDA]->stream_sync(streams[CUDA]));
  if (!check_count(memcmp(a, b, bytes) == 0)) printf("%s: %s: a group alone has other bits\n", case_name, what);
  free(a), free(b);
}

static void test_grouped_fwd(void) {
  for (int i = 0; i < SHAPES(groupings); i++) {
    const int32_t N = groupings[i].N, K = groupings[i].K, n = groupings[i].n;
    grouped g;
    CASE("grouped_fwd %d groups N %d K %d", n, N, K);
    grouped_open(&g, n, groupings[i].many, N, K);
    buffer x = random_of(NUM, (int64_t)g.rows * K, 1), y = poison(NUM, (int64_t)g.rows * N);
    BOTH(grouped_fwd, D(y), D(x), g.groups[side], n, N, K);
    agree("y", &y);
    for (int32_t e = 0; e < n && stands_alone(N, K); e += 2) {
      bl_group alone = g.groups[CUDA][e];
      buffer part = poison(NUM, (int64_t)g.rows * N);
      alone.first = 0;
      sides[CUDA]->ops.grouped_fwd(streams[CUDA], part.device[CUDA],
                                   (char *)x.device[CUDA] +
                                       (size_t)g.groups[CUDA][e].first * (size_t)K * sides[CUDA]->num_bytes,
                                   &alone, 1, N, K);
      same_alone("y", &y, &part, &g.groups[CUDA][e], N);
      drop(&part);
    }
    DROP(&x, &y);
    grouped_close(&g);
  }
}

static void test_grouped_dx(void) {
  for (int i = 0; i < SHAPES(groupings); i++) {
    const int32_t N = groupings[i].N, K = groupings[i].K, n = groupings[i].n;
    grouped g;
    CASE("grouped_dx %d groups N %d K %d", n, N, K);
    grouped_open(&g, n, groupings[i].many, N, K);
    buffer dy = random_of(NUM, (int64_t)g.rows * N, 1), dx = poison(NUM, (int64_t)g.rows * K);
    BOTH(grouped_dx, D(dx), D(dy), g.groups[side], n, N, K);
    agree("dx", &dx);
    for (int32_t e = 0; e < n && stands_alone(N, K); e += 2) {
      bl_group alone = g.groups[CUDA][e];
      buffer part = poison(NUM, (int64_t)g.rows * K);
      alone.first = 0;
      sides[CUDA]->ops.grouped_dx(streams[CUDA], part.device[CUDA],
                                  (char *)dy.device[CUDA] +
                                      (size_t)g.groups[CUDA][e].first * (size_t)N * sides[CUDA]->num_bytes,
                                  &alone, 1, N, K);
      same_alone("dx", &dx, &part, &g.groups[CUDA][e], K);
      drop(&part);
    }
    DROP(&dy, &dx);
    grouped_close(&g);
  }
}

static void test_grouped_dw(void) {
  for (int i = 0; i < SHAPES(groupings); i++) {
    const int32_t N = groupings[i].N, K = groupings[i].K, n = groupings[i].n;
    grouped g;
    CASE("grouped_dw %d groups N %d K %d", n, N, K);
    grouped_open(&g, n, groupings[i].many, N, K);
    buffer dy = random_of(NUM, (int64_t)g.rows * N, 1), x = random_of(NUM, (int64_t)g.rows * K, 1);
    BOTH(grouped_dw, D(dy), D(x), g.groups[side], n, N, K);
    agree_within("grad_weight", &g.grad_weight, 1e-5);
    agree_within("grad_bias", &g.grad_bias, 1e-5);
    DROP(&dy, &x);
    grouped_close(&g);
  }
}

static void test_grouped_gelu_fwd(void) {
  for (int i = 0; i < SHAPES(groupings); i++) {
    const int32_t N = groupings[i].N, K = groupings[i].K, n = groupings[i].n;
    grouped g;
    CASE("grouped_gelu_fwd %d groups N %d K %d", n, N, K);
    grouped_open(&g, n, groupings[i].many, N, K);
    buffer x = random_of(NUM, (int64_t)g.rows * K, 1), y = poison(NUM, (int64_t)g.rows * N);
    buffer hidden = poison(NUM, (int64_t)g.rows * N);
    BOTH(grouped_gelu_fwd, D(y), D(hidden), D(x), g.groups[side], n, N, K);
    agree("y", &y);
    DROP(&x, &y, &hidden);
    grouped_close(&g);
  }
}

/* Apart and in place, by turns. */
static void test_grouped_gelu_bwd(void) {
  for (int i = 0; i < 2 * SHAPES(groupings); i++) {
    const int32_t N = groupings[i / 2].N, K = groupings[i / 2].K, n = groupings[i / 2].n;
    const bool in_place = i & 1;
    grouped g;
    CASE("grouped_gelu_bwd %d groups N %d K %d in place %d", n, N, K, in_place);
    grouped_open(&g, n, groupings[i / 2].many, N, K);
    buffer x = random_of(NUM, (int64_t)g.rows * K, 1), y = poison(NUM, (int64_t)g.rows * N);
    buffer hidden = poison(NUM, (int64_t)g.rows * N), dhidden = poison(NUM, (int64_t)g.rows * N);
    buffer dy = random_of(NUM, (int64_t)g.rows * N, 1);
    BOTH(grouped_gelu_fwd, D(y), D(hidden), D(x), g.groups[side], n, N, K);
    BOTH(grouped_gelu_bwd, in_place ? D(dy) : D(dhidden), D(dy), D(hidden), g.groups[side], n, N);
    agree("dhidden", in_place ? &dy : &dhidden);
    agree_within("grad_bias", &g.grad_bias, sides[CUDA]->num_bytes == 2 ? 3e-3 : 1e-5); /* bf16: of a rounded product */
    DROP(&x, &y, &hidden, &dhidden, &dy);
    grouped_close(&g);
  }
}

#endif
