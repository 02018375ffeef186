/* rehome.h - moving homes where it pays: changes of homes that remove imbalance which copies cannot, or that make
 * copies unnecessary.
 *
 * The objective is that of copies.h: mean over scenarios of the optimal imbalance, plus a price for each copy. A change
 * exchanges two homes, or moves one alone into a copy slot of its new rank (empty, or whose copy it replaces), which
 * leaves a copy slot behind on its old one. A copy that takes load from its home rank p to rank q says which changes
 * may help: an expert of p goes to q whose load is about what flows, or changes places with one of q's whose load is
 * less by about that; or the copied expert itself goes. The same between the most and least loaded rank and all others,
 * with half the difference of their loads as flow. Only the most promising changes are tried, each with a short search
 * for copies; the best is taken while it gains the margin for each home that it moves. */
#ifndef BL_PLANNER_PLACE_REHOME_H
#define BL_PLANNER_PLACE_REHOME_H

#include "planner/place/copies.h"

typedef struct bl_rehome_options {
  bl_copies_options copies; /* of the search that follows a change; its price counts here too */
  double margin;            /* a change must lower the objective by this much for each home that it moves */
  int32_t changes;          /* at most, in one call */
  int32_t tries;            /* changes tried on the mean of the scenarios, for each one made */
  int32_t finalists;        /* of these, tried on the scenarios themselves */
} bl_rehome_options;

void bl_rehome_options_init(bl_rehome_options *options);

/*! bl_rehome() : improves homes and copies of `hosts` (slots stay). scenarios[n][experts], speed as in
 *  bl_copies_search(); spare[2] are hosts of the same shape, overwritten; shares is a workspace of the same shape.
 *  Deterministic.  *moved: homes that changed place, those of every change counted.  @return : BL_OK or BL_EMACHINE. */
bl_status bl_rehome(bl_copies *search, bl_shares *shares, bl_hosts *hosts, bl_hosts spare[2], const double *scenarios,
                    int32_t n, const double *speed, const bl_rehome_options *options, int32_t *moved);

#endif
