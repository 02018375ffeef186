/* options.c - the parser behind the option tables. */
#include "base/options.h"
#include "base/options_text.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Reads digits and a multiplier at *text and moves it behind them. */
static bool read_int(const char **text, int64_t *out) {
  char *end;
  errno = 0;
  const long long value = strtoll(*text, &end, 10);
  if (end == *text || errno != 0 || (**text != '-' && (**text < '0' || **text > '9'))) return false;
  const int shift = *end == 'k' || *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;
  if (__builtin_mul_overflow(value, (int64_t)1 << shift, out)) return false;
  *text = end + (shift != 0);
  return true;
}

bl_status bl_parse_int(const char *text, const char *what, int64_t *out) {
  const char *end = text;
  int64_t value;
  if (!read_int(&end, &value) || *end) return bl_fail(BL_EUSAGE, "%s: expected an integer, found \"%s\"", what, text);
  *out = value;
  return BL_OK;
}

bl_status bl_parse_range(const char *text, const char *what, int64_t *lower, int64_t *upper) {
  const char *p = text;
  int64_t low = INT64_MIN, high = INT64_MAX;
  bool good = *p && strcmp(p, ":") != 0 && (*p == ':' || read_int(&p, &low));
  if (good && *p == ':') {
    p++;
    good = !*p || read_int(&p, &high);
  } else {
    high = low;
  }
  if (!good || *p || low > high) {
    return bl_fail(BL_EUSAGE, "%s: expected A:B with A not above B, found \"%s\"", what, text);
  }
  *lower = low;
  *upper = high;
  return BL_OK;
}

static bool has_range(const bl_option *option) { return option->min < 0 || option->min > 0 || option->max > 0; }

bool bl_option_in_range(const bl_option *option, double value) {
  return !has_range(option) || (value >= option->min && value <= option->max);
}

static bl_status bad_number(const bl_option *option, const char *what, const char *text) {
  const char *kind = option->type == BL_OPTION_INT ? "an integer" : "a number";
  if (!has_range(option)) return bl_fail(BL_EUSAGE, "%s: expected %s, found \"%s\"", what, kind, text);
  const int digits = option->type == BL_OPTION_INT ? 17 : 9;
  return bl_fail(BL_EUSAGE, "%s: expected %s from %.*g to %.*g, found \"%s\"", what, kind, digits, option->min, digits,
                 option->max, text);
}

static bl_status set_number(const bl_option *option, const char *what, const char *text) {
  if (option->type == BL_OPTION_INT) {
    const char *end = text;
    int64_t value;
    if (!read_int(&end, &value) || *end || !bl_option_in_range(option, (double)value)) {
      return bad_number(option, what, text);
    }
    *(int64_t *)option->target = value;
    return BL_OK;
  }
  char *end;
  const double value = strtod(text, &end);
  if (end == text || *end || !isfinite(value) || !bl_option_in_range(option, value)) {
    return bad_number(option, what, text);
  }
  *(double *)option->target = value;
  return BL_OK;
}

static bool is_choice(const char *choices, const char *text) {
  const size_t length = strlen(text);
  for (const char *p = choices; *p;) {
    const size_t word = strcspn(p, "|");
    if (word == length && !memcmp(p, text, word)) return true;
    p += word + (p[word] == '|');
  }
  return false;
}

static bl_status set_value(const bl_option *option, const char *what, const char *text) {
  switch (option->type) {
  case BL_OPTION_INT:
  case BL_OPTION_NUMBER:
    return set_number(option, what, text);
  case BL_OPTION_CHOICE:
    if (!is_choice(option->choices, text)) {
      return bl_fail(BL_EUSAGE, "%s: expected one of %s, found \"%s\"", what, option->choices, text);
    }
    break;
  case BL_OPTION_STRING:
    if (!*text) return bl_fail(BL_EUSAGE, "%s: expected %s, found nothing", what, bl_option_metavar(option));
    break;
  case BL_OPTION_FLAG:
  case BL_OPTION_HEADING:
    break;
  }
  *(const char **)option->target = text;
  return BL_OK;
}

/* The option with this long name (of `length` letters), or with this short one. */
static const bl_option *find_option(const bl_command *command, const char *name, size_t length, bool is_short) {
  for (int i = 0; i < command->n_options; i++) {
    const bl_option *option = &command->options[i];
    if (option->type == BL_OPTION_HEADING || !option->name) continue;
    const size_t longer = strcspn(option->name, "|");
    if (is_short ? option->name[longer] && option->name[longer + 1] == *name
                 : longer == length && !memcmp(option->name, name, length)) {
      return option;
    }
  }
  return NULL;
}

