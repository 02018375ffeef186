/* test_base_options.c - the option parser, --help, whole programs with their exit codes; tables and log lines. */
#include "base/file.h"
#include "base/log.h"
#include "base/options.h"
#include "base/table.h"
#include "tests/check.h"

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

static struct {
  const char *trace, *folder, *policy, *output;
  int64_t ranks, top;
  double limit, prove;
  bool json, ranks_given;
} set;

static const bl_option options[] = {
    {.type = BL_OPTION_STRING, .target = &set.folder, .metavar = "DIR", .help = "A folder."},
    {.name = "trace",
     .type = BL_OPTION_STRING,
     .target = &set.trace,
     .metavar = "FILE",
     .help = "The recorded trace.",
     .required = true},
    {.type = BL_OPTION_HEADING, .help = "Decisions"},
    {.name = "ranks|p",
     .type = BL_OPTION_INT,
     .target = &set.ranks,
     .metavar = "P",
     .help = "Ranks of the group.",
     .min = 1,
     .max = 4096,
     .given = &set.ranks_given},
    {.name = "top", .type = BL_OPTION_INT, .target = &set.top, .help = "How many; all by default."},
    {.name = "limit", .type = BL_OPTION_NUMBER, .target = &set.limit, .help = "Repair above this.", .min = 1, .max = 9},
    {.name = "prove", .type = BL_OPTION_NUMBER, .target = &set.prove, .metavar = "SECONDS", .help = "Prove it."},
    {.name = "policy", .type = BL_OPTION_CHOICE, .target = &set.policy, .choices = "static|ballast", .help = "Which."},
    {.name = "json", .type = BL_OPTION_FLAG, .target = &set.json, .help = "For scripts."},
    {.name = "output|o", .type = BL_OPTION_STRING, .target = &set.output, .metavar = "FILE", .help = "Where to."},
};

static bl_status run_place(void *context) {
  const char *how = set.trace;
  (void)context;
  if (!strcmp(how, "input")) return bl_fail(BL_EINPUT, "input: bad");
  if (!strcmp(how, "silent")) return BL_EMACHINE;
  if (!strcmp(how, "stopped")) return BL_EINTERRUPTED;
  if (!strcmp(how, "print")) printf("%d\n", (int)set.ranks);
  if (!strcmp(how, "signal")) {
    bl_output *output = NULL;
    BL_TRY(bl_output_open(set.output, &output));
    raise(SIGINT);
    return bl_output_commit(output);
  }
  return BL_OK;
}

static const bl_command place = {.name = "place",
                                 .summary = "places experts on ranks",
                                 .description = "Chooses homes and copies so that every rank has the same work to do, "
                                                "and says how far from optimal the choice can be at most.",
                                 .example = "ballast-plan place --trace run.blt --ranks 8",
                                 .options = options,
                                 .n_options = sizeof options / sizeof *options,
                                 .run = run_place};

enum { MAX_ARGS = 16 };

/* Splits at single spaces, as few quotes as a test needs: none. */
static int split(char *text, char **argv) {
  int n = 0;
  for (char *word = strtok(text, " "); word && n < MAX_ARGS; word = strtok(NULL, " ")) argv[n++] = word;
  return n;
}

static bl_status parse(const char *arguments) {
  static char text[512];
  char *argv[MAX_ARGS];
  bool help = false;
  memset(&set, 0, sizeof set);
  set.ranks = 4;
  set.top = -1;
  set.limit = 1.02;
  set.policy = "ballast";
  set.output = "-";
  snprintf(text, sizeof text, "%s", arguments);
  const int n = split(text, argv);
  return bl_options_parse("ballast-plan", &place, n, argv, &help);
}

