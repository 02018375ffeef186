/* launch.h - runs all ranks of a training run and writes what it leaves behind. */
#ifndef BL_EXECUTOR_LAUNCH_H
#define BL_EXECUTOR_LAUNCH_H

#include "base/status.h"
#include "executor/setup.h"

/*! bl_launch() : trains as the options say, one thread a rank. The first rank that fails stops all others; its status
 *  and sentence are the result. SIGINT, SIGTERM and SIGHUP finish the step under way, write log and checkpoint and give
 *  BL_EINTERRUPTED; a second one ends the process at once. */
bl_status bl_launch(const bl_train_options *options);

#endif
