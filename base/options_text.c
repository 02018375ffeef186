/* options_text.c - --help, and which word was probably meant. */
#include "base/options_text.h"

#include <inttypes.h>
#include <string.h>

enum { LINE_WIDTH = 80, MAX_HELP_COLUMN = 30, MAX_WORD = 63 };

static int min_int(int a, int b) { return a < b ? a : b; }

int bl_spelling_distance(const char *a, size_t n_a, const char *b, size_t n_b) {
  if (n_a > MAX_WORD || n_b > MAX_WORD) return MAX_WORD + 1;
  int row[3][MAX_WORD + 1]; /* row[i % 3][j]: the first i letters of a, the first j of b */
  for (int j = 0; j <= (int)n_b; j++) row[0][j] = j;
  for (int i = 1; i <= (int)n_a; i++) {
    int *now = row[i % 3];
    const int *before = row[(i + 2) % 3], *two_before = row[(i + 1) % 3];
    now[0] = i;
    for (int j = 1; j <= (int)n_b; j++) {
      now[j] = min_int(before[j - 1] + (a[i - 1] != b[j - 1]), 1 + min_int(before[j], now[j - 1]));
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        now[j] = min_int(now[j], two_before[j - 2] + 1);
    }
  }
  return row[n_a % 3][n_b];
}

const char *bl_option_metavar(const bl_option *option) {
  if (option->metavar) return option->metavar;
  switch (option->type) {
  case BL_OPTION_INT:
    return "N";
  case BL_OPTION_NUMBER:
    return "X";
  case BL_OPTION_CHOICE:
    return option->choices;
  case BL_OPTION_STRING:
    return "TEXT";
  case BL_OPTION_FLAG:
  case BL_OPTION_HEADING:
    break;
  }
  return "";
}

void bl_print_wrapped(FILE *stream, const char *text, int column, int indent) {
  bool line_is_empty = true;
  while (*text) {
    const int word = (int)strcspn(text, " \n");
    if (!line_is_empty && column + 1 + word > LINE_WIDTH) {
      fprintf(stream, "\n%*s", indent, "");
      column = indent;
      line_is_empty = true;
    }
    fprintf(stream, "%s%.*s", line_is_empty ? "" : " ", word, text);
    column += word + !line_is_empty;
    line_is_empty = false;
    text += word;
    for (; *text == ' ' || *text == '\n'; text++) {
      if (*text != '\n') continue;
      fprintf(stream, "\n%*s", text[1] ? indent : 0, "");
      column = indent;
      line_is_empty = true;
    }
  }
  fputc('\n', stream);
}

static void format_left(const bl_option *option, char *text, size_t size) {
  if (!option->name) {
    snprintf(text, size, "  %s", bl_option_metavar(option));
    return;
  }
  const int length = (int)strcspn(option->name, "|");
  const char *value = bl_option_metavar(option);
  if (option->name[length]) {
    snprintf(text, size, "  -%c, --%.*s%s%s", option->name[length + 1], length, option->name, *value ? " " : "", value);
  } else {
    snprintf(text, size, "  --%.*s%s%s", length, option->name, *value ? " " : "", value);
  }
}

/* " (default 4)", " (required)" or nothing. */
static void format_default(const bl_option *option, char *text, size_t size) {
  text[0] = 0;
  if (option->required) {
    snprintf(text, size, " (required)");
    return;
  }
  if (!option->target || (option->help && strstr(option->help, "default"))) return;
  if (option->type == BL_OPTION_INT) {
    const int64_t value = *(const int64_t *)option->target;
    const bool is_sentinel = value < 0 && !(option->min < 0);
    if (!is_sentinel && bl_option_in_range(option, (double)value))
      snprintf(text, size, " (default %" PRId64 ")", value);
  } else if (option->type == BL_OPTION_NUMBER) {
    const double value = *(const double *)option->target;
    const bool is_sentinel = !(value >= 0) && !(option->min < 0);
    if (!is_sentinel && bl_option_in_range(option, value)) snprintf(text, size, " (default %.9g)", value);
  } else if (option->type == BL_OPTION_STRING || option->type == BL_OPTION_CHOICE) {
    const char *value = *(const char *const *)option->target;
    if (value && *value && strcmp(value, "-") != 0) snprintf(text, size, " (default %s)", value);
  }
}

static int help_column(const bl_command *command) {
  int column = 12;
  for (int i = 0; i < command->n_options; i++) {
    char left[160];
    if (command->options[i].type == BL_OPTION_HEADING) continue;
    format_left(&command->options[i], left, sizeof left);
    const int needed = (int)strlen(left) + 2;
    if (needed > column && needed <= MAX_HELP_COLUMN) column = needed;
  }
  return column;
}

static void print_row(FILE *stream, const char *left, const char *help, int column) {
  if ((int)strlen(left) + 2 <= column) {
    fprintf(stream, "%-*s", column, left);
  } else {
    fprintf(stream, "%s\n%*s", left, column, "");
  }
  bl_print_wrapped(stream, help, column, column);
}

static void print_usage(const char *program, const bl_command *command, FILE *stream) {
  char text[1024];
  size_t n = (size_t)snprintf(text, sizeof text, "usage: %s", program);
  if (strcmp(program, command->name) != 0) n += (size_t)snprintf(text + n, sizeof text - n, " %s", command->name);
  const int indent = (int)n + 1;
  bool has_optional = false;
  for (int i = 0; i < command->n_options && n < sizeof text / 2; i++) {
    const bl_option *option = &command->options[i];
    if (option->type == BL_OPTION_HEADING) continue;
    const char *open = option->required ? "" : "[", *close = option->required ? "" : "]";
    if (!option->name) {
      n += (size_t)snprintf(text + n, sizeof text - n, " %s%.60s%s", open, bl_option_metavar(option), close);
    } else if (option->required) {
      n += (size_t)snprintf(text + n, sizeof text - n, " --%.*s %.60s", (int)strcspn(option->name, "|"), option->name,
                            bl_option_metavar(option));
    } else {
      has_optional = true;
    }
  }
  snprintf(text + n, sizeof text - n, "%s", has_optional ? " [options]" : "");
  bl_print_wrapped(stream, text, 0, indent);
}

void bl_options_print_help(const char *program, const bl_command *command, FILE *stream) {
  const bool is_sub = strcmp(program, command->name) != 0;
  const int column = help_column(command);
  fprintf(stream, "%s%s%s - %s\n\n", program, is_sub ? " " : "", is_sub ? command->name : "", command->summary);
  print_usage(program, command, stream);
  if (command->description) {
    fputc('\n', stream);
    bl_print_wrapped(stream, command->description, 0, 0);
  }
  if (command->n_options > 0 && command->options[0].type != BL_OPTION_HEADING) fputs("\nOptions:\n", stream);
  for (int i = 0; i < command->n_options; i++) {
    const bl_option *option = &command->options[i];
    if (option->type == BL_OPTION_HEADING) {
      fprintf(stream, "\n%s:\n", option->help);
      continue;
    }
    char left[160], right[1024], note[128];
    format_left(option, left, sizeof left);
    format_default(option, note, sizeof note);
    snprintf(right, sizeof right, "%.800s%s", option->help ? option->help : "", note);
    print_row(stream, left, right, column);
  }
  fputs("\nOther:\n", stream);
  print_row(stream, "  -h, --help", "Show this help and exit.", column);
  if (!is_sub) print_row(stream, "  --version", "Show the version and exit.", column);
  if (command->example) fprintf(stream, "\nExample:\n  %s\n", command->example);
}
