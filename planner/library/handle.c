/* handle.c - opening the library, and what its calls have in common: sentences, sizes of structures, shapes. */
#include "planner/library/handle.h"
#include "base/memory.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

ballast_status ballast_open(int32_t major, ballast **out) {
  if (out == NULL) return BALLAST_INVALID;
  *out = NULL;
  if (major != BALLAST_VERSION_MAJOR) return BALLAST_VERSION;
  return bl_new(out, 1, sizeof **out, "a handle") == BL_OK ? BALLAST_OK : BALLAST_MACHINE;
}

void ballast_close(ballast *handle) { free(handle); }

const char *ballast_message(const ballast *handle) { return handle ? handle->text : "the handle is NULL"; }

#define TEXT_OF(x) #x
#define VERSION_TEXT(major, minor) TEXT_OF(major) "." TEXT_OF(minor)

const char *ballast_version(void) { return VERSION_TEXT(BALLAST_VERSION_MAJOR, BALLAST_VERSION_MINOR); }

ballast_status bl_library_end(ballast *handle, bl_status status) {
  if (handle) {
    const char *text = *bl_error_text() ? bl_error_text() : bl_status_meaning(status);
    snprintf(handle->text, sizeof handle->text, "%s", status == BL_OK ? "" : text);
  }
  bl_error_clear();
  switch (status) {
  case BL_OK:
    return BALLAST_OK;
  case BL_EMACHINE:
  case BL_ECOMM:
    return BALLAST_MACHINE;
  case BL_EINTERRUPTED:
    return BALLAST_DEADLINE;
  default:
    return BALLAST_INVALID;
  }
}

bl_status bl_library_options(const void *given, void *own, uint64_t size, const char *what) {
  uint64_t bytes = 0;
  if (given == NULL) return bl_fail(BL_EINPUT, "%s: NULL, expected a structure", what);
  memcpy(&bytes, given, sizeof bytes);
  if (bytes < sizeof bytes || bytes > 65536)
    return bl_fail(BL_EINPUT, "%s: its member bytes is %llu, expected its sizeof", what, (unsigned long long)bytes);
  for (uint64_t i = size; i < bytes; i++)
    if (((const char *)given)[i] != 0)
      return bl_fail(BL_EINPUT, "%s: has members that this version of the library (%s) does not know", what,
                     ballast_version());
  memcpy(own, given, bytes < size ? bytes : size);
  return BL_OK;
}

/* -- shapes -------------------------------------------------------------------------------------------------------- */

static bl_status copy_array(void *out_pointer, const void *from, size_t n, size_t size) {
  BL_TRY(bl_new(out_pointer, n, size, "a shape"));
  memcpy(*(void **)out_pointer, from, n * size);
  return BL_OK;
}

static bl_status take_slots(const ballast_shape *s, bl_library_shape *out) {
  const size_t ranks = (size_t)s->ranks;
  const int32_t each = (s->experts + s->ranks - 1) / s->ranks;
  int64_t all = 0;
  BL_TRY(bl_new(&out->slots, ranks, sizeof *out->slots, "a shape"));
  BL_TRY(bl_new(&out->first, ranks + 1, sizeof *out->first, "a shape"));
  for (size_t r = 0; r < ranks; r++) {
    out->slots[r] = s->slots ? s->slots[r] : each < s->experts ? each + 1 : s->experts;
    if (out->slots[r] < 0 || out->slots[r] > s->experts)
      return bl_fail(BL_EINPUT, "rank %zu has %d slots: expected 0 to %d, the number of experts", r, out->slots[r],
                     s->experts);
    all += out->slots[r];
    if (all > INT32_MAX / 4) return bl_fail(BL_EINPUT, "more than %d slots are too many", INT32_MAX / 4);
    out->first[r + 1] = (int32_t)all;
  }
  if (all < s->experts)
    return bl_fail(BL_EINPUT, "%lld slots on %d ranks cannot hold %d experts", (long long)all, s->ranks, s->experts);
  return BL_OK;
}

static bl_status check_shape(const ballast_shape *s) {
  if (s->layers < 1 || s->layers > 65536)
    return bl_fail(BL_EINPUT, "a shape of %d layers: expected 1 to 65536", s->layers);
  if (s->experts < 1 || s->experts > 65536)
    return bl_fail(BL_EINPUT, "a shape of %d experts: expected 1 to 65536", s->experts);
  if (s->ranks < 1 || s->ranks > s->experts)
    return bl_fail(BL_EINPUT, "%d ranks for %d experts: expected 1 to %d", s->ranks, s->experts, s->experts);
  for (int32_t r = 0; s->speed && r < s->ranks; r++)
    if (!(s->speed[r] > 0 && s->speed[r] < 1e9))
      return bl_fail(BL_EINPUT, "rank %d has speed %g: expected a number above 0", r, s->speed[r]);
  const int64_t homes = s->home ? (int64_t)s->layers * s->experts : 0;
  for (int64_t i = 0; i < homes; i++)
    if (s->home[i] < 0 || s->home[i] >= s->ranks)
      return bl_fail(BL_EINPUT, "layer %lld, expert %lld: home %d, expected 0 to %d", (long long)(i / s->experts),
                     (long long)(i % s->experts), s->home[i], s->ranks - 1);
  return BL_OK;
}

bl_status bl_library_shape_take(const ballast_shape *given, bl_library_shape *out) {
  ballast_shape s = {0};
  memset(out, 0, sizeof *out);
  BL_TRY(bl_library_options(given, &s, sizeof s, "the shape"));
  BL_TRY(check_shape(&s));
  out->layers = s.layers;
  out->experts = s.experts;
  out->ranks = s.ranks;
  bl_status status = take_slots(&s, out);
  if (status == BL_OK && s.speed) status = copy_array(&out->speed, s.speed, (size_t)s.ranks, sizeof *s.speed);
  if (status == BL_OK && s.home)
    status = copy_array(&out->home, s.home, (size_t)s.layers * (size_t)s.experts, sizeof *s.home);
  if (status != BL_OK) bl_library_shape_free(out);
  return status;
}

void bl_library_shape_free(bl_library_shape *shape) {
  free(shape->slots);
  free(shape->first);
  free(shape->speed);
  free(shape->home);
  memset(shape, 0, sizeof *shape);
}

bl_status bl_library_check_loads(const double *loads, int32_t layers, int32_t experts) {
  if (loads == NULL) return bl_fail(BL_EINPUT, "the loads are NULL, expected an array");
  for (int64_t i = 0; i < (int64_t)layers * experts; i++)
    if (!(loads[i] >= 0 && loads[i] < 1e18))
      return bl_fail(BL_EINPUT, "layer %lld, expert %lld: load %g, expected a number from 0 to 1e18",
                     (long long)(i / experts), (long long)(i % experts), loads[i]);
  return BL_OK;
}
