/* Plan files: what is written reads back the same; anything else is refused with a sentence. */
#include "base/file.h"
#include "base/rng.h"
#include "costmodel/plan.h"
#include "tests/check.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char path[64];

static void put(const char *text, size_t n) {
  FILE *file = fopen(path, "wb");
  REQUIRE(file != NULL);
  fwrite(text, 1, n, file);
  fclose(file);
}

static bl_status load_text(const char *text) {
  bl_plan plan;
  put(text, strlen(text));
  const bl_status status = bl_plan_load(path, &plan);
  if (status == BL_OK) bl_plan_free(&plan);
  return status;
}

static const char GOOD[] =
    "{\"version\":1,\"layout\":{\"tp\":1,\"cp\":1,\"dp\":4,\"pp\":1,\"vp\":1,\"etp\":1,\"ep\":4,\"edp\":1,\"zero\":0,"
    "\"micro_batch\":2,\"micro_batches\":1,\"stages\":[[0,1,2,3]]},"
    "\"placement\":{\"ranks\":4,\"slots\":3,\"layers\":[{\"layer\":0,\"home\":[0,0,1,1,2,2,3,3],"
    "\"copies\":[{\"expert\":2,\"rank\":0,\"share\":0.25}],\"imbalance\":1.0,\"bound\":1.0}]},"
    "\"predicted\":{\"step_us\":0,\"imbalance\":1.0,\"memory_bytes\":0},"
    "\"bound\":{\"imbalance\":1.0,\"gap\":0.0,\"proof\":\"window-rule\"}}";

static void test_round_trip(void) {
  bl_plan plan, again;
  put(GOOD, strlen(GOOD));
  REQUIRE_OK(bl_plan_load(path, &plan));
  CHECK(plan.has_layout && plan.has_placement && plan.has_predicted && plan.has_bound);
  CHECK_INT(plan.placement.experts, 8);
  CHECK_INT(plan.placement.layer[0].copies[0].expert, 2);
  CHECK_STRING(plan.bound_proof, "window-rule");
  plan.placement.slots[2] = 5;
  plan.layout.recompute = 3, plan.layout.pieces = 4, plan.layout.overlap = true, plan.layout.node_dispatch = true;
  plan.placement.layer[0].copies[0].share = 1 / 3.0;
  REQUIRE_OK(bl_plan_save(path, &plan));
  REQUIRE_OK(bl_plan_load(path, &again));
  CHECK_INT(again.placement.slots[2], 5);
  CHECK_INT(again.placement.slots[1], 3);
  CHECK_NEAR(again.placement.layer[0].copies[0].share, 1 / 3.0, 1e-8);
  CHECK_INT(again.layout.stage_first[1], 4);
  CHECK_INT(again.layout.recompute, 3);
  CHECK_INT(again.layout.pieces, 4);
  CHECK(again.layout.overlap && again.layout.node_dispatch);
  /* What GOOD leaves out, as plans did before there was such a thing. */
  CHECK(again.layout.shard == 0 && again.layout.gradient_bytes == 4 && again.layout.copy_slots == 0);
  CHECK(again.layout.sequence == 0 && again.layout.ranks_per_node == 0 && again.layout.type[0] == '\0');
  bl_plan_free(&again);
  plan.layout.zero = 1, plan.layout.shard = 2, plan.layout.gradient_bytes = 2, plan.layout.copy_slots = 3;
  plan.layout.sequence = 4096, plan.layout.ranks_per_node = 7;
  snprintf(plan.layout.type, sizeof plan.layout.type, "fp8");
  REQUIRE_OK(bl_plan_save(path, &plan));
  REQUIRE_OK(bl_plan_load(path, &again));
  CHECK_INT(again.layout.shard, 2);
  CHECK_INT(again.layout.gradient_bytes, 2);
  CHECK_INT(again.layout.copy_slots, 3);
  CHECK_INT(again.layout.sequence, 4096);
  CHECK_INT(again.layout.ranks_per_node, 7);
  CHECK_STRING(again.layout.type, "fp8");
  bl_plan_free(&plan);
  bl_plan_free(&again);
}

