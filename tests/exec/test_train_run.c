/* test_train_run.c - whole runs of a tiny model, so that the sanitizers see all of the trainer: threads that exchange,
 * move, fill and reduce; logs, traces, dumps, checkpoints, going on; and ranks that fail. */
#include "base/file.h"
#include "executor/launch.h"
#include "tests/check.h"
#include <unistd.h>

static char folder[128];

static const char *in_folder(const char *name) {
  static char paths[16][200];
  static int next;
  char *path = paths[next++ % 16];
  snprintf(path, sizeof paths[0], "%s/%s", folder, name);
  return path;
}

static bool write_file(const char *path, const char *text) {
  FILE *file = fopen(path, "wb");
  return file && fputs(text, file) >= 0 && fclose(file) == 0;
}

static bool write_inputs(void) {
  char text[4000];
  for (size_t i = 0; i < sizeof text - 1; i++) text[i] = (char)('a' + (i * i / 11 + i) % 25);
  text[sizeof text - 1] = 0;
  return write_file(in_folder("text"), text) &&
         write_file(in_folder("model.json"),
                    "{\"version\":1,\"name\":\"tiny\",\"layers\":3,\"hidden\":16,\"vocabulary\":256,\"sequence\":16,"
                    "\"attention\":{\"heads\":2,\"head_width\":8},\"ffn\":{\"width\":24},"
                    "\"moe\":{\"experts\":6,\"width\":20,\"top_k\":2,\"first_layer\":1}}");
}

static bl_train_options options_for(int32_t ranks, const char *policy) {
  static char *argv[] = {"ballast-train", NULL};
  bl_train_options o;
  bl_train_options_init(&o);
  o.argc = 1;
  o.argv = argv;
  o.model = in_folder("model.json");
  o.data = in_folder("text");
  o.ranks = ranks;
  o.batch = 24;
  o.micro_batches = 2;
  o.steps = 10;
  o.policy.policy = policy;
  o.log = in_folder("log");
  o.dump = in_folder("dump");
  o.record_trace = in_folder("trace");
  return o;
}

/* The losses of a run log, as text. */
static void read_losses(const char *path, char *losses, size_t room) {
  char *text, *at;
  uint64_t size;
  losses[0] = 0;
  REQUIRE_OK(bl_file_read(path, 1 << 24, &text, &size));
  for (at = text; (at = strstr(at, "\"loss\":")) != NULL; at++)
    snprintf(losses + strlen(losses), room - strlen(losses), "%.*s ", (int)strcspn(at, ","), at);
  free(text);
}

static void check_same(const char *policy, double late_repair, const char *homes, int32_t ranks) {
  char first[2000], second[2000];
  bl_train_options o = options_for(ranks, policy);
  o.policy.late_repair = late_repair;
  o.policy.homes = homes;
  o.checkpoint = in_folder("checkpoint");
  o.checkpoint_every = 3;
  REQUIRE_OK(bl_launch(&o));
  read_losses(o.log, first, sizeof first);
  CHECK(strlen(first) > 100);
  o.steps = 5;
  o.schedule_steps = 10;
  REQUIRE_OK(bl_launch(&o));
  o.steps = 10;
  o.resume = o.checkpoint;
  REQUIRE_OK(bl_launch(&o));
  read_losses(o.log, second, sizeof second);
  CHECK_STRING(first, second);
}

static void test_policies(void) {
  check_same("static", 0, "fixed", 4);
  check_same("smartmoe:2", 0, "fixed", 3);
  check_same("eplb:2", 0, "fixed", 4);
  check_same("fastermoe", 0, "fixed", 2);
  check_same("ballast", 1.01, "fixed", 4);
  check_same("ballast", 0, "free", 3);
  check_same("ballast", 1.01, "cost", 2);
}

/* Two groups of two ranks with replicas of each other's experts. */
static void test_replicas(void) {
  static const char *const policies[] = {"smartmoe:2", "ballast", "fastermoe"};
  for (size_t i = 0; i < sizeof policies / sizeof *policies; i++) {
    bl_train_options o = options_for(4, policies[i]);
    o.ep = 2;
    if (i == 1) o.policy.late_repair = 1.01; /* an option of ballast alone */
    o.checkpoint = in_folder("checkpoint");
    CHECK_OK(bl_launch(&o));
    o.resume = o.checkpoint;
    o.steps = 12;
    o.ep = 4;
    CHECK_OK(bl_launch(&o));
  }
}

static void test_gates(void) {
  static const char *const gates[] = {"naive", "gshard", "switch", "uniform"};
  for (size_t i = 0; i < sizeof gates / sizeof *gates; i++) {
    bl_train_options o = options_for(3, "ballast");
    o.steps = 3;
    o.gate = gates[i];
    CHECK_OK(bl_launch(&o));
  }
  bl_train_options o = options_for(2, "ballast");
  o.gate = "trace:nowhere";
  CHECK_FAILS(bl_launch(&o), BL_EINPUT, "nowhere");
  static char forced[220];
  snprintf(forced, sizeof forced, "trace:%s", in_folder("trace"));
  o.gate = forced;
  o.record_trace = NULL;
  CHECK_OK(bl_launch(&o));
}

/* One rank fails: all end, with its sentence. */
static void test_failures(void) {
  bl_train_options o = options_for(4, "ballast");
  o.log = "/dev/full";
  CHECK_FAILS(bl_launch(&o), BL_EMACHINE, "/dev/full");
  o = options_for(4, "static");
  o.lr = 10;
  o.steps = 400;
  const bl_status status = bl_launch(&o); /* may blow up: then it says so */
  CHECK(status == BL_OK || (status == BL_EINPUT && strstr(bl_error_text(), "the loss is")));
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  o = options_for(4, "smartmoe:2");
  setenv("BL_TEST_FLIP_MOMENT", "step:2", 1);
  CHECK_FAILS(bl_launch(&o), BL_ECOMM, "changed on its way");
  unsetenv("BL_TEST_FLIP_MOMENT");
#endif
}

static void remove_all(void) {
  char command[200];
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  CHECK(system(command) == 0);
}

int main(void) {
  const char *tmp = getenv("TMPDIR");
  snprintf(folder, sizeof folder, "%.80s/test_train_run.%ld", tmp ? tmp : "/tmp", (long)getpid());
  CHECK_OK(bl_folder_create(folder));
  CHECK(write_inputs());
  RUN(test_policies);
  RUN(test_replicas);
  RUN(test_gates);
  RUN(test_failures);
  remove_all();
  TEST_MAIN_END;
}
