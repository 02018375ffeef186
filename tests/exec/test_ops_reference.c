/* test_ops_reference.c - every operation of ops.def on the CPU backend: forward against a naive reference in double,
 * backward against central finite differences of that reference. An operation without a case does not compile. */
#include "tests/exec/op_cases_dense.h"
#include "tests/exec/op_cases_grouped.h"
#include "tests/exec/op_cases_moe.h"
#include "tests/exec/op_cases_plan.h"
#include "tests/exec/op_cases_train.h"

static const struct {
  const char *name;
  void (*test)(void);
} cases[] = {
#define BL_OP(name, args) {#name, test_##name},
#include "executor/ops.def"
#undef BL_OP
};

int main(void) {
  bl_rng_seed(&op_rng, 20, 1);
  if (bl_backend_cpu_create(&op_backend) != BL_OK) return 3;
  if (op_backend->stream_create(op_backend, &op_stream) != BL_OK) return 3;
  for (int op = 0; op < BL_OP_COUNT; op++) {
    const int before = check_n_failed;
    cases[op].test();
    CHECK_STRING(cases[op].name, bl_op_names[op]);
    if (!check_count(op_called[op])) printf("the case of %s never called it\n", cases[op].name);
    if (check_n_failed != before) printf("in the case of %s\n", cases[op].name);
  }
  op_backend->stream_destroy(op_stream);
  op_backend->destroy(op_backend);
  TEST_MAIN_END;
}
