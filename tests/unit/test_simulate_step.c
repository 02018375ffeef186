/* The simulator against sums done by hand, the memory model, the timeline file and the scale fit. */
#include "base/json.h"
#include "costmodel/calibrate.h"
#include "costmodel/memory.h"
#include "costmodel/simulate.h"
#include "tests/check.h"
#include <unistd.h>

/* Every kind of work costs 1 us a call, experts 1 us a row, links 10 us a call. */
static void fill_profile(bl_profile *p, const bl_model *model) {
  memset(p, 0, sizeof *p);
  bl_profile_shape_of(model, &p->shape);
  p->ranks = 2;
  p->num_bytes = 4;
  p->sgemm_gflops = p->triad_gbps = 1;
  snprintf(p->backend, sizeof p->backend, "cpu");
  snprintf(p->transport, sizeof p->transport, "threads");
  snprintf(p->device, sizeof p->device, "none");
  for (int k = 0; k < BL_CURVE_COUNT; k++) CHECK_OK(bl_curve_add(&p->curves[k], 1, k >= BL_CURVE_GATHER_HOST ? 10 : 1));
  for (int k = BL_CURVE_EXPERT_FWD; k <= BL_CURVE_EXPERT_DW; k++)
    if (strncmp(bl_curve_names[k], "expert", 6) == 0) CHECK_OK(bl_curve_add(&p->curves[k], 1001, 1001));
}

typedef struct set_up {
  bl_model model;
  bl_layout layout;
  bl_step step;
  bl_profile profile;
  bl_traffic traffic;
  bl_costs costs;
} set_up;

/* 2 ranks, 2 layers, 4 experts (0, 1 on rank 0), one micro-batch; rank r's experts take rows[r] rows in all. */
static bool prepare(set_up *s, bool copies, uint32_t rows0, uint32_t rows1) {
  const bl_step_options options = {.copies = copies};
  const int32_t first[5] = {0, 1, 2, 3, 4}, home[4] = {0, 0, 1, 1};
  const uint32_t quota[8] = {rows0, 0, 0, 0, 0, 0, 0, rows1};
  const bl_copy copy = {.expert = 0, .rank = 1, .share = 0.5};
  bl_model_default(&s->model);
  s->model.layers = 2;
  s->model.experts = 4;
  if (bl_layout_default(&s->layout, 2, 2, 1, 1) != BL_OK) return false;
  if (bl_step_build(&s->model, &s->layout, &options, 0, &s->step) != BL_OK) return false;
  if (bl_traffic_create(2, 4, 2, 1, &s->traffic) != BL_OK) return false;
  for (int32_t l = 0; l < 2; l++) {
    bl_traffic_set_hosts(&s->traffic, l, home, &copy, copies);
    bl_traffic_set_quota(&s->traffic, l, 0, first, home, quota);
  }
  fill_profile(&s->profile, &s->model);
  s->costs = (bl_costs){&s->model, &s->layout, &s->profile, &s->traffic, NULL};
  return true;
}

static void done(set_up *s) {
  bl_traffic_free(&s->traffic);
  bl_step_free(&s->step);
  bl_layout_free(&s->layout);
}

static void test_serial(void) {
  set_up s;
  bl_simulation out;
  REQUIRE(prepare(&s, false, 100, 300));
  REQUIRE_OK(bl_simulate(&s.step, &s.costs, &out));
  /* Compute and decisions at 1 us: choose_hosts, zero_grads, embed, head, embed_bwd = 5; a layer 11 forward and
     backward (attention 2, gate 2, solve, scatter 2, gather 2, and 2 of the update); update of the embedding 2. */
  const double calls = 5 + 2 * 11 + 2;
  /* Links at 10 us: a layer 5 exchanges; dense_reduce 3; grad_norm 1. The experts of the busier rank: 3 x 300 rows, but
     expert_dw waits for nobody, so that the other rank is ahead by its own 200 in the end. */
  const double links = 10 * (2 * 5 + 3 + 1);
  CHECK_NEAR(out.step_us, calls + links + 2 * 3 * 300, 1e-9);
  CHECK_NEAR(out.phase_us[BL_ACTION_EXPERT_FWD], 2 * (100 + 300) / 2.0, 1e-9);
  CHECK_NEAR(out.compute_us, calls - 3 + 2 * 3 * 200, 1e-9);
  /* Rank 0 waits for rank 1 as long as it has less to do. */
  CHECK_NEAR(out.wait_us, 2 * 3 * 200 / 2.0, 1e-9);
  CHECK_NEAR(out.exposed_us, links + out.wait_us, 1e-9);
  bl_simulation_free(&out);
  done(&s);
}

