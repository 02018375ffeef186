/* import_megatron.c - Megatron-Core's router trace, read step by step from all ranks at once. */
#include "traces/import_megatron.h"
#include "base/memory.h"
#include "traces/megatron_line.h"
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Where the reading of one rank's file stands. */
typedef struct rank_file {
  int32_t rank;
  int32_t stage, index; /* pipeline stage; which of its ranks this is */
  int64_t line;         /* lines read */
  off_t offset;         /* of the next line */
} rank_file;

/* A layer by its number in the files, and who has it. */
typedef struct layer_place {
  int32_t number, stage;
} layer_place;

typedef struct pipeline_stage {
  int32_t layers, ranks;
} pipeline_stage;

struct bl_megatron {
  char *folder;
  rank_file *files; /* by rank */
  size_t n_files, file_capacity;
  int64_t *steps;
  size_t n_steps, step_capacity;
  layer_place *layers; /* by number */
  size_t n_layers, layer_capacity;
  pipeline_stage *stages;
  size_t n_stages, stage_capacity;
  int32_t *set; /* layers of one rank's first step, ascending */
  size_t n_set, set_capacity;
  bl_trace_shape shape;
  int64_t left_out;
  size_t next;     /* step to be read */
  int32_t *placed; /* [layers]: micro-batches of this step so far */
  bl_megatron_line line;
};

/* -- the folder ---------------------------------------------------------------------------------------------------- */

static bl_status note_file(bl_megatron *source, const char *name) {
  int32_t rank = -1;
  char again[64];
  if (strncmp(name, "router_trace_rank", 17) != 0) return BL_OK;
  if (sscanf(name, "router_trace_rank%9" SCNd32, &rank) != 1 || rank < 0 || rank >= BL_TRACE_MAX_RANKS) rank = -1;
  snprintf(again, sizeof again, "router_trace_rank%" PRId32 ".jsonl", rank);
  if (rank < 0 || strcmp(again, name) != 0)
    return bl_fail(BL_EINPUT, "%s/%s: expected a name like router_trace_rank0.jsonl, rank at most %d", source->folder,
                   name, BL_TRACE_MAX_RANKS - 1);
  BL_TRY(bl_grow(&source->files, &source->file_capacity, source->n_files + 1, sizeof *source->files, "files"));
  source->files[source->n_files++] = (rank_file){.rank = rank};
  return BL_OK;
}

static int by_rank(const void *a, const void *b) {
  const rank_file *x = a, *y = b;
  return (x->rank > y->rank) - (x->rank < y->rank);
}

static bl_status list_folder(bl_megatron *source) {
  DIR *listing = opendir(source->folder);
  bl_status status = BL_OK;
  if (listing == NULL) return bl_fail_errno(BL_EINPUT, "%s: cannot open the folder", source->folder);
  for (const struct dirent *entry = readdir(listing); entry != NULL && status == BL_OK; entry = readdir(listing))
    status = note_file(source, entry->d_name);
  closedir(listing);
  BL_TRY(status);
  if (source->n_files == 0) return bl_fail(BL_EINPUT, "%s: holds no file router_trace_rank<R>.jsonl", source->folder);
  qsort(source->files, source->n_files, sizeof *source->files, by_rank);
  return BL_OK;
}

static void name_of(const bl_megatron *source, const rank_file *file, char *name, size_t size) {
  snprintf(name, size, "%s/router_trace_rank%" PRId32 ".jsonl", source->folder, file->rank);
}

/* -- lines --------------------------------------------------------------------------------------------------------- */

/* The next line of `stream`, which stands where file->offset says.  @return : *more is false at the end. */
static bl_status next_record(bl_megatron *source, const rank_file *file, FILE *stream, bl_megatron_record *out,
                             bool *more) {
  char name[4096];
  name_of(source, file, name, sizeof name);
  return bl_megatron_read_line(&source->line, stream, name, file->line + 1, file->rank, out, more);
}

static bl_status open_file(const bl_megatron *source, const rank_file *file, FILE **stream) {
  char name[4096];
  name_of(source, file, name, sizeof name);
  *stream = fopen(name, "rbe");
  if (*stream == NULL) return bl_fail_errno(BL_EINPUT, "%s: cannot open", name);
  if (fseeko(*stream, file->offset, SEEK_SET) == 0) return BL_OK;
  fclose(*stream);
  return bl_fail_errno(BL_EINPUT, "%s: cannot read", name);
}

