/* Step programs of all layouts that a search proposes: every position is sound, all ranks together end, whatever the
 * passes do; and the checker sees when they do not. */
#include "base/rng.h"
#include "costmodel/footprint.h"
#include "planner/passes/passes.h"
#include "tests/check.h"

enum { MAX_POSITIONS = 8, MAX_RANKS = 64 };

typedef struct pipeline {
  bl_model model;
  bl_layout layout;
  bl_step step[MAX_POSITIONS];
  int32_t built;
} pipeline;

static void done(pipeline *p) {
  for (int32_t s = 0; s < p->built; s++) bl_step_free(&p->step[s]);
  bl_layout_free(&p->layout);
  memset(p, 0, sizeof *p);
}

/* `sizes`: tp cp dp pp vp etp ep zero recompute micro-batches modules, and 1 for layers of one block
 * each. Stages are uneven on purpose, one is empty. */
static bool build(pipeline *p, const int32_t *sizes, bool inline_exchanges, bool beside) {
  const bl_step_options options = {.copies = true, .ranks_per_node = 4, .exchanges_inline = inline_exchanges};
  memset(p, 0, sizeof *p);
  bl_model_default(&p->model);
  p->model.layers = 7;
  p->model.moe_first_layer = 1, p->model.moe_every = 2;
  p->model.shared_experts = 1, p->model.shared_width = 64;
  p->model.multi_token = sizes[10];
  if (sizes[11]) {
    snprintf(p->model.pattern, sizeof p->model.pattern, "M*E-EMM");
    p->model.state_heads = 4, p->model.state_head_width = 32, p->model.state_width = 16, p->model.state_groups = 2;
    p->model.state_convolution = 4, p->model.state_chunk = 64;
  }
  if (bl_layout_default(&p->layout, 1, p->model.layers, 1, sizes[9]) != BL_OK) return false;
  bl_layout *l = &p->layout;
  l->tp = sizes[0], l->cp = sizes[1], l->dp = sizes[2], l->pp = sizes[3], l->vp = sizes[4], l->etp = sizes[5];
  l->ep = sizes[6], l->edp = l->tp * l->cp * l->dp / l->etp / l->ep, l->zero = sizes[7], l->recompute = sizes[8];
  l->n_stages = l->pp * l->vp;
  l->stage_first = realloc(l->stage_first, ((size_t)l->n_stages + 1) * sizeof *l->stage_first);
  if (!l->stage_first) return false;
  for (int32_t s = 0; s <= l->n_stages; s++) l->stage_first[s] = s == 1 && l->n_stages > 1 ? 0 : 7 * s / l->n_stages;
  for (; p->built < l->pp; p->built++) {
    bl_step *step = &p->step[p->built];
    if (bl_step_build(&p->model, l, &options, p->built, step) != BL_OK) return false;
    if (bl_pass_pieces(step, beside ? 3 : 1) != BL_OK || bl_step_check(step) != BL_OK) return false;
    if (bl_pass_pipeline(step, beside) != BL_OK || bl_pass_reduce_early(step) != BL_OK) return false;
  }
  return true;
}

static bl_status check_together(pipeline *p) {
  const bl_step *ranks[MAX_RANKS];
  const int32_t world = bl_layout_world(&p->layout);
  for (int32_t s = 0; s < p->layout.pp; s++) BL_TRY(bl_step_check(&p->step[s]));
  for (int32_t r = 0; r < world; r++) ranks[r] = &p->step[r / (world / p->layout.pp)];
  return bl_steps_check(ranks, &p->layout, false);
}

static void check_one(const int32_t *sizes, bool inline_exchanges, bool beside) {
  pipeline p;
  const int32_t before = atomic_load(&check_n_failed);
  CHECK(build(&p, sizes, inline_exchanges, beside));
  CHECK_OK(check_together(&p));
  if (atomic_load(&check_n_failed) > before) {
    for (int i = 0; i < 12; i++) printf(" %d", sizes[i]);
    printf(" inline %d beside %d: %s\n", inline_exchanges, beside, bl_error_text());
  }
  done(&p);
}

