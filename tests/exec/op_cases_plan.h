/* op_cases_plan.h - cases of the operations that plan an exchange: optimal and in the order of sources by other means, rows
 * by their definition. */
#ifndef BL_TESTS_EXEC_OP_CASES_PLAN_H
#define BL_TESTS_EXEC_OP_CASES_PLAN_H

#include "tests/exec/op_check.h"
#include "tests/exec/plan_instance.h"

/* The largest load of whole tokens cannot be below what fractions allow. */
static void check_optimal(const plan_instance *x, const uint32_t *quota) {
  const bl_host_table *t = &x->table;
  double *load = op_new((size_t)t->experts, sizeof *load), sum = 0;
  int64_t *on = op_new((size_t)t->ranks, sizeof *on), most = 0;
  bl_shares *shares;
  REQUIRE_OK(bl_shares_create(t->experts, t->ranks, x->hosts.n_copy_slots, &shares));
  for (int32_t p = 0; p < t->ranks; p++) {
    for (int32_t e = 0; e < t->experts; e++) load[e] += x->counts[p * t->experts + e];
    for (int32_t i = 0; i < t->entries; i++) on[t->rank[i]] += quota[p * t->entries + i];
  }
  for (int32_t e = 0; e < t->experts; e++) sum += load[e];
  for (int32_t p = 0; p < t->ranks; p++)
    if (on[p] > most) most = on[p];
  const double level = bl_shares_solve(shares, &x->hosts, load, NULL) * sum / t->ranks;
  CHECK_INT(most, sum > 0 ? (int64_t)ceil(level - 1e-6) : 0);
  bl_shares_free(shares);
  free(load), free(on);
}

/* Sources take from hosts, own rank first, then by rank order, as far as both have any left. */
static void check_sources(const plan_instance *x, const uint32_t *quota) {
  const bl_host_table *t = &x->table;
  const int32_t n = t->entries, E = t->experts;
  uint32_t *want = op_new((size_t)(t->ranks * n), sizeof *want), *host = op_new((size_t)n, sizeof *host);
  uint32_t *source = op_new((size_t)(t->ranks * E), sizeof *source);
  memcpy(source, x->counts, sizeof *source * (size_t)(t->ranks * E));
  for (int32_t p = 0; p < t->ranks; p++)
    for (int32_t i = 0; i < n; i++) host[i] += quota[p * n + i];
  for (int pass = 0; pass < 2; pass++)
    for (int32_t p = 0; p < t->ranks; p++)
      for (int32_t i = 0; i < n; i++) {
        uint32_t *mine = &source[p * E + t->expert[i]], give = *mine < host[i] ? *mine : host[i];
        if (pass == 0 && t->rank[i] != p) give = 0;
        *mine -= give;
        host[i] -= give;
        want[p * n + i] += give;
      }
  CHECK(memcmp(want, quota, sizeof *want * (size_t)(t->ranks * n)) == 0);
  uint32_t left = 0;
  for (int32_t i = 0; i < t->ranks * E; i++) left += source[i];
  CHECK_INT(left, 0);
  free(want), free(host), free(source);
}

/* Without copies there is one answer, that of bl_quota_build(). */
static void check_same_as_planner(const plan_instance *x, const uint32_t *quota) {
  const bl_host_table *t = &x->table;
  double *load = op_new((size_t)t->experts, sizeof *load);
  int32_t *first = op_new((size_t)t->experts + 1, sizeof *first), *rank = op_new((size_t)t->entries, sizeof *rank);
  uint32_t *want = op_new((size_t)(t->ranks * t->entries), sizeof *want);
  bl_shares *shares;
  REQUIRE_OK(bl_shares_create(t->experts, t->ranks, x->hosts.n_copy_slots, &shares));
  for (int32_t i = 0; i < t->ranks * t->experts; i++) load[i % t->experts] += x->counts[i];
  bl_shares_solve(shares, &x->hosts, load, NULL);
  REQUIRE_OK(bl_quota_build(&x->hosts, shares, x->counts, t->ranks, 0, first, rank, want));
  CHECK(memcmp(want, quota, sizeof *want * (size_t)(t->ranks * t->entries)) == 0);
  bl_shares_free(shares);
  free(load), free(first), free(rank), free(want);
}

static void test_plan_quotas(void) {
  for (int i = 0; i < 8 * COUNT(plan_shapes); i++) {
    const plan_shape *shape = &plan_shapes[i / 8];
    const bool copies = i % 8 > 0;
    CASE("plan_quotas E %d P %d slots %d, %d", shape->experts, shape->ranks, shape->slots, i % 8);
    plan_instance x = plan_make(shape, &op_rng, copies);
    if (i % 8 == 7) memset(x.counts, 0, sizeof *x.counts * (size_t)(shape->ranks * shape->experts));
    tensor quota = random_ints(shape->ranks * x.table.entries, 1000);
    CALL(plan_quotas, quota.device, x.counts, &x.table);
    down(&quota);
    check_optimal(&x, quota.host.u);
    check_sources(&x, quota.host.u);
    if (!copies) check_same_as_planner(&x, quota.host.u);
    plan_drop(&x), drop(&quota);
  }
}

