/* import_megatron.c - Megatron-Core's router trace, read step by step from all ranks at once. */
#include "traces/import_megatron.h"
#include "base/json.h"
#include "base/memory.h"
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { MAX_LINE_BYTES = 1 << 28 };

/* Where the reading of one rank's file stands. */
typedef struct rank_file {
  int32_t rank;
  int64_t line; /* lines read */
  off_t offset; /* of the next line */
} rank_file;

struct bl_megatron {
  char *folder;
  rank_file *files; /* by rank */
  size_t n_files, file_capacity;
  int64_t *steps;
  size_t n_steps, step_capacity;
  int32_t *layers; /* ascending, the numbers in the files */
  size_t n_layers, layer_capacity;
  bl_trace_shape shape;
  int64_t left_out;
  size_t next;     /* step to be read */
  uint32_t *row;   /* [experts]: of the line read last */
  int32_t *placed; /* [layers]: micro-batches of this step so far */
  char *text;      /* the line */
  size_t text_capacity;
};

/* One line, without its tokens, which are in source->row. */
typedef struct record {
  int64_t step, layer;
  bool left_out; /* of multi-token prediction */
} record;

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

static bl_status count_tokens(bl_megatron *source, bl_json root) {
  int64_t tokens, top_k, n;
  bl_json list;
  BL_TRY(bl_json_int(root, "num_tokens", 0, INT32_MAX, &tokens));
  BL_TRY(bl_json_int(root, "topk", 1, source->shape.experts, &top_k));
  BL_TRY(bl_json_array(root, "top_indices", tokens, tokens, &list, &n));
  memset(source->row, 0, (size_t)source->shape.experts * sizeof *source->row);
  bl_json token = bl_json_first(list);
  for (int64_t t = 0; t < n; t++, token = bl_json_next(token)) {
    int64_t chosen, expert;
    BL_TRY(bl_json_as_array(token, top_k, top_k, &chosen));
    bl_json choice = bl_json_first(token);
    for (int64_t k = 0; k < top_k; k++, choice = bl_json_next(choice)) {
      BL_TRY(bl_json_as_int(choice, 0, source->shape.experts - 1, &expert));
      source->row[expert]++;
    }
  }
  return BL_OK;
}

static bl_status read_record(bl_megatron *source, const rank_file *file, bl_json root, record *out) {
  const char *block, *stage = "pre_dispatch";
  int64_t rank;
  BL_TRY(bl_json_int(root, "step", 0, INT64_MAX / 2, &out->step));
  BL_TRY(bl_json_int(root, "rank", 0, INT32_MAX, &rank));
  BL_TRY(bl_json_int(root, "layer", 0, INT32_MAX, &out->layer));
  BL_TRY(bl_json_string(root, "block", &block));
  BL_TRY(bl_json_string_or(root, "stage", &stage));
  if (rank != file->rank)
    return bl_json_fail(root, "expected rank %" PRId32 " as in the file's name, found %" PRId64, file->rank, rank);
  if (strcmp(stage, "pre_dispatch") != 0) return bl_json_fail(root, "expected stage pre_dispatch, found \"%s\"", stage);
  out->left_out = strcmp(block, "mtp") == 0;
  if (out->left_out) return BL_OK;
  if (strcmp(block, "decoder") != 0) return bl_json_fail(root, "expected block decoder or mtp, found \"%s\"", block);
  return count_tokens(source, root);
}

