/* table.h - a small text table for people: columns line up, numbers to the right. */
#ifndef BL_BASE_TABLE_H
#define BL_BASE_TABLE_H

#include "base/status.h"
#include <stdio.h>

typedef struct bl_table bl_table;

/*! bl_table_create() : columns named by `headings` separated by |; a leading < aligns a column left ("<policy|mean").
 */
bl_status bl_table_create(const char *headings, bl_table **out);
/*! bl_table_cell() : the next cell, row by row from the left; at most 511 bytes of text. */
bl_status bl_table_cell(bl_table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
void bl_table_print(const bl_table *table, FILE *stream);
void bl_table_free(bl_table *table);

#endif