static void test_values(void) {
  CHECK_OK(parse("--trace a.blt"));
  CHECK_STRING(set.trace, "a.blt");
  CHECK(set.ranks == 4 && !set.ranks_given && !set.json && set.folder == NULL);
  CHECK_OK(parse("--trace=a=b --ranks 8 --json dir --limit 1.5 --policy static -o plan.json"));
  CHECK_STRING(set.trace, "a=b");
  CHECK_STRING(set.folder, "dir");
  CHECK_STRING(set.policy, "static");
  CHECK_STRING(set.output, "plan.json");
  CHECK(set.ranks == 8 && set.ranks_given && set.json);
  CHECK_NEAR(set.limit, 1.5, 0);
  CHECK_OK(parse("--trace x -p4k -oplan --top -3 --prove -2.5"));
  CHECK_INT(set.ranks, 4096);
  CHECK_INT(set.top, -3);
  CHECK_NEAR(set.prove, -2.5, 0);
  CHECK_STRING(set.output, "plan");
  CHECK_OK(parse("--trace x --ranks 2 --ranks 3"));
  CHECK_INT(set.ranks, 3);
  CHECK_OK(parse("--trace x -- --json"));
  CHECK_STRING(set.folder, "--json");
  CHECK(!set.json);
  CHECK_OK(parse("--trace x -"));
  CHECK_STRING(set.folder, "-");
}

static void test_usage_errors(void) {
  CHECK_FAILS(parse(""), BL_EUSAGE, "--trace is required");
  CHECK_FAILS(parse("--trace"), BL_EUSAGE, "--trace: expected FILE behind it");
  CHECK_FAILS(parse("--trace="), BL_EUSAGE, "--trace: expected FILE, found nothing");
  CHECK_FAILS(parse("--trcae x"), BL_EUSAGE, "--trcae: unknown option; did you mean --trace?");
  CHECK_FAILS(parse("--rank=3"), BL_EUSAGE, "--rank: unknown option; did you mean --ranks?");
  CHECK_FAILS(parse("--elephant"), BL_EUSAGE, "--elephant: unknown option");
  CHECK(strstr(bl_error_text(), "did you mean") == NULL);
  CHECK_FAILS(parse("-x"), BL_EUSAGE, "-x: unknown option");
  CHECK_FAILS(parse("--trace x --ranks 0"), BL_EUSAGE, "--ranks: expected an integer from 1 to 4096, found \"0\"");
  CHECK_FAILS(parse("--trace x -p 5k"), BL_EUSAGE, "--ranks: expected an integer from 1 to 4096, found \"5k\"");
  CHECK_FAILS(parse("--trace x --ranks 4.5"), BL_EUSAGE, "found \"4.5\"");
  CHECK_FAILS(parse("--trace x --ranks= "), BL_EUSAGE, "found \"\"");
  CHECK_FAILS(parse("--trace x --ranks 99999999999999999999"), BL_EUSAGE, "--ranks");
  CHECK_FAILS(parse("--trace x --top 9223372036854775807k"), BL_EUSAGE, "--top: expected an integer, found");
  CHECK_FAILS(parse("--trace x --limit nan"), BL_EUSAGE, "--limit: expected a number from 1 to 9, found \"nan\"");
  CHECK_FAILS(parse("--trace x --prove inf"), BL_EUSAGE, "--prove: expected a number, found \"inf\"");
  CHECK_FAILS(parse("--trace x --policy stat"), BL_EUSAGE, "--policy: expected one of static|ballast, found \"stat\"");
  CHECK_FAILS(parse("--trace x --policy static|ballast"), BL_EUSAGE, "--policy: expected one of");
  CHECK_FAILS(parse("--trace x --json=yes"), BL_EUSAGE, "--json: expected no value, found \"yes\"");
  CHECK_FAILS(parse("--trace x a b"), BL_EUSAGE, "unexpected argument \"b\"");
}

