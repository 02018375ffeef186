/* Memory of a rank under a layout, by hand: parameters, what is kept, micro-batches in flight. */
#include "tests/check.h"
#include "tests/unit/search_model.h"

/* -- memory -------------------------------------------------------------------------------------------------------- */

static void test_memory_by_hand(void) {
  bl_item_size size[BL_ITEM_COUNT];
  bl_footprint f;
  bl_grid g = {.tp = 2,
               .cp = 1,
               .dp = 4,
               .pp = 1,
               .vp = 1,
               .etp = 1,
               .ep = 4,
               .edp = 2,
               .micro_batch = 3,
               .micro_batches = 5,
               .copy_slots = 1};
  const double H = 1024, F = 2048, tokens = 3 * 1024;
  const double expert = 2 * H * F + F + H, attention = 4 * H * H + 4 * H + 2 * H, gate = 2 * H + 8 * H;
  bl_item_sizes(&model, &g, 2, 1.5, size);
  CHECK_NEAR(size[BL_ITEM_MOE].dense_parameters, attention / 2 + gate, 1e-6);
  CHECK_NEAR(size[BL_ITEM_MOE].expert_parameters, 2 * expert, 1e-6);
  CHECK_NEAR(size[BL_ITEM_MOE].copy_parameters, expert, 1e-6);
  /* norm1 in and out, q, k, v, the core's output and 16 sums; norm2 in and out, 8 scores, 3 rows of each input, fc1 and
   * activation. */
  const double kept = tokens / 2 * (2 * (6 * H) + 4 * 16 + 2 * 2 * H + 4 * 8 + 2 * 3 * (H + 2 * F));
  CHECK_NEAR(size[BL_ITEM_MOE].kept_bytes, kept, 1e-3);
  const int32_t count[BL_ITEM_COUNT] = {0, 0, 3, 0};
  const double dense = 3 * (attention / 2 + gate), experts = 6 * expert;
  bl_footprint_of(size, count, &g, 2, 2, &f);
  CHECK_NEAR(f.bytes[BL_FOOTPRINT_WEIGHTS], 2 * (dense + experts), 1);
  CHECK_NEAR(f.bytes[BL_FOOTPRINT_GRADIENTS], 4 * (dense + experts), 1);
  CHECK_NEAR(f.bytes[BL_FOOTPRINT_MOMENTS], 8 * (dense + experts), 1);
  CHECK_NEAR(f.bytes[BL_FOOTPRINT_COPIES], 6 * 3 * expert, 1);
  CHECK_NEAR(f.bytes[BL_FOOTPRINT_ACTIVATIONS], 2 * 3 * kept, 1);
  g.zero = 1;
  bl_footprint_of(size, count, &g, 2, 2, &f);
  CHECK_NEAR(f.bytes[BL_FOOTPRINT_GRADIENTS], 4 * (dense + experts), 1);
  CHECK_NEAR(f.bytes[BL_FOOTPRINT_MASTER], 4 * (dense / 4 + experts / 2), 1);
  g.zero = 3;
  bl_footprint_of(size, count, &g, 2, 2, &f);
  CHECK_NEAR(f.bytes[BL_FOOTPRINT_WEIGHTS], 2 * (dense / 4 + experts / 2), 1);
  g.recompute = BL_RECOMPUTE_FULL;
  bl_item_sizes(&model, &g, 2, 1.5, size);
  CHECK_NEAR(size[BL_ITEM_MOE].kept_bytes, tokens / 2 * 2 * H, 1e-3);
}

