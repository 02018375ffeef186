/* options_text.h - what option tables look like to a person. Private to base/. */
#ifndef BL_BASE_OPTIONS_TEXT_H
#define BL_BASE_OPTIONS_TEXT_H

#include "base/options.h"
#include <stddef.h>

/*! bl_option_metavar() : the word that stands for the value: metavar, choices or one made from the type. */
const char *bl_option_metavar(const bl_option *option);

/*! bl_option_in_range() : whether `value` lies in the option's range (always, when it has none). */
bool bl_option_in_range(const bl_option *option, double value);

/*! bl_spelling_distance() : letters to insert, drop, change or swap with the next to get from a to b; words of more
 * than 63 letters are 64 apart. */
int bl_spelling_distance(const char *a, size_t n_a, const char *b, size_t n_b);

/*! bl_print_wrapped() : text in lines of at most 80 characters, the first one starting at `column`, the others at
 *  `indent`; ends with a newline. */
void bl_print_wrapped(FILE *stream, const char *text, int column, int indent);

#endif
