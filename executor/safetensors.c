/* safetensors.c - writing and reading tensors by name. */
#include "executor/safetensors.h"
#include "base/file.h"
#include "base/memory.h"
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const uint64_t MAX_HEADER_BYTES = 100 << 20;

static void write_entry(bl_json_writer *w, const bl_safetensor *t, int64_t *offset) {
  const int64_t bytes = (int64_t)t->rows * t->cols * (int64_t)sizeof(float);
  bl_json_key(w, t->name);
  bl_json_begin_object(w);
  bl_json_put_string(w, "dtype", "F32");
  bl_json_key(w, "shape");
  bl_json_begin_flat_array(w);
  if (t->rows > 1) bl_json_write_int(w, t->rows);
  bl_json_write_int(w, t->cols);
  bl_json_end_array(w);
  bl_json_key(w, "data_offsets");
  bl_json_begin_flat_array(w);
  bl_json_write_int(w, *offset);
  bl_json_write_int(w, *offset += bytes);
  bl_json_end_array(w);
  bl_json_end_object(w);
}

bl_status bl_safetensors_header(FILE *stream, const bl_safetensor *tensors, size_t n) {
  char *text = NULL;
  size_t size = 0;
  FILE *memory = open_memstream(&text, &size);
  if (!memory) return bl_fail_errno(BL_EMACHINE, "out of memory for the header of a checkpoint");
  bl_json_writer w;
  bl_json_writer_init(&w, memory, false);
  bl_json_begin_object(&w);
  int64_t offset = 0;
  for (size_t i = 0; i < n; i++) write_entry(&w, &tensors[i], &offset);
  bl_json_end_object(&w);
  if (fclose(memory) != 0) {
    free(text);
    return bl_fail_errno(BL_EMACHINE, "out of memory for the header of a checkpoint");
  }
  const uint64_t padded = (size + 7) / 8 * 8;
  fwrite(&padded, sizeof padded, 1, stream);
  fwrite(text, 1, size, stream);
  for (uint64_t i = size; i < padded; i++) fputc(' ', stream);
  free(text);
  return BL_OK;
}

struct bl_safetensors_file {
  char *path, *text;
  int fd;
  uint64_t data_start, data_bytes;
  bl_json_doc *doc;
  bl_json root;
};

/* Shape and place of a tensor, checked. */
static bl_status entry_of(const bl_safetensors_file *file, bl_json entry, int64_t shape[2], int64_t offsets[2]) {
  bl_json list;
  int64_t n;
  const char *dtype;
  BL_TRY(bl_json_keys(entry, "dtype shape data_offsets"));
  BL_TRY(bl_json_string(entry, "dtype", &dtype));
  if (strcmp(dtype, "F32") != 0) return bl_json_fail(entry, "expected dtype F32, found %s", dtype);
  BL_TRY(bl_json_array(entry, "shape", 1, 2, &list, &n));
  bl_json item = bl_json_first(list);
  shape[0] = shape[1] = 1;
  for (int64_t i = 2 - n; i < 2; i++, item = bl_json_next(item)) BL_TRY(bl_json_as_int(item, 1, INT32_MAX, &shape[i]));
  BL_TRY(bl_json_array(entry, "data_offsets", 2, 2, &list, &n));
  item = bl_json_first(list);
  for (int i = 0; i < 2; i++, item = bl_json_next(item))
    BL_TRY(bl_json_as_int(item, 0, (int64_t)file->data_bytes, &offsets[i]));
  const uint64_t numbers = (uint64_t)shape[0] * (uint64_t)shape[1]; /* each at most INT32_MAX */
  if (offsets[1] < offsets[0] || numbers > file->data_bytes / sizeof(float) ||
      (uint64_t)(offsets[1] - offsets[0]) != numbers * sizeof(float))
    return bl_json_fail(entry, "expected data_offsets that hold %llu numbers of 4 bytes, found %lld bytes",
                        (unsigned long long)numbers, (long long)(offsets[1] - offsets[0]));
  return BL_OK;
}

static bl_status read_at(const bl_safetensors_file *file, void *to, uint64_t bytes, uint64_t at) {
  while (bytes > 0) {
    const ssize_t n = pread(file->fd, to, bytes, (off_t)at);
    if (n < 0) return bl_fail_errno(BL_EINPUT, "cannot read %s", file->path);
    if (n == 0) return bl_fail(BL_EINPUT, "%s: the file ends too early", file->path);
    to = (char *)to + n;
    at += (uint64_t)n;
    bytes -= (uint64_t)n;
  }
  return BL_OK;
}

static bl_status read_header(bl_safetensors_file *file) {
  struct stat info;
  if (fstat(file->fd, &info) || !S_ISREG(info.st_mode))
    return bl_fail(BL_EINPUT, "%s: expected a safetensors file", file->path);
  const uint64_t size = (uint64_t)info.st_size;
  uint64_t header = 0;
  if (size >= sizeof header) BL_TRY(read_at(file, &header, sizeof header, 0));
  if (size < sizeof header || header > MAX_HEADER_BYTES || header > size - sizeof header)
    return bl_fail(BL_EINPUT, "%s: expected a safetensors file, found a header of %llu bytes in a file of %llu",
                   file->path, (unsigned long long)header, (unsigned long long)size);
  BL_TRY(bl_new(&file->text, header + 1, 1, "the header of a checkpoint"));
  BL_TRY(read_at(file, file->text, header, sizeof header));
  file->data_start = sizeof header + header;
  file->data_bytes = size - file->data_start;
  return bl_json_parse(file->path, file->text, header, &file->doc, &file->root);
}

bl_status bl_safetensors_open(const char *path, bl_safetensors_file **out) {
  bl_safetensors_file *file;
  BL_TRY(bl_new(&file, 1, sizeof *file, "a checkpoint file"));
  file->path = strdup(path);
  file->fd = open(path, O_RDONLY | O_CLOEXEC);
  bl_status status = BL_OK;
  if (!file->path)
    status = bl_fail(BL_EMACHINE, "out of memory for a path");
  else if (file->fd < 0)
    status = bl_fail_errno(BL_EINPUT, "cannot open %s", path);
  else
    status = read_header(file);
  if (status != BL_OK) {
    bl_safetensors_close(file);
    return status;
  }
  *out = file;
  return BL_OK;
}

void bl_safetensors_close(bl_safetensors_file *file) {
  if (!file) return;
  bl_json_free(file->doc);
  if (file->fd >= 0) close(file->fd);
  free(file->text);
  free(file->path);
  free(file);
}

bool bl_safetensors_has(const bl_safetensors_file *file, const char *name) { return bl_json_has(file->root, name); }

bl_status bl_safetensors_read(const bl_safetensors_file *file, const char *name, int32_t rows, int32_t cols,
                              float *to) {
  bl_json entry;
  int64_t shape[2] = {1, 1}, offsets[2] = {0, 0};
  BL_TRY(bl_json_object(file->root, name, &entry));
  BL_TRY(entry_of(file, entry, shape, offsets));
  if (shape[0] != rows || shape[1] != cols)
    return bl_json_fail(entry, "expected shape [%d, %d], found [%lld, %lld]", rows, cols, (long long)shape[0],
                        (long long)shape[1]);
  return read_at(file, to, (uint64_t)rows * (uint64_t)cols * sizeof(float), file->data_start + (uint64_t)offsets[0]);
}
