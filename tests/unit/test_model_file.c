/* The model file: round trip, sizes against published counts, and refusals that name the key. */
#include "costmodel/model.h"
#include "tests/check.h"
#include <unistd.h>

static char path[64];

static bl_status load_text(const char *text, bl_model *model) {
  FILE *f = fopen(path, "wb");
  if (!f) return BL_EMACHINE;
  fputs(text, f);
  fclose(f);
  return bl_model_load(path, model);
}

static void test_default_model(void) {
  bl_model m;
  bl_model_counts c;
  bl_model_default(&m);
  CHECK_OK(bl_model_check(&m, "default"));
  CHECK_OK(bl_model_runs_on_executor(&m));
  bl_model_count(&m, &c);
  const int64_t H = 256, F = 1024, E = 8, L = 4;
  const int64_t expert = F * H + F + H * F + H;
  const int64_t layer = 2 * H + 3 * H * H + 3 * H + H * H + H + 2 * H + E * H;
  CHECK_INT(c.expert_parameters, L * E * expert);
  CHECK_INT(c.parameters, 256 * H + 128 * H + L * (layer + E * expert) + 2 * H);
  CHECK_INT(c.layer_macs_expert, 2 * F * H);
  CHECK_INT(c.macs_used, L * (4 * H * H + E * H + 2 * 2 * F * H) + 256 * H);
  CHECK_INT(c.macs_attention, L * 128 * 2 * H / 2);
}

static void test_names(void) {
  bl_model m;
  bl_tensor t[BL_PART_MAX_TENSORS];
  char name[BL_TENSOR_NAME_MAX];
  bl_model_default(&m);
  CHECK_INT(bl_model_tensors(&m, BL_PART_EXPERT, t), 4);
  bl_tensor_name(BL_PART_EXPERT, &t[2], 3, 7, name);
  CHECK_STRING(name, "layers.3.moe.experts.7.fc2.weight");
  CHECK(t[2].rows == 256 && t[2].cols == 1024 && t[2].init == BL_INIT_NORMAL_OUT && t[2].decay);
  CHECK_INT(bl_model_tensors(&m, BL_PART_ATTENTION, t), 6);
  bl_tensor_name(BL_PART_ATTENTION, &t[2], 0, 0, name);
  CHECK_STRING(name, "layers.0.attn.qkv.weight");
  CHECK_INT(bl_model_tensors(&m, BL_PART_GATE, t), 3);
  bl_tensor_name(BL_PART_GATE, &t[2], 1, 0, name);
  CHECK_STRING(name, "layers.1.moe.gate.weight");
  CHECK_INT(bl_model_tensors(&m, BL_PART_EMBED, t), 2);
  CHECK_INT(bl_model_tensors(&m, BL_PART_HEAD, t), 2);
}

/* DeepSeek-V3: 671 billion parameters, 37 billion used; 259.99 GFLOP a token with its multi-token layer counted
 * (derived from a published 769.5 TFLOP/s per GPU at 11.07 s a step). */
static const char deepseek_v3[] =
    "{\"version\":1,\"name\":\"deepseek-v3\",\"layers\":61,\"hidden\":7168,\"vocabulary\":129280,\"sequence\":4096,"
    "\"norm\":\"rms\",\"position\":\"rotary\",\"biases\":false,\"tied_embedding\":false,\"multi_token\":%d,"
    "\"attention\":{\"heads\":128,\"head_width\":128,\"latent\":{\"q_rank\":1536,\"kv_rank\":512,\"rope_width\":64,"
    "\"value_width\":128}},\"ffn\":{\"width\":18432,\"gated\":true},\"moe\":{\"experts\":256,\"width\":2048,"
    "\"top_k\":8,\"gated\":true,\"first_layer\":3,\"shared_experts\":1,\"score\":\"sigmoid\",\"score_bias\":true,"
    "\"groups\":8,\"group_top_k\":4}}";