static void test_each_size(void) {
  static const int32_t cases[][12] = {
      {1, 1, 4, 1, 1, 1, 4, 0, 0, 3, 0},    {2, 1, 2, 1, 1, 1, 4, 0, 0, 2, 0},   {1, 2, 2, 1, 1, 1, 2, 0, 0, 2, 0},
      {2, 2, 1, 1, 1, 2, 2, 0, 0, 2, 0},    {1, 1, 4, 1, 1, 1, 2, 1, 0, 2, 0},   {1, 1, 4, 1, 1, 1, 2, 3, 0, 2, 0},
      {1, 1, 2, 1, 1, 1, 2, 0, 1, 2, 0},    {1, 1, 2, 1, 1, 1, 2, 0, 2, 2, 0},   {1, 1, 2, 1, 1, 1, 2, 0, 3, 2, 0},
      {1, 1, 2, 2, 1, 1, 2, 0, 0, 4, 0},    {1, 1, 1, 4, 1, 1, 1, 0, 0, 2, 0},   {1, 1, 1, 4, 1, 1, 1, 0, 0, 7, 1},
      {1, 1, 1, 2, 2, 1, 1, 0, 0, 4, 0},    {1, 1, 1, 3, 2, 1, 1, 1, 3, 9, 2},   {1, 1, 1, 4, 2, 1, 1, 3, 2, 4, 1},
      {2, 1, 2, 2, 3, 2, 2, 1, 3, 6, 1},    {1, 1, 1, 1, 1, 1, 1, 3, 3, 3, 2},   {2, 2, 1, 1, 1, 2, 2, 0, 3, 2, 0, 1},
      {1, 2, 2, 2, 2, 1, 2, 3, 1, 4, 1, 1}, {2, 1, 2, 2, 1, 1, 4, 1, 2, 3, 0, 1}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    for (int k = 0; k < 4; k++) check_one(cases[i], k & 1, k & 2);
}

static void test_random_layouts(void) {
  bl_rng rng;
  bl_rng_seed(&rng, 7, 0);
  const int n = check_is_small() ? 10 : 60;
  for (int i = 0; i < n; i++) {
    int32_t s[12];
    for (int k = 0; k < 11; k++) s[k] = 1 << bl_rng_below(&rng, 2);
    s[3] = 1 + (int32_t)bl_rng_below(&rng, 5);
    s[4] = s[3] > 1 ? 1 + (int32_t)bl_rng_below(&rng, 3) : 1;
    s[7] = (const int32_t[]){0, 1, 3}[bl_rng_below(&rng, 3)];
    s[8] = (int32_t)bl_rng_below(&rng, BL_RECOMPUTE_COUNT);
    s[9] = s[4] > 1 ? s[3] * (1 + (int32_t)bl_rng_below(&rng, 3)) : 1 + (int32_t)bl_rng_below(&rng, 8);
    s[10] = (int32_t)bl_rng_below(&rng, 3);
    s[11] = (int32_t)bl_rng_below(&rng, 2);
    if (s[5] * s[6] > s[0] * s[1] * s[2]) s[5] = s[6] = 1;
    check_one(s, bl_rng_below(&rng, 2), bl_rng_below(&rng, 2));
  }
}

/* The order of blocks at the positions of 1F1B, by hand: 4 positions, 5 micro-batches. */
static void test_one_forward_one_backward(void) {
  static const int32_t sizes[12] = {1, 1, 1, 4, 1, 1, 1, 0, 0, 5, 0};
  static const char *const wanted[4] = {"F0F1F2F3B0F4B1B2B3B4", "F0F1F2B0F3B1F4B2B3B4", "F0F1B0F2B1F3B2F4B3B4",
                                        "F0B0F1B1F2B2F3B3F4B4"};
  pipeline p;
  REQUIRE(build(&p, sizes, false, false));
  for (int32_t s = 0; s < 4; s++) {
    char text[64] = "";
    size_t n = 0;
    for (int32_t i = 0; i < p.step[s].n_actions && n + 3 < sizeof text; i++) {
      const bl_action *a = &p.step[s].actions[p.step[s].order[i]];
      if (a->kind != BL_ACTION_ATTENTION_FWD && a->kind != BL_ACTION_ATTENTION_BWD) continue;
      const char letter = a->part == BL_STEP_FORWARD ? 'F' : 'B';
      const char digit = (char)('0' + a->micro_batch);
      if (n >= 2 && text[n - 2] == letter && text[n - 1] == digit) continue;
      text[n++] = letter, text[n++] = digit, text[n] = '\0';
    }
    if (n > 0) CHECK_STRING(text, wanted[s]); /* the empty stage has no attention */
  }
  done(&p);
}

/* Forwards that an interleaved position issues before its first backward (arXiv 2104.04473, figure 4). */
static void test_interleaved_warm_up(void) {
  static const int32_t sizes[12] = {1, 1, 1, 4, 2, 1, 1, 0, 0, 8, 0};
  pipeline p;
  REQUIRE(build(&p, sizes, false, false));
  for (int32_t s = 0; s < 4; s++) {
    bool seen[2][8] = {{false}};
    int32_t n = 0;
    for (int32_t i = 0; i < p.step[s].n_actions; i++) {
      const bl_action *a = &p.step[s].actions[p.step[s].order[i]];
      if (a->part == BL_STEP_BACKWARD) break;
      if (a->part != BL_STEP_FORWARD || a->micro_batch < 0 || seen[a->chunk][a->micro_batch]) continue;
      seen[a->chunk][a->micro_batch] = true;
      n++;
    }
    CHECK_INT(n, 2 * (3 - s) + 4 + 1);
  }
  done(&p);
}

/* With one chunk's blocks in another order than the neighbours', alone each position is sound, together they hang. */
static void test_transfers_out_of_order(void) {
  static const int32_t sizes[12] = {1, 1, 1, 2, 1, 1, 1, 0, 0, 2, 0};
  pipeline p;
  REQUIRE(build(&p, sizes, false, false));
  int32_t sends[2], n = 0;
  for (int32_t i = 0; i < p.step[0].n_actions; i++)
    if (p.step[0].actions[p.step[0].order[i]].kind == BL_ACTION_SEND_ACTIVATION && n < 2) sends[n++] = i;
  REQUIRE(n == 2);
  p.step[0].actions[p.step[0].order[sends[0]]].micro_batch = 1;
  p.step[0].actions[p.step[0].order[sends[1]]].micro_batch = 0;
  CHECK_FAILS(check_together(&p), BL_EINPUT, "rank 1 expects recv_activation");
  done(&p);
}

/* Position 0 wants the first gradient before it starts the second micro-batch, position 1 the second micro-batch before
 * it starts any backward: each is sound alone, together no rank can go on. */
static void test_cycle_through_the_pipeline(void) {
  static const int32_t sizes[12] = {1, 1, 1, 2, 1, 1, 1, 0, 0, 2, 0};
  pipeline p;
  REQUIRE(build(&p, sizes, false, false));
  const bl_step *ranks[2] = {&p.step[0], &p.step[1]};
  CHECK_OK(bl_steps_check(ranks, &p.layout, false));
  for (int32_t i = 0; i < p.step[0].n_actions; i++) p.step[0].order[i] = i;
  CHECK_OK(bl_steps_check(ranks, &p.layout, false)); /* slow, but it ends */
  int32_t n = 0;
  for (int part = BL_STEP_BEGIN; part <= BL_STEP_END; part++)
    for (int32_t a = 0; a < p.step[1].n_actions; a++)
      if ((int)p.step[1].actions[a].part == part) p.step[1].order[n++] = a;
  CHECK_OK(bl_step_check(&p.step[1]));
  CHECK_FAILS(bl_steps_check(ranks, &p.layout, false), BL_EINPUT, "no rank can go on");
  done(&p);
}

int main(void) {
  RUN(test_each_size);
  RUN(test_random_layouts);
  RUN(test_one_forward_one_backward);
  RUN(test_interleaved_warm_up);
  RUN(test_transfers_out_of_order);
  RUN(test_cycle_through_the_pipeline);
  TEST_MAIN_END;
}
