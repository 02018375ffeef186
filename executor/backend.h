/* backend.h - the seam between the training algorithm and the machine that computes it.
 *
 * A backend is memory + streams + events + about 30 whole operations (ops.def). The algorithm (everything in executor/
 * outside cpu/, cuda/, transport/) is compiled once, calls through this vtable and never dereferences a device pointer.
 * The CPU backend is the specification of every operation; a new one is compared with it operation by operation.
 *
 * Numbers: activations and working weights are of the backend's compute type (`bl_num`, `num_bytes` each: fp32, later
 * bf16); master weights, moments, gradients, statistics and losses are always fp32. Where the compute type is fp32 the
 * working weight and its master are the same buffer.
 * Order: operations on one stream run in the order they were issued. Results do not depend on the number of threads or
 * on timing: every sum has a fixed order, no float atomics.
 * Errors: an operation validates nothing that its caller owns; a device failure is reported by the next call that can
 * return a status (sync at the latest). */
#ifndef BL_EXECUTOR_BACKEND_H
#define BL_EXECUTOR_BACKEND_H

#include "base/status.h"
#include "executor/plan_ops.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef void bl_num;                /* an element of the compute type: bl_num * is a device pointer */
typedef struct bl_stream bl_stream; /* backend-defined; the CPU backend's streams are synchronous */
typedef struct bl_event bl_event;
typedef struct bl_graph bl_graph; /* work of a stream that can be done again as it was */
typedef struct bl_backend bl_backend; /* one per rank; used by the rank's thread alone */

/* One expert's part in a grouped operation: `rows` rows from row `first` of the batch, with the expert's own matrices.
 */
typedef struct bl_group {
  int32_t first, rows;
  const bl_num *weight; /* [out][in] */
  const bl_num *bias;   /* [out] or NULL */
  float *grad_weight;   /* accumulated into by the dw operation */
  float *grad_bias;     /* or NULL */
} bl_group;

/* Hyperparameters of one AdamW update. */
typedef struct bl_adamw {
  float lr, beta1, beta2, eps;
  float grad_scale;                         /* gradients are multiplied by this (clip, 1 / micro-batches) */
  float bias_correction1, bias_correction2; /* 1 - beta^step */
  int32_t skip;                             /* not 0: nothing is updated */
} bl_adamw;

/* One tensor of an update; `weight` may be the master. */
typedef struct bl_adamw_part {
  bl_num *weight;
  float *master, *m, *v;
  const float *grad;
  int64_t n;
  float decay;
} bl_adamw_part;

/* One tensor whose squares are summed into *sum, a device double. */
typedef struct bl_square_part {
  double *sum;
  const float *x;
  int64_t n;
} bl_square_part;

/* A host array that goes to the device together with others. */
typedef struct bl_host_part {
  const void *data;
  size_t bytes;
} bl_host_part;

typedef struct bl_ops {
#define BL_OP(name, args) void(*name) args;
#include "executor/ops.def"
#undef BL_OP
} bl_ops;

enum {
#define BL_OP(name, args) BL_OP_##name,
#include "executor/ops.def"
#undef BL_OP
  BL_OP_COUNT
};

/*! bl_op_names : the operations' names in the order of ops.def. */
extern const char *const bl_op_names[BL_OP_COUNT];

struct bl_backend {
  const char *name;   /* "cpu", "cuda" */
  const char *kernel; /* what the matrix products run on; other kernels may round otherwise */
  const char *device; /* the processor or card, as the system names it */
  size_t num_bytes;   /* of the compute type */
  bool host_memory;   /* device pointers may be read by the host (CPU backend) */
  bl_ops ops;         /* the first argument of every operation is a stream of this backend */

  /* Memory: zeroed, 64-byte aligned; fails with BL_EMACHINE. Peak = most bytes held at once. */
  bl_status (*alloc)(bl_backend *be, size_t bytes, void *out_pointer);
  void (*release)(bl_backend *be, void *pointer); /* NULL is fine */
  size_t (*memory_peak)(const bl_backend *be);

  /* Copies enqueue on the stream; host memory must stay until the stream is synced. */
  void (*to_device)(bl_stream *s, void *device, const void *host, size_t bytes);
  void (*to_host)(bl_stream *s, void *host, const void *device, size_t bytes);
  /* Host arrays, where work that is issued to `s` up to the next upload finds them: device[i] = part i. The host arrays
   * may change once the call has returned where memory is not the host's. */
  void (*upload)(bl_stream *s, const bl_host_part *parts, int32_t n, const void **device);
  void (*copy)(bl_stream *s, void *to, const void *from, size_t bytes);
  void (*zero)(bl_stream *s, void *device, size_t bytes);

  bl_status (*stream_create)(bl_backend *be, bl_stream **out);
  void (*stream_destroy)(bl_stream *s);
  bl_status (*stream_sync)(bl_stream *s); /* waits; reports device failures */
  bl_status (*event_create)(bl_backend *be, bl_event **out);
  void (*event_destroy)(bl_event *e);
  void (*event_record)(bl_event *e, bl_stream *s);
  void (*event_wait)(bl_stream *s, bl_event *e);                /* work issued to s from now on waits for e */
  /* As event_record, for event_us alone: in captured work the time is taken anew each time that the work is done. */
  void (*event_stamp)(bl_event *e, bl_stream *s);
  double (*event_us)(const bl_event *from, const bl_event *to); /* both reached */

  /* Optional, all or none. From capture_begin to capture_end what is issued to `s`, and to streams that wait for it and
   * for which it waits again, is not done but kept: the same memory, the same numbers given by value, host arrays as they
   * were. In between nothing may ask for memory or wait. capture_end: *out is NULL where there was no room for the host
   * arrays; the next capture has it. graph_holds: no memory has been given back since, so that the graph may be launched,
   * as often as one likes. */
  bl_status (*capture_begin)(bl_stream *s);
  bl_status (*capture_end)(bl_stream *s, bl_graph **out);
  bool (*graph_holds)(const bl_graph *graph);
  void (*graph_launch)(bl_stream *s, bl_graph *graph);
  void (*graph_destroy)(bl_graph *graph); /* NULL is fine */

  void (*destroy)(bl_backend *be);
};

/*! bl_backend_cpu_create() : the reference backend. Single-threaded: a run of R ranks uses R cores. */
bl_status bl_backend_cpu_create(bl_backend **out);

/*! bl_backend_open() : a backend by the words of the command line: "cpu" or "cuda" (`device` from 0; ranks of one
 * process share the first), and "auto", "fp32" or "bf16"; auto is fp32 on cpu and bf16 on cuda.
 *  @return : BL_OK; BL_EUSAGE for a pair that does not exist; BL_ENOTSUP where this build has no such backend;
 *  BL_EMACHINE saying what is missing. */
bl_status bl_backend_open(const char *backend, const char *precision, int32_t device, bl_backend **out);

/*! bl_backend_check() : whether bl_backend_open() could be asked for this pair, and bl_backend_expert_gemm() for this
 * way, without opening anything. */
bl_status bl_backend_check(const char *backend, const char *precision, const char *expert_gemm);

/* Ways to issue the products of experts, of which one after another is every backend's first. */
#define BL_EXPERT_GEMMS "loop|streams|grouped"
enum { BL_EXPERT_GEMM_WAYS = 3 };

/*! bl_backend_expert_gemm() : from now on the products over groups of rows are issued in this way, one that
 * bl_backend_check() lets pass: "loop", one after another; "streams", side by side; "grouped", in one call. */
void bl_backend_expert_gemm(bl_backend *be, const char *expert_gemm);

#endif
