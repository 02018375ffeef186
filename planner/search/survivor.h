/* survivor.h - a layout that the search has priced, simulated: the step programs of its pipeline positions, in the
 * order that the passes give them. */
#ifndef BL_PLANNER_SEARCH_SURVIVOR_H
#define BL_PLANNER_SEARCH_SURVIVOR_H

#include "costmodel/simulate_pipeline.h"
#include "planner/search/search.h"

/* Programs of all positions, and what their actions take. */
typedef struct bl_survivor {
  bl_layout layout;
  bl_work *work;           /* [kinds of positions] */
  const bl_work **work_at; /* [pp]: of each position */
  int32_t built;           /* programs in step */
  bl_step *step;           /* [pp] */
} bl_survivor;

/*! bl_survivor_build() : for an entry of the search; micro_batches of a step, of which the entry's may have more. The
 *  caller frees with bl_survivor_free().  @return : BL_OK; BL_ENOTSUP for a model that no builder knows; BL_EMACHINE.
 */
bl_status bl_survivor_build(const bl_search_options *options, const bl_search_entry *entry, int32_t micro_batches,
                            bl_survivor *out);
void bl_survivor_free(bl_survivor *survivor); /* a zeroed one is fine */

/*! bl_survivor_simulate() : fills entry->simulated, whose parts are of the position that computes most: what its
 * compute stream does, and what it stands still for. Long steps are
 *  taken from shorter ones as soon as pp micro-batches more take as long as the pp before: the rest is taken to go on
 *  like that (tests compare with whole steps). `exact`: simulate it whole all the same. */
bl_status bl_survivor_simulate(const bl_search_options *options, bool exact, bl_search_entry *entry);

#endif
