/* cpu.h - inside of the CPU backend: its stream and the declarations of its operations. */
#ifndef BL_EXECUTOR_CPU_CPU_H
#define BL_EXECUTOR_CPU_CPU_H

#include "executor/backend.h"

/* Work runs at once in the calling thread, so a stream is only scratch memory and a failure to report. */
struct bl_stream {
  bl_backend *backend;
  float *scratch;
  size_t scratch_bytes;
  size_t scratch_failed_bytes; /* not 0: an operation was skipped since so many bytes were not to be had */
};

/*! bl_cpu_scratch() : at least `count` floats, contents undefined, valid until the next call on this stream. NULL when
 *  out of memory: the operation returns and the next stream_sync() reports. */
float *bl_cpu_scratch(bl_stream *s, size_t count);

#define BL_OP(name, args) void bl_cpu_##name args;
#include "executor/ops.def"
#undef BL_OP

#endif
