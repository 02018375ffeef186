/* pool.h - device buffers that are taken and given back many times a step without asking the system each time.
 *
 * Sizes are rounded up to eight classes per power of two (at most an eighth is wasted), so that ragged sizes that
 * differ from step to step find a free buffer of their class. Owned and used by one rank. */
#ifndef BL_EXECUTOR_POOL_H
#define BL_EXECUTOR_POOL_H

#include "base/status.h"
#include "executor/backend.h"
#include <stddef.h>
#include <stdint.h>

/* A taken buffer; {0} is "none". The contents are whatever was there before. */
typedef struct bl_chunk {
  void *data;
  int32_t size_class;
} bl_chunk;

typedef struct bl_pool bl_pool;

bl_status bl_pool_create(bl_backend *backend, bl_pool **out);
void bl_pool_free(bl_pool *pool); /* NULL is fine; releases the free buffers: give all back before */

/*! bl_pool_take() : a buffer of at least `bytes` (also for 0).  @return : BL_OK or BL_EMACHINE. */
bl_status bl_pool_take(bl_pool *pool, size_t bytes, bl_chunk *out);

/*! bl_pool_give() : back into the pool; the buffer becomes {0}. An empty buffer is fine. */
void bl_pool_give(bl_pool *pool, bl_chunk *buffer);

#endif