static const bl_option *find_positional(const bl_command *command, int index) {
  for (int i = 0; i < command->n_options; i++) {
    const bl_option *option = &command->options[i];
    if (option->type != BL_OPTION_HEADING && !option->name && index-- == 0) return option;
  }
  return NULL;
}

static bl_status unknown_option(const bl_command *command, const char *arg) {
  const char *near = NULL;
  int best = 4;
  for (int i = 0; i < command->n_options; i++) {
    const bl_option *option = &command->options[i];
    if (option->type == BL_OPTION_HEADING || !option->name) continue;
    const int distance = bl_spelling_distance(arg + 2, strcspn(arg + 2, "="), option->name, strcspn(option->name, "|"));
    if (distance < best) {
      best = distance;
      near = option->name;
    }
  }
  const int shown = (int)strcspn(arg, "=");
  if (arg[1] != '-' || !near) return bl_fail(BL_EUSAGE, "%.*s: unknown option", shown, arg);
  return bl_fail(BL_EUSAGE, "%.*s: unknown option; did you mean --%.*s?", shown, arg, (int)strcspn(near, "|"), near);
}

/* One option at argv[*i]: --name VALUE, --name=VALUE, --flag, -o VALUE, -oVALUE. Moves *i to the last argument used. */
static bl_status parse_option(const bl_command *command, int argc, char **argv, int *i) {
  const char *arg = argv[*i];
  const bool is_short = arg[1] != '-';
  const size_t length = is_short ? 1 : strcspn(arg + 2, "=");
  const bl_option *option = find_option(command, is_short ? arg + 1 : arg + 2, length, is_short);
  if (!option) return unknown_option(command, arg);
  char what[80];
  snprintf(what, sizeof what, "--%.*s", (int)strcspn(option->name, "|"), option->name);
  const char *attached = is_short ? arg + 2 : arg + 2 + length + (arg[2 + length] == '=');
  const bool is_attached = is_short ? *attached != 0 : arg[2 + length] == '=';
  if (option->given) *option->given = true;
  if (option->type == BL_OPTION_FLAG) {
    if (is_attached) return bl_fail(BL_EUSAGE, "%s: expected no value, found \"%s\"", what, attached);
    *(bool *)option->target = true;
    return BL_OK;
  }
  if (is_attached) return set_value(option, what, attached);
  if (*i + 1 >= argc) return bl_fail(BL_EUSAGE, "%s: expected %s behind it", what, bl_option_metavar(option));
  return set_value(option, what, argv[++*i]);
}

static bl_status check_required(const bl_command *command, const bool *seen) {
  for (int i = 0; i < command->n_options; i++) {
    const bl_option *option = &command->options[i];
    if (!option->required || option->type == BL_OPTION_HEADING || seen[i]) continue;
    if (!option->name) return bl_fail(BL_EUSAGE, "expected the argument %s", bl_option_metavar(option));
    return bl_fail(BL_EUSAGE, "--%.*s is required", (int)strcspn(option->name, "|"), option->name);
  }
  return BL_OK;
}

static bool asks_for_help(int argc, char **argv) {
  for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
    if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) return true;
  }
  return false;
}

static bl_status parse_all(const bl_command *command, int argc, char **argv, bool *seen) {
  int n_positional = 0;
  bool options_end = false;
  for (int i = 0; i < argc; i++) {
    const char *arg = argv[i];
    const bl_option *option = NULL;
    if (!options_end && !strcmp(arg, "--")) {
      options_end = true;
      continue;
    }
    if (!options_end && arg[0] == '-' && arg[1]) {
      const size_t length = arg[1] == '-' ? strcspn(arg + 2, "=") : 1;
      option = find_option(command, arg[1] == '-' ? arg + 2 : arg + 1, length, arg[1] != '-');
      BL_TRY(parse_option(command, argc, argv, &i));
    } else {
      option = find_positional(command, n_positional++);
      if (!option) return bl_fail(BL_EUSAGE, "unexpected argument \"%s\"", arg);
      if (option->given) *option->given = true;
      BL_TRY(set_value(option, bl_option_metavar(option), arg));
    }
    seen[option - command->options] = true;
  }
  return check_required(command, seen);
}

bl_status bl_options_parse(const char *program, const bl_command *command, int argc, char **argv, bool *help) {
  *help = asks_for_help(argc, argv);
  if (*help) {
    bl_options_print_help(program, command, stdout);
    return BL_OK;
  }
  bool *seen = calloc((size_t)command->n_options + 1, sizeof *seen);
  if (!seen) return bl_fail(BL_EMACHINE, "out of memory: the options");
  const bl_status status = parse_all(command, argc, argv, seen);
  free(seen);
  return status;
}
