/* options.h - one table makes the parser, --help and later the man page. */
#ifndef BL_BASE_OPTIONS_H
#define BL_BASE_OPTIONS_H

#include "base/status.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef enum bl_option_type {
  BL_OPTION_FLAG,   /* bool:       --name */
  BL_OPTION_INT,    /* int64_t:    --name N, also 8k / 4M (binary multiples) */
  BL_OPTION_NUMBER, /* double */
  BL_OPTION_STRING, /* const char * */
  BL_OPTION_CHOICE, /* const char *: one of `choices`, separated by | */
  BL_OPTION_HEADING /* no option: starts a group in --help */
} bl_option_type;

typedef struct bl_option {
  const char *name; /* long name without dashes; "output|o" has the short form -o too; NULL: a positional argument */
  bl_option_type type;
  void *target;        /* holds the default before parsing */
  const char *metavar; /* as in --help: FILE, N, A:B; the positional argument's name */
  const char *help;    /* one sentence (the group's title for HEADING). The default is added from *target at help time
                          unless it is out of range, an empty string or "-", or the sentence says "default" itself */
  const char *choices; /* CHOICE only: "threads|mpi|nccl" */
  double min, max;     /* INT and NUMBER: inclusive range; both 0 = any */
  bool required;
  bool *given; /* optional: set when the user gave it */
} bl_option;

typedef struct bl_command {
  const char *name;        /* sub-command, or the program itself when it has none */
  const char *summary;     /* one line */
  const char *description; /* a paragraph, or NULL */
  const char *example;     /* one working command line, or NULL */
  const bl_option *options;
  int n_options;
  bl_status (*run)(void *context); /* called after parsing */
  void *context;
} bl_command;

/*! bl_options_parse() : fills the targets of `command` from argv[0..argc-1] (program and sub-command names stripped).
 *  "--name VALUE" and "--name=VALUE" mean the same, "--" ends the options, the last of several wins; string targets
 * point into argv. "--help" anywhere prints to stdout, sets *help and touches no target.
 *  @return : BL_OK or BL_EUSAGE with a sentence that names the option. */
bl_status bl_options_parse(const char *program, const bl_command *command, int argc, char **argv, bool *help);

/*! bl_program_main() : the whole of a main(): chooses the sub-command (or the only command when n == 1 and its name
 *  equals the program's), parses, runs, prints "PROGRAM: sentence" on failure, returns the exit code.
 *  "--help" and "--version" work at both levels; a misspelt command gets the nearest one named. Standard output that
 *  cannot be written is a failure (3). On SIGINT, SIGTERM, SIGHUP and SIGPIPE unfinished output files are removed and
 * the program exits with 128 + the signal's number, unless `run` has put its own handler in place. */
int bl_program_main(const char *program, const char *summary, const bl_command *commands, int n, int argc, char **argv);

/*! bl_options_print_help() : what --help prints. */
void bl_options_print_help(const char *program, const bl_command *command, FILE *stream);

/*! bl_parse_int() : an integer, also 8k, 4M or 2G (binary multiples).  `what` names the option in the BL_EUSAGE error.
 */
bl_status bl_parse_int(const char *text, const char *what, int64_t *out);

/*! bl_parse_range() : "A:B", "A:", ":B" or "A" (inclusive), lower <= upper; an open end is INT64_MIN or INT64_MAX.
 *  `what` names the option in the BL_EUSAGE error. */
bl_status bl_parse_range(const char *text, const char *what, int64_t *lower, int64_t *upper);

#endif
