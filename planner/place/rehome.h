/* rehome.h - moving homes where it pays: exchanges of two homes that remove imbalance which copies cannot, or that make
 * copies unnecessary.
 *
 * The objective is that of copies.h: mean over scenarios of the optimal imbalance, plus a price for each copy. A copy
 * that takes load from its home rank p to rank q says which exchanges may help: the copied expert itself changes places
 * with one of q's, or two experts of p and q whose loads differ by about what flows. Where a scenario stays unbalanced,
 * so do its captive experts with those outside. Only the most promising exchanges are tried, each with a short search
 * for copies; the best is taken while it gains the margin. */
#ifndef BL_PLANNER_PLACE_REHOME_H
#define BL_PLANNER_PLACE_REHOME_H

#include "planner/place/copies.h"

typedef struct bl_rehome_options {
  bl_copies_options copies; /* of the search that follows an exchange; its price counts here too */
  double margin;            /* an exchange must lower the objective by this much */
  int32_t exchanges;        /* at most, in one call */
  int32_t tries;            /* exchanges tried for each one made */
} bl_rehome_options;

void bl_rehome_options_init(bl_rehome_options *options);

/*! bl_rehome() : improves homes and copies of `hosts` (slots stay). scenarios[n][experts], speed as in
 *  bl_copies_search(); spare[2] are hosts of the same shape, overwritten; shares is a workspace of the same shape.
 *  Deterministic.  *exchanged: pairs of homes exchanged.  @return : BL_OK or BL_EMACHINE. */
bl_status bl_rehome(bl_copies *search, bl_shares *shares, bl_hosts *hosts, bl_hosts spare[2], const double *scenarios,
                    int32_t n, const double *speed, const bl_rehome_options *options, int32_t *exchanged);

#endif