static void test_plan_rows(void) {
  for (int i = 0; i < 4 * COUNT(plan_shapes); i++) {
    const plan_shape *shape = &plan_shapes[i / 4];
    const bool tight = i & 1;
    CASE("plan_rows E %d P %d slots %d, %d", shape->experts, shape->ranks, shape->slots, i % 4);
    plan_instance x = plan_make(shape, &op_rng, true);
    const bl_host_table *t = &x.table;
    const int32_t P = t->ranks, n = t->entries, first = t->rank_first[x.rank], mine = t->rank_first[x.rank + 1] - first;
    tensor quota = random_ints(P * n, 1), flag = tensor_of(1, sizeof(double), 0);
    CALL(plan_quotas, quota.device, x.counts, t);
    down(&quota);
    const uint32_t *q = quota.host.u;
    plan_bounds(&x, q, &op_rng, tight);
    tensor take = random_ints(n, 1000), dest = random_ints(n, 1000), loads = random_ints(P, 1000);
    tensor by_expert = random_ints(x.bounds.expert_rows, 1000), by_source = random_ints(x.bounds.recv_rows, 1000);
    const bl_planned_rows rows = {take.device,      dest.device,  by_expert.device,
                                  by_source.device, loads.device, flag.device};
    up(&flag);
    op_called[BL_OP_plan_rows] = true;
    op_backend->ops.plan_rows(op_stream, &rows, q, t, &x.bounds, x.rank);

    double fits = 1;
    uint32_t *want_take = op_new((size_t)n, sizeof *want_take), *load = op_new((size_t)P, sizeof *load);
    int32_t *want_dest = op_new((size_t)n, sizeof *want_dest), *sent = op_new((size_t)P, sizeof *sent);
    int32_t *expert_order = op_new((size_t)x.bounds.expert_rows, 4), *source_order = op_new((size_t)x.bounds.recv_rows, 4);
    for (int32_t k = 0; k < x.bounds.expert_rows; k++) expert_order[k] = -1;
    for (int32_t k = 0; k < x.bounds.recv_rows; k++) source_order[k] = -1;
    for (int32_t e = 0; e < n; e++) { /* entries ascending, so each rank's are too */
      const int32_t to = t->rank[e], room = x.bounds.send_first[to + 1] - x.bounds.send_first[to];
      for (int32_t p = 0; p < P; p++) load[to] += q[p * n + e];
      want_dest[e] = x.bounds.send_first[to] + sent[to];
      want_take[e] = q[x.rank * n + e];
      if ((int32_t)want_take[e] > room - sent[to]) {
        want_take[e] = (uint32_t)(room - sent[to]);
        fits = 0;
      }
      sent[to] += (int32_t)want_take[e];
    }
    for (int32_t p = 0; p < P; p++) /* every row that comes, one by one */
      for (int32_t l = 0, at = x.bounds.recv_first[p]; l < mine; l++) {
        int32_t row = x.bounds.block_first[l];
        for (int32_t before = 0; before < p; before++) row += (int32_t)q[before * n + t->rank_entry[first + l]];
        for (uint32_t k = 0; k < q[p * n + t->rank_entry[first + l]]; k++, at++, row++) {
          if (at < x.bounds.recv_first[p + 1] && row < x.bounds.block_first[l + 1]) {
            expert_order[row] = at;
            source_order[at] = row;
          } else {
            fits = 0;
          }
        }
      }
    const double overflow = 1 - fits;
    same_bits("take", &take, want_take);
    same_bits("dest_row", &dest, want_dest);
    same_bits("by_expert", &by_expert, expert_order);
    same_bits("by_source", &by_source, source_order);
    same_bits("rank_rows", &loads, load);
    same_bits("overflow", &flag, &overflow);
    CHECK(tight || fits > 0);
    flag.host.d[0] = 1;
    up(&flag); /* a mark that is set stays */
    op_backend->ops.plan_rows(op_stream, &rows, q, t, &x.bounds, x.rank);
    same_bits("overflow kept", &flag, &(double){1});
    free(want_take), free(load), free(want_dest), free(sent), free(expert_order), free(source_order);
    drop(&quota), drop(&flag), drop(&take), drop(&dest), drop(&loads), drop(&by_expert), drop(&by_source);
    plan_drop(&x);
  }
}

static void test_clip_norm(void) {
  for (int i = 0; i < 8; i++) {
    enum { SUMS = 50, N = 37, RANKS = 3 };
    const double limit = i & 1 ? 1e-3 : 1e9;
    CASE("clip_norm %d", i);
    double sums[SUMS], flag[2 * RANKS] = {0}, want = 0;
    int32_t order[N];
    bl_adamw hyper = {.lr = 0.5f, .beta1 = 3, .skip = 77};
    for (int k = 0; k < SUMS; k++) sums[k] = op_uniform(0, 1);
    for (int k = 0; k < N; k++) want += sums[order[k] = (int32_t)bl_rng_below(&op_rng, SUMS)];
    flag[1] = 1; /* between those that count */
    if (i & 2) flag[2 * (RANKS - 1)] = 1;
    CALL(clip_norm, &hyper, sums, order, N, flag, RANKS, 2, limit);
    CHECK(hyper.grad_scale == (i & 1 ? (float)(limit / sqrt(want)) : 1.0f));
    CHECK_INT(hyper.skip, (i & 2) != 0);
    CHECK(hyper.lr == 0.5f && hyper.beta1 == 3);
  }
}

#endif
