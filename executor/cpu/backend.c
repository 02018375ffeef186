/* backend.c - memory, streams and events of the CPU backend. */
#include "executor/backend.h"
#include "executor/cpu/cpu.h"
#include "executor/cpu/gemm.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ALIGNMENT = 64 };

typedef struct cpu_backend {
  bl_backend base;
  size_t held, peak;
  char device[96];
} cpu_backend;

/* Stands in front of every allocation; a whole alignment unit, so that what follows is aligned too. */
typedef struct allocation {
  _Alignas(ALIGNMENT) size_t bytes;
} allocation;

struct bl_event {
  struct timespec at;
};

static bl_status cpu_alloc(bl_backend *be, size_t bytes, void *out_pointer) {
  cpu_backend *cpu = (cpu_backend *)be;
  if (bytes > SIZE_MAX / 2) return bl_fail(BL_EMACHINE, "out of memory: %zu bytes on the CPU backend", bytes);
  const size_t total = (sizeof(allocation) + bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  allocation *head = aligned_alloc(ALIGNMENT, total);
  if (!head) {
    return bl_fail(BL_EMACHINE, "out of memory: %zu bytes on the CPU backend, which holds %zu", bytes, cpu->held);
  }
  memset(head, 0, total);
  head->bytes = bytes;
  cpu->held += bytes;
  if (cpu->held > cpu->peak) cpu->peak = cpu->held;
  void *payload = head + 1;
  memcpy(out_pointer, &payload, sizeof payload);
  return BL_OK;
}

static void cpu_release(bl_backend *be, void *pointer) {
  if (!pointer) return;
  allocation *head = (allocation *)pointer - 1;
  ((cpu_backend *)be)->held -= head->bytes;
  free(head);
}

static size_t cpu_memory_peak(const bl_backend *be) { return ((const cpu_backend *)be)->peak; }

static void cpu_copy(bl_stream *s, void *to, const void *from, size_t bytes) {
  (void)s;
  if (bytes) memcpy(to, from, bytes);
}

static void cpu_zero(bl_stream *s, void *device, size_t bytes) {
  (void)s;
  if (bytes) memset(device, 0, bytes);
}

static void cpu_upload(bl_stream *s, const bl_host_part *parts, int32_t n, const void **device) {
  (void)s;
  for (int32_t i = 0; i < n; i++) device[i] = parts[i].data;
}

static bl_status cpu_stream_create(bl_backend *be, bl_stream **out) {
  bl_stream *s = calloc(1, sizeof *s);
  if (!s) return bl_fail(BL_EMACHINE, "out of memory: %zu bytes for a stream", sizeof *s);
  s->backend = be;
  *out = s;
  return BL_OK;
}

static void cpu_stream_destroy(bl_stream *s) {
  if (!s) return;
  cpu_release(s->backend, s->scratch);
  free(s);
}

static bl_status cpu_stream_sync(bl_stream *s) {
  const size_t failed = s->scratch_failed_bytes;
  if (!failed) return BL_OK;
  return bl_fail(BL_EMACHINE, "out of memory: %zu bytes of scratch for an operation of the CPU backend", failed);
}

float *bl_cpu_scratch(bl_stream *s, size_t count) {
  const size_t bytes = count * sizeof(float);
  if (bytes <= s->scratch_bytes) return s->scratch;
  cpu_release(s->backend, s->scratch);
  s->scratch = NULL;
  s->scratch_bytes = 0;
  if (cpu_alloc(s->backend, bytes, &s->scratch) != BL_OK) {
    s->scratch_failed_bytes = bytes;
    return NULL;
  }
  s->scratch_bytes = bytes;
  return s->scratch;
}

static bl_status cpu_event_create(bl_backend *be, bl_event **out) {
  (void)be;
  *out = calloc(1, sizeof **out);
  return *out ? BL_OK : bl_fail(BL_EMACHINE, "out of memory: %zu bytes for an event", sizeof **out);
}

static void cpu_event_destroy(bl_event *e) { free(e); }

static void cpu_event_record(bl_event *e, bl_stream *s) {
  (void)s;
  clock_gettime(CLOCK_MONOTONIC, &e->at);
}

/* All streams run in the caller's thread: what was recorded is done. */
static void cpu_event_wait(bl_stream *s, bl_event *e) {
  (void)s;
  (void)e;
}

static double cpu_event_us(const bl_event *from, const bl_event *to) {
  return 1e6 * (double)(to->at.tv_sec - from->at.tv_sec) + 1e-3 * (double)(to->at.tv_nsec - from->at.tv_nsec);
}

static void read_device_name(char *name, size_t size) {
  char line[512];
  FILE *f = fopen("/proc/cpuinfo", "r");
  snprintf(name, size, "unknown");
  while (f && fgets(line, sizeof line, f)) {
    const char *colon = strchr(line, ':');
    if (strncmp(line, "model name", 10) != 0 || !colon) continue;
    snprintf(name, size, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
    break;
  }
  if (f) fclose(f);
}

static void cpu_destroy(bl_backend *be) { free(be); }

bl_status bl_backend_cpu_create(bl_backend **out) {
  cpu_backend *cpu = calloc(1, sizeof *cpu);
  if (!cpu) return bl_fail(BL_EMACHINE, "out of memory: %zu bytes for the CPU backend", sizeof *cpu);
  bl_gemm_init();
  read_device_name(cpu->device, sizeof cpu->device);
  cpu->base = (bl_backend){
      .name = "cpu",
      .kernel = bl_gemm_kernel(),
      .device = cpu->device,
      .num_bytes = sizeof(float),
      .host_memory = true,
      .ops =
          {
#define BL_OP(name, args) .name = bl_cpu_##name,
#include "executor/ops.def"
#undef BL_OP
          },
      .alloc = cpu_alloc,
      .release = cpu_release,
      .memory_peak = cpu_memory_peak,
      .to_device = cpu_copy,
      .to_host = cpu_copy,
      .upload = cpu_upload,
      .copy = cpu_copy,
      .zero = cpu_zero,
      .stream_create = cpu_stream_create,
      .stream_destroy = cpu_stream_destroy,
      .stream_sync = cpu_stream_sync,
      .event_create = cpu_event_create,
      .event_destroy = cpu_event_destroy,
      .event_record = cpu_event_record,
      .event_stamp = cpu_event_record,
      .event_wait = cpu_event_wait,
      .event_us = cpu_event_us,
      .destroy = cpu_destroy,
  };
  *out = &cpu->base;
  return BL_OK;
}
