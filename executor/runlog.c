/* runlog.c - JSON lines that tell what a run did. */
#include "executor/runlog.h"
#include "base/file.h"
#include "base/version.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const uint64_t MAX_LINES_BYTES = (uint64_t)4 << 30;

/* Bytes of `text` up to the first line whose "step" is above keep_step. */
static bl_status whole_lines(const char *path, const char *text, uint64_t size, int64_t keep_step, uint64_t *kept) {
  *kept = 0;
  while (*kept < size) {
    const char *line = text + *kept, *end = memchr(line, '\n', size - *kept);
    if (!end) return BL_OK; /* cut short: dropped */
    const uint64_t n = (uint64_t)(end - line);
    char *copy = strndup(line, n);
    if (!copy) return bl_fail(BL_EMACHINE, "out of memory: %llu bytes for a line of %s", (unsigned long long)n, path);
    bl_json_doc *doc = NULL;
    bl_json root;
    int64_t step = INT64_MIN;
    bl_status status = bl_json_parse(path, copy, n, &doc, &root);
    if (status == BL_OK) status = bl_json_int_or(root, "step", 0, INT64_MAX, &step);
    bl_json_free(doc);
    free(copy);
    BL_TRY(status);
    if (step > keep_step) return BL_OK;
    *kept += n + 1;
  }
  return BL_OK;
}

static bl_status count_kept(const char *path, int64_t keep_step, uint64_t *kept) {
  char *text;
  uint64_t size;
  BL_TRY(bl_file_read(path, MAX_LINES_BYTES, &text, &size));
  const bl_status status = whole_lines(path, text, size, keep_step, kept);
  free(text);
  return status;
}

