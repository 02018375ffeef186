/* megatron_line.c - one JSON object a line, with the experts of every token. */
#include "traces/megatron_line.h"
#include "base/json.h"
#include "base/memory.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LINE_BYTES = 1 << 28 };

bl_status bl_megatron_line_create(bl_megatron_line *line, int32_t experts) {
  *line = (bl_megatron_line){.experts = experts};
  return bl_new(&line->row, (size_t)experts, sizeof *line->row, "a row of counts");
}

void bl_megatron_line_free(bl_megatron_line *line) {
  free(line->row);
  free(line->text);
}

static bl_status count_tokens(bl_megatron_line *line, bl_json root) {
  int64_t tokens, top_k, n;
  bl_json list;
  BL_TRY(bl_json_int(root, "num_tokens", 0, INT32_MAX, &tokens));
  BL_TRY(bl_json_int(root, "topk", 1, line->experts, &top_k));
  BL_TRY(bl_json_array(root, "top_indices", tokens, tokens, &list, &n));
  memset(line->row, 0, (size_t)line->experts * sizeof *line->row);
  bl_json token = bl_json_first(list);
  for (int64_t t = 0; t < n; t++, token = bl_json_next(token)) {
    int64_t chosen, expert;
    BL_TRY(bl_json_as_array(token, top_k, top_k, &chosen));
    bl_json choice = bl_json_first(token);
    for (int64_t k = 0; k < top_k; k++, choice = bl_json_next(choice)) {
      BL_TRY(bl_json_as_int(choice, 0, line->experts - 1, &expert));
      line->row[expert]++;
    }
  }
  return BL_OK;
}

static bl_status read_record(bl_megatron_line *line, bl_json root, int32_t rank, bl_megatron_record *out) {
  const char *block, *stage = "pre_dispatch";
  int64_t said;
  BL_TRY(bl_json_int(root, "step", 0, INT64_MAX / 2, &out->step));
  BL_TRY(bl_json_int(root, "rank", 0, INT32_MAX, &said));
  BL_TRY(bl_json_int(root, "layer", 0, INT32_MAX, &out->layer));
  BL_TRY(bl_json_string(root, "block", &block));
  BL_TRY(bl_json_string_or(root, "stage", &stage));
  if (said != rank)
    return bl_json_fail(root, "expected rank %" PRId32 " as in the file's name, found %" PRId64, rank, said);
  if (strcmp(stage, "pre_dispatch") != 0) return bl_json_fail(root, "expected stage pre_dispatch, found \"%s\"", stage);
  out->left_out = strcmp(block, "mtp") == 0;
  if (out->left_out) return BL_OK;
  if (strcmp(block, "decoder") != 0) return bl_json_fail(root, "expected block decoder or mtp, found \"%s\"", block);
  return count_tokens(line, root);
}

bl_status bl_megatron_read_line(bl_megatron_line *line, FILE *stream, const char *name, int64_t number, int32_t rank,
                                bl_megatron_record *out, bool *more) {
  char place[4160];
  bl_json_doc *doc;
  bl_json root;
  snprintf(place, sizeof place, "%s:%" PRId64, name, number);
  errno = 0;
  const ssize_t n = getline(&line->text, &line->capacity, stream);
  *more = n > 0;
  if (n <= 0) return ferror(stream) || errno ? bl_fail_errno(BL_EINPUT, "%s: cannot read", place) : BL_OK;
  if (n > MAX_LINE_BYTES) return bl_fail(BL_EINPUT, "%s: longer than %d bytes", place, MAX_LINE_BYTES);
  BL_TRY(bl_json_parse(place, line->text, (uint64_t)n, &doc, &root));
  const bl_status status = read_record(line, root, rank, out);
  bl_json_free(doc);
  return status;
}
