/* launch.h - runs all ranks of a training run and writes what it leaves behind. */
#ifndef BL_EXECUTOR_LAUNCH_H
#define BL_EXECUTOR_LAUNCH_H

#include "base/status.h"
#include "executor/setup.h"

/*! bl_launch() : trains as the options say. With the threads transport every rank is a thread and the first that fails
 *  stops all others; its status and sentence are the result. Otherwise this process is one rank of several; main() ends
 *  with bl_processes_end(). SIGINT, SIGTERM and SIGHUP finish the step under way, write log and checkpoint and give
 *  BL_EINTERRUPTED; a second one ends the process at once. */
bl_status bl_launch(const bl_train_options *options);

#endif
