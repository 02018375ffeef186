/* The step program: what it contains, in which order, and that the checker names every way of breaking it. */
#include "costmodel/step.h"
#include "tests/check.h"

static bl_model model;
static bl_layout layout;
static const bl_step_options everything = {.moves = true, .copies = true, .late_repair = true};

/* The default model on 4 ranks with 2 micro-batches. */
static bool build(bl_step *step, const bl_step_options *options) {
  bl_model_default(&model);
  if (bl_layout_default(&layout, 4, model.layers, 2, 2) != BL_OK) return false;
  return bl_step_build(&model, &layout, options, 0, step) == BL_OK;
}

static void done(bl_step *step) {
  bl_step_free(step);
  bl_layout_free(&layout);
}

static int32_t find(const bl_step *step, bl_action_kind kind, int32_t layer, int32_t micro_batch) {
  for (int32_t a = 0; a < step->n_actions; a++)
    if (step->actions[a].kind == kind && step->actions[a].layer == layer && step->actions[a].micro_batch == micro_batch)
      return a;
  return -1;
}

static int32_t count(const bl_step *step, bl_action_kind kind) {
  int32_t n = 0;
  for (int32_t a = 0; a < step->n_actions; a++) n += step->actions[a].kind == kind;
  return n;
}

static bool waits_directly(const bl_step *step, int32_t a, int32_t other) {
  for (int32_t i = 0; i < step->actions[a].n_waits; i++)
    if (step->waits[step->actions[a].first_wait + i] == other) return true;
  return false;
}

static void test_contents(void) {
  bl_step step;
  REQUIRE(build(&step, &everything));
  CHECK_INT(count(&step, BL_ACTION_ATTENTION_FWD), 4 * 2);
  CHECK_INT(count(&step, BL_ACTION_DISPATCH), 4 * 2);
  CHECK_INT(count(&step, BL_ACTION_HEAD), 2);
  CHECK_INT(count(&step, BL_ACTION_COPY_FILL), 4);
  CHECK_INT(count(&step, BL_ACTION_COPY_REDUCE), 4);
  CHECK_INT(count(&step, BL_ACTION_LATE_FILL), 4 * 2);
  CHECK_INT(count(&step, BL_ACTION_DENSE_REDUCE), 5);
  CHECK_INT(count(&step, BL_ACTION_OPTIMIZER), 5);
  CHECK_INT(count(&step, BL_ACTION_EXPERT_REDUCE), 0);
  CHECK_INT(count(&step, BL_ACTION_FFN_FWD), 0);
  done(&step);
  const bl_step_options bare = {0};
  REQUIRE(build(&step, &bare));
  CHECK_INT(count(&step, BL_ACTION_COPY_FILL) + count(&step, BL_ACTION_MOVE_HOME) + count(&step, BL_ACTION_LATE_FILL),
            0);
  done(&step);
}

static void test_waits(void) {
  bl_step step;
  REQUIRE(build(&step, &everything));
  const int32_t dispatch = find(&step, BL_ACTION_DISPATCH, 2, 1), expert = find(&step, BL_ACTION_EXPERT_FWD, 2, 1);
  CHECK(waits_directly(&step, expert, dispatch));
  /* The fill of a layer is under its attention: the attention does not wait for it, the experts do (late repair, which
     rewrites copies, stands between). */
  const int32_t fill = find(&step, BL_ACTION_COPY_FILL, 2, -1), late = find(&step, BL_ACTION_LATE_FILL, 2, 0);
  CHECK(fill < find(&step, BL_ACTION_ATTENTION_FWD, 2, 0));
  CHECK(!waits_directly(&step, find(&step, BL_ACTION_ATTENTION_FWD, 2, 0), fill));
  CHECK(waits_directly(&step, late, fill));
  CHECK(waits_directly(&step, find(&step, BL_ACTION_EXPERT_FWD, 2, 0), late));
  /* Copies' gradients go home after the last micro-batch, before norm and update. */
  const int32_t reduce = find(&step, BL_ACTION_COPY_REDUCE, 2, -1);
  CHECK(waits_directly(&step, reduce, find(&step, BL_ACTION_EXPERT_DW, 2, 1)));
  CHECK(waits_directly(&step, find(&step, BL_ACTION_SQUARE_GRADS, 2, -1), reduce));
  CHECK(waits_directly(&step, find(&step, BL_ACTION_OPTIMIZER, 2, -1), find(&step, BL_ACTION_GRAD_NORM, -1, -1)));
  done(&step);
}