/* A layer of each block that stands alone. */
static void test_layers_of_one_block(void) {
  const int32_t first[5] = {0, 1, 2, 3, 4}, home[4] = {0, 0, 1, 1};
  const uint32_t quota[8] = {100, 0, 0, 0, 0, 0, 0, 100};
  const bl_step_options options = {0};
  bl_simulation out;
  set_up s;
  bl_model_default(&s.model);
  snprintf(s.model.pattern, sizeof s.model.pattern, "M*-E");
  s.model.experts = 4, s.model.latent_width = 64;
  s.model.state_heads = 4, s.model.state_head_width = 32, s.model.state_width = 16, s.model.state_groups = 2;
  s.model.state_convolution = 4, s.model.state_chunk = 64;
  REQUIRE_OK(bl_layout_default(&s.layout, 2, 4, 1, 1));
  REQUIRE_OK(bl_step_build(&s.model, &s.layout, &options, 0, &s.step));
  REQUIRE_OK(bl_traffic_create(2, 4, 4, 1, &s.traffic));
  bl_traffic_set_hosts(&s.traffic, 3, home, NULL, 0);
  bl_traffic_set_quota(&s.traffic, 3, 0, first, home, quota);
  fill_profile(&s.profile, &s.model);
  bl_curve *scan = &s.profile.curves[BL_CURVE_STATE_SPACE_BWD];
  CHECK_OK(bl_curve_add(scan, 1e6, 1e6)); /* a microsecond a token of 128 */
  s.costs = (bl_costs){&s.model, &s.layout, &s.profile, &s.traffic, NULL};
  REQUIRE_OK(bl_simulate(&s.step, &s.costs, &out));
  /* Beside the scan's backward: 5 calls of the step, 2 x 3 blocks less one, 7 of the experts', 2 of each update. */
  const double calls = 5 + (2 * 3 - 1) + 7 + 2 * 5, links = 10 * (5 + 5 + 1);
  CHECK_NEAR(out.step_us, calls + links + 128 + 3 * 100, 1e-9);
  CHECK_NEAR(out.phase_us[BL_ACTION_STATE_SPACE_BWD], 128, 1e-9);
  bl_simulation_free(&out);
  /* norm1's output of 256; projections of 2 x 128 + 2 x 2 x 16 + 4; the scan's output, 128, before and after its norm.
   */
  const bl_buffer saved = {BL_BUFFER_STATE_SPACE_SAVED, 0, 0, 0}, rows = {BL_BUFFER_RECEIVED, 3, 0, 0};
  CHECK_NEAR(bl_buffer_bytes(&s.costs, &saved, 0), 128 * (4 * (256 + 324 + 2 * 128) + 4 * 2), 1e-9);
  CHECK_NEAR(bl_buffer_bytes(&s.costs, &rows, 0), 100 * 64 * 4, 1e-9); /* latent vectors travel */
  CHECK_INT(bl_costs_dense_parameters(&s.costs, 0), bl_model_part_parameters(&s.model, BL_PART_STATE_SPACE));
  CHECK_INT(bl_costs_dense_parameters(&s.costs, 2), bl_model_part_parameters(&s.model, BL_PART_FFN));
  done(&s);
}

/* The slower rank may be either one. */
static void test_first_rank_slower(void) {
  set_up s;
  bl_simulation out, mirrored;
  REQUIRE(prepare(&s, false, 100, 300));
  REQUIRE_OK(bl_simulate(&s.step, &s.costs, &out));
  done(&s);
  REQUIRE(prepare(&s, false, 300, 100));
  REQUIRE_OK(bl_simulate(&s.step, &s.costs, &mirrored));
  CHECK_NEAR(mirrored.step_us, out.step_us, 1e-9);
  CHECK_NEAR(mirrored.wait_us, out.wait_us, 1e-9);
  bl_simulation_free(&out);
  bl_simulation_free(&mirrored);
  done(&s);
}

static void test_overlap(void) {
  set_up s;
  bl_simulation serial, beside;
  REQUIRE(prepare(&s, true, 100, 100));
  REQUIRE_OK(bl_simulate(&s.step, &s.costs, &serial));
  s.profile.overlap = true;
  REQUIRE_OK(bl_simulate(&s.step, &s.costs, &beside));
  CHECK(beside.step_us < serial.step_us);
  CHECK_NEAR(beside.compute_us, serial.compute_us, 1e-9);
  /* expert_dw (100 us) hides dispatch_bwd (10 us) in both layers. */
  CHECK(beside.exposed_us <= serial.exposed_us - 2 * 10 + 1e-9);
  CHECK(beside.step_us >= beside.compute_us);
  bl_simulation_free(&serial);
  bl_simulation_free(&beside);
  done(&s);
}

