/* nccl.h - a stand-in for NCCL's header of that name: the part that executor/transport/nccl.cu uses. */
#ifndef BL_TESTS_CUDA_SHIM_NCCL_H
#define BL_TESTS_CUDA_SHIM_NCCL_H

#include <cuda_runtime.h>

typedef struct ncclComm *ncclComm_t;
typedef struct ncclUniqueId {
  char internal[128];
} ncclUniqueId;
typedef enum ncclResult_t { ncclSuccess = 0, ncclSystemError = 2, ncclInvalidArgument = 4, ncclInProgress = 7 } ncclResult_t;
typedef enum ncclDataType_t { ncclInt8 = 0 } ncclDataType_t;
typedef struct ncclConfig_t {
  int blocking;
} ncclConfig_t;
#define NCCL_CONFIG_INITIALIZER {1}

extern "C" {
ncclResult_t ncclGetUniqueId(ncclUniqueId *id);
ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank, ncclConfig_t *config);
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *state);
ncclResult_t ncclCommFinalize(ncclComm_t comm);
ncclResult_t ncclCommDestroy(ncclComm_t comm);
ncclResult_t ncclCommAbort(ncclComm_t comm);
ncclResult_t ncclSend(const void *data, size_t n, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream);
ncclResult_t ncclRecv(void *data, size_t n, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream);
ncclResult_t ncclGroupStart(void);
ncclResult_t ncclGroupEnd(void);
const char *ncclGetErrorString(ncclResult_t result);
}

#endif