/* -- what there is ------------------------------------------------------------------------------------------------- */

static bl_status note_layer(bl_megatron *source, int64_t layer) {
  size_t at = 0;
  while (at < source->n_set && source->set[at] < layer) at++;
  if (at < source->n_set && source->set[at] == layer) return BL_OK;
  BL_TRY(bl_grow(&source->set, &source->set_capacity, source->n_set + 1, sizeof *source->set, "layers"));
  memmove(source->set + at + 1, source->set + at, (source->n_set++ - at) * sizeof *source->set);
  source->set[at] = (int32_t)layer;
  return BL_OK;
}

/* The layers of one rank's first step into source->set, and its lines. */
static bl_status read_first_step(bl_megatron *source, size_t index, int64_t *lines) {
  rank_file file = {.rank = source->files[index].rank};
  FILE *stream;
  bl_megatron_record r;
  bool more = true;
  int64_t step = -1;
  source->n_set = 0;
  *lines = 0;
  BL_TRY(open_file(source, &file, &stream));
  bl_status status = next_record(source, &file, stream, &r, &more);
  while (status == BL_OK && more && (r.left_out || step < 0 || r.step == step)) {
    if (!r.left_out) {
      step = r.step;
      ++*lines;
      status = note_layer(source, r.layer);
    }
    file.line++;
    if (status == BL_OK) status = next_record(source, &file, stream, &r, &more);
  }
  fclose(stream);
  return status;
}

static size_t find_layer(const bl_megatron *source, int32_t number) {
  size_t at = 0;
  while (at < source->n_layers && source->layers[at].number < number) at++;
  return at;
}

static bool is_layer(const bl_megatron *source, size_t at, int32_t number) {
  return at < source->n_layers && source->layers[at].number == number;
}

/* The stage whose layers are those of source->set: one that is known, or a new one where none of them is. */
static bl_status join_stage(bl_megatron *source, rank_file *file) {
  const size_t first = source->n_set > 0 ? find_layer(source, source->set[0]) : 0;
  const bool known = source->n_set > 0 && is_layer(source, first, source->set[0]);
  bool fits = source->n_set > 0;
  file->stage = known ? source->layers[first].stage : (int32_t)source->n_stages;
  for (size_t i = 0; i < source->n_set; i++) {
    const size_t at = find_layer(source, source->set[i]);
    const bool here = is_layer(source, at, source->set[i]);
    fits = fits && here == known && (!here || source->layers[at].stage == file->stage);
  }
  if (!fits || (known && source->stages[file->stage].layers != (int32_t)source->n_set))
    return bl_fail(BL_EINPUT,
                   "%s/router_trace_rank%" PRId32
                   ".jsonl: its first step has %zu layers, expected all of another rank's "
                   "or none of them",
                   source->folder, file->rank, source->n_set);
  if (!known) {
    BL_TRY(bl_grow(&source->stages, &source->stage_capacity, source->n_stages + 1, sizeof *source->stages, "stages"));
    source->stages[source->n_stages++] = (pipeline_stage){.layers = (int32_t)source->n_set};
  }
  for (size_t i = 0; i < source->n_set && !known; i++) {
    const size_t at = find_layer(source, source->set[i]);
    BL_TRY(bl_grow(&source->layers, &source->layer_capacity, source->n_layers + 1, sizeof *source->layers, "layers"));
    memmove(source->layers + at + 1, source->layers + at, (source->n_layers++ - at) * sizeof *source->layers);
    source->layers[at] = (layer_place){source->set[i], file->stage};
  }
  file->index = source->stages[file->stage].ranks++;
  return BL_OK;
}

static bl_status note_step(bl_megatron *source, const rank_file *file, int64_t line, int64_t step) {
  if (source->n_steps > 0 && step == source->steps[source->n_steps - 1]) return BL_OK;
  if (source->n_steps > 0 && step < source->steps[source->n_steps - 1])
    return bl_fail(BL_EINPUT,
                   "%s/router_trace_rank%" PRId32 ".jsonl:%" PRId64 ": step %" PRId64 " after step %" PRId64
                   ", expected ascending steps",
                   source->folder, file->rank, line, step, source->steps[source->n_steps - 1]);
  BL_TRY(bl_grow(&source->steps, &source->step_capacity, source->n_steps + 1, sizeof *source->steps, "steps"));
  source->steps[source->n_steps++] = step;
  return BL_OK;
}

