/* table.c - cells kept as text, widths known at printing. */
#include "base/table.h"
#include "base/memory.h"

#include <stdarg.h>
#include <stdbool.h>
#include <string.h>

struct bl_table {
  char **cells; /* row by row; the first row holds the headings */
  bool *is_left;
  int *width; /* of each column, in characters */
  size_t n_columns, n_cells, capacity;
};

/* Characters of UTF-8 text. */
static int width_of(const char *text) {
  int n = 0;
  for (; *text; text++) n += (*text & 0xc0) != 0x80;
  return n;
}

static bl_status add_cell(bl_table *table, const char *text) {
  BL_TRY(bl_grow(&table->cells, &table->capacity, table->n_cells + 1, sizeof *table->cells, "a table"));
  char *copy = strdup(text);
  if (!copy) return bl_fail(BL_EMACHINE, "out of memory: a table");
  int *width = &table->width[table->n_cells % table->n_columns];
  if (*width < width_of(text)) *width = width_of(text);
  table->cells[table->n_cells++] = copy;
  return BL_OK;
}

static bl_status add_headings(bl_table *table, char *text) {
  table->n_columns = 1;
  for (const char *p = text; *p; p++) table->n_columns += *p == '|';
  BL_TRY(bl_new(&table->is_left, table->n_columns, sizeof *table->is_left, "a table"));
  BL_TRY(bl_new(&table->width, table->n_columns, sizeof *table->width, "a table"));
  for (size_t column = 0; column < table->n_columns; column++) {
    char *end = strchr(text, '|');
    if (end) *end = 0;
    table->is_left[column] = *text == '<';
    BL_TRY(add_cell(table, text + table->is_left[column]));
    if (end) text = end + 1;
  }
  return BL_OK;
}

bl_status bl_table_create(const char *headings, bl_table **out) {
  bl_table *table = NULL;
  BL_TRY(bl_new(&table, 1, sizeof *table, "a table"));
  char *copy = strdup(headings);
  const bl_status status = copy ? add_headings(table, copy) : bl_fail(BL_EMACHINE, "out of memory: a table");
  free(copy);
  if (status != BL_OK) {
    bl_table_free(table);
    return status;
  }
  *out = table;
  return BL_OK;
}

bl_status bl_table_cell(bl_table *table, const char *format, ...) {
  char text[512];
  va_list args;
  va_start(args, format);
  if (vsnprintf(text, sizeof text, format, args) < 0) text[0] = 0;
  va_end(args);
  return add_cell(table, text);
}

void bl_table_print(const bl_table *table, FILE *stream) {
  for (size_t start = 0; start < table->n_cells; start += table->n_columns) {
    for (size_t column = 0; column < table->n_columns && start + column < table->n_cells; column++) {
      const char *text = table->cells[start + column];
      const int pad = table->width[column] - width_of(text);
      const bool is_last = column + 1 == table->n_columns || start + column + 1 == table->n_cells;
      if (column) fputs("  ", stream);
      if (table->is_left[column]) {
        fprintf(stream, "%s%*s", text, is_last ? 0 : pad, "");
      } else {
        fprintf(stream, "%*s%s", pad, "", text);
      }
    }
    fputc('\n', stream);
  }
}

void bl_table_free(bl_table *table) {
  if (!table) return;
  for (size_t i = 0; i < table->n_cells; i++) free(table->cells[i]);
  free(table->cells);
  free(table->is_left);
  free(table->width);
  free(table);
}