static void test_other_models(void) {
  bl_step step;
  bl_step_options options = everything;
  bl_model_default(&model);
  model.shared_experts = 1;
  model.shared_width = 512;
  model.moe_first_layer = 1;
  model.moe_every = 2;
  REQUIRE_OK(bl_layout_default(&layout, 4, model.layers, 1, 1));
  layout.ep = 2;
  layout.edp = 2;
  options.ranks_per_node = 2;
  REQUIRE_OK(bl_step_build(&model, &layout, &options, 0, &step));
  CHECK_INT(count(&step, BL_ACTION_FFN_FWD), 3);
  CHECK_INT(count(&step, BL_ACTION_SHARED_BWD), 1);
  CHECK_INT(count(&step, BL_ACTION_EXPERT_REDUCE), 1);
  CHECK(step.actions[find(&step, BL_ACTION_DISPATCH, 2, 0)].resource == BL_RESOURCE_INTRA_LINK);
  CHECK(step.actions[find(&step, BL_ACTION_DENSE_REDUCE, 2, -1)].resource == BL_RESOURCE_INTER_LINK);
  bl_step_free(&step);
  CHECK_FAILS(bl_step_build(&model, &layout, &options, 1, &step), BL_EINPUT, "the layout has 1");
  bl_layout_free(&layout);
}

/* One block a layer: each reads what the one before wrote, with nothing between mixer and feed-forward. */
static void test_layers_of_one_block(void) {
  bl_step step;
  bl_model_default(&model);
  snprintf(model.pattern, sizeof model.pattern, "M*-E");
  model.state_heads = 4, model.state_head_width = 32, model.state_width = 16, model.state_groups = 2;
  model.state_convolution = 4, model.state_chunk = 64;
  REQUIRE_OK(bl_layout_default(&layout, 4, model.layers, 1, 2));
  REQUIRE_OK(bl_step_build(&model, &layout, &everything, 0, &step));
  static const bl_action_kind forward[] = {BL_ACTION_STATE_SPACE_FWD, BL_ACTION_ATTENTION_FWD, BL_ACTION_FFN_FWD,
                                           BL_ACTION_GATE_FWD};
  static const bl_action_kind backward[] = {BL_ACTION_STATE_SPACE_BWD, BL_ACTION_ATTENTION_BWD, BL_ACTION_FFN_BWD,
                                            BL_ACTION_GATE_BWD};
  for (int32_t l = 0; l < 4; l++) {
    CHECK_INT(count(&step, forward[l]), 2);
    CHECK_INT(count(&step, backward[l]), 2);
    CHECK(find(&step, forward[l], l, 1) >= 0);
    if (l == 0) continue;
    CHECK(waits_directly(&step, find(&step, forward[l], l, 1), find(&step, forward[l - 1], l - 1, 1)));
    CHECK(waits_directly(&step, find(&step, backward[l - 1], l - 1, 1), find(&step, backward[l], l, 1)));
  }
  CHECK_INT(count(&step, BL_ACTION_DISPATCH), 2);
  CHECK_INT(count(&step, BL_ACTION_COPY_FILL), 1);
  for (int32_t b = 0; b < step.n_buffers; b++)
    CHECK(step.buffers[b].kind != BL_BUFFER_MID && step.buffers[b].kind != BL_BUFFER_DMID);
  bl_step_free(&step);
  layout.cp = 2, layout.dp = 2; /* sequences split over two: once each way, and on the way back */
  REQUIRE_OK(bl_step_build(&model, &layout, &everything, 0, &step));
  CHECK_INT(count(&step, BL_ACTION_HEADS_EXCHANGE), 2 * 2);
  CHECK_INT(count(&step, BL_ACTION_CONTEXT_RING) + count(&step, BL_ACTION_CONTEXT_RING_BWD), 2 * 2);
  done(&step);
}

static void swap_in_order(bl_step *step, int32_t a, int32_t b) {
  const int32_t kept = step->order[a];
  step->order[a] = step->order[b];
  step->order[b] = kept;
}

static void test_broken_order(void) {
  bl_step step;
  REQUIRE(build(&step, &everything));
  const int32_t dispatch = find(&step, BL_ACTION_DISPATCH, 1, 0), expert = find(&step, BL_ACTION_EXPERT_FWD, 1, 0);
  swap_in_order(&step, dispatch, expert);
  CHECK(bl_step_check(&step) == BL_EINPUT);
  CHECK_STRING(bl_error_text(), "step program: expert_fwd layer 1 micro-batch 0 is issued before dispatch layer 1 "
                                "micro-batch 0, for which it waits");
  /* Deriving the waits afresh does not heal it: the rows would be read before they exist. */
  CHECK_OK(bl_step_derive_waits(&step));
  CHECK(bl_step_check(&step) == BL_EINPUT);
  CHECK_STRING(bl_error_text(),
               "step program: expert_fwd layer 1 micro-batch 0 reads received (layer 1, micro-batch 0) "
               "before anything writes it");
  swap_in_order(&step, dispatch, expert);
  CHECK_OK(bl_step_derive_waits(&step));
  CHECK_OK(bl_step_check(&step));
  step.order[3] = step.order[4];
  CHECK(bl_step_check(&step) == BL_EINPUT);
  CHECK(strstr(bl_error_text(), "issued twice") != NULL);
  done(&step);
}

static void test_missing_wait(void) {
  bl_step step;
  REQUIRE(build(&step, &everything));
  /* The copies' gradients are summed by each micro-batch; without its waits the reduction would race with the last. */
  step.actions[find(&step, BL_ACTION_COPY_REDUCE, 3, -1)].n_waits = 0;
  CHECK(bl_step_check(&step) == BL_EINPUT);
  CHECK(strstr(bl_error_text(), "copy_reduce layer 3 does not wait for") != NULL);
  done(&step);
}