/* What a search says of its layout. */
static void test_search(void) {
  bl_plan plan, again;
  put(GOOD, strlen(GOOD));
  REQUIRE_OK(bl_plan_load(path, &plan));
  CHECK(plan.search == NULL);
  plan.search = calloc(1, sizeof *plan.search);
  REQUIRE(plan.search != NULL);
  snprintf(plan.search->model, sizeof plan.search->model, "some model");
  snprintf(plan.search->source[BL_SOURCE_INTER], BL_SOURCE_TEXT_MAX, "45 GB/s (\"measured\")");
  plan.search->sequence = 4096, plan.search->layouts = 12, plan.search->simulated = 3;
  plan.search->time_us[BL_PRICE_BUBBLE] = 1.5, plan.search->memory_bytes[BL_FOOTPRINT_MASTER] = 7;
  plan.search->bound_us = 2, plan.search->memory_limit_bytes = 9;
  REQUIRE_OK(bl_plan_save(path, &plan));
  REQUIRE_OK(bl_plan_load(path, &again));
  REQUIRE(again.search != NULL);
  CHECK_STRING(again.search->model, "some model");
  CHECK_STRING(again.search->source[BL_SOURCE_INTER], "45 GB/s (\"measured\")");
  CHECK(again.search->sequence == 4096 && again.search->layouts == 12 && again.search->simulated == 3);
  CHECK_NEAR(again.search->time_us[BL_PRICE_BUBBLE], 1.5, 0);
  CHECK_NEAR(again.search->memory_bytes[BL_FOOTPRINT_MASTER], 7, 0);
  CHECK_NEAR(again.search->bound_us + again.search->memory_limit_bytes, 11, 0);
  bl_plan_free(&again);
  char *text, changed[8192];
  uint64_t size;
  REQUIRE_OK(bl_file_read(path, 1 << 20, &text, &size));
  static const char *const rows[][3] = {{"\"sequence\": 4096", "\"sequence\": 0", "sequence"},
                                        {"\"bubble\"", "\"bubbles\"", "found \"bubbles\""},
                                        {"\"master_weights\"", "\"master weights\"", "found \"master weights\""},
                                        {"\"bound_us\": 2", "\"bound_us\": -2", "bound_us"},
                                        {"\"routing\": \"\"", "\"routing\": 3", "routing"},
                                        {"\"layouts\": 12,", "", "layouts"}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    const char *at = strstr(text, rows[i][0]);
    REQUIRE(at != NULL);
    snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - text), text, rows[i][1], at + strlen(rows[i][0]));
    CHECK_FAILS(load_text(changed), BL_EINPUT, rows[i][2]);
  }
  free(text);
  bl_layout_free(&plan.layout);
  plan.has_layout = false;
  REQUIRE_OK(bl_plan_save(path, &plan));
  CHECK_FAILS(bl_plan_load(path, &again), BL_EINPUT, "expected a layout, of which this tells");
  bl_plan_free(&plan);
}

/* GOOD with one piece of text replaced. */
static bl_status load_changed(const char *from, const char *to) {
  char text[2048];
  const char *at = strstr(GOOD, from);
  if (!at) return BL_OK;
  snprintf(text, sizeof text, "%.*s%s%s", (int)(at - GOOD), GOOD, to, at + strlen(from));
  return load_text(text);
}

