/* checkpoint_manifest.h - manifest.json of a checkpoint: what a run was, and every file with its size and CRC-32. */
#ifndef BL_EXECUTOR_CHECKPOINT_MANIFEST_H
#define BL_EXECUTOR_CHECKPOINT_MANIFEST_H

#include "base/json.h"
#include "executor/rank.h"

/* Strings and files are valid while doc is, which the caller frees with bl_json_free(). */
typedef struct bl_manifest {
  bl_json_doc *doc;
  int64_t step, seed, ranks, ep, batch, micro_batches, plan_version;
  int64_t schedule_steps, warmup, data_crc32; /* -1 where absent */
  const char *policy, *hash;
  bl_json files;
} bl_manifest;

/*! bl_manifest_write() : the state of `r` and the files that lie in `dir`, whose sums it takes.
 *  @return : BL_OK or BL_EMACHINE where a file cannot be read. */
bl_status bl_manifest_write(const bl_rank *r, const char *dir, bl_json_writer *w);

/*! bl_manifest_read() : m->doc is to be freed also where reading fails.
 *  @return : BL_OK or BL_EINPUT. */
bl_status bl_manifest_read(const char *dir, bl_manifest *m);

/*! bl_manifest_item() : one entry of m->files; its name has no way out of the folder. */
bl_status bl_manifest_item(bl_json item, const char **name, int64_t *bytes, int64_t *crc);

/*! bl_manifest_check_files() : sizes and sums of all files in `dir`.
 *  @return : BL_OK or BL_EINPUT with the first that is damaged. */
bl_status bl_manifest_check_files(const char *dir, const bl_manifest *m);

#endif
