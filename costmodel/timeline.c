/* timeline.c - a simulation as Chrome trace JSON, which ui.perfetto.dev opens. */
#include "base/file.h"
#include "base/json.h"
#include "costmodel/simulate.h"
#include <stdio.h>

static void text(bl_json_writer *w, const char *key, const char *value) {
  bl_json_key(w, key);
  bl_json_write_string(w, value);
}

static void integer(bl_json_writer *w, const char *key, int64_t value) {
  bl_json_key(w, key);
  bl_json_write_int(w, value);
}

/* Names a process (a rank) or a track (a resource). */
static void write_name(bl_json_writer *w, const char *what, int32_t pid, int32_t tid, const char *name) {
  bl_json_begin_flat_object(w);
  text(w, "name", what);
  text(w, "ph", "M");
  integer(w, "pid", pid);
  integer(w, "tid", tid);
  bl_json_key(w, "args");
  bl_json_begin_flat_object(w);
  text(w, "name", name);
  bl_json_end_object(w);
  bl_json_end_object(w);
}

static void write_slice(bl_json_writer *w, const char *name, int32_t rank, const bl_action *action, double from_us,
                        double to_us) {
  bl_json_begin_flat_object(w);
  text(w, "name", name);
  text(w, "ph", "X");
  bl_json_key(w, "ts");
  bl_json_write_number(w, from_us);
  bl_json_key(w, "dur");
  bl_json_write_number(w, to_us - from_us);
  integer(w, "pid", rank);
  integer(w, "tid", action->resource);
  bl_json_key(w, "args");
  bl_json_begin_flat_object(w);
  if (action->layer >= 0) integer(w, "layer", action->layer);
  if (action->micro_batch >= 0) integer(w, "micro_batch", action->micro_batch);
  if (action->pieces > 1) integer(w, "piece", action->piece);
  bl_json_end_object(w);
  bl_json_end_object(w);
}

static void write_rank(bl_json_writer *w, const bl_step *step, const bl_simulation *s, int32_t rank) {
  char name[32];
  bool used[BL_RESOURCE_COUNT] = {false};
  snprintf(name, sizeof name, "rank %d", rank);
  write_name(w, "process_name", rank, 0, name);
  for (int32_t i = 0; i < step->n_actions; i++) {
    const bl_action *action = &step->actions[step->order[i]];
    const bl_span *span = &s->spans[(size_t)rank * (size_t)s->n_actions + (size_t)step->order[i]];
    if (!used[action->resource])
      write_name(w, "thread_name", rank, (int32_t)action->resource, bl_resource_names[action->resource]);
    used[action->resource] = true;
    if (span->start_us > span->ready_us) write_slice(w, "wait", rank, action, span->ready_us, span->start_us);
    if (span->end_us > span->start_us)
      write_slice(w, bl_action_names[action->kind], rank, action, span->start_us, span->end_us);
  }
}

bl_status bl_timeline_write(const char *path, const bl_step *step, const bl_simulation *simulation) {
  bl_output *output;
  bl_json_writer w;
  BL_TRY(bl_output_open(path, &output));
  bl_json_writer_init(&w, bl_output_stream(output), true);
  bl_json_begin_object(&w);
  text(&w, "displayTimeUnit", "ms");
  bl_json_key(&w, "traceEvents");
  bl_json_begin_array(&w);
  for (int32_t rank = 0; rank < simulation->ranks; rank++) write_rank(&w, step, simulation, rank);
  bl_json_end_array(&w);
  bl_json_end_object(&w);
  bl_json_newline(&w);
  return bl_output_commit(output);
}