static void test_refused(void) {
  CHECK_FAILS(load_changed("\"version\":1", "\"version\":2"), BL_EINPUT, "version");
  CHECK_FAILS(load_changed("\"expert\":2", "\"expert\":8"), BL_EINPUT, "copies[0].expert");
  CHECK_FAILS(load_changed("\"rank\":0", "\"rank\":1"), BL_EINPUT, "rank 1 holds expert 2 twice");
  CHECK_FAILS(load_changed("\"share\":0.25", "\"share\":0"), BL_EINPUT, "share");
  CHECK_FAILS(load_changed("\"share\":0.25", "\"share\":1.5"), BL_EINPUT, "share");
  CHECK_FAILS(load_changed("\"slots\":3", "\"slots\":2"), BL_EINPUT, "rank 0 holds 3 experts in 2 slots");
  CHECK_FAILS(load_changed("\"slots\":3", "\"slots\":[3,3]"), BL_EINPUT, "slots");
  CHECK_FAILS(load_changed("[0,0,1", "[4,0,1"), BL_EINPUT, "home[0]");
  CHECK_FAILS(load_changed("[0,0,1", "[0.5,0,1"), BL_EINPUT, "home[0]");
  CHECK_FAILS(load_changed("\"dp\":4", "\"dp\":5"), BL_EINPUT, "different worlds");
  CHECK_FAILS(load_changed("[[0,1,2,3]]", "[[0,1,3,2]]"), BL_EINPUT, "stages");
  CHECK_FAILS(load_changed("[[0,1,2,3]]", "[[0],[1]]"), BL_EINPUT, "2 stages");
  CHECK_FAILS(load_changed("\"zero\":0", "\"zero\":2"), BL_EINPUT, "zero");
  CHECK_OK(load_changed("\"zero\":0", "\"zero\":0,\"recompute\":\"ffn\",\"pieces\":2,\"overlap\":\"exchange\""));
  CHECK_FAILS(load_changed("\"zero\":0", "\"zero\":0,\"recompute\":\"some\""), BL_EINPUT,
              "recompute is \"some\": expected none, selective, ffn or full");
  CHECK_FAILS(load_changed("\"zero\":0", "\"zero\":0,\"pieces\":0"), BL_EINPUT, "pieces");
  CHECK_FAILS(load_changed("\"zero\":0", "\"zero\":0,\"dispatch\":\"none\""), BL_EINPUT, "choices or nodes");
  CHECK_FAILS(load_changed("\"zero\":0", "\"zero\":0,\"zeroes\":1"), BL_EINPUT, "zeroes");
  CHECK_OK(load_changed("\"zero\":0", "\"zero\":3,\"shard\":2,\"gradients\":\"bf16\",\"type\":\"fp8\""));
  CHECK_FAILS(load_changed("\"zero\":0", "\"zero\":0,\"shard\":2"), BL_EINPUT, "shard is 2, but zero 0");
  CHECK_FAILS(load_changed("\"zero\":0", "\"zero\":1,\"shard\":3"), BL_EINPUT, "a divisor of cp x dp = 1 x 4");
  CHECK_FAILS(load_changed("\"zero\":0", "\"zero\":1,\"shard\":0"), BL_EINPUT, "layout.shard");
  CHECK_FAILS(load_changed("\"zero\":0", "\"zero\":1,\"shard\":\"2\""), BL_EINPUT, "layout.shard");
  CHECK_FAILS(load_changed("\"zero\":0", "\"zero\":0,\"gradients\":\"fp16\""), BL_EINPUT, "fp32 or bf16");
  CHECK_FAILS(load_changed("\"zero\":0", "\"zero\":0,\"copy_slots\":-1"), BL_EINPUT, "copy_slots");
  CHECK_FAILS(load_changed("\"zero\":0", "\"zero\":0,\"type\":\"\""), BL_EINPUT, "compute type");
  CHECK_FAILS(load_changed("\"zero\":0", "\"zero\":0,\"type\":\"a long name of a type\""), BL_EINPUT, "1 to 15");
  CHECK_FAILS(load_changed("\"zero\":0", "\"zero\":0,\"sequence\":0.5"), BL_EINPUT, "sequence");
  CHECK_FAILS(load_changed("\"zero\":0", "\"zero\":0,\"ranks_per_node\":0"), BL_EINPUT, "ranks_per_node");
  CHECK_FAILS(load_changed("\"ranks\":4", "\"ranks\":0"), BL_EINPUT, "ranks");
  CHECK_FAILS(load_text("{\"version\":1}"), BL_EINPUT, "neither");
  CHECK_FAILS(load_text(""), BL_EINPUT, path);
  bl_plan plan;
  CHECK_FAILS(bl_plan_load("/nonexistent/plan.json", &plan), BL_EINPUT, "/nonexistent/plan.json");
  put(GOOD, strlen(GOOD));
  REQUIRE_OK(bl_plan_load(path, &plan));
  CHECK_FAILS(bl_plan_save("/nonexistent/plan.json", &plan), BL_EINPUT, "/nonexistent/plan.json");
  bl_plan_free(&plan);
}