/* The steps of the lowest rank's file. */
static bl_status list_steps(bl_megatron *source, FILE *stream) {
  rank_file file = {.rank = source->files[0].rank};
  for (;; file.line++) {
    bl_megatron_record r;
    bool more;
    BL_TRY(next_record(source, &file, stream, &r, &more));
    if (!more) break;
    source->left_out += r.left_out;
    if (!r.left_out) BL_TRY(note_step(source, &file, file.line + 1, r.step));
  }
  if (source->n_steps > 0) return BL_OK;
  return bl_fail(BL_EINPUT, "%s/router_trace_rank%" PRId32 ".jsonl: holds no step", source->folder, file.rank);
}

/* Who has which layers, and how many micro-batches the lowest rank's first step has. */
static bl_status list_stages(bl_megatron *source) {
  for (size_t i = 0; i < source->n_files; i++) {
    int64_t lines;
    BL_TRY(read_first_step(source, i, &lines));
    BL_TRY(join_stage(source, &source->files[i]));
    if (i > 0) continue;
    const int64_t layers = (int64_t)source->n_set;
    source->shape.micro_batches = lines / layers < INT32_MAX ? (int32_t)(lines / layers) : INT32_MAX;
    if (lines % layers != 0)
      return bl_fail(BL_EINPUT,
                     "%s/router_trace_rank%" PRId32 ".jsonl: step %" PRId64 " has %" PRId64 " lines for %" PRId64
                     " layers, expected as many micro-batches of every layer",
                     source->folder, source->files[0].rank, source->steps[0], lines, layers);
  }
  for (size_t s = 1; s < source->n_stages; s++)
    if (source->stages[s].ranks != source->stages[0].ranks)
      return bl_fail(BL_EINPUT, "%s: pipeline stages of %" PRId32 " and of %" PRId32 " ranks, expected as many of each",
                     source->folder, source->stages[0].ranks, source->stages[s].ranks);
  return BL_OK;
}

static bl_status survey(bl_megatron *source) {
  FILE *stream;
  BL_TRY(open_file(source, &source->files[0], &stream));
  const bl_status status = list_steps(source, stream);
  fclose(stream);
  BL_TRY(status);
  BL_TRY(list_stages(source));
  if (source->n_layers > BL_TRACE_MAX_LAYERS)
    return bl_fail(BL_EINPUT, "%s: more than %d layers", source->folder, BL_TRACE_MAX_LAYERS);
  source->shape.layers = (int32_t)source->n_layers;
  source->shape.ranks = source->stages[0].ranks;
  BL_TRY(bl_trace_shape_check(&source->shape, source->folder));
  return bl_new(&source->placed, source->n_layers, sizeof *source->placed, "layers");
}

bl_status bl_megatron_open(const char *folder, int32_t experts, bl_megatron **out) {
  bl_megatron *source = NULL;
  bl_status status;
  *out = NULL;
  BL_TRY(bl_new(&source, 1, sizeof *source, "a folder of traces"));
  source->shape = (bl_trace_shape){1, 1, 1, experts, .live = true};
  source->folder = strdup(folder);
  status = source->folder ? BL_OK : bl_fail(BL_EMACHINE, "out of memory: a path");
  if (status == BL_OK) status = bl_trace_shape_check(&source->shape, folder);
  if (status == BL_OK) status = bl_megatron_line_create(&source->line, experts);
  if (status == BL_OK) status = list_folder(source);
  if (status == BL_OK) status = survey(source);
  if (status == BL_OK)
    *out = source;
  else
    bl_megatron_close(source);
  return status;
}

void bl_megatron_close(bl_megatron *source) {
  if (source == NULL) return;
  free(source->folder);
  free(source->files);
  free(source->steps);
  free(source->layers);
  free(source->stages);
  free(source->set);
  free(source->placed);
  bl_megatron_line_free(&source->line);
  free(source);
}