/* The next line of `stream`, which stands where file->offset says.  @return : *more is false at the end. */
static bl_status next_record(bl_megatron *source, rank_file *file, FILE *stream, record *out, bool *more) {
  char name[4096], place[4160];
  bl_json_doc *doc;
  bl_json root;
  name_of(source, file, name, sizeof name);
  errno = 0;
  const ssize_t n = getline(&source->text, &source->text_capacity, stream);
  *more = n > 0;
  if (n <= 0)
    return ferror(stream) || errno ? bl_fail_errno(BL_EINPUT, "%s:%" PRId64 ": cannot read", name, file->line + 1)
                                   : BL_OK;
  snprintf(place, sizeof place, "%s:%" PRId64, name, file->line + 1);
  if (n > MAX_LINE_BYTES) return bl_fail(BL_EINPUT, "%s: longer than %d bytes", place, MAX_LINE_BYTES);
  BL_TRY(bl_json_parse(place, source->text, (uint64_t)n, &doc, &root));
  const bl_status status = read_record(source, file, root, out);
  bl_json_free(doc);
  return status;
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
  while (at < source->n_layers && source->layers[at] < layer) at++;
  if (at < source->n_layers && source->layers[at] == layer) return BL_OK;
  BL_TRY(bl_grow(&source->layers, &source->layer_capacity, source->n_layers + 1, sizeof *source->layers, "layers"));
  memmove(source->layers + at + 1, source->layers + at, (source->n_layers++ - at) * sizeof *source->layers);
  source->layers[at] = (int32_t)layer;
  if (source->n_layers <= BL_TRACE_MAX_LAYERS) return BL_OK;
  return bl_fail(BL_EINPUT, "%s: more than %d layers", source->folder, BL_TRACE_MAX_LAYERS);
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

/* Steps and layers of the lowest rank's file, and how many lines its first step has. */
static bl_status survey_lines(bl_megatron *source, FILE *stream, int64_t *lines) {
  rank_file file = {.rank = source->files[0].rank};
  for (;; file.line++) {
    record r;
    bool more;
    BL_TRY(next_record(source, &file, stream, &r, &more));
    if (!more) return BL_OK;
    source->left_out += r.left_out;
    if (r.left_out) continue;
    BL_TRY(note_step(source, &file, file.line + 1, r.step));
    BL_TRY(note_layer(source, r.layer));
    *lines += r.step == source->steps[0];
  }
}

static bl_status survey(bl_megatron *source) {
  FILE *stream;
  int64_t lines = 0;
  BL_TRY(open_file(source, &source->files[0], &stream));
  const bl_status status = survey_lines(source, stream, &lines);
  fclose(stream);
  BL_TRY(status);
  if (source->n_steps == 0)
    return bl_fail(BL_EINPUT, "%s/router_trace_rank%" PRId32 ".jsonl: holds no step", source->folder,
                   source->files[0].rank);
  const int64_t layers = (int64_t)source->n_layers, micro_batches = lines / layers;
  if (lines % layers != 0)
    return bl_fail(BL_EINPUT,
                   "%s/router_trace_rank%" PRId32 ".jsonl: step %" PRId64 " has %" PRId64 " lines for %" PRId64
                   " layers, expected as many micro-batches of every layer",
                   source->folder, source->files[0].rank, source->steps[0], lines, layers);
  source->shape.layers = (int32_t)layers;
  source->shape.ranks = (int32_t)source->n_files;
  source->shape.micro_batches = micro_batches < INT32_MAX ? (int32_t)micro_batches : INT32_MAX;
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
  if (status == BL_OK) status = bl_new(&source->row, (size_t)experts, sizeof *source->row, "a row of counts");
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
  free(source->row);
  free(source->placed);
  free(source->text);
  free(source);
}

const bl_trace_shape *bl_megatron_shape_of(const bl_megatron *source) { return &source->shape; }
int32_t bl_megatron_steps(const bl_megatron *source) { return (int32_t)source->n_steps; }
int64_t bl_megatron_iteration(const bl_megatron *source, int32_t index) { return source->steps[index]; }
int32_t bl_megatron_rank(const bl_megatron *source, int32_t index) { return source->files[index].rank; }
int32_t bl_megatron_layer(const bl_megatron *source, int32_t index) { return source->layers[index]; }
int64_t bl_megatron_left_out(const bl_megatron *source) { return source->left_out; }

/* -- a step -------------------------------------------------------------------------------------------------------- */

/* The row of a line to its place among counts[layers][ranks][micro_batches][experts]. */
static bl_status place_row(bl_megatron *source, size_t rank, const char *where, const record *r, uint32_t *counts) {
  const bl_trace_shape *s = &source->shape;
  size_t layer = 0;
  while (layer < source->n_layers && source->layers[layer] != r->layer) layer++;
  if (layer == source->n_layers)
    return bl_fail(BL_EINPUT, "%s: layer %" PRId64 ", which rank %" PRId32 " has not", where, r->layer,
                   source->files[0].rank);
  if (source->placed[layer] == s->micro_batches)
    return bl_fail(BL_EINPUT, "%s: step %" PRId64 ", layer %" PRId64 ": more than %" PRId32 " micro-batches", where,
                   r->step, r->layer, s->micro_batches);
  const size_t row = (layer * (size_t)s->ranks + rank) * (size_t)s->micro_batches + (size_t)source->placed[layer]++;
  memcpy(counts + row * (size_t)s->experts, source->row, (size_t)s->experts * sizeof *counts);
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
    record r;
    bool more;
    snprintf(where, sizeof where, "%s:%" PRId64, name, file->line + 1);
    BL_TRY(next_record(source, file, stream, &r, &more));
    if (!more || (!r.left_out && r.step != step)) break;
    if (!r.left_out) BL_TRY(place_row(source, rank, where, &r, counts));
    file->line++;
    file->offset = ftello(stream);
  }
  for (size_t l = 0; l < source->n_layers; l++)
    if (source->placed[l] != source->shape.micro_batches)
      return bl_fail(BL_EINPUT,
                     "%s: step %" PRId64 ", layer %" PRId32 ": %" PRId32
                     " micro-batches before this line, expected %" PRId32,
                     where, step, source->layers[l], source->placed[l], source->shape.micro_batches);
  return BL_OK;
}

/* Behind the last step there is nothing more. */
static bl_status expect_end(bl_megatron *source, size_t rank, FILE *stream) {
  rank_file *file = &source->files[rank];
  record r;
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