static void test_ranges(void) {
  int64_t a = 0, b = 0;
  CHECK_OK(bl_parse_range("121:2491", "--steps", &a, &b));
  CHECK(a == 121 && b == 2491);
  CHECK_OK(bl_parse_range("5", "--steps", &a, &b));
  CHECK(a == 5 && b == 5);
  CHECK_OK(bl_parse_range("7:", "--steps", &a, &b));
  CHECK(a == 7 && b == INT64_MAX);
  CHECK_OK(bl_parse_range(":9", "--steps", &a, &b));
  CHECK(a == INT64_MIN && b == 9);
  static const char *const bad[] = {"", ":", "9:8", "a", "1:b", "1:2:3", "1-2", " 1", "1 "};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    CHECK_FAILS(bl_parse_range(bad[i], "--steps", &a, &b), BL_EUSAGE, "--steps: expected A:B");
  }
  CHECK(b == 9);
}

static void test_help(void) {
  static const char EXPECTED[] = "ballast-plan place - places experts on ranks\n"
                                 "\n"
                                 "usage: ballast-plan place [DIR] --trace FILE [options]\n"
                                 "\n"
                                 "Chooses homes and copies so that every rank has the same work to do, and says\n"
                                 "how far from optimal the choice can be at most.\n"
                                 "\n"
                                 "Options:\n"
                                 "  DIR                      A folder.\n"
                                 "  --trace FILE             The recorded trace. (required)\n"
                                 "\n"
                                 "Decisions:\n"
                                 "  -p, --ranks P            Ranks of the group. (default 4)\n"
                                 "  --top N                  How many; all by default.\n"
                                 "  --limit X                Repair above this. (default 1.02)\n"
                                 "  --prove SECONDS          Prove it. (default 0)\n"
                                 "  --policy static|ballast  Which. (default ballast)\n"
                                 "  --json                   For scripts.\n"
                                 "  -o, --output FILE        Where to.\n"
                                 "\n"
                                 "Other:\n"
                                 "  -h, --help               Show this help and exit.\n"
                                 "\n"
                                 "Example:\n"
                                 "  ballast-plan place --trace run.blt --ranks 8\n";
  (void)parse("");
  char *text = NULL;
  size_t size = 0;
  FILE *stream = open_memstream(&text, &size);
  REQUIRE(stream != NULL);
  bl_options_print_help("ballast-plan", &place, stream);
  fclose(stream);
  CHECK_STRING(text, EXPECTED);
  free(text);
}