/* Every truncation and thousands of flipped bytes: an error or a plan that passes its own check, never a crash. */
static void test_damage(void) {
  char text[sizeof GOOD];
  bl_rng rng;
  bl_rng_seed(&rng, 11, 1);
  const size_t n = strlen(GOOD);
  const int rounds = check_is_small() ? 200 : 2000;
  for (int i = 0; i < rounds; ++i) {
    memcpy(text, GOOD, sizeof GOOD);
    size_t length = n;
    if (i % 2) {
      length = (size_t)bl_rng_below(&rng, n);
    } else {
      text[bl_rng_below(&rng, n)] = (char)bl_rng_below(&rng, 256);
    }
    put(text, length);
    bl_plan plan;
    const bl_status status = bl_plan_load(path, &plan);
    CHECK(status == BL_OK ? i % 2 == 0 : status == BL_EINPUT && strstr(bl_error_text(), path) != NULL);
    if (status != BL_OK) continue;
    if (plan.has_placement) CHECK_OK(bl_placement_check(&plan.placement, "damaged"));
    bl_plan_free(&plan);
  }
}

static void test_created(void) {
  bl_placement p;
  REQUIRE_OK(bl_placement_create(3, 8, 2, 0, &p));
  CHECK_INT(p.slots[0], 3);
  CHECK_INT(p.layer[1].home[7], 2);
  CHECK_OK(bl_placement_check(&p, "created"));
  const bl_copy copy = {0, 2, 0.5}, twice[2] = {{0, 2, 0.5}, {0, 2, 0.25}};
  CHECK_OK(bl_placement_set_copies(&p, 1, &copy, 1));
  CHECK_OK(bl_placement_check(&p, "created"));
  CHECK_OK(bl_placement_set_copies(&p, 1, twice, 2));
  CHECK_FAILS(bl_placement_check(&p, "created"), BL_EINPUT, "created: layer 1: rank 2 holds expert 0 twice");
  bl_placement_free(&p);
  CHECK_FAILS(bl_placement_create(0, 8, 2, 0, &p), BL_EINPUT, "on 0 ranks");
  CHECK_FAILS(bl_placement_create(9, 8, 2, 0, &p), BL_EINPUT, "on 9 ranks");
  CHECK_FAILS(bl_placement_create(4, 8, 2, 1, &p), BL_EINPUT, "1 slots a rank");
  bl_layout layout;
  REQUIRE_OK(bl_layout_default(&layout, 4, 6, 2, 1));
  CHECK_OK(bl_layout_check(&layout, 6, "default"));
  CHECK_FAILS(bl_layout_check(&layout, 7, "default"), BL_EINPUT, "6 layers, expected 7");
  bl_layout_free(&layout);
}

int main(void) {
  snprintf(path, sizeof path, "/tmp/bl_test_plan_%ld.json", (long)getpid());
  RUN(test_round_trip);
  RUN(test_search);
  RUN(test_refused);
  RUN(test_damage);
  RUN(test_created);
  remove(path);
  TEST_MAIN_END;
}
