/* relay.h - who feeds each copy: fills (and, backwards, reductions) on trees chosen so that no port has much to do.
 *
 * An expert's copies are ordered node by node, the home's first. Its tree is one of: all from the home; one copy a node
 * from the home, which feeds its node's others; a chain through all; a chain through one copy a node, each of which
 * feeds its node's others; a binary tree in that order. A chain loads no port twice but pays every hop's latency. Trees
 * are chosen expert by expert, those with most copies first, then again as long as the price falls: fill and reduction
 * together take (bytes of both) * busiest port + 2 * longest way. Long messages are taken to be cut into pieces that
 * follow one another down the tree. */
#ifndef BL_PLANNER_PLACE_RELAY_H
#define BL_PLANNER_PLACE_RELAY_H

#include "planner/place/cost.h"

typedef struct bl_relay bl_relay; /* workspace of one thread for one machine */

/*! bl_relay_create() : `machine` is borrowed and sound. */
bl_status bl_relay_create(const bl_place_machine *machine, int32_t experts, bl_relay **out);
void bl_relay_free(bl_relay *relay);

/*! bl_relay_choose() : feeder[n] for copies[n] of experts at home[experts]: never dearer than all from their homes.
 *  @return : BL_OK or BL_EMACHINE. */
bl_status bl_relay_choose(bl_relay *relay, const int32_t *home, const bl_copy *copies, int32_t n, int32_t *feeder);

#endif