static void test_deepseek_v3(void) {
  bl_model m;
  bl_model_counts c;
  char text[2048];
  snprintf(text, sizeof text, deepseek_v3, 0);
  REQUIRE_OK(load_text(text, &m));
  CHECK_INT(bl_model_moe_layers(&m), 58);
  bl_model_count(&m, &c);
  CHECK_NEAR((double)c.parameters, 671.0e9, 0.3e9);
  CHECK_NEAR((double)c.used_parameters, 37.5e9, 0.3e9);
  snprintf(text, sizeof text, deepseek_v3, 1);
  REQUIRE_OK(load_text(text, &m));
  const double gates = 6.0 * 59 * 7168 * 256; /* which the published figure leaves out */
  CHECK_NEAR((bl_model_training_flop(&m, 1, true) - gates) / 1e9, 259.99, 0.01);
  CHECK(bl_model_runs_on_executor(&m) == BL_ENOTSUP);
  CHECK_STRING(bl_error_text(), "model deepseek-v3: the executor does not run norm \"rms\"");
}

/* One block a layer, all of it by hand: a mixer of 4 heads of 8 with 2 groups of state 16 in chunks of 64, attention of
 * 2 heads of 8 with one key, experts on 6 numbers. */
static const char blocks[] =
    "{\"version\":1,\"layers\":4,\"hidden\":16,\"vocabulary\":32,\"sequence\":128,\"norm\":\"rms\",\"position\":"
    "\"rotary\",\"biases\":false,\"tied_embedding\":false,\"pattern\":\"%s\",\"attention\":{\"heads\":2,"
    "\"kv_heads\":1,\"head_width\":8},%s\"moe\":{\"experts\":8,\"width\":10,\"top_k\":3,\"latent\":6}}";
static const char mixer[] = "\"state_space\":{\"heads\":4,\"head_width\":8,\"state\":16,\"groups\":%d,\"chunk\":64},";