/* Runs bl_program_main() in a child; what it printed is in `text` (stdout, then stderr). */
static int run_program(const char *arguments, const char *stdout_path, char *text, size_t size) {
  char path[] = "/tmp/ballast-test-XXXXXX";
  const int fd = mkstemp(path);
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    char line[512];
    char *argv[MAX_ARGS];
    static const bl_command replay = {.name = "replay", .summary = "replays a trace", .run = run_place};
    const bl_command commands[] = {place, replay};
    (void)parse("");
    snprintf(line, sizeof line, "ballast-plan %s", arguments);
    const int n = split(line, argv);
    dup2(stdout_path ? open(stdout_path, O_WRONLY) : fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    const int code = bl_program_main("ballast-plan", "plans placements", commands, 2, n, argv);
    fflush(stdout);
    _exit(code);
  }
  int status = 0;
  waitpid(child, &status, 0);
  const ssize_t n = pread(fd, text, size - 1, 0);
  text[n > 0 ? n : 0] = 0;
  close(fd);
  unlink(path);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void program_gives(const char *arguments, const char *stdout_path, int code, const char *part) {
  char text[4096];
  const int found = run_program(arguments, stdout_path, text, sizeof text);
  if (!check_count(found == code && strstr(text, part))) {
    printf("ballast-plan %s: expected exit code %d and \"%s\", found %d and \"%s\"\n", arguments, code, part, found,
           text);
  }
}

static void test_program(void) {
  program_gives("--version", NULL, 0, "ballast-plan 0.1.0\n");
  program_gives("place --version", NULL, 0, "ballast-plan 0.1.0\n");
  program_gives("--help", NULL, 0, "  replay    replays a trace\n");
  program_gives("help", NULL, 0, "usage: ballast-plan COMMAND");
  program_gives("help place", NULL, 0, "usage: ballast-plan place [DIR]");
  program_gives("place --ranks nonsense --help", NULL, 0, "(default 4)");
  program_gives("", NULL, 2, "ballast-plan: expected a command");
  program_gives("palce", NULL, 2, "ballast-plan: unknown command \"palce\"; did you mean place?");
  program_gives("zzzzzzz", NULL, 2, "unknown command \"zzzzzzz\"; expected one of place, replay");
  program_gives("place", NULL, 2, "ballast-plan: --trace is required (ballast-plan place --help shows how)\n");
  program_gives("place --trace input", NULL, 1, "ballast-plan: input: bad\n");
  program_gives("place --trace silent", NULL, 3, "ballast-plan: the machine failed");
  program_gives("place --trace stopped", NULL, 130, "stopped cleanly");
  program_gives("place --trace print --ranks 12", NULL, 0, "12\n");
  program_gives("place --trace print", "/dev/full", 3, "standard output: writing failed: No space left on device");
  program_gives("--help", "/dev/full", 3, "standard output: writing failed");
}

static void test_interrupt_leaves_nothing(void) {
  char folder[] = "/tmp/ballast-test-XXXXXX", arguments[128];
  REQUIRE(mkdtemp(folder) != NULL);
  snprintf(arguments, sizeof arguments, "place --trace signal -o %s/plan", folder);
  program_gives(arguments, NULL, 130, "");
  CHECK(rmdir(folder) == 0); /* it is empty */
}

static void test_table(void) {
  bl_table *table = NULL;
  REQUIRE_OK(bl_table_create("<policy|mean|<note", &table));
  CHECK_OK(bl_table_cell(table, "static"));
  CHECK_OK(bl_table_cell(table, "%.4f", 5.8586));
  CHECK_OK(bl_table_cell(table, "caf\xc3\xa9"));
  CHECK_OK(bl_table_cell(table, "b"));
  CHECK_OK(bl_table_cell(table, "%d", 1));
  char *text = NULL;
  size_t size = 0;
  FILE *stream = open_memstream(&text, &size);
  REQUIRE(stream != NULL);
  bl_table_print(table, stream);
  fclose(stream);
  CHECK_STRING(text, "policy    mean  note\nstatic  5.8586  caf\xc3\xa9\nb            1\n");
  free(text);
  bl_table_free(table);
  bl_table_free(NULL);
}

static void test_log(void) {
  char path[] = "/tmp/ballast-test-XXXXXX", text[8192];
  const int fd = mkstemp(path), saved = dup(STDERR_FILENO);
  fflush(stderr);
  dup2(fd, STDERR_FILENO);
  bl_log_set_program("prog");
  bl_log(1, "once %d", 1);
  bl_log(2, "not shown");
  bl_warn("careful");
  bl_log_set_level(2);
  bl_log(2, "%s", "shown");
  bl_progress progress;
  bl_progress_start(&progress);
  progress.start_us -= 5000000;
  progress.last_us -= 5000000;
  bl_progress_update(&progress, "no terminal, no line");
  bl_progress_end(&progress);
  dup2(saved, STDERR_FILENO);
  const ssize_t n = pread(fd, text, sizeof text - 1, 0);
  text[n > 0 ? n : 0] = 0;
  CHECK_STRING(text, "prog: once 1\nprog: warning: careful\nprog: shown\n");
  close(fd);
  close(saved);
  unlink(path);
}

int main(void) {
  RUN(test_values);
  RUN(test_usage_errors);
  RUN(test_ranges);
  RUN(test_help);
  RUN(test_program);
  RUN(test_interrupt_leaves_nothing);
  RUN(test_table);
  RUN(test_log);
  TEST_MAIN_END;
}
