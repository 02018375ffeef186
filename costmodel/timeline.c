/* timeline.c - times of a step as Chrome trace JSON, which ui.perfetto.dev opens. */
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "costmodel/simulate.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Names a process (a rank) or a track (a resource). */
static void write_name(bl_json_writer *w, const char *what, int32_t pid, int32_t tid, const char *name) {
  bl_json_begin_flat_object(w);
  bl_json_put_string(w, "name", what);
  bl_json_put_string(w, "ph", "M");
  bl_json_put_int(w, "pid", pid);
  bl_json_put_int(w, "tid", tid);
  bl_json_key(w, "args");
  bl_json_begin_flat_object(w);
  bl_json_put_string(w, "name", name);
  bl_json_end_object(w);
  bl_json_end_object(w);
}

static void write_slice(bl_json_writer *w, const char *name, int32_t pid, const bl_action *action, double from_us,
                        double to_us) {
  bl_json_begin_flat_object(w);
  bl_json_put_string(w, "name", name);
  bl_json_put_string(w, "ph", "X");
  bl_json_put_number(w, "ts", from_us);
  bl_json_put_number(w, "dur", to_us - from_us);
  bl_json_put_int(w, "pid", pid);
  bl_json_put_int(w, "tid", action->resource);
  bl_json_key(w, "args");
  bl_json_begin_flat_object(w);
  if (action->layer >= 0) bl_json_put_int(w, "layer", action->layer);
  if (action->micro_batch >= 0) bl_json_put_int(w, "micro_batch", action->micro_batch);
  if (action->pieces > 1) bl_json_put_int(w, "piece", action->piece);
  bl_json_end_object(w);
  bl_json_end_object(w);
}

static void write_rank(bl_json_writer *w, const bl_timeline *t, int32_t rank, int32_t pid) {
  const bl_step *step = t->step;
  char name[64];
  bool used[BL_RESOURCE_COUNT] = {false};
  snprintf(name, sizeof name, "rank %d %s", rank, t->name);
  write_name(w, "process_name", pid, 0, name);
  for (int32_t i = 0; i < step->n_actions; i++) {
    const bl_action *action = &step->actions[step->order[i]];
    const bl_span *span = &t->spans[(size_t)rank * (size_t)step->n_actions + (size_t)step->order[i]];
    if (!used[action->resource])
      write_name(w, "thread_name", pid, (int32_t)action->resource, bl_resource_names[action->resource]);
    used[action->resource] = true;
    if (span->start_us > span->ready_us) write_slice(w, "wait", pid, action, span->ready_us, span->start_us);
    if (span->end_us > span->start_us)
      write_slice(w, bl_action_names[action->kind], pid, action, span->start_us, span->end_us);
  }
}

bl_status bl_timeline_write(const char *path, int64_t number, const bl_timeline *timelines, int32_t n) {
  bl_output *output;
  bl_json_writer w;
  BL_TRY(bl_output_open(path, &output));
  bl_json_writer_init(&w, bl_output_stream(output), true);
  bl_json_begin_object(&w);
  bl_json_put_string(&w, "displayTimeUnit", "ms");
  bl_json_put_int(&w, "step", number);
  bl_json_key(&w, "traceEvents");
  bl_json_begin_array(&w);
  for (int32_t rank = 0; rank < timelines[0].ranks; rank++)
    for (int32_t i = 0; i < n; i++) write_rank(&w, &timelines[i], rank, rank * n + i);
  bl_json_end_array(&w);
  bl_json_end_object(&w);
  bl_json_newline(&w);
  return bl_output_commit(output);
}

/* -- reading a measured timeline -------------------------------------------------------------------------------------
 */

/* The action of a slice; every (kind, layer, micro-batch) occurs once in a program without pieces. */
static bl_status find_action(bl_json slice, const bl_step *step, int32_t *found) {
  const char *name;
  bl_json args;
  int64_t layer = -1, micro_batch = -1;
  BL_TRY(bl_json_string(slice, "name", &name));
  BL_TRY(bl_json_object(slice, "args", &args));
  BL_TRY(bl_json_keys(args, "layer micro_batch"));
  BL_TRY(bl_json_int_or(args, "layer", 0, INT32_MAX, &layer));
  BL_TRY(bl_json_int_or(args, "micro_batch", 0, INT32_MAX, &micro_batch));
  for (int32_t i = 0; i < step->n_actions; i++) {
    const bl_action *a = &step->actions[i];
    if (a->layer != layer || a->micro_batch != micro_batch || strcmp(bl_action_names[a->kind], name) != 0) continue;
    *found = i;
    return BL_OK;
  }
  return bl_json_fail(slice,
                      "expected an action of the program that is simulated, found %s of layer %lld, micro-batch %lld",
                      name, (long long)layer, (long long)micro_batch);
}

static bl_status read_slice(bl_json slice, const bl_step *step, int32_t ranks, bl_span *spans) {
  int64_t rank;
  int32_t action = 0;
  double from, us;
  BL_TRY(bl_json_keys(slice, "name ph ts dur pid tid args"));
  BL_TRY(find_action(slice, step, &action));
  BL_TRY(bl_json_int(slice, "pid", 0, ranks - 1, &rank));
  BL_TRY(bl_json_number(slice, "ts", 0, 1e15, &from));
  BL_TRY(bl_json_number(slice, "dur", 0, 1e15, &us));
  spans[rank * step->n_actions + action] = (bl_span){from, from, from + us};
  return BL_OK;
}

static bl_status read_events(bl_json root, const bl_step *step, int32_t ranks, int64_t *number, bl_span *spans) {
  bl_json events;
  int64_t n, slices = 0;
  BL_TRY(bl_json_keys(root, "displayTimeUnit step traceEvents"));
  BL_TRY(bl_json_int(root, "step", 0, INT64_MAX, number));
  BL_TRY(bl_json_array(root, "traceEvents", 1, INT32_MAX, &events, &n));
  for (bl_json event = bl_json_first(events); !bl_json_is_null(event); event = bl_json_next(event)) {
    const char *what;
    BL_TRY(bl_json_string(event, "ph", &what));
    if (strcmp(what, "X") != 0) continue; /* names */
    BL_TRY(read_slice(event, step, ranks, spans));
    slices++;
  }
  return slices > 0 ? BL_OK : bl_json_fail(events, "expected slices of actions, found none");
}

bl_status bl_timeline_read(const char *path, const bl_step *step, int32_t ranks, int64_t *number, bl_span **spans) {
  bl_json_doc *doc;
  bl_json root;
  *spans = NULL;
  BL_TRY(bl_json_load(path, &doc, &root));
  bl_status status = bl_new(spans, (size_t)ranks * (size_t)step->n_actions, sizeof **spans, "a timeline");
  if (status == BL_OK) status = read_events(root, step, ranks, number, *spans);
  bl_json_free(doc);
  if (status == BL_OK) return BL_OK;
  free(*spans);
  *spans = NULL;
  return status;
}