static void test_blocks(void) {
  bl_model m, back;
  bl_model_counts c;
  char text[1024], section[128];
  snprintf(section, sizeof section, mixer, 2);
  snprintf(text, sizeof text, blocks, "ME*-", section);
  REQUIRE_OK(load_text(text, &m));
  CHECK_INT(bl_model_layer_kind(&m, 0), BL_LAYER_STATE_SPACE);
  CHECK_INT(bl_model_layer_kind(&m, 1), BL_LAYER_EXPERTS);
  CHECK_INT(bl_model_layer_kind(&m, 2), BL_LAYER_ATTENTION);
  CHECK_INT(bl_model_layer_kind(&m, 3), BL_LAYER_FFN);
  CHECK_INT(bl_model_moe_layers(&m), 1);
  const int64_t inner = 4 * 8, both = 2 * 2 * 16, in = 16 * (2 * inner + both + 4), out = 16 * inner;
  const int64_t convolution = 4 * (inner + both), expert = 2 * 6 * 10, latent = 2 * 6 * 16;
  const int64_t attention = 16 * (2 + 2) * 8 + 16 * 16, ffn = 2 * 16 * 64, gate = 8 * 16;
  bl_model_count(&m, &c);
  CHECK_INT(c.parameters, 2 * 32 * 16 + 16 + (16 + in + convolution + inner + both + 3 * 4 + inner + out) +
                              (16 + attention) + (16 + ffn) + (16 + gate + latent + 8 * expert));
  CHECK_INT(c.used_parameters, c.parameters - 5 * expert);
  CHECK_INT(c.macs_used, 32 * 16 + in + convolution + out + attention + ffn + gate + latent + 3 * expert);
  /* The scan: 2 groups x 64 x 16, 32 x 64, and the state twice; scores and their application over half a sequence. */
  CHECK_INT(bl_model_scan_macs(&m), 2 * 64 * 16 + 32 * 64 + 2 * 32 * 16);
  CHECK_INT(c.macs_attention, bl_model_scan_macs(&m) + 2 * 16 * 128 / 2);
  CHECK(bl_model_runs_on_executor(&m) == BL_ENOTSUP);
  REQUIRE_OK(bl_model_save(path, &m));
  REQUIRE_OK(bl_model_load(path, &back));
  CHECK(memcmp(&m, &back, sizeof m) == 0);
  static const struct {
    const char *pattern;
    int32_t groups;
    const char *expected;
  } bad[] = {{"ME*", 2, "pattern: expected a letter for each of 4 layers, found 3"},
             {"ME*X", 2, "letter 4, found X"},
             {"ME*-", 0, "letter 1 is M, but there is no \"state_space\""},
             {"ME*-", 3, "state_space.groups: expected a divisor of 4"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    snprintf(section, sizeof section, mixer, bad[i].groups);
    snprintf(text, sizeof text, blocks, bad[i].pattern, bad[i].groups ? section : "");
    CHECK_FAILS(load_text(text, &m), BL_EINPUT, bad[i].expected);
  }
}

static void test_round_trip(void) {
  bl_model m, back;
  char text[2048];
  snprintf(text, sizeof text, deepseek_v3, 1);
  REQUIRE_OK(load_text(text, &m));
  REQUIRE_OK(bl_model_save(path, &m));
  REQUIRE_OK(bl_model_load(path, &back));
  CHECK(memcmp(&m, &back, sizeof m) == 0);
  bl_model_default(&m);
  REQUIRE_OK(bl_model_save(path, &m));
  REQUIRE_OK(bl_model_load(path, &back));
  CHECK(memcmp(&m, &back, sizeof m) == 0);
}

static void test_refusals(void) {
  static const struct {
    const char *text, *expected;
  } cases[] = {
      {"{\"version\":2}", "version"},
      {"{\"version\":1,\"layers\":4}", "hidden"},
      {"{\"version\":1,\"layers\":0,\"hidden\":8}", "layers"},
      {"{\"version\":1,\"layers\":1,\"hidden\":8,\"vocabulary\":8,\"sequence\":8,\"layer\":1}", "layer"},
      {"{\"version\":1,\"layers\":1,\"hidden\":8,\"vocabulary\":8,\"sequence\":8,\"norm\":\"batch\"}", "norm"},
      {"{\"version\":1,\"layers\":1,\"hidden\":8,\"vocabulary\":8,\"sequence\":8,\"attention\":{\"heads\":16}}",
       "head_width"},
      {"{\"version\":1,\"layers\":1,\"hidden\":8,\"vocabulary\":8,\"sequence\":8,\"attention\":{\"heads\":2},"
       "\"moe\":{\"experts\":4,\"width\":8,\"top_k\":5}}",
       "top_k"},
      {"{\"version\":1,\"layers\":1,\"hidden\":8,\"vocabulary\":8,\"sequence\":8,\"attention\":{\"heads\":2},"
       "\"moe\":{\"experts\":4,\"width\":8,\"top_k\":2,\"groups\":3}}",
       "groups"},
      {"{\"version\":1,\"layers\":4096,\"hidden\":262144,\"vocabulary\":8,\"sequence\":8,\"attention\":{\"heads\":2},"
       "\"moe\":{\"experts\":65536,\"width\":1048576,\"top_k\":2}}",
       "parameters"},
      {"", "model"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    bl_model m;
    CHECK(load_text(cases[i].text, &m) == BL_EINPUT);
    CHECK(strstr(bl_error_text(), path) != NULL);
    if (!check_count(strstr(bl_error_text(), cases[i].expected) != NULL))
      printf("case %zu: \"%s\" does not name %s\n", i, bl_error_text(), cases[i].expected);
  }
}

int main(void) {
  snprintf(path, sizeof path, "/tmp/ballast_test_model.%ld.json", (long)getpid());
  RUN(test_default_model);
  RUN(test_names);
  RUN(test_deepseek_v3);
  RUN(test_blocks);
  RUN(test_round_trip);
  RUN(test_refusals);
  unlink(path);
  TEST_MAIN_END;
}