static void test_copies_cost(void) {
  set_up s;
  double us;
  REQUIRE(prepare(&s, true, 100, 100));
  bl_curve *transfer = &s.profile.curves[BL_CURVE_TRANSFER];
  CHECK_OK(bl_curve_add(transfer, 1e9, 1e9 + 9));
  const bl_action fill = {
      .kind = BL_ACTION_COPY_FILL, .layer = 1, .micro_batch = -1, .pieces = 1, .group = BL_GROUP_EP};
  const double bytes = 4.0 * (double)bl_model_part_parameters(&s.model, BL_PART_EXPERT);
  CHECK_OK(bl_cost_of(&s.costs, &fill, 0, &us));
  CHECK_NEAR(us, bytes + 9, 1e-3);
  CHECK_OK(bl_cost_of(&s.costs, &fill, 1, &us));
  CHECK_NEAR(us, bytes + 9, 1e-3);
  transfer->n = 0;
  CHECK(bl_cost_of(&s.costs, &fill, 1, &us) == BL_EINPUT);
  CHECK_STRING(bl_error_text(), "the profile has no curve transfer, which prices copy_fill");
  done(&s);
}

static void test_memory(void) {
  set_up s;
  double with_copy, without;
  bl_model_counts counts;
  REQUIRE(prepare(&s, true, 100, 100));
  CHECK_OK(bl_memory_peak(&s.costs, &s.step, 0, &without));
  CHECK_OK(bl_memory_peak(&s.costs, &s.step, 1, &with_copy));
  /* Rank 1 holds one copy a layer: weight and gradient. */
  const double expert = (double)bl_model_part_parameters(&s.model, BL_PART_EXPERT);
  CHECK_NEAR(with_copy - without, 2 * 8 * expert, 1);
  bl_model_count(&s.model, &counts);
  const double state = 16.0 * ((double)(counts.parameters - counts.expert_parameters) + 2 * 2 * expert);
  CHECK(without > state && without < 1.5 * state);
  done(&s);
}

static void test_timeline(void) {
  set_up s;
  bl_simulation out;
  bl_json_doc *doc;
  bl_json root, events;
  int64_t n = 0, slices = 0;
  char path[64];
  snprintf(path, sizeof path, "/tmp/ballast_test_timeline.%ld.json", (long)getpid());
  REQUIRE(prepare(&s, false, 100, 300));
  REQUIRE_OK(bl_simulate(&s.step, &s.costs, &out));
  const bl_timeline predicted = {"predicted", &s.step, out.ranks, out.spans};
  REQUIRE_OK(bl_timeline_write(path, 7, &predicted, 1));
  REQUIRE_OK(bl_json_load(path, &doc, &root));
  CHECK_OK(bl_json_array(root, "traceEvents", 1, 100000, &events, &n));
  for (bl_json e = bl_json_first(events); !bl_json_is_null(e); e = bl_json_next(e)) {
    const char *phase;
    CHECK_OK(bl_json_string(e, "ph", &phase));
    slices += strcmp(phase, "X") == 0;
  }
  CHECK(slices >= 2 * s.step.n_actions);
  bl_json_free(doc);
  unlink(path);
  bl_simulation_free(&out);
  done(&s);
}

/* What was measured comes back as it was written; files of something else do not. */
static void test_measured_timeline(void) {
  set_up s, other;
  bl_span *spans, *back;
  int64_t number;
  char path[64];
  snprintf(path, sizeof path, "/tmp/ballast_test_measured.%ld.json", (long)getpid());
  REQUIRE(prepare(&s, false, 100, 300));
  const int32_t n = s.step.n_actions, ranks = 2;
  REQUIRE((spans = calloc((size_t)(n * ranks), sizeof *spans)) != NULL);
  for (int32_t i = 0; i < n * ranks; i++) spans[i] = (bl_span){10.0 * i, 10.0 * i, 10.0 * i + i % 5};
  const bl_timeline measured = {"measured", &s.step, ranks, spans};
  REQUIRE_OK(bl_timeline_write(path, 42, &measured, 1));
  REQUIRE_OK(bl_timeline_read(path, &s.step, ranks, &number, &back));
  CHECK_INT(number, 42);
  for (int32_t i = 0; i < n * ranks; i++)
    if (i % 5) CHECK(back[i].ready_us == spans[i].ready_us && back[i].end_us == spans[i].end_us);
  free(back);
  CHECK_FAILS(bl_timeline_read(path, &s.step, 1, &number, &back), BL_EINPUT, "pid");
  CHECK(back == NULL);
  REQUIRE(prepare(&other, true, 100, 300));
  CHECK_OK(
      bl_timeline_read(path, &other.step, ranks, &number, &back)); /* a program with copies has these actions too */
  free(back);
  for (int32_t i = 0; i < other.step.n_actions * ranks && i < n * ranks; i++) spans[i].end_us = spans[i].start_us + 1;
  const bl_timeline with_copies = {"measured", &other.step, 1, spans};
  REQUIRE_OK(bl_timeline_write(path, 42, &with_copies, 1));
  CHECK_FAILS(bl_timeline_read(path, &s.step, ranks, &number, &back), BL_EINPUT, "expected an action of the program");
  const bl_timeline two[] = {measured, measured};
  REQUIRE_OK(bl_timeline_write(path, 42, two, 2));
  CHECK_FAILS(bl_timeline_read(path, &s.step, ranks, &number, &back), BL_EINPUT, "pid");
  unlink(path);
  free(spans);
  done(&s);
  done(&other);
}

