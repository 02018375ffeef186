/* One line a (step, layer): what was in force, and what had been decided from earlier steps alone. */
#include "base/json.h"
#include "planner/policy_state.h"

/* Slots in canonical order: by rank, then by expert, so that the order of the search does not show. */
static int32_t next_copy(const bl_hosts *hosts, int32_t *rank, int32_t *expert) {
  int32_t best = -1;
  for (int32_t s = 0; s < hosts->n_copy_slots; ++s) {
    const int32_t r = hosts->copy_rank[s], e = hosts->copy_expert[s];
    if (e < 0 || r < *rank || (r == *rank && e <= *expert)) continue;
    if (best >= 0 && r > hosts->copy_rank[best]) break; /* slots come by ascending rank */
    if (best < 0 || e < hosts->copy_expert[best]) best = s;
  }
  if (best >= 0) {
    *rank = hosts->copy_rank[best];
    *expert = hosts->copy_expert[best];
  }
  return best;
}

static void write_home(bl_json_writer *w, const bl_hosts *hosts) {
  bl_json_key(w, "home");
  bl_json_begin_flat_array(w);
  for (int32_t e = 0; e < hosts->experts; ++e) bl_json_write_int(w, hosts->home[e]);
  bl_json_end_array(w);
}

static void write_in_force(bl_json_writer *w, const bl_policy_layer *layer) {
  const bl_hosts *hosts = &layer->hosts;
  bl_json_key(w, "copies");
  bl_json_begin_flat_array(w);
  for (int32_t rank = -1, expert = -1, s; (s = next_copy(hosts, &rank, &expert)) >= 0;) {
    bl_json_begin_flat_object(w);
    bl_json_put_int(w, "expert", expert);
    bl_json_put_int(w, "rank", rank);
    bl_json_put_number(w, "share", layer->counts[expert] > 0 ? layer->taken[s] / layer->counts[expert] : 0);
    bl_json_end_object(w);
  }
  bl_json_end_array(w);
}

static void write_planned(bl_json_writer *w, const bl_hosts *hosts) {
  bl_json_key(w, "planned");
  bl_json_begin_flat_object(w);
  write_home(w, hosts);
  bl_json_key(w, "copies");
  bl_json_begin_flat_array(w);
  for (int32_t rank = -1, expert = -1; next_copy(hosts, &rank, &expert) >= 0;) {
    bl_json_begin_flat_array(w);
    bl_json_write_int(w, expert);
    bl_json_write_int(w, rank);
    bl_json_end_array(w);
  }
  bl_json_end_array(w);
  bl_json_end_object(w);
}

void bl_policy_write_dump(const bl_policy *p) {
  bl_json_writer w;
  for (int32_t l = 0; l < p->layers; ++l) {
    const bl_policy_layer *layer = &p->layer[l];
    bl_json_writer_init(&w, p->dump, false);
    bl_json_begin_object(&w);
    bl_json_put_int(&w, "step", p->iteration);
    bl_json_put_int(&w, "layer", p->layer_id[l]);
    write_home(&w, &layer->hosts);
    write_in_force(&w, layer);
    bl_json_put_bool(&w, "late", layer->report.late);
    write_planned(&w, &layer->planned);
    bl_json_end_object(&w);
    bl_json_newline(&w);
  }
}