/* Opens a file for this run alone and cuts it to what is kept; a device or a pipe is taken as it is. */
static bl_status open_alone(const char *path, int64_t keep_step, int *fd, bool *continued) {
  struct stat info;
  uint64_t kept = 0;
  *continued = false;
  *fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  if (*fd < 0 || fstat(*fd, &info) != 0) return bl_fail_errno(BL_EINPUT, "%s: cannot write", path);
  if (!S_ISREG(info.st_mode)) return BL_OK;
  if (flock(*fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
    return bl_fail(BL_EINPUT, "%s: is being written already; expected a file for each output and run", path);
  if (keep_step >= 0) BL_TRY(count_kept(path, keep_step, &kept));
  *continued = kept > 0;
  if (ftruncate(*fd, (off_t)kept) != 0 || lseek(*fd, 0, SEEK_END) < 0)
    return bl_fail_errno(BL_EINPUT, "%s: cannot write", path);
  return BL_OK;
}

bl_status bl_lines_open(const char *path, int64_t keep_step, bl_lines *out, bool *continued) {
  int fd = -1;
  if (!strcmp(path, "-")) path = "/dev/stdout";
  *out = (bl_lines){.path = path};
  bl_status status = open_alone(path, keep_step, &fd, continued);
  if (status == BL_OK && !(out->stream = fdopen(fd, "w"))) status = bl_fail(BL_EMACHINE, "out of memory: a stream");
  if (status != BL_OK) {
    if (fd >= 0) close(fd);
    return status;
  }
  out->whole = ftell(out->stream);
  return BL_OK;
}

bl_status bl_lines_flush(bl_lines *lines) {
  if (fflush(lines->stream) == 0 && !ferror(lines->stream)) {
    lines->whole = ftell(lines->stream);
    return BL_OK;
  }
  const bl_status status = bl_fail_errno(BL_EMACHINE, "%s: writing failed", lines->path);
  const int fd = fileno(lines->stream);
  if (lines->whole >= 0 && ftruncate(fd, (off_t)lines->whole) != 0) errno = 0; /* a device or a pipe: nothing to cut */
  return status;
}

bl_status bl_lines_close(bl_lines *lines) {
  if (!lines->stream) return BL_OK;
  const bool failed = fclose(lines->stream) != 0;
  lines->stream = NULL;
  return failed ? bl_fail_errno(BL_EMACHINE, "%s: writing failed", lines->path) : BL_OK;
}

static void write_text(bl_json_writer *w, const char *key, const char *value) {
  if (!value) return;
  bl_json_put_string(w, key, value);
}

static bl_status write_input(bl_json_writer *w, const char *what, const char *path) {
  if (!path) return BL_OK;
  uint32_t crc;
  BL_TRY(bl_file_crc32(path, &crc));
  bl_json_begin_object(w);
  write_text(w, "what", what);
  write_text(w, "path", path);
  bl_json_put_int(w, "crc32", crc);
  bl_json_end_object(w);
  return BL_OK;
}

static void write_model(bl_json_writer *w, const bl_model *model) {
  bl_json_key(w, "model");
  bl_json_begin_object(w);
  write_text(w, "name", model->name);
  bl_json_put_int(w, "layers", model->layers);
  bl_json_put_int(w, "moe_layers", bl_model_moe_layers(model));
  bl_json_put_int(w, "hidden", model->hidden);
  bl_json_put_int(w, "heads", model->heads);
  bl_json_put_int(w, "sequence", model->sequence);
  bl_json_put_int(w, "vocabulary", model->vocabulary);
  bl_json_put_int(w, "experts", model->experts);
  bl_json_put_int(w, "expert_width", model->expert_width);
  bl_json_put_int(w, "top_k", model->top_k);
  bl_json_end_object(w);
}

static void write_config(bl_json_writer *w, const bl_run *run, const bl_runlog_header *h) {
  bl_json_key(w, "config");
  bl_json_begin_object(w);
  write_model(w, run->model);
  bl_json_put_int(w, "ranks", run->ranks);
  bl_json_put_int(w, "ep", run->ep);
  bl_json_key(w, "slots");
  bl_json_begin_flat_array(w);
  for (int32_t p = 0; p < run->ep; p++) bl_json_write_int(w, run->slots[p]);
  bl_json_end_array(w);
  bl_json_put_int(w, "batch", run->batch);
  bl_json_put_int(w, "micro_batches", run->micro_batches);
  bl_json_put_int(w, "steps", run->steps);
  bl_json_put_int(w, "schedule_steps", run->schedule_steps);
  bl_json_put_int(w, "warmup", run->warmup);
  bl_json_put_number(w, "lr", run->lr);
  write_text(w, "policy", run->policy.policy);
  bl_json_put_int(w, "lag", run->policy.lag);
  write_text(w, "shares", run->policy.shares);
  bl_json_put_number(w, "late_repair", run->policy.late_repair);
  write_text(w, "homes", run->policy.homes);
  write_text(w, "gate", h->gate);
  if (bl_gate_has_capacity(&run->gate)) {
    bl_json_put_number(w, "capacity_factor", run->gate.capacity_factor);
    bl_json_put_number(w, "balance", run->gate.balance);
  }
  write_text(w, "backend", h->backend);
  write_text(w, "transport", h->transport);
  if (run->exchange == BL_EXCHANGE_DEVICE) {
    write_text(w, "exchange", "device");
    bl_json_put_number(w, "headroom", run->headroom);
  }
  write_text(w, "resume", h->resume);
  bl_json_put_int(w, "first_step", h->first_step);
  bl_json_end_object(w);
}

/* The peak of all devices together: ranks that are threads of one process share one. 0: not known. */
static double peak_of(const bl_rank *r) {
  if (r->run->peak_flops > 0) return r->run->peak_flops;
  const double devices = !strcmp(r->comm->ops->name, "threads") ? 1 : r->run->ranks;
  return devices * bl_device_peak_flops(r->be->device, (int32_t)r->be->num_bytes);
}

static double flop_per_token(const bl_rank *r) {
  bl_model model = *r->run->model;
  model.top_k = r->run->top_k;
  return bl_flop_per_token(&model, r->run->flop);
}

static void write_peak(bl_json_writer *w, const bl_rank *r) {
  bl_json_key(w, "mfu");
  bl_json_begin_flat_object(w);
  write_text(w, "convention", bl_flop_names[r->run->flop]);
  bl_json_put_number(w, "flop_per_token", flop_per_token(r));
  write_text(w, "device", r->be->device);
  if (peak_of(r) > 0) bl_json_put_number(w, "peak_tflops", 1e-12 * peak_of(r));
  bl_json_end_object(w);
}

bl_status bl_runlog_begin(bl_lines *log, const bl_rank *r, const bl_runlog_header *h) {
  const bl_run *run = r->run;
  bl_json_writer w;
  bl_json_writer_init(&w, log->stream, false);
  bl_json_begin_object(&w);
  bl_json_key(&w, "command");
  bl_json_begin_flat_array(&w);
  for (int i = 0; i < h->argc; i++) bl_json_write_string(&w, h->argv[i]);
  bl_json_end_array(&w);
  write_text(&w, "program", "ballast-train " BL_VERSION);
  write_config(&w, run, h);
  bl_json_put_int(&w, "seed", (int64_t)run->seed);
  bl_json_key(&w, "inputs");
  bl_json_begin_array(&w);
  BL_TRY(write_input(&w, "data", h->data_path));
  BL_TRY(write_input(&w, "plan", h->plan_path));
  BL_TRY(write_input(&w, "trace", run->gate.trace_path));
  bl_json_end_array(&w);
  write_text(&w, "kernel", r->be->kernel);
  write_peak(&w, r);
  bl_json_end_object(&w);
  bl_json_newline(&w);
  return bl_lines_flush(log);
}

static void write_layers(bl_json_writer *w, const bl_rank *r) {
  bl_json_key(w, "layers");
  bl_json_begin_array(w);
  for (int32_t l = 0; l < r->weights.moe_layers; l++) {
    const bl_layer_result *layer = &r->result.layer[l];
    bl_json_begin_object(w);
    bl_json_put_number(w, "imbalance", layer->imbalance);
    bl_json_put_int(w, "copies", layer->copies);
    bl_json_put_int(w, "moved", layer->moved);
    bl_json_put_bool(w, "late", layer->late);
    bl_json_end_object(w);
  }
  bl_json_end_array(w);
}

bl_status bl_runlog_step(bl_lines *log, const bl_rank *r, int64_t step_us) {
  const bl_step_result *result = &r->result;
  const int64_t tokens = (int64_t)r->run->batch * r->run->model->sequence;
  bl_json_writer w;
  bl_json_writer_init(&w, log->stream, false);
  bl_json_begin_object(&w);
  bl_json_put_int(&w, "step", r->step);
  bl_json_put_number(&w, "loss", result->loss);
  if (bl_gate_has_capacity(&r->run->gate)) bl_json_put_number(&w, "balance_loss", result->balance_loss);
  bl_json_put_number(&w, "grad_norm", result->grad_norm);
  bl_json_put_number(&w, "lr", result->lr);
  bl_json_put_int(&w, "tokens", tokens);
  bl_json_put_int(&w, "step_us", step_us);
  bl_json_put_number(&w, "tokens_per_s", (double)tokens * 1e6 / (double)(step_us > 0 ? step_us : 1));
  bl_json_key(&w, "mfu");
  if (peak_of(r) > 0 && step_us > 0)
    bl_json_write_number(&w, flop_per_token(r) * (double)tokens / (1e-6 * (double)step_us * peak_of(r)));
  else
    bl_json_write_null(&w); /* the peak is not known */
  bl_json_key(&w, "phases");
  bl_json_begin_object(&w);
  for (int k = 0; k < BL_ACTION_COUNT; k++)
    if (result->phase_us[k] >= 1) bl_json_put_int(&w, bl_action_names[k], (int64_t)result->phase_us[k]);
  bl_json_end_object(&w);
  write_layers(&w, r);
  bl_json_put_int(&w, "moved_bytes", result->moved_bytes);
  bl_json_put_int(&w, "fill_bytes", result->fill_bytes);
  bl_json_put_int(&w, "plan_version", result->plan_version);
  if (r->run->exchange == BL_EXCHANGE_DEVICE) {
    bl_json_put_bool(&w, "redone", result->redone);
    bl_json_put_bool(&w, "replayed", result->replayed);
  }
  bl_json_end_object(&w);
  bl_json_newline(&w);
  return bl_lines_flush(log);
}