const bl_trace_shape *bl_megatron_shape_of(const bl_megatron *source) { return &source->shape; }
int32_t bl_megatron_steps(const bl_megatron *source) { return (int32_t)source->n_steps; }
int64_t bl_megatron_iteration(const bl_megatron *source, int32_t index) { return source->steps[index]; }
int32_t bl_megatron_stages(const bl_megatron *source) { return (int32_t)source->n_stages; }
int32_t bl_megatron_files(const bl_megatron *source) { return (int32_t)source->n_files; }
int32_t bl_megatron_rank(const bl_megatron *source, int32_t index) { return source->files[index].rank; }
int32_t bl_megatron_layer(const bl_megatron *source, int32_t index) { return source->layers[index].number; }
int64_t bl_megatron_left_out(const bl_megatron *source) { return source->left_out; }

/* -- a step -------------------------------------------------------------------------------------------------------- */

/* The row of a line to its place among counts[layers][ranks][micro_batches][experts]. */
static bl_status place_row(bl_megatron *source, const rank_file *file, const char *where, const bl_megatron_record *r,
                           uint32_t *counts) {
  const bl_trace_shape *s = &source->shape;
  const size_t layer = find_layer(source, (int32_t)r->layer);
  if (!is_layer(source, layer, (int32_t)r->layer) || source->layers[layer].stage != file->stage)
    return bl_fail(BL_EINPUT, "%s: layer %" PRId64 ", which the first step of this rank has not", where, r->layer);
  if (source->placed[layer] == s->micro_batches)
    return bl_fail(BL_EINPUT, "%s: step %" PRId64 ", layer %" PRId64 ": more than %" PRId32 " micro-batches", where,
                   r->step, r->layer, s->micro_batches);
  const size_t row =
      (layer * (size_t)s->ranks + (size_t)file->index) * (size_t)s->micro_batches + (size_t)source->placed[layer]++;
  memcpy(counts + row * (size_t)s->experts, source->line.row, (size_t)s->experts * sizeof *counts);
  return BL_OK;
}

/* All lines of the step from one rank's file; the next begins where the first line of another step stands. */
static bl_status read_lines(bl_megatron *source, size_t rank, FILE *stream, uint32_t *counts) {
  rank_file *file = &source->files[rank];
  const int64_t step = source->steps[source->next];
  char name[4096], where[4160];
  name_of(source, file, name, sizeof name);
  memset(source->placed, 0, source->n_layers * sizeof *source->placed);
  for (;;) {
    bl_megatron_record r;
    bool more;
    snprintf(where, sizeof where, "%s:%" PRId64, name, file->line + 1);
    BL_TRY(next_record(source, file, stream, &r, &more));
    if (!more || (!r.left_out && r.step != step)) break;
    if (!r.left_out) BL_TRY(place_row(source, file, where, &r, counts));
    file->line++;
    file->offset = ftello(stream);
  }
  for (size_t l = 0; l < source->n_layers; l++)
    if (source->layers[l].stage == file->stage && source->placed[l] != source->shape.micro_batches)
      return bl_fail(BL_EINPUT,
                     "%s: step %" PRId64 ", layer %" PRId32 ": %" PRId32
                     " micro-batches before this line, expected %" PRId32,
                     where, step, source->layers[l].number, source->placed[l], source->shape.micro_batches);
  return BL_OK;
}

/* Behind the last step there is nothing more. */
static bl_status expect_end(bl_megatron *source, size_t rank, FILE *stream) {
  rank_file *file = &source->files[rank];
  bl_megatron_record r;
  bool more;
  if (source->next + 1 < source->n_steps || fseeko(stream, file->offset, SEEK_SET) != 0) return BL_OK;
  BL_TRY(next_record(source, file, stream, &r, &more));
  if (!more) return BL_OK;
  return bl_fail(BL_EINPUT,
                 "%s/router_trace_rank%" PRId32 ".jsonl:%" PRId64 ": step %" PRId64 ", which rank %" PRId32
                 " has not at this place",
                 source->folder, file->rank, file->line + 1, r.step, source->files[0].rank);
}

bl_status bl_megatron_read(bl_megatron *source, uint32_t *counts) {
  for (size_t rank = 0; rank < source->n_files; rank++) {
    FILE *stream;
    BL_TRY(open_file(source, &source->files[rank], &stream));
    bl_status status = read_lines(source, rank, stream, counts);
    if (status == BL_OK) status = expect_end(source, rank, stream);
    fclose(stream);
    BL_TRY(status);
  }
  source->next++;
  return BL_OK;
}
