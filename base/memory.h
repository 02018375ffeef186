/* memory.h - allocation that reports instead of crashing, and an arena.
 *
 * bl_new(): overflow-checked, zeroed; frees with free(). The arena: one owner, freed as a whole. */
#ifndef BL_BASE_MEMORY_H
#define BL_BASE_MEMORY_H

#include "base/status.h"
#include <stddef.h>
#include <stdlib.h>

/*! bl_new() : `count` zeroed elements of `size` bytes at `*out` (never NULL on success, also for count 0).
 *  The caller frees with free().  @return : BL_OK, or BL_EMACHINE ("out of memory: N bytes for WHAT"). */
bl_status bl_new(void *out_pointer, size_t count, size_t size, const char *what);

/*! bl_grow() : makes room for at least `need` elements of `size` bytes in the array at `*array_pointer` with capacity
 *  `*capacity` (elements), doubling; old contents stay, new ones are not zeroed. Start with NULL and 0. */
bl_status bl_grow(void *array_pointer, size_t *capacity, size_t need, size_t size, const char *what);

/* An arena: many allocations, 64-byte aligned, zeroed, one free. Pointers stay valid until reset or free.
 * Not shared between threads. */
typedef struct bl_arena bl_arena;

bl_status bl_arena_create(bl_arena **out);
void bl_arena_free(bl_arena *arena); /* NULL is fine */

/*! bl_arena_take() : `count` zeroed elements of `size` bytes.  @return : BL_OK or BL_EMACHINE. */
bl_status bl_arena_take(bl_arena *arena, void *out_pointer, size_t count, size_t size);

/*! bl_arena_reset() : everything taken so far becomes invalid; the memory is kept for reuse. */
void bl_arena_reset(bl_arena *arena);

/*! bl_arena_bytes() : bytes held from the system. */
size_t bl_arena_bytes(const bl_arena *arena);

#endif
