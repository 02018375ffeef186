/* checkpoint_folder.h - the folder of a checkpoint: written beside its place, then put there in one step, so that one
 * whole checkpoint stands there at any time. One is written at a time in a process; bl_checkpoint_discard() may
 * interrupt it. */
#ifndef BL_EXECUTOR_CHECKPOINT_FOLDER_H
#define BL_EXECUTOR_CHECKPOINT_FOLDER_H

#include "base/status.h"
#include <limits.h>
#include <stdint.h>

/*! bl_checkpoint_path() : `name` within `dir`.
 *  @return : BL_OK or BL_EINPUT where that is too long. */
bl_status bl_checkpoint_path(char path[PATH_MAX], const char *dir, const char *name);

/*! bl_checkpoint_rank_file() : "rank-P.safetensors".  Async-signal-safe. */
void bl_checkpoint_rank_file(char name[64], int32_t rank);

/*! bl_checkpoint_fresh_path() : the folder beside `dir`, or beside what it is a link to, in which process `pid` has a
 *  checkpoint written.
 *  @return : BL_OK or BL_EINPUT where that is too long. */
bl_status bl_checkpoint_fresh_path(const char *dir, int64_t pid, char fresh[PATH_MAX]);

/*! bl_checkpoint_begin() : creates `fresh` for the files of `ranks` ranks. Called on rank 0; bl_checkpoint_end() must
 *  follow, also where it fails.
 *  @return : BL_OK, BL_EINPUT, BL_EMACHINE, BL_EINTERRUPTED where the process is about to end. */
bl_status bl_checkpoint_begin(const char *fresh, int32_t ranks);

/*! bl_checkpoint_end() : where all went well so far (`status`), `fresh` becomes `dir` and what stood there is gone;
 *  otherwise `fresh` is removed.
 *  @return : `status`, or what putting it in place said. */
bl_status bl_checkpoint_end(const char *fresh, const char *dir, bl_status status);

#endif
