/* pool.c - free lists of device buffers by size class. */
#include "executor/pool.h"
#include "base/memory.h"

enum { SMALLEST = 512, STEPS = 8, CLASSES = STEPS * 40 };

typedef struct free_list {
  void **buffers;
  size_t n, made, capacity;
} free_list;

struct bl_pool {
  bl_backend *backend;
  free_list lists[CLASSES];
};

static size_t class_bytes(int32_t size_class) {
  return (size_t)(STEPS + size_class % STEPS) * (SMALLEST / STEPS) << (size_class / STEPS);
}

/* The smallest class that holds `bytes`. */
static int32_t class_of(size_t bytes) {
  int32_t size_class = 0;
  while (size_class < CLASSES - STEPS && class_bytes(size_class + STEPS) < bytes) size_class += STEPS;
  while (size_class < CLASSES - 1 && class_bytes(size_class) < bytes) size_class++;
  return size_class;
}

bl_status bl_pool_create(bl_backend *backend, bl_pool **out) {
  BL_TRY(bl_new(out, 1, sizeof **out, "buffer pool"));
  (*out)->backend = backend;
  return BL_OK;
}

void bl_pool_free(bl_pool *pool) {
  if (!pool) return;
  for (int32_t c = 0; c < CLASSES; c++) {
    for (size_t i = 0; i < pool->lists[c].n; i++) pool->backend->release(pool->backend, pool->lists[c].buffers[i]);
    free(pool->lists[c].buffers);
  }
  free(pool);
}

bl_status bl_pool_take(bl_pool *pool, size_t bytes, bl_chunk *out) {
  const int32_t size_class = class_of(bytes);
  free_list *list = &pool->lists[size_class];
  if (list->n) {
    *out = (bl_chunk){list->buffers[--list->n], size_class};
    return BL_OK;
  }
  /* Room to give it back is made here, so that giving back cannot fail. */
  BL_TRY(bl_grow(&list->buffers, &list->capacity, list->made + 1, sizeof *list->buffers, "buffer pool"));
  list->made++;
  void *data = NULL;
  BL_TRY(pool->backend->alloc(pool->backend, class_bytes(size_class), &data));
  *out = (bl_chunk){data, size_class};
  return BL_OK;
}

void bl_pool_give(bl_pool *pool, bl_chunk *buffer) {
  if (!buffer->data) return;
  free_list *list = &pool->lists[buffer->size_class];
  list->buffers[list->n++] = buffer->data;
  *buffer = (bl_chunk){0};
}