static void test_blocks_by_hand(void) {
  bl_item_size size[BL_ITEM_COUNT];
  bl_model m = model;
  int32_t count[BL_ITEM_COUNT];
  const bl_grid g = {
      .tp = 2, .cp = 1, .dp = 4, .pp = 1, .vp = 1, .etp = 1, .ep = 4, .edp = 2, .micro_batch = 1, .micro_batches = 1};
  add_state_space(&m);
  bl_items_of_model(&m, count);
  static const int32_t wanted[BL_ITEM_COUNT] = {1, 0, 0, 1, 2, 1, 1, 2};
  for (int i = 0; i < BL_ITEM_COUNT; i++) CHECK_INT(count[i], wanted[i]);
  bl_item_sizes(&m, &g, 2, 1, size);
  const double H = 1024, inner = 128, both = 2 * 2 * 16, part = 1024 / 2.0;
  /* in, convolution with bias, decay, step and skip of 4 heads, norm, out; two norms' vectors. */
  const double mixer = H * (2 * inner + both + 4) + 5 * (inner + both) + 3 * 4 + inner + inner * H + 2 * H;
  CHECK_NEAR(size[BL_ITEM_STATE_SPACE].dense_parameters, mixer / 2, 1e-6);
  CHECK_NEAR(size[BL_ITEM_STATE_SPACE].kept_bytes, part * 2 * (2 * H + 2 * inner + both + 4 + 2 * inner), 1e-6);
  CHECK_NEAR(size[BL_ITEM_STATE_SPACE].expert_parameters, 0, 0);
  /* The gate with its norm and both latent projections; two homes that read and write 256 numbers, with biases. */
  CHECK_NEAR(size[BL_ITEM_EXPERTS].dense_parameters, 2 * H + 8 * H + 2 * 256 * H, 1e-6);
  CHECK_NEAR(size[BL_ITEM_EXPERTS].expert_parameters, 2 * (2 * 256 * 2048 + 2048 + 256), 1e-6);
  const double rows = 2 * (256 + 2 * 2048.0);
  CHECK_NEAR(size[BL_ITEM_EXPERTS].kept_bytes, part * (2 * 2 * H + 4 * 8 + 2 * 2 * 256 + 2 * rows), 1e-6);
  const double both_kinds = size[BL_ITEM_ATTENTION].kept_bytes + size[BL_ITEM_EXPERTS].kept_bytes;
  CHECK_NEAR(size[BL_ITEM_MOE].kept_bytes, both_kinds, 1e-6);
}

/* DeepSeek-V3 by hand: latent attention, gated experts of which 256 / 64 are at home, a shared one, one module more. */
static void test_deepseek_by_hand(void) {
  bl_model m;
  bl_item_size size[BL_ITEM_COUNT];
  const bl_grid g = {.tp = 1, .cp = 1, .dp = 64, .pp = 1, .vp = 1, .etp = 1, .ep = 64, .edp = 1, .micro_batch = 1};
  REQUIRE_OK(bl_model_load("costmodel/models/deepseek-v3.json", &m));
  bl_item_sizes(&m, &g, 2, 1, size);
  const double H = 7168, queries = 1536 * H + 1536 + 128.0 * 192 * 1536;
  const double keys = (512 + 64) * H + 512 + 128.0 * 256 * 512, out = H * 128 * 128;
  const double expert = 3 * H * 2048, dense = H + queries + keys + out + H + 256 * H + 256 + expert;
  CHECK_NEAR(size[BL_ITEM_MOE].dense_parameters, dense, 1);
  CHECK_NEAR(size[BL_ITEM_MOE].expert_parameters, 4 * expert, 1);
  CHECK_NEAR(size[BL_ITEM_DENSE].dense_parameters, dense - 256 * H - 256 - expert + 3 * H * 18432, 1);
  /* Norm in and out, latents with theirs and the turned part, queries, keys and values, the core's output and a sum a
   * head; norm in and out, the shared expert, scores, eight rows with gate, value and product. */
  const double attention = 2 * (2 * H + 2 * (1536 + 512) + 64 + 128 * (192 + 192 + 128) + 128 * 128) + 4 * 128;
  const double rest = 2 * (2 * H + 3 * 2048) + 4 * 256 + 2 * 8 * (H + 3 * 2048);
  CHECK_NEAR(size[BL_ITEM_MOE].kept_bytes, 4096 * (attention + rest), 1);
  /* The module: a projection of two rows to one with three norms, and a layer. */
  CHECK_NEAR(size[BL_ITEM_HEAD].dense_parameters, H + 129280 * H + 2 * H * H + 3 * H + dense, 1);
  CHECK_NEAR(size[BL_ITEM_HEAD].expert_parameters, 4 * expert, 1);
  CHECK_NEAR(size[BL_ITEM_HEAD].kept_bytes, size[BL_ITEM_MOE].kept_bytes, 1);
}