static void test_curve(void) {
  bl_curve c = {0};
  CHECK_OK(bl_curve_add(&c, 10, 100));
  CHECK_NEAR(bl_curve_at(&c, 500), 100, 0);
  CHECK_OK(bl_curve_add(&c, 20, 150));
  CHECK_OK(bl_curve_add(&c, 40, 350));
  CHECK_NEAR(bl_curve_at(&c, 1), 100, 0);
  CHECK_NEAR(bl_curve_at(&c, 15), 125, 1e-9);
  CHECK_NEAR(bl_curve_at(&c, 50), 450, 1e-9);
  CHECK_NEAR(bl_curve_held_out_error(&c), (100 + 250.0 / 3 - 150) / 150, 1e-9);
  CHECK(bl_curve_add(&c, 40, 1) == BL_EINPUT);
  CHECK(bl_curve_add(&c, 50, NAN) == BL_EINPUT);
}

static void test_fit(void) {
  const double predicted[3] = {1, 2, 4}, measured[3] = {2, 4, 8};
  const double off[2] = {1, 1.2};
  double scale, held_out;
  CHECK_OK(bl_fit_scale(predicted, measured, 3, &scale, &held_out));
  CHECK_NEAR(scale, 2, 1e-12);
  CHECK_NEAR(held_out, 0, 1e-12);
  CHECK_NEAR(bl_mean_error(predicted, measured, 3), 0.5, 1e-12);
  CHECK_OK(bl_fit_scale(off, (const double[2]){1, 1}, 2, &scale, &held_out));
  CHECK_NEAR(scale, 2.2 / 2.44, 1e-12);
  CHECK_NEAR(held_out, (1 - 1 / 1.2 + 0.2) / 2, 1e-12);
  CHECK(bl_fit_scale(predicted, (const double[1]){0}, 1, &scale, &held_out) == BL_EINPUT);
}

static void test_profile_file(void) {
  bl_profile p, back;
  bl_model model;
  char path[64];
  snprintf(path, sizeof path, "/tmp/ballast_test_profile.%ld.json", (long)getpid());
  bl_model_default(&model);
  fill_profile(&p, &model);
  p.curves[BL_CURVE_HEAD].n = 0;
  REQUIRE_OK(bl_profile_save(path, &p));
  REQUIRE_OK(bl_profile_load(path, &back));
  CHECK_INT(back.curves[BL_CURVE_HEAD].n, 0);
  CHECK_INT(back.curves[BL_CURVE_EXPERT_DW].n, 2);
  CHECK_NEAR(bl_curve_at(&back.curves[BL_CURVE_EXPERT_DW], 500), 500, 1e-6);
  CHECK_OK(bl_profile_fits(&back, &model, path));
  model.hidden = 512;
  CHECK(bl_profile_fits(&back, &model, path) == BL_EINPUT);
  CHECK(strstr(bl_error_text(), "hidden 256") != NULL);
  FILE *f = fopen(path, "wb");
  REQUIRE(f != NULL);
  fputs("{\"version\":1,\"backend\":\"cpu\"}", f);
  fclose(f);
  CHECK(bl_profile_load(path, &back) == BL_EINPUT);
  unlink(path);
}

int main(void) {
  RUN(test_curve);
  RUN(test_fit);
  RUN(test_profile_file);
  RUN(test_serial);
  RUN(test_layers_of_one_block);
  RUN(test_first_rank_slower);
  RUN(test_overlap);
  RUN(test_copies_cost);
  RUN(test_memory);
  RUN(test_timeline);
  RUN(test_measured_timeline);
  TEST_MAIN_END;
}
