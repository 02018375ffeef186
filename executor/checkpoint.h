/* checkpoint.h - the whole training state in a directory, from which a run goes on bit by bit.
 *
 *   DIR/manifest.json         what is in it, with sizes and CRC-32; written last
 *   DIR/model.json            the model file
 *   DIR/rank-N.safetensors    rank 0: dense tensors; each rank: its experts at home. moments behind adam.m. and
 *                             adam.v.; the plain name holds the master weight
 *   DIR/policy.bin            the policy's memory
 *
 * A tensor is stored once under its own name, so that another number of ranks can read it; then the policy starts
 * afresh and the result agrees to rounding. Written beside DIR and put in its place in one step. */
#ifndef BL_EXECUTOR_CHECKPOINT_H
#define BL_EXECUTOR_CHECKPOINT_H

#include "base/status.h"
#include "executor/rank.h"

/*! bl_checkpoint_save() : called by all ranks after the same step.
 *  @return : BL_OK; the failing rank's status on it and BL_ECOMM on the others; then DIR is as it was before. */
bl_status bl_checkpoint_save(bl_rank *r, const char *dir);

/*! bl_checkpoint_prepare() : before training: can a checkpoint be put at DIR? Also creates the folders above it.
 *  @return : BL_OK, BL_EINPUT (not writable, or other files there), BL_EMACHINE. */
bl_status bl_checkpoint_prepare(const char *dir);

/*! bl_checkpoint_discard() : for the signal handler of a process that then ends at once: removes what
 *  bl_checkpoint_save() has written so far and all other outputs; none is begun afterwards. Async-signal-safe.
 *  @return : false, with nothing done, where a complete checkpoint is being put in its place, which takes no time. */
bool bl_checkpoint_discard(void);

/*! bl_checkpoint_load() : called by all ranks instead of bl_weights_initialise(): weights, moments, step, and where
 * ranks and policy are the same also homes and the policy's memory.
 *  @return : BL_OK, BL_EINPUT (damaged, or of another model), BL_EMACHINE. */
bl_status bl_checkpoint_load(bl_rank *r, const char *dir);

/* What a resumed run takes over where the command line does not say otherwise. */
typedef struct bl_checkpoint_settings {
  uint64_t seed;
  int32_t batch, micro_batches;
  int64_t schedule_steps, warmup; /* of the learning rate; -1 where an older checkpoint does not say */
} bl_checkpoint_settings;

/*! bl_checkpoint_read_settings() : the settings in the manifest of a checkpoint. */
bl_status bl_checkpoint_read_settings(const char *dir, bl_checkpoint_settings *settings);

#endif