static void test_legal_reordering(void) {
  bl_step step;
  REQUIRE(build(&step, &everything));
  /* expert_dw may run before dispatch_bwd: nothing joins them. */
  const int32_t back = find(&step, BL_ACTION_DISPATCH_BWD, 0, 0), dw = find(&step, BL_ACTION_EXPERT_DW, 0, 0);
  CHECK_INT(dw, back + 1);
  swap_in_order(&step, back, dw);
  CHECK_OK(bl_step_check(&step));
  done(&step);
}

static void test_ranks_together(void) {
  bl_step step, other;
  REQUIRE(build(&step, &everything));
  bl_layout_free(&layout);
  REQUIRE(build(&other, &everything));
  const bl_step *ranks[4] = {&step, &step, &step, &step};
  CHECK_OK(bl_steps_check(ranks, &layout, false));
  CHECK_OK(bl_steps_check(ranks, &layout, true));
  /* Rank 2 fills layer 1 before layer 0: sound alone, a deadlock together. */
  swap_in_order(&other, find(&other, BL_ACTION_MOVE_HOME, 0, -1), find(&other, BL_ACTION_MOVE_HOME, 1, -1));
  CHECK_OK(bl_step_check(&other));
  ranks[2] = &other;
  CHECK(bl_steps_check(ranks, &layout, false) == BL_EINPUT);
  CHECK_STRING(bl_error_text(), "step programs: in their group ep rank 0 issues move_home layer 0 where rank 2 issues "
                                "move_home layer 1");
  bl_step_free(&other);
  done(&step);
}

/* Two ranks, two communicators of both, called in opposite orders: each communicator alone is fine, together they are a
 * cycle, unless the calls are on different resources. */
static void cross(bl_step *step, bool expert_first, bl_resource second) {
  const bl_action_kind kinds[2] = {BL_ACTION_EXCHANGE_COUNTS, BL_ACTION_GRAD_NORM};
  CHECK_OK(bl_step_begin(step, &layout, 1, 0, 0));
  step->link[BL_GROUP_WORLD] = second;
  for (int i = 0; i < 2; i++) CHECK_OK(bl_step_add(step, kinds[expert_first ? i : 1 - i], 0, 0));
  CHECK_OK(bl_step_derive_waits(step));
  CHECK_OK(bl_step_check(step));
}

static void test_cycle_over_resources(void) {
  bl_step a, b;
  REQUIRE_OK(bl_layout_default(&layout, 2, 1, 1, 1));
  cross(&a, true, BL_RESOURCE_INTRA_LINK);
  cross(&b, false, BL_RESOURCE_INTRA_LINK);
  const bl_step *ranks[2] = {&a, &b};
  CHECK(bl_steps_check(ranks, &layout, false) == BL_EINPUT);
  CHECK_STRING(
      bl_error_text(),
      "step programs: no rank can go on: rank 0 is at exchange_counts layer 0 micro-batch 0 (group ep), rank 1 "
      "at grad_norm layer 0 micro-batch 0");
  bl_step_free(&a);
  bl_step_free(&b);
  cross(&a, true, BL_RESOURCE_INTER_LINK);
  cross(&b, false, BL_RESOURCE_INTER_LINK);
  CHECK_OK(bl_steps_check(ranks, &layout, false));
  CHECK(bl_steps_check(ranks, &layout, true) == BL_EINPUT);
  done(&a);
  bl_step_free(&b);
}

static void test_groups(void) {
  bl_layout l = {.tp = 2, .cp = 1, .dp = 4, .pp = 2, .vp = 1, .etp = 1, .ep = 4, .edp = 2};
  int32_t members[16];
  CHECK_INT(bl_layout_world(&l), 16);
  CHECK_INT(bl_group_members(&l, BL_GROUP_TP, 13, members), 1);
  CHECK(members[0] == 12 && members[1] == 13);
  CHECK_INT(bl_group_members(&l, BL_GROUP_DP, 13, members), 2);
  CHECK(members[0] == 9 && members[1] == 11 && members[2] == 13 && members[3] == 15);
  CHECK_INT(bl_group_members(&l, BL_GROUP_EP, 13, members), 1);
  CHECK(members[0] == 12 && members[3] == 15);
  CHECK_INT(bl_group_members(&l, BL_GROUP_EDP, 13, members), 1);
  CHECK(members[0] == 9 && members[1] == 13);
  CHECK_INT(bl_group_members(&l, BL_GROUP_PP, 13, members), 1);
  CHECK(members[0] == 5 && members[1] == 13);
}

int main(void) {
  RUN(test_contents);
  RUN(test_waits);
  RUN(test_other_models);
  RUN(test_layers_of_one_block);
  RUN(test_broken_order);
  RUN(test_missing_wait);
  RUN(test_legal_reordering);
  RUN(test_ranks_together);
  RUN(test_cycle_over_resources);
  RUN(test_groups);
  TEST_MAIN_END;
}
