#include "executor/backend.h"

const char *const bl_op_names[BL_OP_COUNT] = {
#define BL_OP(name, args) #name,
#include "executor/ops.def"
#undef BL_OP
};