/* Grouped queries: Grok-1's 8 keys and values for 48 queries, gated experts of width 32768, on tp 4 and etp 4. */
static void test_grok_by_hand(void) {
  bl_model m;
  bl_item_size size[BL_ITEM_COUNT];
  const bl_grid g = {.tp = 4, .cp = 2, .dp = 8, .pp = 8, .vp = 8, .etp = 4, .ep = 2, .edp = 2, .micro_batch = 1};
  REQUIRE_OK(bl_model_load("costmodel/models/grok-1.json", &m));
  bl_item_sizes(&m, &g, 2, 1, size);
  const double H = 6144, attention = H * (48 + 8 + 8) * 128 + 48 * 128 * H + H;
  CHECK_NEAR(size[BL_ITEM_MOE].dense_parameters, attention / 4 + H + 8 * H, 1);
  CHECK_NEAR(size[BL_ITEM_MOE].expert_parameters, 4 * 3 * H * 32768 / 4, 1);
  const double part = 8192 / 2 / 4.0; /* etp gathers rows: four ranks' of them, each a fourth of the width */
  const double kept =
      2 * (2 * H + (48 + 16) * 128 + 48 * 128) + 4 * 48 + 2 * 2 * H + 4 * 8 + 2 * 2 * (4 * H + 3 * 32768);
  CHECK_NEAR(size[BL_ITEM_MOE].kept_bytes, part * kept, 1);
}

static void test_in_flight(void) {
  bl_grid g = {.pp = 4, .vp = 1, .micro_batches = 8};
  for (int32_t d = 0; d < 4; d++) CHECK_NEAR(bl_grid_in_flight(&g, d), 4 - d, 0);
  g.micro_batches = 2;
  CHECK_NEAR(bl_grid_in_flight(&g, 0), 2, 0);
  g = (bl_grid){.pp = 4, .vp = 2, .micro_batches = 8};
  CHECK_NEAR(bl_grid_in_flight(&g, 0), 11 / 2.0, 0); /* 2 x 3 + 4 + 1 stages */
  CHECK_NEAR(bl_grid_in_flight(&g, 3), 5 / 2.0, 0);
  g.overlap = true;
  CHECK_NEAR(bl_grid_in_flight(&g, 3), 5 / 2.0, 0); /* without expert parallelism nothing is exchanged */
  g.ep = 8;
  CHECK_NEAR(bl_grid_in_flight(&g, 3), 6 / 2.0, 0);
  g.recompute = BL_RECOMPUTE_FFN;
  CHECK_NEAR(bl_grid_in_flight(&g, 3), 5 / 2.0, 0);
}

/* A narrower type keeps narrower inputs of its products; what the core and activations read stays as wide. */
static void test_input_bytes(void) {
  bl_item_size wide[BL_ITEM_COUNT], narrow[BL_ITEM_COUNT];
  bl_grid g = {.tp = 1, .cp = 1, .dp = 4, .pp = 1, .vp = 1, .etp = 1, .ep = 4, .edp = 1, .micro_batch = 1};
  bl_item_sizes(&model, &g, 2, 1, wide);
  g.input_bytes = 1;
  bl_item_sizes(&model, &g, 2, 1, narrow);
  /* Of 1024 tokens: norm1's output becomes narrow, the core's output is kept once more; norm2's output, and of two
   * choices a row each and the activation's 2048 numbers. */
  CHECK_NEAR(wide[BL_ITEM_MOE].kept_bytes - narrow[BL_ITEM_MOE].kept_bytes,
             1024.0 * (1024 - 1024 + 1024 + 2 * (1024 + 2048)), 1e-3);
}

int main(void) {
  make_model();
  RUN(test_memory_by_hand);
  RUN(test_blocks_by_hand);
  RUN(test_deepseek_by_hand);
  RUN(test_grok_by_hand);
  RUN(test_in_flight);
  RUN(test_input_bytes);
  TEST_MAIN_END;
}
