/* same_run.h - ranks that are processes were each given a command line, files and a program: they must be the same. */
#ifndef BL_EXECUTOR_SAME_RUN_H
#define BL_EXECUTOR_SAME_RUN_H

#include "base/status.h"
#include "executor/setup.h"
#include "executor/transport.h"

/*! bl_expect_same_run() : called by all ranks; compares what decides the result of a run: build and kernels, model, data,
 *  plan, options, the checkpoint to go on from.
 *  @return : BL_OK, or on every rank BL_EINPUT naming the first rank that differs from rank 0, and in what. */
bl_status bl_expect_same_run(bl_comm *comm, const bl_setup *setup, const bl_train_options *options);

#endif
