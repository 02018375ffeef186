/* program.c - what all programs do alike around their work: commands, --help, --version, signals, exit codes. */
#include "base/file.h"
#include "base/log.h"
#include "base/options.h"
#include "base/options_text.h"
#include "base/version.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void remove_outputs_and_exit(int number) {
  bl_output_discard_all();
  _exit(128 + number);
}

static void install_signal_handlers(void) {
  static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    struct sigaction old, action = {.sa_handler = remove_outputs_and_exit};
    sigemptyset(&action.sa_mask);
    /* what the caller has set to be ignored (nohup) stays ignored */
    if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN) sigaction(numbers[i], &action, NULL);
  }
  signal(SIGXFSZ, SIG_IGN); /* a file over the limit is then a failing write, which is reported */
}

static void print_commands(const char *program, const char *summary, const bl_command *commands, int n, FILE *stream) {
  int column = 12;
  for (int i = 0; i < n; i++) {
    const int needed = (int)strlen(commands[i].name) + 4;
    if (needed > column) column = needed;
  }
  fprintf(stream, "%s - %s\n\nusage: %s COMMAND [options]\n\nCommands:\n", program, summary, program);
  for (int i = 0; i < n; i++) {
    fprintf(stream, "  %-*s", column - 2, commands[i].name);
    bl_print_wrapped(stream, commands[i].summary, column, column);
  }
  fprintf(stream, "\n%s COMMAND --help explains a command.\n%s --version shows the version.\n", program, program);
}

static const bl_command *find_command(const bl_command *commands, int n, const char *name) {
  for (int i = 0; i < n; i++) {
    if (!strcmp(commands[i].name, name)) return &commands[i];
  }
  return NULL;
}

static bl_status unknown_command(const bl_command *commands, int n, const char *name) {
  char list[512] = "";
  const char *near = NULL;
  int best = 3;
  for (int i = 0; i < n; i++) {
    const size_t length = strlen(list);
    snprintf(list + length, sizeof list - length, "%s%s", i ? ", " : "", commands[i].name);
    const int distance = bl_spelling_distance(name, strlen(name), commands[i].name, strlen(commands[i].name));
    if (distance < best) {
      best = distance;
      near = commands[i].name;
    }
  }
  if (near) return bl_fail(BL_EUSAGE, "unknown command \"%s\"; did you mean %s?", name, near);
  return bl_fail(BL_EUSAGE, "unknown command \"%s\"; expected one of %s", name, list);
}

/* The command that the arguments name; *used is how many of them said so. *command stays NULL when all has been said.
 */
static bl_status choose_command(const char *program, const char *summary, const bl_command *commands, int n, int argc,
                                char **argv, const bl_command **command, int *used) {
  const char *first = argc > 1 ? argv[1] : "";
  if (!strcmp(first, "--version")) {
    printf("%s %s\n", program, BL_VERSION);
    return BL_OK;
  }
  if (n == 1 && !strcmp(commands[0].name, program)) {
    *command = &commands[0];
    *used = 1;
    return BL_OK;
  }
  if (!strcmp(first, "--help") || !strcmp(first, "-h") || (!strcmp(first, "help") && argc == 2)) {
    print_commands(program, summary, commands, n, stdout);
    return BL_OK;
  }
  if (argc < 2) {
    print_commands(program, summary, commands, n, stderr);
    return bl_fail(BL_EUSAGE, "expected a command");
  }
  if (!strcmp(first, "help")) {
    const bl_command *asked = find_command(commands, n, argv[2]);
    if (!asked) return unknown_command(commands, n, argv[2]);
    bl_options_print_help(program, asked, stdout);
    return BL_OK;
  }
  *command = find_command(commands, n, first);
  *used = 2;
  return *command ? BL_OK : unknown_command(commands, n, first);
}

static bl_status run_program(const char *program, const char *summary, const bl_command *commands, int n, int argc,
                             char **argv, const bl_command **command) {
  int used = argc;
  bool help = false;
  BL_TRY(choose_command(program, summary, commands, n, argc, argv, command, &used));
  if (!*command) return BL_OK;
  if (argc > used && !strcmp(argv[used], "--version")) {
    printf("%s %s\n", program, BL_VERSION);
    return BL_OK;
  }
  BL_TRY(bl_options_parse(program, *command, argc - used, argv + used, &help));
  return help ? BL_OK : (*command)->run((*command)->context);
}

static void report(const char *program, const bl_command *command, bl_status status) {
  const char *text = *bl_error_text() ? bl_error_text() : bl_status_meaning(status);
  if (status != BL_EUSAGE) {
    bl_log(0, "%s", text);
  } else if (command && strcmp(command->name, program) != 0) {
    bl_log(0, "%s (%s %s --help shows how)", text, program, command->name);
  } else {
    bl_log(0, "%s (%s --help shows how)", text, program);
  }
}

int bl_program_main(const char *program, const char *summary, const bl_command *commands, int n, int argc,
                    char **argv) {
  const bl_command *command = NULL;
  bl_log_set_program(program);
  install_signal_handlers();
  bl_error_clear();
  bl_status status = run_program(program, summary, commands, n, argc, argv, &command);
  errno = 0;
  if ((fflush(stdout) != 0 || ferror(stdout)) && status == BL_OK) {
    status = errno ? bl_fail_errno(BL_EMACHINE, "standard output: writing failed")
                   : bl_fail(BL_EMACHINE, "standard output: writing failed");
  }
  if (status != BL_OK) report(program, command, status);
  return bl_status_exit_code(status);
}
