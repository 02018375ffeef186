/* cuda_cases_plan.h - cases of the operations that plan an exchange: integers, the same on both sides. */
#ifndef BL_TESTS_EXEC_CUDA_CASES_PLAN_H
#define BL_TESTS_EXEC_CUDA_CASES_PLAN_H

#include "executor/quotas.h"
#include "tests/exec/cuda_cases.h"
#include "tests/exec/plan_instance.h"

/* The last does not fit into a block's shared memory. */
static const plan_shape large_shapes[] = {{40, 33, 5, 1}, {256, 64, 5, 1.3}, {1200, 100, 20, 0.7}};

static const plan_shape *shape_of(int i) {
  return i < SHAPES(plan_shapes) ? &plan_shapes[i] : &large_shapes[i - SHAPES(plan_shapes)];
}

static bl_host_table table_at(const plan_instance *x, const void *block) {
  return bl_host_table_at(block, x->table.experts, x->table.ranks, x->table.entries);
}

static buffer table_of(const plan_instance *x) {
  return ints_of(x->block, (int64_t)bl_host_table_size(x->table.experts, x->table.ranks, x->table.entries));
}

static void test_plan_quotas(void) {
  for (int i = 0; i < 3 * (SHAPES(plan_shapes) + SHAPES(large_shapes)); i++) {
    const plan_shape *shape = shape_of(i / 3);
    CASE("plan_quotas E %d P %d slots %d, %d", shape->experts, shape->ranks, shape->slots, i % 3);
    plan_instance x = plan_make(shape, &case_rng, i % 3 > 0);
    buffer table = table_of(&x), counts = ints_of((int32_t *)x.counts, (int64_t)shape->ranks * shape->experts);
    buffer quota = poison(I32, (int64_t)shape->ranks * x.table.entries);
    bl_host_table tables[SIDES];
    for (int side = 0; side < SIDES; side++) tables[side] = table_at(&x, D(table));
    BOTH(plan_quotas, D(quota), D(counts), &tables[side]);
    agree("quota", &quota);
    plan_drop(&x);
    DROP(&table, &counts, &quota);
  }
}

static void test_plan_rows(void) {
  for (int i = 0; i < 4 * (SHAPES(plan_shapes) + SHAPES(large_shapes)); i++) {
    const plan_shape *shape = shape_of(i / 4);
    CASE("plan_rows E %d P %d slots %d, %d", shape->experts, shape->ranks, shape->slots, i % 4);
    plan_instance x = plan_make(shape, &case_rng, true);
    const int32_t P = shape->ranks, n = x.table.entries;
    uint32_t *q = case_new((size_t)P * (size_t)n * sizeof *q);
    int32_t *scratch = case_new(bl_quotas_scratch(&x.table) * sizeof *scratch);
    bl_quotas_plan(&x.table, x.counts, q, scratch);
    plan_bounds(&x, q, &case_rng, i & 1);
    buffer table = table_of(&x), quota = ints_of((int32_t *)q, (int64_t)P * n);
    buffer bounds = ints_of(x.bounds_block, 2 * (P + 1) + n + 1), flag = buffer_at(F64, 1, 0);
    put(&flag, &(double){0});
    buffer take = poison(I32, n), dest = poison(I32, n), loads = poison(I32, P);
    buffer by_expert = poison(I32, x.bounds.expert_rows), by_source = poison(I32, x.bounds.recv_rows);
    bl_host_table tables[SIDES];
    bl_row_bounds rooms[SIDES];
    bl_planned_rows rows[SIDES];
    for (int side = 0; side < SIDES; side++) {
      const int32_t *at = D(bounds);
      tables[side] = table_at(&x, D(table));
      rooms[side] = (bl_row_bounds){at, at + P + 1, at + 2 * (P + 1), x.bounds.recv_rows, x.bounds.expert_rows};
      rows[side] = (bl_planned_rows){D(take), D(dest), D(by_expert), D(by_source), D(loads), D(flag)};
    }
    BOTH(plan_rows, &rows[side], D(quota), &tables[side], &rooms[side], x.rank);
    agree("take", &take);
    agree("dest_row", &dest);
    agree("by_expert", &by_expert);
    agree("by_source", &by_source);
    agree("rank_rows", &loads);
    agree_within("overflow", &flag, 0.0);
    free(q), free(scratch);
    plan_drop(&x);
    DROP(&table, &quota, &bounds, &flag, &take, &dest, &loads, &by_expert, &by_source);
  }
}

/* One order of the sum is given, so the bits are too. */
static void test_clip_norm(void) {
  for (int i = 0; i < 6; i++) {
    enum { SUMS = 900, RANKS = 3, STRIDE = 300 };
    const int32_t n = (const int32_t[]){0, 5, 700}[i % 3];
    CASE("clip_norm n %d, %d", n, i);
    double values[SUMS + 1];
    for (int k = 0; k < SUMS; k++) values[k] = bl_rng_unit(&case_rng);
    for (int p = 0; p < RANKS; p++) values[p * STRIDE] = i == 4 && p == 1;
    int32_t *list = random_ints(n, SUMS), *before = random_ints(sizeof(bl_adamw) / 4, 1000);
    buffer sums = buffer_at(F64, SUMS, 0), order = ints_of(list, n), hyper = ints_of(before, sizeof(bl_adamw) / 4);
    put(&sums, values);
    BOTH(clip_norm, D(hyper), D(sums), D(order), n, D(sums), RANKS, STRIDE, i < 3 ? 0.25 : 1e9);
    agree("hyper", &hyper);
    free(list), free(before);
    DROP(&sums, &order, &hyper);
  }
}

#endif
