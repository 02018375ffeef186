/* measured.c - files of measured calls. */
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "costmodel/layer_calls.h"
#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

static const uint64_t max_bytes = 256 << 20;
enum { MAX_CALLS = 1 << 22 };
static const double max_ms = 1e12;

void bl_measured_free(bl_measured_calls *m) {
  free(m->steps);
  free(m->layers);
  free(m->measured_us);
  free(m->estimated_us);
  memset(m, 0, sizeof *m);
}

void bl_measured_keep(bl_measured_calls *m, const bool *keep) {
  int32_t kept = 0;
  for (int32_t i = 0; i < m->n; i++) {
    if (!keep[i]) continue;
    m->steps[kept] = m->steps[i];
    m->layers[kept] = m->layers[i];
    m->measured_us[kept] = m->measured_us[i];
    if (m->estimated_us) m->estimated_us[kept] = m->estimated_us[i];
    kept++;
  }
  m->n = kept;
}

static bl_status allocate(bl_measured_calls *m, int64_t n, bool estimated) {
  BL_TRY(bl_new(&m->steps, (size_t)n, sizeof *m->steps, "measured calls"));
  BL_TRY(bl_new(&m->layers, (size_t)n, sizeof *m->layers, "measured calls"));
  BL_TRY(bl_new(&m->measured_us, (size_t)n, sizeof *m->measured_us, "measured calls"));
  if (estimated) BL_TRY(bl_new(&m->estimated_us, (size_t)n, sizeof *m->estimated_us, "measured calls"));
  return BL_OK;
}

static const char heading[] = "step,layer,measured_ms", estimated_heading[] = "step,layer,measured_ms,estimated_ms";

/* A number at *at, which must end at `end`; *at moves behind that. No blanks, no hexadecimal, no inf. */
static bool field(const char **at, char end, double min, double max, double *out) {
  char *after;
  if (!isdigit((unsigned char)**at) && **at != '.') return false;
  *out = strtod(*at, &after);
  if (*after == '\r' && end == '\n') after++;
  if (memchr(*at, 'x', (size_t)(after - *at)) || (*after != end && !(end == '\n' && *after == '\0'))) return false;
  *at = *after ? after + 1 : after;
  return *out >= min && *out <= max;
}

static bl_status read_csv(const char *path, const char *text, bl_measured_calls *m) {
  const size_t length = strcspn(text, "\r\n");
  const bool estimated = length == strlen(estimated_heading) && strncmp(text, estimated_heading, length) == 0;
  int64_t lines = 0;
  if (!estimated && (length != strlen(heading) || strncmp(text, heading, length) != 0))
    return bl_fail(BL_EINPUT, "%s:1: expected the heading %s or %s", path, heading, estimated_heading);
  const char *at = strchr(text, '\n');
  for (const char *c = text; *c; c++) lines += *c == '\n';
  if (lines > MAX_CALLS) return bl_fail(BL_EINPUT, "%s: expected at most %d calls", path, MAX_CALLS);
  BL_TRY(allocate(m, lines + 1, estimated));
  for (at = at ? at + 1 : ""; *at; m->n++) {
    double step, layer, ms, estimate = 0;
    if (!field(&at, ',', 0, 1e15, &step) || !field(&at, ',', 0, BL_TRACE_MAX_LAYERS, &layer) || step != floor(step) ||
        layer != floor(layer) || !field(&at, estimated ? ',' : '\n', 1e-9, max_ms, &ms) ||
        (estimated && !field(&at, '\n', 1e-9, max_ms, &estimate)))
      return bl_fail(BL_EINPUT, "%s:%d: expected %s, with whole numbers and times in ms greater than 0", path, m->n + 2,
                     estimated ? estimated_heading : heading);
    m->steps[m->n] = (int64_t)step;
    m->layers[m->n] = (int32_t)layer;
    m->measured_us[m->n] = ms * 1e3;
    if (estimated) m->estimated_us[m->n] = estimate * 1e3;
  }
  return BL_OK;
}

static bl_status read_times(bl_json list, int64_t n, double *us) {
  bl_json value = bl_json_first(list);
  for (int64_t i = 0; i < n; i++, value = bl_json_next(value)) {
    BL_TRY(bl_json_as_number(value, 1e-9, max_ms, &us[i]));
    us[i] *= 1e3;
  }
  return BL_OK;
}

static bl_status read_lists(bl_json root, const bl_call_grid *grid, bl_measured_calls *m) {
  bl_json real, est;
  int64_t n, n_est;
  const bool estimated = bl_json_has(root, "est");
  BL_TRY(bl_json_keys(root, "real est"));
  BL_TRY(bl_json_array(root, "real", 1, MAX_CALLS, &real, &n));
  BL_TRY(allocate(m, n, estimated));
  BL_TRY(read_times(real, n, m->measured_us));
  if (estimated) {
    BL_TRY(bl_json_array(root, "est", n, n, &est, &n_est));
    BL_TRY(read_times(est, n, m->estimated_us));
  }
  if (n % grid->layers != 0)
    return bl_json_fail(real, "expected a time for each of %d layers of every iteration, found %" PRId64 " times",
                        grid->layers, n);
  if (grid->first > INT64_MAX / 2 || grid->stride > INT64_MAX / 2 / n)
    return bl_json_fail(real, "%" PRId64 " times from iteration %" PRId64 " on, %" PRId64 " apart, are too far", n,
                        grid->first, grid->stride);
  for (int64_t i = 0; i < n; i++) {
    m->steps[i] = grid->first + i / grid->layers * grid->stride;
    m->layers[i] = (int32_t)(i % grid->layers);
  }
  m->n = (int32_t)n;
  return BL_OK;
}

static bl_status read_json(const char *path, char *text, uint64_t size, const bl_call_grid *grid,
                           bl_measured_calls *m) {
  bl_json_doc *doc;
  bl_json root;
  double aside;
  const char *at = text;
  /* Blanks in its place keep the line numbers of messages right. */
  if (field(&at, '\n', 0, max_ms, &aside) && *at) memset(text, ' ', (size_t)(at - text - 1));
  BL_TRY(bl_json_parse(path, text, size, &doc, &root));
  const bl_status status = read_lists(root, grid, m);
  bl_json_free(doc);
  return status;
}

bl_status bl_measured_load(const char *path, const bl_call_grid *grid, bl_measured_calls *out) {
  char *text;
  uint64_t size;
  memset(out, 0, sizeof *out);
  BL_TRY(bl_file_read(path, max_bytes, &text, &size));
  const bool json = isdigit((unsigned char)*text) || *text == '{';
  bl_status status;
  if (!json && memchr(text, '\0', size))
    status = bl_fail(BL_EINPUT, "%s: expected text, found a NUL byte", path);
  else
    status = json ? read_json(path, text, size, grid, out) : read_csv(path, text, out);
  if (status == BL_OK && out->n == 0) status = bl_fail(BL_EINPUT, "%s: has no calls", path);
  free(text);
  if (status != BL_OK) bl_measured_free(out);
  return status;
}
