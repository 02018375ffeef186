/* memory.c - allocation that reports instead of crashing, and an arena of doubling blocks. */
#include "base/memory.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { ARENA_ALIGN = 64 };
static const size_t ARENA_FIRST_BLOCK = (size_t)64 << 10;

static bool product_overflows(size_t a, size_t b) { return b != 0 && a > SIZE_MAX / b; }

static size_t at_least_one(size_t bytes) { return bytes ? bytes : 1; }

static bl_status out_of_memory(size_t count, size_t size, const char *what) {
  if (product_overflows(count, size)) {
    return bl_fail(BL_EMACHINE, "out of memory: %zu elements of %zu bytes for %s", count, size, what);
  }
  return bl_fail(BL_EMACHINE, "out of memory: %zu bytes for %s", count * size, what);
}

bl_status bl_new(void *out_pointer, size_t count, size_t size, const char *what) {
  void *memory = NULL;
  if (!product_overflows(count, size)) memory = calloc(at_least_one(count * size), 1);
  if (!memory) return out_of_memory(count, size, what);
  memcpy(out_pointer, &memory, sizeof memory);
  return BL_OK;
}

bl_status bl_grow(void *array_pointer, size_t *capacity, size_t need, size_t size, const char *what) {
  if (need <= *capacity) return BL_OK;
  size_t wanted = *capacity > SIZE_MAX / 2 ? need : *capacity * 2;
  if (wanted < need) wanted = need;
  if (wanted < 8) wanted = 8;
  if (product_overflows(wanted, size)) wanted = need;
  void *memory = NULL;
  memcpy(&memory, array_pointer, sizeof memory);
  void *larger = product_overflows(wanted, size) ? NULL : realloc(memory, at_least_one(wanted * size));
  if (!larger) return out_of_memory(need, size, what);
  memcpy(array_pointer, &larger, sizeof larger);
  *capacity = wanted;
  return BL_OK;
}

typedef struct block {
  struct block *next; /* filled in the order of the list */
  unsigned char *bytes;
  size_t size, used;
} block;

struct bl_arena {
  block *first, *current;
  size_t held;
};

bl_status bl_arena_create(bl_arena **out) { return bl_new(out, 1, sizeof **out, "an arena"); }

void bl_arena_free(bl_arena *arena) {
  if (!arena) return;
  for (block *b = arena->first; b;) {
    block *next = b->next;
    free(b->bytes);
    free(b);
    b = next;
  }
  free(arena);
}

static size_t align_up(size_t n) { return (n + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN; }

/* A new block behind the current one; blocks left from before a reset that are too small stay in the list, unused. */
static bl_status add_block(bl_arena *arena, size_t need) {
  size_t size = arena->current ? arena->current->size : ARENA_FIRST_BLOCK / 2;
  size = size > SIZE_MAX / 4 ? need : size * 2;
  if (size < need) size = need;
  block *b = NULL;
  BL_TRY(bl_new(&b, 1, sizeof *b, "an arena block"));
  b->bytes = aligned_alloc(ARENA_ALIGN, size);
  if (!b->bytes) {
    free(b);
    return out_of_memory(size, 1, "an arena block");
  }
  b->size = size;
  arena->held += size;
  block **link = arena->current ? &arena->current->next : &arena->first;
  b->next = *link;
  *link = b;
  arena->current = b;
  return BL_OK;
}

bl_status bl_arena_take(bl_arena *arena, void *out_pointer, size_t count, size_t size) {
  if (product_overflows(count, size) || count * size > SIZE_MAX / 4) return out_of_memory(count, size, "an arena");
  const size_t bytes = count * size, need = align_up(at_least_one(bytes));
  while (!arena->current || arena->current->size - arena->current->used < need) {
    if (arena->current && arena->current->next) {
      arena->current = arena->current->next;
    } else {
      BL_TRY(add_block(arena, need));
    }
  }
  void *memory = arena->current->bytes + arena->current->used;
  arena->current->used += need;
  memset(memory, 0, bytes);
  memcpy(out_pointer, &memory, sizeof memory);
  return BL_OK;
}

void bl_arena_reset(bl_arena *arena) {
  for (block *b = arena->first; b; b = b->next) b->used = 0;
  arena->current = arena->first;
}

size_t bl_arena_bytes(const bl_arena *arena) { return arena->held; }
