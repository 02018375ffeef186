/* nccl.h - ranks are processes with a CUDA device each, which exchange through NCCL.
 *
 * NCCL is loaded when the first comm is made, as cuBLAS is, so that programs start without it. It takes whole groups of
 * sends and receives of any sizes; everything else is made of these, so sums keep their order. The stream
 * waits for the end of a group, the host only where it must (bl_comm_wait): in small turns, in which it also looks whether
 * a rank is lost, since NCCL itself waits for ever. */
#ifndef BL_EXECUTOR_TRANSPORT_NCCL_H
#define BL_EXECUTOR_TRANSPORT_NCCL_H

#include "executor/transport.h"

#ifdef __cplusplus
extern "C" {
#endif

/*! bl_nccl_device() : the device for the rank that stands at `on_machine` among those of its machine: one after the
 *  other, and from the first again where there are fewer (then the join refuses, unless each sees another one). */
int32_t bl_nccl_device(int32_t on_machine);

/*! bl_nccl_join() : the comm of this rank. `host`: a comm of the same ranks over the mpi transport, through which they
 *  find each other and learn of failures; borrowed, must live longer. NULL: a single rank, which needs no MPI.
 *  @return : BL_EMACHINE (no NCCL, or not its functions), BL_EUSAGE (two ranks share a device), BL_ECOMM. */
bl_status bl_nccl_join(bl_backend *backend, bl_comm *host, double deadline_s, bl_comm **out);

#ifdef __cplusplus
}
#endif

#endif
